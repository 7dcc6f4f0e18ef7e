"""Apache httpd: asked in every way that cannot end it whether it would take a configuration, before it is told to.

A graceful restart that fails ends the whole server, and `apache2 -t` passes much of what only a start refuses: a key
that does not match, a cipher that this OpenSSL does not have, a port that is taken. So before the switch a server of
our own is started with the staged files, and every place where the real one would newly listen is tried; and before the
signal the real one's whole configuration is tested, as its own command line and environment read it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.deliver.process import (
    LAST_ACCEPT_SECONDS,
    POLL_SECONDS,
    PROC,
    Ran,
    children,
    find_program,
    raise_unless_good,
    run_program,
    shown_lines,
)
from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtlsctl.deliver.process import Running

PROGRAMS = ("apache2", "httpd")
"""What the same program is called on Debian, and everywhere else."""

_MODULE_FOLDERS = (
    "/usr/lib/apache2/modules",
    "/usr/lib64/httpd/modules",
    "/usr/lib/httpd/modules",
    "/usr/local/apache2/modules",
    "/usr/libexec/apache2",
    "/usr/local/libexec/apache24",
)
_MODULES = (
    "authn_core",
    "authz_core",
    "version",
    "unixd",
    "alias",
    "headers",
    "ssl",
    "proxy",
    "proxy_http",
    "slotmem_shm",
    "lbmethod_byrequests",
    "proxy_balancer",
)
_MPMS = ("event", "worker", "prefork")

_TRIAL = """\
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/pid"
ErrorLog "{folder}/error.log"
LogLevel notice
ServerName localhost
StartServers 1
{modules}
<IfModule mod_unixd.c>
    User #65534
    Group #65534
</IfModule>
Listen 127.0.0.1:{port}
Include "{folder}/pointer.conf"
"""
_IS_UP = b"resuming normal operations"
_CANNOT_BIND = b"AH00072"
_LISTEN = re.compile(rb'^Listen "(?:(?P<address>\[[0-9A-Fa-f:.]+\]|[^":]+):)?(?P<port>[0-9]{1,5})".*\n', re.MULTILINE)

Place = tuple[str | None, int]
"""An address, or None for all of them, and a port."""


def find_apache() -> str | None:
    """The program's absolute path under either name, or None."""
    return next((found for name in PROGRAMS if (found := find_program(name)) is not None), None)


# --- before the switch ----------------------------------------------------------------------------------------------


def try_configuration(program: str, pointer: bytes, folder: Path, *, deadline_seconds: float) -> str | None:
    """Test the pointer file, then start a server of our own with it in an empty folder, and end that again.

    Of all that it would listen on it opens one free port of 127.0.0.1. No root is needed. Gives None when it is good,
    else why it was not started. Raises DeliveryError M4201 with what it said.
    """
    modules = module_folder()
    if modules is None:
        return "the modules of Apache were not found: it was not tried"
    (folder / "pointer.conf").write_bytes(without_listen(pointer))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    text = _TRIAL.format(folder=folder, modules="\n".join(_load_lines(modules)), port=port)
    (folder / "apache.conf").write_text(text)
    argv = [program, "-f", str(folder / "apache.conf")]
    raise_unless_good(run_program([*argv, "-t"], deadline_seconds=deadline_seconds), "apache2 -t")
    ran = _start_and_end([*argv, "-DFOREGROUND"], folder, deadline_seconds=deadline_seconds)
    if ran.status != 0 and is_only_unbound(ran.output):
        return "apache2 read it all, but could not bind a port of 127.0.0.1 to be tried at"
    raise_unless_good(ran, "apache2")
    return None


def without_listen(pointer: bytes) -> bytes:
    """A pointer file of ours that opens no port."""
    return _LISTEN.sub(b"", pointer)


def is_only_unbound(output: bytes) -> bool:
    """Whether a start failed because it could not have the one port that it was to open."""
    return _CANNOT_BIND in output


def module_folder() -> Path | None:
    """Where this machine's Apache has its modules."""
    return next((Path(one) for one in _MODULE_FOLDERS if Path(one, "mod_ssl.so").is_file()), None)


