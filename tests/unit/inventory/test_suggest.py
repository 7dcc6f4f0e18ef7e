"""The word that was meant: found where it is unique, silent where it is not."""

from __future__ import annotations

import pytest

from mtlsctl.inventory.shape import LISTENER, SERVICE
from mtlsctl.inventory.suggest import edit_distance, suggestion

SERVICES = ("billing", "ledger", "gateway", "mail-relay", "web1", "web2", "web3", "schedule", "social", "report-api")

TYPOS = [
    ("biling", "billing"),
    ("billling", "billing"),
    ("Billing", "billing"),
    ("blling", "billing"),
    ("bililng", "billing"),
    ("legder", "ledger"),
    ("ledgre", "ledger"),
    ("leger", "ledger"),
    ("ledgers", "ledger"),
    ("gatway", "gateway"),
    ("getaway", "gateway"),
    ("gate-way", "gateway"),
    ("mail", "mail-relay"),
    ("mail_relay", "mail-relay"),
    ("mailrelay", "mail-relay"),
    ("report", "report-api"),
    ("report-api-v2", "report-api"),
    ("shedule", "schedule"),
    ("scheduel", "schedule"),
    ("socail", "social"),
    ("soical", "social"),
]

SILENT = ["web4", "web", "accounts", "x", "zz", "bill", "", "schedulers-of-old"]


@pytest.mark.parametrize(("typo", "meant"), TYPOS)
def test_a_typo_finds_the_one_service_that_is_near(typo: str, meant: str) -> None:
    assert meant == suggestion(typo, SERVICES)


@pytest.mark.parametrize("word", SILENT)
def test_a_word_near_to_none_or_to_several_finds_nothing(word: str) -> None:
    assert suggestion(word, SERVICES) is None


@pytest.mark.parametrize("key", [key for key in (*SERVICE.fields, *LISTENER.fields) if len(key) > 4])
def test_a_key_with_two_letters_swapped_is_found_again(key: str) -> None:
    typo = key[:2] + key[3] + key[2] + key[4:]
    assert key == suggestion(typo, tuple({**SERVICE.fields, **LISTENER.fields}))


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("", "", 0), ("ab", "ba", 1), ("abc", "abc", 0), ("abc", "abcd", 1), ("abc", "xyz", 3)],
)
def test_the_distance_counts_swaps_once_and_stops_above_its_limit(left: str, right: str, distance: int) -> None:
    assert distance == edit_distance(left, right, 2)
