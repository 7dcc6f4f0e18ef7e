"""What a door shows to who presents nothing: to HTTP without TLS, to a protocol version, and in its first flight.

A server that trusts one CA more than declared refuses everybody that can be tried; only what it asks for gives it away.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.model.probe import Observation
from mtlsctl.verify.handshake import ANSWER_LIMIT, CERTIFICATE_ALERTS, STATUS_LINE, alert_name
from mtlsctl.verify.wire import NotTls, greet, read_first_flight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtlsctl.verify.wire import FirstFlight, Served

HTTPS_ONLY_PAGES = (
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"Client sent an HTTP request to an HTTPS server",
    b"This combination of host and port requires TLS",
)
"""By which nginx, Apache httpd, Go and Tomcat say in a page of status 400 that nothing is to be had without TLS."""

_PROTOCOL_ALERTS = CERTIFICATE_ALERTS | {"protocol_version", "insufficient_security"}
_OTHER_VERSION = frozenset({"UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "WRONG_VERSION_NUMBER"})
_ALERT = 21
_TLS_RECORDS = range(20, 24)
_TLS_MAJOR = 3
_BAD_REQUEST = 400
_REDIRECTS = range(300, 400)
_NAMED = 3
_COMMON_NAME = b"\x06\x03\x55\x04\x03"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a door showed. `if_proven`: it is a refusal where a declared caller was served at the same door.

    `shows_nothing`: nobody is to be let in there, and it ended a greeting before it showed any certificate.
    """

    observed: Observation
    evidence: str
    if_proven: bool = False
    shows_nothing: bool = False
    http_status: int | None = None
    served_sha256: str | None = None


def _doubtful(evidence: str, *, if_proven: bool = False) -> Shown:
    return Shown(observed=Observation.INCONCLUSIVE, evidence=evidence, if_proven=if_proven)


def _failed(error: OSError) -> Shown:
    """Why there was no answer; a close counts only where somebody was served."""
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return _doubtful("closed without a word", if_proven=True)
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or "failed"
    return Shown(observed=Observation.UNREACHABLE, evidence=f"unreachable: {reason}")


# --- HTTP without TLS -----------------------------------------------------------------------------------------------


def ask_in_clear(address: str, port: int, server_name: str, *, timeout_seconds: float) -> Shown:
    """Send one HTTP request without TLS; an answer of the application is `allowed`, whatever its status."""
    deadline = time.monotonic() + timeout_seconds
    request = f"GET / HTTP/1.1\r\nHost: {server_name}\r\nUser-Agent: mtlsctl\r\nConnection: close\r\n\r\n"
    answer = bytearray()
    try:
        connection = socket.create_connection((address, port), timeout=timeout_seconds)
    except OSError as error:
        return _failed(error)
    is_silent = False
    with connection:
        try:
            connection.sendall(request.encode("ascii"))
            while len(answer) < ANSWER_LIMIT and (chunk := _receive(connection, deadline)):
                answer += chunk
        except TimeoutError:
            is_silent = True
        except OSError:
            pass  # Closed or reset: what came before it still counts.
    if is_silent and not answer:
        return Shown(observed=Observation.UNREACHABLE, evidence="no answer in time")
    return _judge_clear(bytes(answer))


def _receive(connection: socket.socket, deadline: float) -> bytes:
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    return connection.recv(ANSWER_LIMIT)


def _judge_clear(answer: bytes) -> Shown:
    status = STATUS_LINE.match(answer)
    if not answer:
        return Shown(observed=Observation.REFUSED, evidence="closed without a word")
    if answer[0] in _TLS_RECORDS and answer[1:2] == bytes([_TLS_MAJOR]):
        is_alert = answer[0] == _ALERT
        return Shown(observed=Observation.REFUSED, evidence="a TLS alert") if is_alert else _doubtful("not HTTP")
    if status is None:
        return Shown(observed=Observation.ALLOWED, evidence="sent data in clear that is not HTTP")
    return _judge_status(int(status[1]), answer)


def _judge_status(status: int, answer: bytes) -> Shown:
    if status == _BAD_REQUEST and any(page in answer for page in HTTPS_ONLY_PAGES):
        return Shown(observed=Observation.REFUSED, evidence="HTTP 400, wants HTTPS", http_status=status)
    # Both may come from in front of the application, so they show neither that it is open nor that it is closed.
    in_doubt = status == _BAD_REQUEST or status in _REDIRECTS
    observed = Observation.INCONCLUSIVE if in_doubt else Observation.ALLOWED
    return Shown(observed=observed, evidence=f"HTTP {status} without TLS", http_status=status)


# --- a protocol version that is not declared ------------------------------------------------------------------------


def greet_undeclared(address: str, port: int, server_name: str, protocol: str, *, timeout_seconds: float) -> Shown:
    """Greet with a protocol version; a server that shows its certificate speaks it, whatever it does then."""
    try:
        flight = greet(address, port, server_name, protocol, timeout_seconds)
    except NotTls as error:
        return _judge_not_tls(error)
    except OSError as error:
        return _failed(error)
    if flight.leaf_der is not None:
        evidence = f"speaks TLS {protocol}, which is not declared"
        return Shown(observed=Observation.ALLOWED, evidence=evidence, served_sha256=_sha256(flight))
    return _judge_alert(alert_text(flight))


