"""Files below one root, reached folder by folder through descriptors, so that no symlink is followed.

`read_beneath` alone follows some: it is for keys that are not ours, and compares or shows them and keeps nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import BASE
from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePosixPath

FILE_LIMIT = 1024 * 1024
"""Bytes of the largest file that is read back; nothing that we write comes near it."""

KEY_LIMIT = 64 * 1024
"""Bytes of the largest private key that is read where somebody else keeps it."""

ENTRY_LIMIT = 2_000
"""Entries of the largest folder that is listed."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OURS = BASE.parts[1:]
_PRIVATE = 0o700


def components(path: str | PurePosixPath) -> tuple[str, ...]:
    """The names in an absolute path of a host; raises DeliveryError M4102 for one that could lead elsewhere."""
    text = str(path)
    names = [] if text == "/" else text.split("/")[1:]
    if not text.startswith("/") or not all(is_plain_name(name) for name in names):
        raise DeliveryError(f"{text!r} is not a plain absolute path", code="M4102")
    return tuple(names)


def is_plain_name(name: str) -> bool:
    """Whether a name is one component: not empty, not `.` or `..`, no slash and no control character."""
    return name not in {"", ".", ".."} and "/" not in name and name.isprintable()


class Tree:
    """The part of a file system that lies below `root`. The root itself may be reached through symlinks."""

    def __init__(self, root: str) -> None:
        self._root = root

    def shown(self, path: str | PurePosixPath) -> str:
        """Where a path of the host really lies, for messages and programs."""
        return self._root.rstrip("/") + str(path)

    @contextmanager
    def step(self, doing: str, path: str | PurePosixPath) -> Iterator[None]:
        """Turn an OSError into DeliveryError M4101, naming the step and the path."""
        try:
            yield
        except OSError as error:
            raise DeliveryError(
                f"cannot {doing} {self.shown(path)}: {error.strerror or error}", code="M4101", help=_advice(error)
            ) from error

    @contextmanager
    def folder(self, path: str | PurePosixPath, *, create: bool = False) -> Iterator[int]:
        """A descriptor of a folder; raises FileNotFoundError without `create`, DeliveryError M4102 for a symlink."""
        descriptor = self._descend(components(path), create=create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _descend(self, names: tuple[str, ...], *, create: bool) -> int:
        descriptor = self._open_root(create=create)
        try:
            for depth in range(len(names)):
                below = self._enter(descriptor, names[: depth + 1], create=create)
                os.close(descriptor)
                descriptor = below
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _open_root(self, *, create: bool) -> int:
        if create:
            _make_way(self._root)
        return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _enter(self, descriptor: int, names: tuple[str, ...], *, create: bool) -> int:
        try:
            below = _open_or_make(descriptor, names, create=create)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise self._obstacle(names, "is a symlink or not a folder; nothing was followed") from None
            raise
        try:
            self._check_ours(os.fstat(below), names)
        except BaseException:
            os.close(below)
            raise
        return below

    def _check_ours(self, seen: os.stat_result, names: tuple[str, ...]) -> None:
        if names[: len(_OURS)] != _OURS:
            return
        if seen.st_uid != os.geteuid():
            raise self._obstacle(names, f"belongs to user {seen.st_uid}, not to the user that runs this")
        forbidden = 0o077 if folder_mode(names) == _PRIVATE else 0o022
        if seen.st_mode & forbidden:
            raise self._obstacle(names, f"has mode {stat.S_IMODE(seen.st_mode):04o}: others may reach into it")

    def _obstacle(self, names: tuple[str, ...], why: str) -> DeliveryError:
        return DeliveryError(f"{self.shown('/' + '/'.join(names))} {why}", code="M4102")


def read_beneath(root: str, path: str) -> tuple[bytes, int]:
    """A plain file of at most KEY_LIMIT bytes, with its mode; raises OSError.

    Symlinks are followed as long as what they lead to lies below root.
    """
    real, top = os.path.realpath(path, strict=True), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top:
        raise OSError(errno.ELOOP, "a symlink leads out of the host's folder")
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a plain file")
        content = file.read(KEY_LIMIT + 1)
    if len(content) > KEY_LIMIT:
        raise OSError(errno.EFBIG, "too large for a key")
    return content, stat.S_IMODE(mode)


def _make_way(path: str) -> None:
    """Make what is missing of a folder and of those above it: `os.makedirs` gives only the last one the mode."""
    missing: list[str] = []
    while path and not os.path.isdir(path):  # noqa: PTH112  a descriptor follows, not a Path
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))  # noqa: PTH120
    for folder in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(folder, 0o755)  # noqa: PTH102


def _open_or_make(descriptor: int, names: tuple[str, ...], *, create: bool) -> int:
    try:
        return os.open(names[-1], _FOLDER, dir_fd=descriptor)
    except FileNotFoundError:
        if not create:
            raise
    make_folder(descriptor, names[-1], folder_mode(names), exist_ok=True)
    return os.open(names[-1], _FOLDER, dir_fd=descriptor)


