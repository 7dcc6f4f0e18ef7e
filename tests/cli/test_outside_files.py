"""Planning a pull request quotes no file from outside the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtlsctl.cli.failure import source_lines

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.estate import Estate

SECRET = "TOKEN=hunter2: [\n"
COMMANDS = (("plan",), ("validate",), ("verify", "--embedded"), ("apply", "--yes"))


def linked(estate: Estate, what: str, target: Path) -> None:
    place = {"file": estate.inventory, "folder": estate.inventory.parent, "parent": estate.inventory.parent.parent}[
        what
    ]
    place.rename(estate.folder / "aside")
    place.symlink_to(target)


@pytest.mark.parametrize("what", ["file", "folder", "parent"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_link_in_the_repository_leads_to_no_other_file(estate: Estate, tmp_path: Path, what: str, form: str) -> None:
    secret = tmp_path / "outside" / "calendar" / "inventory.yaml"
    secret.parent.mkdir(parents=True)
    secret.write_text(SECRET)
    linked(estate, what, {"file": secret, "folder": secret.parent, "parent": secret.parent.parent}[what])
    assert "hunter2" not in str(estate.run("status", "-o", form))
    for command in COMMANDS:
        ran = estate.run(*command, "-o", form)
        assert "hunter2" not in ran.out + ran.err
        assert ran.code not in (0, 70), ran


def test_a_folder_that_is_a_link_to_a_file_is_refused_by_its_name(estate: Estate, tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text(SECRET)
    linked(estate, "folder", tmp_path / "secret.env")
    ran = estate.run("plan")
    assert (ran.code, "error[M1907]: inventories/calendar is a symbolic link" in ran.err) == (64, True), ran


def test_the_operator_may_name_an_inventory_anywhere_and_sees_its_lines(estate: Estate, tmp_path: Path) -> None:
    theirs = tmp_path / "elsewhere.yaml"
    theirs.write_text("version: 1\nname: calendar\nnmae: x\n")
    link = tmp_path / "link.yaml"
    link.symlink_to(theirs)
    for given in (theirs, link):
        ran = estate.run("plan", "-i", str(given))
        assert (ran.code, "3 | nmae: x" in ran.err) == (7, True), ran


def test_lines_are_quoted_of_plain_files_of_the_project_only(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "below").mkdir(parents=True)
    (root / "mtlsctl.yaml").write_text("version: 1\n")
    (root / "below" / "plain").write_text("here\n")
    (tmp_path / "outside").write_text("secret\n")
    (root / "link").symlink_to("../outside")
    (root / "folder").symlink_to("..")
    line = source_lines(root / "below")
    assert [line("below/plain", 1), line(str(root / "mtlsctl.yaml"), 1)] == ["here", "version: 1"]
    outside = ("link", "folder/outside", "../outside", str(tmp_path / "outside"), "/proc/self/environ", "below")
    assert [line(one, 1) for one in outside] == [None] * 6
    given = source_lines(root, tmp_path / "outside")
    assert [given(str(tmp_path / "outside"), 1), given("../outside", 1), given("link", 1)] == ["secret", "secret", None]


@pytest.mark.parametrize(
    ("text", "code"), [("version: " + "[" * 30_000, 7), ("state: sqlite:~no-such-user-here/x\n", 64)]
)
def test_a_hostile_project_file_is_answered_with_a_diagnostic(estate: Estate, text: str, code: int) -> None:
    file = estate.folder / "mtlsctl.yaml"
    kept = "".join(one for one in file.read_text().splitlines(keepends=True) if not one.startswith("state:"))
    file.write_text(text if text.startswith("version") else kept + text)
    ran = estate.run("plan")
    assert (ran.code, "M9001" in ran.err) == (code, False), ran
