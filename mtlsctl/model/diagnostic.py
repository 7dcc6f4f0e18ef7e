"""A problem as a value: what, where, why, what next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


def printable(text: str) -> str:
    """Text that is not ours, as a message may quote it: every other character as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Span(NamedTuple):
    """A stretch of one line in a file; line and column count characters from 1, `end_column` is exclusive."""

    file: str
    line: int
    column: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem. `label` stands beside the caret, `related` points at the other place of a conflict."""

    code: str
    message: str
    severity: Severity = Severity.ERROR
    span: Span | None = None
    label: str = ""
    notes: tuple[str, ...] = ()
    help: str | None = None
    related: tuple[tuple[Span, str], ...] = ()

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        """Sorts by file, line, column, then code."""
        place = self.span or Span("", 0, 0, 0)
        return (place.file, place.line, place.column, self.code, self.message)
