"""An Apache serves and calls, beside nginx, Node and Python; it goes on doing so whatever is wrong with a release."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from tests.integration.crafted import look_alike, misnamed
from tests.integration.estate import LOOPBACK, Estate, Inventory, Ran, bundle, internal
from tests.integration.peers import (
    LET_IN,
    NOBODY,
    TURNED_AWAY,
    Apache,
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
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.usefixtures("loopback"),
    *(pytest.mark.peer(name) for name in ("apache2", "nginx", "node", "curl")),
]

DOORS = {"old": "1.2", "new": "1.3"}
SERVERS = {"gate": "apache", "schedule": "nginx", "planner": "node"}
HOSTS = {"gate": "north", "schedule": "west", "planner": "west"}
CALLERS = ("mail", "social", "report")
IMPOSTORS = ("misnamed", "misissued")
STRANGER = "stranger"


class World:
    """`gate`, `ledger` and `vault` are one Apache's; it and others are called by a second Apache and by an nginx."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.estate = Estate(folder)
        self.hosts = {name: self.estate.address(n) for n, name in enumerate(("north", "west", "south", "east"), 2)}
        self.places = {
            bundle(service, door): self._place(service, HOSTS[service]) for service in SERVERS for door in DOORS
        }
        self.places |= {name: self._place(name, "west") for name in IMPOSTORS}
        self.egress = {callee: self.estate.free_port(LOOPBACK) for callee in self.places}
        self.by_nginx = {door: self.estate.free_port(LOOPBACK) for door in DOORS}
        for service in ("ledger", "vault"):
            self.places |= {
                f"{service}.{door}": self.places[f"gate.{door}"]._replace(name=internal(service)) for door in DOORS
            }

    def _place(self, service: str, host: str) -> Place:
        return Place(internal(service), self.hosts[host], self.estate.free_port(self.hosts[host]))

    def inventory(self) -> Inventory:
        programs = {"north": ["apache"], "south": ["apache", "nginx"], "west": ["nginx"]}
        portals = {door: [*CALLERS, f"portal-{door}", f"relay-{door}"] for door in DOORS}
        return {
            "version": 1,
            "name": "calendar",
            "hosts": {
                name: {"directory": f"out/{name}", "address": address}
                | ({"pid_files": {one: f"run/{one}.pid" for one in programs[name]}} if name in programs else {})
                for name, address in self.hosts.items()
            },
            "services": {
                **{
                    service: self._server(service, runtime, HOSTS[service], portals)
                    for service, runtime in SERVERS.items()
                },
                "ledger": self._server("ledger", "apache", "north", {door: [STRANGER] for door in DOORS}),
                "vault": self._server("vault", "apache", "north", {door: [] for door in DOORS}),
                **{
                    name: {"runtime": "pem", "hosts": ["west"], "listen": self.places[name].port}
                    | {"bind": "host", "callers": ["portal-new"]}
                    for name in IMPOSTORS
                },
                "mail": {"runtime": "curl", "hosts": ["east"]},
                "social": {"runtime": "node", "hosts": ["east"]},
                "report": {"runtime": "pem", "hosts": ["east"]},
                STRANGER: {"runtime": "pem", "hosts": ["east"]},
                **{f"portal-{door}": self._portal(door) for door in DOORS},
                **{
                    f"relay-{door}": {"runtime": "nginx", "hosts": ["south"]}
                    | {"settings": {"egress": {"gate": self.by_nginx[door]}}}
                    for door in DOORS
                },
            },
        }

    def _portal(self, door: str) -> dict[str, object]:
        egress = {service: self.egress[bundle(service, door)] for service in SERVERS}
        egress |= {name: self.egress[name] for name in IMPOSTORS} if door == "new" else {}
        return {"runtime": "apache", "hosts": ["south"], "settings": {"egress": egress}}

    def _server(self, name: str, runtime: str, host: str, callers: dict[str, list[str]]) -> dict[str, object]:
        listeners = [
            {"name": door, "port": self.places[f"{name}.{door}"].port, "bind": "host"}
            | {"protocols": [tls], "callers": callers[door]}
            for door, tls in DOORS.items()
        ]
        return {"runtime": runtime, "hosts": [host], "listeners": listeners}

    def current(self, service: str) -> Path:
        return self.estate.current("east", service).resolve()

    @cached_property
    def posers(self) -> dict[str, Posing | str]:
        return {
            "a stranger": posing(self.current(STRANGER)),
            "nobody": NOBODY,
            "a look-alike": look_alike(self.folder / "look-alike", self.current("mail")),
        }

    def impostors(self) -> list[dict[str, object]]:
        (its_own,) = (self.estate.folder("west", "misnamed") / "releases").iterdir()
        (another,) = (self.estate.folder("west", "misissued") / "releases").iterdir()
        shown = {
            "misnamed": misnamed(self.folder / "misnamed", self.estate, "misnamed", its_own),
            "misissued": look_alike(self.folder / "misissued", another),
        }
        return [
            python_door(
                self.folder, name, "main", self.places[name], chain=str(one.cert), key=str(one.key), clients=None
            )
            for name, one in shown.items()
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("apache"))
    estate, places = world.estate, world.places
    estate.apply(world.inventory())
    planner = [(door, *places[f"planner.{door}"][1:]) for door in DOORS]
    with contextlib.ExitStack() as running:
        for program in (
            Apache(estate.host("north"), [places[f"gate.{door}"][1:] for door in DOORS]),
            Nginx(estate.host("west"), [places[f"schedule.{door}"][1:] for door in DOORS]),
            NodeServer(estate.host("west"), "planner", planner),
            PythonServer(world.folder / "python.log", world.impostors()),
            Apache(estate.host("south"), [(LOOPBACK, port) for port in world.egress.values()]),
            Nginx(estate.host("south"), [(LOOPBACK, port) for port in world.by_nginx.values()]),
        ):
            running.enter_context(program)
        yield world


