"""The one door of the planner: an inventory and a state become a plan."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from mtlsctl.model.credential import SHARED, AuthorityId
from mtlsctl.model.diagnostic import Severity
from mtlsctl.model.plan import TIME_CAUSED, AuthorityChange, CertificateChange, Due, KeyRequest, Op, Plan
from mtlsctl.model.release import canonical_digest
from mtlsctl.model.runtime import Reload, reload_of
from mtlsctl.model.topology import DirectoryHost, KeyOrigin, TrustModel
from mtlsctl.model.trust import NOTHING_OUTSIDE
from mtlsctl.planner.diff import SERVED_NAMES, access_changes, service_changes
from mtlsctl.planner.identities import (
    Wanted,
    addresses_of,
    callers_of_servers_outside,
    calls_by_service,
    names_still_checked,
    services_compared_by_name,
    usages_of,
)
from mtlsctl.planner.lifecycle import (
    WantedAuthority,
    current_authorities,
    decide_authority,
    decide_credential,
    keys_to_destroy,
    newest_credentials,
)
from mtlsctl.planner.outside import Scene, outside_findings, outside_risks
from mtlsctl.planner.refactoring import refactored
from mtlsctl.planner.safety import (
    borne_name_refusals,
    budget_findings,
    change_refusals,
    enforcement_refusals,
    machine_risks,
    name_refusals,
    opening_risks,
    owner_risks,
    placement_risks,
    port_refusals,
    process_refusals,
    program_refusals,
    restart_risks,
)
from mtlsctl.planner.shown import shown_findings, shown_risks
from mtlsctl.planner.trust import desired_recipes, foreign_doors, presented_members
from mtlsctl.planner.waves import leaving_recipe, make_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from mtlsctl.model.credential import CertificateProfile
    from mtlsctl.model.diagnostic import Diagnostic
    from mtlsctl.model.plan import AccessChange, ServiceChange, Step
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId, Inventory, Listener, Service
    from mtlsctl.model.trust import OutsideFacts, TrustAnchor
    from mtlsctl.planner.lifecycle import AuthorityDecision, CredentialDecision
    from mtlsctl.planner.trust import Presented

_NUMBER = re.compile(r"(?<= CA) g[0-9]+|(?<=[a-z0-9])#[0-9]+")


def make_plan(
    inventory: Inventory,
    state: State,
    runtimes: Mapping[str, Runtime],
    now: datetime,
    outside: Mapping[str, OutsideFacts] = NOTHING_OUTSIDE,
) -> Plan:
    """All that an apply of this inventory to this state would do at this moment.

    Pure: no clock, no randomness, no IO, no key. What cannot be enforced or done is in `refusals`, never left out.
    `outside` says what each certificate from outside holds that the inventory or something live names, by its SHA-256;
    raises KeyError for one that is missing.
    """
    done = refactored(inventory, state, runtimes)
    known, state = state.hosts, done.state
    course = _chart(inventory, state, runtimes, now, renew=True)
    caused = course if not course.is_due else _chart(inventory, state, runtimes, now, renew=False)
    live = _live_recipes(state)
    access = access_changes(inventory, live)
    scene = Scene(
        inventory=inventory,
        runtimes=runtimes,
        live=live,
        desired=course.desired,
        steps=course.steps,
        facts=outside,
        now=now,
    )
    findings = sorted((*done.findings, *_findings(scene, state, course)), key=lambda one: one.order)
    plan = Plan(
        estate=inventory.name,
        lineage=state.lineage,
        serial=state.serial,
        inventory_digest=inventory.digest,
        created_at=now,
        moves=done.moves,
        renames=done.renames,
        abandonments=done.abandonments,
        access=access,
        risks=(
            *opening_risks(access),
            *done.risks,
            *(outside_risks(scene, _to_be_shown(course), state) if scene.is_concerned else ()),
            *shown_risks(scene),
            *placement_risks(inventory, live, course.desired),
            *machine_risks(inventory, state, known),
            *restart_risks(inventory, course.steps),
            *owner_risks(inventory, state),
        ),
        authority_changes=tuple(_authority_changes(caused, caused, state, now)),
        certificate_changes=tuple(_certificate_changes(caused, caused, state)),
        service_changes=service_changes(live, caused.desired),
        steps=course.steps,
        refusals=tuple(one for one in findings if one.severity is Severity.ERROR),
        warnings=tuple(one for one in findings if one.severity is Severity.WARNING),
        next_due=_next_due(course, inventory),
        unchanged_instances=sum(1 for instance, recipe in course.desired.items() if live.get(instance) == recipe),
    )
    plan = replace(plan, fingerprint=_fingerprint(plan))
    if course is not caused:
        plan = _with_what_is_due(plan, course, caused, state, live, now)
    return replace(plan, requests=tuple(_requests(plan, inventory)))


def _with_what_is_due(
    plan: Plan,
    course: _Course,
    caused: _Course,
    state: State,
    live: Mapping[InstanceId, Recipe],
    now: datetime,
) -> Plan:
    """The same plan, and the same fingerprint, with what time alone made due beside it."""
    by_inventory = {change.instance for change in plan.service_changes}
    return replace(
        plan,
        authority_changes=tuple(_authority_changes(course, caused, state, now)),
        certificate_changes=tuple(_certificate_changes(course, caused, state)),
        service_changes=tuple(
            change._replace(due=change.instance not in by_inventory) for change in service_changes(live, course.desired)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """What is to be and the way there, with or without what time alone makes due."""

    authorities: Mapping[str, AuthorityDecision]
    credentials: Mapping[InstanceId, CredentialDecision]
    desired: Mapping[InstanceId, Recipe]
    calls: Mapping[str, list[tuple[Service, Listener]]]
    steps: tuple[Step, ...]

    @property
    def is_due(self) -> bool:
        """Whether time alone is among the reasons for anything."""
        reasons = chain(
            (one.reasons for one in self.authorities.values()), (one.reasons for one in self.credentials.values())
        )
        return any(not TIME_CAUSED.isdisjoint(some) for some in reasons if some)


def _chart(
    inventory: Inventory, state: State, runtimes: Mapping[str, Runtime], now: datetime, *, renew: bool
) -> _Course:
    calls = calls_by_service(inventory)
    checked = names_still_checked(inventory, state)
    authorities = _decide_authorities(inventory, state, checked, now, renew=renew)
    credentials = _decide_credentials(inventory, state, calls, checked, authorities, now, renew=renew)
    desired = desired_recipes(inventory, runtimes, authorities, credentials)
    live = _live_recipes(state)
    steps: tuple[Step, ...] = ()
    if live != desired:
        foreign = foreign_doors(inventory, live)
        presented = presented_members(state, credentials.values(), foreign)
        leaving = _leaving(inventory, live, desired, presented, runtimes)
        identities = frozenset(one.id.instance for one in credentials.values() if _has_new_face(one, live, state))
        if foreign:
            identities |= _showing_others(live, desired)
        steps = _with_restarts(make_steps(live, desired, leaving, presented, identities), live, runtimes)
    return _Course(authorities=authorities, credentials=credentials, desired=desired, calls=calls, steps=steps)


def _with_restarts(
    steps: tuple[Step, ...], live: Mapping[InstanceId, Recipe], runtimes: Mapping[str, Runtime]
) -> tuple[Step, ...]:
    """The same steps, each with whether the running process has to be restarted for it."""
    restarted = {name for name, runtime in runtimes.items() if runtime.reload is Reload.RESTART}
    if restarted.isdisjoint([step.recipe.runtime for step in steps if step.recipe is not None]):
        return steps
    before: dict[InstanceId, Recipe] = dict(live)
    found = []
    for step in steps:
        old, new = before.get(step.id.instance), step.recipe
        runtime = runtimes.get(new.runtime) if new is not None else None
        is_restart = runtime is not None and reload_of(runtime, old, new) is Reload.RESTART
        found.append(replace(step, needs_restart=True) if is_restart else step)
        if new is not None:
            before[step.id.instance] = new
    return tuple(found)


def _decide_authorities(
    inventory: Inventory, state: State, checked: Mapping[str, set[str]], now: datetime, *, renew: bool
) -> dict[str, AuthorityDecision]:
    current = current_authorities(state)
    return {
        wanted.owner: decide_authority(wanted, current.get(wanted.owner), state, now, renew=renew)
        for wanted in _wanted_authorities(inventory, state, checked)
    }


def _wanted_authorities(
    inventory: Inventory, state: State, checked: Mapping[str, set[str]]
) -> Iterator[WantedAuthority]:
    live = frozenset([instance.service for instance in state.live])
    for service in inventory.services.values():
        if service.trust is TrustModel.SERVICE_CA:
            yield WantedAuthority(
                owner=service.name,
                policy=service.authority,
                names=(*_names(service), *_transitional(service, checked)),
                addresses=service.addresses,
                is_live=service.name in live,
            )
    if inventory.has_authority(SHARED):
        yield WantedAuthority(owner=SHARED, policy=inventory.shared_authority)


def _issuer_of(service: Service, authorities: Mapping[str, AuthorityDecision]) -> tuple[AuthorityId, datetime | None]:
    """Who signs a service's leaves, and when that CA ends."""
    if service.trust is TrustModel.PINNED:
        return AuthorityId(service.name, 0), None
    decision = authorities[SHARED if service.trust is TrustModel.SHARED_CA else service.name]
    return decision.id, decision.not_after


