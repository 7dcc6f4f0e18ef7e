"""`mtlsctl journal`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from collections import deque
from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command


def register(app: typer.Typer) -> None:
    app.command("journal")(journal)


@command(formats=("text", "json"), estate=True)
def journal(
    settings: Settings,
    *,
    last: Annotated[int, typer.Option("--last", metavar="N", min=0, help="Only the last N entries; 0 shows all.")] = 0,
) -> int:
    """What was done, oldest first: append-only, each entry chained to the one before."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.journal import journal_document, journal_line
    from mtlsctl.cli.wiring import reading

    with reading(settings) as store:
        entries = deque(store.journal(), maxlen=last or None)
    terminal = settings.terminal
    if settings.format == "json":
        document = {"format_version": "1.0", "kind": "journal", "entries": [journal_document(one) for one in entries]}
        terminal.result(json_text(document))
    else:
        terminal.result("".join(journal_line(one) + "\n" for one in entries))
    return 0
