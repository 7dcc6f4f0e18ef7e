"""The lock of a state: an OS lock on a file beside it. It dies with its process, so nobody ever has to break it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtlsctl.errors import StateError
from mtlsctl.store import codes
from mtlsctl.store.files import PRIVATE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAUSE_SECONDS = 0.05


def lock_path(state: Path) -> Path:
    return state.with_name(state.name + ".lock")


@contextmanager
def locked(path: Path, *, timeout_seconds: float) -> Iterator[bool]:
    """Hold the lock while inside; gives False, holding nothing, when somebody else has it until the timeout.

    The file is never removed: a lock on a name that is gone would exclude nobody.
    """
    descriptor = _acquire(path, time.monotonic() + timeout_seconds)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # Unlocked by name, because a child that was forked meanwhile shares the lock with its descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _acquire(path: Path, deadline: float) -> int | None:
    while True:
        descriptor = _open(path)
        if _try(descriptor) and _is_still_named(descriptor, path):
            return descriptor
        os.close(descriptor)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_PAUSE_SECONDS)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise StateError(f"the lock file {path} cannot be opened: {error.strerror}", code=codes.UNUSABLE) from None


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        os.close(descriptor)
        raise StateError(f"the state cannot be locked: {error.strerror}", code=codes.UNUSABLE) from None
    return True


def _is_still_named(descriptor: int, path: Path) -> bool:
    """Whether the lock is on the file that others will open, not on one that was removed while we waited."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
