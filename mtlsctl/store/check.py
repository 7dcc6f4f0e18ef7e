"""`state check`: what must hold in a state whatever was killed, and what somebody else may have changed."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
from collections import Counter
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from mtlsctl.errors import StateError
from mtlsctl.store.journal import Event, Head, Row, first_break, first_head
from mtlsctl.store.schema import GUARDS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtlsctl.store.database import Database

_Written = tuple[str, int, str, str]
"""Issuer's service and generation, serial, event."""

_MANY = 20
"""Of one kind: more of them tell nothing more."""


def findings(database: Database) -> tuple[str, ...]:
    """Everything that does not hold, one sentence each; broken pages alone, because then nothing else counts."""
    try:
        with database.reading() as connection:
            return (*_modes(database), *(_pages(connection) or _contents(database, connection)))
    except StateError as error:
        return (error.message,)


def _contents(database: Database, connection: sqlite3.Connection) -> Iterator[str]:
    yield from _schema(connection)
    yield from _journal(database, connection)
    yield from _references(connection)
    for query, sentence in _QUERIES:
        yield from (sentence.format(*row) for row in islice(connection.execute(query), _MANY))
    yield from _signature_rows(connection)
    yield from _certificates(connection)


def _modes(database: Database) -> Iterator[str]:
    for ending in ("", "-wal", "-shm"):
        path = database.path.with_name(database.path.name + ending)
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield f"mode: {path} can be read by others than its owner ({mode:04o}); chmod 600"


