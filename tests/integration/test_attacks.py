"""Certificates that are made to be taken for somebody else's, at every server that compares names.

One estate with a shared CA and with partners from outside; every certificate is signed by a key that its CA really
has, so that names and chains alone tell who may call. To add a server: one line in `SERVERS`, and its program.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mtlsctl.operations.issue import signing_keys
from tests.integration.authorities import Authority, common_name, root, subject
from tests.integration.estate import ESTATE, Estate, internal, workspace_of
from tests.integration.peers import (
    LET_IN,
    TURNED_AWAY,
    Apache,
    Nginx,
    NodeServer,
    Place,
    by_python,
    posing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.estate import Inventory
    from tests.integration.peers import Posing, Program, Shown

pytestmark = [pytest.mark.usefixtures("loopback"), *(pytest.mark.peer(name) for name in ("nginx", "apache2", "node"))]


class Server(NamedTuple):
    """A runtime that serves: its host, and the program that reads the applied files there."""

    runtime: str
    program: Callable[[Path, str, list[tuple[str, str, int]]], Program]


SERVERS = {
    "front": Server("nginx", lambda host, _, doors: Nginx(host, [door[1:] for door in doors])),
    "middle": Server("apache", lambda host, _, doors: Apache(host, [door[1:] for door in doors])),
    "back": Server("node", NodeServer),
}
DOORS = ("named", "open")
"""`named` compares names under the shared CA and the partner's; `open` lets in everybody of another one's CA."""

PARTNER = subject(("O", "Acme"), ("CN", "Acme Root CA (2024)"))
IDENTITIES = ("api.acme.example", "CN=batch 1,OU=Payments & Returns,O=Acme")
CLUB = common_name("Club Root")


class World:
    """One estate: servers each on a host of their own, callers on `east`, and who else has a CA."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.estate = Estate(folder)
        names = [*SERVERS, "east"]
        self.hosts = {name: self.estate.address(number) for number, name in enumerate(names, 2)}
        self.places = {
            (service, door): Place(internal(service), self.hosts[service], self.estate.free_port(self.hosts[service]))
            for service in SERVERS
            for door in DOORS
        }
        self.partner, self.club = root(PARTNER), root(CLUB)
        partners = self.estate.root / "partners"
        partners.mkdir()
        (partners / "acme.pem").write_bytes(self.partner.pem)
        (partners / "club.pem").write_bytes(self.club.pem)

    def inventory(self) -> Inventory:
        partner = {"name": "acme", "certificates": ["partners/acme.pem"], "identities": list(IDENTITIES)}
        club = {"name": "club", "certificates": ["partners/club.pem"], "authorize": "any-member"}
        return {
            "version": 1,
            "name": ESTATE,
            "trust": {"model": "shared-ca"},
            "hosts": {name: {"directory": f"out/{name}", "address": at} for name, at in self.hosts.items()},
            "services": {
                **{
                    name: {
                        "runtime": server.runtime,
                        "hosts": [name],
                        "listeners": [
                            {"name": "named", "port": self.places[name, "named"].port, "bind": "host"}
                            | {"callers": ["mail", partner]},
                            {"name": "open", "port": self.places[name, "open"].port, "bind": "host"}
                            | {"callers": ["clerk", club]},
                        ],
                    }
                    for name, server in SERVERS.items()
                },
                "mail": {"runtime": "pem", "hosts": ["east"]},
                "batch": {"runtime": "pem", "hosts": ["east"]},
                "clerk": {"runtime": "pem", "hosts": ["east"], "trust": {"model": "service-ca"}},
            },
        }

    def release(self, service: str) -> Path:
        (release,) = (self.estate.folder("east", service) / "releases").iterdir()
        return release

    def shared(self) -> Authority:
        """The estate's own CA, with its key."""
        with workspace_of(self.estate).store(ESTATE) as store, store.lock(command="test", timeout_seconds=10) as writer:
            (authority,) = (one for one in writer.snapshot().authorities if not one.service)
            key = signing_keys(writer, [authority])[authority]
            certificate = x509.load_der_x509_certificate(writer.certificate(authority))
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Authority(certificate=certificate, key=key)

    def posers(self) -> dict[str, Posing]:
        """Everybody who comes to the door `named`; the first three are welcome."""
        shared, partner, made = self.shared(), self.partner, self.folder / "posers"
        ours = shared.certificate.subject
        identifier = shared.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        mail = internal("mail")
        sub = partner.intermediate(common_name("Acme Sub CA"))
        of_our_name = partner.intermediate(ours)
        of_our_name_and_identifier = partner.intermediate(ours, identifier=identifier)
        stranger = root(common_name("Nobody's Root"))
        leaves: dict[str, tuple[Authority, x509.Name, list[str]]] = {
            # The shared CA signs for members who are not declared, or that pretend to be.
            "a name in another attribute": (shared, subject(("O", "x,CN=mail"), ("CN", "batch")), [mail]),
            "a name behind a comma": (shared, common_name("batch,CN=mail"), [mail]),
            "a name behind a line break": (shared, common_name("batch\nCN=mail"), [mail]),
            "a name behind a bar": (shared, common_name("calendar CA g1|CN=mail"), [mail]),
            "two common names, ours last": (shared, subject(("CN", "batch"), ("CN", "mail")), [mail]),
            "two common names, ours first": (shared, subject(("CN", "mail"), ("CN", "batch")), [mail]),
            "two attributes in one": (
                shared,
                x509.Name(
                    [
                        x509.RelativeDistinguishedName(
                            [*common_name("mail"), *subject(("OU", "x"))],
                        )
                    ]
                ),
                [mail],
            ),
            "a longer name": (shared, common_name("mail.evil"), [mail]),
            "a name that ends so": (shared, common_name("evil.mail"), [mail]),
            "the same letters in capitals": (shared, common_name("MAIL"), [mail]),
            "a space behind": (shared, common_name("mail "), [mail]),
            "more attributes": (shared, subject(("O", "x"), ("CN", "mail")), [mail]),
            "the name as second alternative": (shared, common_name("batch"), [internal("batch"), mail]),
            "no name at all": (shared, x509.Name([]), [mail]),
            # The partner's CA signs whom we did not name, and what is not its own.
            "another of the partner's": (partner, common_name("evil.acme.example"), []),
            "our name from the partner": (partner, common_name("mail"), [mail]),
            "the partner's in another order": (
                partner,
                subject(("CN", "batch 1"), ("OU", "Payments & Returns"), ("O", "Acme")),
                [],
            ),
            "the partner's through an intermediate": (sub, common_name("api.acme.example"), []),
            "our name through an intermediate of our name": (of_our_name, common_name("mail"), [mail]),
            "the same with our key identifier": (of_our_name_and_identifier, common_name("mail"), [mail]),
            "a partner's name from our CA": (shared, common_name("api.acme.example"), []),
            "the club's, which another door takes": (self.club, common_name("api.acme.example"), []),
            # Nobody vouches for these.
            "a stranger of our CA's name": (root(ours, identifier=identifier), common_name("mail"), [mail]),
            "a stranger's intermediate of our name": (stranger.intermediate(ours), common_name("mail"), [mail]),
            "a stranger of the partner's name": (root(PARTNER), common_name("api.acme.example"), []),
        }
        welcome = {
            "mail": posing(self.release("mail")),
            "the partner": partner.leaf(made / "partner", common_name("api.acme.example")),
            "the partner's batch": partner.leaf(
                made / "batch", subject(("O", "Acme"), ("OU", "Payments & Returns"), ("CN", "batch 1"))
            ),
        }
        unwelcome = {
            "batch": posing(self.release("batch")),
            "clerk": posing(self.release("clerk")),
            "the same with our CA in the chain": of_our_name_and_identifier.leaf(
                made / "with-chain", common_name("mail"), names=[mail], with_chain=[shared.certificate]
            ),
        }
        for number, (who, (issuer, name, alternatives)) in enumerate(leaves.items()):
            unwelcome[who] = issuer.leaf(made / str(number), name, names=alternatives)
        return {**welcome, **unwelcome}


