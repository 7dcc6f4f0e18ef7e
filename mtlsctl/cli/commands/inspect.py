"""`mtlsctl inspect FILE|HOST:PORT`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from mtlsctl.model.secret import Secret
    from mtlsctl.pki.contents import Passwords

_PASSWORD_LIMIT = 4096


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


@command(formats=("text", "json"), estate=True)
def inspect(
    settings: Settings,
    target: Annotated[str, typer.Argument(metavar="FILE|HOST:PORT", help="A file (- reads stdin), or a server.")],
    *,
    server_name: Annotated[
        str | None, typer.Option("--server-name", metavar="NAME", help="The name to ask for and to find in it.")
    ] = None,
    bearer: Annotated[
        str | None,
        typer.Option("--as", metavar="SERVICE[@HOST]", help="Call the server with this service's delivered key."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="Call the server with this chain (PEM).")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Its private key; of a file, the key that is to belong to it."),
    ] = None,
    password_env: Annotated[
        str | None, typer.Option("--password-env", metavar="VARIABLE", help="The variable with the file's password.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", metavar="PATH", help="The file with the file's password.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="List everything.")] = False,
) -> int:
    """Say what a file or a server is, who trusts it in this estate, and what is wrong with it."""
    del full
    import sys

    from mtlsctl.cli.wiring import clock, estate_at_hand
    from mtlsctl.operations.inspect import Asked
    from mtlsctl.operations.inspect import inspect as look

    passwords = _passwords(settings, password_env, password_file)
    asked = Asked(target=target, server_name=server_name, certificate=certificate, key=key, bearer=bearer)
    with estate_at_hand(settings) as at_hand:
        found = look(asked, at_hand, passwords, clock(), sys.stdin.buffer)
    terminal = settings.terminal
    if settings.format == "json":
        from mtlsctl.cli.views.document import json_text
        from mtlsctl.cli.views.inspect_json import inspect_document

        terminal.result(json_text(inspect_document(found)))
    else:
        from mtlsctl.cli.views.inspect_text import inspect_text

        terminal.result(inspect_text(found, terminal.page))
    return found.exit_code


def _passwords(settings: Settings, variable: str | None, file: Path | None) -> Passwords:
    """Never from an argument: those are seen by everybody on the machine."""
    from mtlsctl.model.secret import Secret
    from mtlsctl.pki.contents import Passwords

    if variable is not None and file is not None:
        raise UsageError("--password-env and --password-file are two ways to the same", code="M9108")
    if variable is not None:
        value = os.environb.get(os.fsencode(variable))
        if value is None:
            raise UsageError(f"the variable {variable[:100]} after --password-env is not set", code="M9108")
        return Passwords(given=Secret(value))
    if file is not None:
        return Passwords(given=_first_line(file))
    terminal = settings.terminal
    if not terminal.interactive:
        return Passwords()

    def ask() -> Secret | None:
        answer = terminal.ask_secret("Password of the file (nothing to do without): ")
        return Secret(answer.encode()) if answer else None

    return Passwords(ask=ask)


def _first_line(file: Path) -> Secret:
    """What stands before the line's end: editors put one there, passwords have none."""
    from mtlsctl.model.secret import Secret

    with file.open("rb") as opened:
        content = opened.read(_PASSWORD_LIMIT + 1)
    line = content.split(b"\n", 1)[0].removesuffix(b"\r")
    if len(line) > _PASSWORD_LIMIT:
        raise UsageError(f"the first line of {file} is too long for a password", code="M9108")
    return Secret(line)
