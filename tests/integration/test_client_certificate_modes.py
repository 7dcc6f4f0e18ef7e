"""What a door asks of its callers, with real nginx and Node: one that is optional lets in no wrong certificate."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import find_peer
from tests.integration.crafted import look_alike
from tests.integration.estate import Estate, Inventory, internal
from tests.integration.peers import (
    LET_IN,
    NOBODY,
    PROGRAMS,
    TURNED_AWAY,
    Nginx,
    NodeServer,
    Place,
    Posing,
    Program,
    PythonServer,
    by_curl,
    by_python,
    caller_context,
    get,
    posing,
    python_door,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), *(pytest.mark.peer(name) for name in ("nginx", "node", "curl"))]

MODES = ("required", "optional", "none")
SERVERS = {"portal": ("nginx", "north"), "kiosk": ("node", "west")}
CALLERS = ["mail", "report"]
VERSIONS = ("1.2", "1.3")


class World:
    """An nginx and a Node service with a door of each mode, and callers of all three."""

    def __init__(self, folder: Path, trust: str) -> None:
        self.folder = folder
        self.trust = trust
        self.estate = Estate(folder)
        self.hosts = {name: self.estate.address(n) for n, name in enumerate(("north", "west", "east"), 2)}
        self.places = {
            f"{name}.{mode}": Place(internal(name), self.hosts[host], self.estate.free_port(self.hosts[host]))
            for name, (_, host) in SERVERS.items()
            for mode in MODES
        }

        address = self.hosts["east"]
        self.reader = Place(internal("reader"), address, self.estate.free_port(address))

    def inventory(self, **modes: str) -> Inventory:
        """Doors are named by what they ask for at first; `modes` says what they ask for now."""
        return {
            "version": 1,
            "name": "calendar",
            "trust": {"model": self.trust},
            "hosts": {
                "north": {"directory": "out/north", "address": self.hosts["north"]}
                | {"pid_files": {"nginx": "run/nginx.pid"}},
                "west": {"directory": "out/west", "address": self.hosts["west"]}
                | {"pid_files": {"kiosk": "run/kiosk.pid"}},
                "east": {"directory": "out/east", "address": self.hosts["east"]},
            },
            "services": {
                **{name: self._server(name, modes) for name in SERVERS},
                "mail": {"runtime": "curl", "hosts": ["east"]},
                "report": {"runtime": "pem", "hosts": ["east"]},
                "stranger": {"runtime": "pem", "hosts": ["east"]},
                # The same nginx tells it from `portal` by name, at the port of the door that is open to all.
                "ledger": {"runtime": "nginx", "hosts": ["north"], "callers": ["report"]}
                | {"listen": self.places["portal.none"].port, "bind": "host"},
                # It listens, and calls nothing but doors that ask for no certificate.
                "reader": {"runtime": "pem", "hosts": ["east"], "callers": ["stranger"]}
                | {"listen": self.reader.port, "bind": "host", "authorize": "any-member"},
            },
        }

    def _server(self, name: str, modes: dict[str, str]) -> dict[str, object]:
        runtime, host = SERVERS[name]
        listeners = [
            {"name": mode, "port": self.places[f"{name}.{mode}"].port, "bind": "host"}
            | {"client_certificate": modes.get(mode, mode)}
            | {"callers": [*CALLERS, *(["reader"] if mode == "none" else [])]}
            for mode in MODES
        ]
        return {"runtime": runtime, "hosts": [host], "listeners": listeners}

    def release(self, host: str, service: str) -> Path:
        return (self.estate.folder(host, service) / "current").resolve()

    def anonymous(self, door: str, version: str) -> str:
        """What somebody without a certificate is shown at a door."""
        report = self.release("east", "report")
        return by_python(report, door, door.partition(".")[0], self.places[door], pose=NOBODY, tls=[version]).outcome

    def verify(self) -> dict[str, Any]:
        ran = self.estate.run("verify", "-o", "json")
        document: dict[str, Any] = json.loads(ran.out)
        assert ran.code == 0, [one for one in document["results"] if one["verdict"] != "as_declared"]
        return document


@pytest.fixture(scope="module", params=["service-ca", "shared-ca"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    """Callers are told apart by their CAs, or by name under the CA of all."""
    del loopback
    world = World(tmp_path_factory.mktemp("modes"), request.param)
    world.estate.apply(world.inventory())
    with contextlib.ExitStack() as running:
        places = {name: [world.places[f"{name}.{mode}"][1:] for mode in MODES] for name in SERVERS}
        running.enter_context(Nginx(world.estate.host("north"), places["portal"]))
        doors = [(mode, *place) for mode, place in zip(MODES, places["kiosk"], strict=True)]
        running.enter_context(NodeServer(world.estate.host("west"), "kiosk", doors))
        door = python_door(world.estate.current("east", "reader"), "reader", "main", world.reader)
        running.enter_context(PythonServer(world.folder / "python.log", [door]))
        yield world


@pytest.fixture
def as_installed(world: World) -> Iterator[World]:
    yield world
    world.estate.apply(world.inventory())


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_who_shows_no_certificate_gets_in_where_none_is_needed(world: World, server: str, version: str) -> None:
    seen = {mode: world.anonymous(f"{server}.{mode}", version) for mode in MODES}
    assert {"required": TURNED_AWAY, "optional": LET_IN, "none": LET_IN} == seen


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["required", "optional"])
def test_a_wrong_certificate_is_no_way_in_and_the_right_one_is(
    world: World, tmp_path: Path, server: str, version: str, mode: str
) -> None:
    report, door = world.release("east", "report"), f"{server}.{mode}"
    shown: dict[str, Posing | None] = {
        "its own": None,
        "a stranger's": posing(world.release("east", "stranger")),
        "one that imitates its own": look_alike(tmp_path / "look-alike", report),
    }
    seen = {
        who: by_python(report, door, server, world.places[door], pose=pose, tls=[version]).outcome
        for who, pose in shown.items()
    }
    assert {"its own": LET_IN, "a stranger's": TURNED_AWAY, "one that imitates its own": TURNED_AWAY} == seen


@pytest.mark.parametrize("server", SERVERS)
def test_verify_finds_every_door_as_it_is_declared(world: World, server: str) -> None:
    """Expired, for another use, of a foreign CA, of an undeclared service: at an optional door each is refused."""
    results = [one for one in world.verify()["results"] if one["listener"].startswith(f"{server}:")]
    seen: dict[str, dict[str, set[str]]] = {}
    for one in results:
        mode = one["listener"].split(":")[1]
        kind = "stranger" if one["caller"] == "stranger" else one["probe"]["presented"]
        seen.setdefault(mode, {}).setdefault(kind, set()).add(one["observed"])
    refused = {kind: {"refused"} for kind in ("foreign_ca", "expired", "wrong_usage", "stranger")}
    once = {"plaintext": {"refused"}, "other_ca": {"refused"}}
    assert seen["required"].pop("delivered") == seen["optional"].pop("delivered") == {"allowed", "refused"}
    assert {**refused, **once, "no_certificate": {"refused"}} == seen["required"]
    assert {**refused, **once, "no_certificate": {"allowed"}} == seen["optional"]
    assert {**once, "no_certificate": {"allowed"}, "delivered": {"allowed"}} == seen["none"]


def test_verify_says_plainly_where_anybody_gets_in(world: World) -> None:
    said = " ".join(world.estate.run("verify", "--ascii").out.split())
    doors = [f"{name}:{mode}:{world.places[f'{name}.{mode}'].port}" for name in SERVERS for mode in MODES[1:]]
    assert f"Declared to let in anybody without a certificate: {', '.join(sorted(doors))}" in said


@pytest.mark.parametrize("server", SERVERS)
def test_a_caller_of_a_one_way_door_still_believes_exactly_its_server(world: World, server: str) -> None:
    place = world.places[f"{server}.none"]
    current = world.estate.current("east", "mail")
    url = f"https://{place.name}:{place.port}/"
    assert by_curl(current, f"{server}.none", server, url).outcome == LET_IN
    if world.trust == "shared-ca":
        return  # Under the CA of all the name alone tells one server from another, and curl asks for it.
    other = next(name for name in SERVERS if name != server)
    wrong = world.places[f"{other}.none"]
    keys = {line.partition(" =")[0] for line in (current / f"{server}.none.curlrc").read_text().splitlines()}
    assert {"cert", "key"}.isdisjoint(keys)
    with pytest.raises(OSError, match="certificate verify failed"):
        get(caller_context(world.release("east", "report"), f"{server}.none"), wrong, host=wrong.name)


def test_a_caller_that_calls_only_such_doors_has_no_client_certificate(world: World) -> None:
    # The leaf of `reader` is for servers alone: shown at a door that takes one, it is refused.
    reader = posing(world.release("east", "reader"))
    report = world.release("east", "report")
    for server in SERVERS:
        for mode, outcome in (("optional", TURNED_AWAY), ("none", LET_IN)):
            door = f"{server}.{mode}"
            assert by_python(report, door, server, world.places[door], pose=reader).outcome == outcome


def test_the_name_of_an_open_door_does_not_lead_to_a_closed_one(world: World) -> None:
    """CVE-2025-66614 and its kin: both names are served at one port, and the request asks for the other."""
    report, place = world.release("east", "report"), world.places["portal.none"]
    anonymous = caller_context(report, "portal.none", pose=NOBODY)
    assert (200, "portal\n") == get(anonymous, place, host=place.name)
    status, body = get(anonymous, place, host=internal("ledger"))
    assert (421, False) == (status, "ledger\n" in body)
    ledger = place._replace(name=internal("ledger"))
    assert by_python(report, "ledger", "ledger", ledger).outcome == LET_IN
    assert by_python(report, "ledger", "ledger", ledger, pose=NOBODY).outcome == TURNED_AWAY


@pytest.mark.parametrize("path", [("required", "optional", "none", "required"), ("none", "optional", "required")])
def test_a_running_server_follows_from_mode_to_mode(as_installed: World, path: tuple[str, ...]) -> None:
    """The reload that an apply waits for is read back: also where the first flight of a handshake is the same."""
    world = as_installed
    for mode in path:
        world.estate.apply(world.inventory(required=mode))
        expected = TURNED_AWAY if mode == "required" else LET_IN
        for server in SERVERS:
            for version in VERSIONS:
                assert world.anonymous(f"{server}.required", version) == expected, (mode, server, version)
        for server in SERVERS:
            door = f"{server}.required"
            own = by_python(world.release("east", "report"), door, server, world.places[door])
            assert own.outcome == LET_IN, own
            stranger = posing(world.release("east", "stranger"))
            theirs = by_python(world.release("east", "report"), door, server, world.places[door], pose=stranger)
            assert theirs.outcome == (LET_IN if mode == "none" else TURNED_AWAY), (mode, server)


def test_a_plan_says_in_words_that_anybody_may_call(as_installed: World) -> None:
    world, port = as_installed, as_installed.places["portal.required"].port
    world.estate.declare(world.inventory(required="none"))
    seen = " ".join(world.estate.run("plan").out.split())
    assert f"anybody may call portal:required:{port} without a certificate" in seen
    assert f"M2103 anybody who reaches portal:required:{port} may call it without a certificate" in seen
    marked = world.estate.run("plan", "-o", "markdown").out
    assert f"+ anybody may call portal:required:{port} without a certificate" in marked
    grants = json.loads(world.estate.run("plan", "-o", "json").out)["grants"]
    assert ("add", "*", f"portal:required:{port}") in {(one["op"], one["caller"], one["listener"]) for one in grants}
    assert world.estate.run("apply", "--yes").code == 0
    world.estate.declare(world.inventory())
    seen = " ".join(world.estate.run("plan").out.split())
    assert f"anybody may no longer call portal:required:{port} without a certificate a certificate is required" in seen


@pytest.mark.parametrize("kind", ["https", "http2", "tls", "unwatched"])
def test_each_kind_of_node_server_lets_in_nobody_with_a_wrong_certificate(
    world: World, tmp_path: Path, kind: str
) -> None:
    estate, address = world.estate, world.hosts["west"]
    place = Place(internal("kiosk"), address, estate.free_port(address))
    module = estate.current("west", "kiosk") / "mtls.cjs"
    places = json.dumps({kind: place[1:]})
    argv = [find_peer("node"), PROGRAMS / "doors.cjs", module, "optional", places]
    report = world.release("east", "report")
    with Program(kind, argv, tmp_path / "log", at=[place[1:]]):
        for version in VERSIONS:
            seen = {
                who: by_python(report, "kiosk.optional", "kiosk", place, pose=pose, tls=[version]).outcome
                for who, pose in {
                    "its own": None,
                    "nobody": NOBODY,
                    "a stranger": posing(world.release("east", "stranger")),
                    "a look-alike": look_alike(tmp_path / version, report),
                }.items()
            }
            # Where the program does not let its server follow, nothing would watch: then a certificate is required,
            # and under the CA of all there is none that would do.
            anonymous = TURNED_AWAY if kind == "unwatched" else LET_IN
            own = TURNED_AWAY if kind == "unwatched" and world.trust == "shared-ca" else LET_IN
            assert {
                "its own": own,
                "nobody": anonymous,
                "a stranger": TURNED_AWAY,
                "a look-alike": TURNED_AWAY,
            } == seen
