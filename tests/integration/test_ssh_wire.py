"""Both wires to a host over real sshd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.reach import OPENSSH, PARAMIKO
from tests.contract.channel import ChannelContract
from tests.integration.fleet import Fleet, needs_a_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.peer("sshd"), pytest.mark.peer("ssh"), pytest.mark.peer("sudo"), needs_a_fleet()]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet") / "f") as fleet:
        fleet.start("web1")
        fleet.start("gate")
        yield fleet


class TestParamiko(ChannelContract):
    transport = PARAMIKO


class TestOpenssh(ChannelContract):
    transport = OPENSSH
