"""Host keys that the user has accepted, in the files and the format that ssh keeps them in (sshd(8)).

No key is ever accepted here on its own: a host is known because a person said so, once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.deliver.plain_files import read_plain
from mtlsctl.deliver.ssh_config import matches_pattern
from mtlsctl.errors import DeliveryError
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MAX_FILE = 16 * 1024 * 1024

CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"

_HASHED = "|1|"
_SALT_BYTES = 20


class HostKey(NamedTuple):
    """A public key as SSH writes it (RFC 4253 section 6.6): its kind, which the blob begins with, and the blob."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """`SHA256:...` as ssh prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii")
        return f"SHA256:{digest.rstrip('=')}"

    @property
    def text(self) -> str:
        """The two words that stand in a file."""
        return f"{self.kind} {base64.b64encode(self.blob).decode('ascii')}"

    @property
    def short_kind(self) -> str:
        """As ssh calls it to people: ED25519, ECDSA, RSA."""
        return self.kind.removeprefix("ssh-").removesuffix(CERTIFICATE_SUFFIX).partition("-")[0].upper()


class Mark(StrEnum):
    PLAIN = ""
    REVOKED = "@revoked"
    AUTHORITY = "@cert-authority"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a file."""

    mark: Mark
    patterns: tuple[str, ...]
    key: HostKey
    where: str

    def is_about(self, name: str) -> bool:
        """Whether the line is about that name; a pattern with `!` that fits takes the line away from it."""
        fits = False
        for pattern in self.patterns:
            negated = pattern.startswith("!")
            if _fits(pattern.removeprefix("!"), name):
                if negated:
                    return False
                fits = True
        return fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the files say about a host. `elsewhere` are keys of the bare name of a host with a port of its own.

    They count, as with ssh, only while nothing is known of that port: what answers at another port of the address may
    be another machine, and the key of one must not pass for the other's.
    """

    keys: tuple[Entry, ...] = ()
    elsewhere: tuple[Entry, ...] = ()
    revoked: tuple[Entry, ...] = ()
    authorities: tuple[Entry, ...] = ()

    def has(self, key: HostKey) -> bool:
        return any(one.key == key for one in self.keys or self.elsewhere)

    def is_revoked(self, key: HostKey) -> bool:
        return any(one.key == key for one in self.revoked)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of key that the host is known by, in order: to be asked for before all others."""
        return tuple(dict.fromkeys(one.key.kind for one in self.keys or self.elsewhere))


def look_up(files: Iterable[Path], names: Sequence[str]) -> Known:
    """What the files say about a host under its names; a file that is not there says nothing.

    Raises DeliveryError M4314 for one that cannot be read: a host must not look unknown, or a key not revoked,
    because of that.
    """
    entries = [entry for path in files for entry in read_file(path)]
    about = [one for one in entries if one.is_about(names[0])]
    bare = [one for one in entries if any(one.is_about(name) for name in names[1:])]
    return Known(
        keys=tuple(one for one in about if one.mark is Mark.PLAIN),
        elsewhere=tuple(one for one in bare if one.mark is Mark.PLAIN),
        revoked=tuple(one for one in about + bare if one.mark is Mark.REVOKED),
        authorities=tuple(one for one in about if one.mark is Mark.AUTHORITY),
    )


def read_file(path: Path) -> Sequence[Entry]:
    """The lines of a file that hold a key; what cannot be read as one is passed over, as ssh does."""
    return _parse_all(_content(path), str(path))


@lru_cache(maxsize=8)
def _parse_all(content: bytes, path: str) -> tuple[Entry, ...]:
    """Read for each host, and the same for all of them."""
    lines = enumerate(content.decode("utf-8", "replace").splitlines(), 1)
    return tuple(entry for number, line in lines if (entry := parse_line(line, f"{path}:{number}")) is not None)


def _content(path: Path) -> bytes:
    try:
        return read_plain(path, MAX_FILE)[0]
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DeliveryError(f"{path} cannot be read: {error.strerror}", code="M4314") from None


def parse_line(line: str, where: str) -> Entry | None:
    """`[@mark] patterns kind base64 [comment]`; None for a comment and for what is none of that."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    mark = Mark.PLAIN
    if words[0].startswith("@"):
        if words[0] not in (Mark.REVOKED, Mark.AUTHORITY):
            return None
        mark = Mark(words.pop(0))
    if len(words) < 3:  # noqa: PLR2004  the three that a line needs
        return None
    key = parse_key(words[1], words[2])
    if key is None:
        return None
    return Entry(mark=mark, patterns=tuple(words[0].split(",")), key=key, where=where)


