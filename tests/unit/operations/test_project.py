from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InventoryError, UsageError
from mtlsctl.operations.project import STATE, find_project, read_project, refuse_leading_out

if TYPE_CHECKING:
    from pathlib import Path

LINEAGE = "b7f05d8a-4a3e-4f0e-9d53-0d2f0c1b2a3c"
GOOD = f"version: 1\nname: calendar\nlineage: {LINEAGE}\n"


def project(folder: Path, text: str = GOOD) -> Path:
    file = folder / "mtlsctl.yaml"
    file.write_text(text)
    return file


def codes(folder: Path, text: str) -> list[str]:
    with pytest.raises(InventoryError) as caught:
        read_project(project(folder, text))
    return [one.code for one in caught.value.diagnostics]


def test_the_file_is_found_upwards_from_the_working_directory(tmp_path: Path) -> None:
    project(tmp_path, GOOD + "inventory: inventories/calendar\nstate: sqlite:s.db\n")
    below = tmp_path / "inventories" / "calendar"
    below.mkdir(parents=True)
    found = find_project(below)
    assert (found.root, found.name, found.lineage) == (tmp_path, "calendar", LINEAGE)
    assert (found.inventory, found.state) == (tmp_path / "inventories/calendar", "sqlite:s.db")


def test_the_search_ends_at_the_root_of_the_repository(tmp_path: Path) -> None:
    project(tmp_path)
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    assert find_project(repository).file is None


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_file_that_everyone_can_write_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    file = project(folder)
    (folder if what == "folder" else file).chmod(0o777)
    with pytest.raises(UsageError) as caught:
        find_project(folder)
    assert caught.value.code == "M1901"


def test_without_a_file_the_only_environment_is_the_inventory(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert find_project(tmp_path).inventory is None
    (tmp_path / "inventories" / "one").mkdir(parents=True)
    assert find_project(tmp_path).inventory == tmp_path / "inventories" / "one"
    assert find_project(tmp_path).state == STATE
    (tmp_path / "inventories" / "two").mkdir()
    assert find_project(tmp_path).inventory is None


@pytest.mark.parametrize("key", ["key_source", "templates", "policy", "identity_file", "plugins", "yes"])
def test_what_protects_the_estate_is_not_accepted_from_a_pull_request(tmp_path: Path, key: str) -> None:
    assert codes(tmp_path, GOOD + f"{key}: x\n") == ["M1904"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "nmae: x\n", ["M1903"]),
        ("version: 1\n", ["M1905", "M1905"]),
        (GOOD.replace("version: 1", "version: 2"), ["M1906"]),
        (GOOD.replace("calendar", "a-name-that-is-too-long"), ["M1906"]),
        (GOOD.replace(LINEAGE, "zero"), ["M1906"]),
        (GOOD + "inventory: ../other\n", ["M1906"]),
        (GOOD + "inventory: /etc\n", ["M1906"]),
        (GOOD + "state: mysql:x\n", ["M1906"]),
        (GOOD + "name: twice\n", ["M1902"]),
        (GOOD + "state: [a]\n", ["M1902"]),
        ("- a\n", ["M1902"]),
        ("a: [\n", ["M1902"]),
        ("", ["M1902"]),
        ("a: &x 1\nb: *x\nc: *y\n", ["M1902"]),
    ],
)
def test_every_problem_of_the_file_has_its_code(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert codes(tmp_path, text) == expected


def test_bytes_that_are_no_text_are_an_error_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "mtlsctl.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InventoryError):
        read_project(file)


def test_a_linked_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "mtlsctl.yaml").symlink_to(project(tmp_path))
    with pytest.raises(UsageError, match="symbolic link") as caught:
        find_project(folder)
    assert caught.value.code == "M1901"
    with pytest.raises(InventoryError):
        read_project(folder / "mtlsctl.yaml")


def test_a_file_of_another_user_is_refused_and_one_of_root_or_ours_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(tmp_path)
    us = file.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: us + 4711)
    if us == 0:
        assert find_project(tmp_path).name == "calendar"
    else:
        with pytest.raises(UsageError, match=f"belongs to user {us}") as caught:
            find_project(tmp_path)
        assert caught.value.code == "M1901"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_was_given_to_another_user_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    file = project(folder)
    os.chown(folder if what == "folder" else file, 4711, 4711)
    with pytest.raises(UsageError, match="belongs to user 4711"):
        find_project(folder)


@pytest.mark.parametrize("text", ["version: " + "[" * 30_000, 'version: "\\UFFFFFFFF"', "#" * 70_000])
def test_a_file_made_to_break_the_parser_is_an_error_and_no_traceback(tmp_path: Path, text: str) -> None:
    assert codes(tmp_path, text) == ["M1902"]


def test_the_repository_may_not_choose_an_inventory_outside_itself(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    (root / "inventories" / "good").mkdir(parents=True)
    refuse_leading_out(root, root / "inventories" / "good")
    (root / "inventories" / "bad").symlink_to(tmp_path)
    (root / "linked").symlink_to("inventories")
    for chosen in ("inventories/bad", "inventories/bad/x.yaml", "linked/good", "inventories/../../x"):
        with pytest.raises(UsageError) as caught:
            refuse_leading_out(root, root / chosen)
        assert caught.value.code == "M1907"
    with pytest.raises(UsageError):
        refuse_leading_out(root, tmp_path / "x.yaml")
