"""The two parts of the tutorial: first the server alone shows a certificate, then the caller shows one too."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.estate import LOOPBACK, Estate, Inventory, internal
from tests.integration.peers import Place
from tests.spring.programs import REFUSED, SpringBoot, ask, greeting, url_of, write_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("java")]

STYLES = {"2.7": "classic", "3.5": "bundle-pem"}
NO_TRUST, NO_KEY, BOTH = (
    {"2.7": "/withoutTrustStore", "3.5": "/withoutBundle"},
    {"2.7": "/withTrustStore", "3.5": "/withoutKeyStore"},
    {"2.7": "/withKeyStore", "3.5": "/withBundle"},
)
PARTLY = 3


class Tutorial:
    """`service1` has one page, and `service2` calls it when it is asked to, over plain HTTP."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version, self.estate = folder, version, Estate(folder)
        address = self.estate.address(2)
        self.first = Place(internal("service1"), address, self.estate.free_port(address))
        self.second = Place("localhost", LOOPBACK, self.estate.free_port(LOOPBACK))
        settings = {"spring_boot": version, "style": STYLES[version]}
        self.door: dict[str, Any] = {"port": self.first.port, "bind": "host", "callers": ["service2"]}
        service: dict[str, Any] = {"runtime": "spring-boot", "hosts": ["here"], "settings": settings}
        self.inventory: Inventory = {
            "version": 1,
            "name": "calendar",
            "hosts": {"here": {"directory": "out/here", "address": address}},
            "services": {"service1": {**service, "listeners": [self.door]}, "service2": service},
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        names, here = write_names(self.folder / "hosts", [self.first]), self.estate.host("here")
        options = (f"--server.address={LOOPBACK}", f"--server.port={self.second.port}")
        with (
            SpringBoot(self.version, here, "service1", names, self.first).start() as one,
            SpringBoot(self.version, here, "service2", names, self.second, *options) as _,
        ):
            one.await_places()
            yield

    def call(self, how: dict[str, str]) -> tuple[int, str]:
        return ask(self.second, how[self.version], {"callee": "service1", "url": url_of(self.first)})

    def verify(self) -> int:
        return self.estate.run("verify").code

    def apply(self) -> int:
        self.estate.declare(self.inventory)
        return self.estate.run("apply", "--yes").code


@pytest.mark.parametrize("version", STYLES)
def test_from_one_way_to_two_way(tmp_path: Path, version: str) -> None:
    tutorial = Tutorial(tmp_path, version)
    tutorial.door["client_certificate"] = "none"
    assert 0 == tutorial.apply()
    with tutorial.running():
        assert 400 == status_of(tutorial.first)
        status, said = tutorial.call(NO_TRUST)
        assert (REFUSED, True) == (status, "PKIX path building failed" in said), said
        assert (200, greeting("service1")) == tutorial.call(NO_KEY)
        assert 0 == tutorial.verify()

    tutorial.door["client_certificate"] = "required"
    # First the caller has to show its certificate, which it reads when it starts; then the server may ask for it.
    assert PARTLY == tutorial.apply()
    with tutorial.running():
        assert (200, greeting("service1")) == tutorial.call(BOTH)
        assert 0 == tutorial.apply()
        assert 4 == tutorial.verify(), "the server that runs does not ask yet"
    with tutorial.running():
        status, said = tutorial.call(NO_KEY)
        assert (REFUSED, True) == (status, "bad_certificate" in said or "certificate_required" in said), said
        assert (200, greeting("service1")) == tutorial.call(BOTH)
        assert 0 == tutorial.verify()


def status_of(place: Place) -> int:
    """What plain HTTP gets at the port."""
    return ask(place, "/", {})[0]
