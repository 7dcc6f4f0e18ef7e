"""YAML nodes as a manifest's parts: each is what it has to be, or a problem with its place."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import yaml

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.render import codes

if TYPE_CHECKING:
    import re

_LARGEST = 65_536
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

W = TypeVar("W", bound=StrEnum)


def compose(text: bytes, file: str) -> yaml.Node | None:
    """The node of the whole file, None for an empty one; raises RuntimeFolderError when it is not YAML or too large."""
    if len(text) > _LARGEST:
        raise RuntimeFolderError([_problem(f"a manifest has at most {_LARGEST} bytes", Span(file, 1, 1, 1))])
    try:
        return yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise RuntimeFolderError([_unreadable(error, file)]) from None
    except (RecursionError, UnicodeDecodeError, ValueError):
        raise RuntimeFolderError([_problem("not UTF-8 text", Span(file, 1, 1, 1))]) from None


def _unreadable(error: yaml.YAMLError, file: str) -> Diagnostic:
    mark = getattr(error, "problem_mark", None)
    line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
    return _problem(str(getattr(error, "problem", None) or "not YAML"), Span(file, line, column, column + 1))


def _problem(message: str, span: Span) -> Diagnostic:
    return Diagnostic(code=codes.MANIFEST, message=message, span=span)


class Wrong(Exception):
    """What stands here cannot be used; the complaint is already noted."""


class Reading:
    """One manifest while it is read: each method gives what stands at a node, or notes a problem and raises Wrong.

    `what` is what the node is to be, in the words of the problem.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Diagnostic] = []

    def complain(self, message: str, node: yaml.Node | None) -> None:
        """Note a problem and go on."""
        mark = None if node is None else node.start_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        self.problems.append(_problem(message, Span(self._file, line, column, column + 1)))

    def wrong(self, message: str, node: yaml.Node | None) -> Wrong:
        """Note a problem; what is given is to be raised."""
        self.complain(message, node)
        return Wrong()

    def record(
        self, node: yaml.Node | None, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """The entries of a mapping with known keys; every unknown, doubled or missing one is noted."""
        entries = self.entries(node, what)
        known = (*required, *optional)
        for key, _ in node.value if node is not None else ():
            if key.value not in known:
                self.complain(f"`{key.value}` is not a key of {what}; its keys are {', '.join(known)}", key)
        missing = [key for key in required if key not in entries]
        if missing:
            raise self.wrong(f"{what} lacks {', '.join(missing)}", node)
        return entries

    def entries(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(f"{what} is a mapping", node)
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value in found:
                self.complain(f"the key `{key.value}` stands twice", key)
            found[str(key.value)] = value
        return found

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(f"{what} is a list", node)
        return list(node.value)

    def text(self, node: yaml.Node | None, what: str, grammar: re.Pattern[str] | None = None) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self.wrong(f"{what} is text", node)
        if grammar is not None and not grammar.fullmatch(node.value):
            raise self.wrong(f"{what} cannot be written so", node)
        return str(node.value)

    def word(self, node: yaml.Node | None, what: str, words: type[W]) -> W:
        try:
            return words(self.text(node, what))
        except ValueError:
            raise self.wrong(f"{what} is one of {', '.join(words)}", node) from None

    def switch(self, node: yaml.Node | None, what: str) -> bool:
        text = self.text(node, what)
        if text not in ("true", "false"):
            raise self.wrong(f"{what} is true or false", node)
        return text == "true"
