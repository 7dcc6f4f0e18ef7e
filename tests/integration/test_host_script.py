"""What runs on a host over SSH, run here by both shells in a folder that is a whole host to it."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlsctl.deliver.layout import CurrentPointer, FilePointer, KeyStoreOrder, StagedFile, StagedRelease
from mtlsctl.deliver.remote import RemoteTransport
from mtlsctl.deliver.session import Request, command, open_session
from mtlsctl.errors import DeliveryError, StateLocked
from mtlsctl.model.release import HeldFile
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import KeyAlgorithm, KeyOrigin, SshHost
from mtlsctl.pki.keys import generate_key, private_pem, spki_sha256
from mtlsctl.pki.keystores import read_store
from mtlsctl.pki.requests import read_request
from tests.support.hosts import FolderHost, need_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtlsctl.pki.keys import PrivateKey

HOST = SshHost(name="web1", address="192.0.2.1")
FIRST, SECOND = "1" * 16, "2" * 16
CONF = "/etc/nginx/conf.d/mtlsctl.conf"
CURRENT = "/etc/mtlsctl/mail/current"
LINEAGE = "b7f0c1d2"


@pytest.fixture(params=["sh", "bash --posix"], ids=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FolderHost]:
    need_hosts()
    host = FolderHost(tmp_path / "host")
    host.furnish()
    yield host
    host.close()


@pytest.fixture
def transport(host: FolderHost, shell: str) -> Iterator[RemoteTransport]:
    transport = RemoteTransport(HOST, host.dial, shell=shell)
    yield transport
    transport.close()


def certificate_of(key: PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def release(name: str = FIRST, *, spki: str | None = None, content: bytes = b"certificate") -> StagedRelease:
    files = (
        StagedFile(path="tls.crt", content=content),
        StagedFile(path="clients/main.pem", content=b"anchors"),
        StagedFile(path="nginx.conf", content=b"# a server\n"),
    )
    return StagedRelease(service="mail", release=name, key_spki_sha256=spki, files=files)


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@contextmanager
def refused(code: str, match: str | None = None) -> Iterator[None]:
    with pytest.raises(DeliveryError, match=match) as found:
        yield
    assert code == found.value.code


# --- keys that are born there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ED25519, KeyAlgorithm.RSA_2048])
def test_a_key_is_born_there_and_signs_there(
    host: FolderHost, transport: RemoteTransport, algorithm: KeyAlgorithm
) -> None:
    request = read_request(transport.request_key("mail", algorithm, "mail.estate.internal"))
    assert (algorithm, ("mail.estate.internal",)) == (request.key, request.names)
    keys = host.root / "etc/mtlsctl/mail/keys"
    assert [f"{request.spki_sha256}.key"] == names_in(keys)
    key = keys / f"{request.spki_sha256}.key"
    assert (0o600, 0o700) == (key.stat().st_mode & 0o7777, keys.stat().st_mode & 0o7777)
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")

    signed = bytes(range(256)) * 5
    signature = transport.sign_with_key("mail", request.spki_sha256, signed)
    public = request.public_key
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    elif isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        public.verify(signature, signed)
    assert [f"{request.spki_sha256}.key"] == names_in(keys)

    held = transport.observe(pointers=[], releases=[], keys=[("mail", request.spki_sha256), ("mail", "0" * 64)])
    assert [True, False] == list(held.keys.values())
    with refused("M4315"):
        transport.read_key("mail", request.spki_sha256)


@pytest.mark.parametrize("name", ["", "a/b", "$(id)", "a\\", "x" * 65, "a,O=b", "a b", "ä"])
def test_a_common_name_that_could_be_more_than_a_name_is_refused(
    host: FolderHost, transport: RemoteTransport, name: str
) -> None:
    with refused("M4102"):
        transport.request_key("mail", KeyAlgorithm.ECDSA_P256, name)
    assert not (host.root / "etc/mtlsctl/mail").exists()


def test_a_key_that_is_gone_signs_nothing(transport: RemoteTransport) -> None:
    with refused("M4103", "is gone"):
        transport.sign_with_key("mail", "0" * 64, b"x")


def test_a_host_whose_keys_are_made_here_gives_them_back(host: FolderHost, shell: str) -> None:
    transport = RemoteTransport(replace(HOST, keys=KeyOrigin.CONTROLLER), host.dial, shell=shell)
    assert transport.keeper is None
    key = generate_key(KeyAlgorithm.ECDSA_P256)
    spki = spki_sha256(key.public_key())
    transport.put_key("mail", spki, private_pem(key))
    transport.stage(release(spki=spki))
    assert private_pem(key) == transport.read_key("mail", spki)
    assert HeldFile.of(private_pem(key).reveal(), 0o600) == transport.read_release("mail", FIRST)["tls.key"]
    transport.close()


# --- key stores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_legacy", [False, True], ids=["modern", "legacy"])
def test_a_key_store_is_made_where_the_key_is(host: FolderHost, transport: RemoteTransport, *, is_legacy: bool) -> None:
    key, other = generate_key(KeyAlgorithm.ECDSA_P256), generate_key(KeyAlgorithm.ECDSA_P256)
    spki, password = spki_sha256(key.public_key()), Secret(b"pass word 'with\" $all")
    transport.put_key("mail", spki, private_pem(key))
    chain = certificate_of(key) + certificate_of(other)
    made = replace(
        release(spki=spki, content=chain),
        files=(
            StagedFile(path="tls.crt", content=chain),
            StagedFile(path="secrets/store-password", content=password.reveal(), mode=0o600),
        ),
        combined=("tls.combined",),
        key_stores=(
            KeyStoreOrder(
                path="stores/keystore.p12",
                alias="mail",
                password_file="secrets/store-password",
                is_legacy=is_legacy,
            ),
        ),
    )
    transport.stage(made)
    folder = host.root / "etc/mtlsctl/mail/releases" / FIRST
    store = folder / "stores/keystore.p12"
    content = read_store(store.read_bytes(), password)
    assert (spki, "mail") == (content.key_spki_sha256, content.alias)
    assert 2 == len(content.chain)
    assert 0o600 == store.stat().st_mode & 0o7777

    held = transport.read_release("mail", FIRST)
    for path in ("tls.key", "tls.combined", "stores/keystore.p12"):
        assert (None, spki) == (held[path].content, held[path].spki_sha256)
    assert (password.reveal(), None) == (
        held["secrets/store-password"].content,
        held["secrets/store-password"].spki_sha256,
    )

    before = store.stat().st_ino
    transport.stage(made)
    assert before == store.stat().st_ino
    store.write_bytes(b"altered")
    transport.stage(made)
    assert content == read_store(store.read_bytes(), password)


def test_a_key_store_whose_certificate_is_not_the_keys_is_not_staged(
    host: FolderHost, transport: RemoteTransport
) -> None:
    key, other = generate_key(KeyAlgorithm.ECDSA_P256), generate_key(KeyAlgorithm.ECDSA_P256)
    spki = spki_sha256(key.public_key())
    transport.put_key("mail", spki, private_pem(key))
    order = KeyStoreOrder(path="keystore.p12", alias="mail", password_file="clients/main.pem")
    with refused("M4101", "make the store"):
        transport.stage(replace(release(spki=spki, content=certificate_of(other)), key_stores=(order,)))
    assert [] == names_in(host.root / "etc/mtlsctl/mail/releases")


class _Watch(threading.Thread):
    """Reads the arguments and the environment of every process over and over."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.over = threading.Event()

    def run(self) -> None:
        own = str(os.getpid())
        while not self.over.is_set():
            for process in names_in(Path("/proc")):
                if process.isdecimal() and process != own:
                    for name in ("cmdline", "environ"):
                        with suppress(OSError):
                            self.seen.add(Path("/proc", process, name).read_bytes())


