"""The recipe that each instance is to have in the end: doors, calls and whom each of them trusts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

from mtlsctl.model.credential import SHARED
from mtlsctl.model.release import Callee, Endpoint, Recipe, ServedListener, ShownCertificate, Socket
from mtlsctl.model.runtime import ProcessScope
from mtlsctl.model.topology import (
    MAIN,
    OUTSIDE,
    Authorize,
    Bind,
    ClientCertificate,
    InstanceId,
    ListenerId,
    ProcessId,
    TrustModel,
)
from mtlsctl.model.trust import (
    EVERYBODY,
    NOBODY,
    Member,
    OutsideAnchor,
    PeerPolicy,
    TrustAnchor,
    policy_of,
    vouched_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import ExternalServer, Host, Inventory, Listener, Outsider, ServerCertificate, Service
    from mtlsctl.planner.lifecycle import AuthorityDecision, CredentialDecision


Presented = Mapping[str | ListenerId, frozenset[Member]]
"""By service the anchors of the leaves that its live instances have, each with the subject's name. A door that shows
or is to show a certificate of somebody else, or did, has an entry of its own: by what live callers believe it."""


def presented_members(
    state: State, decisions: Iterable[CredentialDecision] = (), foreign: frozenset[ListenerId] = frozenset()
) -> Presented:
    """By service: the anchors of everything that its live instances present now, each with the subject's name.

    Also what was issued under an earlier name and is about to be presented. `foreign` are those of `foreign_doors`.
    """
    presented: dict[str | ListenerId, set[Member]] = {}
    for instance, live in state.live.items():
        credential = state.credentials.get(live.recipe.credential)
        if credential is not None:
            shown = Member(credential.profile.anchor, credential.profile.common_name)
            presented.setdefault(instance.service, set()).add(shown)
    for one in decisions:
        service, before = one.id.instance.service, one.before
        if one.profile is None and before is not None and before.profile.common_name != service:
            presented.setdefault(service, set()).add(Member(before.profile.anchor, before.profile.common_name))
    presented |= {door: set() for door in foreign}
    for live in state.live.values() if foreign else ():
        for callee in live.recipe.callees:
            door = ListenerId(callee.service, callee.listener.listener)
            if door in foreign:
                presented[door].update(Member(anchor, EVERYBODY) for anchor in callee.policy.anchors)
    return {service: frozenset(members) for service, members in presented.items()}


def foreign_doors(inventory: Inventory, live: Mapping[InstanceId, Recipe]) -> frozenset[ListenerId]:
    """The doors that show a certificate of somebody else now, or are to show one."""
    now = (
        ListenerId(instance.service, served.name)
        for instance, recipe in live.items()
        for served in recipe.listeners
        if served.shows is not None
    )
    declared = (
        ListenerId(service.name, listener.name)
        for service in inventory.services.values()
        for listener in service.listeners
        if listener.server_certificate is not None
    )
    return frozenset([*now, *declared])


def anchors_by_service(
    inventory: Inventory,
    authorities: Mapping[str, AuthorityDecision],
    credentials: Mapping[InstanceId, CredentialDecision],
) -> dict[str, frozenset[TrustAnchor]]:
    """What peers have to trust in order to believe all of a service's instances, once all waves are done."""
    shared = frozenset({authorities[SHARED].id}) if SHARED in authorities else frozenset()
    anchors: dict[str, frozenset[TrustAnchor]] = {}
    for service in inventory.services.values():
        match service.trust:
            case TrustModel.SERVICE_CA:
                anchors[service.name] = frozenset({authorities[service.name].id})
            case TrustModel.SHARED_CA:
                anchors[service.name] = shared
            case TrustModel.PINNED:
                anchors[service.name] = frozenset([credentials[one].id for one in service.instances])
    return anchors


def served_listener(listener: Listener, host: Host, anchors_of: Mapping[str, frozenset[TrustAnchor]]) -> ServedListener:
    """A door as it is to be: it trusts the anchors of each declared caller and nothing else."""
    callers = [caller.service for caller in listener.callers]
    callers += [outsider.name for outsider in listener.outsiders]
    asks = listener.client_certificate is not ClientCertificate.NONE
    return ServedListener(
        name=listener.name,
        sockets=(Socket(host.address if listener.bind is Bind.HOST else None, listener.port),),
        client_certificate=listener.client_certificate,
        protocols=listener.protocols,
        callers=tuple(sorted(callers)),
        policy=callers_policy(listener, anchors_of) if asks else NOBODY,
        forward_identity=listener.forward_identity,
        shows=None if listener.server_certificate is None else shown_by(listener.server_certificate),
    )


def shown_by(certificate: ServerCertificate) -> ShownCertificate:
    """What a release holds of a certificate that somebody else issued."""
    return ShownCertificate(certificate.chain, certificate.key_path)


