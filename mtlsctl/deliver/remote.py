"""A host that is reached over SSH: every verb is one round trip to `host.sh`, which runs there."""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import io
import os
import re
import socket
import tarfile
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, assert_never

from mtlsctl.deliver import apache, places, tree
from mtlsctl.deliver.facts import parse_facts
from mtlsctl.deliver.holder import drop_mark, has_ended, take_mark
from mtlsctl.deliver.layout import CurrentPointer, FilePointer, Observed
from mtlsctl.deliver.process import Ran, is_only_bind_refused, raise_unless_good, shown_lines
from mtlsctl.deliver.session import Request, open_session
from mtlsctl.errors import DeliveryError, StateLocked
from mtlsctl.failpoints import reach
from mtlsctl.model.diagnostic import printable
from mtlsctl.model.files import KEY_FILE, RELEASE_NAME, SECRET_MODE
from mtlsctl.model.identifiers import LABEL
from mtlsctl.model.release import FileFact, HeldFile
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import KeyOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mtlsctl.deliver.channel import Dialler
    from mtlsctl.deliver.facts import HostFacts
    from mtlsctl.deliver.layout import Pointer, StagedRelease
    from mtlsctl.deliver.session import Answer, Session
    from mtlsctl.model.topology import KeyAlgorithm, SshHost

RELEASE_LIMIT = 16 * 1024 * 1024
"""Bytes of a release that is read back."""

CHECK_SECONDS = 45.0
APACHE_SECONDS = 120.0
RELOAD_SECONDS = 60.0
KEY_SECONDS = 120.0
"""An RSA key of 4,096 bits takes a slow machine long."""

_NODE_MODULE = "mtls.cjs"
_STOPPED = frozenset({124, 137})
_SPKI = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9._@+][A-Za-z0-9._@+-]*(/[A-Za-z0-9._@+][A-Za-z0-9._@+-]*)*")
"""What host.sh takes for a path below a folder, but for `.` and `..`."""
_PATH_LIMIT = 255
_ENTRY = re.compile(r"([a-zA-Z?]) ([0-7]{1,5}) ([0-9]{1,12}) (.{1,4096})")
_ENTRY_LIMIT = 2001
"""Entries of a listing: one more than host.sh lets pass. A host that does not run it may say any number."""
_DIGEST = re.compile(r"([0-9a-f]{64})  \./(.+)")
_HALF = re.compile(r"([0-9a-f]{64}|-) (.+)")
_MODE = re.compile(r"[0-7]{3,4}")
_FILE = re.compile(r"file ([0-7]{3,4})")
_STATUS = re.compile(r"(test|start|modules) ([0-9]{1,3})")
_EXIT = re.compile(r"[0-9]{1,3}")
_UNKNOWN = "0" * 64
LOCKED = "M4312"
_HOLDER_LINES = 5
_SHELL = re.compile(r"[1-9][0-9]{0,9}:[0-9]{1,20}")
_NOBODY = "-"


