"""ASN.1 as files carry it (X.690, BER and DER), for the parts that the library has no door to.

What is read comes from strangers: depth is bounded, every length is checked against what is there, and nothing is
taken apart before somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH_LIMIT = 32
"""Levels of nesting: a PKCS#12 file has about a dozen."""

CHILD_LIMIT = 25_000
"""Elements directly within one: the most entries that any file may have, and some."""

INTEGER, OCTET_STRING, NULL, OBJECT_IDENTIFIER, UTF8_STRING = 0x02, 0x04, 0x05, 0x06, 0x0C
PRINTABLE_STRING, TELETEX_STRING, IA5_STRING, UNIVERSAL_STRING, BMP_STRING = 0x13, 0x14, 0x16, 0x1C, 0x1E
SEQUENCE, SET = 0x30, 0x31

_CONSTRUCTED = 0x20
_HIGH_TAG = 0x1F
_INDEFINITE = 0x80
_END_OF_CONTENTS = b"\0\0"
_LENGTH_BYTES = 4
_TEXT = {UTF8_STRING: "utf-8", BMP_STRING: "utf-16-be", UNIVERSAL_STRING: "utf-32-be"}


class NotAsn1(ValueError):
    """The bytes are not what ASN.1 allows, are nested too deeply, or too many."""


class Node(NamedTuple):
    """One element; `tag` is its identifier octet."""

    tag: int
    content: bytes
    depth: int = 0

    def children(self) -> tuple[Node, ...]:
        """What a constructed element holds; raises NotAsn1 for any other."""
        if not self.tag & _CONSTRUCTED:
            raise NotAsn1
        return tuple(_elements(self.content, self.depth + 1))

    def expect(self, tag: int) -> Node:
        """The element itself; raises NotAsn1 when it has another tag."""
        if self.tag != tag:
            raise NotAsn1
        return self

    def octets(self) -> bytes:
        """An OCTET STRING's value; BER allows it in pieces. Also one with an implicit tag (X.690 section 8.14)."""
        return b"".join(_pieces(self, [CHILD_LIMIT]))

    def number(self) -> int:
        """An INTEGER's value."""
        return int.from_bytes(self.expect(INTEGER).content, signed=True)

    def oid(self) -> str:
        """An OBJECT IDENTIFIER in dotted form (X.690 section 8.19)."""
        return ".".join(map(str, _arcs(self.expect(OBJECT_IDENTIFIER).content)))

    def text(self) -> str:
        """A string of any type; what its type does not allow is shown as U+FFFD."""
        return self.content.decode(_TEXT.get(self.tag, "latin-1"), "replace")


def _pieces(node: Node, left: list[int]) -> Iterator[bytes]:
    """What stands in a string's pieces, at most `left` of them however they are nested."""
    if not node.tag & _CONSTRUCTED:
        yield node.content
        return
    for piece in node.children():
        _count(left)
        yield from _pieces(piece, left)


def read_one(data: bytes) -> Node:
    """The one element that the bytes are; raises NotAsn1 when they are not one, or more."""
    node, end = _element(data, 0, 0)
    if end != len(data):
        raise NotAsn1
    return node


def _elements(data: bytes, depth: int) -> Iterator[Node]:
    at, count = 0, 0
    while at < len(data):
        node, at = _element(data, at, depth)
        count += 1
        if count > CHILD_LIMIT:
            raise NotAsn1
        yield node


def _count(left: list[int]) -> None:
    """One less of what may still be taken apart; raises NotAsn1 behind the last."""
    left[0] -= 1
    if left[0] < 0:
        raise NotAsn1


def _element(data: bytes, at: int, depth: int, left: list[int] | None = None) -> tuple[Node, int]:
    if depth > DEPTH_LIMIT or at + 2 > len(data) or data[at] & _HIGH_TAG == _HIGH_TAG:
        raise NotAsn1
    tag = data[at]
    if data[at + 1] == _INDEFINITE:
        end = (
            _end_of_contents(data, at + 2, depth, [CHILD_LIMIT] if left is None else left)
            if tag & _CONSTRUCTED
            else None
        )
        if end is None:
            raise NotAsn1
        return Node(tag, data[at + 2 : end], depth), end + len(_END_OF_CONTENTS)
    start, size = _length(data, at + 1)
    if start + size > len(data):
        raise NotAsn1
    return Node(tag, data[start : start + size], depth), start + size


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Where the content begins, and its size (X.690 section 8.1.3)."""
    first = data[at]
    if first < _INDEFINITE:
        return at + 1, first
    width = first - _INDEFINITE
    if not 0 < width <= _LENGTH_BYTES or at + 1 + width > len(data):
        raise NotAsn1
    return at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width])


def _end_of_contents(data: bytes, at: int, depth: int, left: list[int]) -> int:
    """Where the two zero octets stand that end an indefinite length (X.690 section 8.1.5).

    All that is passed over on the way is looked at, on every level, so `left` bounds it for the element as a whole.
    """
    while data[at : at + 2] != _END_OF_CONTENTS:
        _count(left)
        _, at = _element(data, at, depth + 1, left)
    return at


def _arcs(content: bytes) -> Iterator[int]:
    value, is_first = 0, True
    if not content or content[-1] & 0x80 or len(content) > 64:  # noqa: PLR2004  no identifier in use is that long
        raise NotAsn1
    for octet in content:
        value = value << 7 | octet & 0x7F
        if octet & 0x80:
            continue
        if is_first:
            top = min(value // 40, 2)
            yield top
            yield value - 40 * top
        else:
            yield value
        value, is_first = 0, False


_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}


def name_text(der: bytes) -> str | None:
    """A distinguished name as RFC 4514 writes it, last part first; None when the bytes are no name."""
    try:
        parts = [_relative_name(one) for one in read_one(der).expect(SEQUENCE).children()]
    except (NotAsn1, ValueError):
        return None
    return ",".join(reversed(parts))


def _relative_name(node: Node) -> str:
    return "+".join(_attribute(one) for one in node.expect(SET).children())


def _attribute(node: Node) -> str:
    kind, value = node.expect(SEQUENCE).children()
    return f"{_NAMES.get(kind.oid(), kind.oid())}={_escaped(value.text())}"


def _escaped(text: str) -> str:
    """RFC 4514 section 2.4."""
    escaped = "".join(f"\\{one}" if one in '"+,;<>\\' else one for one in text).replace("\0", "\\00")
    if escaped.startswith(("#", " ")):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if escaped.endswith(" ") and len(text) > 1 else escaped
