"""Every screen against its file, from values made by hand."""

from __future__ import annotations

import html
import json
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import timedelta

import pytest

from mtlsctl.cli.views.document import json_text
from mtlsctl.cli.views.page import Page, cells
from mtlsctl.cli.views.plan_markdown import LIMIT, inline, plan_markdown
from mtlsctl.cli.views.plan_text import PlanScreen, plan_text
from mtlsctl.cli.views.verify_json import verify_document
from mtlsctl.cli.views.verify_junit import verify_junit
from mtlsctl.cli.views.verify_text import VerifyScreen, verify_text
from mtlsctl.model.plan import Plan, Risk
from mtlsctl.model.probe import Observation, Presented
from mtlsctl.model.topology import Edge, ListenerId
from mtlsctl.operations.saved_plan import plan_document
from tests.cli.examples import (
    empty_plan,
    everyday_plan,
    first_plan,
    good_outcomes,
    mixed_outcomes,
    outcome,
    span,
    state_of,
)
from tests.cli.golden_files import golden

VERBS = {"nginx": "reload", "node": "reload", "pem": "new files"}
PLAIN = Page()


def screen(plan: Plan, *, services: int = 12, hosts: int = 31) -> PlanScreen:
    return PlanScreen(plan=plan, services=services, hosts=hosts, verbs=VERBS)


def verified(**changes: object) -> VerifyScreen:
    made = VerifyScreen(
        outcomes=mixed_outcomes(),
        embedded=True,
        sources={ListenerId("billing", "main"): span(22)},
        elapsed=timedelta(seconds=8.2),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("plan.txt", PLAIN),
        ("plan-ascii.txt", Page(ascii=True)),
        ("plan-wide.txt", Page(width=140)),
        ("plan-narrow.txt", Page(width=60)),
        ("plan-colour.txt", Page(colour=True)),
    ],
)
def test_the_plan_is_the_screen_of_its_golden_file(name: str, page: Page) -> None:
    text = plan_text(screen(everyday_plan()), page)
    assert golden(name, text) == text


def test_a_plan_without_changes_is_one_sentence_with_the_next_renewal() -> None:
    text = plan_text(screen(empty_plan()), PLAIN)
    expected = "Nothing to change. 12 services on 31 hosts match the inventory. Next renewal: gate@gate-1 in 24 d.\n"
    assert expected == text


def test_access_changes_come_before_everything_else_with_their_source() -> None:
    lines = plan_text(screen(everyday_plan()), Page(width=120)).splitlines()
    assert lines[2] == "Access changes"
    assert lines[3].split() == ["+", "billing", "may", "call", "ledger:8443", f"{span(14).file}:14"]


def test_a_plan_of_twenty_changes_fits_into_45_lines_of_80_columns() -> None:
    lines = plan_text(screen(first_plan(20, callers=1), services=20), PLAIN).splitlines()
    assert len(lines) <= 45
    assert max(map(cells, lines)) <= 80
    assert sum("may call" in line for line in lines) == 20


def test_what_is_left_out_is_counted_and_shown_in_full() -> None:
    short = plan_text(screen(first_plan(60, callers=1)), PLAIN)
    full = plan_text(screen(first_plan(60, callers=1)), Page(full=True))
    assert "more (--full lists them)" in short
    assert "more (--full lists them)" not in full
    assert full.count("may call") == 60


def test_no_access_change_is_left_out_of_a_large_plan() -> None:
    text = plan_text(screen(first_plan(300)), PLAIN)
    for number in range(300):
        assert f"may call service-{number:05}:8443" in " ".join(text.split())


def test_a_plan_of_ten_thousand_services_is_printed_fast() -> None:
    plan = first_plan(10_000)
    began = time.process_time()
    plan_text(screen(plan), PLAIN)
    assert time.process_time() - began < 3


def test_a_name_cannot_act_on_the_terminal() -> None:
    plan = replace(everyday_plan(), risks=(Risk(code="M2101", summary="\x1b]0;owned\x07 \u202egnp.exe\nPlan: fine"),))
    text = plan_text(screen(plan), PLAIN)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b]0;owned" in text
    assert "\nPlan: fine" not in text


def test_the_plan_as_markdown_is_its_golden_file() -> None:
    text = plan_markdown(screen(everyday_plan()))
    assert golden("plan.md", text) == text


def test_a_comment_about_500_services_keeps_access_and_totals_and_fits() -> None:
    text = plan_markdown(screen(first_plan(500), services=500, hosts=125))
    assert len(text) <= LIMIT
    assert all(f" may call service-{number:05}:8443" in text for number in range(500))
    assert "| changes | 500 | 0 | 0 | 0 | 500 | 125 / 125 | 500 |" in text
    assert "lines left out" in text