def test_no_key_and_no_password_is_ever_an_argument(host: FolderHost, transport: RemoteTransport) -> None:
    transport.claim(LINEAGE)
    watch = _Watch()
    watch.start()
    key = generate_key(KeyAlgorithm.RSA_2048)
    spki, password = spki_sha256(key.public_key()), b"canary-0123456789-canary"
    transport.put_key("mail", spki, private_pem(key))
    files = (
        StagedFile(path="tls.crt", content=certificate_of(key)),
        StagedFile(path="secrets/store-password", content=password, mode=0o600),
    )
    order = KeyStoreOrder(path="keystore.p12", alias="mail", password_file="secrets/store-password")
    made = replace(release(spki=spki), files=files, key_stores=(order,), combined=("tls.combined",))
    for _ in range(3):
        transport.stage(made)
        transport.read_release("mail", FIRST)
        transport.delete_releases("mail", [FIRST])
    born = read_request(transport.request_key("mail", KeyAlgorithm.ECDSA_P256, "mail")).spki_sha256
    transport.sign_with_key("mail", born, b"x")
    watch.over.set()
    watch.join()
    text = b"\0".join(watch.seen)
    assert b"pkcs12" in text, "the watch saw nothing"
    secrets = [password, b"BEGIN PRIVATE KEY"]
    for pem in (private_pem(key).reveal(), (host.root / f"etc/mtlsctl/mail/keys/{born}.key").read_bytes()):
        body = b"".join(pem.splitlines()[1:-1])
        secrets += [body[at : at + 24] for at in range(40, len(body) - 24, 24)]
        secrets.append(base64.b64decode(body)[40:60])
    assert [] == [one for one in secrets if one in text]


