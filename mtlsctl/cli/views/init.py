"""What `init` made, where the key lies, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, counted, escaped

if TYPE_CHECKING:
    from mtlsctl.cli.views.page import Page
    from mtlsctl.operations.scaffold import Scaffolded


def scaffolded_text(made: Scaffolded, page: Page) -> str:
    lines = [_headline(made), ""]
    lines += [f"  {page.paint(page.symbol('add'), Tone.ADD)} {escaped(str(path))}" for path in made.written]
    if made.kept:
        lines += [f"  {page.symbol('none')} {escaped(str(path))}  kept as it is" for path in made.kept]
    lines += [
        "",
        f"State           {escaped(str(made.state))}{'' if made.state_is_new else '  (was there)'}",
        f"Encryption key  {escaped(made.key_place)}{'' if made.key_is_new else '  (was there)'}",
        "                Keep a copy of it in another place: without it the CA keys in the state are lost.",
        "",
        "Next:",
    ]
    place = "" if str(made.folder) == "." else f"-C {escaped(str(made.folder))} "
    commands = (("validate", "check the inventory"), ("plan", "show what would be done"), ("apply", "do it"))
    lines += [f"  mtlsctl {place}{name:<10}{meaning}" for name, meaning in commands]
    return "\n".join(lines) + "\n"


def _headline(made: Scaffolded) -> str:
    if not made.written:
        return f"{made.name} is a repository of inventories already; nothing was changed."
    again = "" if made.lineage_is_new else " (it was there; what was missing was added)"
    return f"{made.name}: {counted(len(made.written), 'file')} written, lineage {made.lineage}{again}"


def scaffolded_document(made: Scaffolded) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "init",
        "tool_version": __version__,
        "name": made.name,
        "lineage": made.lineage,
        "state": str(made.state),
        "key_place": made.key_place,
        "written": [str(path) for path in made.written],
        "kept": [str(path) for path in made.kept],
        "diagnostics": [],
    }
