"""What changes, in the words of people who approve it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.plan import AccessChange, Op, StepId, Wave
from mtlsctl.model.topology import (
    ANY_MEMBER,
    ANYBODY,
    AuthorityPolicy,
    Authorize,
    Bind,
    ClientCertificate,
    Edge,
    ForwardIdentity,
    ListenerId,
    TrustModel,
)
from mtlsctl.planner.plan import make_plan
from tests.support.estates import applied, apply, at, changed, door, estate, host, line, plan_of, service, without
from tests.support.runtimes import NGINX, RUNTIMES
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.topology import Inventory

MAIL, SOCIAL = Edge("mail", ListenerId("schedule", "main")), Edge("social", ListenerId("schedule", "main"))
CALENDAR = estate(service("schedule", door("mail")), service("mail"), service("social"))
BOTH = changed(CALENDAR, "schedule", listeners=(door("mail", "social"),))
NOBODY = changed(CALENDAR, "schedule", listeners=(door(),))


def details(inventory: Inventory, world: World, name: str = "schedule", host: str = "h1") -> tuple[str, ...]:
    found = [one.details for one in plan_of(inventory, world).service_changes if one.instance == at(name, host)]
    return found[0] if found else ()


# --- access ---------------------------------------------------------------------------------------------------------


def test_every_call_of_a_first_plan_is_new_at_the_line_that_declares_it() -> None:
    expected = (AccessChange(Op.ADD, MAIL, 8443, line(4)), AccessChange(Op.ADD, SOCIAL, 8443, line(6)))
    assert expected == plan_of(BOTH, World()).access


def test_a_call_that_was_added_is_the_only_change_of_access() -> None:
    assert (AccessChange(Op.ADD, SOCIAL, 8443, line(6)),) == plan_of(BOTH, applied(CALENDAR)).access


def test_a_call_that_was_removed_points_at_the_door_that_stays() -> None:
    expected = AccessChange(Op.REMOVE, SOCIAL, 8443, line(30), "no longer a caller")
    assert (expected,) == plan_of(CALENDAR, applied(BOTH)).access


@pytest.mark.parametrize(
    ("inventory", "span", "reason"),
    [
        (changed(without(CALENDAR, "mail"), "schedule", listeners=(door(),)), line(30), "the caller is removed"),
        (changed(CALENDAR, "schedule", listeners=()), line(20), "the listener is removed"),
        (without(CALENDAR, "schedule"), None, "the service is removed"),
    ],
    ids=["caller", "listener", "service"],
)
def test_a_call_that_ends_says_why(inventory: Inventory, span: Span | None, reason: str) -> None:
    assert (AccessChange(Op.REMOVE, MAIL, 8443, span, reason),) == plan_of(inventory, applied(CALENDAR)).access


def test_who_may_call_does_not_change_with_settings_names_ports_or_authorities() -> None:
    edited = changed(
        CALENDAR,
        "schedule",
        settings=(("upstream", "http://127.0.0.1:1"),),
        names=service("x", names=["new.example.com"]).names,
        listeners=(door("mail", port=9443),),
        authority=AuthorityPolicy(generation=2),
    )
    plan = plan_of(edited, applied(CALENDAR))
    assert () == plan.access
    assert plan.has_changes


def test_the_calls_of_a_removed_service_are_removed_on_both_sides() -> None:
    chain = estate(service("schedule", door("mail")), service("mail", door("social", port=8444)), service("social"))
    plan = plan_of(changed(without(chain, "mail"), "schedule", listeners=(door(),)), applied(chain))
    removed = [(one.op, one.edge, one.port) for one in plan.access]
    assert [
        (Op.REMOVE, MAIL, 8443),
        (Op.REMOVE, Edge("social", ListenerId("mail", "main")), 8444),
    ] == removed


def test_a_call_that_not_every_instance_lets_in_is_still_to_be_added() -> None:
    wide = changed(CALENDAR, "schedule", hosts=("h1", "h2"))
    world = applied(wide)
    asked = changed(wide, "schedule", listeners=(door("mail", "social"),))
    apply(asked, world, fails={StepId(at("schedule", "h2"), Wave.EXTEND)})
    assert (AccessChange(Op.ADD, SOCIAL, 8443, line(6)),) == plan_of(asked, world).access
    apply(asked, world)
    assert () == plan_of(asked, world).access


def test_a_call_that_one_instance_still_lets_in_is_still_to_be_removed() -> None:
    wide = changed(BOTH, "schedule", hosts=("h1", "h2"))
    world = applied(wide)
    asked = changed(wide, "schedule", listeners=(door("mail"),))
    apply(asked, world, fails={StepId(at("schedule", "h2"), Wave.WITHDRAW)})
    assert [(Op.REMOVE, SOCIAL)] == [(one.op, one.edge) for one in plan_of(asked, world).access]


def test_a_call_to_another_door_of_the_same_service_is_another_call() -> None:
    moved = changed(CALENDAR, "schedule", listeners=(door("mail", name="api", port=9443),))
    ops = [(one.op, str(one.edge), one.port) for one in plan_of(moved, applied(CALENDAR)).access]
    assert [(Op.ADD, "mail -> schedule:api", 9443), (Op.REMOVE, "mail -> schedule", 8443)] == ops


def open_door(mode: ClientCertificate) -> Inventory:
    return changed(CALENDAR, "schedule", listeners=(door("mail", client_certificate=mode),))


ANYBODY_THERE = Edge(ANYBODY, ListenerId("schedule", "main"))
LOOSE = [ClientCertificate.OPTIONAL, ClientCertificate.NONE]


@pytest.mark.parametrize("mode", LOOSE)
def test_a_door_that_begins_to_let_in_anybody_is_a_change_of_access_and_a_risk(mode: ClientCertificate) -> None:
    plan = plan_of(open_door(mode), applied(CALENDAR))
    assert (AccessChange(Op.ADD, ANYBODY_THERE, 8443, line(30)),) == plan.access
    assert ["M2103"] == [one.code for one in plan.risks]
    assert "schedule:8443" in plan.risks[0].summary


@pytest.mark.parametrize("mode", LOOSE)
def test_a_door_that_asks_for_a_certificate_again_is_a_change_of_access_and_no_risk(mode: ClientCertificate) -> None:
    plan = plan_of(CALENDAR, applied(open_door(mode)))
    expected = AccessChange(Op.REMOVE, ANYBODY_THERE, 8443, line(30), "a certificate is required")
    assert ((expected,), ()) == (plan.access, plan.risks)


def test_from_one_open_mode_to_another_no_access_changes_and_nothing_is_said_twice() -> None:
    world = applied(open_door(ClientCertificate.OPTIONAL))
    assert () == plan_of(open_door(ClientCertificate.OPTIONAL), world).access
    assert () == plan_of(open_door(ClientCertificate.NONE), world).access
    assert "client certificate optional -> none" in details(open_door(ClientCertificate.NONE), world)


def test_a_caller_is_told_whether_it_shows_a_certificate() -> None:
    world = applied(CALENDAR)
    assert ("schedule is shown no certificate",) == details(open_door(ClientCertificate.NONE), world, "mail")
    assert () == details(open_door(ClientCertificate.OPTIONAL), world, "mail")


def test_the_fingerprint_knows_whether_anybody_may_call() -> None:
    prints = {plan_of(one, World()).fingerprint for one in (CALENDAR, *(open_door(mode) for mode in LOOSE))}
    assert 3 == len(prints)


# --- details --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            {"settings": (("egress", (("mail", 9001),)), ("upstream", "http://127.0.0.1:1"))},
            ("settings: egress unset -> {mail: 9001}, upstream unset -> http://127.0.0.1:1",),
        ),
        ({"listeners": (door("mail", port=9443),)}, ("port 8443 -> 9443",)),
        ({"listeners": (door(),)}, ("callers: -mail", "trusts: -mail CA g1")),
        ({"listeners": (door("mail", "social"),)}, ("callers: +social", "trusts: +social CA g1")),
        ({"listeners": (door("mail", protocols=("1.3",)),)}, ("TLS 1.2+1.3 -> 1.3",)),
        (
            {"listeners": (door("mail", client_certificate=ClientCertificate.OPTIONAL),)},
            ("client certificate required -> optional",),
        ),
        (
            {"listeners": (door("mail", forward_identity=ForwardIdentity.HEADERS),)},
            ("forwards the caller's identity as headers",),
        ),
        ({"listeners": (door("mail"), door("mail", name="api", port=9443))}, ("port 9443 opens",)),
        ({"listeners": ()}, ("port 8443 closes",)),
        (
            {"names": service("x", names=["new.example.com"]).names},
            ("served names: +new.example.com",),
        ),
        ({"hosts": ("h1", "h2")}, ()),
    ],
    ids=lambda one: "" if isinstance(one, dict) else " ".join(one),
)
def test_each_change_of_a_service_is_told_in_a_few_words(edit: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert expected == details(changed(CALENDAR, "schedule", **edit), applied(CALENDAR))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"listeners": (door("mail", port=9443),)}, ("schedule at +127.0.0.1:9443 -127.0.0.1:8443",)),
        ({"hosts": ("h1", "h2")}, ("schedule at +127.0.0.2:8443",)),
        (
            {"names": service("x", names=["new.example.com"]).names},
            (
                "schedule checked as schedule.example.com -> new.example.com",
                "believes schedule: +schedule CA g2 -schedule CA g1",
            ),
        ),
        ({"authority": AuthorityPolicy(generation=2)}, ("believes schedule: +schedule CA g2 -schedule CA g1",)),
        ({"listeners": (door(),)}, ("calls: -schedule",)),
        ({"settings": (("upstream", "http://127.0.0.1:1"),)}, ()),
    ],
    ids=lambda one: "" if isinstance(one, dict) else " ".join(one),
)
def test_each_change_is_told_to_the_caller_too(edit: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert expected == details(changed(CALENDAR, "schedule", **edit), applied(CALENDAR), "mail")


def test_a_changed_template_is_a_change_of_every_instance_that_uses_it() -> None:
    other = {**RUNTIMES, "nginx": replace(NGINX, digest="nginx templates 2")}
    plan = make_plan(CALENDAR, applied(CALENDAR).state, other, NOW)
    assert {("template of nginx changed",)} == {one.details for one in plan.service_changes}
    assert {"schedule", "mail", "social"} == {one.instance.service for one in plan.service_changes}


def test_a_folder_that_moved_is_a_change_of_paths() -> None:
    elsewhere = replace(CALENDAR, hosts={"h1": replace(host("h1", address="127.0.0.1"), directory="/elsewhere")})
    assert ("paths: the host's folder moved",) == details(elsewhere, applied(CALENDAR))


def test_a_new_instance_says_whom_it_lets_in_and_whom_it_calls() -> None:
    inventory = estate(
        service("schedule", door("mail"), door(name="admin", port=9443)),
        service("mail", door("schedule", port=8444)),
    )
    plan = plan_of(inventory, World())
    expected = {
        "schedule": ("port 9443: callers nobody", "port 8443: callers mail", "calls mail"),
        "mail": ("port 8444: callers schedule", "calls schedule"),
    }
    assert expected == {one.instance.service: one.details for one in plan.service_changes}


def test_a_removed_instance_says_that_its_keys_go() -> None:
    (change,) = plan_of(without(CALENDAR, "social"), applied(CALENDAR)).service_changes
    assert (Op.REMOVE, ("releases and keys are deleted",)) == (change.op, change.details)


def test_a_door_on_one_address_is_named_with_it() -> None:
    bound = changed(CALENDAR, "schedule", listeners=(door("mail"), door(name="api", port=9443, bind=Bind.HOST)))
    assert ("port 127.0.0.1:9443 opens",) == details(bound, applied(CALENDAR))


def members_only(authorize: Authorize, caller: TrustModel = TrustModel.SHARED_CA) -> Inventory:
    """Schedule lets in mail; whatever else the shared CA vouches for is not a caller."""
    return estate(
        service("schedule", door("mail", authorize=authorize)),
        service("mail", trust=caller),
        service("social", trust=TrustModel.SHARED_CA),
    )


MEMBERS_THERE = Edge(ANY_MEMBER, ListenerId("schedule", "main"))
DECLARED, ANY = members_only(Authorize.CALLERS), members_only(Authorize.ANY_MEMBER)


def callers_of(changes: Iterable[AccessChange]) -> list[tuple[Op, Edge]]:
    return [(one.op, one.edge) for one in changes]


def test_a_door_that_begins_to_let_in_every_member_of_the_shared_ca_is_a_change_of_access() -> None:
    assert [(Op.ADD, MAIL), (Op.ADD, MEMBERS_THERE)] == callers_of(plan_of(ANY, World()).access)
    world = applied(DECLARED)
    assert [(Op.ADD, MEMBERS_THERE)] == callers_of(plan_of(ANY, world).access)
    assert "lets in: +every member of the shared CA" in details(ANY, world)


def test_a_door_that_lets_in_its_callers_only_again_is_a_change_of_access() -> None:
    world = applied(ANY)
    assert () == plan_of(ANY, world).access
    assert [(Op.REMOVE, MEMBERS_THERE)] == callers_of(plan_of(DECLARED, world).access)
    assert "lets in: -every member of the shared CA" in details(DECLARED, world)


def test_a_caller_that_changes_to_the_shared_ca_opens_the_door_to_all_of_its_members() -> None:
    world = applied(members_only(Authorize.ANY_MEMBER, TrustModel.SERVICE_CA))
    assert [(Op.ADD, MEMBERS_THERE)] == callers_of(plan_of(ANY, world).access)
    assert [] == callers_of(plan_of(DECLARED, applied(members_only(Authorize.CALLERS, TrustModel.SERVICE_CA))).access)