class RemoteTransport:
    """A host over SSH; see `Transport` for what holds.

    It dials at the first verb. Once the connection is lost, or was never had, every verb raises the same again until
    `reconnect`: a verb whose answer did not come may have been done, and only a look at the host tells.
    """

    def __init__(self, host: SshHost, dial: Dialler, *, shell: str = "sh") -> None:
        self._host = host
        self._dial = dial
        self._shell = shell
        self._session: Session | None = None
        self._failure: DeliveryError | None = None
        self._lineage: str | None = None
        self._mark: str | None = None

    @property
    def keeper(self) -> RemoteTransport | None:
        """See `Transport.keeper`."""
        return self if self._host.keys is KeyOrigin.HOST else None

    # the connection

    def _connected(self) -> Session:
        if self._failure is not None:
            known = self._failure
            raise DeliveryError(known.message, code=known.code, notes=known.notes, help=known.help)
        if self._session is None:
            try:
                self._session = open_session(
                    self._dial,
                    self._host.name,
                    become=self._host.become,
                    keeps_keys=self._host.keys is KeyOrigin.HOST,
                    shell=self._shell,
                )
            except DeliveryError as error:
                self._failure = error
                raise
        return self._session

    def _ask(self, verb: str, *arguments: str, payload: bytes = b"", seconds: float | None = None) -> Answer:
        (answer,) = self._ask_all([_request(verb, *arguments, payload=payload, seconds=seconds)])
        return answer

    def _ask_all(self, requests: Sequence[Request]) -> list[Answer]:
        session = self._connected()
        try:
            answers = session.ask_all(requests)
        finally:
            if not session.is_open:
                self._failure = DeliveryError(
                    f"{self._host.name}: the connection was lost",
                    code="M4301",
                    help="run the same command again: what was under way there is settled by looking",
                )
        for answer in answers:
            if isinstance(answer, DeliveryError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, DeliveryError)]

    def reconnect(self) -> None:
        """Dial anew after a lost connection, and take the lock again if it was held; raises as the first verb does."""
        self.close()
        self._failure = None
        self._connected()
        if self._lineage is not None:
            self.lock(self._lineage)

    def close(self) -> None:
        """End the connection, and with it the lock."""
        self._drop_lock()
        if self._session is not None:
            self._session.close()
            self._session = None

    # whose host it is

    def shown(self, path: str) -> str:
        """See `Transport.shown`."""
        return f"{self._host.name}:{path}"

    def claim(self, lineage: str) -> None:
        """See `Transport.claim`."""
        self._ask("claim", lineage)

    def lock(self, lineage: str) -> None:
        """See `Transport.lock`: a lock of the operating system there, so it ends with the connection at the latest."""
        self._ask_with_lock(lineage, [])

    def _ask_with_lock(self, lineage: str, requests: Sequence[Request]) -> list[Answer]:
        """Take the lock and ask, in one round trip: what is asked changes nothing."""
        self._drop_lock()
        self._mark = take_mark()
        words = (lineage, _holder(), datetime.now(UTC).isoformat(timespec="seconds"), self._mark)
        try:
            _, *answers = self._ask_all([_request("lock", *words, _NOBODY), *requests])
        except DeliveryError as error:
            if error.code != LOCKED:
                raise
            try:
                _, *answers = self._ask_all([_request("lock", *words, self._left_behind(lineage)), *requests])
            except DeliveryError as again:
                if again.code != LOCKED:
                    raise
                raise StateLocked(error.message, code=error.code, notes=error.notes, help=error.help) from None
        self._lineage = lineage
        return answers

    def _left_behind(self, lineage: str) -> str:
        """The shell there that holds the lock for a run of this machine that has ended, as host.sh calls it."""
        lines = _text(_frames(self._ask("holder"), 1)[0]).splitlines()
        if len(lines) != _HOLDER_LINES or lines[0] != lineage or not has_ended(lines[3]):
            return _NOBODY
        return lines[4] if _SHELL.fullmatch(lines[4]) else _NOBODY

    def _drop_lock(self) -> None:
        if self._mark is not None:
            drop_mark(self._mark)
            self._mark = None

    def facts(self) -> HostFacts:
        """What the host says of itself: for people, and for the checks of `hosts check`."""
        self._connected()
        asked = datetime.now(UTC)
        text, sockets = _frames(self._ask("facts", seconds=CHECK_SECONDS), 2)
        return parse_facts(text, sockets, asked=asked, heard=datetime.now(UTC))

    # keys

    def put_key(self, service: str, spki_sha256: str, key: Secret) -> None:
        """See `Transport.put_key`."""
        self._ask("put_key", *_key(service, spki_sha256), payload=key.reveal())

    def has_key(self, service: str, spki_sha256: str) -> bool:
        """See `Transport.has_key`."""
        return _is_yes(self._ask("has_key", *_key(service, spki_sha256)))

    def expect_key(self, service: str, spki_sha256: str) -> bool:
        """See `Transport.expect_key`."""
        return _is_yes(self._ask("expect_key", *_key(service, spki_sha256)))

    def read_key(self, service: str, spki_sha256: str) -> Secret:
        """See `Transport.read_key`; raises DeliveryError M4315 on a host that keeps its keys."""
        return Secret(_decoded(_frames(self._ask("read_key", *_key(service, spki_sha256)), 1)[0]))

    def request_key(self, service: str, algorithm: KeyAlgorithm, common_name: str) -> bytes:
        """DER of a certificate request (PKCS#10, RFC 2986) whose key was made there and is kept there, 0600.

        Raises DeliveryError M4101 when openssl there cannot make such a key.
        """
        answer = self._ask("request_key", _service(service), algorithm.value, common_name, seconds=KEY_SECONDS)
        return _decoded(_frames(answer, 1)[0])

    def sign_with_key(self, service: str, spki_sha256: str, to_be_signed: bytes) -> bytes:
        """The signature value of a certificate (RFC 5280 section 4.1.1.3) by a key that is there.

        ECDSA and RSA (PKCS #1 v1.5) with SHA-256, or Ed25519. Raises DeliveryError M4103 when the key is gone, M4308
        when openssl there is too old for Ed25519.
        """
        answer = self._ask("sign_with_key", *_key(service, spki_sha256), payload=to_be_signed)
        return _decoded(_frames(answer, 1)[0])

    def borrow_key(self, path: str) -> HeldFile:
        """See `Transport.borrow_key`; the host compares nothing itself, it says which public half the key has."""
        digest, mode, public_half = map(_text, _frames(self._ask("borrow_key", _path(path)), 3))
        if not all(map(_SPKI.fullmatch, (digest, public_half))) or _MODE.fullmatch(mode) is None:
            raise _nonsense()
        return HeldFile(mode=int(mode, 8), sha256=digest, content=None, spki_sha256=public_half)

    def delete_keys_except(self, service: str, keep: Sequence[str]) -> None:
        """See `Transport.delete_keys_except`."""
        self._ask("delete_keys_except", _service(service), *(_key(service, spki)[1] for spki in keep))

    # releases

    def stage(self, release: StagedRelease) -> None:
        """See `Transport.stage`; combined files and key stores are made there, of the key that is there."""
        self._ask_all([_staging(release)])
        reach("stage.renamed")

    def stage_and_read(self, releases: Sequence[StagedRelease]) -> list[dict[str, HeldFile]]:
        """See `Transport.stage_and_read`: in one round trip."""
        readings = [_reading(one.service, one.release) for one in releases]
        answers = self._ask_all([*(_staging(one) for one in releases), *readings])
        for _ in releases:
            reach("stage.renamed")
        read = zip(releases, answers[len(releases) :], strict=True)
        return [self._read(one.service, one.release, answer) for one, answer in read]

    def read_release(self, service: str, release: str) -> dict[str, HeldFile]:
        """See `Transport.read_release`; what holds a private key comes without its bytes."""
        (answer,) = self._ask_all([_reading(service, release)])
        return self._read(service, release, answer)

    def _read(self, service: str, release: str, answer: Answer) -> dict[str, HeldFile]:
        entries, digests, halves, content = _frames(answer, 4)
        try:
            return dict(_held(_text(entries), _digests(_text(digests)), _halves(_text(halves)), content))
        except ValueError as error:
            raise DeliveryError(
                f"{self._host.name}: cannot read {PurePosixPath('releases', release)} of {service}: {error}",
                code="M4101",
            ) from None

    def carry(self, service: str, to: str, *, release: str | None, keys: Sequence[str]) -> None:
        """See `Transport.carry`."""
        if release is not None:
            _release(service, release)
        spkis = [_key(service, spki)[1] for spki in keys]
        self._ask("carry", _service(service), _service(to), release or "-", *spkis)
        reach("carry.linked")

    def has_release(self, service: str, release: str) -> bool:
        """See `Transport.has_release`."""
        return _is_yes(self._ask("has_release", *_release(service, release)))

    def releases(self, service: str) -> Sequence[str]:
        """See `Transport.releases`; the age is that of the folder's last new entry."""
        answer = self._ask("releases", _service(service))
        found = [line.split(" ", 1) for line in _text(b"".join(answer)).splitlines()]
        ages = {one[1]: _age(one[0]) for one in found if len(one) > 1 and RELEASE_NAME.fullmatch(one[1])}
        return tuple(sorted(ages, key=lambda name: (ages[name], name)))

    def delete_releases(self, service: str, releases: Sequence[str]) -> None:
        """See `Transport.delete_releases`."""
        self._ask("delete_releases", _service(service), *(_release(service, one)[1] for one in releases))

    def delete_service(self, service: str) -> None:
        """See `Transport.delete_service`."""
        self._ask("delete_service", _service(service))

    def observe(
        self,
        *,
        pointers: Sequence[str],
        releases: Sequence[tuple[str, str]],
        keys: Sequence[tuple[str, str]],
        lock_for: str | None = None,
    ) -> Observed:
        """See `Transport.observe`: in one round trip, with the lock."""
        requests = [
            *(_request("read_pointer", _path(path)) for path in pointers),
            *(_request("list_release", *_release(*one)) for one in releases),
            *(_request("has_key", *_key(*one)) for one in keys),
        ]
        answers = iter(self._ask_all(requests) if lock_for is None else self._ask_with_lock(lock_for, requests))
        return Observed(
            pointers={path: _pointer(path, next(answers)) for path in pointers},
            releases={one: _listed(next(answers)) for one in releases},
            keys={one: _is_yes(next(answers)) for one in keys},
        )

    # the pointer

    def read_pointer(self, path: str) -> Pointer | None:
        """See `Transport.read_pointer`."""
        return _pointer(path, self._ask("read_pointer", _path(path)))

    def switch(self, pointer: Pointer) -> None:
        """See `Transport.switch`."""
        match pointer:
            case FilePointer():
                self._ask("switch_file", _path(pointer.path), f"{pointer.mode:o}", payload=pointer.content)
            case CurrentPointer():
                self._ask("switch_current", _path(pointer.path), pointer.target)
            case _:
                assert_never(pointer)
        reach("switch.renamed")

    def remove_pointer(self, path: str) -> None:
        """See `Transport.remove_pointer`."""
        self._ask("remove_pointer", _path(path))
        reach("switch.renamed")

    # checks and reloads

    def check(self, check: Check, pointer: Pointer) -> str | None:
        """See `Transport.check`; the programs are those of the host."""
        match check:
            case Check.NONE:
                return None
            case Check.NGINX_TEST:
                return self._nginx_test(pointer)
            case Check.NODE_CHECK:
                return self._node_check(pointer)
            case Check.APACHE_TEST:
                return self._apache_test(pointer)
            case _:
                assert_never(check)

    def _nginx_test(self, pointer: Pointer) -> str | None:
        if not isinstance(pointer, FilePointer):
            raise DeliveryError(f"{pointer.path} is not a file that nginx includes", code="M4102")
        ran = _ran(self._ask("check_nginx", payload=pointer.content, seconds=CHECK_SECONDS))
        if ran is None:
            return f"nginx is not installed on {self._host.name}: `nginx -t` was not run"
        if ran[1].status != 0 and ran[1].stopped is None and is_only_bind_refused(ran[1].output):
            return f"nginx read it all, but cannot bind there: {shown_lines(ran[1].output)[-1]}"
        raise_unless_good(ran[1], "nginx -t")
        return None

    def _node_check(self, pointer: Pointer) -> str | None:
        if not isinstance(pointer, CurrentPointer):
            raise DeliveryError(f"{pointer.path} is not a symlink to a release", code="M4102")
        module = PurePosixPath(pointer.path).parent / pointer.target / _NODE_MODULE
        ran = _ran(self._ask("check_node", _path(str(module)), seconds=CHECK_SECONDS))
        if ran is None:
            return f"node is not installed on {self._host.name}: `node --check` was not run"
        raise_unless_good(ran[1], "node --check")
        return None

    def _apache_test(self, pointer: Pointer) -> str | None:
        if not isinstance(pointer, FilePointer):
            raise DeliveryError(f"{pointer.path} is not a file that Apache includes", code="M4102")
        program = apache.PROGRAMS[0]
        now, sockets, tried = self._ask_all(
            [
                _request("read_pointer", _path(pointer.path)),
                _request("sockets", program, program),
                _request("check_apache", payload=apache.without_listen(pointer.content), seconds=APACHE_SECONDS),
            ]
        )
        ran = _ran(tried)
        if ran is None:
            return f"Apache is not installed on {self._host.name}: `apache2 -t` was not run"
        self._refuse_taken(_pointer(pointer.path, now), pointer, sockets)
        step, result = ran
        if step == "modules":
            return f"the modules of Apache were not found on {self._host.name}: it was not tried"
        if step == "start" and result.status != 0 and apache.is_only_unbound(result.output):
            return "apache2 read it all, but could not bind a port of 127.0.0.1 to be tried at"
        raise_unless_good(result, "apache2 -t" if step == "test" else "apache2")
        return None

    def _refuse_taken(self, now: Pointer | None, pointer: FilePointer, sockets: Answer) -> None:
        """As `apache.refuse_taken`, by what the host says of its sockets: they are not tried from here."""
        listening, held, addresses, kernel = map(_text, _frames(sockets, 4))
        found = list(places.listening(listening, places.byte_order(kernel)))
        inodes = frozenset(held.split())
        own = frozenset(place for inode, place in found if inode in inodes)
        if isinstance(now, FilePointer):
            own |= apache.places_of(now.content)
        taken = frozenset(place for _, place in found)
        problems = [
            problem
            for place in sorted(apache.places_of(pointer.content) - own, key=str)
            if (problem := places.problem(place, taken, places.own_addresses(addresses))) is not None
        ]
        if problems:
            raise apache.could_not_listen(problems)

    def reload(self, reload: Reload, *, program: str, process: str) -> str | None:
        """See `Transport.reload`; how a process without workers took it up shows on the wire only."""
        if reload is Reload.NONE:
            return None
        if reload is Reload.RESTART:
            return f"{process} goes on with what it has read until you restart it"
        answer = self._ask("reload", reload.value, program, _service(process), seconds=RELOAD_SECONDS)
        return " ".join(shown_lines(b"".join(answer))) or None

    def call(
        self,
        service: str,
        release: str,
        *,
        anchors: str | bytes,
        address: str,
        port: int,
        server_name: str,
        protocol: str,
    ) -> tuple[int, bytes, str]:
        """One GET as the service makes it, with the key of that release: how openssl ended, what it read and said.

        `anchors` are a file of the release, or PEM that it believes this once. A status of 124 or 137 is a deadline.
        """
        answer = self._ask(
            "call",
            *_release(service, release),
            anchors if isinstance(anchors, str) else "-",
            address,
            str(port),
            server_name,
            protocol,
            payload=b"" if isinstance(anchors, str) else anchors,
            seconds=CHECK_SECONDS,
        )
        status, read, said = _frames(answer, 3)
        ended = _EXIT.fullmatch(_text(status))
        if ended is None:
            raise _nonsense()
        return int(ended[0]), _decoded(read), _text(said)


