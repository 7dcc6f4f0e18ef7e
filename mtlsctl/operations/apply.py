"""Make it so: look, plan, ask, issue, render, publish wave by wave, clean up.

Most runs change nothing: what issues, renders and publishes is imported when there is something to change.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import RELEASES_KEPT
from mtlsctl.errors import DeliveryError, PlanRefused, UsageError
from mtlsctl.failpoints import reach
from mtlsctl.model.plan import Op
from mtlsctl.model.topology import DirectoryHost, InstanceId
from mtlsctl.operations.connections import FORKS, at_each
from mtlsctl.operations.history import previous_releases
from mtlsctl.operations.observe import delete_left_over, hosts_of, look_at_hosts
from mtlsctl.operations.outside import facts_of_outside, keep_outside, prove_outside
from mtlsctl.operations.plan import Planned, refuse_unsafe
from mtlsctl.operations.progress import Issued, Noticed, Status
from mtlsctl.operations.saved_plan import compare
from mtlsctl.operations.schedule import Pace
from mtlsctl.planner.plan import make_plan
from mtlsctl.store.port import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.errors import MtlsctlError
    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.plan import ServiceMove
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, Inventory
    from mtlsctl.operations.progress import Event, ProcessEvent
    from mtlsctl.operations.saved_plan import SavedPlan
    from mtlsctl.operations.stores import Passwords
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.store.port import StateWriter

FINGERPRINT_DIFFERS = "M5003"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply did. `operation` is None when nothing was begun: nothing to change, or the answer was no."""

    planned: Planned
    approved: bool
    operation: str | None
    serial: int
    processes: tuple[ProcessEvent, ...] = ()
    unreachable: frozenset[str] = frozenset()
    """Hosts that could not be looked at: whether they hold what they should is not known."""

    @property
    def is_whole(self) -> bool:
        """Whether everything that was planned is done, and every host was seen."""
        is_done = all(event.status in {Status.DONE, Status.LEFT_OUT} for event in self.processes)
        return is_done and not self.unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The hosts and the services that are to be changed now, by name or by pattern (`web*`); None: all of them."""

    hosts: frozenset[str] | None = None
    services: frozenset[str] | None = None

    @property
    def is_everything(self) -> bool:
        return self.hosts is None and self.services is None

    def holds(self, instance: InstanceId) -> bool:
        return self.holds_host(instance.host) and _fits(self.services, instance.service)

    def holds_host(self, host: str) -> bool:
        return _fits(self.hosts, host)

    def check(self, inventory: Inventory, state: State, hosts: Iterable[str]) -> None:
        """Raise UsageError M9112 for what fits nothing here, nor anything that is to be removed."""
        services = {one.service for one in (*inventory.instances(), *state.live)}
        unknown = [
            *(f"no host is called `{one}`" for one in _without_any(self.hosts, hosts)),
            *(f"no service is called `{one}`" for one in _without_any(self.services, services)),
        ]
        if unknown:
            raise UsageError("; ".join(unknown), code="M9112", help="mtlsctl hosts list, mtlsctl show")


def _fits(patterns: frozenset[str] | None, name: str) -> bool:
    return patterns is None or any(fnmatchcase(name, one) for one in patterns)


def _without_any(patterns: frozenset[str] | None, names: Iterable[str]) -> list[str]:
    known = list(names)
    return sorted(one for one in patterns or () if not any(fnmatchcase(name, one) for name in known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the person at the keyboard, or the pipeline, wants to be asked and held to."""

    approve: Callable[[Planned], bool]
    report: Callable[[Event], None]
    saved: SavedPlan | None = None
    expect_fingerprint: str | None = None
    lock_timeout_seconds: float = 0.0
    pace: Pace = field(default_factory=Pace)
    scope: Scope = field(default_factory=Scope)
    reload: bool = True


