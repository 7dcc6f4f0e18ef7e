"""The trust models side by side: what a door trusts, how it tells callers apart, and what a change of model takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import SHARED, AuthorityId, CredentialId
from mtlsctl.model.plan import Reason, Wave
from mtlsctl.model.probe import Expectation, Presented
from mtlsctl.model.topology import Authorize, ClientCertificate, TrustModel
from mtlsctl.model.trust import Member, OutsideAnchor, PeerPolicy, anchor_order, common_name_of, in_order
from mtlsctl.planner.plan import make_plan
from mtlsctl.planner.probes import make_probes
from mtlsctl.planner.safety import BY_NAME, NAME_OF_ANOTHER, ONE_STORE
from tests.support.estates import applied, at, changed, door, estate, plan_of, service
from tests.support.runtimes import ABLE, NGINX, RUNTIMES
from tests.support.world import NOW, new_state

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.topology import Inventory
    from mtlsctl.model.trust import TrustAnchor

MODELS = list(TrustModel)
SHARED_G1 = AuthorityId(SHARED, 1)


def calendar(model: TrustModel, **more: Any) -> Inventory:
    """Schedule lets mail in, not reporting; mail runs on two hosts."""
    return estate(
        service("schedule", door("mail", **more), trust=model),
        service("mail", hosts=("h1", "h2"), trust=model),
        service("reporting", door("schedule", port=9443), trust=model),
    )


def policy_of(plan: Plan, name: str = "schedule") -> PeerPolicy:
    (step,) = [one for one in plan.steps if one.id.instance.service == name]
    assert step.recipe is not None
    return step.recipe.listeners[0].policy


def first_plan(inventory: Inventory, **able: Any) -> Plan:
    nginx = replace(NGINX, enforcement=replace(ABLE, **able))
    return make_plan(inventory, new_state(), {**RUNTIMES, "nginx": nginx}, NOW)


def leaf(service: str, host: str, sequence: int = 1) -> CredentialId:
    return CredentialId(at(service, host), sequence)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (TrustModel.SERVICE_CA, PeerPolicy(anchors=frozenset({AuthorityId("mail", 1)}))),
        (
            TrustModel.SHARED_CA,
            PeerPolicy(anchors=frozenset({SHARED_G1}), members=frozenset({Member(SHARED_G1, "mail")})),
        ),
        (TrustModel.PINNED, PeerPolicy(anchors=frozenset({leaf("mail", "h1"), leaf("mail", "h2")}))),
    ],
)
def test_a_door_trusts_what_vouches_for_its_callers_and_looks_at_names_only_where_it_must(
    model: TrustModel, expected: PeerPolicy
) -> None:
    assert expected == policy_of(first_plan(calendar(model)))


def test_a_shared_ca_is_one_for_all_and_bound_to_no_names() -> None:
    plan = first_plan(calendar(TrustModel.SHARED_CA))
    (profile,) = plan.authorities
    assert (SHARED_G1, "calendar CA g1", (), True) == (
        profile.id,
        profile.common_name,
        profile.permitted_names,
        profile.addresses,
    )
    assert {SHARED_G1} == {one.authority for one in plan.certificates}
    assert [(Reason.FIRST_MEMBER,)] == [one.reasons for one in plan.authority_changes]


def test_pinned_leaves_sign_themselves_and_end_with_their_own_lifetime() -> None:
    plan = first_plan(calendar(TrustModel.PINNED))
    assert () == plan.authorities
    assert all(one.authority.is_leaf and one.anchor == one.id for one in plan.certificates)


def test_a_door_whose_callers_come_from_two_models_names_all_of_them() -> None:
    mixed = estate(
        service("schedule", door("mail", "social")),
        service("mail", trust=TrustModel.SHARED_CA),
        service("social", trust=TrustModel.PINNED),
    )
    pinned = leaf("social", "h1")
    assert policy_of(first_plan(mixed)) == PeerPolicy(
        anchors=frozenset({SHARED_G1, pinned}), members=frozenset({Member(SHARED_G1, "mail"), Member(pinned, "social")})
    )


def test_any_member_gets_in_where_that_is_what_was_written() -> None:
    inventory = calendar(TrustModel.SHARED_CA, authorize=Authorize.ANY_MEMBER)
    assert policy_of(first_plan(inventory)) == PeerPolicy(anchors=frozenset({SHARED_G1}))


def test_a_runtime_that_cannot_tell_members_apart_is_refused_unless_any_member_may_call() -> None:
    refused = first_plan(calendar(TrustModel.SHARED_CA), identifiers=False)
    assert [BY_NAME, BY_NAME] == [one.code for one in refused.refusals]
    any_member = {"authorize": Authorize.ANY_MEMBER}
    schedule = calendar(TrustModel.SHARED_CA, **any_member)
    assert [BY_NAME] == [one.code for one in first_plan(schedule, identifiers=False).refusals]
    for model in (TrustModel.SERVICE_CA, TrustModel.PINNED):
        assert () == first_plan(calendar(model), identifiers=False).refusals


def test_a_door_that_asks_for_no_certificate_need_not_tell_members_apart() -> None:
    one_way = estate(
        service("schedule", door("mail", client_certificate=ClientCertificate.NONE), trust=TrustModel.SHARED_CA),
        service("mail", trust=TrustModel.SHARED_CA),
    )
    assert () == first_plan(one_way, identifiers=False).refusals


def test_one_store_and_a_shared_ca_would_let_every_member_in() -> None:
    mutual = estate(
        service("schedule", door("mail"), trust=TrustModel.SHARED_CA),
        service("mail", door("schedule", port=9443), trust=TrustModel.SHARED_CA),
    )
    refused = first_plan(mutual, separate_trust=False).refusals
    assert {ONE_STORE} == {one.code for one in refused}
    assert "every member of the shared CA" in refused[0].message
    pinned = [replace(one, trust=TrustModel.PINNED) for one in mutual.services.values()]
    assert () == first_plan(estate(*pinned), separate_trust=False).refusals


@pytest.mark.parametrize("before", MODELS)
@pytest.mark.parametrize("after", MODELS)
def test_a_change_of_the_model_moves_every_identity_in_three_waves_with_that_reason(
    before: TrustModel, after: TrustModel
) -> None:
    world = applied(calendar(before))
    plan = plan_of(calendar(after), world)
    if before is after:
        assert not plan.has_changes
        return
    assert {Reason.TRUST_MODEL_CHANGED} == {reason for one in plan.certificate_changes for reason in one.reasons}
    waves = {step.id.wave for step in plan.steps if step.id.instance == at("schedule")}
    assert {Wave.EXTEND, Wave.ACTIVATE, Wave.WITHDRAW} == waves
    assert () == plan.access


def test_a_renewal_of_a_pinned_leaf_touches_its_peers_and_stays_out_of_the_fingerprint() -> None:
    inventory = calendar(TrustModel.PINNED)
    world = applied(inventory)
    quiet = plan_of(inventory, world)
    late = make_plan(inventory, world.state, RUNTIMES, NOW + timedelta(days=61))
    assert all(one.due for one in late.certificate_changes)
    assert all(one.due for one in late.service_changes)
    assert {at("schedule"), at("mail"), at("mail", "h2"), at("reporting")} == {s.id.instance for s in late.steps}
    assert quiet.fingerprint == late.fingerprint


@pytest.mark.parametrize("model", MODELS)
def test_a_service_does_not_answer_to_what_a_shared_ca_calls_another(model: TrustModel) -> None:
    """Apache takes names from the common name too; elsewhere the CA of one vouches for no other."""
    inventory = changed(calendar(model), "schedule", names=service("x", names=["reporting"]).names)
    assert ([NAME_OF_ANOTHER] if model is TrustModel.SHARED_CA else []) == [
        one.code for one in first_plan(inventory).refusals
    ]
    own = changed(calendar(model), "schedule", names=service("x", names=["schedule"]).names)
    assert [] == list(first_plan(own).refusals)


def test_a_newer_shared_ca_is_asked_for_once_for_all() -> None:
    inventory = calendar(TrustModel.SHARED_CA)
    world = applied(inventory)
    newer = replace(inventory, shared_authority=replace(inventory.shared_authority, generation=2))
    plan = plan_of(newer, world)
    assert [AuthorityId(SHARED, 2)] == [one.id for one in plan.authorities]
    assert {Reason.CA_ROTATED} == {reason for one in plan.certificate_changes for reason in one.reasons}


def test_a_caller_that_is_taken_out_loses_its_name_and_the_anchor_stays() -> None:
    both = estate(
        service("schedule", door("mail", "social"), trust=TrustModel.SHARED_CA),
        service("mail", trust=TrustModel.SHARED_CA),
        service("social", trust=TrustModel.SHARED_CA),
    )
    world = applied(both)
    plan = plan_of(changed(both, "schedule", listeners=(door("mail"),)), world)
    (step,) = [one for one in plan.steps if one.id.instance.service == "schedule"]
    assert step.id.wave is Wave.WITHDRAW
    assert policy_of(plan) == PeerPolicy(anchors=frozenset({SHARED_G1}), members=frozenset({Member(SHARED_G1, "mail")}))


def test_with_any_member_every_member_is_expected_to_get_in_and_nobody_else() -> None:
    inventory = estate(
        service("schedule", door("mail", authorize=Authorize.ANY_MEMBER), trust=TrustModel.SHARED_CA),
        service("mail", trust=TrustModel.SHARED_CA),
        service("social", trust=TrustModel.SHARED_CA),
        service("stranger"),
    )
    expected = {
        probe.caller.service: probe.expected
        for probe in make_probes(inventory).probes
        if probe.caller and probe.presented is Presented.DELIVERED
    }
    allowed, refused = Expectation.ALLOWED, Expectation.REFUSED
    assert expected == {"mail": allowed, "social": allowed, "stranger": refused}


def test_what_only_a_ca_could_sign_is_not_tried_where_every_leaf_signs_itself() -> None:
    kinds = {
        one.presented for one in make_probes(calendar(TrustModel.PINNED)).probes if one.listener.service == "schedule"
    }
    assert {Presented.EXPIRED, Presented.WRONG_USAGE}.isdisjoint(kinds)
    assert {Presented.NO_CERTIFICATE, Presented.FOREIGN_CA} <= kinds


def test_anchors_of_every_kind_have_one_order_and_a_name() -> None:
    anchors: list[TrustAnchor] = [
        leaf("mail", "h2"),
        AuthorityId("mail", 2),
        SHARED_G1,
        leaf("mail", "h1", 3),
        AuthorityId("mail", 1),
    ]
    ordered = in_order(anchors)
    assert [
        SHARED_G1,
        AuthorityId("mail", 1),
        AuthorityId("mail", 2),
        leaf("mail", "h1", 3),
        leaf("mail", "h2"),
    ] == ordered
    assert len({anchor_order(one) for one in anchors}) == len(anchors)
    assert ["calendar CA g1", "mail.calendar CA g1", "mail.calendar CA g2", "mail", "mail"] == [
        common_name_of("calendar", one) for one in ordered if not isinstance(one, OutsideAnchor)
    ]
