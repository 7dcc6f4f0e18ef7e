"""What each wave holds and waits for, edit by edit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.plan import StepId, Wave
from mtlsctl.model.topology import AuthorityPolicy, ClientCertificate, InstanceId, ListenerId
from mtlsctl.planner.plan import make_plan
from tests.support.estates import (
    applied,
    apply,
    at,
    changed,
    door,
    estate,
    plan_of,
    recipe,
    service,
    steps_of,
    waits,
    without,
)
from tests.support.runtimes import NGINX, RUNTIMES
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan

CALENDAR = estate(service("schedule", door("mail")), service("mail"), service("social"))
"""mail calls schedule; nobody calls social."""

DOOR = ListenerId("schedule", "main")


def edited(name: str, **changes: Any) -> Plan:
    return plan_of(changed(CALENDAR, name, **changes), applied(CALENDAR))


def anchors(plan: Plan, wave: Wave, host: str = "h1") -> set[str]:
    """Whom the schedule's door lets in."""
    served = recipe(plan, "schedule", wave, host).served("main")
    assert served is not None
    return set(map(str, served.policy.anchors))


def believed(plan: Plan, wave: Wave) -> set[str]:
    """Whom mail takes for the schedule."""
    callee = recipe(plan, "mail", wave).called(DOOR)
    assert callee is not None
    return set(map(str, callee.policy.anchors))


def dialled(plan: Plan, wave: Wave) -> set[tuple[str, int]]:
    """(host, port) that mail dials."""
    callee = recipe(plan, "mail", wave).called(DOOR)
    assert callee is not None
    return {(endpoint.instance.host, endpoint.port) for endpoint in callee.endpoints}


def ports(plan: Plan, wave: Wave) -> set[int]:
    served = recipe(plan, "schedule", wave).served("main")
    assert served is not None
    return {socket.port for socket in served.sockets}


def shown(plan: Plan, name: str, wave: Wave) -> int:
    """The number of the leaf that is presented."""
    return recipe(plan, name, wave).credential.sequence


# --- nothing and everything -----------------------------------------------------------------------------------------


def test_a_first_install_is_one_wave_and_waits_for_nothing() -> None:
    plan = plan_of(CALENDAR, World())
    assert {"mail@h1/activate", "schedule@h1/activate", "social@h1/activate"} == steps_of(plan).keys()
    assert {frozenset()} == {step.waits_for for step in plan.steps}


def test_nothing_to_change_is_no_step() -> None:
    assert () == plan_of(CALENDAR, applied(CALENDAR)).steps


# --- edges ----------------------------------------------------------------------------------------------------------


def test_a_door_opens_to_a_new_caller_before_that_calls() -> None:
    plan = edited("schedule", listeners=(door("mail", "social"),))
    assert {"schedule@h1/extend", "social@h1/activate"} == steps_of(plan).keys()
    assert {"mail CA g1", "social CA g1"} == anchors(plan, Wave.EXTEND)
    assert {"schedule@h1/extend"} == waits(plan, "social@h1/activate")


def test_a_caller_stops_calling_and_its_door_closes_in_withdraw() -> None:
    plan = edited("schedule", listeners=(door(),))
    assert {"mail@h1/withdraw", "schedule@h1/withdraw"} == steps_of(plan).keys()
    assert set() == anchors(plan, Wave.WITHDRAW)
    assert () == recipe(plan, "mail", Wave.WITHDRAW).callees


def test_a_first_door_and_a_first_call_begin_with_the_leaf_that_allows_them() -> None:
    called_back = changed(CALENDAR, "mail", listeners=(door("schedule", port=8444),))
    plan = plan_of(called_back, applied(CALENDAR))
    assert {at("mail"), at("schedule")} == {one.id.instance for one in plan.certificates}
    begun = [step.recipe for step in plan.steps if step.recipe and step.recipe.listeners and step.recipe.callees]
    assert [CredentialId(at("mail"), 2), CredentialId(at("schedule"), 2)] == [one.credential for one in begun]


# --- the rotation of an authority -----------------------------------------------------------------------------------


