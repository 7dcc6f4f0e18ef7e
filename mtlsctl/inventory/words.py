"""Reads single values out of the tree, and says what is wrong with them where they stood."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mtlsctl.inventory import codes
from mtlsctl.inventory.grammar import Unfit, taken_for
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.source import Map, Seq
from mtlsctl.inventory.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from mtlsctl.inventory.problems import Place, Problems

Value = TypeVar("Value")
Default = TypeVar("Default")

MAX_SUGGESTIONS = 50
"""A search for the word that was meant takes milliseconds among thousands of names; so many are made in one reading."""


class Words:
    """Values of one reading; whatever does not follow its grammar is reported and counts as lost."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self._suggestions = 0

    def read(
        self, node: Map | None, key: str, parse: Callable[[str], Value], default: Default, *, is_name: bool = False
    ) -> Value | Default:
        """The value of a key, or the default where it is absent or was reported."""
        text = None if node is None else node.get(key)
        if node is None or not isinstance(text, str):
            return default
        value = self.parsed(text, node.values_at[key], parse, is_name=is_name)
        if value is None:
            node.lost.add(key)
            return default
        return value

    def parsed(self, text: str, at: Place, parse: Callable[[str], Value], *, is_name: bool = False) -> Value | None:
        """The value of one word; None when it was reported."""
        if is_name and not self.is_text(text, at):
            return None
        try:
            return parse(text)
        except Unfit as error:
            self.problems.add(error.code, error.message, at, text, help=error.help)
            return None

    def is_text(self, text: str, at: Place) -> bool:
        """Whether every YAML reader takes the word for text; an unquoted `no`, false to many, is reported."""
        meaning = taken_for(text)
        if meaning is None or self.problems.sources.is_quoted(at):
            return True
        self.problems.add(
            codes.UNQUOTED,
            f"unquoted `{text}` where a name is expected",
            at,
            text,
            label=f"YAML reads an unquoted {text} as {meaning} in many tools",
            help=f'quote it: "{text}"',
        )
        return False

    def did_you_mean(self, word: str, known: Collection[str]) -> str | None:
        self._suggestions += 1
        return did_you_mean(word, known) if self._suggestions <= MAX_SUGGESTIONS else None

    def unrepeated(self, items: Seq, what: str) -> Sequence[tuple[str, Place]]:
        """The words of a list with their places; a second one of the same text is reported and left out."""
        words = [(text, at) for text, at in zip(items, items.items_at, strict=True) if isinstance(text, str)]
        if len(words) == 1 or len(dict(words)) == len(words):
            return words
        return list(self._refuse_repeated(words, what))

    def _refuse_repeated(self, words: Sequence[tuple[str, Place]], what: str) -> Iterator[tuple[str, Place]]:
        first: dict[str, Place] = {}
        for text, at in words:
            if text in first:
                place = self.problems.sources.span(first[text], text)
                message = f"the {what} `{shown(text)}` stands twice"
                self.problems.add(codes.REPEATED, message, at, text, related=[(place, "first given here")])
                continue
            first[text] = at
            yield text, at


def map_of(node: Map | None, key: str) -> Map | None:
    value = None if node is None else node.get(key)
    return value if isinstance(value, Map) else None


def seq_of(node: Map, key: str) -> Seq | None:
    value = node.get(key)
    return value if isinstance(value, Seq) else None
