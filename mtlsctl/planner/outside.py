"""Callers and servers that are not of this estate: what a plan refuses, warns of and shows first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from mtlsctl.model.credential import is_name_of_authority
from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.plan import Risk
from mtlsctl.model.runtime import SYSTEM_CERTIFICATES
from mtlsctl.model.topology import ClientCertificate, ListenerId, outside
from mtlsctl.model.trust import OutsideAnchor, common_name_in, in_order
from mtlsctl.planner.safety import BY_NAME, ONE_STORE
from mtlsctl.planner.trust import external_callee

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.plan import Step
    from mtlsctl.model.release import Callee, Recipe
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Caller, InstanceId, Inventory, Listener, Outsider, Service
    from mtlsctl.model.trust import OutsideFacts, PeerPolicy, TrustAnchor

MIXED = "M2020"
NOT_COMPARABLE = "M2021"
SAME_NAME = "M2022"
SYSTEM_TRUST = "M2023"
MOVES_OUTSIDE = "M2024"
NOT_VALID_NOW = "M2025"
NOBODY_IS_ASKED = "M2026"
TAKEN_FOR_OURS = "M2027"
EVERYBODY_OF_A_CA = "M2110"
CALL_OUTSIDE = "M2111"
TO_BE_TRUSTED_OUTSIDE = "M2112"

MEANINGS = {
    MIXED: "a listener would have to compare names under one CA and let in everybody under another",
    NOT_COMPARABLE: "programs write the subject of a certificate from outside in different ways, so it is not compared",
    SAME_NAME: "a certificate from outside has the name of another CA and another key",
    SYSTEM_TRUST: "the runtime cannot believe what its machine believes, or is not told where that is",
    MOVES_OUTSIDE: "a live callee cannot become a server outside the estate, or the reverse, in one apply",
    NOT_VALID_NOW: "a certificate from outside has ended, is about to, or has not begun",
    NOBODY_IS_ASKED: "a listener that asks for no certificate cannot know somebody from outside by one",
    TAKEN_FOR_OURS: "the program behind a listener is told who called, and could take somebody outside for one of ours",
    EVERYBODY_OF_A_CA: "a listener begins to let in everybody for whom somebody else's CA vouches",
    CALL_OUTSIDE: "a service begins to call a server outside the estate, or believes it by something else",
    TO_BE_TRUSTED_OUTSIDE: "a server outside the estate has to trust what one of our services is about to show",
}

SOON = timedelta(days=30)
"""So long before its end a certificate from outside is spoken of: somebody else has to make the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is looked at: the inventory, what is live, what is to be and what lies between."""

    inventory: Inventory
    runtimes: Mapping[str, Runtime]
    live: Mapping[InstanceId, Recipe]
    desired: Mapping[InstanceId, Recipe]
    steps: tuple[Step, ...]
    facts: Mapping[str, OutsideFacts]
    now: datetime

    @property
    def is_concerned(self) -> bool:
        """Whether anybody or anything outside is declared or live: most estates have neither."""
        inventory = self.inventory
        return bool(inventory.certificates or inventory.external_servers or inventory.chains or self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchedFor:
    """A server that is believed by CAs which are not ours: one outside the estate, or a door with its certificate.

    `certificates` are the SHA-256 of those CAs; none: what the machine of each caller believes.
    """

    name: str
    callers: tuple[Caller, ...]
    certificates: tuple[str, ...]
    span: Span | None


def vouched_for_by_others(inventory: Inventory) -> Iterator[VouchedFor]:
    """Every server that somebody else's CA vouches for."""
    for server in inventory.external_servers:
        yield VouchedFor(name=server.name, callers=server.callers, certificates=server.certificates, span=server.span)
    for service in inventory.services.values():
        for listener in service.listeners:
            shown = listener.server_certificate
            if shown is not None:
                yield VouchedFor(name=service.name, callers=listener.callers, certificates=shown.trust, span=shown.span)


