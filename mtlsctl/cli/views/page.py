"""How text meets the terminal: width, colour, symbols, and what may never reach it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta


class Tone(Enum):
    """A colour tells nothing by itself: a symbol and a word stand beside it."""

    ADD = "36"
    CHANGE = "33"
    REMOVE = "35"
    ERROR = "1;31"
    BOLD = "1"
    DIM = "2"


SYMBOLS = {
    "add": ("+", "+"),
    "change": ("~", "~"),
    "replace": ("±", "+/-"),
    "remove": ("-", "-"),
    "renew": ("↻", "r"),
    "move": ("→", ">"),
    "risk": ("!", "!"),
    "ok": ("✓", "ok"),
    "fail": ("✗", "FAIL"),
    "refused": ("·", "."),
    "unclear": ("?", "?"),
    "not probed": ("○", "n"),
    "none": ("-", "-"),
}
"""Each symbol and what stands for it in ASCII."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_OURS = re.compile(r"\x1b\[[0-9;]*m|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the reader's terminal can show; `full` asks for every line of every section."""

    width: int = 80
    colour: bool = False
    ascii: bool = False
    full: bool = False

    def symbol(self, name: str) -> str:
        return SYMBOLS[name][self.ascii]

    def paint(self, text: str, tone: Tone) -> str:
        """Colour adds bytes, never characters: pad before painting."""
        return f"\x1b[{tone.value}m{text}\x1b[0m" if self.colour and text else text


def escaped(text: str) -> str:
    """Free text on one line: control, bidirectional and zero-width characters are shown as escapes."""
    return _UNPRINTABLE.sub(lambda found: _escape(found.group()), text)


def _escape(character: str) -> str:
    known = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
    code = ord(character)
    return known.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")  # noqa: PLR2004  one byte


def safe(text: str, *, colour: bool) -> str:
    """The last guard before a terminal: nothing but line ends, and our own colours where they are wanted."""
    if text.replace("\n", "").isprintable():
        return text
    pieces, start = [], 0
    for found in _OURS.finditer(text):
        if found.group() == "\n" or colour:
            pieces += [escaped(text[start : found.start()]), found.group()]
            start = found.end()
    return "".join([*pieces, escaped(text[start:])])


def cells(text: str) -> int:
    """Columns that the text takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def padded(text: str, width: int) -> str:
    return text + " " * max(0, width - cells(text))


def columns(rows: Sequence[Sequence[str]], *, indent: str = "  ", gap: str = "  ") -> list[str]:
    """Rows of text as aligned columns; the last is not padded."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)] if rows else []
    return [
        (indent + gap.join(padded(cell, width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def shortened(text: str, width: int) -> str:
    """The end of a text that is too long gives way to three dots."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def shortened_left(text: str, width: int) -> str:
    """The beginning gives way: of a path the end says more."""
    return text if len(text) <= width else "..." + text[-max(1, width - 3) :]


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 service`, `2 services`, `3,000 services`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Iterable[str], *, width: int, joint: str = ", ") -> str:
    """As many names as fit, then how many more there are; a name is never cut."""
    names = list(names)
    whole = joint.join(names)
    if len(whole) <= width:
        return whole
    shown, length = 0, 0
    while shown < len(names) and length + len(names[shown]) + len(joint) <= width - len("... 10,000 more"):
        length += len(names[shown]) + len(joint)
        shown += 1
    shown = max(shown, 1)
    return joint.join([*names[:shown], f"... {len(names) - shown:,} more"]) if shown < len(names) else whole


def wrapped(text: str, *, width: int, first: str, rest: str) -> list[str]:
    """A sentence in lines of at most `width` characters; a word that is longer stays whole."""
    if len(first) + len(text) <= width:
        return [(first + text).rstrip()]
    lines, begin, start = [], first, 0
    while len(begin) + len(text) - start > width:
        end = text.rfind(" ", start + 1, start + max(0, width - len(begin)) + 1)
        end = end if end >= 0 else text.find(" ", start + 1)
        if end < 0:
            break
        lines.append((begin + text[start:end]).rstrip())
        begin, start = rest, end + 1
    return [*lines, (begin + text[start:]).rstrip()]


def length_of(duration: timedelta) -> str:
    """`90d`, `12h`, `30m`: as an inventory would write it."""
    seconds = int(duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


_YEAR, _MONTH, _DAY, _HOUR, _MINUTE = 31_557_600, 2_629_800, 86_400, 3_600, 60


def roughly(duration: timedelta) -> str:
    """`4 y 2 mo`, `24 d`, `5 h`, `3 min`, `20 s`: for people."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds >= 2 * _YEAR:
        years, rest = divmod(seconds, _YEAR)
        return f"{years} y {rest // _MONTH} mo" if rest >= _MONTH else f"{years} y"
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def took(duration: timedelta) -> str:
    """`0.3 s`, `41 s`, `3 min`: how long something ran."""
    seconds = duration.total_seconds()
    return f"{seconds:.1f} s" if seconds < 10 else roughly(duration)  # noqa: PLR2004  where tenths still tell something


def relative(at: datetime, now: datetime) -> str:
    """`in 24 d` or `3 h ago`."""
    return f"in {roughly(at - now)}" if at >= now else f"{roughly(now - at)} ago"


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
