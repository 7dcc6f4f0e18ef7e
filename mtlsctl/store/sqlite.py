"""A state in one SQLite file, for one machine: a network file system neither locks nor syncs as this needs.

Beside the file lie `-wal` and `-shm` while it is open, and `.lock`, which stays. All are 0600.
"""

from __future__ import annotations

import os
import pwd
import secrets
import socket
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtlsctl.errors import StateError, StateLocked
from mtlsctl.store import codes, copy
from mtlsctl.store.database import Database, connect, open_database
from mtlsctl.store.files import appearing, make_private_folder
from mtlsctl.store.journal import Event, first_head, next_row
from mtlsctl.store.lock import lock_path, locked
from mtlsctl.store.reader import SqliteReader
from mtlsctl.store.records import time_to_text
from mtlsctl.store.schema import APPLICATION_ID, FORMAT, GUARDS, TABLES
from mtlsctl.store.writer import SqliteWriter, refuse_clock_gone_back

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtlsctl.store.keysource import KeySource

_SALT_BYTES = 16


def utc_now() -> datetime:
    return datetime.now(UTC)


class SqliteStore(SqliteReader):
    """A StateStore in a file; `open_store` makes one."""

    def __init__(
        self, database: Database, *, key_source: KeySource | None = None, clock: Callable[[], datetime] = utc_now
    ) -> None:
        super().__init__(database)
        self._key_source = key_source
        self._clock = clock

    @property
    def path(self) -> Path:
        return self._database.path

    @contextmanager
    def lock(self, *, command: str, timeout_seconds: float) -> Iterator[SqliteWriter]:
        with locked(lock_path(self.path), timeout_seconds=timeout_seconds) as held:
            if not held:
                raise self._somebody_else()
            who = _who()
            fence = self._take_over(command, who)
            writer = SqliteWriter(self._database, fence=fence, who=who, key_source=self._key_source, clock=self._clock)
            try:
                yield writer
            finally:
                writer.end()
                self._let_go(fence)

    def close(self) -> None:
        self._database.close()

    def _take_over(self, command: str, who: str) -> int:
        """Say who writes now, and fence off whoever did before: a process that lost the lock unseen writes nothing."""
        self._refuse_broken_pages()
        at = time_to_text(self._clock())
        with self._database.writing() as connection:
            meta = self._database.meta()
            refuse_clock_gone_back(at, meta.high_water)
            connection.execute("UPDATE meta SET fence = fence + 1")
            connection.execute(
                "INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?, ?, ?)",
                (who, socket.gethostname(), os.getpid(), command, at),
            )
            return meta.fence + 1

    def _refuse_broken_pages(self) -> None:
        with self._database.reading() as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StateError(
                f"the state at {self.path} is damaged: {verdict}",
                code=codes.BROKEN,
                help="restore a backup with `mtlsctl state restore`",
            )
        # A file that was copied back by hand may not have it.
        self._database.pragma("journal_mode = WAL")

    def _let_go(self, fence: int) -> None:
        """Take our name off. On a full disk it stays, which misleads nobody: the lock itself is what counts."""
        with suppress(StateError), self._database.writing() as connection:
            if self._database.meta().fence == fence:
                connection.execute("DELETE FROM holder")

    def _somebody_else(self) -> StateLocked:
        with self._database.reading() as connection:
            row = connection.execute("SELECT who, host, pid, command, since FROM holder").fetchone()
        if row is None:
            return StateLocked("another process holds the state", code=codes.LOCKED, help="try again, or wait longer")
        who, host, pid, command, since = row
        return StateLocked(
            f"the state is held by `{command}` of {who} on {host} (process {pid}), since {since}",
            code=codes.LOCKED,
            help="wait for it, or use --lock-timeout; the lock ends with that process",
        )


def create(path: Path, *, lineage: str, estate: str, clock: Callable[[], datetime] | None = None) -> None:
    """Make a new state with serial 1, whole or not at all; raises StateError M3009 when anything of one is there."""
    make_private_folder(path.parent)
    if any(os.path.lexists(path.with_name(path.name + ending)) for ending in ("", "-wal", "-shm")):
        raise StateError(
            f"there is a state at {path}, or what is left of one",
            code=codes.EXISTS,
            help="keep it, or move it away yourself",
        )
    with copy.said_as_copy_error(path), appearing(path) as unfinished:
        _fill(unfinished, lineage=lineage, estate=estate, at=time_to_text((clock or utc_now)()))


def open_store(
    path: Path,
    *,
    lineage: str | None,
    estate: str | None,
    key_source: KeySource | None = None,
    clock: Callable[[], datetime] | None = None,
) -> SqliteStore:
    """Open a state that exists and, where they are given, is of this lineage and estate; else raises StateError."""
    database = open_database(path, lineage=lineage, estate=estate)
    return SqliteStore(database, key_source=key_source, clock=clock or utc_now)


def restore(
    backup: Path,
    target: Path,
    *,
    lineage: str | None,
    estate: str | None,
    clock: Callable[[], datetime] | None = None,
    force: bool = False,
) -> None:
    """Make the state at `target` what `backup` holds; raises StateError M3040 when it would go back, unless forced."""
    copy.restore(backup, target, lineage=lineage, estate=estate, now=(clock or utc_now)(), force=force)


def _fill(path: Path, *, lineage: str, estate: str, at: str) -> None:
    with closing(connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.executescript(TABLES + GUARDS)
        _fill_meta(connection, lineage=lineage, estate=estate, at=at)
        # Last, so that no log is left beside the file when it takes its name.
        connection.execute("PRAGMA journal_mode = WAL")


def _fill_meta(connection: sqlite3.Connection, *, lineage: str, estate: str, at: str) -> None:
    head = first_head(lineage, estate)
    row = next_row(head, at=at, operation=None, event=Event.CREATED, detail={"lineage": lineage, "estate": estate})
    connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.execute(
        "INSERT INTO meta VALUES (1, ?, ?, 1, ?, 0, ?, ?, ?, NULL)",
        (lineage, estate, at, row.number, row.digest, secrets.token_bytes(_SALT_BYTES)),
    )


def _who() -> str:
    """The account that runs us; a number where it has no name, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
