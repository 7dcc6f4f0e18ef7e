"""Back to the releases that were live before: each process points at them again, if nothing that works would break."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtlsctl.errors import MtlsctlError, RollbackRefused
from mtlsctl.model.keystore import StoreKind
from mtlsctl.model.plan import Wave
from mtlsctl.model.release import OLD_NAMES
from mtlsctl.operations.connections import at_each
from mtlsctl.operations.executor import live_members
from mtlsctl.operations.history import previous_releases
from mtlsctl.operations.observe import hosts_of, look_at_hosts
from mtlsctl.operations.progress import ProcessEvent, Status
from mtlsctl.operations.publication import Publication, make_receipt, refuse_altered
from mtlsctl.operations.releases import Member, render_again
from mtlsctl.pki.preflight import preflight
from mtlsctl.planner.edges import live_edges, open_doors
from mtlsctl.render.stores import specifications
from mtlsctl.store.port import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.credential import Credential, CredentialId
    from mtlsctl.model.release import Receipt, Recipe
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, InstanceId, ProcessId
    from mtlsctl.operations.apply import Scope
    from mtlsctl.operations.progress import Event
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.planner.edges import LiveEdge, OpenDoor
    from mtlsctl.store.port import ReleaseRecord, StateWriter

WOULD_BREAK = "M5101"
NOTHING_BEFORE = "M5102"
UNFIT = "M5103"


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """One instance that goes back: from its live release to the one before."""

    live: str
    record: ReleaseRecord
    receipt: Receipt
    credential: Credential

    @property
    def instance(self) -> InstanceId:
        return self.record.recipe.instance


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What a rollback would do. `unfit` are instances that cannot go back, and why.

    `breaks` are calls that work now and would not; `reopens` are callers that a listener does not let in now and
    would let in again.
    """

    returns: tuple[Return, ...]
    unfit: Mapping[InstanceId, MtlsctlError]
    breaks: frozenset[LiveEdge]
    reopens: frozenset[OpenDoor]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What came of it; `operation` is None when nothing was begun."""

    way: WayBack
    approved: bool
    operation: str | None = None
    processes: tuple[ProcessEvent, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not self.way.unfit and all(event.status is Status.DONE for event in self.processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackWishes:
    """What is to go back, and who is asked."""

    scope: Scope
    approve: Callable[[WayBack], bool]
    report: Callable[[Event], None]
    force: bool = False
    lock_timeout_seconds: float = 0.0


def rollback(workspace: Workspace, wishes: RollbackWishes) -> RolledBack:
    """Point every process in scope at what it named before the last apply that changed it.

    Raises UsageError for a name that is nothing here, RollbackRefused M5102 when there is nothing to go back to, M5101
    when a call that works would break and `force` was not given; StateLocked, StateError. A process that fails is in
    the result and serves what it served.
    """
    inventory = workspace.load().inventory
    with (
        closing(workspace.connections),
        workspace.store(inventory.name) as store,
        store.lock(command="rollback", timeout_seconds=wishes.lock_timeout_seconds) as writer,
    ):
        hosts = hosts_of(inventory, writer.snapshot())
        for gone in inventory.abandoned:
            hosts.pop(gone.name, None)
        wishes.scope.check(inventory, writer.snapshot(), hosts)
        transports = {name: workspace.transport_to(one) for name, one in hosts.items() if wishes.scope.holds_host(name)}
        looked = look_at_hosts(writer, inventory, hosts, workspace.catalog, transports, workspace.clock)
        for noticed in looked.noticed:
            wishes.report(noticed)
        reached = {name: one for name, one in transports.items() if name not in looked.unreachable}
        search = _Search(workspace=workspace, writer=writer, state=writer.snapshot(), transports=reached)
        way = search.way_back(wishes.scope, looked.unreachable)
        if not way.returns and not way.unfit:
            raise RollbackRefused("there is nothing to go back to: no release was live before", code=NOTHING_BEFORE)
        if way.breaks and not wishes.force:
            raise RollbackRefused(
                "going back would break calls that work now",
                code=WOULD_BREAK,
                notes=tuple(map(str, sorted(way.breaks))),
                help="go back at both ends of these calls, or accept it with --force",
            )
        if not way.returns or not wishes.approve(way):
            return RolledBack(way=way, approved=not way.returns)
        return _Road(workspace=workspace, wishes=wishes, writer=writer, hosts=hosts, transports=reached, way=way).go()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Finds the way back, and changes nothing."""

    workspace: Workspace
    writer: StateWriter
    state: State
    transports: Mapping[str, Transport]

    def way_back(self, scope: Scope, unreachable: Mapping[str, MtlsctlError]) -> WayBack:
        previous = previous_releases(self.writer.journal())
        asked = {one: previous[one] for one in self.state.live if one in previous and scope.holds(one)}
        unfit: dict[InstanceId, MtlsctlError] = {one: unreachable[one.host] for one in asked if one.host in unreachable}

        def look(host: str, transport: Transport) -> list[Return | tuple[InstanceId, MtlsctlError]]:
            return [self._tried(one, asked[one], transport) for one in asked if one.host == host]

        answers, failed = at_each(self.transports, look)
        unfit |= {one: failed[one.host] for one in asked if one.host in failed}
        found = [result for results in answers.values() for result in results]
        returns = tuple(sorted((one for one in found if isinstance(one, Return)), key=lambda one: one.instance))
        unfit |= dict(one for one in found if not isinstance(one, Return))
        return WayBack(returns=returns, unfit=unfit, breaks=self._breaks(returns), reopens=self._reopens(returns))

    def _tried(
        self, instance: InstanceId, release: str, transport: Transport
    ) -> Return | tuple[InstanceId, MtlsctlError]:
        try:
            return self._return(instance, release, transport)
        except MtlsctlError as error:
            return instance, error

    def _return(self, instance: InstanceId, release: str, transport: Transport) -> Return:
        """Raises RollbackRefused M5103, and what our own pre-flight finds: an ended certificate among it."""
        record = self.writer.release(instance, release)
        credential = None if record is None else self.writer.credential(record.recipe.credential)
        if record is None or credential is None or not transport.has_release(instance.service, release):
            raise RollbackRefused(f"the release {release} of {instance} is not on its host any more", code=UNFIT)
        files = transport.read_release(instance.service, release)
        recipe = record.recipe
        if recipe.runtime_digest == OLD_NAMES:
            raise RollbackRefused(
                f"the release {release} of {instance} is from before a service was renamed", code=UNFIT
            )
        policies = [served.policy for served in recipe.listeners] + [callee.policy for callee in recipe.callees]
        folder = self.workspace.catalog[recipe.runtime]
        stores = specifications(recipe, folder.manifest)
        preflight(
            files,
            recipe=recipe,
            credential=credential,
            anchors={one: self.writer.certificate(one) for policy in policies for one in policy.anchors},
            issuer=self.writer.certificate(credential.profile.anchor),
            now=self.workspace.clock(),
            stores=stores,
            combined=tuple(one.path for one in stores if one.kind is StoreKind.COMBINED),
        )
        # Its receipt is not kept, so that nobody altered what no pre-flight reads shows only beside what it was.
        if recipe.runtime_digest == folder.runtime.digest:
            rendered = render_again(recipe, credential, self.writer, folder)
            if rendered.record.release == release:
                refuse_altered(rendered, rendered.staged, files)
        live = self.state.live[instance].receipt.release
        receipt = make_receipt(release, record.release_digest, files)
        return Return(live=live, record=record, receipt=receipt, credential=credential)

    def _recipes(self, returns: Iterable[Return]) -> dict[InstanceId, Recipe]:
        now = {instance: live.recipe for instance, live in self.state.live.items()}
        return now | {one.instance: one.record.recipe for one in returns}

    def _breaks(self, returns: tuple[Return, ...]) -> frozenset[LiveEdge]:
        """At the end, and on the way there: processes go back one after the other, and none after one that fails."""
        credentials: dict[CredentialId, Credential] = dict(self.state.credentials)
        credentials |= {one.credential.id: one.credential for one in returns}
        works = live_edges(self._recipes(()), credentials)
        broken: frozenset[LiveEdge] = frozenset()
        gone: list[Return] = []
        for those in _by_process(returns).values():
            gone += those
            broken |= works - live_edges(self._recipes(gone), credentials)
        return broken

    def _reopens(self, returns: tuple[Return, ...]) -> frozenset[OpenDoor]:
        return open_doors(self._recipes(returns)) - open_doors(self._recipes(()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Road:
    """Goes the way back."""

    workspace: Workspace
    wishes: RollbackWishes
    writer: StateWriter
    hosts: Mapping[str, Host]
    transports: Mapping[str, Transport]
    way: WayBack
    events: list[ProcessEvent] = field(default_factory=list)

    def go(self) -> RolledBack:
        operation = self.writer.open_operation("rollback")
        try:
            self._point_back()
        except BaseException:
            self.writer.close_operation(Outcome.FAILED)
            raise
        result = RolledBack(way=self.way, approved=True, operation=operation, processes=tuple(self.events))
        self.writer.close_operation(Outcome.DONE if result.is_whole else Outcome.PARTIAL)
        return result

    def _point_back(self) -> None:
        state = self.writer.snapshot()
        publication = Publication(
            writer=self.writer,
            catalog=self.workspace.catalog,
            hosts=self.hosts,
            transports=self.transports,
            pointers=dict(state.pointers),
            clock=self.workspace.clock,
            credentials={one.credential.id: one.credential for one in self.way.returns},
        )
        members = live_members(state)
        for process, returns in _by_process(self.way.returns).items():
            after = dict(members[process])
            for one in returns:
                after[one.instance] = Member(recipe=one.record.recipe, release=one.record.release)
            self._publish(publication, process, after, returns)

    def _publish(
        self,
        publication: Publication,
        process: ProcessId,
        after: Mapping[InstanceId, Member],
        returns: list[Return],
    ) -> None:
        event = ProcessEvent(
            at=self.workspace.clock(),
            process=process,
            wave=Wave.ACTIVATE,
            status=Status.STARTED,
            instances=tuple(one.instance for one in returns),
        )
        if failed := next((one.process for one in self.events if one.status is Status.FAILED), None):
            # What works among some that went back and some that did not was looked at in this order only.
            self._tell(replace(event, status=Status.BLOCKED, message=f"stays as it is, since {failed} failed"))
            return
        self.wishes.report(event)
        try:
            notes = publication.point_back(
                process, after, [one.record for one in returns], {one.instance: one.receipt for one in returns}
            )
        except MtlsctlError as error:
            done = replace(
                event, status=Status.FAILED, message=error.message, code=error.code, help=error.help, notes=error.notes
            )
        else:
            done = replace(event, status=Status.DONE, notes=notes)
        self._tell(done)

    def _tell(self, event: ProcessEvent) -> None:
        self.events.append(event)
        self.wishes.report(event)


def _by_process(returns: Iterable[Return]) -> dict[ProcessId, list[Return]]:
    """Those that go back with one switch, in the order of the switches."""
    processes: dict[ProcessId, list[Return]] = {}
    for one in returns:
        processes.setdefault(one.record.recipe.process, []).append(one)
    return processes
