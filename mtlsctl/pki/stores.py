"""Files that hold certificates. PEM so far."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from mtlsctl.errors import PreflightError
from mtlsctl.pki import codes

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLUMNS = 64
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\n((?:[A-Za-z0-9+/=]{1,76}\n)+)-----END CERTIFICATE-----\n")
# Blocks are small and many, so the file is walked with `match` at a position: a `fullmatch` of all would backtrack.


def to_pem(certificates: Iterable[bytes]) -> bytes:
    """Blocks in the order given, each ended by a newline (RFC 7468); one without it silently empties Node's trust."""
    return b"".join(_block(der) for der in certificates)


def _block(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[start : start + _COLUMNS] for start in range(0, len(text), _COLUMNS)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def parse_bundle(pem: bytes) -> tuple[bytes, ...]:
    """The DER of every block of a file that holds nothing else.

    Strict on purpose: text between blocks, a missing newline or an empty file raises PreflightError (M7106), since
    each TLS stack skips something else. Says nothing about what the blocks contain.
    """
    blocks, position = [], 0
    while position < len(pem):
        found = _BLOCK.match(pem, position)
        if found is None:
            line = pem.count(b"\n", 0, position) + 1
            raise PreflightError(f"no whole PEM certificate begins at line {line}", code=codes.PEM)
        blocks.append(_decoded(found[1]))
        position = found.end()
    if not blocks:
        raise PreflightError("there is no certificate in it", code=codes.PEM)
    return tuple(blocks)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.replace(b"\n", b""), validate=True)
    except binascii.Error:
        raise PreflightError("a PEM certificate is not base64", code=codes.PEM) from None