def _decide_credentials(
    inventory: Inventory,
    state: State,
    calls: Mapping[str, list[tuple[Service, Listener]]],
    checked: Mapping[str, set[str]],
    authorities: Mapping[str, AuthorityDecision],
    now: datetime,
    *,
    renew: bool,
) -> dict[InstanceId, CredentialDecision]:
    newest, calling_outside = newest_credentials(state), callers_of_servers_outside(inventory)
    compared = services_compared_by_name(inventory)
    decisions: dict[InstanceId, CredentialDecision] = {}
    for service in inventory.services.values():
        authority, ends = _issuer_of(service, authorities)
        usages = usages_of(service, calls.get(service.name, []), calls_outside=service.name in calling_outside)
        for instance in service.instances:
            wanted = Wanted(
                instance=instance,
                authority=authority,
                authority_ends=ends,
                names=_names(service),
                transitional_names=_transitional(service, checked),
                addresses=addresses_of(service, inventory.hosts[instance.host]),
                usages=usages,
                policy=service.certificate,
                request=service.request_for(instance.host),
                is_compared=service.name in compared,
            )
            decisions[instance] = decide_credential(wanted, newest.get(instance), state, now, renew=renew)
    return decisions


def _names(service: Service) -> tuple[str, ...]:
    return tuple([name.value for name in service.names])


