"""The one writer of a state in SQLite: each call is one durable transaction that journals what it did."""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from mtlsctl.errors import SealedKeyError, StateError, StateLocked
from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.release import (
    OLD_NAMES,
    canonical_json,
    recipe_from_json,
    recipe_to_json,
    with_hosts_renamed,
    with_services_renamed,
)
from mtlsctl.model.secret import Secret
from mtlsctl.store import codes, records, sealing
from mtlsctl.store.journal import Event, Head, head_of, next_row
from mtlsctl.store.port import Outcome
from mtlsctl.store.reader import SqliteReader

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from mtlsctl.model.credential import CertificationAuthority, Credential
    from mtlsctl.model.release import Receipt, Recipe
    from mtlsctl.model.topology import Host, InstanceId
    from mtlsctl.store.database import Database
    from mtlsctl.store.journal import Row
    from mtlsctl.store.keysource import KeySource
    from mtlsctl.store.port import Intent, ReleaseRecord, SwitchRecord

    Signed = tuple[AuthorityId, str, records.Subject, Mapping[str, object]]
    """Issuer, serial and subject of a signature that was made, and what else its row says."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far the clock may be behind the latest time on record: certificates are backdated by as much."""

_KEY_CHECK = b"mtlsctl"

_SIGNATURE = "issuer_service = ? AND issuer_generation = ? AND serial = ?"


class Transaction:
    """What is written together: the connection, the moment, and the journal entries that go with it."""

    def __init__(self, connection: sqlite3.Connection, *, at: str, head: Head, operation: str | None) -> None:
        self.connection = connection
        self.at = at
        self.head = head
        self.operation = operation
        self.rows: list[Row] = []

    def journal(self, event: str, detail: Mapping[str, object]) -> None:
        row = next_row(self.head, at=self.at, operation=self.operation, event=event, detail=detail)
        self.rows.append(row)
        self.head = head_of(row)

    def finish(self) -> None:
        self.connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", self.rows)
        self.connection.execute(
            "UPDATE meta SET high_water = max(high_water, ?), journal_number = ?, journal_digest = ?",
            (self.at, self.head.number, self.head.digest),
        )


