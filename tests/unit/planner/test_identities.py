"""What each certificate has to say, from the inventory alone."""

from __future__ import annotations

import pytest

from mtlsctl.model.credential import KeyUsage
from mtlsctl.model.plan import Wave
from mtlsctl.model.topology import ClientCertificate, SshHost
from mtlsctl.planner.identities import addresses_of, calls_by_service, names_still_checked, usages_of
from tests.support.estates import applied, apply, at, changed, door, estate, host, plan_of, recipe, service
from tests.support.world import World

BOTH_USAGES = frozenset({KeyUsage.SERVER_AUTH, KeyUsage.CLIENT_AUTH})


def usages(*services: str, mode: ClientCertificate = ClientCertificate.REQUIRED) -> frozenset[KeyUsage]:
    """Of `mail`, which listens when `mail` is among the words and calls `schedule` when that is."""
    mail = service("mail", *([door("social")] if "mail" in services else []))
    called = door(*(["mail"] if "schedule" in services else []), port=8444, client_certificate=mode)
    inventory = estate(mail, service("schedule", called), service("social"))
    return usages_of(mail, calls_by_service(inventory).get("mail", []))


def test_a_service_that_only_listens_is_a_server() -> None:
    assert {KeyUsage.SERVER_AUTH} == usages("mail")


def test_a_service_that_only_calls_is_a_client() -> None:
    assert {KeyUsage.CLIENT_AUTH} == usages("schedule")


def test_a_service_that_listens_and_calls_is_both() -> None:
    assert usages("mail", "schedule") == BOTH_USAGES


def test_a_call_to_a_door_that_asks_for_no_certificate_needs_none() -> None:
    assert {KeyUsage.SERVER_AUTH} == usages("mail", "schedule", mode=ClientCertificate.NONE)


def test_a_call_to_a_door_that_may_be_shown_one_needs_one() -> None:
    assert usages("mail", "schedule", mode=ClientCertificate.OPTIONAL) == BOTH_USAGES


def test_a_service_that_neither_listens_nor_calls_is_a_client() -> None:
    assert {KeyUsage.CLIENT_AUTH} == usages()


def test_calls_are_in_the_order_of_service_and_listener_however_they_are_written() -> None:
    late = service("zoo", door("mail", port=1, name="b"), door("mail", port=2, name="a"))
    inventory = estate(late, service("mail"), service("ant", door("mail", port=3)))
    calls = [(called.name, listener.name) for called, listener in calls_by_service(inventory)["mail"]]
    assert [("ant", "main"), ("zoo", "a"), ("zoo", "b")] == calls


SCHEDULE = service("schedule", door("mail"), names=["old.example.com"])
ESTATE = estate(SCHEDULE, service("mail"))
RENAMED = changed(ESTATE, "schedule", names=service("x", names=["new.example.com"]).names)


def test_before_the_first_apply_nobody_checks_a_name() -> None:
    assert {} == names_still_checked(ESTATE, World().state)


def test_the_name_that_a_live_caller_checks_is_still_checked() -> None:
    assert {"schedule": {"old.example.com"}} == names_still_checked(RENAMED, applied(ESTATE).state)


def test_a_caller_that_is_not_declared_any_more_holds_no_name_up() -> None:
    alone = changed(RENAMED, "schedule", listeners=(door(),))
    assert {} == names_still_checked(alone, applied(ESTATE).state)


def test_a_renamed_leaf_carries_both_names() -> None:
    plan = plan_of(RENAMED, applied(ESTATE))
    (leaf,) = (one for one in plan.certificates if one.id.instance == at("schedule"))
    assert (("new.example.com",), ("old.example.com",)) == (leaf.names, leaf.transitional_names)


def test_the_old_name_stays_until_the_next_renewal_and_is_no_change_before() -> None:
    world = applied(ESTATE)
    apply(RENAMED, world)
    assert not plan_of(RENAMED, world).has_changes
    assert ("new.example.com", "old.example.com") == world.state.live[at("schedule")].recipe.server_names


def test_a_renamed_service_without_callers_carries_the_new_name_alone() -> None:
    alone = estate(service("schedule", door(), names=["old.example.com"]))
    plan = plan_of(changed(alone, "schedule", names=RENAMED.services["schedule"].names), applied(alone))
    assert ("new.example.com",) == recipe(plan, "schedule", Wave.ACTIVATE).server_names


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["a.example.com", "b.example.com"], ["b.example.com"]),
        (["a.example.com", "b.example.com"], ["a.example.com"]),
        (["a.example.com", "b.example.com"], ["b.example.com", "a.example.com"]),
        (["a.example.com"], ["b.example.com", "a.example.com"]),
    ],
    ids=["the checked one goes", "the other one goes", "they change places", "one comes before it"],
)
def test_whatever_becomes_of_the_names_one_apply_is_enough(before: list[str], after: list[str]) -> None:
    inventory = estate(service("schedule", door("mail"), names=before), service("mail"))
    renamed = changed(inventory, "schedule", names=service("x", names=after).names)
    world = applied(inventory)
    apply(renamed, world)
    assert not plan_of(renamed, world).has_changes


def test_a_name_that_comes_back_before_it_was_dropped_is_settled_in_one_apply() -> None:
    world = applied(ESTATE)
    apply(RENAMED, world)
    apply(ESTATE, world)
    assert not plan_of(ESTATE, world).has_changes
    assert ["old.example.com"] == [callee.server_name for callee in world.state.live[at("mail")].recipe.callees]


def test_addresses_enter_only_where_the_service_asks_for_them() -> None:
    here = host("h1", address="192.0.2.1")
    assert ("192.0.2.1",) == addresses_of(service("mail", addresses=True), here)
    assert () == addresses_of(service("mail"), here)


def test_a_host_that_is_known_by_name_has_no_address_to_enter() -> None:
    assert () == addresses_of(service("mail", addresses=True), SshHost(name="h1", address="web1.example.net"))


def test_an_address_is_written_in_its_one_form() -> None:
    assert ("2001:db8::1",) == addresses_of(service("mail", addresses=True), host("h1", address="2001:0DB8::0001"))


def test_a_service_that_closes_its_only_door_and_begins_to_call_is_issued_a_leaf_for_that() -> None:
    turned = changed(changed(ESTATE, "schedule", listeners=()), "mail", listeners=(door("schedule", port=8444),))
    world = applied(ESTATE)
    apply(turned, world)
    shown = world.state.credentials[world.state.live[at("schedule")].recipe.credential]
    assert {KeyUsage.CLIENT_AUTH} == shown.profile.usages
    assert not plan_of(turned, world).has_changes
