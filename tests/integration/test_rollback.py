"""Back to what was live before, and forward again; refused where that would break or let in an ended certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.integration.repository import Estate, calendar, make_estate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    made = make_estate(tmp_path / "estate")
    made.good("apply", "--yes")
    return made


def live(estate: Estate) -> dict[str, str]:
    document = estate.good("status", "-o", "json").json
    return {one["instance"]: one["release"] for one in document["certificates"]}


def upstream(estate: Estate, port: int) -> None:
    inventory = calendar()
    inventory["services"]["schedule"]["settings"] = {"upstream": f"http://127.0.0.1:{port}"}
    estate.write(inventory)
    estate.good("apply", "--yes")


def test_a_rollback_returns_to_what_was_live_before_and_the_next_apply_goes_forward(estate: Estate) -> None:
    first = live(estate)
    upstream(estate, 8081)
    second = live(estate)
    assert first["schedule@web1"] != second["schedule@web1"]
    said = estate.good("rollback", "--yes").out
    assert "Rolled back: 1 process, 0 failures." in said
    assert first == live(estate)
    assert first["schedule@web1"] in (estate.folder / "out/web1/etc/nginx/conf.d/mtlsctl.conf").read_text()
    assert 2 == estate.run("plan", "--detailed-exitcode").code
    estate.good("apply", "--yes")
    assert second == live(estate)


def test_the_release_before_is_kept_however_many_waves_an_apply_had(estate: Estate) -> None:
    first = live(estate)
    inventory = calendar()
    inventory["services"]["mail"]["certification_authority"] = {"generation": 2}
    inventory["services"]["social"]["certification_authority"] = {"generation": 2}
    inventory["services"]["schedule"]["certification_authority"] = {"generation": 2}
    estate.write(inventory)
    estate.good("apply", "--yes")
    assert first["schedule@web1"] != live(estate)["schedule@web1"]
    assert (estate.folder / "out/web1/etc/mtlsctl/schedule/releases" / first["schedule@web1"]).is_dir()
    estate.good("rollback", "--yes", "--force")
    assert first == live(estate)


def test_one_end_alone_is_refused_where_calls_that_work_would_break(estate: Estate) -> None:
    inventory = calendar()
    inventory["services"]["mail"]["certification_authority"] = {"generation": 2}
    estate.write(inventory)
    estate.good("apply", "--yes")
    before = live(estate)
    ran = estate.run("rollback", "--yes", "--target", "mail")
    assert (7, True, True) == (ran.code, "M5101" in ran.err, "mail@web1 -> schedule@web1:main" in ran.err), ran
    assert before == live(estate)
    assert 0 == estate.run("rollback", "--yes", "--target", "mail", "--force").code


def test_a_caller_that_would_get_in_again_is_shown(estate: Estate) -> None:
    inventory = calendar()
    inventory["services"]["schedule"]["callers"] = ["social"]
    estate.write(inventory)
    estate.good("apply", "--yes")
    ran = estate.good("rollback", "--yes", "--target", "schedule", "-o", "json")
    assert ["mail -> schedule@web1:main"] == ran.json["reopens"]


def test_a_certificate_that_has_ended_is_not_gone_back_to(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    first = live(estate)
    upstream(estate, 8081)
    second = live(estate)
    monkeypatch.setattr("mtlsctl.cli.wiring.clock", lambda: datetime.now(UTC) + timedelta(days=91))
    ran = estate.run("rollback", "--yes")
    assert 3 == ran.code
    assert "ended on" in ran.out
    assert second == live(estate)
    assert first != second


def test_nothing_before_is_nothing_to_go_back_to(estate: Estate) -> None:
    ran = estate.run("rollback", "--yes")
    assert (7, True) == (ran.code, "M5102" in ran.err), ran


def test_nobody_is_taken_for_yes_and_a_name_has_to_be_one(estate: Estate) -> None:
    upstream(estate, 8081)
    assert 64 == estate.run("rollback").code
    assert 64 == estate.run("rollback", "--yes", "--limit", "web9").code


def test_a_release_that_was_altered_on_its_host_is_not_pointed_at(estate: Estate) -> None:
    first = live(estate)
    upstream(estate, 8081)
    old = estate.folder / "out/web1/etc/mtlsctl/schedule/releases" / first["schedule@web1"]
    (old / "tls.crt").write_bytes(b"no certificate")
    ran = estate.run("rollback", "--yes", "-o", "json")
    assert 3 == ran.code
    assert ["schedule@web1"] == [one["instance"] for one in ran.json["unfit"]]


def test_a_release_whose_configuration_was_altered_is_not_pointed_at(estate: Estate) -> None:
    first = live(estate)
    upstream(estate, 8081)
    old = estate.folder / "out/web1/etc/mtlsctl/schedule/releases" / first["schedule@web1"]
    (file,) = [one for one in old.rglob("*.conf") if "ssl_verify_client" in one.read_text()]
    file.chmod(0o640)
    file.write_text(file.read_text().replace("ssl_verify_client on;", "ssl_verify_client off;"))
    ran = estate.run("rollback", "--yes", "-o", "json")
    assert 3 == ran.code
    assert [("schedule@web1", "M4110")] == [(one["instance"], one["code"]) for one in ran.json["unfit"]]
    assert first["schedule@web1"] != live(estate)["schedule@web1"]


def test_after_one_process_that_cannot_go_back_no_other_does(estate: Estate) -> None:
    first = live(estate)
    inventory = calendar()
    for name in ("mail", "social"):
        inventory["services"][name]["certificate"] = {"lifetime": "60d"}
    estate.write(inventory)
    estate.good("apply", "--yes")
    second = live(estate)
    pointer = estate.folder / "out/web1/etc/mtlsctl/mail/current"
    pointer.unlink()
    pointer.write_text("by hand")
    ran = estate.run("rollback", "--yes", "--force", "-o", "json")
    assert 3 == ran.code, ran
    assert ["failed", "blocked"] == [one["status"] for one in ran.json["processes"]]
    assert second == live(estate)
    assert first != second
