"""`mtlsctl validate`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import dataclasses
import time
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import InventoryError


def register(app: typer.Typer) -> None:
    app.command("validate")(validate)


@command(formats=("text", "json"), estate=True)
def validate(
    settings: Settings,
    path: Annotated[Path | None, typer.Argument(metavar="[PATH]", show_default=False)] = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Show every problem.")] = False,
) -> int:
    """Check the inventory: every problem with its place, all at once. Needs no state, no key, no network."""
    del full  # in the settings already
    from mtlsctl.cli.failure import source_lines
    from mtlsctl.cli.views.diagnostics import diagnostics_text
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.validate import Checked, checked_document, checked_summary
    from mtlsctl.cli.wiring import clock, inventory_of, project_of
    from mtlsctl.inventory import load_inventory
    from mtlsctl.operations.outside import refuse_unfit
    from mtlsctl.operations.requests import check_requests
    from mtlsctl.render.catalog import load_catalog, runtimes_of

    began = time.monotonic()
    settings = dataclasses.replace(settings, inventory=path or settings.inventory)
    project = project_of(settings)
    file = inventory_of(settings, project)
    runtimes = runtimes_of(load_catalog())
    try:
        loaded = check_requests(load_inventory(file, runtimes, root=project.root))
        refuse_unfit(loaded.inventory, now=clock())
        checked = Checked(loaded.inventory, tuple(loaded.warnings), len(loaded.files), time.monotonic() - began)
    except InventoryError as error:
        checked = Checked(None, error.diagnostics, None, time.monotonic() - began)
    source = source_lines(project.root, file)
    terminal = settings.terminal
    if settings.format == "json":
        terminal.result(json_text(checked_document(checked, source)))
    else:
        problems = diagnostics_text(checked.diagnostics, terminal.page, source)
        terminal.result((problems and problems + "\n") + checked_summary(checked) + "\n")
    return checked.exit_code