def parse_key(kind: str, text: str) -> HostKey | None:
    """A key by its two words; None when they are not one, or contradict each other."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return HostKey(kind, blob) if kind_of(blob) == kind else None


def kind_of(blob: bytes) -> str | None:
    """The kind that a blob begins with."""
    length = int.from_bytes(blob[:4], "big")
    if not 0 < length <= 64 or len(blob) < 4 + length:  # noqa: PLR2004  RFC 4250 section 4.6.1
        return None
    return blob[4 : 4 + length].decode("ascii", "replace")


def _fits(pattern: str, name: str) -> bool:
    if not pattern.startswith(_HASHED):
        return matches_pattern(pattern.lower(), name)
    parts = pattern.split("|")
    if len(parts) != 4:  # noqa: PLR2004  "", "1", salt, digest
        return False
    try:
        salt, digest = base64.b64decode(parts[2], validate=True), base64.b64decode(parts[3], validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(_hash(salt, name), digest)


def _hash(salt: bytes, name: str) -> bytes:
    return hmac.new(salt, name.encode("utf-8"), hashlib.sha1).digest()


def hashed(name: str) -> str:
    """A name as `HashKnownHosts` writes it, so that the file does not tell whom its owner visits."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{_HASHED}{base64.b64encode(salt).decode()}|{base64.b64encode(_hash(salt, name)).decode()}"


def judge(known: Known, key: HostKey, *, host: str, place: str) -> None:
    """See that a host that showed `key` is the one that is known.

    Raises DeliveryError M4304 when nothing is known of it, M4305 when it is known by another key or when the key was
    revoked. Neither is ever put right here: a person has to.
    """
    if known.is_revoked(key):
        raise DeliveryError(
            f"{host} shows a host key that was revoked",
            code="M4305",
            notes=(f"{key.short_kind} {key.fingerprint}", f"at {place}"),
            help="whoever holds this key may not be the host; it needs a new one",
        )
    if known.has(key):
        return
    if known.keys:
        raise changed_key(known, key, host=host, place=place)
    raise unknown_key(key, host=host, place=place)


def unknown_key(key: HostKey, *, host: str, place: str) -> DeliveryError:
    return DeliveryError(
        f"the host key of {host} is not known",
        code="M4304",
        notes=(f"it showed {key.short_kind} {key.fingerprint}", f"at {place}"),
        help=f"compare that with the host's own (ssh-keygen -lf), then: mtlsctl hosts trust {host}",
    )


def changed_key(known: Known, key: HostKey, *, host: str, place: str) -> DeliveryError:
    same_kind = [one for one in known.keys if one.key.kind == key.kind] or list(known.keys)
    return DeliveryError(
        f"the host key of {host} has changed",
        code="M4305",
        notes=(
            *(f"known: {one.key.short_kind} {one.key.fingerprint} ({printable(one.where)})" for one in same_kind[:3]),
            f"shown: {key.short_kind} {key.fingerprint}",
            f"at {place}",
        ),
        help="find out why before anything else: somebody may stand between. If the host was made new,"
        " take the old line out of the file by hand",
    )


def record(path: Path, name: str, key: HostKey, *, is_hashed: bool) -> bool:
    """Add a host's key to the user's file; False when it stands there already.

    `name` is the first of `Reach.known_as`. The file is made 0600 in a folder 0700 where it is missing, and nothing
    in it is changed. Raises DeliveryError M4305 when the file knows the name by another key of that kind, M4101 when
    it cannot be written.
    """
    known = look_up([path], [name])
    if known.is_revoked(key):
        judge(known, key, host=name, place=str(path))
    if known.has(key):
        return False
    if any(one.key.kind == key.kind for one in known.keys):
        raise changed_key(known, key, host=name, place=str(path))
    line = f"{hashed(name) if is_hashed else name} {key.text}\n"
    try:
        _append(path, line.encode("ascii"))
    except OSError as error:
        raise DeliveryError(f"cannot write {path}: {error.strerror}", code="M4101") from None
    return True


def _append(path: Path, line: bytes) -> None:
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a file")
        if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
            line = b"\n" + line
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
