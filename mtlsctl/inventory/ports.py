"""Who wants which port of which host, and whether those who want the same one can share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.inventory import codes
from mtlsctl.model.runtime import ProcessScope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtlsctl.inventory.problems import Problems
    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.topology import Listener, Service


class Door(NamedTuple):
    """One listener of a service."""

    service: Service
    listener: Listener


Socket = tuple[str, int]


def check_ports(services: Iterable[Service], runtimes: Mapping[str, Runtime], problems: Problems) -> None:
    """Report every port that is wanted twice on one host by what cannot share it, once for each pair of doors."""
    taken: dict[Socket, list[Door]] = {}
    listed = tuple(services)
    for service in listed:
        for listener in service.listeners:
            for host in service.hosts:
                taken.setdefault((host, listener.port), []).append(Door(service, listener))
    reported: set[tuple[str, str, str, str]] = set()
    for (host, _), doors in taken.items():
        if len(doors) > 1:
            _check_shared(host, doors, runtimes, reported, problems)
    _check_outgoing(listed, taken, problems)


def _check_shared(
    host: str,
    doors: list[Door],
    runtimes: Mapping[str, Runtime],
    reported: set[tuple[str, str, str, str]],
    problems: Problems,
) -> None:
    first = doors[0]
    owners = {name.value: first for name in first.service.names}
    for door in doors[1:]:
        pair = (first.service.name, first.listener.name, door.service.name, door.listener.name)
        if pair not in reported and (found := _conflict(host, first, door, runtimes)) is not None:
            reported.add(pair)
            _report(problems, *found, first.listener.span, door.listener.span)
            continue
        _check_names(owners, door, reported, problems)


def _conflict(host: str, first: Door, door: Door, runtimes: Mapping[str, Runtime]) -> tuple[str, str] | None:
    """The code and message of why the two cannot have one port."""
    one, other = first.service, door.service
    where = f"port {door.listener.port} of `{host}`"
    if one is other:
        return codes.PORT_TAKEN, f"`{one.name}` listens twice on {where}"
    if one.runtime != other.runtime or not _shares_ports(runtimes[one.runtime]):
        return codes.PORT_TAKEN, f"`{other.name}` and `{one.name}` both listen on {where} and cannot share it"
    for what, mine, yours in (
        ("`protocols`", first.listener.protocols, door.listener.protocols),
        ("`bind`", first.listener.bind, door.listener.bind),
    ):
        if mine != yours:
            return codes.PORT_DIFFERS, f"`{other.name}` and `{one.name}` share {where} and differ in {what}"
    return None


def _shares_ports(runtime: Runtime) -> bool:
    return runtime.scope is ProcessScope.HOST and runtime.enforcement.server_names


def _check_names(
    owners: dict[str, Door], door: Door, reported: set[tuple[str, str, str, str]], problems: Problems
) -> None:
    for name in door.service.names:
        owner = owners.setdefault(name.value, door)
        pair = (owner.service.name, owner.listener.name, door.service.name, name.value)
        if owner is not door and owner.service is not door.service and pair not in reported:
            reported.add(pair)
            who = f"`{door.service.name}` and `{owner.service.name}`"
            message = f"{who} share port {door.listener.port} and both answer to `{name}`"
            _report(problems, codes.NAME_TAKEN, message, owner.listener.span, door.listener.span)


def _check_outgoing(services: Iterable[Service], taken: dict[Socket, list[Door]], problems: Problems) -> None:
    """A port that leads to a callee is a socket of the host as well."""
    outgoing: dict[Socket, Service] = {}
    for service in services:
        for port in _outgoing_ports(service):
            for host in service.hosts:
                other = outgoing.setdefault((host, port), service)
                door = taken.get((host, port))
                if other is not service or door is not None:
                    whose, span = (door[0].service.name, door[0].listener.span) if door else (other.name, other.span)
                    message = f"`{service.name}` wants port {port} of `{host}` for its calls, and `{whose}` has it"
                    _report(problems, codes.PORT_TAKEN, message, span, service.span)
                    break


def _outgoing_ports(service: Service) -> list[int]:
    return [port for _, value in service.settings if isinstance(value, tuple) for _, port in value]


def _report(problems: Problems, code: str, message: str, first: Span | None, second: Span | None) -> None:
    related = [] if first is None else [(first, "the other one")]
    problems.put(code, message, second, related=related)
