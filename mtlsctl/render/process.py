"""The pointer file of a process: what belongs to an address and port, and one include for each release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.errors import UnsafePlan
from mtlsctl.model.diagnostic import Diagnostic
from mtlsctl.model.files import CERTIFICATE_FILE, KEY_FILE
from mtlsctl.model.runtime import SettingType
from mtlsctl.render import codes
from mtlsctl.render.context import (
    IncludeView,
    SharedSocketView,
    UnfitSetting,
    checked_name,
    checked_protocols,
    label,
    local_ports,
    place,
    place_view,
    release_folder,
)
from mtlsctl.render.environment import render
from mtlsctl.render.quoting import Untrusted, Unwritable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtlsctl.model.release import Recipe, ServedListener, Socket
    from mtlsctl.model.topology import ProcessId
    from mtlsctl.render.catalog import RuntimeFolder

Member = tuple["Recipe", str]
"""An instance of the process, as it is to be, with the name of its release."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """A listener at one socket."""

    socket: Socket
    service: str
    listener: ServedListener
    names: frozenset[str]
    folder: str


def render_pointer(folder: RuntimeFolder, process: ProcessId, members: Sequence[Member]) -> bytes:
    """The pointer file with these members, in the order of their services.

    Raises UnsafePlan (M2302) when two of them cannot share a port, RuntimeFolderError for the template's own faults.
    """
    pointer = folder.manifest.pointer
    if pointer is None:
        msg = f"the runtime {folder.runtime.name} has no pointer file"
        raise ValueError(msg)
    ordered = sorted(members, key=lambda member: member[0].instance)
    try:
        doors = [door for member in ordered for door in _doors(*member)]
        conflicts = [*_door_conflicts(doors), *_local_conflicts(folder, ordered, doors)]
        if conflicts:
            raise _refused(process, codes.PORT_CONFLICT, conflicts)
        return render(folder, pointer.template, _variables(folder, process, ordered, doors))
    except Unwritable as error:
        raise _refused(process, codes.UNWRITABLE, [str(error)]) from None
    except UnfitSetting as error:
        raise _refused(process, codes.SETTING, [str(error)]) from None


def _variables(
    folder: RuntimeFolder, process: ProcessId, members: Sequence[Member], doors: list[_Door]
) -> dict[str, object]:
    includes = "" if folder.manifest.pointer is None else folder.manifest.pointer.includes
    return {
        "process": Untrusted(label(process.name)),
        "sockets": _shared_sockets(doors),
        "local_ports": tuple(sorted(port for recipe, _ in members for port in _local_ports(folder, recipe))),
        "includes": tuple(
            IncludeView(
                service=Untrusted(label(recipe.instance.service)),
                path=Untrusted(f"{release_folder(recipe, release)}/{includes}"),
            )
            for recipe, release in members
        ),
        "longest_name": max((len(name) for door in doors for name in door.names), default=0),
    }


def _shared_sockets(doors: Iterable[_Door]) -> tuple[SharedSocketView, ...]:
    """Each socket once. Its protocols are those of all its doors: two may be in different waves of one tightening.

    Before nginx 1.29.2 the default server's protocols count for every name of a port, so they cannot be the fewest.
    """
    protocols: dict[Socket, tuple[str, ...]] = {}
    first: dict[Socket, str] = {}
    for door in doors:
        protocols[door.socket] = tuple(sorted({*protocols.get(door.socket, ()), *door.listener.protocols}))
        first.setdefault(door.socket, door.folder)
    return tuple(
        SharedSocketView(
            address=place_view(*socket).address,
            port=socket.port,
            place=place_view(*socket).place,
            protocols=checked_protocols(protocols[socket]),
            certificate=Untrusted(f"{first[socket]}/{CERTIFICATE_FILE}"),
            private_key=Untrusted(f"{first[socket]}/{KEY_FILE}"),
        )
        for socket in sorted(protocols, key=lambda socket: (socket.port, socket.address or ""))
    )


def _doors(recipe: Recipe, release: str) -> Iterator[_Door]:
    folder = release_folder(recipe, release)
    names = frozenset(checked_name(name).lower() for name in recipe.server_names)
    for listener in recipe.listeners:
        for socket in listener.sockets:
            yield _Door(socket=socket, service=recipe.instance.service, listener=listener, names=names, folder=folder)


def _door_conflicts(doors: Sequence[_Door]) -> Iterator[str]:
    by_port: dict[int, list[_Door]] = {}
    for door in doors:
        by_port.setdefault(door.socket.port, []).append(door)
    for sharing in by_port.values():
        yield from _name_conflicts(sharing)
        yield from _hidden_doors(sharing)


def _name_conflicts(doors: Sequence[_Door]) -> Iterator[str]:
    """The second of two doors with one name at one socket would never be reached."""
    first: dict[tuple[Socket, str], _Door] = {}
    for door in doors:
        for name in sorted(door.names):
            other = first.setdefault((door.socket, name), door)
            if other is not door:
                yield f"{other.service} and {door.service} both serve {name} at {place(*door.socket)}"


def _hidden_doors(doors: Sequence[_Door]) -> Iterator[str]:
    """A connection to an address that has a socket of its own never reaches what listens on all addresses."""
    own = {door.socket for door in doors if door.socket.address is not None}
    for socket in sorted(own, key=str):
        there = {(door.service, door.listener.name) for door in doors if door.socket == socket}
        for door in doors:
            if door.socket.address is None and (door.service, door.listener.name) not in there:
                yield f"{door.service} listens on every address, but at {place(*socket)} it would be hidden"


def _local_conflicts(folder: RuntimeFolder, members: Sequence[Member], doors: Sequence[_Door]) -> Iterator[str]:
    """A local port stands for one service's identity: a second service behind it would call as the first."""
    taken = {door.socket.port: door.service for door in doors if door.socket.address in (None, LOOPBACK)}
    for recipe, _ in members:
        for port in _local_ports(folder, recipe):
            if port in taken:
                yield f"{taken[port]} and {recipe.instance.service} both want the local port {port}"
            taken.setdefault(port, recipe.instance.service)


def _local_ports(folder: RuntimeFolder, recipe: Recipe) -> Iterator[int]:
    types = {setting.name: setting.type for setting in folder.runtime.settings}
    for name, value in recipe.settings:
        if types.get(name) is SettingType.CALLEE_PORTS and isinstance(value, tuple):
            yield from (port for _, port in local_ports(value, recipe))


def _refused(process: ProcessId, code: str, problems: Iterable[str]) -> UnsafePlan:
    name = ascii(str(process))[1:-1]
    return UnsafePlan([Diagnostic(code=code, message=f"{name}: {problem}") for problem in problems])
