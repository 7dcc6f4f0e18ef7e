"""Real servers and callers, in processes of their own, that read the applied files as they are."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.conftest import find_peer
from tests.integration.estate import LOOPBACK
from tests.support.patience import ANSWERED_SECONDS, ENDED_SECONDS, HAPPENED_SECONDS, STARTED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROGRAMS = Path(__file__).parent / "programs"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

LET_IN, TURNED_AWAY, UNREACHABLE = "let in", "turned away", "unreachable"

NOBODY = "nobody"
"""A caller without a certificate."""


class Shown(NamedTuple):
    """What a call showed: LET_IN only when the service's own answer was read."""

    outcome: str
    detail: str


class Place(NamedTuple):
    """Where a service is dialled and which name is checked."""

    name: str
    address: str
    port: int


class Posing(NamedTuple):
    """A certificate and its key that a caller shows instead of its own."""

    cert: Path
    key: Path


def posing(folder: Path) -> Posing:
    """As the instance whose release lies in the folder."""
    return Posing(folder / "tls.crt", folder / "tls.key")


def answered(service: str, status: int, body: str) -> Shown:
    is_service = status == 200 and body.strip() == service
    return Shown(LET_IN if is_service else TURNED_AWAY, f"HTTP {status}: {body.strip()[:60]}")


# --- programs that run ----------------------------------------------------------------------------------------------


