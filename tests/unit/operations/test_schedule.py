"""In the plan's order as far as the pace allows it; and what has begun comes to its end, whatever interrupts it."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mtlsctl.errors import StateError, Terminated
from mtlsctl.model.plan import Step, StepId, Wave
from mtlsctl.model.topology import AuthorityPolicy, InstanceId, ProcessId
from mtlsctl.operations.apply import Scope
from mtlsctl.operations.executor import STOPPING
from mtlsctl.operations.progress import Event, Noticed, ProcessEvent, Status
from mtlsctl.operations.schedule import Batch, Pace, Schedule, Unit, Workers
from tests.support.estates import applied, at, changed, door, estate, plan_of, service
from tests.support.world import World
from tests.unit.operations.test_executor import REFUSED, FakePublication, Run, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mtlsctl.model.plan import Plan
    from mtlsctl.operations.releases import Member, Rendered


def unit(name: str, *waits_for: str, wave: Wave = Wave.ACTIVATE) -> Unit:
    """`service@host`, the only one of its process; what it waits for is in the same wave unless it says `/wave`."""
    process = ProcessId(host=name.partition("@")[2], name=name.partition("@")[0])
    waits = frozenset(_step(*_named(one, wave)) for one in waits_for)
    return Unit(
        wave=wave,
        process=process,
        steps=(Step(id=_step(name, wave), process=process, recipe=None, waits_for=waits),),
    )


def _named(text: str, wave: Wave) -> tuple[str, Wave]:
    name, _, said = text.partition("/")
    return name, next((one for one in Wave if str(one) == said), wave)


def _step(name: str, wave: Wave) -> StepId:
    return StepId(InstanceId(*name.split("@")), wave)


def name_of(one: Unit) -> str:
    return f"{one.process.name}@{one.process.host}"


def begun(schedule: Schedule, failed_hosts: int = 0) -> list[str]:
    """All that may begin now."""
    given: list[str] = []
    while (one := schedule.next(failed_hosts)) is not None:
        given.append(name_of(one))
    return given


def rounds(units: Sequence[Unit], pace: Pace, **options: Callable[[Unit], bool]) -> list[list[str]]:
    """What goes side by side when all that begins ends together."""
    schedule = Schedule(units, pace, **options)
    found: list[list[str]] = []
    while True:
        running: list[Unit] = []
        while (one := schedule.next(0)) is not None:
            running.append(one)
        if not running:
            return found
        found.append([name_of(one) for one in running])
        for one in running:
            schedule.settle(one)


def fleet(number: int, *services: str) -> list[Unit]:
    """Services on each of that many hosts, service by service."""
    return [unit(f"{one}@h{host}") for one in services or ("web",) for host in range(1, number + 1)]


# --- order and side by side -----------------------------------------------------------------------------------------


def test_one_at_a_time_follows_the_plan() -> None:
    assert [[one] for one in ("web@h1", "web@h2", "web@h3")] == rounds(fleet(3), Pace(forks=1))


def test_what_waits_for_another_begins_when_that_has_been_tried() -> None:
    schedule = Schedule([unit("a@h1"), unit("b@h2", "a@h1"), unit("c@h3")], Pace(forks=8))
    first = schedule.next(0)
    assert first is not None
    assert ["c@h3"] == begun(schedule)
    schedule.settle(first)
    assert ["b@h2"] == begun(schedule)


def test_a_process_is_in_one_wave_at_a_time() -> None:
    units = [unit("a@h1", wave=Wave.EXTEND), unit("a@h1", wave=Wave.ACTIVATE), unit("b@h2", wave=Wave.ACTIVATE)]
    assert [["a@h1", "b@h2"], ["a@h1"]] == rounds(units, Pace(forks=8))


def test_a_host_has_one_process_at_a_time_and_others_need_not_wait_for_it() -> None:
    assert [["a@h1", "a@h2"], ["b@h1", "b@h2"]] == rounds(fleet(2, "a", "b"), Pace(forks=8))


def test_what_waits_for_a_step_that_is_not_in_the_plan_waits_for_nothing() -> None:
    assert [["a@h1"]] == rounds([unit("a@h1", "gone@h9")], Pace())


def test_nobody_said_how_many_means_one() -> None:
    assert [["web@h1"], ["web@h2"]] == rounds(fleet(2), Pace())


def test_no_more_than_that_many_hosts_at_once() -> None:
    assert [3, 3, 1] == [len(those) for those in rounds(fleet(7), Pace(forks=3))]


@some.composite
def plans(draw: some.DrawFn) -> list[Unit]:
    """Units in an order in which each waits for earlier ones only, as the planner gives them."""
    hosts = draw(some.integers(1, 6))
    made: list[Unit] = []
    for wave in (Wave.EXTEND, Wave.ACTIVATE, Wave.WITHDRAW):
        names = draw(
            some.lists(some.tuples(some.sampled_from("abc"), some.integers(1, hosts)), unique=True, max_size=9)
        )
        for name, host in names:
            earlier = [f"{name_of(one)}/{one.wave}" for one in made]
            waits = draw(some.lists(some.sampled_from(earlier), max_size=3)) if earlier else []
            made.append(unit(f"{name}@h{host}", *waits, wave=wave))
    return made


paces = some.builds(
    Pace,
    forks=some.one_of(some.none(), some.integers(1, 5)),
    batches=some.lists(some.builds(Batch, some.integers(1, 100), some.booleans()), max_size=4).map(tuple),
)


@given(units=plans(), pace=paces, data=some.data())
@settings(max_examples=300, deadline=None)
def test_whatever_the_pace_all_is_given_once_and_nothing_too_early(
    units: list[Unit], pace: Pace, data: some.DataObject
) -> None:
    """In any order of ends: each unit once, after what it waits for, one for each host, never more than `forks`."""
    tried = frozenset(data.draw(some.sets(some.sampled_from(range(len(units)))))) if units else frozenset()
    numbers = {id(one): number for number, one in enumerate(units)}
    schedule = Schedule(units, pace, is_tried=lambda one: numbers[id(one)] in tried)
    ended: set[StepId] = set()
    running: list[Unit] = []
    given_out: list[Unit] = []
    planned = {step.id for one in units for step in one.steps}
    while True:
        while (one := schedule.next(0)) is not None:
            assert one.waits_for & planned <= ended
            assert one.process.host not in {other.process.host for other in running}
            running.append(one)
            given_out.append(one)
            assert len(running) <= (pace.forks or 1)
        if not running:
            break
        one = running.pop(data.draw(some.integers(0, len(running) - 1)))
        ended |= {step.id for step in one.steps}
        schedule.settle(one)
    assert sorted(map(id, units)) == sorted(map(id, given_out))
    assert [] == schedule.left()
    for process in {one.process for one in units}:
        order = [numbers[id(one)] for one in given_out if one.process == process]
        assert sorted(order) == order


# --- batches --------------------------------------------------------------------------------------------------------


def test_the_canary_goes_alone_and_the_last_batch_takes_the_rest() -> None:
    sizes = (Batch(1), Batch(10, is_percentage=True), Batch(100, is_percentage=True))
    assert [1, 3, 26] == [len(those) for those in rounds(fleet(30), Pace(forks=99, batches=sizes))]


@pytest.mark.parametrize(
    ("batch", "hosts", "size"),
    [(Batch(3), 30, 3), (Batch(10, is_percentage=True), 30, 3), (Batch(10, is_percentage=True), 31, 4),
     (Batch(1, is_percentage=True), 5, 1), (Batch(100, is_percentage=True), 7, 7)],
)  # fmt: skip
def test_a_percentage_is_of_the_hosts_of_the_wave_and_rounded_up(batch: Batch, hosts: int, size: int) -> None:
    assert size == batch.of(hosts)


def test_a_batch_is_through_when_all_that_its_hosts_have_in_the_wave_is() -> None:
    """The canary has two processes: both go before anybody else's first."""
    units = [unit("a@h1"), unit("a@h2"), unit("b@h1"), unit("b@h2")]
    pace = Pace(forks=9, batches=(Batch(1), Batch(100, is_percentage=True)))
    assert [["a@h1"], ["b@h1"], ["a@h2"], ["b@h2"]] == rounds(units, pace)


