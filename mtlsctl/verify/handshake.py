"""One call as a caller makes it: handshake, request, answer; and what each ending of it means.

A TLS 1.3 handshake that finishes proves nothing: the server judges the caller's certificate after the caller has
finished. So a request is always sent and what follows is read.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from mtlsctl.model.probe import Expectation, Observation
from mtlsctl.verify.identity import VERSIONS, Identity, load_identity

ANSWER_LIMIT = 8192
"""Bytes of an answer that are looked at."""

LINGER_SECONDS = 0.5
"""How long an alert may trail an answer that looks complete."""

CERTIFICATE_ALERTS = frozenset(
    {
        "no_certificate",
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "access_denied",
        "certificate_required",
        "unrecognized_name",
    }
)
"""Alerts that by themselves say that the caller is not let in (RFC 8446 section 6.2); others may mean anything.

`unrecognized_name` is among them because it is how a door that nobody may use is closed.
"""

ABOUT_THE_CALLER = frozenset({"handshake_failure", "decrypt_error"})
"""Alerts by which a server that has shown its certificate turns away who shows none, or one that nobody signed."""

_ALERT_REASON = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
NOT_A_CALLER = b"mtlsctl: not a declared caller\n"
"""The body of the 403 with which our templates turn away a member of a shared CA that is not declared to call."""

_BAD_REQUEST, _FORBIDDEN, _MISDIRECTED = 400, 403, 421
_REFUSALS = {
    _BAD_REQUEST: (
        b"<title>400 The SSL certificate error</title>",
        b"<title>400 No required SSL certificate was sent</title>",
    ),
    _FORBIDDEN: (NOT_A_CALLER,),
}


class Ending(StrEnum):
    """How a call ended, as far as a caller can see."""

    ANSWERED = "answered"
    SPOKE = "sent data that is not HTTP"
    ALERT = "alert"
    ANSWERED_THEN_ALERT = "answered, then sent an alert"
    CLOSED = "closed without a word"
    CLOSED_INSIDE = "closed without a word after a handshake that was complete"
    SERVER_DISTRUSTED = "the caller does not believe the server"
    NOT_TLS = "not TLS as expected"
    UNREACHABLE = "unreachable"
    SILENT = "no answer in time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one call showed. `detail` is the alert's name or the error in a few words."""

    ending: Ending
    detail: str = ""
    http_status: int | None = None
    refusal_page: bool = False
    served_sha256: str | None = None

    @property
    def evidence(self) -> str:
        """In a few words, for the matrix and the reports."""
        match self.ending:
            case Ending.ANSWERED:
                pages = {
                    _BAD_REQUEST: ", nginx's page for a refused certificate",
                    _FORBIDDEN: ", not a declared caller",
                }
                return f"HTTP {self.http_status}{pages.get(self.http_status or 0, '') if self.refusal_page else ''}"
            case Ending.ALERT:
                return f"alert {self.detail}"
            case Ending.ANSWERED_THEN_ALERT:
                return f"data, then alert {self.detail}"
            case _:
                return f"{self.ending}: {self.detail}" if self.detail else str(self.ending)


