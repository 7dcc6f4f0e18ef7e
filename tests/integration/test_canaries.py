"""No byte of a private key is anywhere but where keys have to be: not printed, saved, recorded or left behind."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import mtlsctl.pki.keys
import mtlsctl.pki.keystores
from mtlsctl.deliver.local import LocalTransport
from mtlsctl.errors import DeliveryError
from mtlsctl.failpoints import FAILPOINTS
from mtlsctl.store.keysource import KeyFile
from mtlsctl.store.sqlite import open_store
from mtlsctl.store.writer import SqliteWriter
from tests.integration.canaries import (
    Scanner,
    base64_of,
    canaries_of_key,
    dump_of,
    files_below,
    keys_below,
    passwords_below,
    texts,
    united,
)
from tests.integration.repository import Estate, Inventory, Kept, Ran, calendar, make_estate
from tests.integration.test_kill import RENAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.operations import saved_plan

LOUD = ("-vvv",)


# --- the scanner itself ---------------------------------------------------------------------------------------------


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _number(key: ec.EllipticCurvePrivateKey) -> int:
    return key.private_numbers().private_value


FORMS: dict[str, Callable[[ec.EllipticCurvePrivateKey], bytes]] = {
    "PEM": _pem,
    "PEM in JSON": lambda key: json.dumps({"key": _pem(key).decode()}).encode(),
    "PEM wrapped for a terminal": lambda key: re.sub(rb"(.{31})", rb"\1\n        ", _pem(key)),
    "PEM in UTF-16": lambda key: _pem(key).decode().encode("utf-16"),
    "PEM reversed": lambda key: _pem(key)[::-1],
    "repr of PEM": lambda key: repr(_pem(key)).encode(),
    "traditional PEM": lambda key: key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ),
    "DER": _der,
    "DER reversed": lambda key: _der(key)[::-1],
    "repr of DER": lambda key: repr(_der(key)).encode(),
    "DER in hex": lambda key: _der(key).hex().encode(),
    "DER in hex, capitals": lambda key: _der(key).hex().upper().encode(),
    "DER in hex, colons": lambda key: _der(key).hex(":").encode(),
    "DER in hex, UTF-16": lambda key: _der(key).hex().encode("utf-16-be"),
    "base64, shifted by one": lambda key: base64.b64encode(b"x" + _der(key)),
    "base64, shifted by two": lambda key: base64.b64encode(b"xy" + _der(key)),
    "base64url": lambda key: base64.urlsafe_b64encode(_der(key)),
    "decimal": lambda key: f"d={_number(key)};".encode(),
    "hex of the number": lambda key: f"{_number(key):#x}".encode(),
    "a list of numbers": lambda key: str(list(_der(key))).encode(),
    "PEM in base64": lambda key: base64.b64encode(b"k: " + _pem(key)),
    "PEM in hex": lambda key: _pem(key).hex().encode(),
    "half of it": lambda key: _number(key).to_bytes(32)[:16],
    "the other half": lambda key: _number(key).to_bytes(32)[16:],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_found_in_every_form(form: str) -> None:
    for _ in range(20):
        key = ec.generate_private_key(ec.SECP256R1())
        scanner = Scanner()
        scanner.add_key("planted", _pem(key))
        assert scanner.hits({"a sink": secrets.token_bytes(50) + FORMS[form](key) + secrets.token_bytes(50)}) != []


def test_what_a_certificate_shows_is_not_taken_for_a_secret() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    scanner = Scanner()
    scanner.add_key("planted", _der(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert scanner.hits({"public": public, "other": _pem(ec.generate_private_key(ec.SECP256R1()))}) == []


def test_base64_is_looked_for_at_each_of_three_alignments() -> None:
    chunk = secrets.token_bytes(16)
    for before in range(3):
        text = base64.b64encode(b"?" * before + chunk + b"??")
        assert any(needle in text for needle in base64_of(chunk))


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def scanner(monkeypatch: pytest.MonkeyPatch) -> Scanner:
    """Knows every key that is made in this process, also one that never reaches a disk."""
    known = Scanner()
    real = mtlsctl.pki.keys.generate_key

    def noted(*arguments: Any) -> Any:
        key = real(*arguments)
        known.add_key("a key that was made", mtlsctl.pki.keys.private_der(key).reveal())
        return key

    for module in ("mtlsctl.operations.issue", "mtlsctl.operations.verify", "mtlsctl.pki.probes"):
        monkeypatch.setattr(f"{module}.generate_key", noted)
    return known


def of_all_kinds(**changes: Any) -> Inventory:
    """A P-256, an Ed25519 and an RSA leaf, and a CA of each kind."""
    inventory = calendar(**changes)
    services = inventory["services"]
    services["mail"] |= {"certificate": {"key": "ed25519"}, "certification_authority": {"key": "ed25519"}}
    services["social"] |= {"certificate": {"key": "rsa-2048"}, "certification_authority": {"key": "rsa-2048"}}
    return inventory


def rotated(inventory: Inventory) -> Inventory:
    services = inventory["services"]
    services["schedule"] |= {"certification_authority": {"generation": 2}, "callers": ["social"]}
    services["mail"]["names"] = ["mail.example.com"]
    del services["report"]
    return inventory


def learn(scanner: Scanner, estate: Estate) -> None:
    """Every key as it is found afterwards: leaves on the hosts, CAs in the state, and what seals those."""
    for place, content in keys_below(estate.folder).items():
        scanner.add_key(f"the leaf key {Path(place).name}", content)
    for place, content in passwords_below(estate.folder).items():
        scanner.add(f"the password in {place}", content)
    scanner.add("the encryption key", estate.key_file.read_bytes())
    for name, der in authority_keys(estate):
        scanner.add_key(name, der)


def authority_keys(estate: Estate) -> Iterator[tuple[str, bytes]]:
    store = open_store(estate.state, lineage=None, estate=None, key_source=KeyFile(estate.key_file))
    with closing(store), store.lock(command="test", timeout_seconds=5) as writer:
        for authority in store.snapshot().authorities.values():
            if not authority.key_destroyed:
                yield f"the key of {authority.id}", writer.authority_key(authority.id).reveal()


def left_behind(estate: Estate, ran: list[tuple[str, Ran]]) -> dict[str, bytes]:
    """Outputs, the project, its state as bytes and as SQL, and the folder for temporary files."""
    outputs = texts(
        (f"{name} {stream}", text) for name, one in ran for stream, text in (("1", one.out), ("2", one.err))
    )
    return united(outputs, files_below(estate.folder, estate.temp), {"dump": dump_of(estate.state)})


class Session:
    """Commands in a row, with everything that they said."""

    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.ran: list[tuple[str, Ran]] = []

    def run(self, *arguments: str, **environ: str) -> Ran:
        ran = self.estate.run(*arguments, **environ)
        self.ran.append((f"mtlsctl {' '.join(arguments)}", ran))
        return ran

    def good(self, *arguments: str, **environ: str) -> Ran:
        ran = self.run(*arguments, **environ)
        assert ran.code == 0, (arguments, ran)
        return ran

    def sinks(self) -> dict[str, bytes]:
        return left_behind(self.estate, self.ran)


FORMATS = {
    "plan": ("text", "json", "markdown"),
    "validate": ("text", "json"),
    "verify --embedded": ("text", "json", "junit"),
    "show": ("text", "json"),
    "status": ("text", "json"),
    "journal": ("text", "json"),
    "state show": ("text", "json"),
    "state check": ("text", "json"),
    "runtimes": ("text", "json"),
    "init --no-input": ("text", "json"),
}
PLAIN = ("schema", "schema plan", "explain", "explain M7001", "completion bash", "plan --full", "show --full")


def say_everything(session: Session) -> None:
    for command, formats in FORMATS.items():
        for one in formats:
            session.good(*command.split(), "-o", one, *LOUD)
    for command in PLAIN:
        session.good(*command.split(), *LOUD)


def test_nothing_secret_is_left_by_commands_that_succeed(tmp_path: Path, scanner: Scanner) -> None:
    estate = make_estate(tmp_path / "estate", of_all_kinds())
    session = Session(estate)
    session.good("plan", "--out", "first.mtlsplan", *LOUD)
    session.good("show", "first.mtlsplan", "-o", "json", *LOUD)
    session.good("apply", "first.mtlsplan", "-o", "json", *LOUD)
    learn(scanner, estate)
    say_everything(session)
    estate.write(rotated(of_all_kinds()))
    session.good("plan", "-o", "markdown", *LOUD)
    session.good("apply", "--yes", *LOUD)
    session.good("state", "backup", "copy.db", *LOUD)
    session.good("state", "restore", "copy.db", *LOUD)
    say_everything(session)
    learn(scanner, estate)
    assert len(scanner.canaries) > 20
    sinks = session.sinks()
    assert {"copy.db", "first.mtlsplan", "state.db", "mtlsctl.conf", "mtls.cjs"} <= {Path(one).name for one in sinks}
    assert scanner.hits(sinks) == []


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    place = tmp_path_factory.mktemp("canaries")
    estate = make_estate(place / "estate")
    estate.good("apply", "--yes")
    estate.write(rotated(calendar()))
    return Kept(estate, place / "kept")


@pytest.fixture(scope="module")
def renaming(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    place = tmp_path_factory.mktemp("canaries")
    estate = make_estate(place / "estate")
    estate.good("apply", "--yes")
    services = calendar()["services"]
    services["agenda"] = services.pop("schedule")
    estate.write(calendar(services=services, moved=[{"service": "schedule", "to": "agenda"}]))
    return Kept(estate, place / "kept")


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("failpoint", [one for one in FAILPOINTS if not one.startswith("back.")])
def test_nothing_secret_is_left_by_an_error_at_any_place(
    request: pytest.FixtureRequest, scanner: Scanner, failpoint: str, format: str
) -> None:
    kept: Kept = request.getfixturevalue("renaming" if failpoint in RENAME else "changing")
    estate = kept.back()
    learn(scanner, estate)
    session = Session(estate)
    ran = session.run("apply", "--yes", "-o", format, *LOUD, MTLSCTL_FAILPOINT=f"{failpoint}:raise")
    assert ran.code in {1, 3}, ran
    for command in ("status", "show", "journal", "state check", "plan"):
        session.good(*command.split(), "-o", format, *LOUD)
    learn(scanner, estate)
    assert scanner.hits(session.sinks()) == []


@pytest.mark.parametrize("failpoint", ["authority.signed", "key.written", "release.rendered", "stage.written"])
def test_nothing_secret_is_left_by_a_process_that_was_killed(changing: Kept, scanner: Scanner, failpoint: str) -> None:
    estate = changing.back()
    learn(scanner, estate)
    ran = estate.command("apply", "--yes", *LOUD, MTLSCTL_FAILPOINT=f"{failpoint}:kill")
    assert ran.code == -9
    learn(scanner, estate)
    assert scanner.hits(left_behind(estate, [("killed", ran)])) == []


# --- passwords of stores --------------------------------------------------------------------------------------------


def with_stores(directory: Path) -> tuple[Inventory, dict[str, str]]:
    """A password of each source, and the environment in which they are found."""
    inventory = calendar()
    given, kept = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    directory.mkdir(mode=0o700)
    (directory / "kept").write_text(kept + "\n")
    (directory / "kept").chmod(0o600)
    inventory["services"] |= {
        "ledger": {"runtime": "java", "hosts": ["web1"], "listen": 20443, "callers": ["clerk", "person", "cook"]},
        "clerk": {"runtime": "java", "hosts": ["web2"], "settings": {"store_password": {"env": "MTLSCTL_SECRET_A"}}},
        "cook": {"runtime": "java", "hosts": ["web2"], "settings": {"store_password": {"file": "kept"}}},
        "person": {"runtime": "browser", "hosts": ["web2"]},
    }
    return inventory, {"MTLSCTL_SECRET_A": given, "MTLSCTL_SECRETS_DIR": str(directory)}


def know(scanner: Scanner, environ: dict[str, str]) -> None:
    scanner.add("the password given", environ["MTLSCTL_SECRET_A"].encode())
    scanner.add("the password kept", (Path(environ["MTLSCTL_SECRETS_DIR"]) / "kept").read_bytes().strip())


def test_no_password_of_stores_is_left_by_commands_that_succeed(tmp_path: Path, scanner: Scanner) -> None:
    inventory, environ = with_stores(tmp_path / "secrets")
    know(scanner, environ)
    session = Session(make_estate(tmp_path / "estate", inventory))
    session.good("plan", "--out", "first.mtlsplan", *LOUD, **environ)
    session.good("apply", "first.mtlsplan", "-o", "json", *LOUD, **environ)
    learn(scanner, session.estate)
    inventory["services"]["ledger"] |= {"certification_authority": {"generation": 2}}
    session.estate.write(inventory)
    assert session.run("apply", "--yes", *LOUD, **environ).code == 3  # Java goes on with what it read
    session.good("state", "backup", "copy.db", *LOUD)
    learn(scanner, session.estate)
    say_everything(session)
    assert 6 < len({one.name for one in scanner.canaries if "password" in one.name})
    sinks = session.sinks()
    assert {"keystore.p12", "trust.p12", "browser.p12"} <= {Path(one).name for one in sinks}
    assert scanner.hits(sinks) == []


@pytest.mark.parametrize("failpoint", ["release.rendered", "stage.partial", "stage.written", "stage.renamed"])
def test_no_password_of_stores_is_left_by_an_error_or_a_kill(tmp_path: Path, scanner: Scanner, failpoint: str) -> None:
    inventory, environ = with_stores(tmp_path / "secrets")
    know(scanner, environ)
    session = Session(make_estate(tmp_path / "estate", inventory))
    killed = session.estate.command("apply", "--yes", *LOUD, MTLSCTL_FAILPOINT=f"{failpoint}:kill", **environ)
    assert killed.code == -9
    session.ran.append(("killed", killed))
    ran = session.run("apply", "--yes", "-o", "json", *LOUD, MTLSCTL_FAILPOINT=f"{failpoint}:raise", **environ)
    assert ran.code in {1, 3}, ran
    learn(scanner, session.estate)
    assert scanner.hits(session.sinks()) == []


def test_no_password_of_stores_is_said_when_it_cannot_be_used(tmp_path: Path, scanner: Scanner) -> None:
    inventory, environ = with_stores(tmp_path / "secrets")
    session = Session(make_estate(tmp_path / "estate", inventory))
    bad = {**environ, "MTLSCTL_SECRET_A": environ["MTLSCTL_SECRET_A"] + "ä"}
    scanner.add("the password given", environ["MTLSCTL_SECRET_A"].encode())
    for one in ("text", "json"):
        ran = session.run("apply", "--yes", "-o", one, *LOUD, **bad)
        assert (ran.code, "M7107" in ran.said) == (1, True), ran
    (tmp_path / "secrets/kept").chmod(0o644)
    ran = session.run("apply", "--yes", *LOUD, **environ)
    assert (ran.code, "M7402" in ran.said) == (1, True), ran
    know(scanner, environ)
    assert scanner.hits(session.sinks()) == []


def test_a_build_that_leaks_a_password_is_caught(
    tmp_path: Path, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mtlsctl.pki.keystores.generate_password

    def leaky() -> Secret:
        password = real()
        (tmp_path / "estate-temp" / "note").write_bytes(base64.b64encode(b"p" + password.reveal()))
        return password

    monkeypatch.setattr("mtlsctl.operations.stores.generate_password", leaky)
    inventory, environ = with_stores(tmp_path / "secrets")
    session = Session(make_estate(tmp_path / "estate", inventory))
    session.good("apply", "--yes", **environ)
    learn(scanner, session.estate)
    hits = scanner.hits(session.sinks())
    assert [hit for hit in hits if re.search(r"note: the password in .* as base64", hit)] != [], hits


def test_nothing_secret_is_said_about_keys_that_do_not_fit(changing: Kept, scanner: Scanner, tmp_path: Path) -> None:
    estate = changing.back()
    learn(scanner, estate)
    wrong, long, open_to_all = (tmp_path / name for name in ("wrong", "long", "open"))
    for file, size in ((wrong, 32), (long, 33), (open_to_all, 32)):
        file.write_bytes(secrets.token_bytes(size))
        file.chmod(0o600 if file is not open_to_all else 0o644)
        scanner.add(file.name, file.read_bytes()[:32])
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("-".join(secrets.token_hex(8) for _ in range(4)))
    passphrase.chmod(0o600)
    scanner.add("the passphrase", passphrase.read_bytes())
    session = Session(estate)
    wishes: list[tuple[dict[str, str], int]] = [
        ({"MTLSCTL_KEY_SOURCE": f"file:{wrong}"}, 1),
        ({"MTLSCTL_KEY_SOURCE": f"file:{long}"}, 1),
        ({"MTLSCTL_KEY_SOURCE": f"file:{open_to_all}"}, 1),
        ({"MTLSCTL_KEY_SOURCE": wrong.read_bytes().hex()}, 64),
        ({"MTLSCTL_KEY_SOURCE": "", "MTLSCTL_PASSPHRASE_FILE": str(passphrase)}, 1),
    ]
    for environ, code in wishes:
        for one in ("text", "json"):
            assert session.run("apply", "--yes", "-o", one, *LOUD, **environ).code == code, environ
    estate.write(calendar())
    ran = session.run("verify", "--embedded", *LOUD, **wishes[0][0])
    assert (ran.code, "0 contradictions" in ran.out, "8 not probed" in ran.out) == (1, True, True), ran
    assert scanner.hits(session.sinks()) == []


def test_nothing_secret_is_said_about_a_state_that_is_damaged(changing: Kept, scanner: Scanner) -> None:
    estate = changing.back()
    learn(scanner, estate)
    session = Session(estate)
    with closing(sqlite3.connect(estate.state)) as database, database:
        # The sealed key of one CA in the row of another: each opens in its own place only.
        (other,) = database.execute("SELECT sealed_key FROM authorities WHERE service = 'mail'").fetchone()
        database.execute("UPDATE authorities SET sealed_key = ?", (other,))
    # A new lifetime makes a new leaf of a CA that is there already: its key has to be opened.
    inventory = calendar()
    inventory["services"]["schedule"]["certificate"] = {"lifetime": "80d"}
    estate.write(inventory)
    for one in ("text", "json"):
        ran = session.run("apply", "--yes", "-o", one, *LOUD)
        assert (ran.code, "M7001" in ran.said) == (1, True), ran
    torn = bytearray(estate.state.read_bytes())
    torn[5000:9000] = secrets.token_bytes(4000)
    sinks = session.sinks()
    estate.state.write_bytes(torn)
    for command in ("plan", "apply --yes", "state check", "status", "show"):
        ran = session.run(*command.split(), "-o", "json", *LOUD)
        assert (ran.code, "Traceback" in ran.said) == (1, False), ran
    outputs = texts((name, ran.said) for name, ran in session.ran)
    assert scanner.hits(united(sinks, outputs, {"torn": bytes(torn)})) == []


def test_nothing_secret_is_said_about_a_plan_that_was_altered(changing: Kept, scanner: Scanner) -> None:
    estate = changing.back()
    learn(scanner, estate)
    session = Session(estate)
    session.good("plan", "--out", "it.mtlsplan", *LOUD)
    file = estate.folder / "it.mtlsplan"
    file.write_bytes(file.read_bytes().replace(b'"serial":2', b'"serial":3'))
    for command in ("apply it.mtlsplan", "show it.mtlsplan"):
        assert session.run(*command.split(), "-o", "json", *LOUD).code == 6
    assert scanner.hits(session.sinks()) == []


def test_nothing_secret_is_in_the_report_of_a_bug(
    changing: Kept, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that nobody foresaw may quote a key: no word of it is printed or written."""

    def broken(_transport: LocalTransport, service: str, _spki: str, key: Secret) -> NoReturn:
        raise RuntimeError(f"{service}: {key.reveal()!r}")

    monkeypatch.setattr(LocalTransport, "put_key", broken)
    estate = changing.back()
    session = Session(estate)
    for one in ("text", "json"):
        ran = session.run("apply", "--yes", "-o", one, *LOUD)
        assert (ran.code, "RuntimeError" in ran.said) == (70, True), ran
    learn(scanner, estate)
    sinks = session.sinks()
    assert any("mtlsctl-bug-" in place for place in sinks)
    assert scanner.hits(sinks) == []


