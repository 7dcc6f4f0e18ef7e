"""PKCS#12 files (RFC 7292) bag by bag, with the attributes that decide what Java makes of them.

The library reads such files too. It does not say which certificates carry Java's attribute of a trusted entry, shows
one key at most, and makes every round of key derivation that a file asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from mtlsctl.errors import InspectionError
from mtlsctl.pki import codes
from mtlsctl.pki.asn1 import OCTET_STRING, SEQUENCE, SET, Node, NotAsn1, read_one
from mtlsctl.pki.pbe import Scheme, Work, WrongPassword, decrypt, mac_holds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BAG_LIMIT = 10_000
"""Bags in one file: a store of every public CA holds a few hundred."""

_DATA, _SIGNED, _ENVELOPED, _ENCRYPTED = (f"1.2.840.113549.1.7.{number}" for number in (1, 2, 3, 6))
_X509 = "1.2.840.113549.1.9.22.1"
_FRIENDLY_NAME, _LOCAL_KEY_ID = "1.2.840.113549.1.9.20", "1.2.840.113549.1.9.21"
_JAVA_TRUSTED = "2.16.840.1.113894.746875.1.1"
_BAGS = "1.2.840.113549.1.12.10.1."
_EXPLICIT = 0xA0
_VERSION = 3


class BagKind(StrEnum):
    KEY = "key"
    CERTIFICATE = "certificate"
    REVOCATION_LIST = "revocation list"
    SYMMETRIC_KEY = "symmetric key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bag:
    """One thing in a file. `content` is a certificate's DER or a key's PKCS#8, which never shows itself."""

    kind: BagKind
    content: bytes = field(repr=False)
    alias: str | None = None
    local_key: bytes | None = None
    is_trusted: bool = False
    """Whether it carries the attribute without which Java does not make a trusted entry of a certificate."""
    is_encrypted: bool = False
    """Whether it lay encrypted in the file."""
    scheme: Scheme | None = None
    """How a key was encrypted, where it was by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs12:
    """A file that was opened. `is_sealed`: it has a MAC. `schemes` are those that encrypt whole parts of it."""

    bags: tuple[Bag, ...]
    is_sealed: bool
    schemes: tuple[Scheme, ...]


def is_pkcs12(data: bytes) -> bool:
    """Whether the bytes begin as a PFX does: a sequence of version 3 and a ContentInfo."""
    try:
        version, content, *rest = read_one(data).expect(SEQUENCE).children()
        return version.number() == _VERSION and len(rest) < 2 and content.children()[0].oid() in (_DATA, _SIGNED)  # noqa: PLR2004
    except (NotAsn1, ValueError, IndexError):
        return False


def read_pkcs12(data: bytes, password: str | None, work: Work) -> Pkcs12:
    """Open a file; password None is none at all, which is another one than the empty one.

    Raises WrongPassword when it does not open, InspectionError when it is broken (M7391), needs what is not read here
    (M7392) or too much work (M7393).
    """
    try:
        return _opened(read_one(data), password, work)
    except (NotAsn1, IndexError, ValueError, OverflowError):
        # A wrong password may also show as rubbish where a structure was expected.
        raise InspectionError("the PKCS#12 file is broken", code=codes.BROKEN) from None


def _opened(pfx: Node, password: str | None, work: Work) -> Pkcs12:
    _, content, *mac = pfx.expect(SEQUENCE).children()
    kind, value = content.expect(SEQUENCE).children()
    if kind.oid() != _DATA:
        raise InspectionError("it is sealed with a signature in place of a password", code=codes.NOT_READ)
    safe = _only(value.expect(_EXPLICIT)).octets()
    if mac and not mac_holds(mac[0], safe, password, work):
        raise WrongPassword
    reader = _Reader(password or "", work)
    bags = tuple(bag for part in read_one(safe).expect(SEQUENCE).children() for bag in reader.part(part))
    return Pkcs12(bags=bags, is_sealed=bool(mac), schemes=tuple(reader.schemes))


def _only(node: Node) -> Node:
    (child,) = node.children()
    return child


class _Reader:
    """Takes the parts of one file apart, with one password."""

    def __init__(self, password: str, work: Work) -> None:
        self._password, self._work = password, work
        self.schemes: list[Scheme] = []
        self._count = 0

    def part(self, info: Node) -> Iterator[Bag]:
        kind, value = info.expect(SEQUENCE).children()
        match kind.oid():
            case oid if oid == _DATA:
                yield from self._bags(_only(value.expect(_EXPLICIT)).octets(), encrypted=False)
            case oid if oid == _ENCRYPTED:
                yield from self._bags(self._decrypted(_only(value.expect(_EXPLICIT))), encrypted=True)
            case oid if oid == _ENVELOPED:
                raise InspectionError("a part of it is encrypted for a key, not a password", code=codes.NOT_READ)
            case _:
                raise NotAsn1

    def _decrypted(self, encrypted: Node) -> bytes:
        _, info = encrypted.expect(SEQUENCE).children()[:2]
        _, algorithm, content = info.expect(SEQUENCE).children()
        plain, scheme = decrypt(algorithm, content.octets(), self._password, self._work)
        self.schemes.append(scheme)
        try:
            read_one(plain).expect(SEQUENCE)
        except NotAsn1:
            raise WrongPassword from None
        return plain

    def _bags(self, content: bytes, *, encrypted: bool) -> Iterator[Bag]:
        yield from self._nested(read_one(content).expect(SEQUENCE), encrypted=encrypted)

    def _nested(self, contents: Node, *, encrypted: bool) -> Iterator[Bag]:
        for node in contents.expect(SEQUENCE).children():
            self._count += 1
            if self._count > BAG_LIMIT:
                raise InspectionError(f"it holds more than {BAG_LIMIT:,} entries", code=codes.TOO_MUCH)
            kind, value, *attributes = node.expect(SEQUENCE).children()
            number, inner = kind.oid().removeprefix(_BAGS), _only(value.expect(_EXPLICIT))
            if number == "6":
                yield from self._nested(inner, encrypted=encrypted)
                continue
            bag = self._bag(number, inner, encrypted=encrypted)
            yield _with_attributes(bag, attributes)

    def _bag(self, number: str, inner: Node, *, encrypted: bool) -> Bag:
        match number:
            case "1":
                return Bag(kind=BagKind.KEY, content=_der(inner), is_encrypted=encrypted)
            case "2":
                algorithm, content = inner.expect(SEQUENCE).children()
                plain, scheme = decrypt(algorithm, content.expect(OCTET_STRING).octets(), self._password, self._work)
                return Bag(kind=BagKind.KEY, content=plain, is_encrypted=True, scheme=scheme)
            case "3" | "4":
                form, value = inner.expect(SEQUENCE).children()
                wanted = BagKind.CERTIFICATE if number == "3" else BagKind.REVOCATION_LIST
                if number == "3" and form.oid() != _X509:
                    raise InspectionError("it holds a certificate that is not X.509", code=codes.NOT_READ)
                content_ = _only(value.expect(_EXPLICIT)).octets()
                return Bag(kind=wanted, content=content_, is_encrypted=encrypted)
            case "5":
                return Bag(kind=BagKind.SYMMETRIC_KEY, content=b"", is_encrypted=encrypted)
            case _:
                raise NotAsn1


def _der(node: Node) -> bytes:
    """The element again with its own header."""
    size = len(node.content)
    if size < 0x80:  # noqa: PLR2004  the short form
        return bytes([node.tag, size]) + node.content
    width = (size.bit_length() + 7) // 8
    return bytes([node.tag, 0x80 | width]) + size.to_bytes(width) + node.content


def _with_attributes(bag: Bag, attributes: Sequence[Node]) -> Bag:
    for attribute in attributes[0].expect(SET).children() if attributes else ():
        kind, values = attribute.expect(SEQUENCE).children()
        found = values.expect(SET).children()
        match kind.oid():
            case oid if oid == _FRIENDLY_NAME and found:
                bag = replace(bag, alias=found[0].text())
            case oid if oid == _LOCAL_KEY_ID and found:
                bag = replace(bag, local_key=found[0].octets())
            case oid if oid == _JAVA_TRUSTED:
                bag = replace(bag, is_trusted=True)
            case _:
                pass
    return bag
