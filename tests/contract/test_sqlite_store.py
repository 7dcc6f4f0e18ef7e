from __future__ import annotations

import base64
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mtlsctl
from mtlsctl.errors import SealedKeyError, StateError, StateLocked
from mtlsctl.model.credential import CredentialId
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.store.database import connect
from mtlsctl.store.files import make_private_folder
from mtlsctl.store.keysource import KeyFile, create_key_file
from mtlsctl.store.port import Outcome
from mtlsctl.store.schema import FORMAT
from mtlsctl.store.sqlite import SqliteStore, create, open_store, restore
from tests.contract.state_store import (
    CA_KEY,
    ESTATE,
    LINEAGE,
    MAIL,
    MAIL_1,
    MAIL_CA,
    MAIL_CA_2,
    NOW,
    Clock,
    Place,
    StateStoreContract,
    apply_once,
    go_live,
    intent,
    sign_authority,
    sign_credential,
)
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtlsctl.store.port import StateWriter

ROOT = Path(mtlsctl.__file__).parent.parent
BEGIN = """
import os, signal, sys, time
from pathlib import Path
from mtlsctl.store.keysource import KeyFile
from mtlsctl.store.sqlite import open_store
from tests.contract.state_store import *
folder = Path(sys.argv[1])
store = open_store(folder / "state" / "state.db", lineage=LINEAGE, estate=ESTATE,
    key_source=KeyFile(folder / "keys" / "first.key"), clock=lambda: NOW)
"""


