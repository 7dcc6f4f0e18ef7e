"""Finds private keys in whatever a run left behind, in any of the forms in which bytes tend to escape.

Only what is secret in a key is looked for (its private integers), never what its certificate shows too.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 16
"""Bytes that are looked for at a time: half of a P-256 key is a leak too, and no chance hits 128 bits."""

Sinks = Mapping[str, bytes]
"""Where something was written, in words -> what was written there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A secret and whose it is."""

    name: str
    secret: bytes


def canaries_of_key(name: str, pem_or_der: bytes) -> Iterator[Canary]:
    """The private integers of a key, and the part of its PEM that spells them: that text may be encoded once more."""
    is_pem = pem_or_der.startswith(b"-----")
    load = serialization.load_pem_private_key if is_pem else serialization.load_der_private_key
    key = load(pem_or_der, None)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for secret in _integers(key):
        yield Canary(name=name, secret=secret)
        yield Canary(name=f"{name}, its PEM", secret=_spelled(der, secret))


def _integers(key: object) -> Iterator[bytes]:
    """The scalar, the seed, or the exponent and both primes."""
    match key:
        case ec.EllipticCurvePrivateKey():
            yield key.private_numbers().private_value.to_bytes(32)
        case ed25519.Ed25519PrivateKey():
            yield key.private_bytes_raw()
        case rsa.RSAPrivateKey():
            numbers = key.private_numbers()
            yield from (part.to_bytes((part.bit_length() + 7) // 8) for part in (numbers.d, numbers.p, numbers.q))
        case _:
            raise AssertionError(type(key))


def _spelled(der: bytes, secret: bytes) -> bytes:
    """What stands in the PEM of `der` for `secret` alone, line breaks included (RFC 7468: 64 letters in a line)."""
    body = base64.b64encode(der)
    at = der.index(secret)
    first, last = -(-at * 8 // 6), (at + len(secret)) * 8 // 6
    letters = [b"\n%c" % body[n] if n % 64 == 0 and n > first else b"%c" % body[n] for n in range(first, last)]
    return b"".join(letters)


def chunks_of(secret: bytes) -> tuple[bytes, ...]:
    """The first two and the last two: enough of a long integer to know it, whichever part escaped."""
    found = [secret[at : at + CHUNK] for at in range(0, len(secret) - CHUNK + 1, CHUNK)]
    return tuple(dict.fromkeys([*found[:2], *found[-2:], secret[-CHUNK:]]))


def base64_of(chunk: bytes, encode: Callable[[bytes], bytes] = base64.b64encode) -> Iterator[bytes]:
    """Its base64 at each of the three places in a group of three bytes, without what its neighbours decide."""
    for before, first in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(chunk)) * 8 // 6
        yield encode(b"\0" * before + chunk)[first:whole]


@cache
def needles_of(secret: bytes) -> tuple[tuple[str, str, bytes], ...]:
    """(form, in which reading of a sink, needle); reversed ones are told apart by their form."""
    return tuple(_needles(secret))


def _needles(secret: bytes) -> Iterator[tuple[str, str, bytes]]:
    for chunk in chunks_of(secret):
        for form, reading, needle in _plain(chunk):
            yield form, reading, needle
            yield f"{form}, reversed", reading, needle[::-1]
    number = str(int.from_bytes(secret)).encode()
    yield "decimal", "squeezed", number[:30]
    yield "decimal, reversed", "squeezed", number[:30][::-1]


def _plain(chunk: bytes) -> Iterator[tuple[str, str, bytes]]:
    yield "raw", "raw", chunk
    yield "hex", "lowered", chunk.hex().encode()
    yield "escapes", "lowered", "".join(f"\\x{byte:02x}" for byte in chunk).encode()
    yield "list of numbers", "squeezed", ",".join(map(str, chunk)).encode()
    for needle in base64_of(chunk):
        yield "base64", "squeezed", needle
    for needle in base64_of(chunk, base64.urlsafe_b64encode):
        yield "base64url", "squeezed", needle
    shown = repr(chunk)[2:-1]
    if "\\x" in shown or "\\" not in shown:
        yield "repr", "raw", shown.encode()


_NOISE = re.compile(rb"[\s\x00]|\\[nrt]")
"""What line breaks, wrapping, JSON and UTF-16 put between the letters of a text."""


def readings_of(content: bytes) -> dict[str, bytes]:
    """A sink as it is, without anything between its letters, and that in lower case without the colons of hex."""
    squeezed = _NOISE.sub(b"", content)
    return {"raw": content, "squeezed": squeezed, "lowered": squeezed.lower().replace(b":", b"")}


@dataclass(slots=True)
class Scanner:
    """Collects secrets, then says where any of them is."""

    canaries: set[Canary] = field(default_factory=set)

    def add_key(self, name: str, pem_or_der: bytes) -> None:
        self.canaries.update(canaries_of_key(name, pem_or_der))

    def add(self, name: str, secret: bytes) -> None:
        self.canaries.add(Canary(name=name, secret=secret))

    def hits(self, sinks: Sinks) -> list[str]:
        """One sentence for each sink, secret and form."""
        needles = [(one.name, *needle) for one in self.canaries for needle in needles_of(one.secret)]
        found: set[str] = set()
        for place, content in sinks.items():
            readings = readings_of(content)
            found.update(
                f"{place}: {name} as {form}" for name, form, reading, needle in needles if needle in readings[reading]
            )
        return sorted(found)


# --- what a run leaves behind ---------------------------------------------------------------------------------------


def files_below(*folders: Path) -> dict[str, bytes]:
    """Every file, private keys and passwords in their own places aside: there they have to be."""
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not is_place_of_a_key(path) and not is_place_of_a_password(path)
    }


def is_place_of_a_key(path: Path) -> bool:
    """`releases/<release>/tls.key`, finished or not, and `keys/<spki>.key` of a service; nothing else may hold one."""
    below = path.parts[path.parts.index("mtlsctl") + 1 :] if "mtlsctl" in path.parts else ()
    match below:
        case (_, "keys", name):
            return re.fullmatch(r"[0-9a-f]{64}\.key(\.partial)?", name) is not None
        case (_, "releases", release, "tls.key"):
            return re.fullmatch(r"[0-9a-f]{16}(\.partial)?", release) is not None
        case _:
            return False


def is_place_of_a_password(path: Path) -> bool:
    """What lies in a release to hold it: the password's own file, and Java's arguments."""
    below = path.parts[path.parts.index("mtlsctl") + 1 :] if "mtlsctl" in path.parts else ()
    match below:
        case (_, "releases", release, "java.args") | (_, "releases", release, "secrets", "store-password"):
            return re.fullmatch(r"[0-9a-f]{16}(\.partial)?", release) is not None
        case _:
            return False


def passwords_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("store-password") if is_place_of_a_password(path)}


def keys_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*.key") if is_place_of_a_key(path)}


def dump_of(database: Path) -> bytes:
    """Every table as SQL text."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump()).encode()


def united(*sinks: Sinks) -> dict[str, bytes]:
    return {place: content for one in sinks for place, content in one.items()}


def texts(outputs: Iterable[tuple[str, str]]) -> dict[str, bytes]:
    return {f"{number} {name}": text.encode() for number, (name, text) in enumerate(outputs)}
