"""The plan as a comment of a pull request: access, risks and totals whole, the rest as far as it fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.cli.views.page import Page, counted, escaped
from mtlsctl.cli.views.plan_text import (
    access_rows,
    certificate_lines,
    host_lines,
    nothing_to_change,
    process_lines,
    service_lines,
)
from mtlsctl.model.plan import Op
from mtlsctl.operations.saved_plan import summary_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.cli.views.plan_text import PlanScreen
    from mtlsctl.model.plan import Plan
    from mtlsctl.operations.refresh import Refreshed

LIMIT = 60_000
"""Characters. GitHub refuses a comment above 65,536."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~@&:-])")
_WIDE = Page(width=160, full=True)
_GROUPED = Page(width=160)


@dataclass(frozen=True, slots=True)
class _Fold:
    title: str
    lines: list[str]


def plan_markdown(screen: PlanScreen) -> str:
    """At most 60,000 characters; what is left out is counted."""
    plan = screen.plan
    head = f"<!-- mtlsctl:{plan.estate} -->\n### mtls plan: {inline(plan.estate)} · `{code(plan.fingerprint)}`\n"
    if not plan.has_changes:
        return f"{head}\n{inline(nothing_to_change(screen).strip())}\n"
    tail = "\nThis plan is applied only while its fingerprint still matches.\n"
    for with_sources in (True, False):
        fixed = "\n".join(
            [head, *_hosts(plan), *_access(plan, with_sources=with_sources), *_risks(plan), _totals(screen), ""]
        )
        room = LIMIT - len(fixed) - len(tail)
        if room >= 0:
            return fixed + _folded(_folds(screen), room) + tail
    return _too_long(head, screen, tail)


def drift_markdown(found: Refreshed) -> str:
    """What lies on hosts and is not what was put there; nothing when all is well."""
    from mtlsctl.cli.views.drift import drift_lines  # noqa: PLC0415  only a plan that looked has it

    lines = [line.strip() for line in drift_lines(found, _WIDE)]
    return "\n#### Drift\n\n" + "".join(f"- {inline(line)}\n" for line in lines) if lines else ""


def inline(text: str) -> str:
    """Text that stays text: no mention, no link, no image, no HTML, no emphasis."""
    return _SPECIAL.sub(_harmless, escaped(text))


def _harmless(found: re.Match[str]) -> str:
    character = found.group()
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", ":": "&#58;", "#": "&#35;"}
    return entities.get(character) or "\\" + character


def code(text: str) -> str:
    """What stands between backticks; a backtick in it becomes an apostrophe."""
    return escaped(text).replace("`", "'")


_WORDS = {
    Op.ADD: ("+", "may call"),
    Op.CHANGE: ("~", "still may call"),
    Op.REMOVE: ("-", "may no longer call"),
}


def _access(plan: Plan, *, with_sources: bool) -> list[str]:
    """Where each is declared gives way before any of them does."""
    if not plan.access:
        return ["**Access:** unchanged\n"]
    lines = ["**Access changes**", "", "```diff"]
    for op, callers, door, source in access_rows(plan.access, _GROUPED):
        sign, words = _WORDS[op]
        lines.append(
            f"{sign} {code(callers)} {words} {code(door)}" + (f"   {code(source)}" if source and with_sources else "")
        )
    return [*lines, "```", ""]


def _hosts(plan: Plan) -> list[str]:
    lines = [line.strip() for line in host_lines(plan, _WIDE)]
    return ["**Hosts**", "", *(f"- {inline(line.split(' ', 1)[1])}" for line in lines), ""] if lines else []


def _risks(plan: Plan) -> list[str]:
    if not plan.risks:
        return []
    return ["**Risks**", "", *(f"- {inline(risk.code)} {inline(risk.summary)}" for risk in plan.risks), ""]


def _totals(screen: PlanScreen) -> str:
    count = summary_of(screen.plan)
    columns = {
        "": "changes",
        "issue": count["issue"],
        "renew": count["renew"],
        "replace": count["replace"],
        "remove": count["remove"],
        "new CAs": count["authorities"],
        "hosts": f"{screen.hosts_touched} / {screen.hosts}",
        "releases": count["releases"],
    }
    rows = (columns.keys(), ["---"] * len(columns), map(str, columns.values()))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _folds(screen: PlanScreen) -> list[_Fold]:
    plan = screen.plan
    caused = certificate_lines(plan, _WIDE, due=False).lines
    due = certificate_lines(plan, _WIDE, due=True).lines
    services = service_lines(plan, _WIDE).lines
    processes = process_lines(screen, _WIDE)
    return [
        _Fold(f"Certificates ({len(caused)})", _signs_first(caused)),
        _Fold(f"Due renewals, not in the fingerprint ({len(due)})", _signs_first(due)),
        _Fold(f"Services ({len(services)})", _signs_first(services)),
        _Fold(f"Processes by wave ({max(0, len(processes) - 1)})", processes),
    ]


def _signs_first(lines: Sequence[str]) -> list[str]:
    """A `diff` block colours what begins with `+`, `-` or `!`."""
    signs = {"±": "!", "~": "!", "↻": "!"}
    bare = [line.removeprefix("  ") for line in lines]
    return [signs.get(line[:1], line[:1]) + line[1:] for line in bare]


def _folded(folds: Sequence[_Fold], room: int) -> str:
    present = sorted((fold for fold in folds if fold.lines), key=lambda one: sum(map(len, one.lines)))
    texts: dict[str, str] = {}
    for number, fold in enumerate(present):
        text = _fold_text(fold, room // (len(present) - number))
        texts[fold.title] = text
        room -= len(text)
    return "".join(texts[fold.title] for fold in folds if fold.title in texts)


def _fold_text(fold: _Fold, room: int) -> str:
    head = f"\n<details><summary>{fold.title}</summary>\n\n```diff\n"
    tail = "\n```\n</details>\n"
    lines = _elided([code(line) for line in fold.lines], room - len(head) - len(tail))
    return head + "\n".join(lines) + tail if lines else ""


def _elided(lines: list[str], room: int) -> list[str]:
    """Lines leave from the middle, and how many is said."""
    if sum(len(line) + 1 for line in lines) <= room:
        return lines
    room -= len("... 10,000,000 lines left out ...") + 1
    first: list[str] = []
    last: list[str] = []
    for front, back in zip(lines, reversed(lines), strict=True):
        if len(first) + len(last) >= len(lines) - 1 or len(front) + len(back) + 2 > room:
            break
        first.append(front)
        last.append(back)
        room -= len(front) + len(back) + 2
    hidden = len(lines) - len(first) - len(last)
    return [*first, f"... {counted(hidden, 'line')} left out ...", *reversed(last)] if room > 0 else []


def _too_long(head: str, screen: PlanScreen, tail: str) -> str:
    """Access changes alone are more than a comment holds: then the totals stand first and say that it is cut."""
    lines = [line for line in (*_access(screen.plan, with_sources=False)[3:-2], *_risks(screen.plan)[2:]) if line]
    totals = _totals(screen)
    warning = f"\n**{counted(len(lines), 'line')} of access changes and risks do not fit here: read the whole plan.**\n"
    room = LIMIT - len(head) - len(totals) - len(warning) - len(tail) - 100
    block = "\n".join(_elided([code(line) for line in lines], room))
    return f"{head}\n{totals}\n{warning}\n```diff\n{block}\n```\n{tail}"
