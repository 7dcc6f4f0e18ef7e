"""The difference between what is live and what is declared, in the words of people who approve it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mtlsctl.model.plan import DECLARED, AccessChange, Op, OutsideGrant, ServiceChange
from mtlsctl.model.release import OLD_NAMES
from mtlsctl.model.topology import (
    ANY_MEMBER,
    ANYBODY,
    Authorize,
    ClientCertificate,
    Edge,
    ListenerId,
    TrustModel,
    outside,
)
from mtlsctl.model.trust import EVERYBODY, OutsideAnchor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.release import Callee, Recipe, ServedListener
    from mtlsctl.model.topology import InstanceId, Inventory, Listener, Outsider
    from mtlsctl.model.trust import PeerPolicy


SERVED_NAMES = "served names: "
"""How the detail begins that says which names a leaf gains and loses."""


def access_changes(inventory: Inventory, live: Mapping[InstanceId, Recipe]) -> tuple[AccessChange, ...]:
    """Calls that become declared or stop being so. A call counts as live when every live instance lets it in.

    A door that lets in whoever shows no certificate is a call by ANYBODY, one that lets in whomever the shared CA
    vouches for a call by ANY_MEMBER.
    """
    somewhere, nowhere = _live_edges(live)
    added = [*_declared_calls(inventory), *_open_doors(inventory)]
    removed: list[AccessChange] = []
    if somewhere:
        declared = {one.edge for one in added}
        added = [one for one in added if one.edge not in somewhere or one.edge in nowhere]
        removed = [
            AccessChange(Op.REMOVE, edge, port, *_end_of(edge, inventory))
            for edge, port in sorted(somewhere.items())
            if edge not in declared
        ]
    return (*added, *removed, *_outside_changes(inventory, live))


def _declared_calls(inventory: Inventory) -> Iterator[AccessChange]:
    """Every declared call within the estate, as the change that lets it in, in the order of the inventory."""
    new, add = tuple.__new__, Op.ADD  # There are very many, and the classes' own ways take twice the time.
    for service in inventory.services.values():
        for listener in service.listeners:
            door, port = ListenerId(service.name, listener.name), listener.port
            yield from [
                new(AccessChange, (add, new(Edge, (caller.service, door)), port, caller.span, DECLARED, None))
                for caller in listener.callers
            ]


def _outside_changes(inventory: Inventory, live: Mapping[InstanceId, Recipe]) -> Iterator[AccessChange]:
    """Callers from outside that are let in from now on, or no more, or by other certificates or identities."""
    somewhere, nowhere = _live_grants(live)
    declared = {
        Edge(outsider.name, ListenerId(service.name, listener.name)): (listener.port, outsider)
        for service in inventory.services.values()
        for listener in service.listeners
        for outsider in listener.outsiders
    }
    for edge, (port, outsider) in declared.items():
        grant, before = grant_of(outsider), somewhere.get(edge)
        if before is None:
            yield AccessChange(Op.ADD, edge, port, outsider.span, outside=grant)
        elif before[1] != {grant} or edge in nowhere:
            reason = "by other certificates or identities"
            yield AccessChange(Op.CHANGE, edge, port, outsider.span, reason, grant)
    for edge, (port, grants) in sorted(somewhere.items()):
        if edge not in declared:
            yield AccessChange(Op.REMOVE, edge, port, *_end_of(edge, inventory), max(grants, key=str))


def grant_of(outsider: Outsider) -> OutsideGrant:
    return OutsideGrant(outsider.certificates, outsider.identities)


def _live_grants(live: Mapping[InstanceId, Recipe]) -> tuple[dict[Edge, tuple[int, set[OutsideGrant]]], set[Edge]]:
    """By what outsiders are let in now, with the port; and those whom another instance does not let in."""
    somewhere: dict[Edge, tuple[int, set[OutsideGrant]]] = {}
    doors: dict[ListenerId, list[frozenset[str]]] = defaultdict(list)
    for instance, recipe in live.items():
        for served in recipe.listeners:
            door = ListenerId(instance.service, served.name)
            doors[door].append(served.policy.outsiders)
            for name in served.policy.outsiders:
                _, grants = somewhere.setdefault(Edge(name, door), (served.sockets[0].port, set()))
                grants.add(_granted(served.policy, name))
    missing = {edge for edge in somewhere if any(edge.caller not in names for names in doors[edge.listener])}
    return somewhere, missing


def _granted(policy: PeerPolicy, name: str) -> OutsideGrant:
    """By what a policy lets in the outsider of this name."""
    found = [
        (anchor.sha256, identity)
        for anchor, identity in policy.implied_members
        if isinstance(anchor, OutsideAnchor) and anchor.name == name
    ]
    anchors, identities = sorted({one for one, _ in found}), {one for _, one in found}
    return OutsideGrant(tuple(anchors), None if EVERYBODY in identities else tuple(sorted(identities)))


def _open_doors(inventory: Inventory) -> Iterator[AccessChange]:
    """The doors that let in whom nobody names, as the changes that open them."""
    for service in inventory.services.values():
        for listener in service.listeners:
            others = [ANYBODY] if listener.client_certificate is not ClientCertificate.REQUIRED else []
            others += [ANY_MEMBER] if _takes_members(listener, inventory) else []
            for one in others:
                edge = Edge(one, ListenerId(service.name, listener.name))
                yield AccessChange(Op.ADD, edge, listener.port, listener.span)


def _takes_members(listener: Listener, inventory: Inventory) -> bool:
    """Whether the shared CA alone says who gets in: with one caller under it, all that it vouches for."""
    if listener.authorize is Authorize.CALLERS or listener.client_certificate is ClientCertificate.NONE:
        return False
    return any(inventory.services[one.service].trust is TrustModel.SHARED_CA for one in listener.callers)


def _end_of(edge: Edge, inventory: Inventory) -> tuple[Span | None, str]:
    """Where the inventory shows that a call is no longer declared, and why it is not."""
    service = inventory.services.get(edge.listener.service)
    if service is None:
        return None, "the service is removed"
    listener = next((one for one in service.listeners if one.name == edge.listener.listener), None)
    if listener is None:
        return service.span, "the listener is removed"
    if edge.caller == ANYBODY:
        return listener.span, "a certificate is required"
    if edge.caller == ANY_MEMBER:
        return listener.span, "only declared callers"
    return listener.span, "no longer a caller" if edge.caller in inventory.services else "the caller is removed"


def _live_edges(live: Mapping[InstanceId, Recipe]) -> tuple[dict[Edge, int], set[Edge]]:
    """The calls that some instance lets in, with the port; and those that another instance of it does not."""
    somewhere: dict[Edge, int] = {}
    doors: dict[str, list[set[Edge]]] = defaultdict(list)
    for instance, recipe in live.items():
        edges: set[Edge] = set()
        for served in recipe.listeners:
            door = ListenerId(instance.service, served.name)
            is_open = served.client_certificate is not ClientCertificate.REQUIRED
            others = (*([ANYBODY] if is_open else []), *([ANY_MEMBER] if served.policy.takes_members else []))
            for caller in (*_services_among(served), *others):
                somewhere[Edge(caller, door)] = served.sockets[0].port
                edges.add(Edge(caller, door))
        doors[instance.service].append(edges)
    missing = {
        edge for sets in doors.values() for edge in set[Edge]().union(*sets).difference(sets[0].intersection(*sets))
    }
    return somewhere, missing


def _services_among(served: ServedListener) -> Iterator[str]:
    beyond = served.policy.outsiders
    return (caller for caller in served.callers if caller not in beyond)


def service_changes(
    live: Mapping[InstanceId, Recipe], desired: Mapping[InstanceId, Recipe]
) -> tuple[ServiceChange, ...]:
    """What changes at each instance, certificates apart."""
    first = {instance: recipe for instance, recipe in desired.items() if instance not in live}
    names = _names_of_callees(first.values())
    added = [
        ServiceChange(op=Op.ADD, instance=instance, details=tuple(_first_details(recipe, names)), due=False)
        for instance, recipe in first.items()
    ]
    changed = [
        ServiceChange(op=Op.CHANGE, instance=instance, details=details, due=False)
        for instance, recipe in desired.items()
        if instance in live and live[instance] != recipe and (details := tuple(_details(live[instance], recipe)))
    ]
    removed = [
        ServiceChange(op=Op.REMOVE, instance=instance, details=("releases and keys are deleted",), due=False)
        for instance in sorted(live)
        if instance not in desired
    ]
    return (*added, *changed, *removed)


OWN = "its own certificate"
HANDED_BACK = "chain and bundles are handed back: the key stays with its owner"


def _names_of_callees(recipes: Iterable[Recipe]) -> dict[ListenerId, str]:
    """How people call each listener that these call; a listener has many callers, and one name."""
    callees = {id(callee): callee for recipe in recipes for callee in recipe.callees}  # Callers have it in common.
    return {callee.listener: str(callee) for callee in callees.values()}


def _first_details(recipe: Recipe, names: Mapping[ListenerId, str]) -> Iterator[str]:
    if not recipe.holds_key:
        yield HANDED_BACK
    for served in recipe.listeners:
        callers = ", ".join(_shown_callers(served)) or "nobody"
        asks = served.client_certificate
        more = "" if asks is ClientCertificate.REQUIRED else f", client certificate {asks}"
        more += ", lets in every member of the shared CA" if served.policy.takes_members else ""
        forward = served.forward_identity
        more += f", identity forwarded as {forward}" if forward else ""
        more += f", shows {served.shows}" if served.shows else ""
        yield f"{_door(served)}: callers {callers}{more}"
    if recipe.callees:
        yield "calls " + ", ".join([names[callee.listener] for callee in recipe.callees])


def _shown_callers(served: ServedListener) -> Sequence[str]:
    """The callers, of outsiders by whom they are known."""
    outsiders = served.policy.outsiders
    if not outsiders:
        return served.callers
    return [
        f"{outside(caller)}{_shown_grant(_granted(served.policy, caller))}" if caller in outsiders else caller
        for caller in served.callers
    ]


def _shown_grant(grant: OutsideGrant) -> str:
    if grant.identities is None:
        return ", everybody of its CA"
    return " as " + " or ".join(f"`{one}`" for one in grant.identities)


def _details(old: Recipe, new: Recipe) -> Iterator[str]:
    if old.runtime_digest == OLD_NAMES:
        yield "files lie under the new name, and say it"
    elif old.runtime_digest != new.runtime_digest:
        yield f"template of {new.runtime} changed"
    if old.settings != new.settings:
        yield "settings: " + ", ".join(_changed_settings(old, new))
    if old.holds_key != new.holds_key:
        yield "the key lies beside the certificate again" if new.holds_key else HANDED_BACK
    if old.root != new.root:
        yield "paths: the host's folder moved"
    if sorted(old.server_names) != sorted(new.server_names):
        yield SERVED_NAMES + _signed(set(old.server_names), set(new.server_names))
    yield from _listener_details(old, new)
    yield from _callee_details(old, new)


def _changed_settings(old: Recipe, new: Recipe) -> Iterator[str]:
    before, after = dict(old.settings), dict(new.settings)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"{name} {_shown(before.get(name))} -> {_shown(after.get(name))}"


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{name}: {port}" for name, port in value) + "}"
    return str(value)


def _listener_details(old: Recipe, new: Recipe) -> Iterator[str]:
    for served in old.listeners:
        if new.served(served.name) is None:
            yield f"{_door(served)} closes"
    for served in new.listeners:
        before = old.served(served.name)
        if before is None:
            yield f"{_door(served)} opens"
        else:
            yield from _door_details(before, served)


def _door_details(old: ServedListener, new: ServedListener) -> Iterator[str]:
    if old.sockets != new.sockets:
        yield f"port {_ports(old)} -> {_ports(new)}"
    if old.callers != new.callers:
        yield "callers: " + _signed(set(old.callers), set(new.callers))
    if old.policy.anchors != new.policy.anchors:
        yield "trusts: " + _signed(set(map(str, old.policy.anchors)), set(map(str, new.policy.anchors)))
    if (before := _let_in_besides(old.policy)) != (after := _let_in_besides(new.policy)):
        yield "lets in: " + _signed(before, after)
    if old.client_certificate != new.client_certificate:
        yield f"client certificate {old.client_certificate} -> {new.client_certificate}"
    if old.forward_identity != new.forward_identity:
        form = new.forward_identity
        yield f"forwards the caller's identity as {form}" if form else "forwards no identity"
    if old.shows != new.shows:
        yield f"shows {new.shows or OWN} instead of {old.shows or OWN}"
    if old.protocols != new.protocols:
        yield f"TLS {'+'.join(old.protocols)} -> {'+'.join(new.protocols)}"


def _let_in_besides(policy: PeerPolicy) -> set[str]:
    """Who is let in besides the callers that have names of their own in the inventory."""
    found = set()
    for anchor, name in policy.implied_members:
        if isinstance(anchor, OutsideAnchor):
            found.add(outside(anchor.name) if name == EVERYBODY else f"{outside(anchor.name)} as `{name}`")
        elif name == EVERYBODY:
            found.add("every member of the shared CA")
    return found


def _callee_details(old: Recipe, new: Recipe) -> Iterator[str]:
    before = {str(callee): callee for callee in old.callees}
    after = {str(callee): callee for callee in new.callees}
    if before.keys() != after.keys():
        yield "calls: " + _signed(set(before), set(after))
    for name in sorted(before.keys() & after.keys()):
        yield from _call_details(name, before[name], after[name])


def _call_details(name: str, old: Callee, new: Callee) -> Iterator[str]:
    if old.endpoints != new.endpoints:
        yield f"{name} at " + _signed(
            {f"{e.address}:{e.port}" for e in old.endpoints}, {f"{e.address}:{e.port}" for e in new.endpoints}
        )
    if old.asks != new.asks:
        yield f"{name} is shown {'a certificate' if new.asks else 'no certificate'}"
    if old.server_name != new.server_name:
        yield f"{name} checked as {old.server_name} -> {new.server_name}"
    if old.policy != new.policy or old.believes_system != new.believes_system:
        yield f"believes {name}: " + _signed(_believed(old), _believed(new))


def _believed(callee: Callee) -> set[str]:
    return {"what its machine believes"} if callee.believes_system else set(map(str, callee.policy.anchors))


def _door(served: ServedListener) -> str:
    return f"port {_ports(served)}"


def _ports(served: ServedListener) -> str:
    return "+".join(
        [f"{socket.address}:{socket.port}" if socket.address else str(socket.port) for socket in served.sockets]
    )


def _signed(before: set[str], after: set[str]) -> str:
    gained = [f"+{one}" for one in sorted(after - before)]
    lost = [f"-{one}" for one in sorted(before - after)]
    return " ".join(gained + lost) or "order"
