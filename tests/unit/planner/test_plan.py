"""The plan as a whole: empty when there is nothing to do, and one fingerprint for one edit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import AuthorityId
from mtlsctl.model.plan import TIME_CAUSED, Due, Op, Reason
from mtlsctl.model.topology import AuthorityPolicy, CertificatePolicy, KeyAlgorithm, KeyOrigin, SshHost
from mtlsctl.planner.plan import make_plan
from tests.support.estates import (
    applied,
    apply,
    at,
    changed,
    door,
    estate,
    plan_of,
    service,
    steps_of,
    without,
)
from tests.support.runtimes import NGINX, RUNTIMES
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.topology import Inventory

DAY = timedelta(days=1)
LEAVES_DUE, AUTHORITIES_DUE = NOW + 60 * DAY, NOW + 1645 * DAY
CALENDAR = estate(service("schedule", door("mail")), service("mail"), service("social"))


def renewed(inventory: Inventory, days: int = 61) -> World:
    """The same estate after a renewal of everything that was due by then."""
    world = applied(inventory)
    apply(inventory, world, NOW + days * DAY)
    return world


# --- nothing to do --------------------------------------------------------------------------------------------------


def test_the_plan_after_an_apply_is_empty_and_says_what_is_due_next() -> None:
    plan = plan_of(CALENDAR, applied(CALENDAR))
    assert not plan.has_changes
    assert ((), (), (), (), (), ()) == (
        plan.access,
        plan.risks,
        plan.authority_changes,
        plan.certificate_changes,
        plan.service_changes,
        plan.steps,
    )
    assert 3 == plan.unchanged_instances
    assert Due(subject="mail@h1", at=LEAVES_DUE) == plan.next_due


@pytest.mark.parametrize(
    "edit",
    [
        {"listeners": (door("mail", "social"),)},
        {"listeners": ()},
        {"listeners": (door("mail", port=9443),)},
        {"names": service("x", names=["new.example.com"]).names},
        {"hosts": ("h2",)},
        {"authority": AuthorityPolicy(generation=3)},
        {"authority": AuthorityPolicy(lifetime=400 * DAY)},
        {"certificate": CertificatePolicy(lifetime=60 * DAY, renew_before=20 * DAY)},
        {"certificate": CertificatePolicy(key=KeyAlgorithm.RSA_2048)},
        {"addresses": True},
        {"settings": (("upstream", "http://127.0.0.1:1"),)},
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_after_any_edit_was_applied_the_plan_is_empty(edit: dict[str, Any]) -> None:
    world, edited = applied(CALENDAR), changed(CALENDAR, "schedule", **edit)
    apply(edited, world)
    assert not plan_of(edited, world).has_changes
    apply(CALENDAR, world)
    assert not plan_of(CALENDAR, world).has_changes


def test_an_authority_that_is_due_before_any_leaf_is_said() -> None:
    short = changed(CALENDAR, "mail", authority=AuthorityPolicy(lifetime=230 * DAY))
    assert Due(subject="mail CA g1", at=NOW + 50 * DAY) == plan_of(short, applied(short)).next_due


def test_an_estate_without_services_has_nothing_due() -> None:
    assert None is plan_of(estate(), World()).next_due


def test_what_is_due_is_told_by_the_end_that_the_new_leaf_will_have() -> None:
    assert (
        Due(subject="mail@h1", at=NOW + (61 + 60) * DAY)
        == plan_of(CALENDAR, applied(CALENDAR), NOW + 61 * DAY).next_due
    )


# --- changes --------------------------------------------------------------------------------------------------------


def test_a_changed_setting_is_a_change_without_a_certificate() -> None:
    edited = changed(CALENDAR, "schedule", settings=(("upstream", "http://127.0.0.1:1"),))
    plan = plan_of(edited, applied(CALENDAR))
    assert plan.has_changes
    assert ((), (), 2) == (plan.certificate_changes, plan.authority_changes, plan.unchanged_instances)


def test_a_changed_template_is_a_change_without_a_certificate() -> None:
    other = {**RUNTIMES, "nginx": replace(NGINX, digest="nginx templates 2")}
    plan = make_plan(CALENDAR, applied(CALENDAR).state, other, NOW)
    assert plan.has_changes
    assert ((), 3, 0) == (plan.certificate_changes, len(plan.steps), plan.unchanged_instances)


def test_a_template_of_another_runtime_is_none_of_its_business() -> None:
    other = {**RUNTIMES, "node": replace(RUNTIMES["node"], digest="node templates 2")}
    assert not make_plan(CALENDAR, applied(CALENDAR).state, other, NOW).has_changes


def test_everything_that_is_made_has_a_reason() -> None:
    for plan in (plan_of(CALENDAR, World()), plan_of(CALENDAR, applied(CALENDAR), AUTHORITIES_DUE)):
        assert all(one.reasons for one in plan.certificate_changes)
        assert all(one.reasons for one in plan.authority_changes if one.op is not Op.REMOVE)


def test_an_authority_is_made_once_for_all_instances() -> None:
    wide = changed(CALENDAR, "mail", hosts=("h1", "h2", "h3"))
    plan = plan_of(wide, World())
    assert [AuthorityId(name, 1) for name in ("schedule", "mail", "social")] == [one.id for one in plan.authorities]
    assert 5 == len(plan.certificates)


def test_a_removed_instance_retires_its_certificate() -> None:
    (change,) = plan_of(without(CALENDAR, "social"), applied(CALENDAR)).certificate_changes
    assert (Op.REMOVE, at("social"), None, NOW + 90 * DAY) == (
        change.op,
        change.instance,
        change.profile,
        change.not_after_before,
    )


def test_a_key_that_is_gone_is_a_reason_even_when_nothing_else_changed() -> None:
    world = applied(CALENDAR)
    state = replace(world.state, keys_missing=frozenset({at("mail")}))
    plan = make_plan(CALENDAR, state, RUNTIMES, NOW)
    assert [(at("mail"), (Reason.KEY_MISSING,))] == [(one.instance, one.reasons) for one in plan.certificate_changes]
    assert ["mail@h1/activate"] == list(steps_of(plan))


# --- what time alone causes -----------------------------------------------------------------------------------------


def test_a_renewal_is_listed_as_due_and_does_not_enter_the_fingerprint() -> None:
    world = applied(CALENDAR)
    plan = plan_of(CALENDAR, world, LEAVES_DUE)
    assert {(True, (Reason.RENEWAL_DUE,))} == {(one.due, one.reasons) for one in plan.certificate_changes}
    assert 3 == len(plan.certificate_changes)
    assert plan_of(CALENDAR, world).fingerprint == plan.fingerprint


def test_an_authority_that_ends_is_listed_as_due_with_all_that_follows() -> None:
    world = renewed(CALENDAR, 1600)
    plan = plan_of(CALENDAR, world, AUTHORITIES_DUE)
    assert {(True, (Reason.CA_ENDS,))} == {(one.due, one.reasons) for one in plan.authority_changes}
    assert {True} == {one.due for one in plan.certificate_changes} | {one.due for one in plan.service_changes}
    assert plan_of(CALENDAR, world, NOW + 1601 * DAY).fingerprint == plan.fingerprint


def test_an_edit_beside_a_renewal_is_not_due() -> None:
    edited = changed(CALENDAR, "mail", certificate=CertificatePolicy(key=KeyAlgorithm.ED25519))
    plan = plan_of(edited, applied(CALENDAR), LEAVES_DUE)
    assert {
        "mail": (False, (Reason.KEY_ALGORITHM_CHANGED, Reason.RENEWAL_DUE)),
        "schedule": (True, (Reason.RENEWAL_DUE,)),
        "social": (True, (Reason.RENEWAL_DUE,)),
    } == {one.instance.service: (one.due, one.reasons) for one in plan.certificate_changes}


def test_an_edit_beside_a_renewal_has_the_fingerprint_that_it_has_alone() -> None:
    edited, world = changed(CALENDAR, "schedule", listeners=(door("mail", "social"),)), applied(CALENDAR)
    assert plan_of(edited, world).fingerprint == plan_of(edited, world, LEAVES_DUE).fingerprint


def test_the_key_of_an_authority_that_is_to_be_destroyed_is_due_and_stays_out_of_the_fingerprint() -> None:
    world = applied(CALENDAR)
    rotated = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    apply(rotated, world)
    later = plan_of(rotated, world, NOW + 90 * DAY)
    assert (Op.REMOVE, AuthorityId("mail", 1), True) in [(one.op, one.id, one.due) for one in later.authority_changes]
    assert plan_of(rotated, world).fingerprint == later.fingerprint


def test_a_service_that_moves_while_its_authority_ends_has_the_fingerprint_of_the_move() -> None:
    world = renewed(CALENDAR, 1600)
    moved = changed(CALENDAR, "social", hosts=("h2",))
    before, after = plan_of(moved, world, NOW + 1601 * DAY), plan_of(moved, world, AUTHORITIES_DUE)
    assert before.fingerprint == after.fingerprint
    assert [True] == [one.due for one in after.authority_changes if one.id.service == "social"]


# --- the fingerprint ------------------------------------------------------------------------------------------------

EDITS: dict[str, dict[str, Any]] = {
    "a caller": {"listeners": (door("mail", "social"),)},
    "nobody": {"listeners": (door(),)},
    "another port": {"listeners": (door("mail", port=9443),)},
    "another name": {"names": service("x", names=["new.example.com"]).names},
    "another host": {"hosts": ("h1", "h2")},
    "a generation": {"authority": AuthorityPolicy(generation=9)},
    "a kind of authority": {"authority": AuthorityPolicy(key=KeyAlgorithm.RSA_4096)},
    "a lifetime": {"certificate": CertificatePolicy(lifetime=60 * DAY)},
    "another lifetime": {"certificate": CertificatePolicy(lifetime=50 * DAY)},
    "a kind of key": {"certificate": CertificatePolicy(key=KeyAlgorithm.ED25519)},
    "addresses": {"addresses": True},
    "a setting": {"settings": (("upstream", "http://127.0.0.1:1"),)},
    "another setting": {"settings": (("upstream", "http://127.0.0.1:2"),)},
}


def fingerprint(edit: str, world: World, days: int = 0) -> str:
    return plan_of(changed(CALENDAR, "schedule", **EDITS[edit]), world, NOW + days * DAY).fingerprint


def test_each_edit_has_a_fingerprint_of_its_own() -> None:
    world = applied(CALENDAR)
    seen = {edit: fingerprint(edit, world) for edit in EDITS}
    assert len(EDITS) == len({*seen.values()})
    assert plan_of(CALENDAR, world).fingerprint not in seen.values()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("days", [61, 1646], ids=["leaves", "authorities"])
def test_the_same_edit_on_states_that_differ_by_renewals_has_the_same_fingerprint(edit: str, days: int) -> None:
    assert fingerprint(edit, applied(CALENDAR)) == fingerprint(edit, renewed(CALENDAR, days), days)


def test_a_generation_that_the_inventory_asks_for_is_the_same_whatever_its_number_will_be() -> None:
    rotated = changed(CALENDAR, "schedule", authority=AuthorityPolicy(generation=2))
    again = changed(CALENDAR, "schedule", authority=AuthorityPolicy(generation=3))
    world = applied(rotated)
    assert plan_of(rotated, applied(CALENDAR)).fingerprint == plan_of(again, world).fingerprint


def test_the_leftover_name_of_a_rename_does_not_enter_it() -> None:
    world = applied(CALENDAR)
    renamed = changed(CALENDAR, "schedule", names=service("x", names=["new.example.com"]).names)
    apply(renamed, world)
    edited = changed(renamed, "schedule", certificate=CertificatePolicy(key=KeyAlgorithm.ED25519))
    with_leftover = plan_of(edited, world).fingerprint
    apply(renamed, world, NOW + 61 * DAY)
    assert ("new.example.com",) == world.state.live[at("schedule")].recipe.server_names
    assert with_leftover == plan_of(edited, world, NOW + 62 * DAY).fingerprint


def test_the_fingerprint_says_of_which_estate_it_is() -> None:
    world = applied(CALENDAR)
    other = replace(world.state, lineage="another")
    assert plan_of(CALENDAR, world).fingerprint != make_plan(CALENDAR, other, RUNTIMES, NOW).fingerprint


def test_a_first_plan_with_other_lifetimes_of_authorities_is_another_plan() -> None:
    longer = changed(CALENDAR, "mail", authority=AuthorityPolicy(lifetime=3650 * DAY))
    assert plan_of(CALENDAR, World()).fingerprint != plan_of(longer, World()).fingerprint


def test_the_fingerprint_is_short_enough_to_be_read_out() -> None:
    kind, _, rest = plan_of(CALENDAR, World()).fingerprint.partition(":")
    assert ("mp1", [4, 4, 4]) == (kind, [len(part) for part in rest.split("-")])


# --- what the model says of a plan ----------------------------------------------------------------------------------


def test_time_causes_renewals_and_ends_and_nothing_else() -> None:
    assert {Reason.RENEWAL_DUE, Reason.CA_ENDS} == TIME_CAUSED


def test_a_plan_names_the_processes_that_it_touches() -> None:
    plan: Plan = plan_of(changed(CALENDAR, "mail", runtime="node"), World())
    assert ["h1/mail", "h1/nginx"] == sorted(map(str, plan.processes))


def test_a_key_is_born_on_a_host_over_ssh_and_here_for_a_host_that_is_a_folder() -> None:
    mixed = estate(service("schedule", door("mail"), hosts=("h1",)), service("mail", hosts=("h2",)))
    hosts = {**mixed.hosts, "h2": SshHost(name="h2", address="192.0.2.2")}
    plan = plan_of(replace(mixed, hosts=hosts), World())
    assert {at("schedule"): KeyOrigin.CONTROLLER, at("mail", "h2"): KeyOrigin.HOST} == {
        one.credential.instance: one.origin for one in plan.requests
    }
    assert [one.id for one in plan.certificates] == [one.credential for one in plan.requests]
