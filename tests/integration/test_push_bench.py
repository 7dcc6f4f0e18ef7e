"""The benchmark of an apply over SSH runs and prints its figures; what they are is for a quiet machine to say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.fleet import needs_a_fleet
from tests.integration.repository import ROOT

pytestmark = [pytest.mark.peer("sshd"), pytest.mark.peer("ssh"), pytest.mark.peer("nginx"), needs_a_fleet()]


def test_an_apply_is_measured_against_a_loop_of_ssh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "push.py"), "--hosts", "3", "--rounds", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == done.returncode, done.stderr
    said = {tuple(line.split()[:2]) for line in done.stdout.splitlines()}
    assert {(kind, "mtlsctl") for kind in ("first", "again", "edge")} <= said
    assert {("first", "shell"), ("first", "keys-there"), ("again", "floor")} <= said
