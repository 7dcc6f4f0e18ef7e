"""Hosts and services that bear another name now, and hosts that are gone: the state as it is once it knows.

What the inventory says here is true whether the state knows already or not, so it may be said again at every plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.plan import Abandonment, HostMove, Risk, ServiceMove
from mtlsctl.model.release import with_hosts_renamed, with_services_renamed
from mtlsctl.model.runtime import ProcessScope
from mtlsctl.model.state import Live
from mtlsctl.model.topology import DirectoryHost, InstanceId
from mtlsctl.planner.safety import (
    HOST_GIVEN_UP,
    MOVE_COLLIDES,
    MOVE_ELSEWHERE,
    NOTHING_LEFT,
    OWN_PROGRAM,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mtlsctl.model.credential import Credential, CredentialId
    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, Inventory, MovedHost, MovedService


@dataclass(frozen=True, slots=True, kw_only=True)
class Refactored:
    """`state` is what the store will say once all of this is written; entries that do nothing warn."""

    state: State
    moves: tuple[HostMove, ...] = ()
    renames: tuple[ServiceMove, ...] = ()
    abandonments: tuple[Abandonment, ...] = ()
    findings: tuple[Diagnostic, ...] = ()
    risks: tuple[Risk, ...] = ()


def refactored(inventory: Inventory, state: State, runtimes: Mapping[str, Runtime]) -> Refactored:
    """What the entries of `moved` and `removed` still have to do, and the state as if it were done."""
    if not inventory.moved and not inventory.renamed and not inventory.abandoned:
        return Refactored(state=state)
    findings: list[Diagnostic] = []
    abandonments = tuple(_abandonments(inventory, state, findings))
    after = without_hosts(state, frozenset(one.host for one in abandonments))
    moves = tuple(_moves(inventory, after, findings))
    places = {move.old: inventory.hosts[move.new] for move in moves}
    after = with_hosts_moved(after, places)
    renames = tuple(_renames(inventory, after, runtimes, findings))
    return Refactored(
        state=with_services_moved(after, {move.old: move.new for move in renames}),
        moves=moves,
        renames=renames,
        abandonments=abandonments,
        findings=tuple(findings),
        risks=tuple(_risks(abandonments, state)),
    )


def _abandonments(inventory: Inventory, state: State, findings: list[Diagnostic]) -> Iterator[Abandonment]:
    for gone in inventory.abandoned:
        instances = tuple(sorted(one for one in state.live if one.host == gone.name))
        if gone.name in state.hosts or instances or any(one.host == gone.name for one in state.pointers):
            yield Abandonment(gone.name, instances, gone.span)
        else:
            findings.append(_nothing_left(f"`removed` gives up the host `{gone.name}`", gone.span))


def _moves(inventory: Inventory, state: State, findings: list[Diagnostic]) -> Iterator[HostMove]:
    """Each entry whose old name the state knows, unless it cannot be told apart from what bears the new one."""
    known = _known_hosts(state)
    for move in inventory.moved:
        problem = _problem(move, known, state.hosts, inventory.hosts[move.new])
        if move.old not in known:
            findings.append(_nothing_left(f"`moved` renames the host `{move.old}`", move.span))
        elif problem is not None:
            findings.append(problem)
        else:
            yield HostMove(move.old, move.new, move.span)


def _known_hosts(state: State) -> frozenset[str]:
    """Every host of which the state holds anything, also if only the last number of a certificate."""
    named = (state.live, state.sequences, state.pointers)
    return frozenset(state.hosts).union(one.host for those in named for one in those)


def _problem(move: MovedHost, known: frozenset[str], hosts: Mapping[str, Host], place: Host) -> Diagnostic | None:
    if move.old in known and move.new in known:
        return Diagnostic(
            code=MOVE_COLLIDES,
            message=f"`{move.old}` cannot become `{move.new}`: the state knows both, each with certificates of its own",
            span=move.span,
            help="drop the entry: what is on the old host is removed, and the new one has its own keys",
        )
    before = hosts.get(move.old)
    if before is None or _place(before) == _place(place):
        return None
    return Diagnostic(
        code=MOVE_ELSEWHERE,
        message=f"`{move.new}` is another place than `{move.old}` was, and keys do not move",
        span=move.span,
        help="give it its new name first, and its new place in an edit of its own; or drop the entry",
    )


def _place(host: Host) -> str | None:
    """What tells that two names are one host: the folder. Over SSH the address may be renamed with it."""
    return host.directory if isinstance(host, DirectoryHost) else None


def _renames(
    inventory: Inventory, state: State, runtimes: Mapping[str, Runtime], findings: list[Diagnostic]
) -> Iterator[ServiceMove]:
    """Each entry whose old name the state knows, unless its program would go on reading what nobody renews."""
    known, taken = _known_services(state) if inventory.renamed else frozenset[str](), set[str]()
    for move in inventory.renamed:
        if move.old not in known:
            findings.append(_nothing_left(f"`moved` renames the service `{move.old}`", move.span))
        elif move.new in known or move.new in taken:
            findings.append(_known_twice(move))
        elif (program := _own_program(move.old, state, runtimes)) is not None:
            findings.append(_is_looked_up(move, program))
        else:
            taken.add(move.new)
            hosts = sorted({one.host for one in state.sequences if one.service == move.old})
            yield ServiceMove(move.old, move.new, tuple(hosts), move.span)


def _known_services(state: State) -> frozenset[str]:
    """Every service of which the state holds a certificate or a CA; the last number of one alone is no service."""
    issued = {one.instance.service for one in state.credentials} | {one.service for one in state.authorities}
    return frozenset(issued | {one.service for one in state.live} | {one.service for one in state.leaf_ends})


def _known_twice(move: MovedService) -> Diagnostic:
    return Diagnostic(
        code=MOVE_COLLIDES,
        message=f"`{move.old}` cannot become `{move.new}`: the state knows both, each with certificates of its own",
        span=move.span,
        help="give it a name that no service of this estate ever had",
    )


def _own_program(service: str, state: State, runtimes: Mapping[str, Runtime]) -> str | None:
    """The runtime of a live instance whose program finds its files by the service's name."""
    live = (one.recipe.runtime for at, one in state.live.items() if at.service == service)
    return next((name for name in live if name in runtimes and runtimes[name].scope is ProcessScope.INSTANCE), None)


