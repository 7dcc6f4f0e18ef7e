"""How each kind of server is run."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from tests.conftest import find_peer
from tests.integration.peers import Apache, Nginx, NodeServer, Program
from tests.interop.matrix import DOORS
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.interop.matrix import Door
    from tests.interop.world import World

PEERS = Path(__file__).parent / "peers"


def nginx(world: World) -> Iterator[Program]:
    """One nginx with all its services."""
    places = [world.places[door][1:] for door in doors_of("nginx")]
    yield Nginx(world.estate.host("nginx"), [*places, world.side[1:]])


def apache(world: World) -> Iterator[Program]:
    """One Apache with all its services."""
    yield Apache(world.estate.host("apache"), [world.places[door][1:] for door in doors_of("Apache")])


def node(world: World) -> Iterator[Program]:
    """One Node for each service."""
    for service in services_of("Node"):
        doors = [(door.listener, *world.places[door][1:]) for door in doors_of("Node") if door.service == service]
        yield NodeServer(world.estate.host("node"), service, doors)


def jvm(world: World) -> Iterator[Program]:
    """One JVM for each service, which has one door."""
    host = world.estate.host("jvm")
    for door in doors_of("JVM"):
        arguments = world.estate.current("jvm", door.service) / "java.args"
        at = world.places[door][1:]
        argv = [find_peer("java"), f"@{arguments}", *SMALL, "-cp", java_classes(), "Server", door.service, *at]
        yield Program(door.service, argv, host / f"log/{door.service}", at=[at])


SMALL = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx64m")
"""Options that have nothing to do with TLS: a JVM that starts soon."""


@cache
def java_classes() -> Path:
    """Our two Java programs, compiled once."""
    made = Path(mkdtemp(prefix="interop-java-"))
    sources = [str(one) for one in sorted(PEERS.glob("*.java"))]
    subprocess.run([str(find_peer("javac")), "-d", str(made), *sources], check=True, timeout=ENDED_SECONDS)
    return made


def doors_of(kind: str) -> list[Door]:
    return [door for door in DOORS if door.server == kind]


def services_of(kind: str) -> list[str]:
    return list(dict.fromkeys(door.service for door in doors_of(kind)))


START: dict[str, Callable[[World], Iterator[Program]]] = {"nginx": nginx, "Apache": apache, "Node": node, "JVM": jvm}
