"""The word that was probably meant, if there is exactly one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MAX_DISTANCE = 2
_SHORT = 3
"""Words of so few letters are near to everything: one edit is all that they are allowed."""


def suggestion(word: str, known: Collection[str]) -> str | None:
    """The one known word within two edits, else the one that shares its leading tokens; None unless it is unique."""
    wanted = word.lower()
    return _nearest(wanted, known) or _only(one for one in known if _shares_tokens(wanted, one))


def did_you_mean(word: str, known: Collection[str]) -> str | None:
    """The suggestion as a sentence for a diagnostic's help."""
    found = suggestion(word, known)
    return None if found is None else f"did you mean `{found}`?"


def _nearest(word: str, known: Iterable[str]) -> str | None:
    best: list[str] = []
    limit = 1 if len(word) <= _SHORT else _MAX_DISTANCE
    for one in known:
        distance = edit_distance(word, one.lower(), limit)
        if distance < limit:
            best, limit = [one], distance
        elif distance == limit:
            best.append(one)
    return _only(best)


def _only(words: Iterable[str]) -> str | None:
    found = list(words)
    return found[0] if len(found) == 1 else None


def _shares_tokens(word: str, other: str) -> bool:
    """Whether one's tokens begin with the other's: `billing` and `billing-api`."""
    mine, yours = _tokens(word), _tokens(other.lower())
    shorter = min(len(mine), len(yours))
    return mine != yours and mine[:shorter] == yours[:shorter]


def _tokens(word: str) -> list[str]:
    return word.replace("_", "-").split("-")


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours; anything above the limit is `limit + 1`."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        two_before, before, row = before, row, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)