def folder_mode(names: tuple[str, ...]) -> int:
    """The mode of a folder that we make: keys 0700, a service's own 0750, the way there 0755."""
    if names[: len(_OURS)] != _OURS or len(names) <= len(_OURS):
        return 0o755
    return _PRIVATE if names[len(_OURS) + 1 : len(_OURS) + 2] == ("keys",) else 0o750


def make_folder(descriptor: int, name: str, mode: int, *, exist_ok: bool = False) -> None:
    """Make a folder, never wider than `mode` at any moment and exactly that at the end, and sync its parent."""
    try:
        os.mkdir(name, 0o700, dir_fd=descriptor)
    except FileExistsError:
        if exist_ok:
            return
        raise
    set_folder_mode(descriptor, name, mode)
    sync(descriptor)


def set_folder_mode(descriptor: int, name: str, mode: int) -> None:
    """Give a folder that we made its mode, through a descriptor so that it cannot be another one."""
    with open_below(descriptor, name, _FOLDER) as made:
        os.fchmod(made, mode)
        sync(made)


def write_new(descriptor: int, name: str, content: bytes, mode: int) -> None:
    """Write a file that must not exist; it has its mode before its first byte and is on disk at the end."""
    with open_below(descriptor, name, _NEW, 0o600) as made:
        os.fchmod(made, mode)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(made, rest) :]
        sync(made)


def read_file(descriptor: int, name: str) -> tuple[bytes, int]:
    """The bytes and the mode of a regular file; raises OSError for anything else and above FILE_LIMIT."""
    with open_below(descriptor, name, _READ) as opened:
        seen = os.fstat(opened)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        with os.fdopen(os.dup(opened), "rb") as file:
            content = file.read(FILE_LIMIT + 1)
        if len(content) > FILE_LIMIT:
            raise OSError(errno.EFBIG, f"is larger than {FILE_LIMIT} bytes")
        return content, stat.S_IMODE(seen.st_mode)


def names_in(descriptor: int) -> list[str]:
    """The entries of a folder, sorted; raises OSError above ENTRY_LIMIT."""
    names: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > ENTRY_LIMIT:
                raise OSError(errno.E2BIG, f"holds more than {ENTRY_LIMIT} entries")
    return sorted(names)


def read_below(descriptor: int, prefix: str = "") -> dict[str, tuple[bytes, int]]:
    """Every file below a folder; raises OSError for a symlink, a device, or too much."""
    files: dict[str, tuple[bytes, int]] = {}
    for name in names_in(descriptor):
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            with open_below(descriptor, name, _FOLDER) as below:
                files |= read_below(below, f"{prefix}{name}/")
        else:
            files[prefix + name] = read_file(descriptor, name)
        if len(files) > ENTRY_LIMIT:
            raise OSError(errno.E2BIG, f"holds more than {ENTRY_LIMIT} files")
    return files


def sync_below(descriptor: int) -> None:
    """Sync a folder and all folders in it, from the leaves up; their files are on disk already."""
    for name in names_in(descriptor):
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            with open_below(descriptor, name, _FOLDER) as below:
                sync_below(below)
    sync(descriptor)


def link_or_copy(source: int, name: str, target: int, new_name: str) -> None:
    """A hard link to a file, or a copy of the same mode where the file system has none; raises FileNotFoundError."""
    try:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}:
            raise
        write_new(target, new_name, *read_file(source, name))


def link_below(source: int, target: int, name: str) -> None:
    """A new folder `name` with all that is below `source`: folders with their modes, files linked or copied; synced."""
    mode = stat.S_IMODE(os.fstat(source).st_mode)
    make_folder(target, name, 0o700)
    with open_below(target, name, _FOLDER) as made:
        for entry in names_in(source):
            if kind_of(source, entry) == stat.S_IFDIR:
                with open_below(source, entry, _FOLDER) as below:
                    link_below(below, made, entry)
            else:
                link_or_copy(source, entry, made, entry)
        sync(made)
    set_folder_mode(target, name, mode)


def remove_below(descriptor: int, name: str) -> None:
    """Delete a folder and all below it without following symlinks; absent is fine."""
    with suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=descriptor)


def remove_file(descriptor: int, name: str) -> None:
    """Unlink a file or symlink; absent is fine."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=descriptor)


def kind_of(descriptor: int, name: str) -> int | None:
    """The type bits of an entry (`stat.S_IFREG`, ...) without following it; None when it is absent."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def sync(descriptor: int) -> None:
    """On disk when it returns: Darwin's fsync stops at the drive's cache, so it is asked for more there."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


@contextmanager
def open_below(descriptor: int, name: str, flags: int, mode: int = 0) -> Iterator[int]:
    """A descriptor of an entry of a folder."""
    opened = os.open(name, flags, mode, dir_fd=descriptor)
    try:
        yield opened
    finally:
        os.close(opened)


def _advice(error: OSError) -> str | None:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space there, then run the same command again; nothing was switched"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "make the folder writable for the user that runs mtlsctl, then run the same command again"
        case _:
            return None
