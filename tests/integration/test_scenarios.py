"""An estate through its years: every kind of change by plan and apply on directory hosts, and every kind of refusal.

After each step nothing is left to do, the state is sound, and real handshakes on the applied files say what the
inventory says.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsctl.model.plan import Op, Plan, Reason
from mtlsctl.operations.apply import Applied, Wishes, apply
from mtlsctl.operations.plan import plan
from mtlsctl.operations.project import find_project
from mtlsctl.operations.status import Standing, status
from mtlsctl.operations.workspace import Workspace
from mtlsctl.pki.probes import craft_foreign
from mtlsctl.pki.stores import parse_bundle
from mtlsctl.render.catalog import load_catalog, our_templates
from tests.integration.canaries import dump_of
from tests.integration.repository import (
    Estate,
    Inventory,
    Kept,
    Ran,
    assert_whole,
    calendar,
    make_estate,
    releases_named,
)
from tests.support.patience import ENDED_SECONDS, HAPPENED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = "out/web1/etc/nginx/conf.d/mtlsctl.conf"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    place = tmp_path_factory.mktemp("scenarios")
    estate = make_estate(place / "estate")
    estate.converge()
    return Kept(estate, place / "kept")


@pytest.fixture
def estate(installed: Kept) -> Estate:
    return installed.back()


def after(estate: Estate, change: Callable[[dict[str, Any]], object]) -> Ran:
    """Change the inventory, see the plan, apply it, prove the result; gives what the plan said."""
    inventory = calendar()
    change(inventory["services"])
    return after_inventory(estate, inventory)


def after_inventory(estate: Estate, inventory: Inventory) -> Ran:
    estate.write(inventory)
    seen = estate.run("plan", "--detailed-exitcode", "--full")
    assert seen.code == 2, seen
    estate.converge()
    return seen


def leaf_of(estate: Estate, service: str) -> x509.Certificate:
    (release,) = [one for one in set(releases_named(estate)) if one.parent.parent.name == service]
    return assert_whole(release)


def serials(estate: Estate) -> dict[str, int]:
    return {one.parent.parent.name: assert_whole(one).serial_number for one in set(releases_named(estate))}


def reissued(before: dict[str, int], estate: Estate) -> set[str]:
    now = serials(estate)
    return {service for service in before.keys() & now.keys() if before[service] != now[service]}


def matrix(estate: Estate) -> dict[tuple[str, str], str]:
    """(caller, door) -> what was seen, for delivered keys alone."""
    results = estate.good("verify", "--embedded", "-o", "json").json["results"]
    return {
        (one["caller"], one["listener"].partition(":")[0]): one["observed"]
        for one in results
        if one["probe"]["mode"] == "delivered-key"
    }


# --- access ---------------------------------------------------------------------------------------------------------


def test_a_first_install_is_one_wave(installed: Kept) -> None:
    estate = installed.back()
    events = [line for line in estate.good("journal").out.splitlines() if "switch" in line]
    assert events != []
    assert serials(estate).keys() == {"schedule", "mail", "social", "report"}
    assert matrix(estate)["mail", "schedule"] == "allowed"
    assert matrix(estate)["report", "schedule"] == "refused"


def test_an_edge_that_is_added_opens_one_door_for_one_caller(estate: Estate) -> None:
    before = serials(estate)
    seen = after(estate, lambda services: services["report"]["callers"].append("mail"))
    assert "mail  may call  report:19443" in seen.out
    assert matrix(estate)["mail", "report"] == "allowed"
    assert reissued(before, estate) == set()


def test_a_first_call_reissues_the_caller_with_that_reason(estate: Estate) -> None:
    before = serials(estate)
    seen = after(estate, lambda services: services["schedule"]["callers"].append("report"))
    assert Reason.KEY_USAGE_CHANGED in seen.out
    assert reissued(before, estate) == {"report"}
    assert matrix(estate)["report", "schedule"] == "allowed"


def test_an_edge_that_is_removed_is_refused_from_then_on(estate: Estate) -> None:
    seen = after(estate, lambda services: services["schedule"].update(callers=["social"]))
    assert "mail  may no longer call  schedule:18443" in seen.out.replace("    ", "  ")
    assert matrix(estate)["mail", "schedule"] == "refused"
    assert matrix(estate)["social", "schedule"] == "allowed"


# --- services -------------------------------------------------------------------------------------------------------


def test_a_service_that_is_added_touches_only_those_that_it_calls(estate: Estate) -> None:
    before = serials(estate)

    def change(services: dict[str, Any]) -> None:
        services["batch"] = {"runtime": "pem", "hosts": ["web2"]}
        services["schedule"]["callers"].append("batch")

    seen = after(estate, change)
    assert "batch gets a key on web2 for the first time" in seen.out
    assert reissued(before, estate) == set()
    assert matrix(estate)["batch", "schedule"] == "allowed"


def test_a_service_that_is_removed_leaves_nothing_on_its_host_and_its_ca_key_stays_sealed(estate: Estate) -> None:
    folder = estate.folder / "out" / "web2" / "etc" / "mtlsctl" / "social"
    assert folder.is_dir()

    def change(services: dict[str, Any]) -> None:
        del services["social"]
        services["schedule"]["callers"] = ["mail"]
        services["report"]["callers"] = ["mail"]

    after(estate, change)
    assert not folder.exists()
    assert list(folder.parent.glob("social*")) == []
    standing = {str(one.authority.id): one.standing for one in status(workspace(estate, days=0)).authorities}
    assert standing["social CA g1"] is Standing.RETIRING
    assert ("social", 1) in sealed_keys(estate)


def test_a_process_of_the_host_loses_its_pointer_with_its_last_service(estate: Estate) -> None:
    def change(services: dict[str, Any]) -> None:
        del services["schedule"]

    after(estate, change)
    assert not (estate.folder / CONF).exists()


def test_a_service_that_moves_is_called_on_its_new_host_and_gone_from_the_old_one(estate: Estate) -> None:
    seen = after(estate, lambda services: services["schedule"].update(hosts=["web2"]))
    assert "schedule gets a key on web2 for the first time" in seen.out
    assert not (estate.folder / "out/web1/etc/mtlsctl/schedule").exists()
    assert not (estate.folder / CONF).exists()
    assert (estate.folder / CONF.replace("web1", "web2")).is_file()
    assert matrix(estate)["mail", "schedule"] == "allowed"


def test_a_second_instance_has_a_key_of_its_own(estate: Estate) -> None:
    after(estate, lambda services: services["schedule"].update(hosts=["web1", "web2"]))
    one, two = (release for release in set(releases_named(estate)) if release.parent.parent.name == "schedule")
    assert (one / "tls.key").read_bytes() != (two / "tls.key").read_bytes()
    assert assert_whole(one).issuer == assert_whole(two).issuer


def test_a_service_that_was_removed_comes_back_with_a_new_key(estate: Estate) -> None:
    before = serials(estate)

    def change(services: dict[str, Any]) -> None:
        del services["social"]
        services["schedule"]["callers"] = ["mail"]
        services["report"]["callers"] = ["mail"]

    after(estate, change)
    after(estate, lambda _: None)
    assert "social" in reissued(before, estate)


def test_a_last_call_that_ends_with_a_new_leaf_is_no_obstacle(estate: Estate) -> None:
    """The new leaf is no client's any more, so the call has to end no later than the old leaf does."""

    def change(services: dict[str, Any]) -> None:
        services["social"] |= {"listen": 29443, "callers": ["mail"]}

    after(estate, change)

    def change_back(services: dict[str, Any]) -> None:
        change(services)
        services["social"]["certificate"] = {"lifetime": "80d"}
        services["schedule"]["callers"] = ["mail"]
        services["report"]["callers"] = ["mail"]

    after(estate, change_back)
    assert usages_of(leaf_of(estate, "social")) == {ExtendedKeyUsageOID.SERVER_AUTH}
    after(estate, change)
    assert usages_of(leaf_of(estate, "social")) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    after(estate, lambda services: services["social"].update(certificate={"lifetime": "70d"}))
    assert usages_of(leaf_of(estate, "social")) == {ExtendedKeyUsageOID.CLIENT_AUTH}


