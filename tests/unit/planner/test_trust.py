"""Whom each door lets in and whom each caller believes, in the end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtlsctl.model.credential import AuthorityId
from mtlsctl.model.plan import StepId, Wave
from mtlsctl.model.release import Callee, Endpoint, Recipe, Socket
from mtlsctl.model.topology import AuthorityPolicy, Bind, ClientCertificate, Inventory, ListenerId, ProcessId
from mtlsctl.model.trust import Member, PeerPolicy
from mtlsctl.planner.trust import presented_members, process_of
from tests.support.estates import applied, apply, at, changed, door, estate, host, service
from tests.support.runtimes import NGINX, NODE


def policy(*services: str) -> PeerPolicy:
    return PeerPolicy(anchors=frozenset(AuthorityId(one, 1) for one in services))


def recipe_of(inventory: Inventory, name: str, host: str = "h1") -> Recipe:
    return applied(inventory).state.live[at(name, host)].recipe


def test_a_door_trusts_the_authority_of_each_declared_caller_and_nothing_else() -> None:
    inventory = estate(service("schedule", door("mail", "social")), service("mail"), service("social"), service("x"))
    (served,) = recipe_of(inventory, "schedule").listeners
    assert (("mail", "social"), policy("mail", "social")) == (served.callers, served.policy)


def test_each_door_has_its_own_callers() -> None:
    doors = (door("mail", name="api", port=1), door("social", name="admin", port=2))
    schedule = recipe_of(estate(service("schedule", *doors), service("mail"), service("social")), "schedule")
    assert [("admin", policy("social")), ("api", policy("mail"))] == [
        (served.name, served.policy) for served in schedule.listeners
    ]


def test_a_door_without_callers_trusts_nobody() -> None:
    (served,) = recipe_of(estate(service("schedule", door())), "schedule").listeners
    assert ((), policy()) == (served.callers, served.policy)


def test_a_door_that_asks_for_no_certificate_trusts_nobody_for_one() -> None:
    open_door = door("mail", client_certificate=ClientCertificate.NONE)
    (served,) = recipe_of(estate(service("schedule", open_door), service("mail")), "schedule").listeners
    assert (("mail",), policy()) == (served.callers, served.policy)


@pytest.mark.parametrize(("bind", "address"), [(Bind.ALL, None), (Bind.HOST, "192.0.2.1")])
def test_a_door_is_bound_where_the_inventory_says(bind: Bind, address: str | None) -> None:
    inventory = estate(service("schedule", door(bind=bind)), hosts=[host("h1", address="192.0.2.1")])
    (served,) = recipe_of(inventory, "schedule").listeners
    assert (Socket(address, 8443),) == served.sockets


def test_a_caller_believes_the_authority_of_what_it_calls_at_every_instance_under_its_first_name() -> None:
    schedule = service("schedule", door("mail"), hosts=["h3", "h2"], names=["a.example.com", "b.example.com"])
    assert (
        Callee(
            listener=ListenerId("schedule", "main"),
            endpoints=(
                Endpoint(at("schedule", "h2"), "127.0.0.2", 8443),
                Endpoint(at("schedule", "h3"), "127.0.0.3", 8443),
            ),
            server_name="a.example.com",
            policy=policy("schedule"),
        ),
    ) == recipe_of(estate(schedule, service("mail")), "mail").callees


def test_a_service_that_is_called_does_not_thereby_believe_its_callers() -> None:
    inventory = estate(service("schedule", door("mail")), service("mail"))
    assert () == recipe_of(inventory, "schedule").callees
    assert () == recipe_of(inventory, "mail").listeners


def test_programs_of_a_whole_host_are_one_process_and_others_are_one_each() -> None:
    assert ProcessId("h1", "nginx") == process_of(at("mail"), NGINX)
    assert ProcessId("h1", "mail") == process_of(at("mail"), NODE)


def test_paths_are_those_of_the_folder_or_as_they_are_seen() -> None:
    seen = estate(service("mail", hosts=["h1", "h2"]), hosts=[host("h1"), host("h2", seen_as="/")])
    assert ["/out/h1", ""] == [recipe_of(seen, "mail", name).root for name in ("h1", "h2")]


def test_what_live_instances_show_is_every_authority_among_them() -> None:
    inventory = estate(service("schedule", door("mail")), service("mail", hosts=["h1", "h2"]))
    world = applied(inventory)
    rotated = changed(inventory, "mail", authority=AuthorityPolicy(generation=2))
    apply(rotated, world, fails={StepId(at("mail", "h2"), Wave.ACTIVATE)})
    assert {Member(AuthorityId("mail", 1), "mail"), Member(AuthorityId("mail", 2), "mail")} == presented_members(
        world.state
    )["mail"]


def test_a_live_instance_whose_certificate_is_not_known_shows_nothing() -> None:
    world = applied(estate(service("mail")))
    assert {} == presented_members(replace(world.state, credentials={}))
