"""The plan as a screen: access first, then what to look at, then certificates, services, processes and totals."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mtlsctl.cli.views.page import (
    Tone,
    columns,
    counted,
    escaped,
    length_of,
    listed,
    relative,
    shortened_left,
    wrapped,
)
from mtlsctl.model.plan import Op, Wave
from mtlsctl.model.topology import ANY_MEMBER, ANYBODY, TrustModel
from mtlsctl.operations.saved_plan import summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.plan import (
        Abandonment,
        AccessChange,
        AuthorityChange,
        CertificateChange,
        Due,
        Plan,
        Reason,
        Risk,
        Step,
    )
    from mtlsctl.model.topology import InstanceId, ListenerId, ProcessId

T = TypeVar("T")

LINES = 45
"""A screen of twenty changes stays within this; what does not fit is counted."""

_ACCESS_ALONE = 8
_LEAST_ROWS = 3
_NARROW = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanScreen:
    """A plan with what stands around it: sizes of the inventory, and what each runtime does at a switch."""

    plan: Plan
    services: int
    hosts: int
    models: tuple[TrustModel, ...] = (TrustModel.SERVICE_CA,)
    verbs: Mapping[str, str] = field(default_factory=dict)
    """Runtime -> `reload` or `new files`."""
    saved_as: str | None = None
    is_applied_now: bool = False
    """Then no next command is named: the question follows."""

    @property
    def hosts_touched(self) -> int:
        return len({step.process.host for step in self.plan.steps})


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    lines: list[str]
    more: int = 0
    """Lines that were not even written, because no screen would show them."""
    whole: bool = False
    """Whether no line of it may be left out."""

    @property
    def length(self) -> int:
        return len(self.lines) + self.more


class Rows(NamedTuple):
    """Lines of a table, and how many more there would be."""

    lines: list[str]
    more: int = 0


def plan_text(screen: PlanScreen, page: Page) -> str:
    """The whole screen, ending in a line end."""
    if not screen.plan.has_changes:
        return nothing_to_change(screen)
    head = "\n".join(_header(screen, page))
    sections = [one for one in _sections(screen, page) if one.lines]
    tail = "\n".join(_totals(screen, page))
    fixed = head.count("\n") + tail.count("\n") + 4
    if not page.full:
        sections = _fitted(sections, LINES - fixed)
    blocks = ["\n".join([page.paint(one.title, Tone.BOLD), *one.lines]) for one in sections]
    return "\n\n".join([head, *blocks, tail]) + "\n"


def nothing_to_change(screen: PlanScreen) -> str:
    """One sentence, and when there will be something to do."""
    services, hosts = counted(screen.services, "service"), counted(screen.hosts, "host")
    verb = "matches" if screen.services == 1 else "match"
    return f"Nothing to change. {services} on {hosts} {verb} the inventory.{_next_due(screen.plan)}\n"


def _next_due(plan: Plan) -> str:
    due: Due | None = plan.next_due
    return f" Next renewal: {due.subject} {relative(due.at, plan.created_at)}." if due else ""


def _header(screen: PlanScreen, page: Page) -> list[str]:
    size = f"{counted(screen.services, 'service')}, {counted(screen.hosts, 'host')}, {' and '.join(screen.models)}"
    place = f"state {screen.plan.estate}/serial {screen.plan.serial}"
    line = f"{page.paint('Inventory', Tone.BOLD)}  {size}   {place}"
    if len(size) + len(place) + 14 <= page.width:
        return [line]
    return [f"{page.paint('Inventory', Tone.BOLD)}  {size}", f"           {place}"]


def _sections(screen: PlanScreen, page: Page) -> list[_Section]:
    plan = screen.plan
    processes = process_lines(screen, page)
    return [
        _Section("Hosts", host_lines(plan, page), whole=True),
        _Section("Access changes", _access(plan.access, page), whole=True),
        _Section("Attention", _attention(plan.risks, page), whole=True),
        _Section("Certificates", *certificate_lines(plan, page, due=False)),
        _Section("Due renewals (not in the fingerprint)", *certificate_lines(plan, page, due=True)),
        _Section("Services", *service_lines(plan, page)),
        _Section(*((processes[0], processes[1:]) if processes else ("Processes", []))),
    ]


def _fitted(sections: list[_Section], room: int) -> list[_Section]:
    """Shares the lines that are left among the sections that may be cut, the small ones first."""
    room -= sum(len(one.lines) for one in sections if one.whole) + 2 * len(sections)
    cut: dict[str, int] = {}
    growing = sorted((one for one in sections if not one.whole), key=lambda one: one.length)
    for number, one in enumerate(growing):
        share = max(_LEAST_ROWS, room // (len(growing) - number))
        cut[one.title] = share
        room -= min(one.length, share)
    return [one if one.whole else _Section(one.title, _cut(one, cut[one.title])) for one in sections]


def _cut(section: _Section, most: int) -> list[str]:
    if section.length <= most:
        return section.lines
    return [*section.lines[: most - 1], f"  ... {section.length - most + 1:,} more (--full lists them)"]


def _shown(groups: Sequence[T], page: Page) -> tuple[Sequence[T], int]:
    """As many as a screen can hold, and how many more there are."""
    most = len(groups) if page.full else LINES
    return groups[:most], max(0, len(groups) - most)


# --- hosts ----------------------------------------------------------------------------------------------------------


def host_lines(plan: Plan, page: Page) -> list[str]:
    """Hosts and services that are called otherwise now, and hosts that are given up."""
    rows = [
        ("move", Tone.CHANGE, f"{one.old} is called {one.new}: its keys, certificates and releases stay", one.span)
        for one in plan.moves
    ]
    rows += [
        ("move", Tone.CHANGE, f"{one.old} is called {one.new}: its keys, certificates and CAs stay", one.span)
        for one in plan.renames
    ]
    rows += [
        ("remove", Tone.REMOVE, f"{one.host} is given up{_left_there(one)}; nothing on it is deleted", one.span)
        for one in plan.abandonments
    ]
    lines: list[str] = []
    for symbol, tone, text, span in rows:
        place = f"  ({escaped(span.file)}:{span.line})" if span else ""
        those = wrapped(text + place, width=page.width, first="    ", rest="      ")
        lines += [f"  {page.paint(page.symbol(symbol), tone)} {those[0][4:]}", *those[1:]]
    return lines


def _left_there(one: Abandonment) -> str:
    return f" with {', '.join(instance.service for instance in one.instances)}" if one.instances else ""


# --- access ---------------------------------------------------------------------------------------------------------

_ACCESS = {
    Op.ADD: ("add", Tone.ADD, "may call"),
    Op.CHANGE: ("change", Tone.CHANGE, "still may call"),
    Op.REMOVE: ("remove", Tone.REMOVE, "may no longer call"),
}


def access_rows(changes: Sequence[AccessChange], page: Page) -> list[tuple[Op, str, str, str]]:
    """(op, callers, listener with port, source). A long list has one row for each listener and op."""
    if page.full or len(changes) <= _ACCESS_ALONE:
        return [(one.op, caller_of(one.caller), _door_of(one), _source_of(one)) for one in _ordered(changes)]
    doors: dict[tuple[ListenerId, int, Op, bool], list[AccessChange]] = defaultdict(list)
    for one in changes:
        op, (caller, listener), port, _, _, _ = one
        doors[listener, port, op, caller != ANYBODY].append(one)
    return [_door_row(those) for _, those in sorted(doors.items())]


_UNNAMED = {ANYBODY: "anybody", ANY_MEMBER: "every member of the shared CA"}


def caller_of(name: str) -> str:
    return _UNNAMED.get(name, name)


def _door_of(change: AccessChange) -> str:
    door = f"{change.edge.listener}:{change.port}"
    return f"{door} without a certificate" if change.edge.caller == ANYBODY else door


def _door_row(changes: Sequence[AccessChange]) -> tuple[Op, str, str, str]:
    """Of one listener and op; the row's source is that of its first caller."""
    by_caller = {one.edge.caller if one.outside is None else one.caller: one for one in changes}
    callers = sorted(by_caller)
    first = by_caller[callers[0]]
    return first.op, ", ".join([_UNNAMED.get(caller, caller) for caller in callers]), _door_of(first), _source_of(first)