def test_each_wave_has_batches_of_its_own() -> None:
    units = [unit(f"web@h{host}", wave=wave) for wave in (Wave.EXTEND, Wave.ACTIVATE) for host in (1, 2, 3)]
    pace = Pace(forks=9, batches=(Batch(1), Batch(100, is_percentage=True)))
    assert [["web@h1"], ["web@h2", "web@h3"]] == rounds(units[:3], pace)
    assert 6 == sum(map(len, rounds(units, pace)))


def test_what_is_left_out_is_no_canary() -> None:
    """Else a batch of one could be a host that nothing is done at."""
    pace = Pace(forks=9, batches=(Batch(1), Batch(100, is_percentage=True)))
    done = rounds(fleet(4), pace, is_tried=lambda one: one.process.host != "h1")
    assert [["web@h1", "web@h2"], ["web@h3", "web@h4"]] == done


def test_a_canary_that_waits_for_a_later_batch_does_not_stop_everything() -> None:
    units = [unit("a@h1"), unit("a@h2"), unit("b@h1", "a@h2")]
    pace = Pace(forks=9, batches=(Batch(1), Batch(100, is_percentage=True)))
    assert [["a@h1"], ["a@h2"], ["b@h1"]] == rounds(units, pace)


# --- failures -------------------------------------------------------------------------------------------------------