def outside_findings(scene: Scene) -> Iterator[Diagnostic]:
    """What cannot be enforced, or done without a gap, of calls from outside and to the outside."""
    others = tuple(vouched_for_by_others(scene.inventory))
    callees_of = _callees_by_service(scene.inventory)
    for service in scene.inventory.services.values():
        runtime = scene.runtimes[service.runtime]
        for listener in service.listeners:
            if listener.outsiders and listener.client_certificate is ClientCertificate.NONE:
                message = f"`{service.name}` asks for no certificate here, so nobody from outside is known by one"
                advice = "take them out, or ask for certificates"
                yield Diagnostic(code=NOBODY_IS_ASKED, message=message, span=listener.span, help=advice)
            for outsider in listener.outsiders:
                yield from _identity_findings(outsider, runtime, scene)
                if listener.forward_identity is not None:
                    yield from _forwarding_findings(outsider, scene)
        callees = callees_of.get(service.name, set())
        if not runtime.enforcement.separate_trust:
            yield from _one_store_findings(service, runtime, others, callees)
        if not runtime.separate_servers:
            yield from _one_belief_findings(service, runtime, others, callees)
    for server in others:
        yield from _system_findings(server, scene)
    yield from _mixed_findings(scene)
    yield from _name_findings(scene)
    yield from _date_findings(scene)
    yield from _moves(scene)


def _identity_findings(outsider: Outsider, runtime: Runtime, scene: Scene) -> Iterator[Diagnostic]:
    if outsider.identities is None:
        return
    if not runtime.enforcement.identifiers:
        yield Diagnostic(
            code=BY_NAME,
            message=f"{runtime.name} cannot compare names, so it cannot tell the identities of `{outsider.name}` apart",
            span=outsider.span,
            help="use a runtime that can; or say `authorize: any-member`, and everybody of that CA gets in",
        )
    for sha256 in outsider.certificates:
        if scene.facts[sha256].subject is None:
            certificate = scene.inventory.certificates[sha256]
            yield Diagnostic(
                code=NOT_COMPARABLE,
                message=f"the subject of {certificate.file}, `{scene.facts[sha256].shown}`, cannot be compared as text",
                span=certificate.span,
                notes=("programs write names with other attributes or characters in different ways",),
                help="only `authorize: any-member` can be had with this CA",
            )


def _forwarding_findings(outsider: Outsider, scene: Scene) -> Iterator[Diagnostic]:
    """The program behind reads names, and below a CA of somebody else's anybody may bear ours."""
    if outsider.identities is None:
        message = f"a CA below that of `{outsider.name}` could give anybody the names of one of our services"
        yield Diagnostic(
            code=TAKEN_FOR_OURS,
            message=message,
            span=outsider.span,
            help="give them a listener of their own without `forward_identity`, or name `identities`",
        )
    for identity in outsider.identities or ():
        name = identity.removeprefix("CN=")
        if name in scene.inventory.services:
            message = f"`{outsider.name}` calls as `CN={name}`, as the service `{name}` does"
            yield Diagnostic(
                code=TAKEN_FOR_OURS,
                message=message,
                span=outsider.span,
                help="give them a listener of their own without `forward_identity`",
            )


def _callees_by_service(inventory: Inventory) -> Mapping[str, set[str]]:
    """The services and servers that each service calls."""
    found: dict[str, set[str]] = defaultdict(set)
    doors = ((one.name, listener.callers) for one in inventory.services.values() for listener in one.listeners)
    beyond = ((server.name, server.callers) for server in inventory.external_servers)
    for name, callers in chain(doors, beyond):
        for caller in callers:
            found[caller.service].add(name)
    return found


def _is_called(server: VouchedFor, service: Service) -> bool:
    return any(caller.service == service.name for caller in server.callers)


def _one_belief_findings(
    service: Service, runtime: Runtime, others: Iterable[VouchedFor], callees: set[str]
) -> Iterator[Diagnostic]:
    """A CA from outside could vouch for a server of ours, where all callees are believed by the anchors of all."""
    for server in others:
        if _is_called(server, service) and len(callees) > 1:
            message = (
                f"{runtime.name} believes all callees alike: whoever vouches for `{server.name}` could pass for "
                f"`{min(callees - {server.name})}`"
            )
            yield _refused(ONE_STORE, message, server.span)