def _load_lines(modules: Path) -> Iterator[str]:
    """What is there and not built in. A program holds one MPM and no second."""
    mpm = next((name for name in _MPMS if (modules / f"mod_mpm_{name}.so").is_file()), None)
    if mpm is not None:
        yield from (f"<IfModule !mpm_{name}_module>" for name in _MPMS)
        yield f'LoadModule mpm_{mpm}_module "{modules}/mod_mpm_{mpm}.so"'
        yield from ("</IfModule>" for _ in _MPMS)
    for name in _MODULES:
        if (modules / f"mod_{name}.so").is_file():
            yield f'<IfModule !{name}_module>\nLoadModule {name}_module "{modules}/mod_{name}.so"\n</IfModule>'


def _start_and_end(argv: Sequence[str], folder: Path, *, deadline_seconds: float) -> Ran:
    """Status 0 when it came up; it is gone afterwards, its children too."""
    said, log = folder / "said", folder / "error.log"
    with (
        said.open("wb") as output,
        subprocess.Popen(  # noqa: S603  an absolute path and our own arguments, no shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"LC_ALL": "C", "PATH": os.defpath},
            start_new_session=True,
        ) as child,
    ):
        deadline = time.monotonic() + deadline_seconds
        try:
            while (is_running := child.poll() is None) and not (is_up := _holds(log, _IS_UP)):
                if time.monotonic() > deadline:
                    return Ran(status=1, output=_read(said) + _read(log), stopped="it did not start in time")
                time.sleep(POLL_SECONDS)
        finally:
            _end(child)
    return Ran(status=0 if is_running and is_up else child.returncode or 1, output=_read(said) + _read(log))


def _end(child: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, how)
        with suppress(subprocess.TimeoutExpired):
            child.wait(2)


def _holds(file: Path, text: bytes) -> bool:
    return text in _read(file)


def _read(file: Path) -> bytes:
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return b""


def places_of(pointer: bytes) -> frozenset[Place]:
    """Where a pointer file of ours makes Apache listen."""
    return frozenset(
        (
            None if found["address"] is None else found["address"].decode("ascii", "replace").strip("[]"),
            int(found["port"]),
        )
        for found in _LISTEN.finditer(pointer)
    )


def places_open(pid: int) -> frozenset[Place]:
    """Where a process listens now, so that it can go on doing so."""
    own = frozenset(_sockets(pid))
    return frozenset(place for inode, place in _listening(pid) if inode in own)


def refuse_taken(now: frozenset[Place], pointer: bytes) -> None:
    """Raise DeliveryError M4201 when Apache could not listen at a place where it does not listen now.

    Then a graceful restart would end it: when another program has the port, when the address is not one of this
    machine, and when Apache itself has the port open for every address, or for one of them where it now wants all.
    What only root may bind is left to Apache.
    """
    added = sorted(places_of(pointer) - now, key=str)
    problems = [problem for place in added if (problem := _taken(place)) is not None]
    if problems:
        raise could_not_listen(problems)


def could_not_listen(problems: Sequence[str]) -> DeliveryError:
    """The refusal of places that are taken."""
    return DeliveryError(
        "Apache could not listen where it should, and a graceful restart that fails ends it",
        code="M4201",
        notes=problems,
        help="nothing was switched; use a free port, or stop what has it",
    )


def _taken(place: Place) -> str | None:
    address, port = place
    wanted = [(family, any_address) for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))]  # noqa: S104  tried, never listened at
    if address is not None:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            return f"{address} has no address"
        wanted = [(family, str(place[0])) for family, _, _, _, place in found]
    return next((problem for family, host in wanted if (problem := _cannot_bind(family, host, port))), None)


def _cannot_bind(family: socket.AddressFamily, host: str, port: int) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tried.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} at {host} is already open"
        if error.errno == errno.EADDRNOTAVAIL and host not in ("0.0.0.0", "::"):  # noqa: S104  compared
            return f"{host} is not an address of this machine"
    return None


# --- the signal -----------------------------------------------------------------------------------------------------


