from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.render import codes
from mtlsctl.render.catalog import load_catalog, our_templates, read_folder, runtimes_of
from tests.unit.render.folders import MANIFEST, make_folder

if TYPE_CHECKING:
    from pathlib import Path


def digest(path: Any) -> str:
    return read_folder(path).runtime.digest


def found_codes(*folders: Any) -> list[str]:
    with pytest.raises(RuntimeFolderError) as raised:
        load_catalog(folders)
    return [one.code for one in raised.value.diagnostics]


def test_ours_are_found_without_being_named() -> None:
    names = ["apache", "browser", "curl", "java", "nginx", "node", "pem", "ruby", "spring-boot"]
    assert names == sorted(load_catalog())
    assert {name: folder.runtime for name, folder in load_catalog().items()} == runtimes_of(load_catalog())


def test_other_folders_count_only_when_they_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert ["sample"] == list(load_catalog([tmp_path]))
    assert "sample" in load_catalog([our_templates(), tmp_path])


def test_a_changed_template_or_manifest_changes_the_digest(tmp_path: Path) -> None:
    path = make_folder(tmp_path)
    before = digest(path)
    assert before == digest(path)
    (path / "callee.j2").write_text("name;\n")
    changed = digest(path)
    assert before != changed
    (path / "runtime.yaml").write_text(MANIFEST + "# a comment\n")
    assert changed != digest(path)


def test_text_that_moves_between_templates_changes_the_digest(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "a", a_conf_j2="xy", callee_j2="z")
    other = make_folder(tmp_path / "b", a_conf_j2="x", callee_j2="yz")
    assert digest(one) != digest(other)


def test_cases_and_readme_are_outside_the_digest(tmp_path: Path) -> None:
    path = make_folder(tmp_path)
    before = digest(path)
    (path / "README.md").write_text("other")
    shutil.rmtree(path / "cases")
    assert before == digest(path)


def test_two_folders_of_one_name_are_an_error_with_both_places(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    make_folder(tmp_path / "b")
    with pytest.raises(RuntimeFolderError) as raised:
        load_catalog([tmp_path / "a", tmp_path / "b"])
    (problem,) = raised.value.diagnostics
    assert codes.RUNTIME_TWICE == problem.code
    assert [str(tmp_path / "a/sample/runtime.yaml")] == [span.file for span, _ in problem.related]


def test_all_that_is_wrong_with_any_folder_is_told_at_once(tmp_path: Path) -> None:
    (make_folder(tmp_path / "a") / "a.conf.j2").unlink()
    make_folder(tmp_path / "b", MANIFEST.replace("version: 1", "version: 2"))
    assert sorted([codes.TEMPLATE_MISSING, codes.MANIFEST]) == sorted(found_codes(tmp_path / "a", tmp_path / "b"))


def test_a_folder_is_named_like_its_runtime(tmp_path: Path) -> None:
    make_folder(tmp_path).rename(tmp_path / "other")
    assert [codes.MANIFEST] == found_codes(tmp_path)


def test_a_template_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (make_folder(tmp_path) / "a.conf.j2").write_bytes(b"\xff\xff")
    assert [codes.TEMPLATE_SYNTAX] == found_codes(tmp_path)
