"""Hosts and services that bear another name, and hosts that are gone: nothing is issued for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import AuthorityId
from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.plan import Abandonment, HostMove, Reason, ServiceMove, StepId, Wave
from mtlsctl.model.topology import (
    AbandonedHost,
    AuthorityPolicy,
    DirectoryHost,
    MovedHost,
    MovedService,
    SshHost,
    TrustModel,
)
from mtlsctl.model.trust import Member
from mtlsctl.planner.refactoring import refactored
from mtlsctl.planner.safety import HOST_GIVEN_UP, MOVE_COLLIDES, MOVE_ELSEWHERE, NOTHING_LEFT, OWN_PROGRAM
from tests.support.estates import (
    applied,
    apply,
    at,
    changed,
    door,
    estate,
    host,
    line,
    plan_of,
    recipe,
    service,
    steps_of,
    waits,
)
from tests.support.runtimes import RUNTIMES
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from mtlsctl.model.credential import Credential
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Inventory

MODELS = list(TrustModel)


def calendar(model: TrustModel = TrustModel.SERVICE_CA) -> Inventory:
    """Two instances that are called, one of which is on a host with a caller."""
    return estate(
        service("schedule", door("mail", "social"), hosts=["h1", "h2"], trust=model),
        service("mail", runtime="node", hosts=["h2"], trust=model),
        service("social", door("mail", port=9443), hosts=["h3"], trust=model),
    )


def renamed(inventory: Inventory, old: str, new: str, **place: Any) -> Inventory:
    """The edit as somebody makes it: the host has its new name everywhere, and `moved` says so."""
    known = inventory.hosts[old]
    assert isinstance(known, DirectoryHost)
    hosts = {name: one for name, one in inventory.hosts.items() if name != old}
    services = {
        one.name: replace(one, hosts=tuple(new if name == old else name for name in one.hosts))
        for one in inventory.services.values()
    }
    return replace(
        inventory,
        hosts={**hosts, new: replace(known, name=new, **place)},
        services=services,
        moved=(*inventory.moved, MovedHost(old=old, new=new, span=line(40))),
    )


def without_host(inventory: Inventory, gone: str, instead: str) -> Inventory:
    services = {
        one.name: replace(one, hosts=tuple(dict.fromkeys(instead if name == gone else name for name in one.hosts)))
        for one in inventory.services.values()
    }
    hosts = {name: one for name, one in inventory.hosts.items() if name != gone}
    return replace(inventory, hosts=hosts, services=services, abandoned=(AbandonedHost(name=gone, span=line(41)),))


def codes(plan: Plan) -> tuple[list[str], list[str]]:
    return [one.code for one in plan.refusals], [one.code for one in plan.warnings]


# --- moved ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("old", ["h1", "h2", "h3"])
def test_a_host_that_is_renamed_where_it_is_costs_nothing(old: str, model: TrustModel) -> None:
    """Also where its name sorts elsewhere, and under `pinned`, where peers trust leaves by their hosts."""
    world = applied(calendar(model))
    for new in ("a1", "z9"):
        plan = plan_of(renamed(calendar(model), old, new), world)
        assert (HostMove(old, new, line(40)),) == plan.moves
        assert plan.has_changes
        assert ((), (), (), (), ()) == (
            plan.access,
            plan.certificate_changes,
            plan.authority_changes,
            plan.service_changes,
            plan.steps,
        )
        assert 4 == plan.unchanged_instances


def test_without_the_entry_the_same_edit_makes_everything_on_the_host_anew() -> None:
    world = applied(calendar())
    plan = plan_of(replace(renamed(calendar(), "h2", "z9"), moved=()), world)
    assert () == plan.moves
    assert {"schedule@z9", "mail@z9"} <= {str(one.instance) for one in plan.certificate_changes}


@pytest.mark.parametrize("model", MODELS)
def test_a_move_is_done_once_and_said_again_is_a_warning(model: TrustModel) -> None:
    world, inventory = applied(calendar(model)), renamed(calendar(model), "h2", "z9")
    apply(inventory, world)
    again = plan_of(inventory, world)
    assert (False, ([], [NOTHING_LEFT])) == (again.has_changes, codes(again))
    assert line(40) == again.warnings[0].span


def test_a_move_goes_with_whatever_else_changes_in_the_new_names() -> None:
    world = applied(calendar())
    moved = renamed(calendar(), "h2", "z9")
    plan = plan_of(changed(moved, "mail", authority=AuthorityPolicy(generation=2)), world)
    assert ["mail@z9"] == [str(one.instance) for one in plan.certificate_changes]
    assert "mail@z9/activate" in steps_of(plan)
    assert not any("@h2" in name for name in steps_of(plan))


def test_an_address_that_changes_with_the_name_is_dialled_anew_and_nothing_is_issued() -> None:
    world = applied(calendar())
    plan = plan_of(renamed(calendar(), "h1", "z9", address="127.0.0.77"), world)
    assert () == plan.certificate_changes
    assert {"mail@h2", "social@h3"} == {str(one.id.instance) for one in plan.steps}


def test_moves_may_follow_one_another_in_one_file() -> None:
    once = renamed(calendar(), "h2", "h7")
    twice = replace(renamed(once, "h7", "h8"), moved=(MovedHost(old="h2", new="h8"), MovedHost(old="h7", new="h8")))
    for world in (applied(calendar()), applied(replace(once, moved=()))):
        plan = plan_of(twice, world)
        assert (["h8"], ()) == ([one.new for one in plan.moves], plan.steps)
        assert ([], [NOTHING_LEFT]) == codes(plan)


def test_two_hosts_that_are_both_known_never_become_one() -> None:
    both = replace(calendar(), hosts={**calendar().hosts, "z9": host("z9", address="127.0.0.9")})
    with_both = changed(both, "mail", hosts=("h2", "z9"))
    plan = plan_of(renamed(calendar(), "h2", "z9"), applied(with_both))
    assert (MOVE_COLLIDES, ()) == (codes(plan)[0][0], plan.moves)


def test_a_host_that_is_somewhere_else_is_no_renamed_one() -> None:
    world = applied(calendar())
    world.state = replace(world.state, hosts=dict(calendar().hosts))
    elsewhere = renamed(calendar(), "h2", "z9", directory="/elsewhere")
    assert (MOVE_ELSEWHERE, ()) == (codes(plan_of(elsewhere, world))[0][0], plan_of(elsewhere, world).moves)
    another_kind = replace(elsewhere, hosts={**elsewhere.hosts, "z9": SshHost(name="z9", address="192.0.2.9")})
    assert MOVE_ELSEWHERE in codes(plan_of(another_kind, world))[0]
    seen_otherwise = renamed(calendar(), "h2", "z9", seen_as="/")
    assert [] == codes(plan_of(seen_otherwise, world))[0]


def test_the_fingerprint_knows_what_is_moved_and_not_where_the_entry_stands() -> None:
    world = applied(calendar())
    one, other = (plan_of(renamed(calendar(), "h2", new), world).fingerprint for new in ("z8", "z9"))
    again = renamed(calendar(), "h2", "z9")
    elsewhere = replace(again, moved=(MovedHost(old="h2", new="z9", span=line(99)),))
    assert one != other
    assert other == plan_of(elsewhere, world).fingerprint


def test_a_first_plan_has_nothing_to_move_and_says_so() -> None:
    plan = plan_of(renamed(calendar(), "h2", "z9"), World())
    assert ((), [NOTHING_LEFT]) == (plan.moves, codes(plan)[1])


# --- removed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_host_that_is_given_up_is_waited_for_by_nobody(model: TrustModel) -> None:
    world = applied(calendar(model))
    plan = plan_of(without_host(calendar(model), "h1", "h2"), world)
    assert (Abandonment("h1", (at("schedule", "h1"),), line(41)),) == plan.abandonments
    assert "h1" not in {step.process.host for step in plan.steps}
    assert "h1" not in {
        one.host for step in plan.steps for one in (step.id.instance, *(w.instance for w in step.waits_for))
    }
    assert {"mail@h2", "social@h3"} <= {str(step.id.instance) for step in plan.steps}


def test_without_the_entry_it_is_waited_for() -> None:
    plan = plan_of(replace(without_host(calendar(), "h1", "h2"), abandoned=()), applied(calendar()))
    assert Wave.REMOVE in {step.id.wave for step in plan.steps if step.process.host == "h1"}


def test_the_keys_on_a_host_that_is_given_up_are_a_risk_until_they_end() -> None:
    plan = plan_of(without_host(calendar(), "h1", "h2"), applied(calendar()))
    (risk,) = [one for one in plan.risks if one.code == HOST_GIVEN_UP]
    ends = (NOW + timedelta(days=90)).strftime("%Y-%m-%d")
    assert all(word in risk.summary for word in ("h1", "schedule", ends, "generation"))


def test_a_host_is_given_up_once_and_said_again_is_a_warning() -> None:
    world, inventory = applied(calendar()), without_host(calendar(), "h1", "h2")
    apply(inventory, world)
    again = plan_of(inventory, world)
    assert (False, ([], [NOTHING_LEFT])) == (again.has_changes, codes(again))


def test_a_host_that_comes_back_after_it_was_given_up_gets_new_keys() -> None:
    world = applied(calendar())
    apply(without_host(calendar(), "h1", "h2"), world)
    plan = plan_of(calendar(), world)
    assert ["schedule@h1"] == [str(one.instance) for one in plan.certificate_changes if one.profile is not None]
    (leaf,) = plan.certificates
    assert 2 == leaf.id.sequence


def test_an_estate_without_entries_is_not_looked_through() -> None:
    world = applied(calendar())
    assert world.state is refactored(calendar(), world.state, RUNTIMES).state


# --- services -------------------------------------------------------------------------------------------------------


def renamed_service(inventory: Inventory, old: str, new: str, **changes: Any) -> Inventory:
    """The edit as somebody makes it: the service has its new name everywhere, and `moved` says so."""
    services = {}
    for one in inventory.services.values():
        doors = tuple(
            replace(
                listener,
                callers=tuple(
                    replace(caller, service=new) if caller.service == old else caller for caller in listener.callers
                ),
            )
            for listener in one.listeners
        )
        again = replace(one, listeners=doors)
        services[new if one.name == old else one.name] = (
            replace(again, name=new, **changes) if one.name == old else again
        )
    return replace(
        inventory, services=services, renamed=(*inventory.renamed, MovedService(old=old, new=new, span=line(42)))
    )


def agenda(model: TrustModel = TrustModel.SERVICE_CA) -> Inventory:
    return renamed_service(calendar(model), "schedule", "agenda")


@pytest.mark.parametrize("model", [TrustModel.SERVICE_CA, TrustModel.PINNED])
def test_a_service_that_is_renamed_keeps_its_certificates_and_its_ca(model: TrustModel) -> None:
    """Its own files and those of its callers are rendered in the new name; whom it calls has nothing to do."""
    plan = plan_of(agenda(model), applied(calendar(model)))
    assert (ServiceMove("schedule", "agenda", ("h1", "h2"), line(42)),) == plan.renames
    assert ((), (), ()) == (plan.access, plan.certificate_changes, plan.authority_changes)
    assert ([], []) == codes(plan)
    expected = {f"{one}/activate" for one in ("agenda@h1", "agenda@h2", "mail@h2", "social@h3")}
    assert (expected, {frozenset()}) == (set(steps_of(plan)), {one.waits_for for one in plan.steps})


def test_a_service_that_calls_is_renamed_without_a_word_to_whom_it_calls() -> None:
    plan = plan_of(renamed_service(calendar(), "social", "people"), applied(calendar()))
    assert {"people@h3/activate", "mail@h2/activate"} == set(steps_of(plan))


def test_what_was_issued_keeps_its_subject_and_what_is_issued_next_has_the_new_one() -> None:
    world = applied(calendar())
    apply(agenda(), world)
    assert {"schedule"} == {leaf.profile.common_name for leaf in leaves_of(world, "agenda")}
    assert "schedule.calendar CA g1" == world.state.authorities[AuthorityId("agenda", 1)].profile.common_name
    plan = plan_of(changed(agenda(), "agenda", authority=AuthorityPolicy(generation=2)), world)
    assert ["agenda.calendar CA g2"] == [one.common_name for one in plan.authorities]
    assert {"agenda"} == {one.common_name for one in plan.certificates}
    assert {2} == {one.id.sequence for one in plan.certificates}


def leaves_of(world: World, name: str) -> list[Credential]:
    return [leaf for leaf in world.state.credentials.values() if leaf.id.instance.service == name]


def test_a_renewal_that_is_due_is_not_caused_by_the_rename() -> None:
    world = applied(calendar())
    apply(agenda(), world)
    later = plan_of(agenda(), world, NOW + timedelta(days=61))
    assert later.certificate_changes
    assert all(one.due for one in later.certificate_changes)


@pytest.mark.parametrize("model", MODELS)
def test_a_rename_of_a_service_is_done_once_and_said_again_is_a_warning(model: TrustModel) -> None:
    world = applied(calendar(model))
    apply(agenda(model), world)
    again = plan_of(agenda(model), world)
    assert (False, ([], [NOTHING_LEFT])) == (again.has_changes, codes(again))


def test_under_the_shared_ca_the_name_is_what_listeners_compare_so_the_leaf_is_made_anew() -> None:
    shared = calendar(TrustModel.SHARED_CA)
    plan = plan_of(renamed_service(shared, "social", "people"), applied(shared))
    (leaf,) = plan.certificate_changes
    assert (at("people", "h3"), (Reason.SERVICE_RENAMED,)) == (leaf.instance, leaf.reasons)
    assert () == plan.authority_changes
    named = {wave: {one.name for one in members_at(plan, wave)} for wave in (Wave.EXTEND, Wave.WITHDRAW)}
    assert {Wave.EXTEND: {"mail", "social", "people"}, Wave.WITHDRAW: {"mail", "people"}} == named
    assert {"schedule@h1/extend", "schedule@h2/extend"} <= waits(plan, "people@h3/activate")


def members_at(plan: Plan, wave: Wave) -> frozenset[Member]:
    served = recipe(plan, "schedule", wave).served("main")
    assert served is not None
    assert served.policy.members is not None
    return served.policy.members


def test_where_a_listener_begins_to_compare_names_it_lets_in_what_is_shown_until_then() -> None:
    """The leaf still says the old name: it is accepted while the new one is on its way, and not after."""
    world, inventory = applied(calendar()), renamed_service(calendar(), "social", "people")
    apply(inventory, world)
    plan = plan_of(changed(inventory, "mail", trust=TrustModel.SHARED_CA), world)
    own = AuthorityId("people", 1)
    assert {Member(own, "social"), Member(own, "people")} <= members_at(plan, Wave.EXTEND)
    assert Member(own, "social") not in members_at(plan, Wave.WITHDRAW)
    assert (Reason.SERVICE_RENAMED,) in [one.reasons for one in plan.certificate_changes]


def test_nobody_gets_the_name_that_a_member_of_the_shared_ca_still_shows() -> None:
    shared = calendar(TrustModel.SHARED_CA)
    world, inventory = applied(shared), renamed_service(shared, "social", "people")
    apply(inventory, world, fails={StepId(at("people", "h3"), Wave.ACTIVATE)})
    newcomer = service("social", hosts=["h3"], trust=TrustModel.SHARED_CA)
    early = replace(inventory, services={**inventory.services, "social": newcomer}, renamed=())
    assert [MOVE_COLLIDES] == codes(plan_of(early, world))[0]
    apply(inventory, world)
    assert [] == codes(plan_of(early, world))[0]


def test_callers_know_it_by_both_names_as_long_as_the_entry_stands() -> None:
    world = applied(calendar())
    apply(agenda(), world)
    assert {"agenda", "schedule", "social"} == called_by(world, "mail", "h2")
    plan = apply(replace(agenda(), renamed=()), world)
    assert {"mail@h2/withdraw", "social@h3/withdraw"} == set(steps_of(plan))
    assert {"agenda", "social"} == called_by(world, "mail", "h2")


def called_by(world: World, name: str, host: str) -> set[str]:
    return {callee.listener.service for callee in world.state.live[at(name, host)].recipe.callees}


def test_a_local_port_for_a_renamed_service_stays_open() -> None:
    egress = {"settings": (("egress", (("schedule", 9001),)),)}
    before = changed(calendar(), "social", **egress)
    after = changed(
        renamed_service(before, "schedule", "agenda"), "social", settings=(("egress", (("agenda", 9001),)),)
    )
    world = applied(before)
    plan = plan_of(after, world)
    assert {"files lie under the new name, and say it"} == {
        detail for one in plan.service_changes for detail in one.details
    }


def test_without_the_entry_a_rename_is_a_new_service_beside_the_end_of_the_old() -> None:
    plan = plan_of(replace(agenda(), renamed=()), applied(calendar()))
    assert () == plan.renames
    assert {"agenda"} == {one.id.service for one in plan.authority_changes if one.profile is not None}


def test_names_that_change_with_the_service_are_both_answered_to_in_between() -> None:
    world = applied(calendar())
    plan = plan_of(renamed_service(calendar(), "schedule", "agenda", names=(DnsId("agenda.calendar.internal"),)), world)
    assert {(Reason.CA_ROTATED, Reason.NAMES_CHANGED)} == {one.reasons for one in plan.certificate_changes}
    assert [(Reason.NAME_OUTSIDE_CONSTRAINTS,)] == [one.reasons for one in plan.authority_changes]
    (first, *_) = plan.certificates
    assert ("agenda.calendar.internal", "schedule.example.com") == first.presented_names


def test_a_service_with_a_program_of_its_own_stays_what_it_is_called() -> None:
    """Its program reads files below its name: it would go on with what nobody renews."""
    plan = plan_of(renamed_service(calendar(), "mail", "post"), applied(calendar()))
    assert (OWN_PROGRAM, ()) == (codes(plan)[0][0], plan.renames)
    unlived = plan_of(renamed_service(calendar(), "mail", "post"), World())
    assert ((), [NOTHING_LEFT]) == (unlived.renames, codes(unlived)[1])


def test_two_services_that_are_both_known_never_become_one() -> None:
    both = replace(calendar(), services={**calendar().services, "agenda": service("agenda", hosts=["h3"])})
    plan = plan_of(agenda(), applied(both))
    assert (True, ()) == (MOVE_COLLIDES in codes(plan)[0], plan.renames)
    chain = (MovedService(old="schedule", new="plans"), MovedService(old="agenda", new="plans"))
    plan = plan_of(replace(renamed_service(calendar(), "schedule", "plans"), renamed=chain), applied(both))
    assert (True, ["schedule"]) == (MOVE_COLLIDES in codes(plan)[0], [one.old for one in plan.renames])


def test_renames_may_follow_one_another_in_one_file() -> None:
    chain = (MovedService(old="schedule", new="plans"), MovedService(old="agenda", new="plans"))
    twice = replace(renamed_service(calendar(), "schedule", "plans"), renamed=chain)
    for world in (applied(calendar()), World(state=renamed_state())):
        plan = plan_of(twice, world)
        assert (["plans"], ()) == ([one.new for one in plan.renames], plan.certificate_changes)
        apply(twice, world)
        assert {"plans", "agenda", "schedule", "social"} == called_by(world, "mail", "h2")


def renamed_state() -> State:
    world = applied(calendar())
    apply(agenda(), world)
    return world.state


def test_the_old_name_is_free_for_another_service_and_no_number_is_given_out_twice() -> None:
    state = renamed_state()
    again = service("schedule", door(port=7443), hosts=["h1"], names=["s.example.com"])
    inventory = replace(agenda(), renamed=(), services={**agenda().services, "schedule": again})
    world = World(state=state)
    plan = plan_of(inventory, world)
    assert ["schedule.calendar CA g2"] == [one.common_name for one in plan.authorities]
    assert [2] == [one.id.sequence for one in plan.certificates]


def test_a_service_gets_its_old_name_back() -> None:
    world = World(state=renamed_state())
    back = replace(calendar(), renamed=(MovedService(old="agenda", new="schedule"),))
    apply(back, world)
    assert {"schedule", "mail", "social"} == {one.service for one in world.state.live}
    assert not plan_of(back, world).has_changes


def test_a_host_and_a_service_on_it_are_renamed_at_once() -> None:
    plan = plan_of(renamed(agenda(), "h1", "z9"), applied(calendar()))
    assert [("agenda", ("h2", "z9"))] == [(one.new, one.hosts) for one in plan.renames]
    assert () == plan.certificate_changes


def test_the_fingerprint_knows_what_a_service_is_called_now() -> None:
    world = applied(calendar())
    one, other = (
        plan_of(renamed_service(calendar(), "schedule", new), world).fingerprint for new in ("agenda", "plans")
    )
    assert one != other


def test_a_service_on_a_host_over_ssh_is_renamed_like_any_other() -> None:
    world = applied(calendar())
    there = {**calendar().hosts, "h1": SshHost(name="h1", address="192.0.2.1")}
    world.state = replace(world.state, hosts=there)
    plan = plan_of(replace(agenda(), hosts=there), world)
    assert ([], ["agenda"]) == (codes(plan)[0], [one.new for one in plan.renames])
