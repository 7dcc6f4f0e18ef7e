"""The wire to a host by paramiko. No other module imports it, and this one is imported when a host is dialled.

paramiko believes the other side in more than a hostile host deserves: it waits without end for an answer to `exec`,
reads a packet of any length, keeps what comes over the window, and takes a banner of any size. What is tightened here
is marked; tests/integration/test_hostile_ssh.py holds each to it.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import paramiko
from paramiko.agent import AgentKey, AgentSSH
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.pkey import PublicBlob
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from mtlsctl.deliver import sockets
from mtlsctl.deliver.host_certificate import UnreadableCertificate, read_certificate
from mtlsctl.deliver.known_hosts import CERTIFICATE_SUFFIX, HostKey, Known, judge, kind_of, look_up
from mtlsctl.deliver.plain_files import NotPlain, read_plain
from mtlsctl.deliver.process import shown_lines
from mtlsctl.deliver.reach import DEFAULT_PORT, MAX_JUMPS, Hop, Reach, SshOptions, reach_hop, reach_host
from mtlsctl.deliver.ssh_config import USE_OPENSSH, matches_pattern
from mtlsctl.errors import DeliveryError
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mtlsctl.deliver.channel import Channel
    from mtlsctl.model.topology import SshHost

LIMIT = 64 * 1024 * 1024
"""Bytes that a host may complain before the connection is given up."""

HELD_LIMIT = 16 * 1024 * 1024
"""Bytes of answer that are kept while we are still sending."""

TAIL = 8192
WINDOW = 2 * 1024 * 1024
MAX_PACKET = 256 * 1024
"""As OpenSSH has it; RFC 4253 section 6.1 asks for 35,000."""

MAX_BANNER = 16 * 1024
MAX_KEY_FILE = 256 * 1024
MAX_EXTENSIONS = 64
MAX_KEYS_TRIED = 20

_SLICE = 0.25
_DRAIN_SLICE = 0.02
_CLOSE_SECONDS = 1.0

# Nothing that a host says reaches the log of whoever uses us, and nothing is printed for want of a log.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

KEX: Final = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    # A finite field costs ten times the work of a curve, so it comes last.
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
MACS: Final = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
KEYS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""For host keys and for logging in. Not `ssh-rsa`: that is SHA-1."""


def dial(host: SshHost, command: str, *, options: SshOptions) -> Channel:
    """Start a command of ours on a host; see `channel.Dialler` for what it raises."""
    reach = reach_host(host, options)
    deadline = time.monotonic() + reach.connect_seconds + options.login_seconds
    connection = _connect(reach, options, deadline=deadline)
    try:
        return _start(connection, command, deadline=deadline)
    except BaseException:
        connection.close()
        raise


def scan(host: SshHost, *, options: SshOptions) -> HostKey:
    """The key that a host shows, without a login and without believing it; a jump host on the way is believed or not.

    Raises DeliveryError as `dial` does, except for what is wrong with this key.
    """
    reach = reach_host(host, options)
    deadline = time.monotonic() + reach.connect_seconds + options.login_seconds
    connection = _greet(reach, options, look_up(reach.known_hosts, reach.known_as), deadline=deadline, depth=0)
    try:
        return _plain(_shown_key(connection.transport))
    finally:
        connection.close()


# --- a connection ---------------------------------------------------------------------------------------------------


class _Connection(NamedTuple):
    """A transport, what carries it, and the connection that carries that when there is a jump host."""

    reach: Reach
    transport: _Transport
    wire: sockets.Wire
    beneath: _Connection | None

    def close(self) -> None:
        self.wire.deadline = time.monotonic() + _CLOSE_SECONDS
        with suppress(Exception):
            self.transport.close()
        self.wire.close()
        if self.beneath is not None:
            self.beneath.close()
        with suppress(RuntimeError):
            self.transport.join(_CLOSE_SECONDS / MAX_JUMPS)

    def failure(self, step: str, met: Exception | None = None) -> DeliveryError:
        """What the end of a connection means: the deadline, the other side, or what it said."""
        reason = met or self.transport.get_exception()
        name = self.reach.name
        if self.wire.expired:
            return DeliveryError(f"{name} did not {step} in time", code="M4302")
        said = str(reason) if isinstance(reason, SSHException) else ""
        if said and not (self.wire.ended and said.startswith("Error reading SSH protocol banner")):
            notes = shown_lines(said.encode("utf-8", "replace"), most=5)
            return DeliveryError(f"{name} does not speak SSH as it should", code="M4309", notes=notes)
        if self.wire.ended or reason is None or isinstance(reason, (EOFError, OSError)):
            why = f": {printable(reason.strerror)}" if isinstance(reason, OSError) and reason.strerror else ""
            return DeliveryError(f"{name} closed the connection before it could {step}{why}", code="M4301")
        return DeliveryError(
            f"{name} does not speak SSH as it should", code="M4309", notes=(printable(repr(reason))[:400],)
        )


