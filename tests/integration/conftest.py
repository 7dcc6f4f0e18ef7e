"""Real processes: a failed test shows what they said; a machine without all of 127.0.0.0/8 is told so."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.integration.peers import Program

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"what {program.name} said", program.said()) for program in Program.live]
    return report


@pytest.fixture(scope="session")
def loopback() -> None:
    """Hosts of one estate stand at addresses of their own: Linux has a whole /8 for that, others only 127.0.0.1."""
    try:
        socket.create_server(("127.83.1.2", 0)).close()
    except OSError:
        reason = "127.0.0.1 is the only loopback address here (on macOS: ifconfig lo0 alias)"
        if os.environ.get("MTLSCTL_REQUIRE_PEERS"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
