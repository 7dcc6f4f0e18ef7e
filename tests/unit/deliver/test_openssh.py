"""What `ssh` is started with, and how what it says is understood."""

from __future__ import annotations

import shlex
import stat
import time
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver import openssh
from mtlsctl.deliver.reach import SshOptions
from mtlsctl.errors import DeliveryError
from mtlsctl.model.topology import SshHost

if TYPE_CHECKING:
    from pathlib import Path

HOST = SshHost(name="web1", address="web1.example.net")


def options(tmp_path: Path, **environ: str) -> SshOptions:
    (tmp_path / "config").write_text("ConnectTimeout 3\n")
    return SshOptions(
        config=tmp_path / "config", login_seconds=1, connect_seconds=1, environ={"HOME": str(tmp_path), **environ}
    )


def test_nobody_is_asked_nothing_is_accepted_nothing_is_forwarded(tmp_path: Path) -> None:
    argv = openssh.arguments(HOST, options(tmp_path))
    for one in ("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ForwardAgent=no"):
        assert argv[argv.index(one) - 1] == "-o"
    assert argv[:3] == ["-T", "-F", str(tmp_path / "config")]


def test_what_the_inventory_says_is_an_argument_of_its_own(tmp_path: Path) -> None:
    host = SshHost(name="w", address="w", port=2222, user="deploy", identity_file="~/.ssh/k", jump="me@gate:22")
    argv = openssh.arguments(host, options(tmp_path))
    assert argv[-9:-1] == ["2222", "-l", "deploy", "-i", "~/.ssh/k", "-o", "IdentitiesOnly=yes", "-o"]
    assert argv[-1].startswith("ProxyCommand=")


def test_a_jump_host_is_reached_with_what_must_not_be_otherwise_too(tmp_path: Path) -> None:
    host = SshHost(name="w", address="w", jump="me@gate:2222")
    given = SshOptions(known_hosts=tmp_path / "a %c", environ={"HOME": str(tmp_path)})
    words = shlex.split(openssh.arguments(host, given)[-1].removeprefix("ProxyCommand="))
    for one in openssh.FIXED:
        assert words[words.index(one) - 1] == "-o"
    assert f'UserKnownHostsFile="{tmp_path}/a %%%%c"' in words
    assert words[-8:] == ["-l", "me", "-p", "2222", "-W", "[%h]:%p", "--", "gate"]


def test_what_it_does_not_say_is_left_to_the_users_configuration(tmp_path: Path) -> None:
    argv = openssh.arguments(HOST, options(tmp_path))
    assert not {"-p", "-l", "-i", "-J"} & set(argv)


def test_a_file_of_known_hosts_may_have_spaces_and_percent_signs(tmp_path: Path) -> None:
    given = SshOptions(known_hosts=tmp_path / 'a "b" %c', environ={"HOME": str(tmp_path)})
    argv = openssh.arguments(HOST, given)
    assert f'UserKnownHostsFile="{tmp_path}/a \\"b\\" %%c"' in argv


SAID = {
    "ssh: connect to host web1 port 22: Connection refused": "M4303",
    "ssh: Could not resolve hostname web1: Name or service not known": "M4303",
    "ssh: connect to host web1 port 22: Connection timed out": "M4303",
    "ssh: connect to host web1 port 22: No route to host": "M4303",
    "root@web1: Permission denied (publickey).": "M4306",
    "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures": "M4306",
    "No ED25519 host key is known for web1 and you have requested strict checking.\nHost key verification failed.":
        "M4304",
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.": "M4305",
    "Connection timed out during banner exchange": "M4302",
    "Unable to negotiate with 192.0.2.1 port 22: no matching key exchange method found.": "M4309",
    "kex_exchange_identification: Connection closed by remote host": "M4301",
    "Bad owner or permissions on /home/me/.ssh/config": "M4314",
    "something that nobody has seen": "M4301",
}  # fmt: skip


@pytest.fixture
def ssh_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called `ssh`; its text is the test's to write."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def write(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("said", SAID)
def test_what_ssh_says_becomes_a_code_of_ours(ssh_that: Path, tmp_path: Path, said: str) -> None:
    (tmp_path / "said").write_text(said + "\n")
    write(ssh_that, f"cat {tmp_path}/said >&2; exit 255")
    host = SshHost(name="web1", address="127.9.0.99", port=9)
    with pytest.raises(DeliveryError) as refused:
        openssh.dial(host, "exec cat", options=options(tmp_path))
    assert refused.value.code == SAID[said]


def test_an_ssh_that_hangs_is_ended_with_all_that_it_started(ssh_that: Path, tmp_path: Path) -> None:
    write(ssh_that, f"sleep 30 & echo $! >{tmp_path}/pid; wait")
    began = time.monotonic()
    with pytest.raises(DeliveryError) as refused:
        openssh.dial(HOST, "exec cat", options=options(tmp_path))
    assert refused.value.code == "M4302"
    assert time.monotonic() - began < 5
    state = tmp_path.joinpath("pid").read_text().strip()
    deadline = time.monotonic() + 5
    while _runs(state) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(state)


def _runs(pid: str) -> bool:
    from pathlib import Path  # noqa: PLC0415

    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ssh_gets_none_of_our_secrets(ssh_that: Path, tmp_path: Path) -> None:
    write(ssh_that, f"env >{tmp_path}/env; exit 255")
    with pytest.raises(DeliveryError):
        openssh.dial(HOST, "exec cat", options=options(tmp_path, MTLSCTL_SECRET_STORE="secret"))
    assert "MTLSCTL" not in (tmp_path / "env").read_text()


def test_a_login_shell_that_talks_without_end_is_left(ssh_that: Path, tmp_path: Path) -> None:
    write(ssh_that, "exec yes")
    with pytest.raises(DeliveryError) as refused:
        openssh.dial(HOST, "exec cat", options=options(tmp_path))
    assert refused.value.code == "M4309"


def test_without_ssh_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "find_program", lambda _: None)
    with pytest.raises(DeliveryError) as refused:
        openssh.dial(HOST, "exec cat", options=options(tmp_path))
    assert refused.value.code == "M4308"
