"""`mtlsctl completion SHELL`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

SHELLS = ("bash", "zsh", "fish", "powershell")


def register(app: typer.Typer) -> None:
    app.command("completion")(completion)


@command()
def completion(settings: Settings, shell: Annotated[str, typer.Argument(metavar="|".join(SHELLS))]) -> int:
    """Print a completion script: mtlsctl completion bash > /etc/bash_completion.d/mtlsctl."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # typer has no other door

    if shell not in SHELLS:
        raise UsageError(f"completion knows {', '.join(SHELLS)}", code="M9101")
    script = get_completion_script(prog_name="mtlsctl", complete_var="_MTLSCTL_COMPLETE", shell=shell)
    settings.terminal.out.write(script.rstrip("\n") + "\n")
    return 0
