"""What lies on the hosts and on the wire beside what was put there: as a block of its own, by host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.cli.views.page import Tone, columns, escaped, wrapped
from mtlsctl.operations.refresh import OnWire, drifts_by_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtlsctl.cli.views.page import Page
    from mtlsctl.operations.refresh import InstanceView, Refreshed, WireView

_SERIAL = 8
"""Hex digits of a serial number that are shown; the document has all of them."""


def drift_text(found: Refreshed, page: Page) -> str:
    """The block, ending in an empty line; nothing when every host holds what it should."""
    lines = drift_lines(found, page)
    return "\n".join([page.paint("Drift", Tone.BOLD), *lines]) + "\n\n" if lines else ""


def drift_lines(found: Refreshed, page: Page) -> list[str]:
    """By host: what differs, or why it could not be looked at."""
    lines: list[str] = []
    by_host = drifts_by_host(found.drifts)
    for host in sorted(by_host.keys() | found.unreachable.keys()):
        lines.append(f"  {host}")
        if host in found.unreachable:
            lines += _entry(page, f"out of reach: {found.unreachable[host].message}")
        for drift in by_host.get(host, ()):
            lines += _entry(page, found.message(drift))
    return lines


def _entry(page: Page, text: str) -> list[str]:
    mark = page.paint(page.symbol("risk"), Tone.CHANGE)
    return wrapped(escaped(text), width=page.width, first=f"    {mark} ", rest="      ")


def hosts_lines(found: Refreshed, page: Page) -> list[str]:
    """Totals, then the three views of each instance that is not in sync; of all of them on a full page."""
    well = len(found.hosts_in_sync())
    drifted = len({one.instance.host for one in found.instances if not one.is_in_sync} - found.unreachable.keys())
    title = page.paint("Hosts", Tone.BOLD)
    head = f"{title}          in sync {well}   drifted {drifted}   out of reach {len(found.unreachable)}"
    shown = [one for one in found.instances if page.full or not one.is_in_sync]
    if not shown:
        return [head]
    rows = [["instance", "inventory", "disk", "wire"], *(_views(one) for one in shown)]
    return [head, *columns(rows, indent="  "), *drift_lines(found, page)]


def _views(one: InstanceView) -> list[str]:
    disk = "out of reach"
    if one.is_reached:
        disk = ", ".join(drift.kind.value.replace("-", " ") for drift in one.drifts) or "as put there"
    return [
        str(one.instance),
        "as applied" if one.is_declared else "to be changed",
        disk,
        ", ".join(map(_wire, one.wire)) or "no socket",
    ]


def _wire(one: WireView) -> str:
    match one.state:
        case OnWire.EXPECTED:
            return f":{one.port} serves {one.serial[:_SERIAL] or 'nobody, as it should'}"
        case OnWire.OTHER:
            return f":{one.port} serves ANOTHER, {one.serial[:_SERIAL]}"
        case OnWire.SILENT:
            return f":{one.port} no answer"


def drift_document(found: Refreshed) -> dict[str, object]:
    """The same as plain JSON values."""
    return {
        "in_sync": found.is_in_sync,
        "unreachable": [
            {"host": host, "code": error.code, "message": error.message}
            for host, error in sorted(found.unreachable.items())
        ],
        "drift": [
            {
                "host": one.host,
                "kind": one.kind.value,
                "instances": [str(instance) for instance in one.instances],
                "path": one.path,
                "files": list(one.files),
            }
            for one in found.drifts
        ],
        "instances": [_instance_document(one) for one in found.instances],
    }


def _instance_document(one: InstanceView) -> Mapping[str, object]:
    return {
        "instance": str(one.instance),
        "release": one.release,
        "in_sync": one.is_in_sync,
        "as_declared": one.is_declared,
        "wire": [
            {"address": view.address, "port": view.port, "state": view.state.value, "serial": view.serial}
            for view in one.wire
        ],
    }