def _pages(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(f"PRAGMA integrity_check({_MANY})").fetchall()
    return [f"pages: {text}" for (text,) in rows if text != "ok"]


def _references(connection: sqlite3.Connection) -> Iterator[str]:
    dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(_MANY)
    yield from (f"references: a row of {table} names no row of {parent}" for table, _, parent, _ in dangling)


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    """Whether tables and guards are ours: one that was dropped let something pass."""
    with closing(sqlite3.connect(":memory:")) as blank:
        blank.executescript(TABLES + GUARDS)
        expected = _definitions(blank)
    found = _definitions(connection)
    yield from (
        f"schema: {name} is missing or altered" for name in sorted(expected) if found.get(name) != expected[name]
    )
    yield from (f"schema: {name} is not ours" for name in sorted(found.keys() - expected.keys()))


def _definitions(connection: sqlite3.Connection) -> dict[str, str]:
    # The planner's own statistics tables are named sqlite_*.
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"))


def _journal(database: Database, connection: sqlite3.Connection) -> Iterator[str]:
    meta = database.meta()
    rows = connection.execute("SELECT number, at, operation, event, detail, digest FROM journal ORDER BY number")
    broken = first_break(
        map(Row._make, rows),
        start=first_head(meta.lineage, meta.estate),
        end=Head(meta.journal_number, meta.journal_digest),
    )
    if broken is not None:
        yield broken


def _signature_rows(connection: sqlite3.Connection) -> Iterator[str]:
    """Two journal rows for each signature that was made, one for each that may have been, none for a mere intent."""
    written: Counter[_Written] = Counter()
    for event, detail in connection.execute(
        "SELECT event, detail FROM journal WHERE event IN (?, ?, ?) ORDER BY number",
        (Event.SIGNING, Event.SIGNED, Event.SERVICE_MOVED),
    ):
        plain = json.loads(detail)
        if event == Event.SERVICE_MOVED:
            written = _called_anew(written, plain["service"], plain["to"])
        else:
            written[(*plain["issuer"], plain["serial"], event)] += 1
    rows = connection.execute("SELECT issuer_service, issuer_generation, serial, signing, signed FROM signatures")
    wrong: list[str] = []
    for service, generation, serial, signing, signed in rows:
        for event, due in ((Event.SIGNING, signing), (Event.SIGNED, signed)):
            if (count := written.pop((service, generation, serial, event), 0)) != due:
                wrong.append(
                    f"signatures: {service} CA g{generation} {serial} has {count} journal rows `{event}`, not {due}"
                )
    wrong += [
        f"signatures: the journal tells of {service} CA g{generation} {serial}, which is not on record"
        for service, generation, serial, _ in written
    ]
    yield from wrong[:_MANY]


def _called_anew(written: Counter[_Written], old: str, new: str) -> Counter[_Written]:
    """Rows keep the name that an issuer had at the time; the tables say what it is called now."""
    return Counter({(new if one[0] == old else one[0], *one[1:]): count for one, count in written.items()})


def _certificates(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute("SELECT sha256, der FROM certificates")
    altered = (sha256 for sha256, der in rows if hashlib.sha256(der).hexdigest() != sha256)
    yield from (f"certificates: the bytes of {sha256} are others" for sha256 in islice(altered, _MANY))


_QUERIES = (
    (
        (
            "SELECT issuer_service, issuer_generation, serial FROM signatures "
            "GROUP BY issuer_service, issuer_generation, serial HAVING count(*) > 1"
        ),
        "signatures: {0} CA g{1} used the serial {2} more than once",
    ),
    (
        (
            "SELECT a.service, a.generation FROM authorities a JOIN signatures s ON s.issuer_service = a.service "
            "AND s.issuer_generation = a.generation AND s.serial = a.serial WHERE NOT s.signed"
        ),
        "signatures: the certificate of {0} CA g{1} is kept but not recorded as signed",
    ),
    (
        (
            "SELECT c.service, c.host, c.sequence FROM credentials c JOIN signatures s "
            "ON s.issuer_service = c.issuer_service AND s.issuer_generation = c.issuer_generation "
            "AND s.serial = c.serial WHERE NOT s.signed"
        ),
        "signatures: the certificate {0}@{1}#{2} is kept but not recorded as signed",
    ),
    (
        (
            "SELECT c.service, c.host, c.sequence FROM credentials c LEFT JOIN authorities a "
            "ON a.service = c.issuer_service AND a.generation = c.issuer_generation "
            "WHERE a.service IS NULL AND NOT (c.issuer_generation = 0 AND c.issuer_service = c.service)"
        ),
        "credentials: the certificate {0}@{1}#{2} names a CA of which nothing is known",
    ),
    (
        "SELECT service, host, release FROM releases WHERE substr(release_digest, 1, length(release)) <> release",
        "releases: {0}@{1} {2} is not named by its digest",
    ),
    (
        (
            "SELECT l.service, l.host, l.release FROM live l LEFT JOIN releases r ON r.service = l.service "
            "AND r.host = l.host AND r.release = l.release WHERE r.release IS NULL"
        ),
        "live: {0}@{1} serves {2}, of which nothing is known",
    ),
    (
        "SELECT service, host, release FROM live WHERE json_extract(receipt, '$.release') <> release",
        "live: the receipt of {0}@{1} is not that of {2}",
    ),
    (
        "SELECT service, host FROM live WHERE host NOT IN (SELECT name FROM hosts)",
        "live: {0}@{1} is live on a host that is not on record",
    ),
    (
        (
            "SELECT i.service, i.host, i.last_sequence FROM instances i WHERE i.last_sequence < "
            "(SELECT max(c.sequence) FROM credentials c WHERE c.service = i.service AND c.host = i.host)"
        ),
        "sequences: {0}@{1} has credentials above the last number given out, {2}",
    ),
    (
        (
            "SELECT s.issuer_service, s.issuer_generation FROM signatures s LEFT JOIN leaf_ends e "
            "ON e.service = s.issuer_service AND e.generation = s.issuer_generation "
            "WHERE s.signing AND json_extract(s.subject, '$[0]') <> 'authority' "
            "GROUP BY s.issuer_service, s.issuer_generation HAVING max(s.not_after) > coalesce(max(e.last), '')"
        ),
        "leaf ends: {0} CA g{1} signed what ends after its last known leaf",
    ),
    (
        (
            "SELECT a.service FROM authorities a LEFT JOIN generations g ON g.service = a.service "
            "GROUP BY a.service HAVING max(a.generation) > coalesce(max(g.last), 0)"
        ),
        "generations: {0} has a CA above the last generation given out",
    ),
)