def _one_store_findings(
    service: Service, runtime: Runtime, others: Iterable[VouchedFor], callees: set[str]
) -> Iterator[Diagnostic]:
    """With one store a CA from outside vouches for callers and for servers alike, at every listener."""
    if not service.listeners:
        return
    for server in others:
        if _is_called(server, service):
            message = f"{runtime.name} has one store: whoever vouches for `{server.name}` could call `{service.name}`"
            yield _refused(ONE_STORE, message, server.span)
    for listener in service.listeners:
        for outsider in listener.outsiders:
            if callees:
                message = f"{runtime.name} has one store: `{outsider.name}` could pass for what `{service.name}` calls"
                yield _refused(ONE_STORE, message, outsider.span)
            for other in service.listeners:
                if outsider.name not in {one.name for one in other.outsiders}:
                    message = (
                        f"{runtime.name} has one store: `{outsider.name}` could call `{other.name}` of "
                        f"`{service.name}` too"
                    )
                    yield _refused(ONE_STORE, message, outsider.span)


def _refused(code: str, message: str, span: Span | None) -> Diagnostic:
    return Diagnostic(code=code, message=message, span=span, help="use a runtime that can enforce it")


def _system_findings(server: VouchedFor, scene: Scene) -> Iterator[Diagnostic]:
    """`system` is each runtime's own affair: some cannot, some have to be told where."""
    for caller in server.callers if not server.certificates else ():
        service = scene.inventory.services[caller.service]
        runtime = scene.runtimes[service.runtime]
        if not runtime.enforcement.system_trust:
            yield Diagnostic(
                code=SYSTEM_TRUST,
                message=f"{runtime.name} cannot believe `{server.name}` by what its machine believes",
                span=caller.span,
                help="name the file with the CA of that server instead of `system`",
            )
        is_asked = any(setting.name == SYSTEM_CERTIFICATES for setting in runtime.settings)
        if is_asked and SYSTEM_CERTIFICATES not in dict(service.settings):
            yield Diagnostic(
                code=SYSTEM_TRUST,
                message=f"{runtime.name} is not told where the machine of `{service.name}` keeps its CAs",
                span=caller.span,
                help=f"give `{service.name}` the setting `{SYSTEM_CERTIFICATES}`",
            )


def _mixed_findings(scene: Scene) -> Iterator[Diagnostic]:
    """Either names are compared at a listener or they are not; also on the way there."""
    reported: set[tuple[str, str]] = set()
    for service in scene.inventory.services.values():
        for served in scene.desired[service.instances[0]].listeners:
            if served.policy.is_mixed:
                reported.add((service.name, served.name))
                yield Diagnostic(
                    code=MIXED,
                    message=f"`{service.name}` would let in everybody of one CA at a listener where names are compared",
                    span=_door_span(service, served.name),
                    help="give the callers with `authorize: any-member` a listener of their own",
                )
    for step in scene.steps:
        for served in step.recipe.listeners if step.recipe else ():
            door = (step.id.instance.service, served.name)
            if served.policy.is_mixed and door not in reported:
                reported.add(door)
                stays = scene.inventory.services.get(door[0])
                yield Diagnostic(
                    code=MIXED,
                    message=f"`{door[0]}` would let in everybody of one CA while names are still compared",
                    span=None if stays is None else _door_span(stays, served.name),
                    help="do it in two applies: take out what goes, then put in what comes",
                )


def _door_span(service: Service, listener: str) -> Span | None:
    door: Listener | None = next((one for one in service.listeners if one.name == listener), None)
    return service.span if door is None else door.span


