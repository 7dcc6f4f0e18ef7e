"""`mtlsctl hosts list|check|trust`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from mtlsctl.cli.options import Settings, command
from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from mtlsctl.operations.hosts import Shown

UNFIT = 3
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")


def register(app: typer.Typer) -> None:
    hosts = typer.Typer(rich_markup_mode=None, help="The hosts: which there are, what is found there, whose keys.")
    for name, function in (("list", list_hosts), ("check", check), ("trust", trust)):
        hosts.command(name)(function)
    app.add_typer(hosts, name="hosts")


@command(formats=("text", "json"), estate=True)
def list_hosts(settings: Settings) -> int:
    """Which hosts the inventory declares, and how they are reached."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.hosts import hosts_document, hosts_text
    from mtlsctl.cli.wiring import open_workspace

    inventory = open_workspace(settings).load().inventory
    terminal = settings.terminal
    is_json = settings.format == "json"
    terminal.result(json_text(hosts_document(inventory)) if is_json else hosts_text(inventory))
    return 0


@command(formats=("text", "json"), estate=True)
def check(
    settings: Settings, names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES]", show_default=False)] = None
) -> int:
    """Log in and look: tools, programs, room, clock, ports. Changes nothing; exit 3 when a host is not fit."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.hosts import check_document, check_text
    from mtlsctl.cli.wiring import open_workspace
    from mtlsctl.operations.hosts import check_hosts

    reports = check_hosts(open_workspace(settings), names or ())
    code = 0 if all(one.is_fit for one in reports) else UNFIT
    terminal = settings.terminal
    if settings.format == "json":
        terminal.result(json_text(check_document(reports, code)))
    else:
        terminal.result(check_text(reports, terminal.page))
    return code


@command(estate=True)
def trust(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="SHA256:...", help="Do not ask: the key has to be this one."),
    ] = None,
) -> int:
    """Show the key of a host, or of a jump host, and write it down as known once you say that it is the right one."""
    from mtlsctl.cli.wiring import open_workspace
    from mtlsctl.operations.hosts import show_key, trust_key

    if fingerprint is not None and _FINGERPRINT.fullmatch(fingerprint) is None:
        raise UsageError("--fingerprint is SHA256: and 43 characters, as `ssh-keygen -lf FILE` prints it", code="M9101")
    terminal = settings.terminal
    shown = show_key(open_workspace(settings), name)
    if fingerprint is None and not shown.is_known and not _is_right(settings, shown):
        terminal.complain("Nothing was written down: the answer was not yes.\n")
        return 1
    trusted = trust_key(shown, fingerprint=fingerprint)
    said = "is known from now on by" if trusted.is_new else "is known already by"
    terminal.result(f"{name} {said} {trusted.key.short_kind} {trusted.key.fingerprint}  ({trusted.file})\n")
    return 0


def _is_right(settings: Settings, shown: Shown) -> bool:
    """Ask; raises UsageError M9104 where nobody can be asked."""
    from mtlsctl.cli.views.page import escaped

    terminal, key = settings.terminal, shown.key
    what = f"{key.short_kind} {key.fingerprint}"
    if not terminal.interactive:
        raise UsageError(
            f"nobody can be asked here whether this is the key of {shown.host.name}: {what}",
            code="M9104",
            help=f"once you know that it is: mtlsctl hosts trust {shown.host.name} --fingerprint {key.fingerprint}",
        )
    terminal.complain(
        f"{escaped(shown.host.name)} at {escaped(shown.place)} shows the key\n\n    {what}\n\n"
        "Compare it with what the host itself says, on its console or from whoever made it:\n"
        f"    ssh-keygen -lf /etc/ssh/ssh_host_{key.short_kind.lower()}_key.pub\n\n"
    )
    return terminal.ask("Is it the same? Only yes is taken for yes: ") == "yes"
