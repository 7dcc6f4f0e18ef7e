"""Random inventories and random edits of them; everything follows from one seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.topology import (
    AbandonedHost,
    AuthorityPolicy,
    Authorize,
    Caller,
    CertificatePolicy,
    ClientCertificate,
    DirectoryHost,
    ExternalServer,
    ForwardIdentity,
    Inventory,
    Listener,
    MovedHost,
    MovedService,
    OutsideCertificate,
    Outsider,
    ServerCertificate,
    Service,
    TrustModel,
)
from mtlsctl.model.trust import OutsideFacts
from tests.support.estates import request
from tests.support.world import issuer_of

if TYPE_CHECKING:
    from random import Random

CERTIFICATES = [f"{number:064x}" for number in range(6)]
OUTSIDE_FACTS = {
    sha256: OutsideFacts(
        subject=f"CN=root {sha256[-1]}",
        shown=f"CN=root {sha256[-1]}",
        key_name=f"2.5.4.3=root {sha256[-1]}",
        spki_sha256=f"key of {sha256}",
        path_length=None,
        name_bytes=40,
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
        not_after=datetime(2060, 1, 1, tzinfo=UTC),
    )
    for sha256 in CERTIFICATES
}
LEAVES = [f"{number:060x}{issuer:04x}" for number in (1, 2) for issuer in range(len(CERTIFICATES))]
"""Certificates of servers; by the last digit which of CERTIFICATES issued each."""
OUTSIDE_FACTS |= {
    sha256: replace(OUTSIDE_FACTS[CERTIFICATES[0]], shown=f"CN={sha256[-9:]}", names=("*.example.com", "*.example.net"))
    for sha256 in LEAVES
}
NAMED, OPEN, SYSTEM = "x", "y", "z"
"""How doors begin at which outsiders are known by name, and those for everybody of a CA: the two do not go together.
And those that callers believe by what their machine believes: that begins and ends with the door."""

MODES = [ClientCertificate.REQUIRED] * 4 + [ClientCertificate.OPTIONAL, ClientCertificate.NONE]
AUTHORIZE = [Authorize.CALLERS] * 4 + [Authorize.ANY_MEMBER]
LONG = CertificatePolicy(lifetime=timedelta(days=90), renew_before=timedelta(days=30))


@dataclass
class Topology:
    """A mutable sketch of an estate. Ports are never given out twice, so no edit passes one on."""

    random: Random
    services: dict[str, Service] = field(default_factory=dict)
    hosts: dict[str, DirectoryHost] = field(default_factory=dict)
    last_port: int = 1000
    last_name: int = 0
    edits: int = 0
    past_names: dict[str, list[DnsId]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    abandoned: list[str] = field(default_factory=list)
    models: list[TrustModel] = field(default_factory=lambda: [TrustModel.SERVICE_CA])
    shared: AuthorityPolicy = field(default_factory=AuthorityPolicy)
    asking: dict[str, int] = field(default_factory=dict)
    """Services whose keys are brought, and the how manieth each of them is."""
    external: dict[str, ExternalServer] = field(default_factory=dict)
    is_open: bool = False
    """Whether anybody outside may be declared."""
    is_showing: bool = False
    """Whether doors may show certificates that somebody else issued."""

    @classmethod
    def sprout(cls, random: Random) -> Topology:
        topology = cls(random)
        if random.random() < 0.6:
            topology.models = list(TrustModel)
        for number in range(random.randint(2, 4)):
            host = f"h{number}"
            topology.hosts[host] = DirectoryHost(name=host, directory=f"/out/{host}", address=f"127.0.0.{number + 2}")
        topology.is_open = random.random() < 0.4
        topology.is_showing = random.random() < 0.4
        for _ in range(random.randint(3, 5)):
            topology.add_service()
        for _ in range(random.randint(2, 7)):
            topology.add_edge()
        if random.random() < 0.35:
            topology.add_mutual_edge()
        topology.change_outsiders()
        topology.change_external()
        topology.change_shown()
        return topology

    def inventory(self) -> Inventory:
        """Entries about hosts stay for good, as they may."""
        self.edits += 1
        return Inventory(
            name="calendar",
            hosts=dict(self.hosts),
            services={name: self._asked_for(service) for name, service in self.services.items()},
            digest=str(self.edits),
            moved=tuple(MovedHost(old=old, new=new) for old, new in self.moved.items()),
            renamed=tuple(MovedService(old=old, new=new) for old, new in self.renamed.items()),
            abandoned=tuple(AbandonedHost(name=name) for name in self.abandoned),
            shared_authority=self.shared,
            external_servers=tuple(one for one in self.external.values() if one.callers),
            certificates={one: OutsideCertificate(der=one.encode(), file=f"{one}.pem") for one in self._named()},
            chains={one: OutsideCertificate(der=one.encode(), file=f"{one}.pem") for one in self._shown()},
        )

    def _named(self) -> set[str]:
        """The certificates from outside that something names."""
        doors = (door for service in self.services.values() for door in service.listeners)
        named = {one for door in doors for outsider in door.outsiders for one in outsider.certificates}
        named.update(one for shown in self._server_certificates() for one in shown.trust)
        return named.union(*(one.certificates for one in self.external.values() if one.callers))

    def _server_certificates(self) -> list[ServerCertificate]:
        doors = (door for service in self.services.values() for door in service.listeners)
        return [door.server_certificate for door in doors if door.server_certificate is not None]

    def _shown(self) -> set[str]:
        return {one for shown in self._server_certificates() for one in shown.chain}

    def _asked_for(self, service: Service) -> Service:
        number = self.asking.get(service.name)
        if number is None or service.trust is TrustModel.PINNED:
            return service
        requests = ((host, request(f"{service.name}-{host}-{number}")) for host in service.hosts)
        return replace(service, requests=tuple(requests))

    @property
    def instances(self) -> int:
        return sum(len(service.hosts) for service in self.services.values())

    @property
    def is_mutual(self) -> bool:
        calls = {
            (caller.service, service.name)
            for service in self.services.values()
            for door in service.listeners
            for caller in door.callers
        }
        return any((callee, caller) in calls for caller, callee in calls)

    def add_service(self) -> None:
        name = f"s{len(self.services)}x{self.last_name}"
        hosts = tuple(sorted(self.random.sample(sorted(self.hosts), self.random.randint(1, 2))))
        doors = tuple(self._door(f"d{n}") for n in range(self.random.choice([0, 1, 1, 1, 2])))
        runtime = self.random.choice(["nginx", "node", "pem"])
        self.services[name] = Service(
            name=name,
            runtime=runtime,
            hosts=hosts,
            names=(self._name(),),
            listeners=doors,
            certificate=LONG,
            trust=self.random.choice(self.models),
        )

    def _name(self) -> DnsId:
        self.last_name += 1
        return DnsId(f"n{self.last_name}.{self.random.choice(['example.com', 'example.net'])}")

    def _door(self, name: str) -> Listener:
        self.last_port += 1
        if self.is_open and self.random.random() < 0.5:
            kind = self.random.choice([NAMED, NAMED, OPEN])
            mode = self.random.choice(MODES[:-1])
            return Listener(name=f"{kind}{self.last_port}", port=self.last_port, client_certificate=mode)
        authorize = self.random.choice(AUTHORIZE)
        mode = self.random.choice(MODES)
        if self.is_showing and self.random.random() < 0.4:
            shown = self._server_certificate(is_system=True)
            name = f"{SYSTEM}{self.last_port}"
            return Listener(name=name, port=self.last_port, client_certificate=mode, server_certificate=shown)
        return Listener(name=name, port=self.last_port, client_certificate=mode, authorize=authorize)

    def _server_certificate(self, *, is_system: bool) -> ServerCertificate:
        leaf = self.random.choice(LEAVES)
        trust = {issuer_of(leaf), *self.random.sample(CERTIFICATES, self.random.randint(0, 1))}
        path = self.random.choice(["/etc/ssl/private/a.key", "/etc/ssl/private/b.key"])
        chain = (leaf, *self.random.sample(LEAVES, self.random.randint(0, 1)))
        return ServerCertificate(
            chain=chain, key_path=path, trust=() if is_system else tuple(sorted(trust)), file="certificates/site.pem"
        )

    def _any(self) -> Service:
        return self.services[self.random.choice(sorted(self.services))]

    def _any_with_doors(self) -> Service | None:
        able = sorted(name for name, service in self.services.items() if service.listeners)
        return self.services[self.random.choice(able)] if able else None

    def _set_door(self, service: Service, old: Listener, new: Listener) -> None:
        doors = tuple(new if door is old else door for door in service.listeners)
        self.services[service.name] = replace(service, listeners=doors)

    def _allow(self, caller: str, callee: Service) -> None:
        door = self.random.choice(callee.listeners)
        if door.name.startswith(OPEN):
            return
        if caller != callee.name and all(one.service != caller for one in door.callers):
            self._set_door(callee, door, replace(door, callers=(*door.callers, Caller(service=caller))))

    def add_edge(self) -> None:
        callee = self._any_with_doors()
        if callee:
            self._allow(self._any().name, callee)

    def add_mutual_edge(self) -> None:
        able = sorted(name for name, service in self.services.items() if service.listeners)
        if len(able) > 1:
            first, second = self.random.sample(able, 2)
            self._allow(first, self.services[second])
            self._allow(second, self.services[first])

    def remove_edge(self) -> None:
        callee = self._any_with_doors()
        if callee:
            door = self.random.choice(callee.listeners)
            if door.callers:
                lost = self.random.choice(door.callers)
                self._set_door(callee, door, replace(door, callers=tuple(one for one in door.callers if one != lost)))

    def rotate(self) -> None:
        service = self._any()
        policy = replace(service.authority, generation=service.authority.generation + 1)
        self.services[service.name] = replace(service, authority=policy)

    def rotate_shared(self) -> None:
        self.shared = replace(self.shared, generation=self.shared.generation + 1)

    def change_model(self) -> None:
        service = self._any()
        self.services[service.name] = replace(service, trust=self.random.choice(self.models))

    def change_authorize(self) -> None:
        service = self._any_with_doors()
        if service:
            door = self.random.choice(service.listeners)
            if not door.name.startswith((NAMED, OPEN)):
                self._set_door(service, door, replace(door, authorize=self.random.choice(AUTHORIZE)))

    def rename(self) -> None:
        """To a new name or back to an old one, beside the others or instead of them; or one of several goes."""
        service = self._any()
        past = self.past_names.setdefault(service.name, [])
        past.extend(name for name in service.names if name not in past)
        first = self.random.choice(past) if self.random.random() < 0.3 else self._name()
        kept = tuple(name for name in service.names if name != first) if self.random.random() < 0.3 else ()
        names = service.names[1:] if len(service.names) > 1 and self.random.random() < 0.3 else (first, *kept)
        self.services[service.name] = replace(service, names=names)

    def move_port(self) -> None:
        service = self._any_with_doors()
        if service:
            door = self.random.choice(service.listeners)
            self.last_port += 1
            self._set_door(service, door, replace(door, port=self.last_port))

    def change_mode(self) -> None:
        service = self._any_with_doors()
        if service:
            door = self.random.choice(service.listeners)
            modes = MODES[:-1] if door.name.startswith((NAMED, OPEN)) else MODES
            self._set_door(service, door, replace(door, client_certificate=self.random.choice(modes)))

    def forward(self) -> None:
        service = self._any_with_doors()
        if service:
            door = self.random.choice(service.listeners)
            form = self.random.choice([None, *ForwardIdentity])
            if not door.name.startswith(OPEN):
                self._set_door(service, door, replace(door, forward_identity=form))

    def move_host(self) -> None:
        service = self._any()
        hosts = tuple(sorted(self.random.sample(sorted(self.hosts), self.random.randint(1, 2))))
        self.services[service.name] = replace(service, hosts=hosts)

    def rename_host(self) -> None:
        old = self.random.choice(sorted(self.hosts))
        self.last_name += 1
        new = f"h{self.last_name}x"
        self.hosts[new] = replace(self.hosts.pop(old), name=new)
        self.moved = {one: new if end == old else end for one, end in self.moved.items()} | {old: new}
        self._replace_host(old, new)

    def rename_service(self) -> None:
        """One of a program that serves a whole host."""
        known = sorted(name for name, service in self.services.items() if service.runtime == "nginx")
        if not known:
            return
        old = self.random.choice(known)
        self.last_name += 1
        new = f"r{self.last_name}x"
        self.renamed = {one: new if end == old else end for one, end in self.renamed.items()} | {old: new}
        self.services[new] = replace(self.services.pop(old), name=new)
        self.past_names = {new if one == old else one: names for one, names in self.past_names.items()}
        self.asking = {new if one == old else one: number for one, number in self.asking.items()}
        for name, server in self.external.items():
            self.external[name] = replace(server, callers=_called_anew(server.callers, old, new))
        for service in list(self.services.values()):
            doors = tuple(replace(door, callers=_called_anew(door.callers, old, new)) for door in service.listeners)
            self.services[service.name] = replace(service, listeners=doors)

    def abandon_host(self) -> None:
        """What was there goes to another host, if the service is not there anyway."""
        if len(self.hosts) > 2:
            gone = self.random.choice(sorted(self.hosts))
            del self.hosts[gone]
            self.abandoned.append(gone)
            self.moved = {one: end for one, end in self.moved.items() if end != gone}
            self._replace_host(gone, self.random.choice(sorted(self.hosts)))

    def _replace_host(self, old: str, new: str) -> None:
        for service in list(self.services.values()):
            hosts = tuple(sorted({new if one == old else one for one in service.hosts}))
            self.services[service.name] = replace(service, hosts=hosts)

    def add_door(self) -> None:
        service = self._any()
        if len(service.listeners) < 3:
            door = self._door(f"d{self.last_port}")
            self.services[service.name] = replace(service, listeners=(*service.listeners, door))

    def remove_service(self) -> None:
        if len(self.services) > 2:
            lost = self._any().name
            del self.services[lost]
            self.renamed = {one: end for one, end in self.renamed.items() if end != lost}
            for name, server in self.external.items():
                left = tuple(one for one in server.callers if one.service != lost)
                self.external[name] = replace(server, callers=left)
            for service in list(self.services.values()):
                doors = tuple(
                    replace(door, callers=tuple(one for one in door.callers if one.service != lost))
                    for door in service.listeners
                )
                self.services[service.name] = replace(service, listeners=doors)

    def change_outsiders(self) -> None:
        """At one of their doors: somebody comes, goes, or is let in by other certificates or identities."""
        doors = [
            (service, door)
            for service in self.services.values()
            for door in service.listeners
            if door.name.startswith((NAMED, OPEN))
        ]
        if not doors:
            return
        service, door = self.random.choice(doors)
        name = self.random.choice(["acme", "globex"])
        others = tuple(one for one in door.outsiders if one.name != name)
        certificates = tuple(sorted(self.random.sample(CERTIFICATES[:4], self.random.randint(1, 2))))
        identities = tuple(sorted(self.random.sample(["api", "batch", "CN=web,O=Acme"], self.random.randint(1, 3))))
        outsider = Outsider(
            name=name, certificates=certificates, identities=None if door.name.startswith(OPEN) else identities
        )
        stays = self.random.random() < 0.7
        self._set_door(service, door, replace(door, outsiders=(*others, outsider) if stays else others))

    def change_shown(self) -> None:
        """A door shows another certificate, its service's own again, or is believed by other CAs."""
        service = self._any_with_doors()
        if service and self.is_showing:
            door = self.random.choice(service.listeners)
            is_system = door.name.startswith(SYSTEM)
            stays = is_system or self.random.random() < 0.7
            shown = self._server_certificate(is_system=is_system) if stays else None
            self._set_door(service, door, replace(door, server_certificate=shown))

    def change_external(self) -> None:
        """A server outside comes, goes, moves, is believed by something else or called by others."""
        if self.is_open:
            name = self.random.choice(["bank", "shop"])
            callers = self.random.sample(sorted(self.services), self.random.randint(0, min(2, len(self.services))))
            certificates = tuple(sorted(self.random.sample(CERTIFICATES[3:], self.random.randint(0, 2))))
            self.external[name] = ExternalServer(
                name=name,
                host=f"{name}{self.random.randint(1, 2)}.example.org",
                port=443,
                certificates=certificates,
                callers=tuple(Caller(service=one) for one in sorted(callers)),
            )

    def change_profile(self) -> None:
        service = self._any()
        policy = replace(service.certificate, lifetime=timedelta(days=self.random.choice([60, 90])))
        authority = AuthorityPolicy(
            generation=service.authority.generation, lifetime=timedelta(days=self.random.choice([400, 1825]))
        )
        self.services[service.name] = replace(service, certificate=policy, authority=authority)

    def change_request(self) -> None:
        """Somebody brings keys, or other ones, or gives up."""
        name = self._any().name
        if name in self.asking and self.random.random() < 0.3:
            del self.asking[name]
        else:
            self.asking[name] = self.asking.get(name, 0) + 1

    def edit(self) -> None:
        """One to four random edits in one commit; sometimes nobody says any more what services were called."""
        if self.random.random() < 0.3:
            self.renamed = {}
        edits = [
            self.add_service,
            self.add_edge,
            self.add_edge,
            self.add_mutual_edge,
            self.remove_edge,
            self.rotate,
            self.rotate,
            self.rotate_shared,
            self.change_model,
            self.change_authorize,
            self.rename,
            self.move_port,
            self.change_mode,
            self.forward,
            self.move_host,
            self.rename_host,
            self.rename_service,
            self.abandon_host,
            self.add_door,
            self.remove_service,
            self.change_profile,
            self.change_request,
            self.change_outsiders,
            self.change_outsiders,
            self.change_external,
            self.change_shown,
            self.change_shown,
        ]
        for _ in range(self.random.randint(1, 4)):
            self.random.choice(edits)()


def _called_anew(callers: tuple[Caller, ...], old: str, new: str) -> tuple[Caller, ...]:
    return tuple(replace(one, service=new) if one.service == old else one for one in callers)
