"""What is well formed and still looks like a slip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.inventory import codes
from mtlsctl.inventory.words import map_of
from mtlsctl.model.diagnostic import Severity
from mtlsctl.model.runtime import ProcessScope
from mtlsctl.model.topology import DirectoryHost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtlsctl.inventory.source import Map
    from mtlsctl.inventory.words import Words
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.topology import ExternalServer, Host, Service


def warn(
    words: Words,
    hosts: Mapping[str, Host],
    services: Mapping[str, Service],
    external_servers: Iterable[ExternalServer],
    runtimes: Mapping[str, Runtime],
    nodes: Map,
) -> None:
    """Say which hosts are empty, which services do nothing and which pid files belong to nobody."""
    if words.problems.has_errors:
        return  # What is unused may be used by what was refused.
    _warn_of_idle(words, services, external_servers)
    programs = _programs(services, runtimes)
    for name, host in hosts.items():
        if name not in programs:
            words.problems.warn(codes.UNUSED_HOST, f"no service runs on the host `{name}`", nodes.keys_at[name], name)
        elif isinstance(host, DirectoryHost) and host.pid_files:
            _warn_of_pid_files(words, host, programs[name], map_of(nodes, name))


def _warn_of_idle(words: Words, services: Mapping[str, Service], external_servers: Iterable[ExternalServer]) -> None:
    silent = [service for service in services.values() if not service.listeners]
    if not silent:
        return
    calling = {caller.service for one in services.values() for door in one.listeners for caller in door.callers}
    calling.update(caller.service for one in external_servers for caller in one.callers)
    for service in silent:
        if service.name not in calling:
            message = f"`{service.name}` neither listens nor calls"
            words.problems.put(codes.IDLE_SERVICE, message, service.span, severity=Severity.WARNING)


def _programs(services: Mapping[str, Service], runtimes: Mapping[str, Runtime]) -> dict[str, set[str]]:
    """The names of the processes of each host."""
    programs: dict[str, set[str]] = {}
    for service in services.values():
        runtime = runtimes[service.runtime]
        names = {runtime.name, runtime.process} if runtime.scope is ProcessScope.HOST else {service.name}
        for host in service.hosts:
            programs.setdefault(host, set()).update(names)
    return programs


def _warn_of_pid_files(words: Words, host: DirectoryHost, programs: set[str], node: Map | None) -> None:
    pid_files = map_of(node, "pid_files")
    if pid_files is None:
        return
    for process, _ in host.pid_files:
        if process not in programs:
            message = f"no process `{process}` runs on `{host.name}`"
            at = pid_files.keys_at[process]
            words.problems.warn(codes.UNKNOWN_PROCESS, message, at, process, help=words.did_you_mean(process, programs))
