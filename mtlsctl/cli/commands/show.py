"""`mtlsctl show [PLAN]`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command


def register(app: typer.Typer) -> None:
    app.command("show")(show)


@command(formats=("text", "json"), estate=True)
def show(
    settings: Settings,
    plan: Annotated[Path | None, typer.Argument(metavar="[PLAN]", show_default=False)] = None,
    *,
    anchors: Annotated[
        str | None,
        typer.Option("--anchors", metavar="SERVICE", help="Print the certificates by which this service is believed."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every column.")] = False,
) -> int:
    """Show what is live, a saved plan, or what somebody outside has to trust."""
    del full
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.show_text import saved_plan_text, show_document, show_text
    from mtlsctl.cli.wiring import clock, reading

    terminal = settings.terminal
    if plan is not None:
        from mtlsctl.operations.saved_plan import load_saved_plan

        saved = load_saved_plan(plan, clock())
        terminal.result(json_text(saved.document) if settings.format == "json" else saved_plan_text(saved.document))
        return 0
    with reading(settings) as store:
        state = store.snapshot()
        if anchors is not None:
            from mtlsctl.cli.views.show_text import anchors_document, anchors_text
            from mtlsctl.operations.outside import anchors_to_hand_out

            found = anchors_to_hand_out(store, state, anchors)
            terminal.result(json_text(anchors_document(found)) if settings.format == "json" else anchors_text(found))
            return 0
    text = json_text(show_document(state)) if settings.format == "json" else show_text(state, clock(), terminal.page)
    terminal.result(text)
    return 0
