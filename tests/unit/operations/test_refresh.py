"""A look at a socket where anything may answer."""

from __future__ import annotations

import socket
import threading

from mtlsctl.operations.refresh import OnWire, _look
from mtlsctl.verify.wire import Served


def vector(content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + content


def test_a_certificate_that_is_none_is_another_one() -> None:
    certificate = b"\x0b" + vector(vector(vector(b"no certificate")))
    flight = certificate + b"\x0e" + vector(b"")
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            connection, _ = door.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x16\x03\x03" + len(flight).to_bytes(2, "big") + flight)

        thread = threading.Thread(target=answer)
        thread.start()
        port = door.getsockname()[1]
        seen = _look(Served(address="127.0.0.1", port=port, server_name="a.test", certificate_sha256="0" * 64))
        thread.join()
    assert (OnWire.OTHER, "") == (seen.state, seen.serial)
