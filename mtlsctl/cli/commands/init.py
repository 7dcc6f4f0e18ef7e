"""`mtlsctl init`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from mtlsctl.operations.scaffold import Scaffolded


def register(app: typer.Typer) -> None:
    app.command("init")(init)


@command(formats=("text", "json"))
def init(
    settings: Settings,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", show_default=False)] = Path(),
    *,
    name: Annotated[str | None, typer.Option("--name", help="The estate's name, at most 16 characters.")] = None,
    example: Annotated[str, typer.Option("--example", metavar="calendar|empty", help="What to begin with.")] = (
        "calendar"
    ),
    state: Annotated[str | None, typer.Option("--state", metavar="URL", help="State: sqlite:PATH.")] = None,
    new_lineage: Annotated[bool, typer.Option("--new-lineage", help="Begin anew, with a new empty state.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write FILE.new beside files that are there.")] = False,
) -> int:
    """Begin a repository of inventories: files, lineage, an empty state and an encryption key outside it."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.init import scaffolded_document, scaffolded_text
    from mtlsctl.cli.wiring import clock
    from mtlsctl.operations.scaffold import EXAMPLES, Wish, scaffold

    if example not in EXAMPLES:
        raise UsageError(f"--example is {' or '.join(EXAMPLES)}", code="M9101")
    terminal = settings.terminal
    wish = Wish(
        folder=folder,
        name=name or _asked_name(settings, folder),
        example=example,
        state=state,
        new_lineage=new_lineage,
        force=force,
    )
    made: Scaffolded = scaffold(wish, environ=os.environ, clock=clock)
    text = json_text(scaffolded_document(made)) if settings.format == "json" else scaffolded_text(made, terminal.page)
    terminal.result(text)
    return 0


def _asked_name(settings: Settings, folder: Path) -> str | None:
    """Only where nothing else can decide, and somebody is there to answer."""
    from mtlsctl.operations.project import FILE
    from mtlsctl.operations.scaffold import default_name

    if (folder / FILE).is_file() or default_name(folder) is not None or not settings.terminal.interactive:
        return None
    return settings.terminal.ask("Name of the estate (at most 16 characters): ") or None