def _ordered(changes: Sequence[AccessChange]) -> list[AccessChange]:
    return sorted(changes, key=lambda one: (one.edge.listener, one.port, one.op != Op.ADD, one.caller))


def _source_of(change: AccessChange) -> str:
    """The place that declares a call; of one that ends, the reason and the place that shows it."""
    place = f"{escaped(change.span.file)}:{change.span.line}" if change.span else ""
    return place if change.op is Op.ADD else f"{change.reason} {place}".rstrip()


def _access(changes: Sequence[AccessChange], page: Page) -> list[str]:
    rows = access_rows(changes, page)
    callers = max((len(row[1]) for row in rows), default=0)
    grouped = callers > _NARROW
    doors = max((len(row[2]) for row in rows), default=0)
    width = max((len(_ACCESS[row[0]][2]) for row in rows), default=0)
    lines: list[str] = []
    for op, who, door, source in rows:
        name, tone, words = _ACCESS[op]
        mark = page.paint(page.symbol(name), tone)
        if grouped:
            body = f"{door} <- {who}" if op is not Op.REMOVE else f"{door} no longer <- {who}"
            text = f"{who} {words} {door}"
            lines += _access_in_sentences(text, mark, source, page)
        else:
            body = f"{who.ljust(callers)}  {words.ljust(width)}  {door.ljust(doors)}"
            lines += _with_source(f"  {mark} {body}", 4 + len(body), source, page)
    return lines