def outcomes(shown: dict[tuple[str, str], Shown]) -> dict[tuple[str, str], str]:
    return {case: one.outcome for case, one in shown.items()}


def expected(world: World) -> dict[tuple[str, str], str]:
    return {
        (door, who): LET_IN if who == "itself" else TURNED_AWAY for door in DOORS for who in ("itself", *world.posers)
    }


def test_curl_gets_in_where_it_is_declared_and_nobody_else_does(world: World) -> None:
    poses = {"itself": None, **world.posers}
    shown = {
        (door, who): by_curl(
            world.current("mail"), f"gate.{door}", "gate", f"https://{internal('gate')}:{place.port}/", pose=pose
        )
        for door, place in ((one, world.places[f"gate.{one}"]) for one in DOORS)
        for who, pose in poses.items()
    }
    assert expected(world) == outcomes(shown), shown


def test_python_gets_in_where_it_is_declared_and_nobody_else_does(world: World) -> None:
    poses = {"itself": None, **world.posers}
    shown = {
        (door, who): by_python(world.current("report"), f"gate.{door}", "gate", world.places[f"gate.{door}"], pose=pose)
        for door in DOORS
        for who, pose in poses.items()
    }
    assert expected(world) == outcomes(shown), shown


def test_node_gets_in_where_it_is_declared(world: World) -> None:
    module = world.current("social") / "mtls.cjs"
    cases = [{"id": door, "module": str(module), "callee": f"gate.{door}", "service": "gate"} for door in DOORS]
    shown = by_node([*cases, {**cases[0], "id": "nobody", "cert": None, "key": None}])
    assert {"old": LET_IN, "new": LET_IN, "nobody": TURNED_AWAY} == {who: one.outcome for who, one in shown.items()}


def test_an_apache_calls_apache_nginx_and_node_and_believes_no_impostor(world: World) -> None:
    shown = {callee: by_egress(callee.partition(".")[0], port) for callee, port in world.egress.items()}
    assert {
        **{bundle(service, door): LET_IN for service in SERVERS for door in DOORS},
        **dict.fromkeys(IMPOSTORS, TURNED_AWAY),
    } == {callee: one.outcome for callee, one in shown.items()}, shown


