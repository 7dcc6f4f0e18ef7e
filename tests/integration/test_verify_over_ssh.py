"""Proof by calls from the callers' own hosts, with the keys that were born there and never left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.integration.fleet import DEPLOYER, Fleet, free_port, needs_a_fleet
from tests.integration.repository import Estate, calendar, make_estate
from tests.integration.test_refresh import NGINX

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_a_fleet()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as made:
        made.start("web1")
        made.start("web2")
        yield made


@pytest.fixture(scope="module", params=["service-ca", "shared-ca", "pinned"])
def estate(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Estate]:
    web1, web2 = fleet.hosts["web1"], fleet.hosts["web2"]
    for host in (web1, web2):
        host.run("rm", "-rf", "/etc/mtlsctl", "/etc/nginx/conf.d/mtlsctl.conf").check_returncode()
    estate = replace(make_estate(tmp_path_factory.mktemp("far") / "estate"), environ=fleet.environment())
    inventory = calendar(
        hosts={
            "web1": {"address": web1.address, "port": web1.port, "user": "root"},
            "web2": {"address": web2.address, "port": web2.port, "user": DEPLOYER, "become": True},
        },
        trust={"model": request.param},
    )
    services = inventory["services"]
    services["schedule"] |= {"listen": free_port(web1.address), "callers": ["mail", "social"]}
    services["report"] = {"runtime": "pem", "hosts": ["web2"]}
    estate.write(inventory)
    estate.good("apply", "--yes")
    web1.path("/run/nginx.conf").write_text(NGINX)
    web1.run("nginx", "-c", "/run/nginx.conf").check_returncode()
    yield estate
    web1.run("nginx", "-c", "/run/nginx.conf", "-s", "stop")


def delivered(estate: Estate, *arguments: str) -> set[tuple[str, str, str]]:
    """(caller, what was observed, with which key) of each call that a service makes for itself."""
    ran = estate.run("verify", "-o", "json", *arguments)
    assert ran.code in {0, 1, 4}, ran
    return {
        (one["caller_instance"], one["observed"], one["probe"]["mode"])
        for one in ran.json["results"]
        if one["probe"]["presented"] == "delivered"
    }


def test_declared_callers_get_in_from_their_hosts_and_everyone_else_is_refused(estate: Estate) -> None:
    assert 0 == estate.run("verify").code
    assert {
        ("mail@web1", "allowed", "delivered-key"),
        ("social@web2", "allowed", "delivered-key"),
        ("report@web2", "refused", "delivered-key"),
    } == delivered(estate)


def test_from_the_controller_certificates_of_minutes_stand_in_for_keys_that_stay_on_their_hosts(estate: Estate) -> None:
    seen = delivered(estate, "--from", "controller")
    if '"pinned"' in estate.inventory.read_text():
        assert {"not probed"} == {observed for _, observed, _ in seen}
    else:
        assert {
            ("mail@web1", "allowed", "probe-certificate"),
            ("social@web2", "allowed", "probe-certificate"),
            ("report@web2", "refused", "probe-certificate"),
        } == seen


def test_a_host_that_cannot_reach_the_door_is_not_a_pass(estate: Estate, fleet: Fleet) -> None:
    pointer = fleet.hosts["web1"].path("/etc/mtlsctl/mail/current")
    release = pointer.readlink()
    anchors = next((pointer.parent / release / "servers").iterdir())
    whole = anchors.read_bytes()
    anchors.write_bytes(b"")
    assert "allowed" not in {observed for caller, observed, _ in delivered(estate) if caller == "mail@web1"}
    anchors.write_bytes(whole)
    anchors.chmod(0o640)
    assert 0 == estate.run("verify", "--quick").code


def test_where_to_call_from_is_one_of_two(estate: Estate) -> None:
    assert 64 == estate.run("verify", "--from", "moon").code
