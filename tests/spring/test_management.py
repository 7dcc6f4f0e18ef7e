"""The second port of an application, where health is asked: with callers of its own, or with those of the first."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.estate import Estate, Inventory, internal
from tests.integration.peers import NOBODY, Place, Posing, posing
from tests.spring.programs import SpringBoot, ask, context_as, write_names

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("java")]

HEALTH = "/actuator/health"


class Health:
    """An application with two ports; `mail` may call the first, `probe` what is declared beside it."""

    def __init__(self, folder: Path, listeners: list[dict[str, Any]], **settings: str) -> None:
        self.folder, self.estate, self.settings = folder, Estate(folder), settings
        address = self.estate.address(2)
        self.main, self.management = (
            Place(internal("schedule"), address, self.estate.free_port(address)) for _ in range(2)
        )
        ports = {"main": self.main.port, "management": self.management.port}
        doors = [{"port": ports[one["name"]], "bind": "host", **one} for one in listeners]
        # Somewhere to call for everybody, so that everybody has a certificate of a caller.
        archive = {"runtime": "pem", "hosts": ["south"], "listen": 9443, "callers": ["mail", "probe"]}
        self.inventory: Inventory = {
            "version": 1,
            "name": "calendar",
            "hosts": {"north": {"directory": "out/north", "address": address}, "south": {"directory": "out/south"}},
            "services": {
                "schedule": {"runtime": "spring-boot", "hosts": ["north"], "listeners": doors, "settings": settings},
                "mail": {"runtime": "pem", "hosts": ["south"]},
                "probe": {"runtime": "pem", "hosts": ["south"]},
                "archive": archive,
            },
        }
        self.estate.apply(self.inventory)

    def server(self, *options: str) -> SpringBoot:
        names = write_names(self.folder / "hosts", [self.main])
        north = self.estate.host("north")
        one = SpringBoot(self.settings["spring_boot"], north, "schedule", names, self.main, *options)
        one.places.append((self.management.address, self.management.port))
        return one

    def asked(self, place: Place, path: str, who: str) -> int | None:
        """The status, or None for who is turned away."""
        south = {name: self.estate.current("south", name).resolve() for name in ("mail", "probe")}
        pose: Posing | str = NOBODY if who == NOBODY else posing(south[who])
        context = context_as(south["mail"], "schedule", pose)
        try:
            return ask(place, path, {}, context)[0]
        except (ssl.SSLError, ConnectionError):
            return None


def test_each_port_has_its_own_callers(tmp_path: Path) -> None:
    listeners = [{"name": "main", "callers": ["mail"]}, {"name": "management", "callers": ["probe"]}]
    health = Health(tmp_path, listeners, spring_boot="3.5", style="bundle-jks")
    with health.server():
        seen = {
            (where, who): health.asked(place, path, who)
            for where, place, path in (("main", health.main, "/"), ("management", health.management, HEALTH))
            for who in ("mail", "probe", NOBODY)
        }
    assert {
        ("main", "mail"): 200,
        ("main", "probe"): None,
        ("main", NOBODY): None,
        ("management", "mail"): None,
        ("management", "probe"): 200,
        ("management", NOBODY): None,
    } == seen


def test_a_port_that_the_application_opens_asks_for_the_same_even_when_it_says_something_of_its_own(
    tmp_path: Path,
) -> None:
    """One key below `management.server.ssl` would drop all that Spring takes over from `server.ssl`."""
    health = Health(tmp_path, [{"name": "main", "callers": ["mail"]}], spring_boot="2.7", style="classic")
    options = (
        f"--management.server.port={health.management.port}",
        f"--management.server.address={health.management.address}",
        "--management.server.ssl.protocol=TLS",
    )
    with health.server(*options):
        seen = {who: health.asked(health.management, HEALTH, who) for who in ("mail", "probe", NOBODY)}
    assert {"mail": 200, "probe": None, NOBODY: None} == seen
