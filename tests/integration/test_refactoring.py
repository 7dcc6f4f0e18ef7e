"""Hosts and services that are renamed, hosts that are gone: with real files, what lies there stays."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

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

if TYPE_CHECKING:
    from pathlib import Path

KILLED = -9


def of_model(model: str) -> Inventory:
    return calendar(trust={"model": model})


def renamed(inventory: Inventory, old: str, new: str) -> Inventory:
    """The host has its new name everywhere, and one line says so."""
    changed: Inventory = json.loads(json.dumps(inventory).replace(f'"{old}": {{"directory"', f'"{new}": {{"directory"'))
    for service in changed["services"].values():
        service["hosts"] = [new if host == old else host for host in service["hosts"]]
    changed["moved"] = [*inventory.get("moved", []), {"host": old, "to": new}]
    return changed


def given_up(inventory: Inventory, gone: str, instead: str) -> Inventory:
    changed: Inventory = json.loads(json.dumps(inventory))
    del changed["hosts"][gone]
    for service in changed["services"].values():
        service["hosts"] = [instead if host == gone else host for host in service["hosts"]]
    changed["removed"] = [{"host": gone, "abandon": True}]
    return changed


@pytest.fixture(scope="module", params=["service-ca", "pinned"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Inventory]:
    place = tmp_path_factory.mktemp("refactoring")
    inventory = of_model(request.param)
    estate = make_estate(place / "estate", inventory)
    estate.converge()
    return Kept(estate, place / "kept"), inventory


@pytest.fixture
def estate(installed: tuple[Kept, Inventory]) -> Estate:
    return installed[0].back()


@pytest.fixture
def inventory(installed: tuple[Kept, Inventory]) -> Inventory:
    return installed[1]


def everything_on_hosts(estate: Estate) -> dict[str, tuple[object, ...]]:
    """Each file with its content, its mode and when it was written; symlinks with where they lead."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted((estate.folder / "out").rglob("*")):
        about = path.lstat()
        if path.is_symlink():
            found[str(path)] = (str(path.readlink()), about.st_mtime_ns)
        elif path.is_file():
            found[str(path)] = (path.read_bytes(), about.st_mode, about.st_mtime_ns)
    return found


def plan(estate: Estate) -> dict[str, Any]:
    document: dict[str, Any] = estate.good("plan", "-o", "json").json
    return document


def serials(estate: Estate) -> set[int]:
    return {assert_whole(release).serial_number for release in set(releases_named(estate))}


# --- moved ----------------------------------------------------------------------------------------------------------


def test_a_host_gets_another_name_and_not_a_byte_on_it_changes(estate: Estate, inventory: Inventory) -> None:
    before = everything_on_hosts(estate)
    estate.write(renamed(inventory, "web1", "edge-1"))
    seen = estate.run("plan", "--detailed-exitcode")
    assert (2, True) == (seen.code, "web1 is called edge-1: its keys, certificates and releases stay" in seen.out)
    assert "web1 is called edge\\-1" in estate.good("plan", "-o", "markdown").out
    assert [("host/web1", "move")] == [(one["id"], one["op"]) for one in plan(estate)["actions"]]
    applied = estate.converge()
    assert "1 renamed host" in applied.out
    assert before == everything_on_hosts(estate)
    assert "host web1 is called edge-1 from now on" in estate.good("journal").out
    assert "web1" not in estate.good("show").out


def test_the_entry_may_stay_and_says_that_it_may_go(estate: Estate, inventory: Inventory) -> None:
    estate.write(renamed(inventory, "web1", "edge-1"))
    estate.converge()
    serial = plan(estate)["serial"]
    again = estate.good("apply", "--yes")
    assert "M2019" in estate.run("plan").err
    assert (serial, True) == (plan(estate)["serial"], "Nothing to change" in again.said)
    back = renamed(inventory, "web1", "edge-1")
    del back["moved"]
    estate.write(back)
    estate.prove()