def test_a_comment_that_cannot_hold_all_access_changes_says_so_first() -> None:
    text = plan_markdown(screen(first_plan(5000), services=5000, hosts=1250))
    assert len(text) <= LIMIT
    assert "do not fit here" in text
    assert "| changes | 5000 |" in text


@pytest.mark.parametrize(
    "name",
    [
        "@everyone",
        "[x](http://evil)",
        "![i](u)",
        "<img src=x>",
        "a`b",
        "*b*",
        "#1",
        "GH-1",
        "https://evil",
        "a|b",
        "~~s~~",
    ],
)
def test_a_name_cannot_act_in_a_comment(name: str) -> None:
    text = inline(name)
    for active in ("@", "<", "://", "](", "`" if "\\`" not in text else "\x00"):
        assert active not in text.replace("\\", "") or (active == "](" and "\\]\\(" in text)
    assert html.unescape(text).replace("\\", "") == name


def test_the_plan_as_json_is_its_golden_file_and_parses() -> None:
    text = json_text(plan_document(everyday_plan(), state_of(everyday_plan())))
    assert golden("plan.json", text) == text
    assert json.loads(text)["grants"][0]["listener"] == "ledger:8443"
    assert text.isascii()


@pytest.mark.parametrize(
    ("name", "page"),
    [("verify.txt", PLAIN), ("verify-ascii.txt", Page(ascii=True)), ("verify-wide.txt", Page(width=120))],
)
def test_the_matrix_is_the_screen_of_its_golden_file(name: str, page: Page) -> None:
    text = verify_text(verified(), page)
    assert golden(name, text) == text


def test_a_declared_call_is_cited_where_it_is_declared_and_any_other_at_the_listener() -> None:
    door = ListenerId("billing", "main")
    made = verified(edges={Edge("schedule", door): span(31), Edge("social", door): span(32)})
    lines = [one["source"]["line"] for one in verify_document(made)["results"] if one["source"]]  # type: ignore[attr-defined]
    assert lines == [22, 22, 31]
    assert f"declared at {span(31).file}:31" in verify_text(made, PLAIN)


@pytest.mark.parametrize("times", [1, 10, 70, 7000])
def test_the_time_never_stands_alone_in_the_last_line(times: int) -> None:
    last = verify_text(verified(outcomes=good_outcomes() * times), PLAIN).splitlines()[-1]
    assert last.endswith(" not probed   8.2 s")
    assert len(last) <= 80
    assert ("as declared" in last) == (times < 100)


def test_columns_that_do_not_fit_go_into_tables_of_their_own() -> None:
    outcomes = tuple(outcome(f"caller-{number}", "schedule") for number in range(40))
    text = verify_text(verified(outcomes=outcomes), PLAIN)
    assert max(map(cells, text.splitlines())) <= 80
    assert all(f"caller-{number}" in text for number in range(40))
    assert text.count("schedule:8443") > 1


@pytest.mark.parametrize("observed", [Observation.UNREACHABLE, Observation.INCONCLUSIVE, Observation.NOT_PROBED])
def test_what_could_not_be_told_is_never_a_pass(observed: Observation) -> None:
    unclear = outcome("mail", "schedule", observed=observed, presented=Presented.EXPIRED)
    made = verified(outcomes=(*good_outcomes(), unclear))
    assert made.exit_code == 1
    assert "✓" not in _row(verify_text(made, Page(width=120)), "(expired)")
    assert 'errors="1"' in verify_junit(made)


def _row(text: str, column: str) -> str:
    """The cell of the only listener in a column."""
    head, row = next(
        (line, text.splitlines()[number + 1]) for number, line in enumerate(text.splitlines()) if column in line
    )
    start = head.index(column)
    return row[start : start + len(column)].strip()


def test_the_cell_shows_the_worst_of_all_instances_and_protocols() -> None:
    bad = outcome("reporting", "schedule", observed=Observation.ALLOWED, protocol="1.2")
    made = verified(outcomes=(*good_outcomes(), bad))
    assert made.exit_code == 4
    assert _row(verify_text(made, Page(width=120)), "reporting") == "✗"


def test_all_as_declared_is_success_and_nothing_tried_is_not() -> None:
    assert verified(outcomes=good_outcomes()).exit_code == 0
    assert verified(outcomes=()).exit_code == 1


def test_the_outcomes_as_json_and_junit_are_their_golden_files() -> None:
    text = json_text(verify_document(verified()))
    assert golden("verify.json", text) == text
    xml = verify_junit(verified())
    assert golden("verify.xml", xml) == xml


def test_junit_stays_xml_whatever_a_server_says() -> None:
    hostile = outcome("mail", "schedule", observed=Observation.ALLOWED, evidence='"]]><x>&\x00\x1b\ud800\ufffe')
    root = ET.fromstring(verify_junit(verified(outcomes=(hostile,))))  # noqa: S314  our own text
    assert root.attrib == {"tests": "1", "failures": "1", "errors": "0"}