def _holder() -> str:
    """Who works there, for whoever finds the lock taken."""
    name = f"{getpass.getuser()}@{socket.gethostname()}"
    shown = name if name.isascii() and name.isprintable() else ascii(name)
    return f"{shown}, process {os.getpid()}"


# --- what is asked --------------------------------------------------------------------------------------------------


def _request(
    verb: str, *arguments: str, payload: bytes = b"", seconds: float | None = None, limit: int | None = None
) -> Request:
    made = Request(verb=verb, arguments=arguments, payload=payload)
    return Request(
        verb=verb,
        arguments=arguments,
        payload=payload,
        seconds=made.seconds if seconds is None else seconds,
        limit=made.limit if limit is None else limit,
    )


def _service(service: str) -> str:
    if LABEL.fullmatch(service) is None:
        raise DeliveryError(f"{service!r} is not a service's name", code="M4102")
    return service


def _release(service: str, release: str) -> tuple[str, str]:
    if LABEL.fullmatch(service) is None or RELEASE_NAME.fullmatch(release) is None:
        raise DeliveryError(f"{service!r}, {release!r} do not name a release", code="M4102")
    return service, release


def _key(service: str, spki_sha256: str) -> tuple[str, str]:
    if LABEL.fullmatch(service) is None or _SPKI.fullmatch(spki_sha256) is None:
        raise DeliveryError(f"{service!r}, {spki_sha256!r} do not name a key", code="M4102")
    return service, spki_sha256