WELCOME = {"mail", "the partner", "the partner's batch"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("attacks"))
    world.estate.apply(world.inventory())
    with contextlib.ExitStack() as running:
        for name, server in SERVERS.items():
            doors = [(door, world.places[name, door].address, world.places[name, door].port) for door in DOORS]
            running.enter_context(server.program(world.estate.host(name), name, doors))
        yield world


@pytest.fixture(scope="module")
def posers(world: World) -> dict[str, Posing]:
    return world.posers()


def called(world: World, service: str, door: str, pose: Posing, tls: str) -> Shown:
    """By a caller that believes the server as `mail` and `clerk` do."""
    caller = world.release("mail" if door == "named" else "clerk")
    return by_python(caller, f"{service}.{door}", service, world.places[service, door], pose=pose, tls=(tls,))


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize("service", SERVERS)
def test_who_is_declared_gets_in_and_whoever_poses_as_them_does_not(
    world: World, posers: dict[str, Posing], service: str, tls: str
) -> None:
    shown = {who: called(world, service, "named", pose, tls) for who, pose in posers.items()}
    wrong = {who: one for who, one in shown.items() if (one.outcome == LET_IN) is not (who in WELCOME)}
    assert {} == wrong
    assert {LET_IN, TURNED_AWAY} == {one.outcome for one in shown.values()}


@pytest.mark.parametrize("service", SERVERS)
def test_everybody_of_a_ca_gets_in_where_that_is_declared_and_nobody_else(world: World, service: str) -> None:
    made = world.folder / f"open-{service}"
    sub = world.club.intermediate(common_name("Club Sub CA"))
    comers = {
        "clerk": (posing(world.release("clerk")), LET_IN),
        "a member": (world.club.leaf(made / "member", common_name("anybody")), LET_IN),
        "a member of a member": (sub.leaf(made / "sub", common_name("anybody else")), LET_IN),
        "mail": (posing(world.release("mail")), TURNED_AWAY),
        "the partner": (world.partner.leaf(made / "partner", common_name("api.acme.example")), TURNED_AWAY),
        "a stranger of that name": (root(CLUB).leaf(made / "stranger", common_name("anybody")), TURNED_AWAY),
    }
    shown = {who: called(world, service, "open", pose, "1.3") for who, (pose, _) in comers.items()}
    assert {who: outcome for who, (_, outcome) in comers.items()} == {who: one.outcome for who, one in shown.items()}, (
        shown
    )


def test_verify_finds_what_it_can_try_as_declared_and_says_what_it_cannot(world: World) -> None:
    ran = world.estate.run("verify", "--embedded", "--full")
    assert ran.code == 0, ran
    assert "acme (outside) -> front:named   left out: the caller's key is not ours" in ran.out
    assert "6 calls from or to the outside left out" in " ".join(ran.out.split())
