"""What a program behind a real nginx is told about who called: nginx's word, whatever a caller says about itself."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.integration.estate import LOOPBACK, Estate, Inventory, internal
from tests.integration.peers import NOBODY, Apache, Nginx, Place, caller_context
from tests.support.patience import ANSWERED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("nginx")]

OURS = ("X-SSL-Client-Verify", "X-SSL-Client-DN", "X-SSL-Client-Issuer-DN", "X-SSL-Client-Cert")
OTHERS = ("Forwarded", "Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert")
FORGED = "CN=admin"
ISSUERS = {"service-ca": "CN=mail.calendar CA g1", "shared-ca": "CN=calendar CA g1", "pinned": "CN=mail"}


class Backend:
    """Answers each request with what it was sent, as it came; with `tls` it is a service of its own."""

    def __init__(self, place: tuple[str, int] = (LOOPBACK, 0), tls: ssl.SSLContext | None = None) -> None:
        self._listening = socket.create_server(place)
        if tls is not None:
            self._listening = tls.wrap_socket(self._listening, server_side=True)
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                seen = b""
                while b"\r\n\r\n" not in seen and (chunk := connection.recv(65536)):
                    seen += chunk
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(seen)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + seen)

    def close(self) -> None:
        self._listening.close()


class World:
    """One nginx with a door that forwards who called, one that forwards it to who need not show it, and one that does
    not; and a local port through which a program calls on as `portal`.
    """

    def __init__(self, folder: Path, backend: Backend, trust: str) -> None:
        self.estate, self.backend, self.trust = Estate(folder), backend, trust
        self.hosts = {name: self.estate.address(n) for n, name in enumerate(("north", "south", "east"), 2)}
        self.places = {
            name: Place(internal("schedule"), self.hosts["north"], self.estate.free_port(self.hosts["north"]))
            for name in ("told", "maybe", "silent")
        }
        self.egress = self.estate.free_port(LOOPBACK)
        self.press = (self.hosts["east"], self.estate.free_port(self.hosts["east"]))

    def inventory(self) -> Inventory:
        told = {"told": {}, "maybe": {"client_certificate": "optional"}}
        forward: dict[str, Any] = {"forward_identity": "headers"}
        listeners = [
            {"name": name, "port": place.port, "bind": "host", "callers": ["mail", "portal"]}
            | ({**forward, **told[name]} if name in told else {})
            for name, place in self.places.items()
        ]
        return {
            "version": 1,
            "name": "calendar",
            "trust": {"model": self.trust},
            "hosts": {
                name: {"directory": f"out/{name}", "address": place, "pid_files": {"nginx": "run/nginx.pid"}}
                if name != "east"
                else {"directory": f"out/{name}", "address": place}
                for name, place in self.hosts.items()
            },
            "services": {
                "schedule": {"runtime": "nginx", "hosts": ["north"], "listeners": listeners}
                | {"settings": {"upstream": f"http://{LOOPBACK}:{self.backend.port}", "forward_certificate": True}},
                "mail": {"runtime": "pem", "hosts": ["east"]},
                "portal": {"runtime": "nginx", "hosts": ["south"]} | {"settings": {"egress": {"press": self.egress}}},
                # Not an nginx of ours, which would remove whatever it is sent.
                "press": {"runtime": "pem", "hosts": ["east"], "callers": ["portal"], "bind": "host"}
                | {"listen": self.press[1], "authorize": "any-member"},
            },
        }

    def ask(self, door: str, headers: list[tuple[str, str]], *, anonymous: bool = False) -> dict[str, list[str]]:
        """What the backend was sent for such a request, by header in lower case."""
        folder = self.estate.current("east", "mail").resolve()
        place = self.places[door]
        context = caller_context(folder, f"schedule.{door}", pose=NOBODY if anonymous else None)
        with (
            socket.create_connection((place.address, place.port), timeout=ANSWERED_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=place.name) as secured,
        ):
            return exchange(secured, place.name, headers)

    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.estate.current("east", "mail") / "tls.crt").read_bytes())


def exchange(connection: socket.socket, host: str, headers: list[tuple[str, str]]) -> dict[str, list[str]]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n".encode())
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer[:300]
    seen: dict[str, list[str]] = {}
    for line in body.decode("latin-1").split("\r\n")[1:]:
        name, found, value = line.partition(": ")
        if found:
            seen.setdefault(name.lower(), []).append(value)
    return seen


@pytest.fixture(scope="module", params=ISSUERS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    del loopback
    backend = Backend()
    world = World(tmp_path_factory.mktemp("forward"), backend, request.param)
    world.estate.apply(world.inventory())
    with contextlib.ExitStack() as running, contextlib.closing(backend):
        # As programs behind it may want it of the rest of their nginx.
        careless = "underscores_in_headers on; ignore_invalid_headers off;"
        running.enter_context(
            Nginx(world.estate.host("north"), [place[1:] for place in world.places.values()], own=careless)
        )
        current = world.estate.current("east", "press")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(current / "tls.crt", current / "tls.key")
        tls.load_verify_locations(current / "clients/main.pem")
        tls.verify_mode = ssl.CERT_REQUIRED
        running.enter_context(contextlib.closing(Backend(world.press, tls)))
        running.enter_context(Nginx(world.estate.host("south"), [(LOOPBACK, world.egress)]))
        yield world


def forgeries() -> list[tuple[str, str]]:
    names = [*OURS, *OTHERS]
    spelt = [*names, *(name.lower() for name in names), *(name.replace("-", "_") for name in names)]
    return [(name, FORGED) for name in spelt]


def said(seen: dict[str, list[str]]) -> dict[str, list[str]]:
    """All that sounds like a word about who called, in whatever spelling a program may take it."""
    known = {name.lower() for name in (*OURS, *OTHERS)}
    return {name: values for name, values in seen.items() if name.replace("_", "-") in known}


def test_the_program_is_told_who_called(world: World) -> None:
    seen = world.ask("told", [])
    assert (["SUCCESS"], ["CN=mail"], [ISSUERS[world.trust]]) == tuple(seen[name.lower()] for name in OURS[:3])
    (certificate,) = seen["x-ssl-client-cert"]
    assert world.leaf().public_bytes(Encoding.PEM).decode() == urllib.parse.unquote(certificate)


def test_what_a_caller_says_about_itself_is_removed_first(world: World) -> None:
    assert said(world.ask("told", [])) == said(world.ask("told", forgeries()))
    assert set(said(world.ask("told", forgeries()))) == {name.lower() for name in OURS}


def test_who_shows_no_certificate_is_said_to_have_shown_none_and_cannot_say_otherwise(world: World) -> None:
    assert {"x-ssl-client-verify": ["NONE"]} == said(world.ask("maybe", forgeries(), anonymous=True))
    assert ["SUCCESS"] == said(world.ask("maybe", forgeries()))["x-ssl-client-verify"]


def test_a_door_that_forwards_nothing_passes_no_word_on(world: World) -> None:
    plain = [(name, FORGED) for name in (*OURS, *OTHERS)]
    assert {} == said(world.ask("silent", plain))


def test_what_a_program_is_told_goes_no_further_than_that_program(world: World) -> None:
    """A local port calls on as `portal`: what somebody claims there is not `portal`'s word to the next.

    The next one is no nginx of ours, and would believe it.
    """
    with socket.create_connection((LOOPBACK, world.egress), timeout=ANSWERED_SECONDS) as connection:
        seen = exchange(connection, LOOPBACK, [(name, FORGED) for name in (*OURS, *OTHERS)])
    assert {} == said(seen)


@pytest.mark.peer("apache2")
def test_apache_gives_the_certificate_itself_as_rfc_9440_has_it(tmp_path: Path, loopback: None) -> None:
    """And nobody else's: what a caller claims is gone, also where no certificate was shown."""
    del loopback
    estate, backend = Estate(tmp_path), Backend()
    address = estate.address(2)
    place = Place(internal("schedule"), address, estate.free_port(address))
    door = {"port": place.port, "bind": "host", "client_certificate": "optional", "callers": ["mail"]}
    door |= {"forward_identity": "rfc9440"}
    estate.apply(
        {
            "version": 1,
            "name": "calendar",
            "hosts": {"north": {"directory": "out/north", "address": address}},
            "services": {
                "schedule": {
                    "runtime": "apache",
                    "hosts": ["north"],
                    "listeners": [door | {"forward_identity": "rfc9440"}],
                }
                | {"settings": {"upstream": f"http://{LOOPBACK}:{backend.port}"}},
                "mail": {"runtime": "pem", "hosts": ["north"]},
            },
        }
    )
    folder = estate.current("north", "mail").resolve()
    leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()).public_bytes(Encoding.DER)
    with contextlib.closing(backend), Apache(estate.host("north"), [(address, place.port)]):
        for pose, expected in (
            (None, {"client-cert": [f":{base64.b64encode(leaf).decode()}:"]}),
            (NOBODY, {}),
        ):
            context = caller_context(folder, "schedule", pose=pose)
            with (
                socket.create_connection((address, place.port), timeout=ANSWERED_SECONDS) as connection,
                context.wrap_socket(connection, server_hostname=place.name) as secured,
            ):
                assert expected == said(exchange(secured, place.name, forgeries()))
