"""What a server shows before it knows who calls: its certificate and the names of the CAs that it asks for.

Both travel in clear in TLS 1.2 (RFC 5246 sections 7.4.2 and 7.4.4), so they are read without any key and without a
library's opinion of them; of a server that speaks TLS 1.3 only they are what Python's library decrypted. That is how a
reload is seen to have been taken up: new on disk is not enough.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.errors import DeliveryError
from mtlsctl.verify.handshake import call, is_proof_of_service, is_sure_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FLIGHT_LIMIT = 512 * 1024
"""Bytes of the longest first flight that is read: certificates and 64 KiB of names fit several times."""

AGREEING_READS = 3
"""Reads in a row that must show what is expected: more than one worker may answer."""

_ALERT, _HANDSHAKE = 21, 22
_CERTIFICATE, _CERTIFICATE_REQUEST, _SERVER_HELLO_DONE = 11, 13, 14
_PROTOCOL_VERSION = 70
_CERTIFICATE_AUTHORITIES = 47
_HEADER = 4
"""Bytes before a handshake message: its type and its length (RFC 5246 section 7.4)."""

_TLS_MAJOR = 3
_PAUSE_SECONDS = 0.05
_READ_SECONDS = 3.0


class NotTls(ValueError):
    """What came is not a TLS server's first flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFlight:
    """What a server showed. `alert` is the number of the alert that it sent instead (RFC 8446 section 6).

    `ca_names` are DER names in the order of the server; None when it asked for no certificate, and when `protocol` is
    1.3 also where this Python does not show what it decrypted: then `asks` is None too. `chain` are the certificates as
    they came (DER); of TLS 1.3 on such a Python only the first.
    """

    protocol: str
    leaf_der: bytes | None = None
    ca_names: tuple[bytes, ...] | None = None
    alert: int | None = None
    chain: tuple[bytes, ...] = ()
    asks: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a socket is to show for a name.

    `certificate_sha256` None: the handshake is to be refused whoever calls. `ca_names` None: not compared; with
    `asks` false no certificate may be asked for. `lets_in_anybody`: whether one GET without a certificate is to be
    answered; None does not try, as one that does not speak HTTP would not be told apart.
    `may_name_none`: a server may let in callers and name no CA (RFC 5246 section 7.4.4), as Python's does.
    """

    address: str
    port: int
    server_name: str
    certificate_sha256: str | None
    ca_names: frozenset[bytes] | None = None
    may_name_none: bool = True
    asks: bool = True
    lets_in_anybody: bool | None = None


def read_first_flight(address: str, port: int, server_name: str, timeout_seconds: float) -> FirstFlight:
    """Greet a server and read what it shows, presenting nothing.

    Raises OSError when it cannot be reached or is silent, NotTls when it speaks something else.
    """
    deadline = time.monotonic() + timeout_seconds
    flight = greet(address, port, server_name, "1.2", timeout_seconds)
    if flight.alert == _PROTOCOL_VERSION:
        return _read_with_tls13(address, port, server_name, deadline)
    return flight


def greet(address: str, port: int, server_name: str, protocol: str, timeout_seconds: float) -> FirstFlight:
    """Greet a server with one protocol version (`1.2` or `1.3`) and no other, presenting nothing.

    Raises OSError when it cannot be reached, closes or is silent, NotTls when it answers with something else.
    """
    deadline = time.monotonic() + timeout_seconds
    if protocol == "1.3":
        return _read_with_tls13(address, port, server_name, deadline)
    with socket.create_connection((address, port), timeout=timeout_seconds) as connection:
        connection.sendall(_client_hello(server_name))
        return _parse(_handshake_messages(connection, deadline))


def _client_hello(server_name: str) -> bytes:
    context = asking_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    outgoing = ssl.MemoryBIO()
    greeting = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    try:
        greeting.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake does not end before the server spoke")  # pragma: no cover


def asking_context() -> ssl.SSLContext:
    """A context that only looks: it judges nothing, and nothing is sent to who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_with_tls13(address: str, port: int, server_name: str, deadline: float) -> FirstFlight:
    context, messages = asking_context(), dict[int, bytes]()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A trace hook that is not documented. An interpreter without it only takes a new attribute, and nothing is seen.
    context._msg_callback = _collector(messages)  # type: ignore[attr-defined]  # noqa: SLF001
    with socket.create_connection((address, port), timeout=_left(deadline)) as connection:
        try:
            with context.wrap_socket(connection, server_hostname=server_name) as secured:
                leaf = secured.getpeercert(binary_form=True)
        except ssl.SSLError as error:
            raise NotTls(error.reason or "the handshake failed") from error
    request, certificates = messages.get(_CERTIFICATE_REQUEST), messages.get(_CERTIFICATE)
    return FirstFlight(
        protocol="1.3",
        leaf_der=leaf,
        ca_names=None if request is None else _requested_names_of_tls13(request),
        chain=_chain_of_tls13(certificates) if certificates else (() if leaf is None else (leaf,)),
        asks=request is not None if messages else None,
    )


