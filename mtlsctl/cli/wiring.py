"""Settings to adapters: the only module that knows them all."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import UsageError
from mtlsctl.operations.project import find_project, refuse_leading_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtlsctl.cli.options import Settings
    from mtlsctl.errors import MtlsctlError
    from mtlsctl.operations.inspect import AtHand
    from mtlsctl.operations.project import Project
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.store.port import StateStore


def clock() -> datetime:
    """The time of this machine, aware, UTC."""
    return datetime.now(UTC)


def project_of(settings: Settings) -> Project:
    """The project that the working directory lies in; flags have the last word later."""
    del settings  # `--chdir` was obeyed before any command runs
    return find_project(Path.cwd())


def inventory_of(settings: Settings, project: Project) -> Path:
    """`--inventory`, else what `mtlsctl.yaml` says, else the only one in `inventories/`."""
    path = _inventory_named(settings, project)
    if path is None:
        raise UsageError(
            "no inventory: neither --inventory nor mtlsctl.yaml names one, and inventories/ does not hold one",
            code="M9102",
            help="mtlsctl plan -i PATH, or mtlsctl init to begin",
        )
    if not path.exists():
        raise UsageError(f"there is no inventory at {path}", code="M9102", help="mtlsctl plan -i PATH")
    return path.absolute()


def _inventory_named(settings: Settings, project: Project) -> Path | None:
    """What the operator names is followed wherever it leads; what the repository names has to lie in it."""
    if settings.inventory is not None:
        return settings.inventory.resolve() if settings.inventory.is_symlink() else settings.inventory
    if project.inventory is not None:
        refuse_leading_out(project.root, project.inventory)
    return project.inventory


_NO_INVENTORY = Path(os.devnull)
"""Where none is named: no plain file, so whoever reads it is told that it cannot be read."""


def open_workspace(settings: Settings, *, with_inventory: bool = True) -> Workspace:
    """Everything that a use case needs; nothing of it is opened before it is used.

    Raises UsageError M9102 when there is no inventory, unless the use case does without (`with_inventory` False).
    """
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.render.catalog import load_catalog

    project = project_of(settings)
    return Workspace(
        project=project,
        inventory_path=inventory_of(settings, project)
        if with_inventory
        else _inventory_named(settings, project) or _NO_INVENTORY,
        state_url=_state_url(settings, project),
        catalog=load_catalog(),
        environ=dict(os.environ),
        clock=clock,
    )


def state_place(settings: Settings) -> Path:
    """Where the state lies."""
    from mtlsctl.store.location import state_path

    project = project_of(settings)
    return state_path(_state_url(settings, project), base=project.root)


def _state_url(settings: Settings, project: Project) -> str:
    """A flag's path counts from the working directory, the project file's from its own folder."""
    if settings.state is None:
        return project.state
    from mtlsctl.store.location import state_path

    return f"sqlite:{state_path(settings.state, base=Path.cwd())}"


@contextmanager
def reading(settings: Settings) -> Iterator[StateStore]:
    """The state, to be read; no key is needed and none is looked for."""
    from mtlsctl.store.location import open_state

    project = project_of(settings)
    store = open_state(
        _state_url(settings, project),
        base=project.root,
        lineage=project.lineage,
        estate=project.name,
        clock=clock,
    )
    try:
        yield store
    finally:
        store.close()


@contextmanager
def estate_at_hand(settings: Settings) -> Iterator[AtHand]:
    """The estate that the working directory belongs to, or why there is none: looking at a file needs none.

    A state that was named with `--state` has to be there: raises what `reading` does.
    """
    from contextlib import ExitStack

    from mtlsctl.errors import MtlsctlError
    from mtlsctl.operations.inspect import AtHand

    why_not = None
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(reading(settings))
        except MtlsctlError as error:
            if settings.state is not None:
                raise
            why_not = _why_no_estate(settings, error)
        if why_not is not None:
            yield AtHand(reader=None, why_not=why_not)
        else:
            yield AtHand(reader=reader, workspace=lambda: open_workspace(settings, with_inventory=False))


def _why_no_estate(settings: Settings, error: MtlsctlError) -> str:
    from mtlsctl.store.codes import MISSING

    if error.code == MISSING and project_of(settings).file is None:
        return "no estate was found here"
    return f"its state cannot be read ({error.code}: {error.message})"


def tell_places(settings: Settings, *, estate: bool) -> None:
    """With `-v`: what is used and where it was found. Places only, never what is in them."""
    if not settings.verbose or settings.quiet:
        return
    import sys

    from mtlsctl import __version__
    from mtlsctl.cli.views.verbose import rows_text
    from mtlsctl.render.catalog import our_templates

    rows = [("mtlsctl", f"{__version__}, Python {sys.version.split()[0]}"), ("runtimes", str(our_templates()))]
    settings.terminal.say(rows_text(rows + (_places(settings) if estate else [])))


def _places(settings: Settings) -> list[tuple[str, str]]:
    project = project_of(settings)
    return [
        ("project", str(project.file or f"{project.root} (no mtlsctl.yaml)")),
        ("inventory", str(settings.inventory or project.inventory or "none")),
        ("state", str(state_place(settings))),
        ("key", _key_place(project)),
    ]


def _key_place(project: Project) -> str:
    from mtlsctl.errors import MtlsctlError
    from mtlsctl.store.keysource import resolve_key_source

    if project.lineage is None:
        return "unknown without a lineage"
    try:
        return resolve_key_source(os.environ, lineage=project.lineage, keep_out=[project.root]).place
    except MtlsctlError as error:
        return error.message
