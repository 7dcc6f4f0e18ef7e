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
    from mtlsctl.operations.apply import Applied, Scope
    from mtlsctl.operations.plan import Planned
    from mtlsctl.operations.workspace import Workspace


def register(app: typer.Typer) -> None:
    app.command("apply")(apply)


@command(formats=("text", "json", "ndjson"), estate=True)
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
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="HOSTS", help="Only these hosts: web1,db*.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="SERVICES", help="Only these services: mail,pay*.")
    ] = None,
    forks: Annotated[
        str | None,
        typer.Option("--forks", metavar="N", help="Hosts at a time: 32, or 1 if all are folders.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="1,10%,100%", help="In each wave one host first, then a tenth, then all."),
    ] = None,
    max_fail: Annotated[
        str | None, typer.Option("--max-fail", metavar="N", help="Begin nothing new once more hosts failed.")
    ] = None,
    no_reload: Annotated[
        bool, typer.Option("--no-reload", help="Switch the files; reloading is yours before the next apply.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show the whole plan.")] = False,
) -> int:
    """Make it so: plan, ask, issue, publish wave by wave. Applied twice it changes nothing."""
    del full
    from mtlsctl.cli.pace import pace_of, scope_of
    from mtlsctl.cli.progress import progress_of
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
    scope, pace = scope_of(limit or (), target or ()), pace_of(forks, batch, max_fail, workspace.environ)
    if settings.format == "ndjson":
        _begin_stream(terminal)
    with progress_of(terminal, settings.format) as progress:
        wishes = Wishes(
            approve=_Approval(settings, workspace, scope, ask=not (yes or saved is not None)),
            report=progress,
            saved=saved,
            expect_fingerprint=expect_fingerprint,
            lock_timeout_seconds=seconds,
            pace=pace,
            scope=scope,
            reload=not no_reload,
        )
        applied = run(workspace, wishes)
    elapsed = timedelta(seconds=time.monotonic() - began)
    return _told(settings, terminal, workspace, applied, elapsed)


def _begin_stream(terminal: Terminal) -> None:
    from mtlsctl import __version__
    from mtlsctl.cli.progress import record_line

    terminal.result(record_line({"type": "version", "format_version": "1.0", "tool_version": __version__}))


def _told(settings: Settings, terminal: Terminal, workspace: Workspace, applied: Applied, elapsed: timedelta) -> int:
    from mtlsctl.cli.commands.plan import screen_of
    from mtlsctl.cli.progress import record_line
    from mtlsctl.cli.views.apply import applied_document, applied_text, exit_code_of, summary_record
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.plan_text import nothing_to_change

    code = exit_code_of(applied)
    terminal.detail(2, lambda: _releases(settings, applied))
    if settings.format == "json":
        terminal.result(json_text(applied_document(applied)))
    elif settings.format == "ndjson":
        terminal.result(record_line(summary_record(applied)))
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

    def __init__(self, settings: Settings, workspace: Workspace, scope: Scope, *, ask: bool) -> None:
        self._settings, self._workspace, self._scope, self._ask = settings, workspace, scope, ask

    def __call__(self, planned: Planned) -> bool:
        from mtlsctl.cli.commands.plan import screen_of, warn
        from mtlsctl.cli.views.apply import left_out_text
        from mtlsctl.cli.views.plan_text import plan_text

        terminal = self._settings.terminal
        warn(terminal, self._workspace, planned)
        text = plan_text(screen_of(self._workspace, planned, is_applied_now=True), terminal.page)
        text += left_out_text(planned.plan, self._scope, terminal.page)
        if self._settings.format == "ndjson":
            _stream_plan(terminal, planned)
        if self._settings.format == "text":
            terminal.result(text)
        elif self._ask:
            terminal.complain(text)
        if not self._ask or not planned.plan.has_changes:
            return True
        return terminal.ask("\nApply these changes? Only yes is taken for yes: ") == "yes"


def _stream_plan(terminal: Terminal, planned: Planned) -> None:
    from mtlsctl.cli.progress import record_line
    from mtlsctl.operations.saved_plan import plan_document

    document = plan_document(planned.plan, planned.state, speculative=False)
    kept = {name: document[name] for name in ("estate", "lineage", "serial", "fingerprint", "has_changes", "summary")}
    terminal.result(record_line({"type": "plan_summary", **kept}))