# --- what is in the way ---------------------------------------------------------------------------------------------


def test_folders_of_somebody_else_are_left_alone(host: FolderHost, transport: RemoteTransport) -> None:
    folder = host.root / "etc/mtlsctl"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with refused("M4102", "belongs to user 12345"):
        transport.stage(release())
    with refused("M4102", "belongs to user 12345"):
        transport.claim(LINEAGE)
    assert [] == names_in(folder)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_folders_that_others_can_write_to_are_left_alone(
    host: FolderHost, transport: RemoteTransport, mode: int
) -> None:
    folder = host.root / "etc/mtlsctl/mail"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with refused("M4102", "others may reach into it"):
        transport.stage(release())
    with refused("M4102", f"{mode:04o}"):
        transport.request_key("mail", KeyAlgorithm.ECDSA_P256, "mail")
    assert [] == names_in(folder)


def test_a_full_file_system_is_said_and_nothing_half_written_is_left(tmp_path: Path, shell: str) -> None:
    need_hosts()
    host = FolderHost(
        tmp_path / "host", before='mkdir -p "$1/etc"; mount -t tmpfs -o size=256k none "$1/etc" || exit 125\n'
    )
    host.furnish()
    transport = RemoteTransport(HOST, host.dial, shell=shell)
    transport.switch(FilePointer(path=CONF, content=b"old"))
    transport.stage(release())
    there = Path(f"/proc/{host.channels[0].child.pid}/root/etc")
    with refused("M4101", "No space left"):
        transport.stage(release(SECOND, content=os.urandom(500_000)))
    assert [FIRST] == names_in(there / "mtlsctl/mail/releases")
    with refused("M4101", "No space left"):
        transport.switch(FilePointer(path=CONF, content=os.urandom(500_000)))
    assert (b"old", ["mtlsctl.conf"]) == (
        (there / "nginx/conf.d/mtlsctl.conf").read_bytes(),
        names_in(there / "nginx/conf.d"),
    )
    with refused("M4101", "No space left"):
        transport.put_key("mail", "0" * 64, Secret(os.urandom(500_000)))
    assert [] == names_in(there / "mtlsctl/mail/keys")
    transport.stage(release(SECOND))
    assert (FIRST, SECOND) == tuple(transport.releases("mail"))
    transport.close()


def test_a_file_system_that_cannot_be_written_is_said(tmp_path: Path, shell: str) -> None:
    need_hosts()
    before = 'mount --bind "$1/etc" "$1/etc" && mount -o remount,ro,bind "$1/etc" || exit 125\n'
    host = FolderHost(tmp_path / "host", before=before)
    host.furnish()
    transport = RemoteTransport(HOST, host.dial, shell=shell)
    steps: tuple[Callable[[], None], ...] = (
        lambda: transport.claim(LINEAGE),
        lambda: transport.stage(release()),
        lambda: transport.switch(FilePointer(path=CONF, content=b"x")),
        lambda: transport.put_key("mail", "0" * 64, Secret(b"x")),
        lambda: transport.lock(LINEAGE),
    )
    for step in steps:
        with refused("M4101", "Read-only file system"):
            step()
    assert () == tuple(transport.releases("mail"))
    transport.close()


def test_somebody_without_rights_is_told_so(tmp_path: Path, shell: str) -> None:
    need_hosts()
    host = FolderHost(tmp_path / "host", user=65534)
    host.furnish()
    transport = RemoteTransport(HOST, host.dial, shell=shell)
    with pytest.raises(DeliveryError, match="Permission denied") as found:
        transport.stage(release())
    assert "become" in str(found.value.help)
    assert 65534 == transport.facts().uid
    transport.close()


def test_another_estates_host_is_left_alone(host: FolderHost, transport: RemoteTransport, shell: str) -> None:
    transport.claim(LINEAGE)
    other = RemoteTransport(HOST, host.dial, shell=shell)
    with pytest.raises(DeliveryError) as found:
        other.claim("0123")
    assert ("M4111", (f"its lineage is {LINEAGE}",)) == (found.value.code, found.value.notes)
    other.close()


def test_one_controller_at_a_time_works_on_a_host(host: FolderHost, transport: RemoteTransport, shell: str) -> None:
    transport.lock(LINEAGE)
    other = RemoteTransport(HOST, host.dial, shell=shell)
    with pytest.raises(StateLocked, match="another controller") as found:
        other.lock("0123")
    assert "M4312" == found.value.code
    assert f"lineage: {LINEAGE}" in found.value.notes
    assert any("process" in note for note in found.value.notes)
    assert not other.has_key("mail", "0" * 64), "to look is allowed"
    transport.close()
    other.lock("0123")
    with pytest.raises(StateLocked, match="another controller"):
        transport.reconnect()
    other.close()
    transport.reconnect()
    again = RemoteTransport(HOST, host.dial, shell=shell)
    with pytest.raises(StateLocked):
        again.lock("0123")
    again.close()


