"""Every case of every runtime folder, found by globbing. MTLSCTL_UPDATE_GOLDEN=1 takes what comes out as expected."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.render.cases import cases_of, expected_of, render_case, write_expected
from mtlsctl.render.catalog import load_catalog
from mtlsctl.render.lint import lint_folder

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = sorted(load_catalog().values(), key=lambda folder: folder.runtime.name)
CASES = [(folder, case) for folder in FOLDERS for case in cases_of(folder)]


@pytest.mark.parametrize(("folder", "case"), CASES, ids=[f"{f.runtime.name}/{case.name}" for f, case in CASES])
def test_a_case_gives_what_it_expects(folder: Any, case: Path) -> None:
    rendered = render_case(folder, case)
    if os.environ.get("MTLSCTL_UPDATE_GOLDEN"):
        write_expected(case, rendered)
    assert expected_of(case) == rendered


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.runtime.name)
def test_our_own_folders_have_nothing_to_complain_about(folder: Any) -> None:
    assert lint_folder(folder.path) == ()


def test_our_runtimes_are_there() -> None:
    assert [folder.runtime.name for folder in FOLDERS] == [
        "apache",
        "browser",
        "curl",
        "java",
        "nginx",
        "node",
        "pem",
        "ruby",
    ]
