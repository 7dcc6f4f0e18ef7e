"""Hosts that are a folder of this machine which a shell takes for its root, and a wire to them that is a pipe."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections import deque
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FROM_HERE = ("usr", "bin", "sbin", "lib", "lib64", "proc", "dev", "sys")
_OWN = ("etc", "run", "tmp", "var/log")

_ENTER = """\
root=$1; shift
for name in $1; do
    [ ! -d "/$name" ] || mount --rbind "/$name" "$root/$name" || exit 125
done
shift
exec chroot "$root" "$@"
"""


@cache
def why_no_hosts() -> str | None:
    """Why no folder can be a host here; None when one can."""
    if os.geteuid() != 0:
        return "not root: no folder can be made a root of its own"
    ran = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return None if ran.returncode == 0 else "mount namespaces are not allowed here"


class PipeChannel:
    """A channel to a child process; see `mtlsctl.deliver.channel.Channel`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        assert self.child.stderr is not None
        self._in, self._out, self._err = self.child.stdin, self.child.stdout, self.child.stderr
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)
        self._has_complained = False
        self._complaints: deque[bytes] = deque(maxlen=8)
        self.sent = 0
        self.turns = 0
        self._sending = False

    def send(self, data: bytes, *, deadline: float) -> None:
        self.turns += not self._sending
        self._sending = True
        self.sent += len(data)
        rest = memoryview(data)
        while rest:
            self._wait(self._in.fileno(), selectors.EVENT_WRITE, deadline)
            try:
                rest = rest[os.write(self._in.fileno(), rest) :]
            except BrokenPipeError:
                raise DeliveryError("the connection was lost", code="M4301") from None

    def receive(self, limit: int, *, deadline: float) -> bytes:
        self._sending = False
        self._wait(self._out.fileno(), selectors.EVENT_READ, deadline)
        return os.read(self._out.fileno(), limit)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeliveryError("the host did not answer in time", code="M4302")
            with selectors.DefaultSelector() as ready:
                ready.register(descriptor, event)
                if not self._has_complained:
                    ready.register(self._err, selectors.EVENT_READ)
                found = {key.fd for key, _ in ready.select(left)}
            if self._err.fileno() in found:
                self._listen()
            if descriptor in found:
                return

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            if data := os.read(self._err.fileno(), 8192):
                self._complaints.append(data)
            else:
                self._has_complained = True

    def complaints(self) -> bytes:
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(0.5)
        with suppress(ValueError):  # closed
            for _ in range(4):
                self._listen()
        return b"".join(self._complaints)[-8192:]

    def close(self) -> None:
        for stream in (self._in, self._out):
            stream.close()
        try:
            self.child.wait(2)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(2)
        self._err.close()


class FolderHost:
    """A folder as a whole file system: programs are those of this machine, /etc and /run its own."""

    def __init__(self, root: Path, *, user: int | None = None, before: str = "") -> None:
        """`before` runs in the folder's namespace ahead of each session, for mounts that a test needs."""
        self.root = root
        self.channels: list[PipeChannel] = []
        self._user = user
        self._before = before
        for name in _FROM_HERE:
            (root / name).mkdir(parents=True, exist_ok=True)

    def furnish(self) -> None:
        """The folders that every system has."""
        for name in _OWN:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        users = ("root:x:0:0::/:/bin/sh", "www-data:x:33:33::/:/bin/false", "nobody:x:65534:65534::/:/bin/false")
        (self.root / "etc/passwd").write_text("".join(f"{user}\n" for user in users))
        (self.root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")

    def argv(self, command: str) -> list[str]:
        """What runs a command line in the host's login shell."""
        user = "" if self._user is None else f"--userspec={self._user}:{self._user}"
        script = self._before + _ENTER.replace("chroot", f"chroot {user}")
        names = " ".join(_FROM_HERE)
        return ["unshare", "-m", "sh", "-c", script, "sh", str(self.root), names, "/bin/sh", "-c", command]

    def dial(self, command: str) -> PipeChannel:
        self.channels.append(PipeChannel(self.argv(command)))
        return self.channels[-1]

    def close(self) -> None:
        for channel in self.channels:
            with suppress(Exception):
                channel.close()


def need_hosts() -> None:
    """Skip the test where no folder can be a host."""
    if (reason := why_no_hosts()) is not None:
        if os.environ.get("MTLSCTL_REQUIRE_PEERS"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
