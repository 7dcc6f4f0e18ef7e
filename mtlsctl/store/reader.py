"""Reads a state out of SQLite; each answer is of one moment."""

from __future__ import annotations

import gc
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mtlsctl.errors import StateError
from mtlsctl.model.credential import AuthorityId, CertificationAuthority, Credential, CredentialId
from mtlsctl.model.release import recipe_from_json
from mtlsctl.model.state import Live, State
from mtlsctl.model.topology import InstanceId, ProcessId
from mtlsctl.model.trust import OutsideAnchor
from mtlsctl.store import codes, records
from mtlsctl.store.check import findings
from mtlsctl.store.copy import back_up
from mtlsctl.store.port import (
    Intent,
    JournalEntry,
    Operation,
    Outcome,
    ReleaseRecord,
    Signature,
    SwitchRecord,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from mtlsctl.model.release import SharedCallees
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.store.database import Database

_CREDENTIAL_COLUMNS = (
    "service, host, sequence, issuer_service, issuer_generation, serial, not_before, not_after, "
    "certificate_sha256, spki_sha256, profile"
)
_DER_OF = "SELECT der FROM certificates WHERE sha256 = (SELECT certificate_sha256 FROM"
_JOURNAL_PAGE = 1000


class SqliteReader:
    """A StateReader; see the port for what holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def snapshot(self) -> State:
        with _collector_resting(), self._database.reading() as connection:
            meta = self._database.meta()
            return State(
                lineage=meta.lineage,
                serial=meta.serial,
                estate=meta.estate,
                authorities={one.id: one for one in _authorities(connection)},
                credentials={one.id: one for one in _credentials(connection)},
                sequences=_sequences(connection),
                generations=dict(connection.execute("SELECT service, last FROM generations")),
                leaf_ends=_leaf_ends(connection),
                live=dict(_live(connection)),
                pointers=_pointers(connection),
                hosts={
                    name: records.host_from_text(name, value)
                    for name, value in connection.execute("SELECT name, value FROM hosts ORDER BY name")
                },
                programs=_programs(connection),
                keys_missing=frozenset(
                    InstanceId(*row)
                    for row in connection.execute("SELECT service, host FROM instances WHERE key_missing")
                ),
                interrupted=self._interrupted(connection),
            )

    def _interrupted(self, connection: sqlite3.Connection) -> str | None:
        row = connection.execute(
            "SELECT id FROM operations WHERE closed_at IS NULL ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return None if row is None else str(row[0])

    def certificate(self, id: TrustAnchor) -> bytes:
        with self._database.reading() as connection:
            row = connection.execute(*_certificate_query(id)).fetchone()
        if row is None:
            raise StateError(f"the state holds no certificate of {id}", code=codes.CERTIFICATE_UNKNOWN)
        return bytes(row[0])

    def credential(self, id: CredentialId) -> Credential | None:
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT {_CREDENTIAL_COLUMNS} FROM credentials "  # noqa: S608  our own names
                "WHERE service = ? AND host = ? AND sequence = ?",
                (*id.instance, id.sequence),
            ).fetchone()
        return None if row is None else _credential(row, records.load_all([row[-1]])[0])

    def release(self, instance: InstanceId, release: str) -> ReleaseRecord | None:
        with self._database.reading() as connection:
            return _release(connection, instance, release)

    def open_switches(self) -> tuple[SwitchRecord, ...]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT host, process, before, after FROM switches ORDER BY host, process")
            return tuple(_switch(connection, *row) for row in rows.fetchall())

    def signatures(self) -> tuple[Signature, ...]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT issuer_service, issuer_generation, serial, subject, common_name, not_after, "
                "to_be_signed_sha256, operation, signing, signed FROM signatures ORDER BY number"
            )
            return tuple(map(_signature, rows))

    def operations(self, limit: int = 20) -> tuple[Operation, ...]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, command, who, opened_at, closed_at, outcome FROM operations ORDER BY number DESC LIMIT ?",
                (limit,),
            )
            return tuple(map(_operation, rows))

    def journal(self) -> Iterator[JournalEntry]:
        last = 0
        while page := self._journal_after(last):
            yield from page
            last = page[-1].number

    def _journal_after(self, number: int) -> list[JournalEntry]:
        """A page at a time: what is append-only stays consistent without one long transaction."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT number, at, operation, event, detail, digest FROM journal "
                "WHERE number > ? ORDER BY number LIMIT ?",
                (number, _JOURNAL_PAGE),
            )
            return list(map(_entry, rows))

    def check(self) -> tuple[str, ...]:
        return findings(self._database)

    def backup(self, target: Path) -> None:
        back_up(self._database, target)


