"""One process changes as one transaction: stage, check, switch, reload, settle; and back again if any of that fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mtlsctl.deliver.layout import pointer_sha256
from mtlsctl.errors import DeliveryError, MtlsctlError
from mtlsctl.failpoints import reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtlsctl.deliver.layout import Pointer, StagedRelease
    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.release import HeldFile
    from mtlsctl.model.runtime import Check, Reload
    from mtlsctl.model.topology import ProcessId

    Inspect = Callable[[str, str, dict[str, HeldFile]], None]
    """(service, release, its files) as read back from the host; raises when they do not hold together."""

RELOAD_REFUSED = frozenset({"M4202", "M4203"})
"""Codes of a process that was not signalled, or was and kept what it had."""

DEGRADED = "M4108"
_NOT_HEARD = "M43"
"""How the codes begin that say that a host could not be asked, or did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """What one process is to name next, and what it names now.

    `pointer` None takes the pointer away. `expected_before` is the SHA-256 that the pointer on the host must have
    (None: there is none); what was there is put back when anything fails.
    """

    process: ProcessId
    releases: tuple[StagedRelease, ...]
    pointer: Pointer | None
    pointer_path: str
    expected_before: str | None


class SwitchJournal(Protocol):
    """Durable notes about one switch; each method returns when a power cut would not undo it."""

    def intended(self) -> None:
        """Just before the rename."""

    def switched(self) -> None:
        """The process serves what the new pointer names."""

    def switched_back(self) -> None:
        """The pointer holds what it held before, or never stopped doing so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbs:
    """How a process is checked, reloaded and observed.

    `settle` returns once the new releases are served and raises otherwise, `settle_back` does so for the old ones;
    neither is asked when there was nothing to reload.
    """

    check: Check
    reload: Reload
    program: str
    inspect: Inspect
    settle: Callable[[], None]
    settle_back: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The steps that were done, in order, and what a person should know (a check or a signal that had no object)."""

    steps: tuple[str, ...]
    notes: tuple[str, ...]


def publish(transport: Transport, switch: Switch, verbs: Verbs, journal: SwitchJournal) -> Published:
    """Make a process serve `switch`, or leave it serving what it served.

    Raises what a step before the switch raised (nothing was switched), DeliveryError M4105 when the pointer was
    edited since, M4107 when it was put back, M4108 when even that failed. An error of `journal.switched` comes
    through as it is: the host is right, and the open switch is settled by looking at it. So is the one of a host that
    does not answer any more: it is dialled once more to see what became of the switch, and when that is in vain, the
    code M43xx is what comes out and the switch stays open.
    """
    steps, notes = ["staged"], []
    _stage(transport, switch, verbs)
    if switch.pointer is not None:
        notes.append(transport.check(verbs.check, switch.pointer))
        reach("stage.checked")
        steps.append("checked")
    previous = _current(transport, switch)
    journal.intended()
    try:
        reach("switch.intended")
        notes.append(_go(transport, switch, verbs))
    except Exception as error:
        note = _put_back(transport, switch, previous, verbs, journal, error)
        raise _rolled_back(switch, error, note) from error
    journal.switched()
    reach("switch.recorded")
    return Published(steps=(*steps, "switched", "reloaded", "settled"), notes=tuple(note for note in notes if note))


def _stage(transport: Transport, switch: Switch, verbs: Verbs) -> None:
    held = transport.stage_and_read(switch.releases)
    for release, files in zip(switch.releases, held, strict=True):
        verbs.inspect(release.service, release.release, files)


def _current(transport: Transport, switch: Switch) -> Pointer | None:
    """The pointer as it is on the host; raises DeliveryError M4105 unless it is the one that was last written."""
    found = transport.read_pointer(switch.pointer_path)
    if (None if found is None else pointer_sha256(found)) != switch.expected_before:
        what = "already exists" if switch.expected_before is None else "was edited since it was last applied"
        raise DeliveryError(
            f"{switch.process}: {transport.shown(switch.pointer_path)} {what}; nothing was overwritten",
            code="M4105",
            help="move it away if it is not needed, then plan again",
        )
    return found


def _go(transport: Transport, switch: Switch, verbs: Verbs) -> str | None:
    _point(transport, switch.pointer, switch.pointer_path)
    note = transport.reload(verbs.reload, program=verbs.program, process=switch.process.name)
    reach("switch.reloaded")
    if note is None:
        verbs.settle()
    reach("switch.settled")
    return note


def _point(transport: Transport, pointer: Pointer | None, path: str) -> None:
    if pointer is None:
        transport.remove_pointer(path)
    else:
        transport.switch(pointer)


def _put_back(
    transport: Transport,
    switch: Switch,
    previous: Pointer | None,
    verbs: Verbs,
    journal: SwitchJournal,
    cause: Exception,
) -> str | None:
    """Give why nothing was reloaded, if that is so."""
    note = None
    try:
        if _is_unheard(cause):
            transport.reconnect()
        if transport.read_pointer(switch.pointer_path) != previous:
            _point(transport, previous, switch.pointer_path)
            reach("back.renamed")
            note = _reload_back(transport, switch, verbs, cause)
            reach("back.reloaded")
            if note is None:
                verbs.settle_back()
    except Exception as error:
        if _is_unheard(error):
            raise _unknown(switch, cause, error) from error
        raise _degraded(switch, transport.shown(switch.pointer_path), cause, error) from error
    journal.switched_back()
    reach("back.recorded")
    return note


def _reload_back(transport: Transport, switch: Switch, verbs: Verbs, cause: Exception) -> str | None:
    """Reload once more. A process that refused the first reload never left the old configuration: it may refuse again.

    That is no degradation: what it serves is still to be looked at, so None is given as after a reload.
    """
    try:
        return transport.reload(verbs.reload, program=verbs.program, process=switch.process.name)
    except DeliveryError:
        if isinstance(cause, DeliveryError) and cause.code in RELOAD_REFUSED:
            return None
        raise


def _rolled_back(switch: Switch, cause: Exception, note: str | None) -> DeliveryError:
    known = cause if isinstance(cause, MtlsctlError) else None
    now = "it serves what it served before" if note is None else note
    return DeliveryError(
        f"{switch.process}: {known.message if known else cause}; rolled back: {now}",
        code=known.code if known else "M4107",
        notes=known.notes if known else (),
        help=known.help if known else "run the same command again",
    )


def _is_unheard(error: Exception) -> bool:
    """Whether the host could not be asked, or its answer did not come: what was asked for may be done or not."""
    return isinstance(error, MtlsctlError) and error.code.startswith(_NOT_HEARD)


def _unknown(switch: Switch, cause: Exception, error: Exception) -> DeliveryError:
    """One of the two releases is served, both are whole, and which one is found out by whoever looks next."""
    notes = [f"the switch: {cause}"] if str(cause) != str(error) else []
    notes += [f"looking at it again: {error}"]
    return DeliveryError(
        f"{switch.process}: the host does not answer any more; whether it serves the old or the new is not known",
        code=error.code if isinstance(error, MtlsctlError) and not _is_unheard(cause) else getattr(cause, "code", ""),
        notes=tuple(notes),
        help="run the same command again: it looks at the host and goes on from there",
    )


def _degraded(switch: Switch, path: str, cause: Exception, error: Exception) -> DeliveryError:
    return DeliveryError(
        f"{switch.process} is degraded: the switch failed and so did putting back what was there",
        code=DEGRADED,
        notes=(f"the switch: {cause}", f"putting back: {error}"),
        help=f"look at {path} and at the process's log, then run the same command again",
    )
