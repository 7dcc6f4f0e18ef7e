"""Server certificates that a public CA issued, shown by nginx, Apache and Node to callers whom our anchors let in.

The "public" CA is one that the test makes, with an intermediate below it as they all have.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from mtlsctl.pki.stores import parse_bundle
from mtlsctl.verify.wire import read_first_flight
from tests.integration.authorities import common_name, root
from tests.integration.estate import ESTATE, Estate
from tests.integration.peers import (
    LET_IN,
    NOBODY,
    TURNED_AWAY,
    Apache,
    Nginx,
    NodeServer,
    Place,
    PythonServer,
    by_curl,
    by_node,
    by_python,
    posing,
    python_door,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.estate import Inventory, Ran

PEERS = ("nginx", "apache2", "node", "curl")
pytestmark = [pytest.mark.peer(name) for name in PEERS]

RUNTIMES = ("nginx", "apache", "node")
ISSUER = "certificates/issuer.pem"


class World:
    """A listener of each runtime that shows what was bought, believed by a file, and one believed by `system`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.estate = Estate(folder)
        self.address = self.estate.address(1)
        self.ports = {one: self.estate.free_port(self.address) for one in (*RUNTIMES, "system", "stranger")}
        self.public = root(common_name("Public Root"))
        self.issuing = self.public.intermediate(common_name("Public Issuing"))
        self.machine = folder / "machine.pem"
        self.machine.write_bytes(self.public.pem)
        (self.estate.root / "certificates").mkdir()
        (self.estate.root / ISSUER).write_bytes(self.public.pem)
        self.key_paths: dict[str, str] = {}
        for one in (*RUNTIMES, "system"):
            self.buy(one)

    @property
    def host(self) -> Path:
        return self.estate.host("here")

    def name(self, service: str) -> str:
        return f"{service}.example.com"

    def buy(self, service: str, number: int = 1) -> None:
        """The chain goes into the repository, the key to its place on the host, each under a name of its own."""
        made = self.issuing.leaf(
            self.folder / f"bought/{service}-{number}", common_name("x"), names=[self.name(service)]
        )
        shutil.copy(made.cert, self.estate.root / f"certificates/{service}.pem")
        self.key_paths[service] = f"/etc/ssl/private/{service}-{number}.key"
        self.place_key(service, made.key)

    def place_key(self, service: str, key: Path) -> None:
        place = self.host / self.key_paths[service].removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(key, place)
        place.chmod(0o600)

    def inventory(self, *own: str) -> Inventory:
        """Services in `own` show the certificates that mtlsctl issues."""

        def service(name: str) -> dict[str, object]:
            shown = {
                "server_certificate": {"chain": f"certificates/{name}.pem", "key_path": self.key_paths[name]},
                "servers_trust": "system" if name == "system" else [ISSUER],
            }
            return {
                "runtime": "nginx" if name == "system" else name,
                "hosts": ["here"],
                "names": [self.name(name)],
                "listen": self.ports[name],
                "bind": "host",
                "callers": ["web", "agent"] if name == "system" else ["mail", "web", "agent"],
                **({} if name in own else shown),
            }

        pid_files = {"nginx": "run/nginx.pid", "apache": "run/apache.pid", "node": "run/node.pid"}
        return {
            "version": 1,
            "name": ESTATE,
            "hosts": {"here": {"directory": "out/here", "address": self.address, "pid_files": pid_files}},
            "services": {
                **{name: service(name) for name in (*RUNTIMES, "system")},
                "mail": {"runtime": "pem", "hosts": ["here"]},
                "web": {"runtime": "curl", "hosts": ["here"]},
                "agent": {"runtime": "node", "hosts": ["here"]},
                "stranger": {
                    "runtime": "pem",
                    "hosts": ["here"],
                    "listen": self.ports["stranger"],
                    "callers": ["mail"],
                },
            },
        }

    def apply(self, *own: str) -> Ran:
        return self.estate.apply(self.inventory(*own))

    def refused(self) -> Ran:
        self.estate.declare(self.inventory())
        ran = self.estate.run("apply", "--yes")
        assert ran.code != 0, ran
        return ran

    def verified(self, *options: str) -> dict[str, int]:
        """With the public CA as one that this machine believes."""
        with mock.patch.dict(self.estate.environ, {"SSL_CERT_FILE": str(self.machine)}):
            ran = self.estate.run("verify", "-o", "json", *options)
        summary: dict[str, int] = json.loads(ran.out)["summary"]
        return {**summary, "code": ran.code}

    def place(self, service: str) -> Place:
        return Place(self.name(service), self.address, self.ports[service])

    def current(self, service: str) -> Path:
        return self.estate.current("here", service)

    def call(self, service: str, pose: str | None = None) -> str:
        """As `mail`, or as `nobody`, or with the certificate of another service of the estate."""
        who = NOBODY if pose == NOBODY else None if pose is None else posing(self.current(pose).resolve())
        return by_python(self.current("mail"), service, service, self.place(service), pose=who).outcome

    def shows_what_was_bought(self, service: str) -> bool:
        name, address, port = self.place(service)
        chain = parse_bundle((self.estate.root / f"certificates/{service}.pem").read_bytes())
        return chain == read_first_flight(address, port, name, 10).chain


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("bought"))
    world.apply()
    nginx = [(world.address, world.ports[one]) for one in ("nginx", "system")]
    with (
        Nginx(world.host, nginx),
        Apache(world.host, [(world.address, world.ports["apache"])]),
        NodeServer(world.host, "node", [("main", world.address, world.ports["node"])]),
    ):
        yield world


