"""Every handshake that has to succeed and every one that has to fail, from the inventory alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING

from mtlsctl.model.credential import KeyUsage
from mtlsctl.model.probe import Expectation, Presented, Probe
from mtlsctl.model.release import Endpoint
from mtlsctl.model.topology import (
    MAIN,
    OUTSIDE,
    Authorize,
    ClientCertificate,
    Edge,
    InstanceId,
    ListenerId,
    TrustModel,
    outside,
)
from mtlsctl.planner.identities import callers_of_servers_outside, calls_by_service, usages_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtlsctl.model.topology import Inventory, Listener, Service

ALL_PAIRS = 10_000
"""Up to this many probes all pairs are tried; above it all declared calls and an even sample of the rest."""

CRAFTED = (Presented.NO_CERTIFICATE, Presented.FOREIGN_CA, Presented.EXPIRED, Presented.WRONG_USAGE)
_BY_A_CA = frozenset({Presented.EXPIRED, Presented.WRONG_USAGE})
"""What only the imitated caller's CA can sign. A leaf that signs itself is trusted to the byte; any other is foreign"""

QUICK = (Presented.NO_CERTIFICATE,)
PROTOCOLS = ("1.2", "1.3")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """The probes to make, declared calls first; `left_out` says how many forbidden ones the sample leaves out.

    `beyond` are declared calls that cannot be tried: from outside, as somebody else has the key, and to the outside,
    as the server is somebody else's.
    """

    probes: tuple[Probe, ...]
    left_out: int = 0
    beyond: tuple[Edge, ...] = ()


def make_probes(inventory: Inventory, *, quick: bool = False, at_most: int = ALL_PAIRS) -> ProbePlan:
    """Declared callers, every undeclared service, no certificate, a foreign CA, expired, wrong usage; each protocol.

    Where a listener lets anybody in, no certificate is to get in too; at one that asks for none nothing else can be
    told apart, so nobody but the declared callers is tried there. A caller from outside is imitated by name, since its
    key is not ours. And once for each listener of an instance, never left out: HTTP without TLS, what it shows before
    it knows who calls, and each protocol version that is not
    declared. With `quick` no crafted certificates.
    """
    kinds = QUICK if quick else CRAFTED
    clients = _clients(inventory)
    allowed = [probe for door in _doors(inventory) for probe in _declared(inventory, door, clients)]
    once = [probe for door in _doors(inventory) for probe in _once(door)]
    once += [] if quick else [probe for door in _doors(inventory) for probe in _imitations(door)]
    refused = list(_refused(inventory, kinds))
    total = sum(len(one) for one in refused)
    sample = tuple(_every(_stride(refused, room=max(at_most - len(allowed) - len(once), len(kinds))), refused))
    return ProbePlan(probes=(*allowed, *once, *sample), left_out=total - len(sample), beyond=tuple(_beyond(inventory)))


def _beyond(inventory: Inventory) -> Iterator[Edge]:
    for service in inventory.services.values():
        for listener in service.listeners:
            for outsider in listener.outsiders:
                yield Edge(outside(outsider.name), ListenerId(service.name, listener.name))
    for server in inventory.external_servers:
        for caller in server.callers:
            yield Edge(caller.service, ListenerId(outside(server.name), MAIN))


def _imitations(door: _Door) -> Iterator[Probe]:
    """Who looks like a caller from outside, and is not of its CA."""
    for outsider in door.listener.outsiders:
        yield _probe(door, Presented.FOREIGN_CA, InstanceId(outsider.name, OUTSIDE), Expectation.REFUSED)


