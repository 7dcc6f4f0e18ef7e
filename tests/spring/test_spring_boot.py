"""The way of the article in real applications: one that serves, one that calls, and who is turned away and why.

Three applications serve and call each other. Their TLS comes from `application-mtls.properties` and from nothing else,
so whatever they do here, they do because of what an apply wrote. Tests ask them as `report`, a declared caller.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.crafted import look_alike, misnamed
from tests.integration.estate import Estate, Inventory, internal
from tests.integration.peers import (
    LET_IN,
    NOBODY,
    TURNED_AWAY,
    Place,
    Posing,
    PythonServer,
    by_python,
    posing,
    python_door,
)
from tests.spring.programs import REFUSED, SpringBoot, ask, context_as, greeting, url_of, write_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("java")]

APPLICATIONS = {"ledger": ("2.7", "classic"), "schedule": ("3.5", "bundle-pem"), "planner": ("4.1", "bundle-jks")}
"""Service -> version of Spring Boot and style of its properties."""

CLIENTS = {
    "ledger": ["withKeyStore"],
    "schedule": ["withBundle"],
    "planner": ["withBundle"],
}
"""How each application calls: RestTemplate, RestClient."""

WITHOUT_KEY = {"ledger": "withTrustStore", "schedule": "withoutKeyStore", "planner": "withoutKeyStore"}
WITHOUT_TRUST = {"ledger": "withoutTrustStore", "schedule": "withoutBundle", "planner": "withoutBundle"}
IMPOSTORS = ("misnamed", "misissued")
NO_PATH = "PKIX path building failed"


class World:
    """One estate: three applications on `north`, two impostors and the callers in Python on `south`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.estate = Estate(folder)
        self.hosts = {name: self.estate.address(number) for number, name in enumerate(("north", "south"), 2)}
        self.places = {name: self._place(name, "north") for name in APPLICATIONS}
        self.places |= {name: self._place(name, "south") for name in IMPOSTORS}
        self.names = write_names(folder / "hosts", [*self.places.values(), *self.aliases.values()])

    def _place(self, service: str, host: str) -> Place:
        return Place(internal(service), self.hosts[host], self.estate.free_port(self.hosts[host]))

    @property
    def aliases(self) -> dict[str, Place]:
        """The same servers by a name that their certificates do not have."""
        return {name: self.places[name]._replace(name=f"other.{internal(name)}") for name in APPLICATIONS}

    def inventory(self) -> Inventory:
        services = {
            name: {
                "runtime": "spring-boot",
                "hosts": ["north"],
                "listen": self.places[name].port,
                "bind": "host",
                "callers": [*(other for other in APPLICATIONS if other != name), "report"],
                "settings": {"spring_boot": version, "style": style},
            }
            for name, (version, style) in APPLICATIONS.items()
        }
        impostors = {
            name: {"runtime": "pem", "hosts": ["south"], "listen": self.places[name].port, "bind": "host"}
            | {"callers": [*APPLICATIONS, "stranger"]}
            for name in IMPOSTORS
        }
        callers = {name: {"runtime": "pem", "hosts": ["south"]} for name in ("report", "stranger")}
        return {
            "version": 1,
            "name": "calendar",
            "hosts": {name: {"directory": f"out/{name}", "address": address} for name, address in self.hosts.items()},
            "services": {**services, **impostors, **callers},
        }

    def release(self, host: str, service: str) -> Path:
        return self.estate.current(host, service).resolve()

    def ask(self, service: str, path: str, **question: str) -> tuple[int, str]:
        """As `report`, who is let in."""
        context = context_as(self.release("south", "report"), service)
        return ask(self.places[service], path, question, context)

    def call(self, caller: str, how: str, callee: str, place: Place | None = None) -> tuple[int, str]:
        """What the application gets when it calls."""
        return self.ask(caller, f"/{how}", callee=callee, url=url_of(place or self.places[callee]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    """All of them up, and serving what one apply wrote."""
    world = World(tmp_path_factory.mktemp("spring"))
    estate = world.estate
    estate.apply(world.inventory())
    wrong = misnamed(world.folder / "misnamed", estate, "misnamed", world.release("south", "misnamed"))
    foreign = look_alike(world.folder / "misissued", world.release("south", "misissued"))
    impostors = [
        python_door(
            world.folder, name, "main", world.places[name], chain=str(shows.cert), key=str(shows.key), clients=None
        )
        for name, shows in zip(IMPOSTORS, (wrong, foreign), strict=True)
    ]
    applications = [
        SpringBoot(version, estate.host("north"), name, world.names, world.places[name])
        for name, (version, _) in APPLICATIONS.items()
    ]
    with contextlib.ExitStack() as running:
        running.enter_context(PythonServer(world.folder / "python.log", impostors))
        for one in applications:
            one.start()
            running.push(one)
        for one in applications:
            one.await_places()
        yield world


PAIRS = [(caller, callee) for caller in APPLICATIONS for callee in APPLICATIONS if caller != callee]


@pytest.mark.parametrize("service", APPLICATIONS)
def test_plain_http_at_an_https_port_gets_no_answer(world: World, service: str) -> None:
    status, body = ask(world.places[service], "/", {})
    assert (400, True) == (status, "requires TLS" in body)


@pytest.mark.parametrize("service", APPLICATIONS)
def test_who_is_declared_is_let_in_and_nobody_else(world: World, service: str) -> None:
    report = world.release("south", "report")
    posers: dict[str, Posing | str | None] = {
        "itself": None,
        "nobody": NOBODY,
        "a stranger": posing(world.release("south", "stranger")),
        "the server itself": posing(world.release("north", service)),
        "a look-alike": look_alike(world.folder / f"look-alike-{service}", report),
    }
    shown = {
        (who, tls): by_python(report, service, greeting(service), world.places[service], pose=pose, tls=(tls,))
        for who, pose in posers.items()
        for tls in ("1.2", "1.3")
    }
    assert {case: LET_IN if case[0] == "itself" else TURNED_AWAY for case in shown} == {
        case: one.outcome for case, one in shown.items()
    }, shown


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_an_application_that_shows_its_certificate_gets_its_answer(world: World, caller: str, callee: str) -> None:
    for how in CLIENTS[caller]:
        assert (200, greeting(callee)) == world.call(caller, how, callee)


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_an_application_without_a_key_store_is_turned_away(world: World, caller: str, callee: str) -> None:
    status, said = world.call(caller, WITHOUT_KEY[caller], callee)
    assert (REFUSED, True) == (status, "bad_certificate" in said or "certificate_required" in said), said


@pytest.mark.parametrize("caller", APPLICATIONS)
def test_an_application_without_a_trust_store_believes_nobody_of_us(world: World, caller: str) -> None:
    callee = next(callee for one, callee in PAIRS if one == caller)
    status, said = world.call(caller, WITHOUT_TRUST[caller], callee)
    assert (REFUSED, True) == (status, NO_PATH in said), said


@pytest.mark.parametrize("caller", APPLICATIONS)
def test_a_server_of_an_unknown_authority_is_not_believed(world: World, caller: str) -> None:
    status, said = world.call(caller, CLIENTS[caller][0], "misissued")
    # A look-alike's authority has the right name, so Java finds a path and sees that the signature is not its own.
    assert (REFUSED, True) == (status, NO_PATH in said or "path validation failed" in said.lower()), said


@pytest.mark.parametrize("caller", APPLICATIONS)
def test_a_server_is_not_believed_under_another_name(world: World, caller: str) -> None:
    callee = next(callee for one, callee in PAIRS if one == caller)
    for name, place in (("misnamed", world.places["misnamed"]), (callee, world.aliases[callee])):
        status, said = world.call(caller, CLIENTS[caller][0], name, place)
        assert (REFUSED, True) == (status, "subject alternative" in said), said


def test_openfeign_calls_with_a_client_that_is_made_of_the_bundle(world: World) -> None:
    called = {
        "itself": world.call("schedule", "withFeign", "ledger"),
        "by another name": world.call("schedule", "withFeign", "ledger", world.aliases["ledger"]),
        "another's authority": world.call("schedule", "withFeign", "planner"),
    }
    assert (200, greeting("ledger")) == called["itself"]
    assert (REFUSED, True) == (called["by another name"][0], "subject alternative" in called["by another name"][1])
    # The bundle is the one of `ledger`, and believes nobody else, though `planner` may be called too.
    assert (REFUSED, True) == (called["another's authority"][0], NO_PATH in called["another's authority"][1])


@pytest.mark.parametrize("caller", APPLICATIONS)
def test_an_application_finds_where_its_callees_are(world: World, caller: str) -> None:
    for callee in (callee for one, callee in PAIRS if one == caller):
        for name in (f"mtlsctl.callees.{callee}.url", f"mtlsctl.callees[{callee}].url"):
            assert (200, url_of(world.places[callee]).rstrip("/")) == world.ask(caller, "/property", name=name)


def test_verify_finds_the_running_applications_as_declared(world: World) -> None:
    ran = world.estate.run("verify", "-o", "json")
    document = json.loads(ran.out)
    wrong = [one for one in document["results"] if one["verdict"] != "as_declared"]
    # The impostors are impostors; of the applications everything is right.
    assert {"misnamed", "misissued"} >= {str(one["listener"]).partition(":")[0] for one in wrong}, wrong
    assert {"ledger", "schedule", "planner"} <= {str(one["listener"]).partition(":")[0] for one in document["results"]}
