"""The way back, before it is gone and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.cli.views.page import Tone, columns, counted, escaped, stamp, wrapped
from mtlsctl.operations.progress import Status

if TYPE_CHECKING:
    from mtlsctl.cli.views.page import Page
    from mtlsctl.operations.rollback import RolledBack, WayBack

_NAME = 8
"""Hex digits of a release's name that are shown; the document has all of them."""


def way_text(way: WayBack, page: Page) -> str:
    """Who goes back to what, what that opens and what it breaks."""
    blocks = [_returns(way, page), _doors(way, page), _breaks(way, page), _unfit(way, page)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _returns(way: WayBack, page: Page) -> list[str]:
    rows = [
        [
            f"  {page.paint('~', Tone.CHANGE)} {one.instance}",
            f"{one.live[:_NAME]} -> {one.record.release[:_NAME]}",
            f"certificate until {one.credential.not_after:%Y-%m-%d %H:%M}",
        ]
        for one in way.returns
    ]
    return [page.paint("Releases", Tone.BOLD), *columns(rows, indent="")] if rows else []


def _doors(way: WayBack, page: Page) -> list[str]:
    lines = [f"  + {door}  may call again" for door in sorted(way.reopens)]
    return [page.paint("Access changes", Tone.BOLD), *lines] if lines else []


def _breaks(way: WayBack, page: Page) -> list[str]:
    lines = [f"  ! {edge}  works now and would not" for edge in sorted(way.breaks)]
    return [page.paint("Broken calls", Tone.ERROR), *lines] if lines else []


def _unfit(way: WayBack, page: Page) -> list[str]:
    lines = [
        line
        for instance, error in sorted(way.unfit.items())
        for line in wrapped(escaped(f"{instance}: {error.message}"), width=page.width, first="  ! ", rest="    ")
    ]
    return [page.paint("Stays as it is", Tone.BOLD), *lines] if lines else []


def rollback_text(done: RolledBack, page: Page) -> str:
    """How it ended."""
    if not done.approved:
        return "Nothing went back: the answer was not yes.\n"
    if not done.processes:
        return way_text(done.way, page)
    left = [one for one in done.processes if one.status is not Status.DONE]
    gone = counted(len(done.processes) - len(left), "process", "processes")
    if done.is_whole:
        return f"Rolled back: {gone}, 0 failures.\nNext: mtlsctl verify; the next apply goes forward again.\n"
    unfit = counted(len(done.way.unfit), "instance")
    lines = [f"{page.symbol('fail')} {gone} went back, {len(left)} did not; {unfit} cannot go back."]
    for one in left:
        lines += wrapped(escaped(f"{one.process}: {one.code} {one.message}"), width=page.width, first="  ", rest="    ")
    return "\n".join(lines) + "\n"


def rollback_document(done: RolledBack) -> dict[str, object]:
    """The same as plain JSON values."""
    return {
        "format_version": "1.0",
        "kind": "rollback",
        "approved": done.approved,
        "operation": done.operation,
        "returns": [
            {
                "instance": str(one.instance),
                "from": one.live,
                "to": one.record.release,
                "serial": one.credential.serial,
                "not_after": stamp(one.credential.not_after),
            }
            for one in done.way.returns
        ],
        "reopens": [str(one) for one in sorted(done.way.reopens)],
        "breaks": [str(one) for one in sorted(done.way.breaks)],
        "unfit": [
            {"instance": str(instance), "code": error.code, "message": error.message}
            for instance, error in sorted(done.way.unfit.items())
        ],
        "processes": [
            {"process": str(one.process), "status": one.status.value, "code": one.code, "message": one.message}
            for one in done.processes
        ],
    }
