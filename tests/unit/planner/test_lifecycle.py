"""What is made anew, and why: each reason on its own, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import AuthorityId, AuthorityProfile, CertificateProfile, CredentialId, KeyUsage
from mtlsctl.model.plan import Op, Reason, StepId, Wave
from mtlsctl.model.topology import AuthorityPolicy, CertificatePolicy, KeyAlgorithm
from mtlsctl.planner.identities import Wanted
from mtlsctl.planner.lifecycle import (
    WantedAuthority,
    current_authorities,
    decide_authority,
    decide_credential,
    keys_to_destroy,
    newest_credentials,
)
from tests.support.estates import applied, apply, at, changed, door, estate, plan_of, service, without
from tests.support.world import NOW, issued, made_authority, new_state

if TYPE_CHECKING:
    from mtlsctl.model.credential import CertificationAuthority, Credential
    from mtlsctl.model.state import State
    from mtlsctl.planner.lifecycle import AuthorityDecision, CredentialDecision

DAY = timedelta(days=1)
MAIL = at("mail")
G1, G2 = AuthorityId("mail", 1), AuthorityId("mail", 2)
NAMES = ("mail.example.com",)


def authority(id: AuthorityId = G1, now: datetime = NOW, **more: Any) -> CertificationAuthority:
    facts = {"key": KeyAlgorithm.ECDSA_P256, "lifetime": 1825 * DAY, "permitted_names": NAMES, "addresses": False}
    profile = AuthorityProfile(id=id, common_name=f"mail.calendar CA g{id.generation}", **{**facts, **more})
    return made_authority(profile, now)


def leaf(sequence: int = 1, now: datetime = NOW, **more: Any) -> Credential:
    facts = {
        "authority": G1,
        "common_name": "mail",
        "names": NAMES,
        "transitional_names": (),
        "addresses": (),
        "usages": frozenset({KeyUsage.SERVER_AUTH}),
        "key": KeyAlgorithm.ECDSA_P256,
        "lifetime": 90 * DAY,
    }
    profile = CertificateProfile(id=CredentialId(MAIL, sequence), **{**facts, **more})
    return issued(profile, now, NOW + 3000 * DAY)


def decided(
    newest: Credential | None, state: State | None = None, now: datetime = NOW, *, renew: bool = True, **more: Any
) -> CredentialDecision:
    wanted = Wanted(
        instance=MAIL,
        authority=G1,
        authority_ends=NOW + 1825 * DAY,
        names=NAMES,
        transitional_names=(),
        addresses=(),
        usages=frozenset({KeyUsage.SERVER_AUTH}),
        policy=CertificatePolicy(),
    )
    if state is None:
        state = replace(new_state(), sequences={MAIL: newest.id.sequence} if newest else {})
    return decide_credential(replace(wanted, **more), newest, state, now, renew=renew)


def test_a_leaf_that_fits_is_kept_without_a_reason() -> None:
    decision = decided(leaf())
    assert (CredentialId(MAIL, 1), None, ()) == (decision.id, decision.profile, decision.reasons)


def test_an_instance_without_a_leaf_is_new() -> None:
    decision = decided(None)
    assert ((Reason.NEW_INSTANCE,), CredentialId(MAIL, 1)) == (decision.reasons, decision.id)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"authority": G2}, Reason.CA_ROTATED),
        ({"names": (*NAMES, "post.example.com")}, Reason.NAMES_CHANGED),
        ({"names": ("post.example.com",)}, Reason.NAMES_CHANGED),
        ({"transitional_names": ("old.example.com",)}, Reason.NAMES_CHANGED),
        ({"addresses": ("192.0.2.1",)}, Reason.NAMES_CHANGED),
        ({"usages": frozenset(KeyUsage)}, Reason.KEY_USAGE_CHANGED),
        ({"policy": CertificatePolicy(key=KeyAlgorithm.RSA_2048)}, Reason.KEY_ALGORITHM_CHANGED),
        ({"policy": CertificatePolicy(lifetime=60 * DAY)}, Reason.LIFETIME_CHANGED),
    ],
    ids=lambda one: ", ".join(one) if isinstance(one, dict) else str(one),  # a set has no order
)
def test_each_thing_that_differs_is_a_reason_of_its_own(wanted: dict[str, Any], reason: Reason) -> None:
    assert (reason,) == decided(leaf(), **wanted).reasons


def test_all_that_differs_is_said_at_once() -> None:
    wanted: dict[str, Any] = {
        "authority": G2,
        "names": ("post.example.com",),
        "usages": frozenset(KeyUsage),
        "policy": CertificatePolicy(key=KeyAlgorithm.ED25519, lifetime=60 * DAY),
    }
    state = replace(new_state(), sequences={MAIL: 1}, keys_missing=frozenset({MAIL}))
    assert (
        Reason.KEY_MISSING,
        Reason.CA_ROTATED,
        Reason.NAMES_CHANGED,
        Reason.KEY_ALGORITHM_CHANGED,
        Reason.LIFETIME_CHANGED,
        Reason.KEY_USAGE_CHANGED,
        Reason.RENEWAL_DUE,
    ) == decided(leaf(), state, NOW + 80 * DAY, **wanted).reasons


def test_a_usage_that_is_not_needed_any_more_waits_for_the_next_renewal() -> None:
    both = leaf(usages=frozenset(KeyUsage))
    assert () == decided(both).reasons
    renewed = decided(both, now=NOW + 70 * DAY).profile
    assert renewed is not None
    assert {KeyUsage.SERVER_AUTH} == renewed.usages


def test_a_leftover_of_a_rename_waits_for_the_next_renewal() -> None:
    both = leaf(transitional_names=("old.example.com",))
    assert () == decided(both).reasons
    renewed = decided(both, now=NOW + 70 * DAY).profile
    assert renewed is not None
    assert renewed.presented_names == NAMES


def test_a_name_of_its_own_that_goes_does_not_wait() -> None:
    both = leaf(names=(*NAMES, "old.example.com"))
    assert (Reason.NAMES_CHANGED,) == decided(both).reasons
    assert (Reason.NAMES_CHANGED,) == decided(both, transitional_names=("old.example.com",)).reasons


def test_a_leaf_is_due_from_its_renewal_time_on_and_not_before() -> None:
    due = leaf().not_after - CertificatePolicy().renew_before
    assert () == decided(leaf(), now=due - timedelta(seconds=1)).reasons
    assert (Reason.RENEWAL_DUE,) == decided(leaf(), now=due).reasons
    assert () == decided(leaf(), now=due, renew=False).reasons


def test_a_leaf_never_outlives_its_authority() -> None:
    assert NOW + 10 * DAY == decided(None, authority_ends=NOW + 10 * DAY).not_after


def test_a_number_that_was_given_out_is_never_used_again() -> None:
    lost = replace(new_state(), sequences={MAIL: 7})
    assert CredentialId(MAIL, 8) == decided(None, lost).id
    assert CredentialId(MAIL, 8) == decided(leaf(3), lost, authority=G2).id


def test_the_newest_leaf_counts_and_not_the_live_one() -> None:
    state = replace(new_state(), credentials={one.id: one for one in (leaf(2), leaf(10), leaf(1))})
    assert {MAIL: CredentialId(MAIL, 10)} == {name: one.id for name, one in newest_credentials(state).items()}


CALENDAR = estate(service("schedule", door("mail")), service("mail"))


def test_a_leaf_that_was_issued_and_never_went_live_is_used_by_the_next_apply() -> None:
    world = applied(CALENDAR)
    rotated = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    apply(rotated, world, fails={StepId(at("schedule"), Wave.EXTEND)})
    assert CredentialId(MAIL, 1) == world.state.live[MAIL].recipe.credential
    again = plan_of(rotated, world)
    assert () == again.certificate_changes
    apply(rotated, world)
    assert CredentialId(MAIL, 2) == world.state.live[MAIL].recipe.credential


def test_a_pending_leaf_whose_key_is_gone_is_issued_again() -> None:
    world = applied(CALENDAR)
    rotated = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    apply(rotated, world, fails={StepId(at("schedule"), Wave.EXTEND)})
    world.state = replace(world.state, keys_missing=frozenset({MAIL}))
    (change,) = plan_of(rotated, world).certificate_changes
    assert (Op.CHANGE, (Reason.KEY_MISSING,)) == (change.op, change.reasons)


def test_an_instance_that_was_removed_and_comes_back_is_new() -> None:
    world = applied(CALENDAR)
    alone = changed(without(CALENDAR, "mail"), "schedule", listeners=(door(),))
    apply(alone, world)
    world.state = replace(world.state, keys_missing=frozenset({MAIL}))
    (change,) = (one for one in plan_of(CALENDAR, world).certificate_changes if one.instance == MAIL)
    assert (Op.ADD, (Reason.NEW_INSTANCE,)) == (change.op, change.reasons)
    assert change.profile is not None
    assert CredentialId(MAIL, 2) == change.profile.id


# --- authorities ----------------------------------------------------------------------------------------------------


def kept_or_made(
    current: CertificationAuthority | None,
    names: tuple[str, ...] = NAMES,
    now: datetime = NOW,
    *,
    given_out: int = 1,
    renew: bool = True,
    **more: Any,
) -> AuthorityDecision:
    addresses = more.pop("addresses", False)
    mail = WantedAuthority(owner="mail", policy=AuthorityPolicy(**more), names=names, addresses=addresses)
    state = replace(new_state(), generations={"mail": given_out} if given_out else {})
    return decide_authority(mail, current, state, now, renew=renew)


def test_an_authority_that_fits_is_kept() -> None:
    decision = kept_or_made(authority())
    assert (G1, None, ()) == (decision.id, decision.profile, decision.reasons)


def test_the_first_authority_is_the_first_generation() -> None:
    decision = kept_or_made(None, given_out=0)
    assert (G1, (Reason.NEW_SERVICE,)) == (decision.id, decision.reasons)
    assert decision.profile is not None
    assert decision.profile.common_name == "mail.calendar CA g1"
    assert (NAMES, False) == (decision.profile.permitted_names, decision.profile.addresses)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"generation": 2}, Reason.GENERATION_ASKED),
        ({"key": KeyAlgorithm.RSA_4096}, Reason.KEY_ALGORITHM_CHANGED),
        ({"addresses": True}, Reason.NAME_OUTSIDE_CONSTRAINTS),
        ({"names": (*NAMES, "post.example.com")}, Reason.NAME_OUTSIDE_CONSTRAINTS),
        ({"now": NOW + 1825 * DAY - AuthorityPolicy().renew_before}, Reason.CA_ENDS),
    ],
    ids=str,
)
def test_each_thing_makes_the_next_generation(policy: dict[str, Any], reason: Reason) -> None:
    decision = kept_or_made(authority(), **policy)
    assert (G2, (reason,)) == (decision.id, decision.reasons)


@pytest.mark.parametrize(
    "policy",
    [
        {"names": ("smtp.mail.example.com",)},
        {"lifetime": 400 * DAY},
        {"now": NOW + 1825 * DAY - AuthorityPolicy().renew_before - timedelta(seconds=1)},
        {"now": NOW + 1825 * DAY, "renew": False},
    ],
    ids=["a name below the constraint", "a lifetime for the next one", "just before it is due", "time does not count"],
)
def test_what_needs_no_new_authority(policy: dict[str, Any]) -> None:
    assert () == kept_or_made(authority(), **policy).reasons


def test_an_authority_that_allows_addresses_is_kept_when_none_are_wanted() -> None:
    assert () == kept_or_made(authority(addresses=True)).reasons


def test_a_name_that_only_ends_alike_is_outside() -> None:
    assert (Reason.NAME_OUTSIDE_CONSTRAINTS,) == kept_or_made(authority(), ("hotmail.example.com",)).reasons


def test_all_reasons_for_an_authority_are_said_at_once() -> None:
    decision = kept_or_made(
        authority(), ("post.example.com",), NOW + 1800 * DAY, generation=2, key=KeyAlgorithm.ED25519
    )
    assert (
        Reason.GENERATION_ASKED,
        Reason.KEY_ALGORITHM_CHANGED,
        Reason.NAME_OUTSIDE_CONSTRAINTS,
        Reason.CA_ENDS,
    ) == decision.reasons


def test_a_generation_that_was_given_out_is_never_used_again() -> None:
    assert AuthorityId("mail", 5) == kept_or_made(authority(), given_out=4, generation=2).id
    assert AuthorityId("mail", 5) == kept_or_made(None, given_out=4).id


def test_the_inventory_may_ask_for_a_generation_further_on() -> None:
    assert AuthorityId("mail", 9) == kept_or_made(authority(), generation=9).id


def test_the_current_authority_is_the_newest_that_can_still_sign() -> None:
    gone = replace(authority(AuthorityId("mail", 11)), key_destroyed=True)
    state = replace(new_state(), authorities={one.id: one for one in (authority(AuthorityId("mail", 10)), gone)})
    state = replace(state, authorities={**state.authorities, G2: authority(G2)})
    assert AuthorityId("mail", 10) == current_authorities(state)["mail"].id


# --- the end of authorities -----------------------------------------------------------------------------------------

ROTATED = replace(new_state(), authorities={G1: authority(), G2: authority(G2)}, leaf_ends={G1: NOW + 90 * DAY})
KEPT = {"mail": kept_or_made(authority(G2))}


def test_a_key_is_destroyed_when_the_last_leaf_has_ended_and_not_before() -> None:
    assert () == keys_to_destroy(ROTATED, KEPT, NOW + 90 * DAY - timedelta(seconds=1))
    assert (G1,) == keys_to_destroy(ROTATED, KEPT, NOW + 90 * DAY)


def test_the_key_that_signs_is_never_destroyed() -> None:
    ended = replace(ROTATED, leaf_ends={G1: NOW, G2: NOW})
    assert (G1,) == keys_to_destroy(ended, KEPT, NOW + 3000 * DAY)


def test_a_key_that_never_signed_goes_as_soon_as_another_has_taken_its_place() -> None:
    assert (G1,) == keys_to_destroy(replace(ROTATED, leaf_ends={}), KEPT, NOW)


def test_a_key_is_destroyed_once() -> None:
    done = replace(ROTATED, authorities={G1: replace(authority(), key_destroyed=True), G2: authority(G2)})
    assert () == keys_to_destroy(done, KEPT, NOW + 3000 * DAY)


def test_the_keys_of_a_removed_service_go_when_its_last_leaf_has_ended() -> None:
    state = replace(ROTATED, leaf_ends={G1: NOW, G2: NOW + 90 * DAY})
    assert (G1,) == keys_to_destroy(state, {}, NOW)
    assert (G1, G2) == keys_to_destroy(state, {}, NOW + 90 * DAY)


def test_a_removed_service_gives_its_key_up_in_a_later_plan() -> None:
    world = applied(CALENDAR)
    alone = changed(without(CALENDAR, "mail"), "schedule", listeners=(door(),))
    apply(alone, world)
    assert not plan_of(alone, world).has_changes
    later = plan_of(alone, world, NOW + 100 * DAY)
    assert (Op.REMOVE, G1, True) in [(one.op, one.id, one.due) for one in later.authority_changes]


def test_a_service_that_comes_back_after_its_key_was_destroyed_gets_the_next_generation() -> None:
    world = applied(CALENDAR)
    alone = changed(without(CALENDAR, "mail"), "schedule", listeners=(door(),))
    apply(alone, world)
    apply(alone, world, NOW + 100 * DAY)
    assert world.state.authorities[G1].key_destroyed
    again = plan_of(CALENDAR, world, NOW + 100 * DAY)
    (change,) = (one for one in again.authority_changes if one.id.service == "mail")
    assert (Op.ADD, G2, (Reason.NEW_SERVICE,)) == (change.op, change.id, change.reasons)
