"""The language of `runtime.yaml`. Unknown keys are errors; verbs are enumerated, never shell.

Written by hand over YAML's nodes and not with pydantic: it runs at every plan, where pydantic's import alone would
take the time that a whole plan may, and nodes know their lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import yaml

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.model.identifiers import LABEL
from mtlsctl.model.runtime import (
    Check,
    Enforcement,
    PointerKind,
    ProcessScope,
    Reload,
    Role,
    Runtime,
    Setting,
    SettingType,
)
from mtlsctl.render import codes

if TYPE_CHECKING:
    from collections.abc import Iterator

W = TypeVar("W", bound=StrEnum)

MANIFEST_FILE = "runtime.yaml"
CURRENT_PATH = "/etc/mtlsctl/{service}/current"

EACH = ("callee", "listener")

_PATH = re.compile(r"(?:[A-Za-z0-9_-]|\{callee\}|\{listener\})(?:[A-Za-z0-9._/-]|\{callee\}|\{listener\})*")
_POINTER_PATH = re.compile(r"(?:/(?:[A-Za-z0-9_-]|\{service\})(?:[A-Za-z0-9._-]|\{service\})*)+")
_PROGRAM = re.compile(r"[A-Za-z0-9._-]{1,15}")
_SETTING = re.compile(r"[a-z][a-z0-9_]*")
_TEMPLATE = re.compile(r"[A-Za-z0-9._-]+\.j2")
_OURS = ("tls.crt", "tls.key", "clients", "servers")
_LARGEST = 65_536

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerFile:
    """A configuration file of the program; it includes the file `includes` of each member's release."""

    path: str
    template: str
    includes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """One file of a release, or one for each callee or listener (`each`), whose name fills the path."""

    path: str
    template: str
    each: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole `runtime.yaml`; `pointer` is None where the symlink `current` is switched."""

    name: str
    description: str
    roles: frozenset[Role]
    scope: ProcessScope
    program: str
    pointer: PointerFile | None
    check: Check
    reload: Reload
    files: tuple[ReleaseFile, ...]
    enforcement: Enforcement
    settings: tuple[Setting, ...]

    @property
    def named_templates(self) -> frozenset[str]:
        """Every template that the manifest names."""
        named = {file.template for file in self.files}
        return frozenset(named if self.pointer is None else {*named, self.pointer.template})


def parse_manifest(text: bytes, file: str) -> Manifest:
    """Read a manifest; raises RuntimeFolderError with every problem and its place."""
    reading = _Reading(file)
    try:
        if len(text) > _LARGEST:
            raise RuntimeFolderError([_problem(f"a manifest has at most {_LARGEST} bytes", Span(file, 1, 1, 1))])
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise RuntimeFolderError([_unreadable(error, file)]) from None
    except (RecursionError, UnicodeDecodeError, ValueError):
        raise RuntimeFolderError([_problem("not UTF-8 text", Span(file, 1, 1, 1))]) from None
    manifest = _manifest(reading, node)
    if manifest is not None:
        for problem in _misfits(manifest):
            reading.complain(problem, node)
    if manifest is None or reading.problems:
        raise RuntimeFolderError(sorted(reading.problems, key=lambda one: one.order))
    return manifest


def to_runtime(manifest: Manifest, digest: str) -> Runtime:
    """The manifest as the planner knows it."""
    pointer = manifest.pointer
    return Runtime(
        name=manifest.name,
        digest=digest,
        roles=manifest.roles,
        scope=manifest.scope,
        process=manifest.program,
        pointer=PointerKind.CURRENT if pointer is None else PointerKind.FILE,
        pointer_path=CURRENT_PATH if pointer is None else pointer.path,
        enforcement=manifest.enforcement,
        settings=manifest.settings,
        check=manifest.check,
        reload=manifest.reload,
    )


class _Wrong(Exception):
    """What stands here cannot be used; the complaint is already noted."""


class _Reading:
    """One manifest while it is read: gives what stands at a node, or notes a problem with its place."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Diagnostic] = []

    def complain(self, message: str, node: yaml.Node | None) -> None:
        mark = None if node is None else node.start_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        self.problems.append(_problem(message, Span(self._file, line, column, column + 1)))

    def wrong(self, message: str, node: yaml.Node | None) -> _Wrong:
        self.complain(message, node)
        return _Wrong()

    def record(
        self, node: yaml.Node | None, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """The entries of a mapping with known keys; every unknown, doubled or missing one is noted."""
        entries = self.entries(node, what)
        known = (*required, *optional)
        for key, _ in node.value if node is not None else ():
            if key.value not in known:
                self.complain(f"`{key.value}` is not a key of {what}; its keys are {', '.join(known)}", key)
        missing = [key for key in required if key not in entries]
        if missing:
            raise self.wrong(f"{what} lacks {', '.join(missing)}", node)
        return entries

    def entries(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(f"{what} is a mapping", node)
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value in found:
                self.complain(f"the key `{key.value}` stands twice", key)
            found[str(key.value)] = value
        return found

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(f"{what} is a list", node)
        return list(node.value)

    def text(self, node: yaml.Node | None, what: str, grammar: re.Pattern[str] | None = None) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self.wrong(f"{what} is text", node)
        if grammar is not None and not grammar.fullmatch(node.value):
            raise self.wrong(f"{what} cannot be written so", node)
        return str(node.value)

    def word(self, node: yaml.Node | None, what: str, words: type[W]) -> W:
        try:
            return words(self.text(node, what))
        except ValueError:
            raise self.wrong(f"{what} is one of {', '.join(words)}", node) from None

    def switch(self, node: yaml.Node | None, what: str) -> bool:
        text = self.text(node, what)
        if text not in ("true", "false"):
            raise self.wrong(f"{what} is true or false", node)
        return text == "true"


def _manifest(reading: _Reading, node: yaml.Node | None) -> Manifest | None:
    try:
        top = reading.record(
            node,
            "a manifest",
            ("version", "name", "description", "roles", "process", "enforces"),
            ("files", "settings"),
        )
        if reading.text(top["version"], "`version`") != "1":
            raise reading.wrong("`version` is 1", top["version"])
        process = reading.record(top["process"], "`process`", ("scope", "pointer"), ("program", "check", "reload"))
        program = process.get("program")
        return Manifest(
            name=reading.text(top["name"], "`name`", LABEL),
            description=reading.text(top["description"], "`description`"),
            roles=frozenset(reading.word(one, "a role", Role) for one in reading.items(top["roles"], "`roles`")),
            scope=reading.word(process["scope"], "`scope`", ProcessScope),
            program=reading.text(program, "`program`", _PROGRAM) if program is not None else "",
            pointer=_pointer(reading, process["pointer"]),
            check=reading.word(process["check"], "`check`", Check) if "check" in process else Check.NONE,
            reload=reading.word(process["reload"], "`reload`", Reload) if "reload" in process else Reload.NONE,
            files=tuple(_file(reading, one) for one in reading.items(top.get("files"), "`files`")),
            enforcement=_enforcement(reading, top["enforces"]),
            settings=tuple(_settings(reading, top.get("settings"))),
        )
    except _Wrong:
        return None


def _pointer(reading: _Reading, node: yaml.Node) -> PointerFile | None:
    if isinstance(node, yaml.ScalarNode) and node.value == "current":
        return None
    parts = reading.record(node, "`pointer` (if it is not `current`)", ("file", "template", "includes"))
    return PointerFile(
        path=reading.text(parts["file"], "`file`, an absolute path,", _POINTER_PATH),
        template=reading.text(parts["template"], "`template`", _TEMPLATE),
        includes=reading.text(parts["includes"], "`includes`"),
    )


def _file(reading: _Reading, node: yaml.Node) -> ReleaseFile:
    parts = reading.record(node, "an entry of `files`", ("path", "template"), ("each",))
    each = reading.text(parts["each"], "`each`") if "each" in parts else None
    if each is not None and each not in EACH:
        raise reading.wrong(f"`each` is one of {', '.join(EACH)}", parts["each"])
    path = reading.text(parts["path"], "`path`, relative,", _PATH)
    problem = _path_problem(path, each)
    if problem:
        raise reading.wrong(problem, parts["path"])
    return ReleaseFile(path=path, template=reading.text(parts["template"], "`template`", _TEMPLATE), each=each)


def _path_problem(path: str, each: str | None) -> str | None:
    if ".." in path or "//" in path or path.endswith("/"):
        return "`path` is relative and goes only down"
    if path.split("/", 1)[0] in _OURS or path.endswith((".pem", ".key", ".crt")):
        return "certificates, keys and bundles have fixed names and are in every release"
    if set(re.findall(r"\{(\w+)\}", path)) != ({each} if each else set()):
        return "`each: callee` goes with {callee} in `path`, `each: listener` with {listener}"
    return None


def _enforcement(reading: _Reading, node: yaml.Node) -> Enforcement:
    names = tuple(field.name for field in fields(Enforcement))
    parts = reading.record(node, "`enforces`", names)
    return Enforcement(**{name: reading.switch(parts[name], f"`{name}`") for name in names})


def _settings(reading: _Reading, node: yaml.Node | None) -> Iterator[Setting]:
    for name, part in sorted((reading.entries(node, "`settings`") if node is not None else {}).items()):
        if not _SETTING.fullmatch(name):
            raise reading.wrong("a setting's name is lower case letters, digits and underscores", part)
        parts = reading.record(part, f"the setting `{name}`", ("type", "description"), ("required",))
        yield Setting(
            name=name,
            type=reading.word(parts["type"], "`type`", SettingType),
            required=reading.switch(parts["required"], "`required`") if "required" in parts else False,
            description=reading.text(parts["description"], "`description`"),
        )


def _misfits(manifest: Manifest) -> Iterator[str]:
    """What each part allows and the whole does not."""
    pointer, whole_host = manifest.pointer, manifest.scope is ProcessScope.HOST
    paths = [file.path for file in manifest.files]
    if not manifest.roles:
        yield "`roles` is empty: the runtime could be used for nothing"
    if len(set(paths)) != len(paths):
        yield "two files have the same path"
    if manifest.reload is not Reload.NONE and not manifest.program:
        yield "a program that is reloaded needs its name in `program`: a signal goes to nothing else"
    if pointer is None:
        if whole_host:
            yield "a process of the whole host has a pointer file, since `current` belongs to one service"
        return
    if ("{service}" in pointer.path) == whole_host:
        yield "a pointer file names {service} if each instance has its own, and only then"
    if pointer.includes not in {file.path for file in manifest.files if file.each is None}:
        yield "`includes` names one of `files` that every release holds once"


def _unreadable(error: yaml.YAMLError, file: str) -> Diagnostic:
    mark = getattr(error, "problem_mark", None)
    line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
    return _problem(str(getattr(error, "problem", None) or "not YAML"), Span(file, line, column, column + 1))


def _problem(message: str, span: Span) -> Diagnostic:
    return Diagnostic(code=codes.MANIFEST, message=message, span=span)
