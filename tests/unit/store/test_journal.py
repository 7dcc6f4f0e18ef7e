from __future__ import annotations

import pytest

from mtlsctl.model.secret import Secret
from mtlsctl.store.journal import Head, Row, first_break, first_head, head_of, next_row

START = first_head("lineage", "estate")


def rows(count: int = 5) -> list[Row]:
    made: list[Row] = []
    head = START
    for number in range(count):
        made.append(next_row(head, at=f"t{number}", operation=None, event="e", detail={"n": number}))
        head = head_of(made[-1])
    return made


def test_an_untouched_chain_holds() -> None:
    assert first_break(rows(), start=START, end=head_of(rows()[-1])) is None
    assert first_break([], start=START, end=START) is None


@pytest.mark.parametrize("field", ["at", "operation", "event", "detail", "digest"])
@pytest.mark.parametrize("number", [1, 3, 5])
def test_each_field_of_each_entry_is_covered(field: str, number: int) -> None:
    altered = rows()
    plain = altered[number - 1]._asdict() | {field: "x"}
    altered[number - 1] = Row(**plain)
    found = first_break(altered, start=START, end=head_of(rows()[-1]))
    assert found is not None
    assert f"entry {number}:" in found


@pytest.mark.parametrize("number", [1, 3])
def test_a_missing_entry_is_named(number: int) -> None:
    kept = [row for row in rows() if row.number != number]
    assert first_break(kept, start=START, end=head_of(rows()[-1])) == f"journal: entry {number} is missing"


def test_a_cut_end_is_found() -> None:
    found = first_break(rows()[:3], start=START, end=head_of(rows()[-1]))
    assert found == "journal: it ends at entry 3, and 5 were written"


def test_entries_that_changed_places_are_found() -> None:
    swapped = rows()
    swapped[1], swapped[2] = swapped[2]._replace(number=2), swapped[1]._replace(number=3)
    assert first_break(swapped, start=START, end=head_of(rows()[-1])) is not None


def test_the_journal_of_another_state_does_not_fit() -> None:
    for other in (first_head("other", "estate"), first_head("lineage", "other")):
        assert first_break(rows(), start=other, end=head_of(rows()[-1])) is not None


def test_a_rewritten_chain_does_not_end_where_the_state_says() -> None:
    head = START
    for number in range(5):
        row = next_row(head, at="t", operation=None, event="forged", detail={"n": number})
        head = head_of(row)
    assert head != head_of(rows()[-1])


def test_the_boundary_of_two_fields_is_covered() -> None:
    first = next_row(START, at="a", operation="bc", event="e", detail={})
    second = next_row(START, at="ab", operation="c", event="e", detail={})
    assert first.digest != second.digest


def test_a_secret_cannot_enter() -> None:
    with pytest.raises(TypeError):
        next_row(Head(0, ""), at="t", operation=None, event="e", detail={"key": Secret(b"x")})
