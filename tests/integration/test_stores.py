"""Stores as real programs open them: keytool lists them, Java serves and calls with the rendered arguments."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from mtlsctl.model.secret import Secret
from mtlsctl.pki.keystores import read_store
from mtlsctl.render.quoting import Untrusted, java_argument
from tests.integration.repository import Estate, Kept, calendar, make_estate
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.peer(name) for name in ("java", "javac", "keytool")]

PROGRAM = Path(__file__).parent / "programs" / "Jsse.java"
WORD = "a pass-word with 'all' \"kinds\" of \\ and $(signs) # it may have"
ENVIRON = {"MTLSCTL_SECRET_LEDGER": WORD}


def estate_of_java() -> dict[str, Any]:
    return {
        **calendar(),
        "services": {
            "ledger": {
                "runtime": "java",
                "hosts": ["web1"],
                "listen": 18443,
                "callers": ["mail", "person"],
                "settings": {
                    "keystore_file": "keystore_server_1.jks",
                    "truststore_file": "truststore_server_1.jks",
                    "alias": "server_1",
                    "store_password": {"env": "MTLSCTL_SECRET_LEDGER"},
                },
            },
            "mail": {"runtime": "java", "hosts": ["web2"], "settings": {"store_profile": "legacy"}},
            "other": {"runtime": "java", "hosts": ["web1"], "listen": 18444, "callers": ["stranger"]},
            "stranger": {"runtime": "java", "hosts": ["web2"]},
            "person": {"runtime": "browser", "hosts": ["web2"], "settings": {"alias": "my.browser"}},
        },
    }


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Estate:
    made = make_estate(tmp_path_factory.mktemp("stores") / "estate", estate_of_java())
    made.good("apply", "--yes", **ENVIRON)
    return made


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    subprocess.run(["javac", "-d", folder, PROGRAM], check=True, timeout=ENDED_SECONDS)
    return folder


def current(estate: Estate, host: str, service: str) -> Path:
    return estate.folder / "out" / host / "etc/mtlsctl" / service / "current"


def word_of(folder: Path) -> Path:
    """The file with the password of a release's stores."""
    return folder / "secrets/store-password"


def listed(folder: Path, store: str) -> str:
    command = ["keytool", "-J-Duser.language=en", "-list", "-keystore", str(folder / store)]
    password = ["-storepass:file", str(word_of(folder))]
    done = subprocess.run([*command, *password], capture_output=True, text=True, check=False, timeout=ENDED_SECONDS)
    assert 0 == done.returncode, done
    return done.stdout


def java(classes: Path, folder: Path, *words: str, properties: tuple[str, ...] = ()) -> list[str]:
    return ["java", f"@{folder / 'java.args'}", *properties, "-cp", str(classes), "Jsse", *words]


@contextlib.contextmanager
def serving(classes: Path, folder: Path) -> Iterator[int]:
    """The server of a release on a free port, until the test is done."""
    server = subprocess.Popen(java(classes, folder, "serve", "0"), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        ready, port = server.stdout.readline().split()
        assert "ready" == ready
        yield int(port)
    finally:
        server.kill()
        server.communicate()


def said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS).stdout.strip()


# --- what lies there ----------------------------------------------------------------------------------------------


def test_keytool_lists_the_key_and_the_anchors_under_their_aliases(estate: Estate) -> None:
    ledger = current(estate, "web1", "ledger")
    assert "\nserver_1, " in (key := listed(ledger, "keystore_server_1.jks"))
    assert "PrivateKeyEntry" in key
    trust = listed(ledger, "truststore_server_1.jks")
    assert 2 == trust.count("trustedCertEntry")
    assert all(f"\n{alias}, " in trust for alias in ("mail-ca-g1", "person-ca-g1"))


def test_keytool_opens_the_legacy_stores(estate: Estate) -> None:
    mail = current(estate, "web2", "mail")
    assert "\nmail, " in listed(mail, "keystore.p12")
    assert "\nledger-ca-g1, " in listed(mail, "trust.p12")