def _collector(messages: dict[int, bytes]) -> Callable[..., None]:
    """Keeps the body of the first message of each kind that is read."""

    def collect(_: object, direction: str, __: object, content: int, kind: int, message: bytes) -> None:
        if (direction, content) == ("read", _HANDSHAKE):
            messages.setdefault(int(kind), bytes(message[_HEADER:]))

    return collect


def _chain_of_tls13(body: bytes) -> tuple[bytes, ...]:
    """A Certificate message (RFC 8446 section 4.4.2): its context, then certificates, each with its extensions."""
    entries, at = _vector(body, _vector(body, 0, 1)[1], 3)[0], 0
    chain = []
    while at < len(entries):
        certificate, at = _vector(entries, at, 3)
        _, at = _vector(entries, at, 2)
        chain.append(certificate)
    return tuple(chain)


def _requested_names_of_tls13(body: bytes) -> tuple[bytes, ...]:
    """The extension `certificate_authorities` (RFC 8446 sections 4.3.2 and 4.2.4), behind the request's context."""
    extensions, at = _vector(body, _vector(body, 0, 1)[1], 2)[0], 0
    while at < len(extensions):
        kind = int.from_bytes(extensions[at : at + 2])
        content, at = _vector(extensions, at + 2, 2)
        if kind == _CERTIFICATE_AUTHORITIES:
            return tuple(_vectors(_vector(content, 0, 2)[0], 2))
    return ()