def apply(workspace: Workspace, wishes: Wishes) -> Applied:
    """Apply the inventory, or go on with an apply that was interrupted.

    Raises what refuses before anything changed: InventoryError, UnsafePlan, PlanRefused, StateLocked, StateError,
    SealedKeyError, SecretMissing. Failures of processes do not raise; they are in the result, and what waited for them
    is blocked.
    """
    loaded = workspace.load()
    inventory = loaded.inventory
    with (
        closing(workspace.connections),
        workspace.store(inventory.name) as store,
        store.lock(command="apply", timeout_seconds=wishes.lock_timeout_seconds) as writer,
    ):
        hosts = hosts_of(inventory, writer.snapshot())
        for gone in inventory.abandoned:
            hosts.pop(gone.name, None)  # nobody looks at it, whatever lies at its place
        wishes.scope.check(inventory, writer.snapshot(), hosts)
        inhabited = {one.host for one in inventory.instances()} | writer.snapshot().hosts.keys()
        transports = {
            name: workspace.transport_to(host)
            for name, host in hosts.items()
            if name in inhabited and wishes.scope.holds_host(name)
        }
        looked = look_at_hosts(writer, inventory, hosts, workspace.catalog, transports, workspace.clock)
        for noticed in looked.noticed:
            wishes.report(noticed)
        for name, error in sorted(looked.unreachable.items()):
            wishes.report(Noticed(at=workspace.clock(), message=f"{name} is out of reach: {error.message}"))
        planned = _plan_again(workspace, loaded, writer, wishes)
        run = _Run(
            workspace=workspace,
            wishes=wishes,
            writer=writer,
            planned=planned,
            hosts=hosts,
            unreachable=looked.unreachable,
            passwords=_look_up_passwords(workspace, planned),
        )
        if not planned.plan.has_changes:
            return run.end_what_is_open()
        if not wishes.approve(planned):
            return Applied(planned=planned, approved=False, operation=None, serial=planned.state.serial)
        return run.go()


def _look_up_passwords(workspace: Workspace, planned: Planned) -> Passwords | None:
    """Of the stores that are to be made; None when nothing is."""
    recipes = [step.recipe for step in planned.plan.steps if step.recipe is not None]
    if not recipes:
        return None
    from mtlsctl.operations.stores import look_up_passwords

    return look_up_passwords(recipes, workspace.catalog, workspace.environ, keep_out=[workspace.project.root])


