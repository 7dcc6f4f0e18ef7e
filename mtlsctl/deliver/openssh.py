"""The wire to a host by the `ssh` program, for what paramiko cannot do: hardware keys, GSSAPI, PKCS#11, ControlMaster.

The user's configuration, key exchange among it, is ssh's own affair. What is set here is what must not be otherwise:
nobody is asked, no key is accepted, nothing is forwarded.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.deliver import sockets
from mtlsctl.deliver.known_hosts import judge, look_up
from mtlsctl.deliver.process import find_program, shown_lines
from mtlsctl.deliver.reach import (
    CONNECT_SECONDS,
    DEFAULT_PORT,
    KEEPALIVE_SECONDS,
    SshOptions,
    ask,
    check_words,
    parse_hop,
    reach_host,
)
from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from mtlsctl.deliver.channel import Channel
    from mtlsctl.model.topology import SshHost

LIMIT = 64 * 1024 * 1024
HELD_LIMIT = 16 * 1024 * 1024
"""Bytes of answer that are kept while we are still sending."""

TAIL = 8192
MAX_GREETING = 64 * 1024
"""Bytes that a login shell's own start-up files may print before our program speaks."""

SSH_FAILED = 255
_END_SECONDS = 1.0

FIXED = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "Tunnel=no",
    "RequestTTY=no",
    "RemoteCommand=none",
    "EscapeChar=none",
    "LogLevel=ERROR",
)


class _Meaning(NamedTuple):
    pattern: re.Pattern[str]
    code: str
    message: str