class SqliteWriter(SqliteReader):
    """A StateWriter; see the port for what holds. It ends with the lock: then every call raises StateLocked."""

    def __init__(
        self,
        database: Database,
        *,
        fence: int,
        who: str,
        key_source: KeySource | None,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__(database)
        with database.reading():
            self._lineage = database.meta().lineage
        self._fence = fence
        self._who = who
        self._key_source = key_source
        self._clock = clock
        self._operation: str | None = None
        self._key: Secret | None = None
        self._ended = False

    def end(self) -> None:
        """The lock is about to go: whoever kept this object writes nothing any more."""
        self._ended = True

    def _interrupted(self, connection: sqlite3.Connection) -> str | None:
        """Our own operation is not interrupted: it goes on."""
        row = connection.execute(
            "SELECT id FROM operations WHERE closed_at IS NULL AND id IS NOT ? ORDER BY number DESC LIMIT 1",
            (self._operation,),
        ).fetchone()
        return None if row is None else str(row[0])

    @contextmanager
    def _writing(self) -> Iterator[Transaction]:
        with self._database.writing() as connection:
            meta = self._database.meta()
            if self._ended or meta.fence != self._fence:
                raise StateLocked(
                    "the lock of the state is no longer ours; nothing more is written", code=codes.LOCK_LOST
                )
            at = records.time_to_text(self._clock())
            refuse_clock_gone_back(at, meta.high_water)
            head = Head(meta.journal_number, meta.journal_digest)
            transaction = Transaction(connection, at=at, head=head, operation=self._operation)
            yield transaction
            transaction.finish()

    # Operations

    def open_operation(self, command: str) -> str:
        if self._operation is not None:
            raise StateError(f"the operation {self._operation} is still open", code=codes.OPERATION_ORDER)
        with self._writing() as transaction:
            _abandon_open(transaction)
            operation = _operation_id(transaction.at)
            transaction.connection.execute(
                "INSERT INTO operations (id, command, who, opened_at) VALUES (?, ?, ?, ?)",
                (operation, command, self._who, transaction.at),
            )
            transaction.operation = operation
            transaction.journal(Event.OPENED, {"command": command, "who": self._who})
        self._operation = operation
        return operation

    def close_operation(self, outcome: Outcome) -> None:
        if self._operation is None:
            raise StateError("no operation is open", code=codes.OPERATION_ORDER)
        with self._writing() as transaction:
            _close(transaction, self._operation, outcome)
            transaction.journal(Event.CLOSED, {"outcome": outcome.value})
        self._operation = None

    def note(self, event: str, detail: Mapping[str, object]) -> None:
        if event in (Event.SIGNING, Event.SIGNED):
            msg = f"`{event}` is a word of the store: its rows are counted"
            raise ValueError(msg)
        with self._writing() as transaction:
            transaction.journal(event, detail)

    # Signatures

    def record_intents(self, intents: Sequence[Intent]) -> None:
        with self._writing() as transaction:
            inserted = transaction.connection.executemany(
                "INSERT INTO signatures (issuer_service, issuer_generation, serial, subject, common_name, not_after, "
                "to_be_signed_sha256, operation) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (issuer_service, issuer_generation, serial) DO NOTHING",
                [_intent_row(one, self._operation) for one in intents],
            )
            if inserted.rowcount != len(intents):
                raise StateError("a serial number would be used a second time by its CA", code=codes.SERIAL_REPEATED)
            _give_out(transaction.connection, [one.subject for one in intents])
            transaction.journal(Event.INTENDED, {"signatures": [_intent_detail(one) for one in intents]})

    def record_signing(self, intents: Sequence[Intent]) -> None:
        with self._writing() as transaction:
            _step(transaction, [(*one.issuer, one.serial) for one in intents], "signing = 1", "NOT signing")
            _extend_leaf_ends(transaction.connection, intents)
            for one in intents:
                transaction.journal(Event.SIGNING, _signature_detail(one.issuer, one.serial, one.subject))

    def record_probe_signed(self, intents: Sequence[Intent]) -> None:
        with self._writing() as transaction:
            _record_signed(transaction, [(one.issuer, one.serial, one.subject, {}) for one in intents])

    def add_authorities(self, made: Sequence[tuple[CertificationAuthority, bytes, Secret]]) -> None:
        encryption_key = self._encryption_key()
        signed = [(one.id, one.serial, one.id, {"certificate": one.certificate_sha256}) for one, _, _ in made]
        rows = [
            (*_authority_row(one), sealing.seal(encryption_key, self._place(one.id, one.certificate_sha256), key))
            for one, _, key in made
        ]
        with self._writing() as transaction:
            self._remember_key(transaction.connection, encryption_key)
            _record_signed(transaction, signed)
            certificates = [(one.certificate_sha256, certificate) for one, certificate, _ in made]
            _keep_certificates(transaction.connection, certificates)
            transaction.connection.executemany("INSERT INTO authorities VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def add_credentials(self, issued: Sequence[tuple[Credential, bytes]]) -> None:
        signed = [
            (one.profile.authority, one.serial, one.id, {"certificate": one.certificate_sha256}) for one, _ in issued
        ]
        with self._writing() as transaction:
            _record_signed(transaction, signed)
            certificates = [(one.certificate_sha256, certificate) for one, certificate in issued]
            _keep_certificates(transaction.connection, certificates)
            _add_credentials(transaction.connection, [one for one, _ in issued])

    def keep_certificates(self, certificates: Sequence[bytes]) -> None:
        wanted = {hashlib.sha256(one).hexdigest(): one for one in certificates}
        with self._writing() as transaction:
            known = "SELECT 1 FROM certificates WHERE sha256 = ?"
            new = [one for one in sorted(wanted) if transaction.connection.execute(known, [one]).fetchone() is None]
            _keep_certificates(transaction.connection, [(one, wanted[one]) for one in new])
            if new:
                transaction.journal(Event.KEPT, {"certificates": new})

    # Keys of authorities

    def unlock(self) -> None:
        self._encryption_key()

    def authority_key(self, id: AuthorityId) -> Secret:
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT certificate_sha256, sealed_key FROM authorities WHERE service = ? AND generation = ?", id
            ).fetchone()
        if row is None or row[1] is None:
            what = "is not on record" if row is None else "was destroyed"
            raise StateError(f"the key of {id} {what}", code=codes.AUTHORITY_KEY_GONE)
        return sealing.unseal(self._encryption_key(), self._place(id, row[0]), row[1])

    def destroy_authority_key(self, id: AuthorityId) -> None:
        with self._writing() as transaction:
            done = transaction.connection.execute(
                "UPDATE authorities SET sealed_key = NULL WHERE service = ? AND generation = ? "
                "AND sealed_key IS NOT NULL",
                id,
            )
            if done.rowcount != 1:
                raise StateError(f"there is no key of {id} to destroy", code=codes.AUTHORITY_KEY_GONE)
            transaction.journal(Event.KEY_DESTROYED, {"authority": list(id)})
        # The page is overwritten by secure_delete; this takes the old one out of the write-ahead log too.
        self._database.pragma("wal_checkpoint(TRUNCATE)")

    def _place(self, id: AuthorityId, certificate_sha256: str) -> bytes:
        return sealing.place_of(self._lineage, "authorities", "sealed_key", *id, certificate_sha256)

    def _encryption_key(self) -> Secret:
        """Read once, and only if it opens what this state sealed before: two keys in one state would lose one."""
        if self._key is None:
            with self._database.reading() as connection:
                salt, check = connection.execute("SELECT scrypt_salt, key_check FROM meta").fetchone()
            key = self._key_from_source(salt)
            if check is not None and sealing.unseal(key, self._check_place(), check).reveal() != _KEY_CHECK:
                sealing.refuse()
            self._key = key
        return self._key

    def _key_from_source(self, salt: bytes) -> Secret:
        if self._key_source is None:
            raise SealedKeyError("no encryption key was named to open this state", code=codes.KEY_MISSING)
        return self._key_source.key(salt)

    def _check_place(self) -> bytes:
        return sealing.place_of(self._lineage, "meta", "key_check")

    def _remember_key(self, connection: sqlite3.Connection, key: Secret) -> None:
        """The first key that seals is the one that opens from then on."""
        if connection.execute("SELECT key_check IS NULL FROM meta").fetchone()[0]:
            check = sealing.seal(key, self._check_place(), Secret(_KEY_CHECK))
            connection.execute("UPDATE meta SET key_check = ?", (check,))

    # Hosts, releases, switches

    def record_hosts(self, hosts: Sequence[Host]) -> None:
        with self._writing() as transaction:
            transaction.connection.executemany(
                "INSERT INTO hosts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [(host.name, records.host_to_text(host)) for host in hosts],
            )
            transaction.journal(Event.HOSTS, {"hosts": [host.name for host in hosts]})

    def record_programs(self, found: Mapping[str, Mapping[str, str]]) -> None:
        with self._writing() as transaction:
            connection = transaction.connection
            connection.executemany("DELETE FROM programs WHERE host = ?", [(host,) for host in found])
            connection.executemany(
                "INSERT INTO programs VALUES (?, ?, ?)",
                [(host, *one) for host, programs in found.items() for one in programs.items()],
            )
            transaction.journal(Event.PROGRAMS, {"hosts": sorted(found)})

    def forget_host(self, name: str) -> None:
        with self._writing() as transaction:
            _drop_host(transaction.connection, name)
            transaction.journal(Event.HOST_FORGOTTEN, {"host": name})

    def abandon_host(self, name: str) -> None:
        with self._writing() as transaction:
            rows = transaction.connection.execute("SELECT service, host FROM live WHERE host = ? ORDER BY 1", (name,))
            instances = [list(row) for row in rows]
            _drop_host(transaction.connection, name)
            transaction.journal(Event.HOST_ABANDONED, {"host": name, "instances": instances})

    def move_host(self, old: str, host: Host) -> None:
        with self._writing() as transaction:
            _refuse_known_host(transaction.connection, host.name)
            _rename_host(transaction.connection, old, host)
            transaction.journal(Event.HOST_MOVED, {"host": old, "to": host.name})

    def move_service(self, old: str, new: str) -> None:
        keys = self._sealed_anew(old, new)
        with self._writing() as transaction:
            _refuse_known_service(transaction.connection, new)
            _rename_service(transaction.connection, old, new)
            transaction.connection.executemany(
                "UPDATE authorities SET sealed_key = ? WHERE service = ? AND generation = ?", keys
            )
            transaction.journal(Event.SERVICE_MOVED, {"service": old, "to": new})

    def _sealed_anew(self, old: str, new: str) -> list[tuple[bytes, str, int]]:
        """A sealed key opens at its own place only, and its CA's name is part of that."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT generation, certificate_sha256, sealed_key FROM authorities "
                "WHERE service = ? AND sealed_key IS NOT NULL",
                (old,),
            ).fetchall()
        key = self._encryption_key() if rows else None
        return [
            (
                sealing.seal(
                    key,
                    self._place(AuthorityId(new, generation), sha256),
                    sealing.unseal(key, self._place(AuthorityId(old, generation), sha256), sealed),
                ),
                new,
                generation,
            )
            for generation, sha256, sealed in rows
            if key is not None
        ]

    def record_releases(self, releases: Sequence[ReleaseRecord]) -> None:
        with self._writing() as transaction:
            _keep_releases(transaction.connection, releases)
            transaction.journal(Event.RELEASES, {"releases": [_release_detail(one) for one in releases]})

    def record_switch_intended(self, switch: SwitchRecord) -> None:
        with self._writing() as transaction:
            _keep_releases(transaction.connection, switch.releases)
            _open_switch(transaction.connection, switch)
            transaction.journal(Event.SWITCH_INTENDED, _switch_detail(switch))

    def record_switched(self, switch: SwitchRecord, receipts: Mapping[InstanceId, Receipt]) -> None:
        with self._writing() as transaction:
            _end_switch(transaction.connection, switch, switch.after)
            transaction.connection.executemany(
                "INSERT INTO live VALUES (?, ?, ?, ?) ON CONFLICT (service, host) "
                "DO UPDATE SET release = excluded.release, receipt = excluded.receipt",
                [(*at, receipt.release, records.receipt_to_text(receipt)) for at, receipt in receipts.items()],
            )
            _drop_live(transaction.connection, switch.removed)
            live = [[*instance, receipt.release] for instance, receipt in receipts.items()]
            transaction.journal(Event.SWITCHED, {**_switch_detail(switch), "live": live})

    def record_switched_back(self, switch: SwitchRecord) -> None:
        with self._writing() as transaction:
            _end_switch(transaction.connection, switch, switch.before)
            transaction.journal(Event.SWITCHED_BACK, _switch_detail(switch))

    def record_gone(self, instance: InstanceId) -> None:
        with self._writing() as transaction:
            _drop_live(transaction.connection, [instance])
            transaction.journal(Event.GONE, {"instance": list(instance)})

    def record_key_missing(self, instance: InstanceId) -> None:
        with self._writing() as transaction:
            transaction.connection.execute(
                "INSERT INTO instances (service, host, last_sequence, key_missing) VALUES (?, ?, 0, 1) "
                "ON CONFLICT (service, host) DO UPDATE SET key_missing = 1",
                instance,
            )
            transaction.journal(Event.KEY_MISSING, {"instance": list(instance)})


def refuse_clock_gone_back(at: str, high_water: str) -> None:
    """Raise StateError when the clock is more than five minutes behind what was recorded: dates would be wrong."""
    now, latest = records.time_from_text(at), records.time_from_text(high_water)
    if now < latest - CLOCK_TOLERANCE:
        raise StateError(
            f"the clock says {now:%Y-%m-%d %H:%M:%S} UTC, and the state was written at {latest:%Y-%m-%d %H:%M:%S} UTC",
            code=codes.CLOCK_BACK,
            help="set the clock right; if it was wrong before, restore a backup from before that",
        )


def _operation_id(at: str) -> str:
    """Sorts by time, and is random enough that two controllers never have the same."""
    return f"{records.time_from_text(at):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _abandon_open(transaction: Transaction) -> None:
    rows = transaction.connection.execute("SELECT id FROM operations WHERE closed_at IS NULL ORDER BY number")
    for (operation,) in rows.fetchall():
        _close(transaction, operation, Outcome.ABANDONED)
        transaction.journal(Event.ABANDONED, {"operation": operation})


def _close(transaction: Transaction, operation: str, outcome: Outcome) -> None:
    """The serial also counts an operation that was abandoned: it may have changed what a saved plan was made for."""
    transaction.connection.execute(
        "UPDATE operations SET closed_at = ?, outcome = ? WHERE id = ?", (transaction.at, outcome.value, operation)
    )
    transaction.connection.execute("UPDATE meta SET serial = serial + 1")


def _intent_row(intent: Intent, operation: str | None) -> tuple[object, ...]:
    return (
        *intent.issuer,
        intent.serial,
        canonical_json(records.subject_to_json(intent.subject)),
        intent.common_name,
        records.time_to_text(intent.not_after),
        intent.to_be_signed_sha256,
        operation,
    )


def _intent_detail(intent: Intent) -> dict[str, object]:
    return {
        **_signature_detail(intent.issuer, intent.serial, intent.subject),
        "common_name": intent.common_name,
        "not_after": records.time_to_text(intent.not_after),
        "to_be_signed_sha256": intent.to_be_signed_sha256,
    }


def _signature_detail(issuer: AuthorityId, serial: str, subject: records.Subject) -> dict[str, object]:
    return {"issuer": list(issuer), "serial": serial, "subject": records.subject_to_json(subject)}


def _give_out(connection: sqlite3.Connection, subjects: Sequence[records.Subject]) -> None:
    """A number is given out once it is intended, so that what may have been signed never shares it."""
    connection.executemany(
        "INSERT INTO generations VALUES (?, ?) ON CONFLICT (service) DO UPDATE SET last = max(last, excluded.last)",
        [one for one in subjects if isinstance(one, AuthorityId)],
    )
    connection.executemany(
        "INSERT INTO instances (service, host, last_sequence) VALUES (?, ?, ?) ON CONFLICT (service, host) "
        "DO UPDATE SET last_sequence = max(last_sequence, excluded.last_sequence)",
        [(*one.instance, one.sequence) for one in subjects if isinstance(one, CredentialId)],
    )


def _extend_leaf_ends(connection: sqlite3.Connection, intents: Sequence[Intent]) -> None:
    """The CA's key is needed, and its certificate trusted, until the last leaf that it may have signed ends."""
    ends: dict[AuthorityId, datetime] = {}
    for one in intents:
        if one.subject != one.issuer:
            ends[one.issuer] = max(one.not_after, ends.get(one.issuer, one.not_after))
    connection.executemany(
        "INSERT INTO leaf_ends VALUES (?, ?, ?) ON CONFLICT (service, generation) "
        "DO UPDATE SET last = max(last, excluded.last)",
        [(*issuer, records.time_to_text(end)) for issuer, end in ends.items()],
    )


def _record_signed(transaction: Transaction, signed: Sequence[Signed]) -> None:
    keys = [(*issuer, serial) for issuer, serial, _, _ in signed]
    _step(transaction, keys, "signed = 1", "signing AND NOT signed")
    for issuer, serial, subject, more in signed:
        transaction.journal(Event.SIGNED, {**_signature_detail(issuer, serial, subject), **more})


def _step(transaction: Transaction, keys: Sequence[tuple[str, int, str]], change: str, where: str) -> None:
    """Take every signature one step on, or none."""
    done = transaction.connection.executemany(
        f"UPDATE signatures SET {change} WHERE {_SIGNATURE} AND {where}",  # noqa: S608  our own words
        keys,
    )
    if keys and done.rowcount != len(keys):
        raise StateError(
            "a signature is not on record as the step before this one",
            code=codes.SIGNATURE_ORDER,
            notes=[f"among them {serial} of {service} CA g{generation}" for service, generation, serial in keys[:1]],
        )


def _keep_certificates(connection: sqlite3.Connection, certificates: Sequence[tuple[str, bytes]]) -> None:
    for sha256, certificate in certificates:
        if hashlib.sha256(certificate).hexdigest() != sha256:
            raise StateError(f"the bytes of the certificate {sha256} are others", code=codes.SIGNATURE_ORDER)
    connection.executemany("INSERT INTO certificates VALUES (?, ?)", certificates)


def _authority_row(authority: CertificationAuthority) -> tuple[object, ...]:
    return (
        *authority.id,
        authority.serial,
        records.time_to_text(authority.not_before),
        records.time_to_text(authority.not_after),
        authority.certificate_sha256,
        authority.spki_sha256,
        records.authority_profile_to_text(authority.profile),
    )


def _add_credentials(connection: sqlite3.Connection, credentials: Sequence[Credential]) -> None:
    connection.executemany(
        "INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_credential_row(one) for one in credentials],
    )
    connection.executemany(
        "INSERT INTO instances (service, host, last_sequence, newest) VALUES (?1, ?2, ?3, ?3) "
        "ON CONFLICT (service, host) DO UPDATE SET last_sequence = max(last_sequence, excluded.last_sequence), "
        "newest = max(coalesce(newest, 0), excluded.newest), key_missing = 0",
        [(*one.id.instance, one.id.sequence) for one in credentials],
    )


def _credential_row(credential: Credential) -> tuple[object, ...]:
    return (
        *credential.id.instance,
        credential.id.sequence,
        *credential.profile.authority,
        credential.serial,
        records.time_to_text(credential.not_before),
        records.time_to_text(credential.not_after),
        credential.certificate_sha256,
        credential.spki_sha256,
        records.certificate_profile_to_text(credential.profile),
    )


def _keep_releases(connection: sqlite3.Connection, releases: Sequence[ReleaseRecord]) -> None:
    """A release that is known already stays as it is: its name is made from its content.

    One that was known under an old name of its service, and is rendered again under that name, says it rightly again.
    """
    connection.executemany(
        "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (service, host, release) "
        "DO UPDATE SET recipe = excluded.recipe "
        "WHERE json_extract(releases.recipe, '$.runtime_digest') = ?",
        [
            (
                *one.recipe.instance,
                one.release,
                one.release_digest,
                one.recipe.credential.sequence,
                canonical_json(recipe_to_json(one.recipe)),
                OLD_NAMES,
            )
            for one in releases
        ],
    )


def _release_detail(one: ReleaseRecord) -> list[str]:
    return [*one.recipe.instance, one.release]


def _switch_detail(switch: SwitchRecord) -> dict[str, object]:
    return {
        "process": list(switch.process),
        "before": switch.before,
        "after": switch.after,
        "releases": [_release_detail(one) for one in switch.releases],
        "removed": [list(one) for one in switch.removed],
    }


def _open_switch(connection: sqlite3.Connection, switch: SwitchRecord) -> None:
    known = "SELECT 1 FROM switches WHERE host = ? AND process = ?"
    if connection.execute(known, switch.process).fetchone() is not None:
        raise StateError(f"an earlier switch of {switch.process} is not settled", code=codes.SWITCH_UNSETTLED)
    connection.execute("INSERT INTO switches VALUES (?, ?, ?, ?)", (*switch.process, switch.before, switch.after))
    members: list[tuple[InstanceId, str | None]] = [(one.recipe.instance, one.release) for one in switch.releases]
    members += [(one, None) for one in switch.removed]
    connection.executemany(
        "INSERT INTO switch_members VALUES (?, ?, ?, ?, ?, ?)",
        [(*switch.process, position, *instance, release) for position, (instance, release) in enumerate(members)],
    )


def _end_switch(connection: sqlite3.Connection, switch: SwitchRecord, pointer: str | None) -> None:
    connection.execute("DELETE FROM switches WHERE host = ? AND process = ?", switch.process)
    if pointer is None:
        connection.execute("DELETE FROM pointers WHERE host = ? AND process = ?", switch.process)
        return
    connection.execute(
        "INSERT INTO pointers VALUES (?, ?, ?) ON CONFLICT (host, process) DO UPDATE SET sha256 = excluded.sha256",
        (*switch.process, pointer),
    )


def _drop_live(connection: sqlite3.Connection, instances: Sequence[InstanceId]) -> None:
    connection.executemany("DELETE FROM live WHERE service = ? AND host = ?", instances)


def _drop_host(connection: sqlite3.Connection, name: str) -> None:
    for table in ("live", "pointers", "switches"):
        connection.execute(f"DELETE FROM {table} WHERE host = ?", (name,))  # noqa: S608  our own names
    connection.execute("UPDATE instances SET key_missing = 1 WHERE host = ?", (name,))
    connection.execute("DELETE FROM programs WHERE host = ?", (name,))
    connection.execute("DELETE FROM hosts WHERE name = ?", (name,))


_OF_A_HOST = ("instances", "credentials", "releases", "live", "pointers", "switches", "switch_members")
"""Tables with a column `host`. What was signed and what was done stays on record in the names of its time."""


def _refuse_known_host(connection: sqlite3.Connection, name: str) -> None:
    for table in _OF_A_HOST:
        row = connection.execute(f"SELECT 1 FROM {table} WHERE host = ? LIMIT 1", (name,)).fetchone()  # noqa: S608  our own names
        if row is not None:
            raise StateError(f"the state knows a host `{name}` already", code=codes.HOST_KNOWN)


def _rename_host(connection: sqlite3.Connection, old: str, host: Host) -> None:
    """Everywhere at once: rows name each other by host, so they are looked at when all of them have changed."""
    connection.execute("PRAGMA defer_foreign_keys = ON")
    for table in _OF_A_HOST:
        connection.execute(f"UPDATE {table} SET host = ? WHERE host = ?", (host.name, old))  # noqa: S608  our own names
    connection.execute("UPDATE switch_members SET service_host = ? WHERE service_host = ?", (host.name, old))
    connection.execute("UPDATE OR REPLACE programs SET host = ? WHERE host = ?", (host.name, old))
    connection.execute("DELETE FROM hosts WHERE name = ?", (old,))
    connection.execute(
        "INSERT INTO hosts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (host.name, records.host_to_text(host)),
    )
    _rename_in_recipes(connection, lambda recipe: with_hosts_renamed(recipe, {old: host.name}))


_OF_A_SERVICE = ("authorities", "leaf_ends", "credentials", "releases", "live", "switch_members")
"""Tables with a column `service` whose rows are of what was issued or asked for, so that a name in them is known."""


def _refuse_known_service(connection: sqlite3.Connection, name: str) -> None:
    for table in _OF_A_SERVICE:
        row = connection.execute(f"SELECT 1 FROM {table} WHERE service = ? LIMIT 1", (name,)).fetchone()  # noqa: S608  our own names
        if row is not None:
            raise StateError(f"the state knows a service `{name}` already", code=codes.SERVICE_KNOWN)


def _rename_service(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Everywhere at once, as with hosts. The last numbers stay under the old name too, for whoever bears it next.

    A signature stays on record as it was made; who made it is what is called otherwise now.
    """
    connection.execute("PRAGMA defer_foreign_keys = ON")
    connection.execute(
        "INSERT INTO generations SELECT ?2, last FROM generations WHERE service = ?1 "
        "ON CONFLICT (service) DO UPDATE SET last = max(last, excluded.last)",
        (old, new),
    )
    connection.execute(
        "INSERT INTO instances SELECT ?2, host, last_sequence, newest, key_missing FROM instances WHERE service = ?1 "
        "ON CONFLICT (service, host) DO UPDATE SET last_sequence = max(last_sequence, excluded.last_sequence), "
        "newest = excluded.newest, key_missing = excluded.key_missing",
        (old, new),
    )
    connection.execute("UPDATE instances SET newest = NULL, key_missing = 0 WHERE service = ?", (old,))
    for table in _OF_A_SERVICE:
        connection.execute(f"UPDATE {table} SET service = ? WHERE service = ?", (new, old))  # noqa: S608  our own names
    connection.execute("UPDATE credentials SET issuer_service = ? WHERE issuer_service = ?", (new, old))
    with _unguarded(connection, "signature_is_not_rewritten"):
        connection.execute("UPDATE signatures SET issuer_service = ? WHERE issuer_service = ?", (new, old))
    _rename_in_recipes(connection, lambda recipe: with_services_renamed(recipe, {old: new}))


@contextmanager
def _unguarded(connection: sqlite3.Connection, guard: str) -> Iterator[None]:
    """Without one guard, within this transaction; it stands again, to the letter, before anybody else can write."""
    query = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?"
    row = connection.execute(query, (guard,)).fetchone()
    connection.execute(f"DROP TRIGGER IF EXISTS {guard}")
    yield
    if row is not None:
        connection.execute(row[0])


def _rename_in_recipes(connection: sqlite3.Connection, renamed: Callable[[Recipe], Recipe]) -> None:
    """Recipes name the instances that they call and those whom they trust: on whatever host they are."""
    rows = connection.execute("SELECT service, host, release, recipe FROM releases").fetchall()
    changed = []
    for service, at, release, text in rows:
        again = canonical_json(recipe_to_json(renamed(recipe_from_json(json.loads(text)))))
        if again != text:
            changed.append((again, service, at, release))
    connection.executemany("UPDATE releases SET recipe = ? WHERE service = ? AND host = ? AND release = ?", changed)