def _name_findings(scene: Scene) -> Iterator[Diagnostic]:
    """Programs look issuers up by name: two keys under one name, and one of them is not found, or the wrong one is."""
    for sha256, certificate in scene.inventory.certificates.items():
        common_name = common_name_in(scene.facts[sha256].key_name)
        is_ours = common_name is not None and (
            common_name in scene.inventory.services or is_name_of_authority(scene.inventory.name, common_name)
        )
        if is_ours:
            yield Diagnostic(
                code=SAME_NAME,
                message=f"{certificate.file} has a name that only certificates of this estate may have: "
                f"`{scene.facts[sha256].shown}`",
                span=certificate.span,
                help="it would be mistaken for ours; whoever made it has to give it another name",
            )
    reported: set[frozenset[OutsideAnchor]] = set()
    for policy in _policies(scene):
        for pair in _namesakes(policy, scene.facts):
            if pair not in reported:
                reported.add(pair)
                yield _two_of_a_name(pair, scene)


def _policies(scene: Scene) -> Iterator[PeerPolicy]:
    if not scene.facts:
        return
    recipes = [*scene.desired.values(), *(step.recipe for step in scene.steps if step.recipe is not None)]
    for recipe in recipes:
        yield from (served.policy for served in recipe.listeners if served.policy.outsiders)
        yield from (callee.policy for callee in recipe.callees if callee.policy.outsiders)


def _namesakes(policy: PeerPolicy, facts: Mapping[str, OutsideFacts]) -> Iterator[frozenset[OutsideAnchor]]:
    """Pairs of anchors with one name and two keys; one key in two certificates is a renewed one."""
    by_name: dict[str, OutsideAnchor] = {}
    for anchor in in_order(policy.anchors):
        if isinstance(anchor, OutsideAnchor):
            other = by_name.setdefault(facts[anchor.sha256].key_name, anchor)
            if facts[other.sha256].spki_sha256 != facts[anchor.sha256].spki_sha256:
                yield frozenset({other, anchor})


def _two_of_a_name(pair: frozenset[OutsideAnchor], scene: Scene) -> Diagnostic:
    files = [
        (certificate.file, certificate.span)
        for anchor in sorted(pair)
        if (certificate := scene.inventory.certificates.get(anchor.sha256)) is not None
    ]
    shown = scene.facts[min(pair).sha256].shown
    names = sorted({outside(one.name) for one in pair})
    return Diagnostic(
        code=SAME_NAME,
        message=f"two CAs of {' and '.join(names)} have the one name `{shown}` and two keys",
        span=files[-1][1] if files else None,
        notes=tuple(f"one is in {file}" for file, _ in files),
        help="one of them has to go; if it is live, take it out in an apply of its own",
    )


def _date_findings(scene: Scene) -> Iterator[Diagnostic]:
    """One that nothing trusts yet has to be valid; one that is live is spoken of, as renewals must not wait for it."""
    known = {anchor.sha256 for policy in _live_policies(scene.live) for anchor in _beyond(policy.anchors)}
    for sha256, certificate in scene.inventory.certificates.items():
        facts = scene.facts[sha256]
        if facts.not_before <= scene.now < facts.not_after - SOON:
            continue
        is_valid = facts.not_before <= scene.now < facts.not_after
        if scene.now < facts.not_before:
            what = f"is not valid before {facts.not_before:%Y-%m-%d %H:%M}"
        else:
            what = f"{'ends' if is_valid else 'ended'} on {facts.not_after:%Y-%m-%d %H:%M}"
        yield Diagnostic(
            code=NOT_VALID_NOW,
            severity=Severity.WARNING if is_valid or sha256 in known else Severity.ERROR,
            message=f"{certificate.file} {what}: `{facts.shown}`",
            span=certificate.span,
            help="ask for the next one, and put it beside this one until theirs is in use",
        )


def _live_policies(live: Mapping[InstanceId, Recipe]) -> Iterator[PeerPolicy]:
    for recipe in live.values():
        yield from (served.policy for served in recipe.listeners)
        yield from (callee.policy for callee in recipe.callees)


def _beyond(anchors: Iterable[TrustAnchor]) -> Iterator[OutsideAnchor]:
    return (anchor for anchor in anchors if isinstance(anchor, OutsideAnchor))