def usages_of(leaf: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


# --- identities -----------------------------------------------------------------------------------------------------


def test_a_newer_ca_generation_comes_in_three_waves_and_the_old_one_is_trusted_by_nobody(estate: Estate) -> None:
    before = serials(estate)
    seen = after(estate, lambda services: services["schedule"].update(certification_authority={"generation": 2}))
    assert Reason.GENERATION_ASKED in seen.out
    assert "extend" in seen.out
    assert "withdraw" in seen.out
    assert reissued(before, estate) == {"schedule"}
    (name,) = leaf_of(estate, "schedule").issuer
    assert name.value == "schedule.calendar CA g2"
    for bundle in (estate.folder / "out").glob("*/etc/mtlsctl/*/current/servers/schedule.pem"):
        (anchor,) = x509.load_pem_x509_certificates(bundle.read_bytes())
        assert anchor.subject == leaf_of(estate, "schedule").issuer


def test_a_new_name_carries_the_old_one_until_the_next_renewal(estate: Estate) -> None:
    seen = after(estate, lambda services: services["schedule"].update(names=["schedule.example.com"]))
    assert "+SAN schedule.example.com" in seen.out
    names = leaf_of(estate, "schedule").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"schedule.example.com", "schedule.calendar.internal"}
    curlrc = estate.folder / "out/web1/etc/mtlsctl/mail/current/schedule.curlrc"
    assert "schedule.example.com" in curlrc.read_text()


