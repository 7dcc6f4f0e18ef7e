"""What fails blocks what waits for it and nothing else; of those that go together, only the guilty one stays behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from mtlsctl.deliver.layout import StagedRelease
from mtlsctl.errors import DeliveryError, PreflightError, StateError
from mtlsctl.model.topology import AuthorityPolicy, InstanceId
from mtlsctl.operations.executor import Executor, live_members
from mtlsctl.operations.progress import ProcessEvent, Status
from mtlsctl.operations.releases import Rendered
from mtlsctl.operations.schedule import Pace
from mtlsctl.store.port import ReleaseRecord
from tests.support.estates import applied, at, changed, door, estate, plan_of, service, without
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mtlsctl.errors import MtlsctlError
    from mtlsctl.model.plan import Plan, Step, StepId
    from mtlsctl.model.topology import ProcessId
    from mtlsctl.operations.progress import Event
    from mtlsctl.operations.publication import Publication
    from mtlsctl.operations.releases import Member

REFUSED = DeliveryError("the check refused it", code="M4201", help="look at it", notes=("line 1",))


@dataclass
class FakePublication:
    """Publishes in memory. `bad` releases do not pass the check, `deaf` processes do not serve what they were given."""

    bad: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    broken: Exception | None = None
    published: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    named: dict[str, set[str]] = field(default_factory=dict)

    def publish(
        self,
        process: ProcessId,
        members: Mapping[InstanceId, Member],
        releases: Sequence[Rendered],
        leaving: Sequence[InstanceId],
    ) -> tuple[str, ...]:
        if self.broken is not None:
            raise self.broken
        if not self.would_pass(process, members, releases) or str(process) in self.deaf:
            raise REFUSED
        self.published.append(
            (str(process), tuple(str(one.recipe.instance) for one in releases), tuple(map(str, leaving)))
        )
        self.named[str(process)] = {f"{instance} {member.release}" for instance, member in members.items()}
        return ("nothing to signal",)

    def would_pass(
        self,
        process: ProcessId,
        members: Mapping[InstanceId, Member],
        releases: Sequence[Rendered],
    ) -> bool:
        assert {one.recipe.instance for one in releases} <= members.keys()
        return not self.bad & {str(one.recipe.instance) for one in releases}

    def is_reloaded(self, *_: object) -> bool:
        return False

    reload = True


def rendered(step: Step) -> Rendered:
    assert step.recipe is not None
    release = step.recipe.digest[:16]
    return Rendered(
        recipe=step.recipe,
        staged=StagedRelease(service=step.id.instance.service, release=release, key_spki_sha256="00" * 32, files=()),
        chain=(),
        record=ReleaseRecord(release=release, release_digest=step.recipe.digest, recipe=step.recipe),
        credential=None,  # type: ignore[arg-type]
        issuer=b"",
        anchors={},
    )


@dataclass
class Run:
    """An executor that ran a plan."""

    executor: Executor
    told: list[Event]

    def told_of(self, status: Status) -> list[str]:
        """`instances process/wave`, in order."""
        return [
            f"{' '.join(map(str, event.instances))} in {event.process.name}/{event.wave}"
            for event in self.executor.events
            if event.status is status
        ]

    def failure(self) -> ProcessEvent:
        (event,) = (one for one in self.executor.events if one.status is Status.FAILED)
        return event


def run(
    plan: Plan,
    publication: FakePublication,
    world: World | None = None,
    unfit: Mapping[InstanceId, MtlsctlError] | None = None,
    keyless: Mapping[StepId, MtlsctlError] | None = None,
    pace: Pace | None = None,
    is_asked_for: Callable[[InstanceId], bool] = lambda _: True,
    report: Callable[[Event], None] | None = None,
) -> Run:
    unfit = unfit or {}
    told: list[Event] = []
    executor = Executor(
        publication=cast("Publication", publication),
        rendered={step.id: rendered(step) for step in plan.steps if step.recipe and step.id.instance not in unfit},
        clock=lambda: NOW,
        report=report or told.append,
        members=live_members((world or World()).state),
        pace=pace or Pace(),
        is_asked_for=is_asked_for,
    )
    executor.run(plan.steps, unfit, keyless)
    return Run(executor, told)


CALENDAR = estate(
    service("schedule", door("mail"), runtime="node"),
    service("mail", runtime="node"),
    service("social", runtime="node"),
)
ROTATED = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
THREE = estate(
    service("ant", door("zoo", port=1)),
    service("bee", door("zoo", port=2)),
    service("cat", door("zoo", port=3)),
    service("zoo", runtime="node"),
)
"""Three services in one nginx."""


def test_all_goes_well_process_by_process_and_wave_by_wave() -> None:
    world, publication = applied(CALENDAR), FakePublication()
    done = run(plan_of(ROTATED, world), publication, world)
    assert [
        "schedule@h1 in schedule/extend",
        "mail@h1 in mail/activate",
        "schedule@h1 in schedule/withdraw",
    ] == done.told_of(Status.DONE)
    assert {("nothing to signal",)} == {event.notes for event in done.executor.events}


def test_a_beginning_is_told_and_is_not_among_the_results() -> None:
    done = run(plan_of(estate(service("mail")), World()), FakePublication())
    assert [Status.STARTED, Status.DONE] == [event.status for event in done.told if isinstance(event, ProcessEvent)]
    assert [Status.DONE] == [event.status for event in done.executor.events]


def test_a_failure_blocks_exactly_what_waits_for_it() -> None:
    world = applied(CALENDAR)
    both = changed(ROTATED, "social", authority=AuthorityPolicy(generation=2))
    done = run(plan_of(both, world), FakePublication(bad={"schedule@h1"}), world)
    assert ["schedule@h1 in schedule/extend"] == done.told_of(Status.FAILED)
    assert ["mail@h1 in mail/activate", "schedule@h1 in schedule/withdraw"] == done.told_of(Status.BLOCKED)
    assert ["social@h1 in social/activate"] == done.told_of(Status.DONE)


def test_what_waits_for_a_key_goes_as_far_as_it_can_without() -> None:
    """EXTEND carries the old key, and peers that need nothing of it go on."""
    world = applied(CALENDAR)
    rotated = changed(ROTATED, "schedule", authority=AuthorityPolicy(generation=2))
    plan = plan_of(rotated, world)
    (waits,) = [step.id for step in plan.steps if str(step.id) == "mail@h1/activate"]
    awaited = DeliveryError("mail@h1 waits for the key", code="M4112", help="put it there")
    done = run(plan, FakePublication(), world, keyless={waits: awaited})
    assert ["mail@h1 in mail/activate"] == done.told_of(Status.WAITING)
    assert [] == done.told_of(Status.FAILED)
    assert {"mail@h1 in mail/extend", "schedule@h1 in schedule/activate"} <= set(done.told_of(Status.DONE))
    assert {"mail@h1 in mail/withdraw", "schedule@h1 in schedule/withdraw"} == set(done.told_of(Status.BLOCKED))
    (event,) = (one for one in done.executor.events if one.status is Status.WAITING)
    assert ("M4112", "mail@h1 waits for the key", "put it there") == (event.code, event.message, event.help)


def test_what_is_blocked_says_for_what_it_waits() -> None:
    world = applied(CALENDAR)
    done = run(plan_of(ROTATED, world), FakePublication(bad={"schedule@h1"}), world)
    waits = [event.message for event in done.executor.events if event.status is Status.BLOCKED]
    assert ["waits for schedule@h1/extend", "waits for mail@h1/activate, schedule@h1/extend"] == waits


def test_a_failure_carries_what_the_error_says() -> None:
    done = run(plan_of(CALENDAR, World()), FakePublication(bad={"mail@h1"}))
    event = done.failure()
    assert ("the check refused it", "M4201", "look at it", ("line 1",)) == (
        event.message,
        event.code,
        event.help,
        event.notes,
    )


def test_services_of_one_program_go_in_one_switch() -> None:
    publication = FakePublication()
    run(plan_of(THREE, World()), publication)
    assert ("h1/nginx", ("ant@h1", "bee@h1", "cat@h1"), ()) in publication.published


@pytest.mark.parametrize("guilty", ["ant@h1", "bee@h1", "cat@h1"])
def test_the_guilty_one_is_named_and_the_others_of_its_process_go_on(guilty: str) -> None:
    publication = FakePublication(bad={guilty})
    done = run(plan_of(THREE, World()), publication)
    others = [one for one in ("ant@h1", "bee@h1", "cat@h1") if one != guilty]
    assert [f"{guilty} in nginx/activate"] == done.told_of(Status.FAILED)
    assert f"{' '.join(others)} in nginx/activate" in done.told_of(Status.DONE)
    assert {one.split()[0] for one in publication.named["h1/nginx"]} == set(others)


def test_when_no_single_one_is_guilty_all_of_the_process_fail() -> None:
    done = run(plan_of(THREE, World()), FakePublication(bad={"ant@h1", "cat@h1"}))
    assert ["ant@h1 bee@h1 cat@h1 in nginx/activate"] == done.told_of(Status.FAILED)
    assert ["zoo@h1 in zoo/activate"] == done.told_of(Status.DONE)


def test_a_process_that_does_not_serve_what_passed_the_check_blames_nobody() -> None:
    publication = FakePublication(deaf={"h1/nginx"})
    done = run(plan_of(THREE, World()), publication)
    assert ["ant@h1 bee@h1 cat@h1 in nginx/activate"] == done.told_of(Status.FAILED)
    assert ["h1/zoo"] == [process for process, _, _ in publication.published]


def test_after_a_failure_the_process_still_names_what_it_named() -> None:
    world, publication = applied(THREE), FakePublication(bad={"ant@h1"})
    before = {f"{at(name)} {world.state.live[at(name)].receipt.release}" for name in ("ant", "bee", "cat")}
    edited = changed(THREE, "ant", settings=(("upstream", "http://127.0.0.1:1"),))
    edited = changed(edited, "cat", settings=(("upstream", "http://127.0.0.1:1"),))
    run(plan_of(edited, world), publication, world)
    assert {one for one in before if not one.startswith("cat@")} < publication.named["h1/nginx"]
    assert 3 == len(publication.named["h1/nginx"])


def test_a_removed_instance_is_not_named_any_more_and_is_left() -> None:
    world, publication = applied(THREE), FakePublication()
    run(plan_of(without(THREE, "bee"), world), publication, world)
    assert ("h1/nginx", (), ("bee@h1",)) in publication.published
    assert {"ant@h1", "cat@h1"} == {one.split()[0] for one in publication.named["h1/nginx"]}


def test_an_instance_without_a_key_fails_in_its_first_wave_and_the_others_of_its_process_go_on() -> None:
    no_key = DeliveryError("the disk is full", code="M4101")
    done = run(plan_of(THREE, World()), FakePublication(), unfit={at("bee"): no_key})
    assert (("M4101", (at("bee"),)),) == ((done.failure().code, done.failure().instances),)
    assert "ant@h1 cat@h1 in nginx/activate" in done.told_of(Status.DONE)


def test_an_instance_without_a_key_blocks_its_later_waves_and_whoever_waits_for_it() -> None:
    world = applied(CALENDAR)
    both = changed(ROTATED, "schedule", authority=AuthorityPolicy(generation=2))
    no_key = DeliveryError("the disk is full", code="M4101")
    done = run(plan_of(both, world), FakePublication(), world, unfit={at("mail"): no_key})
    assert ["mail@h1 in mail/extend"] == done.told_of(Status.FAILED)
    assert [
        "mail@h1 in mail/activate",
        "schedule@h1 in schedule/activate",
        "mail@h1 in mail/withdraw",
        "schedule@h1 in schedule/withdraw",
    ] == done.told_of(Status.BLOCKED)


def test_an_instance_without_a_key_that_waits_for_a_lost_one_is_blocked_and_not_failed_again() -> None:
    world = applied(CALENDAR)
    no_key = DeliveryError("the disk is full", code="M4101")
    done = run(plan_of(ROTATED, world), FakePublication(bad={"schedule@h1"}), world, unfit={at("mail"): no_key})
    assert ["schedule@h1 in schedule/extend"] == done.told_of(Status.FAILED)
    assert "mail@h1 in mail/activate" in done.told_of(Status.BLOCKED)


def test_what_cannot_be_recorded_stops_everything() -> None:
    broken = FakePublication(broken=StateError("the disk is full", code="M3001"))
    with pytest.raises(StateError):
        run(plan_of(CALENDAR, World()), broken)


def test_a_release_that_does_not_hold_together_fails_alone() -> None:
    broken = FakePublication(broken=PreflightError("the chain does not build", code="M6001"))
    done = run(plan_of(CALENDAR, World()), broken)
    assert 3 == len(done.told_of(Status.FAILED))
    assert {"M6001"} == {event.code for event in done.executor.events}


@pytest.mark.parametrize("fails", ["schedule@h1", "mail@h1", "social@h1"])
def test_whatever_fails_every_step_ends_once(fails: str) -> None:
    world = applied(CALENDAR)
    plan = plan_of(changed(ROTATED, "schedule", authority=AuthorityPolicy(generation=2)), world)
    done = run(plan, FakePublication(bad={fails}), world)
    ended = sorted((one, event.wave) for event in done.executor.events for one in event.instances)
    assert sorted((step.id.instance, step.id.wave) for step in plan.steps) == ended


def test_live_members_are_grouped_by_process() -> None:
    members = live_members(applied(THREE).state)
    assert {"h1/nginx": 3, "h1/zoo": 1} == {str(process): len(found) for process, found in members.items()}


def test_what_waits_for_a_restart_at_another_instance_stays_for_the_next_apply() -> None:
    """The new files are there; a caller's new certificate is not shown to a program that has not read them."""
    before = estate(
        service("schedule", door("mail"), runtime="spring", settings=(("style", "once"),)),
        service("mail", runtime="node"),
    )
    world = applied(before)
    plan = plan_of(changed(before, "mail", authority=AuthorityPolicy(generation=2)), world)
    ran = run(plan, FakePublication(), world)
    assert ["schedule@h1 in schedule/extend"] == ran.told_of(Status.DONE)
    assert ["mail@h1 in mail/activate", "schedule@h1 in schedule/withdraw"] == ran.told_of(Status.BLOCKED)
    blocked = [one.message for one in ran.executor.events if one.status is Status.BLOCKED]
    assert ["waits for the restart of schedule@h1", "waits for mail@h1/activate"] == blocked


def test_a_program_that_watches_its_certificates_holds_nobody_up() -> None:
    before = estate(
        service("schedule", door("mail"), runtime="spring", settings=(("style", "watching"),)),
        service("mail", runtime="node"),
    )
    world = applied(before)
    plan = plan_of(changed(before, "mail", authority=AuthorityPolicy(generation=2)), world)
    ran = run(plan, FakePublication(), world)
    assert ([], 3) == (ran.told_of(Status.BLOCKED), len(ran.told_of(Status.DONE)))


def test_once_a_process_is_degraded_nothing_new_begins() -> None:
    degraded = DeliveryError("h1/mail is degraded", code="M4108")
    done = run(plan_of(CALENDAR, World()), FakePublication(broken=degraded))
    assert 1 == len(done.told_of(Status.FAILED))
    left = [event for event in done.executor.events if event.status is Status.BLOCKED]
    assert left
    assert {f"not begun: {done.failure().process} is degraded"} == {event.message for event in left}
