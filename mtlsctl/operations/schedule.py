"""When each process may begin: what it waits for has been tried, its host is free, and the pace allows it."""

from __future__ import annotations

from bisect import insort
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from mtlsctl.model.plan import Step, StepId, Wave
    from mtlsctl.model.topology import ProcessId

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much goes on at a time, and when to stop.

    At most `forks` hosts at once, each with one process at a time. `batches` are the sizes of what begins in a wave
    before the rest of it waits for the outcome: hosts, or a share of them when below 1; the last one takes what is
    left. With more than `most_failures` failed hosts nothing new begins. None: no such limit.
    """

    forks: int = 1
    batches: tuple[float, ...] = ()
    most_failures: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One process in one wave: what one switch changes."""

    wave: Wave
    process: ProcessId
    steps: tuple[Step, ...]

    @property
    def waits_for(self) -> frozenset[StepId]:
        return frozenset(one for step in self.steps for one in step.waits_for)


class Schedule:
    """The units of a plan, each given once, in the plan's order as far as that is possible.

    A unit waits until the steps that its own wait for have been tried, the earlier waves of its process too, and until
    its host is free. In the plan's order nothing waits for what comes later, so there is always a next one.
    """

    def __init__(self, units: Sequence[Unit], pace: Pace) -> None:
        self._units = list(units)
        self._pace = pace
        self._waits, self._waited_for = _dependencies(self._units)
        self._ready = [number for number, waits in enumerate(self._waits) if not waits]
        self._begun: dict[str, int] = {}
        self._doors = {wave: _Door(_hosts_in(self._units, wave), pace) for wave in {unit.wave for unit in self._units}}
        self._given: set[int] = set()

    def next(self, failed_hosts: int) -> Unit | None:
        """The next unit that may begin now, if any may; with too many `failed_hosts` none may ever again."""
        limit = self._pace.most_failures
        if len(self._begun) >= self._pace.forks or (limit is not None and failed_hosts > limit):
            return None
        for number in self._ready:
            unit = self._units[number]
            if unit.process.host not in self._begun and self._doors[unit.wave].lets_in(unit.process.host):
                self._ready.remove(number)
                self._begun[unit.process.host] = number
                self._given.add(number)
                return unit
        return None

    def settle(self, unit: Unit) -> None:
        """It has been tried; whatever waited for nothing else may begin."""
        number = self._begun.pop(unit.process.host)
        self._doors[unit.wave].settle(unit.process.host)
        for later in self._waited_for[number]:
            self._waits[later].discard(number)
            if not self._waits[later]:
                insort(self._ready, later)

    def left(self) -> list[Unit]:
        """What never began."""
        return [unit for number, unit in enumerate(self._units) if number not in self._given]


class _Door:
    """Lets the hosts of one wave in by batches."""

    def __init__(self, hosts: int, pace: Pace) -> None:
        sizes = [max(1, ceil(size * hosts) if size < 1 else int(size)) for size in pace.batches[:-1]]
        self._marks = list(accumulate(sizes))
        self._inside: set[str] = set()
        self._seen: set[str] = set()

    def lets_in(self, host: str) -> bool:
        """Whether a host may begin; it is counted then."""
        after = len(self._seen | {host})
        while self._marks and after > self._marks[0]:
            if self._inside:
                return False
            self._marks.pop(0)
        self._seen.add(host)
        self._inside.add(host)
        return True

    def settle(self, host: str) -> None:
        self._inside.discard(host)


def _hosts_in(units: Sequence[Unit], wave: Wave) -> int:
    return len({unit.process.host for unit in units if unit.wave == wave})


def _dependencies(units: Sequence[Unit]) -> tuple[list[set[int]], list[list[int]]]:
    """For each unit the numbers of those that it waits for, and of those that wait for it."""
    of_step = {step.id: number for number, unit in enumerate(units) for step in unit.steps}
    last: dict[ProcessId, int] = {}
    waits: list[set[int]] = []
    waited_for: list[list[int]] = [[] for _ in units]
    for number, unit in enumerate(units):
        those = {of_step[one] for one in unit.waits_for if one in of_step} - {number}
        if unit.process in last:
            those.add(last[unit.process])
        last[unit.process] = number
        for one in those:
            waited_for[one].append(number)
        waits.append(those)
    return waits, waited_for


class Workers(Generic[R]):
    """Threads that publish. When whoever waits for them is interrupted, they finish what they have begun first."""

    def __init__(self, threads: int, interrupted: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="host")
        self._running: dict[Future[R], Unit] = {}
        self._interrupted = interrupted

    @property
    def are_busy(self) -> bool:
        return bool(self._running)

    def start(self, unit: Unit, work: Callable[[], R]) -> None:
        """Begin it in a thread."""
        self._running[self._pool.submit(work)] = unit

    def next_done(self) -> tuple[Unit, R]:
        """Wait for one that ends; raises what it raised."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = done.pop()
        return self._running.pop(future), future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running and error is not None and not isinstance(error, Exception):
            self._interrupted()
        try:
            wait(self._running)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