class _Packetizer(Packetizer):
    """Tightened: no packet above MAX_PACKET, no banner above MAX_BANNER, no timer that outlives the connection."""

    _banner = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: FBT001, FBT002  paramiko's
        if n > MAX_PACKET:
            raise SSHException(f"a packet of {n} bytes")
        return bytes(super().read_all(n, check_rekey))

    def _read_timeout(self, timeout: float) -> bytes:
        received = bytes(super()._read_timeout(timeout))  # type: ignore[misc]
        self._banner += len(received)
        if self._banner > MAX_BANNER:
            raise SSHException(f"more than {MAX_BANNER} bytes before the first packet")
        return received

    def start_handshake(self, timeout: float) -> None:
        """The wire's deadline does it, without a thread."""


class _Transport(paramiko.Transport):
    """Tightened: see the parts."""

    def __init__(self, wire: sockets.Wire, *, keys: Sequence[str]) -> None:
        super().__init__(
            cast("socket.socket", wire),  # paramiko asks for no more of a socket than a Wire has
            default_window_size=WINDOW,
            packetizer_class=_Packetizer,
        )
        self.banner_timeout = self.handshake_timeout = self.auth_timeout = 86_400
        self.host_keys = tuple(keys)
        self.shown: bytes | None = None
        self.ends_said = False
        """The other side ended the program's output, or the channel: not the connection."""
        handlers = dict(paramiko.Transport._channel_handler_table)  # type: ignore[attr-defined]  # noqa: SLF001
        self._handlers_before = dict(handlers)
        handlers[paramiko.common.MSG_CHANNEL_DATA] = self._feed
        handlers[paramiko.common.MSG_CHANNEL_EXTENDED_DATA] = self._feed_extended
        handlers[paramiko.common.MSG_CHANNEL_EOF] = self._end
        handlers[paramiko.common.MSG_CHANNEL_CLOSE] = self._end_all
        self._channel_handler_table = handlers

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Just those that were asked for: paramiko adds certificates that it would not check."""
        return self.host_keys

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        """Tightened: the signature is of the algorithm that was agreed on, so not SHA-1 where SHA-2 was."""
        if kind_of(sig) != str(self.host_key_type).removesuffix(CERTIFICATE_SUFFIX):
            raise SSHException("the host key's signature is of another algorithm than was agreed on")
        super()._verify_key(host_key, sig)  # type: ignore[misc]
        self.shown = host_key

    def _parse_ext_info(self, msg: Message) -> None:
        """Tightened: a count of four thousand million is refused instead of counted."""
        start = msg.packet.tell()
        if msg.get_int() > MAX_EXTENSIONS:
            raise SSHException("too many extensions")
        msg.packet.seek(start)
        super()._parse_ext_info(msg)  # type: ignore[misc]

    def _see_window(self, channel: paramiko.Channel) -> None:
        held = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if held > WINDOW + MAX_PACKET:
            raise SSHException("more data than the window allows")

    def _feed(self, channel: paramiko.Channel, message: Message) -> None:
        self._handlers_before[paramiko.common.MSG_CHANNEL_DATA](channel, message)
        self._see_window(channel)

    def _feed_extended(self, channel: paramiko.Channel, message: Message) -> None:
        self._handlers_before[paramiko.common.MSG_CHANNEL_EXTENDED_DATA](channel, message)
        self._see_window(channel)

    def _end(self, channel: paramiko.Channel, message: Message) -> None:
        self.ends_said = True
        self._handlers_before[paramiko.common.MSG_CHANNEL_EOF](channel, message)

    def _end_all(self, channel: paramiko.Channel, message: Message) -> None:
        self.ends_said = True
        self._handlers_before[paramiko.common.MSG_CHANNEL_CLOSE](channel, message)


if "curve25519-sha256@libssh.org" in paramiko.Transport._kex_info:  # type: ignore[attr-defined]  # noqa: SLF001
    # One exchange under two names; RFC 8731 gave it the one that paramiko does not know.
    _Transport._kex_info = {  # type: ignore[attr-defined]  # noqa: SLF001
        **paramiko.Transport._kex_info,  # type: ignore[attr-defined]  # noqa: SLF001
        "curve25519-sha256": paramiko.Transport._kex_info["curve25519-sha256@libssh.org"],  # type: ignore[attr-defined]  # noqa: SLF001
    }


def _connect(reach: Reach, options: SshOptions, *, deadline: float, depth: int = 0) -> _Connection:
    """Connected, the host key checked, logged in."""
    known = look_up(reach.known_hosts, reach.known_as)
    connection = _greet(reach, options, known, deadline=deadline, depth=depth)
    try:
        _check_host_key(connection, known)
        _log_in(connection, deadline=deadline)
        connection.transport.set_keepalive(reach.keepalive_seconds)
    except BaseException:
        connection.close()
        raise
    connection.wire.deadline = None
    return connection


def _greet(reach: Reach, options: SshOptions, known: Known, *, deadline: float, depth: int) -> _Connection:
    """Connected, keys exchanged; nobody is believed yet."""
    # Before the socket: what is wrong with the configuration is said without a host.
    kex, ciphers, macs = (
        _allowed(reach, ("kexalgorithms",), KEX, _Transport._kex_info),  # type: ignore[attr-defined]  # noqa: SLF001
        _allowed(reach, ("ciphers",), CIPHERS, paramiko.Transport._cipher_info),  # type: ignore[attr-defined]  # noqa: SLF001
        _allowed(reach, ("macs",), MACS, paramiko.Transport._mac_info),  # type: ignore[attr-defined]  # noqa: SLF001
    )
    keys = _host_key_algorithms(reach, known)
    logins = _allowed(reach, ("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes"), KEYS, KEYS)
    raw, beneath = _carrier(reach, options, deadline=deadline, depth=depth)
    wire = sockets.Wire(raw, deadline=deadline, beneath=beneath.wire if beneath else None)
    try:
        transport = _Transport(wire, keys=keys)
        transport._preferred_kex, transport._preferred_ciphers = kex, ciphers  # type: ignore[attr-defined]  # noqa: SLF001
        transport._preferred_macs, transport._preferred_pubkeys = macs, logins  # type: ignore[attr-defined]  # noqa: SLF001
        connection = _Connection(reach, transport, wire, beneath)
        done = threading.Event()
        transport.start_client(event=done)
    except BaseException:
        wire.close()
        if beneath is not None:
            beneath.close()
        raise
    if not done.wait(max(deadline - time.monotonic(), 0) + 1):
        wire.expired = True
    if not (transport.is_active() and transport.initial_kex_done) or wire.expired:
        failure = _complained(raw, connection.failure("agree on keys"))
        connection.close()
        raise failure
    return connection


def _complained(raw: sockets.Raw, failure: DeliveryError) -> DeliveryError:
    """With what a ProxyCommand said before it ended."""
    if isinstance(raw, sockets.Child) and (lines := shown_lines(raw.complaints(wait_seconds=0.2), most=5)):
        failure.notes = (*failure.notes, "its ProxyCommand says:", *lines)
    return failure


def _carrier(
    reach: Reach, options: SshOptions, *, deadline: float, depth: int
) -> tuple[sockets.Raw, _Connection | None]:
    if reach.proxy_command is not None:
        shell = options.environ.get("SHELL") or "/bin/sh"
        try:
            return sockets.Child([shell, "-c", f"exec {reach.proxy_command}"], environ=options.for_programs), None
        except OSError as error:
            raise sockets.unreachable(reach.name, reach.place, error) from None
    jumps = reach.jumps
    if jumps and depth == 0:
        return _through(reach, jumps, options, deadline=deadline, depth=depth)
    if jumps:
        # A jump host that itself needs one; `Host *` with a ProxyJump means all hosts but the jump host.
        further = tuple(one for one in jumps if one.host != reach.name)
        if further:
            return _through(reach, further, options, deadline=deadline, depth=depth)
    until = min(deadline, time.monotonic() + reach.connect_seconds)
    try:
        return sockets.connect(
            reach.hostname, reach.port, deadline=until, family=reach.family, bind_address=reach.bind_address
        ), None
    except OSError as error:
        raise sockets.unreachable(reach.name, reach.place, error) from None


def _through(
    reach: Reach, jumps: tuple[Hop, ...], options: SshOptions, *, deadline: float, depth: int
) -> tuple[sockets.Raw, _Connection]:
    """A channel of the last jump host's connection to the host."""
    if depth + len(jumps) > MAX_JUMPS:
        raise DeliveryError(f"{reach.name} is behind more than {MAX_JUMPS} jump hosts", code="M4311")
    last = jumps[-1]
    through = reach_hop(last, options)
    if jumps[:-1]:
        through = _behind(through, jumps[:-1])
    try:
        connection = _connect(through, options, deadline=deadline, depth=depth + 1)
    except DeliveryError as error:
        raise _jump_failed(reach, last, error) from None
    connection.wire.deadline = deadline
    try:
        channel = connection.transport.open_channel(
            "direct-tcpip",
            (reach.hostname, reach.port),
            ("127.0.0.1", 0),
            timeout=max(deadline - time.monotonic(), 0.1),
        )
    except Exception as error:  # noqa: BLE001  paramiko raises what the thread met
        failure = _jump_refused(reach, last, connection, error)
        connection.close()
        raise failure from None
    return channel, connection


