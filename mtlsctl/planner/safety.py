"""What a plan refuses, and what it shows first: everything that cannot be enforced or cannot be done without a gap."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.credential import SHARED
from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.plan import Op, Risk
from mtlsctl.model.program import found_as, too_old
from mtlsctl.model.topology import ANYBODY, Authorize, ClientCertificate, InstanceId, SshHost, TrustModel
from mtlsctl.model.trust import (
    NAME_BYTES_LIMIT,
    NAME_BYTES_WARN,
    NOTHING_OUTSIDE,
    OutsideAnchor,
    name_bytes,
)
from mtlsctl.planner.lifecycle import newest_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.plan import AccessChange, Step
    from mtlsctl.model.release import Recipe, ServedListener
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, Inventory, Listener, ProcessId, Service
    from mtlsctl.model.trust import OutsideFacts

CANNOT_ENFORCE = "M2001"
ONE_STORE = "M2002"
REFUSE_ALL = "M2003"
BY_NAME = "M2004"
CANNOT_FORWARD = "M2005"
CANNOT_SHOW = "M2006"
NAME_BUDGET = "M2010"
PORT_PASSES_ON = "M2011"
RUNTIME_CHANGES = "M2012"
ADDRESS_OF_SOCKET_CHANGES = "M2013"
PROCESS_NAME = "M2014"
SECOND_PORT = "M2015"
NAME_OF_ANOTHER = "M2016"
MOVE_COLLIDES = "M2017"
MOVE_ELSEWHERE = "M2018"
NOTHING_LEFT = "M2019"
OWN_PROGRAM = "M2040"
PROGRAM_TOO_OLD = "M2042"
NEW_PLACEMENT = "M2101"
MOVED_FOLDER = "M2102"
OPEN_TO_ANYBODY = "M2103"
NEEDS_RESTART = "M2104"
KEY_OF_ANOTHER = "M2105"
HOST_GIVEN_UP = "M2106"
MOVED_MACHINE = "M2107"

MEANINGS = {
    CANNOT_ENFORCE: "the runtime cannot refuse an undeclared caller as the listener is to refuse it",
    ONE_STORE: "one store for all that a service trusts would let in a caller that is not declared there",
    REFUSE_ALL: "the runtime cannot be told to refuse everybody, and nobody is declared to call",
    CANNOT_FORWARD: "the runtime cannot tell the program behind it in this form who called",
    CANNOT_SHOW: "the runtime cannot show a certificate whose key is not among the files of its release",
    BY_NAME: "the runtime cannot tell the members of a shared CA apart",
    NAME_BUDGET: "the names of the trusted CAs do not fit into a TLS handshake",
    PORT_PASSES_ON: "a port passes from one owner to another, which cannot be done without a gap",
    RUNTIME_CHANGES: "a live service cannot change its runtime in place",
    ADDRESS_OF_SOCKET_CHANGES: "a live port cannot be bound to other addresses without a gap",
    PROCESS_NAME: "a service has the name of a runtime's process on the same host",
    SECOND_PORT: "a program that listens at one port cannot serve the old and the new one until callers have moved",
    NAME_OF_ANOTHER: "a service answers to the name by which the shared CA calls another one",
    MOVE_COLLIDES: "a host or a service cannot take a name that the state already knows as another one's",
    MOVE_ELSEWHERE: "a host that is renamed stays where it is: keys do not move",
    NOTHING_LEFT: "an entry of `moved` or `removed` has nothing left to do",
    OWN_PROGRAM: "a service cannot be renamed whose program finds its files by the service's name",
    PROGRAM_TOO_OLD: "a program on a host, as `hosts check` found it, does not know all that is written for it",
    HOST_GIVEN_UP: "a host is given up with keys that are good until their end",
    NEW_PLACEMENT: "a service's key goes to a host for the first time",
    MOVED_FOLDER: "a host's folder is another now",
    MOVED_MACHINE: "a host is reached at another address now, so that its keys may go to another machine",
    OPEN_TO_ANYBODY: "a listener begins to let in whoever comes without a certificate",
    NEEDS_RESTART: "a program takes up its new files only when it is restarted, which mtlsctl does not do",
    KEY_OF_ANOTHER: "a service's certificate is issued for a key that somebody else made and keeps",
}


ALWAYS_FIT = NAME_BYTES_WARN // name_bytes("x" * 64)
"""So many CAs fit whatever their names are: a common name has at most 64 characters (RFC 5280 appendix A.1)."""


class Claim(NamedTuple):
    """Who has a port of a host at some moment of an apply."""

    process: ProcessId
    service: str
    listener: str
    address: str | None


def enforcement_refusals(
    service: Service, runtime: Runtime, callees: Iterable[str], models: Mapping[str, TrustModel]
) -> Iterator[Diagnostic]:
    """What the runtime cannot enforce of what the service asks: nothing may be silently weaker than it was written."""
    if not service.listeners:
        return
    able = runtime.enforcement
    asking = [one for one in service.listeners if one.client_certificate is not ClientCertificate.NONE]
    if asking and not able.anchors:
        yield _refusal(CANNOT_ENFORCE, service, f"{runtime.name} cannot choose whom to trust")
    if asking and not able.separate_trust:
        yield from _one_store_refusals(service, asking, runtime, set(callees), models)
    for listener in service.listeners:
        yield from _refused_at(listener, service, runtime, models)


def _one_store_refusals(
    service: Service,
    asking: Sequence[Listener],
    runtime: Runtime,
    called: set[str],
    models: Mapping[str, TrustModel],
) -> Iterator[Diagnostic]:
    """Whoever is in the one store, as a callee or as a caller of another listener, gets in everywhere."""
    callers = {caller.service for listener in asking for caller in listener.callers}
    if any(models[one] is TrustModel.SHARED_CA for one in called):
        yield from _members_of_one_store(service, asking, runtime)
    for undeclared in sorted(called - callers):
        message = f"{runtime.name} has one store: `{undeclared}` is called by `{service.name}` and could call it"
        yield _refusal(ONE_STORE, service, message)
    for listener in asking:
        for undeclared in sorted(callers - {caller.service for caller in listener.callers}):
            if models[undeclared] is TrustModel.SHARED_CA and listener.authorize is not Authorize.CALLERS:
                continue  # every member is let in there, as the inventory says
            message = (
                f"{runtime.name} has one store: `{undeclared}` could call `{listener.name}` of `{service.name}` too"
            )
            yield _refusal(ONE_STORE, service, message)


def _refused_at(
    listener: Listener, service: Service, runtime: Runtime, models: Mapping[str, TrustModel]
) -> Iterator[Diagnostic]:
    able, mode = runtime.enforcement, listener.client_certificate
    if mode not in able.client_certificate:
        yield Diagnostic(
            code=CANNOT_ENFORCE,
            message=f"{runtime.name} cannot enforce `client_certificate: {mode}`",
            span=listener.span,
            help="use a runtime that can enforce it",
        )
    form = listener.forward_identity
    if form is not None and form not in able.forward_identity:
        yield Diagnostic(
            code=CANNOT_FORWARD,
            message=f"{runtime.name} cannot forward the caller's identity as `{form}`",
            span=listener.span,
            help=able.why_not(form),
        )
    if listener.server_certificate is not None and not able.server_certificate:
        yield Diagnostic(
            code=CANNOT_SHOW,
            message=f"{runtime.name} cannot show a certificate whose key is not among the files of its release",
            span=listener.server_certificate.span,
            help="put nginx or Apache in front of it, with the certificate there",
        )
    if not able.identifiers and _needs_names(listener, models):
        yield Diagnostic(
            code=BY_NAME,
            message=f"callers of `{service.name}` share a CA, and {runtime.name} cannot tell its members apart",
            span=listener.span,
            help="use `trust: { model: service-ca }` for the callers, or say `authorize: any-member` here",
        )
    if mode is not ClientCertificate.NONE and not listener.callers and not able.refuse_all:
        yield Diagnostic(
            code=REFUSE_ALL,
            message=f"nobody may call `{service.name}`, and {runtime.name} cannot be told to refuse everybody",
            span=listener.span,
            help="declare a caller, or remove the listener",
        )


def _members_of_one_store(service: Service, asking: Iterable[Listener], runtime: Runtime) -> Iterator[Diagnostic]:
    """To believe one member of the shared CA is to believe all; with one store they could call, too."""
    if any(listener.authorize is Authorize.CALLERS for listener in asking):
        message = f"{runtime.name} has one store: every member of the shared CA could call `{service.name}`"
        yield _refusal(ONE_STORE, service, message)


def _needs_names(listener: Listener, models: Mapping[str, TrustModel]) -> bool:
    """Whether what the listener trusts lets in more than its callers, so that it has to look at names."""
    asks = listener.client_certificate is not ClientCertificate.NONE
    members = any(models[caller.service] is TrustModel.SHARED_CA for caller in listener.callers)
    return asks and members and listener.authorize is Authorize.CALLERS


def _refusal(code: str, service: Service, message: str) -> Diagnostic:
    return Diagnostic(code=code, message=message, span=service.span, help="use a runtime that can enforce it")


def budget_findings(
    state: State, recipe: Recipe, span: Span | None, outside: Mapping[str, OutsideFacts] = NOTHING_OUTSIDE
) -> Iterator[Diagnostic]:
    """CA names are sent to every caller: above 30,000 bytes a Java caller may fail, above 64,000 everyone does."""
    for served in recipe.listeners:
        if len(served.policy.anchors) <= ALWAYS_FIT and not (outside and served.policy.outsiders):
            continue
        total = sum(
            outside[anchor.sha256].name_bytes
            if isinstance(anchor, OutsideAnchor)
            else name_bytes(state.common_name_of(anchor))
            for anchor in served.policy.anchors
        )
        if total > NAME_BYTES_WARN:
            too_much = total > NAME_BYTES_LIMIT
            yield Diagnostic(
                code=NAME_BUDGET,
                severity=Severity.ERROR if too_much else Severity.WARNING,
                message=f"{recipe.instance} trusts {len(served.policy.anchors)} CAs: {total:,} bytes of CA names",
                span=span,
                notes=(
                    f"every caller fails above {NAME_BYTES_LIMIT:,} bytes, a Java caller above {NAME_BYTES_WARN:,}",
                ),
                help="split the service, or let callers come through one",
            )


def change_refusals(
    inventory: Inventory,
    runtimes: Mapping[str, Runtime],
    live: Mapping[InstanceId, Recipe],
    desired: Mapping[InstanceId, Recipe],
) -> Iterator[Diagnostic]:
    """Changes of a live instance that no wave can make without a gap."""
    for instance, new in desired.items():
        old = live.get(instance)
        if old is None or old == new:
            continue
        span = inventory.services[instance.service].span
        if old.runtime != new.runtime:
            yield Diagnostic(
                code=RUNTIME_CHANGES,
                message=f"`{instance.service}` is live with {old.runtime} and cannot change to {new.runtime} in place",
                span=span,
                help="give the new one a name of its own, move the callers, then remove the old one",
            )
        yield from _rebound_sockets(old, new, span)
        if runtimes[new.runtime].doors.one_port:
            yield from _second_ports(old, new, span)


def _rebound_sockets(old: Recipe, new: Recipe, span: Span | None) -> Iterator[Diagnostic]:
    before = {socket.port: socket.address for served in old.listeners for socket in served.sockets}
    for served in new.listeners:
        for socket in served.sockets:
            if socket.port in before and before[socket.port] != socket.address:
                yield Diagnostic(
                    code=ADDRESS_OF_SOCKET_CHANGES,
                    message=f"port {socket.port} of {new.instance} is live on other addresses",
                    span=span,
                    help="change the port in the same edit: both are served until callers have moved",
                )


def _second_ports(old: Recipe, new: Recipe, span: Span | None) -> Iterator[Diagnostic]:
    for served in new.listeners:
        before = old.served(served.name)
        if before is not None and {one.port for one in before.sockets} != {one.port for one in served.sockets}:
            yield Diagnostic(
                code=SECOND_PORT,
                message=f"{new.instance} ({served.name}) changes its port, and {new.runtime} has one at a time",
                span=span,
                help="give a second service the new port, move the callers, then remove the first",
            )


def port_refusals(
    inventory: Inventory, live: Mapping[InstanceId, Recipe], steps: Iterable[Step]
) -> Iterator[Diagnostic]:
    """A port of a host has one owner through all waves; services of one program may share it by name."""
    claims: dict[tuple[str, int], dict[Claim, set[str]]] = defaultdict(lambda: defaultdict(set))
    moving = [step.recipe for step in steps if step.recipe is not None]
    if not live or not moving:
        return  # what stands in the inventory together was checked there; only a change can pass a port on
    for recipe in (*live.values(), *moving):
        for served in recipe.listeners:
            _claim(claims, recipe, served)
    for (host, port), owners in sorted(claims.items()):
        for first, second in _conflicts(owners):
            service = inventory.services.get(second.service) or inventory.services.get(first.service)
            yield Diagnostic(
                code=PORT_PASSES_ON,
                message=f"port {port} of {host} is served by `{first.service}` ({first.listener}) and, within the same "
                f"apply, by `{second.service}` ({second.listener})",
                span=service.span if service else None,
                help="do it in two applies: free the port first",
            )


def _claim(claims: dict[tuple[str, int], dict[Claim, set[str]]], recipe: Recipe, served: ServedListener) -> None:
    for socket in served.sockets:
        claim = Claim(recipe.process, recipe.instance.service, served.name, socket.address)
        claims[recipe.instance.host, socket.port][claim].update(recipe.server_names)


def _conflicts(owners: Mapping[Claim, set[str]]) -> Iterator[tuple[Claim, Claim]]:
    ordered = sorted(owners, key=str)
    for place, first in enumerate(ordered):
        for second in ordered[place + 1 :]:
            shared = first.process == second.process and first.service != second.service
            if not shared or owners[first] & owners[second] or first.address != second.address:
                yield first, second


def opening_risks(access: Iterable[AccessChange]) -> tuple[Risk, ...]:
    """Doors that begin to let in whoever shows no certificate: anybody who reaches them, not the declared callers."""
    return tuple(
        Risk(
            code=OPEN_TO_ANYBODY,
            summary=f"anybody who reaches {change.edge.listener}:{change.port} may call it without a certificate",
            span=change.span,
        )
        for change in access
        if change.edge.caller == ANYBODY and change.op is Op.ADD
    )


def placement_risks(
    inventory: Inventory, live: Mapping[InstanceId, Recipe], desired: Mapping[InstanceId, Recipe]
) -> tuple[Risk, ...]:
    """Services whose key goes to a host for the first time, and hosts whose folder is another now."""
    placed: dict[str, list[str]] = defaultdict(list)
    moved: dict[str, tuple[str, str]] = {}
    for instance, recipe in desired.items():
        if instance not in live:
            placed[instance.service].append(instance.host)
        elif live[instance].root != recipe.root:
            moved[instance.host] = (live[instance].root, recipe.root)
    return (
        *(
            Risk(
                code=NEW_PLACEMENT,
                summary=f"{service} gets a key on {', '.join(hosts)} for the first time",
                span=inventory.services[service].span,
            )
            for service, hosts in placed.items()
        ),
        *(
            Risk(
                code=MOVED_FOLDER,
                summary=f"{host} moves from {old or '/'} to {new or '/'}: keys that are not there are made anew, and "
                "what lies in the old folder stays there",
                span=inventory.hosts[host].span,
            )
            for host, (old, new) in moved.items()
        ),
    )


def machine_risks(inventory: Inventory, state: State, known: Mapping[str, Host]) -> Iterator[Risk]:
    """Hosts that live services are on and that are another machine now, as far as their address tells.

    No file changes by that, so no step says it; but what finds no key there makes one and has it believed. `known` are
    the hosts by the names that they had, before any was renamed: a new name may bring a new address with it.
    """
    names = {move.new: move.old for move in inventory.moved if move.old in known}
    for name, host in inventory.hosts.items():
        before = known.get(names.get(name, name))
        if before is None or not isinstance(host, SshHost) or _reached_at(before) == _reached_at(host):
            continue
        services = sorted(one.service for one in inventory.instances() if one.host == name and one in state.live)
        if services:
            was, now = _reached_at(before), _reached_at(host)
            yield Risk(
                code=MOVED_MACHINE,
                summary=f"{name} is {now} now, not {was}: whoever answers there is {', '.join(services)}",
                span=host.span,
            )


_SSH_PORT = 22


def _reached_at(host: Host) -> str:
    if not isinstance(host, SshHost):
        return f"in the folder {host.directory}"
    return f"at {host.address}" if host.port == _SSH_PORT else f"at {host.address} port {host.port}"


def owner_risks(inventory: Inventory, state: State) -> Iterator[Risk]:
    """Whoever holds the key of a request will be that service to its peers: said when it is new or another."""
    asking = [service for service in inventory.services.values() if service.requests]
    newest = newest_credentials(state) if asking else {}
    for service in asking:
        for host, request in service.requests:
            instance = InstanceId(service.name, host)
            before = newest.get(instance)
            if before is None or request.asked is None or before.spki_sha256 != request.asked.spki_sha256:
                yield Risk(
                    code=KEY_OF_ANOTHER,
                    summary=f"whoever holds the key of {request.path} is {instance} to its peers",
                    span=request.span,
                )


def process_refusals(inventory: Inventory, desired: Mapping[InstanceId, Recipe]) -> Iterator[Diagnostic]:
    """One process is one program: a service of its own process may not bear the name of a runtime that has one."""
    owners: dict[ProcessId, Recipe] = {}
    for recipe in desired.values():
        first = owners.setdefault(recipe.process, recipe)
        if first.runtime != recipe.runtime:
            named = next(one for one in (first, recipe) if one.instance.service == recipe.process.name)
            yield Diagnostic(
                code=PROCESS_NAME,
                message=f"the service `{named.instance.service}` has the name of a process of {recipe.instance.host} "
                "that belongs to a runtime",
                span=inventory.services[named.instance.service].span,
                help="give the service another name",
            )


def name_refusals(inventory: Inventory) -> Iterator[Diagnostic]:
    """Some programs take a server's name from the common name too, and there a shared CA writes the service's."""
    members = {one.name for one in inventory.services.values() if one.trust is TrustModel.SHARED_CA}
    for service in inventory.services.values() if members else ():
        for name in service.names:
            if name.value in members - {service.name} and service.name in members:
                yield Diagnostic(
                    code=NAME_OF_ANOTHER,
                    message=f"`{service.name}` answers to `{name.value}`, and the shared CA gives the service "
                    f"`{name.value}` that common name",
                    span=service.span,
                    help="use a name with a dot in it: some programs would take the one for the other",
                )


def program_refusals(inventory: Inventory, state: State, runtimes: Mapping[str, Runtime]) -> Iterator[Diagnostic]:
    """What `hosts check` found last cannot take what would be written for it."""
    for service in inventory.services.values() if state.programs else ():
        for host in service.hosts:
            found = found_as(runtimes[service.runtime].process, state.programs.get(host, {}))
            why = too_old(*found) if found is not None else None
            if found is not None and why is not None:
                yield Diagnostic(
                    code=PROGRAM_TOO_OLD,
                    message=f"`{service.name}` cannot be on {host}: {found[0]} there is {why}",
                    span=service.span,
                    help=f"put a newer one there, then: mtlsctl hosts check {host}",
                )


def borne_name_refusals(inventory: Inventory, state: State) -> Iterator[Diagnostic]:
    """The shared CA gives one name to one service: not to a new one while another shows it that was renamed."""
    for live in state.live.values():
        leaf = state.credentials.get(live.recipe.credential)
        if leaf is None or leaf.profile.authority.service != SHARED:
            continue
        owner, name = leaf.id.instance.service, leaf.profile.common_name
        taken = inventory.services.get(name)
        if owner != name and taken is not None and taken.trust is TrustModel.SHARED_CA:
            yield Diagnostic(
                code=MOVE_COLLIDES,
                message=f"`{name}` is the name that {leaf.id.instance} still shows, which was called so before",
                span=taken.span,
                help=f"apply once without the service `{name}`, so that `{owner}` gets its new certificates",
            )


def restart_risks(inventory: Inventory, steps: Iterable[Step]) -> Iterator[Risk]:
    """Services whose programs go on with what they have read until somebody restarts them."""
    hosts: dict[str, dict[str, None]] = defaultdict(dict)
    for step in steps:
        if step.needs_restart:
            hosts[step.id.instance.service][step.id.instance.host] = None
    for service, there in hosts.items():
        declared = inventory.services.get(service)
        yield Risk(
            code=NEEDS_RESTART,
            summary=f"{service} takes this up when you restart it on {', '.join(sorted(there))}; what waits for that "
            "stays for the next apply",
            span=declared.span if declared else None,
        )
