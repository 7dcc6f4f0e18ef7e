"""Hosts before anything is delivered to them: what they are, what they can, whose key they show."""

# ruff: noqa: PLC0415  a host over SSH is reached with what only it needs

from __future__ import annotations

import os
import shutil
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import DeliveryError, StateError, StateLocked, UsageError
from mtlsctl.model.program import found_as, is_older, too_old, version_text
from mtlsctl.model.runtime import Check
from mtlsctl.model.topology import Bind, DirectoryHost, SshHost
from mtlsctl.operations.connections import FORKS, at_each
from mtlsctl.planner.trust import process_of
from mtlsctl.store.codes import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtlsctl.deliver.facts import HostFacts
    from mtlsctl.deliver.known_hosts import HostKey
    from mtlsctl.deliver.places import Place
    from mtlsctl.deliver.reach import SshOptions
    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.runtime import Reload, Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, InstanceId, Inventory
    from mtlsctl.operations.workspace import Workspace

CLOCK_OFF = "M4313"
TOO_OLD = "M4316"
PORT_TAKEN = "M4317"
NOT_INSTALLED = "M4318"
NO_ROOM = "M4319"

CLOCK_WARN = timedelta(seconds=30)
CLOCK_LIMIT = timedelta(seconds=300)
"""As much as a certificate is backdated by: a host that is further behind would not believe a new one."""

ROOM_WARN, ROOM_LIMIT = 100 * 1024**2, 10 * 1024**2
"""Bytes. Three releases of a service take far less than one of these; a log that fills the disk does not."""

