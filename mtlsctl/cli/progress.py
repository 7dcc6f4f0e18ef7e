"""An apply while it runs: lines for a log, a few lines that move on a terminal, or a stream of JSON."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, Self

from mtlsctl.cli.views.apply import event_line, event_record, event_text
from mtlsctl.cli.views.page import cells, escaped, safe, took
from mtlsctl.operations.progress import ProcessEvent, Status

if TYPE_CHECKING:
    from types import TracebackType

    from mtlsctl.cli.terminal import Terminal
    from mtlsctl.model.topology import ProcessId
    from mtlsctl.operations.progress import Event

REDRAW_SECONDS = 0.2
"""What ends before it is drawn for the first time leaves no trace but its line."""


class Progress(Protocol):
    """Takes every event; nothing of it is left on the screen but lines once it is over."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, event: Event) -> None: ...


def progress_of(terminal: Terminal, asked: str) -> Progress:
    """In the format that was asked for, as standard error can show it."""
    if asked == "ndjson":
        return Stream(terminal)
    return Live(terminal) if terminal.live and not terminal.quiet else Lines(terminal)


class Lines:
    """A line for each event, with its time."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def __call__(self, event: Event) -> None:
        self._terminal.say(event_line(event))


class Stream(Lines):
    """A JSON object in a line of standard output for each event, besides the lines."""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        self._terminal.result(record_line(event_record(event)))


def record_line(record: dict[str, object]) -> str:
    return json.dumps(record) + "\n"


class Live:
    """What is under way stands at the bottom, a line for each host; what has ended scrolls up above it.

    Each line is narrower than the screen and there are fewer than it has rows, so that the way back up is known.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._alone = threading.Lock()
        self._running: dict[ProcessId, tuple[ProcessEvent, float]] = {}
        self._count = dict.fromkeys(Status, 0)
        self._drawn = 0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self._alone:
            self._write(self._erased())

    def __call__(self, event: Event) -> None:
        with self._alone:
            self._note(event)
            text = event_text(event, self._terminal.err_page)
            if text:
                was_drawn = self._drawn > 0
                above = self._erased() + safe(text, colour=self._terminal.err_page.colour)
                self._write(above + (self._region() if was_drawn else ""))

    def _note(self, event: Event) -> None:
        if isinstance(event, ProcessEvent):
            self._count[event.status] += 1
            if event.status is Status.STARTED:
                if self._count[Status.STARTED] == 1:
                    self._began = time.monotonic()  # and not when somebody was asked
                self._running[event.process] = (event, time.monotonic())
            else:
                self._running.pop(event.process, None)

    def _tick(self) -> None:
        while not self._over.wait(REDRAW_SECONDS):
            with self._alone:
                if not self._over.is_set() and (self._running or self._drawn):
                    self._write(self._erased() + self._region())

    def _erased(self) -> str:
        drawn, self._drawn = self._drawn, 0
        return f"\x1b[{drawn}A\r\x1b[J" if drawn else ""

    def _region(self) -> str:
        """The lines as they are now; the cursor is left below them."""
        if not self._running:
            return ""
        width, height = self._size()
        now = time.monotonic()
        lines = [
            f"  {event.wave!s:<9} {escaped(event.process.host)} {escaped(event.process.name)}  {_seconds(now - since)}"
            for event, since in self._running.values()
        ]
        room = max(1, height - 3)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  ... and {len(lines) - room + 1} more"]
        lines.append(f"  {self._sum(now)}")
        self._drawn = len(lines)
        return "".join(f"{cut(line, width - 1)}\n" for line in lines)

    def _sum(self, now: float) -> str:
        done, failed = self._count[Status.DONE], self._count[Status.FAILED]
        return f"{len(self._running)} running, {done} done, {failed} failed   {_seconds(now - self._began)}"

    def _size(self) -> tuple[int, int]:
        """Of the screen as it is now: it may have been made smaller since."""
        try:
            size = os.get_terminal_size(self._terminal.err.fileno())
        except (OSError, ValueError):
            return self._terminal.err_page.width, 24
        return (size.columns or 80, size.lines or 24)

    def _write(self, text: str) -> None:
        if text:
            self._terminal.err.write(text)
            self._terminal.err.flush()


def _seconds(seconds: float) -> str:
    return took(timedelta(seconds=int(seconds))) if seconds >= 10 else f"{int(seconds)} s"  # noqa: PLR2004  as `took`


def cut(text: str, width: int) -> str:
    """As much of a line as fits in so many columns."""
    if cells(text) <= width:
        return text
    kept = ""
    for character in text:
        if cells(kept + character) > max(0, width - 3):
            break
        kept += character
    return kept + "..."[:width]
