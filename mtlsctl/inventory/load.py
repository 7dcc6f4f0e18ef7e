"""A file or a folder of files to an inventory: the floor's one door."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes
from mtlsctl.inventory.problems import Problems, Sources, shown
from mtlsctl.inventory.resolve import resolve
from mtlsctl.inventory.source import Map, read_file, set_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from mtlsctl.inventory.source import Node
    from mtlsctl.model.diagnostic import Diagnostic
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.topology import Inventory

SUFFIXES: Final = (".yaml", ".yml")
MERGED: Final = ("hosts", "services")
"""The sections whose entries may stand in several files."""


MAX_FOLDERS: Final = 32
"""Folders that may lie in one another, the inventory's own counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedInventory:
    """An inventory without errors, what looks like a slip in it, and the files that it came from."""

    inventory: Inventory
    warnings: tuple[Diagnostic, ...]
    files: tuple[Path, ...]


def load_inventory(path: Path, runtimes: Mapping[str, Runtime], *, root: Path) -> LoadedInventory:
    """The inventory of a file, or of all `*.yaml` and `*.yml` below a folder, merged by name.

    Relative folders of hosts, and the file names of diagnostics, are relative to `root`.
    Raises InventoryError with every problem that was found, sorted by place.
    """
    with _collector_paused():
        problems = Problems(Sources())
        files = tuple(_files(path, root, problems))
        is_whole = not problems.has_errors
        trees = [tree for file in files if (tree := read_file(file, _name(file, root), problems)) is not None]
        if not is_whole or len(trees) < len(files):
            problems.raise_if_any()  # Half an inventory would seem to lack what stands in the other half.
        tree = _merged(trees, problems)
        inventory = resolve(tree, runtimes, root, problems)
    return LoadedInventory(inventory=inventory, warnings=problems.ordered, files=files)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A tree of strings has no cycles, and looking for them costs as much as reading it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _files(path: Path, root: Path, problems: Problems) -> Iterable[Path]:
    if not path.is_dir():
        return (path,)
    files = sorted(_below(path, root, problems))
    if not files:
        message = f"`{shown(_name(path, root))}` holds no *.yaml file"
        problems.put(codes.UNREADABLE, message, None)
    return files


def _below(folder: Path, root: Path, problems: Problems, depth: int = 1) -> Iterator[Path]:
    """The YAML files below a folder. Hidden entries are left out; links are refused, as they lead elsewhere."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.put(codes.UNREADABLE, f"`{shown(_name(folder, root))}` cannot be read: {error.strerror}", None)
        return
    for entry in found:
        place = folder / entry.name
        if entry.name.startswith("."):
            continue
        is_yaml = entry.name.endswith(SUFFIXES)
        if entry.is_symlink() and (is_yaml or entry.is_dir()):
            message = f"`{shown(_name(place, root))}` is a symbolic link"
            problems.put(codes.UNREADABLE, message, None, help="put the file itself there")
        elif entry.is_dir(follow_symlinks=False):
            if depth >= MAX_FOLDERS:
                problems.put(codes.UNREADABLE, f"folders are nested deeper than {MAX_FOLDERS}", None)
                return
            yield from _below(place, root, problems, depth + 1)
        elif is_yaml:
            yield place


def _name(path: Path, root: Path) -> str:
    """Relative to the root where it lies below it, else as it was given."""
    absolute, top = path.absolute(), root.absolute()
    return str(absolute.relative_to(top) if absolute.is_relative_to(top) else path)


def _merged(trees: list[Map], problems: Problems) -> Map:
    """One mapping of all files: entries of hosts and services come together, everything else stands once."""
    first, *others = trees
    for tree in others:
        first.lost |= tree.lost
        for key, value in tree.items():
            mine = first.get(key)
            if key in MERGED and isinstance(mine, Map) and isinstance(value, Map):
                _merge(mine, value, problems)
            else:
                _take(first, tree, key, value, problems)
    return first


def _merge(into: Map, other: Map, problems: Problems) -> None:
    into.lost |= other.lost
    for key, value in other.items():
        _take(into, other, key, value, problems)


def _take(into: Map, other: Map, key: str, value: Node, problems: Problems) -> None:
    at = other.keys_at[key]
    if key in into:
        first = problems.sources.span(into.keys_at[key], key)
        message = f"`{shown(key)}` is given twice"
        problems.add(codes.DUPLICATE_KEY, message, at, key, related=[(first, "first given here")])
        set_aside(into[key], value)
        return
    into[key] = value
    into.keys_at[key] = at
    into.values_at[key] = other.values_at[key]
