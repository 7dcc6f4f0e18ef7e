"""Both wires to a host over real sshd."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver import ssh
from mtlsctl.deliver.dial import dialler, shown_key, trust
from mtlsctl.deliver.reach import OPENSSH, PARAMIKO
from mtlsctl.errors import DeliveryError
from tests.contract.channel import ChannelContract, read_all
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


# --- trusting a host ------------------------------------------------------------------------------------------------


def test_a_host_is_scanned_without_a_login_and_trusted_once(fleet: Fleet) -> None:
    host = fleet.hosts["web1"]
    fleet.forget_all()
    options = fleet.options()
    logins = host.logged("Accepted publickey")
    key = shown_key(host.inventory(user="nobody-at-all"), options)
    assert key == host.host_key()
    assert host.logged("Accepted publickey") == logins
    assert fleet.known_hosts.read_text() == ""
    assert trust(host.inventory(), key, options) == (fleet.known_hosts, True)
    assert trust(host.inventory(), key, options) == (fleet.known_hosts, False)
    with pytest.raises(DeliveryError) as refused:
        trust(host.inventory(), fleet.hosts["gate"].host_key(), options)
    assert refused.value.code == "M4305"
    for transport in (PARAMIKO, OPENSSH):
        with closing(dialler(host.inventory(), fleet.options(transport))("echo in")) as channel:
            assert read_all(channel) == b"in\n"


def test_a_host_is_scanned_through_a_jump_host_that_is_known(fleet: Fleet) -> None:
    host, gate = fleet.hosts["web1"], fleet.hosts["gate"]
    fleet.forget_all()
    behind = host.inventory(jump=f"root@{gate.address}:{gate.port}")
    with pytest.raises(DeliveryError) as refused:
        ssh.scan(behind, options=fleet.options())
    assert (refused.value.code, gate.host_key().fingerprint in " ".join(refused.value.notes)) == ("M4311", True)
    fleet.know(gate)
    assert ssh.scan(behind, options=fleet.options()) == host.host_key()


def test_ssh_accepts_no_key_of_a_jump_host_whatever_its_configuration_says(fleet: Fleet) -> None:
    host, gate = fleet.hosts["web1"], fleet.hosts["gate"]
    fleet.forget_all()
    fleet.know(host)
    options = fleet.options(OPENSSH)
    assert options.config is not None
    before = options.config.read_text()
    behind = host.inventory(jump=f"root@{gate.address}:{gate.port}")
    try:
        options.config.write_text(f"StrictHostKeyChecking accept-new\n{before}")
        with pytest.raises(DeliveryError) as refused:
            dialler(behind, options)("echo in")
        assert refused.value.code in {"M4304", "M4311"}
        assert gate.host_key().text not in fleet.known_hosts.read_text()
        fleet.know(gate)
        with closing(dialler(behind, options)("echo in")) as channel:
            assert read_all(channel) == b"in\n"
    finally:
        options.config.write_text(before)


def test_the_wire_is_chosen_without_loading_it() -> None:
    code = (
        "import sys; from mtlsctl.deliver import dial, reach, channel, known_hosts; "
        "assert not {'paramiko', 'cryptography'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["web1", "gate"])
def test_the_hosts_of_a_fleet_have_files_of_their_own(fleet: Fleet, name: str) -> None:
    mine = fleet.hosts[name]
    mine.path("/etc/of-its-own").write_text(name)
    others = [one for one in fleet.hosts.values() if one is not mine]
    assert mine.run("cat", "/etc/of-its-own").stdout == name
    assert [one.run("cat", "/etc/of-its-own").stdout == name for one in others] == [False] * len(others)
    assert not Path("/etc/of-its-own").exists()
