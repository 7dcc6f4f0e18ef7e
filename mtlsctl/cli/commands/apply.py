"""`mtlsctl apply [PLAN]`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from mtlsctl.cli.terminal import Terminal
    from mtlsctl.operations.apply import Applied
    from mtlsctl.operations.plan import Planned
    from mtlsctl.operations.progress import Event
    from mtlsctl.operations.workspace import Workspace


def register(app: typer.Typer) -> None:
    app.command("apply")(apply)


@command(formats=("text", "json"), estate=True)
def apply(
    settings: Settings,
    plan: Annotated[Path | None, typer.Argument(metavar="[PLAN]", show_default=False)] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    expect_fingerprint: Annotated[
        str | None, typer.Option("--expect-fingerprint", metavar="F", help="Refuse any other plan.")
    ] = None,
    lock_timeout: Annotated[
        str, typer.Option("--lock-timeout", metavar="DURATION", help="How long to wait for the state.")
    ] = "10s",
    full: Annotated[bool, typer.Option("--full", help="Show the whole plan.")] = False,
) -> int:
    """Make it so: plan, ask, issue, publish wave by wave. Applied twice it changes nothing."""
    del full
    from mtlsctl.cli.wiring import clock, open_workspace
    from mtlsctl.operations.apply import Wishes
    from mtlsctl.operations.apply import apply as run
    from mtlsctl.operations.saved_plan import load_saved_plan

    terminal = settings.terminal
    seconds = seconds_of(lock_timeout)
    saved = None if plan is None else load_saved_plan(plan, clock())
    if not (yes or saved or terminal.interactive):
        raise UsageError(
            "nobody can be asked here, so nothing is applied",
            code="M9104",
            help="mtlsctl apply --yes, or apply a plan that was saved with mtlsctl plan --out FILE",
        )
    workspace = open_workspace(settings)
    began = time.monotonic()
    wishes = Wishes(
        approve=_Approval(settings, workspace, ask=not (yes or saved is not None)),
        report=Progress(terminal),
        saved=saved,
        expect_fingerprint=expect_fingerprint,
        lock_timeout_seconds=seconds,
    )
    applied = run(workspace, wishes)
    elapsed = timedelta(seconds=time.monotonic() - began)
    return _told(settings, terminal, workspace, applied, elapsed)


def _told(settings: Settings, terminal: Terminal, workspace: Workspace, applied: Applied, elapsed: timedelta) -> int:
    from mtlsctl.cli.commands.plan import screen_of
    from mtlsctl.cli.views.apply import applied_document, applied_text, exit_code_of
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.plan_text import nothing_to_change

    code = exit_code_of(applied)
    terminal.detail(2, lambda: _releases(settings, applied))
    if settings.format == "json":
        terminal.result(json_text(applied_document(applied)))
    elif not applied.planned.plan.has_changes:
        terminal.result(nothing_to_change(screen_of(workspace, applied.planned)))
    elif applied.approved:
        terminal.result(applied_text(applied, terminal.page, elapsed=elapsed))
    if not applied.approved:
        terminal.complain("Nothing was applied: the answer was not yes.\n")
    return code


def _releases(settings: Settings, applied: Applied) -> str:
    from mtlsctl.cli.views.verbose import releases_text
    from mtlsctl.cli.wiring import reading

    with reading(settings) as store:
        return releases_text(applied.processes, store.snapshot())


def seconds_of(duration: str) -> float:
    """`90s`, `15m`, `24h`, `30d`, or a bare number of seconds; raises UsageError for anything else."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (duration[:-1], units[duration[-1]]) if duration[-1:] in units else (duration, 1)
    if not (number.isascii() and number.isdigit() and len(number) < 8):  # noqa: PLR2004  no overflow of a timer
        raise UsageError(f"{duration} is not a duration such as 90s, 15m or 24h", code="M9101")
    return float(int(number) * unit)


class _Approval:
    """Shows the plan, and asks where somebody must say yes."""

    def __init__(self, settings: Settings, workspace: Workspace, *, ask: bool) -> None:
        self._settings, self._workspace, self._ask = settings, workspace, ask

    def __call__(self, planned: Planned) -> bool:
        from mtlsctl.cli.commands.plan import screen_of, warn
        from mtlsctl.cli.views.plan_text import plan_text

        terminal = self._settings.terminal
        warn(terminal, self._workspace, planned)
        text = plan_text(screen_of(self._workspace, planned, is_applied_now=True), terminal.page)
        if self._settings.format == "text":
            terminal.result(text)
        elif self._ask:
            terminal.complain(text)
        if not self._ask or not planned.plan.has_changes:
            return True
        return terminal.ask("\nApply these changes? Only yes is taken for yes: ") == "yes"


class Progress:
    """Events to standard error: lines for eyes on a terminal, lines for a log elsewhere."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __call__(self, event: Event) -> None:
        from mtlsctl.cli.views.apply import event_line, event_text

        if self._terminal.live:
            self._terminal.say(event_text(event, self._terminal.err_page))
        else:
            self._terminal.say(event_line(event))