@contextmanager
def _collector_resting() -> Iterator[None]:
    """A snapshot makes a million objects and no cycle: the cycle collector would walk them all again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _authorities(connection: sqlite3.Connection) -> Iterator[CertificationAuthority]:
    rows = connection.execute(
        "SELECT service, generation, serial, not_before, not_after, certificate_sha256, spki_sha256, "
        "sealed_key IS NULL, profile FROM authorities ORDER BY service, generation"
    ).fetchall()
    for row, profile in zip(rows, records.load_all([row[-1] for row in rows]), strict=True):
        service, generation, serial, not_before, not_after, certificate_sha256, spki_sha256, destroyed, _ = row
        yield CertificationAuthority(
            profile=records.authority_profile(AuthorityId(service, generation), profile),
            serial=serial,
            not_before=records.time_from_text(not_before),
            not_after=records.time_from_text(not_after),
            certificate_sha256=certificate_sha256,
            spki_sha256=spki_sha256,
            key_destroyed=bool(destroyed),
        )


def _credentials(connection: sqlite3.Connection) -> Iterator[Credential]:
    """Of each instance the newest, and the live one where that is another."""
    columns = ", ".join(f"c.{name}" for name in _CREDENTIAL_COLUMNS.split(", "))
    rows = connection.execute(
        f"SELECT {columns} FROM instances i "  # noqa: S608  our own names
        "JOIN credentials c ON c.service = i.service AND c.host = i.host AND c.sequence = i.newest "
        f"UNION ALL SELECT {columns} FROM live l "
        "JOIN releases r ON r.service = l.service AND r.host = l.host AND r.release = l.release "
        "JOIN instances i ON i.service = l.service AND i.host = l.host AND i.newest IS NOT r.sequence "
        "JOIN credentials c ON c.service = l.service AND c.host = l.host AND c.sequence = r.sequence"
    ).fetchall()
    for row, profile in zip(rows, records.load_all([row[-1] for row in rows]), strict=True):
        yield _credential(row, profile)


def _credential(row: tuple[Any, ...], profile: dict[str, Any]) -> Credential:
    service, host, sequence, issuer, generation, serial, not_before, not_after, sha256, spki_sha256, _ = row
    return Credential(
        profile=records.certificate_profile(
            CredentialId(InstanceId(service, host), sequence), AuthorityId(issuer, generation), profile
        ),
        serial=serial,
        not_before=records.time_from_text(not_before),
        not_after=records.time_from_text(not_after),
        certificate_sha256=sha256,
        spki_sha256=spki_sha256,
    )


def _sequences(connection: sqlite3.Connection) -> dict[InstanceId, int]:
    rows = connection.execute("SELECT service, host, last_sequence FROM instances")
    return {InstanceId(service, host): last for service, host, last in rows}


def _leaf_ends(connection: sqlite3.Connection) -> dict[AuthorityId, datetime]:
    rows = connection.execute("SELECT service, generation, last FROM leaf_ends")
    return {AuthorityId(service, generation): records.time_from_text(last) for service, generation, last in rows}


def _programs(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """None in a backup from before they were kept."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'programs'").fetchone():
        return {}
    found: dict[str, dict[str, str]] = {}
    for host, program, version in connection.execute("SELECT host, program, version FROM programs ORDER BY 1, 2"):
        found.setdefault(host, {})[program] = version
    return found


