"""From the inventory to what each instance's certificate has to say."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.model.credential import KeyUsage
from mtlsctl.model.identifiers import InvalidIdentifier, IpId
from mtlsctl.model.topology import ClientCertificate, TrustModel

if TYPE_CHECKING:
    from datetime import datetime

    from mtlsctl.model.credential import AuthorityId
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import (
        CertificatePolicy,
        CertificateRequest,
        Host,
        InstanceId,
        Inventory,
        KeyAlgorithm,
        Listener,
        Service,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a leaf has to carry. `transitional_names` are old names that live callers still check.

    `is_compared`: listeners compare the leaf's subject, which has to be the service's name then.
    `authority_ends` is None for a leaf that signs itself. With a `request` the key is that of who made it.
    """

    instance: InstanceId
    authority: AuthorityId
    authority_ends: datetime | None
    names: tuple[str, ...]
    transitional_names: tuple[str, ...]
    addresses: tuple[str, ...]
    usages: frozenset[KeyUsage]
    policy: CertificatePolicy
    request: CertificateRequest | None = None
    is_compared: bool = False

    @property
    def key(self) -> KeyAlgorithm:
        """What the policy says is for keys of ours; who brings a key has chosen its kind."""
        asked = self.request and self.request.asked
        return asked.algorithm if asked else self.policy.key

    @property
    def request_sha256(self) -> str | None:
        return self.request.sha256 if self.request else None


BOTH = frozenset({KeyUsage.SERVER_AUTH, KeyUsage.CLIENT_AUTH})
SERVER_ONLY = frozenset({KeyUsage.SERVER_AUTH})
CLIENT_ONLY = frozenset({KeyUsage.CLIENT_AUTH})


def calls_by_service(inventory: Inventory) -> dict[str, list[tuple[Service, Listener]]]:
    """The listeners that each service is declared to call, in the order of their identifiers."""
    calls: dict[str, list[tuple[Service, Listener]]] = defaultdict(list)
    for name in sorted(inventory.services):
        service = inventory.services[name]
        for listener in service.listeners_by_name:
            door = (service, listener)
            for caller in listener.callers:
                calls[caller.service].append(door)
    return calls


def callers_of_servers_outside(inventory: Inventory) -> frozenset[str]:
    """The services that call a server outside the estate, which may ask for a certificate at any time."""
    return frozenset([caller.service for server in inventory.external_servers for caller in server.callers])


def services_compared_by_name(inventory: Inventory) -> frozenset[str]:
    """Whom listeners tell apart by the subject: members of the shared CA, and who calls where those or outsiders do."""
    members = frozenset([one.name for one in inventory.services.values() if one.trust is TrustModel.SHARED_CA])
    beside_others = (
        caller.service
        for service in inventory.services.values()
        for listener in service.listeners
        if listener.outsiders or (members and any(caller.service in members for caller in listener.callers))
        for caller in listener.callers
    )
    return members.union(beside_others)


def usages_of(
    service: Service, called: list[tuple[Service, Listener]], *, calls_outside: bool = False
) -> frozenset[KeyUsage]:
    """Listens: serverAuth. Calls a listener that asks for a certificate, or does not listen at all: clientAuth."""
    if not service.listeners:
        return CLIENT_ONLY
    if calls_outside:
        return BOTH
    for _, listener in called:
        if listener.client_certificate is not ClientCertificate.NONE:
            return BOTH
    return SERVER_ONLY


def names_still_checked(inventory: Inventory, state: State) -> dict[str, set[str]]:
    """By service: the names that live callers check and that are still declared to call it."""
    declared = {(edge.caller, edge.listener) for edge, _ in inventory.edges()} if state.live else set()
    checked: dict[str, set[str]] = defaultdict(set)
    for instance, live in state.live.items():
        for callee in live.recipe.callees:
            if (instance.service, callee.listener) in declared and not callee.is_outside:
                checked[callee.listener.service].add(callee.server_name)
    return checked


def addresses_of(service: Service, host: Host) -> tuple[str, ...]:
    """The host's address, if the service asks for it and it is one."""
    if not service.addresses:
        return ()
    try:
        return (IpId.parse(host.address).value,)
    except InvalidIdentifier:
        return ()
