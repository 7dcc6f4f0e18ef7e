"""The everyday commands, one after the other, on a folder that stands for a host."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.cli.views.journal import journal_line
from mtlsctl.store.journal import Event
from mtlsctl.store.port import JournalEntry
from tests.cli.estate import INVENTORY, Estate

if TYPE_CHECKING:
    import pytest


def test_plan_apply_plan_leaves_nothing_to_do(estate: Estate) -> None:
    assert "may call  schedule:18443" in estate.good("plan").out
    assert "Applied in" in estate.good("apply", "--yes").out
    assert estate.good("plan").out.startswith("Nothing to change. 3 services on 1 host match the inventory.")
    assert "Next renewal: " in estate.good("plan").out
    assert estate.good("apply", "--yes").out.startswith("Nothing to change.")


def test_the_applied_files_prove_the_matrix(estate: Estate) -> None:
    estate.good("apply", "--yes")
    ran = estate.good("verify", "--embedded")
    assert "0 contradictions, 0 inconclusive, 0 not probed" in ran.out
    assert estate.good("verify", "--embedded", "-o", "json").json["summary"]["contradictions"] == 0


def test_progress_is_on_standard_error_in_lines_for_logs(estate: Estate) -> None:
    ran = estate.good("apply", "--yes")
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ here process=nginx wave=activate status=done.*"
    assert any(re.fullmatch(line, one) for one in ran.err.splitlines())
    assert "status=" not in ran.out


def test_quiet_leaves_the_result_alone(estate: Estate) -> None:
    ran = estate.good("apply", "--yes", "-q")
    assert ran.err == ""
    assert "Applied in" in ran.out


def test_the_plan_points_at_the_line_that_causes_an_access_change(estate: Estate) -> None:
    ran = estate.good("plan")
    assert "inventories/calendar/inventory.yaml:6" in ran.out.partition("Certificates")[0]


def test_a_saved_plan_is_applied_as_it_is_and_only_once(estate: Estate) -> None:
    assert "Saved. Next: mtlsctl apply first.mtlsplan" in estate.good("plan", "--out", "first.mtlsplan").out
    assert "may call" in estate.good("show", "first.mtlsplan").out
    estate.good("apply", "first.mtlsplan")
    again = estate.run("apply", "first.mtlsplan")
    assert (again.code, "M5007" in again.err) == (6, True)


def test_a_saved_plan_is_refused_when_the_inventory_moved(estate: Estate) -> None:
    estate.good("plan", "--out", "first.mtlsplan")
    estate.inventory.write_text(INVENTORY.replace("callers: [mail]", "callers: [mail, other]"))
    ran = estate.run("apply", "first.mtlsplan")
    assert ran.code == 6
    assert "inventory: what it declares has changed" in ran.err
    assert not (estate.folder / "out").exists()


def test_the_expected_fingerprint_is_held_against_the_plan(estate: Estate) -> None:
    fingerprint = estate.good("plan", "-o", "json").json["fingerprint"]
    assert estate.run("apply", "--yes", "--expect-fingerprint", "mp1:0000-0000-0000").code == 6
    assert estate.good("apply", "--yes", "--expect-fingerprint", fingerprint).code == 0


def test_without_a_terminal_nothing_is_applied_unasked(estate: Estate) -> None:
    ran = estate.run("apply")
    assert (ran.code, "M9104" in ran.err, ran.out) == (64, True, "")


def test_the_folder_can_be_named_and_flags_stand_anywhere(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert estate.run("-C", str(estate.folder), "plan", "--detailed-exitcode").code == 2
    monkeypatch.chdir(tmp_path)
    assert estate.run("plan", "--detailed-exitcode", f"--chdir={estate.folder}").code == 2


def test_an_inventory_and_a_state_can_be_named(estate: Estate, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(INVENTORY.replace("callers: [mail]", "callers: [other]"))
    assert "other  may call" in estate.good("plan", "-i", str(other)).out
    assert estate.run("plan", "--state", "sqlite:nowhere.db").code == 1
    assert estate.good("plan", "--state", "sqlite:.mtlsctl/state.db").code == 0


def test_show_status_journal_and_state_tell_what_is_live(estate: Estate) -> None:
    assert "Nothing is live yet" in estate.good("show").out
    estate.good("apply", "--yes")
    assert "schedule@here" in estate.good("show").out
    assert "ok 3   due 0   expired 0   orphaned 0" in estate.good("status").out
    last = estate.good("journal", "--last", "2").out
    assert re.fullmatch(r" +\d+ \S+Z switched here/other: other@here\n +\d+ \S+Z operation ended: done\n", last)
    assert estate.good("journal", "-o", "json", "--last", "1").json["entries"][0]["detail"] == {"outcome": "done"}
    assert "interrupted     no\n" in estate.good("state", "show").out
    assert estate.good("state", "check").out == "✓ the state is sound\n"
    assert "serial" in estate.good("state", "show").out
    assert {one["instance"] for one in estate.good("show", "-o", "json").json["live"]} == {
        "schedule@here",
        "mail@here",
        "other@here",
    }


def test_the_journal_has_a_sentence_for_every_kind_of_entry() -> None:
    for event in Event:
        detail = {
            "serial": "ab" * 16, "command": "apply", "who": "me", "operation": "one", "outcome": "done",
            "signatures": [{}], "issuer": ["mail", 1], "subject": ["credential", "mail", "web1", 2],
            "authority": ["mail", 1], "hosts": ["web1"], "host": "web1", "to": "edge1", "instances": [["mail", "web1"]],
            "service": "mail",
            "releases": [["mail", "web1", "ff"]], "certificates": ["ab" * 32],
            "instance": ["mail", "web1"], "process": ["web1", "nginx"], "removed": [["old", "web1"]],
        }  # fmt: skip
        entry = JournalEntry(number=1, at=datetime.now(UTC), operation=None, event=event, detail=detail, digest="")
        said = journal_line(entry).partition("Z ")[2]
        assert said != ""
        assert (said == event.value) == (event is Event.CREATED)
        assert "=" not in said
        assert "{" not in said
        assert journal_line(replace(entry, detail={})).endswith(event.value) or event is Event.CREATED
    unknown = JournalEntry(number=1, at=datetime.now(UTC), operation=None, event="a new word", detail={}, digest="")
    assert journal_line(unknown).endswith("Z a new word")


def test_verbose_says_what_is_used_and_twice_each_step(estate: Estate) -> None:
    key = estate.good("init", "-o", "json").json["key_place"]
    plan = estate.good("plan", "-v")
    assert plan.out == estate.good("plan").out
    for place in (estate.folder / "mtlsctl.yaml", estate.inventory.parent, estate.folder / ".mtlsctl/state.db", key):
        assert f"  {place}\n" in plan.err
    assert "step  " not in plan.err
    applied = estate.good("apply", "--yes", "-vv")
    release = estate.good("show", "-o", "json").json["live"][0]["release"]
    assert f"host  here  {estate.folder / 'out'}\n" in applied.err
    assert re.search(r"^step  schedule@here/activate +here/nginx +presents schedule@here#1", applied.err, re.MULTILINE)
    assert f"live: release {release}" in applied.err
    assert "certificate_required" in estate.good("verify", "--embedded", "-vv").err
    assert estate.good("plan", "-vv", "-q").err == ""
    assert "runtimes" not in estate.good("plan").err


def test_an_apply_that_issues_nothing_says_nothing_of_it(estate: Estate) -> None:
    assert "step=issue authorities=3 certificates=3" in estate.good("apply", "--yes").err
    estate.inventory.write_text(INVENTORY.replace("18443", "18444"))
    assert "step=issue" not in estate.good("apply", "--yes").err


def test_status_tells_cas_and_leaves_that_are_due_also_without_an_inventory(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate.good("apply", "--yes")
    now = datetime.now(UTC)

    def standings(days: int) -> tuple[set[str], set[str]]:
        monkeypatch.setattr("mtlsctl.cli.wiring.clock", lambda: now + timedelta(days=days))
        seen = estate.good("status", "-o", "json").json
        return {one["state"] for one in seen["authorities"]}, {one["state"] for one in seen["certificates"]}

    for text in (INVENTORY, "nothing: [readable\n"):
        estate.inventory.write_text(text)
        assert standings(1) == ({"ok"}, {"ok"})
        assert standings(61) == ({"ok"}, {"due"})
        assert standings(1700) == ({"due"}, {"expired"})
        assert "DUE\n" in estate.good("status").out
        assert standings(1900) == ({"expired"}, {"expired"})
    estate.inventory.write_text(INVENTORY.replace("  other: { runtime: pem, hosts: [here] }\n", ""))
    assert standings(1) == ({"ok", "retiring"}, {"ok", "retiring"})
    assert "other@here  in 8" in estate.good("status").out


def test_status_needs_no_inventory_at_all(estate: Estate) -> None:
    estate.good("apply", "--yes")
    estate.inventory.unlink()
    assert "ok 3   due 0" in estate.good("status").out
    assert "ok 3   due 0" in estate.good("status", "-i", "no-such-folder").out


def test_a_backup_is_made_once_and_restored_over_what_is_lost(estate: Estate, tmp_path: Path) -> None:
    estate.good("apply", "--yes")
    backup = tmp_path / "backup.db"
    estate.good("state", "backup", str(backup))
    assert backup.stat().st_mode & 0o777 == 0o600
    assert estate.run("state", "backup", str(backup)).code == 1
    for file in (estate.folder / ".mtlsctl").iterdir():
        file.unlink()
    assert estate.run("plan").code == 1
    estate.good("state", "restore", str(backup))
    assert estate.good("plan").out.startswith("Nothing to change.")


def test_every_error_of_the_inventory_is_shown_at_once_with_its_place(estate: Estate) -> None:
    estate.inventory.write_text(INVENTORY.replace("[mail]", "[mial]").replace("runtime: pem", "runtime: pme"))
    ran = estate.run("validate")
    assert ran.code == 7
    assert "inventories/calendar/inventory.yaml:6:" in ran.out
    assert "^^^^" in ran.out
    assert "did you mean `mail`?" in ran.out
    assert "2 errors in" in ran.out or "2 errors (" in ran.out


def test_a_good_inventory_is_counted(estate: Estate) -> None:
    assert estate.good("validate").out.rpartition("\n\n")[2].startswith("3 services, 1 host, 1 declared call: ")


def test_an_orphan_or_a_host_without_plan_is_no_traceback_in_an_empty_folder(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    (empty / ".git").mkdir(parents=True)
    monkeypatch.chdir(empty)
    for command in ("plan", "validate", "verify", "apply"):
        ran = estate.run(command, *(["--yes"] if command == "apply" else []))
        assert (ran.code, "M9102" in ran.err) == (64, True)
    assert estate.run("status").code == 1


def test_nothing_secret_is_in_any_output_at_full_verbosity(estate: Estate) -> None:
    key_file = next(Path(line.split()[-1]) for line in [estate.good("init", "-o", "json").json["key_place"]])
    outputs = [
        estate.run(*arguments)
        for arguments in (
            ("plan", "-vvv", "-o", "json"),
            ("apply", "--yes", "-vvv"),
            ("verify", "--embedded", "-o", "json"),
            ("show", "-o", "json"),
            ("status", "-o", "json"),
            ("journal", "-o", "json"),
        )
    ]
    said = "".join(ran.out + ran.err for ran in outputs)
    leaves = [path.read_text() for path in (estate.folder / "out").rglob("*.key")]
    assert leaves
    assert key_file.read_bytes().hex() not in said
    for leaf in leaves:
        assert all(line not in said for line in leaf.splitlines()[1:-1])
    assert "PRIVATE KEY" not in said


def test_the_schema_of_the_plan_fits_the_plan(estate: Estate) -> None:
    schema = estate.good("schema", "plan").json
    document = estate.good("plan", "-o", "json").json
    assert set(schema["required"]) == set(document)
    assert json.loads(estate.good("schema").out)["$schema"].startswith("http://json-schema.org/draft-07")


def test_runtimes_are_listed_and_linted(estate: Estate) -> None:
    assert {one["name"] for one in estate.good("runtimes", "-o", "json").json["runtimes"]} >= {"nginx", "node", "pem"}
    assert "nginx" in estate.good("runtimes").out
    assert estate.run("runtimes", "lint", str(estate.folder)).code == 7
