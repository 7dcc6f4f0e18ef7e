"""Callers and servers outside the estate: policies, waves, and everything that a plan refuses about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import SHARED, AuthorityId, KeyUsage
from mtlsctl.model.diagnostic import Severity
from mtlsctl.model.plan import Op, OutsideGrant, Wave
from mtlsctl.model.probe import Expectation, Presented
from mtlsctl.model.topology import (
    OUTSIDE,
    Authorize,
    ClientCertificate,
    ExternalServer,
    ForwardIdentity,
    InstanceId,
    OutsideCertificate,
    Outsider,
    TrustModel,
)
from mtlsctl.model.trust import EVERYBODY, Member, OutsideAnchor, PeerPolicy, policy_of
from mtlsctl.planner import outside
from mtlsctl.planner.outside import SOON
from mtlsctl.planner.plan import make_plan
from mtlsctl.planner.probes import make_probes
from mtlsctl.planner.safety import BY_NAME, ONE_STORE
from tests.support.estates import at, callers, door, estate, line, service, without
from tests.support.runtimes import ABLE, NGINX, RUNTIMES
from tests.support.topologies import CERTIFICATES, OUTSIDE_FACTS
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.topology import Inventory, Listener

FIRST, SECOND, THIRD, *_ = CERTIFICATES
SHARED_G1 = AuthorityId(SHARED, 1)
ACME = OutsideAnchor("acme", FIRST)


def outsider(
    *identities: str, name: str = "acme", certificates: tuple[str, ...] = (FIRST,), anybody: bool = False
) -> Outsider:
    return Outsider(
        name=name, certificates=certificates, identities=None if anybody else identities or ("api",), span=line(31)
    )


def bank(*names: str, certificates: tuple[str, ...] = (FIRST,), **more: Any) -> ExternalServer:
    values = {"name": "bank", "host": "api.bank.example", "port": 443, **more}
    return ExternalServer(certificates=certificates, callers=callers(*names), span=line(32), **values)


def opened(listener: Listener, *outsiders: Outsider) -> Listener:
    return replace(listener, outsiders=outsiders)


def knowing(inventory: Inventory, *servers: ExternalServer) -> Inventory:
    """With the servers outside, and the certificates that anything names."""
    doors = (listener for one in inventory.services.values() for listener in one.listeners)
    named = {one for listener in doors for who in listener.outsiders for one in who.certificates}
    named.update(one for server in servers for one in server.certificates)
    files = {one: OutsideCertificate(der=b"", file=f"partners/{one[-1]}.pem", span=line(33)) for one in named}
    return replace(inventory, external_servers=servers, certificates=files)


def calendar(*outsiders: Outsider, model: TrustModel = TrustModel.SERVICE_CA, **more: Any) -> Inventory:
    return knowing(
        estate(
            service("schedule", opened(door("mail", **more), *outsiders), trust=model),
            service("mail", trust=model),
        )
    )


def planned(inventory: Inventory, world: World | None = None, facts: Any = OUTSIDE_FACTS, **able: Any) -> Plan:
    nginx = replace(NGINX, enforcement=replace(ABLE, **able))
    state = (world or World()).state
    return make_plan(inventory, state, {**RUNTIMES, "nginx": nginx}, NOW, facts)


def applied(*inventories: Inventory) -> World:
    """One after the other, each step of each."""
    world = World()
    for inventory in inventories:
        plan = planned(inventory, world)
        assert () == plan.refusals
        world.issue(plan, NOW)
        for step in plan.steps:
            world.publish(step)
        world.end()
    return world


def refused(inventory: Inventory, world: World | None = None, facts: Any = OUTSIDE_FACTS, **able: Any) -> list[str]:
    return [one.code for one in planned(inventory, world, facts, **able).refusals]


def recipe_of(plan: Plan, name: str, wave: Wave = Wave.ACTIVATE) -> Recipe:
    (found,) = [one.recipe for one in plan.steps if one.id.instance.service == name and one.id.wave is wave]
    assert found is not None
    return found


def policy(plan: Plan, wave: Wave = Wave.ACTIVATE) -> PeerPolicy:
    return recipe_of(plan, "schedule", wave).listeners[0].policy


# --- policies -------------------------------------------------------------------------------------------------------


def test_an_outsider_is_let_in_by_the_whole_name_beside_each_service() -> None:
    found = policy(planned(calendar(outsider("api", "CN=batch,O=Acme"))))
    assert found == PeerPolicy(
        anchors=frozenset({AuthorityId("mail", 1), ACME}),
        members=frozenset(
            {Member(AuthorityId("mail", 1), "mail"), Member(ACME, "api"), Member(ACME, "CN=batch,O=Acme")}
        ),
    )
    assert {"CN=mail", "CN=api", "CN=batch,O=Acme"} == {one.subject for one in found.members or ()}


def test_a_name_with_an_equals_sign_is_a_whole_subject_only_of_somebody_outside() -> None:
    assert "CN=O=x" == Member(SHARED_G1, "O=x").subject
    assert "O=x" == Member(ACME, "O=x").subject


def test_everybody_of_a_ca_needs_no_names() -> None:
    found = policy(planned(calendar(outsider(anybody=True))))
    assert found == PeerPolicy(anchors=frozenset({AuthorityId("mail", 1), ACME}))
    assert found.outsiders == {"acme"}


def test_names_of_one_ca_and_everybody_of_another_are_mixed_and_nothing_else_is() -> None:
    named, everybody = Member(ACME, "api"), Member(OutsideAnchor("globex", SECOND), EVERYBODY)
    assert policy_of([named, everybody]).is_mixed
    assert policy_of([Member(SHARED_G1, "mail"), everybody]).is_mixed
    assert not policy_of([Member(AuthorityId("mail", 1), "mail"), everybody]).is_mixed
    assert not policy_of([Member(SHARED_G1, "mail"), named]).is_mixed
    # Of one anchor everybody is everybody, whoever is named besides; of the shared CA in each generation.
    assert PeerPolicy(anchors=frozenset({ACME})) == policy_of([named, Member(ACME, EVERYBODY)])
    second = AuthorityId(SHARED, 2)
    assert PeerPolicy(anchors=frozenset({SHARED_G1, second})) == policy_of(
        [Member(SHARED_G1, "mail"), Member(second, EVERYBODY)]
    )


# --- waves ----------------------------------------------------------------------------------------------------------


def test_who_comes_is_let_in_with_extend_and_who_goes_until_withdraw() -> None:
    world = applied(calendar(outsider(name="globex", certificates=(SECOND,))))
    rotated = calendar(outsider(name="acme"))
    rotated = replace(
        rotated,
        services={
            **rotated.services,
            "mail": replace(
                rotated.services["mail"], authority=replace(rotated.services["mail"].authority, generation=2)
            ),
        },
    )
    plan = planned(rotated, world)
    gone = OutsideAnchor("globex", SECOND)
    anchors = {wave: policy(plan, wave).anchors for wave in (Wave.EXTEND, Wave.WITHDRAW)}
    assert {ACME, gone} <= anchors[Wave.EXTEND]
    assert ACME in anchors[Wave.WITHDRAW]
    assert gone not in anchors[Wave.WITHDRAW]


def test_a_new_certificate_beside_the_old_one_breaks_nobody_and_nobody_is_reissued() -> None:
    world = applied(calendar(outsider()))
    plan = planned(calendar(outsider(certificates=(FIRST, SECOND))), world)
    assert () == plan.certificate_changes
    assert {Wave.EXTEND} == {step.id.wave for step in plan.steps}


def test_an_external_server_is_a_callee_whose_caller_is_for_clients() -> None:
    plan = planned(knowing(calendar(), bank("mail")))
    callee = next(one for one in recipe_of(plan, "mail").callees if one.is_outside)
    assert callee.endpoints[0].instance == InstanceId("bank", OUTSIDE)
    assert callee.server_name == "api.bank.example"
    assert callee.policy.anchors == {OutsideAnchor("bank", FIRST)}
    assert not callee.believes_system
    assert {KeyUsage.CLIENT_AUTH} == next(one.usages for one in plan.certificates if one.common_name == "mail")


def test_a_service_that_listens_is_reissued_for_its_first_call_outside() -> None:
    world = applied(calendar())
    plan = planned(knowing(calendar(), bank("schedule")), world)
    (leaf,) = plan.certificates
    assert {KeyUsage.CLIENT_AUTH, KeyUsage.SERVER_AUTH} == leaf.usages


def test_what_a_call_outside_believes_changes_in_one_switch() -> None:
    world = applied(knowing(calendar(), bank("mail")))
    plan = planned(knowing(calendar(), bank("mail", certificates=())), world)
    (step,) = plan.steps
    assert step.id.wave is Wave.ACTIVATE
    assert step.recipe is not None
    callee = next(one for one in step.recipe.callees if one.is_outside)
    assert (callee.believes_system, callee.policy.anchors) == (True, frozenset())


def test_its_name_is_none_of_ours_that_callers_still_check() -> None:
    world = applied(knowing(calendar(), bank("mail")))
    plan = planned(knowing(calendar(), bank("mail", host="other.bank.example")), world)
    assert () == plan.certificate_changes


# --- what is shown --------------------------------------------------------------------------------------------------


def test_the_plan_says_who_from_outside_may_call_and_by_what() -> None:
    (grant,) = [one for one in planned(calendar(outsider())).access if one.outside]
    assert (grant.op, grant.caller, str(grant.edge.listener)) == (Op.ADD, "acme (outside)", "schedule")
    assert grant.outside == OutsideGrant((FIRST,), ("api",))


@pytest.mark.parametrize(
    "after",
    [outsider("other"), outsider(certificates=(SECOND,)), outsider(anybody=True), outsider("api", "more")],
    ids=["another identity", "another certificate", "everybody", "one identity more"],
)
def test_a_change_of_what_lets_them_in_is_a_change_of_access_and_of_the_fingerprint(after: Outsider) -> None:
    before = calendar(outsider())
    world = applied(before)
    plan = planned(calendar(after), world)
    assert [(Op.CHANGE, "acme (outside)")] == [(one.op, one.caller) for one in plan.access]
    assert plan.fingerprint != planned(before, world).fingerprint


def test_nothing_is_said_when_nothing_changes_and_the_end_is_said_when_they_go() -> None:
    world = applied(calendar(outsider()))
    assert not planned(calendar(outsider()), world).has_changes
    (gone,) = planned(calendar(), world).access
    assert (gone.op, gone.caller, gone.outside) == (Op.REMOVE, "acme (outside)", OutsideGrant((FIRST,), ("api",)))


def test_a_service_in_the_place_of_an_outsider_is_another_caller() -> None:
    world = applied(calendar(outsider()))
    named = knowing(
        estate(
            service("schedule", door("mail", "acme")),
            service("mail"),
            service("acme"),
        )
    )
    access = {(one.op, one.caller) for one in planned(named, world).access}
    assert {(Op.REMOVE, "acme (outside)"), (Op.ADD, "acme")} == access


def test_the_first_things_to_see_are_open_doors_and_calls_that_leave() -> None:
    plan = planned(knowing(calendar(outsider(anybody=True)), bank("mail"), bank("mail", certificates=(), name="shop")))
    codes = [one.code for one in plan.risks]
    assert codes[:3] == [outside.EVERYBODY_OF_A_CA, outside.CALL_OUTSIDE, outside.TO_BE_TRUSTED_OUTSIDE]
    said = " ".join(one.summary for one in plan.risks)
    assert "bank (outside) has to trust mail CA g1" in said
    assert "believed by what the machine believes" in said


def test_who_is_trusted_outside_is_told_before_it_is_another() -> None:
    before = knowing(calendar(), bank("mail"))
    world = applied(before)
    assert () == planned(before, world).risks
    mail = before.services["mail"]
    rotated = replace(
        before,
        services={**before.services, "mail": replace(mail, authority=replace(mail.authority, generation=2))},
    )
    (risk,) = planned(rotated, world).risks
    assert (risk.code, "mail CA g2" in risk.summary) == (outside.TO_BE_TRUSTED_OUTSIDE, True)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_runtime_that_compares_no_names_takes_everybody_or_nobody() -> None:
    assert [BY_NAME] == refused(calendar(outsider()), identifiers=False)
    assert [] == refused(calendar(outsider(anybody=True)), identifiers=False)


def test_everybody_of_a_ca_does_not_go_with_names_at_one_listener() -> None:
    anybody = outsider(anybody=True, name="globex", certificates=(SECOND,))
    assert [outside.MIXED] == refused(calendar(outsider(), anybody))
    assert [outside.MIXED] == refused(calendar(anybody, model=TrustModel.SHARED_CA))
    assert [] == refused(calendar(anybody))
    assert [outside.MIXED] == refused(calendar(outsider(), model=TrustModel.SHARED_CA, authorize=Authorize.ANY_MEMBER))


def test_what_would_be_mixed_on_the_way_is_done_in_two_applies() -> None:
    world = applied(calendar(outsider(name="globex", certificates=(SECOND,))))
    assert [outside.MIXED] == refused(calendar(outsider(anybody=True)), world)
    assert [] == refused(calendar(), world)


def test_a_subject_that_programs_write_differently_is_no_name_to_compare_with() -> None:
    strange = {**OUTSIDE_FACTS, FIRST: replace(OUTSIDE_FACTS[FIRST], subject=None)}
    assert [outside.NOT_COMPARABLE] == refused(calendar(outsider()), facts=strange)
    assert [] == refused(calendar(outsider(anybody=True)), facts=strange)
    assert [] == refused(knowing(calendar(), bank("mail")), facts=strange)


def test_two_keys_under_one_name_are_refused_and_one_key_in_two_certificates_is_not() -> None:
    both = calendar(outsider(certificates=(FIRST, SECOND)))
    alike = {**OUTSIDE_FACTS, SECOND: replace(OUTSIDE_FACTS[SECOND], key_name=OUTSIDE_FACTS[FIRST].key_name)}
    assert [outside.SAME_NAME] == refused(both, facts=alike)
    renewed = {**alike, SECOND: replace(alike[SECOND], spki_sha256=alike[FIRST].spki_sha256)}
    assert [] == refused(both, facts=renewed)


def test_two_keys_under_one_name_are_refused_also_while_one_goes_and_one_comes() -> None:
    alike = {**OUTSIDE_FACTS, SECOND: replace(OUTSIDE_FACTS[SECOND], key_name=OUTSIDE_FACTS[FIRST].key_name)}
    world = applied(calendar(outsider()))
    assert [outside.SAME_NAME] == refused(calendar(outsider(certificates=(SECOND,))), world, facts=alike)


@pytest.mark.parametrize(
    "name", ["mail", "calendar ca g1", "calendar ca g9", "mail.calendar ca g2", "x.calendar ca g1"]
)
def test_a_name_that_only_ours_may_have_is_refused(name: str) -> None:
    posing = {**OUTSIDE_FACTS, FIRST: replace(OUTSIDE_FACTS[FIRST], key_name=f"2.5.4.3={name}")}
    assert outside.SAME_NAME in refused(calendar(outsider()), facts=posing)
    assert outside.SAME_NAME in refused(knowing(calendar(), bank("mail")), facts=posing)


@pytest.mark.parametrize(
    "name", ["mails", "calendar ca", "other ca g1", "calendar ca g1,2.5.4.10=acme", "notcalendar ca g1"]
)
def test_a_name_that_is_only_similar_is_not(name: str) -> None:
    similar = {**OUTSIDE_FACTS, FIRST: replace(OUTSIDE_FACTS[FIRST], key_name=f"2.5.4.3={name}")}
    assert [] == refused(calendar(outsider()), facts=similar)


@pytest.mark.parametrize(
    ("starts", "ends", "first", "live"),
    [
        (-10, 365, None, None),
        (-10, SOON.days - 1, Severity.WARNING, Severity.WARNING),
        (-10, 0, Severity.ERROR, Severity.WARNING),
        (1, 365, Severity.ERROR, Severity.WARNING),
    ],
    ids=["valid", "ends soon", "ended", "not yet"],
)
def test_one_that_is_not_valid_is_refused_unless_it_is_live(
    starts: int, ends: int, first: Severity | None, live: Severity | None
) -> None:
    dated = replace(OUTSIDE_FACTS[FIRST], not_before=NOW + timedelta(days=starts), not_after=NOW + timedelta(days=ends))
    facts = {**OUTSIDE_FACTS, FIRST: dated}
    world = applied(calendar(outsider()))
    for where, expected in ((World(), first), (world, live)):
        plan = planned(calendar(outsider()), where, facts=facts)
        found = [one.severity for one in (*plan.refusals, *plan.warnings) if one.code == outside.NOT_VALID_NOW]
        assert ([] if expected is None else [expected]) == found


def test_a_runtime_that_cannot_believe_its_machine_is_named() -> None:
    shop = knowing(calendar(), bank("mail", certificates=()))
    assert [outside.SYSTEM_TRUST] == refused(shop, system_trust=False)
    assert [] == refused(shop)
    assert [] == refused(knowing(calendar(), bank("mail")), system_trust=False)


def test_one_store_takes_no_part_in_the_outside_that_it_could_not_keep_apart() -> None:
    assert [ONE_STORE] == refused(knowing(calendar(), bank("schedule")), separate_trust=False)
    two_doors = knowing(
        estate(
            service("schedule", opened(door("mail"), outsider(anybody=True)), door("mail", port=8444, name="admin")),
            service("mail"),
        )
    )
    assert ONE_STORE in refused(two_doors, separate_trust=False)
    assert [] == refused(calendar(outsider(anybody=True)), separate_trust=False, identifiers=False)


def test_a_service_that_calls_is_not_called_from_outside_through_one_store() -> None:
    """The partner's CA could vouch for what it calls."""
    called = knowing(
        estate(
            service("schedule", opened(door("mail"), outsider(anybody=True))),
            service("mail", door("schedule", port=9443)),
        )
    )
    assert ONE_STORE in refused(called, separate_trust=False)