def _handshake_messages(connection: socket.socket, deadline: float) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each handshake message up to ServerHelloDone, or (-1, alert record's body)."""
    buffered = bytearray()
    for content_type, fragment in _records(connection, deadline):
        if content_type == _ALERT:
            yield -1, fragment
            return
        if content_type != _HANDSHAKE:
            raise NotTls(f"record type {content_type} in a first flight")
        buffered += fragment
        while len(buffered) >= _HEADER and len(buffered) >= (end := _HEADER + int.from_bytes(buffered[1:_HEADER])):
            kind, body = buffered[0], bytes(buffered[_HEADER:end])
            del buffered[:end]
            yield kind, body
            if kind == _SERVER_HELLO_DONE:
                return


def _records(connection: socket.socket, deadline: float) -> Iterator[tuple[int, bytes]]:
    """TLS records in clear (RFC 5246 section 6.2.1)."""
    total = 0
    while True:
        header = _receive(connection, 5, deadline)
        if header[1] != _TLS_MAJOR:
            raise NotTls("what answers does not speak TLS")
        size = int.from_bytes(header[3:5])
        total += size
        if total > FLIGHT_LIMIT:
            raise NotTls(f"a first flight above {FLIGHT_LIMIT} bytes")
        yield header[0], _receive(connection, size, deadline)


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        connection.settimeout(_left(deadline))
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionResetError("closed during the first flight")
        received += chunk
    return bytes(received)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _parse(messages: Iterator[tuple[int, bytes]]) -> FirstFlight:
    chain: tuple[bytes, ...] = ()
    names: tuple[bytes, ...] | None = None
    for kind, body in messages:
        match kind:
            case -1:
                return FirstFlight(protocol="1.2", alert=body[1] if len(body) > 1 else 0)
            case _ if kind == _CERTIFICATE:
                chain = tuple(_vectors(_vector(body, 0, 3)[0], 3))
            case _ if kind == _CERTIFICATE_REQUEST:
                names = _requested_names(body)
            case _:
                pass
    leaf = chain[0] if chain else None
    return FirstFlight(protocol="1.2", leaf_der=leaf, ca_names=names, chain=chain, asks=names is not None)


def _requested_names(body: bytes) -> tuple[bytes, ...]:
    """The third vector of a CertificateRequest, after the types and the signature algorithms."""
    _, after_types = _vector(body, 0, 1)
    _, after_algorithms = _vector(body, after_types, 2)
    return tuple(_vectors(_vector(body, after_algorithms, 2)[0], 2))


def _vectors(data: bytes, width: int) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        one, at = _vector(data, at, width)
        yield one


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """A vector with a length of `width` bytes (RFC 5246 section 4.3), and where it ends."""
    start = at + width
    end = start + int.from_bytes(data[at:start])
    if start > len(data) or end > len(data):
        raise NotTls("a vector that is longer than its message")
    return data[start:end], end


def await_served(expectations: Sequence[Served], *, deadline_seconds: float) -> None:
    """Return once every expectation was met by AGREEING_READS reads in a row.

    Raises DeliveryError M4204, saying what is served instead, when that does not happen in time.
    """
    deadline = time.monotonic() + deadline_seconds
    agreed = 0
    while agreed < AGREEING_READS:
        complaints = _complaints(expectations, deadline)
        agreed = 0 if complaints else agreed + 1
        if not complaints:
            continue
        if time.monotonic() + _PAUSE_SECONDS > deadline:
            raise DeliveryError(
                f"what was published is not what is served after {deadline_seconds:g} s",
                code="M4204",
                notes=complaints,
                help="look whether the process reads the files that were published, and at its error log",
            )
        time.sleep(_PAUSE_SECONDS)


def _complaints(expectations: Sequence[Served], deadline: float) -> tuple[str, ...]:
    """One sentence for each expectation that is not met; no more than are needed to say what is wrong."""
    found: list[str] = []
    for expected in expectations:
        complaint = _complaint(expected, max(0.1, min(_READ_SECONDS, deadline - time.monotonic())))
        if complaint is not None:
            found.append(f"{expected.address}:{expected.port} as {expected.server_name} {complaint}")
        if found and time.monotonic() > deadline:
            break
    return tuple(found)


def _complaint(expected: Served, timeout_seconds: float) -> str | None:
    try:
        flight = read_first_flight(expected.address, expected.port, expected.server_name, timeout_seconds)
    except (OSError, NotTls) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if expected.certificate_sha256 is None:
        return None if flight.leaf_der is None else "is served, and nobody may be let in"
    if flight.leaf_der is None:
        return f"answers with alert {flight.alert}" if flight.alert is not None else "shows no certificate"
    served = hashlib.sha256(flight.leaf_der).hexdigest()
    if served != expected.certificate_sha256:
        return f"serves certificate {served[:16]}, not {expected.certificate_sha256[:16]}"
    if not expected.asks and flight.ca_names is not None:
        return "asks for a client certificate"
    return _complaint_about_names(expected.ca_names, flight) or _complaint_about_anybody(expected, timeout_seconds)


def _complaint_about_anybody(expected: Served, timeout_seconds: float) -> str | None:
    """Whether a certificate is needed does not show in the first flight; only a sure sign is complained about."""
    if expected.lets_in_anybody is None:
        return None
    seen = call(
        asking_context(), expected.address, expected.port, expected.server_name, timeout_seconds=timeout_seconds
    )
    if expected.lets_in_anybody and is_sure_refusal(seen):
        return f"refuses who shows no certificate ({seen.evidence})"
    if not expected.lets_in_anybody and is_proof_of_service(seen):
        return f"lets in who shows no certificate ({seen.evidence})"
    return None


def _complaint_about_names(expected: frozenset[bytes] | None, flight: FirstFlight) -> str | None:
    if expected is None or (flight.protocol == "1.3" and flight.ca_names is None):
        return None
    if flight.ca_names is None:
        return "asks for no client certificate"
    missing, extra = len(expected - set(flight.ca_names)), len(set(flight.ca_names) - expected)
    if not missing and not extra:
        return None
    return f"asks for the old CAs: {missing} that are expected are missing, {extra} are too many"
