"""Three views of an estate side by side: what the inventory asks for, what lies on the hosts, what is on the wire."""

# ruff: noqa: PLC0415  only a look at the wire needs what speaks TLS

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mtlsctl.errors import PreflightError
from mtlsctl.model.runtime import Reload
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.connections import FORKS, at_each
from mtlsctl.operations.drift import judge, question_for, seen_through
from mtlsctl.operations.observe import hosts_of
from mtlsctl.operations.outside import facts_of_outside
from mtlsctl.planner.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtlsctl.errors import DeliveryError
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, InstanceId, Inventory
    from mtlsctl.operations.drift import Drift
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.store.port import StateReader
    from mtlsctl.verify.wire import Served

WIRE_SECONDS = 3.0


class OnWire(StrEnum):
    """What a socket was seen to show."""

    EXPECTED = "expected"
    OTHER = "other"
    """Another certificate: the process was not reloaded, or is not ours."""
    SILENT = "silent"
    """Nobody answers, or not with TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireView:
    """One socket; `serial` is that of the certificate that was shown (hex), `why` why there was none."""

    address: str
    port: int
    state: OnWire
    serial: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One live instance. `release` is what it was last seen to go live with; `drifts` what differs from that now."""

    instance: InstanceId
    release: str
    drifts: tuple[Drift, ...]
    wire: tuple[WireView, ...]
    is_reached: bool
    is_declared: bool
    """Whether the inventory asks for just what went live, or a plan would change it."""
    is_run: bool
    """Whether a process that mtlsctl reloads serves it; of any other silence means nothing."""

    @property
    def is_in_sync(self) -> bool:
        wrong = {OnWire.OTHER, OnWire.SILENT} if self.is_run else {OnWire.OTHER}
        return self.is_reached and not self.drifts and not any(one.state in wrong for one in self.wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """`state` is the state as the next apply will find it, `drifts` are those of every host, in order."""

    state: State
    drifts: tuple[Drift, ...]
    unreachable: Mapping[str, DeliveryError]
    instances: tuple[InstanceView, ...]
    shown: Mapping[tuple[str, str], str]
    """By host and path, what has drifted as a person finds it from here."""

    def message(self, drift: Drift) -> str:
        """What a difference is, for a person."""
        return drift.message(lambda path: self.shown[drift.host, path])

    def hosts_in_sync(self) -> list[str]:
        """Hosts all of whose instances are as they should be."""
        wrong = {one.instance.host for one in self.instances if not one.is_in_sync}
        return sorted({one.instance.host for one in self.instances} - wrong)

    @property
    def is_in_sync(self) -> bool:
        return not (self.drifts or self.unreachable) and all(one.is_in_sync for one in self.instances)


def refresh(workspace: Workspace, inventory: Inventory, state: State, reader: StateReader) -> Refreshed:
    """Look at every host and at every socket, side by side; writes nothing anywhere and takes no lock."""
    hosts = hosts_of(inventory, state)
    for gone in inventory.abandoned:
        hosts.pop(gone.name, None)
    inhabited = {one.host for one in state.live}
    with closing(workspace.connections):
        transports = {name: workspace.transport_to(host) for name, host in hosts.items() if name in inhabited}
        interrupted = frozenset(one.process for one in reader.open_switches())

        def look(name: str, _: object) -> list[Drift]:
            question = question_for(name, state, inventory, workspace.runtimes)
            found = judge(name, question, question.ask(transports[name]), state)
            return [one for one in found if one.process not in interrupted]

        answers, unreachable = at_each(transports, look)
        drifts = tuple(drift for name in sorted(answers) for drift in answers[name])
        shown = {(one.host, one.path): transports[one.host].shown(one.path) for one in drifts}
    wire = _wire(state, hosts, reader)
    facts = facts_of_outside(inventory, state, reader)
    planned = make_plan(inventory, state, workspace.runtimes, workspace.clock(), facts)
    changing = {step.id.instance for step in planned.steps}
    return Refreshed(
        state=seen_through(state, drifts),
        drifts=drifts,
        unreachable=unreachable,
        instances=tuple(
            InstanceView(
                instance=instance,
                release=live.receipt.release,
                drifts=tuple(one for one in drifts if instance in one.instances),
                wire=wire.get(instance, ()),
                is_reached=instance.host not in unreachable,
                is_declared=instance not in changing,
                is_run=_is_run(live.recipe, hosts.get(instance.host), workspace.runtimes),
            )
            for instance, live in sorted(state.live.items())
        ),
        shown=shown,
    )


def _is_run(recipe: Recipe, host: Host | None, runtimes: Mapping[str, Runtime]) -> bool:
    if isinstance(host, DirectoryHost):
        return recipe.process.name in dict(host.pid_files)
    return runtimes[recipe.runtime].reload is not Reload.NONE


def _wire(state: State, hosts: Mapping[str, Host], reader: StateReader) -> dict[InstanceId, tuple[WireView, ...]]:
    from mtlsctl.operations.settle import served_by

    asked = [
        (instance, served_by([live.recipe], hosts[instance.host], state, reader))
        for instance, live in state.live.items()
        if instance.host in hosts
    ]
    with ThreadPoolExecutor(max_workers=FORKS) as pool:
        looks = [(instance, [pool.submit(_look, one) for one in served]) for instance, served in asked]
        return {instance: tuple(look.result() for look in those) for instance, those in looks}


def _look(expected: Served) -> WireView:
    from hashlib import sha256

    from mtlsctl.pki.inspect import parse_certificate
    from mtlsctl.verify.wire import NotTls, read_first_flight

    try:
        flight = read_first_flight(expected.address, expected.port, expected.server_name, WIRE_SECONDS)
    except (OSError, NotTls) as error:
        return WireView(address=expected.address, port=expected.port, state=OnWire.SILENT, why=str(error))
    if flight.leaf_der is None:
        is_meant = expected.certificate_sha256 is None
        state = OnWire.EXPECTED if is_meant else OnWire.SILENT
        return WireView(address=expected.address, port=expected.port, state=state, why="the handshake is refused")
    same = sha256(flight.leaf_der).hexdigest() == expected.certificate_sha256
    try:
        serial = f"{parse_certificate(flight.leaf_der).certificate.serial_number:x}"
    except PreflightError:
        serial = ""  # whoever answers there shows bytes of any kind
    return WireView(
        address=expected.address,
        port=expected.port,
        state=OnWire.EXPECTED if same else OnWire.OTHER,
        serial=serial,
    )


def drifts_by_host(drifts: Iterable[Drift]) -> dict[str, list[Drift]]:
    """In the order of the hosts' names."""
    found: dict[str, list[Drift]] = {}
    for drift in drifts:
        found.setdefault(drift.host, []).append(drift)
    return dict(sorted(found.items()))
