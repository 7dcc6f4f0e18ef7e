"""Programs that check and processes that reload: no shell, a deadline, and output that is not believed."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import DeliveryError
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

OUTPUT_LIMIT = 1024 * 1024
"""Bytes that a program may say before it is stopped."""

LINES_SHOWN = 20
PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where servers live that a plain user's PATH leaves out."""

POLL_SECONDS = 0.02
LAST_ACCEPT_SECONDS = 0.05
"""A worker says that it shuts down just before it closes its listening sockets; this covers the gap."""

PROC = Path("/proc")

_LINE_WIDTH = 400
_PID = re.compile(rb"[1-9][0-9]{0,6}\n?")
_BIND_REFUSED = re.compile(rb"bind\(\) to [^ ]+ failed \((?:13|99): ")
_ALSO_CALLED = {"apache2": "httpd"}
"""Programs that have another name where Debian's is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended: its exit status (negative for a signal), what it said, and why it was stopped if it was."""

    status: int
    output: bytes
    stopped: str | None = None


def find_program(name: str) -> str | None:
    """The program's absolute path, or None."""
    import shutil  # noqa: PLC0415  only an apply looks for programs

    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *PROGRAM_FOLDERS))
    return shutil.which(name, path=path)


def run_program(
    argv: Sequence[str | bytes], *, deadline_seconds: float, environ: Mapping[bytes, bytes] | None = None
) -> Ran:
    """Run it in its own session, with a bare environment (or the one given) and no input.

    Killed at the deadline or at OUTPUT_LIMIT.
    """
    with subprocess.Popen(  # noqa: S603  an absolute path and our own arguments, no shell
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"LC_ALL": "C", "PATH": os.defpath} if environ is None else dict(environ),
        start_new_session=True,
    ) as child:
        output, stopped = _drain(child, time.monotonic() + deadline_seconds)
        if stopped is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return Ran(status=child.wait(), output=output, stopped=stopped)


def _drain(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, str | None]:
    assert child.stdout is not None  # noqa: S101  Popen was asked for a pipe
    output = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not ready.select(left):
                break
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                return bytes(output), None
            output += chunk
            if len(output) > OUTPUT_LIMIT:
                return bytes(output[:OUTPUT_LIMIT]), f"it said more than {OUTPUT_LIMIT} bytes"
    return bytes(output), "it did not end in time"


def raise_unless_good(ran: Ran, command: str) -> None:
    """Raise DeliveryError M4201 with the last of what the program said, unless it ended well."""
    if ran.stopped is None and ran.status == 0:
        return
    why = ran.stopped or f"it ended with {ran.status}"
    raise DeliveryError(
        f"`{command}` refuses the staged configuration ({why})",
        code="M4201",
        notes=shown_lines(ran.output),
        help="nothing was switched",
    )


def is_only_bind_refused(output: bytes) -> bool:
    """Whether nginx accepted every file and only this machine or user lacks the port or address."""
    faults = [line for line in output.splitlines() if b"[emerg]" in line]
    return bool(faults) and all(_BIND_REFUSED.search(line) for line in faults)


def shown_lines(output: bytes, *, most: int = LINES_SHOWN) -> tuple[str, ...]:
    """The last lines of what a program said, control characters escaped, long lines cut."""
    lines = [line for line in output.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    return tuple(printable(line)[:_LINE_WIDTH] for line in lines[-most:])


def parse_pid(content: bytes, shown: str) -> int:
    """The number in a pid file: digits and nothing else, above 1; raises DeliveryError M4202."""
    if _PID.fullmatch(content) is None or int(content) <= 1:
        raise DeliveryError(f"{shown} does not hold a process number", code="M4202")
    return int(content)


class Running:
    """A process that certainly is the program asked for: a signal cannot reach a later owner of its number."""

    def __init__(self, pid: int, program: str) -> None:
        """Raises ProcessLookupError when it does not run, DeliveryError M4202 when it is another program."""
        self.pid = pid
        self._descriptor = _open_pid(pid)
        try:
            _check_program(pid, program)
        except BaseException:
            self.close()
            raise

    def hang_up(self) -> None:
        """Send SIGHUP; raises as `send` does."""
        self.send(signal.SIGHUP)

    def send(self, wanted: signal.Signals) -> None:
        """Send a signal; raises ProcessLookupError when it ended meanwhile, DeliveryError M4202 when it would end it.

        Many processes are called `node`. One that does not wait for SIGHUP is ended by it, so it is not sent there.
        """
        if not _catches(self.pid, wanted):
            raise DeliveryError(
                f"process {self.pid} has no handler for {wanted.name}; it was not signalled",
                code="M4202",
                help="is the pid file of this process, and does its program follow new releases?",
            )
        if self._descriptor is not None and sys.platform == "linux":
            signal.pidfd_send_signal(self._descriptor, wanted)
        else:
            os.kill(self.pid, wanted)

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            return not _describe(self.pid)[2]
        except ProcessLookupError:
            return False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _catches(pid: int, wanted: signal.Signals) -> bool:
    """Whether the process has a handler for a signal (`SigCgt` in `/proc/PID/status`); unknown counts as yes."""
    if sys.platform != "linux":
        return True
    try:
        status = (PROC / str(pid) / "status").read_text("utf-8", "backslashreplace")
    except FileNotFoundError:
        raise ProcessLookupError from None
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (wanted - 1) & 1)