def _path(path: str) -> str:
    if not tree.components(path) or not _is_path(path[1:]):
        raise DeliveryError(f"{path!r} does not name a file", code="M4102")
    return path


def _is_path(path: str) -> bool:
    plain = all(tree.is_plain_name(name) for name in path.split("/"))
    return plain and len(path) <= _PATH_LIMIT and _PATH.fullmatch(path) is not None


def _reading(service: str, release: str) -> Request:
    return _request("read_release", *_release(service, release), limit=RELEASE_LIMIT)


def _staging(release: StagedRelease) -> Request:
    arguments, payload = _staged(release)
    return _request("stage", *arguments, payload=payload, seconds=CHECK_SECONDS)


def _staged(release: StagedRelease) -> tuple[tuple[str, ...], bytes]:
    """The arguments and the payload of `stage`: two lists (see host.sh) and a tar of what is sent."""
    _release(release.service, release.release)
    if release.key_spki_sha256 is not None:
        _key(release.service, release.key_spki_sha256)
    made = () if release.key_spki_sha256 is None else (*release.combined, *(one.path for one in release.key_stores))
    files = {file.path: file for file in release.files}
    for path in (*files, *made):
        if path == KEY_FILE or not _is_path(path):
            raise DeliveryError(f"{path!r} is not the name of a public file of a release", code="M4102")
    listing = {path: file.mode for path, file in files.items()} | dict.fromkeys(made, SECRET_MODE)
    if len(listing) != len(release.files) + len(made):
        raise DeliveryError(f"a file of release {release.release} is there twice", code="M4102")
    if release.key_spki_sha256 is not None:
        listing[KEY_FILE] = SECRET_MODE
    lines = "\n".join(sorted(f"{path} f {mode:o}" for path, mode in listing.items()))
    sums = "\n".join(f"{hashlib.sha256(one.content).hexdigest()}  ./{path}" for path, one in files.items())
    lists = f"{lines}\n\n{sums or '-'}".encode("ascii")
    orders = [f"link {name}" for name in release.links]
    if made:
        orders += [f"combined {path}" for path in release.combined]
        orders += [
            f"{'legacy' if one.is_legacy else 'modern'} {one.alias} {one.password_file} {one.path}"
            for one in release.key_stores
        ]
    key = release.key_spki_sha256 or "-"
    return (release.service, release.release, key, str(len(lists)), *orders), lists + _tar(release, listing)