# --- a build that leaks is caught -----------------------------------------------------------------------------------


def _into_an_exception(monkeypatch: pytest.MonkeyPatch, _: Estate) -> None:
    def put_key(_transport: LocalTransport, service: str, _spki: str, key: Secret) -> NoReturn:
        raise DeliveryError(f"cannot write the key of {service}: {key.reveal().decode()}", code="M4101")

    monkeypatch.setattr(LocalTransport, "put_key", put_key)


def _with_each_key(monkeypatch: pytest.MonkeyPatch, leak: Callable[[bytes], object]) -> None:
    real = LocalTransport.put_key

    def put_key(self: LocalTransport, service: str, spki_sha256: str, key: Secret) -> None:
        leak(key.reveal())
        real(self, service, spki_sha256, key)

    monkeypatch.setattr(LocalTransport, "put_key", put_key)


def _into_stderr(monkeypatch: pytest.MonkeyPatch, _: Estate) -> None:
    _with_each_key(monkeypatch, lambda key: sys.stderr.write(base64.b64encode(b"k" + key).decode()))


def _into_stdout(monkeypatch: pytest.MonkeyPatch, _: Estate) -> None:
    _with_each_key(monkeypatch, print)


def _into_a_temporary_file(monkeypatch: pytest.MonkeyPatch, estate: Estate) -> None:
    _with_each_key(monkeypatch, (estate.temp / "openssl.tmp").write_bytes)


