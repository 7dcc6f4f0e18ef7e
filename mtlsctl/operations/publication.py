"""One process's switch, with our own pre-flight before it, the read-back after it and the record around it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import pointer_sha256
from mtlsctl.deliver.publish import Switch, Verbs, publish
from mtlsctl.errors import DeliveryError, MtlsctlError, PreflightError
from mtlsctl.failpoints import reach
from mtlsctl.model.release import FileFact, HeldFile, Receipt
from mtlsctl.model.runtime import ProcessScope, Reload, reload_of
from mtlsctl.model.state import Live
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.drift import pointer_path
from mtlsctl.operations.releases import make_pointer
from mtlsctl.operations.settle import served_by
from mtlsctl.operations.stores import Passwords, assemble
from mtlsctl.pki import codes
from mtlsctl.pki.outside import is_key_of
from mtlsctl.pki.preflight import preflight
from mtlsctl.store.port import SwitchRecord
from mtlsctl.verify.wire import await_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from mtlsctl.deliver.layout import StagedRelease
    from mtlsctl.deliver.publish import Inspect
    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.credential import Credential, CredentialId
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, InstanceId, ProcessId
    from mtlsctl.operations.releases import Member, Rendered
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.store.port import ReleaseRecord, StateWriter

SETTLE_SECONDS = 10.0
KEY_GONE = "M4116"
_UNSEEN = frozenset({Reload.NONE, Reload.RESTART})
"""After these the running process serves what it served, so there is nothing to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Publishes processes of any host, with the pointers as they were last seen.

    `presented` are the leaves that instances showed before any of it.
    """

    writer: StateWriter
    catalog: Mapping[str, RuntimeFolder]
    hosts: Mapping[str, Host]
    transports: Mapping[str, Transport]
    pointers: dict[ProcessId, str | None]
    clock: Callable[[], datetime]
    presented: frozenset[CredentialId] = frozenset()
    passwords: Passwords = field(default_factory=Passwords)
    reload: bool = True
    credentials: Mapping[CredentialId, Credential] = field(default_factory=dict)
    """Leaves that the state does not show any more and that releases may show again."""
    _seen: list[State] = field(default_factory=list)
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def publish(
        self,
        process: ProcessId,
        members: Mapping[InstanceId, Member],
        releases: Sequence[Rendered],
        leaving: Sequence[InstanceId],
    ) -> tuple[str, ...]:
        """Make the process serve its members; gives notes, raises MtlsctlError when it serves what it served."""
        folder = self._folder(process, members, leaving)
        pointer = make_pointer(folder, process, list(members.values()))
        record = SwitchRecord(
            process=process,
            before=self.pointers.get(process),
            after=pointer_sha256(pointer) if pointer is not None else None,
            releases=tuple(one.record for one in releases),
            removed=tuple(leaving),
        )
        transport = self.transports[process.host]
        journal = _Journal(writer=self.writer, switch=record)
        staged = [self._assembled(one, transport) for one in releases]
        inspection = self._inspection(process, releases, staged, journal.receipts)
        done = publish(
            transport,
            Switch(
                process=process,
                releases=tuple(staged),
                pointer=pointer,
                pointer_path=pointer_path(folder.runtime, process),
                expected_before=record.before,
            ),
            self._verbs(folder.runtime, process, members, inspection.inspect),
            journal,
        )
        self._take_down(record, journal.receipts)
        self._clean_after(transport, leaving)
        return (*inspection.warnings, *done.notes)

    def point_back(
        self,
        process: ProcessId,
        members: Mapping[InstanceId, Member],
        records: Sequence[ReleaseRecord],
        receipts: Mapping[InstanceId, Receipt],
    ) -> tuple[str, ...]:
        """Make the process serve members that its host holds already; gives notes, raises as `publish` does."""
        folder = self._folder(process, members, ())
        pointer = make_pointer(folder, process, list(members.values()))
        record = SwitchRecord(
            process=process,
            before=self.pointers.get(process),
            after=pointer_sha256(pointer) if pointer is not None else None,
            releases=tuple(records),
            removed=(),
        )
        switch = Switch(
            process=process,
            releases=(),
            pointer=pointer,
            pointer_path=pointer_path(folder.runtime, process),
            expected_before=record.before,
        )
        journal = _Journal(writer=self.writer, switch=record, receipts=dict(receipts))
        verbs = self._verbs(folder.runtime, process, members, lambda *_: None)
        done = publish(self.transports[process.host], switch, verbs, journal)
        self._take_down(record, journal.receipts)
        return done.notes

    def _state(self) -> State:
        """As of the first publication, and what was published since: reading all of it each time takes long."""
        with self._alone:
            if not self._seen:
                self._seen.append(self.writer.snapshot())
            return self._seen[0]

    def _take_down(self, record: SwitchRecord, receipts: Mapping[InstanceId, Receipt]) -> None:
        """What its record says of a switch that is done."""
        self._state()
        now = {
            one.recipe.instance: Live(recipe=one.recipe, receipt=receipts[one.recipe.instance])
            for one in record.releases
        }
        with self._alone:
            kept = {one: live for one, live in self._seen[0].live.items() if one not in record.removed}
            self._seen[0] = replace(self._seen[0], live={**kept, **now})
            self.pointers[record.process] = record.after

    def would_pass(
        self, process: ProcessId, members: Mapping[InstanceId, Member], releases: Sequence[Rendered]
    ) -> bool:
        """Whether everything that comes before the switch goes well with these members: pre-flight and check."""
        if not members:
            return True
        folder, transport = self._folder(process, members, ()), self.transports[process.host]
        try:
            pointer = make_pointer(folder, process, list(members.values()))
            staged = [self._assembled(one, transport) for one in releases]
            inspection = self._inspection(process, releases, staged, {})
            for one, files in zip(staged, transport.stage_and_read(staged), strict=True):
                inspection.inspect(one.service, one.release, files)
            if pointer is not None:
                transport.check(folder.runtime.check, pointer)
        except MtlsctlError:
            return False
        return True

    def is_reloaded(
        self, process: ProcessId, members: Mapping[InstanceId, Member], leaving: Sequence[InstanceId]
    ) -> bool:
        """Whether a switch makes a running process change at once, as opposed to files that are taken up some time."""
        host, runtime = self.hosts[process.host], self._folder(process, members, leaving).runtime
        reload = self._reload(runtime, self._live(process), [member.recipe for member in members.values()])
        is_signalled = not isinstance(host, DirectoryHost) or process.name in dict(host.pid_files)
        return reload not in _UNSEEN and is_signalled

    def _assembled(self, one: Rendered, transport: Transport) -> StagedRelease:
        return assemble(one, self.catalog[one.recipe.runtime], transport, self.passwords)

    def _inspection(
        self,
        process: ProcessId,
        releases: Sequence[Rendered],
        staged: Sequence[StagedRelease],
        receipts: dict[InstanceId, Receipt],
    ) -> _Inspection:
        return _Inspection(
            releases={
                (whole.service, whole.release): (one, whole) for one, whole in zip(releases, staged, strict=True)
            },
            receipts=receipts,
            clock=self.clock,
            presented=self.presented,
            host=self.hosts[process.host],
            transport=self.transports[process.host],
        )

    def _folder(
        self, process: ProcessId, members: Mapping[InstanceId, Member], leaving: Sequence[InstanceId]
    ) -> RuntimeFolder:
        for member in members.values():
            return self.catalog[member.recipe.runtime]
        state = self._state()
        for instance in leaving:
            return self.catalog[state.live[instance].recipe.runtime]
        raise DeliveryError(f"{process} names nothing", code="M4109")

    def _verbs(
        self, runtime: Runtime, process: ProcessId, members: Mapping[InstanceId, Member], inspect: Inspect
    ) -> Verbs:
        state = self._state()
        state = replace(state, credentials={**self.credentials, **state.credentials})
        host = self.hosts[process.host]
        now = [member.recipe for member in members.values()]
        before = self._live(process)

        reload = self._reload(runtime, before, now)

        def settle_as(recipes: list[Recipe]) -> Callable[[], None]:
            if reload in _UNSEEN:
                return lambda: None
            return lambda: await_served(served_by(recipes, host, state, self.writer), deadline_seconds=SETTLE_SECONDS)

        return Verbs(
            check=runtime.check,
            reload=reload,
            program=runtime.process,
            inspect=inspect,
            settle=settle_as(now),
            settle_back=settle_as(before),
        )

    def _reload(self, runtime: Runtime, before: Sequence[Recipe], now: Sequence[Recipe]) -> Reload:
        return _reload(runtime, before, now) if self.reload else Reload.NONE

    def _live(self, process: ProcessId) -> list[Recipe]:
        return [live.recipe for live in self._state().live.values() if live.recipe.process == process]

    def _clean_after(self, transport: Transport, leaving: Sequence[InstanceId]) -> None:
        """A key that goes is on record as gone before it is: when the instance comes back, the plan knows."""
        for instance in leaving:
            self.writer.record_key_missing(instance)
            transport.delete_service(instance.service)
            reach("remove.deleted")


def _reload(runtime: Runtime, before: Sequence[Recipe], now: Sequence[Recipe]) -> Reload:
    """How the process takes this up; one that many instances share knows one way only."""
    if runtime.scope is not ProcessScope.INSTANCE:
        return runtime.reload
    return reload_of(runtime, next(iter(before), None), next(iter(now), None))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Journal:
    """Records one switch; the receipts are there by the time it is done."""

    writer: StateWriter
    switch: SwitchRecord
    receipts: dict[InstanceId, Receipt] = field(default_factory=dict)

    def intended(self) -> None:
        self.writer.record_switch_intended(self.switch)

    def switched(self) -> None:
        self.writer.record_switched(self.switch, self.receipts)

    def switched_back(self) -> None:
        self.writer.record_switched_back(self.switch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspection:
    """Our own pre-flight on each staged release as it was read back."""

    releases: Mapping[tuple[str, str], tuple[Rendered, StagedRelease]]
    receipts: dict[InstanceId, Receipt]
    clock: Callable[[], datetime]
    presented: frozenset[CredentialId]
    host: Host
    transport: Transport
    warnings: list[str] = field(default_factory=list)

    def inspect(self, service: str, release: str, files: dict[str, HeldFile]) -> None:
        rendered, staged = self.releases[service, release]
        warnings = preflight(
            files,
            recipe=rendered.recipe,
            credential=rendered.credential,
            anchors=rendered.anchors,
            issuer=rendered.issuer,
            now=self.clock(),
            is_presented=rendered.credential.id in self.presented,
            stores=rendered.stores,
            combined=rendered.staged.combined,
        )
        refuse_altered(rendered, staged, files)
        self.warnings.extend((*warnings, *self._foreign_keys(rendered)))
        self.receipts[rendered.recipe.instance] = make_receipt(
            rendered.record.release, rendered.record.release_digest, files
        )

    def _foreign_keys(self, rendered: Rendered) -> Iterator[str]:
        """Whether the keys that are not ours belong to what is shown: Apache loads any, and goes down at the reload."""
        for served in rendered.recipe.listeners:
            if served.shows is None:
                continue
            place = self.transport.shown(served.shows.key_path)
            try:
                is_its = is_key_of(self.transport.borrow_key(served.shows.key_path), rendered.shown[served.shows.leaf])
            except DeliveryError as error:
                if error.code != KEY_GONE or not isinstance(self.host, DirectoryHost) or self.host.seen_as is None:
                    raise
                yield f"{error.message}: whether it belongs to the certificate was not looked at"
                continue
            except PreflightError as error:
                raise PreflightError(f"{place}: {error.message}", code=error.code) from None
            if not is_its:
                raise PreflightError(
                    f"the key at {place} does not belong to the certificate {served.shows.leaf[:16]} that "
                    f"{rendered.recipe.instance} is to show",
                    code=codes.KEY_MISMATCH,
                    help="put the key of that certificate there; or the chain of that key into the repository",
                )


def refuse_altered(rendered: Rendered, staged: StagedRelease, files: Mapping[str, HeldFile]) -> None:
    """A release of that name may have lain there before: it has to hold exactly what was rendered and staged.

    That goes for stores too: one that lay there with the right content was staged with the bytes that it had.
    """
    for file in staged.files:
        if files.get(file.path) != HeldFile.of(file.content, file.mode):
            raise DeliveryError(
                f"{rendered.recipe.instance}: {file.path} in {rendered.staged.release} differs from what was rendered",
                code="M4110",
                help="delete that release's folder on the host, then run the same command again",
            )


def make_receipt(release: str, release_digest: str, files: Mapping[str, HeldFile]) -> Receipt:
    """What a host holds of a release, as it was read back."""
    facts = (FileFact(path, held.sha256, held.mode) for path, held in sorted(files.items()))
    return Receipt(release=release, release_digest=release_digest, files=tuple(facts))