def _tar(release: StagedRelease, paths: Mapping[str, int]) -> bytes:
    """The files that are sent, each with its mode, and every folder before what lies in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for folder in sorted({str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o750
            archive.addfile(member)
        for file in release.files:
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = len(file.content), file.mode
            archive.addfile(member, io.BytesIO(file.content))
    return packed.getvalue()


# --- what is answered -----------------------------------------------------------------------------------------------


def _nonsense() -> DeliveryError:
    return DeliveryError("the host's answer is not one to what was asked", code="M4309")


def _frames(answer: Answer, count: int) -> Answer:
    if len(answer) != count:
        raise _nonsense()
    return answer


def _text(frame: bytes) -> str:
    return frame.decode("utf-8", "backslashreplace")


def _is_yes(answer: Answer) -> bool:
    (word,) = _frames(answer, 1)
    if word not in {b"yes", b"no"}:
        raise _nonsense()
    return word == b"yes"


def _decoded(frame: bytes) -> bytes:
    try:
        return base64.b64decode(frame, validate=True)
    except binascii.Error:
        raise _nonsense() from None


def _age(text: str) -> tuple[int, str]:
    """Seconds and their fraction, of which the host gives as many digits each time."""
    seconds, _, fraction = text.partition(".")
    return (int(seconds) if seconds.isdecimal() and len(seconds) < 20 else 0, fraction)  # noqa: PLR2004


def _pointer(path: str, answer: Answer) -> Pointer | None:
    if not answer:
        return None
    kind, content = _frames(answer, 2)
    if kind == b"current":
        return CurrentPointer(path=path, target=_text(content))
    found = _FILE.fullmatch(_text(kind))
    if found is None:
        raise _nonsense()
    return FilePointer(path=path, content=_decoded(content), mode=int(found[1], 8))


def _ran(answer: Answer) -> tuple[str, Ran] | None:
    """Which step of a check it was and how it ended; None when the program is not there."""
    if not answer:
        return None
    found = _STATUS.fullmatch(_text(answer[0]))
    if found is None:
        raise _nonsense()
    status = int(found[2])
    stopped = "it did not end in time" if status in _STOPPED else None
    return found[1], Ran(status=status, output=b"".join(answer[1:]), stopped=stopped)


def _entries(text: str) -> Iterator[tuple[str, int, int]]:
    """(path, mode, size) of each file in a listing."""
    for number, line in enumerate(text.splitlines()):
        found = _ENTRY.fullmatch(line)
        if found is None or number >= _ENTRY_LIMIT:
            raise _nonsense()
        if found[1] in "f?":
            yield found[4], int(found[2], 8), int(found[3])


def _digests(text: str) -> dict[str, str]:
    return {found[2]: found[1] for line in text.splitlines() if (found := _DIGEST.fullmatch(line))}


def _halves(text: str) -> dict[str, str | None]:
    found = (_HALF.fullmatch(line) for line in text.splitlines())
    return {one[2]: None if one[1] == "-" else one[1] for one in found if one}


def _listed(answer: Answer) -> tuple[FileFact, ...] | None:
    if not answer:
        return None
    entries, digests = _frames(answer, 2)
    known = _digests(_text(digests))
    facts = (FileFact(printable(path), known.get(path, _UNKNOWN), mode) for path, mode, _ in _entries(_text(entries)))
    return tuple(sorted(facts))


def _held(
    entries: str, digests: Mapping[str, str], halves: Mapping[str, str | None], content: bytes
) -> Iterator[tuple[str, HeldFile]]:
    """Raises ValueError when the bytes are not those of the digests: they were changed while they were read."""
    at = 0
    for path, mode, size in _entries(entries):
        digest = digests.get(path, _UNKNOWN)
        if path in halves or not _is_path(path):
            yield printable(path), HeldFile(mode=mode, sha256=digest, content=None, spki_sha256=halves.get(path))
            continue
        data = content[at : at + size]
        at += size
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{path} changed while it was read")
        yield path, HeldFile(mode=mode, sha256=digest, content=data)
    if at != len(content):
        raise ValueError("it changed while it was read")
