"""The pages for people, read as a reader does: links, tables, and blocks that can be tried out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "templates").glob("*/README.md")]))

_FENCE = re.compile(r"```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"<!-- file: (\S+) -->\n$")
_COMMENTED = re.compile(r"(?:#|//|\{#) (\S+/\S+|\S+\.(?:conf|cjs))(?: #\})?\n")
_NEEDS = re.compile(r"<!-- needs: ([\w ]+) -->")
_PORT = re.compile(r"\b1[89]\d{3}\b")
_EXIT = re.compile(r"exit (\d+)")
_VARYING = (
    (re.compile(r"mp1:[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}"), "FINGERPRINT"),
    (re.compile(r"\b\d{8}T\d{6}Z-[0-9a-f]{8}\b"), "OPERATION"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "LINEAGE"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "RELEASE"),
    (re.compile(r"\b\d+\.\d s\b"), "DURATION"),
    (re.compile(r"\bin \d+ d\b"), "in DAYS"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a page tells its reader to type, what it says that comes out, and the exit code."""

    line: str
    printed: tuple[str, ...] = ()
    code: int = 0

    def prints(self, text: str) -> bool:
        """Whether this is what the page promises; a line `...` stands for any lines."""
        lines = ("(?:.*\n)*?" if one == "..." else re.escape(constant(one)) + "\n" for one in self.printed)
        return re.fullmatch("".join(lines), constant(text)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What a page tells its reader to write."""

    path: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page with everything in it that can be tried out, in its order."""

    path: Path
    steps: tuple[Command | File, ...]
    needs: tuple[str, ...]

    @property
    def commands(self) -> tuple[Command, ...]:
        return tuple(step for step in self.steps if isinstance(step, Command))


def constant(text: str) -> str:
    """The text with what differs from run to run replaced by a word for it."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def read_page(path: Path, ports: Mapping[str, str] | None = None) -> Page:
    """Read a page, with other ports in place of its own where they are given."""
    text = path.read_text("utf-8")
    needs = tuple(_NEEDS.search(text).group(1).split()) if _NEEDS.search(text) else ()  # type: ignore[union-attr]
    for old, new in (ports or {}).items():
        text = re.sub(rf"\b{old}\b", new, text)
    return Page(path=path, steps=tuple(_steps(text)), needs=needs)


def ports_of(path: Path) -> list[str]:
    """The ports from 18000 to 19999 that a page names."""
    return sorted(set(_PORT.findall(path.read_text("utf-8"))))


def _steps(text: str) -> Iterator[Command | File]:
    for block in _FENCE.finditer(text):
        kind, content = block.groups()
        named = _NAMED.search(text[: block.start()]) or _COMMENTED.match(content)
        if kind == "console":
            yield from _commands(content)
        elif named:
            yield File(path=named.group(1), content=content)


def _commands(content: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        line, *printed = part.rstrip("\n").split("\n")
        ending = _EXIT.fullmatch(printed[-1]) if printed else None
        if ending:
            printed.pop()
        yield Command(line=line, printed=tuple(printed), code=int(ending.group(1)) if ending else 0)


def table_below(path: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, cell by cell."""
    section = re.split(rf"^#+ {re.escape(heading)}$", path.read_text("utf-8"), flags=re.MULTILINE)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None, f"no table below {heading}"
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.group().splitlines()]
    return rows[2:]
