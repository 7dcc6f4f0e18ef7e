"""From what is live to what is to be, without breaking a declared call or opening an undeclared one.

Loosening belongs to EXTEND, new identities to ACTIVATE, tightening to WITHDRAW. Ports are opened in EXTEND, dialled
from ACTIVATE, closed in WITHDRAW; the name that a caller checks and the instances that it dials change in WITHDRAW,
when every instance that it may reach shows the new name or is up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from mtlsctl.model.plan import Step, StepId, Wave
from mtlsctl.model.topology import ClientCertificate, ListenerId
from mtlsctl.model.trust import EVERYBODY, NOBODY, Member, PeerPolicy, policy_of, vouched_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtlsctl.model.release import Callee, Endpoint, Recipe, ServedListener
    from mtlsctl.model.topology import InstanceId
    from mtlsctl.planner.trust import Presented

LOOSENESS = {mode: rank for rank, mode in enumerate(ClientCertificate)}


def extend_recipe(live: Recipe, desired: Recipe, presented: Presented) -> Recipe:
    """The old identity, accepting old and new peers, on old and new ports, still dialling the old ones.

    A new call, and a first door, begin with ACTIVATE: the old leaf need not have the key usage for it.
    """
    known = {callee.listener for callee in live.callees}
    callees = _widened_callees(live, desired, presented, dial_new_ports=False)
    return replace(
        desired,
        credential=live.credential,
        server_names=live.server_names,
        holds_key=live.holds_key,
        listeners=_as_shown(live, _widened_listeners(live, desired, presented)) if live.listeners else (),
        callees=tuple(callee for callee in callees if callee.listener in known),
    )


def activate_recipe(live: Recipe | None, desired: Recipe, presented: Presented) -> Recipe:
    """The new identity, accepting old and new peers, dialling the new ports of the old instances.

    A new leaf need not have the key usage for what ends: a call, or the last door, ends with the old leaf.
    """
    listeners = _widened_listeners(live, desired, presented)
    callees = _widened_callees(live, desired, presented, dial_new_ports=True)
    if live is not None and live.credential != desired.credential:
        declared = {callee.listener for callee in desired.callees}
        callees = tuple(callee for callee in callees if callee.listener in declared)
        listeners = listeners if desired.listeners else ()
    if listeners == desired.listeners and callees == desired.callees:
        return desired
    return replace(desired, listeners=listeners, callees=callees)


def _as_shown(live: Recipe, listeners: tuple[ServedListener, ...]) -> tuple[ServedListener, ...]:
    """Each door with the certificate that it shows now; a new one with what it is to show."""
    if all(one.shows is None for one in (*live.listeners, *listeners)):
        return listeners
    old = {served.name: served.shows for served in live.listeners}
    return tuple(replace(served, shows=old.get(served.name, served.shows)) for served in listeners)


def _widened_listeners(live: Recipe | None, desired: Recipe, presented: Presented) -> tuple[ServedListener, ...]:
    old = {served.name: served for served in live.listeners} if live is not None else {}
    widened = [_widened_listener(old.pop(new.name, None), new, presented) for new in desired.listeners]
    return tuple(sorted([*widened, *old.values()], key=lambda served: served.name))


def _widened_listener(old: ServedListener | None, new: ServedListener, presented: Presented) -> ServedListener:
    """The union of both; `presented` lets in what declared callers still show, also at a new instance.

    What the door itself shows is the new one's: an old identity goes with `_as_shown`.
    """
    asks = new.client_certificate is not ClientCertificate.NONE
    shown = [(caller, one) for caller in new.callers for one in presented.get(caller, ())] if asks else []
    policy = _widened(new.policy, policy_of([Member(one.anchor, _compared(caller, one)) for caller, one in shown]))
    if old is None:
        policy = _with_old_subjects(policy, shown)
        return new if policy == new.policy else replace(new, policy=policy)
    loosest = max(old.client_certificate, new.client_certificate, key=LOOSENESS.__getitem__)
    asked = _widened(policy, old.policy) if loosest is not ClientCertificate.NONE else NOBODY
    asked = _with_old_subjects(asked, shown)
    return replace(
        new,
        sockets=tuple(sorted({*old.sockets, *new.sockets}, key=str)),
        client_certificate=loosest,
        protocols=tuple(sorted({*old.protocols, *new.protocols})),
        callers=tuple(sorted({*old.callers, *new.callers})),
        policy=asked,
    )


def _compared(caller: str, shown: Member) -> str:
    """What is compared under an anchor: the subject under that of many, else nothing, whatever a caller's leaf says."""
    return shown.name if vouched_for(shown.anchor) == EVERYBODY else caller