def _is_looked_up(move: MovedService, runtime: str) -> Diagnostic:
    return Diagnostic(
        code=OWN_PROGRAM,
        message=f"`{move.old}` ({runtime}) cannot become `{move.new}` in place: its program reads "
        f"/etc/mtlsctl/{move.old}/current, and would go on with what nobody renews",
        span=move.span,
        help=f"declare `{move.new}` beside it, with the same callers and calls, start its program, then take "
        f"`{move.old}` away",
    )


def _nothing_left(what: str, span: Span | None) -> Diagnostic:
    return Diagnostic(
        code=NOTHING_LEFT,
        severity=Severity.WARNING,
        message=f"{what}, of which nothing is left to do",
        span=span,
        help="the entry may stay or go",
    )


def _risks(abandonments: tuple[Abandonment, ...], state: State) -> Iterator[Risk]:
    """What is on a host that was given up stays there, its keys too."""
    for one in abandonments:
        leaves = [leaf for leaf in map(state.credentials.get, _credentials_on(one.host, state)) if leaf is not None]
        if leaves:
            services = ", ".join(sorted({leaf.id.instance.service for leaf in leaves}))
            end = max(leaf.not_after for leaf in leaves)
            yield Risk(
                code=HOST_GIVEN_UP,
                summary=f"{one.host} is given up with keys of {services}: whoever has it is believed until "
                f"{end:%Y-%m-%d}, unless their CA gets a new `generation`",
                span=one.span,
            )


def _credentials_on(host: str, state: State) -> Iterator[CredentialId]:
    return (one for one in state.credentials if one.instance.host == host)


# --- the state ------------------------------------------------------------------------------------------------------


