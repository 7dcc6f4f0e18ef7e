"""Listeners brought up in this process from the files of a release, for where no real server runs yet."""

from __future__ import annotations

import hashlib
import selectors
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self

from mtlsctl.model.files import clients_file
from mtlsctl.model.topology import ClientCertificate, InstanceId
from mtlsctl.model.trust import OutsideAnchor
from mtlsctl.pki.inspect import issuer_and_subject, subject_text
from mtlsctl.pki.outside import is_issued_by
from mtlsctl.pki.stores import parse_bundle
from mtlsctl.verify.handshake import NOT_A_CALLER
from mtlsctl.verify.identity import VERSIONS, Identity, identity_of, load_identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from mtlsctl.model.release import HeldFile, Recipe, ServedListener
    from mtlsctl.model.state import State

_HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 5.0
_DRAIN_SECONDS = 1.0
_REQUEST_LIMIT = 16 * 1024
_VERIFY = {
    ClientCertificate.REQUIRED: ssl.CERT_REQUIRED,
    ClientCertificate.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificate.NONE: ssl.CERT_NONE,
}


NOTHING_SHOWN: Mapping[str, Identity] = MappingProxyType({})


class ListenerKey(NamedTuple):
    """One listener of one instance."""

    instance: InstanceId
    listener: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedListener:
    """A listener as its release describes it; `clients` None lets nobody in, whatever is presented.

    `members` are the names (issuer, subject) that get in under the anchors; None where the anchors decide alone. The
    issuer is an anchor itself, of those in `clients`: an intermediate may have borrowed its name.
    """

    key: ListenerKey
    identity: Identity
    clients: bytes | None
    client_certificate: ClientCertificate
    protocols: tuple[str, ...]
    server_names: tuple[str, ...]
    members: frozenset[tuple[str, str]] | None = None

    @property
    def admits_nobody(self) -> bool:
        return self.clients is None and self.client_certificate is not ClientCertificate.NONE


def listeners_of(
    recipe: Recipe,
    files: Mapping[str, HeldFile],
    state: State,
    shown: Mapping[str, Identity] = NOTHING_SHOWN,
) -> tuple[EmbeddedListener, ...]:
    """Every listener of a release from its files as they were read back; raises KeyError when one is missing.

    `shown` are by listener the certificates that somebody else issued; a listener is left out that shows another.
    """
    identity = identity_of(files)
    return tuple(
        EmbeddedListener(
            key=ListenerKey(recipe.instance, served.name),
            identity=identity if served.shows is None else shown[served.name],
            # Only a listener without callers has no such file: for any other its absence must not go unnoticed.
            clients=files[clients_file(served.name)].read() if served.policy.anchors else None,
            client_certificate=served.client_certificate,
            protocols=served.protocols,
            server_names=recipe.server_names,
            members=_members(served, files, state),
        )
        for served in recipe.listeners
        if served.shows is None or served.name in shown
    )


def _members(served: ServedListener, files: Mapping[str, HeldFile], state: State) -> frozenset[tuple[str, str]] | None:
    """Raises KeyError when an anchor from outside is not among the files."""
    if served.policy.members is None:
        return None
    ders = parse_bundle(files[clients_file(served.name)].read())
    subjects = {hashlib.sha256(der).hexdigest(): subject_text(der) for der in ders}
    return frozenset(
        (
            subjects[one.anchor.sha256]
            if isinstance(one.anchor, OutsideAnchor)
            else f"CN={state.common_name_of(one.anchor)}",
            one.subject,
        )
        for one in served.policy.members
    )


def server_context(listener: EmbeddedListener) -> ssl.SSLContext:
    """What the runtimes are rendered to do: callers verified, names matched, nothing resumed; raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = sorted(VERSIONS[protocol] for protocol in listener.protocols)
    context.minimum_version, context.maximum_version = versions[0], versions[-1]
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    load_identity(context, listener.identity)
    if listener.clients is not None:
        context.load_verify_locations(cadata=listener.clients.decode("ascii"))
    context.verify_mode = _VERIFY[listener.client_certificate]
    context.sni_callback = _NameCheck(listener)
    return context


@dataclass(frozen=True, slots=True)
class _NameCheck:
    """Refuses a name that is not the listener's, and a greeting without any, as a catch-all server does."""

    listener: EmbeddedListener

    def __call__(self, _socket: object, name: str | None, _context: object) -> int | None:
        is_ours = name is not None and name.lower() in self.listener.server_names
        if is_ours and not self.listener.admits_nobody:
            return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


