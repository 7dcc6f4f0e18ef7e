"""Whole processes, timed in turn: each round runs every variant once, and ratios are taken inside a round."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall clock and of CPU, and its largest resident size in MiB."""

    wall: float
    cpu: float
    peak_mib: float


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    complaints: IO[bytes] | None = None,
) -> Run:
    """Run a command to its end, its output thrown away; raises CalledProcessError when it fails.

    Python keeps its bytecode, as it does where a package is installed.
    """
    env = {name: value for name, value in (env or os.environ).items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    child = subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, argv)
    return Run(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak_mib=usage.ru_maxrss / 1024)


def rounds(variants: Mapping[str, Sequence[str]], count: int, **where: object) -> dict[str, list[Run]]:
    """Every variant once in each round; the first round warms the caches and does not count."""
    seen: dict[str, list[Run]] = {name: [] for name in variants}
    for turn in range(count + 1):
        for name, argv in variants.items():
            once = run(argv, **where)  # type: ignore[arg-type]
            if turn:
                seen[name].append(once)
    return seen


def median_ratio(these: Sequence[Run], those: Sequence[Run], what: str) -> float:
    """The median of the ratios inside the rounds."""
    return statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(these, those, strict=True))


def median(runs: Sequence[Run], what: str) -> float:
    return statistics.median(getattr(one, what) for one in runs)