def test_an_nginx_calls_an_apache(world: World) -> None:
    assert {LET_IN} == {by_egress("gate", port).outcome for port in world.by_nginx.values()}


@pytest.mark.parametrize("door", DOORS)
def test_services_of_one_port_let_in_their_own_callers_only(world: World, door: str) -> None:
    mail, stranger = world.current("mail"), world.current(STRANGER)
    gate, ledger = world.places[f"gate.{door}"], world.places[f"ledger.{door}"]
    assert gate[1:] == ledger[1:]
    shown = {
        "mail at gate": by_python(mail, f"gate.{door}", "gate", gate),
        "stranger at ledger": by_python(stranger, f"ledger.{door}", "ledger", ledger),
        "mail at ledger": by_python(stranger, f"ledger.{door}", "ledger", ledger, pose=posing(mail)),
        "stranger at gate": by_python(mail, f"gate.{door}", "gate", gate, pose=posing(stranger)),
    }
    assert [LET_IN, LET_IN, TURNED_AWAY, TURNED_AWAY] == [one.outcome for one in shown.values()], shown


@pytest.mark.parametrize("door", DOORS)
def test_no_name_a_foreign_name_and_that_of_a_service_without_callers_are_refused_alike(
    world: World, door: str
) -> None:
    context = caller_context(world.current("mail"), f"gate.{door}", tls=(DOORS[door],))
    place = world.places[f"gate.{door}"]
    assert (200, "gate\n") == get(context, place, host=internal("gate"))
    assert 421 == get(context, place, host=internal("ledger"))[0]
    context.check_hostname = False
    alert = {"old": "HANDSHAKE_FAILURE", "new": "PROTOCOL_VERSION"}[door]
    for sni in (None, "unknown.example", place.address, internal("vault")):
        with pytest.raises(ssl.SSLError, match=alert):
            get(context, place, host=internal("gate"), sni=sni)


def test_what_runs_is_what_was_declared(world: World) -> None:
    """`verify` against the running servers: every declared call goes through, and no other does."""
    ran = world.estate.run("verify", "-o", "json", "--edge", "mail->gate:old", "--edge", "mail->gate:new")
    assert 0 == ran.code, ran
    results = json.loads(world.estate.run("verify", "-o", "json").out)["results"]
    # The impostors are what they are; everything else is as declared.
    ours = [one for one in results if one["listener"].partition(":")[0] in (*SERVERS, "ledger", "vault")]
    assert [] == [one for one in ours if one["verdict"] != "as_declared"]


# --- what must never end it -----------------------------------------------------------------------------------------


class Small:
    """One Apache with two services and a caller."""

    def __init__(self, folder: Path) -> None:
        self.estate = Estate(folder)
        self.address = self.estate.address(2)
        self.port = self.estate.free_port(self.address)
        self.inventory: Inventory = {
            "version": 1,
            "name": "calendar",
            "hosts": {
                "north": {"directory": "out/north", "address": self.address, "pid_files": {"apache": "run/apache.pid"}},
                "east": {"directory": "out/east", "address": self.estate.address(3)},
            },
            "services": {
                "gate": {"runtime": "apache", "hosts": ["north"], "listen": self.port, "bind": "host"}
                | {"callers": ["mail"]},
                "relay": {"runtime": "apache", "hosts": ["north"]}
                | {"settings": {"egress": {"gate": self.estate.free_port(LOOPBACK)}}},
                "mail": {"runtime": "pem", "hosts": ["east"]},
            },
        }
        self.inventory["services"]["gate"]["callers"] += ["relay"]
        self.estate.apply(self.inventory)

    @contextlib.contextmanager
    def up(self, **more: str) -> Iterator[Apache]:
        with Apache(self.estate.host("north"), [(self.address, self.port)], **more) as program:
            yield program

    def call(self) -> str:
        place = Place(internal("gate"), self.address, self.port)
        return by_python(self.estate.current("east", "mail"), "gate", "gate", place).outcome

    def try_to_apply(self) -> Ran:
        self.estate.declare(self.inventory)
        return self.estate.run("apply", "--yes")

    @property
    def pointer(self) -> Path:
        return self.estate.host("north") / "etc/apache2/conf-enabled/mtlsctl.conf"


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def gracefuls(program: Apache) -> int:
    return program.error_log.read_text("utf-8", "replace").count("SIGUSR1 received")


