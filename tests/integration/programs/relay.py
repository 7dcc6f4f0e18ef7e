"""A ProxyCommand: `relay.py NOTE HOST PORT USER` writes what it was asked for to NOTE and carries the bytes."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

note, host, port, user = sys.argv[1:]
Path(note).write_text(f"{host} {port} {user}\n", "ascii")
connection = socket.create_connection((host, int(port)))


def there() -> None:
    while data := os.read(0, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


threading.Thread(target=there, daemon=True).start()
while data := connection.recv(65536):
    os.write(1, data)