def _transitional(service: Service, checked: Mapping[str, set[str]]) -> tuple[str, ...]:
    old = checked.get(service.name)
    return tuple(sorted(old.difference(_names(service)))) if old else ()


def _live_recipes(state: State) -> dict[InstanceId, Recipe]:
    return {instance: live.recipe for instance, live in state.live.items()}


def _leaving(
    inventory: Inventory,
    live: Mapping[InstanceId, Recipe],
    desired: Mapping[InstanceId, Recipe],
    presented: Presented,
    runtimes: Mapping[str, Runtime],
) -> dict[InstanceId, Recipe]:
    """Instances that go while their service stays: callers dial them until WITHDRAW, so they are extended too."""
    leaving: dict[InstanceId, Recipe] = {}
    for instance, recipe in live.items():
        service = inventory.services.get(instance.service)
        if instance in desired or service is None or recipe.runtime not in runtimes:
            continue
        stays = desired[service.instances[0]]
        digest = runtimes[recipe.runtime].digest
        leaving[instance] = leaving_recipe(recipe, stays.listeners, presented, digest)
    return leaving


def _has_new_face(decision: CredentialDecision, live: Mapping[InstanceId, Recipe], state: State) -> bool:
    """Whether peers can tell the new leaf from the live one: another CA, other names or subject, other usages."""
    recipe = live.get(decision.id.instance)
    if recipe is None or recipe.credential == decision.id:
        return recipe is None
    old = state.credentials.get(recipe.credential)
    new = decision.profile or (decision.before.profile if decision.before else None)
    if old is None or new is None:
        return True
    return _face(old.profile) != _face(new)


