"""What a host says of itself, bounded and typed; none of it goes into a file, a plan or a command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mtlsctl.deliver.places import byte_order, listening
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from mtlsctl.deliver.places import Place

_VALUE_LENGTH = 300
_NUMBER = re.compile(r"[0-9]{1,15}")
_TOOLS = frozenset({"openssl", "tar", "coreutils", "flock", "systemd"})
_PROGRAMS = frozenset({"nginx", "apache2", "httpd", "node", "java"})
"""What host.sh looks for. Other names are nothing that was asked for, and versions go into the state."""
_FACT = re.compile(r"([a-z][a-z0-9:_]{0,40}) (.+)")
_CLOCK = re.compile(r"\d{9,11}\.\d{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Texts are shown as they came, escaped and cut. `tools` and `programs` are versions by name, of what is there.

    `clock_off` is its clock less ours, taken in the middle of the round trip and so wrong by half of `round_trip` at
    the most; None when it told no time.
    """

    kernel: str
    system: str
    uid: int
    has_systemd: bool
    free_bytes: int | None
    """Room on the file system of /etc/mtlsctl."""
    clock_off: timedelta | None
    round_trip: timedelta
    tools: tuple[tuple[str, str], ...]
    programs: tuple[tuple[str, str], ...]
    places: frozenset[Place]
    """Where something listens."""


def parse_facts(text: bytes, sockets: bytes, *, asked: datetime, heard: datetime) -> HostFacts:
    """From the two frames of the answer, and when it was asked for and heard; what is in no known shape is left out."""
    known: dict[str, str] = {}
    for line in text.decode("utf-8", "backslashreplace").splitlines():
        if found := _FACT.fullmatch(line):
            known.setdefault(found[1], printable(found[2])[:_VALUE_LENGTH])
    free, uid = known.get("free_kib", ""), known.get("uid", "")
    order = byte_order(known.get("uname", ""))
    return HostFacts(
        kernel=known.get("uname", ""),
        system=known.get("system", ""),
        uid=int(uid) if _NUMBER.fullmatch(uid) else -1,
        has_systemd=known.get("init") == "systemd",
        free_bytes=int(free) * 1024 if _NUMBER.fullmatch(free) else None,
        clock_off=_clock_off(known.get("clock", ""), asked, heard),
        round_trip=heard - asked,
        tools=_versions(known, "tool:", _TOOLS),
        programs=_versions(known, "program:", _PROGRAMS),
        places=frozenset(place for _, place in listening(sockets.decode("ascii", "replace"), order)),
    )


def _versions(known: dict[str, str], kind: str, names: frozenset[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, known[kind + name]) for name in sorted(names) if kind + name in known)


def _clock_off(text: str, asked: datetime, heard: datetime) -> timedelta | None:
    if not _CLOCK.fullmatch(text):
        return None
    return datetime.fromtimestamp(float(text), UTC) - (asked + (heard - asked) / 2)