def test_a_lock_is_free_when_its_holder_was_killed(host: FolderHost, transport: RemoteTransport, shell: str) -> None:
    transport.lock(LINEAGE)
    host.channels[0].child.kill()
    host.channels[0].child.wait()
    other = RemoteTransport(HOST, host.dial, shell=shell)
    other.lock(LINEAGE)
    other.close()
    for _ in range(2):
        with refused("M4301", "connection was lost"):
            transport.has_key("mail", "0" * 64)
    transport.reconnect()
    assert not transport.has_key("mail", "0" * 64)


# --- hostile words --------------------------------------------------------------------------------------------------

HOSTILE = (
    "$(touch /tmp/owned)",
    "`touch /tmp/owned`",
    "; touch /tmp/owned;",
    "' ; touch /tmp/owned; '",
    '"; touch /tmp/owned; "',
    "| touch /tmp/owned",
    "\\$(touch /tmp/owned)",
    "${IFS}touch${IFS}/tmp/owned",
    "-rf",
    "--help",
    "../../tmp/owned",
    "/srv/elsewhere",
    "..",
    "*",
    "?",
    "[a-z]",
    "",
    " ",
    "%s%n",
    "a" * 5000,
    "x y z",
    "~root",
    "!!",
)
SHAPES: dict[str, Callable[[str], list[tuple[str, ...]]]] = {
    "claim": lambda bad: [(bad,)],
    "put_key": lambda bad: [(bad, "0" * 64), ("mail", bad)],
    "has_key": lambda bad: [(bad, "0" * 64), ("mail", bad)],
    "expect_key": lambda bad: [(bad, "0" * 64), ("mail", bad)],
    "read_key": lambda bad: [(bad, "0" * 64), ("mail", bad)],
    "delete_keys_except": lambda bad: [(bad,), ("kept", bad)],
    "request_key": lambda bad: [(bad, "ed25519", "x"), ("mail", bad, "x"), ("mail", "ed25519", bad)],
    "sign_with_key": lambda bad: [(bad, "0" * 64), ("mail", bad)],
    "stage": lambda bad: [
        (bad, FIRST, "-", "5"),
        ("mail", bad, "-", "5"),
        ("mail", FIRST, bad, "5"),
        ("mail", FIRST, "-", bad),
        ("mail", FIRST, "-", "5", bad),
        ("mail", FIRST, "-", "5", f"link {bad}"),
        ("mail", FIRST, "-", "5", f"combined {bad}"),
        ("mail", FIRST, "-", "5", f"modern {bad} a b"),
        ("mail", FIRST, "-", "5", f"legacy a b {bad}"),
    ],
    "has_release": lambda bad: [(bad, FIRST), ("mail", bad)],
    "list_release": lambda bad: [(bad, FIRST), ("mail", bad)],
    "read_release": lambda bad: [(bad, FIRST), ("mail", bad)],
    "releases": lambda bad: [(bad,)],
    "delete_releases": lambda bad: [(bad, FIRST), ("kept", bad)],
    "delete_service": lambda bad: [(bad,)],
    "read_pointer": lambda bad: [(bad,), (f"/{bad}",), (f"/etc/{bad}/x",)],
    "switch_file": lambda bad: [(bad, "644"), (f"/etc/{bad}", "644"), (CONF, bad)],
    "switch_current": lambda bad: [(bad, f"releases/{FIRST}"), (CURRENT, bad), (CURRENT, f"releases/{bad}")],
    "remove_pointer": lambda bad: [(bad,), (f"/etc/mtlsctl/{bad}",)],
    "check_node": lambda bad: [(bad,)],
    "sockets": lambda bad: [("nginx", bad), (bad, bad)],
    "reload": lambda bad: [(bad, "nginx", "x"), ("signal-hup", bad, "x"), ("signal-hup", "node", bad)],
}