class Program:
    """A process with its log; ends with the block that it is entered for."""

    live: list[Program] = []  # noqa: RUF012  what a failed test shows the logs of
    ends_its_group = False
    """Whether it ends all of its process group with itself, which must not be the test's."""

    def __init__(self, name: str, argv: Sequence[object], log: Path, *, at: Iterable[tuple[str, int]] = ()) -> None:
        self.name, self.argv, self.log, self.places = name, [str(one) for one in argv], log, list(at)

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=self.ends_its_group
            )
        Program.live.append(self)
        try:
            self.await_places()
        except BaseException:
            self.__exit__()
            raise
        return self

    def await_places(self) -> None:
        deadline = time.monotonic() + STARTED_SECONDS
        for place in self.places:
            while not accepts(*place):
                ended = self.process.poll()
                assert ended is None, f"{self.name} ended with {ended}:\n{self.said()}"
                assert time.monotonic() < deadline, f"{self.name} does not listen at {place}:\n{self.said()}"
                time.sleep(0.02)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")[-4000:]

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(HAPPENED_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        Program.live.remove(self)


def accepts(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


class Nginx(Program):
    """The nginx of a host, with a main configuration that includes mtlsctl's file and, if given, more of the test's."""

    def __init__(
        self, host: Path, at: Iterable[tuple[str, int]], *, own: str = "", include: bool = True, name: str = "nginx"
    ) -> None:
        prefix = host.with_name(f"{host.name}-{name}")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f'{kind}_temp_path "{prefix}/{kind}";' for kind in kinds)
        included = f'include "{host}/etc/nginx/conf.d/mtlsctl.conf";' if include else ""
        prefix.mkdir(parents=True)
        (host / "run").mkdir(exist_ok=True)
        (prefix / "nginx.conf").write_text(
            f'daemon off;\nworker_processes 2;\npid "{host}/run/nginx.pid";\nerror_log "{prefix}/error.log" info;\n'
            f"events {{ }}\nhttp {{\naccess_log off;\n{temporary}\n{included}\n{own}\n}}\n"
        )
        argv = [find_peer("nginx"), "-p", prefix, "-c", prefix / "nginx.conf", "-e", "stderr"]
        super().__init__(f"{name} of {host.name}", argv, prefix / "log", at=at)
        self.error_log = prefix / "error.log"

    def said(self) -> str:
        errors = self.error_log.read_text("utf-8", "replace") if self.error_log.exists() else ""
        return super().said() + errors[-4000:]


APACHE_MAIN = """\
ServerRoot "{prefix}"
DefaultRuntimeDir "{prefix}"
PidFile "{host}/run/apache.pid"
ErrorLog "{prefix}/error.log"
LogLevel info
ServerName localhost
{modules}
User #65534
Group #65534
StartServers 2
<IfModule !mpm_prefork_module>
    ThreadsPerChild 25
    MinSpareThreads 25
    MaxRequestWorkers 100
</IfModule>
GracefulShutdownTimeout 5
{included}
{own}
"""
APACHE_MODULES = ("authz_core", "alias", "headers", "ssl", "proxy", "proxy_http", "slotmem_shm", "lbmethod_byrequests")
APACHE_FOLDER = Path("/usr/lib/apache2/modules")


def load_modules(*, mpm: str = "event", without: str = "") -> str:
    """What a package would have enabled; `without` is left out."""
    names = (f"mpm_{mpm}", *(one for one in (*APACHE_MODULES, "proxy_balancer") if one != without))
    return "\n".join(f"LoadModule {name}_module {APACHE_FOLDER}/mod_{name}.so" for name in names)


class Apache(Program):
    """The Apache of a host; its main configuration includes mtlsctl's file and, if given, more of the test's."""

    ends_its_group = True

    def __init__(
        self,
        host: Path,
        at: Iterable[tuple[str, int]],
        *,
        own: str = "",
        name: str = "apache",
        mpm: str = "event",
        without: str = "",
    ) -> None:
        prefix = host.with_name(f"{host.name}-{name}")
        prefix.mkdir(parents=True)
        (host / "run").mkdir(exist_ok=True)
        self.main = prefix / "apache.conf"
        self.main.write_text(
            APACHE_MAIN.format(
                prefix=prefix,
                host=host,
                modules=load_modules(mpm=mpm, without=without),
                included=f'IncludeOptional "{host}/etc/apache2/conf-enabled/*.conf"',
                own=own,
            )
        )
        argv = [find_peer("apache2"), "-f", self.main, "-DFOREGROUND"]
        super().__init__(f"{name} of {host.name}", argv, prefix / "log", at=at)
        self.error_log = prefix / "error.log"

    def await_places(self) -> None:
        """It opens its sockets before it has read its keys, and writes its pid after that."""
        deadline = time.monotonic() + STARTED_SECONDS
        while "resuming normal operations" not in self.said():
            assert self.process.poll() is None, f"{self.name} ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"{self.name} does not start:\n{self.said()}"
            time.sleep(0.02)
        super().await_places()

    def said(self) -> str:
        errors = self.error_log.read_text("utf-8", "replace") if self.error_log.exists() else ""
        return super().said() + errors[-4000:]


class NodeServer(Program):
    """A Node service that takes everything from `current/mtls.cjs`; a door is (listener, address, port)."""

    def __init__(
        self, host: Path, service: str, doors: Sequence[tuple[str, str, int]], *, stall_milliseconds: int = 0
    ) -> None:
        listed = [{"listener": name, "address": address, "port": port} for name, address, port in doors]
        module = host / "etc/mtlsctl" / service / "current/mtls.cjs"
        argv = [find_peer("node"), PROGRAMS / "server.cjs", module, service, json.dumps(listed), stall_milliseconds]
        super().__init__(service, argv, host / f"log/{service}", at=[(address, port) for _, address, port in doors])
        self.pid_file = host / f"run/{service}.pid"

    def __enter__(self) -> Self:
        super().__enter__()
        write_pid(self.pid_file, self.process.pid)
        return self


class PythonServer(Program):
    """Services in Python around plain files; see `programs/server.py` for what a door holds."""

    def __init__(self, log: Path, doors: Sequence[Mapping[str, Any]]) -> None:
        argv = [sys.executable, PROGRAMS / "server.py", json.dumps(doors)]
        super().__init__("python", argv, log, at=[(door["address"], door["port"]) for door in doors])


def write_pid(file: Path, pid: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{pid}\n")


def python_door(
    current: Path, service: str, listener: str, place: Place, tls: Sequence[str] = ("1.2", "1.3"), **changes: Any
) -> dict[str, Any]:
    """A door of a service of the runtime `pem`, as its README says to open it."""
    return {
        "folder": str(current),
        "service": service,
        "chain": "tls.crt",
        "key": "tls.key",
        "clients": f"clients/{listener}.pem",
        "address": place.address,
        "port": place.port,
        "tls": list(tls),
        **changes,
    }


# --- callers --------------------------------------------------------------------------------------------------------


def by_curl(current: Path, callee: str, service: str, url: str, *, pose: Posing | str | None = None) -> Shown:
    """`curl -K` with the applied file; options after it are what a poser would add."""
    config, more = current / f"{callee}.curlrc", []
    if isinstance(pose, Posing):
        more = ["--cert", str(pose.cert), "--key", str(pose.key)]
    command: list[object] = [find_peer("curl"), "-q", "-s", "-S", "--max-time", ANSWERED_SECONDS, "-K", config, *more]
    text = None
    if pose == NOBODY:
        # curl cannot take a certificate back, so it gets the same file without those two lines.
        lines = config.read_text().splitlines()
        text = "\n".join(line for line in lines if not line.startswith(("cert =", "key =")))
        command[command.index(config)] = "-"
    command += ["-w", "%{stderr}\nstatus=%{http_code}", url]
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, check=False)
    status = int(re.findall(r"status=([0-9]+)", done.stderr)[-1])
    if done.returncode in {6, 7, 28}:
        return Shown(UNREACHABLE, done.stderr.strip())
    if status:
        return answered(service, status, done.stdout)
    return Shown(TURNED_AWAY, f"curl {done.returncode}: {done.stderr.strip().splitlines()[0]}")


def by_node(cases: Sequence[Mapping[str, Any]]) -> dict[str, Shown]:
    """All cases in one Node process, through the applied module; see `programs/caller.cjs`."""
    asked = [{key: value for key, value in case.items() if key != "service"} for case in cases]
    command = [str(find_peer("node")), str(PROGRAMS / "caller.cjs")]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=ENDED_SECONDS
    )
    assert done.returncode == 0, done.stderr
    services = {case["id"]: case["service"] for case in cases}
    return {one["id"]: _shown_by_node(services[one["id"]], one) for one in json.loads(done.stdout)}


