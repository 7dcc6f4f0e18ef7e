"""`mtlsctl status`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command

DRIFTED = 2


def register(app: typer.Typer) -> None:
    app.command("status")(status)


@command(formats=("text", "json"), estate=True)
def status(
    settings: Settings,
    *,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Look at the hosts and at what their processes serve.")
    ] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when a host is not as it was left; with --refresh.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="List everything.")] = False,
) -> int:
    """One screen: CAs, certificates, what is due, what was done last; with --refresh what is on disk and served."""
    del full
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.status_text import status_document, status_text
    from mtlsctl.cli.wiring import open_workspace
    from mtlsctl.operations.status import status as read

    found = read(open_workspace(settings, with_inventory=refresh), look=refresh)
    terminal = settings.terminal
    terminal.result(
        json_text(status_document(found)) if settings.format == "json" else status_text(found, terminal.page)
    )
    return DRIFTED if detailed_exitcode and found.refreshed and not found.refreshed.is_in_sync else 0