@pytest.mark.parametrize("service", RUNTIMES)
def test_it_is_shown_and_the_declared_caller_gets_in_and_nobody_else(world: World, service: str) -> None:
    assert world.shows_what_was_bought(service)
    assert LET_IN == world.call(service)
    assert {"stranger": TURNED_AWAY, NOBODY: TURNED_AWAY} == {
        who: world.call(service, who) for who in ("stranger", NOBODY)
    }


@pytest.mark.parametrize("service", RUNTIMES)
def test_every_caller_believes_the_issuer_by_its_file(world: World, service: str) -> None:
    name, port = world.name(service), world.ports[service]
    resolved = world.current("web")
    assert LET_IN == by_curl(resolved, service, service, f"https://{name}:{port}/").outcome
    module = world.current("agent") / "mtls.cjs"
    shown = by_node([{"id": "agent", "module": str(module), "callee": service, "service": service}])
    assert LET_IN == shown["agent"].outcome


def test_what_the_issuer_signed_for_another_name_is_not_believed(world: World) -> None:
    """And neither is the certificate that mtlsctl issued for the very service: its CA is nobody's to believe here."""
    wrong = world.issuing.leaf(world.folder / "wrong", common_name(world.name("nginx")), names=["other.example.com"])
    own = world.host / "etc/mtlsctl/nginx/releases"
    (release,) = own.iterdir()
    ports = [world.estate.free_port(world.address) for _ in range(2)]
    clients = str(release / "clients/main.pem")
    doors = [
        python_door(folder, "nginx", "main", Place("", world.address, port), clients=clients)
        for folder, port in zip((wrong.cert.parent, release), ports, strict=True)
    ]
    with PythonServer(world.folder / "log/impostor", doors):
        for port in ports:
            place = Place(world.name("nginx"), world.address, port)
            assert TURNED_AWAY == by_python(world.current("mail"), "nginx", "nginx", place).outcome


def test_with_system_the_machine_of_the_caller_decides(world: World) -> None:
    url = f"https://{world.name('system')}:{world.ports['system']}/"
    module = str(world.current("agent") / "mtls.cjs")
    case = [{"id": "agent", "module": module, "callee": "system", "service": "system"}]
    assert TURNED_AWAY == by_curl(world.current("web"), "system", "system", url).outcome
    assert TURNED_AWAY == by_node(case)["agent"].outcome
    knowing = {"CURL_CA_BUNDLE": str(world.machine), "NODE_EXTRA_CA_CERTS": str(world.machine)}
    with mock.patch.dict(os.environ, knowing):
        assert LET_IN == by_curl(world.current("web"), "system", "system", url).outcome
        assert LET_IN == by_node(case)["agent"].outcome
        pose = posing(world.current("stranger").resolve())
        assert TURNED_AWAY == by_curl(world.current("web"), "system", "system", url, pose=pose).outcome


