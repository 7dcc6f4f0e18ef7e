"""Java's old key stores (JKS): as much of them as can be said without opening a private key.

The format is `sun.security.provider.JavaKeyStore`'s: magic, version, entries, and a SHA-1 over the password and all of
it. Private keys are encrypted by a scheme of Sun's own; they are counted with their chains and left alone.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.errors import InspectionError
from mtlsctl.pki import codes

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY_LIMIT = 10_000
CHAIN_LIMIT = 100
"""Certificates in the chain of one key."""

MAGIC, JCEKS_MAGIC = b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce"
_VERSIONS = (1, 2)
_DIGEST_BYTES = 20
_WHITENER = b"Mighty Aphrodite"


class JksEntry(NamedTuple):
    """An alias with its certificates (DER): the chain of a private key, or the one that is trusted."""

    alias: str
    is_key: bool
    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jks:
    """A store that was taken apart; its integrity is another question."""

    version: int
    entries: tuple[JksEntry, ...]


def read_jks(data: bytes) -> Jks:
    """Take a store apart; raises InspectionError for one that is broken (M7391) or too large (M7393)."""
    reader = _Reader(data[:-_DIGEST_BYTES])
    reader.take(len(MAGIC))
    version, count = reader.number(), reader.number()
    if version not in _VERSIONS:
        raise InspectionError(f"a JKS store of version {version} is not known", code=codes.NOT_READ)
    if count > ENTRY_LIMIT:
        raise InspectionError(f"it says that it holds {count:,} entries", code=codes.TOO_MUCH)
    entries = tuple(_entry(reader, version) for _ in range(count))
    if reader.left:
        raise _broken("it goes on behind its last entry")
    return Jks(version=version, entries=entries)


def jks_holds(data: bytes, password: str) -> bool:
    """Whether the digest at the end of a store fits the password: nobody who does not know it has changed anything."""
    digest = hashlib.sha1(password.encode("utf-16-be", "surrogatepass") + _WHITENER, usedforsecurity=False)
    digest.update(data[:-_DIGEST_BYTES])
    return hmac.compare_digest(digest.digest(), data[-_DIGEST_BYTES:])


def _broken(why: str) -> InspectionError:
    return InspectionError(f"the JKS store is broken: {why}", code=codes.BROKEN)


def _entry(reader: _Reader, version: int) -> JksEntry:
    tag, alias = reader.number(), reader.text()
    reader.take(8)  # when it was made
    match tag:
        case 1:
            reader.take(reader.number())  # the private key, as it lies there
            count = reader.number()
            if count > CHAIN_LIMIT:
                raise _broken(f"a chain of {count:,} certificates")
            return JksEntry(alias, is_key=True, certificates=tuple(_certificates(reader, version, count)))
        case 2:
            return JksEntry(alias, is_key=False, certificates=tuple(_certificates(reader, version, 1)))
        case _:
            raise _broken("an entry of a kind that does not exist")


def _certificates(reader: _Reader, version: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        if version > 1:
            reader.text()  # "X.509"
        yield reader.take(reader.number())


class _Reader:
    """Java's DataInputStream over what is there, and not one byte beyond."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _broken("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        return int.from_bytes(self.take(4))

    def text(self) -> str:
        """Java's modified UTF-8, near enough: what is none shows as U+FFFD."""
        return self.take(int.from_bytes(self.take(2))).replace(b"\xc0\x80", b"\0").decode("utf-8", "replace")
