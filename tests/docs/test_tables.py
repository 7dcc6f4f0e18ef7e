"""Tables that people rely on say what the code does."""

from __future__ import annotations

import re
import shutil
from inspect import isclass
from typing import TYPE_CHECKING

import mtlsctl.errors
from mtlsctl.cli import app
from mtlsctl.cli.app import COMMANDS
from mtlsctl.cli.commands.plan import CHANGES_PENDING
from mtlsctl.cli.views.apply import PARTIAL
from mtlsctl.errors import InventoryError, MtlsctlError
from mtlsctl.inventory import codes, load_inventory
from mtlsctl.inventory.services import UNBUILT_RUNTIMES
from mtlsctl.inventory.shape import INVENTORY, ListOf, Named, Record, Shape, Word
from mtlsctl.model.topology import ClientCertificate, TrustModel
from mtlsctl.operations import project
from mtlsctl.pki import codes as pki_codes
from mtlsctl.render.catalog import load_catalog, runtimes_of
from tests.cli.estate import make_estate
from tests.docs.pages import ROOT, table_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"


# --- what is not built -------------------------------------------------------------------------------------------


def unbuilt_parts(shape: Shape, key: str = "") -> Iterator[tuple[str, str]]:
    """Every key that is refused by name, and every mapping that is refused where a word is taken."""
    match shape:
        case Word(unbuilt_mapping=str() as meaning):
            yield f"`{key}: [{{...}}]`", meaning
        case ListOf() | Named():
            yield from unbuilt_parts(shape.each, key)
        case Record():
            yield from ((f"`{name}`", meaning) for name, meaning in shape.unbuilt.items())
            for name, inner in shape.fields.items():
                yield from unbuilt_parts(inner, name)
        case _:
            pass


def is_refused_as_unbuilt(folder: Path, extra: str) -> bool:
    file = folder / "inventory.yaml"
    file.write_text(
        "version: 1\nname: calendar\nhosts: { here: { directory: out } }\nservices:\n"
        "  mail: { runtime: curl, hosts: [here] }\n"
        f"  schedule: {{ runtime: nginx, hosts: [here], {extra} }}\n"
    )
    try:
        load_inventory(file, runtimes_of(load_catalog()), root=folder)
    except InventoryError as error:
        return codes.NOT_BUILT in {one.code for one in error.diagnostics}
    return False


def unbuilt_words(folder: Path) -> Iterator[str]:
    """Values that are refused by name, found by trying all that the model knows."""
    for mode in ClientCertificate:
        assert not is_refused_as_unbuilt(folder, f"listen: 1, callers: [mail], client_certificate: {mode.value}")
    for model in TrustModel:
        if is_refused_as_unbuilt(folder, f"trust: {{ model: {model.value} }}"):
            yield f"`trust: {{model: {model.value}}}`"


def test_the_readme_lists_all_that_is_refused_by_name_and_nothing_else(tmp_path: Path) -> None:
    rows = {row[0]: row[1] for row in table_below(README, "Refused by name")}
    (runtimes,) = (what for what in rows if what.startswith("`runtime:"))
    del rows[runtimes]
    assert sorted(UNBUILT_RUNTIMES) == re.findall(r"`(?:runtime: )?([a-z-]+)`", runtimes)
    parts = dict(unbuilt_parts(INVENTORY))
    words = set(unbuilt_words(tmp_path))
    assert sorted({*parts, *words}) == sorted(rows)
    assert parts == {what: meaning for what, meaning in rows.items() if what not in words}


def test_a_command_that_the_readme_calls_missing_is_missing() -> None:
    listed = re.search(r"\*\*Commands:\*\* (.*?)\.\s+A\s+CA\s+is", README.read_text("utf-8"), re.DOTALL)
    assert listed is not None
    assert set() == set(re.findall(r"`([a-z]+)`", listed.group(1))) & set(COMMANDS)


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text("utf-8")
    assert [] == [name for name in COMMANDS if not re.search(rf"`(?:mtlsctl )?{name}\b", text)]


