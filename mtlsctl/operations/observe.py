"""Looks at the hosts before anything is planned: what was interrupted is settled by what is there, never by asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.connections import at_each
from mtlsctl.operations.interrupted import settle_interrupted
from mtlsctl.operations.progress import Noticed
from mtlsctl.operations.publication import make_receipt
from mtlsctl.operations.releases import pointer_path
from mtlsctl.planner.lifecycle import newest_credentials
from mtlsctl.store.port import SwitchRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.errors import DeliveryError
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import Live, State
    from mtlsctl.model.topology import Host, InstanceId, Inventory, ProcessId
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
    _, unreachable = at_each(transports, lambda _, transport: transport.lock(lineage))
    within = {name: transport for name, transport in transports.items() if name not in unreachable}
    messages, unsettled = settle_interrupted(writer, hosts, catalog, within)
    unreachable |= unsettled
    state = writer.snapshot()
    runtimes = {name: folder.runtime for name, folder in catalog.items()}
    processes = _by_process(state)

    def look(name: str, transport: Transport) -> list[str]:
        said: list[str] = []
        for process, instances in processes.items():
            if process.host == name:
                said += _compare(writer, state, process, instances, runtimes, transport)
        return said + list(_missing_keys(writer, state, inventory, name, transport))

    answers, failed = at_each({name: one for name, one in within.items() if name not in unreachable}, look)
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
    for instance in sorted(state.sequences.keys() - needed):
        host, known = hosts.get(instance.host), state.hosts.get(instance.host)
        if instance.host not in transports or host is None or known is None or _folder_of(host) != _folder_of(known):
            continue
        if (_folder_of(host), instance.service) not in taken:
            if instance not in state.keys_missing:
                writer.record_key_missing(instance)
            transports[instance.host].delete_service(instance.service)


def _folder_of(host: Host) -> str:
    """Two names for one folder are one place: a host that was renamed keeps what the new name needs."""
    return host.directory if isinstance(host, DirectoryHost) else host.name


def _by_process(state: State) -> dict[ProcessId, dict[InstanceId, Live]]:
    processes: dict[ProcessId, dict[InstanceId, Live]] = {}
    for instance, live in state.live.items():
        processes.setdefault(live.recipe.process, {})[instance] = live
    return processes


def _compare(
    writer: StateWriter,
    state: State,
    process: ProcessId,
    instances: Mapping[InstanceId, Live],
    runtimes: Mapping[str, Runtime],
    transport: Transport,
) -> Iterator[str]:
    """What is gone from the host. An edited pointer is left alone: the switch that would overwrite it refuses."""
    runtime = runtimes[next(iter(instances.values())).recipe.runtime]
    path = pointer_path(runtime, process)
    if transport.read_pointer(path) is None and state.pointers.get(process) is not None:
        gone = SwitchRecord(
            process=process, before=state.pointers[process], after=None, releases=(), removed=tuple(instances)
        )
        writer.record_switch_intended(gone)
        writer.record_switched(gone, {})
        yield f"{process}: {transport.shown(path)} is gone; everything that it named is made anew"
        instances = {}
    for instance, live in instances.items():
        damage = _damage(transport, instance, live)
        if damage is not None:
            writer.record_gone(instance)
            yield f"{instance}: its release {damage}; it is made anew"


def _damage(transport: Transport, instance: InstanceId, live: Live) -> str | None:
    """What is wrong with a live release on its host, file by file against its receipt; None when nothing is."""
    receipt = live.receipt
    if not transport.has_release(instance.service, receipt.release):
        return "is gone"
    found = make_receipt(
        receipt.release, receipt.release_digest, transport.read_release(instance.service, receipt.release)
    )
    altered = sorted({fact.path for fact in set(found.files) ^ set(receipt.files)})
    return f"was altered ({', '.join(altered)})" if altered else None


def _missing_keys(
    writer: StateWriter, state: State, inventory: Inventory, host: str, transport: Transport
) -> Iterator[str]:
    """Keys that the newest leaf of a declared instance needs, live or not yet, and that are not there to be carried."""
    old_names = {move.new: move.old for move in inventory.moved if move.old in state.hosts}
    declared = {one._replace(host=old_names.get(one.host, one.host)) for one in inventory.instances()}
    for instance, credential in sorted(newest_credentials(state).items()):
        if instance.host != host or instance not in declared or instance in state.keys_missing:
            continue
        if credential.profile.request_sha256 is not None:
            continue  # its owner's; a new certificate would not bring it back
        if not transport.has_key(instance.service, credential.spki_sha256):
            writer.record_key_missing(instance)
            yield f"{instance}: its key is gone from the host; a new certificate is issued"
