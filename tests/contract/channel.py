"""What every wire to a host promises, as tests over real sshd: a suite subclasses `ChannelContract` and names one."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from mtlsctl.deliver.dial import dialler
from mtlsctl.errors import DeliveryError
from mtlsctl.model.topology import SshHost
from tests.integration.fleet import DEPLOYER, SshAgent, free_port, make_key, public_key, sign
from tests.integration.peers import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtlsctl.deliver.channel import Channel
    from tests.integration.fleet import Fleet, Sshd


def soon(seconds: float = 20) -> float:
    return time.monotonic() + seconds


def read_all(channel: Channel, *, most: int = 2**30) -> bytes:
    said = b""
    while len(said) < most and (piece := channel.receive(65536, deadline=soon())):
        said += piece
    return said


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def send_for_long(channel: Channel) -> None:
    for _ in range(20):
        channel.send(b"x" * 100_000, deadline=soon())


def certified(fleet: Fleet, name: str = "certified", *, principals: str = "", validity: str = "+1d") -> Sshd:
    """A host whose key has a certificate of the fleet's CA."""
    authority = fleet.folder / "ca"
    if not authority.exists():
        make_key(authority)
    certificate = fleet.folder / f"{name}-cert.pub"
    host = fleet.start(name, known=False, more=f"HostCertificate {certificate}", start=False)
    sign(authority, host.key_file("ed25519"), "-h", "-n", principals or host.address, "-V", validity)
    host.key_file("ed25519").with_name("host_ed25519-cert.pub").rename(certificate)
    return fleet.run(host)