def test_with_too_many_failures_nothing_new_begins() -> None:
    schedule = Schedule(fleet(3), Pace(forks=1, most_failures=1))
    first = schedule.next(0)
    assert first is not None
    schedule.settle(first)
    assert schedule.next(2) is None
    assert ["web@h2", "web@h3"] == [name_of(one) for one in schedule.left()]
    assert schedule.next(1) is not None


FLEET = estate(*(service(f"s{number}", runtime="node", hosts=(f"h{number}",)) for number in range(1, 7)))
"""Six services that do not know each other, each on a host of its own."""


def paced(plan: Plan, publication: FakePublication, pace: Pace, scope: Scope | None = None, **more: object) -> Run:
    return run(plan, publication, pace=pace, is_asked_for=(scope or Scope()).holds, **more)  # type: ignore[arg-type]


def test_the_rest_is_blocked_with_its_reason_once_too_many_hosts_failed() -> None:
    done = paced(plan_of(FLEET, World()), FakePublication(bad={"s1@h1", "s3@h3"}), Pace(most_failures=1))
    assert ["s1@h1 in s1/activate", "s3@h3 in s3/activate"] == done.told_of(Status.FAILED)
    assert ["s2@h2 in s2/activate"] == done.told_of(Status.DONE)
    blocked = [event for event in done.executor.events if event.status is Status.BLOCKED]
    assert 3 == len(blocked)
    assert {"not begun: 2 failed, no more than 1 may"} == {event.message for event in blocked}


def test_a_failed_canary_stops_the_rest() -> None:
    pace = Pace(forks=9, batches=(Batch(1), Batch(100, is_percentage=True)), most_failures=0)
    done = paced(plan_of(FLEET, World()), FakePublication(bad={"s1@h1"}), pace)
    assert ([], 5) == (done.told_of(Status.DONE), len(done.told_of(Status.BLOCKED)))
    done = paced(plan_of(FLEET, World()), FakePublication(), pace)
    assert 6 == len(done.told_of(Status.DONE))


def test_as_many_failures_as_may_be_stop_nothing() -> None:
    done = paced(plan_of(FLEET, World()), FakePublication(bad={"s1@h1"}), Pace(most_failures=1))
    assert 5 == len(done.told_of(Status.DONE))


# --- left out -------------------------------------------------------------------------------------------------------

CALENDAR = estate(
    service("schedule", door("mail"), runtime="node", hosts=("h1",)),
    service("mail", runtime="node", hosts=("h2",)),
    service("social", runtime="node", hosts=("h2",)),
)


def test_what_was_not_asked_for_is_left_out_and_what_waits_for_it_is_blocked() -> None:
    """mail's new certificate has to be let in at schedule before it is shown."""
    world = applied(CALENDAR)
    rotated = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    rotated = changed(rotated, "social", authority=AuthorityPolicy(generation=2))
    done = paced(plan_of(rotated, world), FakePublication(), Pace(), Scope(hosts=frozenset({"h2"})), world=world)
    assert {"schedule@h1 in schedule/extend", "schedule@h1 in schedule/withdraw"} == set(done.told_of(Status.LEFT_OUT))
    assert ["social@h2 in social/activate"] == done.told_of(Status.DONE)
    assert ["mail@h2 in mail/activate"] == done.told_of(Status.BLOCKED)


def test_one_service_of_a_shared_program_can_be_asked_for() -> None:
    three = estate(
        service("ant", door("zoo", port=1)), service("bee", door("zoo", port=2)), service("zoo", runtime="node")
    )
    publication = FakePublication()
    done = paced(plan_of(three, World()), publication, Pace(), Scope(services=frozenset({"b*"})))
    assert [("h1/nginx", ("bee@h1",), ())] == publication.published
    assert ["bee@h1 in nginx/activate"] == done.told_of(Status.DONE)
    assert ["ant@h1 in nginx/activate", "zoo@h1 in zoo/activate"] == sorted(done.told_of(Status.LEFT_OUT))


