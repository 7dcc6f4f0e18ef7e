"""What lies on hosts and what is served, beside what was put there: seen, shown, and left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.fleet import DEPLOYER, Fleet, free_port, needs_a_fleet
from tests.integration.repository import Estate, calendar, make_estate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.fleet import Sshd

pytestmark = needs_a_fleet()

NGINX = """\
pid /run/nginx.pid;
error_log /run/nginx.log;
events {}
http { access_log off; include /etc/nginx/conf.d/*.conf; }
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture(scope="module")
def estate(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    web1, web2 = fleet.start("web1"), fleet.start("web2")
    estate = make_estate(tmp_path_factory.mktemp("refresh") / "estate")
    estate = replace(estate, environ=fleet.environment())
    inventory = calendar(
        hosts={
            "web1": {"address": web1.address, "port": web1.port, "user": "root"},
            "web2": {"address": web2.address, "port": web2.port, "user": DEPLOYER, "become": True},
        }
    )
    inventory["services"]["schedule"]["listen"] = free_port(web1.address)
    estate.write(inventory)
    estate.good("apply", "--yes")
    web1.path("/run/nginx.conf").write_text(NGINX)
    web1.run("nginx", "-c", "/run/nginx.conf").check_returncode()
    yield estate
    web1.run("nginx", "-c", "/run/nginx.conf", "-s", "quit")


def refreshed(estate: Estate) -> Any:
    return estate.good("plan", "--refresh", "-o", "json").json["hosts"]


def kinds(estate: Estate) -> list[tuple[str, str]]:
    return [(one["host"], one["kind"]) for one in refreshed(estate)["drift"]]


def release_of(host: Sshd, service: str) -> Path:
    return Path(host.path(f"/etc/mtlsctl/{service}/{host.path(f'/etc/mtlsctl/{service}/current').readlink()}"))


def test_hosts_that_hold_what_was_put_there_and_serve_it_are_in_sync(estate: Estate) -> None:
    assert [] == kinds(estate)
    status = estate.good("status", "--refresh", "--detailed-exitcode", "-o", "json").json["hosts"]
    assert status["in_sync"]
    (schedule,) = (one for one in status["instances"] if one["instance"] == "schedule@web1")
    assert ["expected"] == [view["state"] for view in schedule["wire"]]
    assert "Drift" not in estate.good("plan", "--refresh").out


def test_looking_writes_nothing_and_takes_no_lock(estate: Estate, fleet: Fleet) -> None:
    before = estate.good("state", "show", "-o", "json").json["serial"]
    lock = fleet.hosts["web1"].path("/etc/mtlsctl/.lock").stat()
    refreshed(estate)
    assert before == estate.good("state", "show", "-o", "json").json["serial"]
    assert lock.st_mtime_ns == fleet.hosts["web1"].path("/etc/mtlsctl/.lock").stat().st_mtime_ns


def test_a_file_that_was_edited_by_hand_is_shown_and_not_overwritten(estate: Estate, fleet: Fleet) -> None:
    pointer = fleet.hosts["web1"].path("/etc/nginx/conf.d/mtlsctl.conf")
    whole = pointer.read_text()
    pointer.write_text(whole + "# by hand\n")
    assert [("web1", "pointer-edited")] == kinds(estate)
    assert "was edited since it was applied; nothing overwrites it" in estate.good("plan", "--refresh").out
    assert 2 == estate.run("status", "--refresh", "--detailed-exitcode").code
    estate.run("apply", "--yes")
    assert pointer.read_text().endswith("# by hand\n")
    pointer.write_text(whole)
    assert [] == kinds(estate)


def test_the_same_file_on_two_hosts_is_named_with_the_host_that_it_is_on(estate: Estate, fleet: Fleet) -> None:
    whole = estate.inventory.read_text()
    inventory = json.loads(whole)
    inventory["services"]["diary"] = {
        "runtime": "nginx",
        "hosts": ["web2"],
        "listen": free_port(fleet.hosts["web2"].address),
        "callers": ["mail"],
    }
    estate.write(inventory)
    estate.good("apply", "--yes")
    pointers = [fleet.hosts[name].path("/etc/nginx/conf.d/mtlsctl.conf") for name in ("web1", "web2")]
    kept = [pointer.read_text() for pointer in pointers]
    for pointer in pointers:
        pointer.write_text("# by hand")
    shown = " ".join(estate.good("plan", "--refresh").out.split())
    for name in ("web1", "web2"):
        assert f"{name}/nginx: {name}:/etc/nginx/conf.d/mtlsctl.conf was edited" in shown
    for pointer, text in zip(pointers, kept, strict=True):
        pointer.write_text(text)
    estate.inventory.write_text(whole)
    estate.good("apply", "--yes")
    assert [] == kinds(estate)


def test_what_was_altered_or_taken_away_is_shown_by_host_and_made_anew(estate: Estate, fleet: Fleet) -> None:
    web1, web2 = fleet.hosts["web1"], fleet.hosts["web2"]
    (release_of(web2, "social") / "mtls.cjs").write_text("altered")
    for key in web1.path("/etc/mtlsctl/mail/keys").iterdir():
        key.unlink()
    assert {("web1", "key-gone"), ("web2", "release-altered")} == set(kinds(estate))
    shown = estate.good("plan", "--refresh").out
    assert "social@web2: its release was altered (mtls.cjs); it is made anew" in " ".join(shown.split())
    planned = estate.good("plan", "--refresh", "-o", "json").json
    applied = estate.good("apply", "--yes", "--expect-fingerprint", planned["fingerprint"])
    assert "step=look" in applied.err
    assert [] == kinds(estate)


def test_a_process_that_serves_something_else_is_seen_on_the_wire(estate: Estate, fleet: Fleet) -> None:
    web1 = fleet.hosts["web1"]
    web1.run("nginx", "-c", "/run/nginx.conf", "-s", "stop").check_returncode()
    hosts = estate.run("status", "--refresh", "--detailed-exitcode", "-o", "json")
    assert 2 == hosts.code
    (schedule,) = (one for one in hosts.json["hosts"]["instances"] if one["instance"] == "schedule@web1")
    assert ["silent"] == [view["state"] for view in schedule["wire"]]
    web1.run("nginx", "-c", "/run/nginx.conf").check_returncode()
    assert estate.good("status", "--refresh", "-o", "json").json["hosts"]["in_sync"]


def test_a_host_out_of_reach_is_said_to_be_and_the_plan_is_that_of_the_state(estate: Estate, fleet: Fleet) -> None:
    with fleet.known_hosts.open() as kept:
        known = kept.read()
    fleet.forget_all()
    seen = refreshed(estate)
    assert {("web1", "M4304"), ("web2", "M4304")} == {(one["host"], one["code"]) for one in seen["unreachable"]}
    assert not estate.good("plan", "--refresh", "-o", "json").json["has_changes"]
    fleet.known_hosts.write_text(known)
    assert [] == kinds(estate)