class ChannelContract:
    """`fleet` is one for the module, with the hosts `web1` and `gate`; a test that needs its own host starts one."""

    transport: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _known(self, fleet: Fleet) -> Iterator[None]:
        yield
        fleet.configure()
        fleet.forget_all()
        for host in fleet.hosts.values():
            fleet.know(host)

    @pytest.fixture
    def web1(self, fleet: Fleet) -> Sshd:
        return fleet.hosts["web1"]

    @pytest.fixture
    def gate(self, fleet: Fleet) -> Sshd:
        return fleet.hosts["gate"]

    def dial(self, fleet: Fleet, host: SshHost, command: str, **options: object) -> Channel:
        return dialler(host, fleet.options(self.transport, **options))(command)

    def refused(self, fleet: Fleet, host: SshHost, **options: object) -> DeliveryError:
        with pytest.raises(DeliveryError) as refused:
            self.dial(fleet, host, "exec cat", **options).close()
        return refused.value

    # --- a program and what it says

    def test_what_is_sent_comes_back(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "exec cat")) as channel:
            for word in (b"one", b"\0\xff\r\n", b"three"):
                channel.send(word, deadline=soon())
                assert channel.receive(100, deadline=soon()) == word

    def test_a_receiver_gets_no_more_than_it_asked_for(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "exec cat")) as channel:
            channel.send(b"abcdef", deadline=soon())
            assert channel.receive(2, deadline=soon()) == b"ab"
            assert read_all(channel, most=4) == b"cdef"

    def test_much_goes_both_ways_though_nobody_reads_meanwhile(self, fleet: Fleet, web1: Sshd) -> None:
        data = os.urandom(6 * 1024 * 1024)
        with closing(self.dial(fleet, web1.inventory(), "exec cat")) as channel:
            channel.send(data, deadline=soon(60))
            assert read_all(channel, most=len(data)) == data

    def test_a_program_that_complains_without_end_does_not_block_the_answer(self, fleet: Fleet, web1: Sshd) -> None:
        command = "head -c 5000000 /dev/zero >&2; echo over >&2; echo done"
        with closing(self.dial(fleet, web1.inventory(), command)) as channel:
            assert read_all(channel) == b"done\n"
            assert channel.complaints().endswith(b"over\n")
            assert len(channel.complaints()) <= 8192

    def test_the_end_of_a_program_is_an_empty_answer_and_stays_one(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "echo last; exit 7")) as channel:
            assert read_all(channel) == b"last\n"
            assert channel.receive(10, deadline=soon()) == b""

    def test_sending_to_a_program_that_ended_is_an_error(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "exec true")) as channel:
            assert read_all(channel) == b""
            with pytest.raises(DeliveryError) as lost:
                send_for_long(channel)
            assert lost.value.code == "M4301"

    def test_it_is_the_user_that_the_inventory_names(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(user=DEPLOYER), "id -un; sudo -n id -un")) as channel:
            assert read_all(channel) == f"{DEPLOYER}\nroot\n".encode()

    def test_the_command_reaches_the_login_shell_as_it_is(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(
            self.dial(fleet, web1.inventory(), """exec sh -c 'printf %s "$1|$(head -c 3)"' sh "a  b" """)
        ) as it:
            it.send(b"xyz", deadline=soon())
            assert read_all(it) == b"a  b|xyz"

    # --- deadlines and ends

    def test_an_answer_that_does_not_come_ends_at_the_deadline(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "exec sleep 30")) as channel:
            began = time.monotonic()
            with pytest.raises(DeliveryError) as late:
                channel.receive(1, deadline=began + 0.5)
            assert late.value.code == "M4302"
            assert time.monotonic() - began < 2

    def test_a_program_that_does_not_read_ends_the_sender_at_the_deadline(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "exec sleep 30")) as channel:
            began = time.monotonic()
            with pytest.raises(DeliveryError) as late:
                channel.send(b"x" * 30_000_000, deadline=began + 1)
            assert late.value.code == "M4302"
            assert time.monotonic() - began < 3

    def test_closing_ends_the_program_at_once(self, fleet: Fleet, web1: Sshd) -> None:
        channel = self.dial(fleet, web1.inventory(), "echo $$; exec cat")
        pid = int(channel.receive(100, deadline=soon()))
        began = time.monotonic()
        channel.close()
        assert time.monotonic() - began < 2
        deadline = soon(5)
        while runs(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not runs(pid)
        channel.close()

    def test_a_connection_that_is_cut_is_lost_and_not_the_end(self, fleet: Fleet, web1: Sshd) -> None:
        with closing(self.dial(fleet, web1.inventory(), "echo $PPID; exec cat")) as channel:
            os.kill(int(channel.receive(100, deadline=soon())), signal.SIGKILL)
            with pytest.raises(DeliveryError) as lost:
                channel.receive(1, deadline=soon(10))
            assert lost.value.code == "M4301"

    # --- whose host it is

    def test_an_unknown_host_key_is_refused_with_its_fingerprint_and_the_way_out(
        self, fleet: Fleet, web1: Sshd
    ) -> None:
        fleet.forget_all()
        refused = self.refused(fleet, web1.inventory())
        assert refused.code == "M4304"
        assert web1.host_key().fingerprint in " ".join(refused.notes)
        assert "mtlsctl hosts trust web1" in (refused.help or "")
        assert fleet.known_hosts.read_text() == ""

    def test_a_changed_host_key_is_refused_with_both_fingerprints(self, fleet: Fleet, web1: Sshd, gate: Sshd) -> None:
        fleet.known_hosts.write_text(f"[{web1.address}]:{web1.port} {gate.host_key().text}\n")
        refused = self.refused(fleet, web1.inventory())
        assert refused.code == "M4305"
        shown = " ".join(refused.notes)
        assert web1.host_key().fingerprint in shown
        assert gate.host_key().fingerprint in shown

    def test_a_revoked_host_key_is_refused(self, fleet: Fleet, web1: Sshd) -> None:
        with fleet.known_hosts.open("a") as file:
            file.write(f"@revoked * {web1.host_key().text}\n")
        assert self.refused(fleet, web1.inventory()).code == "M4305"

    def test_a_host_is_known_by_whichever_of_its_keys_is_in_the_file(self, fleet: Fleet) -> None:
        host = fleet.hosts.get("several") or fleet.start("several", kinds=("ed25519", "ecdsa", "rsa"))
        for kind in host.kinds:
            fleet.forget_all()
            fleet.know(host, kind)
            with closing(self.dial(fleet, host.inventory(), "echo in")) as channel:
                assert read_all(channel) == b"in\n", kind

    def test_a_host_may_be_known_by_an_alias(self, fleet: Fleet, web1: Sshd) -> None:
        fleet.known_hosts.write_text(f"the-web {web1.host_key().text}\n")
        assert self.refused(fleet, web1.inventory()).code == "M4304"
        fleet.configure(f"Host {web1.address}\n  HostKeyAlias the-web")
        with closing(self.dial(fleet, web1.inventory(), "echo in")) as channel:
            assert read_all(channel) == b"in\n"

    def test_the_operator_may_name_another_file_of_known_hosts(self, fleet: Fleet, web1: Sshd, tmp_path: Path) -> None:
        own = tmp_path / "known hosts"
        own.write_text(f"[{web1.address}]:{web1.port} {web1.host_key().text}\n")
        fleet.forget_all()
        with closing(self.dial(fleet, web1.inventory(), "echo in", known_hosts=own)) as channel:
            assert read_all(channel) == b"in\n"

    def test_a_certificate_of_a_known_ca_makes_a_host_known(self, fleet: Fleet, web1: Sshd) -> None:
        host = fleet.hosts.get("certified") or certified(fleet)
        fleet.known_hosts.write_text(f"@cert-authority * {public_key(fleet.folder / 'ca').text}\n")
        with closing(self.dial(fleet, host.inventory(), "echo in")) as channel:
            assert read_all(channel) == b"in\n"
        assert self.refused(fleet, web1.inventory()).code == "M4304"

    def test_a_certificate_for_another_name_makes_nobody_known(self, fleet: Fleet) -> None:
        host = fleet.hosts.get("misnamed") or certified(fleet, "misnamed", principals="elsewhere.example")
        fleet.known_hosts.write_text(f"@cert-authority * {public_key(fleet.folder / 'ca').text}\n")
        assert self.refused(fleet, host.inventory()).code in {"M4304", "M4305"}

    def test_a_certificate_that_is_over_makes_nobody_known(self, fleet: Fleet) -> None:
        host = fleet.hosts.get("expired") or certified(fleet, "expired", validity="20200101:20200102")
        fleet.known_hosts.write_text(f"@cert-authority * {public_key(fleet.folder / 'ca').text}\n")
        assert self.refused(fleet, host.inventory()).code in {"M4304", "M4305"}

    def test_a_certificate_of_a_revoked_ca_makes_nobody_known(self, fleet: Fleet) -> None:
        host = fleet.hosts.get("certified") or certified(fleet)
        authority = public_key(fleet.folder / "ca").text
        fleet.known_hosts.write_text(f"@cert-authority * {authority}\n@revoked * {authority}\n")
        assert self.refused(fleet, host.inventory()).code in {"M4304", "M4305"}

    # --- who we are

    def test_a_key_that_the_host_does_not_take_is_refused(self, fleet: Fleet, web1: Sshd, tmp_path: Path) -> None:
        make_key(tmp_path / "other")
        fleet.configure(f"IdentityFile {tmp_path}/other\nIdentitiesOnly yes", identity=False)
        refused = self.refused(fleet, web1.inventory())
        assert refused.code == "M4306"

    def test_a_user_that_the_host_does_not_have_is_refused(self, fleet: Fleet, web1: Sshd) -> None:
        assert self.refused(fleet, web1.inventory(user="nobody-at-all")).code == "M4306"

    def test_the_key_file_of_the_inventory_is_used(self, fleet: Fleet, web1: Sshd) -> None:
        fleet.configure(identity=False)
        assert self.refused(fleet, web1.inventory()).code == "M4306"
        with closing(self.dial(fleet, web1.inventory(identity_file=str(fleet.key)), "echo in")) as channel:
            assert read_all(channel) == b"in\n"

    def test_a_key_with_a_passphrase_is_not_asked_for_and_works_from_an_agent(
        self, fleet: Fleet, web1: Sshd, tmp_path: Path
    ) -> None:
        locked = tmp_path / "locked"
        public = make_key(locked, passphrase="a long passphrase")
        allowed = web1.path("/run/host/authorized_keys")
        before = allowed.read_text()
        allowed.write_text(f"{before}{public.text}\n")
        try:
            fleet.configure(f"IdentityFile {locked}\nIdentitiesOnly yes", identity=False)
            assert self.refused(fleet, web1.inventory()).code == "M4306"
            with SshAgent(tmp_path) as agent:
                agent.add(locked, "a long passphrase")
                text = f"IdentityFile {locked}\nIdentitiesOnly yes\nIdentityAgent {agent.path}"
                fleet.configure(text, identity=False)
                with closing(self.dial(fleet, web1.inventory(), "echo in")) as channel:
                    assert read_all(channel) == b"in\n"
        finally:
            allowed.write_text(before)

    def test_a_certificate_of_the_user_is_shown(self, fleet: Fleet, tmp_path: Path) -> None:
        authority = fleet.folder / "user-ca"
        host = fleet.hosts.get("by-certificate")
        if host is None:
            make_key(authority)
            host = fleet.start("by-certificate", more=f"TrustedUserCAKeys {authority}.pub")
        make_key(tmp_path / "mine")
        fleet.configure(f"IdentityFile {tmp_path}/mine\nIdentitiesOnly yes", identity=False)
        assert self.refused(fleet, host.inventory()).code == "M4306"
        sign(authority, tmp_path / "mine", "-n", "root")
        with closing(self.dial(fleet, host.inventory(), "echo in")) as channel:
            assert read_all(channel) == b"in\n"

    # --- the way there

    def test_a_port_where_nobody_listens_is_unreachable(self, fleet: Fleet) -> None:
        host = SshHost(name="web1", address="127.9.0.77", port=free_port("127.9.0.77"), user="root")
        assert self.refused(fleet, host).code == "M4303"

    def test_a_name_that_does_not_resolve_is_unreachable(self, fleet: Fleet) -> None:
        assert self.refused(fleet, SshHost(name="web1", address="no-such-host.invalid")).code == "M4303"

    def test_a_host_that_accepts_and_says_nothing_is_given_up(self, fleet: Fleet) -> None:
        with socket.create_server(("127.9.0.78", 0)) as silent:
            host = SshHost(name="web1", address="127.9.0.78", port=silent.getsockname()[1], user="root")
            began = time.monotonic()
            assert self.refused(fleet, host, connect_seconds=1, login_seconds=1).code == "M4302"
            assert time.monotonic() - began < 4

    def test_a_host_is_reached_through_a_jump_host(self, fleet: Fleet, web1: Sshd, gate: Sshd) -> None:
        fleet.configure(f"Host {gate.address}\n  User root")
        host = web1.inventory(jump=f"root@{gate.address}:{gate.port}")
        before = gate.logged("Accepted publickey")
        with closing(self.dial(fleet, host, "exec cat")) as channel:
            channel.send(b"through", deadline=soon())
            assert channel.receive(100, deadline=soon()) == b"through"
        assert gate.logged("Accepted publickey") == before + 1

    def test_a_jump_host_may_stand_in_the_configuration(self, fleet: Fleet, web1: Sshd, gate: Sshd) -> None:
        text = (
            f"Host gate\n HostName {gate.address}\n Port {gate.port}\n User root\nHost {web1.address}\n ProxyJump gate"
        )
        fleet.configure(text)
        with closing(self.dial(fleet, web1.inventory(), "echo in")) as channel:
            assert read_all(channel) == b"in\n"

    def test_a_jump_host_that_is_not_there_is_named(self, fleet: Fleet, web1: Sshd) -> None:
        jump = f"root@127.9.0.79:{free_port('127.9.0.79')}"
        refused = self.refused(fleet, web1.inventory(jump=jump))
        assert refused.code in {"M4311", "M4303"}
        assert "127.9.0.79" in refused.message + " ".join(refused.notes)

    def test_a_proxy_command_of_the_users_configuration_carries_the_connection(
        self, fleet: Fleet, web1: Sshd, tmp_path: Path
    ) -> None:
        relay = f"{sys.executable} {PROGRAMS}/relay.py {tmp_path}/asked %h %p %r"
        fleet.configure(f"Host {web1.address}\n  ProxyCommand {relay}")
        with closing(self.dial(fleet, web1.inventory(), "echo in")) as channel:
            assert read_all(channel) == b"in\n"
        assert (tmp_path / "asked").read_text() == f"{web1.address} {web1.port} root\n"

    def test_a_proxy_command_that_fails_is_an_error(self, fleet: Fleet, web1: Sshd) -> None:
        fleet.configure(f"Host {web1.address}\n  ProxyCommand sh -c 'echo no way >&2; exit 3'")
        refused = self.refused(fleet, web1.inventory())
        assert refused.code == "M4301"
        assert "no way" in " ".join(refused.notes)

    def test_what_the_inventory_says_wins_over_the_configuration(self, fleet: Fleet, web1: Sshd) -> None:
        fleet.configure(f"Host {web1.address}\n  User {DEPLOYER}\n  Port 9")
        with closing(self.dial(fleet, web1.inventory(), "id -un")) as channel:
            assert read_all(channel) == b"root\n"
        with closing(self.dial(fleet, web1.inventory(user=None), "id -un")) as channel:
            assert read_all(channel) == f"{DEPLOYER}\n".encode()

    @pytest.mark.parametrize(
        "changes",
        [
            {"address": "-oProxyCommand=touch"},
            {"address": "host;id"},
            {"address": "$(id)"},
            {"user": "-l"},
            {"user": "root;id"},
            {"identity_file": "-oProxyCommand=x"},
            {"identity_file": "relative"},
            {"jump": "-oProxyCommand=x"},
            {"jump": "a@-x"},
            {"jump": "host,other"},
            {"jump": "none;id"},
        ],
    )
    def test_no_value_becomes_an_option_or_a_command(
        self, fleet: Fleet, web1: Sshd, changes: dict[str, str], tmp_path: Path
    ) -> None:
        fleet.configure(f"Host *\n  ProxyCommand sh -c 'touch {tmp_path}/ran; exit 1'")
        values = {"name": "web1", "address": web1.address, "port": web1.port, **changes}
        refused = self.refused(fleet, SshHost(**values))  # type: ignore[arg-type]
        assert refused.code == "M4314"
        assert not (tmp_path / "ran").exists()

    def test_errors_show_no_control_characters(self, fleet: Fleet, web1: Sshd) -> None:
        fleet.configure(f"Host {web1.address}\n  ProxyCommand printf '\\033]0;owned\\007\\033[2Jhello\\n' >&2")
        refused = self.refused(fleet, web1.inventory())
        text = "\n".join([refused.message, *refused.notes, refused.help or ""])
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) is None, text