def test_a_changed_port_is_served_beside_the_old_one_until_callers_have_switched(estate: Estate) -> None:
    before = serials(estate)
    seen = after(estate, lambda services: services["schedule"].update(listen=28443))
    assert "28443" in seen.out
    assert reissued(before, estate) == set()
    (release,) = [one for one in releases_named(estate) if one.parent.parent.name == "schedule"]
    assert "18443" not in (release / "nginx.conf").read_text()
    assert "28443" in (estate.folder / CONF).read_text()


def test_a_changed_setting_is_a_change_without_a_new_certificate(estate: Estate) -> None:
    before = serials(estate)
    seen = after(estate, lambda services: services["schedule"].update(settings={"upstream": "http://127.0.0.1:8080"}))
    assert "upstream" in seen.out
    assert reissued(before, estate) == set()


def test_a_changed_template_is_a_change_without_a_new_certificate(estate: Estate, tmp_path: Path) -> None:
    folders = tmp_path / "templates"
    shutil.copytree(our_templates(), folders)
    template = folders / "nginx" / "instance.conf.j2"
    template.write_text(template.read_text().replace("# Written by mtlsctl.", "# Written anew by mtlsctl."))
    before = serials(estate)
    with mock.patch("mtlsctl.render.catalog.our_templates", return_value=folders):
        seen = estate.run("plan", "--detailed-exitcode")
        assert (seen.code, "template" in seen.out) == (2, True), seen
        assert "schedule@web1" in seen.out
        assert "social@web2" not in seen.out
        estate.converge()
    assert reissued(before, estate) == set()
    (release,) = [one for one in releases_named(estate) if one.parent.parent.name == "schedule"]
    assert "Written anew" in (release / "nginx.conf").read_text()


# --- what happened to the hosts meanwhile ---------------------------------------------------------------------------


def test_a_key_that_is_gone_is_replaced_with_its_certificate(estate: Estate) -> None:
    before = serials(estate)
    shutil.rmtree(estate.folder / "out/web2/etc/mtlsctl/social/keys")
    applied = estate.converge()
    assert Reason.KEY_MISSING in applied.out
    assert "its key is gone from the host" in applied.err
    assert reissued(before, estate) == {"social"}


def test_hosts_that_were_emptied_are_filled_anew(estate: Estate) -> None:
    before = serials(estate)
    shutil.rmtree(estate.folder / "out")
    estate.converge()
    assert reissued(before, estate) == {"schedule", "mail", "social", "report"}


def test_a_release_that_is_gone_is_made_again(estate: Estate) -> None:
    shutil.rmtree(estate.folder / "out/web1/etc/mtlsctl/mail/releases")
    estate.converge()


