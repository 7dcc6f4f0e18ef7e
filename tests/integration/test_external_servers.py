"""Servers outside the estate, called by every runtime that calls: believed by what is declared, shown who calls.

The servers run as a bank would run them: a leaf below an intermediate, and a certificate of its callers demanded.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import pytest

from tests.conftest import find_peer
from tests.integration.authorities import common_name, root
from tests.integration.estate import ESTATE, LOOPBACK, Estate
from tests.integration.peers import (
    LET_IN,
    NOBODY,
    TURNED_AWAY,
    Apache,
    Nginx,
    Place,
    Posing,
    PythonServer,
    Shown,
    by_curl,
    by_egress,
    by_node,
    by_python,
    python_door,
)
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.authorities import Authority
    from tests.integration.estate import Inventory

PEERS = ("nginx", "apache2", "node", "curl", "ruby")
pytestmark = [pytest.mark.peer(name) for name in PEERS]

NAME = "localhost"
BANK = common_name("Bank Root")
EXPECTED = {
    "bank": LET_IN,
    "look-alike": TURNED_AWAY,
    "misnamed": TURNED_AWAY,
    "in-the-common-name": TURNED_AWAY,
    "public": TURNED_AWAY,
}
"""`bank` is what is declared and the next three are not; `public` is one that the machine has to believe."""
LOOKS_AT_COMMON_NAMES = "apache"
"""Takes a name from there too, whatever else the certificate says: its page says so."""


class Caller(NamedTuple):
    """How the service `by-<runtime>` calls out."""

    call: Callable[[World, str], Shown]
    roots: str | None = None
    """The variable by which the machine's CAs are others; none where they are a fixed file."""


