"""The journal: one short sentence for each entry; all that is on record in JSON."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mtlsctl.cli.views.page import counted, escaped, listed, stamp
from mtlsctl.store.journal import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mtlsctl.store.port import JournalEntry

_NAMES_WIDTH = 60


def journal_line(entry: JournalEntry) -> str:
    """Number, time, and what was done; the detail of an event that this version does not know stays in the JSON."""
    try:
        said = _SENTENCES[entry.event](entry.detail)
    except (KeyError, IndexError, TypeError, ValueError):
        said = entry.event
    return f"{entry.number:>6} {stamp(entry.at)} {escaped(said)}"


def _process(detail: Mapping[str, Any]) -> str:
    return "/".join(detail["process"])


def _members(detail: Mapping[str, Any]) -> str:
    named = f": {_instances(detail['releases'])}" if detail["releases"] else ""
    return named + (f", without {_instances(detail['removed'])}" if detail["removed"] else "")


def _left_there(detail: Mapping[str, Any]) -> str:
    return f" with {_instances(detail['instances'])}" if detail["instances"] else ""


def _authority(id: Any) -> str:
    service, generation = id
    return f"{service} CA g{generation}"


def _instances(those: Iterable[Any]) -> str:
    return _names(f"{service}@{host}" for service, host, *_ in those)


def _names(names: Iterable[str]) -> str:
    return listed(names, width=_NAMES_WIDTH)


def _signature(detail: Mapping[str, Any]) -> str:
    issuer = _authority(detail["issuer"])
    match detail["subject"]:
        case ["authority", service, generation]:
            return f"{_authority([service, generation])} with its own key"
        case ["credential", service, host, sequence]:
            return f"{service}@{host}#{sequence} with {issuer}"
        case [*_, other]:
            return f"{other} with {issuer}"
        case _:
            raise ValueError


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = MappingProxyType(
    {
        Event.CREATED: lambda _: "state created",
        Event.RESTORED: lambda detail: f"state restored from a backup of serial {detail['serial']}",
        Event.OPENED: lambda detail: f"{detail['command']} begun by {detail['who']}",
        Event.ABANDONED: lambda detail: f"operation {detail['operation']} given up: it had never ended",
        Event.CLOSED: lambda detail: f"operation ended: {detail['outcome']}",
        Event.INTENDED: lambda detail: f"about to sign {counted(len(detail['signatures']), 'certificate')}",
        Event.SIGNING: lambda detail: f"signing {_signature(detail)}",
        Event.SIGNED: lambda detail: f"signed {_signature(detail)}, serial {detail['serial'][:8]}...",
        Event.KEPT: lambda detail: f"kept {counted(len(detail['certificates']), 'certificate')} from outside",
        Event.KEY_DESTROYED: lambda detail: f"destroyed the key of {_authority(detail['authority'])}",
        Event.HOSTS: lambda detail: f"may put files on {_names(detail['hosts'])}",
        Event.PROGRAMS: lambda detail: f"looked at the programs on {_names(detail['hosts'])}",
        Event.HOST_FORGOTTEN: lambda detail: f"forgot host {detail['host']}: it holds nothing any more",
        Event.HOST_MOVED: lambda detail: f"host {detail['host']} is called {detail['to']} from now on",
        Event.SERVICE_MOVED: lambda detail: f"service {detail['service']} is called {detail['to']} from now on",
        Event.HOST_ABANDONED: lambda detail: f"gave up host {detail['host']}{_left_there(detail)}",
        Event.RELEASES: lambda detail: f"rendered releases of {_instances(detail['releases'])}",
        Event.GONE: lambda detail: f"found gone from its host: {_instances([detail['instance']])}",
        Event.KEY_MISSING: lambda detail: f"found without its key: {_instances([detail['instance']])}",
        Event.SWITCH_INTENDED: lambda detail: f"about to switch {_process(detail)}{_members(detail)}",
        Event.SWITCHED: lambda detail: f"switched {_process(detail)}{_members(detail)}",
        Event.SWITCHED_BACK: lambda detail: f"{_process(detail)} is what it was before: the switch was taken back",
    }
)


def journal_document(entry: JournalEntry) -> dict[str, object]:
    return {
        "number": entry.number,
        "at": stamp(entry.at),
        "operation": entry.operation,
        "event": entry.event,
        "detail": dict(entry.detail),
        "digest": entry.digest,
    }