def _plan_again(workspace: Workspace, loaded: LoadedInventory, writer: StateWriter, wishes: Wishes) -> Planned:
    """The plan as of now, held against what was reviewed. A saved plan is made again as of its own moment."""
    state, runtimes = writer.snapshot(), workspace.runtimes
    now = wishes.saved.created_at if wishes.saved else workspace.clock()
    made = make_plan(loaded.inventory, state, runtimes, now, facts_of_outside(loaded.inventory, state, writer))
    if wishes.saved is not None:
        compare(wishes.saved, made, state)
    if wishes.expect_fingerprint not in (None, made.fingerprint):
        raise PlanRefused(
            f"the plan has the fingerprint {made.fingerprint}, not {wishes.expect_fingerprint}",
            code=FINGERPRINT_DIFFERS,
            help="look at the plan again: mtlsctl plan",
        )
    refuse_unsafe(made)
    return Planned(loaded=loaded, state=state, plan=made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One operation, from its opening to its end."""

    workspace: Workspace
    wishes: Wishes
    writer: StateWriter
    planned: Planned
    hosts: Mapping[str, Host]
    unreachable: Mapping[str, DeliveryError]
    passwords: Passwords | None
    unfit: Mapping[InstanceId, MtlsctlError] = field(default_factory=dict)

    def go(self) -> Applied:
        self._refuse_half_a_rename()
        self.writer.unlock()  # a wrong encryption key is found before anything is begun
        is_refactoring = self.planned.plan.is_refactoring
        run = self if is_refactoring else self._proven_and_claimed()
        is_left_undone = self._is_left_undone()
        operation = self.writer.open_operation("apply")
        reach("operation.opened")
        try:
            run = run._refactored() if is_refactoring else run  # noqa: SLF001  the same run, in the names of after
            events = run._issue_and_publish()  # noqa: SLF001
            run._tidy(run._hosts_to_tidy(everywhere=is_left_undone), is_left_undone=is_left_undone)  # noqa: SLF001
        except BaseException:
            self.writer.close_operation(Outcome.FAILED)
            raise
        whole = all(event.status is Status.DONE for event in events)
        self.writer.close_operation(Outcome.DONE if whole else Outcome.PARTIAL)
        reach("operation.closed")
        return Applied(
            planned=self.planned,
            approved=True,
            operation=operation,
            serial=self.writer.snapshot().serial,
            processes=events,
            unreachable=frozenset(self.unreachable),
        )

    def _proven_and_claimed(self) -> _Run:
        """What would refuse an apply of these steps before any of them; and what keeps some of them from being done."""
        from mtlsctl.operations.issue import prove_anchors

        transports = self._transports(self.hosts.keys() - self.unreachable.keys())
        steps, state = self.planned.plan.steps, self.planned.state
        unproven = prove_anchors(self.writer, state, steps, transports, self.unreachable)
        prove_outside(self.writer, self.planned.inventory, state, steps, transports)
        unclaimed = self._claim(self._hosts_to_tidy(everywhere=False))
        return replace(self, unfit=unproven, unreachable={**self.unreachable, **unclaimed})

    def _refactored(self) -> _Run:
        """Write into the state what is called otherwise now and what is gone: all that was planned is in these names.

        What lies on hosts under a service's old name lies under the new one too before the state says that it does.
        """
        for gone in self.planned.plan.abandonments:
            self.writer.abandon_host(gone.host)
        for move in self.planned.plan.moves:
            self.writer.move_host(move.old, self.planned.inventory.hosts[move.new])
        for rename in self.planned.plan.renames:
            self._carry(rename)
            reach("service.carried")
            self.writer.move_service(rename.old, rename.new)
            reach("service.moved")
        run = replace(self, planned=replace(self.planned, state=self.writer.snapshot()))
        return run._proven_and_claimed()  # noqa: SLF001

    def _refuse_half_a_rename(self) -> None:
        """Raise UsageError M9112: a service has one name on all of its hosts, and those left out are not looked at."""
        for rename in self.planned.plan.renames:
            left_out = [one for one in rename.hosts if one in self.hosts and not self.wishes.scope.holds_host(one)]
            if left_out:
                raise UsageError(
                    f"`{rename.old}` becomes `{rename.new}` on all of its hosts at once, and {', '.join(left_out)} "
                    "would be left out",
                    code="M9112",
                    help="apply the rename without choosing hosts",
                )
            for host in rename.hosts:
                if host in self.unreachable:
                    error = self.unreachable[host]
                    raise DeliveryError(
                        f"`{rename.old}` becomes `{rename.new}` on all of its hosts at once, and one is out of reach: "
                        f"{error.message}",
                        code=error.code,
                        notes=error.notes,
                        help=error.help,
                    )

    def _carry(self, rename: ServiceMove) -> None:
        state = self.writer.snapshot()
        transports = self._transports([one for one in rename.hosts if one in self.hosts])
        for name, transport in transports.items():
            instance = InstanceId(rename.old, name)
            live, keys = state.live.get(instance), _needed_keys(state, instance)
            if live is None and not any(transport.has_key(rename.old, one) for one in keys):
                continue
            transport.claim(state.lineage)
            transport.carry(rename.old, rename.new, release=live.receipt.release if live else None, keys=keys)

    def _claim(self, names: Iterable[str]) -> dict[str, DeliveryError]:
        """Give the hosts that are not this estate's to change; raises for a folder that is not."""
        lineage = self.planned.state.lineage
        _, failed = at_each(self._transports(names), lambda _, transport: transport.claim(lineage))
        for name, error in failed.items():
            if isinstance(self.hosts[name], DirectoryHost):
                raise error
        return failed

    def end_what_is_open(self) -> Applied:
        """Nothing changes; what an operation that ended early did not come to (old releases and keys) is done here."""
        if self._is_left_undone():
            self._claim(self._hosts_to_tidy(everywhere=True))
            self.writer.open_operation("apply")
            self._tidy(self._hosts_to_tidy(everywhere=True), is_left_undone=True)
            self.writer.close_operation(Outcome.DONE)
        if told := self._told_otherwise():
            self.writer.record_hosts([self.hosts[name] for name in told])
        return Applied(
            planned=self.planned,
            approved=True,
            operation=None,
            serial=self.writer.snapshot().serial,
            unreachable=frozenset(self.unreachable),
        )

    def _told_otherwise(self) -> list[str]:
        """Hosts that were looked at and of which the state says something else, such as their address."""
        known = self.planned.state.hosts
        return [
            name
            for name, host in sorted(self.hosts.items())
            if name in known
            and known[name] != host
            and name not in self.unreachable
            and self.wishes.scope.holds_host(name)
        ]

    def _is_left_undone(self) -> bool:
        """Whether the operation before this one did not end as it should."""
        return any(one.outcome is not Outcome.DONE for one in self.writer.operations(limit=1))

    def _hosts_to_tidy(self, *, everywhere: bool) -> set[str]:
        """Those that this plan touches; all that can be reached after an operation that ended early."""
        touched = {process.host for process in self.planned.plan.processes}
        inhabited = {instance.host for instance in self.planned.state.live} if everywhere else set()
        return {name for name in touched | inhabited if self.wishes.scope.holds_host(name)} - self.unreachable.keys()

    def _issue_and_publish(self) -> tuple[ProcessEvent, ...]:
        from mtlsctl.operations.executor import Executor, live_members
        from mtlsctl.operations.issue import absent_anchors, absent_keys
        from mtlsctl.operations.publication import Publication
        from mtlsctl.operations.releases import render_releases, try_pointers
        from mtlsctl.operations.stores import Passwords

        plan = self.planned.plan
        transports = self._transports({process.host for process in plan.processes} - self.unreachable.keys())
        asked_for = [name for name in sorted(transports) if self.wishes.scope.holds_host(name)]
        self.writer.record_hosts([self.hosts[name] for name in sorted({*asked_for, *self._told_otherwise()})])
        keep_outside(self.writer, self.planned.inventory, plan.steps)
        unfit = self._issue(transports)
        state = self.writer.snapshot()
        fit = [step for step in plan.steps if self._is_to_be_done(step.id.instance, unfit)]
        distrusted = absent_anchors(fit, plan.certificates, state)
        fit = [step for step in fit if step.id not in distrusted]
        rendered = render_releases(fit, state, self.writer, self.workspace.catalog)
        try_pointers(fit, rendered, live_members(state), self.workspace.catalog)
        self.writer.record_releases([one.record for one in rendered.values()])
        publication = Publication(
            writer=self.writer,
            catalog=self.workspace.catalog,
            hosts=self.hosts,
            transports=transports,
            pointers=dict(state.pointers),
            clock=self.workspace.clock,
            presented=frozenset(live.recipe.credential for live in state.live.values()),
            passwords=self.passwords or Passwords(),
            reload=self.wishes.reload,
        )
        executor = Executor(
            publication=publication,
            rendered=rendered,
            clock=self.workspace.clock,
            report=self.wishes.report,
            members=live_members(state),
            pace=self._pace(),
            is_asked_for=self.wishes.scope.holds,
        )
        executor.run(plan.steps, unfit, distrusted | absent_keys(fit, state, transports))
        return tuple(executor.events)

    def _pace(self) -> Pace:
        """Folders are changed one after the other, which is as fast and reads better; other hosts side by side."""
        if self.wishes.pace.forks is not None:
            return self.wishes.pace
        are_folders = all(isinstance(self.hosts[one.host], DirectoryHost) for one in self.planned.plan.processes)
        return replace(self.wishes.pace, forks=1 if are_folders else FORKS)

    def _transports(self, names: Iterable[str]) -> dict[str, Transport]:
        return {name: self.workspace.transport_to(self.hosts[name]) for name in sorted(names)}

    def _issue(self, transports: Mapping[str, Transport]) -> dict[InstanceId, MtlsctlError]:
        """CAs, then key requests, then leaves; gives the instances that nothing can be done about, and why."""
        from mtlsctl.operations.issue import issue_certificates, make_authorities, request_keys
        from mtlsctl.operations.requests import brought_keys

        plan, now = self.planned.plan, self.workspace.clock()
        make_authorities(self.writer, plan.authorities, now)
        absent = {
            step.id.instance: self.unreachable[step.id.instance.host]
            for step in plan.steps
            if step.id.instance.host in self.unreachable
        }
        wanted = [one for one in plan.requests if self._is_to_be_done(one.credential.instance, absent)]
        born, keyless = request_keys(wanted, transports)
        brought = brought_keys(self.planned.inventory, plan.certificates)
        keys = {**born, **{one: key for one, key in brought.items() if self._is_to_be_done(one, absent)}}
        issued, unsigned = issue_certificates(self.writer, plan.certificates, keys, transports, now)
        self.wishes.report(Issued(at=self.workspace.clock(), authorities=len(plan.authorities), certificates=issued))
        return {**self.unfit, **absent, **keyless, **unsigned}

    def _is_to_be_done(self, instance: InstanceId, absent: Mapping[InstanceId, MtlsctlError]) -> bool:
        return instance not in absent and instance not in self.unfit and self.wishes.scope.holds(instance)

    def _is_asked_for(self, instance: InstanceId) -> bool:
        """Whether its certificate is for a request, as it is declared now."""
        service = self.planned.inventory.services.get(instance.service)
        return service is not None and service.request_for(instance.host) is not None

    def _was_asked_for(self, instance: InstanceId) -> bool:
        """Whether all that was issued for it before this apply was so too; else a key of ours is left over."""
        return all(
            one.profile.request_sha256 is not None
            for one in self.planned.state.credentials.values()
            if one.id.instance == instance
        )

    def _tidy(self, names: Iterable[str], *, is_left_undone: bool) -> None:
        """Destroy keys of CAs that have ended, forget hosts that hold nothing, prune what no pointer names.

        Where nothing lay before there is nothing to prune, unless an operation ended early.
        """
        for change in self.planned.plan.authority_changes:
            if change.op is Op.REMOVE:
                self.writer.destroy_authority_key(change.id)
        transports = self._transports(names)
        delete_left_over(self.writer, self.planned.inventory, self.hosts, transports)
        state = self.writer.snapshot()
        owners = frozenset(
            instance for instance in state.live if self._is_asked_for(instance) and self._was_asked_for(instance)
        )
        previous = previous_releases(self.writer.journal())
        old = state.live.keys() if is_left_undone else state.live.keys() & self.planned.state.sequences.keys()
        _, failed = at_each(transports, lambda name, transport: _prune(transport, state, name, old, owners, previous))
        for name, error in failed.items():
            if isinstance(self.hosts[name], DirectoryHost):
                raise error
            self._notice(f"{name}: what is old was not deleted: {error.message}")
        inhabited = {instance.host for instance in state.live}
        for name in sorted(state.hosts.keys() - self.planned.inventory.hosts.keys() - inhabited):
            self.writer.forget_host(name)

    def _notice(self, message: str) -> None:
        self.wishes.report(Noticed(at=self.workspace.clock(), message=message))


def _prune(
    transport: Transport,
    state: State,
    host: str,
    old: AbstractSet[InstanceId],
    owners: AbstractSet[InstanceId],
    previous: Mapping[InstanceId, str],
) -> None:
    """Of `old` instances keep the live release, the one to roll back to, the newest others, three in all; needed keys.

    Of instances whose keys are their `owners`' every key is kept: one may lie there before its request is declared.
    """
    for instance, live in state.live.items():
        if instance.host != host:
            continue
        if instance in old:
            held = transport.releases(instance.service)
            first = [one for one in (live.receipt.release, previous.get(instance)) if one in held]
            kept = [*first, *(one for one in reversed(held) if one not in first)][:RELEASES_KEPT]
            transport.delete_releases(instance.service, [one for one in held if one not in kept])
            if instance not in owners:
                transport.delete_keys_except(instance.service, _needed_keys(state, instance))
        reach("prune.deleted")


def _needed_keys(state: State, instance: InstanceId) -> list[str]:
    return [one.spki_sha256 for one in state.credentials.values() if one.id.instance == instance]
