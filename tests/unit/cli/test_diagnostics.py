from __future__ import annotations

from mtlsctl.cli.views.diagnostics import diagnostic_json, diagnostic_text, diagnostics_text, failure_text, summary_of
from mtlsctl.cli.views.page import Page
from mtlsctl.model.diagnostic import Diagnostic, Severity, Span

LINES = {
    "ledger.yaml": ["services:", "  ledger:", "      callers: [biling, gate]", "\tbad: 日本 x\x1b[31m", "z" * 300],
    "billing.yaml": ["billing: {}"],
}


def source(file: str, line: int) -> str | None:
    lines = LINES.get(file, [])
    return lines[line - 1] if line <= len(lines) else None


def unknown_caller(**changes: object) -> Diagnostic:
    made: dict[str, object] = {
        "code": "M1107",
        "message": "unknown caller `biling`",
        "span": Span("ledger.yaml", 3, 17, 23),
        "label": "no service has this name",
        "help": "did you mean `billing`?",
    }
    return Diagnostic(**(made | changes))  # type: ignore[arg-type]


def test_the_wrong_word_is_underlined_with_file_line_and_column() -> None:
    expected = (
        "error[M1107]: unknown caller `biling`\n"
        " --> ledger.yaml:3:17\n"
        "  |\n"
        "3 |       callers: [biling, gate]\n"
        "  |                 ^^^^^^ no service has this name\n"
        "  = help: did you mean `billing`?\n"
    )
    assert expected == diagnostic_text(unknown_caller(), Page(), source)


def test_the_other_place_of_a_conflict_is_shown_too() -> None:
    related = ((Span("billing.yaml", 1, 1, 8), "first named here"),)
    text = diagnostic_text(unknown_caller(related=related), Page(), source)
    assert " ::: billing.yaml:1:1\n  |\n1 | billing: {}\n  | ^^^^^^^ first named here\n" in text


def test_tabs_and_control_characters_are_escaped_and_the_caret_still_stands_below() -> None:
    text = diagnostic_text(unknown_caller(span=Span("ledger.yaml", 4, 10, 11), label="here"), Page(), source)
    lines = text.splitlines()
    assert lines[3] == "4 | \\tbad: 日本 x\\x1b[31m"
    # `\t` takes two cells and each of the two characters before the space takes two as well.
    assert lines[4].index("^") == len("  | ") + len("\\tbad: ") + 4 + 1
    assert "\x1b" not in text


def test_a_long_line_is_cut_around_the_caret() -> None:
    text = diagnostic_text(unknown_caller(span=Span("ledger.yaml", 5, 150, 155)), Page(), source)
    assert max(map(len, text.splitlines())) <= 80 + len(" no service has this name")
    assert "^^^^^" in text
    assert "..." in text


def test_a_file_that_cannot_be_read_still_has_its_place_named() -> None:
    text = diagnostic_text(unknown_caller(span=Span("gone.yaml", 7, 2, 4)), Page(), source)
    assert " --> gone.yaml:7:2  no service has this name\n" in text


def test_above_twenty_errors_the_rest_is_counted_and_full_shows_all() -> None:
    many = [unknown_caller(span=Span("ledger.yaml", 3, n + 1, n + 2)) for n in range(30)]
    short = diagnostics_text(many, Page(), source)
    assert short.count("error[M1107]") == 20
    assert "... and 10 more errors" in short
    assert diagnostics_text(many, Page(full=True), source).count("error[M1107]") == 30


def test_problems_are_sorted_by_place_and_counted_by_severity() -> None:
    warning = unknown_caller(severity=Severity.WARNING, span=Span("a.yaml", 1, 1, 2))
    text = diagnostics_text([unknown_caller(), warning], Page(), source)
    assert text.index("warning[") < text.index("error[")
    assert summary_of([unknown_caller(), unknown_caller(), warning]) == "2 errors, 1 warning"
    assert summary_of([]) == "no problems"


def test_json_counts_characters_and_bytes() -> None:
    made = diagnostic_json(unknown_caller(span=Span("ledger.yaml", 4, 9, 10)), source)
    assert made["range"] == {
        "start": {"line": 4, "column": 9, "byte": 12},
        "end": {"line": 4, "column": 10, "byte": 13},
    }


def test_a_failure_without_a_place_has_its_notes_and_the_next_step() -> None:
    text = failure_text("M3001", "there is no state", ("a note\nof two lines",), "restore a backup", Page())
    expected = "error[M3001]: there is no state\n  = note: a note\n          of two lines\n  = help: restore a backup\n"
    assert expected == text
