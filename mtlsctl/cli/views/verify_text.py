"""What the handshakes showed: a matrix of callers and listeners, then every contradiction with its evidence."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtlsctl.cli.views.page import Tone, counted, escaped, padded, took, wrapped
from mtlsctl.model.probe import Expectation, Observation, Presented, Verdict
from mtlsctl.model.topology import Edge, outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.probe import Outcome, Probe
    from mtlsctl.model.topology import ListenerId

CRAFTED = {
    Presented.NO_CERTIFICATE: "(no cert)",
    Presented.FOREIGN_CA: "(unknown CA)",
    Presented.EXPIRED: "(expired)",
    Presented.WRONG_USAGE: "(wrong usage)",
    Presented.OTHER_PROTOCOL: "(other TLS)",
    Presented.PLAINTEXT: "(plain HTTP)",
    Presented.OTHER_CA: "(other CA)",
}
"""The columns that stand for no service."""

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyScreen:
    """All outcomes of one verification; `sources` says where each listener is declared, `edges` where each call."""

    outcomes: tuple[Outcome, ...]
    embedded: bool
    sources: Mapping[ListenerId, Span] = field(default_factory=dict)
    edges: Mapping[Edge, Span] = field(default_factory=dict)
    elapsed: timedelta | None = None
    left_out: int = 0
    """Forbidden pairs that a large estate leaves to chance."""
    beyond: tuple[Edge, ...] = ()
    """Declared calls of which one end is not ours, so that nobody here can try them."""

    def count(self, verdict: Verdict) -> int:
        return sum(one.verdict is verdict for one in self.outcomes)

    def source_of(self, probe: Probe) -> Span | None:
        """What the inventory says about the probe: of a declared call its own line, of any other the listener's."""
        call = None if probe.caller is None else Edge(probe.caller.service, probe.listener)
        is_declared = probe.expected is Expectation.ALLOWED and call in self.edges
        return self.edges[call] if call is not None and is_declared else self.sources.get(probe.listener)

    @property
    def exit_code(self) -> int:
        """4 for a contradiction, 1 for anything that could not be told; nothing at all proves nothing."""
        if self.count(Verdict.CONTRADICTION):
            return 4
        return 0 if self.outcomes and self.count(Verdict.AS_DECLARED) == len(self.outcomes) else 1


def verify_text(screen: VerifyScreen, page: Page) -> str:
    blocks = [_legend(screen, page), *_matrix(screen, page), *_open_to_anybody(screen, page)]
    blocks += ["\n".join(_findings(screen, verdict, page)) for verdict in _WORST_FIRST if screen.count(verdict)]
    blocks += _stand_ins(screen, page)
    if screen.beyond:
        blocks.append("\n".join(_left_out(screen, page)))
    blocks.append(_unbroken(wrapped(counts_line(screen), width=page.width, first="", rest="  ")))
    return "\n\n".join(blocks) + "\n"


def _stand_ins(screen: VerifyScreen, page: Page) -> list[str]:
    """Who was not tried with its own certificate, because the key of that is nowhere where we could read it."""
    callers = sorted({str(one.probe.caller) for one in screen.outcomes if one.stood_in})
    if not callers:
        return []
    text = f"Tried with probe certificates of ten minutes, as their owners keep the keys: {', '.join(callers)}."
    return ["\n".join(wrapped(text, width=page.width, first="", rest="  "))]


def _left_out(screen: VerifyScreen, page: Page) -> list[str]:
    """Calls from and to the outside: not probed, said so, and no reason to fail."""
    shown = screen.beyond if page.full else screen.beyond[:_SHOWN]
    lines = [f"{page.symbol('not probed')} {one}   left out: {why_left_out(one)}" for one in shown]
    if len(shown) < len(screen.beyond):
        lines.append(f"... {len(screen.beyond) - len(shown):,} more (-o json has them all)")
    return lines


def why_left_out(call: Edge) -> str:
    """Which end of a call is not ours."""
    return "the server is not ours" if call.listener.service.endswith(outside("")) else "the caller's key is not ours"


_WORST_FIRST = (Verdict.CONTRADICTION, Verdict.INCONCLUSIVE, Verdict.NOT_PROBED)


