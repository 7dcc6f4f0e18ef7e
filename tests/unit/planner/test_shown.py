"""Listeners that show a certificate which somebody else issued: recipes, waves, and what a plan refuses about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import AuthorityId
from mtlsctl.model.plan import Wave
from mtlsctl.model.release import ShownCertificate, recipe_from_json, recipe_to_json
from mtlsctl.model.topology import ClientCertificate, OutsideCertificate, ServerCertificate, TrustModel
from mtlsctl.model.trust import OutsideAnchor, PeerPolicy
from mtlsctl.planner import shown
from mtlsctl.planner.outside import NOT_VALID_NOW, SYSTEM_TRUST
from mtlsctl.planner.plan import make_plan
from mtlsctl.planner.safety import CANNOT_SHOW, ONE_STORE
from tests.support.estates import at, changed, door, estate, line, service
from tests.support.runtimes import ABLE, NGINX, RUNTIMES
from tests.support.topologies import CERTIFICATES, LEAVES, OUTSIDE_FACTS
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan, Step, StepId
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.topology import Inventory, Listener

FIRST, SECOND, *_ = CERTIFICATES
LEAF, OTHER, *_ = LEAVES  # issued by the first and by the second
KEY = "/etc/ssl/private/site.key"
OWN = PeerPolicy(anchors=frozenset([AuthorityId("schedule", 1)]))
BY_FIRST = PeerPolicy(anchors=frozenset([OutsideAnchor("schedule", FIRST)]))
BY_SECOND = PeerPolicy(anchors=frozenset([OutsideAnchor("schedule", SECOND)]))


def bought(leaf: str = LEAF, *trust: str, key: str = KEY) -> ServerCertificate:
    """Without a CA to believe it by, callers believe what their machine believes."""
    return ServerCertificate(chain=(leaf,), key_path=key, trust=trust, file="site.pem", span=line(50))


def calendar(certificate: ServerCertificate | None, *names: str, hosts: tuple[str, ...] = ("h1",)) -> Inventory:
    """`schedule`, called by `mail` unless other callers are named, shows the certificate."""
    who = names or ("mail",)
    listener = replace(door(*who), server_certificate=certificate)
    return knowing(estate(service("schedule", listener, hosts=hosts), *(service(one) for one in who)))


def knowing(inventory: Inventory) -> Inventory:
    """With the files of every certificate that a listener shows."""
    doors = (listener for one in inventory.services.values() for listener in one.listeners)
    certificates = [one.server_certificate for one in doors if one.server_certificate is not None]
    files = {
        one: OutsideCertificate(der=b"", file=f"ca/{one[-1]}.pem", span=line(51))
        for c in certificates
        for one in c.trust
    }
    chains = {one: OutsideCertificate(der=b"", file="site.pem", span=line(50)) for c in certificates for one in c.chain}
    return replace(inventory, certificates=files, chains=chains)


def planned(inventory: Inventory, world: World | None = None, facts: Any = OUTSIDE_FACTS, **able: Any) -> Plan:
    nginx = replace(NGINX, enforcement=replace(ABLE, **able))
    return make_plan(inventory, (world or World()).state, {**RUNTIMES, "nginx": nginx}, NOW, facts)


def applied(*inventories: Inventory, without: tuple[Wave, ...] = ()) -> World:
    """One after the other, each step of each; of the last one not those of some waves."""
    world = World()
    for inventory in inventories:
        plan = planned(inventory, world)
        assert () == plan.refusals
        world.issue(plan, NOW)
        for step in plan.steps:
            if inventory is not inventories[-1] or step.id.wave not in without:
                world.publish(step)
        world.end()
    return world


def refused(inventory: Inventory, world: World | None = None, facts: Any = OUTSIDE_FACTS, **able: Any) -> list[str]:
    return [one.code for one in planned(inventory, world, facts, **able).refusals]


def recipes(plan: Plan, name: str) -> dict[Wave, Recipe]:
    return {one.id.wave: one.recipe for one in plan.steps if one.id.instance.service == name and one.recipe is not None}


def beliefs(plan: Plan, name: str = "mail") -> dict[Wave, PeerPolicy]:
    return {wave: recipe.callees[0].policy for wave, recipe in recipes(plan, name).items()}


def shows(plan: Plan) -> dict[Wave, str | None]:
    found = {wave: recipe.listeners[0].shows for wave, recipe in recipes(plan, "schedule").items()}
    return {wave: None if one is None else one.leaf for wave, one in found.items()}


def widened(*policies: PeerPolicy) -> PeerPolicy:
    return PeerPolicy(anchors=frozenset().union(*(one.anchors for one in policies)))


# --- recipes --------------------------------------------------------------------------------------------------------


def test_callers_believe_the_issuer_and_no_ca_of_ours() -> None:
    plan = planned(calendar(bought(LEAF, FIRST)))
    assert {Wave.ACTIVATE: LEAF} == shows(plan)
    assert {Wave.ACTIVATE: BY_FIRST} == beliefs(plan)
    assert not recipes(plan, "mail")[Wave.ACTIVATE].callees[0].believes_system


def test_with_system_callers_believe_their_machine_and_no_anchor() -> None:
    (callee,) = recipes(planned(calendar(bought(LEAF))), "mail")[Wave.ACTIVATE].callees
    assert callee.believes_system
    assert frozenset() == callee.policy.anchors


def test_clients_are_verified_as_ever_and_the_service_keeps_a_leaf_of_its_own() -> None:
    recipe = recipes(planned(calendar(bought(LEAF, FIRST))), "schedule")[Wave.ACTIVATE]
    assert frozenset([AuthorityId("mail", 1)]) == recipe.listeners[0].policy.anchors
    assert at("schedule") == recipe.credential.instance


def test_another_listener_of_the_service_shows_its_own_and_is_believed_by_its_ca() -> None:
    listeners = (replace(door("mail"), server_certificate=bought(LEAF, FIRST)), door("mail", port=9443, name="admin"))
    plan = planned(knowing(estate(service("schedule", *listeners), service("mail"))))
    found = {one.listener.listener: one.policy for one in recipes(plan, "mail")[Wave.ACTIVATE].callees}
    assert {"main": BY_FIRST, "admin": OWN} == found


def test_a_recipe_comes_back_from_its_json() -> None:
    recipe = recipes(planned(calendar(bought(LEAF, FIRST))), "schedule")[Wave.ACTIVATE]
    assert recipe == recipe_from_json(recipe_to_json(recipe))
    assert ShownCertificate((LEAF,), KEY) == recipe.listeners[0].shows


def test_applied_twice_nothing_is_left_to_do() -> None:
    inventory = calendar(bought(LEAF, FIRST))
    assert not planned(inventory, applied(inventory)).has_changes


# --- waves ----------------------------------------------------------------------------------------------------------


def test_callers_believe_both_before_a_live_listener_shows_what_was_bought() -> None:
    plan = planned(calendar(bought(LEAF, FIRST)), applied(calendar(None)))
    assert {Wave.ACTIVATE: LEAF} == shows(plan)
    assert {Wave.EXTEND: widened(OWN, BY_FIRST), Wave.WITHDRAW: BY_FIRST} == beliefs(plan)
    assert _waits(plan, "schedule", Wave.ACTIVATE) == {("mail", Wave.EXTEND)}
    assert ("schedule", Wave.ACTIVATE) in _waits(plan, "mail", Wave.WITHDRAW)


def test_the_way_back_to_the_own_certificate_is_the_same() -> None:
    plan = planned(calendar(None), applied(calendar(bought(LEAF, FIRST))))
    assert {Wave.ACTIVATE: None} == shows(plan)
    assert {Wave.EXTEND: widened(OWN, BY_FIRST), Wave.WITHDRAW: OWN} == beliefs(plan)


def test_a_certificate_of_another_ca_is_believed_before_it_is_shown() -> None:
    plan = planned(calendar(bought(OTHER, SECOND)), applied(calendar(bought(LEAF, FIRST))))
    assert {Wave.ACTIVATE: OTHER} == shows(plan)
    assert {Wave.EXTEND: widened(BY_FIRST, BY_SECOND), Wave.WITHDRAW: BY_SECOND} == beliefs(plan)


def test_a_renewed_chain_of_the_same_ca_touches_nobody_else() -> None:
    renewed = LEAVES[len(CERTIFICATES)]
    plan = planned(calendar(bought(renewed, FIRST)), applied(calendar(bought(LEAF, FIRST))))
    assert {Wave.ACTIVATE: renewed} == shows(plan)
    assert {} == beliefs(plan)


def test_another_key_under_the_same_chain_is_a_change_of_the_listener() -> None:
    plan = planned(calendar(bought(LEAF, FIRST, key="/etc/ssl/new.key")), applied(calendar(bought(LEAF, FIRST))))
    (change,) = [one for one in plan.service_changes if one.instance.service == "schedule"]
    assert f"shows certificate {LEAF[:16]} with the key /etc/ssl/new.key" in change.details[0]


def test_while_callers_come_the_old_certificate_is_shown_until_the_new_one_is() -> None:
    """The listener is widened for the new caller in a release of its own, with what it showed before."""
    live = applied(calendar(bought(LEAF, FIRST), "mail", "social"))
    rotated = changed(calendar(bought(OTHER, SECOND), "mail", "social"), "mail")
    policy = replace(rotated.services["mail"].authority, generation=2)
    plan = planned(knowing(changed(rotated, "mail", authority=policy)), live)
    assert {Wave.EXTEND: LEAF, Wave.ACTIVATE: OTHER, Wave.WITHDRAW: OTHER} == shows(plan)


def test_with_other_cas_and_the_same_certificate_only_callers_change() -> None:
    plan = planned(calendar(bought(LEAF, FIRST, SECOND)), applied(calendar(bought(LEAF, FIRST))))
    assert {} == shows(plan)
    assert {widened(BY_FIRST, BY_SECOND)} == set(beliefs(plan).values())


def test_a_chain_that_the_machine_believes_is_replaced_by_another_in_one_step() -> None:
    plan = planned(calendar(bought(OTHER)), applied(calendar(bought(LEAF))))
    assert {Wave.ACTIVATE: OTHER} == shows(plan)
    assert {} == recipes(plan, "mail")


def test_an_apply_that_stopped_half_way_goes_on_to_what_is_declared() -> None:
    inventory = calendar(bought(LEAF, FIRST))
    world = applied(calendar(None), inventory, without=(Wave.ACTIVATE, Wave.WITHDRAW))
    plan = planned(inventory, world)
    assert {Wave.ACTIVATE: LEAF} == shows(plan)
    assert {Wave.WITHDRAW: BY_FIRST} == beliefs(plan)


def _waits(plan: Plan, name: str, wave: Wave) -> set[tuple[str, Wave]]:
    (step,) = [one for one in plan.steps if one.id.instance.service == name and one.id.wave is wave]
    return {(one.instance.service, one.wave) for one in _others(step)}


def _others(step: Step) -> list[StepId]:
    return [one for one in step.waits_for if one.instance != step.id.instance]


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"), [(None, bought(LEAF)), (bought(LEAF), None), (bought(LEAF, FIRST), bought(OTHER))]
)
def test_the_machine_is_not_believed_from_the_moment_on_that_the_certificate_changes(
    before: ServerCertificate | None, after: ServerCertificate | None
) -> None:
    assert [shown.TWO_BELIEFS] == refused(calendar(after), applied(calendar(before)))


def test_in_two_applies_it_is() -> None:
    world = applied(calendar(None), calendar(bought(LEAF, FIRST)), calendar(bought(LEAF)))
    assert not planned(calendar(bought(LEAF)), world).has_changes


def test_without_live_callers_nobody_is_left_out() -> None:
    live = applied(knowing(estate(service("schedule", door()), service("mail"))))
    assert [] == refused(calendar(bought(LEAF)), live)


def test_a_name_that_live_callers_check_has_to_be_presented_too() -> None:
    facts = {**OUTSIDE_FACTS, LEAF: replace(OUTSIDE_FACTS[LEAF], names=("www.example.com",))}
    inventory = changed(calendar(bought(LEAF, FIRST)), "schedule", names=service("www").names)
    assert [shown.NAME_STILL_CHECKED] == refused(inventory, applied(calendar(None)), facts)
    assert [] == refused(inventory, None, facts)


@pytest.mark.parametrize("kind", ["not begun", "ended"])
def test_a_chain_that_is_not_good_now_is_refused_and_one_that_is_live_only_spoken_of(kind: str) -> None:
    dates: dict[str, Any] = {"not_before": NOW + timedelta(days=1)} if kind == "not begun" else {"not_after": NOW}
    facts = {**OUTSIDE_FACTS, LEAF: replace(OUTSIDE_FACTS[LEAF], **dates)}
    inventory = calendar(bought(LEAF, FIRST))
    assert [NOT_VALID_NOW] == refused(inventory, None, facts)
    again = planned(inventory, applied(inventory), facts)
    assert ([], [NOT_VALID_NOW]) == ([*again.refusals], [one.code for one in again.warnings])
    assert line(50) == again.warnings[0].span


def test_what_ends_within_the_services_renewal_time_is_spoken_of() -> None:
    ends = {**OUTSIDE_FACTS, LEAF: replace(OUTSIDE_FACTS[LEAF], not_after=NOW + timedelta(days=29))}
    later = {**OUTSIDE_FACTS, LEAF: replace(OUTSIDE_FACTS[LEAF], not_after=NOW + timedelta(days=31))}
    inventory = calendar(bought(LEAF, FIRST))
    assert [NOT_VALID_NOW] == [one.code for one in planned(inventory, None, ends).warnings]
    assert () == planned(inventory, None, later).warnings


def test_a_runtime_that_takes_its_key_from_a_store_cannot_show_it() -> None:
    assert [CANNOT_SHOW] == refused(calendar(bought(LEAF, FIRST)), server_certificate=False)
    assert [] == refused(calendar(None), server_certificate=False)


def test_a_caller_that_cannot_believe_its_machine_is_refused_at_system_only() -> None:
    assert [SYSTEM_TRUST] == refused(calendar(bought(LEAF)), system_trust=False)
    assert [] == refused(calendar(bought(LEAF, FIRST)), system_trust=False)


def test_the_issuer_must_not_get_into_the_one_store_of_a_caller_that_listens() -> None:
    inventory = calendar(bought(LEAF, FIRST))
    listening = knowing(changed(inventory, "mail", listeners=(door("schedule", port=9000),)))
    assert ONE_STORE in refused(listening, separate_trust=False)
    assert [] == refused(listening)


def test_a_caller_that_believes_all_callees_alike_calls_no_other() -> None:
    both = estate(
        service("schedule", replace(door("mail"), server_certificate=bought(LEAF, FIRST))),
        service("ledger", door("mail")),
        service("mail", runtime="alike"),
    )
    alike = replace(NGINX, name="alike", separate_servers=False)
    found = make_plan(knowing(both), World().state, {**RUNTIMES, "alike": alike}, NOW, OUTSIDE_FACTS)
    assert [ONE_STORE] == [one.code for one in found.refusals]


# --- what an approver sees ------------------------------------------------------------------------------------------


def risks(plan: Plan) -> dict[str, str]:
    return {one.code: one.summary for one in plan.risks if one.code in shown.MEANINGS}


def test_what_is_shown_and_by_whom_it_is_believed_stands_on_top_with_its_line() -> None:
    plan = planned(calendar(bought(LEAF, FIRST)))
    found = risks(plan)
    assert "schedule:8443 shows site.pem, good until 2060-01-01" in found[shown.SHOWS_ANOTHER]
    assert KEY in found[shown.SHOWS_ANOTHER]
    assert "schedule:8443 is to be believed by mail through ca/0.pem" in found[shown.BELIEVED_BY_OTHERS]
    assert {line(50)} == {one.span for one in plan.risks if one.code in shown.MEANINGS}


def test_with_system_it_is_said_that_the_machine_is_believed() -> None:
    assert "through what the machine believes" in risks(planned(calendar(bought(LEAF))))[shown.BELIEVED_BY_OTHERS]


def test_what_is_live_as_declared_is_no_risk_any_more() -> None:
    inventory = calendar(bought(LEAF, FIRST))
    assert {} == risks(planned(inventory, applied(inventory)))


def test_a_renewed_chain_is_shown_as_a_risk_of_the_listener_alone() -> None:
    renewed = LEAVES[len(CERTIFICATES)]
    plan = planned(calendar(bought(renewed, FIRST)), applied(calendar(bought(LEAF, FIRST))))
    assert [shown.SHOWS_ANOTHER] == list(risks(plan))


@pytest.mark.parametrize("model", TrustModel)
@pytest.mark.parametrize("mode", ClientCertificate)
def test_it_goes_with_every_trust_model_and_mode(model: TrustModel, mode: ClientCertificate) -> None:
    listener: Listener = replace(door("mail", client_certificate=mode), server_certificate=bought(LEAF, FIRST))
    inventory = knowing(estate(service("schedule", listener, trust=model), service("mail", trust=model)))
    assert not planned(inventory, applied(inventory)).has_changes
