"""Finds runtime folders and reads them. Runs at every plan: no jinja2 here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.render import codes
from mtlsctl.render.manifest import MANIFEST_FILE, Manifest, parse_manifest, to_runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtlsctl.model.runtime import Runtime

RENDERING = 1
"""Raised when filters or variables change what an unchanged template gives: plans then show it as a new template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFolder:
    """A runtime folder as it was read once: what is rendered later are these texts, which `runtime.digest` covers."""

    runtime: Runtime
    path: Path
    manifest: Manifest
    templates: tuple[tuple[str, str], ...]


def our_templates() -> Path:
    """The folders that come with mtlsctl: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def load_catalog(folders: Sequence[Path] | None = None) -> Mapping[str, RuntimeFolder]:
    """Every runtime folder directly below `folders` (ours without any), by name.

    Raises RuntimeFolderError with all that is wrong with any of them. Whoever calls decides which folders are
    allowed: a template is code.
    """
    found: dict[str, RuntimeFolder] = {}
    problems: list[Diagnostic] = []
    for path in _runtime_folders((our_templates(),) if folders is None else folders):
        try:
            folder = read_folder(path)
        except RuntimeFolderError as error:
            problems += error.diagnostics
            continue
        if folder.runtime.name in found:
            problems.append(_twice(folder, found[folder.runtime.name]))
        found.setdefault(folder.runtime.name, folder)
    if problems:
        raise RuntimeFolderError(sorted(problems, key=lambda one: one.order))
    return found


def runtimes_of(catalog: Mapping[str, RuntimeFolder]) -> dict[str, Runtime]:
    """What the planner wants of a catalog."""
    return {name: folder.runtime for name, folder in catalog.items()}


def read_folder(path: Path) -> RuntimeFolder:
    """Read one folder; raises RuntimeFolderError when the manifest is wrong or a template that it names is missing."""
    file = path / MANIFEST_FILE
    text, templates = _read(file), _templates_of(path)
    manifest = parse_manifest(text, str(file))
    problems = [_problem(codes.MANIFEST, f"the folder is not named `{manifest.name}`", file)] * (
        manifest.name != path.name
    ) + [
        _problem(codes.TEMPLATE_MISSING, f"there is no template `{name}`", file)
        for name in sorted(manifest.named_templates - {name for name, _ in templates})
    ]
    if problems:
        raise RuntimeFolderError(problems)
    return RuntimeFolder(
        runtime=to_runtime(manifest, _digest(text, templates)), path=path, manifest=manifest, templates=templates
    )


def _runtime_folders(folders: Iterable[Path]) -> list[Path]:
    return [path.parent for folder in folders for path in sorted(folder.glob(f"*/{MANIFEST_FILE}"))]


def _templates_of(path: Path) -> tuple[tuple[str, str], ...]:
    return tuple((file.name, _decoded(file)) for file in sorted(path.glob("*.j2")))


def _decoded(file: Path) -> str:
    try:
        return _read(file).decode()
    except UnicodeDecodeError:
        raise RuntimeFolderError([_problem(codes.TEMPLATE_SYNTAX, "a template is UTF-8", file)]) from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RuntimeFolderError([_problem(codes.MANIFEST, f"cannot be read: {error.strerror}", file)]) from None


def _digest(manifest: bytes, templates: tuple[tuple[str, str], ...]) -> str:
    """SHA-256 over names and bytes, each with its length before it, so that nothing can move from one to the next."""
    digest = hashlib.sha256(b"%d" % RENDERING)
    for name, content in ((MANIFEST_FILE, manifest), *((name, text.encode()) for name, text in templates)):
        digest.update(b"\n%d %s %d\n" % (len(name), name.encode(), len(content)))
        digest.update(content)
    return digest.hexdigest()


def _problem(code: str, message: str, file: Path) -> Diagnostic:
    return Diagnostic(code=code, message=message, span=Span(str(file), 1, 1, 1))


def _twice(folder: RuntimeFolder, other: RuntimeFolder) -> Diagnostic:
    span = Span(str(folder.path / MANIFEST_FILE), 1, 1, 1)
    first = Span(str(other.path / MANIFEST_FILE), 1, 1, 1)
    message = f"the runtime `{folder.runtime.name}` stands twice"
    return Diagnostic(code=codes.RUNTIME_TWICE, message=message, span=span, related=((first, "first here"),))
