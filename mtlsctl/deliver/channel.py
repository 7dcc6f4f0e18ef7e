"""A program that runs on a host, at the other end of a wire. `tests/contract/channel.py` is what every wire passes."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """A program that runs on a host: what it reads, what it writes, and the end of what it complained about.

    Deadlines are seconds of `time.monotonic()`. What a host says is data and never believed: whoever shows it
    escapes it first. A channel belongs to one thread, apart from `close`.
    """

    def send(self, data: bytes, *, deadline: float) -> None:
        """All of it, or raises DeliveryError M4301 (the connection is lost) or M4302 (the deadline passed)."""

    def receive(self, limit: int, *, deadline: float) -> bytes:
        """From 1 to `limit` bytes of its standard output; b"" at the end. Raises as `send` does."""

    def complaints(self) -> bytes:
        """The last 8 KiB of its standard error, as it came."""

    def close(self) -> None:
        """End program and connection; never raises, never blocks for more than 2 s."""


class Dialler(Protocol):
    """The way to one host."""

    def __call__(self, command: str) -> Channel:
        """Connect, see that the host is the one that is known, log in, and start a command of ours in its login shell.

        Raises DeliveryError: M4303 unreachable, M4304 host key unknown, M4305 host key changed, M4306 login refused,
        M4311 the jump host is in the way, and M4301, M4302 as a channel does.
        """