def _with_old_subjects(policy: PeerPolicy, shown: Iterable[tuple[str, Member]]) -> PeerPolicy:
    """Where names are compared, also the subjects that callers show which were renamed since."""
    members = policy.members
    if members is None:
        return policy
    open_to_all = {one.anchor for one in members if one.name == EVERYBODY}
    more = {one for _, one in shown if one.anchor not in open_to_all} - members
    return policy_of(members | more) if more else policy


def _widened(policy: PeerPolicy, other: PeerPolicy) -> PeerPolicy:
    """Whoever one of the two lets in. Names are kept as long as an anchor needs them."""
    if other.anchors <= policy.anchors and policy.members is None:
        return policy
    return policy_of(policy.implied_members | other.implied_members)


def _widened_callees(
    live: Recipe | None, desired: Recipe, presented: Presented, *, dial_new_ports: bool
) -> tuple[Callee, ...]:
    old = {callee.listener: callee for callee in live.callees} if live is not None else {}
    widened = [
        _widened_callee(old.pop(new.listener, None), new, presented, dial_new_ports=dial_new_ports)
        for new in desired.callees
    ]
    return tuple(sorted([*widened, *old.values()], key=lambda callee: callee.listener))


def _widened_callee(old: Callee | None, new: Callee, presented: Presented, *, dial_new_ports: bool) -> Callee:
    if new.is_outside:
        # Nothing there waits for us, and no two ways to believe it go together: it changes in one switch.
        return new if old is None or dial_new_ports else old
    if new.believes_system or (old is not None and old.believes_system):
        return _switched_callee(old, new, dial_new_ports=dial_new_ports)
    shown = presented.get(ListenerId(new.service, new.listener.listener))
    shown = presented.get(new.service, frozenset()) if shown is None else shown
    anchors = new.policy.anchors.union(one.anchor for one in shown)
    if old is None:
        return new if anchors == new.policy.anchors else replace(new, policy=PeerPolicy(anchors=anchors))
    endpoints = _redialled(old.endpoints, new.endpoints) if dial_new_ports else old.endpoints
    return replace(
        new,
        endpoints=endpoints,
        server_name=old.server_name,
        # The old leaf need not be for clients, and the new one need not be any more: each goes with its own calls.
        asks=new.asks if dial_new_ports else old.asks,
        policy=PeerPolicy(anchors=anchors | old.policy.anchors),
    )


def _switched_callee(old: Callee | None, new: Callee, *, dial_new_ports: bool) -> Callee:
    """No program believes its machine and a file besides, so that changes in one switch.

    `outside.shown_findings` refuses it where what the door shows changes in the same apply.
    """
    if old is None:
        return new
    now = new if dial_new_ports else old
    return replace(
        now,
        endpoints=_redialled(old.endpoints, new.endpoints) if dial_new_ports else old.endpoints,
        server_name=old.server_name,
    )


