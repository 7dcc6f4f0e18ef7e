"""`mtlsctl explain CODE`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


@command()
def explain(
    settings: Settings,
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", show_default=False)] = None,
) -> int:
    """Say what a code means, and what to do; without a code list them all."""
    from mtlsctl.cli.codes import explanation, listing

    settings.terminal.result(listing() if code is None else explanation(code))
    return 0
