"""Kill it anywhere, run it again: it converges, and nothing was lost or half written.

Each named place of an apply is hit by SIGKILL and by an error, in scenarios that together reach every one of them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from mtlsctl.failpoints import FAILPOINTS
from tests.integration.repository import (
    Estate,
    Inventory,
    Kept,
    Ran,
    assert_whole,
    calendar,
    certificates_on_hosts,
    hosts_of,
    make_estate,
    releases_named,
)
from tests.integration.servers import Nginx, leaf_served, make_nginx
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLED = -9
DOCUMENTED = {1, 3}
"""What an apply that met an error may say: the system refused (1), or not every process is done (3)."""

_EACH_CERTIFICATE = ["certificate.signing", "certificate.signed", "certificate.recorded"]
_EACH_RELEASE = ["stage.partial", "stage.written", "stage.synced", "stage.renamed", "stage.checked"]
_EACH_SWITCH = ["switch.intended", "switch.renamed", "switch.reloaded", "switch.settled", "switch.recorded"]
_OPERATION = ["operation.opened", "authority.signing", "operation.closed"]

FIRST = (
    Counter(dict.fromkeys([*_OPERATION, *_EACH_CERTIFICATE], 1))
    + Counter({"intents.recorded": 2, "authority.signed": 4, "authority.recorded": 1, "key.written": 4})
    + Counter(dict.fromkeys(["release.rendered", *_EACH_RELEASE, *_EACH_SWITCH, "prune.deleted"], 4))
)
"""How often a first install of four services passes each place."""

SECOND = (
    Counter(dict.fromkeys([*_OPERATION, *_EACH_CERTIFICATE, "remove.deleted"], 1))
    + Counter({"intents.recorded": 2, "authority.signed": 2, "authority.recorded": 1, "key.written": 2})
    + Counter(dict.fromkeys(["release.rendered", *_EACH_RELEASE], 5))
    + Counter(dict.fromkeys(_EACH_SWITCH, 6))
    + Counter({"prune.deleted": 3})
)
"""The same for a change that rotates a CA, renames a service, drops an edge and removes a service."""

BACK = ("back.renamed", "back.reloaded", "back.recorded")
"""What only a switch that failed passes: with a real nginx that refuses to reload."""


RENAME = ("carry.linked", "service.carried", "service.moved")
"""What only an apply passes that renames a service: see `test_refactoring`."""


def changed() -> Inventory:
    inventory = calendar()
    services = inventory["services"]
    services["schedule"] |= {"certification_authority": {"generation": 2}, "callers": ["social"]}
    services["mail"]["names"] = ["mail.example.com"]
    del services["report"]
    return inventory


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def first(place: Path) -> Kept:
    return Kept(make_estate(place / "first"), place / "first-kept")


@pytest.fixture(scope="module")
def second(place: Path) -> Kept:
    estate = make_estate(place / "second")
    estate.good("apply", "--yes")
    estate.write(changed())
    return Kept(estate, place / "second-kept")


# --- what must hold after anything ----------------------------------------------------------------------------------


def assert_pointers_name_whole_releases(estate: Estate) -> None:
    for release in releases_named(estate):
        assert_whole(release)


def signatures_on_record(estate: Estate) -> set[tuple[str, str]]:
    """(common name of the CA, serial) of every signature that is known to be possible."""
    with closing(sqlite3.connect(f"file:{estate.state}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT issuer_service, issuer_generation, serial FROM signatures WHERE signing")
        return {(f"{service}.calendar CA g{generation}", serial) for service, generation, serial in rows}


def certificates_of_state(estate: Estate) -> Iterator[x509.Certificate]:
    with closing(sqlite3.connect(f"file:{estate.state}?mode=ro", uri=True)) as database:
        for (der,) in database.execute("SELECT der FROM certificates"):
            yield x509.load_der_x509_certificate(der)


def named_by_issuer(certificate: x509.Certificate) -> tuple[str, str]:
    (name,) = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value), f"{certificate.serial_number:x}"


def assert_all_on_record(estate: Estate, signed: Path) -> None:
    """`signed` lists what was really signed, written the moment it existed, whether or not it came to anything."""
    found = {named_by_issuer(one) for one in (*certificates_on_hosts(estate), *certificates_of_state(estate))}
    made = {(name, serial) for name, _, serial in (line.rpartition(" ") for line in lines_of(signed))}
    assert (found | made) - signatures_on_record(estate) == set()


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def assert_nothing_is_left_over(estate: Estate) -> None:
    """Only what is live, with one key each: no unfinished folder, no key that nothing presents, three releases."""
    live = {(one["host"], one["service"]) for one in _live(estate)}
    hosts = hosts_of(estate)
    below = {(name, one.name) for name, host in hosts.items() for one in (host / "etc/mtlsctl").glob("[!.]*")}
    assert below == live
    for name, service in live:
        folder = hosts[name] / "etc/mtlsctl" / service
        assert len(list((folder / "keys").iterdir())) == 1
        releases = [one.name for one in (folder / "releases").iterdir()]
        assert 1 <= len(releases) <= 3
        assert [one for one in releases if "." in one] == []


def _live(estate: Estate) -> Iterator[dict[str, str]]:
    for one in estate.good("show", "-o", "json").json["live"]:
        service, _, host = one["instance"].partition("@")
        yield {"service": service, "host": host}


def noting_signatures(signed: Path) -> str:
    """Python that makes a process write down each signature the moment it exists."""
    return f"""