_MEANINGS = tuple(
    _Meaning(re.compile(pattern, re.IGNORECASE), code, message)
    for pattern, code, message in (
        (r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY", "M4305", "the host key of {name} has changed"),
        (r"Host key verification failed|host key is known for", "M4304", "the host key of {name} is not known"),
        (r"Could not resolve hostname", "M4303", "{name} cannot be reached: its name does not resolve"),
        (r"Connection refused", "M4303", "{name} cannot be reached: Connection refused"),
        (r"No route to host|Network is unreachable", "M4303", "{name} cannot be reached: no route to it"),
        (r"connect to host .* timed out|Operation timed out", "M4303", "{name} cannot be reached: no answer in time"),
        (r"Permission denied \(|Too many authentication failures|No more authentication", "M4306",
         "{name} refuses the login"),
        (r"banner exchange: .*timed out|Connection timed out", "M4302", "{name} did not answer the login in time"),
        (r"Bad configuration option|bad configuration|terminating, .* bad|Bad owner or permissions", "M4314",
         "ssh does not understand its configuration"),
        (r"Unable to negotiate|no matching|invalid format|Protocol mismatch|Bad packet|authentication code|banner line",
         "M4309", "{name} does not speak SSH as it should"),
    )
)  # fmt: skip
_BEHIND_JUMP = re.compile(r"stdio forwarding failed|UNKNOWN port 65535|channel 0: open failed", re.IGNORECASE)


def dial(host: SshHost, command: str, *, options: SshOptions) -> Channel:
    """Start a command of ours on a host; see `channel.Dialler` for what it raises, and M4308 when there is no ssh."""
    check_words(host)
    program = find_program("ssh")
    if program is None:
        raise DeliveryError("there is no `ssh` here", code="M4308", help="install the OpenSSH client")
    deadline = time.monotonic() + (options.connect_seconds or CONNECT_SECONDS) + options.login_seconds
    # Says where the program's own output begins, and with that, that ssh is done with connecting.
    mark = f"mtlsctl-{secrets.token_hex(8)}"
    argv = [program, *arguments(host, options), "--", host.address, f"echo {mark}; {command}"]
    try:
        child = sockets.Child(argv, tail=TAIL, environ={**options.for_programs, "LC_ALL": "C"})
    except OSError as error:
        raise DeliveryError(f"`ssh` cannot be started: {error.strerror}", code="M4308") from None
    try:
        return _Channel(host.name, child, _await_mark(host, options, child, mark.encode() + b"\n", deadline))
    except BaseException:
        child.close()
        raise


def arguments(host: SshHost, options: SshOptions) -> list[str]:
    """The options of `ssh`, without program, destination and command. Values of the inventory are checked before."""
    argv = ["-T", *_fixed(options)]
    for one in _defaults(host, options):
        argv += ["-o", one]
    if host.port != DEFAULT_PORT:
        argv += ["-p", str(host.port)]
    if host.user is not None:
        argv += ["-l", host.user]
    if host.identity_file is not None:
        argv += ["-i", host.identity_file, "-o", "IdentitiesOnly=yes"]
    if host.jump is not None:
        argv += ["-o", f"ProxyCommand={_through(host.jump, options)}"]
    return argv


def _fixed(options: SshOptions) -> list[str]:
    given = list(FIXED)
    if options.known_hosts is not None:
        escaped = str(options.known_hosts).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
        given.append(f'UserKnownHostsFile="{escaped}"')
    argv = [] if options.config is None else ["-F", str(options.config)]
    for one in given:
        argv += ["-o", one]
    return argv


def _through(jump: str, options: SshOptions) -> str:
    """What `-J` stands for, with our options: the `ssh` that it starts gets none of them, and would accept any key."""
    hop = parse_hop(jump)
    seconds = max(round(options.connect_seconds or CONNECT_SECONDS), 1)
    argv = [find_program("ssh") or "ssh", *_fixed(options), "-o", f"ConnectTimeout={seconds}"]
    if hop.user is not None:
        argv += ["-l", hop.user]
    if hop.port is not None:
        argv += ["-p", str(hop.port)]
    escaped = (one.replace("%", "%%") for one in argv)
    return " ".join(map(shlex.quote, [*escaped, "-W", "[%h]:%p", "--", hop.host]))


def _defaults(host: SshHost, options: SshOptions) -> list[str]:
    """Times that the user's configuration leaves open; ssh itself would wait for as long as the system does."""
    try:
        said = ask(host.address, options, port=None, user=host.user).values
    except DeliveryError:
        said = {}
    given = []
    if options.connect_seconds is not None or "connecttimeout" not in said:
        given.append(f"ConnectTimeout={max(round(options.connect_seconds or CONNECT_SECONDS), 1)}")
    if "serveraliveinterval" not in said:
        given.append(f"ServerAliveInterval={KEEPALIVE_SECONDS}")
    return given


def _await_mark(host: SshHost, options: SshOptions, child: sockets.Child, mark: bytes, deadline: float) -> bytes:
    """What came after the mark already."""
    said = b""
    while mark not in said:
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeliveryError(f"{host.name} did not start our program in time", code="M4302")
        if len(said) > MAX_GREETING:
            raise DeliveryError(f"the login shell of {host.name} says too much", code="M4309")
        child.settimeout(min(left, 1))
        try:
            received = child.recv(sockets.READ_BYTES)
        except TimeoutError:
            _see_complaints(host.name, child)
            continue
        except OSError:
            received = b""
        if not received:
            raise _refused(host, options, child, said)
        said += received
    return said.partition(mark)[2]


def _refused(host: SshHost, options: SshOptions, child: sockets.Child, said: bytes) -> DeliveryError:
    """Why ssh ended before our program ran."""
    complaints = child.complaints(wait_seconds=_END_SECONDS)
    status = child.ended(within=_END_SECONDS)
    if status is not None and status != SSH_FAILED:
        return DeliveryError(
            f"{host.name} let us in but does not start our program (it ended with {status})",
            code="M4306",
            notes=shown_lines(said + complaints, most=5),
            help="is the account allowed a shell and commands (ForceCommand, a forced command in authorized_keys)?",
        )
    text = complaints.decode("utf-8", "replace")
    notes = shown_lines(complaints, most=10)
    if host.jump is not None and _BEHIND_JUMP.search(text):
        return DeliveryError(f"the jump host {host.jump} of {host.name} is in the way", code="M4311", notes=notes)
    for meaning in _MEANINGS:
        if meaning.pattern.search(text):
            break
    else:
        return DeliveryError(f"{host.name} closed the connection", code="M4301", notes=notes)
    if meaning.code in ("M4304", "M4305"):
        return _whose_key(host, options, notes, meaning.code)
    return DeliveryError(meaning.message.format(name=host.name), code=meaning.code, notes=notes)


def _whose_key(host: SshHost, options: SshOptions, notes: tuple[str, ...], code: str) -> DeliveryError:
    """The fingerprints, which ssh does not say of an unknown key: the host is asked for its key once more."""
    from mtlsctl.deliver import ssh  # noqa: PLC0415  paramiko is slow to import, and this is the rare case

    with suppress(DeliveryError):
        reach = reach_host(host, options)
        known = look_up(reach.known_hosts, reach.known_as)
        key = ssh.scan(host, options=options)
        try:
            judge(known, key, host=host.name, place=reach.place)
        except DeliveryError as error:
            return error
    changed = code == "M4305"
    return DeliveryError(
        f"the host key of {host.name} {'has changed' if changed else 'is not known'}",
        code=code,
        notes=notes,
        help=None
        if changed
        else f"compare it with the host's own (ssh-keygen -lf), then: mtlsctl hosts trust {host.name}",
    )


def _see_complaints(name: str, child: sockets.Child) -> None:
    if child.complained > LIMIT:
        raise DeliveryError(f"{name} complained for more than {LIMIT} bytes", code="M4310")


class _Channel:
    """See `channel.Channel`."""

    def __init__(self, name: str, child: sockets.Child, held: bytes) -> None:
        self._name, self._child = name, child
        self._held = bytearray(held)

    def send(self, data: bytes, *, deadline: float) -> None:
        left = memoryview(data)
        while left:
            self._wait(deadline)
            try:
                sent, received = self._child.push(bytes(left[: sockets.READ_BYTES]))
            except TimeoutError:
                continue
            except OSError:
                raise self._lost() from None
            if not sent and not received:
                raise self._lost()
            self._held += received
            if len(self._held) > HELD_LIMIT:
                raise DeliveryError(
                    f"{self._name} answered more than {HELD_LIMIT} bytes before it had heard us out", code="M4310"
                )
            left = left[sent:]

    def receive(self, limit: int, *, deadline: float) -> bytes:
        if self._held:
            taken = bytes(self._held[:limit])
            del self._held[:limit]
            return taken
        while True:
            self._wait(deadline)
            try:
                received = self._child.recv(limit)
            except TimeoutError:
                continue
            except OSError:
                raise self._lost() from None
            if not received and self._child.ended(within=_END_SECONDS) in (None, SSH_FAILED):
                raise self._lost()
            return received

    def complaints(self) -> bytes:
        return self._child.complaints(wait_seconds=0)

    def close(self) -> None:
        with suppress(Exception):
            self._child.close()

    def _wait(self, deadline: float) -> None:
        _see_complaints(self._name, self._child)
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeliveryError(f"{self._name} did not answer in time", code="M4302")
        self._child.settimeout(min(left, 1))

    def _lost(self) -> DeliveryError:
        lines = shown_lines(self._child.complaints(wait_seconds=0.2), most=3)
        return DeliveryError(f"the connection to {self._name} is lost", code="M4301", notes=lines)
