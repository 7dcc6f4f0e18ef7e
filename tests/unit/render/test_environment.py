from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.errors import RuntimeFolderError, UnsafePlan
from mtlsctl.render import codes
from mtlsctl.render.catalog import read_folder
from mtlsctl.render.environment import environment, render
from mtlsctl.render.quoting import Untrusted, Unwritable
from tests.unit.render.folders import make_folder

if TYPE_CHECKING:
    from pathlib import Path

VALUES = {"value": Untrusted("text"), "port": 8443, "words": ("1.2", "1.3"), "off": False, "gone": None}


def rendered(tmp_path: Path, template: str) -> Any:
    return render(read_folder(make_folder(tmp_path, a_conf_j2=template)), "a.conf.j2", VALUES)


def problem(tmp_path: Path, template: str) -> Any:
    with pytest.raises(RuntimeFolderError) as raised:
        rendered(tmp_path, template)
    (found,) = raised.value.diagnostics
    return found


def test_a_quoted_value_and_a_number_are_written(tmp_path: Path) -> None:
    assert b'"text" 8443\n' == rendered(tmp_path, "{{ value | nginx }} {{ port }}\n")


@pytest.mark.parametrize(
    "output",
    [
        "value",
        "'literal'",
        "words[0]",
        "off",
        "gone",
        "1.5",
        "value | nginx ~ 'x'",
        "(value | nginx) * 2",
        "(value | nginx).upper()",
        "[value]",
    ],
)
def test_whatever_passed_no_filter_last_is_refused_with_its_line(tmp_path: Path, output: str) -> None:
    found = problem(tmp_path, "first line\n{{ " + output + " }}\n")
    assert (codes.UNQUOTED, 2) == (found.code, found.span.line)


@pytest.mark.parametrize(
    "output",
    [
        "value ~ 'x'",
        "'%s' % value",
        "'{}'.format(value)",
        "missing | nginx",
        "value.missing | nginx",
        "value._text",
        "value.__class__",
        "value.__init__.__globals__",
        "''.__class__.__mro__",
        "value | nginx | nginx",
        "'literal' | nginx",
        "off | nginx",
    ],
)
def test_a_template_cannot_get_at_a_value_in_another_way(tmp_path: Path, output: str) -> None:
    found = problem(tmp_path, "first line\n{{ " + output + " }}\n")
    assert found.code in (codes.TEMPLATE_FAILED, codes.UNQUOTED)
    assert 2 == found.span.line


@pytest.mark.parametrize("output", ["value | upper", "value | safe", "value | attr('_text')", "value | string"])
def test_there_is_no_filter_but_the_quoting_ones(tmp_path: Path, output: str) -> None:
    assert codes.TEMPLATE_FAILED == problem(tmp_path, "{{ " + output + " }}").code


@pytest.mark.parametrize("name", ["range", "dict", "cycler", "namespace", "lipsum", "joiner"])
def test_there_are_no_globals(tmp_path: Path, name: str) -> None:
    assert codes.TEMPLATE_FAILED == problem(tmp_path, "{{ " + name + "() }}").code


def test_a_value_that_cannot_be_written_is_the_values_fault_and_not_the_templates(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, a_conf_j2="{{ value | nginx }}"))
    with pytest.raises(Unwritable):
        render(folder, "a.conf.j2", {"value": Untrusted("$x")})


def test_a_template_text_in_a_value_stays_text(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, a_conf_j2="{{ value | nginx }}"))
    assert b'"{{ 7*7 }}"' == render(folder, "a.conf.j2", {"value": Untrusted("{{ 7*7 }}")})


def test_a_template_may_include_another_of_its_folder_and_nothing_else(tmp_path: Path) -> None:
    assert b'name "x";\n' == rendered(
        tmp_path / "good", "{% set callee = {'server_name': ['x']} %}{% include 'callee.j2' %}"
    )
    assert codes.TEMPLATE_FAILED == problem(tmp_path / "bad", "{% include '../../etc/passwd' %}").code


def test_each_template_is_compiled_once(tmp_path: Path) -> None:
    templates = read_folder(make_folder(tmp_path)).templates
    first = environment(templates).get_template("a.conf.j2")
    assert environment(tuple(templates)).get_template("a.conf.j2") is first


def test_reading_the_catalog_loads_neither_jinja_nor_pydantic_nor_cryptography() -> None:
    code = (
        "import sys; from mtlsctl.render.catalog import load_catalog; assert load_catalog();"
        "print(sorted({'jinja2', 'pydantic', 'cryptography', 'paramiko'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


def test_unsafe_plans_and_folder_errors_are_told_apart() -> None:
    assert not issubclass(RuntimeFolderError, UnsafePlan)