def test_a_release_whose_file_was_altered_is_made_again(estate: Estate) -> None:
    (config,) = estate.folder.glob("out/*/etc/mtlsctl/schedule/releases/*/nginx.conf")
    whole = config.read_bytes()
    config.chmod(0o640)
    config.write_bytes(whole + b"# by hand\n")
    ran = estate.good("apply", "--yes")
    assert "was altered (nginx.conf)" in ran.err
    (made,) = estate.folder.glob("out/*/etc/mtlsctl/schedule/releases/*/nginx.conf")
    assert whole == made.read_bytes()
    estate.good("verify", "--embedded")


def test_a_folder_of_another_estate_is_left_alone(estate: Estate, tmp_path: Path) -> None:
    foreign = tmp_path / "theirs"
    keys = foreign / "etc" / "mtlsctl" / "reporting" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    (foreign / "etc" / "mtlsctl" / ".lineage").write_text("0000\n")
    (keys / "a.key").write_text("theirs")
    inventory = calendar()
    for host in inventory["hosts"].values():
        host["directory"] = str(foreign / host["directory"].rpartition("/")[2])
    name = next(iter(inventory["hosts"]))
    inventory["hosts"][name]["directory"] = str(foreign)
    estate.write(inventory)
    ran = estate.run("apply", "--yes")
    assert (3, True) == (ran.code, "M4111" in ran.out + ran.err), ran
    assert "theirs" == (keys / "a.key").read_text()


