"""Every handshake that has to succeed and every one that has to fail, from the inventory alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from mtlsctl.model.probe import Expectation, Presented, Probe
from mtlsctl.model.release import Endpoint
from mtlsctl.model.topology import InstanceId, ListenerId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtlsctl.model.topology import Inventory, Listener, Service

ALL_PAIRS = 10_000
"""Up to this many probes all pairs are tried; above it all declared calls and an even sample of the rest."""

CRAFTED = (Presented.NO_CERTIFICATE, Presented.FOREIGN_CA, Presented.EXPIRED, Presented.WRONG_USAGE)
QUICK = (Presented.NO_CERTIFICATE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """The probes to make, declared calls first; `left_out` says how many forbidden ones the sample leaves out."""

    probes: tuple[Probe, ...]
    left_out: int = 0


def make_probes(inventory: Inventory, *, quick: bool = False) -> ProbePlan:
    """Declared callers, every undeclared service, no certificate, a foreign CA, expired, wrong usage; each protocol.

    With `quick` only declared callers, undeclared services and no certificate: what needs no crafted certificate.
    """
    kinds = QUICK if quick else CRAFTED
    allowed = [probe for door in _doors(inventory) for probe in _delivered(inventory, door, declared=True)]
    refused = [
        probe
        for door in _doors(inventory)
        for probe in (*_delivered(inventory, door, declared=False), *_crafted(inventory, door, kinds))
    ]
    room = max(ALL_PAIRS - len(allowed), len(kinds))
    if len(refused) <= room:
        return ProbePlan(probes=(*allowed, *refused))
    sample = tuple(islice(refused, 0, None, -(-len(refused) // room)))
    return ProbePlan(probes=(*allowed, *sample), left_out=len(refused) - len(sample))


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


def _delivered(inventory: Inventory, door: _Door, *, declared: bool) -> Iterator[Probe]:
    callers = {caller.service for caller in door.listener.callers}
    expected = Expectation.ALLOWED if declared else Expectation.REFUSED
    for service in inventory.services.values():
        if service.name != door.service.name and (service.name in callers) == declared:
            for instance in service.instances:
                yield _probe(door, Presented.DELIVERED, instance, expected)


def _crafted(inventory: Inventory, door: _Door, kinds: tuple[Presented, ...]) -> Iterator[Probe]:
    """Certificates that look like a declared caller's; without one there is nobody to imitate but the server itself."""
    callers = door.listener.callers
    imitated = inventory.services[callers[0].service].instances[0] if callers else door.endpoint.instance
    for kind in kinds:
        caller = None if kind is Presented.NO_CERTIFICATE else imitated
        yield _probe(door, kind, caller, Expectation.REFUSED)


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