# --- exit codes --------------------------------------------------------------------------------------------------


def codes_of_the_code() -> set[int]:
    errors = {one.exit_code for one in vars(mtlsctl.errors).values() if isclass(one) and issubclass(one, MtlsctlError)}
    of_the_rim = {0, CHANGES_PENDING, PARTIAL, app.INTERRUPTED, app.TERMINATED, app.exit_code_of(ZeroDivisionError())}
    return errors | of_the_rim


def test_the_exit_codes_are_those_of_the_code() -> None:
    listed = [int(row[0]) for row in table_below(REFERENCE / "exit-codes.md", "Exit codes")]
    assert sorted(codes_of_the_code()) == listed


def test_the_tree_of_errors_says_the_exit_code_of_each() -> None:
    drawn = re.findall(r"(?:├──|└──) (\w+) +(\d+) ", mtlsctl.errors.__doc__ or "")
    assert [] == [(name, code) for name, code in drawn if getattr(mtlsctl.errors, name).exit_code != int(code)]
    assert len(drawn) > 8


# --- environment -------------------------------------------------------------------------------------------------

_READ = re.compile(r'environ(?:\.get\(|\[)"([A-Z_]+)"')


def test_the_environment_is_documented_and_nothing_else() -> None:
    rows = table_below(REFERENCE / "environment.md", "Variables")
    documented = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])}
    source = [path.read_text("utf-8") for path in (ROOT / "mtlsctl").rglob("*.py")]
    read = {name for text in source for name in _READ.findall(text)}
    by_python = {"TMPDIR"}  # read by the tempfile module for us
    assert documented == read | by_python


def test_the_keys_of_the_project_file_are_documented() -> None:
    rows = table_below(REFERENCE / "environment.md", "`mtlsctl.yaml`")
    assert [f"`{key}`" for key in project._KEYS] == [row[0] for row in rows]


# --- inspect ------------------------------------------------------------------------------------------------------


def test_every_code_of_inspect_is_on_its_page() -> None:
    text = (REFERENCE / "inspect.md").read_text("utf-8")
    ours = {code for code in pki_codes.MEANINGS if code.startswith("M73")}
    assert ours == set(re.findall(r"\bM73[0-9]{2}\b", text))


# --- JSON --------------------------------------------------------------------------------------------------------


def documented_kinds() -> Mapping[str, set[str]]:
    text = (REFERENCE / "json.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| `([a-z_ ]+)` \|$", text, re.MULTILINE)
    return {kind: {"format_version", "kind", *fields.split()} for kind, fields in rows}


_DOCUMENTS = (
    ("init", "init", "-o", "json"),
    ("validate", "validate", "-o", "json"),
    ("plan", "plan", "-o", "json"),
    ("apply", "apply", "--yes", "-o", "json"),
    ("verify", "verify", "--embedded", "-o", "json"),
    ("inspect", "inspect", "inspected.pem", "-o", "json"),
    ("hosts", "hosts", "list", "-o", "json"),
    ("hosts-check", "hosts", "check", "-o", "json"),
    ("status", "status", "-o", "json"),
    ("show", "show", "-o", "json"),
    ("anchors", "show", "--anchors", "schedule", "-o", "json"),
    ("journal", "journal", "-o", "json"),
    ("state", "state", "show", "-o", "json"),
    ("state-check", "state", "check", "-o", "json"),
    ("runtimes", "runtimes", "-o", "json"),
    ("error", "plan", "-i", "nowhere", "-o", "json"),
)


def test_every_kind_of_document_is_documented_with_its_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    estate = make_estate(tmp_path / "estate", monkeypatch, capsys)
    shutil.copy(ROOT / "tests" / "cli" / "inspected" / "ledger.pem", estate.folder / "inspected.pem")
    printed = {kind: estate.run(*arguments).json for kind, *arguments in _DOCUMENTS}
    assert {kind: kind for kind in printed} == {kind: document["kind"] for kind, document in printed.items()}
    assert documented_kinds() == {kind: set(document) for kind, document in printed.items()}
