"""Files that an inventory names: below the repository, reached through no link, of bounded size; PEM to DER."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from mtlsctl.inventory import codes
from mtlsctl.inventory.grammar import Unfit, file_of_repository
from mtlsctl.inventory.problems import shown

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE: Final = 64 * 1024
"""Bytes of the largest file that is read; a request or a chain has a few thousand."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9]+(?: [A-Z0-9]+)*)-----")
_LONGEST_LINE = 128
_PRIVATE = "PRIVATE KEY"


class Block(NamedTuple):
    """One PEM block (RFC 7468): what its label says, and its bytes."""

    label: str
    der: bytes


def read_file_of_repository(root: Path, text: str) -> bytes:
    """The bytes of a file that the inventory names relative to the repository.

    Each folder on the way is opened by itself and no symlink is followed, so that whoever opens a pull request cannot
    have another file of this machine read. Raises Unfit (M1038, M1050).
    """
    path = file_of_repository(text)
    try:
        opened = _opened(root, path.split("/"))
    except FileNotFoundError:
        raise Unfit(codes.FILE, f"there is no file `{path}`", "a path is relative to the repository") from None
    except OSError as error:
        is_link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        advice = "no symbolic link is followed: put the file itself there" if is_link else None
        raise Unfit(codes.FILE, f"`{path}` cannot be read: {error.strerror}", advice) from None
    try:
        content = _content(opened, path)
    finally:
        os.close(opened)
    if len(content) > MAX_FILE:
        raise Unfit(codes.FILE, f"`{path}` is larger than {MAX_FILE // 1024} KiB")
    return content


def _opened(root: Path, names: list[str]) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for place, name in enumerate(names, 1):
        try:
            below = os.open(name, _FILE if place == len(names) else _FOLDER, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _content(opened: int, path: str) -> bytes:
    """One byte more than is allowed, if there are so many."""
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        raise Unfit(codes.FILE, f"`{path}` is not a plain file")
    content = bytearray()
    while len(content) <= MAX_FILE and (chunk := os.read(opened, MAX_FILE + 1 - len(content))):
        content += chunk
    return bytes(content)


def blocks_of(content: bytes, path: str) -> tuple[Block, ...]:
    """The PEM blocks of a file that holds nothing else but blank lines; raises Unfit (M1051)."""
    blocks: list[Block] = []
    label: str | None = None
    lines: list[bytes] = []
    for number, line in enumerate(content.splitlines(), 1):
        text = line.strip(b" \t")
        if label is None:
            label = _begun(text, number, path)
            lines = []
        elif text == b"-----END " + label.encode() + b"-----":
            blocks.append(Block(label, _decoded(lines, path)))
            label = None
        elif len(text) > _LONGEST_LINE or text.startswith(b"-"):
            raise Unfit(codes.PEM, f"line {number} of `{path}` is not PEM")
        else:
            lines.append(text)
    if label is not None:
        raise Unfit(codes.PEM, f"`{path}` ends within a PEM block")
    return tuple(blocks)


def _begun(text: bytes, number: int, path: str) -> str | None:
    if not text:
        return None
    found = _BEGIN.fullmatch(text)
    if found is None:
        raise Unfit(codes.PEM, f"line {number} of `{path}` is not PEM", "keep the blocks alone, without text around")
    label = found[1].decode()
    if label.endswith(_PRIVATE):
        advice = "take it out, of the history too: whoever can read the repository has this key"
        raise Unfit(codes.PEM, f"`{path}` holds a private key", advice)
    return label


def _decoded(lines: list[bytes], path: str) -> bytes:
    try:
        der = base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        raise Unfit(codes.PEM, f"a PEM block of `{path}` is not base64") from None
    if not der:
        raise Unfit(codes.PEM, f"a PEM block of `{path}` is empty")
    return der


def one_block(content: bytes, path: str, labels: tuple[str, ...], what: str) -> bytes:
    """The DER of the only block, which has one of these labels; raises Unfit (M1051)."""
    blocks = blocks_of(content, path)
    if len(blocks) == 1 and blocks[0].label in labels:
        return blocks[0].der
    found = "nothing" if not blocks else ", ".join(shown(one.label.lower()) for one in blocks[:3])
    raise Unfit(codes.PEM, f"`{path}` is to hold {what} and nothing else; it holds {found}")
