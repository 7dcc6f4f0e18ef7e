"""`mtlsctl rollback`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from mtlsctl.operations.rollback import RolledBack, WayBack

PARTIAL = 3


def register(app: typer.Typer) -> None:
    app.command("rollback")(rollback)


@command(formats=("text", "json"), estate=True)
def rollback(
    settings: Settings,
    *,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="HOSTS", help="Only these hosts: web1,db*.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="SERVICES", help="Only these services: mail,pay*.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also when calls break that work now.")] = False,
) -> int:
    """Return to the releases that were live before the last apply. The inventory stays: the next apply goes forward."""
    from mtlsctl.cli.pace import scope_of
    from mtlsctl.cli.progress import progress_of
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.rollback import rollback_document, rollback_text
    from mtlsctl.cli.wiring import open_workspace
    from mtlsctl.operations.rollback import RollbackWishes
    from mtlsctl.operations.rollback import rollback as run

    terminal = settings.terminal
    if not (yes or terminal.interactive):
        raise UsageError("nobody can be asked here, so nothing goes back", code="M9104", help="mtlsctl rollback --yes")
    workspace = open_workspace(settings)
    with progress_of(terminal, settings.format) as progress:
        wishes = RollbackWishes(
            scope=scope_of(limit or (), target or ()),
            approve=_Approval(settings, ask=not yes),
            report=progress,
            force=force,
        )
        done = run(workspace, wishes)
    if settings.format == "json":
        terminal.result(json_text(rollback_document(done)))
    else:
        terminal.result(rollback_text(done, terminal.page))
    return _exit_code(done)


def _exit_code(done: RolledBack) -> int:
    if not done.approved:
        return 1
    return 0 if done.is_whole else PARTIAL


class _Approval:
    """Shows the way back, and asks where somebody must say yes."""

    def __init__(self, settings: Settings, *, ask: bool) -> None:
        self._settings, self._ask = settings, ask

    def __call__(self, way: WayBack) -> bool:
        from mtlsctl.cli.views.rollback import way_text

        terminal = self._settings.terminal
        text = way_text(way, terminal.page)
        if self._settings.format == "text":
            terminal.result(text)
        else:
            terminal.complain(text)
        return not self._ask or terminal.ask("\nGo back? Only yes is taken for yes: ") == "yes"