def start(folder: Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, errors = process.communicate(timeout=ENDED_SECONDS)
    return process.returncode, out + errors


def says(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == word + "\n"


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=ENDED_SECONDS)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestSqliteStore(StateStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        place = make_place(tmp_path)
        yield place
        for store in place.opened:
            store.close()


def make_place(folder: Path) -> Place:
    clock = Clock()
    for name in ("first", "second"):
        create_key_file(folder / "keys" / f"{name}.key")
    create(folder / "state" / "state.db", lineage=LINEAGE, estate=ESTATE, clock=clock)
    first = KeyFile(folder / "keys" / "first.key")

    def opening(*, path: Path = folder / "state" / "state.db", key_source: KeyFile | None = first) -> SqliteStore:
        return open_store(path, lineage=LINEAGE, estate=ESTATE, key_source=key_source, clock=clock)

    return Place(open=opening, clock=clock, other_key=KeyFile(folder / "keys" / "second.key"), folder=folder)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = make_place(tmp_path)
    yield place
    for store in place.opened:
        store.close()


@pytest.fixture
def path(place: Place) -> Path:
    return place.folder / "state" / "state.db"


def tamper(path: Path, *statements: str) -> None:
    """As whoever can write the file: without our guards and without checks of references."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# Opening


def test_a_missing_state_is_an_error_with_its_remedies_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        open_store(tmp_path / "state.db", lineage=LINEAGE, estate=ESTATE)
    assert caught.value.code == "M3001"
    remedies = " ".join([*caught.value.notes, caught.value.help or ""])
    assert all(word in remedies for word in ("state restore", "--state", "init --new-lineage"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("lineage", "estate"), [("another", ESTATE), (LINEAGE, "another"), ("another", None)])
def test_a_foreign_state_is_not_opened(path: Path, lineage: str, estate: str | None) -> None:
    with pytest.raises(StateError) as caught:
        open_store(path, lineage=lineage, estate=estate)
    assert caught.value.code == "M3002"


def test_whose_state_it_is_need_not_be_known_to_read_it(path: Path) -> None:
    with closing(open_store(path, lineage=None, estate=None)) as store:
        assert store.snapshot().estate == ESTATE


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be read as one" * 40])
def test_what_is_no_state_is_not_opened_and_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        open_store(path, lineage=LINEAGE, estate=ESTATE)
    assert caught.value.code == "M3003"
    assert path.read_bytes() == content


def test_somebody_else_s_database_is_no_state(tmp_path: Path) -> None:
    tamper(tmp_path / "state.db", "CREATE TABLE meta (lineage)")
    with pytest.raises(StateError) as caught:
        open_store(tmp_path / "state.db", lineage=LINEAGE, estate=ESTATE)
    assert caught.value.code == "M3003"


def test_a_state_of_an_earlier_format_gets_the_tables_that_it_lacks(path: Path) -> None:
    tamper(path, "DROP TABLE programs")
    tamper(path, "PRAGMA user_version = 1")
    for _ in range(2):
        with closing(open_store(path, lineage=None, estate=None)) as store:
            assert {} == store.snapshot().programs
            assert () == store.check()


def test_a_newer_format_is_not_opened(path: Path) -> None:
    tamper(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(StateError, match=f"format {FORMAT + 1}") as caught:
        open_store(path, lineage=LINEAGE, estate=ESTATE)
    assert caught.value.code == "M3004"


def test_a_folder_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        open_store(tmp_path, lineage=LINEAGE, estate=ESTATE)
    assert caught.value.code == "M3007"


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_a_state_is_not_made_over_another_nor_over_its_remains(tmp_path: Path, ending: str) -> None:
    there = tmp_path / f"state.db{ending}"
    there.write_bytes(b"remains")
    with pytest.raises(StateError) as caught:
        create(tmp_path / "state.db", lineage=LINEAGE, estate=ESTATE)
    assert caught.value.code == "M3009"
    assert there.read_bytes() == b"remains"
    assert list(tmp_path.iterdir()) == [there]


def test_a_name_with_the_characters_of_a_url_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=ro&x#%41" / "state.db"
    create(path, lineage=LINEAGE, estate=ESTATE)
    with closing(open_store(path, lineage=LINEAGE, estate=ESTATE)) as store:
        assert store.snapshot().serial == 1


# Modes


def test_every_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = make_place(tmp_path)
        with place.store().lock(command="test", timeout_seconds=0) as writer:
            apply_once(writer)
            writer.backup(tmp_path / "state" / "backup")
            modes = {entry.name: mode_of(entry) for entry in (tmp_path / "state").iterdir()}
        place.opened[0].close()
    finally:
        os.umask(before)
    names = {"state.db", "state.db-wal", "state.db-shm", "state.db.lock", "backup"}
    assert modes == dict.fromkeys(names, 0o600)
    assert {mode_of(tmp_path / "state"), mode_of(tmp_path / "keys")} == {0o700}


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private_folder(tmp_path / "shared" / "a" / "b")
    modes = [mode_of(tmp_path / part) for part in ("shared", "shared/a", "shared/a/b")]
    assert modes == [0o755, 0o700, 0o700]


def test_a_state_that_others_can_read_is_found(place: Place, path: Path) -> None:
    path.chmod(0o644)
    found = place.store().check()
    assert f"mode: {path} can be read by others than its owner (0644); chmod 600" in found


# Secrets


def test_no_key_is_in_the_file_in_any_encoding(place: Place, path: Path) -> None:
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        apply_once(writer)
        key, encryption_key = CA_KEY.reveal(), (place.folder / "keys" / "first.key").read_bytes()
        content = b"".join(entry.read_bytes() for entry in path.parent.iterdir())
        with closing(connect(path)) as connection:
            dump = "\n".join(connection.iterdump()).encode()
    for secret in (key, encryption_key):
        for shape in encodings(secret):
            assert shape not in content
            assert shape not in dump
    assert b"certificate of mail" in content


def encodings(secret: bytes) -> list[bytes]:
    middle = [secret[at : at + 24] for at in (0, 1, 2, 4)]
    shapes = [*middle, *(one.hex().encode() for one in middle), *(one.hex().upper().encode() for one in middle)]
    shapes += [base64.b64encode(one) for one in middle] + [base64.urlsafe_b64encode(one) for one in middle]
    return [*shapes, secret[:24][::-1], str(int.from_bytes(secret, "big")).encode()]


def test_the_search_for_keys_finds_a_key_that_leaks(place: Place, path: Path) -> None:
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        writer.note("leak", {"key": base64.b64encode(CA_KEY.reveal()).decode()})
        content = b"".join(entry.read_bytes() for entry in path.parent.iterdir())
    assert any(shape in content for shape in encodings(CA_KEY.reveal()))


def test_a_destroyed_key_leaves_no_sealed_byte(place: Place, path: Path) -> None:
    store = place.store()
    with store.lock(command="test", timeout_seconds=0) as writer:
        sign_authority(writer)
        with closing(connect(path)) as connection:
            (sealed,) = connection.execute("SELECT sealed_key FROM authorities").fetchone()
        assert sealed in b"".join(entry.read_bytes() for entry in path.parent.iterdir())
        writer.destroy_authority_key(MAIL_CA)
        content = b"".join(entry.read_bytes() for entry in path.parent.iterdir())
    assert sealed[20:60] not in content


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE authorities SET sealed_key = (SELECT sealed_key FROM authorities WHERE generation = 2)",
        "UPDATE authorities SET sealed_key = (SELECT key_check FROM meta)",
        "UPDATE authorities SET generation = 3 - generation + 10",
        "UPDATE authorities SET certificate_sha256 = (SELECT certificate_sha256 FROM authorities WHERE generation = 2)",
        "UPDATE authorities SET sealed_key = substr(sealed_key, 1, 100)",
        "UPDATE authorities SET sealed_key = x''",
        "UPDATE meta SET lineage = 'another'",
        "UPDATE meta SET key_check = (SELECT sealed_key FROM authorities WHERE generation = 1)",
    ],
)
def test_a_sealed_key_that_was_moved_does_not_open(place: Place, path: Path, change: str) -> None:
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        sign_authority(writer, MAIL_CA)
        sign_authority(writer, MAIL_CA_2)
    tamper(path, change)
    moved = MAIL_CA._replace(generation=12) if "+ 10" in change else MAIL_CA
    key = KeyFile(place.folder / "keys" / "first.key")
    store = open_store(path, lineage=None, estate=None, key_source=key, clock=place.clock)
    with closing(store), store.lock(command="test", timeout_seconds=0) as writer:
        with pytest.raises(SealedKeyError) as caught:
            writer.authority_key(moved)
        assert caught.value.code == "M7001"


# What was altered


@pytest.fixture
def used(place: Place) -> None:
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        apply_once(writer)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE journal SET detail = '{}' WHERE number = 3", "append-only"),
        ("DELETE FROM journal WHERE number = 3", "append-only"),
        ("INSERT OR REPLACE INTO journal VALUES (3, '', NULL, '', '', '')", "append-only"),
        ("INSERT INTO journal VALUES (900, '', NULL, '', '', '')", "append-only"),
        ("DELETE FROM signatures", "on record"),
        ("UPDATE signatures SET serial = 'x'", "on record"),
        ("UPDATE signatures SET signed = 0", "on record"),
        ("UPDATE certificates SET der = x''", "on record"),
        ("DELETE FROM certificates", "on record"),
    ],
)
@pytest.mark.usefixtures("used")
def test_what_is_append_only_is_not_altered_by_mistake(path: Path, statement: str, message: str) -> None:
    with closing(connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match=message):
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statements", "finding"),
    [
        (("UPDATE journal SET detail = '{}' WHERE number = 3",), "the chain breaks at entry 3"),
        (("UPDATE journal SET at = '2001-01-01T00:00:00+00:00' WHERE number = 4",), "the chain breaks at entry 4"),
        (("UPDATE journal SET operation = NULL WHERE number = 2",), "the chain breaks at entry 2"),
        (("DELETE FROM journal WHERE number = 5",), "entry 5 is missing"),
        (("DELETE FROM journal WHERE number = 1",), "entry 1 is missing"),
        (("DELETE FROM journal WHERE number > 9",), "it ends at entry 9"),
        (("DELETE FROM journal WHERE event = 'signed'",), "0 journal rows `signed`, not 1"),
        (("DELETE FROM signatures",), "which is not on record"),
        (("UPDATE signatures SET signed = 0",), "kept but not recorded as signed"),
        (("UPDATE certificates SET der = x'00'",), "are others"),
        (("DELETE FROM releases",), "of which nothing is known"),
        (("UPDATE releases SET release_digest = 'x'",), "not named by its digest"),
        (("DELETE FROM credentials",), "names no row of credentials"),
        (("DELETE FROM hosts",), "on a host that is not on record"),
        (("UPDATE instances SET last_sequence = 0",), "above the last number given out"),
        (("UPDATE generations SET last = 0",), "above the last generation given out"),
        (("DELETE FROM leaf_ends",), "ends after its last known leaf"),
        (("DROP INDEX operations_open",), "schema: operations_open is missing"),
        (("CREATE TABLE more (x)",), "schema: more is not ours"),
    ],
)
@pytest.mark.usefixtures("used")
def test_what_was_altered_on_purpose_is_found(
    place: Place, path: Path, statements: tuple[str, ...], finding: str
) -> None:
    assert place.store().check() == ()
    with closing(connect(path)) as connection:
        guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    drop = [f"DROP TRIGGER {name}" for name, _ in guards]
    tamper(path, *drop, *statements, *(sql for _, sql in guards))
    found = place.store().check()
    assert any(finding in one for one in found), found


@pytest.mark.usefixtures("used")
def test_a_guard_that_was_dropped_is_found(place: Place, path: Path) -> None:
    tamper(path, "DROP TRIGGER journal_is_not_deleted")
    assert place.store().check() == ("schema: journal_is_not_deleted is missing or altered",)


@pytest.mark.usefixtures("used")
def test_a_serial_that_was_used_twice_is_found(place: Place, path: Path) -> None:
    with closing(connect(path)) as connection:
        (table,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'signatures'").fetchone()
    loose = table.replace(",\n    UNIQUE (issuer_service, issuer_generation, serial)", "").replace(
        "signatures", "loose"
    )
    copied = "number + 90, issuer_service, issuer_generation, serial, subject, common_name, not_after, "
    tamper(
        path,
        loose,
        "INSERT INTO loose SELECT * FROM signatures",
        f"INSERT INTO loose SELECT {copied} to_be_signed_sha256, operation, signing, signed FROM signatures LIMIT 1",  # noqa: S608
        "DROP TABLE signatures",
        "ALTER TABLE loose RENAME TO signatures",
    )
    found = place.store().check()
    assert any("more than once" in one for one in found) or any("foreign key mismatch" in one for one in found), found


@pytest.mark.usefixtures("used")
def test_a_damaged_page_is_found_and_nothing_is_written_over_it(place: Place, path: Path) -> None:
    for store in place.opened:
        store.close()
    with closing(connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'journal'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : (page - 1) * 4096 + 2048] = b"\xff" * 2048
    path.write_bytes(content)
    store = place.store()
    assert store.check() != ()
    with pytest.raises(StateError) as caught, store.lock(command="test", timeout_seconds=0):
        pytest.fail("a damaged state was given to a writer")
    assert caught.value.code == "M3003"


# Processes


@pytest.mark.parametrize(
    "last_words",
    [
        'with writer._writing() as t: t.connection.execute("DELETE FROM live"); t.journal("x", {}); die()',
        'with writer._writing() as t: t.journal("x", {}); t.finish(); die()',
        'writer.note("y", {}); die()',
    ],
)
def test_a_kill_in_a_transaction_undoes_it_and_nothing_before(place: Place, last_words: str) -> None:
    child = start(
        place.folder,
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with store.lock(command='child', timeout_seconds=0) as writer:\n"
        f"    apply_once(writer); writer.open_operation('apply')\n    {last_words}\n",
    )
    code, output = ends(child)
    assert (code, output) == (-signal.SIGKILL, "")
    store = place.store()
    assert store.check() == ()
    assert set(store.snapshot().live) == {MAIL}
    assert store.snapshot().interrupted is not None
    events = [entry.event for entry in store.journal()]
    assert "x" not in events
    assert ("y" in events) == ('"y"' in last_words)


def test_a_kill_at_any_moment_leaves_a_state_that_holds_together(place: Place) -> None:
    seed = random.randrange(10**6)  # noqa: S311  no secret
    print(f"seed {seed}")
    moments = random.Random(seed)  # noqa: S311  no secret
    program = (
        "with store.lock(command='child', timeout_seconds=5) as writer:\n"
        "    writer.record_hosts(HOSTS)\n"
        "    if MAIL_CA not in writer.snapshot().authorities: sign_authority(writer)\n"
        "    print('go', flush=True)\n"
        "    while True:\n"
        "        writer.open_operation('apply')\n"
        "        for made in writer.open_switches(): writer.record_switched_back(made)\n"
        "        number = writer.snapshot().sequences.get(MAIL, 0) + 1\n"
        "        sign_credential(writer, CredentialId(MAIL, number))\n"
        "        go_live(writer, CredentialId(MAIL, number))\n"
        "        writer.close_operation(Outcome.DONE)\n"
    )
    store = place.store()
    for _ in range(6):
        child = start(place.folder, program)
        says(child, "go")
        time.sleep(moments.uniform(0.005, 0.15))
        stop(child)
        assert store.check() == ()
        state = store.snapshot()
        assert state.sequences.get(MAIL, 0) >= max((one.sequence for one in state.credentials), default=0)
    assert store.snapshot().serial > 1


def test_another_process_is_refused_and_a_killed_holder_frees_the_lock(place: Place) -> None:
    child = start(
        place.folder,
        "with store.lock(command='apply --yes', timeout_seconds=0) as writer:\n"
        "    print('in', flush=True); time.sleep(60)\n",
    )
    says(child, "in")
    store = place.store()
    with (
        pytest.raises(StateLocked, match=rf"`apply --yes` of .* \(process {child.pid}\), since") as caught,
        store.lock(command="test", timeout_seconds=0.2),
    ):
        pytest.fail("two writers")
    assert caught.value.exit_code == 5
    stop(child)
    began = time.monotonic()
    with store.lock(command="test", timeout_seconds=5) as writer:
        writer.note("looked", {})
    assert time.monotonic() - began < 2


def test_twenty_processes_never_write_at_once_and_all_have_their_turn(place: Place) -> None:
    children = [
        start(
            place.folder,
            "with store.lock(command='child', timeout_seconds=50) as writer:\n"
            "    alone = os.open(folder / 'alone', os.O_CREAT | os.O_EXCL)\n"
            "    writer.open_operation('apply'); time.sleep(0.01); writer.close_operation(Outcome.DONE)\n"
            "    os.unlink(folder / 'alone')\n",
        )
        for _ in range(20)
    ]
    assert [ends(child) for child in children] == [(0, "")] * 20
    store = place.store()
    assert store.snapshot().serial == 21
    assert store.check() == ()


def test_a_holder_whose_lock_file_was_removed_is_fenced_off(place: Place, path: Path) -> None:
    with place.store().lock(command="first", timeout_seconds=0) as first:
        first.note("first", {})
        path.with_name("state.db.lock").unlink()
        with place.store().lock(command="second", timeout_seconds=0) as second:
            with pytest.raises(StateLocked) as caught:
                first.note("late", {})
            assert caught.value.code == "M3011"
            second.note("second", {})
    assert [entry.event for entry in place.store().journal()][1:] == ["first", "second"]


def test_a_planted_symlink_is_not_taken_for_the_lock(place: Place, path: Path) -> None:
    victim = place.folder / "victim"
    path.with_name("state.db.lock").symlink_to(victim)
    with pytest.raises(StateError), place.store().lock(command="test", timeout_seconds=0):
        pytest.fail("followed")
    assert not victim.exists()


def note_often(writer: StateWriter) -> None:
    for _ in range(20):
        writer.note("looked", {})


def test_threads_share_one_writer(place: Place) -> None:
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        threads = [threading.Thread(target=lambda: note_often(writer)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(writer.journal())) == 101
        assert writer.check() == ()


def test_a_full_disk_is_said_and_undone(place: Place) -> None:
    store = place.store()
    with store.lock(command="test", timeout_seconds=0) as writer:
        writer.note("looked", {})
        (pages,) = writer._database.connection.execute("PRAGMA page_count").fetchone()  # type: ignore[attr-defined]
        writer._database.connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]
        with pytest.raises(StateError, match="full") as caught:
            writer.note("looked", {"much": "x" * 100_000})
        assert caught.value.code == "M3007"
        writer._database.connection.execute("PRAGMA max_page_count = 100000")  # type: ignore[attr-defined]
        writer.note("looked again", {})
    assert [entry.event for entry in store.journal()][1:] == ["looked", "looked again"]
    assert store.check() == ()


# Restoring


def backup_of(place: Place) -> Path:
    target = place.folder / "backup.db"
    place.store().backup(target)
    return target


def restored(place: Place, backup: Path, *, force: bool = False) -> SqliteStore:
    path = place.folder / "state" / "state.db"
    restore(backup, path, lineage=LINEAGE, estate=ESTATE, clock=place.clock, force=force)
    store = place.store()
    assert isinstance(store, SqliteStore)
    return store


@pytest.mark.usefixtures("used")
def test_a_lost_state_is_restored_and_says_that_it_was(place: Place, path: Path) -> None:
    backup = backup_of(place)
    before = place.store().snapshot()
    for store in place.opened:
        store.close()
    path.unlink()
    store = restored(place, backup)
    assert store.snapshot() == before
    assert list(store.journal())[-1].event == "state restored"
    assert store.check() == ()
    assert mode_of(path) == 0o600
    with store.lock(command="test", timeout_seconds=0) as writer:
        sign_credential(writer, CredentialId(MAIL, 2))
        assert writer.authority_key(MAIL_CA) == CA_KEY


@pytest.mark.usefixtures("used")
def test_a_state_does_not_go_back_unless_forced(place: Place) -> None:
    backup = backup_of(place)
    reader = place.store()
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        place.clock.now = NOW.replace(year=2032)
        writer.open_operation("apply")
        sign_credential(writer, CredentialId(MAIL, 2))
        writer.close_operation(Outcome.DONE)
    with pytest.raises(StateError) as caught:
        restored(place, backup)
    assert caught.value.code == "M3040"
    assert reader.snapshot().serial == 3
    store = restored(place, backup, force=True)
    assert reader.snapshot().serial == store.snapshot().serial == 2
    assert set(store.snapshot().credentials) == {MAIL_1}
    assert store.check() == ()
    # The clock's mark is the later of the two.
    place.clock.now = NOW
    with pytest.raises(StateError) as caught, store.lock(command="test", timeout_seconds=0):
        pytest.fail("the clock went back")
    assert caught.value.code == "M3020"


@pytest.mark.usefixtures("used")
def test_a_state_that_cannot_be_read_is_set_aside(place: Place, path: Path) -> None:
    backup = backup_of(place)
    for store in place.opened:
        store.close()
    path.write_bytes(b"rubbish" * 1000)
    assert restored(place, backup).snapshot().serial == 2
    (aside,) = (entry for entry in path.parent.iterdir() if "set-aside" in entry.name)
    assert aside.read_bytes() == b"rubbish" * 1000


@pytest.mark.usefixtures("used")
def test_the_log_of_a_lost_state_is_not_replayed_into_a_restored_one(place: Place, path: Path) -> None:
    backup = backup_of(place)
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        writer.open_operation("apply")
        log = path.with_name("state.db-wal").read_bytes()
    for opened in place.opened:
        opened.close()
    path.unlink()
    path.with_name("state.db-wal").write_bytes(log)
    store = restored(place, backup)
    assert [one.command for one in store.operations()] == ["apply"]
    assert store.snapshot().interrupted is None
    assert store.check() == ()


@pytest.mark.usefixtures("used")
def test_a_backup_that_does_not_hold_together_is_not_restored(place: Place, path: Path) -> None:
    backup = backup_of(place)
    tamper(backup, "DROP TRIGGER journal_is_not_deleted", "DELETE FROM journal WHERE number = 4")
    content = path.read_bytes()
    with pytest.raises(StateError, match="does not hold together") as caught:
        restored(place, backup, force=True)
    assert caught.value.code == "M3003"
    assert path.read_bytes() == content


def test_a_foreign_backup_is_not_restored_not_even_by_force(place: Place, tmp_path: Path) -> None:
    create(tmp_path / "other.db", lineage="another", estate=ESTATE)
    with pytest.raises(StateError) as caught:
        restored(place, tmp_path / "other.db", force=True)
    assert caught.value.code == "M3002"


def test_nothing_is_restored_over_a_foreign_state(place: Place, tmp_path: Path) -> None:
    backup = backup_of(place)
    other = tmp_path / "other.db"
    create(other, lineage="another", estate=ESTATE)
    with pytest.raises(StateError) as caught:
        restore(backup, other, lineage=LINEAGE, estate=ESTATE, clock=place.clock, force=True)
    assert caught.value.code == "M3002"


def test_nothing_is_restored_while_an_operation_runs(place: Place) -> None:
    backup = backup_of(place)
    with place.store().lock(command="test", timeout_seconds=0), pytest.raises(StateLocked):
        restored(place, backup)


def test_a_backup_that_was_copied_into_place_by_hand_is_a_state(place: Place, path: Path) -> None:
    backup = backup_of(place)
    for store in place.opened:
        store.close()
    path.unlink()
    backup.rename(path)
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        apply_once(writer)
        assert writer._database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)  # type: ignore[attr-defined]


def test_hosts_beyond_one_are_kept_apart(place: Place) -> None:
    with place.store().lock(command="test", timeout_seconds=0) as writer:
        sign_authority(writer)
        sign_credential(writer)
        go_live(writer)
        writer.record_hosts([DirectoryHost(name="gamma", directory="/srv/gamma")])
        writer.forget_host("gamma")
        assert set(writer.snapshot().live) == {MAIL}
        writer.record_intents([intent("probe")])
        assert writer.check() == ()
