"""The golden corpus: `cases/NAME.yaml` with what is said about it in `cases/NAME.expected`.

`python -m tests.unit.inventory.test_cases` writes the expected files anew; read the difference before it is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InventoryError
from mtlsctl.inventory import codes, load_inventory
from tests.unit.inventory.runtimes import RUNTIMES

if TYPE_CHECKING:
    from mtlsctl.model.diagnostic import Diagnostic

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))
IN_OTHER_TESTS = {codes.UNREADABLE, codes.TOO_LARGE, codes.TOO_MANY_NODES, codes.CERTIFICATE_UNFIT, codes.CHAIN_UNFIT}


def said(name: str) -> str:
    """`M1012 3:9 message`, one line for each diagnostic, with what helps below it."""
    try:
        loaded = load_inventory(CASES / f"{name}.yaml", RUNTIMES, root=CASES)
    except InventoryError as error:
        return "".join(map(_lines, error.diagnostics))
    return "".join(map(_lines, loaded.warnings)) + f"ok: {len(loaded.inventory.services)} services\n"


def _lines(one: Diagnostic) -> str:
    place = "-" if one.span is None else f"{one.span.line}:{one.span.column}-{one.span.end_column}"
    related = "".join(f"    at {span.line}:{span.column}-{span.end_column} {text}\n" for span, text in one.related)
    advice = "" if one.help is None else f"    help: {one.help}\n"
    severity = "" if one.severity == "error" else f" {one.severity}"
    return f"{one.code}{severity} {place} {one.message}\n{related}{advice}"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_about_a_case_is_what_was_agreed(name: str) -> None:
    expected = (CASES / f"{name}.expected").read_text(encoding="utf-8")
    assert expected == said(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_accepted_exactly_when_its_name_says_so(name: str) -> None:
    expected = (CASES / f"{name}.expected").read_text(encoding="utf-8")
    assert name.startswith(("ok-", "names-at-the-limit", "lifetime-shortest")) == ("ok: " in expected)


def test_the_corpus_shows_every_code() -> None:
    shown = {line.split()[0] for path in CASES.glob("*.expected") for line in path.read_text().splitlines()}
    assert set(codes.MEANINGS) - IN_OTHER_TESTS <= shown


def test_no_expected_file_is_left_without_its_case() -> None:
    assert sorted(path.stem for path in CASES.glob("*.expected")) == NAMES


if __name__ == "__main__":
    for one in NAMES:
        (CASES / f"{one}.expected").write_text(said(one), encoding="utf-8")