def test_what_a_browser_imports_opens_with_the_password_beside_it(estate: Estate) -> None:
    person = current(estate, "web2", "person")
    done = subprocess.run(
        [
            "openssl",
            "pkcs12",
            "-in",
            person / "browser.p12",
            "-passin",
            f"file:{person}/secrets/store-password",
            "-nodes",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=ENDED_SECONDS,
    )
    assert "friendlyName: my.browser" in done.stdout
    leaf = x509.load_der_x509_certificate((person / "certificate.cer").read_bytes())
    anchor = x509.load_der_x509_certificate((person / "anchors/ledger-ca-g1.cer").read_bytes())
    assert leaf == x509.load_pem_x509_certificate((person / "tls.crt").read_bytes())
    assert anchor == x509.load_pem_x509_certificate((person / "servers/ledger.pem").read_bytes())


def test_whatever_holds_a_key_or_the_password_is_for_its_owner_only(estate: Estate) -> None:
    ledger = current(estate, "web1", "ledger")
    modes = {str(path.relative_to(ledger)): path.stat().st_mode & 0o777 for path in ledger.rglob("*") if path.is_file()}
    assert {
        "clients/main.pem": 0o640,
        "java.args": 0o600,
        "keystore_server_1.jks": 0o600,
        "secrets/store-password": 0o600,
        "tls.crt": 0o640,
        "tls.key": 0o600,
        "truststore_server_1.jks": 0o640,
    } == modes
    assert WORD.encode() == word_of(ledger).read_bytes()


def test_generated_passwords_differ_from_release_to_release(estate: Estate) -> None:
    words = [
        current(estate, host, one) / "secrets/store-password" for host, one in (("web2", "mail"), ("web1", "other"))
    ]
    first, second = (path.read_bytes() for path in words)
    assert first != second
    assert 32 == len(first) == len(second)


# --- real handshakes ----------------------------------------------------------------------------------------------


def test_a_declared_caller_gets_in_and_an_undeclared_one_does_not(estate: Estate, classes: Path) -> None:
    ledger, mail, stranger = (
        current(estate, host, one) for host, one in (("web1", "ledger"), ("web2", "mail"), ("web2", "stranger"))
    )
    believing_ledger = (
        f"-Djavax.net.ssl.trustStore={mail.resolve() / 'trust.p12'}",
        f"-Djavax.net.ssl.trustStorePassword={(mail / 'secrets/store-password').read_text()}",
    )
    with serving(classes, ledger) as port:
        words = ("get", str(port), "ledger.calendar.internal")
        assert "let in CN=mail by TLSv1.3" == said(java(classes, mail, *words))
        posing = said(java(classes, stranger, *words, properties=believing_ledger))
        assert posing.startswith("refused: ") or "hung up" == posing
        bare = said(["java", *believing_ledger, "-cp", str(classes), "Jsse", *words])
        assert bare.startswith("refused: ") or "hung up" == bare
        assert "let in CN=mail by TLSv1.3" == said(java(classes, mail, *words))


def test_a_caller_believes_whom_it_calls_and_nobody_else_and_checks_the_name(estate: Estate, classes: Path) -> None:
    mail, stranger = current(estate, "web2", "mail"), current(estate, "web2", "stranger")
    with serving(classes, current(estate, "web1", "other")) as port:
        words = ("get", str(port), "other.calendar.internal")
        assert "let in CN=stranger by TLSv1.3" == said(java(classes, stranger, *words))
        assert "PKIX path building failed" in said(java(classes, mail, *words))
        misnamed = said(java(classes, stranger, "get", str(port), "elsewhere.calendar.internal"))
        assert "No subject alternative DNS name matching" in misnamed


MODELS = {
    "pinned": ({"trust": {"model": "pinned"}}, {}),
    "shared": ({"trust": {"model": "shared-ca"}}, {"authorize": "any-member"}),
}


@pytest.mark.parametrize("model", MODELS)
def test_java_serves_and_calls_in_the_other_trust_models(tmp_path: Path, classes: Path, model: str) -> None:
    """A pinned leaf is an anchor of its own; a member of a shared CA gets in where every member may."""
    trust, more = MODELS[model]
    services = {
        "ledger": {"runtime": "java", "hosts": ["web1"], "listen": 18443, "callers": ["mail"], **more},
        "mail": {"runtime": "java", "hosts": ["web2"]},
        "stranger": {"runtime": "pem", "hosts": ["web2"], "trust": {"model": "service-ca"}},
    }
    made = make_estate(tmp_path / "estate", {**calendar(), "services": services, **trust})
    made.good("apply", "--yes")
    made.prove()
    ledger, mail = current(made, "web1", "ledger"), current(made, "web2", "mail")
    assert 1 == listed(ledger, "trust.p12").count("trustedCertEntry")
    with serving(classes, ledger) as port:
        words = ("get", str(port), "ledger.calendar.internal")
        assert "let in CN=mail by TLSv1.3" == said(java(classes, mail, *words))
        arguments = [f"-Djavax.net.ssl.{key}={value}" for key, value in trusting(mail).items()]
        stranger = current(made, "web2", "stranger")
        key, word = tmp_path / "stranger.p12", tmp_path / "word"
        word.write_bytes(word_of(mail).read_bytes() + b"\n")
        files = f"-in {stranger}/tls.crt -inkey {stranger}/tls.key -out {key} -passout file:{word}"
        subprocess.run(["openssl", "pkcs12", "-export", *files.split()], check=True, timeout=ENDED_SECONDS)
        arguments += [f"-Djavax.net.ssl.keyStore={key}", f"-Djavax.net.ssl.keyStorePassword={word.read_text().strip()}"]
        posing = said(["java", *arguments, "-cp", str(classes), "Jsse", *words])
        assert posing.startswith("refused: ") or "hung up" == posing


def trusting(folder: Path) -> dict[str, str]:
    return {"trustStore": str(folder.resolve() / "trust.p12"), "trustStorePassword": word_of(folder).read_text()}


def test_the_password_is_not_in_the_command_line_of_the_program(estate: Estate, classes: Path) -> None:
    ledger = current(estate, "web1", "ledger")
    server = subprocess.Popen(java(classes, ledger, "serve", "0"), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        if Path("/proc").is_dir():
            assert WORD.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    finally:
        server.kill()
        server.communicate()


def test_java_without_an_anchor_believes_nobody_and_not_what_came_with_it(
    estate: Estate, classes: Path, tmp_path: Path
) -> None:
    """`trustStore=NONE`, as is rendered where there is nobody to believe."""
    stranger = current(estate, "web2", "stranger")
    arguments = (stranger / "java.args").read_text().splitlines()
    kept = [line for line in arguments if "trustStore" not in line]
    (tmp_path / "java.args").write_text("\n".join([*kept, "-Djavax.net.ssl.trustStore=NONE", ""]))
    with serving(classes, current(estate, "web1", "other")) as port:
        answer = said(java(classes, tmp_path, "get", str(port), "other.calendar.internal"))
    assert "trustAnchors parameter must be non-empty" in answer


# --- argument files -----------------------------------------------------------------------------------------------

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
WORDS = [
    *PRINTABLE.strip(),
    PRINTABLE,
    PRINTABLE[::-1],
    WORD,
    "\\",
    "\\\\",
    '"',
    '\\"',
    '"\\',
    "\\n\\t\\r\\f",
    "ends with \\",
    "@elsewhere",
    "# no comment",
    "'",
    "a\\\\\\'\\\"b",
    "$HOME ${HOME} %PATH% `id` *",
    " spaces at both ends ",
]


def test_java_itself_reads_each_quoted_argument_as_it_was(classes: Path, tmp_path: Path) -> None:
    lines = [java_argument([f"-Dp{number}=", Untrusted(one)]) for number, one in enumerate(WORDS)]
    (tmp_path / "java.args").write_text("# a comment\n" + "".join(f"{line}\n" for line in lines))
    done = said(["java", f"@{tmp_path / 'java.args'}", "-cp", str(classes), "Jsse", "show"])
    assert [one.encode().hex() for one in WORDS] == done.splitlines()


# --- again, interrupted, altered ----------------------------------------------------------------------------------


def bytes_of(estate: Estate) -> dict[str, tuple[bytes, int]]:
    files = (path for path in (estate.folder / "out").rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def again(estate: Estate, tmp_path: Path) -> Iterator[Estate]:
    kept = Kept(estate, tmp_path / "kept")
    yield estate
    kept.back()


def test_a_second_apply_writes_nothing_and_needs_no_password(again: Estate) -> None:
    before = bytes_of(again)
    again.good("apply", "--yes")
    assert before == bytes_of(again)
    again.prove()


def test_a_password_that_is_missing_stops_everything_before_it_begins(again: Estate) -> None:
    inventory = estate_of_java()
    inventory["services"]["ledger"]["settings"]["alias"] = "server_2"
    inventory["services"]["new"] = {"runtime": "pem", "hosts": ["web1"], "listen": 18500, "callers": ["mail"]}
    again.write(inventory)
    before, operations = bytes_of(again), again.good("journal").out
    again.good("plan")
    ran = again.run("apply", "--yes")
    assert (1, True) == (ran.code, "error[M7401]" in ran.err)
    assert "MTLSCTL_SECRET_LEDGER" in ran.err
    assert (before, operations) == (bytes_of(again), again.good("journal").out)
    again.good("apply", "--yes", **ENVIRON)
    again.prove()


@pytest.mark.parametrize("damage", ["store", "password", "java.args"])
def test_an_altered_store_is_made_anew(again: Estate, damage: str) -> None:
    folder = current(again, "web2", "mail").resolve()
    path = {"store": folder / "trust.p12", "password": word_of(folder)}.get(damage, folder / damage)
    if damage == "store":
        shutil.copyfile(current(again, "web2", "stranger") / "trust.p12", path)
    else:
        path.write_bytes(path.read_bytes()[:-1])
    ran = again.good("apply", "--yes")
    assert "was altered" in ran.said
    password = Secret(word_of(folder).read_bytes())
    assert ["ledger-ca-g1"] == [alias for alias, _ in read_store((folder / "trust.p12").read_bytes(), password).anchors]
    again.prove()


KILLED = [
    ("release.rendered", 1),
    ("stage.partial", 1),
    ("stage.written", 2),
    ("stage.synced", 2),
    ("stage.renamed", 1),
    ("switch.intended", 2),
    ("switch.renamed", 1),
    ("switch.recorded", 2),
    ("prune.deleted", 1),
]


@pytest.mark.parametrize(("place", "nth"), KILLED, ids=[place for place, _ in KILLED])
def test_an_apply_that_was_killed_is_finished_by_the_next_and_stores_open(again: Estate, place: str, nth: int) -> None:
    inventory = estate_of_java()
    inventory["services"]["ledger"] |= {"certification_authority": {"generation": 2}}
    again.write(inventory)
    killed = again.command("apply", "--yes", MTLSCTL_FAILPOINT=f"{place}*{nth}:kill", **ENVIRON)
    assert -9 == killed.code
    # What waits for a Java program stays for the apply after its restart, and three waves are the most there can be.
    codes = [again.run("apply", "--yes", **ENVIRON).code for _ in range(3)]
    assert (0, {0, 3}) == (codes[-1], {0, 3, *codes})
    again.prove()
    for host, service, store in (("web1", "ledger", "keystore_server_1.jks"), ("web2", "mail", "trust.p12")):
        folder = current(again, host, service)
        password = Secret(word_of(folder).read_bytes())
        assert read_store((folder / store).read_bytes(), password)
        assert password.reveal() in (folder / "java.args").read_bytes() or service == "ledger"
    assert [alias for alias, _ in read_store((folder / "trust.p12").read_bytes(), password).anchors] == ["ledger-ca-g2"]


def test_what_was_staged_before_the_end_stays_as_it_is(again: Estate) -> None:
    """Staged and not switched: the release lies there with stores that open, so its bytes are kept."""
    inventory = estate_of_java()
    inventory["services"]["ledger"]["settings"]["alias"] = "server_2"
    again.write(inventory)
    killed = again.command("apply", "--yes", MTLSCTL_FAILPOINT="stage.checked:kill", **ENVIRON)
    assert -9 == killed.code
    releases = current(again, "web1", "ledger").parent / "releases"
    staged = {path: path.read_bytes() for path in releases.rglob("*") if path.is_file()}
    again.good("apply", "--yes", **ENVIRON)
    assert staged == {path: path.read_bytes() for path in releases.rglob("*") if path.is_file()}
    assert "\nserver_2, " in listed(current(again, "web1", "ledger"), "keystore_server_1.jks")


def test_another_password_in_the_meantime_makes_the_staged_release_anew(again: Estate) -> None:
    inventory = estate_of_java()
    inventory["services"]["ledger"]["settings"]["alias"] = "server_2"
    again.write(inventory)
    assert -9 == again.command("apply", "--yes", MTLSCTL_FAILPOINT="stage.checked:kill", **ENVIRON).code
    again.good("apply", "--yes", MTLSCTL_SECRET_LEDGER="another one now")
    assert b"another one now" == word_of(current(again, "web1", "ledger")).read_bytes()
    again.prove()


def test_no_password_is_written_where_the_estate_is_planned(estate: Estate) -> None:
    words = [
        WORD.encode(),
        *((current(estate, "web2", one) / "secrets/store-password").read_bytes() for one in ("mail", "person")),
    ]
    for path in (estate.folder / ".mtlsctl").rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in words), path
    assert os.environ.get("MTLSCTL_SECRET_LEDGER") is None
