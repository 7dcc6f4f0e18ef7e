"""Files of the operator that are read whole: plain ones, of a size that they can have."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class NotPlain(OSError):
    """It is no file, or too large to be what it is taken for."""

    def __init__(self, what: str) -> None:
        super().__init__(0, what)


def read_plain(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """The content and what the system says of the file; never waits, as a pipe would make it. Raises OSError.

    /dev/null is an empty file, as it is for ssh.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            if stat.S_ISCHR(found.st_mode) and str(path) == os.devnull:
                return b"", found
            raise NotPlain("it is not a file")
        if found.st_size > limit:
            raise NotPlain(f"it is larger than {limit} bytes")
        content = b""
        while piece := os.read(descriptor, limit + 1 - len(content)):
            content += piece
        if len(content) > limit:
            raise NotPlain(f"it is larger than {limit} bytes")
        return content, found
    finally:
        os.close(descriptor)
