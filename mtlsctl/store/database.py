"""A connection to the SQLite file of a state: opened only when it is one, and its errors said in our words."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.errors import StateError
from mtlsctl.store import codes
from mtlsctl.store.schema import APPLICATION_ID, FORMAT, UPGRADES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUSY_SECONDS = 10.0

_RESTORE = "restore a backup: mtlsctl state restore FILE"
_POINT = "point --state at the state of this estate"
_ANEW = "begin anew with mtlsctl init --new-lineage: every service gets a new CA, so not for a live estate"


class Meta(NamedTuple):
    """The one row that says what the state is."""

    lineage: str
    estate: str
    serial: int
    high_water: str
    fence: int
    journal_number: int
    journal_digest: str


class Database:
    """One connection; threads may share it, each transaction has it alone."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._alone = threading.RLock()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view, which no writer changes while it lasts."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; durable once this ends."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._alone, said_as_state_error(self.path):
            self.connection.execute(begin)
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back on some errors, a full disk among them.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def pragma(self, words: str) -> None:
        """Do what no transaction can hold; not inside one."""
        with self._alone, said_as_state_error(self.path):
            self.connection.execute(f"PRAGMA {words}").fetchall()

    def meta(self) -> Meta:
        """Call it inside a transaction when more is read with it."""
        row = self.connection.execute(f"SELECT {', '.join(Meta._fields)} FROM meta").fetchone()  # noqa: S608  our own names
        if row is None:
            raise _broken(self.path, "it does not say whose state it is")
        return Meta._make(row)

    def format(self) -> int:
        """The number of its tables as they are."""
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        with self._alone:
            self.connection.close()


def open_database(path: Path, *, lineage: str | None, estate: str | None, read_only: bool = False) -> Database:
    """Open a state that exists and, where they are given, belongs to this lineage and estate; never makes a file.

    Raises StateError: M3001 missing, M3002 of another lineage or estate, M3003 no state or broken, M3004 written by
    a newer mtlsctl, M3007 not readable. What is opened to be read only is a backup, so another one is the remedy.
    """
    with _another_backup_helps() if read_only else nullcontext():
        return _opened(path, lineage=lineage, estate=estate, mode="ro" if read_only else "rw")


@contextmanager
def _another_backup_helps() -> Iterator[None]:
    try:
        yield
    except StateError as error:
        if error.code not in (codes.MISSING, codes.FOREIGN, codes.BROKEN):
            raise
        raise StateError(
            error.message, code=error.code, help="name another backup: mtlsctl state restore FILE"
        ) from None


def _opened(path: Path, *, lineage: str | None, estate: str | None, mode: str) -> Database:
    if not path.exists():
        raise StateError(f"there is no state at {path}", code=codes.MISSING, notes=(_POINT, _ANEW), help=_RESTORE)
    database = Database(path, connect(path, mode=mode))
    try:
        with database.reading():
            _refuse_other_formats(database)
            _refuse_foreign(path, database.meta(), lineage=lineage, estate=estate)
        if mode == "rw":
            _bring_up_to_date(database)
    except BaseException:
        database.close()
        raise
    return database


def connect(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """A connection with our settings to a file that exists; transactions are begun and ended by hand."""
    with said_as_state_error(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=_BUSY_SECONDS,
            check_same_thread=False,
        )
        try:
            for setting in _SETTINGS:
                connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()
            raise
    return connection


_SETTINGS = (
    "trusted_schema = OFF",
    "foreign_keys = ON",
    # REPLACE would delete without asking the guards of the append-only tables.
    "recursive_triggers = ON",
    # With WAL, only FULL makes a commit survive a power cut (sqlite.org/pragma.html#pragma_synchronous).
    "synchronous = FULL",
    # On macOS fsync does not reach the disk; elsewhere these two do nothing.
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
    # A destroyed key is overwritten, not only unlinked from its page.
    "secure_delete = ON",
)


@contextmanager
def said_as_state_error(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into a StateError; its messages name tables and columns, never values."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise StateError(f"the state at {path} refuses a contradiction: {error}", code=codes.CONTRADICTION) from None
    except sqlite3.OperationalError as error:
        raise StateError(
            f"the state at {path} cannot be used: {error}",
            code=codes.UNUSABLE,
            help="look at the disk's space and at the permissions of the file and its folder",
        ) from None
    except sqlite3.DatabaseError as error:
        raise _broken(path, str(error)) from None


def _bring_up_to_date(database: Database) -> None:
    """A state of an earlier mtlsctl gets the tables that it lacks, all or none."""
    if database.format() == FORMAT:
        return
    with database.writing() as connection:
        for number in range(database.format(), FORMAT):
            connection.execute(UPGRADES[number])
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _refuse_other_formats(database: Database) -> None:
    application, version = (
        database.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != APPLICATION_ID or version < 1:
        raise _broken(database.path, "it is no state of mtlsctl")
    if version > FORMAT:
        raise StateError(
            f"the state at {database.path} has format {version}, and this mtlsctl knows up to {FORMAT}",
            code=codes.NEWER_FORMAT,
            help="use the mtlsctl that wrote it, or a newer one",
        )


def _refuse_foreign(path: Path, meta: Meta, *, lineage: str | None, estate: str | None) -> None:
    if lineage is not None and meta.lineage != lineage:
        what = f"the state at {path} is of lineage {meta.lineage} (estate {meta.estate}), not {lineage}"
    elif estate is not None and meta.estate != estate:
        what = f"the state at {path} is of the estate {meta.estate}, not {estate}"
    else:
        return
    raise StateError(what, code=codes.FOREIGN, notes=(_RESTORE, _ANEW), help=_POINT)


def _broken(path: Path, why: str) -> StateError:
    return StateError(
        f"the state at {path} cannot be read as one: {why}", code=codes.BROKEN, notes=(_POINT, _ANEW), help=_RESTORE
    )
