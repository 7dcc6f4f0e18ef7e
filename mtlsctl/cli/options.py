"""The flags that every command has, added to its signature in one place."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtlsctl.cli.terminal import Terminal

    Command = Callable[..., int]
    P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the flags that all commands share say, with the environment behind them."""

    chdir: Path | None
    inventory: Path | None
    state: str | None
    format: str
    color: str
    quiet: bool
    verbose: int
    no_input: bool
    ascii: bool
    full: bool = False

    @property
    def terminal(self) -> Terminal:
        from mtlsctl.cli.terminal import open_terminal

        return open_terminal(
            color=self.color,
            ascii=self.ascii,
            quiet=self.quiet,
            verbose=self.verbose,
            no_input=self.no_input,
            full=self.full,
            environ=os.environ,
        )


Call = partial[int]
"""A command with its flags, read and not yet run: running it lies outside the parser's own error handling."""

_SHARED: dict[str, tuple[Any, Any]] = {
    "chdir": (Path | None, typer.Option("-C", "--chdir", metavar="DIR", help="Work as if started in DIR.")),
    "quiet": (bool, typer.Option("-q", "--quiet", help="Only the result and errors.")),
    "verbose": (int, typer.Option("-v", "--verbose", count=True, help="Say what is used; -vv: each step.")),
    "no_input": (bool, typer.Option("--no-input", help="Never ask.")),
    "color": (str, typer.Option("--color", metavar="auto|always|never", help="Colour.")),
    "ascii": (bool, typer.Option("--ascii", help="No symbols outside ASCII.")),
}
_DEFAULTS = {"chdir": None, "quiet": False, "verbose": 0, "no_input": False, "color": "auto", "ascii": False}
_INVENTORY = typer.Option("-i", "--inventory", metavar="PATH", help="Inventory: a file or a folder.")
_STATE = typer.Option("--state", metavar="URL", help="State: sqlite:PATH.")


def command(*, formats: tuple[str, ...] = ("text",), estate: bool = False) -> Callable[[Command], Callable[..., Call]]:
    """Give a command the shared flags; with `estate` also where the inventory and the state are.

    The first parameter of the command is its Settings. What the decorated function returns is a Call.
    """

    def decorate(function: Command) -> Callable[..., Call]:
        shared = _shared_parameters(formats, estate=estate)

        @wraps(function)
        def parsed(**values: Any) -> Call:
            given = {name: values.pop(name) for name in shared}
            settings = _settings(given, formats, full=bool(values.get("full")))
            return partial(
                _in_its_folder,
                partial(_told, settings, partial(function, settings, **values), estate=estate),
                settings.chdir,
            )

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + list(shared.values())
        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {one.name: one.annotation for one in parameters}
        del parsed.__wrapped__  # typer would read the hints of the function below it
        return parsed

    return decorate


def _in_its_folder(call: Call, folder: Path | None) -> int:
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UsageError(f"--chdir {folder}: {error.strerror}", code="M9101") from None
    return call()


def _told(settings: Settings, call: Call, *, estate: bool) -> int:
    """With `-v` what is used is said before it is."""
    if settings.verbose:
        from mtlsctl.cli.wiring import tell_places

        tell_places(settings, estate=estate)
    return call()


def _shared_parameters(formats: tuple[str, ...], *, estate: bool) -> dict[str, inspect.Parameter]:
    options = dict(_SHARED)
    if estate:
        options = {"inventory": (Path | None, _INVENTORY), "state": (str | None, _STATE), **options}
    if len(formats) > 1:
        shown = "|".join(formats)
        option = typer.Option("-o", "--format", metavar=shown, help="Form of the result.", show_default=False)
        options = {"format": (str | None, option), **options}
    return {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=Annotated[kind, option]
        )
        for name, (kind, option) in options.items()
    }


def _settings(given: dict[str, Any], formats: tuple[str, ...], *, full: bool) -> Settings:
    if given["color"] not in {"auto", "always", "never"}:
        raise UsageError("--color is auto, always or never", code="M9101")
    chdir = given["chdir"] or os.environ.get("MTLSCTL_CHDIR")
    return Settings(
        chdir=Path(chdir) if chdir else None,
        inventory=given.get("inventory"),
        state=given.get("state") or os.environ.get("MTLSCTL_STATE") or None,
        format=_format(given.get("format"), formats),
        color=given["color"],
        quiet=given["quiet"],
        verbose=given["verbose"],
        no_input=given["no_input"],
        ascii=given["ascii"],
        full=full,
    )


def _format(asked: str | None, formats: tuple[str, ...]) -> str:
    """The flag must be one of the command's formats; the environment's wish counts where it is one."""
    if asked is None:
        wish = os.environ.get("MTLSCTL_FORMAT", "")
        return wish if wish in formats else formats[0]
    if asked not in formats:
        raise UsageError(f"-o {asked}: this command prints {', '.join(formats)}", code="M9101")
    return asked