class EmbeddedServers:
    """A context manager: inside it every listener answers on a loopback port of its own."""

    def __init__(self, listeners: Sequence[EmbeddedListener], *, workers: int = 8) -> None:
        self._listeners = tuple(listeners)
        self._workers = workers
        self._addresses: dict[ListenerKey, tuple[str, int]] = {}
        self._sockets: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def address_of(self, key: ListenerKey) -> tuple[str, int]:
        """(address, port) of a listener; raises KeyError for one that was not given."""
        return self._addresses[key]

    def __enter__(self) -> Self:
        """Raises ssl.SSLError, and leaves nothing open, when the files of a listener do not load."""
        self._selector = selectors.DefaultSelector()
        self._wake, stopper = socket.socketpair()
        self._sockets.extend((self._wake, stopper))
        self._selector.register(stopper, selectors.EVENT_READ, None)
        try:
            for listener in self._listeners:
                self._listen(listener)
        except BaseException:
            self._close_sockets()
            raise
        self._pool = ThreadPoolExecutor(max_workers=self._workers, thread_name_prefix="embedded")
        self._acceptor = threading.Thread(target=self._accept, name="embedded-accept")
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.sendall(b"x")
        self._acceptor.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._open:
            connection.close()
        self._close_sockets()

    def _listen(self, listener: EmbeddedListener) -> None:
        context = server_context(listener)
        opened = socket.create_server((_HOST, 0), backlog=128)
        self._sockets.append(opened)
        opened.settimeout(0)
        self._addresses[listener.key] = opened.getsockname()[:2]
        self._selector.register(opened, selectors.EVENT_READ, (context, listener))

    def _close_sockets(self) -> None:
        self._selector.close()
        for opened in self._sockets:
            opened.close()

    def _accept(self) -> None:
        while True:
            for ready, _ in self._selector.select():
                if ready.data is None:
                    return
                with suppress(OSError):
                    connection, _ = ready.fileobj.accept()  # type: ignore[union-attr]
                    self._take(connection, *ready.data)

    def _take(self, connection: socket.socket, context: ssl.SSLContext, listener: EmbeddedListener) -> None:
        with self._lock:
            self._open.add(connection)
        self._pool.submit(self._serve, connection, context, listener)

    def _serve(self, connection: socket.socket, context: ssl.SSLContext, listener: EmbeddedListener) -> None:
        with connection, suppress(OSError):
            connection.settimeout(_TIMEOUT_SECONDS)
            _answer(connection, context, listener)
            _hang_up_gently(connection)
        with self._lock:
            self._open.discard(connection)


def _answer(connection: socket.socket, context: ssl.SSLContext, listener: EmbeddedListener) -> None:
    """One handshake, one request, one answer; a refused handshake has sent its alert when this returns."""
    with connection.dup() as duplicate:
        duplicate.settimeout(_TIMEOUT_SECONDS)
        with suppress(ssl.SSLError, ConnectionError), context.wrap_socket(duplicate, server_side=True) as secured:
            request = b""
            while b"\r\n\r\n" not in request and len(request) < _REQUEST_LIMIT and (chunk := secured.recv(4096)):
                request += chunk
            is_member = _is_member(secured.getpeercert(binary_form=True), listener)
            status = "200 OK" if is_member else "403 Forbidden"
            body = f"{listener.key.instance} {listener.key.listener}\n" if is_member else NOT_A_CALLER.decode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            secured.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())


def _is_member(certificate: bytes | None, listener: EmbeddedListener) -> bool:
    """Whether the leaf is one of those that are let in by name; without a certificate the handshake has decided."""
    if listener.members is None or certificate is None or listener.clients is None:
        return True
    issuer, subject = issuer_and_subject(certificate)
    anchors = (one for one in parse_bundle(listener.clients) if subject_text(one) == issuer)
    # Python's ssl cannot limit the depth of a chain, so the issuer is looked at itself.
    return (issuer, subject) in listener.members and any(is_issued_by(certificate, one) for one in anchors)


def _hang_up_gently(connection: socket.socket) -> None:
    """Close so that the last bytes arrive.

    Closing with unread data makes the kernel reset the connection, and a reset may overtake the alert that says why.
    """
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(_DRAIN_SECONDS)
    while connection.recv(4096):
        pass