def _open_pid(pid: int) -> int | None:
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    os.kill(pid, 0)
    return None


def _check_program(pid: int, program: str) -> None:
    names, user, is_dead = _describe(pid)
    if is_dead:
        raise ProcessLookupError
    if names.isdisjoint({program[:15], program, _ALSO_CALLED.get(program, program)}):
        shown = printable(min(names))
        raise DeliveryError(f"process {pid} is {shown}, not {program}; it was not signalled", code="M4202")
    if os.geteuid() not in {0, user}:
        raise DeliveryError(f"process {pid} belongs to user {user}; it was not signalled", code="M4202")


def _describe(pid: int) -> tuple[frozenset[str], int, bool]:
    """(what the kernel calls the program, its user, whether it is a zombie)."""
    if sys.platform != "linux":
        return _describe_with_ps(pid)
    folder = PROC / str(pid)
    try:
        names = {folder.joinpath("comm").read_text("utf-8", "backslashreplace").rstrip("\n")}
        user = folder.stat().st_uid
        state = _stat_fields(pid)[0]
    except FileNotFoundError:
        raise ProcessLookupError from None
    # Node names its main thread as it likes; the program that was started is the more stable name.
    with suppress(OSError):
        names.add(folder.joinpath("exe").readlink().name.removesuffix(" (deleted)"))
    return frozenset(names), user, state in {"Z", "X"}


def _describe_with_ps(pid: int) -> tuple[frozenset[str], int, bool]:
    ran = run_program(["/bin/ps", "-p", str(pid), "-o", "uid=,state=,comm="], deadline_seconds=5)
    fields = ran.output.decode("utf-8", "backslashreplace").split(None, 2)
    if len(fields) != 3:  # noqa: PLR2004  the three that were asked for
        raise ProcessLookupError
    return frozenset({Path(fields[2].strip()).name}), int(fields[0]), fields[1].startswith("Z")


def _stat_fields(pid: int) -> list[str]:
    """`/proc/PID/stat` from the state on: the name before it is in brackets and may hold anything."""
    return (PROC / str(pid) / "stat").read_text("utf-8", "backslashreplace").rpartition(")")[2].split()


def children(parent: int) -> frozenset[tuple[int, str]]:
    """(pid, start time) of each child of a process that has not ended."""
    return frozenset(_children(parent))


def _children(parent: int) -> Iterator[tuple[int, str]]:
    for folder in PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        with suppress(OSError, IndexError):
            fields = _stat_fields(int(folder.name))
            if int(fields[1]) == parent and fields[0] != "Z":
                yield int(folder.name), fields[19]


def nginx_workers(master: int) -> dict[tuple[int, str], bool]:
    """(pid, start time) of each worker of a master -> whether it still accepts connections."""
    workers: dict[tuple[int, str], bool] = {}
    for child in children(master):
        with suppress(OSError):
            title = (PROC / str(child[0]) / "cmdline").read_bytes()
            if b"worker process" in title:
                workers[child] = b"shutting down" not in title
    return workers


def hang_up_master(running: Running, *, deadline_seconds: float) -> None:
    """Send SIGHUP to an nginx master and wait until none of the workers that it had accepts any more.

    nginx keeps old workers accepting for about 100 ms after the new ones have started. Whoever trusts that the
    reload is over in that window can still be served the old certificate, or be refused by the old trust.
    Raises DeliveryError M4203 when the workers never change: then the master kept its old configuration.
    """
    if sys.platform != "linux":
        running.hang_up()
        return
    before = nginx_workers(running.pid)
    running.hang_up()
    if not _await(lambda: _are_replaced(before, nginx_workers(running.pid)), deadline_seconds):
        raise DeliveryError(
            f"nginx (process {running.pid}) did not take up the new configuration within {deadline_seconds:g} s",
            code="M4203",
            notes=("its master kept the old workers, which means that it refused what it read",),
            help="look at the end of its error log",
        )
    time.sleep(LAST_ACCEPT_SECONDS)


def _are_replaced(before: dict[tuple[int, str], bool], now: dict[tuple[int, str], bool]) -> bool:
    accepting = {worker for worker, accepts in now.items() if accepts}
    return bool(accepting) and accepting.isdisjoint(before)


def _await(holds: Callable[[], bool], deadline_seconds: float) -> bool:
    deadline = time.monotonic() + deadline_seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
