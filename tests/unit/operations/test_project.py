from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InventoryError, UsageError
from mtlsctl.operations.project import STATE, find_project, read_project

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