@pytest.mark.parametrize("verb", SHAPES)
def test_hostile_words_stay_words(host: FolderHost, shell: str, verb: str) -> None:
    """Asked past all that this side refuses by itself: the script has to hold alone."""
    session = open_session(host.dial, "web1", become=False, shell=shell)
    kept = host.root / "etc/mtlsctl/kept/keys"
    kept.mkdir(parents=True)
    for folder, mode in ((kept, 0o700), (kept.parent, 0o750), (kept.parent.parent, 0o755)):
        folder.chmod(mode)
    session.ask(Request(verb="put_key", arguments=("kept", "0" * 64), payload=b"a key"))
    before = files_below(host.root / "etc")
    requests = [
        Request(verb=verb, arguments=arguments, payload=b"a\n\n-x" if verb == "stage" else b"")
        for bad in HOSTILE
        for arguments in SHAPES[verb](bad)
    ]
    answers = session.ask_all(requests)
    assert session.is_open
    after = files_below(host.root / "etc")
    after.pop("mtlsctl/.lineage", None)
    assert before == {name: content for name, content in after.items() if not re.search(r"\[?\*?\?", name)}
    assert not (host.root / "tmp/owned").exists()
    harmless = ("reload", "sockets", "read_pointer", "remove_pointer", "switch_file", "check_node")
    if verb not in harmless:
        assert [] == [
            (request.arguments, answer)
            for request, answer in zip(requests, answers, strict=True)
            if not isinstance(answer, DeliveryError)
        ]
    session.close()


NAMES = st.from_regex(r"[A-Za-z0-9_@+][A-Za-z0-9._@+-]{0,40}", fullmatch=True)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def _nest(paths: dict[str, bytes]) -> bool:
    """Whether a file would be a folder of another, or one of ours."""
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    return bool(folders & paths.keys()) or "tls.key" in paths or any(path.startswith("tls.key/") for path in paths)


@pytest.fixture(scope="module", params=["sh", "bash --posix"], ids=["dash", "bash"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteTransport]:
    need_hosts()
    host = FolderHost(tmp_path_factory.mktemp("shared") / "host")
    host.furnish()
    transport = RemoteTransport(HOST, host.dial, shell=request.param)
    yield transport
    transport.close()
    host.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.dictionaries(PATHS, st.binary(max_size=300), min_size=1, max_size=6),
    mode=st.sampled_from([0o640, 0o644]),
)
def test_what_is_staged_is_read_back_whatever_its_bytes(
    shared: RemoteTransport, contents: dict[str, bytes], mode: int
) -> None:
    if _nest(contents) or any(b"PRIVATE KEY" in one for one in contents.values()):
        return
    files = tuple(StagedFile(path=path, content=content, mode=mode) for path, content in contents.items())
    shared.delete_releases("mail", [FIRST])
    shared.stage(StagedRelease(service="mail", release=FIRST, key_spki_sha256=None, files=files))
    expected = {path: HeldFile.of(content, mode) for path, content in contents.items()}
    assert expected == shared.read_release("mail", FIRST)
    content = b"".join(contents.values())
    shared.switch(FilePointer(path=CONF, content=content))
    assert FilePointer(path=CONF, content=content) == shared.read_pointer(CONF)


def test_what_holds_a_key_under_another_name_is_kept_back(host: FolderHost, transport: RemoteTransport) -> None:
    key = generate_key(KeyAlgorithm.ED25519)
    transport.stage(release())
    folder = host.root / "etc/mtlsctl/mail/releases" / FIRST
    (folder / "notes.txt").write_bytes(b"see:\n" + private_pem(key).reveal())
    (folder / "a b").write_bytes(b"a name that is none of ours")
    (folder / "line\nbreak").write_bytes(b"nor this")
    held = transport.read_release("mail", FIRST)
    assert (None, spki_sha256(key.public_key())) == (held["notes.txt"].content, held["notes.txt"].spki_sha256)
    assert held["a b"].content is None
    assert b"certificate" == held["tls.crt"].content
    listed = transport.observe(pointers=[], releases=[("mail", FIRST), ("mail", SECOND)], keys=[]).releases
    assert listed["mail", SECOND] is None
    assert {"notes.txt", "tls.crt", "a b"} < {fact.path for fact in listed["mail", FIRST] or ()}
    transport.stage(release())
    assert {"tls.crt", "clients/main.pem", "nginx.conf"} == transport.read_release("mail", FIRST).keys()


# --- what a kill leaves behind --------------------------------------------------------------------------------------


def _killed_at(host: FolderHost, seconds: float, step: Callable[[], None]) -> bool:
    """Do it and kill all of the host's session after so long; whether it was over before."""
    session = host.channels[-1].child.pid

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        step()
    except DeliveryError:
        return False
    finally:
        timer.join()
    return True


