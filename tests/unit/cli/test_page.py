from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtlsctl.cli.views.page import (
    Page,
    Tone,
    cells,
    columns,
    escaped,
    length_of,
    listed,
    relative,
    roughly,
    safe,
    took,
    wrapped,
)


def test_colour_is_added_only_where_it_is_wanted() -> None:
    assert Page(colour=True).paint("ok", Tone.ADD) == "\x1b[36mok\x1b[0m"
    assert Page().paint("ok", Tone.ADD) == "ok"


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\ufeff", "\x7f", "\r"])
def test_a_character_that_acts_is_shown_and_does_not_act(character: str) -> None:
    assert character not in escaped(f"a{character}b")
    assert character not in safe(f"a{character}b", colour=False)
    assert character not in safe(f"a{character}b", colour=True)


def test_line_ends_pass_the_last_guard_and_so_do_our_colours_where_wanted() -> None:
    assert safe("a\nb\n", colour=False) == "a\nb\n"
    assert safe("\x1b[36ma\x1b[0m\n", colour=True) == "\x1b[36ma\x1b[0m\n"
    assert safe("\x1b[36ma\n", colour=False) == "\\x1b[36ma\n"
    assert safe("\x1b]0;title\x07", colour=True) == "\\x1b]0;title\\x07"


def test_wide_characters_take_two_cells_and_combining_ones_none() -> None:
    assert cells("abc") == 3
    assert cells("日本") == 4
    assert cells("e\u0301") == 1


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([["a", "b"], ["longer", "c"]]) == ["  a       b", "  longer  c"]


def test_a_list_that_is_too_long_says_how_many_more_there_are() -> None:
    assert listed(["a", "b"], width=10) == "a, b"
    assert listed([f"name-{n}" for n in range(50)], width=30) == "name-0, ... 49 more"


def test_text_is_wrapped_at_words_and_a_long_word_stays_whole() -> None:
    assert wrapped("one two three", width=9, first="- ", rest="  ") == ["- one two", "  three"]
    assert wrapped("x" * 30, width=9, first="- ", rest="  ") == ["- " + "x" * 30]
    assert wrapped("", width=9, first="- ", rest="  ") == ["-"]


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=90), "90d"),
        (timedelta(hours=12), "12h"),
        (timedelta(minutes=30), "30m"),
        (timedelta(seconds=61), "61s"),
    ],
)
def test_a_length_is_written_as_in_an_inventory(duration: timedelta, text: str) -> None:
    assert length_of(duration) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=1825), "4 y 11 mo"),
        (timedelta(days=24, hours=5), "24 d"),
        (timedelta(hours=5, minutes=3), "5 h"),
        (timedelta(minutes=3), "3 min"),
        (timedelta(seconds=20), "20 s"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_a_duration_for_people_has_one_unit(duration: timedelta, text: str) -> None:
    assert roughly(duration) == text


def test_times_are_relative_for_people() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert relative(now + timedelta(days=3), now) == "in 3 d"
    assert relative(now - timedelta(hours=2), now) == "2 h ago"
    assert took(timedelta(seconds=0.31)) == "0.3 s"
    assert took(timedelta(seconds=41)) == "41 s"
