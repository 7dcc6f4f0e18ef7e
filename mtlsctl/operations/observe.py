"""Looks at the hosts before anything is planned: what was interrupted is settled by what is there, never by asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import pointer_sha256
from mtlsctl.errors import DeliveryError
from mtlsctl.model.runtime import Reload
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.progress import Noticed
from mtlsctl.operations.publication import SETTLE_SECONDS, make_receipt
from mtlsctl.operations.releases import pointer_path
from mtlsctl.operations.settle import served_by
from mtlsctl.planner.lifecycle import newest_credentials
from mtlsctl.store.port import SwitchRecord
from mtlsctl.verify.wire import await_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import Live, State
    from mtlsctl.model.topology import Host, InstanceId, Inventory, ProcessId
    from mtlsctl.store.port import StateWriter


def hosts_of(inventory: Inventory, state: State) -> dict[str, Host]:
    """Every host that is declared, and those that are not any more but may hold something of ours."""
    return {**state.hosts, **inventory.hosts}


def look_at_hosts(
    writer: StateWriter,
    hosts: Mapping[str, Host],
    runtimes: Mapping[str, Runtime],
    transport_to: Callable[[Host], Transport],
    clock: Callable[[], datetime],
) -> list[Noticed]:
    """Bring the state in line with what directory hosts hold; hosts over SSH are not looked at yet.

    An open switch is recorded as done or undone by what its pointer says; releases and keys that are gone are made
    anew by the plan that follows. Raises DeliveryError when a pointer says neither.
    """
    transports = {name: transport_to(host) for name, host in hosts.items() if isinstance(host, DirectoryHost)}
    noticed = [
        Noticed(at=clock(), message=_settle(writer, switch, hosts[switch.process.host], runtimes, transport))
        for switch in writer.open_switches()
        if (transport := transports.get(switch.process.host)) is not None
    ]
    state = writer.snapshot()
    for process, instances in _by_process(state).items():
        if process.host in transports:
            messages = _compare(writer, state, process, instances, runtimes, transports[process.host])
            noticed.extend(Noticed(at=clock(), message=message) for message in messages)
    return noticed


def _settle(
    writer: StateWriter, switch: SwitchRecord, host: Host, runtimes: Mapping[str, Runtime], transport: Transport
) -> str:
    """Record how an interrupted switch ended; one that had reached its rename is finished."""
    runtime = runtimes[_runtime_of(switch, writer.snapshot())]
    pointer = transport.read_pointer(pointer_path(runtime, switch.process))
    found = pointer_sha256(pointer) if pointer else None
    if found == switch.after:
        _finish(writer, switch, host, runtime, transport)
        return f"{switch.process}: an interrupted switch had taken place and is finished"
    if found == switch.before:
        writer.record_switched_back(switch)
        return f"{switch.process}: an interrupted switch had not taken place"
    raise DeliveryError(
        f"{switch.process}: {pointer_path(runtime, switch.process)} holds neither what an interrupted apply found "
        "nor what it was to write",
        code="M4105",
        help="put back one of the two, or move it away, then run the same command again",
    )


def _runtime_of(switch: SwitchRecord, state: State) -> str:
    for record in switch.releases:
        return record.recipe.runtime
    return next(state.live[instance].recipe.runtime for instance in switch.removed)


def _finish(writer: StateWriter, switch: SwitchRecord, host: Host, runtime: Runtime, transport: Transport) -> None:
    receipts = {
        record.recipe.instance: make_receipt(
            record.release,
            record.release_digest,
            transport.read_release(record.recipe.instance.service, record.release),
        )
        for record in switch.releases
    }
    refused = transport.reload(runtime.reload, program=runtime.process, process=switch.process.name)
    if refused is None and runtime.reload is not Reload.NONE:
        recipes = [record.recipe for record in switch.releases]
        await_served(served_by(recipes, host, writer.snapshot(), writer), deadline_seconds=SETTLE_SECONDS)
    writer.record_switched(switch, receipts)
    for instance in switch.removed:
        transport.delete_service(instance.service)


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
        yield f"{process}: {path} is gone; everything that it named is made anew"
        instances = {}
    for instance, live in instances.items():
        if not transport.has_release(instance.service, live.receipt.release):
            writer.record_gone(instance)
            yield f"{instance}: its release is gone; it is made anew"
    yield from _missing_keys(writer, state, process, transport)


def _missing_keys(writer: StateWriter, state: State, process: ProcessId, transport: Transport) -> Iterator[str]:
    """Keys that the newest credentials of this process's instances need and that are not there to be carried."""
    for instance, credential in sorted(newest_credentials(state).items()):
        live = state.live.get(instance)
        if live is None or live.recipe.process != process or instance in state.keys_missing:
            continue
        if not transport.has_key(instance.service, credential.spki_sha256):
            writer.record_key_missing(instance)
            yield f"{instance}: its key is gone from the host; a new certificate is issued"
