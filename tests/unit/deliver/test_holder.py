"""Who holds a lock on a host: one that works is left alone, one that has ended is known to have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mtlsctl.deliver import holder

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart by /proc")

MAKE = "from mtlsctl.deliver.holder import take_mark; print(take_mark(), flush=True); input()"


def test_a_lock_of_this_run_is_held_until_it_is_let_go() -> None:
    mark = holder.take_mark()
    assert not holder.has_ended(mark)
    holder.drop_mark(mark)
    assert holder.has_ended(mark)


def test_a_lock_of_another_process_is_held_while_that_one_lives() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        mark = process.stdout.readline().strip()
        assert not holder.has_ended(mark)
        process.kill()
        process.wait()
    assert holder.has_ended(mark)


def test_a_number_that_another_process_has_now_does_not_bring_the_holder_back() -> None:
    machine, pid, start, nonce = holder.take_mark().split(".")
    assert holder.has_ended(".".join((machine, pid, f"1{start}", nonce)))


@pytest.mark.parametrize("mark", ["", "-", "...", "0" * 16 + ".1.1.x", "-.1.1.x", "x.-1.1.1", "a\n.b.c.d"])
def test_nothing_is_known_of_other_machines_and_of_what_is_no_mark(mark: str) -> None:
    assert not holder.has_ended(mark)


def test_a_process_number_that_is_none_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = holder.take_mark().split(".")[0]
    assert not holder.has_ended(f"{machine}.x.1.y")
    assert not holder.has_ended(f"{machine}.99999999999999.1.y")
    assert not holder.has_ended(f"{machine}.1.-.y")