def test_where_all_callees_are_believed_alike_one_outside_stands_alone() -> None:
    runtimes = {**RUNTIMES, "nginx": replace(NGINX, separate_servers=False)}
    for inventory, expected in (
        (knowing(calendar(), bank("mail")), [ONE_STORE]),
        (knowing(without(calendar(), "schedule"), bank("mail")), []),
    ):
        plan = make_plan(inventory, World().state, runtimes, NOW, OUTSIDE_FACTS)
        assert expected == [one.code for one in plan.refusals]


def test_a_listener_that_asks_for_no_certificate_knows_nobody_from_outside() -> None:
    assert [outside.NOBODY_IS_ASKED] == refused(calendar(outsider(), client_certificate=ClientCertificate.NONE))
    assert [] == refused(calendar(outsider(), client_certificate=ClientCertificate.OPTIONAL))


def test_nobody_outside_is_passed_on_under_a_name_of_ours() -> None:
    forwarding: Any = {"forward_identity": ForwardIdentity.HEADERS}
    assert [outside.TAKEN_FOR_OURS] == refused(calendar(outsider(anybody=True), **forwarding))
    assert [outside.TAKEN_FOR_OURS] == refused(calendar(outsider("mail"), **forwarding))
    assert [outside.TAKEN_FOR_OURS] == refused(calendar(outsider("CN=mail"), **forwarding))
    assert [] == refused(calendar(outsider("api"), **forwarding))


