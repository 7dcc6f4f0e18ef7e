"""When each process may begin: what it waits for has been tried, its host is free, and the pace allows it."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from mtlsctl.model.plan import Step, StepId, Wave
    from mtlsctl.model.topology import ProcessId

R = TypeVar("R")


class Batch(NamedTuple):
    """A number of hosts, or of hundredths of all that a wave has."""

    number: int
    is_percentage: bool = False

    def of(self, hosts: int) -> int:
        """How many of that many hosts; one at the least."""
        return max(1, -(-self.number * hosts // 100) if self.is_percentage else self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much goes on at a time, and when to stop.

    At most `forks` hosts at once, each with one process at a time; None leaves that to whoever knows the hosts.
    `batches` are the sizes of what begins in a wave before the rest of it waits for the outcome; the last one takes
    what is left. With more than `most_failures` failed hosts nothing new begins. None: no such limit.
    """

    forks: int | None = None
    batches: tuple[Batch, ...] = ()
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

    def __init__(self, units: Sequence[Unit], pace: Pace, *, is_tried: Callable[[Unit], bool] = lambda _: True) -> None:
        """`is_tried` tells of a unit whether anything is to be done in it; only such units make up batches."""
        self._units = list(units)
        self._pace = pace
        self._forks = pace.forks or 1
        self._waits, self._waited_for = _dependencies(self._units)
        self._ready = [number for number, waits in enumerate(self._waits) if not waits]
        self._begun: dict[str, int] = {}
        self._tried = [is_tried(unit) for unit in self._units]
        self._doors = {
            wave: _Door(
                (
                    unit.process.host
                    for unit, tried in zip(self._units, self._tried, strict=True)
                    if tried and unit.wave == wave
                ),
                pace,
            )
            for wave in {unit.wave for unit in self._units}
        }
        self._given: set[int] = set()

    def next(self, failed_hosts: int) -> Unit | None:
        """The next unit that may begin now, if any may; with too many `failed_hosts` none may ever again."""
        limit = self._pace.most_failures
        if len(self._begun) >= self._forks or (limit is not None and failed_hosts > limit):
            return None
        free = [number for number in self._ready if self._units[number].process.host not in self._begun]
        number = next(filter(self._is_let_in, free), None)
        if number is None and free and not self._begun:
            # All that may begin is in a later batch, and what is left of the earlier ones waits for it.
            number = free[0]
        return None if number is None else self._given_out(number)

    def _is_let_in(self, number: int) -> bool:
        unit = self._units[number]
        return not self._tried[number] or self._doors[unit.wave].lets_in(unit.process.host)

    def _given_out(self, number: int) -> Unit:
        unit = self._units[number]
        self._ready.remove(number)
        self._begun[unit.process.host] = number
        self._given.add(number)
        if self._tried[number]:
            self._doors[unit.wave].enter(unit.process.host)
        return unit

    def settle(self, unit: Unit) -> None:
        """It has been tried; whatever waited for nothing else may begin."""
        number = self._begun.pop(unit.process.host)
        if self._tried[number]:
            self._doors[unit.wave].settle(unit.process.host)
        for later in self._waited_for[number]:
            self._waits[later].discard(number)
            if not self._waits[later]:
                insort(self._ready, later)

    def left(self) -> list[Unit]:
        """What never began."""
        return [unit for number, unit in enumerate(self._units) if number not in self._given]


class _Door:
    """Lets the hosts of one wave in by batches. A host is through when all that it has in the wave has been tried."""

    def __init__(self, hosts: Iterable[str], pace: Pace) -> None:
        """`hosts` names a host once for each of its processes."""
        self._left = Counter(hosts)
        sizes = [size.of(len(self._left)) for size in pace.batches[:-1]]
        self._marks = list(accumulate(sizes))
        self._inside: set[str] = set()
        self._seen: set[str] = set()

    def lets_in(self, host: str) -> bool:
        return host in self._seen or not self._marks or len(self._seen) < self._marks[0]

    def enter(self, host: str) -> None:
        self._seen.add(host)
        self._inside.add(host)

    def settle(self, host: str) -> None:
        self._left[host] -= 1
        if not self._left[host]:
            self._inside.discard(host)
        while not self._inside and self._marks and self._marks[0] <= len(self._seen):
            self._marks.pop(0)


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
    """Threads that publish. Whoever leaves waits until they have finished what they have begun, unless it gave up."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="host")
        self._running: dict[Future[R], Unit] = {}
        self._is_given_up = False

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

    def give_up(self) -> None:
        """Nobody waits any more; the threads end with what they talk to, or with the process."""
        self._is_given_up = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._is_given_up:
                wait(self._running)
        finally:  # also when this wait is interrupted
            self._pool.shutdown(wait=False, cancel_futures=True)
