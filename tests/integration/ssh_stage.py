"""An estate on hosts behind SSH: real sshd, and the servers that run on those hosts with what was delivered there."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import socket
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.conftest import find_peer
from tests.integration.fleet import DEPLOYER, Fleet, Sshd, free_port
from tests.integration.peers import LET_IN, PROGRAMS, TURNED_AWAY, UNREACHABLE, Program, Shown, answered, load_modules
from tests.integration.repository import make_estate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.integration.repository import Estate, Inventory

BASE = "/etc/mtlsctl"
NGINX_POINTER = "/etc/nginx/conf.d/mtlsctl.conf"
APACHE_POINTER = "/etc/apache2/conf-enabled/mtlsctl.conf"
_INCLUDED = re.compile(r'"?(/etc/mtlsctl/[a-z0-9-]+/releases/[0-9a-f]{16})/')


class Stage:
    """Three hosts: `web1` and `web3` for root, `web2` for an unprivileged user who may use sudo."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names = folder, names or ("web1", "web2", "web3")
        self.fleet = Fleet(folder / "fleet")
        self._number = 0

    def __enter__(self) -> Self:
        self.fleet.__enter__()
        try:
            for name in self.names:
                self.fleet.start(name)
        except BaseException:
            self.fleet.__exit__()
            raise
        self.port = free_port(self["web1"].address)
        self.second_port = free_port(self["web1"].address)
        self.node_port = free_port(self["web2"].address) if "web2" in self.names else 0
        self.apache_port = free_port(self["web3"].address) if "web3" in self.names else 0
        return self

    def __exit__(self, *arguments: object) -> None:
        self.fleet.__exit__(*arguments)

    def __getitem__(self, name: str) -> Sshd:
        return self.fleet.hosts[name]

    def clear(self) -> None:
        """Hosts as they were before anything was delivered."""
        for host in self.fleet.hosts.values():
            on(host, f"umount {BASE} 2>/dev/null; rm -rf {BASE} {NGINX_POINTER} {APACHE_POINTER}")

    def host(self, name: str, **words: Any) -> dict[str, Any]:
        """A host as the inventory declares it."""
        host = self[name]
        user = {"user": DEPLOYER, "become": True} if name == "web2" else {"user": "root"}
        return {"address": host.address, "port": host.port, **user, **words}

    def inventory(self, **words: Any) -> Inventory:
        """nginx, curl and Node, and plain files on the third host; `words` are said of every host."""
        return {
            "version": 1,
            "name": "calendar",
            "hosts": {name: self.host(name, **words) for name in self.names},
            "services": {
                "schedule": {
                    "runtime": "nginx",
                    "hosts": ["web1"],
                    "listeners": [{"name": "main", "port": self.port, "bind": "host", "callers": ["mail", "social"]}],
                },
                "mail": {"runtime": "curl", "hosts": ["web2"]},
                "social": {"runtime": "node", "hosts": ["web2"]},
                "report": {"runtime": "pem", "hosts": ["web3"], "listen": 19443, "callers": ["social"]},
            },
        }

    def estate(self, inventory: Inventory | None = None) -> Estate:
        """A new project; its hosts are empty."""
        self._number += 1
        self.clear()
        made = make_estate(self.folder / f"estate{self._number}", inventory or self.inventory())
        return replace(made, environ=self.fleet.environment())

    # --- callers

    def call(
        self, caller: str, callee: str = "schedule", *, at: str = "web2", pose: str = "", more: Sequence[str] = ()
    ) -> Shown:
        """curl on the caller's host with the file that lies there; it shows the leaf of `pose`, if that is given."""
        config = f"{BASE}/{caller}/current/{callee}.curlrc"
        folder = f"{BASE}/{pose}/current"
        shows = ["--cert", f"{folder}/tls.crt", "--key", f"{folder}/tls.key"] if pose else []
        name = f"{callee}.calendar.internal"
        argv = ["curl", "-q", "-s", "-S", "--max-time", "10", "-K", config, *shows, *more, "-w", "\n%{http_code}"]
        done = self[at].run(*argv, f"https://{name}:{self.port}/")
        if done.returncode in {6, 7, 28}:
            return Shown(UNREACHABLE, done.stderr)
        body, _, status = done.stdout.rpartition("\n")
        if int(status or 0):
            return answered(callee, int(status), body)
        return Shown(TURNED_AWAY, f"curl {done.returncode}: {done.stderr}")

    def served(self, *, name: str = "schedule.calendar.internal") -> x509.Certificate:
        """What nginx shows; the handshake ends only when key and certificate fit."""
        return leaf_served(self["web1"].address, self.port, name)


