"""Where words stood, and the problems found there, gathered until all are known."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

from mtlsctl.errors import InventoryError
from mtlsctl.model.diagnostic import Diagnostic, Severity, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = int
"""A character of the inventory: its offset in all files laid end to end. One number, as there are very many."""

MAX_PROBLEMS = 1000
"""So many are kept; a file of nothing but errors must not fill the memory."""

_QUOTED = re.compile(r"""'(?:[^'\n]|'')*'?|"(?:[^"\\\n]|\\.)*"?""")
_QUOTES = ("'", '"')


class Sources:
    """The texts of the inventory laid end to end, so that one number says file, line and column."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._texts: list[str] = []
        self._starts: list[int] = []
        self._lines: list[list[int] | None] = []
        self._end = 0
        self._index = self._line = self._line_start = self._line_end = 0

    def add(self, name: str, text: str) -> Place:
        """Take a file in; its first character stands at the place that is given back."""
        start = self._end
        self._names.append(name)
        self._texts.append(text)
        self._starts.append(start)
        self._lines.append(None)
        self._end += len(text) + 1
        return start

    def span(self, at: Place, text: str = "") -> Span:
        """The stretch of the word that begins at the place, within its line; `text` is the word as it was read."""
        if not self._line_start <= at < self._line_end:
            self._seek_line(at)
        length = len(text)
        source, offset = self._texts[self._index], at - self._starts[self._index]
        if source[offset : offset + 1] in _QUOTES and (quoted := _QUOTED.match(source, offset)):
            length = quoted.end() - offset
        column = at - self._line_start + 1
        return Span(self._names[self._index], self._line, column, column + (min(length, self._line_end - 1 - at) or 1))

    def spans(self, words: Sequence[tuple[str, Place]]) -> list[Span]:
        """The same of many words at once: most of them stand on one line, without quotes."""
        found: list[Span] = []
        new = tuple.__new__  # There are very many, and it takes half the time of the class's own.
        first = end = -1
        for text, at in words:
            if not first <= at < end:
                self._seek_line(at)
                file, line, first, end = self._names[self._index], self._line, self._line_start, self._line_end
                source, start = self._texts[self._index], self._starts[self._index]
            if not 0 < len(text) < end - at or source[at - start] in _QUOTES:
                found.append(self.span(at, text))
            else:
                column = at - first + 1
                found.append(new(Span, (file, line, column, column + len(text))))
        return found

    def _seek_line(self, at: Place) -> None:
        """Remember the line that holds the place: words are mostly asked for one after the other."""
        self._index = index = bisect_right(self._starts, at) - 1
        start = self._starts[index]
        lines = self._lines[index] or self._index_lines(index)
        self._line = line = bisect_right(lines, at - start)
        self._line_start = start + lines[line - 1]
        self._line_end = start + (lines[line] if line < len(lines) else len(self._texts[index]) + 1)

    def is_quoted(self, at: Place) -> bool:
        """Whether the word that begins at the place is written in quotes."""
        index = bisect_right(self._starts, at) - 1
        offset = at - self._starts[index]
        return self._texts[index][offset : offset + 1] in _QUOTES

    def _index_lines(self, index: int) -> list[int]:
        text = self._texts[index]
        lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._lines[index] = lines
        return lines


class Problems:
    """All diagnostics of one reading; nothing is raised before everything was looked at."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.found: list[Diagnostic] = []

    def add(
        self,
        code: str,
        message: str,
        at: Place | None,
        text: str = "",
        *,
        label: str = "",
        help: str | None = None,
        related: Sequence[tuple[Span, str]] = (),
        severity: Severity = Severity.ERROR,
    ) -> None:
        if len(self.found) >= MAX_PROBLEMS:
            return
        span = None if at is None else self.sources.span(at, text)
        self.put(code, message, span, label=label, help=help, related=related, severity=severity)

    def put(
        self,
        code: str,
        message: str,
        span: Span | None,
        *,
        label: str = "",
        help: str | None = None,
        related: Sequence[tuple[Span, str]] = (),
        severity: Severity = Severity.ERROR,
    ) -> None:
        self.found.append(
            Diagnostic(
                code=code,
                message=message,
                span=span,
                label=label,
                help=help,
                related=tuple(related),
                severity=severity,
            )
        )

    def warn(self, code: str, message: str, at: Place, text: str = "", *, help: str | None = None) -> None:
        self.add(code, message, at, text, help=help, severity=Severity.WARNING)

    @property
    def has_errors(self) -> bool:
        return any(one.severity is Severity.ERROR for one in self.found)

    @property
    def ordered(self) -> tuple[Diagnostic, ...]:
        return tuple(sorted(self.found, key=lambda one: one.order))

    def raise_if_any(self) -> None:
        """Raises InventoryError with everything found, warnings included, once one error is among it."""
        if self.has_errors:
            raise InventoryError(self.ordered)


def shown(text: str, limit: int = 60) -> str:
    """A word for a message: control characters escaped, never long."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."