def test_a_release_with_the_key_of_another_never_reaches_a_graceful_restart(small: Small) -> None:
    with small.up() as program:
        (key,) = (small.estate.folder("north", "gate") / "keys").iterdir()
        (other,) = (small.estate.folder("north", "relay") / "keys").iterdir()
        good = key.read_bytes()
        key.unlink()
        key.write_bytes(other.read_bytes())
        key.chmod(0o600)
        before = small.pointer.read_bytes()
        small.inventory["services"]["gate"]["settings"] = {"upstream": "http://127.0.0.1:1"}
        ran = small.try_to_apply()
        assert ran.code != 0
        assert "M7202" in ran.err + ran.out
        assert (0, before, None) == (gracefuls(program), small.pointer.read_bytes(), program.process.poll())
        assert LET_IN == small.call()
        # And with the right one it goes on.
        key.write_bytes(good)
        del small.inventory["services"]["gate"]["settings"]
        small.inventory["services"]["gate"]["names"] = ["gate.example.com"]
        small.estate.apply(small.inventory)
        assert gracefuls(program) >= 1
        assert None is program.process.poll()


def test_a_file_of_somebody_elses_that_is_broken_leaves_everything_as_it_was(small: Small, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with small.up(own=f'IncludeOptional "{theirs}/*.conf"') as program:
        (theirs / "own.conf").write_text("this is no directive\n")
        before = small.pointer.read_bytes()
        small.inventory["services"]["gate"]["names"] = ["gate.example.com"]
        ran = small.try_to_apply()
        assert ran.code != 0
        assert "M4203" in ran.err + ran.out
        assert (0, before, None) == (gracefuls(program), small.pointer.read_bytes(), program.process.poll())
        assert LET_IN == small.call()
        (theirs / "own.conf").unlink()
        small.estate.apply(small.inventory)
        assert gracefuls(program) >= 1


def test_a_port_that_cannot_be_opened_leaves_everything_as_it_was(small: Small) -> None:
    """Apache would find that out at the restart, and end."""
    with small.up() as program, socket.create_server((small.address, 0)) as taken:
        before = small.pointer.read_bytes()
        small.inventory["services"]["gate"]["listen"] = taken.getsockname()[1]
        ran = small.try_to_apply()
        assert ran.code != 0
        assert "M4201" in ran.err + ran.out
        assert (0, before, None) == (gracefuls(program), small.pointer.read_bytes(), program.process.poll())
        assert LET_IN == small.call()


def test_an_edited_pointer_is_drift_and_is_not_overwritten(small: Small) -> None:
    with small.up() as program:
        small.pointer.write_text(small.pointer.read_text() + "# mine\n")
        small.inventory["services"]["gate"]["names"] = ["gate.example.com"]
        ran = small.try_to_apply()
        assert ran.code != 0
        assert "M4105" in ran.err + ran.out
        assert small.pointer.read_text().endswith("# mine\n")
        assert 0 == gracefuls(program)


def test_an_altered_file_of_certificate_and_key_is_made_again(small: Small) -> None:
    (release,) = (small.estate.folder("north", "relay") / "releases").iterdir()
    file = release / "tls.combined"
    before = file.read_bytes()
    file.write_bytes(b"altered\n")
    ran = small.try_to_apply()
    assert (0, True) == (ran.code, "was altered (tls.combined)" in ran.err), ran
    assert before == file.read_bytes()


def test_a_pointer_that_is_gone_is_made_again_while_its_ports_are_open(small: Small) -> None:
    with small.up() as program:
        small.pointer.unlink()
        ran = small.try_to_apply()
        assert 0 == ran.code, ran
        assert (True, None) == (gracefuls(program) >= 1, program.process.poll())
        assert LET_IN == small.call()