def _behind(reach: Reach, jumps: tuple[Hop, ...]) -> Reach:
    from dataclasses import replace  # noqa: PLC0415  only a chain of jump hosts needs it

    return replace(reach, jumps=jumps, proxy_command=None)


def _jump_failed(reach: Reach, hop: Hop, error: DeliveryError) -> DeliveryError:
    if error.code == "M4311":
        return error
    remedy = error.help
    if error.code == "M4304":
        remedy = (
            f"compare that with the jump host's own (ssh-keygen -lf), then log in to it once by hand: ssh {hop.host}"
        )
    return DeliveryError(
        f"the jump host {hop} of {reach.name} is in the way: {error.message}",
        code="M4311",
        notes=error.notes,
        help=remedy,
    )


def _jump_refused(reach: Reach, hop: Hop, connection: _Connection, error: Exception) -> DeliveryError:
    if connection.wire.expired or "Timeout" in str(error):
        return DeliveryError(f"the jump host {hop} did not reach {reach.place} in time", code="M4311")
    return DeliveryError(
        f"the jump host {hop} does not reach {reach.name} at {reach.place}",
        code="M4311",
        notes=(printable(str(error))[:400],),
    )


# --- algorithms -----------------------------------------------------------------------------------------------------


def _allowed(reach: Reach, keywords: Sequence[str], ours: Sequence[str], built: object) -> tuple[str, ...]:
    """Ours, as far as paramiko has them, by what the configuration says (ssh_config(5): a list, `+`, `-`, `^`)."""
    have = tuple(one for one in ours if one in built)  # type: ignore[operator]
    said = next((value for keyword, value in reach.algorithms if keyword in keywords), None)
    if said is None:
        return have
    sign, patterns = (said[0], said[1:].split(",")) if said[:1] in ("+", "-", "^") else ("", said.split(","))
    named = tuple(dict.fromkeys(one for pattern in patterns for one in have if matches_pattern(pattern, one)))
    if sign == "+":
        chosen = have
    elif sign == "-":
        chosen = tuple(one for one in have if one not in named)
    elif sign == "^":
        chosen = named + tuple(one for one in have if one not in named)
    else:
        chosen = named
    if not chosen:
        raise DeliveryError(
            f"the SSH configuration of {reach.name} says `{keywords[0]} {printable(said)}`, and none of that is here",
            code="M4314",
            notes=(f"here: {', '.join(have)}",),
            help=USE_OPENSSH,
        )
    return chosen


