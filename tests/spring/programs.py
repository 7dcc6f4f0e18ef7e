"""Running applications, and questions to them: each answers about itself, and about what it gets when it calls."""

from __future__ import annotations

import http.client
import urllib.parse
from typing import TYPE_CHECKING, Self

from tests.integration.peers import NOBODY, Place, Posing, Program, caller_context, posing, write_pid
from tests.spring.built import application, java_command
from tests.support.patience import ANSWERED_SECONDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping
    from pathlib import Path

REFUSED = 502
"""What an application answers when its own call failed; the body tells every exception."""


class SpringBoot(Program):
    """An application whose TLS comes from `current/application-mtls.properties` alone.

    It starts its TLS from nothing else: what stands on its command line is text, and for a caller without a listener
    the port that tests ask at. `names` stands in for DNS.
    """

    def __init__(self, version: str, host: Path, service: str, names: Path, place: Place, *more: str) -> None:
        properties = host / "etc/mtlsctl" / service / "current/application-mtls.properties"
        argv = java_command(
            application(version), f"--spring.config.import=file:{properties}", f"--greeting={greeting(service)}", *more
        )
        argv.insert(1, f"-Djdk.net.hosts.file={names}")
        super().__init__(f"{service} ({version})", argv, host / f"log/{service}", at=[(place.address, place.port)])
        self.pid_file = host / f"run/{service}.pid"

    def start(self) -> Self:
        """Without waiting until it listens: several start at once."""
        places, self.places = self.places, []
        super().__enter__()
        self.places = places
        write_pid(self.pid_file, self.process.pid)
        return self

    def __enter__(self) -> Self:
        if self not in Program.live:
            self.start()
        try:
            self.await_places()
        except BaseException:
            self.__exit__()
            raise
        return self


def greeting(service: str) -> str:
    return f"Hello World, this is {service}"


def write_names(file: Path, places: Iterable[Place]) -> Path:
    """A hosts file for the JVM."""
    file.write_text("".join(sorted({f"{place.address} {place.name}\n" for place in places})))
    return file


def url_of(place: Place) -> str:
    return f"https://{place.name}:{place.port}/"


def ask(place: Place, path: str, question: Mapping[str, str], context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """One request with a query; over TLS where there is a context."""
    target = f"{path}?{urllib.parse.urlencode(question)}"
    connection = http.client.HTTPConnection(place.address, place.port, timeout=ANSWERED_SECONDS)
    try:
        connection.connect()
        if context is not None:
            connection.sock = context.wrap_socket(connection.sock, server_hostname=place.name)
        connection.request("GET", target, headers={"Host": place.name, "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def context_as(folder: Path, callee: str, pose: Posing | str | None = None) -> ssl.SSLContext:
    """As the caller whose release lies in the folder, or as somebody else who believes the same."""
    return caller_context(folder, callee, pose=NOBODY if pose == NOBODY else pose or posing(folder))
