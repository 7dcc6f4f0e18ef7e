"""Files that an inventory names: nothing outside the repository is read, and nothing that never ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mtlsctl.inventory import codes
from mtlsctl.inventory.files import MAX_FILE, Block, blocks_of, read_file_of_repository
from mtlsctl.inventory.grammar import Unfit

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = b"-----BEGIN CERTIFICATE REQUEST-----\nAAEC\n-----END CERTIFICATE REQUEST-----\n"


def refused(root: Path, text: str) -> str:
    with pytest.raises(Unfit) as caught:
        read_file_of_repository(root, text)
    return caught.value.code


def test_a_file_below_the_repository_is_read(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/mail.csr").write_bytes(BLOCK)
    assert read_file_of_repository(tmp_path, "requests/mail.csr") == BLOCK


@pytest.mark.parametrize("link", ["requests", "requests/mail.csr"])
def test_no_symbolic_link_is_followed_wherever_it_leads(tmp_path: Path, link: str) -> None:
    root, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    for folder in (root / "requests", elsewhere):
        folder.mkdir(parents=True)
        (folder / "mail.csr").write_bytes(BLOCK)
    place = root / link
    if place.is_dir():
        (place / "mail.csr").unlink()
        place.rmdir()
        place.symlink_to(elsewhere)
    else:
        place.unlink()
        place.symlink_to("other.csr")
        (root / "requests/other.csr").write_bytes(BLOCK)
    assert refused(root, "requests/mail.csr") == codes.FILE


def test_a_repository_that_is_reached_through_a_link_is_no_reason_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/mail.csr").write_bytes(BLOCK)
    (tmp_path / "link").symlink_to("repository")
    assert read_file_of_repository(tmp_path / "link", "mail.csr") == BLOCK


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mail.csr")
    assert refused(tmp_path, "mail.csr") == codes.FILE


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    (tmp_path / "mail.csr").write_bytes(b"x" * MAX_FILE)
    assert len(read_file_of_repository(tmp_path, "mail.csr")) == MAX_FILE
    (tmp_path / "mail.csr").write_bytes(b"x" * (MAX_FILE + 1))
    assert refused(tmp_path, "mail.csr") == codes.FILE


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../mail.csr", "a/../../mail.csr", "./mail.csr", "-mail.csr", "a//b", "a b", "~/x", ""]
)
def test_a_path_that_could_lead_elsewhere_is_none(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text) == codes.PATH


def test_nothing_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
    for text in ("requests", "requests/none.csr", "none/none.csr"):
        refused(tmp_path, text)
    after = len(os.listdir("/proc/self/fd")) if before else 0  # noqa: PTH208
    assert before == after


@pytest.mark.parametrize("content", [BLOCK, BLOCK.replace(b"\n", b"\r\n"), b"\n" + BLOCK + b"\n\n", BLOCK[:-1]])
def test_blocks_are_read_whoever_ended_the_lines(content: bytes) -> None:
    assert blocks_of(content, "x") == (Block("CERTIFICATE REQUEST", b"\0\1\2"),)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"text\n" + BLOCK, "line 1 of"),
        (BLOCK + b"text", "line 4 of"),
        (BLOCK.replace(b"END CERTIFICATE", b"END OTHER"), "line 3 of"),
        (BLOCK.replace(b"AAEC", b"A" * 200), "line 2 of"),
        (BLOCK.replace(b"AAEC", b"AAE"), "not base64"),
        (BLOCK.replace(b"AAEC", b"Proc-Type: 4,ENCRYPTED"), "not base64"),
        (BLOCK.replace(b"AAEC\n", b""), "is empty"),
        (b"\xef\xbb\xbf" + BLOCK, "line 1 of"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "holds a private key"),
        (BLOCK + b"-----BEGIN PRIVATE KEY-----\n", "holds a private key"),
        (b"\0" * 10, "line 1 of"),
    ],
)
def test_anything_besides_whole_blocks_is_refused(content: bytes, what: str) -> None:
    with pytest.raises(Unfit) as caught:
        blocks_of(content, "x")
    assert caught.value.code == codes.PEM
    assert what in caught.value.message
