"""What carries the bytes of a connection: a socket, a program, or a channel of another connection.

All have one face, the one that paramiko asks of a socket, and one property that it does not give: a deadline for what
is going on, which ends the connection also while its own thread reads or writes.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from mtlsctl.errors import DeliveryError
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES = 65536
_KEEP_IDLE_SECONDS = 30


class Raw(Protocol):
    """The part of a socket that is used here."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


class DeadlinePassed(ConnectionAbortedError):
    """A deadline passed while the connection was reading or writing; it is of no use any more."""


class Wire:
    """A connection with a deadline, read in large pieces.

    `deadline` is of `time.monotonic()`, None while nobody waits for anything. Once it has passed, the next read or
    write raises DeadlinePassed, at the latest after the timeout that was set. A host that sends a byte now and then
    does not push it away.
    """

    def __init__(self, raw: Raw, *, deadline: float, beneath: Wire | None = None) -> None:
        """`beneath` is the wire of the connection that carries this one; it gets the same deadlines."""
        self._raw = raw
        self._beneath = beneath
        self._buffer = memoryview(b"")
        self._closed = False
        self._deadline: float | None = None
        self.expired = False
        """A deadline ended it."""
        self.ended = False
        """The other side ended it."""
        self.deadline = deadline

    @property
    def deadline(self) -> float | None:
        return self._deadline

    @deadline.setter
    def deadline(self, value: float | None) -> None:
        self._deadline = value
        if self._beneath is not None:
            self._beneath.deadline = value

    def _see_deadline(self) -> None:
        deadline = self._deadline  # another thread may take it away between two looks
        if deadline is not None and time.monotonic() > deadline:
            self.expired = True
            raise DeadlinePassed(0, "the deadline passed")

    def recv(self, size: int) -> bytes:
        self._see_deadline()
        if not self._buffer:
            try:
                received = self._raw.recv(READ_BYTES)
            except TimeoutError:
                raise
            except OSError:
                self.ended = True
                raise
            self.ended = self.ended or not received
            if sys.platform == "linux" and isinstance(self._raw, socket.socket):
                # The kernel forgets it after each acknowledgement. Without it a host that waits for one, as sshd
                # does between the parts of an answer, waits 40 ms.
                with suppress(OSError):
                    self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._buffer = memoryview(received)
        taken, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return taken

    def send(self, data: bytes) -> int:
        self._see_deadline()
        return self._raw.send(data)

    def settimeout(self, seconds: float | None) -> None:
        self._raw.settimeout(seconds)

    def close(self) -> None:
        self._closed = True
        with suppress(Exception):
            if isinstance(self._raw, socket.socket):
                # Wakes a thread that waits for it, which `close` does not.
                self._raw.shutdown(socket.SHUT_RDWR)
        with suppress(Exception):
            self._raw.close()


def connect(
    host: str, port: int, *, deadline: float, family: str = "any", bind_address: str | None = None
) -> socket.socket:
    """A TCP connection, to the first of the host's addresses that answers.

    Raises OSError (`socket.gaierror` among them) or TimeoutError.
    """
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    places = _resolve(host, port, families.get(family, socket.AF_UNSPEC), deadline)
    failure: OSError = OSError(0, "it has no address")
    for number, (kind, protocol, place) in enumerate(places):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        # The last address may use all the time that is left, those before it their share.
        try:
            return _connect(kind, protocol, place, left / (len(places) - number), bind_address)
        except OSError as error:
            failure = error
    raise failure


def _connect(kind: int, protocol: int, place: tuple[object, ...], seconds: float, bind: str | None) -> socket.socket:
    made = socket.socket(kind, socket.SOCK_STREAM, protocol)
    try:
        made.settimeout(max(seconds, 0.01))
        if bind is not None:
            made.bind((bind, 0))
        made.connect(place)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE_SECONDS)
    except BaseException:
        made.close()
        raise
    return made


def _resolve(host: str, port: int, family: int, deadline: float) -> list[tuple[int, int, tuple[object, ...]]]:
    """The resolver has no deadline of its own, so it gets a thread that may be left behind."""
    found: list[tuple[int, int, tuple[object, ...]]] = []
    failed: list[OSError] = []

    def look_up() -> None:
        try:
            for kind, _, protocol, _, place in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
                found.append((kind, protocol, place))
        except OSError as error:
            failed.append(error)
        except UnicodeError:
            failed.append(socket.gaierror(socket.EAI_NONAME, "it is not a name"))

    if ":" in host or host.replace(".", "").isdecimal():
        look_up()
    else:
        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(max(deadline - time.monotonic(), 0))
        if thread.is_alive():
            raise TimeoutError("its name was not resolved in time")
    if failed:
        raise failed[0]
    return list(found)


