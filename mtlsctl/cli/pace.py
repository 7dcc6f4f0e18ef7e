"""What the flags of `apply` say about how much of a plan, how fast and until when."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtlsctl.operations.apply import Scope
    from mtlsctl.operations.schedule import Batch, Pace

MOST_FORKS = 500
_PATTERN = re.compile(r"[A-Za-z0-9._*?!\[\]-]{1,100}")
_BATCH = re.compile(r"([0-9]{1,4})(%?)")
_ALL = 100


def scope_of(limit: Sequence[str], target: Sequence[str]) -> Scope:
    """From `--limit` and `--target`, each given as often as wanted, with commas or without; raises UsageError."""
    from mtlsctl.operations.apply import Scope  # noqa: PLC0415  what is slow is imported where it is used

    return Scope(hosts=_names("--limit", limit), services=_names("--target", target))


def _names(flag: str, given: Sequence[str]) -> frozenset[str] | None:
    """An empty list is no list at all: it would be taken for everything by one reader and for nothing by another."""
    if not given:
        return None
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if _PATTERN.fullmatch(name) is None:
            raise UsageError(f"{flag}: `{name}` is neither a name nor a pattern such as web*", code="M9101")
    return frozenset(names)


def pace_of(forks: str | None, batch: str | None, max_fail: str | None, environ: Mapping[str, str]) -> Pace:
    """From `--forks` (or MTLSCTL_FORKS), `--batch` and `--max-fail`; raises UsageError.

    Whoever asks for batches wants the first to go well: unless `--max-fail` says otherwise, one failed host is enough.
    """
    from mtlsctl.operations.schedule import Pace  # noqa: PLC0415  what is slow is imported where it is used

    asked = forks if forks is not None else environ.get("MTLSCTL_FORKS") or None
    batches = () if batch is None else batches_of(batch)
    most = None if max_fail is None else _number("--max-fail", max_fail, least=0, most=9999)
    return Pace(
        forks=None if asked is None else _number("--forks", asked, least=1, most=MOST_FORKS),
        batches=batches,
        most_failures=0 if most is None and batches else most,
    )


def _number(flag: str, text: str, *, least: int, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 6 and least <= int(text) <= most:  # noqa: PLR2004  digits
        return int(text)
    raise UsageError(f"{flag} is a number from {least} to {most}, not `{text}`", code="M9101")


def batches_of(text: str) -> tuple[Batch, ...]:
    """`1,10%,100%`: hosts or hundredths of them, the last one all that are left; raises UsageError."""
    from mtlsctl.operations.schedule import Batch  # noqa: PLC0415  what is slow is imported where it is used

    found = [_BATCH.fullmatch(one.strip()) for one in text.split(",")]
    sizes = [Batch(int(one[1]), is_percentage=bool(one[2])) for one in found if one is not None]
    if len(sizes) != len(found) or any(not _is_fit(one) for one in sizes):
        raise UsageError(
            f"--batch: `{text}` is no list of batches: numbers of hosts and percentages, such as 1,10%,100%",
            code="M9101",
        )
    if sizes[-1] != Batch(_ALL, is_percentage=True):
        raise UsageError(
            "--batch: the last batch is what is left, so it is 100%", code="M9101", help=f"--batch {text},100%"
        )
    return tuple(sizes)


def _is_fit(one: Batch) -> bool:
    return one.number > 0 and not (one.is_percentage and one.number > _ALL)
