"""`mtlsctl verify` against running servers: good ones pass, an open one is found, a stopped one is never a pass."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.estate import Estate, Inventory, internal
from tests.integration.peers import Nginx, NodeServer, Place, PythonServer, python_door
from tests.unit.verify.certificates import estate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("nginx"), pytest.mark.peer("node")]

SERVERS = {"schedule": "nginx", "planner": "node", "archive": "pem"}
CALLERS = {"schedule": ["mail", "social"], "planner": ["mail"], "archive": ["social", "report"]}


class Served:
    """Three servers, each with callers of its own."""

    def __init__(self, folder: Path) -> None:
        self.estate = Estate(folder)
        self.hosts = {"north": self.estate.address(2), "west": self.estate.address(3)}
        self.places = {
            name: Place(internal(name), address, self.estate.free_port(address))
            for name in SERVERS
            for address in [self.hosts[self.host_of(name)]]
        }

    def host_of(self, service: str) -> str:
        return "north" if service == "schedule" else "west"

    def inventory(self) -> Inventory:
        return {
            "version": 1,
            "name": "calendar",
            "hosts": {name: {"directory": f"out/{name}", "address": place} for name, place in self.hosts.items()},
            "services": {
                **{
                    name: {"runtime": runtime, "hosts": [self.host_of(name)], "listen": self.places[name].port}
                    | {"bind": "host", "callers": CALLERS[name]}
                    for name, runtime in SERVERS.items()
                },
                "mail": {"runtime": "curl", "hosts": ["west"]},
                "social": {"runtime": "node", "hosts": ["west"]},
                "report": {"runtime": "pem", "hosts": ["west"]},
            },
        }

    def nginx(self, **changes: Any) -> Nginx:
        return Nginx(self.estate.host("north"), [self.places["schedule"][1:]], **changes)

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        ran = self.estate.run("verify", "-o", "json", *arguments)
        return ran.code, json.loads(ran.out)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Applied, with the Node and the Python server up; nginx is the test's to start."""
    served = Served(tmp_path)
    estate, planner, archive = served.estate, served.places["planner"], served.places["archive"]
    estate.apply(served.inventory())
    door = python_door(estate.current("west", "archive"), "archive", "main", archive)
    with contextlib.ExitStack() as running:
        running.enter_context(NodeServer(estate.host("west"), "planner", [("main", *planner[1:])]))
        running.enter_context(PythonServer(tmp_path / "python.log", [door]))
        yield served


def found(document: dict[str, Any], verdict: str) -> set[tuple[str | None, str, str, str]]:
    """(caller, listener, what was presented, what was observed) of each result with this verdict."""
    return {
        (one["caller"], door_of(one), one["probe"]["presented"], one["observed"])
        for one in document["results"]
        if one["verdict"] == verdict
    }


def door_of(result: dict[str, Any]) -> str:
    """The listener without its port."""
    return str(result["listener"]).partition(":")[0]


def test_servers_that_read_the_applied_files_pass(served: Served) -> None:
    with served.nginx():
        code, document = served.verify()
        text = served.estate.run("verify", "--ascii", "--full")
    # Each door with each protocol: five other services, nobody, and three certificates that are good for nothing;
    # and once HTTP without TLS and whom it asks for.
    assert (0, 3 * (2 * (5 + 4) + 2)) == (code, document["summary"]["as_declared"]), document
    assert document["summary"]["checks"] == document["summary"]["as_declared"]
    assert {(caller, service) for service, callers in CALLERS.items() for caller in callers} == {
        (one["caller"], door_of(one)) for one in document["results"] if one["observed"] == "allowed"
    }
    assert (0, True) == (text.code, all(name in text.out for name in (*SERVERS, "mail", "social")))


def test_a_server_that_lets_in_too_many_is_found_and_the_pair_is_named(served: Served) -> None:
    with served.nginx(include=False, own=too_open(served)):
        code, document = served.verify()
        text = served.estate.run("verify", "--ascii")
    assert (
        4,
        {("report", "schedule", "delivered", "allowed"), (None, "schedule", "other_ca", "allowed")},
    ) == (code, found(document, "contradiction")), document
    assert (4, True) == (text.code, "report -> schedule" in text.out), text.out


def too_open(served: Served) -> str:
    """What a hurried edit leaves behind: one CA too many in the list of callers."""
    estate, place = served.estate, served.places["schedule"]
    (release,) = (estate.folder("north", "schedule") / "releases").iterdir()
    clients = estate.root / "too-many.pem"
    others = estate.current("west", "archive") / "clients/main.pem"
    clients.write_text((release / "clients/main.pem").read_text() + others.read_text())
    return (
        f"server {{ listen {place.address}:{place.port} ssl; server_name {place.name};"
        f" ssl_certificate {release}/tls.crt; ssl_certificate_key {release}/tls.key; ssl_verify_client on;"
        f" ssl_client_certificate {clients}; ssl_verify_depth 0; ssl_protocols TLSv1.2 TLSv1.3;"
        ' location / { return 200 "schedule\\n"; } }\n'
    )