def _moves(scene: Scene) -> Iterator[Diagnostic]:
    """A name that stood for a service and is to stand for a server outside, or the reverse: two applies."""
    places = {server.name: server.span for server in scene.inventory.external_servers}
    reported: set[str] = set()
    for instance, new in scene.desired.items():
        old = scene.live.get(instance)
        for callee in new.callees if old is not None else ():
            before = old.called(callee.listener) if old is not None else None
            name = callee.listener.service
            if before is not None and before.is_outside is not callee.is_outside and name not in reported:
                reported.add(name)
                yield Diagnostic(
                    code=MOVES_OUTSIDE,
                    message=f"`{name}` is live as {'an external server' if before.is_outside else 'a service'} and "
                    "cannot become the other in one apply",
                    span=places.get(name) or scene.inventory.services[instance.service].span,
                    help="do it in two applies: end the calls first, or give the new one a name of its own",
                )


def outside_risks(scene: Scene, shown: Mapping[InstanceId, TrustAnchor], state: State) -> tuple[Risk, ...]:
    """What an approver should see first: doors for everybody of a CA, calls that leave the estate, what they need.

    `shown` are the anchors of the leaves that instances are to show.
    """
    return (*_open_doors(scene), *_calls_outside(scene, shown, state))


def _open_doors(scene: Scene) -> Iterator[Risk]:
    for service in scene.inventory.services.values():
        for listener in service.listeners:
            for outsider in listener.outsiders:
                anchors = frozenset(OutsideAnchor(outsider.name, one) for one in outsider.certificates)
                known = (_is_open_to(anchors, scene.live.get(one), listener.name) for one in service.instances)
                if outsider.identities is None and not all(known):
                    yield Risk(
                        code=EVERYBODY_OF_A_CA,
                        summary=f"everybody for whom the CA of {outside(outsider.name)} vouches may call "
                        f"{ListenerId(service.name, listener.name)}:{listener.port}",
                        span=outsider.span,
                    )


def _is_open_to(anchors: frozenset[OutsideAnchor], recipe: Recipe | None, listener: str) -> bool:
    served = recipe.served(listener) if recipe is not None else None
    return served is not None and served.policy.members is None and anchors <= served.policy.anchors


def _calls_outside(scene: Scene, shown: Mapping[InstanceId, TrustAnchor], state: State) -> Iterator[Risk]:
    for server in scene.inventory.external_servers:
        callee = external_callee(server)
        callers = [scene.inventory.services[caller.service] for caller in server.callers]
        begin = [one.name for one in callers if _has_another_call(callee, one, scene.live)]
        if begin:
            files = sorted({scene.inventory.certificates[one].file for one in server.certificates})
            yield Risk(
                code=CALL_OUTSIDE,
                summary=f"{', '.join(begin)} may call {outside(server.name)} at {server.host}:{server.port}, believed "
                f"by {', '.join(files) or 'what the machine believes'}",
                span=server.span,
            )
        for service in callers:
            is_new = any(not _calls(callee, scene.live.get(one)) for one in service.instances)
            if is_new or any(shown[one] != _live_anchor(one, state) for one in service.instances):
                anchors = ", ".join(map(str, in_order({shown[one] for one in service.instances})))
                yield Risk(
                    code=TO_BE_TRUSTED_OUTSIDE,
                    summary=f"{outside(server.name)} has to trust {anchors}, or does not know {service.name}: "
                    f"mtlsctl show --anchors {service.name}",
                    span=server.span,
                )


def _has_another_call(callee: Callee, service: Service, live: Mapping[InstanceId, Recipe]) -> bool:
    """Whether some instance does not call the server as it is to."""
    recipes = (live.get(instance) for instance in service.instances)
    return any(recipe is None or recipe.called(callee.listener) != callee for recipe in recipes)


def _calls(callee: Callee, recipe: Recipe | None) -> bool:
    """Whether the same server is called already, however it is believed."""
    known = recipe.called(callee.listener) if recipe is not None else None
    return known is not None and known.endpoints == callee.endpoints


def _live_anchor(instance: InstanceId, state: State) -> TrustAnchor | None:
    """What vouches for the leaf that an instance shows now."""
    live = state.live.get(instance)
    credential = state.credentials.get(live.recipe.credential) if live is not None else None
    return credential.profile.anchor if credential is not None else None