def _into_a_file_on_the_host(monkeypatch: pytest.MonkeyPatch, estate: Estate) -> None:
    """A copy that bears the right ending, but lies where no key belongs."""
    _with_each_key(monkeypatch, (estate.folder / "out" / "web1" / "etc" / "mtlsctl" / "copy.key").write_bytes)


def _into_the_journal(monkeypatch: pytest.MonkeyPatch, _: Estate) -> None:
    real = SqliteWriter.add_authorities

    def add_authorities(self: SqliteWriter, made: Any) -> None:
        real(self, made)
        for _, _, key in made:
            number = serialization.load_der_private_key(key.reveal(), None)
            assert isinstance(number, ec.EllipticCurvePrivateKey)
            self.note("made", {"d": _number(number)})

    monkeypatch.setattr(SqliteWriter, "add_authorities", add_authorities)


def _into_a_column(monkeypatch: pytest.MonkeyPatch, _: Estate) -> None:
    """The key beside the sealed one, as a build that forgot to seal would store it."""
    monkeypatch.setattr("mtlsctl.store.sealing.seal", lambda _key, _place, value: value.reveal())


def _into_the_plan(monkeypatch: pytest.MonkeyPatch, estate: Estate) -> None:
    real = saved_plan.summary_of
    key = int.from_bytes(estate.key_file.read_bytes()[:16])

    def summary_of(plan: Any) -> dict[str, Any]:
        return {**real(plan), "seed": f"{key:032X}"}

    monkeypatch.setattr(saved_plan, "summary_of", summary_of)