import os
from cryptography import x509
from cryptography.x509.oid import NameOID
import mtlsctl.pki.issue as issue
real = issue.sign
def sign(linted, key):
    made = real(linted, key)
    leaf = x509.load_der_x509_certificate(made.der)
    (name,) = leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    with open({str(signed)!r}, "a") as lines:
        lines.write(f"{{name.value}} {{leaf.serial_number:x}}\\n")
        lines.flush()
        os.fsync(lines.fileno())
    return made
issue.sign = sign
"""


def kill(estate: Estate, failpoint: str, *, before: str = "") -> Ran:
    """Kill an apply at a place, and check all that must hold at that moment."""
    signed = estate.temp / "signed"
    ran = estate.command(
        "apply", "--yes", before=noting_signatures(signed) + before, MTLSCTL_FAILPOINT=f"{failpoint}:kill"
    )
    assert ran.code == KILLED, (failpoint, ran)
    assert_pointers_name_whole_releases(estate)
    assert_all_on_record(estate, signed)
    estate.good("state", "check")
    return ran


def assert_recovers(estate: Estate) -> None:
    estate.converge()
    assert_pointers_name_whole_releases(estate)
    assert_nothing_is_left_over(estate)


# --- every place ----------------------------------------------------------------------------------------------------


def reached(estate: Estate, log: Path) -> Counter[str]:
    estate.good("apply", "--yes", MTLSCTL_FAILPOINT_LOG=str(log))
    return Counter(log.read_text().split())


def test_every_failpoint_is_reached_by_a_scenario(first: Kept, second: Kept, tmp_path: Path) -> None:
    assert reached(first.back(), tmp_path / "first") == FIRST
    assert reached(second.back(), tmp_path / "second") == SECOND
    assert {*FIRST, *SECOND, *BACK, *RENAME} == set(FAILPOINTS)


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name in FIRST])
def test_a_first_install_killed_anywhere_is_finished_by_the_next_apply(first: Kept, failpoint: str) -> None:
    estate = first.back()
    kill(estate, failpoint)
    assert_recovers(estate)


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name in SECOND])
def test_a_change_killed_anywhere_is_finished_by_the_next_apply(second: Kept, failpoint: str) -> None:
    estate = second.back()
    kill(estate, failpoint)
    assert_recovers(estate)


@pytest.mark.parametrize("failpoint", [f"{name}*{SECOND[name]}" for name in FAILPOINTS if SECOND[name] > 1])
def test_a_change_killed_at_the_last_of_several_places_is_finished_too(second: Kept, failpoint: str) -> None:
    estate = second.back()
    kill(estate, failpoint)
    assert_recovers(estate)


def test_an_apply_that_is_killed_again_and_again_still_ends(second: Kept) -> None:
    """Each run dies one switch later than the one before."""
    estate = second.back()
    for failpoint in ("certificate.signed", "stage.written", "switch.renamed", "switch.renamed", "switch.settled"):
        kill(estate, failpoint)
    assert_recovers(estate)


@pytest.mark.parametrize(
    ("scenario", "failpoint"),
    [(name, one) for name, passed in (("first", FIRST), ("second", SECOND)) for one in FAILPOINTS if one in passed],
)
def test_an_error_anywhere_has_a_documented_code_and_the_next_apply_converges(
    request: pytest.FixtureRequest, scenario: str, failpoint: str
) -> None:
    kept: Kept = request.getfixturevalue(scenario)
    estate = kept.back()
    ran = estate.run("apply", "--yes", MTLSCTL_FAILPOINT=f"{failpoint}:raise")
    assert ran.code in DOCUMENTED, ran
    assert "Traceback" not in ran.said
    assert_pointers_name_whole_releases(estate)
    assert_recovers(estate)


@pytest.mark.parametrize("failpoint", ["certificate.signing", "certificate.signed"])
def test_what_was_signed_and_never_came_back_is_shown_as_an_orphan(first: Kept, failpoint: str) -> None:
    estate = first.back()
    kill(estate, failpoint)
    assert estate.good("status", "-o", "json").json["orphans"] != []
    assert_recovers(estate)
    assert len(estate.good("status", "-o", "json").json["orphans"]) == 4


# --- a real nginx that reloads, or refuses to -----------------------------------------------------------------------

SHORT = """
import mtlsctl.deliver.local as local
import mtlsctl.operations.executor as executor
import mtlsctl.operations.publication as publication
executor.HANDOVER_SECONDS = 0.0
publication.SETTLE_SECONDS = 2.0
local.LocalTransport.__init__.__kwdefaults__["reload_deadline_seconds"] = 2.0
"""
"""An nginx that refuses is given up after ten seconds; less is enough here, and what goes well takes much less."""

NAME = "schedule.calendar.internal"


class Served(Kept):
    """An estate whose nginx runs, and is about to get a new CA and a new leaf."""

    def __init__(self, place: Path) -> None:
        self.port = free_port()
        estate = make_estate(place / "served", self.inventory())
        estate.good("apply", "--yes")
        estate.write(self.inventory({"generation": 2}))
        super().__init__(estate, place / "served-kept")
        self.aside = place / "served-aside"

    def inventory(self, authority: dict[str, int] | None = None) -> Inventory:
        inventory = calendar()
        inventory["hosts"]["web1"]["pid_files"] = {"nginx": "run/nginx.pid"}
        inventory["services"]["schedule"] |= {"listen": self.port, "certification_authority": authority or {}}
        del inventory["services"]["report"]
        return inventory

    def nginx(self, estate: Estate) -> Nginx:
        return make_nginx(estate.folder / "out" / "web1", self.aside)

    def assert_serves_what_is_named(self, estate: Estate) -> None:
        named = [release for release in releases_named(estate) if release.parent.parent.name == "schedule"]
        (leaf,) = map(assert_whole, named)
        assert x509.load_der_x509_certificate(leaf_served(self.port, NAME)) == leaf
        assert estate.good("verify", "--edge", "social->schedule", "--edge", "mail->schedule").code == 0


@pytest.fixture(scope="module")
def kept_served(place: Path) -> Served:
    return Served(place)


@pytest.fixture
def served(kept_served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Nobody calls while these tests run, so no call that is under way is waited for."""
    monkeypatch.setattr("mtlsctl.operations.executor.HANDOVER_SECONDS", 0.0)
    return kept_served


