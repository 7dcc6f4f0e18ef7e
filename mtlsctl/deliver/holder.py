"""Which process of which machine holds the lock on a host, so that one that has ended is told from one that works.

A connection that falls silent may leave the other end standing open for hours: nothing tells it that nobody is here
any more. Then the lock there is a dead one's, and whoever comes from the same machine can know.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from functools import cache
from pathlib import Path

_UNKNOWN = "-"
_START_FIELD = 19
"""Of what stands behind the name in /proc/PID/stat: when the process began, in ticks since the machine did."""

_open: set[str] = set()


def take_mark() -> str:
    """A mark of this process for one lock; it counts as held until `drop_mark`, or until the process ends."""
    mark = f"{_machine()}.{os.getpid()}.{_start_of(os.getpid())}.{secrets.token_hex(8)}"
    _open.add(mark)
    return mark


def drop_mark(mark: str) -> None:
    """The lock was let go of, or its connection lost."""
    _open.discard(mark)


def has_ended(mark: str) -> bool:
    """Whether whoever made the mark is known to hold the lock no more; never so of another machine's process."""
    machine, _, rest = mark.partition(".")
    pid, _, rest = rest.partition(".")
    start, _, _ = rest.partition(".")
    if machine != _machine() or _UNKNOWN in (machine, start) or not pid.isdecimal() or len(pid) > 10:  # noqa: PLR2004
        return False
    if int(pid) == os.getpid() and start == _start_of(os.getpid()):
        return mark not in _open
    return _start_of(int(pid)) != start


@cache
def _machine() -> str:
    """The machine since its last start, and its numbering of processes; a dash where that is not known."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        numbering = str(Path("/proc/self/ns/pid").readlink()).encode()
    except OSError:
        return _UNKNOWN
    return hashlib.sha256(started + numbering).hexdigest()[:16]


def _start_of(pid: int) -> str:
    """Empty for a process that is not there, a dash where nothing is known of any."""
    if not Path("/proc/self/stat").exists():
        return _UNKNOWN
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[_START_FIELD]