def test_a_caller_shows_its_new_authority_when_every_door_trusts_it() -> None:
    plan = edited("mail", authority=AuthorityPolicy(generation=2))
    assert ["schedule@h1/extend", "mail@h1/activate", "schedule@h1/withdraw"] == list(steps_of(plan))
    assert {"mail CA g1", "mail CA g2"} == anchors(plan, Wave.EXTEND)
    assert 2 == shown(plan, "mail", Wave.ACTIVATE)
    assert {"mail CA g2"} == anchors(plan, Wave.WITHDRAW)
    assert {"schedule@h1/extend"} == waits(plan, "mail@h1/activate")
    assert {"mail@h1/activate", "schedule@h1/extend"} == waits(plan, "schedule@h1/withdraw")


def test_a_server_shows_its_new_authority_when_every_caller_believes_it() -> None:
    plan = edited("schedule", authority=AuthorityPolicy(generation=2))
    assert ["mail@h1/extend", "schedule@h1/activate", "mail@h1/withdraw"] == list(steps_of(plan))
    assert {"schedule CA g1", "schedule CA g2"} == believed(plan, Wave.EXTEND)
    assert 2 == shown(plan, "schedule", Wave.ACTIVATE)
    assert {"schedule CA g2"} == believed(plan, Wave.WITHDRAW)
    assert {"mail@h1/extend"} == waits(plan, "schedule@h1/activate")


def test_both_ends_may_rotate_at_once_in_three_waves_each() -> None:
    both = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    both = changed(both, "schedule", authority=AuthorityPolicy(generation=2))
    plan = plan_of(both, applied(CALENDAR))
    waves = ("extend", "activate", "withdraw")
    assert {f"{name}@h1/{wave}" for name in ("mail", "schedule") for wave in waves} == steps_of(plan).keys()
    assert {"mail@h1/extend", "schedule@h1/extend"} == waits(plan, "mail@h1/activate")
    assert waits(plan, "mail@h1/withdraw") >= {"mail@h1/activate", "schedule@h1/activate"}


def test_a_rotation_touches_only_peers() -> None:
    plan = edited("social", authority=AuthorityPolicy(generation=2))
    assert {"social@h1/activate"} == steps_of(plan).keys()


def test_every_instance_of_every_peer_is_waited_for() -> None:
    wide = changed(CALENDAR, "schedule", hosts=("h1", "h2"))
    plan = plan_of(changed(wide, "mail", authority=AuthorityPolicy(generation=2)), applied(wide))
    assert {"schedule@h1/extend", "schedule@h2/extend"} == waits(plan, "mail@h1/activate")


def test_a_renewal_is_one_release_and_no_peer_notices() -> None:
    plan = make_plan(CALENDAR, applied(CALENDAR).state, RUNTIMES, NOW + (NOW - NOW.replace(month=9)))
    assert {"mail@h1/activate", "schedule@h1/activate", "social@h1/activate"} == steps_of(plan).keys()
    assert {frozenset()} == {step.waits_for for step in plan.steps}


# --- names, ports, modes --------------------------------------------------------------------------------------------


def test_a_rename_shows_both_names_before_callers_check_the_new_one() -> None:
    roomy = estate(service("schedule", door("mail"), names=["a.example.com", "x.a.example.com"]), service("mail"))
    renamed = changed(roomy, "schedule", names=service("x", names=["y.a.example.com", "a.example.com"]).names)
    plan = plan_of(renamed, applied(roomy))
    assert ["schedule@h1/activate", "mail@h1/withdraw"] == list(steps_of(plan))
    assert ("y.a.example.com", "a.example.com") == recipe(plan, "schedule", Wave.ACTIVATE).server_names
    assert "y.a.example.com" == recipe(plan, "mail", Wave.WITHDRAW).callees[0].server_name
    assert {"schedule@h1/activate"} == waits(plan, "mail@h1/withdraw")


def test_a_rename_outside_the_constraints_rotates_in_the_same_waves() -> None:
    plan = edited("schedule", names=service("x", names=["new.example.com"]).names)
    assert ["mail@h1/extend", "schedule@h1/activate", "mail@h1/withdraw"] == list(steps_of(plan))
    checked = [recipe(plan, "mail", wave).callees[0].server_name for wave in (Wave.EXTEND, Wave.WITHDRAW)]
    assert ["schedule.example.com", "new.example.com"] == checked


