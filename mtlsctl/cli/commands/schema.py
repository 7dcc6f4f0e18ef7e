"""`mtlsctl schema inventory|plan`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command("schema")(schema)


@command()
def schema(settings: Settings, of: Annotated[str, typer.Argument(metavar="[inventory|plan]")] = "inventory") -> int:
    """Print a JSON Schema (draft 7): of the inventory for editors, or of `plan -o json`."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.plan_json import plan_schema

    if of not in ("inventory", "plan"):
        raise UsageError("schema knows inventory and plan", code="M9101")
    if of == "plan":
        settings.terminal.result(json_text(plan_schema()))
        return 0
    from mtlsctl.inventory import json_schema

    settings.terminal.result(json_text(json_schema()))
    return 0
