from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.render import codes
from mtlsctl.render.lint import lint_folder
from tests.unit.render.folders import MANIFEST, good_folder, make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.model.diagnostic import Diagnostic


def line_of(found: Diagnostic) -> int:
    assert found.span is not None
    return found.span.line


def complaints(path: Any) -> list[tuple[str, int]]:
    return [(one.code, line_of(one)) for one in lint_folder(path)]


def test_a_good_folder_has_no_problem(tmp_path: Path) -> None:
    assert () == lint_folder(good_folder(tmp_path).path)


def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    assert [(codes.MANIFEST, 1)] == complaints(tmp_path)
    assert (codes.MANIFEST, 2) in complaints(make_folder(tmp_path, MANIFEST.replace("name:", "nam:", 1)))


@pytest.mark.parametrize(
    ("template", "code", "line"),
    [
        ("x\n{% if %}", codes.TEMPLATE_SYNTAX, 2),
        ("x\n{% for a in listeners %}", codes.TEMPLATE_SYNTAX, 2),
        ("x\n{{ service | upper }}", codes.TEMPLATE_SYNTAX, 2),
        ("x\n{{ colour | nginx }}", codes.VARIABLE_UNKNOWN, 2),
        ("x\n{{ includes | nginx }}", codes.VARIABLE_UNKNOWN, 2),
        ("x\n{{ callee | nginx }}", codes.VARIABLE_UNKNOWN, 2),
        ("x\n{{ service }}", codes.UNQUOTED, 2),
        ("x\n{{ service | nginx ~ 'x' }}", codes.UNQUOTED, 2),
        ("x\n{{ 'text' }}", codes.UNQUOTED, 2),
        ("x\n{% if settings.depth %}\n{{ server_names[0] }}{% endif %}", codes.UNQUOTED, 3),
        ("x\n{{ settings.upstream }}", codes.UNQUOTED, 2),
        ("x\n{{ service.missing | nginx }}", codes.TEMPLATE_FAILED, 2),
        ("x\n{{ [service, '$x'] | nginx }}", codes.UNWRITABLE, None),
    ],
)
def test_a_template_with_a_fault_is_told_with_its_line(
    tmp_path: Path, template: str, code: str, line: int | None
) -> None:
    path = make_folder(tmp_path, a_conf_j2=template)
    found = lint_folder(path)
    assert {code} == {one.code for one in found}
    assert line is None or line == line_of(found[0])


def test_numbers_need_no_filter(tmp_path: Path) -> None:
    text = (
        "{% for at in listeners %}{{ at.verify_depth }}"
        "{% if settings.depth %}{{ settings.depth }}{% endif %}{% endfor %}"
    )
    assert {codes.CASE_DIFFERS} == {one.code for one in lint_folder(make_folder(tmp_path, a_conf_j2=text))}


def test_a_missing_template_and_an_unused_one_are_told(tmp_path: Path) -> None:
    path = good_folder(tmp_path).path
    (path / "unused.j2").write_text("")
    assert [(codes.TEMPLATE_UNUSED, 1)] == complaints(path)
    (path / "callee.j2").unlink()
    assert [(codes.TEMPLATE_MISSING, 1)] == complaints(path)


def test_a_template_that_another_includes_is_used(tmp_path: Path) -> None:
    path = good_folder(tmp_path).path
    (path / "part.j2").write_text("")
    (path / "callee.j2").write_text("{% include 'part.j2' %}name {{ callee.server_name | nginx }};\n")
    assert [] == complaints(path)


def test_a_folder_without_a_readme_or_cases_is_told(tmp_path: Path) -> None:
    path = good_folder(tmp_path).path
    (path / "README.md").unlink()
    shutil.rmtree(path / "cases")
    assert {codes.README_MISSING, codes.CASES_MISSING} == {code for code, _ in complaints(path)}


def test_a_case_that_differs_is_told_with_the_first_line_that_does(tmp_path: Path) -> None:
    path = good_folder(tmp_path).path
    expected = path / "cases/one/expected/schedule/a.conf"
    expected.write_text('service "schedule";\nother\n')
    assert [(codes.CASE_DIFFERS, 2)] == complaints(path)
    expected.unlink()
    assert [(codes.CASE_DIFFERS, 1)] == complaints(path)


def test_a_file_that_nothing_renders_is_told(tmp_path: Path) -> None:
    path = good_folder(tmp_path).path
    (path / "cases/one/expected/schedule/extra").write_text("")
    assert [(codes.CASE_DIFFERS, 1)] == complaints(path)


def test_a_case_that_is_no_recipe_is_told(tmp_path: Path) -> None:
    path = good_folder(tmp_path).path
    (path / "cases/one/recipe.json").write_text("{}")
    assert [(codes.CASES_MISSING, 1)] == complaints(path)


def test_every_code_has_a_meaning() -> None:
    named = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
    assert named == codes.MEANINGS.keys()
