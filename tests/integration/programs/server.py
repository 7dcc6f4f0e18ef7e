"""A service as its author would write it around mtlsctl's plain files, with Python's ssl alone.

Argument: its doors as JSON, each with `service` (what it answers), `chain`, `key` and `clients` (below `folder`; no
`clients` asks for no certificate), `address`, `port` and `tls` (1.2, 1.3 or both as a list).
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context_of(door: dict[str, Any]) -> ssl.SSLContext:
    folder = Path(door["folder"]).resolve()  # `current` is resolved once for each load
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = VERSIONS[door["tls"][0]], VERSIONS[door["tls"][-1]]
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.load_cert_chain(folder / door["chain"], folder / door["key"])
    if door["clients"]:
        context.load_verify_locations(folder / door["clients"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def answer(door: dict[str, Any], connection: socket.socket) -> None:
    body = f"{door['service']}\n".encode()
    with connection, contextlib.suppress(OSError):
        connection.settimeout(60)
        with context_of(door).wrap_socket(connection, server_side=True) as secured:
            if secured.recv(65536):
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                secured.sendall(head.encode() + body)
                secured.unwrap()


def serve(door: dict[str, Any], listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=answer, args=(door, connection), daemon=True).start()


def main() -> None:
    doors = json.loads(sys.argv[1])
    for door in doors:
        context_of(door)
    opened = [(door, socket.create_server((door["address"], door["port"]))) for door in doors]
    serving = [threading.Thread(target=serve, args=one) for one in opened]
    for thread in serving:
        thread.start()


main()
