"""A plan is a function of what is declared and what is live, and of nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.release import canonical_json, recipe_from_json, recipe_to_json
from mtlsctl.model.trust import OutsideAnchor
from mtlsctl.operations.saved_plan import actions_of, plan_document
from mtlsctl.planner.plan import make_plan
from mtlsctl.planner.refactoring import refactored
from tests.support.runtimes import RUNTIMES
from tests.support.topologies import OUTSIDE_FACTS, Topology
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from datetime import datetime

    from mtlsctl.model.plan import Plan
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Inventory, Service

few = settings(max_examples=60, deadline=None)
seeds = st.integers(min_value=0, max_value=2**32)


def moment(seed: int) -> tuple[Inventory, State, datetime]:
    """An estate in the middle of its life: applied, edited, half applied, edited again, some time later."""
    random = Random(seed)  # noqa: S311
    topology, world, now = Topology.sprout(random), World(), NOW
    for done in random.choice([(), (1.0,), (1.0, 0.5), (1.0, 0.5, 1.0)]):
        _apply_part(world, topology.inventory(), now, done)
        topology.edit()
        now += timedelta(days=random.choice([0, 1, 70]))
    return topology.inventory(), world.state, now


def _apply_part(world: World, inventory: Inventory, now: datetime, part: float) -> None:
    """The first steps of a plan; its order satisfies what they wait for."""
    plan = make_plan(inventory, world.state, RUNTIMES, now, OUTSIDE_FACTS)
    world.refactor(inventory)
    world.issue(plan, now)
    for step in plan.steps[: round(len(plan.steps) * part)]:
        world.publish(step)
    world.end()


def plan_at(seed: int) -> Plan:
    inventory, state, now = moment(seed)
    return make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS)


def shuffled(inventory: Inventory, random: Random) -> Inventory:
    """The same meaning in another order of services, hosts, listeners and callers. Names keep theirs: it matters."""
    names = sorted(inventory.services)
    random.shuffle(names)
    hosts = sorted(inventory.hosts)
    random.shuffle(hosts)
    return replace(
        inventory,
        hosts={name: inventory.hosts[name] for name in hosts},
        external_servers=tuple(random.sample(inventory.external_servers, len(inventory.external_servers))),
        services={name: _shuffled(inventory.services[name], random) for name in names},
    )


def _shuffled(service: Service, random: Random) -> Service:
    doors = [
        replace(
            door,
            callers=tuple(random.sample(door.callers, len(door.callers))),
            outsiders=tuple(random.sample(door.outsiders, len(door.outsiders))),
        )
        for door in service.listeners
    ]
    return replace(
        service,
        hosts=tuple(random.sample(service.hosts, len(service.hosts))),
        listeners=tuple(random.sample(doors, len(doors))),
    )


@few
@given(seeds)
def test_a_plan_is_the_same_each_time(seed: int) -> None:
    inventory, state, now = moment(seed)
    assert make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS) == make_plan(
        inventory, state, RUNTIMES, now, OUTSIDE_FACTS
    )


@few
@given(seeds, st.randoms(use_true_random=False))
def test_the_order_in_the_inventory_changes_neither_the_steps_nor_the_fingerprint(seed: int, random: Random) -> None:
    inventory, state, now = moment(seed)
    first = make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS)
    second = make_plan(shuffled(inventory, random), state, RUNTIMES, now, OUTSIDE_FACTS)
    assert first.steps == second.steps
    assert first.fingerprint == second.fingerprint
    assert sorted(map(canonical_json, actions_of(first))) == sorted(map(canonical_json, actions_of(second)))


@few
@given(seeds, st.randoms(use_true_random=False))
def test_the_order_in_the_state_changes_nothing(seed: int, random: Random) -> None:
    inventory, state, now = moment(seed)
    live = list(state.live.items())
    random.shuffle(live)
    credentials = list(state.credentials.items())
    random.shuffle(credentials)
    other = replace(state, live=dict(live), credentials=dict(credentials))
    assert make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS) == make_plan(
        inventory, other, RUNTIMES, now, OUTSIDE_FACTS
    )


@few
@given(seeds)
def test_every_wait_is_for_a_step_of_an_earlier_wave_that_is_in_the_plan_before_it(seed: int) -> None:
    steps = plan_at(seed).steps
    places = {step.id: place for place, step in enumerate(steps)}
    assert len(steps) == len(places)
    for step in steps:
        assert all(earlier.wave < step.id.wave for earlier in step.waits_for)
        assert all(places[earlier] < places[step.id] for earlier in step.waits_for)


@few
@given(seeds)
def test_every_certificate_that_a_step_shows_is_there_or_is_issued_first(seed: int) -> None:
    inventory, state, now = moment(seed)
    plan = make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS)
    after = refactored(inventory, state, RUNTIMES).state
    issued = {profile.id for profile in plan.certificates}
    known = {*after.authorities, *(profile.id for profile in plan.authorities)}
    assert issued.isdisjoint(after.credentials)
    for step in plan.steps:
        if step.recipe is not None:
            assert step.recipe.credential in {*issued, *after.credentials}
            policies = [served.policy for served in step.recipe.listeners]
            policies += [callee.policy for callee in step.recipe.callees]
            anchors = {anchor for policy in policies for anchor in policy.anchors}
            assert known >= {anchor for anchor in anchors if isinstance(anchor, AuthorityId)}
            leaves = {anchor for anchor in anchors if isinstance(anchor, CredentialId)}
            # What a host that was given up showed is still on record, and trusted until its peers are through.
            assert {*issued, *after.credentials, *state.credentials} >= leaves
            assert OUTSIDE_FACTS.keys() >= {anchor.sha256 for anchor in anchors if isinstance(anchor, OutsideAnchor)}


@few
@given(seeds)
def test_every_certificate_that_is_issued_is_shown_by_a_step(seed: int) -> None:
    plan = plan_at(seed)
    shown = {step.recipe.credential for step in plan.steps if step.recipe}
    assert {profile.id for profile in plan.certificates} <= shown


@few
@given(seeds)
def test_what_is_not_changed_has_no_step_and_what_has_none_is_not_changed(seed: int) -> None:
    inventory, state, now = moment(seed)
    plan = make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS)
    moving = {step.id.instance for step in plan.steps}
    assert len({*inventory.instances()} - moving) == plan.unchanged_instances
    assert {*(change.instance for change in plan.service_changes)} <= moving


@few
@given(seeds)
def test_the_fingerprint_does_not_change_with_time_alone(seed: int) -> None:
    inventory, state, now = moment(seed)
    later = make_plan(inventory, state, RUNTIMES, now + timedelta(days=2000), OUTSIDE_FACTS)
    assert make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS).fingerprint == later.fingerprint


@few
@given(seeds)
def test_the_document_of_a_plan_is_plain_json(seed: int) -> None:
    inventory, state, now = moment(seed)
    document = plan_document(make_plan(inventory, state, RUNTIMES, now, OUTSIDE_FACTS), state)
    assert document == json.loads(canonical_json(document))
    assert document == json.loads(json.dumps(document, indent=2))


@few
@given(seeds)
def test_every_action_of_a_document_has_an_identifier_of_its_own(seed: int) -> None:
    identifiers = [action["id"] for action in actions_of(plan_at(seed))]
    assert len(identifiers) == len({*identifiers})


@few
@given(seeds)
def test_a_recipe_comes_back_from_json_as_it_was(seed: int) -> None:
    for step in plan_at(seed).steps:
        if step.recipe is not None:
            again = recipe_from_json(json.loads(canonical_json(recipe_to_json(step.recipe))))
            assert again == step.recipe
            assert again.digest == step.recipe.digest