def test_a_kill_leaves_whole_releases_and_partial_ones_and_the_next_stage_works(
    host: FolderHost, transport: RemoteTransport
) -> None:
    transport.claim(LINEAGE)
    key = generate_key(KeyAlgorithm.ECDSA_P256)
    spki = spki_sha256(key.public_key())
    transport.put_key("mail", spki, private_pem(key))
    began = time.monotonic()
    transport.stage(release("f" * 16, spki=spki))
    whole = transport.read_release("mail", "f" * 16)
    took = time.monotonic() - began
    folder = host.root / "etc/mtlsctl/mail/releases"
    outcomes = set()
    for turn in range(25):
        name = f"{turn:016x}"
        outcomes.add(_killed_at(host, took * turn / 16, partial(transport.stage, release(name, spki=spki))))
        found = set(names_in(folder))
        assert all(re.fullmatch(r"[0-9a-f]{16}(\.partial)?", one) for one in found)
        transport.reconnect()
        for one in found:
            if not one.endswith(".partial"):
                assert whole == transport.read_release("mail", one), turn
        transport.stage(release(name, spki=spki))
        assert whole == transport.read_release("mail", name)
        transport.delete_releases("mail", [name])
        assert ["f" * 16] == names_in(folder)
    assert {True, False} == outcomes


def test_a_kill_leaves_the_old_pointer_or_the_new_one(host: FolderHost, transport: RemoteTransport) -> None:
    contents = [bytes([65 + n]) * 100_000 for n in range(2)]
    transport.switch(FilePointer(path=CONF, content=contents[0]))
    began = time.monotonic()
    transport.switch(FilePointer(path=CONF, content=contents[0]))
    took = time.monotonic() - began
    seen = set()
    for turn in range(24):
        wanted = contents[turn % 2]
        done = _killed_at(host, took * turn / 16, partial(transport.switch, FilePointer(path=CONF, content=wanted)))
        seen.add(done)
        now = (host.root / CONF[1:]).read_bytes()
        assert now in contents
        assert not done or now == wanted
        assert {*names_in((host.root / CONF[1:]).parent)} <= {"mtlsctl.conf", ".mtlsctl.conf.partial"}
        transport.reconnect()
        transport.switch(FilePointer(path=CONF, content=wanted))
        assert ["mtlsctl.conf"] == names_in((host.root / CONF[1:]).parent)
    assert {True, False} == seen


def test_a_request_that_is_cut_short_changes_nothing(host: FolderHost, transport: RemoteTransport) -> None:
    transport.switch(FilePointer(path=CONF, content=b"old"))
    for verb, arguments in (("switch_file", (CONF, "644")), ("put_key", ("mail", "0" * 64))):
        channel = host.dial(command(become=False))
        session = open_session(lambda _, channel=channel: channel, "web1", become=False)
        request = Request(verb=verb, arguments=arguments, payload=b"new" * 100)
        channel.send(request.encode()[:-50], deadline=time.monotonic() + 5)
        session.close()
    assert (b"old", ["mtlsctl.conf"]) == (
        (host.root / CONF[1:]).read_bytes(),
        names_in((host.root / CONF[1:]).parent),
    )
    assert [] == names_in(host.root / "etc/mtlsctl/mail/keys")


# --- servers --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def running(host: FolderHost, command: str, pid_file: str) -> Iterator[int]:
    """A server in the host, ended at the end."""
    child = subprocess.Popen(host.argv(f"exec {command}"), stdin=subprocess.DEVNULL, start_new_session=True)
    path = host.root / pid_file.lstrip("/")
    deadline = time.monotonic() + 20
    try:
        while not (path.exists() and path.read_text().strip()):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield int(path.read_text())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def page(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        wire.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := wire.recv(4096):
            answer += data
        return answer.rpartition(b"\r\n\r\n")[2]


def nginx_says(port: int, text: str) -> FilePointer:
    content = f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 {text}; }} }}\n"
    return FilePointer(path=CONF, content=content.encode())


def furnish_nginx(host: FolderHost) -> None:
    for folder in ("etc/nginx/conf.d", "var/log/nginx", "var/lib/nginx"):
        (host.root / folder).mkdir(parents=True, exist_ok=True)
    (host.root / "etc/nginx/nginx.conf").write_text(
        "user root; pid /run/nginx.pid; worker_processes 2; events {}\n"
        "http { access_log off; include /etc/nginx/conf.d/*.conf; }\n"
    )


