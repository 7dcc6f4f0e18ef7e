"""A server as a stranger finds it: which versions it speaks, what it shows, whom it asks for, how it answers.

Nothing is believed here: certificates are handed on as they came, for others to judge. What a server sends is bounded
by `wire` and `handshake`, and all of it together by one deadline.
"""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass
from socket import SOCK_STREAM, create_connection, gaierror, getaddrinfo
from typing import TYPE_CHECKING

from mtlsctl.errors import InspectionError
from mtlsctl.pki import codes
from mtlsctl.verify.doors import alert_text
from mtlsctl.verify.handshake import alert_name, call
from mtlsctl.verify.identity import VERSIONS, Identity, load_identity
from mtlsctl.verify.wire import NotTls, asking_context, greet

if TYPE_CHECKING:
    from mtlsctl.verify.handshake import Seen
    from mtlsctl.verify.wire import FirstFlight

STEP_SECONDS = 5.0
"""For one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What came of greeting with one protocol version: a first flight, or why there is none, in a few words."""

    protocol: str
    flight: FirstFlight | None = None
    reason: str = ""

    @property
    def is_spoken(self) -> bool:
        """A server that shows its certificate speaks the version, whatever it does then."""
        return self.flight is not None and self.flight.leaf_der is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All that was seen of a server. `server_name` is what it was asked for; an address is not sent (RFC 6066).

    `without` is one request without a certificate, `presenting` one with the identity that was given; each in the
    newest version that the server speaks.
    """

    address: str
    port: int
    server_name: str
    greetings: tuple[Greeting, ...]
    without: Seen | None = None
    presenting: Seen | None = None

    @property
    def newest(self) -> FirstFlight | None:
        """The first flight of the newest version that is spoken."""
        return next((one.flight for one in reversed(self.greetings) if one.is_spoken), None)


def look_at(
    host: str, port: int, server_name: str, identity: Identity | None, *, timeout_seconds: float = 20.0
) -> Look:
    """Greet a server in each version and make a request; over within the timeout.

    Raises InspectionError when nothing answers (M7395), or what answers speaks no TLS that is known here (M7396); and
    ssl.SSLError when the identity does not hold together.
    """
    deadline = time.monotonic() + timeout_seconds
    address = _reachable(resolve(host, port, timeout_seconds=min(STEP_SECONDS, timeout_seconds)), port, host)
    greetings = tuple(_greeting(address, port, server_name, protocol, deadline) for protocol in sorted(VERSIONS))
    if not any(one.flight is not None or one.reason.startswith("alert") for one in greetings):
        raise InspectionError(
            f"what answers at {host}:{port} does not speak TLS as it is known here",
            code=codes.NOT_A_TLS_SERVER,
            notes=tuple(f"TLS {one.protocol}: {one.reason}" for one in greetings),
            help="is it another port, or a protocol that begins in clear (STARTTLS)?",
        )
    spoken = [one.protocol for one in greetings if one.is_spoken]
    look = Look(address=address, port=port, server_name=server_name, greetings=greetings)
    if not spoken:
        return look
    return Look(
        address=address,
        port=port,
        server_name=server_name,
        greetings=greetings,
        without=_request(look, None, spoken[-1], deadline),
        presenting=None if identity is None else _request(look, identity, spoken[-1], deadline),
    )


def resolve(host: str, port: int, *, timeout_seconds: float) -> tuple[str, ...]:
    """The addresses of a name, the resolver's favourite first; raises InspectionError M7395 when there is none in time.

    The resolver cannot be told to hurry, so it is left behind in a thread of its own.
    """
    found: list[str] = []
    trouble: list[str] = []

    def ask() -> None:
        try:
            found.extend(str(one[4][0]) for one in getaddrinfo(host, port, type=SOCK_STREAM))
        except gaierror as error:
            trouble.append(error.strerror or "no address")
        except (OSError, UnicodeError):
            trouble.append("no address")

    asking = threading.Thread(target=ask, name="resolver", daemon=True)
    asking.start()
    asking.join(timeout_seconds)
    if not found:
        reason = trouble[0] if trouble else f"no answer from the resolver in {timeout_seconds:g} s"
        raise InspectionError(f"{host} has no address: {reason}", code=codes.NO_ANSWER)
    return tuple(dict.fromkeys(found))


def _reachable(addresses: tuple[str, ...], port: int, host: str) -> str:
    """The first address that takes a connection."""
    reasons = []
    for address in addresses[:4]:
        try:
            create_connection((address, port), timeout=STEP_SECONDS / 2).close()
        except TimeoutError:
            reasons.append(f"{address}: no connection in time")
        except OSError as error:
            reasons.append(f"{address}: {error.strerror or 'no connection'}")
        else:
            return address
    raise InspectionError(
        f"nothing answers at {host}:{port}",
        code=codes.NO_ANSWER,
        notes=tuple(reasons),
        help="look whether the server runs, and whether it listens at that address",
    )


def _greeting(address: str, port: int, server_name: str, protocol: str, deadline: float) -> Greeting:
    try:
        flight = greet(address, port, server_name, protocol, _step(deadline))
    except NotTls as error:
        alert = alert_name(error.__cause__)
        return Greeting(protocol=protocol, reason=f"alert {alert}" if alert else _plain(str(error)))
    except TimeoutError:
        return Greeting(protocol=protocol, reason="no answer in time")
    except OSError as error:
        return Greeting(protocol=protocol, reason=_plain(error.strerror or "closed"))
    reason = "" if flight.alert is None else f"alert {alert_text(flight)}"
    return Greeting(protocol=protocol, flight=flight, reason=reason)


def _plain(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _request(look: Look, identity: Identity | None, protocol: str, deadline: float) -> Seen:
    context = asking_context()
    context.minimum_version = context.maximum_version = VERSIONS[protocol]
    if identity is not None:
        load_identity(context, identity)
    return call(context, look.address, look.port, look.server_name, timeout_seconds=_step(deadline))


def _step(deadline: float) -> float:
    return max(0.1, min(STEP_SECONDS, deadline - time.monotonic()))


def check_identity(identity: Identity) -> None:
    """Raise ssl.SSLError when a chain and a key do not belong together."""
    load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity)
