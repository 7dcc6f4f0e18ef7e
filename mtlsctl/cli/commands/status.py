"""`mtlsctl status`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import InventoryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

_OPERATIONS = 20


def register(app: typer.Typer) -> None:
    app.command("status")(status)


@command(formats=("text", "json"), estate=True)
def status(
    settings: Settings, *, full: Annotated[bool, typer.Option("--full", help="List everything.")] = False
) -> int:
    """One screen: CAs, certificates, what is due, what was done last."""
    del full
    from mtlsctl.cli.views.plan_json import json_text
    from mtlsctl.cli.views.status_text import StatusScreen, status_document, status_text
    from mtlsctl.cli.wiring import clock, reading

    with reading(settings) as store:
        screen = StatusScreen(
            state=store.snapshot(),
            operations=store.operations(_OPERATIONS),
            signatures=store.signatures(),
            now=clock(),
            renew_before=_renew_before(settings),
        )
    terminal = settings.terminal
    terminal.result(
        json_text(status_document(screen)) if settings.format == "json" else status_text(screen, terminal.page)
    )
    return 0


def _renew_before(settings: Settings) -> Mapping[str, timedelta]:
    """An inventory that cannot be read does not hide the state: then a third of each lifetime counts."""
    from mtlsctl.cli.wiring import inventory_of, project_of
    from mtlsctl.inventory import load_inventory
    from mtlsctl.render.catalog import load_catalog, runtimes_of

    project = project_of(settings)
    try:
        runtimes = runtimes_of(load_catalog())
        loaded = load_inventory(inventory_of(settings, project), runtimes, root=project.root)
    except (InventoryError, UsageError):
        return {}
    return {service.name: service.certificate.renew_before for service in loaded.inventory.services.values()}