class Child:
    """A program in a session of its own that carries the bytes: a ProxyCommand, or `ssh` itself.

    Its standard error is kept as a tail, so that it cannot block.
    """

    def __init__(self, argv: list[str], *, tail: int = 8192, environ: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603  our own arguments, or the user's configuration
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=environ,
        )
        assert self._process.stdin is not None  # noqa: S101  Popen was asked for three pipes
        assert self._process.stdout is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._error: int | None = self._process.stderr.fileno()
        for descriptor in (self._in, self._out, self._error):
            os.set_blocking(descriptor, False)
        self._timeout: float | None = None
        self._tail_bytes = tail
        self._tail = bytearray()
        self.complained = 0
        """Bytes of standard error so far, those that were dropped among them."""
        self._closed = False
        self._users = 0
        self._lock = threading.Lock()

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        with self._in_use():
            while True:
                self._wait([self._out], [], deadline)
                with suppress(BlockingIOError):
                    return os.read(self._out, size)

    def send(self, data: bytes) -> int:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        with self._in_use():
            while True:
                self._wait([], [self._in], deadline)
                with suppress(BlockingIOError):
                    return os.write(self._in, data[:READ_BYTES])

    def push(self, data: bytes) -> tuple[int, bytes]:
        """(bytes that it took, output that it had meanwhile): one of the two is not empty, unless it ended."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        with self._in_use():
            ready = self._wait([self._out], [self._in], deadline)
            sent, received = 0, b""
            if self._out in ready:
                with suppress(BlockingIOError):
                    received = os.read(self._out, READ_BYTES)
            if self._in in ready:
                with suppress(BlockingIOError):
                    sent = os.write(self._in, data[:READ_BYTES])
            return sent, received

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The pipes are closed by whoever leaves last: a number that was freed may be somebody else's by then."""
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError(0, "closed")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_pipes()

    def _close_pipes(self) -> None:
        if self._closed and not self._users:
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _wait(self, readable: list[int], writable: list[int], deadline: float | None) -> list[int]:
        """Those that are ready, at least one; raises TimeoutError. Takes in what the program complains about."""
        while True:
            if self._closed:
                raise ConnectionAbortedError(0, "closed")
            # Now and then it looks whether it was closed meanwhile.
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            poll = select.poll()
            for descriptor in readable:
                poll.register(descriptor, select.POLLIN)
            for descriptor in writable:
                poll.register(descriptor, select.POLLOUT)
            if self._error is not None:
                poll.register(self._error, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(100 if left is None else min(left * 1000, 100))]
            if self._error in ready:
                self._take_complaints()
            if any(one in ready for one in (*readable, *writable)):
                return ready
            if left == 0:
                raise TimeoutError("timed out")

    def _take_complaints(self) -> None:
        if self._error is None:
            return
        try:
            said = os.read(self._error, READ_BYTES)
        except BlockingIOError:
            return
        if not said:
            self._error = None
            return
        self.complained += len(said)
        self._tail = (self._tail + said)[-self._tail_bytes :]

    def complaints(self, *, wait_seconds: float = 0) -> bytes:
        """The end of its standard error; waits at most so long for the rest of what an ended program said."""
        deadline = time.monotonic() + wait_seconds
        with suppress(ConnectionAbortedError), self._in_use():
            while self._error is not None and time.monotonic() <= deadline + 0.1:
                poll = select.poll()
                poll.register(self._error, select.POLLIN)
                if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                    break
                self._take_complaints()
        return bytes(self._tail)

    def ended(self, *, within: float = 0) -> int | None:
        """Its exit status, None while it runs."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it and all that it started in its session; never raises, waits for at most 1.5 s."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._close_pipes()
        self._end(signal.SIGTERM)
        if self.ended(within=0.5) is None:
            self._end(signal.SIGKILL)
            self.ended(within=1)

    def _end(self, wanted: signal.Signals) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, wanted)


def unreachable(name: str, place: str, error: OSError) -> DeliveryError:
    """M4303 with the reason as the system says it."""
    if isinstance(error, socket.gaierror):
        reason = f"its name does not resolve ({error.strerror})"
    elif isinstance(error, TimeoutError):
        reason = "it did not answer in time"
    else:
        reason = error.strerror or str(error)
    return DeliveryError(f"{name} cannot be reached at {place}: {printable(reason)}", code="M4303")