def _pointers(connection: sqlite3.Connection) -> dict[ProcessId, str]:
    rows = connection.execute("SELECT host, process, sha256 FROM pointers")
    return {ProcessId(host, process): sha256 for host, process, sha256 in rows}


def _live(connection: sqlite3.Connection) -> Iterator[tuple[InstanceId, Live]]:
    rows = connection.execute(
        "SELECT l.service, l.host, l.receipt, r.recipe FROM live l "
        "JOIN releases r ON r.service = l.service AND r.host = l.host AND r.release = l.release "
        "ORDER BY l.service, l.host"
    ).fetchall()
    receipts, recipes = (records.load_all([row[column] for row in rows]) for column in (2, 3))
    shared: SharedCallees = {}
    for (service, host, _, _), receipt, recipe in zip(rows, receipts, recipes, strict=True):
        live = Live(recipe=recipe_from_json(recipe, shared), receipt=records.receipt(receipt))
        yield InstanceId(service, host), live


def _certificate_query(id: TrustAnchor) -> tuple[str, tuple[str | int, ...]]:
    match id:
        case AuthorityId():
            return f"{_DER_OF} authorities WHERE service = ? AND generation = ?)", id
        case CredentialId():
            where = "service = ? AND host = ? AND sequence = ?"
            return f"{_DER_OF} credentials WHERE {where})", (*id.instance, id.sequence)
        case OutsideAnchor():
            return "SELECT der FROM certificates WHERE sha256 = ?", (id.sha256,)


def _release(connection: sqlite3.Connection, instance: InstanceId, release: str) -> ReleaseRecord | None:
    row = connection.execute(
        "SELECT release_digest, recipe FROM releases WHERE service = ? AND host = ? AND release = ?",
        (*instance, release),
    ).fetchone()
    if row is None:
        return None
    return ReleaseRecord(release=release, release_digest=row[0], recipe=recipe_from_json(json.loads(row[1])))


def _switch(
    connection: sqlite3.Connection, host: str, process: str, before: str | None, after: str | None
) -> SwitchRecord:
    members = connection.execute(
        "SELECT service, service_host, release FROM switch_members WHERE host = ? AND process = ? ORDER BY position",
        (host, process),
    ).fetchall()
    named = (_release(connection, InstanceId(service, at), name) for service, at, name in members if name is not None)
    return SwitchRecord(
        process=ProcessId(host, process),
        before=before,
        after=after,
        releases=tuple(record for record in named if record is not None),
        removed=tuple(InstanceId(service, at) for service, at, name in members if name is None),
    )


def _signature(row: tuple[Any, ...]) -> Signature:
    service, generation, serial, subject, common_name, not_after, digest, operation, signing, signed = row
    intent = Intent(
        issuer=AuthorityId(service, generation),
        serial=serial,
        subject=records.subject_from_json(json.loads(subject)),
        common_name=common_name,
        not_after=records.time_from_text(not_after),
        to_be_signed_sha256=digest,
    )
    return Signature(intent=intent, operation=operation, signed=bool(signing), recorded=bool(signed))


def _operation(row: tuple[Any, ...]) -> Operation:
    name, command, who, opened_at, closed_at, outcome = row
    return Operation(
        id=name,
        command=command,
        who=who,
        opened_at=records.time_from_text(opened_at),
        closed_at=None if closed_at is None else records.time_from_text(closed_at),
        outcome=None if outcome is None else Outcome(outcome),
    )


def _entry(row: tuple[Any, ...]) -> JournalEntry:
    number, at, operation, event, detail, digest = row
    return JournalEntry(
        number=number,
        at=records.time_from_text(at),
        operation=operation,
        event=event,
        detail=json.loads(detail),
        digest=digest,
    )
