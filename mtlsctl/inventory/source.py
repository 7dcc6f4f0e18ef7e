"""YAML 1.2 text to a tree of strings that knows where each word stood.

Read event by event, so that a file is refused before what it asks for is built: no anchors, aliases, merge keys or
tags exist in the language, and every scalar stays the text that was written; what it means, the schema says.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Final

import yaml

from mtlsctl.inventory import codes
from mtlsctl.inventory.problems import Problems, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtlsctl.inventory.problems import Place
    from mtlsctl.model.diagnostic import Span

_THE_FILE_ITSELF = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_NODES: Final = 2_000_000
MAX_DEPTH: Final = 32
MAX_SCALAR_BYTES: Final = 4096
_CERTAINLY_SHORT: Final = MAX_SCALAR_BYTES // 4
"""Characters that take no more, whatever they are."""
MAX_PLACES: Final = 20
"""So many places of one kind of unseen character or tab are reported, no more."""

# Compiled where they are first used: a file in plain ASCII needs neither.
_UNSEEN = (
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|\r(?!\n)"
)
_UNSEEN_ASCII = bytes({*range(32), 127} - {9, 10, 13})
_TAB = r"(?m)^ *\t"
_TAB_BEFORE_A_WORD = r"(?m)^ *\t[ \t]*[^ \t\r\n#]"
_BLANK_WITH_TAB = r"(?m)^ *\t[ \t]*"
_GAP: Final = "\ufdd0"
"""Stands for a refused character while the rest is read: a letter to YAML, and never assigned by Unicode."""
_BYTE_ORDER_MARK: Final = "\ufeff"
_DIRECTIVE = re.compile(r"(?m)^%(?!YAML 1\.2[ \r]*$)")
"""Refused before the parser sees them: libyaml compares each tag directive with all before it."""
_ENCODINGS = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


class Map(dict[str, "Node"]):
    """A mapping; `keys_at` and `values_at` say where its words stood, `lost` which keys had a refused value."""

    __slots__ = ("at", "keys_at", "lost", "values_at")

    def __init__(self, at: Place) -> None:
        self.at = at
        self.keys_at: dict[str, Place] = {}
        self.values_at: dict[str, Place] = {}
        self.lost: set[str] = set()

    def drop(self, key: str) -> None:
        """Take out an entry that was reported, and remember that it was there: what follows from it stays unsaid."""
        del self[key]
        self.lost.add(key)


class Seq(list["Node"]):
    """A list; `items_at` says where its items stood, `is_holed` that an item was refused."""

    __slots__ = ("at", "is_holed", "items_at")

    def __init__(self, at: Place) -> None:
        self.at = at
        self.items_at: list[Place] = []
        self.is_holed = False

    def drop(self, index: int) -> None:
        del self[index]
        del self.items_at[index]
        self.is_holed = True


Node = str | Map | Seq


def set_aside(kept: Node | None, refused: Node | None) -> None:
    """Note in what was given first what a second one of its name declares: nothing follows from its absence."""
    if isinstance(kept, Map) and isinstance(refused, Map):
        kept.lost |= (refused.keys() | refused.lost) - kept.keys()
        for key in refused.keys() & kept.keys():
            set_aside(kept[key], refused[key])
    elif isinstance(kept, Seq) and isinstance(refused, Seq):
        kept.is_holed = True


class _Refused(Exception):
    """The file is not read further; its problem is on the list."""


def read_file(path: Path, name: str, problems: Problems) -> Map | None:
    """The tree of one file, or None when it was refused as a whole; then the problems say why.

    A tree may come with problems: it is what the file would be without them, and good for finding more.
    """
    content = _bytes_of(path, name, problems)
    text = None if content is None else _text_of(content, name, problems)
    return None if text is None else read_text(text, name, problems)


def read_text(text: str, name: str, problems: Problems) -> Map | None:
    """The tree of a text, with None and problems as `read_file`."""
    start = problems.sources.add(name, text)
    if text.startswith(_BYTE_ORDER_MARK):
        problems.add(codes.BYTE_ORDER_MARK, "the file begins with a byte order mark", start, help="save it without one")
        text, start = text[1:], start + 1
    readable = _readable(text, start, problems)
    if readable is None:
        return None
    is_mended = readable != text
    try:
        return _Builder(start, problems, is_mended=is_mended).build(_parser(readable))
    except _Refused:
        return None
    except yaml.YAMLError as error:
        if not is_mended:  # Else it may come of what was reported, or of the mending.
            _report_syntax(error, text, start, problems)
    except (ValueError, OverflowError):
        # The pure parser makes a character of every \U escape, and not every number is one.
        problems.add(codes.SYNTAX, "an escape names no Unicode character", start)
    return None


def _bytes_of(path: Path, name: str, problems: Problems) -> bytes | None:
    try:
        with os.fdopen(os.open(path, _THE_FILE_ITSELF), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                problems.put(codes.UNREADABLE, f"`{shown(name)}` is not a plain file", None)
                return None
            # Not more than its size: a read of 8 MiB takes 8 MiB, however small the file.
            content = file.read(min(found.st_size, MAX_BYTES) + 1)
    except FileNotFoundError:
        problems.put(codes.UNREADABLE, f"`{shown(name)}` does not exist", None)
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            message = f"`{shown(name)}` is a symbolic link"
            problems.put(codes.UNREADABLE, message, None, help="put the file itself there")
            return None
        problems.put(codes.UNREADABLE, f"`{shown(name)}` cannot be read: {error.strerror}", None)
        return None
    if len(content) > MAX_BYTES:
        problems.put(
            codes.TOO_LARGE,
            f"`{shown(name)}` is larger than 8 MiB",
            None,
            help="an inventory may be a folder of files, merged by name",
        )
        return None
    return content


def _text_of(content: bytes, name: str, problems: Problems) -> str | None:
    for mark, encoding in _ENCODINGS:
        if content.startswith(mark):
            problems.put(codes.NOT_UTF8, f"`{shown(name)}` is {encoding}", None, help="save it as UTF-8")
            return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        at = problems.sources.add(name, before) + len(before)
        problems.add(codes.NOT_UTF8, f"the byte 0x{content[error.start]:02x} is not UTF-8", at, help="save it as UTF-8")
        return None


def _readable(text: str, start: Place, problems: Problems) -> str | None:
    """The text with every character in its place and the refused ones, each reported, replaced by harmless ones.

    None where a tab stands before a word: how deep that word is meant to be would be a guess. What nobody sees is
    refused in comments too (Trojan Source).
    """
    text = _without_unseen(text, start, problems)
    text = _without_directives(text, start, problems)
    return _without_tabs(text, start, problems)


def _without_unseen(text: str, start: Place, problems: Problems) -> str:
    if _is_plain(text):
        return text
    for found in _first(re.finditer(_UNSEEN, text)):
        name = f"U+{ord(found[0]):04X}"
        problems.add(codes.UNSEEN_CHARACTER, f"the invisible or control character {name}", start + found.start())
    return re.sub(_UNSEEN, _GAP, text)


def _without_directives(text: str, start: Place, problems: Problems) -> str:
    """Directives turned to comments, the first reported."""
    found = _DIRECTIVE.search(text)
    if found is None:
        return text
    message = "directives are not part of the language; an inventory is YAML 1.2"
    problems.add(codes.TAG, message, start + found.start())
    return _DIRECTIVE.sub("#", text)


def _without_tabs(text: str, start: Place, problems: Problems) -> str | None:
    if "\t" not in text:
        return text
    for found in _first(re.finditer(_TAB, text)):
        at = start + found.end() - 1
        problems.add(codes.TAB, "a tab stands in the indentation", at, help="indent with spaces")
    if re.search(_TAB_BEFORE_A_WORD, text):
        return None
    return re.sub(_BLANK_WITH_TAB, lambda found: " " * len(found[0]), text)


def _is_plain(text: str) -> bool:
    """Quickly, for the usual file: ASCII without control characters and without lone carriage returns."""
    if not text.isascii():
        return False
    return "\r" not in text and len(text.encode("ascii").translate(None, _UNSEEN_ASCII)) == len(text)


def _first(found: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    for _, one in zip(range(MAX_PLACES), found, strict=False):
        yield one


def _parser(text: str) -> Any:
    """The C parser, or the pure one where PyYAML was built without it: the same events, only slower."""
    loader: Callable[[str], Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return loader(text)


def _report_syntax(error: yaml.YAMLError, text: str, start: Place, problems: Problems) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    index = mark.index if mark is not None else getattr(error, "position", 0)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
    context = getattr(error, "context", None)
    context_mark = getattr(error, "context_mark", None)
    related: list[tuple[Span, str]] = []
    if context and context_mark is not None and mark is not None and context_mark.line != mark.line:
        at = start + min(context_mark.index, len(text))
        related.append((problems.sources.span(at), str(context)))
    message = f"this is not YAML: {problem}"
    problems.add(codes.SYNTAX, message, start + min(index, len(text)), related=related)


class _Builder:
    """Events to a tree. One call for each event, hence few and plain steps in each.

    Events are typed loosely here: the stubs of PyYAML know none of the attributes that they carry.
    """

    def __init__(self, start: Place, problems: Problems, *, is_mended: bool = False) -> None:
        self._start = start
        self._is_mended = is_mended
        self._problems = problems
        self._nodes = 0
        self._top: Node | None = None
        self._node: Map | Seq | None = None
        self._key: str | None = None
        self._stack: list[tuple[Map | Seq | None, str | None]] = []
        self._documents = 0
        self._put_away: list[tuple[Map, str, str]] = []

    def build(self, parser: Any) -> Map | None:
        steps: dict[type, Callable[[Any], None]] = {
            yaml.MappingStartEvent: self._mapping,
            yaml.SequenceStartEvent: self._sequence,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        next_event, scalar, word, end = parser.get_event, self._scalar, yaml.ScalarEvent, yaml.StreamEndEvent
        start = self._start
        while (kind := (event := next_event()).__class__) is not end:
            if kind is not word:
                if (step := steps.get(kind)) is not None:
                    step(event)
                continue
            # Most are words, and most of those the plain value of a key or the plain item of a list.
            node, key, text = self._node, self._key, event.value
            if (
                event.anchor is None
                and event.tag is None
                and len(text) <= _CERTAINLY_SHORT
                and text.isprintable()
                and self._nodes < MAX_NODES
            ):
                if node.__class__ is Seq:
                    self._nodes += 1
                    node.append(text)
                    node.items_at.append(start + event.start_mark.index)
                    continue
                if key is not None and node.__class__ is Map:
                    self._nodes += 1
                    node[key] = text
                    node.values_at[key] = start + event.start_mark.index
                    self._key = None
                    continue
            scalar(event)
        for node, key, first in self._put_away:
            set_aside(node.get(first), node.pop(key, None))
        return self._whole()

    def _whole(self) -> Map | None:
        top = self._top
        if isinstance(top, Map):
            return top
        if top is None or top == "":
            self._problems.add(codes.EMPTY_FILE, "the file holds nothing", self._start, help="delete it, or fill it")
        else:
            self._problems.add(
                codes.WRONG_KIND,
                "an inventory is a mapping: `version`, `name`, `hosts`, `services`",
                top.at if isinstance(top, Seq) else self._start,
            )
        return None

    def _scalar(self, event: Any) -> None:
        if event.anchor is not None or event.tag is not None:
            self._refuse_property(event)
        text: str = event.value
        at = self._start + event.start_mark.index
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(codes.TOO_MANY_NODES, "the file holds more than 2,000,000 keys and values", at)
        if not text.isprintable() or len(text) > _CERTAINLY_SHORT:
            examined = self._examined(text, at)
            if examined is None:
                self._lose(at)
                return
            text = examined
        node = self._node
        if isinstance(node, Map):
            key = self._key
            if key is None:
                self._begin_entry(node, text, at)
            else:
                node[key] = text
                node.values_at[key] = at
                self._key = None
        elif node is None:
            self._top = text
        else:
            node.append(text)
            node.items_at.append(at)

    def _begin_entry(self, node: Map, text: str, at: Place) -> None:
        """Note a key. A second one of the same name is reported with both places and its value is put away."""
        if not text:
            self._refuse(codes.KEY_NOT_TEXT, "a key is empty", at)
        if text == "<<" and not self._problems.sources.is_quoted(at):
            self._refuse(codes.ALIAS, "merge keys are not part of the language", at, "<<", help="write the keys out")
        if text in node.keys_at:
            first = self._problems.sources.span(node.keys_at[text], text)
            message = f"the key `{shown(text)}` is given twice"
            self._problems.add(codes.DUPLICATE_KEY, message, at, text, related=[(first, "first given here")])
            self._put_away_entry(node, text, at)
            return
        node.keys_at[text] = at
        self._key = text

    def _put_away_entry(self, node: Map, text: str, at: Place) -> None:
        """Read the value of a refused key under a name that no text can have."""
        self._key = f"\0{at}"
        node.keys_at[self._key] = at
        self._put_away.append((node, self._key, text))

    def _examined(self, text: str, at: Place) -> str | None:
        """The word as people see it; None where nothing is left to go on with. What is wrong with it is reported."""
        if self._is_mended:
            text = text.replace(_GAP, "")
        if len(text.encode("utf-8", "surrogatepass")) > MAX_SCALAR_BYTES:
            self._problems.add(codes.SCALAR_TOO_LONG, "a value is longer than 4 KiB", at)
            return None
        bad = next((c for c in text if not c.isprintable()), None)
        if bad is None:
            return text or None
        what = "a line break" if bad == "\n" else f"the invisible or control character U+{ord(bad):04X}"
        self._problems.add(codes.UNSEEN_CHARACTER, f"a value holds {what}", at, text)
        return None if "\n" in text.strip() else "".join(filter(str.isprintable, text)) or None

    def _lose(self, at: Place) -> None:
        """Go on without a word that was reported: its key, or its list, remembers that there was one."""
        node = self._node
        if node is None:
            raise _Refused
        if isinstance(node, Seq):
            node.is_holed = True
        elif self._key is None:
            self._put_away_entry(node, "", at)
        else:
            node.lost.add(self._key)
            self._key = None

    def _mapping(self, event: Any) -> None:
        self._open(event, Map(self._start + event.start_mark.index))

    def _sequence(self, event: Any) -> None:
        self._open(event, Seq(self._start + event.start_mark.index))

    def _open(self, event: Any, new: Map | Seq) -> None:
        if event.anchor is not None or event.tag is not None:
            self._refuse_property(event)
        self._nodes += 1
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(codes.TOO_DEEP, "mappings and lists are nested deeper than 32", new.at)
        node = self._node
        if isinstance(node, Map):
            if self._key is None:
                self._refuse(codes.KEY_NOT_TEXT, "a key is a list or a mapping; keys are text", new.at)
            else:
                node[self._key] = new
                node.values_at[self._key] = new.at
        elif node is None:
            self._top = new
        else:
            node.append(new)
            node.items_at.append(new.at)
        self._stack.append((node, self._key))
        self._node, self._key = new, None

    def _end(self, _: Any) -> None:
        self._node = self._stack.pop()[0]
        self._key = None

    def _alias(self, event: Any) -> None:
        at = self._start + event.start_mark.index
        self._refuse(codes.ALIAS, "aliases are not part of the language", at, "*" + event.anchor, help="write it out")

    def _document(self, event: Any) -> None:
        at = self._start + event.start_mark.index
        self._documents += 1
        if self._documents > 1:
            self._refuse(
                codes.SEVERAL_DOCUMENTS,
                "the file holds more than one document",
                at,
                "---",
                help="put each into a file of its own; a folder of files is merged by name",
            )

    def _refuse_property(self, event: Any) -> None:
        at = self._start + event.start_mark.index
        if event.anchor is not None:
            text = "&" + event.anchor
            self._refuse(codes.ALIAS, "anchors are not part of the language", at, text, help="write it out")
        self._refuse(codes.TAG, f"the tag `{shown(str(event.tag))}` is not part of the language", at, "!")

    def _refuse(self, code: str, message: str, at: Place, text: str = "", *, help: str | None = None) -> None:
        self._problems.add(code, message, at, text, help=help)
        raise _Refused
