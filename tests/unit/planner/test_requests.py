"""Keys that somebody else brings: when a certificate is made anew for them, and what a plan says about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mtlsctl.model.plan import Reason, Risk, Wave
from mtlsctl.model.topology import Inventory, KeyAlgorithm
from mtlsctl.planner.diff import HANDED_BACK
from mtlsctl.planner.safety import KEY_OF_ANOTHER
from tests.support.estates import applied, apply, at, changed, door, estate, line, plan_of, recipe, request, service
from tests.support.world import NOW

DAY = timedelta(days=1)
BEFORE = estate(service("schedule", door()))


def asking(*, runtime: str = "pem", text: str = "first", **more: Any) -> Inventory:
    mail = service("mail", runtime=runtime, requests=(("h1", request(text)),), **more)
    return estate(service("schedule", door("mail")), mail)


def other(inventory: Inventory, text: str, **more: Any) -> Inventory:
    return changed(inventory, "mail", requests=(("h1", request(text, **more)),))


def test_no_key_is_asked_for_where_one_is_brought() -> None:
    plan = plan_of(asking(), applied(BEFORE))
    assert {one.credential.instance.service for one in plan.requests} == set()
    assert {one.id.instance.service for one in plan.certificates} == {"mail"}
    mail = next(one for one in plan.certificates if one.id.instance == at("mail"))
    assert (mail.request_sha256, mail.key) == ("first", KeyAlgorithm.ECDSA_P256)


def test_the_kind_of_the_key_is_that_of_the_request_and_not_of_the_policy() -> None:
    inventory = other(asking(), "rsa", algorithm=KeyAlgorithm.RSA_2048)
    world = applied(inventory)
    made = world.state.credentials.values()
    assert {one.profile.key for one in made if one.id.instance == at("mail")} == {KeyAlgorithm.RSA_2048}
    assert not plan_of(inventory, world).has_changes


def test_a_renewal_is_of_the_same_key_and_says_so() -> None:
    world = applied(asking())
    plan = plan_of(asking(), world, NOW + 61 * DAY)
    (mail,) = [one for one in plan.certificate_changes if one.instance == at("mail")]
    assert ((Reason.RENEWAL_DUE,), True, True) == (mail.reasons, mail.due, mail.is_same_key)
    assert {one.is_same_key for one in plan.certificate_changes if one.instance != at("mail")} == {False}
    assert plan.risks == ()


@pytest.mark.parametrize(
    ("text", "more", "reasons", "same"),
    [
        ("second", {}, (Reason.REQUEST_CHANGED,), False),
        ("second", {"key": "first"}, (Reason.REQUEST_CHANGED,), True),
        (
            "second",
            {"algorithm": KeyAlgorithm.ED25519},
            (Reason.REQUEST_CHANGED, Reason.KEY_ALGORITHM_CHANGED),
            False,
        ),
    ],
)
def test_another_file_is_another_certificate(
    *, text: str, more: dict[str, Any], reasons: tuple[Reason, ...], same: bool
) -> None:
    world = applied(asking())
    (mail,) = plan_of(other(asking(), text, **more), world).certificate_changes
    assert (reasons, same, False) == (mail.reasons, mail.is_same_key, mail.due)


def test_another_file_is_another_fingerprint_and_the_same_one_is_not() -> None:
    world = applied(asking())
    first, second, again = (plan_of(other(asking(), text), world).fingerprint for text in ("2", "3", "2"))
    assert first == again != second


@pytest.mark.parametrize("runtime", ["pem", "nginx"])
def test_a_key_passes_from_us_to_its_owner_and_back(runtime: str) -> None:
    ours = changed(asking(runtime=runtime), "mail", requests=())
    world = applied(ours)
    for inventory, brought in ((asking(runtime=runtime), True), (ours, False)):
        plan = apply(inventory, world)
        (mail,) = plan.certificate_changes
        assert (Reason.KEY_OWNER_CHANGED,) == mail.reasons
        assert [one.credential.instance for one in plan.requests] == ([] if brought else [at("mail")])
        live = world.state.live[at("mail")].recipe
        assert live.holds_key is (runtime == "nginx" or not brought)


def test_the_release_before_the_switch_still_holds_the_key_of_ours() -> None:
    """EXTEND presents the old leaf: without its key it could not."""
    world = applied(changed(asking(), "mail", requests=()))
    rotated = changed(asking(), "schedule", authority=replace(asking().services["schedule"].authority, generation=2))
    plan = plan_of(rotated, world)
    assert recipe(plan, "mail", Wave.EXTEND).holds_key
    assert not recipe(plan, "mail", Wave.ACTIVATE).holds_key


def test_who_becomes_the_service_is_told_first_once_for_each_key() -> None:
    inventory, world = asking(), applied(BEFORE)
    told = Risk(
        code=KEY_OF_ANOTHER,
        summary="whoever holds the key of requests/first.csr is mail@h1 to its peers",
        span=line(40),
    )
    assert told in plan_of(inventory, world).risks
    apply(inventory, world)
    assert plan_of(inventory, world).risks == ()
    assert [one.code for one in plan_of(other(inventory, "second"), world).risks] == [KEY_OF_ANOTHER]
    assert plan_of(other(inventory, "second", key="first"), world).risks == ()


def test_what_is_handed_back_is_said_where_the_files_do_not_name_the_key() -> None:
    for runtime, expected in (("pem", True), ("nginx", False)):
        plan = plan_of(asking(runtime=runtime), applied(BEFORE))
        (mail,) = [one for one in plan.service_changes if one.instance == at("mail")]
        assert (HANDED_BACK in mail.details) is expected


def test_a_key_that_is_not_on_its_host_is_nothing_to_issue_again_for() -> None:
    world = applied(asking(runtime="node"))
    assert not plan_of(asking(runtime="node"), world).has_changes