def _legend(screen: VerifyScreen, page: Page) -> str:
    meanings = [
        ("ok", "allowed and works"),
        ("refused", "refused as intended"),
        ("fail", "contradicts inventory"),
        ("unclear", "inconclusive"),
        ("not probed", "not probed"),
    ]
    where = "Applied files in embedded servers. " if screen.embedded else ""
    text = f"{where}Callers across, listeners down.   " + "   ".join(
        f"{page.symbol(name)} {meaning}".replace(" ", "\N{NO-BREAK SPACE}") for name, meaning in meanings
    )
    return _unbroken(wrapped(text, width=page.width, first="", rest=""))


def _unbroken(lines: Sequence[str]) -> str:
    """Lines whose no-break spaces have done their work."""
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


# --- the matrix -----------------------------------------------------------------------------------------------------


def column_of(probe: Probe) -> str:
    if probe.presented is Presented.DELIVERED and probe.caller is not None:
        return probe.caller.service
    return CRAFTED[probe.presented]


def row_of(probe: Probe) -> str:
    return f"{probe.listener}:{probe.endpoint.port}"


def _matrix(screen: VerifyScreen, page: Page) -> list[str]:
    cells: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for one in screen.outcomes:
        cells[row_of(one.probe), column_of(one.probe)].append(one)
    rows = sorted({row for row, _ in cells})
    columns = _columns({column for _, column in cells})
    label = max((len(row) for row in rows), default=0) + 2
    return [_table(part, rows, cells, label, page) for part in _parts(columns, page.width - label - 2)] if rows else []


def _columns(present: set[str]) -> list[str]:
    crafted = [name for name in CRAFTED.values() if name in present]
    return [*sorted(present - set(crafted)), *crafted]


def _parts(columns: Sequence[str], width: int) -> list[list[str]]:
    """Columns that do not fit go into a table of their own; a cell is never wrapped."""
    parts: list[list[str]] = [[]]
    used = 0
    for column in columns:
        if parts[-1] and used + len(column) + 2 > width:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += len(column) + 2
    return parts


def _table(
    columns: Sequence[str],
    rows: Sequence[str],
    cells: Mapping[tuple[str, str], Sequence[Outcome]],
    label: int,
    page: Page,
) -> str:
    lines = [" " * (label + 2) + "  ".join(columns)]
    for row in rows:
        line = f"  {padded(row, label)}"
        for column in columns:
            text, tone = _cell(cells.get((row, column), ()), page)
            left = (len(column) - len(text)) // 2
            filled = " " * left + (page.paint(text, tone) if tone else text)
            line += filled + " " * (len(column) - left - len(text) + 2)
        lines.append(line.rstrip())
    return "\n".join(lines)


def _cell(outcomes: Sequence[Outcome], page: Page) -> tuple[str, Tone | None]:
    """The worst of what was seen on any instance and any protocol."""
    if not outcomes:
        return page.symbol("none"), None
    verdicts = {one.verdict for one in outcomes}
    for verdict, name, tone in (
        (Verdict.CONTRADICTION, "fail", Tone.ERROR),
        (Verdict.INCONCLUSIVE, "unclear", Tone.CHANGE),
        (Verdict.NOT_PROBED, "not probed", Tone.CHANGE),
    ):
        if verdict in verdicts:
            return page.symbol(name), tone
    allowed = any(one.probe.expected is Expectation.ALLOWED for one in outcomes)
    return (page.symbol("ok"), Tone.ADD) if allowed else (page.symbol("refused"), None)


def _open_to_anybody(screen: VerifyScreen, page: Page) -> list[str]:
    """Said whatever was seen there: a tick in such a row proves less than in any other."""
    doors = {
        row_of(one.probe)
        for one in screen.outcomes
        if one.probe.presented is Presented.NO_CERTIFICATE and one.probe.expected is Expectation.ALLOWED
    }
    if not doors:
        return []
    text = f"Declared to let in anybody without a certificate: {', '.join(sorted(doors))}"
    return [_unbroken(wrapped(text, width=page.width, first="", rest="  "))]


# --- what went wrong ------------------------------------------------------------------------------------------------


def _findings(screen: VerifyScreen, verdict: Verdict, page: Page) -> list[str]:
    """One paragraph for each caller and listener; probes that showed the same are told once."""
    groups: dict[tuple[str, str, Observation, str], list[Outcome]] = defaultdict(list)
    for one in screen.outcomes:
        if one.verdict is verdict:
            groups[column_of(one.probe), row_of(one.probe), one.observed, one.evidence].append(one)
    shown = list(groups.values()) if page.full else list(groups.values())[:_SHOWN]
    lines: list[str] = []
    for those in shown:
        lines += _finding(those, screen, page)
    if len(shown) < len(groups):
        lines.append(f"... {len(groups) - len(shown):,} more (-o json has them all)")
    return lines


