"""What was reviewed is what is applied, or nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsctl.errors import MtlsctlError, PlanRefused, UsageError
from mtlsctl.operations.saved_plan import (
    LIFETIME,
    SavedPlan,
    _sealed_text,
    compare,
    load_saved_plan,
    plan_document,
    write_saved_plan,
)
from tests.cli.examples import LINEAGE, NOW, empty_plan, everyday_plan, first_plan, state_of

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.model.plan import Plan

PLAN = everyday_plan()
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.mtlsplan"
    write_saved_plan(path, PLAN, state_of(PLAN))
    return path


@pytest.fixture
def saved(file: Path) -> SavedPlan:
    return load_saved_plan(file, LATER)


def refusal_of(saved: SavedPlan, current: Plan, **state: object) -> PlanRefused:
    with pytest.raises(PlanRefused) as caught:
        compare(saved, current, state_of(current, **state))  # type: ignore[arg-type]
    return caught.value


def test_a_saved_plan_is_read_back_as_it_was(file: Path, saved: SavedPlan) -> None:
    assert (saved.lineage, saved.serial, saved.fingerprint) == (LINEAGE, 41, PLAN.fingerprint)
    assert saved.created_at == PLAN.created_at
    assert saved.pointers.keys() == PLAN.processes
    assert file.stat().st_mode & 0o777 == 0o600
    compare(saved, PLAN, state_of(PLAN))


def test_every_byte_that_is_changed_is_found(tmp_path: Path) -> None:
    plan = replace(first_plan(1, callers=0), service_changes=())
    path = tmp_path / "small.mtlsplan"
    write_saved_plan(path, plan, state_of(plan))
    content = path.read_bytes()
    for place in range(len(content)):
        for flip in (0x01, 0x20, 0x80):
            path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            with pytest.raises(PlanRefused):
                load_saved_plan(path, LATER)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_whatever_is_in_the_file_the_answer_is_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("plan") / "x.mtlsplan"
    path.write_bytes(content)
    with pytest.raises(PlanRefused):
        load_saved_plan(path, LATER)


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -2])
def test_a_plan_that_was_cut_off_is_refused(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(PlanRefused):
        load_saved_plan(file, LATER)


def test_deep_nesting_is_refused_without_a_recursion_error(file: Path) -> None:
    file.write_text("[" * 100_000)
    with pytest.raises(PlanRefused):
        load_saved_plan(file, LATER)


def test_pretty_printed_json_is_not_the_saved_plan(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()), indent=2))
    with pytest.raises(PlanRefused, match="altered"):
        load_saved_plan(file, LATER)


def test_a_plan_lives_for_a_day(file: Path) -> None:
    load_saved_plan(file, NOW + LIFETIME - timedelta(seconds=1))
    with pytest.raises(PlanRefused, match="expired"):
        load_saved_plan(file, NOW + LIFETIME)


def test_a_plan_from_the_future_is_refused(file: Path) -> None:
    with pytest.raises(PlanRefused, match="future"):
        load_saved_plan(file, NOW - timedelta(hours=1))


def test_another_format_version_is_refused_by_its_number(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlsctl.operations.saved_plan.FORMAT_VERSION", "2.0")
    with pytest.raises(PlanRefused, match=r"format version 1\.0"):
        load_saved_plan(file, LATER)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_saved_plan(tmp_path / "none.mtlsplan", LATER)


def test_an_earlier_plan_is_replaced_and_no_other_file_is(file: Path, tmp_path: Path) -> None:
    write_saved_plan(file, empty_plan(), state_of(empty_plan()))
    assert load_saved_plan(file, LATER).fingerprint == empty_plan().fingerprint
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    with pytest.raises(UsageError):
        write_saved_plan(other, PLAN, state_of(PLAN))
    assert other.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(other)
    with pytest.raises(UsageError):
        write_saved_plan(link, PLAN, state_of(PLAN))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ledger.mtlsplan", "link", "notes.txt"]


def test_a_serial_that_moved_where_nothing_overlaps_is_tolerated(saved: SavedPlan) -> None:
    compare(saved, replace(PLAN, serial=43), state_of(PLAN, serial=43))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inventory_digest": "ff" * 32}, "inventory"),
        ({"fingerprint": "mp1:1111-2222-3333"}, "fingerprint"),
        ({"certificate_changes": PLAN.certificate_changes[:-1]}, "overlap: certificate/gate@gate-4"),
        ({"steps": PLAN.steps[1:]}, "overlap: release/ledger@db-1/extend"),
    ],
)
def test_whatever_moved_is_named(saved: SavedPlan, change: dict[str, object], said: str) -> None:
    error = refusal_of(saved, replace(PLAN, **change))  # type: ignore[arg-type]
    assert error.code == "M5002"
    assert error.exit_code == 6
    assert any(said in note for note in error.notes)


def test_a_pointer_that_moved_is_named_with_the_serials(saved: SavedPlan) -> None:
    error = refusal_of(saved, PLAN, serial=42, **{"db-1__nginx": "bb" * 32})
    assert error.notes[0] == "state: serial 41 -> 42"
    assert "target: db-1/nginx names other releases than it did" in error.notes


def test_a_state_older_than_the_plan_is_refused(saved: SavedPlan) -> None:
    error = refusal_of(saved, PLAN, serial=40)
    assert any("was a backup restored?" in note for note in error.notes)


def test_a_plan_of_another_estate_or_lineage_is_refused(saved: SavedPlan) -> None:
    assert refusal_of(saved, replace(PLAN, lineage="a" * 36)).code == "M5006"
    assert refusal_of(saved, replace(PLAN, estate="other")).code == "M5006"


def test_the_same_plan_is_not_applied_twice(saved: SavedPlan) -> None:
    assert refusal_of(saved, replace(empty_plan(), fingerprint=PLAN.fingerprint), serial=42).code == "M5007"


def test_everything_in_the_document_is_public() -> None:
    words = json.dumps(plan_document(PLAN, state_of(PLAN))).lower()
    for secret in ("private", "begin ", "password", "passphrase"):
        assert secret not in words


def test_only_what_is_saved_can_be_applied() -> None:
    assert plan_document(PLAN)["speculative"] is True
    assert plan_document(PLAN, state_of(PLAN), speculative=False)["speculative"] is False


def test_a_refusal_is_an_error_with_a_next_step(file: Path) -> None:
    file.write_text("{}")
    with pytest.raises(MtlsctlError) as caught:
        load_saved_plan(file, LATER)
    assert caught.value.help == "mtlsctl plan --out FILE makes a new one"


def forged(file: Path, **change: object) -> None:
    """Whoever can write the file can compute its checksum too."""
    document = json.loads(file.read_text()) | change
    file.write_text(_sealed_text({key: value for key, value in document.items() if value is not GONE}))


GONE = object()


def test_a_lifetime_of_its_own_making_is_refused_though_the_checksum_holds(file: Path) -> None:
    forged(file, expires_at="2036-11-22T03:45:00.000000Z")
    with pytest.raises(PlanRefused, match="another lifetime") as caught:
        load_saved_plan(file, LATER)
    assert caught.value.code == "M5005"


def test_a_plan_moved_to_the_future_as_a_whole_is_refused(file: Path) -> None:
    forged(file, created_at="2026-11-22T05:00:00.000000Z", expires_at="2026-11-23T05:00:00.000000Z")
    with pytest.raises(PlanRefused, match="future"):
        load_saved_plan(file, LATER)
    load_saved_plan(file, LATER + timedelta(minutes=10))


@pytest.mark.parametrize(
    "change",
    [
        {"lineage": 7},
        {"lineage": "zero"},
        {"estate": None},
        {"estate": "a\nb"},
        {"serial": "41"},
        {"serial": True},
        {"serial": -1},
        {"created_at": "2026-11-22T03:45:00.000000", "expires_at": "2026-11-23T03:45:00.000000"},
        {"created_at": "2026-11-22T03:45:00+01:00"},
        {"created_at": "9999-12-31T23:59:59.000000Z", "expires_at": "9999-12-31T23:59:59.000000Z"},
        {"created_at": 0},
        {"inventory": []},
        {"inventory": {"digest": 7}},
        {"fingerprint": "mp1:1111-2222-3333\nerror: all is well"},
        {"fingerprint": ["mp1:1111-2222-3333"]},
        {"actions": [[]]},
        {"actions": [{"id": [], "op": "issue"}]},
        {"actions": [{"id": "a", "op": "issue"}, {"id": "a", "op": "renew"}]},
        {"actions": [{"id": "a\nnote", "op": "issue"}]},
        {"actions": [{"id": "a", "op": "issue", "reasons": "x\n"}]},
        {"actions": {}},
        {"preconditions": [{"host": "h", "process": {}, "pointer_sha256": None}]},
        {"preconditions": [{"host": "h\n= note: x", "process": "p", "pointer_sha256": None}]},
        {"preconditions": None},
        {"grants": [{"op": "all", "caller": "a", "listener": "b", "reason": ""}]},
        {"grants": [{"op": [], "caller": "a", "listener": "b", "reason": ""}]},
        {"grants": GONE},
        {"risks": [{"code": 7, "summary": "x"}]},
        {"diagnostics": 7},
    ],
)
def test_a_field_of_another_kind_is_a_refusal_and_no_traceback(file: Path, change: dict[str, object]) -> None:
    forged(file, **change)
    with pytest.raises(PlanRefused) as caught:
        load_saved_plan(file, LATER)
    assert caught.value.exit_code == 6


def test_a_note_of_a_refusal_stays_in_its_line(saved: SavedPlan) -> None:
    error = refusal_of(replace(saved, fingerprint="x\nerror[M0000]: y\x1b[2J"), PLAN)
    assert all(note.isprintable() for note in error.notes)
