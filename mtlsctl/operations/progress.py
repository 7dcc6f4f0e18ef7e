"""What happens while it happens, for a person or a log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mtlsctl.model.plan import Wave
    from mtlsctl.model.topology import InstanceId, ProcessId


class Status(StrEnum):
    """How far a process got in a wave."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"
    """For a person: the key that its owner keeps is not on the host yet."""
    BLOCKED = "blocked"
    LEFT_OUT = "left-out"
    """It was not asked for this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """How many CAs and certificates were made."""

    at: datetime
    authorities: int
    certificates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEvent:
    """One process in one wave; `instances` are those that it is about, `message` says why it is not done.

    `code` is that of the error. `notes` are things that were not done and do not count as failures: a check whose
    program is not installed, a reload with nothing to signal.
    """

    at: datetime
    process: ProcessId
    wave: Wave
    status: Status
    instances: tuple[InstanceId, ...]
    message: str = ""
    code: str = ""
    help: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """Something that looking at the hosts showed: an interrupted switch that was settled, files that are gone."""

    at: datetime
    message: str


Event = Issued | ProcessEvent | Noticed
