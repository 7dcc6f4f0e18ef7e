"""The lines that move: as many as there is room for, narrower than the screen, and gone in the end."""

from __future__ import annotations

import io
import re
import time
from datetime import UTC, datetime

import pytest

from mtlsctl.cli import progress
from mtlsctl.cli.progress import Lines, Live, progress_of
from mtlsctl.cli.terminal import Terminal
from mtlsctl.cli.views.page import Page
from mtlsctl.model.plan import Wave
from mtlsctl.model.topology import InstanceId, ProcessId
from mtlsctl.operations.progress import Noticed, ProcessEvent, Status
from tests.cli.test_apply_flags import screen

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Screen(io.StringIO):
    """Of 30 columns and 8 rows."""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(Live, "_size", lambda _: (30, 8))
    return Terminal(out=io.StringIO(), err=Screen(), page=Page(), err_page=Page(), live=True)


def event(host: str, status: Status, message: str = "") -> ProcessEvent:
    return ProcessEvent(
        at=NOW,
        process=ProcessId(host, "nginx"),
        wave=Wave.ACTIVATE,
        status=status,
        instances=(InstanceId("mail", host),),
        message=message,
    )


def said(terminal: Terminal) -> str:
    assert isinstance(terminal.err, io.StringIO)
    return terminal.err.getvalue()


def wait_for(terminal: Terminal, text: str) -> None:
    end = time.monotonic() + 10
    while text not in said(terminal):
        assert time.monotonic() < end, said(terminal)
        time.sleep(0.01)


def test_what_runs_has_a_line_and_what_ended_scrolls_up(terminal: Terminal) -> None:
    with Live(terminal) as live:
        live(event("web1", Status.STARTED))
        live(event("web2", Status.STARTED))
        wait_for(terminal, "2 running, 0 done")
        live(event("web1", Status.DONE))
        wait_for(terminal, "1 running, 1 done")
        shown = screen(said(terminal))
        assert "activate  web1 nginx  done" in shown[0]
        assert "activate  web2 nginx" in shown[1]
    assert ["  ✓ activate  web1 nginx  done", ""] == screen(said(terminal))


def test_there_are_fewer_lines_than_rows_and_none_is_as_wide_as_the_screen(terminal: Terminal) -> None:
    with Live(terminal) as live:
        for number in range(40):
            live(event(f"a-very-long-name-of-a-host-{number}", Status.STARTED))
        wait_for(terminal, "and 36 more")
        assert len([line for line in screen(said(terminal), width=30) if line]) <= 7
    assert [""] == screen(said(terminal))


def test_what_a_host_is_called_cannot_act_on_the_screen(terminal: Terminal) -> None:
    with Live(terminal) as live:
        live(event("\x1b[2J", Status.STARTED))
        wait_for(terminal, "1 running")
        live(event("\x1b[2J", Status.FAILED, "\x1b]0;pwned\x07"))
    assert set(re.findall(r"\x1b(\[[0-9]*[AJ])", said(terminal))) == set(
        re.findall(r"\x1b(.[^a-zA-Z]*[a-zA-Z])", said(terminal))
    )
    assert "\x07" not in said(terminal)


def test_what_is_quick_is_never_drawn(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 5)
    with Live(terminal) as live:
        live(event("web1", Status.STARTED))
        live(event("web1", Status.DONE))
        live(Noticed(at=NOW, message="looked"))
    assert "\x1b" not in said(terminal)


def test_the_screen_is_left_clean_whatever_ends_it(terminal: Terminal) -> None:
    def fail() -> None:
        with Live(terminal) as live:
            live(event("web1", Status.STARTED))
            wait_for(terminal, "1 running")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [""] == screen(said(terminal))


def test_off_a_terminal_there_are_plain_lines() -> None:
    terminal = Terminal(out=io.StringIO(), err=Screen(), page=Page(), err_page=Page(), live=False)
    with progress_of(terminal, "text") as lines:
        assert type(lines) is Lines
        lines(event("web1", Status.DONE))
    assert "2026-11-22T00:00:00Z web1 process=nginx wave=activate status=done instances=mail@web1\n" == said(terminal)
