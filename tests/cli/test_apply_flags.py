"""A part of a plan, at a pace, as a stream: what apply does with its flags, and how it says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.cli.progress import cut
from mtlsctl.cli.views.page import cells
from tests.cli.test_terminal import on_a_terminal

if TYPE_CHECKING:
    from tests.cli.estate import Estate, Ran

TWO = """\
version: 1
name: calendar
hosts:
  here: { directory: out }
  there: { directory: out2 }
services:
  schedule: { runtime: nginx, hosts: [here], listen: 18443, callers: [mail] }
  mail: { runtime: pem, hosts: [there] }
  news: { runtime: pem, hosts: [there] }
"""
ROTATED = TWO.replace("  mail: { runtime: pem,", "  mail: { certification_authority: { generation: 2 }, runtime: pem,")


@pytest.fixture
def two(estate: Estate) -> Estate:
    estate.inventory.write_text(TWO)
    return estate


def records(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_a_part_is_applied_and_the_rest_is_left_for_the_next_apply(two: Estate) -> None:
    ran = two.good("apply", "--yes", "--limit", "there")
    assert "Only hosts there: 2 processes now, 1 left out." in ran.out
    assert "2 certificates, 2 processes, 0 failures" in ran.out
    assert "Left for the next apply: here/nginx." in ran.out
    assert not (two.folder / "out/etc").exists()
    ran = two.good("apply", "--yes")
    assert "Left for" not in ran.out
    assert two.good("plan").out.startswith("Nothing to change.")


def test_services_are_asked_for_by_name_or_pattern(two: Estate) -> None:
    ran = two.good("apply", "--yes", "--target", "n*", "--target", "schedule", "-o", "json")
    done = {one["process"]: one["status"] for one in ran.json["processes"]}
    assert {"news": "done", "nginx": "done", "mail": "left-out"} == done
    assert (0, True) == (ran.json["exit_code"], ran.json["run_again"])


def test_what_waits_for_what_was_left_out_is_blocked(two: Estate) -> None:
    two.good("apply", "--yes")
    two.inventory.write_text(ROTATED)
    ran = two.run("apply", "--yes", "--limit", "there")
    assert 3 == ran.code
    assert "there/mail in activate: blocked, waits for schedule@here/extend" in ran.out
    assert "Left for the next apply: here/nginx." in ran.out
    two.good("apply", "--yes")
    assert two.good("plan").out.startswith("Nothing to change.")


@pytest.mark.parametrize(("flag", "name"), [("--limit", "nowhere"), ("--limit", "x*"), ("--target", "maill")])
def test_a_name_that_is_nothing_here_is_refused_before_anything_is_done(two: Estate, flag: str, name: str) -> None:
    ran = two.run("apply", "--yes", flag, name)
    assert 64 == ran.code
    assert f"is called `{name}`" in ran.err
    assert not (two.folder / "out2").exists()


def test_a_removed_service_can_still_be_asked_for(two: Estate) -> None:
    two.good("apply", "--yes")
    two.inventory.write_text("\n".join(TWO.splitlines()[:-1]) + "\n")
    two.good("apply", "--yes", "--target", "news")
    assert two.good("plan").out.startswith("Nothing to change.")


def test_a_failed_canary_stops_the_rest(two: Estate) -> None:
    """In the plan's order nginx comes first; somebody else wrote its file."""
    pointer = two.folder / "out/etc/nginx/conf.d/mtlsctl.conf"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("# mine\n")
    ran = two.run("apply", "--yes", "--batch", "1,100%", "-o", "json")
    assert 3 == ran.code
    assert {"nginx": "failed", "mail": "blocked", "news": "blocked"} == {
        one["process"]: one["status"] for one in ran.json["processes"]
    }
    assert "not begun: 1 failed, no more than 0 may" in {one["message"] for one in ran.json["processes"]}
    ran = two.run("apply", "--yes", "--max-fail", "1", "-o", "json")
    assert {"nginx": "failed", "mail": "done", "news": "done"} == {
        one["process"]: one["status"] for one in ran.json["processes"]
    }


def test_files_can_be_switched_without_a_reload(two: Estate) -> None:
    ran = two.good("apply", "--yes", "--no-reload")
    assert "pid_files" not in ran.err  # nobody was to be signalled
    assert (two.folder / "out/etc/nginx/conf.d/mtlsctl.conf").exists()


@pytest.mark.parametrize("flags", [["--batch", "1"], ["--forks", "0"], ["--max-fail", "x"], ["--limit", ""]])
def test_a_flag_that_means_nothing_is_wrong_usage(two: Estate, flags: list[str]) -> None:
    assert 64 == two.run("apply", "--yes", *flags).code


# --- as a stream ----------------------------------------------------------------------------------------------------


def test_a_stream_is_json_line_by_line_from_version_to_summary(two: Estate) -> None:
    told = records(two.good("apply", "--yes", "-o", "ndjson"))
    assert ["version", "plan_summary", "issued"] == [one["type"] for one in told[:3]]
    assert {"process"} == {one["type"] for one in told[3:-1]}
    assert ["started", "done"] * 3 == [one["status"] for one in told[3:-1]]
    summary = told[-1]
    assert ("summary", 0, 3, 0, False) == tuple(
        summary[name] for name in ("type", "exit_code", "done", "failed", "run_again")
    )
    told = records(two.good("apply", "--yes", "-o", "ndjson"))
    assert ["version", "summary"] == [one["type"] for one in told]


def test_a_stream_ends_with_its_error(two: Estate) -> None:
    ran = two.run("apply", "--yes", "--limit", "nowhere", "-o", "ndjson")
    assert ["version", "error"] == [one["type"] for one in records(ran)]
    assert ("M9112", 64) == (records(ran)[-1]["diagnostics"][0]["code"], records(ran)[-1]["exit_code"])


# --- on a terminal --------------------------------------------------------------------------------------------------


def test_what_has_ended_stays_and_what_ran_is_gone(two: Estate) -> None:
    code, said = on_a_terminal(two, "yes", "apply", CI="")
    assert code == 0
    shown = screen(said)
    assert 3 == sum("done" in line and "✓" in line for line in shown)
    assert not [line for line in shown if "running," in line]


def screen(said: str, width: int = 500) -> list[str]:
    """What a terminal shows in the end, of the few things that are sent to it."""
    lines, row, column = [""], 0, 0
    at = 0
    while at < len(said):
        if said.startswith("\x1b[", at):
            end = next(n for n in range(at + 2, len(said)) if said[n].isalpha())
            number = int(said[at + 2 : end].partition(";")[0] or 0)
            if said[end] == "A":
                row = max(0, row - number)
            elif said[end] == "J":
                lines = [*lines[:row], lines[row][:column]]
            at = end + 1
            continue
        character = said[at]
        at += 1
        if character == "\r":
            column = 0
        elif character == "\n":
            row, column = row + 1, 0
            lines += [""] if row == len(lines) else []
        else:
            lines[row] = lines[row][:column] + character + lines[row][column + 1 :]
            column += 1
            assert column < width
    return lines


@pytest.mark.parametrize("text", ["web1 nginx", "日本語の名前" * 9, "x" * 200, ""])
@pytest.mark.parametrize("width", [4, 10, 79])
def test_a_line_never_takes_more_columns_than_there_are(text: str, width: int) -> None:
    assert cells(cut(text, width)) <= width
    if cells(text) <= width:
        assert text == cut(text, width)