def _host_key_algorithms(reach: Reach, known: Known) -> tuple[str, ...]:
    """The kinds that the host is known by before all others, as ssh does; certificates only where a CA is known."""
    allowed = _allowed(reach, ("hostkeyalgorithms",), KEYS, KEYS)
    first = tuple(one for one in allowed if _kind_of_algorithm(one) in known.kinds)
    ordered = first + tuple(one for one in allowed if one not in first)
    if not known.authorities:
        return ordered
    certificates = tuple(f"{one}{CERTIFICATE_SUFFIX}" for one in ordered)
    return certificates + ordered if not first else first + certificates + ordered[len(first) :]


def _kind_of_algorithm(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-") else algorithm


# --- whose host key -------------------------------------------------------------------------------------------------


def _shown_key(transport: _Transport) -> HostKey:
    shown = transport.shown or b""
    return HostKey(kind_of(shown) or "", shown)


def _plain(key: HostKey) -> HostKey:
    return read_certificate(key.blob).key if key.kind.endswith(CERTIFICATE_SUFFIX) else key


def _check_host_key(connection: _Connection, known: Known) -> None:
    """Raises DeliveryError M4304, M4305; nothing but the key exchange has been said to the host by then."""
    reach, shown = connection.reach, _shown_key(connection.transport)
    bits = connection.transport.get_remote_server_key().get_bits()
    if shown.kind.startswith("ssh-rsa") and bits < reach.least_rsa_bits:
        raise DeliveryError(
            f"the host key of {reach.name} is RSA with {bits} bits, at least {reach.least_rsa_bits} are asked for",
            code="M4305",
        )
    if not shown.kind.endswith(CERTIFICATE_SUFFIX):
        judge(known, shown, host=reach.name, place=reach.place)
        return
    try:
        certificate = read_certificate(shown.blob)
    except UnreadableCertificate as error:
        raise DeliveryError(
            f"{reach.name} shows a host certificate that cannot be read: {error}", code="M4309"
        ) from None
    if known.is_revoked(certificate.authority):
        judge(known, certificate.authority, host=f"the CA of {reach.name}", place=reach.place)
    objection: str | None = "its CA is not known"
    if any(one.key == certificate.authority for one in known.authorities) and not known.is_revoked(certificate.key):
        objection = certificate.objection(reach.known_as, now=time.time())
        if objection is None and not _is_signed(certificate.authority, certificate.signed, certificate.signature):
            objection = "its signature is wrong"
    if objection is None:
        return
    try:
        judge(known, certificate.key, host=reach.name, place=reach.place)
    except DeliveryError as error:
        error.notes = (*error.notes, f"it showed a certificate, which does not count: {objection}")
        raise


def _is_signed(authority: HostKey, signed: bytes, signature: bytes) -> bool:
    try:
        key = paramiko.PKey.from_type_string(authority.kind, authority.blob)
        return bool(key.verify_ssh_sig(signed, Message(signature)))
    except Exception:  # noqa: BLE001  a key or signature that cannot be read is none
        return False


# --- logging in -----------------------------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    shown: str
    key: paramiko.PKey


class _Keys:
    """The keys to log in with, in order, and why others cannot be used."""

    def __init__(self, reach: Reach, deadline: float) -> None:
        self.reach, self.notes = reach, list[str]()
        self._agent = _Agent(reach.agent, deadline) if reach.agent is not None else None
        if self._agent is not None and self._agent.failed:
            self.notes.append(f"the agent at {printable(str(reach.agent))} does not answer")

    def close(self) -> None:
        if self._agent is not None:
            self._agent.end()

    def __iter__(self) -> Iterator[_Candidate]:
        held = {bytes(key.blob): key for key in self._agent.get_keys()} if self._agent else {}
        used: set[bytes] = set()
        certificates = [one for one in map(self._certificate, self.reach.certificate_files) if one is not None]
        named = [(path, self._public(path)) for path in self.reach.identity_files]
        if not self.reach.identities_are_named and not self.reach.identities_only:
            # Keys that lie where ssh looks for them come after those that somebody put into the agent.
            yield from self._of_agent(held, used)
        for path, public in named:
            if public is not None and public in held and public not in used:
                used.add(public)
                yield from self._with_certificates(f"{path} (agent)", held[public], public, path, certificates)
            elif (loaded := self._load(path)) is not None and loaded.asbytes() not in used:
                used.add(loaded.asbytes())
                yield from self._with_certificates(str(path), loaded, loaded.asbytes(), path, certificates)
        if not self.reach.identities_only:
            yield from self._of_agent(held, used)

    def _of_agent(self, held: dict[bytes, AgentKey], used: set[bytes]) -> Iterator[_Candidate]:
        for blob, key in held.items():
            if blob not in used:
                used.add(blob)
                yield _Candidate(f"{printable(str(key.comment))[:60]} (agent)", key)

    def _with_certificates(
        self, shown: str, key: paramiko.PKey, public: bytes, path: Path, certificates: Sequence[PublicBlob]
    ) -> Iterator[_Candidate]:
        beside = self._certificate(path.with_name(f"{path.name}-cert.pub"))
        for one in (*certificates, *([beside] if beside is not None else [])):
            with suppress(UnreadableCertificate):
                if read_certificate(one.key_blob).key.blob == public:
                    key.public_blob = one
                    yield _Candidate(f"{shown} with its certificate", key)
                    key.public_blob = None
        yield _Candidate(shown, key)

    def _certificate(self, path: Path) -> PublicBlob | None:
        with suppress(OSError, ValueError, SSHException):
            return PublicBlob.from_string(_read_small(path).decode("ascii"))
        return None

    def _public(self, path: Path) -> bytes | None:
        """The public half of a key file: of the `.pub` beside it, or of the file itself, which shows it in clear."""
        for one in (path.with_name(f"{path.name}.pub"), path):
            with suppress(OSError, ValueError, IndexError):
                words = _read_small(one).decode("ascii").split()
                if words and kind_of(blob := base64.b64decode(words[1], validate=True)) == words[0]:
                    return blob
        with suppress(OSError, ValueError):
            return _public_of_openssh(_read_small(path))
        return None

    def _load(self, path: Path) -> paramiko.PKey | None:
        try:
            content = _read_small(path, is_secret=True)
        except FileNotFoundError:
            if self.reach.identities_are_named:
                self.notes.append(f"{path} is not there")
            return None
        except OSError as error:
            self.notes.append(f"{path}: {error.strerror or error}")
            return None
        if content.startswith(tuple(kind.encode() for kind in ("ssh-", "ecdsa-", "sk-"))):
            self.notes.append(f"{path} is a public key, and the agent does not have the private one")
            return None
        return self._parse(path, content)

    def _parse(self, path: Path, content: bytes) -> paramiko.PKey | None:
        text = content.decode("ascii", "replace")
        for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
            try:
                return kind.from_private_key(io.StringIO(text))
            except paramiko.PasswordRequiredException:
                self.notes.append(f"{path} is protected by a passphrase, which is never asked for: ssh-add {path}")
                return None
            except Exception:  # noqa: BLE001, S112  it is of another kind, or broken: said below
                continue
        self.notes.append(f"{path} is not a private key that can be read here (OpenSSH's own format is)")
        return None


class _Agent(AgentSSH):
    """An agent at a path, with a deadline. What it is asked for is signatures, and it is never forwarded."""

    def __init__(self, path: Path, deadline: float) -> None:
        super().__init__()
        self.failed = False
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection.connect(str(path))
                self._connect(connection)  # type: ignore[attr-defined]
            except BaseException:
                connection.close()
                raise
        except Exception:  # noqa: BLE001  no agent, or none that can be understood
            self.failed = True

    def end(self) -> None:
        with suppress(Exception):
            self._close()  # type: ignore[attr-defined]


def _read_small(path: Path, *, is_secret: bool = False) -> bytes:
    """A small file that is one; a private key only when nobody else can read it. Raises OSError."""
    content, found = read_plain(path, MAX_KEY_FILE)
    if is_secret and found.st_uid == os.getuid() and found.st_mode & 0o077:
        raise NotPlain("others can read it (chmod 600)")
    return content


def _public_of_openssh(content: bytes) -> bytes:
    """The public half that stands before the encrypted one (PROTOCOL.key); raises ValueError."""
    lines = content.split()
    if not content.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----"):
        raise ValueError("another format")
    try:
        blob = base64.b64decode(b"".join(one for one in lines if b"-" not in one and not one.isupper()), validate=False)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    message = Message(blob.removeprefix(b"openssh-key-v1\0"))
    for _ in range(3):
        message.get_string()
    if message.get_int() != 1:
        raise ValueError("more than one key")
    return bytes(message.get_string())


class _Attempts:
    """How logging in went."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.refusals = 0
        self.further: Sequence[str] = ()
        self.broke: Exception | None = None


def _log_in(connection: _Connection, *, deadline: float) -> None:
    """By public key and nothing else; raises DeliveryError M4306, and M4301, M4302, M4309 as for what came before."""
    keys = _Keys(connection.reach, deadline)
    try:
        attempts = _try_keys(connection, keys)
    finally:
        keys.close()
    if not connection.transport.is_authenticated():
        raise _login_refused(connection, keys, attempts)


def _try_keys(connection: _Connection, keys: _Keys) -> _Attempts:
    attempts = _Attempts()
    for shown, key in keys:
        if len(attempts.tried) == MAX_KEYS_TRIED or not connection.transport.is_active():
            break
        attempts.tried.append(shown)
        try:
            attempts.further = connection.transport.auth_publickey(connection.reach.user, key)
            break
        except BadAuthenticationType as error:
            attempts.further, attempts.refusals = error.allowed_types, attempts.refusals + 1
            break
        except AuthenticationException:
            attempts.refusals += connection.transport.is_active()
        except Exception as error:  # noqa: BLE001  paramiko raises what its thread met
            attempts.broke = error
            break
    return attempts


def _login_refused(connection: _Connection, keys: _Keys, attempts: _Attempts) -> DeliveryError:
    reach = connection.reach
    if connection.wire.expired:
        return DeliveryError(f"{reach.name} did not answer the login in time", code="M4302")
    is_cut = not connection.transport.is_active()
    if is_cut and attempts.tried and not attempts.refusals:
        return connection.failure("log us in", attempts.broke)
    notes = [f"tried: {', '.join(map(printable, attempts.tried[:10]))}"]
    if not attempts.tried:
        notes = ["there is no key to log in with"]
    if attempts.further:
        notes.append(f"it asks for: {', '.join(printable(str(one)) for one in attempts.further)}"[:200])
    elif is_cut:
        notes.append(
            "it closed the connection; too many keys of the agent? `identity_file` or IdentitiesOnly names one"
        )
    with suppress(Exception):
        notes += [f"it says: {one}" for one in shown_lines(connection.transport.get_banner() or b"", most=3)]
    port = "" if reach.port == DEFAULT_PORT else f" -p {reach.port}"
    return DeliveryError(
        f"{reach.name} refuses the login as {reach.user}",
        code="M4306",
        notes=(*notes, *keys.notes[:5], *reach.notes),
        help=f"try: ssh {reach.user}@{reach.hostname}{port}",
    )


# --- the channel ----------------------------------------------------------------------------------------------------


def _start(connection: _Connection, command: str, *, deadline: float) -> _Channel:
    connection.wire.deadline = deadline
    transport = connection.transport
    try:
        channel = transport.open_session(timeout=max(deadline - time.monotonic(), 0.1))
        channel.exec_command(command)
    except Exception as error:  # noqa: BLE001  paramiko raises what its thread met
        if connection.wire.expired or "Timeout" in str(error):
            name = connection.reach.name
            raise DeliveryError(f"{name} did not start our program in time", code="M4302") from None
        if transport.is_active():
            raise DeliveryError(
                f"{connection.reach.name} let us in but does not start our program",
                code="M4306",
                notes=(printable(str(error))[:400],),
                help="is the account allowed a shell and commands (ForceCommand, a forced command in authorized_keys)?",
            ) from None
        raise connection.failure("start our program") from None
    connection.wire.deadline = None
    return _Channel(connection, channel)


class _Channel:
    """See `channel.Channel`. Standard error is taken in whenever somebody sends or receives."""

    def __init__(self, connection: _Connection, channel: paramiko.Channel) -> None:
        self._connection, self._channel = connection, channel
        self._tail = bytearray()
        self._held = bytearray()
        """Output that came while we were sending: a program that waits for its reader does not read."""
        self._complained = 0

    @property
    def _name(self) -> str:
        return self._connection.reach.name

    def send(self, data: bytes, *, deadline: float) -> None:
        left = memoryview(data)
        with _Deadline(self._connection.wire, deadline):
            wait = _SLICE
            while left:
                self._take_complaints()
                self._see(deadline)
                self._channel.settimeout(min(wait, max(deadline - time.monotonic(), 0.001)))
                try:
                    sent = self._channel.send(bytes(left[:32768]))
                except TimeoutError:
                    wait = _DRAIN_SLICE if self._take_output() else _SLICE
                    continue
                except (OSError, EOFError, SSHException):
                    sent = 0
                if not sent or not self._connection.transport.is_active():
                    raise self._lost(deadline)
                left = left[sent:]

    def receive(self, limit: int, *, deadline: float) -> bytes:
        if self._held:
            taken = bytes(self._held[:limit])
            del self._held[:limit]
            return taken
        with _Deadline(self._connection.wire, deadline):
            while True:
                self._take_complaints()
                self._see(deadline)
                self._channel.settimeout(min(_SLICE, max(deadline - time.monotonic(), 0.001)))
                try:
                    received = bytes(self._channel.recv(limit))
                except TimeoutError:
                    continue
                except (OSError, EOFError, SSHException):
                    raise self._lost(deadline) from None
                if received:
                    return received
                if not self._connection.transport.ends_said:
                    raise self._lost(deadline)
                self._take_complaints()
                return b""

    def complaints(self) -> bytes:
        with suppress(Exception):
            self._take_complaints()
        return bytes(self._tail)

    def close(self) -> None:
        with suppress(Exception):
            self._connection.close()

    def _take_complaints(self) -> None:
        while self._channel.recv_stderr_ready():
            try:
                said = bytes(self._channel.recv_stderr(sockets.READ_BYTES))
            except (OSError, EOFError, SSHException):
                return
            if not said:
                return
            self._complained += len(said)
            self._tail = (self._tail + said)[-TAIL:]
            if self._complained > LIMIT:
                raise DeliveryError(f"{self._name} complained for more than {LIMIT} bytes", code="M4310")

    def _take_output(self) -> bool:
        taken = False
        while self._channel.recv_ready():
            received = bytes(self._channel.recv(sockets.READ_BYTES))
            if not received:
                break
            self._held += received
            taken = True
            if len(self._held) > HELD_LIMIT:
                raise DeliveryError(
                    f"{self._name} answered more than {HELD_LIMIT} bytes before it had heard us out", code="M4310"
                )
        return taken

    def _see(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise DeliveryError(f"{self._name} did not answer in time", code="M4302")

    def _lost(self, deadline: float) -> DeliveryError:
        if self._connection.wire.expired or time.monotonic() > deadline:
            return DeliveryError(f"{self._name} did not answer in time", code="M4302")
        reason = self._connection.transport.get_exception()
        notes: tuple[str, ...] = ()
        if isinstance(reason, SSHException):
            notes = shown_lines(str(reason).encode("utf-8", "replace"), most=3)
        return DeliveryError(f"the connection to {self._name} is lost", code="M4301", notes=notes)


class _Deadline:
    """Sets the wire's deadline for as long as somebody waits; leaves it set when that failed, which ends the wire."""

    def __init__(self, wire: sockets.Wire, deadline: float) -> None:
        self._wire, self._deadline = wire, deadline

    def __enter__(self) -> None:
        self._wire.deadline = self._deadline

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._wire.deadline = None if kind is None else time.monotonic()