def without_hosts(state: State, gone: frozenset[str]) -> State:
    """As if these hosts had been cleaned: nothing is live there and their keys are missing. What was issued stays."""
    if not gone:
        return state
    return replace(
        state,
        credentials={one.id: one for one in state.credentials.values() if one.id.instance.host not in gone}
        | {one.id: one for one in _newest_on(gone, state)},
        live={at: live for at, live in state.live.items() if at.host not in gone},
        pointers={process: sha256 for process, sha256 in state.pointers.items() if process.host not in gone},
        hosts={name: host for name, host in state.hosts.items() if name not in gone},
        keys_missing=state.keys_missing | {one for one in state.sequences if one.host in gone},
    )


def _newest_on(hosts: frozenset[str], state: State) -> Iterator[Credential]:
    newest: dict[InstanceId, Credential] = {}
    for one in sorted(state.credentials.values(), key=lambda one: one.id.sequence):
        if one.id.instance.host in hosts:
            newest[one.id.instance] = one
    return iter(newest.values())


def with_hosts_moved(state: State, places: Mapping[str, Host]) -> State:
    """As if these hosts (by their old names) had always borne the names of what they are now."""
    if not places:
        return state
    names = {old: host.name for old, host in places.items()}
    credentials = (
        replace(one, profile=replace(one.profile, id=one.id.with_host_renamed(names)))
        for one in state.credentials.values()
    )
    return replace(
        state,
        credentials={one.id: one for one in credentials},
        sequences={one.with_host_renamed(names): last for one, last in state.sequences.items()},
        live={
            one.with_host_renamed(names): Live(recipe=with_hosts_renamed(live.recipe, names), receipt=live.receipt)
            for one, live in state.live.items()
        },
        pointers={process.with_host_renamed(names): sha256 for process, sha256 in state.pointers.items()},
        hosts={name: host for name, host in state.hosts.items() if name not in names}
        | {host.name: host for host in places.values()},
        programs={name: found for name, found in state.programs.items() if name not in names}
        | {
            new: {**state.programs.get(new, {}), **state.programs[old]}
            for old, new in names.items()
            if old in state.programs
        },
        keys_missing=frozenset(one.with_host_renamed(names) for one in state.keys_missing),
    )


def with_services_moved(state: State, names: Mapping[str, str]) -> State:
    """As if these services (by their old names) had been called by their new ones when they were issued.

    Subjects are facts and stay. So do the last numbers given out: of the old name too, for whoever bears it next.
    """
    if not names:
        return state
    credentials = (
        replace(
            one,
            profile=replace(
                one.profile,
                id=one.id.with_service_renamed(names),
                authority=one.profile.authority.with_service_renamed(names),
            ),
        )
        for one in state.credentials.values()
    )
    authorities = (
        replace(one, profile=replace(one.profile, id=one.id.with_service_renamed(names)))
        for one in state.authorities.values()
    )
    return replace(
        state,
        authorities={one.id: one for one in authorities},
        credentials={one.id: one for one in credentials},
        sequences=_with_the_last(state.sequences, InstanceId.with_service_renamed, names),
        generations=_with_the_last(state.generations, lambda owner, those: those.get(owner, owner), names),
        leaf_ends={one.with_service_renamed(names): last for one, last in state.leaf_ends.items()},
        live={
            one.with_service_renamed(names): Live(
                recipe=with_services_renamed(live.recipe, names), receipt=live.receipt
            )
            for one, live in state.live.items()
        },
        keys_missing=_keys_missing(state, names),
    )


Named = TypeVar("Named", InstanceId, str)


def _with_the_last(
    last: Mapping[Named, int], renamed: Callable[[Named, Mapping[str, str]], Named], names: Mapping[str, str]
) -> dict[Named, int]:
    """By old and new name the last number given out: no two of anything ever have one name."""
    found = dict(last)
    for one, number in last.items():
        new = renamed(one, names)
        found[new] = max(number, found.get(new, 0))
    return found


def _keys_missing(state: State, names: Mapping[str, str]) -> frozenset[InstanceId]:
    """What lies under the old name is still to be deleted there, so it does not count as gone."""
    moved = {one: one.with_service_renamed(names) for one in state.sequences if one.service in names}
    there = state.keys_missing.difference(moved, moved.values())
    return there.union(new for old, new in moved.items() if old in state.keys_missing)