@pytest.mark.parametrize("options", [(), ("--embedded",)])
def test_verify_finds_every_listener_as_declared(world: World, options: tuple[str, ...]) -> None:
    doors = ("--edge", "mail->nginx", "--edge", "mail->apache", "--edge", "mail->node", "--edge", "web->system")
    found = world.verified(*options, *doors)
    assert (0, 0, 0) == (found["code"], found["not_probed"], found["inconclusive"]), found


def test_without_the_key_an_embedded_server_is_not_probed_and_says_why(world: World) -> None:
    key = world.host / world.key_paths["apache"].removeprefix("/")
    key.rename(key.with_suffix(".away"))
    try:
        ran = world.estate.run("verify", "--embedded", "--edge", "mail->apache")
        assert "not probed" in ran.out
        assert f"there is no key at {key}" in " ".join(ran.out.split())
    finally:
        key.with_suffix(".away").rename(key)


def test_a_renewed_certificate_is_served_after_the_reload_and_callers_are_left_alone(world: World) -> None:
    before = {who: world.current(who).resolve() for who in ("mail", "web", "agent")}
    for service in RUNTIMES:
        world.buy(service, 2)
    world.apply()
    assert all(map(world.shows_what_was_bought, RUNTIMES))
    assert [LET_IN] * 3 == [world.call(one) for one in RUNTIMES]
    assert before == {who: world.current(who).resolve() for who in before}
    assert "Nothing to change" in world.estate.run("plan").out


def test_a_live_listener_goes_over_to_its_own_certificate_and_back(world: World) -> None:
    for own in (RUNTIMES, ()):
        world.apply(*own)
        assert [not own] * 3 == [world.shows_what_was_bought(one) for one in RUNTIMES]
        assert [(LET_IN, TURNED_AWAY)] * 3 == [(world.call(one), world.call(one, "stranger")) for one in RUNTIMES]
    assert "Nothing to change" in world.estate.run("plan").out


@pytest.mark.parametrize("service", RUNTIMES)
def test_a_key_of_another_certificate_is_refused_before_the_server_is_told(world: World, service: str) -> None:
    chain = world.estate.root / f"certificates/{service}.pem"
    kept, path = chain.read_bytes(), world.key_paths[service]
    right = world.host / path.removeprefix("/")
    world.buy(service, 3)
    world.place_key(service, right)
    said = " ".join(world.refused().err.split())
    assert "does not belong to the certificate" in said
    assert "M7203" in said or "key" in said
    (world.host / world.key_paths[service].removeprefix("/")).unlink()
    assert "there is no key at" in " ".join(world.refused().err.split())
    chain.write_bytes(kept)
    world.key_paths[service] = path
    assert world.shows_what_was_bought(service)
    assert LET_IN == world.call(service)
    world.apply()


def test_a_chain_that_does_not_fit_is_refused_with_its_line(world: World) -> None:
    chain = world.estate.root / "certificates/nginx.pem"
    kept = chain.read_bytes()
    blocks = [one + b"-----END CERTIFICATE-----\n" for one in kept.split(b"-----END CERTIFICATE-----\n")[:-1]]
    wrong = world.issuing.leaf(world.folder / "unfit", common_name("x"), names=["other.example.com"])
    for content, why in (
        (wrong.cert.read_bytes(), "it does not present nginx.example.com; it presents other.example.com"),
        (blocks[0], "nothing in `servers_trust` signed it"),
        (b"".join(reversed(blocks)), "its first certificate is a CA"),
    ):
        chain.write_bytes(content)
        ran = world.estate.run("plan")
        assert (7, True) == (ran.code, why in " ".join(ran.err.split())), ran
        assert "M1166" in ran.err
        assert "inventory.yaml:" in ran.err
    chain.write_bytes(kept)
    assert world.estate.run("validate").code == 0