def client_context(identity: Identity | None, anchors: bytes | None, protocol: str) -> ssl.SSLContext:
    """A caller that speaks exactly one version, believes exactly `anchors` (PEM) and checks the server's name.

    None believes what this machine believes. Raises ssl.SSLError when the identity or the anchors do not load.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = VERSIONS[protocol]
    if anchors is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=anchors.decode("ascii"))
    if identity is not None:
        load_identity(context, identity)
    return context


def call(context: ssl.SSLContext, address: str, port: int, server_name: str, *, timeout_seconds: float) -> Seen:
    """Make one call, over within the timeout; whatever happens is a value."""
    deadline = time.monotonic() + timeout_seconds
    try:
        connection = socket.create_connection((address, port), timeout=timeout_seconds)
    except TimeoutError:
        return Seen(ending=Ending.UNREACHABLE, detail="no connection in time")
    except OSError as error:
        return Seen(ending=Ending.UNREACHABLE, detail=error.strerror or str(error))
    with connection:
        return _call_on(connection, context, server_name, deadline)


def _call_on(connection: socket.socket, context: ssl.SSLContext, server_name: str, deadline: float) -> Seen:
    try:
        connection.settimeout(_left(deadline))
        # The name is always passed: without it Python skips the check of the server's name.
        secured = context.wrap_socket(connection, server_hostname=server_name)
    except OSError as error:
        return _seen_error(error)
    with secured:
        certificate, secured_version = secured.getpeercert(binary_form=True) or b"", secured.version()
        seen = _ask(secured, server_name, hashlib.sha256(certificate).hexdigest(), deadline)
        # Up to TLS 1.2 the server's Finished comes last (RFC 5246 section 7.3): by then it has judged the caller.
        is_inside = seen.ending is Ending.CLOSED and secured_version != "TLSv1.3"
        return replace(seen, ending=Ending.CLOSED_INSIDE) if is_inside else seen


def _ask(secured: ssl.SSLSocket, server_name: str, served_sha256: str, deadline: float) -> Seen:
    answer = bytearray()
    request = f"GET / HTTP/1.1\r\nHost: {server_name}\r\nUser-Agent: mtlsctl\r\nConnection: close\r\n\r\n"
    trouble: OSError | None = None
    # A server that has already refused may have closed: its alert is still there to be read.
    with suppress(OSError):
        secured.sendall(request.encode("ascii"))
    try:
        _read_answer(secured, answer, deadline)
    except OSError as error:
        trouble = error
    return _judge_answer(bytes(answer), trouble, served_sha256)


def _read_answer(secured: ssl.SSLSocket, answer: bytearray, deadline: float) -> None:
    """Read to the end, or a little beyond what looks like the end of a head."""
    while len(answer) < ANSWER_LIMIT:
        if b"\r\n\r\n" in answer:
            deadline = min(deadline, time.monotonic() + LINGER_SECONDS)
        secured.settimeout(_left(deadline))
        chunk = secured.recv(ANSWER_LIMIT - len(answer))
        if not chunk:
            return
        answer += chunk


def _judge_answer(answer: bytes, trouble: OSError | None, served_sha256: str) -> Seen:
    alert = alert_name(trouble)
    if answer or alert is not None:
        return judge_answer(answer, alert, served_sha256)
    seen = Seen(ending=Ending.CLOSED) if trouble is None else _seen_error(trouble)
    return Seen(ending=seen.ending, detail=seen.detail, served_sha256=served_sha256)


def judge_answer(answer: bytes, alert: str | None, served_sha256: str | None = None) -> Seen:
    """What was read, an alert after it, or both: one of the two is there."""
    status = STATUS_LINE.match(answer)
    number = int(status[1]) if status else None
    if answer and alert is not None:
        return Seen(ending=Ending.ANSWERED_THEN_ALERT, detail=alert, http_status=number, served_sha256=served_sha256)
    if number is not None:
        is_page = any(page in answer for page in _REFUSALS.get(number, ()))
        return Seen(ending=Ending.ANSWERED, http_status=number, refusal_page=is_page, served_sha256=served_sha256)
    if answer:
        return Seen(ending=Ending.SPOKE, served_sha256=served_sha256)
    return Seen(ending=Ending.ALERT, detail=alert or "", served_sha256=served_sha256)


def _seen_error(error: OSError) -> Seen:  # noqa: PLR0911  one line for each ending
    """What an error before any answer means; the order matters, as most of these are kinds of the ones below."""
    alert = alert_name(error)
    match error:
        case _ if alert is not None:
            return Seen(ending=Ending.ALERT, detail=alert)
        case ssl.SSLCertVerificationError():
            return Seen(ending=Ending.SERVER_DISTRUSTED, detail=error.verify_message)
        case TimeoutError():
            return Seen(ending=Ending.SILENT)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ConnectionError():
            return Seen(ending=Ending.CLOSED)
        case ssl.SSLError(reason="UNEXPECTED_EOF_WHILE_READING"):
            return Seen(ending=Ending.CLOSED)
        case ssl.SSLError():
            return Seen(ending=Ending.NOT_TLS, detail=(error.reason or "failed").lower().replace("_", " "))
        case _:
            return Seen(ending=Ending.UNREACHABLE, detail=error.strerror or "failed")


def alert_name(error: BaseException | None) -> str | None:
    """The alert that the server sent, by its name in RFC 8446 section 6, or None."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLCertVerificationError):
        return None
    found = _ALERT_REASON.fullmatch(error.reason or "")
    return found[1].lower() if found else None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def is_proof_of_service(seen: Seen) -> bool:
    """Whether a call shows that this door lets somebody in, so that a silent close there is a refusal."""
    return seen.ending is Ending.ANSWERED and not seen.refusal_page and seen.http_status != _MISDIRECTED


def is_sure_refusal(seen: Seen) -> bool:
    """Whether a call was turned away for its certificate, or for having none, by the server's own word.

    In TLS 1.2 a server that misses one says `handshake_failure` (RFC 5246 section 7.4.6): call this of a server that
    was seen to shake hands.
    """
    alerts = CERTIFICATE_ALERTS | {"handshake_failure"}
    return seen.refusal_page or (seen.ending is Ending.ALERT and seen.detail in alerts)


def observe(seen: Seen, expected: Expectation, *, proven: bool) -> Observation:  # noqa: PLR0911  one for each ending
    """What a call proves. `proven`: the same door was seen to serve a declared caller with the same protocol.

    What is not sure is never a pass: a doubt about a declared caller is no `allowed`, one about anybody else no
    `refused`.
    """
    match seen.ending:
        case Ending.ANSWERED:
            return _observe_answer(seen)
        case Ending.SPOKE:
            # Before it has judged the caller a server may already send data: a `refused` must not rest on it either.
            return Observation.ALLOWED if expected is Expectation.REFUSED else Observation.INCONCLUSIVE
        case Ending.ALERT:
            is_refusal = proven or expected is Expectation.ALLOWED or seen.detail in CERTIFICATE_ALERTS
            return Observation.REFUSED if is_refusal else Observation.INCONCLUSIVE
        case Ending.CLOSED:
            return Observation.REFUSED if proven else Observation.INCONCLUSIVE
        case Ending.SERVER_DISTRUSTED:
            # For a declared caller the call fails; for anybody else it did not reach the door that was to be tried.
            return Observation.REFUSED if expected is Expectation.ALLOWED else Observation.INCONCLUSIVE
        case Ending.UNREACHABLE | Ending.SILENT:
            return Observation.UNREACHABLE
        case _:
            return Observation.INCONCLUSIVE


def _observe_answer(seen: Seen) -> Observation:
    if seen.refusal_page:
        return Observation.REFUSED
    return Observation.INCONCLUSIVE if seen.http_status == _MISDIRECTED else Observation.ALLOWED
