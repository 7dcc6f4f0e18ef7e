"""Servers on loopback for the prober to judge, most of them wrong in one way."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Self

from mtlsctl.verify.identity import load_identity
from tests.support.patience import ANSWERED_SECONDS, HAPPENED_SECONDS, STARTED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.verify.certificates import Leaf

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


def tls_context(leaf: Leaf, *anchors: Leaf, verify: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    load_identity(context, leaf.identity)
    if anchors:
        context.load_verify_locations(cadata="".join(a.pem.decode() for a in anchors))
    context.verify_mode = verify
    return context


def answer(connection: ssl.SSLSocket, response: bytes = OK) -> None:
    connection.recv(4096)
    connection.sendall(response)


class Server:
    """Gives every connection to `serve` in a thread; afterwards closes it gently."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.05)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.address: tuple[str, int] = self._listening.getsockname()[:2]

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._one, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(ANSWERED_SECONDS)
            with contextlib.suppress(OSError):
                self._serve(connection)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            while connection.recv(4096):
                pass


def speaking_tls(
    context: ssl.SSLContext, then: Callable[[ssl.SSLSocket], None] = answer
) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        with connection.dup() as duplicate:
            duplicate.settimeout(ANSWERED_SECONDS)
            with context.wrap_socket(duplicate, server_side=True) as secured:
                then(secured)

    return serve


def silence_of(seconds: float) -> Callable[[socket.socket], None]:
    """Takes what comes, says nothing and closes."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        time.sleep(seconds)

    return serve


class Nginx:
    """A real nginx in a folder, with one included file that tests switch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "host/etc/nginx/conf.d/mtlsctl.conf"
        self.conf.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file = folder / "host/run/nginx.pid"
        self.pid_file.parent.mkdir(exist_ok=True)

    def start(self, workers: int = 2) -> None:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temp = "".join(f'{kind}_temp_path "{self.folder}/{kind}"; ' for kind in kinds)
        main = (
            f'daemon off; worker_processes {workers}; pid "{self.pid_file}";'
            f' error_log "{self.folder}/error.log" info;\n'
            f'events {{}}\nhttp {{ access_log off; {temp} include "{self.conf}"; }}\n'
        )
        (self.folder / "nginx.conf").write_text(main)
        assert NGINX is not None
        self.process = subprocess.Popen(
            [NGINX, "-p", self.folder, "-c", self.folder / "nginx.conf", "-e", "stderr"], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + STARTED_SECONDS
        while not (self.pid_file.exists() and self.pid_file.read_text().strip()):
            assert time.monotonic() < deadline, (self.folder / "error.log").read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(HAPPENED_SECONDS)

    def server(self, port: int, leaf: Leaf, *anchors: Leaf, name: str) -> str:
        """The text of one server, whose files are written beside."""
        place = self.folder / f"files-{time.monotonic_ns()}"
        place.mkdir()
        (place / "crt").write_bytes(leaf.pem)
        (place / "key").write_bytes(leaf.key_pem)
        (place / "ca").write_bytes(b"".join(a.pem for a in anchors))
        return (
            f"server {{ listen 127.0.0.1:{port} ssl; server_name {name}; ssl_certificate {place}/crt;"
            f" ssl_certificate_key {place}/key; ssl_client_certificate {place}/ca; ssl_verify_client on;"
            " ssl_session_cache off; ssl_session_tickets off; ssl_protocols TLSv1.2 TLSv1.3;"
            ' location / { return 200 "ok"; } }\n'
        )
