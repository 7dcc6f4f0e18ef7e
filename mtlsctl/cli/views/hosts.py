"""Hosts for eyes and as JSON. What a host said of itself is shown escaped, whatever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, columns, counted, escaped, wrapped
from mtlsctl.model.program import version_text
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.topology import DirectoryHost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from mtlsctl.cli.views.page import Page
    from mtlsctl.deliver.facts import HostFacts
    from mtlsctl.model.topology import Host, Inventory, SshHost
    from mtlsctl.operations.hosts import HostReport, ProcessOutlook

CHECKS = {
    Check.NONE: "not checked",
    Check.NGINX_TEST: "checked by nginx -t",
    Check.NODE_CHECK: "checked by node --check",
    Check.APACHE_TEST: "checked by apache2 -t and a trial start",
}
RELOADS = {
    Reload.NONE: "read when it is used",
    Reload.SIGNAL_HUP_MASTER: "reloaded by SIGHUP to its master",
    Reload.SIGNAL_HUP: "reloaded by SIGHUP",
    Reload.SIGNAL_USR1: "reloaded by SIGUSR1",
    Reload.WATCH: "taken up by itself",
    Reload.RESTART: "restarted by you",
}


def place_of(host: Host) -> str:
    """Where it is, as whoever reaches it."""
    if isinstance(host, DirectoryHost):
        return host.directory
    port = f":{host.port}" if host.port != 22 else ""  # noqa: PLR2004  what ssh means by itself
    address = f"[{host.address}]" if port and ":" in host.address else host.address
    return f"{host.user}@{address}{port}" if host.user else f"{address}{port}"


def _how(host: SshHost) -> str:
    parts = ["sudo"] if host.become else []
    parts += [f"through {host.jump}"] if host.jump else []
    return ", ".join(parts)


def hosts_text(inventory: Inventory) -> str:
    """A line for each host."""
    rows = [
        (
            escaped(name),
            "folder" if isinstance(host, DirectoryHost) else "ssh",
            escaped(place_of(host)),
            "" if isinstance(host, DirectoryHost) else escaped(_how(host)),
            counted(sum(name in service.hosts for service in inventory.services.values()), "service"),
        )
        for name, host in inventory.hosts.items()
    ]
    return "".join(f"{line}\n" for line in columns(rows, indent="")) or "The inventory declares no host.\n"


def hosts_document(inventory: Inventory) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "hosts",
        "tool_version": __version__,
        "hosts": [
            {
                **_host_record(host),
                "services": sorted(one.name for one in inventory.services.values() if name in one.hosts),
            }
            for name, host in inventory.hosts.items()
        ],
        "diagnostics": [],
    }


def _host_record(host: Host) -> dict[str, object]:
    if isinstance(host, DirectoryHost):
        return {"name": host.name, "transport": "folder", "directory": host.directory}
    return {
        "name": host.name,
        "transport": "ssh",
        "address": host.address,
        "port": host.port,
        "user": host.user,
        "jump": host.jump,
        "become": host.become,
        "keys": host.keys.value,
    }


def check_text(reports: Sequence[HostReport], page: Page) -> str:
    """What was found on each host, what is wrong there, and how many are fit."""
    lines = [line for report in reports for line in [*_report_lines(report, page), ""]]
    unfit = sum(not one.is_fit for one in reports)
    total = f"{counted(len(reports), 'host')}: {len(reports) - unfit} fit, {unfit} not."
    return "\n".join([*lines, total]) + "\n"


def _report_lines(report: HostReport, page: Page) -> Iterator[str]:
    name, tone = ("ok", Tone.ADD) if report.is_fit else ("fail", Tone.ERROR)
    place = escaped(place_of(report.host))
    how = "" if isinstance(report.host, DirectoryHost) else _how(report.host)
    yield f"{page.paint(page.symbol(name), tone)} {escaped(report.host.name)}  {place}" + (f"  {how}" if how else "")
    facts = [*_fact_lines(report), *(f"{one.name}: {_outlook(one)}" for one in report.processes)]
    for text in facts:
        yield from wrapped(escaped(text), width=page.width, first="    ", rest="      ")
    if report.error is not None:
        yield from _wrong(report.error.code, report.error.message, report.error.notes, report.error.help, page, "fail")
    for one in report.findings:
        yield from _wrong(one.code, one.message, (), one.help, page, "fail" if one.is_failure else "risk")


def _wrong(code: str, message: str, notes: Sequence[str], help: str | None, page: Page, symbol: str) -> Iterator[str]:
    yield from wrapped(escaped(message), width=page.width, first=f"  {page.symbol(symbol)} {code} ", rest="      ")
    for text in (*notes, *([f"help: {help}"] if help else [])):
        yield from wrapped(escaped(text), width=page.width, first="      ", rest="        ")


def _fact_lines(report: HostReport) -> Iterator[str]:
    facts = report.facts
    if facts is not None:
        who = "root" if facts.uid == 0 else f"user {facts.uid}"
        yield ", ".join(one for one in (facts.system, facts.kernel, f"works as {who}") if one)
        yield ", ".join(f"{name} {version_text(text)}" for name, text in facts.tools)
        yield f"{_free(report.free_bytes)}, {_clock(facts)}"
    elif report.error is None:
        yield f"a folder, {_free(report.free_bytes)}"


def _free(free: int | None) -> str:
    return "free space unknown" if free is None else f"{free / 1024**3:.1f} GiB free"


def _clock(facts: HostFacts) -> str:
    if facts.clock_off is None:
        return "clock unknown"
    return f"clock {_signed(facts.clock_off)} s (within {facts.round_trip.total_seconds() / 2:.1f} s)"


def _signed(off: timedelta) -> str:
    return f"{off.total_seconds():+.1f}"


def _outlook(one: ProcessOutlook) -> str:
    serves = f"{', '.join(one.services)} on {', '.join(map(str, one.ports))}" if one.ports else ", ".join(one.services)
    program = version_text(one.version) if one.version else ""
    return "; ".join(part for part in (serves, program, CHECKS[one.check], RELOADS[one.reload]) if part)


def check_document(reports: Sequence[HostReport], code: int) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "hosts-check",
        "tool_version": __version__,
        "exit_code": code,
        "hosts": [_report_record(one) for one in reports],
        "diagnostics": [],
    }


def _report_record(report: HostReport) -> dict[str, object]:
    facts, error = report.facts, report.error
    return {
        **_host_record(report.host),
        "fit": report.is_fit,
        "system": facts and facts.system,
        "kernel": facts and facts.kernel,
        "uid": facts and facts.uid,
        "systemd": facts and facts.has_systemd,
        "free_bytes": report.free_bytes,
        "clock_off_seconds": facts.clock_off.total_seconds() if facts and facts.clock_off is not None else None,
        "round_trip_seconds": facts and facts.round_trip.total_seconds(),
        "tools": dict(facts.tools) if facts else None,
        "programs": dict(facts.programs) if facts else None,
        "processes": [
            {
                "name": one.name,
                "runtime": one.runtime,
                "services": list(one.services),
                "ports": list(one.ports),
                "check": one.check.value,
                "reload": one.reload.value,
                "version": one.version or None,
            }
            for one in report.processes
        ],
        "error": error
        and {"code": error.code, "message": error.message, "notes": list(error.notes), "help": error.help},
        "findings": [
            {
                "severity": "error" if one.is_failure else "warning",
                "code": one.code,
                "message": one.message,
                "help": one.help,
            }
            for one in report.findings
        ],
    }
