"""The tables of the SQLite store. One row of truth per fact; what is derived is derived by the reader."""

from __future__ import annotations

FORMAT = 2
"""Grows with each change of the tables that an older mtlsctl cannot read; kept in `user_version`."""

APPLICATION_ID = 0x6D746C73
"""`mtls` in ASCII: says of a SQLite file that it is ours (shown by `file`)."""

PROGRAMS = """\
CREATE TABLE programs (
    host TEXT NOT NULL,
    program TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (host, program)
) STRICT;
"""

_TABLES = """
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    lineage TEXT NOT NULL,
    estate TEXT NOT NULL,
    serial INTEGER NOT NULL,
    high_water TEXT NOT NULL,
    fence INTEGER NOT NULL,
    journal_number INTEGER NOT NULL,
    journal_digest TEXT NOT NULL,
    scrypt_salt BLOB NOT NULL,
    key_check BLOB
) STRICT;
CREATE TABLE holder (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    who TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    command TEXT NOT NULL,
    since TEXT NOT NULL
) STRICT;
CREATE TABLE operations (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    command TEXT NOT NULL,
    who TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    outcome TEXT,
    CHECK ((closed_at IS NULL) = (outcome IS NULL))
) STRICT;
CREATE INDEX operations_open ON operations (number) WHERE closed_at IS NULL;
CREATE TABLE journal (
    number INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    operation TEXT REFERENCES operations (id),
    event TEXT NOT NULL,
    detail TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
CREATE TABLE signatures (
    number INTEGER PRIMARY KEY,
    issuer_service TEXT NOT NULL,
    issuer_generation INTEGER NOT NULL,
    serial TEXT NOT NULL,
    subject TEXT NOT NULL,
    common_name TEXT NOT NULL,
    not_after TEXT NOT NULL,
    to_be_signed_sha256 TEXT NOT NULL,
    operation TEXT REFERENCES operations (id),
    signing INTEGER NOT NULL DEFAULT 0 CHECK (signing IN (0, 1)),
    signed INTEGER NOT NULL DEFAULT 0 CHECK (signed IN (0, 1) AND signed <= signing),
    UNIQUE (issuer_service, issuer_generation, serial)
) STRICT;
CREATE TABLE certificates (
    sha256 TEXT PRIMARY KEY,
    der BLOB NOT NULL
) STRICT;
CREATE TABLE authorities (
    service TEXT NOT NULL,
    generation INTEGER NOT NULL,
    serial TEXT NOT NULL,
    not_before TEXT NOT NULL,
    not_after TEXT NOT NULL,
    certificate_sha256 TEXT NOT NULL REFERENCES certificates (sha256),
    spki_sha256 TEXT NOT NULL,
    profile TEXT NOT NULL,
    sealed_key BLOB,
    PRIMARY KEY (service, generation),
    FOREIGN KEY (service, generation, serial) REFERENCES signatures (issuer_service, issuer_generation, serial)
) STRICT;
CREATE TABLE generations (
    service TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;
CREATE TABLE leaf_ends (
    service TEXT NOT NULL,
    generation INTEGER NOT NULL,
    last TEXT NOT NULL,
    PRIMARY KEY (service, generation)
) STRICT;
CREATE TABLE instances (
    service TEXT NOT NULL,
    host TEXT NOT NULL,
    last_sequence INTEGER NOT NULL,
    newest INTEGER,
    key_missing INTEGER NOT NULL DEFAULT 0 CHECK (key_missing IN (0, 1)),
    PRIMARY KEY (service, host),
    FOREIGN KEY (service, host, newest) REFERENCES credentials (service, host, sequence)
) STRICT;
CREATE TABLE credentials (
    service TEXT NOT NULL,
    host TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    issuer_service TEXT NOT NULL,
    issuer_generation INTEGER NOT NULL,
    serial TEXT NOT NULL,
    not_before TEXT NOT NULL,
    not_after TEXT NOT NULL,
    certificate_sha256 TEXT NOT NULL REFERENCES certificates (sha256),
    spki_sha256 TEXT NOT NULL,
    profile TEXT NOT NULL,
    PRIMARY KEY (service, host, sequence),
    FOREIGN KEY (issuer_service, issuer_generation, serial)
        REFERENCES signatures (issuer_service, issuer_generation, serial)
) STRICT;
CREATE TABLE releases (
    service TEXT NOT NULL,
    host TEXT NOT NULL,
    release TEXT NOT NULL,
    release_digest TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    recipe TEXT NOT NULL,
    PRIMARY KEY (service, host, release),
    FOREIGN KEY (service, host, sequence) REFERENCES credentials (service, host, sequence)
) STRICT;
CREATE TABLE live (
    service TEXT NOT NULL,
    host TEXT NOT NULL,
    release TEXT NOT NULL,
    receipt TEXT NOT NULL,
    PRIMARY KEY (service, host),
    FOREIGN KEY (service, host, release) REFERENCES releases (service, host, release)
) STRICT;
CREATE TABLE pointers (
    host TEXT NOT NULL,
    process TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (host, process)
) STRICT;
CREATE TABLE switches (
    host TEXT NOT NULL,
    process TEXT NOT NULL,
    before TEXT,
    after TEXT,
    PRIMARY KEY (host, process)
) STRICT;
CREATE TABLE switch_members (
    host TEXT NOT NULL,
    process TEXT NOT NULL,
    position INTEGER NOT NULL,
    service TEXT NOT NULL,
    service_host TEXT NOT NULL,
    release TEXT,
    PRIMARY KEY (host, process, position),
    FOREIGN KEY (host, process) REFERENCES switches (host, process) ON DELETE CASCADE,
    FOREIGN KEY (service, service_host, release) REFERENCES releases (service, host, release)
) STRICT;
CREATE TABLE hosts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
"""
"""`switch_members.release` is NULL for an instance that the process no longer names.

`instances.newest` is the newest credential that came back, `last_sequence` the last number given out.
`leaf_ends` counts what may have been signed, whether or not it came back.
"""

TABLES = _TABLES + PROGRAMS

GUARDS = """
CREATE TRIGGER journal_is_not_updated BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_not_deleted BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_has_no_gap BEFORE INSERT ON journal
    WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM journal)
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER signature_is_not_deleted BEFORE DELETE ON signatures
    BEGIN SELECT RAISE(ABORT, 'a signature stays on record'); END;
CREATE TRIGGER signature_is_not_rewritten BEFORE UPDATE OF issuer_service, issuer_generation, serial, subject,
    common_name, not_after, to_be_signed_sha256, operation ON signatures
    BEGIN SELECT RAISE(ABORT, 'a signature stays on record'); END;
CREATE TRIGGER signature_is_not_unmade BEFORE UPDATE OF signing, signed ON signatures
    WHEN NEW.signing < OLD.signing OR NEW.signed < OLD.signed
    BEGIN SELECT RAISE(ABORT, 'a signature stays on record'); END;
CREATE TRIGGER certificate_is_not_updated BEFORE UPDATE ON certificates
    BEGIN SELECT RAISE(ABORT, 'a certificate stays on record'); END;
CREATE TRIGGER certificate_is_not_deleted BEFORE DELETE ON certificates
    BEGIN SELECT RAISE(ABORT, 'a certificate stays on record'); END;
"""
"""They stop mistakes, ours first. Whoever can write the file can drop them: then the chain tells."""

UPGRADES = {1: PROGRAMS}
"""What brings a state from that format to the next one."""