def test_a_service_does_not_become_a_server_outside_in_one_apply() -> None:
    inside = estate(service("bank", door("mail")), service("mail"))
    world = applied(inside)
    beyond = knowing(without(inside, "bank"), bank("mail"))
    assert [outside.MOVES_OUTSIDE] == refused(beyond, world)
    assert [outside.MOVES_OUTSIDE] == refused(inside, applied(beyond))
    assert [] == refused(without(inside, "bank"), world)


def test_a_certificate_of_which_nothing_is_known_is_never_planned_with() -> None:
    with pytest.raises(KeyError):
        planned(calendar(outsider()), facts={})


# --- probes ---------------------------------------------------------------------------------------------------------


def test_an_outsider_is_imitated_and_the_real_one_is_left_out_and_counted() -> None:
    found = make_probes(knowing(calendar(outsider()), bank("mail")))
    imitated = [one for one in found.probes if one.caller is not None and one.caller.is_outside]
    assert {(Presented.FOREIGN_CA, Expectation.REFUSED)} == {(one.presented, one.expected) for one in imitated}
    assert {"1.2", "1.3"} == {one.protocol for one in imitated}
    assert ["acme (outside) -> schedule", "mail -> bank (outside)"] == [str(one) for one in found.beyond]
    assert {at("schedule")} == {one.endpoint.instance for one in found.probes}


def test_an_estate_of_its_own_has_nothing_to_leave_out() -> None:
    assert () == make_probes(calendar()).beyond
