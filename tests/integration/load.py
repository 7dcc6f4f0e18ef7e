"""A steady load of new connections from three kinds of callers, each reading its applied files as it goes."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.conftest import find_peer
from tests.integration.peers import (
    LET_IN,
    PROGRAMS,
    Place,
    Program,
    Shown,
    by_egress,
    by_python,
    write_pid,
)
from tests.support.patience import STARTED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

PAUSE_SECONDS = 0.1
NODE_PAUSE_SECONDS = 0.05
"""Between the end of a call and the next one of the same thread: more would keep the machine busy, not find more."""

AROUND_SECONDS = 0.5
_RESOLVE = re.compile(r'^resolve = "([^:]+):([0-9]+):([^"]+)"$', re.MULTILINE)


class Call(NamedTuple):
    """One request: when it began (seconds since 1970), who called, and what went wrong, if anything."""

    began: float
    caller: str
    failure: str | None


def by_curl_files(current: Path, callee: str, service: str, tls: str) -> Shown:
    """As curl does: the folder that `current` names is found once, and everything is read from there."""
    folder = current.resolve()
    name, port, address = _RESOLVE.findall((folder / f"{callee}.curlrc").read_text())[0]
    return by_python(folder, callee, service, Place(name, address, int(port)), tls=(tls,))


class Load:
    """Calls without a break from several threads; `calls` is what came of it."""

    def __init__(self, callers: Iterable[tuple[str, Callable[[], Shown]]]) -> None:
        self.calls: list[Call] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=one) for one in callers]

    def _run(self, caller: str, call: Callable[[], Shown]) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            began = time.time()
            try:
                shown = call()
            except Exception as error:  # noqa: BLE001  whatever keeps a caller from its answer is a failed request
                shown = Shown("failed", repr(error))
            self.calls.append(Call(began, caller, None if shown.outcome == LET_IN else str(shown)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class NodeLoad(Program):
    """A Node program that calls without a break and is told of new releases by SIGHUP alone."""

    def __init__(self, host: Path, service: str, callee: str) -> None:
        module = host / "etc/mtlsctl" / service / "current/mtls.cjs"
        argv = [find_peer("node"), PROGRAMS / "steady.cjs", module, callee, int(NODE_PAUSE_SECONDS * 1000)]
        super().__init__(service, argv, host / f"log/{service}")
        self.pid_file = host / f"run/{service}.pid"

    def __enter__(self) -> Self:
        super().__enter__()
        deadline = time.monotonic() + STARTED_SECONDS
        while not self.calls():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        write_pid(self.pid_file, self.process.pid)
        return self

    def calls(self) -> list[Call]:
        """What it has said so far; a line that is no call counts as a failure."""
        return [_call_of(line, self.name) for line in self.log.read_text("utf-8", "replace").splitlines()]


def _call_of(line: str, caller: str) -> Call:
    found = re.fullmatch(r"([0-9]+) (.*)", line)
    if found is None:
        return Call(0.0, caller, line)
    return Call(int(found[1]) / 1000, caller, None if found[2] == "ok" else found[2])


class Phases:
    """Which part of a test a moment belongs to."""

    def __init__(self) -> None:
        self._began: list[tuple[float, str]] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside bears this name, and a little before and after it."""
        self._began.append((time.time(), name))
        time.sleep(AROUND_SECONDS)
        yield
        time.sleep(AROUND_SECONDS)

    def of(self, moment: float) -> str:
        return next((name for began, name in reversed(self._began) if began <= moment), "before")

    def failures(self, calls: Iterable[Call]) -> dict[str, Counter[tuple[str, str]]]:
        """(caller, what went wrong) with their number, by phase; phases without any are left out."""
        found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        for call in calls:
            if call.failure is not None:
                found[self.of(call.began)][call.caller, call.failure] += 1
        return dict(found)

    def least(self, calls: Iterable[Call]) -> int:
        """How many calls succeeded in the phase and from the caller that had the fewest."""
        calls = list(calls)
        counts = Counter((self.of(call.began), call.caller) for call in calls if call.failure is None)
        callers = {call.caller for call in calls}
        return min(counts[name, caller] for _, name in self._began for caller in callers)


def through_egress(service: str, port: int) -> Callable[[], Shown]:
    return lambda: by_egress(service, port)