def test_a_port_is_served_beside_the_old_one_until_callers_have_switched() -> None:
    plan = edited("schedule", listeners=(door("mail", port=9443),))
    assert ["schedule@h1/extend", "mail@h1/activate", "schedule@h1/withdraw"] == list(steps_of(plan))
    assert {8443, 9443} == ports(plan, Wave.EXTEND)
    assert {("h1", 9443)} == dialled(plan, Wave.ACTIVATE)
    assert {9443} == ports(plan, Wave.WITHDRAW)
    assert {"schedule@h1/extend"} == waits(plan, "mail@h1/activate")
    assert "mail@h1/activate" in waits(plan, "schedule@h1/withdraw")


def mode_of(plan: Plan, wave: Wave) -> ClientCertificate:
    served = recipe(plan, "schedule", wave).served("main")
    assert served is not None
    return served.client_certificate


def test_a_tighter_mode_belongs_to_withdraw() -> None:
    loose = changed(CALENDAR, "schedule", listeners=(door("mail", client_certificate=ClientCertificate.OPTIONAL),))
    plan = plan_of(CALENDAR, applied(loose))
    assert ["schedule@h1/withdraw"] == list(steps_of(plan))
    assert ClientCertificate.REQUIRED is mode_of(plan, Wave.WITHDRAW)


def test_a_tighter_mode_lets_the_callers_in_before_it_asks_them() -> None:
    none = changed(CALENDAR, "schedule", listeners=(door("mail", client_certificate=ClientCertificate.NONE),))
    none = changed(none, "mail", listeners=(door(port=8444),))
    asking = changed(none, "schedule", listeners=(door("mail"),))
    plan = plan_of(asking, applied(none))
    assert ["mail@h1/activate", "schedule@h1/withdraw"] == list(steps_of(plan))
    assert {"mail@h1/activate"} == waits(plan, "schedule@h1/withdraw")
    assert {"mail CA g1"} == anchors(plan, Wave.WITHDRAW)


def test_a_looser_mode_belongs_to_extend() -> None:
    plan = edited("schedule", listeners=(door("mail", client_certificate=ClientCertificate.OPTIONAL),))
    assert ["schedule@h1/extend"] == list(steps_of(plan))
    assert ClientCertificate.OPTIONAL is mode_of(plan, Wave.EXTEND)


@pytest.mark.parametrize(
    ("before", "after", "wave"),
    [(("1.2", "1.3"), ("1.3",), "withdraw"), (("1.3",), ("1.2", "1.3"), "extend")],
    ids=["fewer", "more"],
)
def test_fewer_protocols_are_tighter_and_more_are_looser(
    before: tuple[str, ...], after: tuple[str, ...], wave: str
) -> None:
    old = changed(CALENDAR, "schedule", listeners=(door("mail", protocols=before),))
    new = changed(CALENDAR, "schedule", listeners=(door("mail", protocols=after),))
    assert [f"schedule@h1/{wave}"] == list(steps_of(plan_of(new, applied(old))))


# --- instances and services -----------------------------------------------------------------------------------------


def test_a_new_instance_of_a_service_is_dialled_when_it_is_up() -> None:
    plan = edited("schedule", hosts=("h1", "h2"))
    assert ["schedule@h2/activate", "mail@h1/withdraw"] == list(steps_of(plan))
    assert {("h1", 8443), ("h2", 8443)} == dialled(plan, Wave.WITHDRAW)
    assert {"schedule@h2/activate"} == waits(plan, "mail@h1/withdraw")


def test_a_new_instance_of_a_caller_needs_nobody_when_its_authority_is_known() -> None:
    plan = edited("mail", hosts=("h1", "h2"))
    assert ["mail@h2/activate"] == list(steps_of(plan))


def test_a_new_service_is_let_in_before_it_calls() -> None:
    more = estate(*CALENDAR.services.values(), service("news"))
    plan = plan_of(changed(more, "schedule", listeners=(door("mail", "news"),)), applied(CALENDAR))
    assert ["schedule@h1/extend", "news@h1/activate"] == list(steps_of(plan))
    assert {"schedule@h1/extend"} == waits(plan, "news@h1/activate")