def test_both_hosts_are_renamed_at_once_and_one_of_them_once_more(estate: Estate, inventory: Inventory) -> None:
    before = everything_on_hosts(estate)
    first = renamed(renamed(inventory, "web1", "edge-1"), "web2", "web1")
    estate.write(first)
    # `web1` is declared again, so what it is called now cannot be told from what it was.
    assert "M1130" in estate.run("validate").said
    estate.write(renamed(renamed(inventory, "web1", "edge-1"), "web2", "edge-2"))
    estate.converge()
    third = renamed(renamed(renamed(inventory, "web1", "edge-1"), "web2", "edge-2"), "edge-1", "edge-3")
    estate.write(third)
    estate.converge()
    assert before == everything_on_hosts(estate)


def test_what_changes_with_the_name_is_done_in_the_new_names(estate: Estate, inventory: Inventory) -> None:
    before = serials(estate)
    changed = renamed(inventory, "web2", "edge-2")
    changed["services"]["social"]["certificate"] = {"lifetime": "80d"}
    changed["services"]["schedule"]["callers"] = ["social"]
    estate.write(changed)
    estate.converge()
    assert 1 == len(before - serials(estate))
    assert "social@edge-2" in estate.good("show").out


def test_a_key_that_is_gone_is_noticed_under_the_old_name_too(estate: Estate, inventory: Inventory) -> None:
    for key in (estate.folder / "out/web2/etc/mtlsctl/social").rglob("*.key"):
        key.unlink()
    estate.write(renamed(inventory, "web2", "edge-2"))
    estate.converge()
    assert "social@edge-2" in estate.good("show").out


def test_a_saved_plan_that_renames_is_applied_once(estate: Estate, inventory: Inventory) -> None:
    changed = renamed(inventory, "web2", "edge-2")
    changed["services"]["social"]["certificate"] = {"lifetime": "80d"}
    estate.write(changed)
    estate.good("plan", "--out", "p.mtlsplan")
    assert "host/web2" in estate.good("show", "p.mtlsplan").out
    estate.good("apply", "--yes", "p.mtlsplan")
    estate.prove()
    assert estate.run("apply", "--yes", "p.mtlsplan").code == 6


@pytest.mark.parametrize("place", ["operation.opened", "intents.recorded", "switch.renamed", "operation.closed"])
def test_an_apply_that_renames_killed_anywhere_is_finished_by_the_next(
    estate: Estate, inventory: Inventory, place: str
) -> None:
    changed = renamed(inventory, "web2", "edge-2")
    changed["services"]["social"]["certificate"] = {"lifetime": "80d"}
    estate.write(changed)
    ran = estate.command("apply", "--yes", MTLSCTL_FAILPOINT=f"{place}:kill")
    assert ran.code == KILLED, ran
    estate.good("state", "check")
    estate.converge()


def test_a_host_at_another_place_is_refused_as_a_renamed_one(estate: Estate, inventory: Inventory) -> None:
    changed = renamed(inventory, "web1", "edge-1")
    changed["hosts"]["edge-1"] = {"directory": "out/elsewhere"}
    estate.write(changed)
    refused = estate.run("plan")
    assert (7, True) == (refused.code, "M2018" in refused.said)
    assert "inventory.yaml:" in refused.said


# --- services -------------------------------------------------------------------------------------------------------


def service_renamed(inventory: Inventory, old: str, new: str, **more: Any) -> Inventory:
    """The service has its new name everywhere, answers to the DNS names that it had, and one line says so."""
    changed: Inventory = json.loads(json.dumps(inventory))
    services = changed["services"]
    services[new] = {**services.pop(old), "names": [f"{old}.calendar.internal"], **more}
    for service in services.values():
        service["callers"] = [new if one == old else one for one in service.get("callers", [])] or None
        if service["callers"] is None:
            del service["callers"]
    changed["moved"] = [*inventory.get("moved", []), {"service": old, "to": new}]
    return changed


def folders_on(estate: Estate, host: str) -> list[str]:
    return sorted(path.name for path in (estate.folder / "out" / host / "etc/mtlsctl").glob("[!.]*"))


