"""Hosts that bear another name, and hosts that are gone: nothing is issued, nothing is published for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.plan import Abandonment, HostMove, Wave
from mtlsctl.model.topology import AbandonedHost, AuthorityPolicy, DirectoryHost, MovedHost, SshHost, TrustModel
from mtlsctl.planner.refactoring import refactored
from mtlsctl.planner.safety import HOST_GIVEN_UP, MOVE_COLLIDES, MOVE_ELSEWHERE, NOTHING_LEFT
from tests.support.estates import applied, apply, at, changed, door, estate, host, line, plan_of, service, steps_of
from tests.support.runtimes import RUNTIMES
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.topology import Inventory

MODELS = list(TrustModel)


def calendar(model: TrustModel = TrustModel.SERVICE_CA) -> Inventory:
    """Two instances that are called, one of which is on a host with a caller."""
    return estate(
        service("schedule", door("mail", "social"), hosts=["h1", "h2"], trust=model),
        service("mail", runtime="node", hosts=["h2"], trust=model),
        service("social", door("mail", port=9443), hosts=["h3"], trust=model),
    )


def renamed(inventory: Inventory, old: str, new: str, **place: Any) -> Inventory:
    """The edit as somebody makes it: the host has its new name everywhere, and `moved` says so."""
    known = inventory.hosts[old]
    assert isinstance(known, DirectoryHost)
    hosts = {name: one for name, one in inventory.hosts.items() if name != old}
    services = {
        one.name: replace(one, hosts=tuple(new if name == old else name for name in one.hosts))
        for one in inventory.services.values()
    }
    return replace(
        inventory,
        hosts={**hosts, new: replace(known, name=new, **place)},
        services=services,
        moved=(*inventory.moved, MovedHost(old=old, new=new, span=line(40))),
    )


def without_host(inventory: Inventory, gone: str, instead: str) -> Inventory:
    services = {
        one.name: replace(one, hosts=tuple(dict.fromkeys(instead if name == gone else name for name in one.hosts)))
        for one in inventory.services.values()
    }
    hosts = {name: one for name, one in inventory.hosts.items() if name != gone}
    return replace(inventory, hosts=hosts, services=services, abandoned=(AbandonedHost(name=gone, span=line(41)),))


def codes(plan: Plan) -> tuple[list[str], list[str]]:
    return [one.code for one in plan.refusals], [one.code for one in plan.warnings]


# --- moved ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("old", ["h1", "h2", "h3"])
def test_a_host_that_is_renamed_where_it_is_costs_nothing(old: str, model: TrustModel) -> None:
    """Also where its name sorts elsewhere, and under `pinned`, where peers trust leaves by their hosts."""
    world = applied(calendar(model))
    for new in ("a1", "z9"):
        plan = plan_of(renamed(calendar(model), old, new), world)
        assert (HostMove(old, new, line(40)),) == plan.moves
        assert plan.has_changes
        assert ((), (), (), (), ()) == (
            plan.access,
            plan.certificate_changes,
            plan.authority_changes,
            plan.service_changes,
            plan.steps,
        )
        assert 4 == plan.unchanged_instances


def test_without_the_entry_the_same_edit_makes_everything_on_the_host_anew() -> None:
    world = applied(calendar())
    plan = plan_of(replace(renamed(calendar(), "h2", "z9"), moved=()), world)
    assert () == plan.moves
    assert {"schedule@z9", "mail@z9"} <= {str(one.instance) for one in plan.certificate_changes}


@pytest.mark.parametrize("model", MODELS)
def test_a_move_is_done_once_and_said_again_is_a_warning(model: TrustModel) -> None:
    world, inventory = applied(calendar(model)), renamed(calendar(model), "h2", "z9")
    apply(inventory, world)
    again = plan_of(inventory, world)
    assert (False, ([], [NOTHING_LEFT])) == (again.has_changes, codes(again))
    assert line(40) == again.warnings[0].span


def test_a_move_goes_with_whatever_else_changes_in_the_new_names() -> None:
    world = applied(calendar())
    moved = renamed(calendar(), "h2", "z9")
    plan = plan_of(changed(moved, "mail", authority=AuthorityPolicy(generation=2)), world)
    assert ["mail@z9"] == [str(one.instance) for one in plan.certificate_changes]
    assert "mail@z9/activate" in steps_of(plan)
    assert not any("@h2" in name for name in steps_of(plan))


def test_an_address_that_changes_with_the_name_is_dialled_anew_and_nothing_is_issued() -> None:
    world = applied(calendar())
    plan = plan_of(renamed(calendar(), "h1", "z9", address="127.0.0.77"), world)
    assert () == plan.certificate_changes
    assert {"mail@h2", "social@h3"} == {str(one.id.instance) for one in plan.steps}


def test_moves_may_follow_one_another_in_one_file() -> None:
    once = renamed(calendar(), "h2", "h7")
    twice = replace(renamed(once, "h7", "h8"), moved=(MovedHost(old="h2", new="h8"), MovedHost(old="h7", new="h8")))
    for world in (applied(calendar()), applied(replace(once, moved=()))):
        plan = plan_of(twice, world)
        assert (["h8"], ()) == ([one.new for one in plan.moves], plan.steps)
        assert ([], [NOTHING_LEFT]) == codes(plan)


def test_two_hosts_that_are_both_known_never_become_one() -> None:
    both = replace(calendar(), hosts={**calendar().hosts, "z9": host("z9", address="127.0.0.9")})
    with_both = changed(both, "mail", hosts=("h2", "z9"))
    plan = plan_of(renamed(calendar(), "h2", "z9"), applied(with_both))
    assert (MOVE_COLLIDES, ()) == (codes(plan)[0][0], plan.moves)


def test_a_host_that_is_somewhere_else_is_no_renamed_one() -> None:
    world = applied(calendar())
    world.state = replace(world.state, hosts=dict(calendar().hosts))
    elsewhere = renamed(calendar(), "h2", "z9", directory="/elsewhere")
    assert (MOVE_ELSEWHERE, ()) == (codes(plan_of(elsewhere, world))[0][0], plan_of(elsewhere, world).moves)
    another_kind = replace(elsewhere, hosts={**elsewhere.hosts, "z9": SshHost(name="z9", address="192.0.2.9")})
    assert MOVE_ELSEWHERE in codes(plan_of(another_kind, world))[0]
    seen_otherwise = renamed(calendar(), "h2", "z9", seen_as="/")
    assert [] == codes(plan_of(seen_otherwise, world))[0]


def test_the_fingerprint_knows_what_is_moved_and_not_where_the_entry_stands() -> None:
    world = applied(calendar())
    one, other = (plan_of(renamed(calendar(), "h2", new), world).fingerprint for new in ("z8", "z9"))
    again = renamed(calendar(), "h2", "z9")
    elsewhere = replace(again, moved=(MovedHost(old="h2", new="z9", span=line(99)),))
    assert one != other
    assert other == plan_of(elsewhere, world).fingerprint


def test_a_first_plan_has_nothing_to_move_and_says_so() -> None:
    plan = plan_of(renamed(calendar(), "h2", "z9"), World())
    assert ((), [NOTHING_LEFT]) == (plan.moves, codes(plan)[1])


# --- removed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_host_that_is_given_up_is_waited_for_by_nobody(model: TrustModel) -> None:
    world = applied(calendar(model))
    plan = plan_of(without_host(calendar(model), "h1", "h2"), world)
    assert (Abandonment("h1", (at("schedule", "h1"),), line(41)),) == plan.abandonments
    assert "h1" not in {step.process.host for step in plan.steps}
    assert "h1" not in {
        one.host for step in plan.steps for one in (step.id.instance, *(w.instance for w in step.waits_for))
    }
    assert {"mail@h2", "social@h3"} <= {str(step.id.instance) for step in plan.steps}


def test_without_the_entry_it_is_waited_for() -> None:
    plan = plan_of(replace(without_host(calendar(), "h1", "h2"), abandoned=()), applied(calendar()))
    assert Wave.REMOVE in {step.id.wave for step in plan.steps if step.process.host == "h1"}


def test_the_keys_on_a_host_that_is_given_up_are_a_risk_until_they_end() -> None:
    plan = plan_of(without_host(calendar(), "h1", "h2"), applied(calendar()))
    (risk,) = [one for one in plan.risks if one.code == HOST_GIVEN_UP]
    ends = (NOW + timedelta(days=90)).strftime("%Y-%m-%d")
    assert all(word in risk.summary for word in ("h1", "schedule", ends, "generation"))


def test_a_host_is_given_up_once_and_said_again_is_a_warning() -> None:
    world, inventory = applied(calendar()), without_host(calendar(), "h1", "h2")
    apply(inventory, world)
    again = plan_of(inventory, world)
    assert (False, ([], [NOTHING_LEFT])) == (again.has_changes, codes(again))


def test_a_host_that_comes_back_after_it_was_given_up_gets_new_keys() -> None:
    world = applied(calendar())
    apply(without_host(calendar(), "h1", "h2"), world)
    plan = plan_of(calendar(), world)
    assert ["schedule@h1"] == [str(one.instance) for one in plan.certificate_changes if one.profile is not None]
    (leaf,) = plan.certificates
    assert 2 == leaf.id.sequence


def test_an_estate_without_entries_is_not_looked_through() -> None:
    world = applied(calendar())
    assert world.state is refactored(calendar(), world.state, RUNTIMES).state
