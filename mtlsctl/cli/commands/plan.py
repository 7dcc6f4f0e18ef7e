"""`mtlsctl plan`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command

if TYPE_CHECKING:
    from mtlsctl.cli.terminal import Terminal
    from mtlsctl.cli.views.plan_text import PlanScreen
    from mtlsctl.operations.plan import Planned
    from mtlsctl.operations.workspace import Workspace

CHANGES_PENDING = 2


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


@command(formats=("text", "json", "markdown"), estate=True)
def plan(
    settings: Settings,
    *,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Save it, to be applied as it is.")] = None,
    detailed_exitcode: Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 2 with changes.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Look at the hosts first, and plan for what is not as it was put there.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Leave no line out.")] = False,
) -> int:
    """Show what would change, and change nothing. Needs no key, and no network without --refresh."""
    del full
    from mtlsctl.cli.wiring import open_workspace
    from mtlsctl.operations.plan import plan as make

    workspace = open_workspace(settings)
    planned = make(workspace, look=refresh)
    terminal = settings.terminal
    warn(terminal, workspace, planned)
    if out is not None:
        from mtlsctl.operations.saved_plan import write_saved_plan

        write_saved_plan(out, planned.plan, planned.state)
    terminal.result(_printed(settings, terminal, planned, screen_of(workspace, planned, saved_as=out)))
    return CHANGES_PENDING if detailed_exitcode and planned.plan.has_changes else 0


def _printed(settings: Settings, terminal: Terminal, planned: Planned, screen: PlanScreen) -> str:
    match settings.format:
        case "json":
            from mtlsctl.cli.views.document import json_text
            from mtlsctl.operations.saved_plan import plan_document

            document = plan_document(planned.plan, planned.state, speculative=screen.saved_as is None)
            if planned.refreshed is not None:
                from mtlsctl.cli.views.drift import drift_document

                document["hosts"] = drift_document(planned.refreshed)
            return json_text(document)
        case "markdown":
            from mtlsctl.cli.views.plan_markdown import drift_markdown, plan_markdown

            return plan_markdown(screen) + (drift_markdown(planned.refreshed) if planned.refreshed else "")
        case _:
            from mtlsctl.cli.views.plan_text import plan_text

            return _drift(planned, terminal) + plan_text(screen, terminal.page)


def _drift(planned: Planned, terminal: Terminal) -> str:
    if planned.refreshed is None:
        return ""
    from mtlsctl.cli.views.drift import drift_text

    return drift_text(planned.refreshed, terminal.page)


def screen_of(
    workspace: Workspace, planned: Planned, *, saved_as: Path | None = None, is_applied_now: bool = False
) -> PlanScreen:
    """The plan with the sizes around it and what each runtime does at a switch."""
    from mtlsctl.cli.views.plan_text import PlanScreen
    from mtlsctl.model.runtime import Reload

    verbs = {
        name: "new files" if runtime.reload is Reload.NONE else "reload" for name, runtime in workspace.runtimes.items()
    }
    return PlanScreen(
        plan=planned.plan,
        services=len(planned.inventory.services),
        hosts=len(planned.inventory.hosts),
        models=tuple(sorted({service.trust for service in planned.inventory.services.values()})),
        verbs=verbs,
        saved_as=None if saved_as is None else str(saved_as),
        is_applied_now=is_applied_now,
    )


def warn(terminal: Terminal, workspace: Workspace, planned: Planned) -> None:
    """Warnings of the inventory and of the plan, beside the result; with `-vv` each host and step."""
    terminal.detail(2, lambda: _steps(planned))
    warnings = (*planned.loaded.warnings, *planned.plan.warnings)
    if not warnings or terminal.quiet:
        return
    from mtlsctl.cli.failure import source_lines
    from mtlsctl.cli.views.diagnostics import diagnostics_text

    terminal.say(
        diagnostics_text(warnings, terminal.err_page, source_lines(workspace.project.root, workspace.inventory_path))
        + "\n"
    )


def _steps(planned: Planned) -> str:
    from mtlsctl.cli.views.verbose import hosts_text, steps_text

    return hosts_text(planned.inventory.hosts) + steps_text(planned.plan)