def _stride(refused: Iterable[_Refused], *, room: int) -> int:
    """The least that leaves enough out and has no factor in common with any door, else some would never be tried."""
    lengths = [len(one) for one in refused]
    different, step = set(lengths), max(1, -(-sum(lengths) // room))
    while any(gcd(step, length) > 1 for length in different):
        step += 1
    return step


def _every(step: int, refused: Iterable[_Refused]) -> Iterator[Probe]:
    """Each `step`-th of all of them, made only when it is its turn: all pairs of 2,000 services are 8 million."""
    place = 0
    for door in refused:
        while place < len(door):
            yield door.probe(place)
            place += step
        place -= len(door)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """One listener of one instance with one protocol."""

    service: Service
    listener: Listener
    endpoint: Endpoint
    protocol: str


def _doors(inventory: Inventory) -> Iterator[_Door]:
    for service in inventory.services.values():
        for listener in service.listeners:
            for host in service.hosts:
                place = Endpoint(InstanceId(service.name, host), inventory.hosts[host].address, listener.port)
                for protocol in listener.protocols:
                    yield _Door(service=service, listener=listener, endpoint=place, protocol=protocol)


def _clients(inventory: Inventory) -> frozenset[str]:
    """The services whose certificates are for clients."""
    calls, calling_outside = calls_by_service(inventory), callers_of_servers_outside(inventory)
    return frozenset(
        service.name
        for service in inventory.services.values()
        if KeyUsage.CLIENT_AUTH
        in usages_of(service, calls.get(service.name, []), calls_outside=service.name in calling_outside)
    )


def _declared(inventory: Inventory, door: _Door, clients: frozenset[str]) -> Iterator[Probe]:
    """Declared callers; and whoever shows no certificate, where the door is declared to let them in."""
    if door.listener.client_certificate is not ClientCertificate.REQUIRED:
        yield _probe(door, Presented.NO_CERTIFICATE, None, Expectation.ALLOWED)
    declared = {caller.service for caller in door.listener.callers}
    for caller in _welcome(inventory, door):
        if caller not in declared and caller not in clients:
            continue  # A member that never calls would be refused for its key usage, until it calls somebody.
        for instance in inventory.services[caller].instances:
            yield _probe(door, Presented.DELIVERED, instance, Expectation.ALLOWED)


def _welcome(inventory: Inventory, door: _Door) -> list[str]:
    """Declared callers; with `authorize: any-member` all that the CAs of these vouch for."""
    callers = [caller.service for caller in door.listener.callers]
    asks = door.listener.client_certificate is not ClientCertificate.NONE
    is_shared = asks and any(inventory.services[caller].trust is TrustModel.SHARED_CA for caller in callers)
    if door.listener.authorize is Authorize.CALLERS or not is_shared:
        return callers
    members = [one.name for one in inventory.services.values() if one.trust is TrustModel.SHARED_CA]
    return list(dict.fromkeys([*callers, *(one for one in members if one != door.service.name)]))


def _once(door: _Door) -> Iterator[Probe]:
    """What is tried once for all protocols of a listener, with its first one."""
    if door.protocol != door.listener.protocols[0]:
        return
    for kind in (Presented.PLAINTEXT, Presented.OTHER_CA):
        yield _probe(door, kind, None, Expectation.REFUSED)
    for protocol in PROTOCOLS:
        if protocol not in door.listener.protocols:
            yield _probe(replace(door, protocol=protocol), Presented.OTHER_PROTOCOL, None, Expectation.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """What a door has to refuse: everybody but those at `welcome` (sorted places among `everybody`), then each kind.

    Certificates of a kind look like a declared caller's; without one there is nobody to imitate but the server itself.
    """

    door: _Door
    everybody: tuple[InstanceId, ...]
    welcome: tuple[int, ...]
    kinds: tuple[Presented, ...]
    imitated: InstanceId

    def __len__(self) -> int:
        return len(self.everybody) - len(self.welcome) + len(self.kinds)

    def probe(self, place: int) -> Probe:
        """The one at a place below the length."""
        kind = place - len(self.everybody) + len(self.welcome)
        if kind >= 0:
            presented = self.kinds[kind]
            caller = None if presented is Presented.NO_CERTIFICATE else self.imitated
            return _probe(self.door, presented, caller, Expectation.REFUSED)
        for passed_over in self.welcome:
            place += passed_over <= place
        return _probe(self.door, Presented.DELIVERED, self.everybody[place], Expectation.REFUSED)


def _refused(inventory: Inventory, kinds: tuple[Presented, ...]) -> Iterator[_Refused]:
    everybody = tuple(inventory.instances())
    places: dict[str, list[int]] = defaultdict(list)
    for place, instance in enumerate(everybody):
        places[instance.service].append(place)
    for door in _doors(inventory):
        mode = door.listener.client_certificate
        if mode is ClientCertificate.NONE:
            continue
        callers = _welcome(inventory, door)
        imitated = _imitated(inventory, door, callers)
        signs_itself = inventory.services[imitated.service].trust is TrustModel.PINNED
        wanted = kinds if mode is ClientCertificate.REQUIRED else _wrong(kinds)
        refused = _Refused(
            door=door,
            everybody=everybody,
            welcome=tuple(sorted(place for service in {*callers, door.service.name} for place in places[service])),
            kinds=tuple(kind for kind in wanted if kind not in _BY_A_CA) if signs_itself else wanted,
            imitated=imitated,
        )
        if len(refused):
            yield refused


def _imitated(inventory: Inventory, door: _Door, callers: list[str]) -> InstanceId:
    """Whom certificates of a kind look like: a caller, rather one with a CA that can sign them."""
    if not callers:
        return door.endpoint.instance
    under_a_ca = (one for one in callers if inventory.services[one].trust is not TrustModel.PINNED)
    return inventory.services[next(under_a_ca, callers[0])].instances[0]


def _wrong(kinds: tuple[Presented, ...]) -> tuple[Presented, ...]:
    return tuple(one for one in kinds if one is not Presented.NO_CERTIFICATE)


def _probe(door: _Door, presented: Presented, caller: InstanceId | None, expected: Expectation) -> Probe:
    return Probe(
        listener=ListenerId(door.service.name, door.listener.name),
        endpoint=door.endpoint,
        server_name=door.service.names[0].value,
        protocol=door.protocol,
        presented=presented,
        caller=caller,
        expected=expected,
    )