def _redialled(old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """The instances that are dialled now, each where it is to be dialled."""
    places = {endpoint.instance: endpoint for endpoint in new}
    return tuple(places.get(endpoint.instance, endpoint) for endpoint in old)


def leaving_recipe(live: Recipe, doors: Iterable[ServedListener], presented: Presented, digest: str) -> Recipe:
    """An instance that goes, as it has to be while callers still dial it: its doors let in what they will show.

    `doors` are the service's as an instance that stays is to have them; `digest` is of the templates that render it.
    """
    declared = {door.name: door for door in doors}
    widened = tuple(
        replace(_widened_listener(old, declared[old.name], presented), sockets=old.sockets, shows=old.shows)
        if old.name in declared
        else old
        for old in live.listeners
    )
    return replace(live, listeners=widened, runtime_digest=digest)


def trust_view(recipe: Recipe) -> tuple[object, ...]:
    """What peers can notice of a release; settings, templates and paths are not among it."""
    return (recipe.credential, recipe.server_names, recipe.listeners, recipe.callees)


def releases_of(live: Recipe | None, desired: Recipe, presented: Presented) -> dict[Wave, Recipe]:
    """The releases that take one instance from live to desired, at most three; equal neighbours become one."""
    if live == desired:
        return {}
    if live is None and not presented:
        return {Wave.ACTIVATE: desired}
    releases: dict[Wave, Recipe] = {}
    current = live
    if live is not None:
        extended = extend_recipe(live, desired, presented)
        if trust_view(extended) != trust_view(live):
            releases[Wave.EXTEND] = current = extended
    activated = activate_recipe(live, desired, presented)
    if current is None or trust_view(activated) != trust_view(current):
        releases[Wave.ACTIVATE] = current = activated
    if desired != current:
        tightens = trust_view(desired) != trust_view(current)
        releases[Wave.WITHDRAW if tightens else Wave.ACTIVATE] = desired
    return releases


def make_steps(
    live: Mapping[InstanceId, Recipe],
    desired: Mapping[InstanceId, Recipe],
    leaving: Mapping[InstanceId, Recipe],
    presented: Presented,
    new_identities: frozenset[InstanceId],
) -> tuple[Step, ...]:
    """Every release and removal with what it waits for, in an order that satisfies the waits.

    `leaving` are instances that go while their service stays, as they have to be until then. `new_identities` are
    those whose activation peers must be ready for: another CA, other names or usages.
    """
    releases: dict[InstanceId, dict[Wave, Recipe]] = {
        instance: {Wave.EXTEND: recipe}
        for instance, recipe in leaving.items()
        if trust_view(recipe) != trust_view(live[instance])
    }
    for instance, recipe in desired.items():
        waves = releases_of(live.get(instance), recipe, presented)
        if waves:
            releases[instance] = waves
    if not releases and live.keys() <= desired.keys():
        return ()
    barriers = _Barriers(live, desired, releases, new_identities)
    steps = [
        Step(
            id=StepId(instance, wave),
            process=recipe.process,
            recipe=recipe,
            waits_for=barriers.before(instance, wave),
        )
        for instance, waves in releases.items()
        for wave, recipe in waves.items()
    ]
    steps += [
        Step(
            id=StepId(instance, Wave.REMOVE),
            process=recipe.process,
            recipe=None,
            waits_for=barriers.before_removal(instance),
        )
        for instance, recipe in live.items()
        if instance not in desired
    ]
    return tuple(sorted(steps, key=lambda step: (step.id.wave, step.process, step.id.instance)))


class _Barriers:
    """Who has to be done before whom."""

    def __init__(
        self,
        live: Mapping[InstanceId, Recipe],
        desired: Mapping[InstanceId, Recipe],
        releases: Mapping[InstanceId, Mapping[Wave, Recipe]],
        new_identities: frozenset[InstanceId],
    ) -> None:
        self._live = live
        self._desired = desired
        self._releases = releases
        self._new_identities = new_identities
        self._somebody_extends = any(Wave.EXTEND in waves for waves in releases.values())
        self._instances: dict[str, list[InstanceId]] = defaultdict(list)
        for instance in {**desired, **releases}:
            self._instances[instance.service].append(instance)
        self._diallers: dict[InstanceId, set[InstanceId]] = defaultdict(set)
        for instance, recipe in live.items():
            for callee in recipe.callees:
                for endpoint in callee.endpoints:
                    self._diallers[endpoint.instance].add(instance)

    def before(self, instance: InstanceId, wave: Wave) -> frozenset[StepId]:
        match wave:
            case Wave.ACTIVATE if self._somebody_extends:
                peers = self._extending_peers(instance)
                return frozenset({*self._own(instance, Wave.EXTEND), *(StepId(peer, Wave.EXTEND) for peer in peers)})
            case Wave.WITHDRAW:
                return frozenset(
                    {
                        *self._own(instance, Wave.EXTEND, Wave.ACTIVATE),
                        *(StepId(peer, Wave.ACTIVATE) for peer in self._activating_peers(instance)),
                        *self._newly_opened(instance),
                    }
                )
            case _:
                return frozenset()

    def before_removal(self, instance: InstanceId) -> frozenset[StepId]:
        """An instance goes when whoever still dials it has stopped doing so, and what takes its place is up."""
        stopped = (
            StepId(dialler, max(self._releases[dialler]))
            for dialler in self._diallers.get(instance, ())
            if max(self._releases.get(dialler, {Wave.EXTEND: None})) > Wave.EXTEND
        )
        replaced = (
            StepId(sibling, Wave.ACTIVATE)
            for sibling in self._instances.get(instance.service, ())
            if sibling not in self._live and Wave.ACTIVATE in self._releases.get(sibling, {})
        )
        return frozenset({*stopped, *replaced, *self._own(instance, Wave.EXTEND)})

    def _own(self, instance: InstanceId, *waves: Wave) -> Iterator[StepId]:
        return (StepId(instance, wave) for wave in waves if wave in self._releases.get(instance, {}))

    def _extending_peers(self, instance: InstanceId) -> Iterable[InstanceId]:
        """Those that must accept what the instance is about to show, or serve what it is about to dial."""
        if not self._is_noticed(instance):
            return ()
        return (peer for peer in self._peers(instance) if Wave.EXTEND in self._releases.get(peer, {}))

    def _activating_peers(self, instance: InstanceId) -> Iterable[InstanceId]:
        """Those whose old face the instance is about to refuse, or whose new one it is about to rely on."""
        return (
            peer
            for peer in self._peers(instance)
            if Wave.ACTIVATE in self._releases.get(peer, {}) and self._is_noticed(peer)
        )

    def _newly_opened(self, instance: InstanceId) -> Iterator[StepId]:
        """Where instances that are dialled from WITHDRAW on only open the port for it."""
        before = self._live.get(instance)
        dialled = {endpoint for callee in before.callees for endpoint in callee.endpoints} if before else set()
        for callee in self._desired[instance].callees:
            for endpoint in callee.endpoints:
                opens = StepId(endpoint.instance, self._opening(endpoint.instance))
                if endpoint not in dialled and opens.wave in self._releases.get(endpoint.instance, {}):
                    yield opens

    def _opening(self, instance: InstanceId) -> Wave:
        live = self._live.get(instance)
        return Wave.EXTEND if live is not None and live.listeners else Wave.ACTIVATE

    def _is_noticed(self, instance: InstanceId) -> bool:
        """Whether peers have to care that the instance activates: a new face, a first one, or other places dialled."""
        before, after = self._live.get(instance), self._releases[instance].get(Wave.ACTIVATE)
        if before is None or after is None or instance in self._new_identities:
            return True
        extended = self._releases[instance].get(Wave.EXTEND, before)
        return extended.callees != after.callees

    def _peers(self, instance: InstanceId) -> Iterator[InstanceId]:
        """Every instance with a declared call from or to this one."""
        recipe = self._desired[instance]
        services = {caller for served in recipe.listeners for caller in served.callers}
        services.update(callee.listener.service for callee in recipe.callees)
        for service in sorted(services):
            yield from self._instances.get(service, ())
