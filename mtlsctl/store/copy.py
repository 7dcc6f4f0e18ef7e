"""Copies of a state: whole and private or not made at all; and back again, never silently to an older one."""

from __future__ import annotations

import os
import secrets
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from mtlsctl.errors import StateError, StateLocked
from mtlsctl.store import codes
from mtlsctl.store.check import findings
from mtlsctl.store.database import Database, connect, open_database, said_as_state_error
from mtlsctl.store.files import appearing, create_private_file, make_private_folder, sync
from mtlsctl.store.journal import Event, Head, next_row
from mtlsctl.store.lock import lock_path, locked
from mtlsctl.store.records import time_to_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from mtlsctl.store.database import Meta


def back_up(database: Database, target: Path) -> None:
    """A consistent copy in one file, 0600; raises StateError: M3041 the target exists, M3007 it cannot be made."""
    with said_as_copy_error(target), appearing(target) as unfinished:
        _copy(database, unfinished)


def restore(
    backup: Path, target: Path, *, lineage: str | None, estate: str | None, now: datetime, force: bool = False
) -> None:
    """Make `target` what `backup` holds, all or nothing; what cannot be read there is set aside, not removed.

    The backup must pass every check. Raises StateError: M3040 when the target is further on than the backup, unless
    forced (whatever was signed since is then unknown to the state); those of opening for the backup; StateLocked
    while an operation runs.
    """
    with closing(open_database(backup, lineage=lineage, estate=estate, read_only=True)) as source:
        _refuse_unsound(source)
        make_private_folder(target.parent)
        with locked(lock_path(target), timeout_seconds=0.0) as held:
            if not held:
                raise StateLocked(f"the state at {target} is in use; nothing was restored", code=codes.LOCKED)
            _restore_locked(source, target, now=now, force=force)


def _restore_locked(source: Database, target: Path, *, now: datetime, force: bool) -> None:
    meta = source.meta()
    with _target_as_it_is(target, meta) as present:
        before = None if present is None else present.meta()
        if before is not None and before.serial > meta.serial and not force:
            raise StateError(
                f"the state at {target} has serial {before.serial}, the backup {meta.serial}: it would go back",
                code=codes.GOES_BACK,
                help="back up the state first; then --force, knowing that what was signed since is forgotten",
            )
        with said_as_copy_error(target), _unfinished_beside(target) as unfinished:
            _copy(source, unfinished)
            _note_restored(unfinished, meta, before, now)
            if present is None:
                _take_place(unfinished, target)
            else:
                # Into the open file, in one transaction: a new file would meet the old one's write-ahead log.
                with closing(connect(unfinished)) as restored:
                    restored.backup(present.connection)


def _refuse_unsound(source: Database) -> None:
    if found := [one for one in findings(source) if not one.startswith("mode:")]:
        raise StateError(
            f"the backup at {source.path} does not hold together: {found[0]}",
            code=codes.BROKEN,
            notes=found[1:10],
            help="take another backup",
        )


@contextmanager
def _target_as_it_is(target: Path, meta: Meta) -> Iterator[Database | None]:
    """The target opened, or None when there is none that can be read; raises StateError when it is another estate's."""
    try:
        database = open_database(target, lineage=meta.lineage, estate=meta.estate)
    except StateError as error:
        if error.code not in (codes.MISSING, codes.BROKEN):
            raise
        yield None
        return
    with closing(database):
        yield database


def _note_restored(path: Path, meta: Meta, before: Meta | None, now: datetime) -> None:
    """Write into the copy that it is one. The clock's mark and the fence never go back, even where the rest does."""
    at = time_to_text(now)
    replaced = None if before is None else before.serial
    row = next_row(
        Head(meta.journal_number, meta.journal_digest),
        at=at,
        operation=None,
        event=Event.RESTORED,
        detail={"serial": meta.serial, "replaced_serial": replaced},
    )
    high_water = max(at, meta.high_water, "" if before is None else before.high_water)
    fence = max(meta.fence, 0 if before is None else before.fence) + 1
    with closing(Database(path, connect(path))) as copied, copied.writing() as connection:
        connection.execute("DELETE FROM holder")
        connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.execute(
            "UPDATE meta SET high_water = ?, fence = ?, journal_number = ?, journal_digest = ?",
            (high_water, fence, row.number, row.digest),
        )


def _take_place(unfinished: Path, target: Path) -> None:
    """Name the copy, after setting aside what has that name: also its log, which SQLite would replay into the copy."""
    aside = f"{target.name}.set-aside-{secrets.token_hex(4)}"
    for ending in ("", "-wal", "-shm"):
        remains = target.with_name(target.name + ending)
        if os.path.lexists(remains):
            remains.rename(target.with_name(aside + ending))
    unfinished.rename(target)
    sync(target.parent)


@contextmanager
def _unfinished_beside(target: Path) -> Iterator[Path]:
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    os.close(create_private_file(unfinished))
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(source: Database, path: Path) -> None:
    """Into an empty file, complete in itself (no write-ahead log beside it) and on the disk."""
    with closing(connect(path)) as target:
        with source.reading() as connection:
            connection.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    sync(path)


@contextmanager
def said_as_copy_error(target: Path) -> Iterator[None]:
    """Turn what the file system and SQLite raise while a file is made into a StateError that names it."""
    try:
        with said_as_state_error(target):
            yield
    except FileExistsError:
        raise StateError(
            f"{target} exists and is not replaced", code=codes.TARGET_EXISTS, help="name a file that does not exist yet"
        ) from None
    except OSError as error:
        raise StateError(f"{target} cannot be written: {error.strerror}", code=codes.UNUSABLE) from None