def _shown_by_node(service: str, one: Mapping[str, Any]) -> Shown:
    if "error" not in one:
        return answered(service, one["status"], one["body"])
    missed = {"ECONNREFUSED", "ETIMEDOUT", "ENOTFOUND", "EHOSTUNREACH", "ERR_INVALID_ARG_TYPE"}
    return Shown(UNREACHABLE if one["error"] in missed else TURNED_AWAY, one["error"])


def by_python(
    current: Path,
    callee: str,
    service: str,
    place: Place,
    *,
    pose: Posing | str | None = None,
    tls: Sequence[str] = ("1.2", "1.3"),
) -> Shown:
    """Python's ssl with the plain files of a release, resolved once."""
    folder = current.resolve()
    context = caller_context(folder, callee, pose=pose, tls=tls)
    try:
        status, body = get(context, place, host=place.name)
    except TimeoutError as error:
        return Shown(UNREACHABLE, repr(error))
    except ConnectionRefusedError as error:
        return Shown(UNREACHABLE, repr(error))
    except OSError as error:
        return Shown(TURNED_AWAY, repr(error))
    return answered(service, status, body)


def caller_context(
    folder: Path, callee: str, *, pose: Posing | str | None = None, tls: Sequence[str] = ("1.2", "1.3")
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = VERSIONS[tls[0]], VERSIONS[tls[-1]]
    context.load_verify_locations(folder / f"servers/{callee}.pem")
    if pose != NOBODY:
        shows = pose if isinstance(pose, Posing) else posing(folder)
        context.load_cert_chain(shows.cert, shows.key)
    return context


def get(context: ssl.SSLContext, place: Place, *, host: str, sni: str | None = "") -> tuple[int, str]:
    """One request on a new connection, read to its end. `sni` None sends no name; then the server's is not checked."""
    name = place.name if sni == "" else sni
    with (
        socket.create_connection((place.address, place.port), timeout=ANSWERED_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=name) as secured,
    ):
        request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        with suppress(OSError):  # who has refused may have closed: its alert is still there to be read
            secured.sendall(request.encode())
        response = http.client.HTTPResponse(secured)
        try:
            response.begin()
            return response.status, response.read().decode()
        except http.client.BadStatusLine as error:
            raise ConnectionResetError("closed without an answer") from error
        finally:
            response.close()


def by_egress(service: str, port: int, path: str = "/") -> Shown:
    """Plain HTTP to a local port where nginx calls on."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ANSWERED_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return answered(service, response.status, response.read().decode())
    except OSError as error:
        return Shown(UNREACHABLE, repr(error))
    finally:
        connection.close()