def _face(profile: CertificateProfile) -> tuple[object, ...]:
    return profile.anchor, profile.common_name, set(profile.presented_names), profile.usages


def _showing_others(live: Mapping[InstanceId, Recipe], desired: Mapping[InstanceId, Recipe]) -> frozenset[InstanceId]:
    """Instances of which a door shows something else than now that somebody else issued, or does so no more."""
    return frozenset(
        instance
        for instance, recipe in desired.items()
        if (old := live.get(instance)) is not None
        and any(
            (before := old.served(served.name)) is not None and before.shows != served.shows
            for served in recipe.listeners
        )
    )


def _to_be_shown(course: _Course) -> dict[InstanceId, TrustAnchor]:
    """What vouches for the leaf that each instance is to show."""
    profiles = (
        (instance, one.profile or (one.before.profile if one.before else None))
        for instance, one in course.credentials.items()
    )
    return {instance: profile.anchor for instance, profile in profiles if profile is not None}


def _findings(scene: Scene, state: State, course: _Course) -> Iterator[Diagnostic]:
    inventory, runtimes, live = scene.inventory, scene.runtimes, scene.live
    models = {service.name: service.trust for service in inventory.services.values()}
    for service in inventory.services.values():
        callees = (called.name for called, _ in course.calls.get(service.name, ()))
        yield from enforcement_refusals(service, runtimes[service.runtime], callees, models)
    for name, recipe in _widest(course).items():
        yield from budget_findings(state, recipe, inventory.services[name].span, scene.facts)
    if scene.is_concerned:
        yield from outside_findings(scene)
        yield from shown_findings(scene)
    yield from process_refusals(inventory, course.desired)
    yield from program_refusals(inventory, state, runtimes)
    yield from name_refusals(inventory)
    yield from borne_name_refusals(inventory, state)
    yield from change_refusals(inventory, runtimes, live, course.desired)
    yield from port_refusals(inventory, live, course.steps)


def _widest(course: _Course) -> dict[str, Recipe]:
    """By service the recipe that trusts most: on the way there a door trusts old and new callers."""
    widest: dict[str, Recipe] = {}
    for instance, recipe in course.desired.items():
        widest.setdefault(instance.service, recipe)
    for step in course.steps:
        wider, known = step.recipe, widest.get(step.id.instance.service)
        if wider is known or wider is None or known is None:
            continue
        if _anchors(wider) > _anchors(known):
            widest[step.id.instance.service] = wider
    return widest


def _anchors(recipe: Recipe) -> int:
    return max((len(served.policy.anchors) for served in recipe.listeners), default=0)


def _authority_changes(course: _Course, caused: _Course, state: State, now: datetime) -> Iterator[AuthorityChange]:
    current = current_authorities(state)
    for service, decision in course.authorities.items():
        if decision.profile is not None:
            yield AuthorityChange(
                op=Op.CHANGE if service in current else Op.ADD,
                id=decision.id,
                profile=decision.profile,
                reasons=decision.reasons,
                due=caused.authorities[service].profile is None,
            )
    for ended in keys_to_destroy(state, course.authorities, now):
        yield AuthorityChange(op=Op.REMOVE, id=ended, profile=None, reasons=(), due=True)


def _certificate_changes(course: _Course, caused: _Course, state: State) -> Iterator[CertificateChange]:
    for instance, decision in course.credentials.items():
        if decision.profile is not None:
            before = decision.before
            yield CertificateChange(
                op=Op.ADD if before is None else Op.CHANGE,
                instance=instance,
                profile=decision.profile,
                names_before=before.profile.presented_names if before else (),
                not_after_before=before.not_after if before else None,
                reasons=decision.reasons,
                due=caused.credentials[instance].profile is None,
                is_same_key=decision.is_same_key,
            )
    for instance, live in sorted(state.live.items()):
        if instance not in course.desired:
            credential = state.credentials.get(live.recipe.credential)
            yield CertificateChange(
                op=Op.REMOVE,
                instance=instance,
                profile=None,
                names_before=live.recipe.server_names,
                not_after_before=credential.not_after if credential else None,
                reasons=(),
                due=False,
            )