class World:
    """Servers that are not ours, and a caller of each runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.estate = Estate(folder)
        self.ports = {kind: self.estate.free_port(LOOPBACK) for kind in SERVED}
        self.egress = {
            (runtime, kind): self.estate.free_port(LOOPBACK) for runtime in ("nginx", "apache") for kind in SERVED
        }
        self.bank, self.impostor = root(BANK), root(BANK)
        self.machine = folder / "machine.pem"
        self.machine.write_bytes(self.bank.pem)
        partners = self.estate.root / "partners"
        partners.mkdir()
        (partners / "bank.pem").write_bytes(self.bank.pem)

    def inventory(self) -> Inventory:
        def service(runtime: str) -> dict[str, object]:
            settings: dict[str, object] = {}
            if runtime in {"nginx", "apache"}:
                egress = {kind: self.egress[runtime, kind] for kind in SERVED}
                settings = {"egress": egress, "system_certificates": "debian"}
            return {"runtime": runtime, "hosts": ["here"], **({"settings": settings} if settings else {})}

        def server(kind: str) -> dict[str, object]:
            certificates: object = "system" if kind == "public" else ["partners/bank.pem"]
            callers = [f"by-{one}" for one in CALLERS if kind != "public" or one != "pem"]
            endpoint = f"{NAME}:{self.ports[kind]}"
            return {"name": kind, "endpoint": endpoint, "certificates": certificates, "callers": callers}

        return {
            "version": 1,
            "name": ESTATE,
            "hosts": {"here": {"directory": "out/here"}},
            "services": {f"by-{one}": service(one) for one in CALLERS},
            "external_servers": [server(kind) for kind in SERVED],
        }

    def doors(self) -> Iterator[dict[str, object]]:
        clients = self.folder / "callers.pem"
        shown = [self.estate.run("show", "--anchors", f"by-{one}") for one in CALLERS]
        clients.write_text("".join(one.out for one in shown))
        wrong = ["localhost.example", "xlocalhost"]
        for kind, signer, called, names in (
            ("bank", self.bank, "bank", [NAME]),
            ("look-alike", self.impostor, "bank", [NAME]),
            ("misnamed", self.bank, "bank", wrong),
            ("in-the-common-name", self.bank, NAME, wrong),
            ("public", self.bank, "bank", [NAME]),
        ):
            made = self.below(signer).leaf(self.folder / kind, common_name(called), names=names)
            place = Place(NAME, LOOPBACK, self.ports[kind])
            yield python_door(made.cert.parent, kind, "main", place, clients=str(clients))

    @staticmethod
    def below(authority: Authority) -> Authority:
        return authority.intermediate(common_name("Bank Issuing"))

    def current(self, caller: str) -> Path:
        return self.estate.current("here", f"by-{caller}")


SERVED = tuple(EXPECTED)


def with_curl(world: World, kind: str) -> Shown:
    return by_curl(world.current("curl"), kind, kind, f"https://{NAME}:{world.ports[kind]}/")


def with_node(world: World, kind: str) -> Shown:
    module = world.current("node") / "mtls.cjs"
    return by_node([{"id": kind, "module": str(module), "callee": kind, "service": kind}])[kind]


def with_ruby(world: World, kind: str) -> Shown:
    script = (
        "load ARGV[0]; r = Mtlsctl.service('by-ruby'); h = r.http(ARGV[1])\n"
        "begin; h.start { |s| g = s.get('/'); puts g.code, g.body }\n"
        "rescue OpenSSL::SSL::SSLError => e; puts 0, e.message; end"
    )
    command = [str(find_peer("ruby")), "-ropenssl", "-e", script, str(world.current("ruby") / "mtls.rb"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS)
    assert done.returncode == 0, done.stderr
    status, _, body = done.stdout.partition("\n")
    is_service = (status, body.strip()) == ("200", kind)
    return Shown(LET_IN if is_service else TURNED_AWAY, body.strip())


def with_python(world: World, kind: str) -> Shown:
    return by_python(world.current("pem"), kind, kind, Place(NAME, LOOPBACK, world.ports[kind]))


def with_nginx(world: World, kind: str) -> Shown:
    return by_egress(kind, world.egress["nginx", kind])


def with_apache(world: World, kind: str) -> Shown:
    return by_egress(kind, world.egress["apache", kind])


CALLERS = {
    "nginx": Caller(with_nginx),
    "apache": Caller(with_apache),
    "node": Caller(with_node, "NODE_EXTRA_CA_CERTS"),
    "curl": Caller(with_curl, "CURL_CA_BUNDLE"),
    "ruby": Caller(with_ruby, "SSL_CERT_FILE"),
    "pem": Caller(with_python),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("external"))
    world.estate.apply(world.inventory())
    host = world.estate.host("here")

    def local(runtime: str) -> list[tuple[str, int]]:
        return [(LOOPBACK, port) for (one, _), port in world.egress.items() if one == runtime]

    doors = list(world.doors())
    with (
        PythonServer(world.folder / "log", doors),
        Nginx(host, local("nginx")),
        Apache(host, local("apache")),
    ):
        yield world


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("caller", CALLERS)
def test_a_server_is_believed_by_what_is_declared_and_its_name(world: World, caller: str, kind: str) -> None:
    if (caller, kind) == ("pem", "public"):
        refused = world.estate.run("plan", "-i", str(_asking_pem_for_the_system(world)))
        assert (7, True) == (refused.code, "M2023" in refused.err), refused
        return
    shown = CALLERS[caller].call(world, kind)
    is_known_to_differ = (caller, kind) == (LOOKS_AT_COMMON_NAMES, "in-the-common-name")
    assert (LET_IN if is_known_to_differ else EXPECTED[kind]) == shown.outcome, shown


def _asking_pem_for_the_system(world: World) -> Path:
    inventory = world.inventory()
    (public,) = [one for one in inventory["external_servers"] if one["name"] == "public"]
    public["callers"].append("by-pem")
    folder = world.estate.root / "other"
    folder.mkdir(exist_ok=True)
    (folder / "inventory.yaml").write_text(json.dumps(inventory))
    return folder


@pytest.mark.parametrize("caller", [name for name, one in CALLERS.items() if one.roots])
def test_with_system_the_machine_says_whom_to_believe(world: World, caller: str) -> None:
    """The machine's CAs are others for this one call: what was refused gets through, and nothing else does."""
    variable = CALLERS[caller].roots
    assert variable is not None
    with mock.patch.dict(os.environ, {variable: str(world.machine)}):
        shown = {kind: CALLERS[caller].call(world, kind) for kind in SERVED}
    assert {**EXPECTED, "public": LET_IN} == {kind: one.outcome for kind, one in shown.items()}, shown


@pytest.mark.parametrize("caller", [name for name, one in CALLERS.items() if one.roots])
def test_what_the_machine_believes_does_not_count_where_files_are_declared(world: World, caller: str) -> None:
    variable, bundle = CALLERS[caller].roots, world.folder / "impostor.pem"
    assert variable is not None
    bundle.write_bytes(world.impostor.pem)
    with mock.patch.dict(os.environ, {variable: str(bundle)}):
        assert TURNED_AWAY == CALLERS[caller].call(world, "look-alike").outcome


def test_the_bank_lets_in_who_shows_what_was_sent_to_it_and_nobody_else(world: World) -> None:
    """Else the calls above would prove nothing about what our callers show."""
    place = Place(NAME, LOOPBACK, world.ports["bank"])
    stranger = root(common_name("by-pem.calendar CA g1")).leaf(world.folder / "stranger", common_name("by-pem"))
    shown = {
        "own": by_python(world.current("pem"), "bank", "bank", place),
        "nothing": by_python(world.current("pem"), "bank", "bank", place, pose=NOBODY),
        "a stranger's": by_python(world.current("pem"), "bank", "bank", place, pose=Posing(*stranger)),
    }
    assert {"own": LET_IN, "nothing": TURNED_AWAY, "a stranger's": TURNED_AWAY} == {
        who: one.outcome for who, one in shown.items()
    }