def on(host: Sshd, script: str) -> str:
    """A shell script on the host, as root, without SSH; it has to end well."""
    done = host.run("sh", "-c", script)
    assert done.returncode == 0, (script, done)
    return done.stdout


def leaf_served(address: str, port: int, name: str) -> x509.Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


# --- what lies there ------------------------------------------------------------------------------------------------


def releases_named(host: Sshd) -> list[Path]:
    """Every release folder that a pointer on the host names, as it is reached from here."""
    named: list[Path] = []
    for pointer in (NGINX_POINTER, APACHE_POINTER):
        if host.path(pointer).exists():
            named += [host.path(one) for one in dict.fromkeys(_INCLUDED.findall(host.path(pointer).read_text()))]
    for current in sorted(host.path(BASE).glob("*/current")):
        named.append(current.parent / current.readlink())
    return named


def current(host: Sshd, service: str) -> Path:
    """The folder of the service that a pointer names."""
    (found,) = [one for one in releases_named(host) if one.parent.parent.name == service]
    return found


def leaf_on(host: Sshd, service: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates((current(host, service) / "tls.crt").read_bytes())[0]


def assert_whole(release: Path) -> None:
    """All its files are there, none torn, and its key is that of its certificate."""
    assert release.is_dir(), f"{release} is named and not there"
    leaf = x509.load_pem_x509_certificates((release / "tls.crt").read_bytes())[0]
    key = serialization.load_pem_private_key((release / "tls.key").read_bytes(), None)
    assert leaf.public_key() == key.public_key(), f"{release}: key and chain differ"
    for path in (one for one in release.rglob("*") if one.is_file()):
        assert path.stat().st_size > 0, f"{path} is empty"
        assert path.suffix in {".p12", ""} or path.read_bytes().endswith(b"\n"), f"{path} is torn"
        assert path.stat().st_mode & 0o7 == 0, f"{path} is readable by others"
    assert (release / "tls.key").stat().st_mode & 0o777 == 0o600


def assert_all_whole(stage: Stage) -> None:
    for host in stage.fleet.hosts.values():
        for release in releases_named(host):
            assert_whole(release)


def assert_nothing_is_left_over(host: Sshd, *services: str) -> None:
    """These services with one key each, at most three releases, and nothing unfinished."""
    below = {one.name for one in host.path(BASE).glob("[!.]*")}
    assert below == set(services)
    for service in services:
        folder = host.path(f"{BASE}/{service}")
        assert len(list((folder / "keys").iterdir())) == 1, list((folder / "keys").iterdir())
        releases = [one.name for one in (folder / "releases").iterdir()]
        assert 1 <= len(releases) <= 3
        assert [one for one in releases if "." in one] == []


def prove(estate: Estate) -> None:
    """Nothing is left to do and the state is sound."""
    plan = estate.run("plan", "--detailed-exitcode")
    assert plan.code == 0, plan
    assert plan.out.startswith("Nothing to change."), plan
    estate.good("state", "check")
    again = estate.good("apply", "--yes")
    assert again.out.startswith("Nothing to change."), again


# --- secrets --------------------------------------------------------------------------------------------------------


def shapes_of(pem: bytes) -> list[bytes]:
    """How a key may look on its way: PEM, DER, either in base64 at any alignment, the number alone, hexadecimal."""
    key = serialization.load_pem_private_key(pem, None)
    whole = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    number = key.private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
    body = b"".join(pem.splitlines()[1:-1])
    shapes = [body[:60], whole, number, number.hex().encode(), number[::-1]]
    for padding in range(3):
        shapes.append(base64.b64encode(b"\0" * padding + number)[4:-4])
        shapes.append(base64.b64encode(b"\0" * padding + pem)[8:-8])
    return shapes


# --- programs of a host ---------------------------------------------------------------------------------------------

NGINX_MAIN = """\
user root;
worker_processes 2;
pid /run/nginx.pid;
error_log /run/host/nginx.log info;
events {{ }}
http {{
    access_log off;
    {temporary}
    {included}
}}
"""
_TEMPORARY = "\n".join(
    f"    {one}_temp_path /run/host/nginx-{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


class HostNginx(Program):
    """The nginx of a host, with its own /etc/nginx/nginx.conf."""

    def __init__(self, host: Sshd) -> None:
        self.host = host
        on(host, "mkdir -p /etc/nginx/conf.d && rm -f /etc/nginx/conf.d/*")
        self.include()
        argv = ["nsenter", "--mount", f"--target={host.pid}", "--", find_peer("nginx"), "-g", "daemon off;"]
        super().__init__(f"nginx of {host.host}", argv, host.folder / "nginx.out")

    def include(self, files: str = "/etc/nginx/conf.d/*.conf") -> None:
        """What its main file includes: ours and whatever lies beside it, unless the test says otherwise."""
        text = NGINX_MAIN.format(temporary=_TEMPORARY, included=f"include {files};")
        self.host.path("/etc/nginx/nginx.conf").write_text(text)

    def await_places(self) -> None:
        until(lambda: self.pid_file.exists() and self.pid_file.read_text().strip() == str(self.process.pid))

    @property
    def pid_file(self) -> Path:
        return self.host.path("/run/nginx.pid")

    def spoil(self) -> None:
        """From now on it refuses to take up anything: somebody else's file is broken."""
        self.host.path("/etc/nginx/conf.d/broken.conf").write_text("this is no directive;\n")

    def mend(self) -> None:
        self.host.path("/etc/nginx/conf.d/broken.conf").unlink(missing_ok=True)

    def reread(self) -> None:
        """Take up what lies there now, whatever it is; what was served before is served no more."""
        before = self._workers()
        os.kill(self.process.pid, signal.SIGHUP)
        until(lambda: len(now := self._workers()) == len(before) and not now & before)

    def _workers(self) -> set[str]:
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def said(self) -> str:
        with contextlib.suppress(OSError):
            return super().said() + self.host.path("/run/host/nginx.log").read_text()[-4000:]
        return super().said()

    def __exit__(self, *arguments: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
        super().__exit__(*arguments)


APACHE_MAIN = """\
ServerRoot "/run/host"
DefaultRuntimeDir "/run/host"
PidFile "/run/apache2/apache2.pid"
ErrorLog "/run/host/apache.log"
LogLevel info
ServerName localhost
{modules}
User #65534
Group #65534
StartServers 2
ThreadsPerChild 25
MinSpareThreads 25
MaxRequestWorkers 100
GracefulShutdownTimeout 5
Listen {address}:{port}
IncludeOptional {pointer}
"""


class HostApache(Program):
    """The Apache of a host; it needs one place of its own to start at all."""

    ends_its_group = True

    def __init__(self, host: Sshd) -> None:
        self.host = host
        on(host, f"mkdir -p /run/apache2 {Path(APACHE_POINTER).parent}")
        text = APACHE_MAIN.format(
            modules=load_modules(), address=host.address, port=free_port(host.address), pointer=APACHE_POINTER
        )
        host.path("/run/host/apache.conf").write_text(text)
        argv = ["nsenter", "--mount", f"--target={host.pid}", "--", find_peer("apache2")]
        super().__init__(
            f"apache of {host.host}", [*argv, "-f", "/run/host/apache.conf", "-DFOREGROUND"], host.folder / "apache.out"
        )

    def await_places(self) -> None:
        until(lambda: "resuming normal operations" in self.said() or self.process.poll() is not None, seconds=20)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        with contextlib.suppress(OSError):
            return super().said() + self.host.path("/run/host/apache.log").read_text()[-4000:]
        return super().said()


class HostNode(Program):
    """A Node program of a host that takes everything from `current/mtls.cjs` and is told of releases by SIGHUP."""

    def __init__(self, host: Sshd, service: str, program: str, *arguments: object) -> None:
        self.host, self.service = host, service
        argv = ["nsenter", "--mount", f"--target={host.pid}", "--", find_peer("node"), PROGRAMS / program]
        module = f"{BASE}/{service}/current/mtls.cjs"
        super().__init__(f"{service} of {host.host}", [*argv, module, *arguments], host.folder / f"{service}.out")

    def __enter__(self) -> Self:
        super().__enter__()
        self.host.path(f"/run/{self.service}.pid").write_text(f"{self.process.pid}\n")
        return self


def until(holds: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- what goes wrong ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at(failpoint: str, action: Callable[[], object]) -> Iterator[list[str]]:
    """Do something when an apply in this process gets to a place; gives what it got to."""
    reached: list[str] = []
    lock = threading.Lock()

    def act(_: str, name: str) -> None:
        with lock:
            reached.append(name)
            is_first = reached.count(name) == 1
        if name == failpoint and is_first:
            action()

    with mock.patch("mtlsctl.failpoints._act", act), mock.patch.dict(os.environ, MTLSCTL_FAILPOINT=failpoint):
        yield reached


class Flow:
    """One connection through a wire."""

    def __init__(self, wire: Wire, here: socket.socket, there: socket.socket) -> None:
        self.wire, self.ends = wire, (here, there)
        self.is_held = False
        for one in self.ends:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pairs = (self.ends, self.ends[::-1])
        self.threads = [threading.Thread(target=self._carry, args=pair, daemon=True) for pair in pairs]
        for thread in self.threads:
            thread.start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source is self.ends[0]:
                    data = self.wire.count(data)
                if not self.is_held:
                    target.sendall(data)
        if not self.is_held:
            self.end()

    def end(self) -> None:
        for one in self.ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.end()
        for thread in self.threads:
            thread.join()
        for one in self.ends:
            one.close()


class Wire:
    """A way to a host's sshd that a test can cut, or hold up without telling either side."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.to = stage[name]
        self.port = free_port(self.to.address)
        self.sent = 0
        self.cut_after: int | None = None
        self._flows: list[Flow] = []
        self._listener: socket.socket | None = None
        self._alone = threading.Lock()
        self._is_silent = False
        with stage.fleet.known_hosts.open("a") as file:
            file.write(f"[{self.to.address}]:{self.port} {self.to.host_key().text}\n")

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        for flow in self._flows:
            flow.close()

    def mend(self) -> None:
        """New connections are taken and flow; what was held up before is so for ever."""
        with self._alone:
            self.cut_after, self._is_silent = None, False
            if self._listener is None:
                self._listener = socket.create_server((self.to.address, self.port))
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                flow = Flow(self, here, socket.create_connection((self.to.address, self.to.port)))
                flow.is_held = self._is_silent
                self._flows.append(flow)

    def count(self, data: bytes) -> bytes:
        """What of it goes on to the host."""
        if self.cut_after is not None and self.sent + len(data) > self.cut_after:
            data = data[: max(0, self.cut_after - self.sent)]
            threading.Timer(0.05, self.down).start()
        self.sent += len(data)
        return data

    def cut(self) -> None:
        """Every connection is gone; new ones are taken."""
        for flow in self._flows:
            if not flow.is_held:
                flow.end()

    def down(self) -> None:
        """Every connection is gone, and nobody answers any more."""
        with self._alone:
            if self._listener is not None:
                with contextlib.suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            self.cut_after = None
        self.cut()

    def hold(self, *, new_ones_too: bool = True) -> None:
        """Nothing arrives any more, on either side, and nobody is told."""
        self._is_silent = new_ones_too
        for flow in self._flows:
            flow.is_held = True


__all__ = ["LET_IN", "TURNED_AWAY", "UNREACHABLE"]