def restart_gracefully(running: Running, *, deadline_seconds: float) -> None:
    """Test the whole configuration, send SIGUSR1, and wait until only new children accept connections.

    Raises DeliveryError M4203 when Apache would refuse its configuration (then it is not signalled) or does not take it
    up, M4202 when it cannot be asked, M4205 when it ended.
    """
    if sys.platform != "linux":
        raise DeliveryError(
            f"how process {running.pid} was started cannot be read here; it was not signalled",
            code="M4202",
            help="restart it gracefully yourself: apachectl configtest && apachectl graceful",
        )
    _test_own_configuration(running, deadline_seconds=deadline_seconds)
    before = children(running.pid)
    running.send(signal.SIGUSR1)
    deadline = time.monotonic() + deadline_seconds
    while not _is_taken_up(running.pid, before):
        if not running.is_alive():
            raise DeliveryError(
                f"Apache (process {running.pid}) ended when it was to take up the new configuration",
                code="M4205",
                help="look at the end of its error log, then start it: what it had before is in place again",
            )
        if time.monotonic() > deadline:
            raise DeliveryError(
                f"Apache (process {running.pid}) did not take up the new configuration within {deadline_seconds:g} s",
                code="M4203",
                notes=("children with the old configuration still accept connections",),
                help="look at the end of its error log",
            )
        time.sleep(POLL_SECONDS)
    time.sleep(LAST_ACCEPT_SECONDS)


def _test_own_configuration(running: Running, *, deadline_seconds: float) -> None:
    """`-t` with the process's own arguments and environment, which is what it is going to read.

    Only where the process is ours and runs the program that is found here: its arguments name modules to be loaded, so
    root must not take them from anybody else.
    """
    program = find_apache()
    folder = PROC / str(running.pid)
    try:
        is_same = program is not None and (folder / "exe").samefile(program)
        is_ours = folder.stat().st_uid == os.geteuid()
        argv = (folder / "cmdline").read_bytes().split(b"\0")[1:-1]
        environ = (folder / "environ").read_bytes().split(b"\0")
    except FileNotFoundError:
        raise ProcessLookupError from None
    if program is None or not is_same or not is_ours:
        why = "runs a program that is not the one found here" if is_ours else "belongs to another user"
        raise DeliveryError(
            f"process {running.pid} {why}, so its configuration cannot be tested; it was not signalled", code="M4202"
        )
    environment = dict(one.split(b"=", 1) for one in environ if b"=" in one and not one.startswith(b"LD_"))
    ran = run_program(
        [program.encode(), b"-t", *_without_verbs(argv)], deadline_seconds=deadline_seconds, environ=environment
    )
    if ran.stopped is not None or ran.status != 0:
        raise DeliveryError(
            f"Apache (process {running.pid}) would refuse its configuration; it was not signalled",
            code="M4203",
            notes=shown_lines(ran.output),
            help="mend what it names, or look whether a module is missing, then run the same command again",
        )


def _without_verbs(argv: Sequence[bytes]) -> Iterator[bytes]:
    """Arguments that say where to read, not those that say what to do: `-k start`, `-X`, `-DFOREGROUND`."""
    rest = iter(argv)
    for one in rest:
        if one == b"-k":
            next(rest, None)
        elif one == b"-D":
            name = next(rest, b"")
            if name != b"FOREGROUND":
                yield from (one, name)
        elif one not in (b"-X", b"-DFOREGROUND") and not one.startswith(b"-k"):
            yield one


def _is_taken_up(parent: int, before: frozenset[tuple[int, str]]) -> bool:
    """Whether a new child accepts connections, and none of those that were there before does."""
    listening = frozenset(inode for inode, _ in _listening(parent))
    accepting = {child for child in children(parent) if _accepts(child[0], listening)}
    return bool(accepting) and accepting.isdisjoint(before)


def _accepts(pid: int, listening: frozenset[str]) -> bool:
    """Whether a child has a listening socket open. One of a single thread that serves somebody does not go back to it:
    it sees that it is of an old generation when it is done.
    """
    with suppress(OSError):
        sockets = set(_sockets(pid))
        is_busy = len(list((PROC / str(pid) / "task").iterdir())) == 1 and bool(sockets - listening)
        return bool(sockets & listening) and not is_busy
    return False


def _listening(pid: int) -> Iterator[tuple[str, Place]]:
    """(inode, place) of every socket that listens in the process's network (`/proc/PID/net/tcp`, state 0A)."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / str(pid) / "net" / name).read_text("ascii", "replace").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    address, port = fields[1].split(":")
                    yield fields[9], (_address(address), int(port, 16))


def _address(text: str) -> str | None:
    """An address in words of four bytes, each in the machine's order; None for all of them."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return None if address.is_unspecified else str(address)


def _sockets(pid: int) -> Iterator[str]:
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
