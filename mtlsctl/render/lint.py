"""Everything that can be said about a runtime folder without a host: for its author, before anyone relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import TemplateSyntaxError, meta, nodes

from mtlsctl.errors import MtlsctlError, RuntimeFolderError, UnsafePlan
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.model.runtime import SettingType
from mtlsctl.render import codes
from mtlsctl.render.cases import cases_of, expected_of, render_case
from mtlsctl.render.catalog import read_folder
from mtlsctl.render.context import EACH_VARIABLES, NUMBERS, PROCESS_VARIABLES, RELEASE_VARIABLES, SECRET_VARIABLES
from mtlsctl.render.environment import environment
from mtlsctl.render.quoting import FILTERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtlsctl.render.catalog import RuntimeFolder


def lint_folder(path: Path) -> tuple[Diagnostic, ...]:
    """Every problem of one runtime folder, sorted; an empty tuple means that it holds together."""
    try:
        folder = read_folder(path)
    except RuntimeFolderError as error:
        return error.diagnostics
    found = [*_missing_pages(folder), *_templates(folder)]
    if not found:
        found = list(_cases(folder))  # a template that is known to be wrong would only be reported again
    return tuple(sorted(set(found), key=lambda one: one.order))


def _missing_pages(folder: RuntimeFolder) -> Iterator[Diagnostic]:
    if not (folder.path / "README.md").is_file():
        yield _problem(codes.README_MISSING, "there is no README.md", folder.path)
    if folder.manifest.files and not cases_of(folder):
        yield _problem(codes.CASES_MISSING, "there are no cases: cases/<case>/recipe.json", folder.path)


def _templates(folder: RuntimeFolder) -> Iterator[Diagnostic]:
    used = set(folder.manifest.named_templates)
    for name, text in folder.templates:
        try:
            tree = environment(folder.templates).parse(text)
            environment(folder.templates).compile(text)
        except TemplateSyntaxError as error:
            yield _problem(codes.TEMPLATE_SYNTAX, str(error.message), folder.path / name, error.lineno)
            continue
        used |= {found for found in meta.find_referenced_templates(tree) if found is not None}
        yield from _unknown_variables(folder, name, tree)
        yield from _unquoted(folder, name, tree)
    for name in sorted({name for name, _ in folder.templates} - used):
        yield _problem(codes.TEMPLATE_UNUSED, f"the template `{name}` is never used", folder.path / name)


def _unknown_variables(folder: RuntimeFolder, name: str, tree: nodes.Template) -> Iterator[Diagnostic]:
    # jinja2's own search takes a name set in one branch for undeclared in the next.
    names = list(tree.find_all(nodes.Name))
    set_here = _set_in(tree)
    if _is_included(folder, name):
        # It sees what was set where it is included.
        set_here = set_here.union(*(_set_in(environment(folder.templates).parse(text)) for _, text in folder.templates))
    for variable in sorted(meta.find_undeclared_variables(tree) - set_here - _documented(folder, name)):
        places = [one.lineno for one in names if one.name == variable]
        yield _problem(
            codes.VARIABLE_UNKNOWN, f"`{variable}` is not a documented variable here", folder.path / name, min(places)
        )


def _set_in(tree: nodes.Template) -> set[str]:
    return {one.name for one in tree.find_all(nodes.Name) if one.ctx != "load"}


def _is_included(folder: RuntimeFolder, name: str) -> bool:
    return name not in folder.manifest.named_templates


def _documented(folder: RuntimeFolder, template: str) -> frozenset[str]:
    """The variables of the files that the template makes; one that others include may use any."""
    pointer = folder.manifest.pointer
    makes = [file for file in folder.manifest.files if file.template == template]
    known: frozenset[str] = frozenset()
    for file in makes:
        known |= RELEASE_VARIABLES | ({file.each} if file.each else frozenset())
        known |= SECRET_VARIABLES if file.secret else frozenset()
    if pointer is not None and pointer.template == template:
        known |= PROCESS_VARIABLES
    return known or RELEASE_VARIABLES | PROCESS_VARIABLES | EACH_VARIABLES | SECRET_VARIABLES


def _unquoted(folder: RuntimeFolder, name: str, tree: nodes.Template) -> Iterator[Diagnostic]:
    """Static, so that it also sees what no case reaches: each output passes a filter last, or is a known number."""
    for output in tree.find_all(nodes.Output):
        for child in output.nodes:
            if not isinstance(child, nodes.TemplateData) and not _is_safe(child, folder):
                message = "this value passes no quoting filter"
                yield _problem(codes.UNQUOTED, message, folder.path / name, child.lineno)


def _is_safe(node: nodes.Expr, folder: RuntimeFolder) -> bool:
    match node:
        case nodes.Filter(name=filter_name):
            return filter_name in FILTERS
        case nodes.Name(name=variable):
            return variable in NUMBERS
        case nodes.Getattr(node=nodes.Name(name="settings"), attr=setting):
            return setting in _integers(folder)
        case nodes.Getattr(attr=attribute):
            return attribute in NUMBERS
        case nodes.Add(left=number, right=nodes.Const(value=int())):
            return not isinstance(number, nodes.Filter) and _is_safe(number, folder)
    return False


def _integers(folder: RuntimeFolder) -> set[str]:
    return {one.name for one in folder.runtime.settings if one.type is SettingType.INTEGER}


def _cases(folder: RuntimeFolder) -> Iterator[Diagnostic]:
    for case in cases_of(folder):
        try:
            given = render_case(folder, case)
        except (RuntimeFolderError, UnsafePlan) as error:
            yield from error.diagnostics
            continue
        except MtlsctlError as error:
            yield _problem(error.code, error.message, case)
            continue
        expected = expected_of(case)
        for path in sorted(given.keys() | expected.keys()):
            if given.get(path) != expected.get(path):
                yield _differs(case / "expected" / path, given.get(path), expected.get(path))


def _differs(file: Path, given: bytes | None, expected: bytes | None) -> Diagnostic:
    if given is None:
        return _problem(codes.CASE_DIFFERS, "nothing renders this file", file)
    if expected is None:
        return _problem(codes.CASE_DIFFERS, "the case does not expect this file", file)
    theirs, ours = given.split(b"\n"), expected.split(b"\n")
    line = next(
        (n for n, (a, b) in enumerate(zip(theirs, ours, strict=False), 1) if a != b), min(len(theirs), len(ours))
    )
    return _problem(codes.CASE_DIFFERS, "the templates give something else from this line on", file, line)


def _problem(code: str, message: str, file: Path, line: int = 1) -> Diagnostic:
    return Diagnostic(code=code, message=message, span=Span(str(file), line, 1, 1))
