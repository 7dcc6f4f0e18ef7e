"""How much, how fast, until when: what the flags of apply take, and what they refuse."""

from __future__ import annotations

import pytest

from mtlsctl.cli.pace import batches_of, pace_of, scope_of
from mtlsctl.errors import UsageError
from mtlsctl.operations.schedule import Batch, Pace

ALL = Batch(100, is_percentage=True)


@pytest.mark.parametrize(
    ("text", "batches"),
    [
        ("1,10%,100%", (Batch(1), Batch(10, is_percentage=True), ALL)),
        ("100%", (ALL,)),
        (" 2 , 100% ", (Batch(2), ALL)),
        ("1,100%,100%", (Batch(1), ALL, ALL)),
    ],
)
def test_batches_are_numbers_and_percentages_and_the_last_is_the_rest(text: str, batches: tuple[Batch, ...]) -> None:
    assert batches == batches_of(text)


@pytest.mark.parametrize(
    "text", ["", "1", "1,10%", "0,100%", "0%,100%", "101%,100%", "-1,100%", "1,,100%", "1;100%", "a,100%", "1.5,100%",
             "٣,100%", "99999,100%"],
)  # fmt: skip
def test_what_is_no_list_of_batches_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        batches_of(text)
    assert "M9101" == refused.value.code


def test_a_list_that_leaves_hosts_over_says_how_it_should_end() -> None:
    with pytest.raises(UsageError, match="the last batch is what is left") as refused:
        batches_of("1")
    assert "--batch 1,100%" == refused.value.help


def test_nothing_said_leaves_the_pace_to_the_hosts() -> None:
    assert Pace() == pace_of(None, None, None, {})


def test_whoever_asks_for_batches_stops_at_the_first_failure_unless_told_otherwise() -> None:
    assert 0 == pace_of(None, "1,100%", None, {}).most_failures
    assert 2 == pace_of(None, "1,100%", "2", {}).most_failures
    assert pace_of(None, None, None, {}).most_failures is None
    assert 0 == pace_of(None, None, "0", {}).most_failures


def test_the_flag_wins_over_the_environment() -> None:
    assert 8 == pace_of(None, None, None, {"MTLSCTL_FORKS": "8"}).forks
    assert 4 == pace_of("4", None, None, {"MTLSCTL_FORKS": "8"}).forks
    assert pace_of(None, None, None, {"MTLSCTL_FORKS": ""}).forks is None


@pytest.mark.parametrize(("forks", "most"), [("0", None), ("501", None), ("many", None), ("", None), (None, "-1")])
def test_a_number_that_cannot_be_is_refused(forks: str | None, most: str | None) -> None:
    with pytest.raises(UsageError):
        pace_of(forks, None, most, {})


def test_names_come_with_commas_or_in_several_flags() -> None:
    assert frozenset({"web1", "db*", "web2"}) == scope_of(["web1, db*", "web2"], []).hosts
    assert scope_of([], []).is_everything
    assert frozenset({"mail"}) == scope_of([], ["mail"]).services


@pytest.mark.parametrize("text", ["", "web1,", ",", "web 1", "web1;web2", "../web", "\x1b[31m", "a" * 101])
def test_what_is_no_name_is_refused_and_no_wildcard_by_accident(text: str) -> None:
    with pytest.raises(UsageError):
        scope_of([text], [])
