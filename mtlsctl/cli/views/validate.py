"""The end of a validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mtlsctl import __version__
from mtlsctl.cli.views.diagnostics import diagnostic_json, summary_of
from mtlsctl.cli.views.page import counted
from mtlsctl.model.diagnostic import Severity

if TYPE_CHECKING:
    from mtlsctl.cli.views.diagnostics import SourceLine
    from mtlsctl.model.diagnostic import Diagnostic
    from mtlsctl.model.topology import Inventory


class Checked(NamedTuple):
    """`inventory` and `files` are None where it could not be read to the end."""

    inventory: Inventory | None
    diagnostics: tuple[Diagnostic, ...]
    files: int | None
    seconds: float

    @property
    def exit_code(self) -> int:
        return 7 if any(one.severity is Severity.ERROR for one in self.diagnostics) else 0


def checked_summary(checked: Checked) -> str:
    """`2 errors, 1 warning in 14 files (0.3 s)`, with the sizes where there are any."""
    files = f" in {counted(checked.files, 'file')}" if checked.files is not None else ""
    took = f"({checked.seconds:.1f} s)"
    if checked.inventory is None:
        return f"{summary_of(checked.diagnostics)}{files} {took}"
    inventory = checked.inventory
    edges = sum(1 for _ in inventory.edges())
    doors = (listener for service in inventory.services.values() for listener in service.listeners)
    beyond = sum(len(one.outsiders) for one in doors) + sum(len(one.callers) for one in inventory.external_servers)
    sizes = (
        counted(len(inventory.services), "service"),
        counted(len(inventory.hosts), "host"),
        counted(edges, "declared call"),
        *([f"{counted(beyond, 'call')} from or to the outside"] if beyond else []),
    )
    return f"{', '.join(sizes)}: {summary_of(checked.diagnostics)}{files} {took}"


def checked_document(checked: Checked, source: SourceLine) -> dict[str, object]:
    ordered = sorted(checked.diagnostics, key=lambda one: one.order)
    return {
        "format_version": "1.0",
        "kind": "validate",
        "tool_version": __version__,
        "valid": checked.exit_code == 0,
        "exit_code": checked.exit_code,
        "diagnostics": [diagnostic_json(one, source) for one in ordered],
    }