def _into_a_bug_report(monkeypatch: pytest.MonkeyPatch, _: Estate) -> None:
    def put_key(_transport: LocalTransport, _service: str, _spki: str, key: Secret) -> NoReturn:
        raise RuntimeError(key.reveal().hex())

    monkeypatch.setattr(LocalTransport, "put_key", put_key)
    monkeypatch.setattr("mtlsctl.cli.failure._frames", lambda error: [str(error)])


CONTROLS: dict[str, tuple[Callable[[pytest.MonkeyPatch, Estate], None], str]] = {
    "an exception": (_into_an_exception, r"mtlsctl apply .* [12]: "),
    "stderr": (_into_stderr, r"mtlsctl apply .* 2: .* as base64$"),
    "stdout": (_into_stdout, r"mtlsctl apply .* 1: "),
    "a temporary file": (_into_a_temporary_file, r"openssl\.tmp: "),
    "a file on the host": (_into_a_file_on_the_host, r"copy\.key: "),
    "the journal": (_into_the_journal, r"(dump|mtlsctl journal .*): .* as decimal$"),
    "a column": (_into_a_column, r"(state\.db(-wal)?: .* as raw|dump: .* as hex)$"),
    "the plan": (_into_the_plan, r"leaky\.mtlsplan: the encryption key as hex$"),
    "a bug report": (_into_a_bug_report, r"mtlsctl-bug-.*: .* as hex$"),
}


@pytest.mark.parametrize("sink", CONTROLS)
def test_a_build_that_leaks_is_caught(
    changing: Kept, scanner: Scanner, monkeypatch: pytest.MonkeyPatch, sink: str
) -> None:
    estate = changing.back()
    leak, expected = CONTROLS[sink]
    leak(monkeypatch, estate)
    session = Session(estate)
    session.run("plan", "--out", "leaky.mtlsplan")
    session.run("apply", "--yes", "-o", "json", *LOUD)
    session.run("journal", "-o", "json")
    monkeypatch.undo()
    scanner.add("the encryption key", estate.key_file.read_bytes())
    hits = scanner.hits(session.sinks())
    assert [hit for hit in hits if re.search(expected, hit)] != [], hits


def test_the_private_part_of_each_kind_of_key_is_known() -> None:
    for algorithm in ("ecdsa-p256", "ed25519", "rsa-2048"):
        key = mtlsctl.pki.keys.generate_key(KeyAlgorithm(algorithm))
        pem = mtlsctl.pki.keys.private_pem(key).reveal()
        der = mtlsctl.pki.keys.private_der(key).reveal()
        for canary in canaries_of_key("it", der):
            assert canary.secret in (pem if "PEM" in canary.name else der)