@pytest.mark.peer("nginx")
@pytest.mark.parametrize(
    "failpoint", ["switch.intended*3", "switch.renamed*3", "switch.reloaded*3", "switch.settled*3"]
)
def test_what_a_killed_switch_left_unloaded_is_loaded_by_the_next_apply(served: Served, failpoint: str) -> None:
    estate = served.back()
    with served.nginx(estate).running():
        kill(estate, failpoint)
        assert leaf_served(served.port, NAME)
        assert_recovers(estate)
        served.assert_serves_what_is_named(estate)


@pytest.mark.peer("nginx")
def test_a_server_that_refuses_gets_its_old_release_back_and_is_not_called_degraded(
    served: Served, tmp_path: Path
) -> None:
    estate, log = served.back(), tmp_path / "log"
    nginx = served.nginx(estate)
    with nginx.running():
        old = leaf_served(served.port, NAME)
        nginx.spoil()
        ran = estate.command("apply", "--yes", before=SHORT, MTLSCTL_FAILPOINT_LOG=str(log))
        assert (ran.code, "rolled back" in ran.err, "degraded" in ran.said) == (3, True, False), ran
        assert set(BACK) <= set(log.read_text().split())
        assert leaf_served(served.port, NAME) == old
        nginx.mend()
        assert_recovers(estate)
        served.assert_serves_what_is_named(estate)


