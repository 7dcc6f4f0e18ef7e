"""What is tried with what: servers, callers, trust models, TLS versions and cases, as data. One more is one line."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from tests.integration.estate import bundle
from tests.integration.peers import LET_IN, TURNED_AWAY


class ServerKind(NamedTuple):
    """A program that serves; `peers` have to be installed. Where it speaks one set of TLS versions, whatever the
    listener, there is a service for each version instead of a listener; where it has one store for both directions, it
    cannot call somebody who may not call it."""

    runtime: str
    peers: tuple[str, ...]
    has_one_set: bool = False
    has_one_store: bool = False


class CallerKind(NamedTuple):
    """A program that calls. A way out calls each service at one listener: there is one for each TLS version."""

    runtime: str
    peers: tuple[str, ...]
    is_way_out: bool = False


SERVERS = {
    "nginx": ServerKind("nginx", ("nginx",)),
    "Apache": ServerKind("apache", ("apache2",)),
    "Node": ServerKind("node", ("node",)),
    "JVM": ServerKind("java", ("java", "javac"), has_one_set=True, has_one_store=True),
}

CALLERS = {
    "curl": CallerKind("curl", ("curl",)),
    "Python": CallerKind("pem", ()),
    "Node": CallerKind("node", ("node",)),
    "JVM": CallerKind("java", ("java", "javac")),
    "Ruby": CallerKind("ruby", ("ruby", "faraday")),
    "nginx": CallerKind("nginx", ("nginx",), is_way_out=True),
    "Apache": CallerKind("apache", ("apache2",), is_way_out=True),
}

PEERS = sorted({peer for kinds in (SERVERS, CALLERS) for kind in kinds.values() for peer in kind.peers})
"""All that has to be installed."""

MODELS = ("service-ca", "shared-ca", "pinned")
VERSIONS = {"old": "1.2", "new": "1.3"}
"""A door of each server for each TLS version, which it speaks alone."""


class Case(StrEnum):
    """One try. In the last two it is the server that shows something wrong, and the caller that has to refuse."""

    ALLOWED = "a declared caller"
    AS_ITSELF = "a declared caller that shows its certificate in the way in which the next three show another"
    UNDECLARED = "a caller that is not declared"
    NOBODY = "no certificate"
    UNKNOWN_CALLER = "a caller of an unknown CA"
    UNKNOWN_SERVER = "a server of an unknown CA"
    MISNAMED = "a server of another name"


class Part(StrEnum):
    """What a service of a server is for: doubles of it show a wrong certificate."""

    SERVER = "server"
    MISISSUED = "misissued"
    MISNAMED = "misnamed"


class Door(NamedTuple):
    """A listener of a service of a kind of server."""

    server: str
    part: Part
    version: str

    @property
    def service(self) -> str:
        name = f"{self.server.lower()}-{self.part}"
        return f"{name}-{self.version}" if SERVERS[self.server].has_one_set else name

    @property
    def listener(self) -> str:
        return "main" if SERVERS[self.server].has_one_set else self.version

    @property
    def callee(self) -> str:
        """How its callers' files call it."""
        return bundle(self.service, self.listener)


DOORS = tuple(Door(server, part, version) for server in SERVERS for part in Part for version in VERSIONS)


class Try(NamedTuple):
    """A case at a kind of server in one TLS version."""

    server: str
    version: str
    case: Case

    @property
    def door(self) -> Door:
        doubles = {Case.UNKNOWN_SERVER: Part.MISISSUED, Case.MISNAMED: Part.MISNAMED}
        return Door(self.server, doubles.get(self.case, Part.SERVER), self.version)


TRIES = tuple(Try(server, version, case) for server in SERVERS for version in VERSIONS for case in Case)


def expected(model: str, tried: Try) -> str:
    """What has to come out, whoever calls."""
    if tried.case in (Case.ALLOWED, Case.AS_ITSELF) or (model, tried.server, tried.case) in LETS_IN:
        return LET_IN
    return TURNED_AWAY


LETS_IN = {("shared-ca", "JVM", Case.UNDECLARED): "authorize: any-member"}
"""Model, server and case where somebody gets in who is not declared, because the server cannot tell callers apart,
with what a listener has to say for that: without it the plan is refused."""


def caller_name(kind: str, version: str = "") -> str:
    """The service of a kind of caller that calls in this TLS version."""
    name = f"{kind.lower()}-caller"
    return f"{name}-{version}" if CALLERS[kind].is_way_out else name
