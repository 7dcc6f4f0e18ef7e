"""Runs the steps of a plan: one switch for each process and wave; what fails blocks what waits for it, nothing else."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from mtlsctl.deliver.publish import DEGRADED
from mtlsctl.errors import MtlsctlError, StateError, StateLocked, Terminated
from mtlsctl.operations.progress import Noticed, ProcessEvent, Status
from mtlsctl.operations.releases import Member
from mtlsctl.operations.schedule import Pace, Schedule, Unit, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from mtlsctl.model.plan import Step, StepId, Wave
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId, ProcessId
    from mtlsctl.operations.progress import Event
    from mtlsctl.operations.publication import Publication
    from mtlsctl.operations.releases import Rendered

STOPPING = "stopping after what is under way on the hosts; interrupt once more to stop at once (the journal knows)"

HANDOVER_SECONDS = 1.5
"""How long a call may be under way that began before its caller's switch: a lost SYN alone costs a second (RFC 6298
section 2), and a server may be busy for a moment. It shows and believes what the caller had when it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of some steps of a unit: `after` is what the process names since, `error` why it names what it did."""

    steps: tuple[Step, ...]
    after: dict[InstanceId, Member] | None = None
    notes: tuple[str, ...] = ()
    error: MtlsctlError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Publishes steps in waves. `lost` are steps that failed or wait for one that did.

    `unread` are steps that are done on disk and wait for somebody to restart the program: what waits for them at other
    instances stays for the next apply, since a peer would meet the old program.
    `done_at` says when each step was done, in seconds of the monotonic clock. All of it changes in the thread that
    called `run`; other threads publish, one for each host at a time.
    """

    publication: Publication
    rendered: Mapping[StepId, Rendered]
    clock: Callable[[], datetime]
    report: Callable[[Event], None]
    members: dict[ProcessId, dict[InstanceId, Member]]
    pace: Pace = field(default_factory=Pace)
    is_asked_for: Callable[[InstanceId], bool] = lambda _: True
    lost: set[StepId] = field(default_factory=set)
    unread: set[StepId] = field(default_factory=set)
    done_at: dict[StepId, float] = field(default_factory=dict)
    failed_hosts: set[str] = field(default_factory=set)
    events: list[ProcessEvent] = field(default_factory=list)

    def run(
        self,
        steps: Sequence[Step],
        unfit: Mapping[InstanceId, MtlsctlError],
        keyless: Mapping[StepId, MtlsctlError] | None = None,
    ) -> None:
        """Every step, as soon as all that it waits for has been tried and its host is free, in the plan's order.

        `unfit` are instances that nothing can be done about: they fail in their first wave. `keyless` are steps
        whose key its owner has not put on the host yet: they are left waiting, and what comes before them goes on.
        Once a process is degraded nothing new begins. When it is interrupted, what has begun is finished and recorded;
        a second interruption does not wait for that.
        """
        schedule = Schedule(
            [Unit(wave=wave, process=process, steps=tuple(group)) for (wave, process), group in _grouped(steps)],
            self.pace,
            is_tried=lambda unit: any(self.is_asked_for(step.id.instance) for step in unit.steps),
        )
        with Workers[list[Outcome]](self.pace.forks or 1) as workers:
            try:
                self._go_on(schedule, workers, unfit, keyless or {})
            except (KeyboardInterrupt, Terminated):
                self._finish_begun(schedule, workers)
                raise
        for unit in schedule.left():
            self._leave(unit)

    def _go_on(
        self,
        schedule: Schedule,
        workers: Workers[list[Outcome]],
        unfit: Mapping[InstanceId, MtlsctlError],
        keyless: Mapping[StepId, MtlsctlError],
    ) -> None:
        while True:
            while not self._degraded() and (unit := schedule.next(len(self.failed_hosts))) is not None:
                ready = self._ready(unit, unfit, keyless)
                if ready:
                    workers.start(unit, partial(self._publish, unit.process, ready))
                else:
                    schedule.settle(unit)
            if not workers.are_busy:
                return
            self._take(schedule, workers)

    def _finish_begun(self, schedule: Schedule, workers: Workers[list[Outcome]]) -> None:
        """What is under way on the hosts comes to its end and is told; a second interruption ends the waiting."""
        try:
            if workers.are_busy:
                self.report(Noticed(at=self.clock(), message=STOPPING))
            while workers.are_busy:
                self._take(schedule, workers)
        except (KeyboardInterrupt, Terminated):
            workers.give_up()
            raise

    def _take(self, schedule: Schedule, workers: Workers[list[Outcome]]) -> None:
        unit, outcomes = workers.next_done()
        self._settle(unit, outcomes)
        schedule.settle(unit)

    def _degraded(self) -> ProcessId | None:
        """A process that could not be put back: somebody looks at it before the same is tried anywhere else."""
        return next((event.process for event in self.events if event.code == DEGRADED), None)

    def _leave(self, unit: Unit) -> None:
        """Too much has failed for anything new to begin."""
        asked_for = self._asked_for(unit)
        if asked_for:
            self.lost.update(step.id for step in asked_for)
            degraded = self._degraded()
            message = f"not begun: {len(self.failed_hosts)} failed, no more than {self.pace.most_failures} may"
            if degraded is not None:
                message = f"not begun: {degraded} is degraded"
            self._say(unit.process, unit.wave, Status.BLOCKED, asked_for, message=message)

    def _asked_for(self, unit: Unit) -> list[Step]:
        """The steps that are to be done this time; of the others it is said that they are not."""
        left_out = [step for step in unit.steps if not self.is_asked_for(step.id.instance)]
        if left_out:
            self.lost.update(step.id for step in left_out)
            self._say(unit.process, unit.wave, Status.LEFT_OUT, left_out)
        return [step for step in unit.steps if self.is_asked_for(step.id.instance)]

    def _ready(
        self, unit: Unit, unfit: Mapping[InstanceId, MtlsctlError], keyless: Mapping[StepId, MtlsctlError]
    ) -> list[Step]:
        """The steps that can be done now; of the others it is said why not."""
        asked_for = self._asked_for(unit)
        for step in asked_for:
            if step.id in self.lost:
                continue
            if step.id.instance in unfit and not step.waits_for & self.lost:
                self._fail(unit.process, unit.wave, [step], unfit[step.id.instance])
            elif step.id in keyless and not step.waits_for & self.lost:
                self._fail(unit.process, unit.wave, [step], keyless[step.id], status=Status.WAITING)
        left = [step for step in asked_for if step.id not in self.lost]
        blocked = [step for step in left if self._waits_in_vain_for(step)]
        ready = [step for step in left if not self._waits_in_vain_for(step)]
        if blocked:
            self._block(unit.process, unit.wave, blocked)
        if ready:
            self._say(unit.process, unit.wave, Status.STARTED, ready)
        return ready

    def _waits_in_vain_for(self, step: Step) -> set[StepId]:
        unread = {one for one in step.waits_for & self.unread if one.instance != step.id.instance}
        return unread | (step.waits_for & self.lost)

    def _settle(self, unit: Unit, outcomes: Iterable[Outcome]) -> None:
        """Take down what came of a unit."""
        for outcome in outcomes:
            if outcome.error is not None:
                self._fail(unit.process, unit.wave, outcome.steps, outcome.error)
            elif outcome.after is not None:
                self.members[unit.process] = outcome.after
                self.done_at.update(dict.fromkeys((step.id for step in outcome.steps), time.monotonic()))
                reads = self.publication.reload
                self.unread.update(step.id for step in outcome.steps if step.needs_restart or not reads)
                self._say(unit.process, unit.wave, Status.DONE, outcome.steps, notes=outcome.notes)

    def _publish(self, process: ProcessId, steps: Sequence[Step]) -> list[Outcome]:
        """In a thread of its own. What cannot be recorded is raised: it must not go on, here or on any other host."""
        after, releases = self._after(process, steps), self._rendered(steps)
        if self.publication.is_reloaded(process, after, _leaving(steps)):
            self._await_calls(steps)
        try:
            notes = self.publication.publish(process, after, releases, _leaving(steps))
        except (StateError, StateLocked):
            raise
        except MtlsctlError as error:
            return self._without_the_guilty(process, steps, error)
        return [Outcome(steps=tuple(steps), after=after, notes=notes)]

    def _await_calls(self, steps: Sequence[Step]) -> None:
        """What began before its caller's switch arrives first: this process may be about to refuse it."""
        switched = [self.done_at[one] for step in steps for one in _callers_waited_for(step) if one in self.done_at]
        if switched:
            time.sleep(max(0.0, max(switched) + HANDOVER_SECONDS - time.monotonic()))

    def _without_the_guilty(self, process: ProcessId, steps: Sequence[Step], error: MtlsctlError) -> list[Outcome]:
        """When leaving one instance out makes the check pass, only that one fails and the others go on."""
        guilty = self._guilty(process, steps) if len(steps) > 1 else None
        if guilty is None:
            return [Outcome(steps=tuple(steps), error=error)]
        others = [step for step in steps if step is not guilty]
        return [Outcome(steps=(guilty,), error=error), *self._publish(process, others)]

    def _guilty(self, process: ProcessId, steps: Sequence[Step]) -> Step | None:
        """Nobody, when all of them pass together: then it was the switch, the reload or what is served."""
        if self._would_pass(process, steps):
            return None
        return next(
            (step for step in steps if self._would_pass(process, [one for one in steps if one is not step])), None
        )

    def _would_pass(self, process: ProcessId, steps: Sequence[Step]) -> bool:
        return self.publication.would_pass(process, self._after(process, steps), self._rendered(steps))

    def _after(self, process: ProcessId, steps: Iterable[Step]) -> dict[InstanceId, Member]:
        """What the process names once these steps are done."""
        after = dict(self.members.get(process, {}))
        for step in steps:
            if step.recipe is None:
                after.pop(step.id.instance, None)
            else:
                release = self.rendered[step.id].record.release
                after[step.id.instance] = Member(recipe=step.recipe, release=release)
        return after

    def _rendered(self, steps: Iterable[Step]) -> list[Rendered]:
        return [self.rendered[step.id] for step in steps if step.recipe is not None]

    def _block(self, process: ProcessId, wave: Wave, steps: Sequence[Step]) -> None:
        waits = sorted(
            {
                f"the restart of {one.instance}" if one in self.unread else str(one)
                for step in steps
                for one in self._waits_in_vain_for(step)
            }
        )
        self.lost.update(step.id for step in steps)
        self._say(process, wave, Status.BLOCKED, steps, message="waits for " + ", ".join(waits))

    def _fail(
        self,
        process: ProcessId,
        wave: Wave,
        steps: Sequence[Step],
        error: MtlsctlError,
        *,
        status: Status = Status.FAILED,
    ) -> None:
        self.lost.update(step.id for step in steps)
        if status is Status.FAILED:
            self.failed_hosts.add(process.host)
        self._say(
            process,
            wave,
            status,
            steps,
            message=error.message,
            code=error.code,
            help=error.help,
            notes=error.notes,
        )

    def _say(
        self,
        process: ProcessId,
        wave: Wave,
        status: Status,
        steps: Iterable[Step],
        *,
        message: str = "",
        code: str = "",
        help: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        event = ProcessEvent(
            at=self.clock(),
            process=process,
            wave=wave,
            status=status,
            instances=tuple(step.id.instance for step in steps),
            message=message,
            code=code,
            help=help,
            notes=tuple(notes),
        )
        if status is not Status.STARTED:
            self.events.append(event)
        self.report(event)


def _grouped(steps: Sequence[Step]) -> Iterator[tuple[tuple[Wave, ProcessId], Iterator[Step]]]:
    return groupby(steps, key=lambda step: (step.id.wave, step.process))


def _callers_waited_for(step: Step) -> list[StepId]:
    """Of what a step waits for, the steps of those that call it; of a removal all, since they have stopped calling."""
    if step.recipe is None:
        return list(step.waits_for)
    callers = {caller for served in step.recipe.listeners for caller in served.callers}
    return [one for one in step.waits_for if one.instance.service in callers]


def _leaving(steps: Iterable[Step]) -> list[InstanceId]:
    return [step.id.instance for step in steps if step.recipe is None]


def live_members(state: State) -> dict[ProcessId, dict[InstanceId, Member]]:
    """What each process names now."""
    members: dict[ProcessId, dict[InstanceId, Member]] = defaultdict(dict)
    for instance, live in state.live.items():
        members[live.recipe.process][instance] = Member(recipe=live.recipe, release=live.receipt.release)
    return members
