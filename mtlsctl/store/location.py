"""`--state URL`: which store, and where. Imports a store only once one is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import StateError, UsageError
from mtlsctl.store import codes

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from mtlsctl.store.keysource import KeySource
    from mtlsctl.store.port import StateStore


_NO_KIND = "the URL of the state does not begin with its kind"


def state_path(url: str, *, base: Path) -> Path:
    """The file of `sqlite:PATH`, relative to `base`; raises StateError for PostgreSQL, UsageError for anything else.

    The URL itself is never repeated: it may hold a password.
    """
    scheme, colon, place = url.partition(":")
    if colon and scheme in ("postgresql", "postgres"):
        raise StateError("a state in PostgreSQL is not built yet", code=codes.NOT_BUILT, help="use sqlite:PATH")
    if scheme == "sqlite" and place and "\x00" not in place:
        return base / _expanded(place)
    named = f"`{scheme}:` is not a kind of state" if re.fullmatch("[a-z0-9+]{1,20}", scheme) and colon else _NO_KIND
    raise UsageError(named, code=codes.UNKNOWN_URL, help="use sqlite:PATH")


def _expanded(place: str) -> Path:
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise UsageError(
            "the state's path begins with `~`, and there is no such home folder",
            code=codes.UNKNOWN_URL,
            help="write the path out: sqlite:/PATH",
        ) from None


def open_state(
    url: str,
    *,
    base: Path,
    lineage: str | None,
    estate: str | None,
    key_source: KeySource | None = None,
    clock: Callable[[], datetime] | None = None,
) -> StateStore:
    """Open the state that a URL names; it has to exist, and with `lineage` and `estate` to be theirs.

    Raises StateError (M3001 missing, M3002 foreign, M3003 broken, M3004 newer than this mtlsctl, M3005 not built
    yet). Without a key source it reads, and refuses to seal or open a key.
    """
    path = state_path(url, base=base)
    from mtlsctl.store.sqlite import open_store  # noqa: PLC0415  `--help` needs no database

    return open_store(path, lineage=lineage, estate=estate, key_source=key_source, clock=clock)


def create_state(
    url: str, *, base: Path, lineage: str, estate: str, clock: Callable[[], datetime] | None = None
) -> Path:
    """Make a new empty state where a URL says; gives its path, raises StateError (M3009) when something is there."""
    path = state_path(url, base=base)
    from mtlsctl.store.sqlite import create  # noqa: PLC0415

    create(path, lineage=lineage, estate=estate, clock=clock)
    return path
