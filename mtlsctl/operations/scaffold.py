"""A new repository of inventories: its files, its empty state, and the encryption key outside it."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mtlsctl
from mtlsctl.errors import StateError, UsageError
from mtlsctl.operations.project import FILE, STATE, is_estate_name, read_project
from mtlsctl.store.files import appearing
from mtlsctl.store.keysource import KeyFile, create_key_file, resolve_key_source
from mtlsctl.store.location import create_state, open_state, state_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

EXAMPLES = ("calendar", "empty")
_SCHEMA = Path("schema/inventory.schema.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. `name` is None where the folder's own name, or what is there already, decides."""

    folder: Path
    name: str | None
    example: str = "calendar"
    state: str | None = None
    new_lineage: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffolded:
    """What is there now. `written` and `kept` are paths below the folder; `key_place` is outside it."""

    folder: Path
    name: str
    lineage: str
    state: Path
    key_place: str
    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    state_is_new: bool
    key_is_new: bool
    lineage_is_new: bool


def scaffold(wish: Wish, *, environ: Mapping[str, str], clock: Callable[[], datetime]) -> Scaffolded:
    """Make what is missing and overwrite nothing; raises StateError when the state of an existing project is gone.

    The order is key, state, files, and `mtlsctl.yaml` last: killed anywhere, the same command goes on.
    """
    known = read_project(wish.folder / FILE) if (wish.folder / FILE).is_file() else None
    url = wish.state or (known.state if known else STATE)
    database = state_path(url, base=wish.folder)
    name = _name(wish, known.name if known else None)
    if wish.new_lineage and database.exists():
        raise _state_in_the_way(database)
    found = _lineage_of(url, wish.folder, known.lineage if known else None, name, database)
    before = known.lineage if known else found
    lineage = str(uuid.uuid4()) if before is None or wish.new_lineage else before
    if known and not wish.new_lineage and not database.exists():
        raise _state_gone(name, lineage, database)
    wish.folder.mkdir(parents=True, exist_ok=True)
    key_place, key_is_new = _key(environ, lineage, wish.folder, database)
    state_is_new = not database.exists()
    if state_is_new:
        create_state(url, base=wish.folder, lineage=lineage, estate=name, clock=clock)
    written, kept = _write_files(wish, name, with_inventory=known is None)
    _write_project(wish, name, lineage, url, written, kept)
    return Scaffolded(
        folder=wish.folder,
        name=name,
        lineage=lineage,
        state=database,
        key_place=key_place,
        written=tuple(written),
        kept=tuple(kept),
        state_is_new=state_is_new,
        key_is_new=key_is_new,
        lineage_is_new=lineage != (known.lineage if known else None),
    )


def default_name(folder: Path) -> str | None:
    """The folder's own name where it can be an estate's."""
    name = folder.resolve().name.lower()
    return name if is_estate_name(name) else None


def _name(wish: Wish, known: str | None) -> str:
    if known is not None and wish.name not in (None, known):
        raise UsageError(
            f"this repository is of the estate {known}, not {wish.name}",
            code="M9106",
            help="another estate goes into a folder of its own",
        )
    name = known or wish.name or default_name(wish.folder)
    if name is None or not is_estate_name(name):
        raise UsageError(
            f"{wish.folder.resolve().name if name is None else name} cannot name an estate: "
            "at most 16 characters, a-z, 0-9 and inner hyphens",
            code="M9106",
            help="give one with --name",
        )
    return name


def _lineage_of(url: str, folder: Path, lineage: str | None, name: str, database: Path) -> str | None:
    """Of the state that is there, perhaps by an earlier run that was killed; raises M3002 when it is a stranger's."""
    if not database.exists():
        return None
    store = open_state(url, base=folder, lineage=lineage, estate=name)
    try:
        return store.snapshot().lineage
    finally:
        store.close()


def _state_in_the_way(database: Path) -> StateError:
    return StateError(
        f"there is a state at {database}; a new lineage begins with none",
        code="M3009",
        help="move it away if nothing that it issued is used any more, then run this again",
    )


def _state_gone(name: str, lineage: str, database: Path) -> StateError:
    return StateError(
        f"the estate {name} exists (lineage {lineage[:8]}...), but its state is not at {database}",
        code="M3001",
        notes=("an empty state would issue new CAs for an estate that may be live, so none is made",),
        help="restore a backup (mtlsctl state restore FILE), point --state at it, or begin anew with "
        "mtlsctl init --new-lineage",
    )


def _key(environ: Mapping[str, str], lineage: str, folder: Path, database: Path) -> tuple[str, bool]:
    keep_out = (folder, database.parent)
    source = resolve_key_source(environ, lineage=lineage, keep_out=keep_out)
    if isinstance(source, KeyFile) and not source.path.exists():
        create_key_file(source.path, keep_out=keep_out)
        return source.place, True
    return source.place, False


