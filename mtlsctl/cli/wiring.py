"""Settings to adapters: the only module that knows them all."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import UsageError
from mtlsctl.operations.project import find_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtlsctl.cli.options import Settings
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
    path = settings.inventory or project.inventory
    if path is None:
        raise UsageError(
            "no inventory: neither --inventory nor mtlsctl.yaml names one, and inventories/ does not hold one",
            code="M9102",
            help="mtlsctl plan -i PATH, or mtlsctl init to begin",
        )
    if not path.exists():
        raise UsageError(f"there is no inventory at {path}", code="M9102", help="mtlsctl plan -i PATH")
    return path.absolute()


def open_workspace(settings: Settings) -> Workspace:
    """Everything that a use case needs; nothing of it is opened before it is used."""
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.render.catalog import load_catalog

    project = project_of(settings)
    return Workspace(
        project=project,
        inventory_path=inventory_of(settings, project),
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
