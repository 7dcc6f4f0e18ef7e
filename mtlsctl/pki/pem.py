"""PEM as people have it (RFC 7468, and what stands around it): lenient, to say what is there.

What mtlsctl itself relies on is read by `stores.parse_bundle`, which accepts nothing else than it needs.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = re.compile(rb"-----(BEGIN|END) ([A-Z0-9][A-Z0-9 #.]{0,60})-----")
_BEGIN = b"-----BEGIN "


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block. `der` is None where its text is not base64 or has no end; `is_encrypted` is the old form of OpenSSL.

    The bytes may be a private key's, so they never show themselves.
    """

    label: str
    line: int
    der: bytes | None = field(repr=False)
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PemFile:
    """What a file holds. `has_text`: something stands outside the blocks. `ends_well`: with a newline."""

    blocks: tuple[Block, ...]
    has_text: bool
    ends_well: bool


def is_pem(data: bytes) -> bool:
    """Whether a block begins somewhere in it."""
    return _BEGIN in data


def read_pem(data: bytes) -> PemFile:
    """Every block of a file, good or not, with the line where it begins; one walk from line to line."""
    blocks: list[Block] = []
    has_text = False
    lines = enumerate(BytesIO(data), start=1)
    for number, line in lines:
        mark = _mark(line)
        if mark is not None and mark[1] == b"BEGIN":
            blocks += _blocks(mark[2].decode("ascii"), number, lines)
        elif line.strip():
            has_text = True
    return PemFile(blocks=tuple(blocks), has_text=has_text, ends_well=data.endswith(b"\n"))


def _mark(line: bytes) -> re.Match[bytes] | None:
    return _MARK.fullmatch(line.strip()) if b"-----" in line else None


def _blocks(label: str, number: int, lines: Iterator[tuple[int, bytes]]) -> Iterator[Block]:
    """A block and, where it has no end, whatever begins inside it."""
    body: list[bytes] = []
    for at, line in lines:
        mark = _mark(line)
        if mark is None:
            body.append(line.strip())
            continue
        if mark[1] == b"END" and mark[2].decode("ascii") == label:
            yield _block(label, number, body)
            return
        yield Block(label=label, line=number, der=None)
        if mark[1] == b"END":
            return
        label, number, body = mark[2].decode("ascii"), at, []
    yield Block(label=label, line=number, der=None)


def _block(label: str, number: int, body: list[bytes]) -> Block:
    """Headers (RFC 1421) end with an empty line."""
    headers = [line for line in body if b":" in line]
    text = b"".join(body[body.index(b"") + 1 :] if headers and b"" in body else body)
    try:
        der = base64.b64decode(text, validate=True) or None
    except binascii.Error:
        der = None
    return Block(label=label, line=number, der=der, is_encrypted=any(b"ENCRYPTED" in line for line in headers))