# --- files ----------------------------------------------------------------------------------------------------------


def _write_files(wish: Wish, name: str, *, with_inventory: bool) -> tuple[list[Path], list[Path]]:
    written: list[Path] = []
    kept: list[Path] = []
    for path, text in _files(wish.example, name, with_inventory=with_inventory).items():
        _write(wish, path, text, written, kept)
    return written, kept


def _write(wish: Wish, path: Path, text: str, written: list[Path], kept: list[Path]) -> None:
    """Make a file that is not there; with `force` the new text of one that is goes beside it as `.new`."""
    target = wish.folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if _create(target, text):
        written.append(path)
    elif target.read_text(encoding="utf-8", errors="replace") == text or not wish.force:
        kept.append(path)
    else:
        beside = path.with_name(path.name + ".new")
        (wish.folder / beside).write_text(text, encoding="utf-8")
        written.append(beside)


def _create(target: Path, text: str) -> bool:
    """Whole or not at all, with the mode that any new file gets; False when the name is taken."""
    try:
        with appearing(target) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.chmod(0o666 & ~_umask())
    except FileExistsError:
        return False
    return True


def _umask() -> int:
    """The system tells it only in exchange for another."""
    known = os.umask(0o077)
    os.umask(known)
    return known


def _files(example: str, name: str, *, with_inventory: bool) -> dict[Path, str]:
    """An estate that exists has its inventory; an example beside it would declare services that nobody asked for."""
    from mtlsctl.inventory import json_schema

    files = {Path(".gitignore"): _GITIGNORE}
    folder = Path("inventories") / (name if example == "empty" else example)
    for path, text in sorted(_inventory(example, name).items()) if with_inventory else ():
        files[folder / path] = _modeline(folder / path) + text
    files[_SCHEMA] = json.dumps(json_schema(), indent=2) + "\n"
    return files


def _modeline(path: Path) -> str:
    schema = os.path.relpath(_SCHEMA, path.parent)
    return f"# yaml-language-server: $schema={schema}\n"


def _inventory(example: str, name: str) -> dict[Path, str]:
    if example == "empty":
        return {Path("inventory.yaml"): _EMPTY.format(name=name)}
    root = example_folder(example)
    texts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.yaml"))}
    return {path: _renamed(_without_modeline(text), name) for path, text in texts.items()}


def example_folder(example: str) -> Path:
    """Inside the wheel, or beside the package in a checkout."""
    package = Path(mtlsctl.__file__).resolve().parent
    inside = package / "examples" / example
    return inside if inside.is_dir() else package.parent / "inventories" / example


def _without_modeline(text: str) -> str:
    return re.sub(r"\A# yaml-language-server:.*\n", "", text)


def _renamed(text: str, name: str) -> str:
    return re.sub(r"(?m)^name:[ \t]*[a-z0-9-]+", f"name: {name}", text, count=1)


def _write_project(wish: Wish, name: str, lineage: str, url: str, written: list[Path], kept: list[Path]) -> None:
    target = wish.folder / FILE
    folder = name if wish.example == "empty" else wish.example
    text = _PROJECT.format(name=name, lineage=lineage, inventory=f"inventories/{folder}", state=url)
    if wish.new_lineage and target.is_file():
        _replace_lineage(target, lineage)
        written.append(Path(FILE))
    elif _create(target, text):
        written.append(Path(FILE))
    else:
        kept.append(Path(FILE))


def _replace_lineage(target: Path, lineage: str) -> None:
    text = target.read_text(encoding="utf-8")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_text(re.sub(r"(?m)^(lineage:[ \t]*)\S+", rf"\g<1>{lineage}", text, count=1), encoding="utf-8")
    partial.replace(target)


_GITIGNORE = """\
# What mtlsctl keeps beside the inventories, and what must never be committed.
.mtlsctl/
/out/
*.mtlsplan
*.key
*.p12
*.pfx
"""

_PROJECT = """\
# A repository of inventories for mtlsctl. Found upwards from wherever a command is started,
# as far as the root of the repository. What protects the estate (the place of the encryption key, who may
# skip a question) is not accepted here, because a pull request could change it.
version: 1

# The estate; part of the subject of every CA. The `name` of the inventory must be the same.
name: {name}

# Made once. It ties this repository to its state: another state is refused.
lineage: {lineage}

# A file, or a folder of files that are read as one.
inventory: {inventory}

# Certificates, what is live where, and the CA keys (encrypted). Back it up: mtlsctl state backup FILE
state: {state}
"""

_EMPTY = """\
version: 1
name: {name}

# Where services run. A directory stands for a host, without SSH:
#   here: {{ directory: ./out }}
hosts: {{}}

# Who listens, and who may call:
#   schedule: {{ runtime: nginx, hosts: [here], listen: 8443, callers: [mail] }}
#   mail: {{ runtime: curl, hosts: [here] }}
services: {{}}
"""