@pytest.mark.peer("nginx")
def test_nginx_is_checked_switched_and_reloaded_and_serves_the_new_at_once(
    host: FolderHost, transport: RemoteTransport
) -> None:
    furnish_nginx(host)
    port = free_port()
    transport.switch(nginx_says(port, "one"))
    with running(host, "nginx -g 'daemon off;'", "/run/nginx.pid"):
        for text in ("two", "three", "four"):
            assert transport.check(Check.NGINX_TEST, nginx_says(port, text)) is None
            transport.switch(nginx_says(port, text))
            assert transport.reload(Reload.SIGNAL_HUP_MASTER, program="nginx", process="nginx") is None
            assert {text.encode()} == {page(port) for _ in range(20)}
        with refused("M4201", "nginx -t"):
            transport.check(Check.NGINX_TEST, FilePointer(path=CONF, content=b"no_directive;\n"))
        assert [] == [one for one in names_in(host.root / "etc/mtlsctl") if one.startswith(".check")]

        # Another's default server at our port shows only in the whole configuration.
        (host.root / "etc/nginx/conf.d/other.conf").write_text(
            f"server {{ listen 127.0.0.1:{port} default_server; }}\n" * 2
        )
        with pytest.raises(DeliveryError, match="would refuse") as found:
            transport.reload(Reload.SIGNAL_HUP_MASTER, program="nginx", process="nginx")
        assert "M4203" == found.value.code
        assert any("duplicate default server" in note for note in found.value.notes)
        assert b"four" == page(port)


@pytest.mark.peer("nginx")
def test_an_nginx_that_does_not_run_is_said_not_to(host: FolderHost, transport: RemoteTransport) -> None:
    furnish_nginx(host)
    said = transport.reload(Reload.SIGNAL_HUP_MASTER, program="nginx", process="nginx")
    assert "nginx is not running" in str(said)
    (host.root / "run/nginx.pid").write_text("4194300\n")
    assert "has ended" in str(transport.reload(Reload.SIGNAL_HUP_MASTER, program="nginx", process="nginx"))


@pytest.mark.parametrize("content", ["", "1", "-1", "0", "$(id)", "12 34", "99999999999", "x"])
def test_a_pid_file_that_holds_no_number_leads_nowhere(
    host: FolderHost, transport: RemoteTransport, content: str
) -> None:
    (host.root / "run/mail.pid").write_text(content)
    with refused("M4202", "does not hold a process number"):
        transport.reload(Reload.SIGNAL_HUP, program="node", process="mail")


def test_a_process_of_another_program_is_not_signalled(host: FolderHost, transport: RemoteTransport) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (host.root / "run/mail.pid").write_text(f"{other.pid}\n")
        with refused("M4202", "is sleep, not node"):
            transport.reload(Reload.SIGNAL_HUP, program="node", process="mail")
        with refused("M4202", "no handler for SIGHUP"):
            transport.reload(Reload.SIGNAL_HUP, program="sleep", process="mail")
        assert other.poll() is None
        other.kill()


@pytest.mark.peer("node")
def test_a_node_program_is_checked_and_hung_up(host: FolderHost, transport: RemoteTransport) -> None:
    (host.root / "app.js").write_text(
        "const fs = require('fs');"
        "process.on('SIGHUP', () => fs.appendFileSync('/run/hups', 'x'));"
        "setInterval(() => {}, 1000); fs.writeFileSync('/run/mail.pid', `${process.pid}\\n`);"
    )
    good = replace(release(), files=(StagedFile(path="mtls.cjs", content=b"module.exports = 1;\n"),))
    transport.stage(good)
    pointer = CurrentPointer(path=CURRENT, target=f"releases/{FIRST}")
    assert transport.check(Check.NODE_CHECK, pointer) is None
    transport.switch(pointer)
    bad = replace(good, release=SECOND, files=(StagedFile(path="mtls.cjs", content=b"module exports\n"),))
    transport.stage(bad)
    with refused("M4201", "node --check"):
        transport.check(Check.NODE_CHECK, replace(pointer, target=f"releases/{SECOND}"))
    with running(host, "node /app.js", "/run/mail.pid"):
        assert transport.reload(Reload.SIGNAL_HUP, program="node", process="mail") is None
        assert transport.reload(Reload.WATCH, program="node", process="mail") is None
        deadline = time.monotonic() + 5
        while not (host.root / "run/hups").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert "has ended" in str(transport.reload(Reload.SIGNAL_HUP, program="node", process="mail"))


APACHE_CONF = "/etc/apache2/conf-enabled/mtlsctl.conf"


def apache_says(port: int, text: str) -> FilePointer:
    content = f'Listen "127.0.0.1:{port}"\n<VirtualHost 127.0.0.1:{port}>\nDocumentRoot "/srv/{text}"\n</VirtualHost>\n'
    return FilePointer(path=APACHE_CONF, content=content.encode())