def test_a_server_that_trusts_a_stranger_is_found_though_nobody_can_try(served: Served) -> None:
    own = too_open(served)
    many = served.estate.root / "too-many.pem"
    (release,) = (served.estate.folder("north", "schedule") / "releases").iterdir()
    many.write_text((release / "clients/main.pem").read_text() + estate().foreign_ca.issue("a stranger").pem.decode())
    with served.nginx(include=False, own=own):
        code, document = served.verify()
    assert (4, {(None, "schedule", "other_ca", "allowed")}) == (code, found(document, "contradiction")), document
    evidence = [one["evidence"]["text"] for one in document["results"] if one["verdict"] == "contradiction"]
    assert ["trusts 1 CA more than declared: CN=a stranger"] == evidence


def test_a_server_that_was_not_reloaded_since_a_caller_was_removed_is_found(served: Served) -> None:
    with served.nginx():
        inventory = served.inventory()
        inventory["services"]["schedule"]["callers"] = ["mail"]
        inventory["hosts"]["north"]["pid_files"] = {}
        served.estate.declare(inventory)
        served.estate.run("apply", "--yes")
        code, document = served.verify("--quick")
    contradictions = found(document, "contradiction")
    assert (4, True) == (code, (None, "schedule", "other_ca", "allowed") in contradictions), document


def test_files_that_were_altered_since_they_were_applied_are_never_silent(served: Served) -> None:
    with served.nginx():
        (release,) = (served.estate.folder("north", "schedule") / "releases").iterdir()
        clients = release / "clients/main.pem"
        clients.chmod(0o640)
        clients.write_text(clients.read_text() + "\n")
        code, document = served.verify("--quick")
    (altered,) = [one for one in document["results"] if one["verdict"] == "not_probed" and one["caller"] is None]
    assert (1, "schedule@north", True) == (code, altered["instance"], "altered" in altered["evidence"]["text"])


def test_a_server_that_asks_for_no_certificate_is_found(served: Served) -> None:
    own = too_open(served).replace("ssl_verify_client on", "ssl_verify_client off")
    with served.nginx(include=False, own=own):
        code, document = served.verify("--quick")
    assert 4 == code
    assert {(None, "schedule", "no_certificate", "allowed")} <= found(document, "contradiction")


def test_a_server_that_is_stopped_is_never_a_pass(served: Served) -> None:
    code, document = served.verify()
    at_schedule = [one for one in document["results"] if door_of(one) == "schedule"]
    assert (1, {("unreachable", "inconclusive")}) == (code, {(one["observed"], one["verdict"]) for one in at_schedule})
    others = [one for one in document["results"] if door_of(one) != "schedule"]
    assert {"as_declared"} == {one["verdict"] for one in others}, document


def test_keys_that_their_owners_keep_are_proven_at_running_servers(tmp_path: Path) -> None:
    """A server shows what was issued for its owner's key; a caller whose key is nowhere is stood in for."""
    served = Served(tmp_path)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("schedule", "report")}
    inventory = served.inventory()
    inventory["services"]["schedule"]["callers"] = ["mail", "report"]
    del inventory["services"]["planner"], inventory["services"]["archive"]
    for name, key in keys.items():
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        (served.estate.root / f"{name}.csr").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        inventory["services"][name]["certificate_request"] = f"{name}.csr"
    served.estate.declare(inventory)
    waits = served.estate.run("apply", "--yes")
    assert (waits.code, "M4112" in waits.out) == (3, True), waits
    spki = (
        keys["schedule"]
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    place = served.estate.folder("north", "schedule") / "keys" / f"{hashlib.sha256(spki).hexdigest()}.key"
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    place.write_bytes(keys["schedule"].private_bytes(*pem))
    place.chmod(0o600)
    served.estate.apply(inventory)
    with served.nginx():
        code, document = served.verify()
    assert (code, document["summary"]["as_declared"]) == (0, document["summary"]["checks"]), document
    modes = {
        (one["caller"], one["observed"], one["probe"]["mode"])
        for one in document["results"]
        if one["probe"]["presented"] == "delivered"
    }
    assert modes == {
        ("mail", "allowed", "delivered-key"),
        ("report", "allowed", "probe-certificate"),
        ("social", "refused", "delivered-key"),
    }
