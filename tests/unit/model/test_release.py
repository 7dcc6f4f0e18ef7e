"""A release in symbols: two digests, and JSON that comes back."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from typing import Any

import pytest

from mtlsctl.model.credential import SHARED, AuthorityId, CredentialId
from mtlsctl.model.release import (
    Callee,
    Endpoint,
    Recipe,
    ServedListener,
    Socket,
    canonical_digest,
    canonical_json,
    recipe_from_json,
    recipe_to_json,
    release_digest,
)
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity, InstanceId, ListenerId, ProcessId
from mtlsctl.model.trust import Member, OutsideAnchor, PeerPolicy

MAIL = InstanceId("mail", "web1")
TRUSTED = PeerPolicy(anchors=frozenset({AuthorityId("social", 1), AuthorityId("schedule", 2)}))
SERVED = ServedListener(
    name="main",
    sockets=(Socket(None, 8443), Socket("192.0.2.1", 9443)),
    client_certificate=ClientCertificate.REQUIRED,
    protocols=("1.2", "1.3"),
    callers=("schedule", "social"),
    policy=TRUSTED,
)
CALLED = Callee(
    listener=ListenerId("schedule", "main"),
    endpoints=(Endpoint(InstanceId("schedule", "web2"), "192.0.2.2", 8443),),
    server_name="schedule.example.com",
    policy=PeerPolicy(anchors=frozenset({AuthorityId("schedule", 1)})),
)
RECIPE = Recipe(
    instance=MAIL,
    process=ProcessId("web1", "nginx"),
    runtime="nginx",
    runtime_digest="ab" * 32,
    root="/out/web1",
    credential=CredentialId(MAIL, 3),
    server_names=("mail.example.com", "old.example.com"),
    listeners=(SERVED,),
    callees=(CALLED,),
    settings=(
        ("egress", (("schedule", 9001),)),
        ("hsts", True),
        ("timeout", 1),
        ("upstream", "http://127.0.0.1:1"),
    ),
)

OTHERS: dict[str, Any] = {
    "instance": InstanceId("mail", "web2"),
    "process": ProcessId("web1", "mail"),
    "runtime": "node",
    "runtime_digest": "cd" * 32,
    "root": "",
    "credential": CredentialId(MAIL, 4),
    "server_names": ("mail.example.com",),
    "listeners": (),
    "callees": (),
    "settings": (),
    "holds_key": False,
}


def test_a_recipe_comes_back_from_json() -> None:
    again = recipe_from_json(json.loads(json.dumps(recipe_to_json(RECIPE))))
    assert again == RECIPE
    assert [type(value) for _, value in RECIPE.settings] == [type(value) for _, value in again.settings]


def test_a_one_way_call_and_a_door_that_forwards_come_back_from_json_and_any_other_is_written_as_it_always_was() -> (
    None
):
    one_way = replace(RECIPE, callees=(replace(CALLED, asks=False),))
    assert one_way == recipe_from_json(recipe_to_json(one_way))
    forwarding = replace(RECIPE, listeners=(replace(SERVED, forward_identity=ForwardIdentity.HEADERS),))
    assert forwarding == recipe_from_json(recipe_to_json(forwarding))
    assert not {"asks", "forward_identity"} & set(re.findall("[a-z_]+", json.dumps(recipe_to_json(RECIPE))))


def test_a_recipe_without_a_key_does_not_come_back_with_one() -> None:
    keyless = replace(RECIPE, holds_key=False)
    assert not recipe_from_json(json.loads(json.dumps(recipe_to_json(keyless)))).holds_key


def test_recipes_may_share_their_callees() -> None:
    shared: dict[tuple[str, ...], tuple[object, Callee]] = {}
    first, second = (recipe_from_json(recipe_to_json(RECIPE), shared) for _ in range(2))
    assert first.callees[0] is second.callees[0]


def test_callees_that_differ_are_not_shared() -> None:
    shared: dict[tuple[str, ...], tuple[object, Callee]] = {}
    other = replace(RECIPE, callees=(replace(CALLED, server_name="old.example.com"),))
    for recipe in (RECIPE, other, RECIPE):
        assert recipe == recipe_from_json(recipe_to_json(recipe), shared)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {**recipe_to_json(RECIPE), "listeners": [{}]},
        {**recipe_to_json(RECIPE), "listeners": None},
        {**recipe_to_json(RECIPE), "instance": ["mail"]},
        {**recipe_to_json(RECIPE), "callees": [{"listener": ["schedule", "main"]}]},
    ],
)
def test_anything_else_is_an_error(data: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        recipe_from_json(data)


def test_members_under_an_anchor_come_back_as_they_were() -> None:
    """A policy that allows fewer must never come back as one that allows more."""
    shared, leaf = AuthorityId(SHARED, 3), CredentialId(InstanceId("mail", "web1"), 2)
    named = frozenset({Member(shared, "mail"), Member(leaf, "mail"), Member(AuthorityId("mail", 1), "mail")})
    for members in (named, frozenset[Member]()):
        narrow = PeerPolicy(anchors=frozenset({shared, leaf, AuthorityId("mail", 1)}), members=members)
        recipe = replace(RECIPE, listeners=(replace(SERVED, policy=narrow),))
        assert recipe == recipe_from_json(recipe_to_json(recipe))


def test_what_is_trusted_of_somebody_outside_comes_back_as_it_was() -> None:
    """By its digest, so that no other certificate can stand in for it."""
    acme, bank = OutsideAnchor("acme", "a" * 64), OutsideAnchor("bank", "b" * 64)
    both = PeerPolicy(anchors=frozenset({acme, AuthorityId("mail", 1)}), members=frozenset({Member(acme, "CN=x,O=y")}))
    believed = replace(CALLED, policy=PeerPolicy(anchors=frozenset({bank})))
    by_machine = replace(CALLED, policy=PeerPolicy(anchors=frozenset()), believes_system=True)
    for callee in (believed, by_machine):
        recipe = replace(RECIPE, listeners=(replace(SERVED, policy=both),), callees=(callee,))
        text = canonical_json(recipe_to_json(recipe))
        assert recipe == recipe_from_json(json.loads(text))
        assert recipe.digest == recipe_from_json(json.loads(text)).digest
    swapped = replace(both, anchors=frozenset({OutsideAnchor("acme", "c" * 64), AuthorityId("mail", 1)}))
    assert replace(RECIPE, listeners=(replace(SERVED, policy=swapped),)).digest != RECIPE.digest


def test_the_tables_below_name_every_field() -> None:
    assert {field.name for field in fields(Recipe)} - {"_digest"} == OTHERS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_differs_is_another_recipe(name: str) -> None:
    other = replace(RECIPE, **{name: OTHERS[name]})
    assert other != RECIPE
    assert other.digest != RECIPE.digest


@pytest.mark.parametrize(
    "other",
    [
        replace(SERVED, sockets=(Socket(None, 8443),)),
        replace(SERVED, client_certificate=ClientCertificate.OPTIONAL),
        replace(SERVED, protocols=("1.3",)),
        replace(SERVED, callers=("social",)),
        replace(SERVED, policy=PeerPolicy(anchors=frozenset())),
        replace(SERVED, policy=replace(TRUSTED, members=frozenset())),
        replace(SERVED, name="api"),
        replace(SERVED, forward_identity=ForwardIdentity.HEADERS),
    ],
    ids=["sockets", "mode", "protocols", "callers", "anchors", "members", "name", "forwarding"],
)
def test_whatever_differs_at_a_door_is_another_recipe(other: ServedListener) -> None:
    assert replace(RECIPE, listeners=(other,)).digest != RECIPE.digest


@pytest.mark.parametrize(
    "other",
    [
        replace(CALLED, server_name="old.example.com"),
        replace(CALLED, endpoints=()),
        replace(CALLED, policy=TRUSTED),
        replace(CALLED, listener=ListenerId("schedule", "api")),
        replace(CALLED, asks=False),
        replace(CALLED, believes_system=True),
    ],
    ids=["name", "endpoints", "anchors", "listener", "one-way", "system"],
)
def test_whatever_differs_at_a_call_is_another_recipe(other: Callee) -> None:
    assert replace(RECIPE, callees=(other,)).digest != RECIPE.digest


def test_the_digest_is_computed_once_and_is_no_part_of_the_value() -> None:
    fresh, again = replace(RECIPE), replace(RECIPE)
    assert fresh.digest == RECIPE.digest
    assert fresh.digest is fresh.digest
    assert fresh == again
    assert repr(fresh) == repr(again)


def test_a_recipe_that_was_changed_does_not_keep_the_digest_of_what_it_was() -> None:
    assert RECIPE.digest
    assert replace(RECIPE, root="/elsewhere").digest != RECIPE.digest


def test_the_digest_does_not_depend_on_the_order_of_a_set() -> None:
    turned = PeerPolicy(anchors=frozenset(sorted(TRUSTED.anchors, reverse=True)))
    assert RECIPE.digest == replace(RECIPE, listeners=(replace(SERVED, policy=turned),)).digest


def test_a_release_is_its_recipe_and_its_material() -> None:
    material = {"certificate_sha256": "01", "spki_sha256": "02"}
    first = release_digest(RECIPE, material)
    assert first == release_digest(RECIPE, dict(reversed(material.items())))
    assert first != release_digest(RECIPE, {**material, "certificate_sha256": "03"})
    assert first != release_digest(replace(RECIPE, root=""), material)


def test_one_value_has_one_text() -> None:
    assert '{"a":[1,"\\u00e4"],"b":null}' == canonical_json({"b": None, "a": [1, "ä"]})
    assert canonical_digest({"a": 1, "b": 2}) == canonical_digest({"b": 2, "a": 1})


def test_a_part_is_found_by_its_name_or_not_at_all() -> None:
    assert (SERVED, None) == (RECIPE.served("main"), RECIPE.served("api"))
    assert (CALLED, None) == (RECIPE.called(CALLED.listener), RECIPE.called(ListenerId("schedule", "api")))
