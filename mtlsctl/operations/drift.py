"""What lies on a host and is not what was put there: judged from one look at it, file by file against the receipts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from mtlsctl.deliver.layout import key_file, pointer_sha256, release_folder
from mtlsctl.planner.lifecycle import newest_credentials
from mtlsctl.store.port import SwitchRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mtlsctl.deliver.layout import Observed
    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import Live, State
    from mtlsctl.model.topology import InstanceId, Inventory, ProcessId
    from mtlsctl.store.port import StateWriter


_FILES_SHOWN, _NAME_SHOWN = 10, 255


def pointer_path(runtime: Runtime, process: ProcessId) -> str:
    """Where the pointer of a process lies on its host."""
    return runtime.pointer_path.replace("{service}", process.name)


class DriftKind(StrEnum):
    """How a host differs from what was put there."""

    POINTER_GONE = "pointer-gone"
    POINTER_EDITED = "pointer-edited"
    """Nothing overwrites it: the switch that would do so refuses."""
    RELEASE_GONE = "release-gone"
    RELEASE_ALTERED = "release-altered"
    KEY_GONE = "key-gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference. `instances` are those that it is about, and `path` what a person looks at."""

    kind: DriftKind
    host: str
    instances: tuple[InstanceId, ...]
    path: str
    process: ProcessId | None = None
    files: tuple[str, ...] = ()

    def message(self, shown: Callable[[str], str]) -> str:
        """What is wrong and what the next apply does about it; `shown` says where a path of the host is."""
        match self.kind:
            case DriftKind.POINTER_GONE:
                return f"{self.process}: {shown(self.path)} is gone; everything that it named is made anew"
            case DriftKind.POINTER_EDITED:
                return f"{self.process}: {shown(self.path)} was edited since it was applied; nothing overwrites it"
            case DriftKind.RELEASE_GONE:
                return f"{self.instances[0]}: its release is gone; it is made anew"
            case DriftKind.RELEASE_ALTERED:
                return f"{self.instances[0]}: its release was altered ({self._files_shown()}); it is made anew"
            case DriftKind.KEY_GONE:
                return f"{self.instances[0]}: its key is gone from the host; a new certificate is issued"

    def _files_shown(self) -> str:
        """The host says these names: no more of them than a person reads."""
        more = len(self.files) - _FILES_SHOWN
        names = [*(one[:_NAME_SHOWN] for one in self.files[:_FILES_SHOWN]), *([f"{more} more"] if more > 0 else [])]
        return ", ".join(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostQuestion:
    """What one look at a host asks for."""

    processes: Mapping[ProcessId, tuple[str, Mapping[InstanceId, Live]]]
    """The path of its pointer, and what it names."""
    keys: Mapping[InstanceId, str]
    """The public half (SHA-256) of each key that is to be there, live or not yet."""

    def ask(self, transport: Transport, *, lock_for: str | None = None) -> Observed:
        """Raises DeliveryError; with `lock_for`, a lineage, the host is locked first, and StateLocked is possible."""
        lives = [(one, live) for _, those in self.processes.values() for one, live in those.items()]
        return transport.observe(
            pointers=[path for path, _ in self.processes.values()],
            releases=[(one.service, live.receipt.release) for one, live in lives],
            keys=[(one.service, spki) for one, spki in self.keys.items()],
            lock_for=lock_for,
        )


def question_for(host: str, state: State, inventory: Inventory, runtimes: Mapping[str, Runtime]) -> HostQuestion:
    """What a host is to hold by the state."""
    processes: dict[ProcessId, dict[InstanceId, Live]] = {}
    for instance, live in state.live.items():
        if live.recipe.process.host == host:
            processes.setdefault(live.recipe.process, {})[instance] = live
    paths = {
        process: pointer_path(runtimes[next(iter(those.values())).recipe.runtime], process)
        for process, those in processes.items()
    }
    return HostQuestion(
        processes={process: (paths[process], those) for process, those in processes.items()},
        keys=dict(_keys_needed(host, state, inventory)),
    )


def _keys_needed(host: str, state: State, inventory: Inventory) -> Iterator[tuple[InstanceId, str]]:
    """Keys that the newest leaf of a declared instance needs; of a request's the key is its owner's."""
    old_hosts = {move.new: move.old for move in inventory.moved if move.old in state.hosts}
    old_services = {move.new: move.old for move in inventory.renamed}
    declared = {one._replace(host=old_hosts.get(one.host, one.host)) for one in inventory.instances()}
    declared |= {one._replace(service=old_services.get(one.service, one.service)) for one in declared}
    for instance, credential in sorted(newest_credentials(state).items()):
        is_ours = credential.profile.request_sha256 is None
        if instance.host == host and instance in declared - state.keys_missing and is_ours:
            yield instance, credential.spki_sha256


def judge(host: str, question: HostQuestion, seen: Observed, state: State) -> list[Drift]:
    """Every difference between what a host is to hold and what it was seen to hold."""
    found: list[Drift] = []
    for process, (path, those) in question.processes.items():
        pointer = seen.pointers[path]
        digest, known = None if pointer is None else pointer_sha256(pointer), state.pointers.get(process)
        if digest != known:
            kind = DriftKind.POINTER_GONE if digest is None else DriftKind.POINTER_EDITED
            found.append(Drift(kind=kind, host=host, instances=tuple(those), path=path, process=process))
        if digest is not None or known is None:  # else everything that it named is made anew
            found += [drift for one, live in those.items() if (drift := _damage(one, live, seen)) is not None]
    found += [
        Drift(kind=DriftKind.KEY_GONE, host=host, instances=(one,), path=str(key_file(one.service, spki)))
        for one, spki in question.keys.items()
        if not seen.keys[one.service, spki]
    ]
    return found


def _damage(instance: InstanceId, live: Live, seen: Observed) -> Drift | None:
    """What is wrong with a live release on its host, file by file against its receipt; None when nothing is."""
    release = live.receipt.release
    files = seen.releases[instance.service, release]
    kind = DriftKind.RELEASE_GONE if files is None else DriftKind.RELEASE_ALTERED
    altered = () if files is None else tuple(sorted({fact.path for fact in set(files) ^ set(live.receipt.files)}))
    if files is not None and not altered:
        return None
    path = str(release_folder(instance.service, release))
    return Drift(kind=kind, host=instance.host, instances=(instance,), path=path, files=altered)


def record(writer: StateWriter, drift: Drift, state: State) -> None:
    """Bring the state in line with a difference, so that the plan that follows sees to it."""
    match drift.kind:
        case DriftKind.POINTER_GONE:
            assert drift.process is not None  # noqa: S101  it is the process's pointer
            before = state.pointers[drift.process]
            gone = SwitchRecord(process=drift.process, before=before, after=None, releases=(), removed=drift.instances)
            writer.record_switch_intended(gone)
            writer.record_switched(gone, {})
        case DriftKind.RELEASE_GONE | DriftKind.RELEASE_ALTERED:
            for instance in drift.instances:
                writer.record_gone(instance)
        case DriftKind.KEY_GONE:
            for instance in drift.instances:
                writer.record_key_missing(instance)
        case DriftKind.POINTER_EDITED:
            pass  # the switch that would overwrite it refuses
        case _:
            assert_never(drift.kind)


def seen_through(state: State, drifts: Iterable[Drift]) -> State:
    """The state as `record` would make it: for a plan that writes nothing."""
    live, pointers, keys_missing = dict(state.live), dict(state.pointers), set(state.keys_missing)
    for drift in drifts:
        if drift.kind is DriftKind.KEY_GONE:
            keys_missing.update(drift.instances)
        elif drift.kind is not DriftKind.POINTER_EDITED:
            for instance in drift.instances:
                live.pop(instance, None)
        if drift.kind is DriftKind.POINTER_GONE and drift.process is not None:
            pointers.pop(drift.process, None)
    return replace(state, live=live, pointers=pointers, keys_missing=frozenset(keys_missing))
