"""Files that appear whole or not at all, with their mode from the first byte, and that survive a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK})


def make_private_folder(folder: Path) -> None:
    """Create what is missing of a folder, each new part 0700 whatever the umask; what exists keeps its mode."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def create_private_file(path: Path) -> int:
    """A descriptor of a new empty file, 0600; raises FileExistsError, also for a symlink that leads nowhere."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)


def sync(path: Path) -> None:
    """Bring a file or a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give an empty private file beside `path` to be filled; it takes that name at the end, and never replaces another.

    Raises FileExistsError when the name is taken, also when it was taken meanwhile.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(create_private_file(unfinished))
    try:
        yield unfinished
        sync(unfinished)
        _name_without_replacing(unfinished, path)
        sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _name_without_replacing(unfinished: Path, path: Path) -> None:
    try:
        os.link(unfinished, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Without hard links nothing portable refuses to replace; the name was free a moment ago.
        unfinished.rename(path)