def test_a_service_gets_another_name_and_keeps_its_certificate_and_key(estate: Estate, inventory: Inventory) -> None:
    before = serials(estate)
    estate.write(service_renamed(inventory, "schedule", "agenda"))
    seen = estate.run("plan", "--detailed-exitcode")
    assert (2, True) == (seen.code, "schedule is called agenda: its keys, certificates and CAs stay" in seen.out), seen
    ids = [one["id"] for one in plan(estate)["actions"]]
    assert "service/schedule" in ids
    assert [] == [one for one in ids if one.startswith(("certificate/", "authority/"))]
    applied = estate.converge()
    assert "1 renamed service" in applied.out
    assert before == serials(estate)
    assert ["agenda", "mail"] == folders_on(estate, "web1")
    assert "service schedule is called agenda from now on" in estate.good("journal").out
    (leaf,) = (assert_whole(one) for one in set(releases_named(estate)) if one.parent.parent.name == "agenda")
    assert "CN=schedule" == leaf.subject.rfc4514_string()


def test_callers_know_a_renamed_service_by_both_names_until_the_entry_goes(
    estate: Estate, inventory: Inventory
) -> None:
    changed = service_renamed(inventory, "schedule", "agenda")
    current = estate.folder / "out/web1/etc/mtlsctl/mail/current"
    for said, known in ((changed, {"agenda", "schedule"}), ({**changed, "moved": []}, {"agenda"})):
        estate.write(said)
        estate.converge()
        assert known == {path.stem for path in current.glob("*.curlrc")}


def test_the_entry_of_a_service_may_stay(estate: Estate, inventory: Inventory) -> None:
    estate.write(service_renamed(inventory, "schedule", "agenda"))
    estate.converge()
    assert "Nothing to change" in estate.good("apply", "--yes").said
    assert "M2019" in estate.run("plan").err


def test_a_service_that_is_named_by_default_answers_to_both_names_in_between(
    estate: Estate, inventory: Inventory
) -> None:
    """Then the name that callers check is another, so the leaf is issued anew, and under `service-ca` its CA too."""
    before = serials(estate)
    changed = service_renamed(inventory, "schedule", "agenda")
    del changed["services"]["agenda"]["names"]
    estate.write(changed)
    assert "names changed" in estate.run("plan").out
    estate.converge()
    assert 1 == len(before - serials(estate))
    assert ["agenda", "mail"] == folders_on(estate, "web1")


@pytest.mark.parametrize(
    "place",
    [
        *("carry.linked", "service.carried", "service.moved", "stage.written", "switch.intended", "switch.renamed"),
        *("switch.recorded", "prune.deleted", "operation.closed"),
    ],
)
@pytest.mark.parametrize("is_named", [True, False], ids=["names stay", "names change"])
def test_an_apply_that_renames_a_service_killed_anywhere_is_finished_by_the_next(
    estate: Estate, inventory: Inventory, place: str, *, is_named: bool
) -> None:
    changed = service_renamed(inventory, "schedule", "agenda")
    if not is_named:
        del changed["services"]["agenda"]["names"]
    estate.write(changed)
    before = serials(estate)
    ran = estate.command("apply", "--yes", MTLSCTL_FAILPOINT=f"{place}:kill")
    assert ran.code == KILLED, ran
    estate.good("state", "check")
    for release in set(releases_named(estate)):
        assert_whole(release)
    estate.converge()
    assert (0 if is_named else 1) == len(before - serials(estate))
    assert ["agenda", "mail"] == folders_on(estate, "web1")


def test_a_renamed_service_is_renewed_and_rotated_under_its_new_name(estate: Estate, inventory: Inventory) -> None:
    changed = service_renamed(inventory, "schedule", "agenda")
    estate.write(changed)
    estate.converge()
    if inventory["trust"]["model"] != "pinned":
        changed["services"]["agenda"]["certification_authority"] = {"generation": 2}
    changed["services"]["agenda"]["certificate"] = {"lifetime": "80d"}
    estate.write(changed)
    estate.converge()
    (leaf,) = (assert_whole(one) for one in set(releases_named(estate)) if one.parent.parent.name == "agenda")
    assert "CN=agenda" == leaf.subject.rfc4514_string()
    assert leaf.issuer.rfc4514_string() in {"CN=agenda.calendar CA g2", "CN=agenda"}


