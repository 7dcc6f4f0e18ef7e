"""An apply while it runs, for eyes and for logs, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, counted, escaped, listed, stamp, took, wrapped
from mtlsctl.operations.progress import Issued, Noticed, ProcessEvent, Status

if TYPE_CHECKING:
    from datetime import timedelta

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.plan import Plan
    from mtlsctl.operations.apply import Applied, Scope
    from mtlsctl.operations.progress import Event

_TONES = {
    Status.DONE: ("ok", Tone.ADD),
    Status.FAILED: ("fail", Tone.ERROR),
    Status.WAITING: ("unclear", Tone.CHANGE),
    Status.BLOCKED: ("unclear", Tone.CHANGE),
}


def event_line(event: Event) -> str:
    """One line for a log: RFC 3339 time, then `key=value`; no cursor, no colour."""
    match event:
        case Issued(authorities=0, certificates=0):
            return ""
        case Issued():
            facts = {"step": "issue", "authorities": str(event.authorities), "certificates": str(event.certificates)}
            return f"{stamp(event.at)} {_pairs(facts)}\n"
        case Noticed():
            return f"{stamp(event.at)} {_pairs({'step': 'look', 'message': event.message})}\n"
        case ProcessEvent():
            facts = {
                "process": event.process.name,
                "wave": str(event.wave),
                "status": event.status.value,
                "instances": ",".join(map(str, event.instances)),
                "code": event.code,
                "message": event.message,
                "note": "; ".join(event.notes),
                "help": event.help or "",
            }
            return f"{stamp(event.at)} {event.process.host} {_pairs({k: v for k, v in facts.items() if v})}\n"


def _pairs(facts: dict[str, str]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in facts.items())


def _value(text: str) -> str:
    shown = escaped(text).replace('"', "'")
    return f'"{shown}"' if " " in shown else shown


def event_text(event: Event, page: Page) -> str:
    """The same for eyes; a process that only begins is not worth a line."""
    match event:
        case Issued(authorities=0, certificates=0):
            return ""
        case Issued():
            sizes = f"{counted(event.authorities, 'CA')}, {counted(event.certificates, 'certificate')}"
            return f"Issued   {sizes}\n"
        case Noticed():
            return "\n".join(wrapped(escaped(event.message), width=page.width, first="Looked   ", rest=" " * 9)) + "\n"
        case ProcessEvent():
            is_told = event.status not in {Status.STARTED, Status.LEFT_OUT}  # what is left out is told at the end
            return _process_text(event, page) if is_told else ""


def _process_text(event: ProcessEvent, page: Page) -> str:
    name, tone = _TONES[event.status]
    process = f"{event.process.host} {event.process.name}"
    head = f"  {page.paint(page.symbol(name), tone)} {event.wave!s:<9} {process}  {event.status.value}"
    lines = [head]
    for text in (event.message, *event.notes, f"help: {event.help}" if event.help else ""):
        for line in text.splitlines():
            lines += wrapped(escaped(line), width=page.width, first="      ", rest="        ")
    return "\n".join(lines) + "\n"


def event_record(event: Event) -> dict[str, object]:
    """The same as a JSON object for a stream."""
    match event:
        case Issued():
            facts = {"authorities": event.authorities, "certificates": event.certificates}
            return {"type": "issued", "ts": stamp(event.at), **facts}
        case Noticed():
            return {"type": "noticed", "ts": stamp(event.at), "message": event.message}
        case ProcessEvent():
            return {"type": "process", "ts": stamp(event.at), **_process_record(event)}


def _process_record(event: ProcessEvent) -> dict[str, object]:
    return {
        "host": event.process.host,
        "process": event.process.name,
        "wave": str(event.wave),
        "status": event.status.value,
        "code": event.code or None,
        "message": event.message,
        "notes": list(event.notes),
        "help": event.help,
        "instances": list(map(str, event.instances)),
    }


PARTIAL = 3


def exit_code_of(applied: Applied) -> int:
    """3 when something failed or waited in vain; 1 when the answer was no."""
    if not applied.approved:
        return 1
    return 0 if applied.is_whole else PARTIAL


def applied_text(applied: Applied, page: Page, *, elapsed: timedelta) -> str:
    """What was changed, what was not, and the command that goes on."""
    return _whole(applied, page, elapsed) if applied.is_whole else _partial(applied, page)


def is_left_undone(applied: Applied) -> bool:
    """Whether another apply has something to do."""
    return any(one.status is not Status.DONE for one in applied.processes)


def summary_record(applied: Applied) -> dict[str, object]:
    """The last line of a stream; processes are counted by how they ended, once for each wave."""
    ended = [one.status for one in applied.processes]
    return {
        "type": "summary",
        "exit_code": exit_code_of(applied),
        "approved": applied.approved,
        "operation": applied.operation,
        "serial": applied.serial,
        "fingerprint": applied.planned.plan.fingerprint,
        **{status.value.replace("-", "_"): ended.count(status) for status in Status if status is not Status.STARTED},
        "run_again": is_left_undone(applied),
    }


def left_out_text(plan: Plan, scope: Scope, page: Page) -> str:
    """Before a part of a plan is applied: what is not."""
    if scope.is_everything:
        return ""
    left = {step.process for step in plan.steps if not scope.holds(step.id.instance)}
    done = {step.process for step in plan.steps if scope.holds(step.id.instance)}
    asked = [
        f"{what} {', '.join(sorted(names))}"
        for what, names in (("hosts", scope.hosts), ("services", scope.services))
        if names is not None
    ]
    text = f"Only {' and '.join(asked)}: {counted(len(done), 'process', 'processes')} now, {len(left)} left out."
    return "\n".join(["", *wrapped(escaped(text), width=page.width, first="", rest="  ")]) + "\n"


def _left_out(applied: Applied, page: Page) -> list[str]:
    left = sorted({str(one.process) for one in applied.processes if one.status is Status.LEFT_OUT})
    if not left:
        return []
    names = escaped(listed(left, width=page.width * 2))
    return wrapped(f"Left for the next apply: {names}.", width=page.width, first="", rest="  ")


def _whole(applied: Applied, page: Page, elapsed: timedelta) -> str:
    plan = applied.planned.plan
    done = {instance for one in applied.processes if one.status is Status.DONE for instance in one.instances}
    left = _left_out(applied, page)
    certificates = [one for one in plan.certificates if not left or one.id.instance in done]
    made = (
        (len(plan.moves), "renamed host"),
        (len(plan.renames), "renamed service"),
        (len(plan.abandonments), "abandoned host"),
        (len(plan.authorities), "CA"),
        (len(certificates), "certificate"),
    )
    processes = {one.process for one in applied.processes if one.status is Status.DONE}
    parts = (
        *(counted(number, what) for number, what in made if number),
        counted(len(processes), "process", "processes"),
        "0 failures",
    )
    return "\n".join([f"Applied in {took(elapsed)}: {', '.join(parts)}.", *left, "Next: mtlsctl verify"]) + "\n"


def _partial(applied: Applied, page: Page) -> str:
    events = applied.processes
    failures, awaiting, waiting = (
        [one for one in events if one.status is kind] for kind in (Status.FAILED, Status.WAITING, Status.BLOCKED)
    )
    failed = {one.process for one in failures}
    waits = {one.process for one in awaiting} - failed
    blocked = {one.process for one in waiting} - failed - waits
    kinds = ((failed, "failed"), (waits, "waiting for a key"), (blocked, "blocked by what they wait for"))
    text = ", ".join(f"{counted(len(those), 'process', 'processes')} {what}" for those, what in kinds if those)
    sign = page.symbol("fail" if failed else "unclear")
    sentence = f"{sign} {text}. Each of them serves what it served before, unless it says otherwise."
    lines = wrapped(sentence, width=page.width, first="", rest="  ")
    lines += [line for one in (*failures, *awaiting) for line in _failure(one, page)]
    lines += [line for one in waiting for line in _blocked(one, page)]
    lines += _left_out(applied, page)
    again = [] if any(one.help for one in (*failures, *awaiting)) else ["Run again: mtlsctl apply"]
    return "\n".join([*lines, *again]) + "\n"


def _failure(event: ProcessEvent, page: Page) -> list[str]:
    """The message without the process that many of them begin with, then all that helps."""
    message = event.message.removeprefix(f"{event.process}: ")
    head = f"{event.process} in {event.wave}: {event.code and event.code + ' '}"
    notes = (("note: ", note) for note in event.notes)
    lines = _lines(message, page, first=f"  {head}", rest="    ")
    for word, text in (*notes, *([("help: ", event.help)] if event.help else [])):
        lines += _lines(text, page, first=f"    {word}", rest="          ")
    return lines


def _blocked(event: ProcessEvent, page: Page) -> list[str]:
    return wrapped(
        escaped(event.message), width=page.width, first=f"  {event.process} in {event.wave}: blocked, ", rest="    "
    )


def _lines(text: str, page: Page, *, first: str, rest: str) -> list[str]:
    """Each line of the text for itself: what a host's own check said comes in lines."""
    pieces = [escaped(line) for line in text.splitlines()] or [""]
    return [
        line
        for number, piece in enumerate(pieces)
        for line in wrapped(piece, width=page.width, first=rest if number else first, rest=rest)
    ]


def applied_document(applied: Applied) -> dict[str, object]:
    code = exit_code_of(applied)
    return {
        "format_version": "1.0",
        "kind": "apply",
        "tool_version": __version__,
        "approved": applied.approved,
        "operation": applied.operation,
        "serial": applied.serial,
        "fingerprint": applied.planned.plan.fingerprint,
        "exit_code": code,
        "run_again": is_left_undone(applied),
        "processes": [_process_record(one) for one in applied.processes],
        "diagnostics": [],
    }