def test_a_service_that_moves_is_up_and_dialled_at_the_new_host_before_the_old_one_goes() -> None:
    plan = edited("schedule", hosts=("h2",))
    assert ["schedule@h2/activate", "mail@h1/withdraw", "schedule@h1/remove"] == list(steps_of(plan))
    assert {("h2", 8443)} == dialled(plan, Wave.WITHDRAW)
    assert {"mail@h1/withdraw", "schedule@h2/activate"} == waits(plan, "schedule@h1/remove")
    assert steps_of(plan)["schedule@h1/remove"].recipe is None


def test_an_instance_that_goes_lets_in_what_its_callers_will_show_until_then() -> None:
    moving = changed(CALENDAR, "schedule", hosts=("h2",))
    plan = plan_of(changed(moving, "mail", authority=AuthorityPolicy(generation=2)), applied(CALENDAR))
    assert {"mail CA g1", "mail CA g2"} == anchors(plan, Wave.EXTEND)
    assert "schedule@h1/extend" in waits(plan, "mail@h1/activate")
    assert "schedule@h1/extend" in waits(plan, "schedule@h1/remove")


def test_a_removed_service_is_withdrawn_from_its_doors_and_goes() -> None:
    plan = plan_of(changed(without(CALENDAR, "mail"), "schedule", listeners=(door(),)), applied(CALENDAR))
    assert ["schedule@h1/withdraw", "mail@h1/remove"] == list(steps_of(plan))
    assert set() == anchors(plan, Wave.WITHDRAW)


def test_a_removed_callee_goes_when_its_callers_have_stopped() -> None:
    plan = plan_of(without(CALENDAR, "schedule"), applied(CALENDAR))
    assert ["mail@h1/withdraw", "schedule@h1/remove"] == list(steps_of(plan))
    assert {"mail@h1/withdraw"} == waits(plan, "schedule@h1/remove")


# --- what peers do not notice ---------------------------------------------------------------------------------------


def test_a_setting_is_one_release_that_waits_for_nothing() -> None:
    plan = edited("schedule", settings=(("upstream", "http://127.0.0.1:1"),))
    assert ["schedule@h1/activate"] == list(steps_of(plan))
    assert set() == waits(plan, "schedule@h1/activate")


def test_a_template_is_one_release_of_each_instance_that_uses_it() -> None:
    other = {**RUNTIMES, "nginx": replace(NGINX, digest="nginx templates 2")}
    plan = make_plan(CALENDAR, applied(CALENDAR).state, other, NOW)
    assert {"mail@h1/activate", "schedule@h1/activate", "social@h1/activate"} == steps_of(plan).keys()
    assert {frozenset()} == {step.waits_for for step in plan.steps}


def test_a_setting_that_changes_with_an_edge_needs_no_release_of_its_own() -> None:
    plan = edited("schedule", settings=(("upstream", "http://127.0.0.1:1"),), listeners=(door("mail", "social"),))
    assert {"schedule@h1/extend", "social@h1/activate"} == steps_of(plan).keys()
    assert (("upstream", "http://127.0.0.1:1"),) == recipe(plan, "schedule", Wave.EXTEND).settings


# --- after a failure ------------------------------------------------------------------------------------------------


def test_what_was_cut_off_goes_on_from_where_it_stands() -> None:
    rotated = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    world = applied(CALENDAR)
    apply(rotated, world, fails={StepId(at("mail"), Wave.ACTIVATE)})
    plan = plan_of(rotated, world)
    assert ["mail@h1/activate", "schedule@h1/withdraw"] == list(steps_of(plan))
    assert CredentialId(at("mail"), 2) == recipe(plan, "mail", Wave.ACTIVATE).credential


def test_a_rotation_that_overtakes_one_that_was_cut_off_trusts_only_what_may_be_shown() -> None:
    world = applied(CALENDAR)
    second, third = (
        changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=generation)) for generation in (2, 3)
    )
    apply(second, world, fails={StepId(at("mail"), Wave.ACTIVATE)})
    plan = plan_of(third, world)
    assert {"mail CA g1", "mail CA g2", "mail CA g3"} == anchors(plan, Wave.EXTEND)
    apply(third, world)
    live = world.state.live[InstanceId("schedule", "h1")].recipe.served("main")
    assert live is not None
    assert {AuthorityId("mail", 3)} == live.policy.anchors
