"""nginx, Node and Python serve; curl, Node, Python and nginx call; all of them read the applied files as they are."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.integration.crafted import look_alike, misnamed
from tests.integration.estate import LOOPBACK, Estate, Inventory, bundle, internal
from tests.integration.peers import (
    LET_IN,
    NOBODY,
    TURNED_AWAY,
    Nginx,
    NodeServer,
    Place,
    Posing,
    PythonServer,
    Shown,
    by_curl,
    by_egress,
    by_node,
    by_python,
    caller_context,
    get,
    posing,
    python_door,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Case = tuple[str, str]
    """(the callee as its callers' files call it, who comes or how)."""

pytestmark = [
    pytest.mark.usefixtures("loopback"),
    *(pytest.mark.peer(name) for name in ("nginx", "node", "curl")),
]

SERVERS = {"schedule": "nginx", "planner": "node", "archive": "pem"}
DOORS = {"old": "1.2", "new": "1.3"}
CALLERS = ("mail", "social", "report")
PORTALS = {door: f"portal-{door}" for door in DOORS}
"""An nginx calls a service at one listener: here each of two services, and of two identities, at its own."""
IMPOSTORS = ("misnamed", "misissued")
STRANGER = "stranger"
ITSELF = "itself"


class World:
    """One estate with every kind of peer: servers on `north` and `west`, callers on `south` and `east`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.estate = Estate(folder)
        self.hosts = {name: self.estate.address(n) for n, name in enumerate(("north", "west", "south", "east"), 2)}
        self.places = {
            bundle(service, door): self._place(service, "north" if runtime == "nginx" else "west")
            for service, runtime in SERVERS.items()
            for door in DOORS
        }
        self.places |= {name: self._place(name, "west") for name in IMPOSTORS}
        self.egress = {callee: self.estate.free_port(LOOPBACK) for callee in self.places}
        self.poser_port = self.estate.free_port(LOOPBACK)
        # A second service of the same nginx shares its ports and is told apart by name.
        self.places |= {
            f"ledger.{door}": self.places[f"schedule.{door}"]._replace(name=internal("ledger")) for door in DOORS
        }

    def _place(self, service: str, host: str) -> Place:
        return Place(internal(service), self.hosts[host], self.estate.free_port(self.hosts[host]))

    @property
    def doors(self) -> list[str]:
        """Every way in that has the four callers, with one protocol each."""
        return [bundle(service, door) for service in SERVERS for door in DOORS]

    def inventory(self) -> Inventory:
        pid_files = {"north": {"nginx": "run/nginx.pid"}, "south": {"nginx": "run/nginx.pid"}}
        return {
            "version": 1,
            "name": "calendar",
            "hosts": {
                name: {"directory": f"out/{name}", "address": address}
                | ({"pid_files": pid_files[name]} if name in pid_files else {})
                for name, address in self.hosts.items()
            },
            "services": {
                "schedule": self._server("schedule", "nginx", "north"),
                "planner": self._server("planner", "node", "west"),
                "archive": self._server("archive", "pem", "west"),
                "ledger": self._server("ledger", "nginx", "north", [STRANGER]),
                **{
                    name: {"runtime": "pem", "hosts": ["west"], "listen": self.places[name].port}
                    | {"bind": "host", "callers": [*CALLERS, PORTALS["new"]]}
                    for name in IMPOSTORS
                },
                "mail": {"runtime": "curl", "hosts": ["east"]},
                "social": {"runtime": "node", "hosts": ["east"]},
                "report": {"runtime": "pem", "hosts": ["east"]},
                **{name: self._portal(door) for door, name in PORTALS.items()},
                STRANGER: {"runtime": "pem", "hosts": ["east"]},
            },
        }

    def _portal(self, door: str) -> dict[str, object]:
        doors = [bundle(service, door) for service in SERVERS]
        callees = [*doors, *IMPOSTORS] if door == "new" else doors
        egress = {service_of(callee): self.egress[callee] for callee in callees}
        return {"runtime": "nginx", "hosts": ["south"], "settings": {"egress": egress}}

    def _server(self, name: str, runtime: str, host: str, callers: list[str] | None = None) -> dict[str, object]:
        listeners = [
            {"name": door, "port": self.places[f"{name}.{door}"].port, "bind": "host"}
            | {"protocols": [tls], "callers": callers or [*CALLERS, PORTALS[door]]}
            for door, tls in DOORS.items()
        ]
        return {"runtime": runtime, "hosts": [host], "listeners": listeners}

    def release(self, host: str, service: str) -> Path:
        """The only release of a service after one apply."""
        (release,) = (self.estate.folder(host, service) / "releases").iterdir()
        return release

    def impostor(self, name: str, shows: Posing) -> dict[str, object]:
        return python_door(
            self.folder, name, "main", self.places[name], chain=str(shows.cert), key=str(shows.key), clients=None
        )

    def posers(self) -> dict[str, Posing | str]:
        """Who else comes to each door: one that is declared elsewhere only, nobody, a look-alike of a caller."""
        return {
            "a stranger": posing(self.release("east", STRANGER)),
            "nobody": NOBODY,
            "a look-alike": look_alike(self.folder / "look-alike", self.release("east", "mail")),
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    """All peers, up and serving what one apply wrote."""
    world = World(tmp_path_factory.mktemp("interop"))
    estate, places = world.estate, world.places
    estate.apply(world.inventory())
    west = estate.host("west")
    archive = [
        python_door(estate.current("west", "archive"), "archive", door, places[f"archive.{door}"], (tls,))
        for door, tls in DOORS.items()
    ]
    wrong = misnamed(world.folder / "misnamed", estate, "misnamed", world.release("west", "misnamed"))
    foreign = look_alike(world.folder / "misissued", world.release("west", "misissued"))
    impostors = [world.impostor("misnamed", wrong), world.impostor("misissued", foreign)]
    planner = [(door, places[f"planner.{door}"].address, places[f"planner.{door}"].port) for door in DOORS]
    with contextlib.ExitStack() as running:
        for program in (
            Nginx(estate.host("north"), [places[f"schedule.{door}"][1:] for door in DOORS]),
            NodeServer(west, "planner", planner),
            PythonServer(world.folder / "python.log", [*archive, *impostors]),
        ):
            running.enter_context(program)
        yield world


def expected(world: World, posers: Mapping[str, object]) -> dict[Case, str]:
    """Itself gets in everywhere and nobody else anywhere; who is called and is not who they should be gets nothing."""
    seen = {(door, who): TURNED_AWAY for door in world.doors for who in posers}
    return seen | {(door, ITSELF): LET_IN for door in world.doors} | {(name, ITSELF): TURNED_AWAY for name in IMPOSTORS}


def tried(
    world: World, posers: Mapping[str, Posing | str], call: Callable[[str, Posing | str | None], Shown]
) -> dict[Case, Shown]:
    cases = expected(world, posers)
    return {(callee, who): call(callee, posers.get(who)) for callee, who in cases}


def judged(shown: Mapping[Case, Shown], cases: Mapping[Case, str]) -> None:
    """Every case went as expected; those that did not are told with what they showed."""
    assert cases.keys() == shown.keys()
    assert {} == {case: shown[case] for case in cases if shown[case].outcome != cases[case]}
    assert {LET_IN, TURNED_AWAY} == {one.outcome for one in shown.values()}


@pytest.fixture(scope="module")
def posers(world: World) -> dict[str, Posing | str]:
    return world.posers()


def test_curl_gets_in_where_it_is_declared_and_nowhere_else(world: World, posers: dict[str, Posing | str]) -> None:
    current = world.estate.current("east", "mail")

    def call(callee: str, pose: Posing | str | None) -> Shown:
        place = world.places[callee]
        return by_curl(current, callee, service_of(callee), f"https://{place.name}:{place.port}/", pose=pose)

    judged(tried(world, posers, call), expected(world, posers))


def test_node_gets_in_where_it_is_declared_and_nowhere_else(world: World, posers: dict[str, Posing | str]) -> None:
    module = world.estate.current("east", "social") / "mtls.cjs"
    cases: list[dict[str, str | None]] = [
        {
            "id": f"{callee} {who}",
            "module": str(module),
            "callee": callee,
            "service": service_of(callee),
            **posed_in_node(posers.get(who)),
        }
        for callee, who in expected(world, posers)
    ]
    shown = {tuple(case.split(" ", 1)): one for case, one in by_node(cases).items()}
    judged(shown, expected(world, posers))  # type: ignore[arg-type]


def posed_in_node(pose: Posing | str | None) -> dict[str, str | None]:
    match pose:
        case None:
            return {}
        case Posing():
            return {"cert": str(pose.cert), "key": str(pose.key)}
        case _:
            return {"cert": None, "key": None}


def test_python_gets_in_where_it_is_declared_and_nowhere_else(world: World, posers: dict[str, Posing | str]) -> None:
    current = world.estate.current("east", "report")

    def call(callee: str, pose: Posing | str | None) -> Shown:
        return by_python(current, callee, service_of(callee), world.places[callee], pose=pose)

    judged(tried(world, posers, call), expected(world, posers))


def test_nginx_calls_on_where_it_is_declared_and_nowhere_else(world: World, posers: dict[str, Posing | str]) -> None:
    def call(callee: str, pose: Posing | str | None) -> Shown:
        if pose is None:
            return by_egress(service_of(callee), world.egress[callee])
        who = next(name for name, one in posers.items() if one is pose)
        return by_poser(callee, who)

    def by_poser(callee: str, who: str) -> Shown:
        return by_egress(service_of(callee), world.poser_port, f"/{who.replace(' ', '-')}/{callee}/")

    places = [(LOOPBACK, port) for port in (*world.egress.values(), world.poser_port)]
    with Nginx(world.estate.host("south"), places, own=posing_nginx(world, posers)):
        judged(tried(world, posers, call), expected(world, posers))
        # The poser's calls fail for who it shows itself to be, and for nothing else.
        assert {LET_IN} == {by_poser(door, ITSELF).outcome for door in world.doors}


def posing_nginx(world: World, posers: Mapping[str, Posing | str]) -> str:
    """A server of the test's own that calls every door as each poser, and otherwise as the egress does."""
    locations = []
    for door, portal in PORTALS.items():
        release = world.release("south", portal)
        for callee in (bundle(service, door) for service in SERVERS):
            for who, pose in {ITSELF: posing(release), **posers}.items():
                path = f"/{who.replace(' ', '-')}/{callee}/"
                locations.append(location(path, world.places[callee], release / f"servers/{callee}.pem", pose))
    return f"server {{ listen {LOOPBACK}:{world.poser_port};\n{''.join(locations)}}}\n"


def location(path: str, place: Place, anchors: Path, pose: Posing | str) -> str:
    shows = (
        f"proxy_ssl_certificate {pose.cert}; proxy_ssl_certificate_key {pose.key};" if isinstance(pose, Posing) else ""
    )
    return (
        f"location {path} {{ proxy_pass https://{place.address}:{place.port}/; {shows}"
        f" proxy_ssl_trusted_certificate {anchors}; proxy_ssl_verify on; proxy_ssl_name {place.name};"
        f" proxy_ssl_server_name on; proxy_ssl_session_reuse off; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        f" proxy_set_header Host {place.name}; }}\n"
    )


