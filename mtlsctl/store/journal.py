"""The chain of the journal: each entry's digest covers the entry and the digest before it, so that a change shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.release import canonical_digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Event(StrEnum):
    """What the store itself writes; operations add their own words with `note`."""

    CREATED = "state created"
    RESTORED = "state restored"
    OPENED = "operation opened"
    ABANDONED = "operation abandoned"
    CLOSED = "operation closed"
    INTENDED = "signatures intended"
    SIGNING = "signing"
    SIGNED = "signed"
    KEPT = "certificates kept"
    KEY_DESTROYED = "authority key destroyed"
    HOSTS = "hosts recorded"
    PROGRAMS = "programs found"
    HOST_FORGOTTEN = "host forgotten"
    HOST_MOVED = "host moved"
    SERVICE_MOVED = "service moved"
    HOST_ABANDONED = "host abandoned"
    RELEASES = "releases recorded"
    SWITCH_INTENDED = "switch intended"
    SWITCHED = "switched"
    SWITCHED_BACK = "switched back"
    GONE = "found gone"
    KEY_MISSING = "key found missing"


class Row(NamedTuple):
    """An entry as it is kept: `at` is text and `detail` canonical JSON, exactly the characters that were digested."""

    number: int
    at: str
    operation: str | None
    event: str
    detail: str
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry's number and digest; number 0 stands before the first."""

    number: int
    digest: str


def first_head(lineage: str, estate: str) -> Head:
    """What the first entry is chained to, so that a journal cannot be moved to another state."""
    return Head(0, canonical_digest({"journal": 1, "lineage": lineage, "estate": estate}))


def next_row(head: Head, *, at: str, operation: str | None, event: str, detail: Mapping[str, object]) -> Row:
    """The entry after `head`; raises TypeError when the detail holds what JSON cannot, as a Secret."""
    number, text = head.number + 1, canonical_json(detail)
    return Row(number, at, operation, event, text, _digest(head.digest, (number, at, operation, event, text)))


def head_of(row: Row) -> Head:
    return Head(row.number, row.digest)


def first_break(rows: Iterable[Row], *, start: Head, end: Head) -> str | None:
    """The first place where the chain does not hold, in words, or None; `end` is where the state says that it ends."""
    head = start
    for row in rows:
        if row.number != head.number + 1:
            return f"journal: entry {head.number + 1} is missing"
        if row.digest != _digest(head.digest, row[:5]):
            return f"journal: the chain breaks at entry {row.number}: it, or the one before, was altered"
        head = head_of(row)
    if head != end:
        return f"journal: it ends at entry {head.number}, and {end.number} were written"
    return None


def _digest(before: str, entry: tuple[int, str, str | None, str, str]) -> str:
    """Over the entry before and every field of this one; the detail is canonical JSON already, on a line of its own."""
    head = canonical_json([before, *entry[:-1]])
    return hashlib.sha256(f"{head}\n{entry[-1]}".encode()).hexdigest()
