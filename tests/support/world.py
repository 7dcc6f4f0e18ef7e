"""A simulated estate: it holds what instances serve and dial, and says which calls work. No TLS, no files.

The rules of a working call are written down here a second time, independently of the planner.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mtlsctl.model.credential import SHARED, CertificationAuthority, Credential, KeyUsage
from mtlsctl.model.plan import Op, Step, Wave
from mtlsctl.model.release import Receipt
from mtlsctl.model.state import Live, State
from mtlsctl.model.topology import MAIN, Authorize, ClientCertificate, ListenerId
from mtlsctl.model.trust import Member, OutsideAnchor, vouched_for
from mtlsctl.planner.refactoring import refactored
from tests.support.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mtlsctl.model.credential import AuthorityProfile, CertificateProfile
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.release import Callee, Endpoint, Recipe, ServedListener
    from mtlsctl.model.topology import InstanceId, Inventory
    from mtlsctl.model.trust import TrustAnchor

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BACKDATED = timedelta(minutes=5)

ANYBODY = "*"

Call = tuple["InstanceId", "ListenerId"]
Door = tuple[str, "InstanceId", str]


def issuer_of(leaf: str) -> str:
    """The SHA-256 of the CA that issued a leaf from outside: the last digit of each says so here."""
    return f"{int(leaf[-1], 16):064x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an inventory says of doors: (caller, service, listener) that are declared; (service, listener) that are open
    to every member of the shared CA; and those that ask for no certificate, or take none for an answer."""

    callers: frozenset[tuple[str, str, str]]
    to_members: frozenset[tuple[str, str]]
    asking_not_all: frozenset[tuple[str, str]]


def new_state(estate: str = "calendar") -> State:
    return State(lineage="b7f0", serial=1, estate=estate)


def made_authority(profile: AuthorityProfile, now: datetime) -> CertificationAuthority:
    return CertificationAuthority(
        profile=profile,
        serial=f"{hash(profile.id) & 0xFFFFFF:x}",
        not_before=now - BACKDATED,
        not_after=now + profile.lifetime,
        certificate_sha256=f"ca {profile.id}",
        spki_sha256=f"key of ca {profile.id}",
    )


def issued(profile: CertificateProfile, now: datetime, authority_ends: datetime) -> Credential:
    return Credential(
        profile=profile,
        serial=f"{hash(profile.id) & 0xFFFFFF:x}",
        not_before=now - BACKDATED,
        not_after=min(now + profile.lifetime, authority_ends),
        certificate_sha256=f"leaf {profile.id}",
        spki_sha256=f"key of {profile.request_sha256 or profile.id}",
    )


