"""Colour, symbols, width and the question, on a terminal and off it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from mtlsctl.cli.terminal import plain_terminal
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from tests.cli.estate import Estate


class HasFolder(Protocol):
    """An estate of either kind."""

    @property
    def folder(self) -> Path: ...


ROOT = Path(__file__).resolve().parents[2]


def test_no_colour_off_a_terminal_and_colour_where_it_is_forced(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b" not in estate.good("plan").out
    assert "\x1b[" in estate.good("plan", "--color", "always").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in estate.good("plan").out
    assert "\x1b" not in estate.good("plan", "--color", "never").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in estate.good("plan").out


def test_colour_changes_no_character(estate: Estate) -> None:
    plain = estate.good("plan", "--color", "never").out
    painted = estate.good("plan", "--color", "always").out
    assert plain == re.sub(r"\x1b\[[0-9;]*m", "", painted)


def test_errors_are_coloured_like_everything_else(estate: Estate) -> None:
    assert "\x1b[" in estate.run("plan", "-i", "nowhere", "--color", "always").err
    assert "\x1b" not in estate.run("plan", "-i", "nowhere").err


def test_ascii_means_ascii(estate: Estate) -> None:
    estate.good("apply", "--yes")
    for command in (["plan"], ["verify", "--embedded"], ["state", "check"]):
        assert estate.good(*command, "--ascii").out.isascii()


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("200", 200), ("7", 40), ("wide", 80), ("", 80)])
def test_the_width_is_that_of_columns_within_reason(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert plain_terminal(color="auto", ascii=False).page.width == width


def on_a_terminal(
    estate: HasFolder, answer: str, *arguments: str, question: str = "Apply these changes?", **environ: str
) -> tuple[int, str]:
    """Run with a pseudo-terminal on all three streams and answer the question."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mtlsctl.cli", *arguments],
        cwd=estate.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environ},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        said = _conversation(ours, question, answer)
        code = process.wait(timeout=ENDED_SECONDS)
    os.close(ours)
    return code, said.replace("\r\n", "\n")


def _conversation(terminal: int, question: str, answer: str) -> str:
    said, answered, end = "", False, time.monotonic() + ENDED_SECONDS
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 65536)
            except OSError:
                break
            if not piece:
                break
            said += piece.decode()
        if question in said and not answered:
            os.write(terminal, answer.encode() + b"\n")
            answered = True
    return said


def test_yes_on_a_terminal_applies_and_shows_lines_for_eyes(estate: Estate) -> None:
    code, said = on_a_terminal(estate, "yes", "apply", CI="")
    assert code == 0
    assert "Applied in" in said
    assert re.search(r"✓.* activate +here nginx +done", said)
    assert "status=done" not in said


@pytest.mark.parametrize("answer", ["no", "y", "", "YES please"])
def test_anything_but_yes_applies_nothing(estate: Estate, answer: str) -> None:
    code, said = on_a_terminal(estate, answer, "apply", CI="")
    assert code == 1
    assert "Nothing was applied" in said
    assert not (estate.folder / "out").exists()


@pytest.mark.parametrize("environ", [{"CI": "true"}, {"MTLSCTL_NO_INPUT": "1"}])
def test_a_job_is_never_asked_even_on_a_terminal(estate: Estate, environ: dict[str, str]) -> None:
    code, said = on_a_terminal(estate, "yes", "apply", **environ)
    assert (code, "M9104" in said) == (64, True)