LEAST_OPENSSL = (1, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a host that somebody should know; a failure keeps an apply from going well there."""

    code: str
    message: str
    help: str
    is_failure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOutlook:
    """What an apply will do about one process: `version` is what its program says there, "" when it is not there."""

    name: str
    runtime: str
    services: tuple[str, ...]
    ports: tuple[int, ...]
    check: Check
    reload: Reload
    program: str
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """One host. Without `facts` it is a folder, or `error` says why it could not be asked."""

    host: Host
    processes: tuple[ProcessOutlook, ...]
    facts: HostFacts | None = None
    free_bytes: int | None = None
    error: DeliveryError | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def is_fit(self) -> bool:
        return self.error is None and not any(one.is_failure for one in self.findings)


def chosen(inventory: Inventory, patterns: Sequence[str]) -> dict[str, Host]:
    """The declared hosts that are named, all without any name; raises UsageError M9112 for what fits none."""
    unknown = [one for one in patterns if not any(fnmatchcase(name, one) for name in inventory.hosts)]
    if unknown:
        named = ", ".join(f"`{one}`" for one in unknown)
        raise UsageError(f"no host is called {named}", code="M9112", help="mtlsctl hosts list")
    return {
        name: host
        for name, host in inventory.hosts.items()
        if not patterns or any(fnmatchcase(name, one) for one in patterns)
    }


def check_hosts(workspace: Workspace, patterns: Sequence[str] = (), *, forks: int = FORKS) -> list[HostReport]:
    """Ask every host what it is and has, side by side; changes nothing there and takes no lock there.

    The versions that are found go into the state, where there is one, for plans to know.
    """
    inventory = workspace.load().inventory
    hosts, state = chosen(inventory, patterns), _state(workspace, inventory)
    over_ssh = {name: host for name, host in hosts.items() if isinstance(host, SshHost)}
    with closing(workspace.connections):
        transports = {name: workspace.transport_to(host) for name, host in over_ssh.items()}
        facts, failed = at_each(transports, _facts, forks=forks)
    if state is not None:
        _remember(workspace, inventory, {name: _programs(one) for name, one in facts.items()})
    return [
        _report(host, inventory, state, workspace.runtimes, facts.get(name), failed.get(name))
        for name, host in hosts.items()
    ]


def _state(workspace: Workspace, inventory: Inventory) -> State | None:
    """What is live; None where there is no state yet. Raises StateError for one that is foreign or broken."""
    try:
        with workspace.store(inventory.name) as store:
            return store.snapshot()
    except StateError as error:
        if error.code != MISSING:
            raise
        return None


def _programs(facts: HostFacts) -> dict[str, str]:
    return {name: version_text(text) for name, text in facts.programs if version_text(text) != text}


def _remember(workspace: Workspace, inventory: Inventory, found: Mapping[str, Mapping[str, str]]) -> None:
    """Only what is new; while somebody else changes the state it is left to the next check."""
    with workspace.store(inventory.name) as store:
        known = store.snapshot().programs
        new = {name: programs for name, programs in found.items() if known.get(name, {}) != programs}
        if new:
            with suppress(StateLocked), store.lock(command="hosts check", timeout_seconds=1) as writer:
                writer.record_programs(new)


def _facts(_: str, transport: Transport) -> HostFacts:
    from mtlsctl.deliver.remote import RemoteTransport

    assert isinstance(transport, RemoteTransport)  # noqa: S101  hosts over SSH are all that is asked
    return transport.facts()


def _report(
    host: Host,
    inventory: Inventory,
    state: State | None,
    runtimes: Mapping[str, Runtime],
    facts: HostFacts | None,
    error: DeliveryError | None,
) -> HostReport:
    processes = tuple(_outlooks(host.name, inventory, runtimes, facts))
    if isinstance(host, DirectoryHost):
        free, is_writable = _folder(Path(host.directory))
        findings = [*_room(free), *([] if is_writable else [_not_writable(host)])]
        return HostReport(host=host, processes=processes, free_bytes=free, findings=tuple(findings))
    if facts is None:
        return HostReport(host=host, processes=processes, error=error)
    findings = [
        *_clock(facts),
        *_room(facts.free_bytes),
        *_versions(processes, facts),
        *_taken(host.name, inventory, state, facts),
        *_missing(processes),
    ]
    return HostReport(
        host=host, processes=processes, facts=facts, free_bytes=facts.free_bytes, findings=tuple(findings)
    )


def _outlooks(
    host: str, inventory: Inventory, runtimes: Mapping[str, Runtime], facts: HostFacts | None
) -> Iterable[ProcessOutlook]:
    programs = dict(facts.programs) if facts is not None else {}
    those: dict[str, list[InstanceId]] = {}
    for instance in inventory.instances():
        if instance.host == host:
            runtime = runtimes[inventory.services[instance.service].runtime]
            those.setdefault(process_of(instance, runtime).name, []).append(instance)
    for name, instances in sorted(those.items()):
        services = [inventory.services[one.service] for one in instances]
        runtime = runtimes[services[0].runtime]
        yield ProcessOutlook(
            name=name,
            runtime=runtime.name,
            services=tuple(one.name for one in services),
            ports=tuple(sorted({door.port for one in services for door in one.listeners})),
            check=runtime.check,
            reload=runtime.reload,
            program=found[0] if (found := found_as(runtime.process, programs)) is not None else runtime.process,
            version=found[1] if found is not None else "",
        )


# --- what is wrong there --------------------------------------------------------------------------------------------


def _clock(facts: HostFacts) -> list[Finding]:
    """By as much as the round trip leaves open it is given the benefit of the doubt."""
    if facts.clock_off is None:
        return []
    off = abs(facts.clock_off) - facts.round_trip / 2
    if off <= CLOCK_WARN:
        return []
    way = "ahead of" if facts.clock_off > timedelta(0) else "behind"
    return [
        Finding(
            code=CLOCK_OFF,
            message=f"its clock is {round(abs(facts.clock_off).total_seconds())} s {way} the one here",
            help="set both clocks (timedatectl, chronyc): certificates have a beginning and an end",
            is_failure=off > CLOCK_LIMIT,
        )
    ]


def _room(free: int | None) -> list[Finding]:
    if free is None or free >= ROOM_WARN:
        return []
    return [
        Finding(
            code=NO_ROOM,
            message=f"only {free // 1024**2} MiB are free where /etc/mtlsctl lies",
            help="free some space there",
            is_failure=free < ROOM_LIMIT,
        )
    ]


def _versions(processes: Sequence[ProcessOutlook], facts: HostFacts) -> list[Finding]:
    programs = {one.program: one.version for one in processes if one.version}
    old = {name: why for name, text in sorted(programs.items()) if (why := too_old(name, text)) is not None}
    openssl = dict(facts.tools).get("openssl", "")
    if is_older(openssl, LEAST_OPENSSL):
        old["openssl"] = f"{version_text(openssl)}, and 1.1.1 is needed to make keys and requests"
    return [
        Finding(
            code=TOO_OLD,
            message=f"{name} there is {why}",
            help=f"put a newer {name} there, or the service elsewhere",
            is_failure=True,
        )
        for name, why in old.items()
    ]


def _missing(processes: Sequence[ProcessOutlook]) -> list[Finding]:
    return [
        Finding(
            code=NOT_INSTALLED,
            message=f"{one.name}: its program is not there, so what is written for it is not checked before the switch",
            help=f"install {one.program} there if it is to run there and not in a container",
            is_failure=False,
        )
        for one in processes
        if one.check is not Check.NONE and not one.version
    ]


def _taken(host: str, inventory: Inventory, state: State | None, facts: HostFacts) -> list[Finding]:
    """Ports that are to be served and where something listens, though nothing of ours is live there yet."""
    live = {
        socket.port
        for instance, one in (state.live.items() if state is not None else ())
        if instance.host == host
        for served in one.recipe.listeners
        for socket in served.sockets
    }
    wanted = {
        (door.port, service.name): (_address(inventory, host) if door.bind is Bind.HOST else None, door.port)
        for service in inventory.services.values()
        if host in service.hosts
        for door in service.listeners
        if door.port not in live
    }
    return [
        Finding(
            code=PORT_TAKEN,
            message=f"something listens on port {port} already, where {service} is to be served",
            help=f"ss -ltnp 'sport = :{port}' there says what: it has to make way, or be what serves {service}",
            is_failure=False,
        )
        for (port, service), place in sorted(wanted.items())
        if _is_taken(place, facts.places)
    ]


def _address(inventory: Inventory, host: str) -> str | None:
    return inventory.hosts[host].address


def _is_taken(wanted: Place, taken: frozenset[Place]) -> bool:
    from mtlsctl.deliver.places import conflicts

    return conflicts(wanted, taken)


def _folder(directory: Path) -> tuple[int | None, bool]:
    """Free bytes where it lies or will lie, and whether it can be written to or made."""
    place = next(one for one in (directory, *directory.parents) if one.exists())
    try:
        return shutil.disk_usage(place).free, place.is_dir() and os.access(place, os.W_OK)
    except OSError:
        return None, False


def _not_writable(host: DirectoryHost) -> Finding:
    return Finding(
        code="M4101",
        message=f"{host.directory} cannot be written to",
        help="make it a folder of whoever runs mtlsctl",
        is_failure=True,
    )


# --- whose key it shows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What came of it: `file` knows the host by the key now; `is_new` unless it did before."""

    key: HostKey
    place: str
    file: Path
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The key that a host shows just now. `is_known` when it is known by that very key."""

    host: SshHost
    key: HostKey
    place: str
    is_known: bool
    options: SshOptions = field(repr=False)


def show_key(workspace: Workspace, name: str) -> Shown:
    """Ask a host, or a jump host on the way to one, for its key; nobody logs in and nothing is written.

    Raises UsageError M9112 for what is neither, DeliveryError M4305 when it is known by another key or this one was
    revoked, and what reaching it raises.
    """
    from mtlsctl.deliver.dial import shown_key
    from mtlsctl.deliver.known_hosts import judge, look_up
    from mtlsctl.deliver.reach import SshOptions, reach_host

    options = SshOptions.from_environment(workspace.environ)
    host = _ssh_host(workspace.load().inventory, name, options)
    reach = reach_host(host, options)
    known = look_up(reach.known_hosts, reach.known_as)
    key = shown_key(host, options)
    try:
        judge(known, key, host=host.name, place=reach.place)
    except DeliveryError as error:
        if error.code != "M4304":
            raise
        return Shown(host=host, key=key, place=reach.place, is_known=False, options=options)
    return Shown(host=host, key=key, place=reach.place, is_known=True, options=options)


def trust_key(shown: Shown, *, fingerprint: str | None = None) -> Trusted:
    """Write down that the host is known by the key that it showed; raises DeliveryError M4304 for another one."""
    from mtlsctl.deliver.dial import trust

    if fingerprint is not None and fingerprint.rstrip("=") != shown.key.fingerprint:
        raise DeliveryError(
            f"{shown.host.name} does not show the key that you expect; it was not trusted",
            code="M4304",
            notes=(f"expected: {fingerprint}", f"shown: {shown.key.short_kind} {shown.key.fingerprint}"),
            help="compare once more, on the host itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    file, is_new = trust(shown.host, shown.key, shown.options)
    return Trusted(key=shown.key, place=shown.place, file=file, is_new=is_new)


def _ssh_host(inventory: Inventory, name: str, options: SshOptions) -> SshHost:
    from mtlsctl.deliver.reach import reach_host

    found = inventory.hosts.get(name)
    if isinstance(found, SshHost):
        return found
    if found is not None:
        raise UsageError(f"{name} is a folder: it has no key to be known by", code="M9112")
    for host in inventory.hosts.values():
        if isinstance(host, SshHost):
            for hop in reach_host(host, options).jumps:
                if hop.host == name:
                    return SshHost(name=hop.host, address=hop.host, port=hop.port or 22, user=hop.user)
    raise UsageError(f"no host or jump host is called `{name}`", code="M9112", help="mtlsctl hosts list")