def furnish_apache(host: FolderHost) -> None:
    for folder in ("etc/apache2/conf-enabled", "run/apache2", "var/log/apache2"):
        (host.root / folder).mkdir(parents=True, exist_ok=True)
    for text in ("one", "two", "three"):
        (host.root / "srv" / text).mkdir(parents=True)
        (host.root / "srv" / text / "index.html").write_text(text)
    modules = "/usr/lib/apache2/modules"
    names = ("mpm_event", "authn_core", "authz_core", "dir", "alias", "headers", "ssl", "socache_shmcb", "mime")
    loads = "".join(
        f"LoadModule {name}_module {modules}/mod_{name}.so\n"
        for name in names
        if Path(modules, f"mod_{name}.so").is_file()
    )
    (host.root / "etc/apache2/apache2.conf").write_text(
        "ServerRoot /etc/apache2\nServerName localhost\nPidFile ${APACHE_RUN_DIR}/apache2.pid\n"
        f"ErrorLog /var/log/apache2/error.log\n{loads}TypesConfig /dev/null\n"
        "User www-data\nGroup www-data\nDirectoryIndex index.html\n<Directory />\nRequire all granted\n</Directory>\n"
        "IncludeOptional conf-enabled/*.conf\n"
    )


@pytest.mark.peer("apache2")
def test_apache_is_tried_switched_and_reloaded_and_serves_the_new_at_once(
    host: FolderHost, transport: RemoteTransport
) -> None:
    furnish_apache(host)
    port = free_port()
    transport.switch(apache_says(port, "one"))
    start = "env APACHE_RUN_DIR=/run/apache2 apache2 -DFOREGROUND"
    with running(host, start, "/run/apache2/apache2.pid") as pid:
        for text in ("two", "three"):
            assert transport.check(Check.APACHE_TEST, apache_says(port, text)) is None
            transport.switch(apache_says(port, text))
            assert transport.reload(Reload.SIGNAL_USR1, program="apache2", process="apache2") is None
            assert {text.encode()} == {page(port) for _ in range(20)}
        with refused("M4201", "apache2 -t"):
            transport.check(Check.APACHE_TEST, FilePointer(path=APACHE_CONF, content=b"NoDirective\n"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = int(taken.getsockname()[1])
            with pytest.raises(DeliveryError, match="could not listen") as found:
                transport.check(Check.APACHE_TEST, apache_says(other, "two"))
        assert ("M4201", (f"port {other} at 127.0.0.1 is already open",)) == (found.value.code, found.value.notes)
        away = FilePointer(path=APACHE_CONF, content=b'Listen "203.0.113.7:4711"\n')
        with pytest.raises(DeliveryError, match="could not listen") as found:
            transport.check(Check.APACHE_TEST, away)
        assert found.value.notes == ("203.0.113.7 is not an address of that machine",)

        # A module that is gone would end it at a graceful restart: it is not told to.
        (host.root / "etc/apache2/conf-enabled/other.conf").write_text("LoadModule no_module /nowhere.so\n")
        with refused("M4203", "would refuse"):
            transport.reload(Reload.SIGNAL_USR1, program="apache2", process="apache2")
        assert b"three" == page(port)
        os.kill(pid, 0)
    assert [] == [one for one in names_in(host.root / "etc/mtlsctl") if one.startswith(".check")]


# --- the look at a host ---------------------------------------------------------------------------------------------


def test_a_look_before_a_plan_is_one_round_trip(host: FolderHost, transport: RemoteTransport) -> None:
    transport.stage(release())
    transport.switch(CurrentPointer(path=CURRENT, target=f"releases/{FIRST}"))
    transport.switch(FilePointer(path=CONF, content=b"x"))
    before = host.channels[0].turns
    found = transport.observe(
        pointers=[CURRENT, CONF, "/etc/absent"],
        releases=[("mail", FIRST)] * 1 + [("social", SECOND)],
        keys=[("mail", f"{n:064x}") for n in range(150)],
    )
    assert 1 == host.channels[0].turns - before
    assert FilePointer(path=CONF, content=b"x") == found.pointers[CONF]
    assert CurrentPointer(path=CURRENT, target=f"releases/{FIRST}") == found.pointers[CURRENT]
    assert found.pointers["/etc/absent"] is None
    assert (150, {False}) == (len(found.keys), set(found.keys.values()))
    held = transport.read_release("mail", FIRST)
    assert [(fact.path, fact.sha256, fact.mode) for fact in found.releases["mail", FIRST] or ()] == [
        (path, one.sha256, one.mode) for path, one in sorted(held.items())
    ]


def test_facts_are_typed_and_the_clock_is_compared(host: FolderHost, transport: RemoteTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        facts = transport.facts()
        assert ("127.0.0.1", listening.getsockname()[1]) in facts.places
    assert 0 == facts.uid
    assert facts.clock_off is not None
    assert abs(facts.clock_off) <= facts.round_trip
    assert dict(facts.tools)["openssl"].startswith("OpenSSL ")
    assert facts.free_bytes is not None
    assert facts.kernel.startswith("Linux ")
