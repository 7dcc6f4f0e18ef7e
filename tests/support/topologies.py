"""Random inventories and random edits of them; everything follows from one seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
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
    ForwardIdentity,
    Inventory,
    Listener,
    MovedHost,
    Service,
    TrustModel,
)
from tests.support.estates import request

if TYPE_CHECKING:
    from random import Random

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
    abandoned: list[str] = field(default_factory=list)
    models: list[TrustModel] = field(default_factory=lambda: [TrustModel.SERVICE_CA])
    shared: AuthorityPolicy = field(default_factory=AuthorityPolicy)
    asking: dict[str, int] = field(default_factory=dict)
    """Services whose keys are brought, and the how manieth each of them is."""

    @classmethod
    def sprout(cls, random: Random) -> Topology:
        topology = cls(random)
        if random.random() < 0.6:
            topology.models = list(TrustModel)
        for number in range(random.randint(2, 4)):
            host = f"h{number}"
            topology.hosts[host] = DirectoryHost(name=host, directory=f"/out/{host}", address=f"127.0.0.{number + 2}")
        for _ in range(random.randint(3, 5)):
            topology.add_service()
        for _ in range(random.randint(2, 7)):
            topology.add_edge()
        if random.random() < 0.35:
            topology.add_mutual_edge()
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
            abandoned=tuple(AbandonedHost(name=name) for name in self.abandoned),
        )

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
        authorize = self.random.choice(AUTHORIZE)
        mode = self.random.choice(MODES)
        return Listener(name=name, port=self.last_port, client_certificate=mode, authorize=authorize)

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
            self._set_door(service, door, replace(door, client_certificate=self.random.choice(MODES)))

    def forward(self) -> None:
        service = self._any_with_doors()
        if service:
            door = self.random.choice(service.listeners)
            form = self.random.choice([None, *ForwardIdentity])
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
            for service in list(self.services.values()):
                doors = tuple(
                    replace(door, callers=tuple(one for one in door.callers if one.service != lost))
                    for door in service.listeners
                )
                self.services[service.name] = replace(service, listeners=doors)

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
        """One to four random edits in one commit."""
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
            self.abandon_host,
            self.add_door,
            self.remove_service,
            self.change_profile,
            self.change_request,
        ]
        for _ in range(self.random.randint(1, 4)):
            self.random.choice(edits)()
