"""`mtlsctl apply` over SSH, end to end: real sshd, an unprivileged user with sudo, a real nginx that is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.fleet import needs_a_fleet
from tests.integration.ssh_stage import (
    LET_IN,
    TURNED_AWAY,
    HostNginx,
    Stage,
    assert_all_whole,
    assert_nothing_is_left_over,
    leaf_on,
    prove,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_a_fleet(), pytest.mark.peer("nginx"), pytest.mark.peer("curl"), pytest.mark.usefixtures("loopback")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="module")
def nginx(stage: Stage) -> Iterator[HostNginx]:
    with HostNginx(stage["web1"]) as nginx:
        yield nginx


@pytest.fixture(autouse=True)
def _no_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls while these tests run, so no call that is under way is waited for."""
    monkeypatch.setattr("mtlsctl.operations.executor.HANDOVER_SECONDS", 0.0)


def test_first_apply(stage: Stage, nginx: HostNginx) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    assert stage.call("mail").outcome == LET_IN
    assert_all_whole(stage)
    prove(estate)
