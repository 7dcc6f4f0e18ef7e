"""One estate for a trust model, with every kind of server and of caller, all up and reading what one apply wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from tests.integration.crafted import look_alike, misnamed
from tests.integration.estate import LOOPBACK, Estate, Inventory, internal
from tests.integration.peers import NOBODY, Place, Posing, posing
from tests.interop.matrix import CALLERS, DOORS, LETS_IN, SERVERS, VERSIONS, Case, Door, Part, caller_name

if TYPE_CHECKING:
    from pathlib import Path

BY_NAME = (
    "the second mark is a caller that the shared CA vouches for and nobody declared. Its listeners say `authorize:"
    " any-member`, without which the plan is refused with"
)
ONE_STORE = (
    "it is not called and a caller at once here. Where it calls somebody who may not call it, the plan is refused with"
)

STRANGER = "stranger"
SIDE = "side"
"""A service that has the stranger for its caller: its certificate is good, elsewhere."""


class World:
    """The estate of a model. `places` are by door; `egress`, local ports, by kind of caller and door."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model
        self.estate = Estate(folder)
        names = [*(kind.lower() for kind in SERVERS), "callers"]
        self.hosts = {name: self.estate.address(number) for number, name in enumerate(names, 2)}
        self.places = {door: self._place(door.service, door.server.lower()) for door in DOORS}
        self.side = self._place(SIDE, "nginx")
        self.egress = {
            (kind, door): self.estate.free_port(LOOPBACK)
            for kind, caller in CALLERS.items()
            if caller.is_way_out
            for door in DOORS
        }

    def _place(self, service: str, host: str) -> Place:
        return Place(internal(service), self.hosts[host], self.estate.free_port(self.hosts[host]))

    def inventory(self) -> Inventory:
        services: dict[str, dict[str, Any]] = {}
        for door in DOORS:
            server = {"runtime": SERVERS[door.server].runtime, "hosts": [door.server.lower()], "listeners": []}
            services.setdefault(door.service, server)["listeners"].append(self._listener(door))
        side = {"port": self.side.port, "bind": "host", "callers": [STRANGER]}
        services[SIDE] = {"runtime": "nginx", "hosts": ["nginx"], "listeners": [side]}
        services[STRANGER] = {"runtime": "pem", "hosts": ["callers"]}
        for kind, caller in CALLERS.items():
            for version in VERSIONS:
                made = {"runtime": caller.runtime, "hosts": ["callers"]}
                way_out = {"settings": {"egress": self._egress(kind, version)}} if caller.is_way_out else {}
                services[caller_name(kind, version)] = made | way_out
        return {
            "version": 1,
            "name": "calendar",
            "trust": {"model": self.model},
            "hosts": {name: {"directory": f"out/{name}", "address": address} for name, address in self.hosts.items()},
            "services": services,
        }

    def _listener(self, door: Door) -> dict[str, object]:
        any_member = {"authorize": "any-member"} if self.lets_all_in(door.server) else {}
        return any_member | {
            "name": door.listener,
            "port": self.places[door].port,
            "bind": "host",
            "protocols": [VERSIONS[door.version]],
            "callers": [caller_name(kind, door.version) for kind in CALLERS],
        }

    def lets_all_in(self, server: str) -> bool:
        return any((self.model, server, case) in LETS_IN for case in Case)

    def reasons(self) -> list[str]:
        """What `mtlsctl plan` says to what a kind of server cannot do: the notes below the model's table."""
        notes = []
        for kind, server in SERVERS.items():
            door = Door(kind, Part.SERVER, next(iter(VERSIONS)))
            if self.lets_all_in(kind):
                strict = self.inventory()
                del strict["services"][door.service]["listeners"][0]["authorize"]
                notes.append(f"{kind}: {BY_NAME} {self._refused(strict)}")
            if server.has_one_store:
                both_ways = self.inventory()
                both_ways["services"][SIDE]["listeners"][0]["callers"].append(door.service)
                notes.append(f"{kind}: {ONE_STORE} {self._refused(both_ways)}")
        return notes

    def _refused(self, inventory: Inventory) -> str:
        """The first refusal of a plan of this inventory, which is not applied."""
        self.estate.declare(inventory)
        planned = self.estate.run("plan", "-o", "json")
        self.estate.declare(self.inventory())
        assert planned.code == 7, planned
        first = json.loads(planned.out)["diagnostics"][0]
        return f"{first['code']}: {first['summary']}."

    def _egress(self, kind: str, version: str) -> dict[str, int]:
        return {door.service: self.egress[kind, door] for door in DOORS if door.version == version}

    def release(self, host: str, service: str) -> Path:
        """The only release of a service after one apply."""
        (release,) = (self.estate.folder(host, service) / "releases").iterdir()
        return release

    def apply(self) -> None:
        """Apply, and give the doubles their wrong certificates, before any program runs."""
        self.estate.apply(self.inventory())
        crafts = {Part.MISNAMED: self._misnamed, Part.MISISSUED: self._misissued}
        for service, door in {door.service: door for door in DOORS if door.part in crafts}.items():
            release = self.release(door.server.lower(), service)
            wrong = crafts[door.part](service, release)
            show_instead(release, wrong)
            if self.model == "pinned" and door.part is Part.MISNAMED:
                self._pin(service, wrong)

    def _misnamed(self, service: str, release: Path) -> Posing:
        return misnamed(self.folder / service, self.estate, service, release)

    def _pin(self, service: str, wrong: Posing) -> None:
        """Let all callers believe a certificate that signs itself: then only its name is wrong."""
        callers = self.estate.host("callers") / "etc/mtlsctl"
        for bundle in callers.glob(f"*/releases/*/servers/{service}*.pem"):
            bundle.write_bytes(wrong.cert.read_bytes())
        for store in callers.glob("*/releases/*/trust.p12"):
            believe(store, (store.parent / "secrets/store-password").read_bytes(), wrong.cert)

    def _misissued(self, service: str, release: Path) -> Posing:
        return look_alike(self.folder / service, release)

    def poses(self, caller: str) -> dict[Case, Posing | str]:
        """What a caller shows in place of its own certificate, by case; where it shows its own there is none."""
        own = self.release("callers", caller)
        return {
            Case.AS_ITSELF: posing(own),
            Case.UNDECLARED: posing(self.release("callers", STRANGER)),
            Case.NOBODY: NOBODY,
            Case.UNKNOWN_CALLER: look_alike(self.folder / f"look-alike-of-{caller}", own),
        }