_MARKS = {
    Verdict.CONTRADICTION: ("fail", Tone.ERROR),
    Verdict.INCONCLUSIVE: ("unclear", Tone.CHANGE),
    Verdict.NOT_PROBED: ("not probed", Tone.CHANGE),
}


def _finding(outcomes: Sequence[Outcome], screen: VerifyScreen, page: Page) -> list[str]:
    first = outcomes[0]
    name, tone = _MARKS[first.verdict]
    head = f"{column_of(first.probe)} -> {row_of(first.probe)}   {what_happened(first)}"
    mark = page.symbol(name)
    those = wrapped(head, width=page.width, first=" " * (len(mark) + 1), rest="    ")
    lines = [f"{page.paint(mark, tone)} {those[0][len(mark) + 1 :]}", *those[1:]]
    for detail in _details(outcomes, screen):
        lines += wrapped(detail, width=page.width, first="    ", rest="      ")
    return lines


def what_happened(one: Outcome) -> str:
    """What the inventory wants and what was seen, in a few words."""
    wanted = "must be allowed" if one.probe.expected is Expectation.ALLOWED else "must be refused"
    match one.observed:
        case Observation.ALLOWED:
            return f"{wanted}, but was ACCEPTED{_seen(one)}"
        case Observation.REFUSED:
            return f"{wanted}, but was REFUSED{_seen(one)}"
        case Observation.UNREACHABLE:
            return f"unreachable{_seen(one)}; not counted as refused"
        case Observation.INCONCLUSIVE:
            return f"inconclusive{_seen(one)}; not counted as refused"
        case Observation.NOT_PROBED:
            return f"not probed{_seen(one)}"


def _seen(one: Outcome) -> str:
    words = [escaped(one.evidence)] if one.evidence else []
    if one.http_status is not None and str(one.http_status) not in one.evidence:
        words.append(f"HTTP {one.http_status}")
    return f" ({', '.join(words)})" if words else ""


def _details(outcomes: Sequence[Outcome], screen: VerifyScreen) -> Iterable[str]:
    first = outcomes[0].probe
    versions = " and ".join(sorted({one.probe.protocol for one in outcomes}))
    yield f"TLS {versions}, at {', '.join(_at(outcomes))}"
    if first.caller is not None:
        imitated = "" if first.presented is Presented.DELIVERED else f", crafted ({first.presented.value})"
        yield f"certificate: {first.caller}{imitated}"
    if outcomes[0].served_sha256 and outcomes[0].observed is not Observation.NOT_PROBED:
        yield f"certificate served: sha256 {outcomes[0].served_sha256[:16]}..."
    source = screen.source_of(first)
    if source is not None:
        yield f"declared at {escaped(source.file)}:{source.line}"


def _at(outcomes: Sequence[Outcome]) -> list[str]:
    places = {
        f"{one.probe.endpoint.instance} ({one.probe.endpoint.address}:{one.probe.endpoint.port})" for one in outcomes
    }
    ordered = sorted(places)
    return ordered if len(ordered) <= 3 else [*ordered[:3], f"... {len(ordered) - 3} more"]  # noqa: PLR2004  a line


def counts_line(screen: VerifyScreen) -> str:
    """Fits into 80 columns up to 999 checks; where it does not, the time takes the words before it along."""
    count = Counter(one.verdict for one in screen.outcomes)
    parts = [
        f"{count[Verdict.AS_DECLARED]:,} of {len(screen.outcomes):,} as declared",
        counted(count[Verdict.CONTRADICTION], "contradiction"),
        f"{count[Verdict.INCONCLUSIVE]:,} inconclusive",
        f"{count[Verdict.NOT_PROBED]:,} not probed",
    ]
    if screen.beyond:
        parts.append(f"{counted(len(screen.beyond), 'call')} from or to the outside left out")
    if screen.left_out:
        parts.append(f"{screen.left_out:,} forbidden pairs left out of the sample")
    if screen.elapsed is not None:
        parts[-1] = f"{parts[-1]}   {took(screen.elapsed)}".replace(" ", "\N{NO-BREAK SPACE}")
    return ", ".join(parts)