@pytest.mark.peer("nginx")
def test_a_server_that_does_not_read_our_file_is_found_out_by_what_it_serves(served: Served) -> None:
    estate = served.back()
    nginx = served.nginx(estate)
    nginx.include_ours(wanted=False)
    with nginx.running():
        ran = estate.command("apply", "--yes", before=SHORT)
        assert (ran.code, "M4108" in ran.said) == (3, True), ran
        assert_pointers_name_whole_releases(estate)
        nginx.include_ours()
        assert_recovers(estate)
        served.assert_serves_what_is_named(estate)


@pytest.mark.peer("nginx")
@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("failpoint", BACK)
def test_a_way_back_that_ends_early_is_gone_to_its_end_by_the_next_apply(
    served: Served, failpoint: str, action: str
) -> None:
    estate = served.back()
    nginx = served.nginx(estate)
    with nginx.running():
        old = leaf_served(served.port, NAME)
        nginx.spoil()
        if action == "kill":
            kill(estate, failpoint, before=SHORT)
        else:
            ran = estate.command("apply", "--yes", before=SHORT, MTLSCTL_FAILPOINT=f"{failpoint}:raise")
            assert (ran.code in DOCUMENTED, "Traceback" in ran.said) == (True, False), ran
        assert leaf_served(served.port, NAME) == old
        still = estate.command("apply", "--yes", before=SHORT)
        assert (still.code, "Traceback" in still.said) == (3, False), still
        assert leaf_served(served.port, NAME) == old
        nginx.mend()
        assert_recovers(estate)
        served.assert_serves_what_is_named(estate)


@pytest.mark.peer("nginx")
def test_a_switch_that_was_killed_and_cannot_be_finished_is_put_back(served: Served) -> None:
    estate = served.back()
    nginx = served.nginx(estate)
    with nginx.running():
        old = leaf_served(served.port, NAME)
        nginx.spoil()
        kill(estate, "switch.renamed*3", before=SHORT)
        ran = estate.command("apply", "--yes", before=SHORT)
        assert (ran.code, "an interrupted switch was put back" in ran.err) == (3, True), ran
        assert_pointers_name_whole_releases(estate)
        assert leaf_served(served.port, NAME) == old
        nginx.mend()
        assert_recovers(estate)
        served.assert_serves_what_is_named(estate)
