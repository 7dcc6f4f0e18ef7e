"""Runs the steps of a plan: one switch for each process and wave; what fails blocks what waits for it, nothing else."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from mtlsctl.errors import MtlsctlError, StateError, StateLocked
from mtlsctl.operations.progress import ProcessEvent, Status
from mtlsctl.operations.releases import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from mtlsctl.model.plan import Step, StepId, Wave
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId, ProcessId
    from mtlsctl.operations.progress import Event
    from mtlsctl.operations.publication import Publication
    from mtlsctl.operations.releases import Rendered

HANDOVER_SECONDS = 1.5
"""How long a call may be under way that began before its caller's switch: a lost SYN alone costs a second (RFC 6298
section 2), and a server may be busy for a moment. It shows and believes what the caller had when it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Publishes steps in waves. `lost` are steps that failed or wait for one that did.

    `unread` are steps that are done on disk and wait for somebody to restart the program: what waits for them at other
    instances stays for the next apply, since a peer would meet the old program.
    `done_at` says when each step was done, in seconds of the monotonic clock.
    """

    publication: Publication
    rendered: Mapping[StepId, Rendered]
    clock: Callable[[], datetime]
    report: Callable[[Event], None]
    members: dict[ProcessId, dict[InstanceId, Member]]
    lost: set[StepId] = field(default_factory=set)
    unread: set[StepId] = field(default_factory=set)
    done_at: dict[StepId, float] = field(default_factory=dict)
    events: list[ProcessEvent] = field(default_factory=list)

    def run(
        self,
        steps: Sequence[Step],
        unfit: Mapping[InstanceId, MtlsctlError],
        keyless: Mapping[StepId, MtlsctlError] | None = None,
    ) -> None:
        """Every step in the plan's order: waves first, so whatever a step waits for has been tried before it.

        `unfit` are instances for which no key could be requested: they fail in their first wave. `keyless` are steps
        whose key its owner has not put on the host yet: they are left waiting, and what comes before them goes on.
        """
        absent = keyless or {}
        for (wave, process), group in groupby(steps, key=lambda step: (step.id.wave, step.process)):
            together = list(group)
            for step in together:
                if step.id.instance in unfit and not step.waits_for & self.lost:
                    self._fail(process, wave, [step], unfit[step.id.instance])
                elif step.id in absent and not step.waits_for & self.lost:
                    self._fail(process, wave, [step], absent[step.id], status=Status.WAITING)
            self._run_together(process, wave, [step for step in together if step.id not in self.lost])

    def _run_together(self, process: ProcessId, wave: Wave, steps: Sequence[Step]) -> None:
        blocked = [step for step in steps if self._waits_in_vain_for(step)]
        ready = [step for step in steps if not self._waits_in_vain_for(step)]
        if blocked:
            self._block(process, wave, blocked)
        if ready:
            self._publish(process, wave, ready)

    def _waits_in_vain_for(self, step: Step) -> set[StepId]:
        unread = {one for one in step.waits_for & self.unread if one.instance != step.id.instance}
        return unread | (step.waits_for & self.lost)

    def _publish(self, process: ProcessId, wave: Wave, steps: Sequence[Step]) -> None:
        self._say(process, wave, Status.STARTED, steps)
        after, releases = self._after(process, steps), self._rendered(steps)
        if self.publication.is_reloaded(process, after, _leaving(steps)):
            self._await_calls(steps)
        try:
            notes = self.publication.publish(process, after, releases, _leaving(steps))
        except (StateError, StateLocked):
            raise  # what cannot be recorded must not go on, here or on any other host
        except MtlsctlError as error:
            self._without_the_guilty(process, wave, steps, error)
        else:
            self.members[process] = after
            self.done_at.update(dict.fromkeys((step.id for step in steps), time.monotonic()))
            self.unread.update(step.id for step in steps if step.needs_restart)
            self._say(process, wave, Status.DONE, steps, notes=notes)

    def _await_calls(self, steps: Sequence[Step]) -> None:
        """What began before its caller's switch arrives first: this process may be about to refuse it."""
        switched = [self.done_at[one] for step in steps for one in _callers_waited_for(step) if one in self.done_at]
        if switched:
            time.sleep(max(0.0, max(switched) + HANDOVER_SECONDS - time.monotonic()))

    def _without_the_guilty(self, process: ProcessId, wave: Wave, steps: Sequence[Step], error: MtlsctlError) -> None:
        """When leaving one instance out makes the check pass, only that one fails and the others go on."""
        guilty = self._guilty(process, steps) if len(steps) > 1 else None
        if guilty is None:
            self._fail(process, wave, steps, error)
            return
        self._fail(process, wave, [guilty], error)
        self._publish(process, wave, [step for step in steps if step is not guilty])

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