def callers_policy(listener: Listener, anchors_of: Mapping[str, frozenset[TrustAnchor]]) -> PeerPolicy:
    """The anchors of the callers; and who is let in under them by name, where one of them vouches for others too."""
    takes_members = listener.authorize is Authorize.ANY_MEMBER
    anchors = frozenset[TrustAnchor]().union(*[anchors_of[caller.service] for caller in listener.callers])
    alone = PeerPolicy(anchors=anchors)
    if not listener.outsiders and (takes_members or not alone.takes_members):
        return alone
    members = [
        Member(anchor, vouched_for(anchor) if takes_members else caller.service)
        for caller in listener.callers
        for anchor in anchors_of[caller.service]
    ]
    members += [one for outsider in listener.outsiders for one in outside_members(outsider)]
    return policy_of(members)


def outside_members(outsider: Outsider) -> Iterator[Member]:
    """Each identity under each of the certificates; everybody under them where no identity is asked for."""
    for sha256 in outsider.certificates:
        anchor = OutsideAnchor(outsider.name, sha256)
        identities = (EVERYBODY,) if outsider.identities is None else outsider.identities
        yield from (Member(anchor, identity) for identity in identities)


def callee_of(
    service: Service, listener: Listener, hosts: Mapping[str, Host], anchors: frozenset[TrustAnchor]
) -> Callee:
    """A door as its callers are to see it: every instance of it, the first name, the service's anchors.

    One that shows a certificate of somebody else is believed by what stands beside it.
    """
    shown = listener.server_certificate
    if shown is not None:
        anchors = frozenset([OutsideAnchor(service.name, one) for one in shown.trust])
    endpoints = [Endpoint(InstanceId(service.name, host), hosts[host].address, listener.port) for host in service.hosts]
    return Callee(
        listener=ListenerId(service.name, listener.name),
        endpoints=tuple(sorted(endpoints)),
        server_name=service.names[0].value,
        policy=PeerPolicy(anchors=anchors),
        asks=listener.client_certificate is not ClientCertificate.NONE,
        believes_system=shown is not None and not shown.trust,
    )


def external_callee(server: ExternalServer) -> Callee:
    """A server outside the estate as its callers are to see it."""
    return Callee(
        listener=ListenerId(server.name, MAIN),
        endpoints=(Endpoint(InstanceId(server.name, OUTSIDE), server.host, server.port),),
        server_name=server.host,
        policy=PeerPolicy(anchors=frozenset([OutsideAnchor(server.name, one) for one in server.certificates])),
        believes_system=not server.certificates,
    )


def _by_former_names(callees: Iterable[Callee], former_names: Mapping[str, Iterable[str]]) -> list[Callee]:
    """A caller's program knows its callees by name: a renamed one by each, for as long as the inventory says so."""
    return [
        replace(callee, listener=callee.listener._replace(service=former))
        for callee in callees
        for former in former_names.get(callee.listener.service, ())
    ]


def _callees_by_service(
    inventory: Inventory, anchors_of: Mapping[str, frozenset[TrustAnchor]]
) -> Mapping[str, list[Callee]]:
    """All that each service calls, in the order of the identifiers; the callers of a door have one callee in common."""
    found: dict[str, list[Callee]] = defaultdict(list)
    for name in sorted(inventory.services):
        service = inventory.services[name]
        for listener in service.listeners_by_name:
            callee = callee_of(service, listener, inventory.hosts, anchors_of[service.name])
            for caller in listener.callers:
                found[caller.service].append(callee)
    for server in inventory.external_servers:
        callee = external_callee(server)
        for caller in server.callers:
            found[caller.service].append(callee)
    for name in {caller.service for server in inventory.external_servers for caller in server.callers}:
        found[name].sort(key=attrgetter("listener"))
    return found


def desired_recipes(
    inventory: Inventory,
    runtimes: Mapping[str, Runtime],
    authorities: Mapping[str, AuthorityDecision],
    credentials: Mapping[InstanceId, CredentialDecision],
) -> dict[InstanceId, Recipe]:
    """What every declared instance is to hold when all waves are done."""
    anchors_of = anchors_by_service(inventory, authorities, credentials)
    callees_of, former_names = _callees_by_service(inventory, anchors_of), inventory.former_names()
    recipes: dict[InstanceId, Recipe] = {}
    for service in inventory.services.values():
        runtime = runtimes[service.runtime]
        callees = tuple(callees_of.get(service.name, ()))
        if former_names:
            callees = tuple(sorted([*callees, *_by_former_names(callees, former_names)], key=attrgetter("listener")))
        for instance in service.instances:
            host = inventory.hosts[instance.host]
            decision = credentials[instance]
            listeners = [served_listener(listener, host, anchors_of) for listener in service.listeners_by_name]
            recipes[instance] = Recipe(
                instance=instance,
                process=process_of(instance, runtime),
                runtime=runtime.name,
                runtime_digest=runtime.digest,
                root=host.root,
                credential=decision.id,
                server_names=decision.presented_names,
                listeners=tuple(listeners),
                callees=callees,
                settings=service.settings,
                holds_key=runtime.needs_key or not service.requests,
            )
    return recipes


def process_of(instance: InstanceId, runtime: Runtime) -> ProcessId:
    """One program for the whole host bears the runtime's name; else the process is the service's own."""
    whole_host = runtime.scope is ProcessScope.HOST
    return ProcessId(instance.host, runtime.name if whole_host else instance.service)