@dataclass
class World:
    """What is live; steps change it one at a time."""

    state: State = field(default_factory=new_state)
    _bearers: tuple[object, dict[Member, str]] = field(default_factory=lambda: (None, {}))

    def refactor(self, inventory: Inventory) -> None:
        """Hosts and services get their new names, and hosts that are gone take what they held: before anything else."""
        self.state = refactored(inventory, self.state, RUNTIMES).state

    def issue(self, plan: Plan, now: datetime) -> None:
        """All that is issued exists before any step runs, as in an apply."""
        authorities = dict(self.state.authorities)
        for profile in plan.authorities:
            authorities[profile.id] = made_authority(profile, now)
        for change in plan.authority_changes:
            if change.op is Op.REMOVE:
                authorities[change.id] = replace(authorities[change.id], key_destroyed=True)
        credentials, ends = dict(self.state.credentials), dict(self.state.leaf_ends)
        for leaf in plan.certificates:
            assert leaf.id not in credentials, f"{leaf.id} is issued twice"
            if leaf.authority.is_leaf:
                assert leaf.authority.service == leaf.id.instance.service
                credential = issued(leaf, now, now + leaf.lifetime)
            else:
                assert not authorities[leaf.authority].key_destroyed
                self._assert_within_constraints(leaf, authorities[leaf.authority].profile)
                credential = issued(leaf, now, authorities[leaf.authority].not_after)
            credentials[leaf.id] = credential
            ends[leaf.authority] = max(ends.get(leaf.authority, credential.not_after), credential.not_after)
        self.state = replace(
            self.state,
            authorities=authorities,
            credentials=credentials,
            leaf_ends=ends,
            sequences={**self.state.sequences, **{leaf.id.instance: leaf.id.sequence for leaf in plan.certificates}},
            generations={**self.state.generations, **{one.id.service: one.id.generation for one in plan.authorities}},
            keys_missing=self.state.keys_missing - {leaf.id.instance for leaf in plan.certificates},
        )

    @staticmethod
    def _assert_within_constraints(leaf: CertificateProfile, authority: AuthorityProfile) -> None:
        for name in leaf.presented_names if authority.id.service else ():
            assert any(name == one or name.endswith("." + one) for one in authority.permitted_names), (leaf, authority)
        assert authority.addresses or not leaf.addresses

    def _assert_made_for_its_use(self, recipe: Recipe) -> None:
        """A pre-flight refuses a leaf that is not for what its release does."""
        usages = self.state.credentials[recipe.credential].profile.usages
        assert KeyUsage.SERVER_AUTH in usages or not recipe.listeners, recipe
        assert KeyUsage.CLIENT_AUTH in usages or not any(callee.asks for callee in recipe.callees), recipe

    def _assert_key_is_where_it_belongs(self, recipe: Recipe) -> None:
        """A release does without a key only where its owner keeps it and no file of it names one."""
        is_brought = self.state.credentials[recipe.credential].profile.request_sha256 is not None
        assert recipe.holds_key is not (is_brought and not RUNTIMES[recipe.runtime].needs_key), recipe

    def publish(self, step: Step) -> None:
        live = dict(self.state.live)
        if step.recipe is None:
            live.pop(step.id.instance, None)
        else:
            self._assert_made_for_its_use(step.recipe)
            self._assert_key_is_where_it_belongs(step.recipe)
            receipt = Receipt(release=step.recipe.digest[:16], release_digest=step.recipe.digest, files=())
            live[step.id.instance] = Live(recipe=step.recipe, receipt=receipt)
        self.state = replace(self.state, live=live)

    def end(self) -> None:
        self.state = replace(self.state, serial=self.state.serial + 1)

    def recipe(self, instance: InstanceId) -> Recipe | None:
        live = self.state.live.get(instance)
        return live.recipe if live else None

    def shows_others(self) -> Iterator[bool]:
        """Of each live door whether it shows a certificate that somebody else issued."""
        for live in self.state.live.values():
            yield from (served.shows is not None for served in live.recipe.listeners)

    def calls(self, inventory: Inventory) -> Iterator[Call]:
        """Every declared call of every declared instance."""
        for edge, _ in inventory.edges():
            for caller in inventory.services[edge.caller].instances:
                yield caller, edge.listener

    def works(self, call: Call) -> bool:
        """Whether each place that the caller dials lets it in and is believed by it."""
        instance, listener = call
        recipe = self.recipe(instance)
        callee = recipe.called(listener) if recipe else None
        if recipe is None or callee is None or not callee.endpoints:
            return False
        return all(self._gets_through(recipe, callee, endpoint) for endpoint in callee.endpoints)

    def _gets_through(self, caller: Recipe, callee: Callee, endpoint: Endpoint) -> bool:
        server = self.recipe(endpoint.instance)
        served = server.served(callee.listener.listener) if server else None
        if server is None or served is None or endpoint.port not in {socket.port for socket in served.sockets}:
            return False
        return self._is_believed(server, served, callee) and self._lets_in(served, caller, callee)

    def _is_believed(self, server: Recipe, served: ServedListener, callee: Callee) -> bool:
        """Each machine believes every CA outside and none of ours. What outsiders issue presents every name here."""
        assert not (callee.believes_system and callee.policy.anchors), "no program believes files and its machine"
        if served.shows is not None:
            beyond = {one.sha256 for one in callee.policy.anchors if isinstance(one, OutsideAnchor)}
            return callee.believes_system or issuer_of(served.shows.leaf) in beyond
        shown = self.state.credentials[server.credential].profile
        return (
            shown.anchor in callee.policy.anchors
            and callee.server_name in shown.presented_names
            and KeyUsage.SERVER_AUTH in shown.usages
        )

    def _lets_in(self, served: ServedListener, caller: Recipe, callee: Callee) -> bool:
        """A certificate that is asked for and shown is judged, also where none is needed."""
        shown = self.state.credentials[caller.credential].profile
        policy, member = served.policy, Member(shown.anchor, shown.common_name)
        is_known = shown.anchor in policy.anchors and (policy.members is None or member in policy.members)
        welcome = is_known and KeyUsage.CLIENT_AUTH in shown.usages
        match served.client_certificate:
            case ClientCertificate.REQUIRED:
                return callee.asks and welcome
            case ClientCertificate.OPTIONAL:
                return welcome or not callee.asks
            case ClientCertificate.NONE:
                return True

    @staticmethod
    def expected_doors(inventory: Inventory) -> Expected:
        """What `open_doors` compares with."""
        declared = {(edge.caller, edge.listener.service, edge.listener.listener) for edge, _ in inventory.edges()}
        outside = {(who, instance.service, door) for who, instance, door in World.outside_calls(inventory)}
        all_doors = [(service.name, door) for service in inventory.services.values() for door in service.listeners]
        return Expected(
            callers=frozenset(declared | outside),
            to_members=frozenset((name, one.name) for name, one in all_doors if one.authorize is Authorize.ANY_MEMBER),
            asking_not_all=frozenset(
                (name, one.name) for name, one in all_doors if one.client_certificate is not ClientCertificate.REQUIRED
            ),
        )

    def open_doors(
        self, expected: Expected, before: Collection[Door] = (), changed: InstanceId | None = None
    ) -> set[Door]:
        """(service, server instance, listener) that lets a service in though the inventory does not declare it.

        A door is open to a service when it trusts a CA of it, whatever that service holds at the moment: the trust
        store is the access list. One that asks nobody is open to ANYBODY, one that trusts the shared CA and compares no
        names to SHARED; one that is declared so is left out.

        With `changed`, only that instance is looked at, and of all others `before` is still so.
        """
        doors = {door for door in before if door[1] != changed}
        for instance in self.state.live if changed is None else [changed]:
            recipe = self.recipe(instance)
            for served in recipe.listeners if recipe else ():
                at = (instance.service, served.name)
                if at in expected.asking_not_all:
                    continue
                if served.client_certificate is not ClientCertificate.REQUIRED:
                    doors.add((ANYBODY, instance, served.name))
                    continue
                doors.update(
                    (welcome, instance, served.name)
                    for welcome in self._welcome(served)
                    if (welcome, *at) not in expected.callers and not (welcome == SHARED and at in expected.to_members)
                )
        return doors

    def _welcome(self, served: ServedListener) -> set[str]:
        policy = served.policy
        if policy.members is not None:
            assert {one.anchor for one in policy.members} <= policy.anchors
            assert not policy.is_mixed
            return {_who(one.anchor, self._bearer(one)) for one in policy.members}
        return {_who(anchor, vouched_for(anchor)) for anchor in policy.anchors}

    def _bearer(self, member: Member) -> str:
        """The service whose leaf says this name: one that was renamed has an old one until its next leaf, and after."""
        if isinstance(member.anchor, OutsideAnchor):
            return member.name
        if vouched_for(member.anchor) != SHARED:
            return vouched_for(member.anchor)
        if self._bearers[0] is not self.state.credentials:
            bearers: dict[Member, str] = {}
            for one in self.state.credentials.values():
                profile = one.profile
                bearer = bearers.setdefault(Member(profile.anchor, profile.common_name), profile.id.instance.service)
                assert bearer == profile.id.instance.service or profile.authority.service != SHARED, profile
            self._bearers = (self.state.credentials, bearers)
        return self._bearers[1].get(member, member.name)

    @staticmethod
    def outside_calls(inventory: Inventory) -> Iterator[Door]:
        """Everybody from outside who is declared to be let in: by whom and as whom, at which instance and door."""
        for service in inventory.services.values():
            for listener in service.listeners:
                for outsider in listener.outsiders:
                    for sha256 in outsider.certificates:
                        for identity in outsider.identities or ("",):
                            who = _who(OutsideAnchor(outsider.name, sha256), identity)
                            yield from ((who, instance, listener.name) for instance in service.instances)

    def lets_in(self, call: Door) -> bool:
        """Whether somebody from outside is let in there."""
        who, instance, listener = call
        recipe = self.recipe(instance)
        served = recipe.served(listener) if recipe else None
        return served is not None and who in self._welcome(served)

    def calls_outside(self, inventory: Inventory) -> Iterator[Call]:
        """Every declared call to a server outside that its caller knows of, whichever way."""
        for server in inventory.external_servers:
            for caller in server.callers:
                for instance in inventory.services[caller.service].instances:
                    recipe = self.recipe(instance)
                    callee = recipe.called(ListenerId(server.name, MAIN)) if recipe else None
                    if callee is not None and (callee.policy.anchors or callee.believes_system):
                        yield instance, callee.listener


def _who(anchor: TrustAnchor, name: str) -> str:
    """A service by its name; somebody from outside by everything that lets them in."""
    return f"{anchor.name} {anchor.sha256} {name}" if isinstance(anchor, OutsideAnchor) else name


def opened(before: set[Door], after: set[Door]) -> set[Door]:
    """Doors that let in somebody whom they did not let in before."""
    return {door for door in after - before if (ANYBODY, door[1], door[2]) not in before}


def waves_of(plan: Plan) -> dict[InstanceId, set[Wave]]:
    releases: dict[InstanceId, set[Wave]] = {}
    for step in plan.steps:
        if step.recipe is not None:
            releases.setdefault(step.id.instance, set()).add(step.id.wave)
    return releases