def _access_in_sentences(text: str, mark: str, source: str, page: Page) -> list[str]:
    """Access is never left out: a long list of callers goes on to the next line."""
    lines = wrapped(text, width=page.width, first="    ", rest="      ")
    lines[0] = f"  {mark} {lines[0][4:]}"
    if not source:
        return lines
    last = lines[-1]
    painted = len(mark) - 1 if len(lines) == 1 else 0
    return [*lines[:-1], *_with_source(last, len(last) - painted, source, page)]


def _with_source(line: str, length: int, source: str, page: Page) -> list[str]:
    """The place beside the line; its beginning gives way, then it goes below."""
    room = page.width - length - 2
    if len(source) <= room or room >= _NARROW:
        return [f"{line}  {page.paint(shortened_left(source, room), Tone.DIM)}".rstrip() if source else line.rstrip()]
    return [line.rstrip(), f"      {page.paint(shortened_left(source, page.width - 6), Tone.DIM)}"]


# --- risks ----------------------------------------------------------------------------------------------------------


def _attention(risks: Sequence[Risk], page: Page) -> list[str]:
    lines: list[str] = []
    for risk in risks if page.full else _first_of_each(risks):
        mark = page.paint(page.symbol("risk"), Tone.CHANGE)
        text = escaped(risk.summary) + (f"  ({escaped(risk.span.file)}:{risk.span.line})" if risk.span else "")
        those = wrapped(f"{risk.code} {text}", width=page.width, first="    ", rest="      ")
        lines += [f"  {mark} {those[0][4:]}", *those[1:]]
    hidden = len(risks) - len(_first_of_each(risks))
    if hidden and not page.full:
        lines.append(f"  {page.symbol('risk')} {hidden:,} more of the same kinds (--full lists them)")
    return lines


_RISKS_OF_A_KIND = 5


def _first_of_each(risks: Sequence[Risk]) -> list[Risk]:
    """Every kind of risk is seen; of a kind that comes many times the first few are."""
    seen: dict[str, int] = defaultdict(int)
    shown = []
    for risk in risks:
        seen[risk.code] += 1
        if seen[risk.code] <= _RISKS_OF_A_KIND:
            shown.append(risk)
    return shown


# --- certificates ---------------------------------------------------------------------------------------------------

_MARKS = {Op.ADD: ("add", Tone.ADD), Op.CHANGE: ("replace", Tone.CHANGE), Op.REMOVE: ("remove", Tone.REMOVE)}