def test_a_ca_that_was_swapped_in_the_state_is_trusted_by_nobody(estate: Estate) -> None:
    with closing(sqlite3.connect(estate.state)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("PRAGMA foreign_keys = OFF")
        mine = database.execute(
            "SELECT c.der FROM certificates c JOIN authorities a ON a.certificate_sha256 = c.sha256 "
            "WHERE a.service = 'schedule'"
        ).fetchone()
        sha256 = database.execute("SELECT certificate_sha256 FROM authorities WHERE service = 'mail'").fetchone()
        database.execute("UPDATE certificates SET der = ? WHERE sha256 = ?", (*mine, *sha256))
        database.commit()
    inventory = calendar()
    inventory["services"]["schedule"]["settings"] = {"upstream": "http://127.0.0.1:9"}
    estate.write(inventory)
    ran = estate.run("apply", "--yes")
    assert (1, True) == (ran.code, "M3050" in ran.out + ran.err), ran


def test_a_pinned_leaf_that_was_swapped_in_the_state_is_trusted_by_nobody(estate: Estate) -> None:
    inventory = calendar() | {"trust": {"model": "pinned"}}
    estate.write(inventory)
    assert 0 == estate.run("apply", "--yes").code
    with closing(sqlite3.connect(estate.state)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("PRAGMA foreign_keys = OFF")
        newest = "SELECT certificate_sha256 FROM credentials WHERE service = ? ORDER BY sequence DESC"
        theirs = database.execute(newest, ["mail"]).fetchone()
        (leaf,) = database.execute("SELECT der FROM certificates WHERE sha256 = ?", theirs).fetchone()
        lookalike = parse_bundle(craft_foreign(leaf, now=datetime.now(UTC)).chain)[0]
        database.execute("UPDATE certificates SET der = ? WHERE sha256 = ?", (lookalike, *theirs))
        database.commit()
    inventory["services"]["schedule"]["settings"] = {"upstream": "http://127.0.0.1:9"}
    estate.write(inventory)
    ran = estate.run("apply", "--yes")
    assert (1, True) == (ran.code, "M3050" in ran.out + ran.err), ran


def test_a_pointer_that_was_edited_is_not_overwritten(estate: Estate) -> None:
    pointer = estate.folder / CONF
    ours = pointer.read_text()
    pointer.write_text(ours + "# edited by hand\n")
    inventory = calendar()
    inventory["services"]["schedule"]["callers"] = ["social"]
    estate.write(inventory)
    ran = estate.run("apply", "--yes")
    assert (ran.code, "M4105" in ran.err) == (3, True), ran
    assert pointer.read_text() == ours + "# edited by hand\n"
    pointer.write_text(ours)
    estate.converge()


def test_a_pointer_of_somebody_else_is_not_overwritten_by_a_first_install(tmp_path: Path) -> None:
    estate = make_estate(tmp_path / "estate")
    pointer = estate.folder / CONF
    pointer.parent.mkdir(parents=True)
    pointer.write_text("# not ours\n")
    ran = estate.run("apply", "--yes")
    assert (ran.code, "M4105" in ran.err, pointer.read_text()) == (3, True, "# not ours\n"), ran
    pointer.unlink()
    estate.converge()


# --- two at once, saved plans ---------------------------------------------------------------------------------------


def test_of_two_applies_at_once_one_is_told_who_has_the_state(estate: Estate) -> None:
    inventory = calendar()
    fewer(inventory["services"])
    estate.write(inventory)
    log = estate.temp / "log"
    first = estate.start("apply", "--yes", MTLSCTL_FAILPOINT="operation.opened:stop", MTLSCTL_FAILPOINT_LOG=str(log))
    try:
        deadline = time.monotonic() + HAPPENED_SECONDS
        while not (log.exists() and _is_stopped(first.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = estate.run("apply", "--yes", "--lock-timeout", "0s")
        assert (second.code, "M3010" in second.err, f"process {first.pid}" in second.err) == (5, True, True), second
        assert estate.run("plan", "--detailed-exitcode").code == 2
    finally:
        os.kill(first.pid, signal.SIGCONT)
        out, err = first.communicate(timeout=ENDED_SECONDS)
    assert first.returncode == 0, (out, err)
    estate.prove()


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def saved(estate: Estate, change: Callable[[dict[str, Any]], object], name: str = "it.mtlsplan") -> None:
    inventory = calendar()
    change(inventory["services"])
    estate.write(inventory)
    estate.good("plan", "--out", name)


def fewer(services: dict[str, Any]) -> None:
    services["schedule"]["callers"] = ["social"]


def test_a_saved_plan_is_applied_once(estate: Estate) -> None:
    saved(estate, fewer)
    estate.good("apply", "it.mtlsplan")
    estate.prove()
    again = estate.run("apply", "it.mtlsplan")
    assert (again.code, "M5007" in again.err) == (6, True), again


def test_a_saved_plan_that_another_apply_overtook_says_what_moved(estate: Estate) -> None:
    saved(estate, fewer)
    inventory = calendar()
    inventory["services"]["schedule"]["certificate"] = {"lifetime": "80d"}
    estate.write(inventory)
    estate.good("apply", "--yes")
    saved(estate, fewer, "other.mtlsplan")
    ran = estate.run("apply", "it.mtlsplan")
    assert (ran.code, "M5002" in ran.err) == (6, True), ran
    assert "state: serial 2 -> 3" in ran.err
    assert "target: web1/nginx names other releases than it did" in ran.err


def test_a_saved_plan_with_any_byte_altered_is_refused(estate: Estate) -> None:
    saved(estate, fewer)
    file = estate.folder / "it.mtlsplan"
    good = file.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 40)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        ran = estate.run("apply", "it.mtlsplan")
        assert (ran.code, "Traceback" in ran.said) == (6, False), (at, ran)
    file.write_bytes(good)
    estate.good("apply", "it.mtlsplan")


# --- time -----------------------------------------------------------------------------------------------------------


def workspace(estate: Estate, *, days: float) -> Workspace:
    """The estate as it is worked on so many days from now; the past is where renewals are prepared."""
    project = find_project(estate.folder)
    assert project.inventory is not None
    moment = datetime.now(UTC) + timedelta(days=days)
    return Workspace(
        project=project,
        inventory_path=project.inventory,
        state_url=project.state,
        catalog=load_catalog(),
        environ={"MTLSCTL_KEY_SOURCE": f"file:{estate.key_file}"},
        clock=lambda: moment,
    )


def apply_then(estate: Estate, *, days: float) -> Applied:
    wishes = Wishes(approve=lambda _: True, report=lambda _: None)
    applied = apply(workspace(estate, days=days), wishes)
    assert applied.is_whole
    return applied


def plan_then(estate: Estate, *, days: float) -> Plan:
    return plan(workspace(estate, days=days)).plan


def make_old_estate(folder: Path, inventory: Inventory, *, days: float) -> Estate:
    """An estate that was made, and applied for the first time, so many days ago."""
    estate = make_estate(folder, inventory)
    with closing(sqlite3.connect(estate.state)) as database, database:
        long_ago = (datetime.now(UTC) - timedelta(days=days + 1)).isoformat(timespec="microseconds")
        database.execute("UPDATE meta SET high_water = ?", (long_ago,))
    apply_then(estate, days=-days)
    return estate


def test_a_due_renewal_is_listed_apart_and_not_in_the_fingerprint(tmp_path: Path) -> None:
    estate = make_old_estate(tmp_path / "estate", calendar(), days=61)
    fewer_callers = calendar()
    fewer(fewer_callers["services"])
    estate.write(fewer_callers)
    early, late = plan_then(estate, days=-50), plan_then(estate, days=0)
    assert early.fingerprint == late.fingerprint
    assert [one for one in early.certificate_changes if one.due] == []
    assert {str(one.instance) for one in late.certificate_changes if one.due} == {
        "schedule@web1", "mail@web1", "social@web2", "report@web2",
    }  # fmt: skip
    seen = estate.good("plan", "--full")
    assert "Due renewals (not in the fingerprint)" in seen.out
    assert early.fingerprint in seen.out
    before = serials(estate)
    estate.converge()
    assert reissued(before, estate) == {"schedule", "mail", "social", "report"}


def test_a_renewal_keeps_the_ca_and_changes_the_key(tmp_path: Path) -> None:
    estate = make_old_estate(tmp_path / "estate", calendar(), days=61)
    old = leaf_of(estate, "mail")
    seen = estate.run("plan", "--detailed-exitcode")
    assert (seen.code, Reason.RENEWAL_DUE in seen.out) == (2, True), seen
    estate.converge()
    new = leaf_of(estate, "mail")
    assert (old.issuer, old.subject) == (new.issuer, new.subject)
    assert old.public_key() != new.public_key()


@pytest.mark.parametrize("days", [95, 110])
def test_an_estate_that_was_left_alone_for_too_long_is_renewed_by_one_apply(tmp_path: Path, days: int) -> None:
    """Its leaves have ended, then its CAs too: releases that still carry the old leaf must not be what stops it."""
    inventory = calendar(defaults={"certification_authority": {"lifetime": "100d", "renew_before": "90d"}})
    estate = make_old_estate(tmp_path / "estate", inventory, days=days)
    ended = estate.run("status", "-o", "json")
    assert ended.code in {0, 8}
    estate.converge()


def short_lived() -> Inventory:
    return calendar(
        defaults={
            "certificate": {"lifetime": "60d", "renew_before": "10d"},
            "certification_authority": {"lifetime": "100d", "renew_before": "60d"},
        }
    )


def test_a_ca_near_its_end_rotates_and_its_key_is_destroyed_after_its_last_leaf(tmp_path: Path) -> None:
    estate = make_old_estate(tmp_path / "estate", short_lived(), days=100)
    assert not plan_then(estate, days=-61).has_changes
    due = plan_then(estate, days=-58)
    rotated = {one.id.service: one.reasons for one in due.authority_changes if one.op is Op.CHANGE and one.due}
    assert rotated == dict.fromkeys(("schedule", "mail", "social", "report"), (Reason.CA_ENDS,))
    apply_then(estate, days=-58)
    assert not plan_then(estate, days=-58).has_changes
    (name,) = leaf_of(estate, "schedule").issuer
    assert name.value == "schedule.calendar CA g2"

    kept = {one.authority.id.generation: one.standing for one in status(workspace(estate, days=-41)).authorities}
    assert kept == {1: Standing.RETIRING, 2: Standing.OK}
    assert [one for one in plan_then(estate, days=-41).authority_changes if one.op is Op.REMOVE] == []
    sealed = sealed_keys(estate)
    last = plan_then(estate, days=-39)
    assert {(one.id.service, one.id.generation) for one in last.authority_changes if one.op is Op.REMOVE} == {
        ("schedule", 1), ("mail", 1), ("social", 1), ("report", 1),
    }  # fmt: skip
    apply_then(estate, days=-39)
    gone = sealed.keys() - sealed_keys(estate).keys()
    assert gone == {(service, 1) for service in ("schedule", "mail", "social", "report")}
    remains = b"".join(path.read_bytes() for path in estate.state.parent.glob("state.db*")) + dump_of(estate.state)
    assert [one for one in gone if sealed[one] in remains or sealed[one].hex().encode() in remains.lower()] == []
    estate.converge()


def sealed_keys(estate: Estate) -> dict[tuple[str, int], bytes]:
    with closing(sqlite3.connect(f"file:{estate.state}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT service, generation, sealed_key FROM authorities WHERE sealed_key NOT NULL")
        return {(service, generation): bytes(key) for service, generation, key in rows}


# --- what is not there ----------------------------------------------------------------------------------------------


def over_ssh() -> Inventory:
    inventory = calendar()
    inventory["hosts"]["far"] = {"address": "127.9.9.9", "port": 1, "user": "deploy"}
    inventory["services"]["schedule"]["hosts"] = ["web1", "far"]
    return inventory


def test_a_host_that_is_out_of_reach_keeps_only_what_waits_for_it_from_being_done(estate: Estate) -> None:
    inventory = over_ssh()
    inventory["services"]["diary"] = {"runtime": "pem", "hosts": ["web2"]}
    estate.write(inventory)
    seen = estate.run("plan", "--detailed-exitcode")
    assert (seen.code, "schedule@far" in seen.out) == (2, True), seen
    ran = estate.run("apply", "--yes")
    assert (ran.code, "M4303" in ran.out) == (3, True), ran
    assert (estate.folder / "out/web2/etc/mtlsctl/diary").exists()
    again = estate.run("apply", "--yes")
    assert (again.code, "far is out of reach" in again.err) == (3, True), again
    estate.write(calendar())
    estate.good("apply", "--yes")
    estate.prove()


def remedies(ran: Ran, *expected: str) -> bool:
    return all(one in " ".join(ran.err.split()) for one in expected)


def test_a_state_that_is_gone_is_an_error_with_the_remedies(estate: Estate) -> None:
    for path in estate.state.parent.iterdir():
        path.unlink()
    for command in ("plan", "apply --yes", "verify --embedded", "status"):
        ran = estate.run(*command.split())
        assert (ran.code, "M3001" in ran.err) == (1, True), ran
        assert remedies(ran, "mtlsctl state restore", "--state", "--new-lineage"), ran
    assert not estate.state.exists()


def test_a_state_of_another_lineage_is_an_error(estate: Estate, tmp_path: Path) -> None:
    other = make_estate(tmp_path / "other")
    for path in estate.state.parent.iterdir():
        path.unlink()
    shutil.copy(other.state, estate.state)
    for command in ("plan", "apply --yes", "status"):
        ran = estate.run(*command.split())
        assert (ran.code, "M3002" in ran.err) == (1, True), ran
        assert "help: " in ran.err


def test_an_encryption_key_that_is_gone_is_found_before_anything_is_begun(estate: Estate) -> None:
    inventory = calendar()
    inventory["services"]["schedule"]["certificate"] = {"lifetime": "80d"}
    estate.write(inventory)
    hidden = estate.key_file.with_name("hidden")
    estate.key_file.rename(hidden)
    serial = estate.good("state", "show", "-o", "json").json["serial"]
    assert estate.run("plan", "--detailed-exitcode").code == 2
    ran = estate.run("apply", "--yes")
    assert (ran.code, "M7002" in ran.err) == (1, True), ran
    assert estate.good("state", "show", "-o", "json").json["serial"] == serial
    hidden.rename(estate.key_file)
    estate.converge()


def test_a_backup_comes_back_whole(estate: Estate, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    estate.good("state", "backup", str(backup))
    before = estate.good("show", "-o", "json").json["live"]
    for path in estate.state.parent.iterdir():
        path.unlink()
    estate.good("state", "restore", str(backup))
    assert estate.good("show", "-o", "json").json["live"] == before
    estate.prove()


def test_a_backup_does_not_silently_replace_a_state_that_went_on(estate: Estate, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    estate.good("state", "backup", str(backup))
    inventory = calendar()
    fewer(inventory["services"])
    estate.write(inventory)
    estate.good("apply", "--yes")
    ran = estate.run("state", "restore", str(backup))
    assert (ran.code, "M3040" in ran.err) == (1, True), ran
    estate.prove()
