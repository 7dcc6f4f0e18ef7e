"""`mtlsctl verify`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from mtlsctl.cli.terminal import Terminal
    from mtlsctl.cli.views.verify_text import VerifyScreen
    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.topology import Inventory, ListenerId


def register(app: typer.Typer) -> None:
    app.command("verify")(verify)


@command(formats=("text", "json", "junit"), estate=True)
def verify(
    settings: Settings,
    *,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Load the applied files into servers of our own.")
    ] = False,
    edge: Annotated[
        list[str] | None, typer.Option("--edge", metavar="'A->B'", help="Only this call; may be given again.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the certificates made to be refused.")] = False,
    origin: Annotated[
        str, typer.Option("--from", metavar="host|controller", help="Where callers behind SSH call from.")
    ] = "host",
    full: Annotated[bool, typer.Option("--full", help="List every finding.")] = False,
) -> int:
    """Prove by real handshakes that declared callers get in and everyone else is refused."""
    del full
    from mtlsctl.cli.views.verify_text import VerifyScreen
    from mtlsctl.cli.wiring import open_workspace
    from mtlsctl.operations.verify import verify as run

    terminal = settings.terminal
    workspace = open_workspace(settings)
    began = time.monotonic()
    report = run(workspace, embedded=embedded, quick=quick, edges=tuple(edge or ()), from_hosts=_is_from_hosts(origin))
    screen = VerifyScreen(
        outcomes=report.outcomes,
        embedded=report.embedded,
        sources=_sources(report.loaded.inventory),
        edges={edge: span for edge, span in report.loaded.inventory.edges() if span is not None},
        left_out=report.left_out,
        beyond=report.beyond,
        elapsed=timedelta(seconds=time.monotonic() - began),
    )
    terminal.detail(2, lambda: _probes(screen))
    terminal.result(_printed(settings, terminal, screen))
    return screen.exit_code


def _is_from_hosts(origin: str) -> bool:
    if origin not in ("host", "controller"):
        raise UsageError(f"--from {origin} is neither host nor controller", code="M9101")
    return origin == "host"


def _probes(screen: VerifyScreen) -> str:
    from mtlsctl.cli.views.verbose import probes_text

    return probes_text(screen.outcomes)


def _sources(inventory: Inventory) -> dict[ListenerId, Span]:
    """Where each door is declared."""
    from mtlsctl.model.topology import ListenerId

    doors = ((service, listener) for service in inventory.services.values() for listener in service.listeners)
    places = {ListenerId(service.name, listener.name): listener.span or service.span for service, listener in doors}
    return {door: span for door, span in places.items() if span is not None}


def _printed(settings: Settings, terminal: Terminal, screen: VerifyScreen) -> str:
    match settings.format:
        case "json":
            from mtlsctl.cli.views.document import json_text
            from mtlsctl.cli.views.verify_json import verify_document

            return json_text(verify_document(screen))
        case "junit":
            from mtlsctl.cli.views.verify_junit import verify_junit

            return verify_junit(screen)
        case _:
            from mtlsctl.cli.views.verify_text import verify_text

            return verify_text(screen, terminal.page)