def test_a_service_may_get_its_old_name_back_and_another_may_take_it(estate: Estate, inventory: Inventory) -> None:
    before, there = serials(estate), service_renamed(inventory, "schedule", "agenda")
    estate.write(there)
    estate.converge()
    back = service_renamed({**there, "moved": []}, "agenda", "schedule", names=["schedule.calendar.internal"])
    estate.write(back)
    estate.converge()
    assert (before, ["mail", "schedule"]) == (serials(estate), folders_on(estate, "web1"))
    again = service_renamed({**back, "moved": []}, "schedule", "plans", names=["schedule.calendar.internal"])
    estate.write(again)
    estate.converge()
    again["moved"] = []
    again["services"]["schedule"] = {"runtime": "nginx", "hosts": ["web1"], "listen": 20443, "callers": ["mail"]}
    again["services"]["schedule"]["names"] = ["other.calendar.internal"]
    estate.write(again)
    estate.converge()
    assert ["mail", "plans", "schedule"] == folders_on(estate, "web1")
    if inventory["trust"]["model"] != "pinned":
        issuers = {assert_whole(one).issuer.rfc4514_string() for one in set(releases_named(estate))}
        assert len(issuers) == len(serials(estate))


def test_a_service_whose_program_finds_its_files_by_name_is_refused(estate: Estate, inventory: Inventory) -> None:
    estate.write(service_renamed(inventory, "mail", "post"))
    refused = estate.run("plan")
    assert (7, True) == (refused.code, "M2040" in refused.said), refused
    assert "its program reads /etc/mtlsctl/mail/current" in refused.said.replace("\n", " ")


# --- removed --------------------------------------------------------------------------------------------------------


def lose(estate: Estate, host: str) -> Path:
    """Whatever answers at its place is not the host any more."""
    folder = estate.folder / "out" / host
    shutil.rmtree(folder)
    folder.write_text("a disk that is no folder\n")
    return folder


def test_without_the_entry_a_host_that_is_gone_is_in_the_way(estate: Estate, inventory: Inventory) -> None:
    lose(estate, "web2")
    changed = given_up(inventory, "web2", "web1")
    del changed["removed"]
    estate.write(changed)
    assert estate.run("apply", "--yes").code != 0


def test_a_host_that_is_gone_is_given_up_and_everything_goes_on_without_it(
    estate: Estate, inventory: Inventory
) -> None:
    lost = lose(estate, "web2")
    estate.write(given_up(inventory, "web2", "web1"))
    seen = estate.run("plan")
    assert "web2 is given up with report, social; nothing on it is deleted" in seen.out
    assert "M2106 web2 is given up with keys of report, social" in seen.out
    applied = estate.converge()
    assert "1 abandoned host" in applied.out
    assert "a disk that is no folder\n" == lost.read_text()
    said = estate.good("journal").out
    assert "gave up host web2, with" not in said
    assert "gave up host web2 with report@web2, social@web2" in said
    assert "web2" not in estate.good("show").out
    assert "M2019" in estate.run("plan").err


def test_a_host_that_still_answers_is_given_up_without_being_touched(estate: Estate, inventory: Inventory) -> None:
    before = {path: facts for path, facts in everything_on_hosts(estate).items() if "/out/web2/" in path}
    estate.write(given_up(inventory, "web2", "web1"))
    estate.converge()
    after = everything_on_hosts(estate)
    assert before == {path: after[path] for path in before}


def test_what_an_apply_had_begun_on_a_host_that_is_gone_is_given_up_with_it(
    estate: Estate, inventory: Inventory
) -> None:
    changed: Inventory = json.loads(json.dumps(inventory))
    changed["services"]["report"]["certificate"] = {"lifetime": "80d"}
    estate.write(changed)
    ran: Ran = estate.command("apply", "--yes", MTLSCTL_FAILPOINT="switch.intended:kill")
    assert ran.code == KILLED, ran
    lose(estate, "web2")
    estate.write(given_up(changed, "web2", "web1"))
    estate.converge()