def _requests(plan: Plan, inventory: Inventory) -> Iterator[KeyRequest]:
    """A new key for each certificate but those that somebody brings: born on its host, or here where it is a folder."""
    for profile in plan.certificates:
        if profile.request_sha256 is not None:
            continue
        host = inventory.hosts[profile.id.instance.host]
        origin = KeyOrigin.CONTROLLER if isinstance(host, DirectoryHost) else host.keys
        yield KeyRequest(credential=profile.id, key=profile.key, origin=origin)


def _next_due(course: _Course, inventory: Inventory) -> Due | None:
    ends: list[tuple[datetime, InstanceId | AuthorityId]] = [
        (leaf.not_after - inventory.services[instance.service].certificate.renew_before, instance)
        for instance, leaf in course.credentials.items()
    ]
    ends += [
        (authority.not_after - inventory.authority_policy(owner).renew_before, authority.id)
        for owner, authority in course.authorities.items()
    ]
    if not ends:
        return None
    first = min([end for end, _ in ends])
    return Due(subject=min([str(subject) for end, subject in ends if end == first]), at=first)


def _fingerprint(plan: Plan) -> str:
    """`mp1:` and 48 bits of what the inventory causes, in whatever order it is written.

    Sequences, generations and leftover names of a rename stay out, for renewals change them.
    """
    causes: dict[str, list[list[Any]]] = {
        "access": _access_causes(plan.access),
        "authorities": [_authority_cause(one) for one in plan.authority_changes if not one.due],
        "certificates": [_certificate_cause(one) for one in plan.certificate_changes if not one.due],
        "services": [cause for one in plan.service_changes if (cause := _service_cause(one))],
    }
    if plan.is_refactoring:
        causes["hosts"] = [[one.old, one.new] for one in plan.moves] + [[one.host] for one in plan.abandonments]
    if plan.renames:
        causes["renames"] = [[one.old, one.new] for one in plan.renames]
    if beyond := _outside_causes(plan.access):
        causes["outside"] = beyond
    ordered = {kind: sorted(found) for kind, found in causes.items()}  # each begins with what it is about, once
    digest = canonical_digest([plan.estate, plan.lineage, ordered])
    return f"mp1:{digest[:4]}-{digest[4:8]}-{digest[8:12]}"


def _access_causes(changes: Iterable[AccessChange]) -> list[list[Any]]:
    """A row for each listener, with its callers."""
    doors: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for op, (caller, listener), port, _, _, beyond in changes:
        if beyond is None:
            doors[listener, port, op].append(caller)
    return [[*door, sorted(callers)] for door, callers in doors.items()]


def _outside_causes(changes: Iterable[AccessChange]) -> list[list[Any]]:
    """A row for each caller from outside, with what lets it in."""
    return [[one.edge.listener, one.port, one.op, one.edge.caller, *one.outside] for one in changes if one.outside]


def _authority_cause(change: AuthorityChange) -> list[Any]:
    profile = change.profile
    after = profile and [
        profile.key.value,
        profile.lifetime.total_seconds(),
        sorted(profile.permitted_names),
        profile.addresses,
    ]
    return [change.op, change.id.service, after, list(change.reasons)]


def _certificate_cause(change: CertificateChange) -> list[Any]:
    profile = change.profile
    after = profile and [
        *profile.presented_names,
        *profile.addresses,
        *sorted(profile.usages),
        profile.key.value,
        profile.lifetime.total_seconds(),
        *([] if profile.request_sha256 is None else [profile.request_sha256]),
    ]
    return [change.op, *change.instance, after, list(change.reasons)]


def _service_cause(change: ServiceChange) -> list[Any]:
    """Empty for an instance that a renewal rids of a leftover name, and nothing else changes."""
    details = [
        _NUMBER.sub("", one) if "#" in one or " CA g" in one else one
        for one in change.details
        if not one.startswith(SERVED_NAMES)
    ]
    return [change.op, *change.instance, *details] if details or change.op is not Op.CHANGE else []