def service_of(callee: str) -> str:
    return callee.partition(".")[0]


def test_the_misnamed_impostor_is_believed_by_its_own_name(world: World) -> None:
    """Its certificate is good: only the name keeps callers from it."""
    place = world.places["misnamed"]
    other = place._replace(name=f"other.{place.name}")
    shown = by_python(world.estate.current("east", "report"), "misnamed", "misnamed", other)
    assert LET_IN == shown.outcome, shown


def test_a_door_speaks_its_own_protocol_and_no_other(world: World) -> None:
    current = world.estate.current("east", "report")
    shown = {
        (bundle(service, door), tls): by_python(
            current, bundle(service, door), service, world.places[bundle(service, door)], tls=(tls,)
        )
        for service in SERVERS
        for door in DOORS
        for tls in DOORS.values()
    }
    expected = {
        (bundle(service, door), tls): LET_IN if DOORS[door] == tls else TURNED_AWAY
        for service in SERVERS
        for door in DOORS
        for tls in DOORS.values()
    }
    judged(shown, expected)


@pytest.mark.parametrize("door", DOORS)
def test_services_that_share_a_port_let_in_their_own_callers_only(world: World, door: str) -> None:
    mail, stranger = (world.release("east", name) for name in ("mail", STRANGER))
    schedule, ledger = world.places[f"schedule.{door}"], world.places[f"ledger.{door}"]
    assert schedule[1:] == ledger[1:]
    shown = {
        "mail at schedule": by_python(mail, f"schedule.{door}", "schedule", schedule),
        "stranger at ledger": by_python(stranger, f"ledger.{door}", "ledger", ledger),
        "mail at ledger": by_python(stranger, f"ledger.{door}", "ledger", ledger, pose=posing(mail)),
        "stranger at schedule": by_python(mail, f"schedule.{door}", "schedule", schedule, pose=posing(stranger)),
    }
    outcomes = {case: one.outcome for case, one in shown.items()}
    assert {
        "mail at schedule": LET_IN,
        "stranger at ledger": LET_IN,
        "mail at ledger": TURNED_AWAY,
        "stranger at schedule": TURNED_AWAY,
    } == outcomes, shown


@pytest.mark.parametrize("door", DOORS)
def test_the_name_of_one_service_does_not_lead_to_the_pages_of_another(world: World, door: str) -> None:
    mail, schedule, ledger = world.release("east", "mail"), internal("schedule"), internal("ledger")
    context = caller_context(mail, f"schedule.{door}")
    place = world.places[f"schedule.{door}"]
    assert (200, "schedule\n") == get(context, place, host=schedule)
    assert 421 == get(context, place, host=ledger)[0]
    context.check_hostname = False
    for sni in (None, "unknown.example", place.address):
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            get(context, place, host=schedule, sni=sni)
