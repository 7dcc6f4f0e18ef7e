from __future__ import annotations

import errno
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mtlsctl.errors import SealedKeyError, StateError, UsageError
from mtlsctl.inventory import load_inventory
from mtlsctl.operations.project import read_project
from mtlsctl.operations.scaffold import Scaffolded, Wish, scaffold
from mtlsctl.render.catalog import load_catalog, runtimes_of
from mtlsctl.store.location import open_state


def clock() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "calendar"


def made(folder: Path, tmp_path: Path, **wish: object) -> Scaffolded:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    return scaffold(Wish(folder=folder, **({"name": None} | wish)), environ=environ, clock=clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("example", ["calendar", "empty"])
def test_a_repository_of_inventories_is_whole(folder: Path, tmp_path: Path, example: str) -> None:
    done = made(folder, tmp_path, example=example)
    project = read_project(folder / "mtlsctl.yaml")
    assert (project.name, project.lineage) == ("calendar", done.lineage)
    assert ".mtlsctl/" in (folder / ".gitignore").read_text().splitlines()
    assert json.loads((folder / "schema/inventory.schema.json").read_text())["$schema"]
    assert project.inventory is not None
    for file in project.inventory.rglob("*.yaml"):
        modeline = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text())
        assert modeline
        assert (file.parent / modeline.group(1)).resolve() == folder.resolve() / "schema/inventory.schema.json"


def test_the_example_is_a_valid_inventory_under_the_name_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    made(folder, tmp_path, name="payments")
    project = read_project(folder / "mtlsctl.yaml")
    assert project.inventory is not None
    loaded = load_inventory(project.inventory, runtimes_of(load_catalog()), root=folder)
    assert loaded.inventory.name == "payments"
    assert loaded.inventory.services


def test_the_key_lies_outside_and_only_its_owner_reads_it(folder: Path, tmp_path: Path) -> None:
    done = made(folder, tmp_path)
    key = Path(done.key_place)
    assert key == tmp_path / "config/mtlsctl/keys" / f"{done.lineage}.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.stat().st_size == 32
    assert not any(key.read_bytes() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_key_inside_the_repository_is_refused(folder: Path) -> None:
    environ = {"MTLSCTL_KEY_SOURCE": f"file:{folder / 'key'}"}
    with pytest.raises(SealedKeyError):
        scaffold(Wish(folder=folder, name=None), environ=environ, clock=clock)


def test_the_state_is_of_this_lineage_and_empty(folder: Path, tmp_path: Path) -> None:
    done = made(folder, tmp_path)
    store = open_state("sqlite:.mtlsctl/state.db", base=folder, lineage=done.lineage, estate="calendar")
    assert (store.snapshot().serial, dict(store.snapshot().live)) == (1, {})
    store.close()
    assert done.state.stat().st_mode & 0o777 == 0o600


def test_once_more_changes_nothing_and_says_so(folder: Path, tmp_path: Path) -> None:
    first = made(folder, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*.yaml")}
    again = made(folder, tmp_path)
    assert again.written == ()
    assert (again.lineage, again.state_is_new, again.key_is_new) == (first.lineage, False, False)
    assert before == {path: path.read_bytes() for path in folder.rglob("*.yaml")}


def test_a_file_that_is_there_is_kept_and_force_writes_beside_it(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / ".gitignore").write_text("mine\n")
    assert Path(".gitignore") in made(folder, tmp_path).kept
    assert (folder / ".gitignore").read_text() == "mine\n"
    forced = made(folder, tmp_path, force=True)
    assert (folder / ".gitignore").read_text() == "mine\n"
    assert Path(".gitignore.new") in forced.written


def test_an_estate_whose_state_is_gone_gets_no_empty_one(folder: Path, tmp_path: Path) -> None:
    made(folder, tmp_path)
    (folder / ".mtlsctl/state.db").unlink()
    with pytest.raises(StateError) as caught:
        made(folder, tmp_path)
    assert caught.value.code == "M3001"
    assert "--new-lineage" in (caught.value.help or "")
    assert not (folder / ".mtlsctl/state.db").exists()


def test_a_state_of_another_lineage_in_its_place_is_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    made(folder, tmp_path)
    made(tmp_path / "other", tmp_path, name="calendar")
    (tmp_path / "other/.mtlsctl/state.db").replace(folder / ".mtlsctl/state.db")
    (folder / ".gitignore").unlink()
    with pytest.raises(StateError) as caught:
        made(folder, tmp_path)
    assert caught.value.code == "M3002"
    assert not (folder / ".gitignore").exists()


def test_files_get_the_mode_of_any_new_file_also_where_there_are_no_hard_links(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr("os.link", refuse)
    before = os.umask(0o027)
    try:
        made(folder, tmp_path)
    finally:
        os.umask(before)
    assert (folder / "mtlsctl.yaml").stat().st_mode & 0o777 == 0o640
    assert list(folder.rglob(".mtlsctl.yaml.*")) == []


def test_a_new_lineage_begins_with_a_new_state_and_key(folder: Path, tmp_path: Path) -> None:
    first = made(folder, tmp_path)
    with pytest.raises(StateError):
        made(folder, tmp_path, new_lineage=True)
    (folder / ".mtlsctl/state.db").unlink()
    second = made(folder, tmp_path, new_lineage=True)
    assert second.lineage != first.lineage
    assert second.key_place != first.key_place
    assert read_project(folder / "mtlsctl.yaml").lineage == second.lineage


def test_killed_before_its_last_file_the_same_command_goes_on(folder: Path, tmp_path: Path) -> None:
    first = made(folder, tmp_path)
    (folder / "mtlsctl.yaml").unlink()
    again = made(folder, tmp_path)
    assert again.lineage == first.lineage
    assert again.written == (Path("mtlsctl.yaml"),)


@pytest.mark.parametrize("name", ["a-name-that-is-too-long", "Upper", "-x", "a b", ""])
def test_a_name_that_cannot_be_an_estate_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "this folder has no good name"
    with pytest.raises(UsageError) as caught:
        made(folder, tmp_path, name=name)
    assert "--name" in (caught.value.help or "")
    assert not folder.exists()


def test_another_name_than_the_repository_s_own_is_refused(folder: Path, tmp_path: Path) -> None:
    made(folder, tmp_path)
    with pytest.raises(UsageError):
        made(folder, tmp_path, name="other")