def certificate_lines(plan: Plan, page: Page, *, due: bool) -> Rows:
    """CAs and certificates that the inventory causes, or those that time does."""
    authorities = [one for one in plan.authority_changes if one.due is due]
    certificates = [one for one in plan.certificate_changes if one.due is due]
    groups, more = _shown(_certificate_groups(certificates, plan), page)
    rows = _authority_rows(authorities, page) + [_certificate_row(why, those, page) for why, those in groups]
    marks = 3 if page.ascii else 1
    texts = columns([row[2:] for row in rows], indent="")
    return Rows(
        [f"  {page.paint(mark.ljust(marks), tone)} {text}" for (mark, tone, *_), text in zip(rows, texts, strict=True)],
        more,
    )


def _authority_rows(changes: Sequence[AuthorityChange], page: Page) -> list[tuple[str, Tone, str, str, str, str]]:
    groups: dict[tuple[Op, int, timedelta | None, tuple[Reason, ...]], list[AuthorityChange]] = defaultdict(list)
    for one in changes:
        lifetime = one.profile.lifetime if one.profile else None
        groups[one.op, one.id.generation, lifetime, one.reasons].append(one)
    rows = []
    for (op, generation, lifetime, reasons), those in groups.items():
        name, tone = _MARKS[op] if op is not Op.CHANGE else ("add", Tone.ADD)
        names = [one.id.service or "shared" for one in those]
        room = max(30, page.width - 46)
        what = f"{names[0]} CA" if len(names) == 1 else f"CAs of {listed(names, width=room)}"
        why = ", ".join(reason.value for reason in reasons) or ("key destroyed" if op is Op.REMOVE else "")
        rows.append((page.symbol(name), tone, what, length_of(lifetime) if lifetime else "", f"g{generation}", why))
    return rows


def _certificate_groups(changes: Sequence[CertificateChange], plan: Plan) -> list[tuple[str, list[CertificateChange]]]:
    """Why, and the instances of one service for which all is the same."""
    groups: dict[tuple[object, ...], list[CertificateChange]] = defaultdict(list)
    for one in changes:
        groups[_certificate_key(one, plan)].append(one)
    return [(str(key[-1]), those) for key, those in groups.items()]


def _certificate_row(why: str, those: Sequence[CertificateChange], page: Page) -> tuple[str, Tone, str, str, str, str]:
    first = those[0]
    name, tone = ("renew", Tone.ADD) if first.due else _MARKS[first.op]
    lifetime = length_of(first.profile.lifetime) if first.profile else ""
    issuer = str(first.profile.authority) if first.profile else ""
    what = instances_listed([one.instance for one in those], width=max(24, page.width - 48))
    return page.symbol(name), tone, what, lifetime, issuer, why


def _certificate_key(one: CertificateChange, plan: Plan) -> tuple[object, ...]:
    issuer = one.profile.authority if one.profile else None
    lifetime = one.profile.lifetime if one.profile else None
    return (one.instance.service, one.op, one.due, issuer, lifetime, _why(one, plan))


def _why(one: CertificateChange, plan: Plan) -> str:
    words: list[str] = [*one.reasons, *(["same key"] if one.is_same_key else [])]
    if one.due and one.not_after_before is not None:
        words.append(f"expires {relative(one.not_after_before, plan.created_at)}")
    if one.op is Op.CHANGE and one.profile is not None:
        now = set(one.profile.presented_names)
        words += [f"+SAN {name}" for name in one.profile.presented_names if name not in one.names_before]
        words += [f"-SAN {name}" for name in one.names_before if name not in now]
    return ", ".join(words) or ("retired" if one.op is Op.REMOVE else "")


def instances_listed(instances: Sequence[InstanceId], *, width: int) -> str:
    """`ledger@db-1 db-2`: instances of one service."""
    return listed(
        [str(one) if number == 0 else one.host for number, one in enumerate(instances)], width=width, joint=" "
    )


# --- services and processes -----------------------------------------------------------------------------------------

_SERVICE_MARKS = {Op.ADD: ("add", Tone.ADD), Op.CHANGE: ("change", Tone.CHANGE), Op.REMOVE: ("remove", Tone.REMOVE)}


