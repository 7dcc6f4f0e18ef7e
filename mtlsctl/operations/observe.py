"""Looks at the hosts before anything is planned: what was interrupted is settled by what is there, never by asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.model.release import OLD_NAMES
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.connections import at_each
from mtlsctl.operations.drift import DriftKind, judge, question_for, record
from mtlsctl.operations.progress import Noticed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.errors import DeliveryError
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, Inventory
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.store.port import StateWriter


def hosts_of(inventory: Inventory, state: State) -> dict[str, Host]:
    """Every host that is declared, and those that are not any more but may hold something of ours."""
    return {**state.hosts, **inventory.hosts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What looking at the hosts showed. `unreachable` are those behind SSH that could not be looked at, and why."""

    noticed: list[Noticed]
    unreachable: dict[str, DeliveryError]


def look_at_hosts(
    writer: StateWriter,
    inventory: Inventory,
    hosts: Mapping[str, Host],
    catalog: Mapping[str, RuntimeFolder],
    transports: Mapping[str, Transport],
    clock: Callable[[], datetime],
) -> Looked:
    """Keep other controllers from the hosts, and bring the state in line with what these hold.

    An open switch is recorded as done or undone by what its pointer says; releases and keys that are gone or altered
    are made anew by the plan that follows. Nothing else is written, for nothing was approved yet. Raises StateLocked
    when a host is another controller's now, DeliveryError when a folder's pointer says neither, or its process serves
    neither; what is so at a host behind SSH keeps only that host, and what waits for it, from being changed.
    """
    lineage = writer.snapshot().lineage
    messages: list[str] = []
    unreachable: dict[str, DeliveryError] = {}
    if writer.open_switches():
        from mtlsctl.operations.interrupted import settle_interrupted  # noqa: PLC0415  it can render and read back

        _, unreachable = at_each(transports, lambda _, transport: transport.lock(lineage))
        locked = {name: transport for name, transport in transports.items() if name not in unreachable}
        messages, unsettled = settle_interrupted(writer, hosts, catalog, locked)
        unreachable |= unsettled
        lock_for = None
    else:
        lock_for = lineage  # nothing comes between the lock and the look: one round trip does
    within = {name: transport for name, transport in transports.items() if name not in unreachable}
    state = writer.snapshot()
    runtimes = {name: folder.runtime for name, folder in catalog.items()}

    def look(name: str, transport: Transport) -> list[str]:
        question = question_for(name, state, inventory, runtimes)
        drifts = judge(name, question, question.ask(transport, lock_for=lock_for), state)
        for drift in drifts:
            record(writer, drift, state)
        return [drift.message(transport.shown) for drift in drifts if drift.kind is not DriftKind.POINTER_EDITED]

    answers, failed = at_each(within, look)
    for name, error in failed.items():
        if isinstance(hosts[name], DirectoryHost):
            raise error
    messages += [message for name in within for message in answers.get(name, ())]
    return Looked(
        noticed=[Noticed(at=clock(), message=message) for message in messages], unreachable=unreachable | failed
    )


def delete_left_over(
    writer: StateWriter, inventory: Inventory, hosts: Mapping[str, Host], transports: Mapping[str, Transport]
) -> None:
    """Keys and releases of instances that are gone: an apply may have ended after the switch that dropped them.

    Only where they were put: a host whose folder is another now may hold what is not ours.
    """
    state = writer.snapshot()
    needed = {*state.live, *inventory.instances()}
    taken = {(_folder_of(hosts[one.host]), one.service) for one in needed if one.host in hosts}
    # What is live may still name files under the name that its service had: then nothing goes there.
    unsettled = {
        _folder_of(hosts[at.host])
        for at, live in state.live.items()
        if at.host in hosts and live.recipe.runtime_digest == OLD_NAMES
    }
    for instance in sorted(state.sequences.keys() - needed):
        host, known = hosts.get(instance.host), state.hosts.get(instance.host)
        if instance.host not in transports or host is None or known is None or _folder_of(host) != _folder_of(known):
            continue
        if (_folder_of(host), instance.service) not in taken and _folder_of(host) not in unsettled:
            if instance not in state.keys_missing:
                writer.record_key_missing(instance)
            transports[instance.host].delete_service(instance.service)


def _folder_of(host: Host) -> str:
    """Two names for one folder are one place: a host that was renamed keeps what the new name needs."""
    return host.directory if isinstance(host, DirectoryHost) else host.name
