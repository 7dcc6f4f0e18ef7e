from __future__ import annotations

import ctypes
import errno
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver import tree
from mtlsctl.deliver.layout import StagedFile, StagedRelease
from mtlsctl.deliver.local import LocalTransport
from mtlsctl.errors import DeliveryError
from mtlsctl.model.release import HeldFile
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import DirectoryHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPKI, RELEASE = "5" * 64, "1" * 16
STAGED = StagedRelease(
    service="mail", release=RELEASE, key_spki_sha256=SPKI, files=(StagedFile(path="tls.crt", content=b"c"),)
)


def transport_at(root: Path) -> LocalTransport:
    transport = LocalTransport(DirectoryHost(name="here", directory=str(root)))
    transport.put_key("mail", SPKI, Secret(b"k"))
    return transport


def test_the_host_folder_itself_may_be_reached_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    transport_at(tmp_path / "link")
    assert (tmp_path / "real/etc/mtlsctl/mail/keys" / f"{SPKI}.key").exists()


def test_a_release_links_its_key_where_the_file_system_can(tmp_path: Path) -> None:
    transport_at(tmp_path).stage(STAGED)
    key = tmp_path / "etc/mtlsctl/mail/keys" / f"{SPKI}.key"
    assert key.stat().st_ino == (tmp_path / f"etc/mtlsctl/mail/releases/{RELEASE}/tls.key").stat().st_ino


def test_a_release_copies_its_key_where_the_file_system_cannot_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    transport = transport_at(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    transport.stage(STAGED)
    assert HeldFile.of(b"k", 0o600) == transport.read_release("mail", RELEASE)["tls.key"]


def test_a_full_disk_names_the_path_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    transport = transport_at(tmp_path)
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(DeliveryError, match="No space left") as refused:
        transport.stage(STAGED)
    assert ("M4101", True) == (refused.value.code, str(tmp_path) in refused.value.message)
    assert [] == list((tmp_path / "etc/mtlsctl/mail/releases").iterdir())


def test_a_folder_of_ours_that_others_may_write_is_refused(tmp_path: Path) -> None:
    transport = transport_at(tmp_path)
    (tmp_path / "etc/mtlsctl/mail").chmod(0o777)
    with pytest.raises(DeliveryError, match="0777"):
        transport.stage(STAGED)


def test_a_folder_above_ours_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc").chmod(0o777)
    transport_at(tmp_path).stage(STAGED)


def test_a_folder_of_ours_that_belongs_to_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = transport_at(tmp_path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(DeliveryError, match=f"belongs to user {owner}"):
        transport.stage(STAGED)


def test_a_folder_that_cannot_be_written_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(DeliveryError, match="Read-only") as refused:
        transport_at(tmp_path)
    assert refused.value.help is not None


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    transport = transport_at(tmp_path)
    transport.stage(STAGED)
    (tmp_path / f"etc/mtlsctl/mail/releases/{RELEASE}/big").write_bytes(b"x" * (tree.FILE_LIMIT + 1))
    with pytest.raises(DeliveryError, match="larger than"):
        transport.read_release("mail", RELEASE)


def exchanger() -> Callable[[str, str], None]:
    """Swaps two names in one atomic step (renameat2 with RENAME_EXCHANGE)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        pytest.skip("this C library cannot exchange two names")

    def exchange(one: str, other: str) -> None:
        assert renameat2(-100, one.encode(), -100, other.encode(), 2) == 0

    return exchange


def test_a_racing_symlink_never_wins(tmp_path: Path) -> None:
    """Somebody swaps the releases folder for a symlink as fast as they can; nothing is ever written outside."""
    transport = transport_at(tmp_path / "host")
    outside, link = tmp_path / "outside", tmp_path / "link"
    outside.mkdir()
    link.symlink_to(outside)
    folder = tmp_path / "host/etc/mtlsctl/mail/releases"
    folder.mkdir(0o750)
    exchange = exchanger()
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            exchange(str(link), str(folder))
            exchange(str(link), str(folder))

    attacker = threading.Thread(target=attack)
    attacker.start()
    for number in range(150):
        staged = StagedRelease(service="mail", release=f"{number:016x}", key_spki_sha256=SPKI, files=STAGED.files)
        with suppress(DeliveryError):
            transport.stage(staged)
    stop.set()
    attacker.join()
    assert [] == list(outside.iterdir())


@pytest.mark.parametrize(
    ("place", "is_whole"),
    [("stage.partial", False), ("stage.written", False), ("stage.synced", False), ("stage.renamed", True)],
)
def test_each_place_of_staging_can_fail_and_is_gone_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, *, is_whole: bool
) -> None:
    transport = transport_at(tmp_path)
    monkeypatch.setenv("MTLSCTL_FAILPOINT", f"{place}:raise")
    monkeypatch.setattr("mtlsctl.failpoints._reached", {})
    with pytest.raises(DeliveryError, match=place):
        transport.stage(STAGED)
    assert is_whole == transport.has_release("mail", RELEASE)
    monkeypatch.delenv("MTLSCTL_FAILPOINT")
    transport.stage(STAGED)
    assert {"tls.crt", "tls.key"} == set(transport.read_release("mail", RELEASE))


def test_folders_above_the_host_root_are_not_open_to_everyone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        transport_at(tmp_path / "a/b/root")
    finally:
        os.umask(before)
    made = [tmp_path / part for part in ("a", "a/b", "a/b/root")]
    assert [0o755] * 3 == [one.stat().st_mode & 0o7777 for one in made]