def test_what_is_left_out_is_not_blamed_on_the_failures_of_others() -> None:
    scope = Scope(hosts=frozenset({"h1", "h2", "h3"}))
    done = paced(plan_of(FLEET, World()), FakePublication(bad={"s1@h1"}), Pace(most_failures=0), scope)
    assert 3 == len(done.told_of(Status.LEFT_OUT))
    assert 2 == len(done.told_of(Status.BLOCKED))


@pytest.mark.parametrize(
    ("hosts", "services", "instance", "is_held"),
    [(None, None, at("mail"), True), ({"h1"}, None, at("mail"), True), ({"h2"}, None, at("mail"), False),
     ({"h*"}, {"m*"}, at("mail"), True), ({"h*"}, {"M*"}, at("mail"), False), ({"h[23]"}, None, at("mail"), False),
     (set(), None, at("mail"), False)],
)  # fmt: skip
def test_a_scope_takes_names_and_patterns(
    hosts: set[str] | None,
    services: set[str] | None,
    instance: InstanceId,
    is_held: bool,  # noqa: FBT001
) -> None:
    scope = Scope(
        hosts=None if hosts is None else frozenset(hosts), services=None if services is None else frozenset(services)
    )
    assert is_held is scope.holds(instance)


# --- threads --------------------------------------------------------------------------------------------------------


class SlowPublication(FakePublication):
    """Takes a while at each process, and counts who is there."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.alone, self.here, self.most = threading.Lock(), set[str](), 0
        self.began: list[str] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def publish(
        self,
        process: ProcessId,
        members: Mapping[InstanceId, Member],
        releases: Sequence[Rendered],
        leaving: Sequence[InstanceId],
    ) -> tuple[str, ...]:
        with self.alone:
            assert process.host not in self.here
            self.here.add(process.host)
            self.most = max(self.most, len(self.here))
            self.began.append(process.name)
        time.sleep(0.01)
        assert self.may_end.wait(10)
        with self.alone:
            self.here.remove(process.host)
        return super().publish(process, members, releases, leaving)


def test_hosts_are_worked_on_side_by_side_and_never_more_than_forks() -> None:
    publication = SlowPublication()
    done = paced(plan_of(FLEET, World()), publication, Pace(forks=3))
    assert (3, 6) == (publication.most, len(done.told_of(Status.DONE)))


def test_what_cannot_be_recorded_stops_everything_once_the_others_have_ended() -> None:
    publication = SlowPublication(broken=StateError("the disk is full", code="M3001"))
    with pytest.raises(StateError):
        paced(plan_of(FLEET, World()), publication, Pace(forks=2))
    assert 2 == len(publication.began)
    assert set() == publication.here


@pytest.mark.parametrize("signal", [KeyboardInterrupt, Terminated])
def test_an_interruption_finishes_what_has_begun_and_begins_nothing(signal: type[BaseException]) -> None:
    publication, told = SlowPublication(), list[Event]()

    def report(event: Event) -> None:
        told.append(event)
        started = [one for one in told if isinstance(one, ProcessEvent) and one.status is Status.STARTED]
        if len(told) == len(started) == 2:
            raise signal

    with pytest.raises(signal):
        paced(plan_of(FLEET, World()), publication, Pace(forks=9), report=report)
    assert 1 == len(publication.began)  # the second one was told of, and not begun
    assert [STOPPING] == [event.message for event in told if isinstance(event, Noticed)]
    done = [event for event in told if isinstance(event, ProcessEvent) and event.status is Status.DONE]
    assert publication.began == [event.process.name for event in done]


def test_a_second_interruption_does_not_wait() -> None:
    publication = SlowPublication()
    publication.may_end.clear()

    def report(event: Event) -> None:
        if isinstance(event, Noticed) or "s2" in str(getattr(event, "process", "")):
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        paced(plan_of(FLEET, World()), publication, Pace(forks=9), report=report)
    assert time.monotonic() - began < 5
    assert {"h1"} == publication.here  # nobody ended it
    publication.may_end.set()


def test_workers_that_are_left_have_ended() -> None:
    ended: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.05)
        ended.append(number)
        return number

    def begin_and_fail() -> None:
        with Workers[int](2) as workers:
            for number in range(3):
                workers.start(unit(f"web@h{number}"), partial(work, number))
            raise StateError("no", code="M3001")

    with pytest.raises(StateError):
        begin_and_fail()
    assert [0, 1, 2] == sorted(ended)


def test_what_a_worker_raises_is_raised() -> None:
    def fail() -> int:
        raise REFUSED

    with Workers[int](1) as workers:
        workers.start(unit("web@h1"), fail)
        with pytest.raises(type(REFUSED)):
            workers.next_done()
