"""`mtlsctl state show|backup|restore|check`."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from mtlsctl.cli.options import Settings, command


def register(app: typer.Typer) -> None:
    state = typer.Typer(rich_markup_mode=None, help="The state: what it holds, copies of it, whether it is sound.")
    for name, function in (("show", show), ("backup", backup), ("restore", restore), ("check", check)):
        state.command(name)(function)
    app.add_typer(state, name="state")


@command(formats=("text", "json"), estate=True)
def show(settings: Settings) -> int:
    """What the state is of, and how much it holds."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.wiring import reading, state_place

    with reading(settings) as store:
        state = store.snapshot()
    facts: dict[str, object] = {
        "place": str(state_place(settings)),
        "estate": state.estate,
        "lineage": state.lineage,
        "serial": state.serial,
        "authorities": len(state.authorities),
        "live_instances": len(state.live),
        "hosts": len(state.hosts),
        "interrupted": state.interrupted,
    }
    terminal = settings.terminal
    if settings.format == "json":
        terminal.result(json_text({"format_version": "1.0", "kind": "state", **facts, "diagnostics": []}))
    else:
        terminal.result(
            "".join(
                f"{name.replace('_', ' '):<15} {'no' if value is None else value}\n" for name, value in facts.items()
            )
        )
    return 0


@command(estate=True)
def backup(settings: Settings, target: Annotated[Path, typer.Argument(metavar="FILE")]) -> int:
    """Write a consistent copy, 0600; never over a file that is there. The encryption key is not in it."""
    from mtlsctl.cli.wiring import reading

    with reading(settings) as store:
        store.backup(target)
    terminal = settings.terminal
    terminal.result(f"{target}\n")
    terminal.say("The encryption key is not in it: keep a copy of that in another place.\n")
    return 0


@command(estate=True)
def restore(
    settings: Settings,
    source: Annotated[Path, typer.Argument(metavar="FILE")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Also over a state with a higher serial.")] = False,
) -> int:
    """Put a backup in the place of the state, after it was checked."""
    from mtlsctl.cli.wiring import clock, project_of, state_place
    from mtlsctl.store.sqlite import restore as restore_state

    project = project_of(settings)
    place = state_place(settings)
    restore_state(source, place, lineage=project.lineage, estate=project.name, force=force, clock=clock)
    settings.terminal.result(f"{place} is what {source} held\n")
    return 0


@command(formats=("text", "json"), estate=True)
def check(settings: Settings) -> int:
    """Check pages, the journal's chain and that every signature is on record twice; exit 1 when not so."""
    from mtlsctl.cli.views.document import json_text
    from mtlsctl.cli.views.page import escaped
    from mtlsctl.cli.wiring import reading

    with reading(settings) as store:
        broken = store.check()
    terminal = settings.terminal
    if settings.format == "json":
        document = {"format_version": "1.0", "kind": "state-check", "sound": not broken, "broken": list(broken)}
        terminal.result(json_text(document))
    elif broken:
        terminal.result("".join(f"{terminal.page.symbol('fail')} {escaped(one)}\n" for one in broken))
        terminal.complain("The state does not hold together. Next: mtlsctl state restore FILE\n")
    else:
        terminal.result(f"{terminal.page.symbol('ok')} the state is sound\n")
    return 1 if broken else 0