def service_lines(plan: Plan, page: Page) -> Rows:
    """What else changes at instances: trust, doors, calls, settings, templates."""
    groups: dict[tuple[str, Op, tuple[str, ...]], list[InstanceId]] = defaultdict(list)
    for one in plan.service_changes:
        if not one.due:
            groups[one.instance.service, one.op, one.details].append(one.instance)
    shown, more = _shown(list(groups.items()), page)
    names = [instances_listed(those, width=max(24, page.width // 2 - 8)) for _, those in shown]
    width = max(map(len, names), default=0)
    lines: list[str] = []
    for ((_, op, details), _), name in zip(shown, names, strict=True):
        mark, tone = _SERVICE_MARKS[op]
        text = escaped("; ".join(details))
        those = wrapped(text, width=page.width, first=f"    {name.ljust(width)}  ", rest=" " * (width + 6))
        lines += [f"  {page.paint(page.symbol(mark), tone)} {those[0][4:]}", *those[1:]]
    return Rows(lines, more)


def process_rows(screen: PlanScreen, page: Page) -> tuple[list[Wave], list[tuple[str, list[str]]]]:
    """The waves that there are, and for each kind of process its cells; processes that do the same share a row."""
    steps: dict[ProcessId, dict[Wave, list[Step]]] = defaultdict(lambda: defaultdict(list))
    for step in screen.plan.steps:
        steps[step.process][step.id.wave].append(step)
    waves = sorted({step.id.wave for step in screen.plan.steps})
    new = {one.instance for one in screen.plan.service_changes if one.op is Op.ADD}
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for process in sorted(steps):
        cells = tuple(_cell(steps[process][wave], screen, page, new) for wave in waves)
        rows[process.name, cells].append(process.host)
    room = max(24, page.width - 10 - 13 * len(waves))
    named = [(f"{listed(hosts, width=room, joint=' ')} {name}", list(cells)) for (name, cells), hosts in rows.items()]
    return waves, named


def _cell(steps: Sequence[Step], screen: PlanScreen, page: Page, fresh: set[InstanceId]) -> str:
    if not steps:
        return "."
    if all(step.recipe is None for step in steps):
        return f"{page.symbol('remove')} removed"
    verbs = {
        "restart" if step.needs_restart else screen.verbs.get(step.recipe.runtime, "switch")
        for step in steps
        if step.recipe is not None
    }
    mark = "add" if all(step.id.instance in fresh for step in steps) else "change"
    return f"{page.symbol(mark)} {' and '.join(sorted(verbs))}"


def process_lines(screen: PlanScreen, page: Page) -> list[str]:
    """A table whose first line is its head."""
    waves, rows = process_rows(screen, page)
    if not rows:
        return []
    head = ["Processes", *map(str, waves)]
    return columns([head, *([f"  {name}", *cells] for name, cells in rows)], indent="")


# --- totals ---------------------------------------------------------------------------------------------------------


def totals_line(screen: PlanScreen) -> str:
    count = summary_of(screen.plan)
    kinds = (("issue", "new"), ("renew", "renewed"), ("replace", "replaced"), ("remove", "removed"))
    certificates = ", ".join(f"{count[kind]:,} {word}" for kind, word in kinds) + " certificates"
    authorities = f"; {counted(count['authorities'], 'new CA')}" if count["authorities"] else ""
    return f"Plan: {certificates}{authorities}; {screen.hosts_touched:,} of {counted(screen.hosts, 'host')} touched."


def _totals(screen: PlanScreen, page: Page) -> list[str]:
    plan = screen.plan
    lines = wrapped(totals_line(screen), width=page.width, first="", rest="      ")
    if plan.unchanged_instances:
        lines.append(f"{counted(plan.unchanged_instances, 'instance')} unchanged.")
    lines += [f"{page.paint('Fingerprint', Tone.BOLD)}  {plan.fingerprint}"]
    if screen.is_applied_now:
        return lines
    lines.append("")
    if screen.saved_as is not None:
        return [*lines, f"Saved. Next: mtlsctl apply {screen.saved_as}"]
    command = f"Next: mtlsctl apply --expect-fingerprint {plan.fingerprint}"
    saving = f"or save it: mtlsctl plan --out {plan.estate}.mtlsplan"
    if len(command) + len(saving) + 5 <= page.width:
        return [*lines, f"{command}     {saving}"]
    return [*lines, command, f"      {saving}"]
