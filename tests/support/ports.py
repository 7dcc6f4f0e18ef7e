"""Ports for programs that tests start: no two tests of this machine get the same, whichever process they run in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path

EVERYWHERE = ""

_TURN = Path(tempfile.gettempdir()) / f"mtlsctl-tests-{os.getuid()}.port"
"""Holds the port that was given last."""


def free_port(address: str = EVERYWHERE) -> int:
    """A port that nothing listens at, at this address, and that is given again only after all others.

    A program is told its port some time before it listens there, so looking whether a port is free is not enough: in
    between another test may look too, and a caller may get it for its end of a connection. So ports are given in turn,
    and none of those that callers get.
    """
    fd = os.open(_TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        ports = _never_callers()
        last = turn.read(8).strip()
        at = int(last) + 1 if last.isdigit() else ports.start
        for _ in ports:
            port = at if at in ports else ports.start
            at = port + 1
            if _is_free(address, port):
                turn.seek(0)
                turn.write(f"{port:<8}")
                return port
    raise AssertionError(f"all of {ports} are taken")


def _is_free(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server((address, port)):
        return True
    return False


def _never_callers() -> range:
    """What lies below the ports that the system gives to callers, as far as it says which those are."""
    first = 32_768
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return range(10_000, first if first > 12_000 else 32_768)
