"""An apply on folders that stand for hosts: what was planned is what is done, also after things were taken away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.cli.estate import Estate, make_estate

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "version: 1\nname: calendar\nhosts:\n  here: { directory: out }\n"
THERE = "  there: { directory: out2 }\n"
SERVICES = """\
services:
  schedule: { runtime: nginx, hosts: [here], listen: 18443, callers: [mail] }
  mail: { runtime: curl, hosts: [here] }
"""
BEE = "  bee: { runtime: nginx, hosts: [here], listen: 18444, callers: [mail] }\n"
CAT = "  cat: { runtime: nginx, hosts: [here], listen: 18445, callers: [mail] }\n"
NEWS = "  news: { runtime: pem, hosts: [there] }\n"


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Estate:
    monkeypatch.setenv("COLUMNS", "100")
    return make_estate(tmp_path / "estate", monkeypatch, capsys)


def apply_as_planned(estate: Estate, inventory: str) -> str:
    """What the plan said; the apply is held to its fingerprint, and leaves nothing to do."""
    estate.inventory.write_text(inventory)
    planned = estate.good("plan", "-o", "json").json
    estate.good("apply", "--yes", "--expect-fingerprint", planned["fingerprint"])
    assert not estate.good("plan", "-o", "json").json["has_changes"]
    return str(planned["summary"]["issue"])


def test_a_service_that_comes_back_is_planned_with_a_new_certificate(estate: Estate) -> None:
    apply_as_planned(estate, HEAD + SERVICES + BEE)
    apply_as_planned(estate, HEAD + SERVICES)
    assert not (estate.folder / "out/etc/mtlsctl/bee").exists()
    assert "1" == apply_as_planned(estate, HEAD + SERVICES + BEE)


def test_a_host_that_comes_back_is_planned_with_new_certificates(estate: Estate) -> None:
    apply_as_planned(estate, HEAD + THERE + SERVICES + NEWS)
    apply_as_planned(estate, HEAD + SERVICES)
    assert "1" == apply_as_planned(estate, HEAD + THERE + SERVICES + NEWS)


def test_a_release_that_cannot_be_staged_leaves_the_others_of_its_process_alone(estate: Estate) -> None:
    """bee's place for releases is taken by a file; schedule and cat are in the same nginx."""
    folder = estate.folder / "out/etc/mtlsctl/bee"
    folder.mkdir(parents=True, mode=0o750)
    (folder / "releases").write_text("in the way")
    estate.inventory.write_text(HEAD + SERVICES + BEE + CAT)
    ran = estate.run("apply", "--yes")
    assert 3 == ran.code
    assert {"cat@here", "mail@here", "schedule@here"} == live(estate)
    failed = [line for line in ran.err.splitlines() if "status=failed" in line]
    assert 1 == len(failed)
    assert "bee" in failed[0]
    (folder / "releases").unlink()
    estate.good("apply", "--yes")
    assert {"bee@here", "cat@here", "mail@here", "schedule@here"} == live(estate)


def test_a_key_that_cannot_be_written_leaves_the_others_of_its_process_alone(estate: Estate) -> None:
    folder = estate.folder / "out/etc/mtlsctl"
    folder.mkdir(parents=True)
    (folder / "bee").write_text("in the way")
    estate.inventory.write_text(HEAD + SERVICES + BEE + CAT)
    assert 3 == estate.run("apply", "--yes").code
    assert {"cat@here", "mail@here", "schedule@here"} == live(estate)
    (folder / "bee").unlink()
    estate.good("apply", "--yes")
    assert {"bee@here", "cat@here", "mail@here", "schedule@here"} == live(estate)


def test_a_pointer_that_somebody_else_wrote_blames_no_service(estate: Estate) -> None:
    pointer = estate.folder / "out/etc/nginx/conf.d/mtlsctl.conf"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("# mine\n")
    estate.inventory.write_text(HEAD + SERVICES + BEE + CAT)
    ran = estate.run("apply", "--yes")
    assert 3 == ran.code
    assert 1 == ran.err.count("status=failed")
    assert "M4105" in ran.out + ran.err
    assert "# mine\n" == pointer.read_text()
    assert {"mail@here"} == live(estate)


def live(estate: Estate) -> set[str]:
    """The instances that the state says are live."""
    with closing(sqlite3.connect(estate.folder / ".mtlsctl" / "state.db")) as state:
        return {f"{service}@{host}" for service, host in state.execute("SELECT service, host FROM live")}
