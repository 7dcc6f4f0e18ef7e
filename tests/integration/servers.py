"""A real nginx that reads what an estate put on a host, on loopback, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import find_peer
from tests.support.patience import ANSWERED_SECONDS, HAPPENED_SECONDS, STARTED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAIN = """\
pid "{host}/run/nginx.pid";
error_log "{aside}/error.log" warn;
worker_processes 2;
events {{}}
http {{
    access_log off;
    client_body_temp_path "{aside}/body";
    proxy_temp_path "{aside}/proxy";
    fastcgi_temp_path "{aside}/fastcgi";
    uwsgi_temp_path "{aside}/uwsgi";
    scgi_temp_path "{aside}/scgi";
    include "{aside}/*.conf";
    {include}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """A host's nginx. `aside` holds what is not ours: its main file, its log, and whatever else it includes."""

    host: Path
    aside: Path

    @property
    def pid_file(self) -> Path:
        return self.host / "run" / "nginx.pid"

    def include_ours(self, *, wanted: bool = True) -> None:
        line = f'include "{self.host}/etc/nginx/conf.d/*.conf";' if wanted else ""
        (self.aside / "main").write_text(_MAIN.format(host=self.host, aside=self.aside, include=line))

    def spoil(self) -> None:
        """From now on it refuses to take up anything: somebody else's file is broken."""
        (self.aside / "broken.conf").write_text("this is no directive;\n")

    def mend(self) -> None:
        (self.aside / "broken.conf").unlink()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        program = find_peer("nginx")
        assert program is not None
        subprocess.run(
            [program, "-p", self.aside, "-c", self.aside / "main", "-e", "stderr"], check=True, timeout=STARTED_SECONDS
        )
        until(lambda: self.pid_file.exists() and bool(self.pid_file.read_text()))
        pid = int(self.pid_file.read_text())
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


def make_nginx(host: Path, aside: Path) -> Nginx:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    nginx = Nginx(host=host, aside=aside)
    nginx.include_ours()
    return nginx


def until(holds: Callable[[], bool], *, seconds: float = HAPPENED_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def leaf_served(port: int, name: str) -> bytes:
    """The certificate (DER) that is shown to whoever asks for the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""
