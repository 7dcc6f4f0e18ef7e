"""`mtlsctl runtimes` and `mtlsctl runtimes lint FOLDER`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtlsctl.cli.options import Call


def register(app: typer.Typer) -> None:
    runtimes = typer.Typer(rich_markup_mode=None, help="The runtimes that can be configured, and a check of a folder.")
    runtimes.callback(invoke_without_command=True)(_without_subcommand())
    runtimes.command("lint")(lint)
    app.add_typer(runtimes, name="runtimes")


@command(formats=("text", "json"))
def show(settings: Settings) -> int:
    """List the runtimes: what each can do, and its settings."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.runtimes import runtimes_document, runtimes_text
    from mtlsctl.render.catalog import load_catalog, runtimes_of

    terminal = settings.terminal
    runtimes = runtimes_of(load_catalog())
    text = (
        json_text(runtimes_document(runtimes)) if settings.format == "json" else runtimes_text(runtimes, terminal.page)
    )
    terminal.result(text)
    return 0


def _without_subcommand() -> Callable[..., Call | None]:
    """`show` with typer's context before its flags, so that `lint` can go its own way."""

    def runtimes(context: typer.Context, **flags: object) -> Call | None:
        return None if context.invoked_subcommand else show(**flags)

    flags = inspect.signature(show).parameters.values()
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    runtimes.__signature__ = inspect.Signature([context, *flags])  # type: ignore[attr-defined]
    runtimes.__annotations__ = {"context": typer.Context} | {one.name: one.annotation for one in flags}
    return runtimes


@command(formats=("text", "json"))
def lint(settings: Settings, folder: Annotated[Path, typer.Argument(metavar="FOLDER")]) -> int:
    """Check a runtime folder: manifest, templates, variables, quoting, cases."""
    from mtlsctl.cli.failure import source_lines
    from mtlsctl.cli.views.diagnostics import diagnostics_text, summary_of
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.validate import Checked, checked_document
    from mtlsctl.render.lint import lint_folder

    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", code="M9101", help="mtlsctl runtimes lint FOLDER")
    checked = Checked(None, tuple(lint_folder(folder)), None, 0)
    source = source_lines(Path.cwd(), folder)
    terminal = settings.terminal
    if settings.format == "json":
        terminal.result(json_text(checked_document(checked, source)))
    else:
        problems = diagnostics_text(checked.diagnostics, terminal.page, source)
        terminal.result(f"{problems and problems + chr(10)}{folder}: {summary_of(checked.diagnostics)}\n")
    return checked.exit_code
