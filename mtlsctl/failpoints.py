"""Named places where a test may kill or break an apply. They do nothing unless the environment asks.

`MTLSCTL_FAILPOINT=NAME:ACTION` acts when the place is reached for the first time, `NAME*N:ACTION` for the N-th;
ACTION is `kill` (SIGKILL to this process), `raise` (an OSError) or `stop` (SIGSTOP). `MTLSCTL_FAILPOINT_LOG=FILE`
appends each name that is reached, so that a place which no test reaches can be found.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

FAILPOINTS = (
    "operation.opened",
    "carry.linked",
    "service.carried",
    "service.moved",
    "intents.recorded",
    "authority.signing",
    "authority.signed",
    "authority.recorded",
    "key.written",
    "certificate.signing",
    "certificate.signed",
    "certificate.recorded",
    "release.rendered",
    "stage.partial",
    "stage.written",
    "stage.synced",
    "stage.renamed",
    "stage.checked",
    "switch.intended",
    "switch.renamed",
    "switch.reloaded",
    "switch.settled",
    "switch.recorded",
    "back.renamed",
    "back.reloaded",
    "back.recorded",
    "remove.deleted",
    "prune.deleted",
    "operation.closed",
)
"""Every place, in the order of an apply. The kill test runs each; one that is never reached fails it."""

_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Pass a named place; raises OSError, or never returns, when the environment asks for it."""
    wanted = os.environ.get("MTLSCTL_FAILPOINT")
    log = os.environ.get("MTLSCTL_FAILPOINT_LOG")
    if wanted is None and log is None:
        return
    if name not in FAILPOINTS:
        msg = f"{name} is not a failpoint"
        raise AssertionError(msg)
    _reached[name] = _reached.get(name, 0) + 1
    if log is not None:
        with Path(log).open("a", encoding="ascii") as lines:
            lines.write(name + "\n")
    if wanted is not None:
        _act(wanted, name)


def _act(wanted: str, name: str) -> None:
    place, _, action = wanted.partition(":")
    place, _, nth = place.partition("*")
    if place != name or _reached[name] != int(nth or 1):
        return
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            msg = f"failpoint {name}"
            raise OSError(msg)