def show_instead(release: Path, wrong: Posing) -> None:
    """Put a certificate and its key in place of those of a release; the program reads all else as it was applied."""
    changed = {"tls.crt": wrong.cert.read_bytes(), "tls.key": wrong.key.read_bytes()}
    if (release / "keystore.p12").exists():
        changed["keystore.p12"] = key_store(wrong, (release / "secrets/store-password").read_text())
    for name, content in changed.items():
        there = release / name
        there.unlink()  # the key is a hard link, and its other name is not to change
        there.write_bytes(content)


def believe(store: Path, password: bytes, certificate: Path) -> None:
    """Put one certificate more into a trust store."""
    held = pkcs12.load_pkcs12(store.read_bytes(), password).additional_certs
    more = pkcs12.PKCS12Certificate(
        x509.load_pem_x509_certificate(certificate.read_bytes()), certificate.parent.name.encode()
    )
    store.write_bytes(pkcs12.serialize_java_truststore([*held, more], BestAvailableEncryption(password)))


def key_store(posing: Posing, password: str) -> bytes:
    """A certificate and its key as PKCS#12."""
    leaf, *above = x509.load_pem_x509_certificates(posing.cert.read_bytes())
    key: Any = load_pem_private_key(posing.key.read_bytes(), None)
    hidden = BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(b"poser", key, leaf, above, hidden)