def _judge_not_tls(error: NotTls) -> Shown:
    cause = error.__cause__
    name = alert_name(cause)
    if name is not None:
        return _judge_alert(name)
    if isinstance(cause, ssl.SSLError) and cause.reason in _OTHER_VERSION:
        return Shown(observed=Observation.REFUSED, evidence="chose another protocol version")
    if isinstance(cause, ssl.SSLEOFError) or (
        isinstance(cause, ssl.SSLError) and cause.reason == "UNEXPECTED_EOF_WHILE_READING"
    ):
        return _doubtful("closed without a word", if_proven=True)
    return _doubtful(f"not TLS as expected: {error}")


def _judge_alert(name: str) -> Shown:
    if name in _PROTOCOL_ALERTS:
        return Shown(observed=Observation.REFUSED, evidence=f"alert {name}")
    return _doubtful(f"alert {name}", if_proven=True)


def alert_text(flight: FirstFlight) -> str:
    """The alert of a flight by its name in RFC 8446 section 6, else its number."""
    with suppress(ValueError):
        return ssl.AlertDescription(flight.alert or 0).name.removeprefix("ALERT_DESCRIPTION_").lower()
    return str(flight.alert)


def _sha256(flight: FirstFlight) -> str | None:
    return None if flight.leaf_der is None else hashlib.sha256(flight.leaf_der).hexdigest()


# --- what it serves and whom it asks for ----------------------------------------------------------------------------


def compare_first_flight(expected: Served, address: str, port: int, *, timeout_seconds: float) -> Shown:
    """Whether a running server shows the applied certificate and asks for certificates of the declared CAs only.

    Of a server that may name no CA, and names none, only the certificate is compared.
    """
    try:
        flight = read_first_flight(address, port, expected.server_name, timeout_seconds)
    except NotTls as error:
        name = alert_name(error.__cause__)
        return _doubtful(f"not TLS as expected: {error}") if name is None else _judge_closed_door(expected, name)
    except ConnectionResetError:
        return _doubtful("closed without a word")
    except OSError as error:
        return _failed(error)
    if flight.leaf_der is None:
        return _judge_closed_door(expected, alert_text(flight))
    differences = list(_differences(expected, flight))
    if not differences and expected.ca_names and flight.ca_names == () and not expected.may_name_none:
        return _doubtful("names no CA, so whom it trusts cannot be told")
    observed = Observation.ALLOWED if differences else Observation.REFUSED
    evidence = ", ".join(differences) or _agreement(expected, flight)
    return Shown(observed=observed, evidence=evidence, served_sha256=_sha256(flight))


def _judge_closed_door(expected: Served, name: str) -> Shown:
    is_refusal = expected.certificate_sha256 is None and name in CERTIFICATE_ALERTS | {"handshake_failure"}
    if not is_refusal:
        return _doubtful(f"alert {name}")
    return Shown(observed=Observation.REFUSED, evidence=f"alert {name}", shows_nothing=True)


def _agreement(expected: Served, flight: FirstFlight) -> str:
    if not expected.asks:
        return "serves what was applied, asks for no certificate"
    return "serves what was applied" if flight.ca_names else "serves what was applied, names no CA"


def _differences(expected: Served, flight: FirstFlight) -> Iterable[str]:
    served = _sha256(flight) or ""
    if expected.certificate_sha256 is not None and served != expected.certificate_sha256:
        yield f"serves certificate {served[:16]}, not the applied {expected.certificate_sha256[:16]}"
    if not expected.asks and flight.ca_names is not None:
        yield "asks for a client certificate, and none is declared"
    if expected.ca_names is None or (flight.ca_names is None and flight.protocol == "1.3"):
        return
    if flight.ca_names is None:
        yield "asks for no client certificate"
        return
    extra, missing = set(flight.ca_names) - expected.ca_names, expected.ca_names - set(flight.ca_names)
    if extra:
        yield _many(len(extra), "more", extra)
    if missing and flight.ca_names:
        yield _many(len(missing), "less", missing)


def _many(count: int, which: str, names: Iterable[bytes]) -> str:
    ordered = sorted(_label(name) for name in names)
    more = f" and {count - _NAMED} others" if count > _NAMED else ""
    noun = "CA" if count == 1 else "CAs"
    return f"trusts {count} {noun} {which} than declared: {', '.join(ordered[:_NAMED])}{more}"


def _label(name: bytes) -> str:
    """`CN=...` of a DER name; without one its digest, as what a server sends need not be a name at all."""
    _, found, rest = name.rpartition(_COMMON_NAME)
    if not found or len(rest) < 2 or rest[1] > 127:  # noqa: PLR2004  a tag and a short length (X.690 section 8.1.3.4)
        return f"sha256 {hashlib.sha256(name).hexdigest()[:16]}"
    return f"CN={rest[2 : 2 + rest[1]].decode('utf-8', 'replace')}"
