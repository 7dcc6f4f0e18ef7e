"""Hosts that mean harm: each ends within its deadline and two seconds, in bounded memory, with a code of ours."""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from mtlsctl.deliver import ssh
from mtlsctl.errors import DeliveryError
from tests.integration import hostile
from tests.integration.fleet import Fleet
from tests.integration.hostile import Harm, Hostile, know, ssh_server

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from mtlsctl.deliver.channel import Channel
    from mtlsctl.model.topology import SshHost

pytestmark = [pytest.mark.peer("ssh-keygen"), pytest.mark.usefixtures("loopback")]

DIAL_SECONDS = 2.0
GRACE = 2.0
LIMIT_MIB = 64


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [one.name for one in left if not one.daemon] == []


def resident_mib() -> float:
    fields = Path("/proc/self/status").read_text()
    found = re.search(r"VmRSS:\s+([0-9]+)", fields)
    return int(found[1]) / 1024 if found else 0


def dial(fleet: Fleet, host: SshHost) -> Channel:
    options = fleet.options(connect_seconds=DIAL_SECONDS / 2, login_seconds=DIAL_SECONDS / 2)
    return ssh.dial(host, "exec cat", options=options)


def refused(fleet: Fleet, host: SshHost) -> DeliveryError:
    began, before = time.monotonic(), resident_mib()
    with pytest.raises(DeliveryError) as refused:
        dial(fleet, host)
    assert time.monotonic() - began < DIAL_SECONDS + GRACE
    assert resident_mib() - before < LIMIT_MIB
    error = refused.value
    shown = "\n".join([error.message, *error.notes, error.help or ""])
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown) is None, shown
    assert len(shown) < 5000
    return error


# --- before it is SSH -----------------------------------------------------------------------------------------------


def say(*pieces: bytes, pause: float = 0, forever: bool = False, close: bool = False) -> Hostile:
    def behave(connection: socket.socket, over: threading.Event) -> None:
        while True:
            for piece in pieces:
                connection.sendall(piece)
                if pause:
                    over.wait(pause)
            if not forever or over.is_set():
                break
        if not close:
            over.wait(hostile.STALL_SECONDS)

    return Hostile(behave)


GREETING = b"SSH-2.0-host\r\n"
HUGE = b"\xff\xff\xff\xf4"

RAW: dict[str, tuple[Callable[[], Hostile], set[str]]] = {
    "it says nothing": (lambda: say(b""), {"M4302"}),
    "it closes at once": (lambda: say(close=True), {"M4301"}),
    "its greeting has no end of line": (lambda: say(b"x" * 1000, forever=True), {"M4309"}),
    "its greeting has no end": (lambda: say(b"hello\r\n", forever=True), {"M4309"}),
    "its greeting comes byte by byte": (lambda: say(b"S", pause=0.05, forever=True), {"M4302"}),
    "its greeting lines come one by one": (lambda: say(b"hello\r\n", pause=0.05, forever=True), {"M4302", "M4309"}),
    "it speaks HTTP": (lambda: say(b"HTTP/1.1 400 Bad Request\r\n\r\n", close=True), {"M4301", "M4309"}),
    "it speaks SSH 1": (lambda: say(b"SSH-1.5-host\r\n"), {"M4309"}),
    "its greeting commands the terminal": (lambda: say(b"\x1b]0;x\x07\x1b[2J\x9b\r\n" * 200), {"M4309"}),
    "its version commands the terminal": (lambda: say(b"SSH-\x1b[2J-\xff\xfe\r\n"), {"M4309"}),
    "it greets and stops": (lambda: say(GREETING), {"M4302"}),
    "it greets and closes": (lambda: say(GREETING, close=True), {"M4301"}),
    "garbage comes instead of keys": (lambda: say(GREETING, b"\0\0\1\0" + os.urandom(5000)), {"M4309", "M4302"}),
    "a packet of four GiB is announced": (lambda: say(GREETING + HUGE, b"\0" * 65536, forever=True), {"M4309"}),
    "a packet of negative length is announced": (lambda: say(GREETING, struct.pack(">I", 0) * 4), {"M4309", "M4302"}),
    "a packet comes byte by byte": (lambda: say(GREETING, *[b"\0"] * 500, pause=0.05), {"M4302", "M4309"}),
    "zeros come without end": (lambda: say(GREETING, b"\0" * 65536, forever=True), {"M4309", "M4302"}),
}  # fmt: skip


@pytest.mark.parametrize("what", RAW)
def test_a_host_that_does_not_speak_ssh_is_left(fleet: Fleet, what: str) -> None:
    server, codes = RAW[what]
    with server() as host:
        assert refused(fleet, host.host).code in codes


# --- an SSH server ---------------------------------------------------------------------------------------------------

AT_DIAL: dict[type[Harm], str] = {
    hostile.StallsAtLogin: "M4302",
    hostile.IgnoresAtLogin: "M4302",
    hostile.CountsExtensions: "M4309",
    hostile.RefusesWithEscapes: "M4306",
    hostile.StallsAtOpen: "M4302",
    hostile.RefusesChannels: "M4306",
    hostile.StallsAtExec: "M4302",
    hostile.RefusesExec: "M4306",
}


@pytest.mark.parametrize("harm", AT_DIAL)
def test_a_host_that_obstructs_the_login_is_left(fleet: Fleet, key: paramiko.PKey, harm: type[Harm]) -> None:
    with ssh_server(harm(), key) as host:
        know(fleet, host, key)
        assert refused(fleet, host.host).code == AT_DIAL[harm]


def test_nothing_is_said_to_a_host_of_another_key(fleet: Fleet, key: paramiko.PKey) -> None:
    asked: list[str] = []

    class Listens(Harm):
        def at_login(self, server: hostile.Kind) -> None:
            asked.append("login")

    with ssh_server(Listens(), key) as host:
        know(fleet, host, paramiko.ECDSAKey.generate())
        assert refused(fleet, host.host).code == "M4305"
        fleet.known_hosts.write_text("")
        assert refused(fleet, host.host).code == "M4304"
    assert asked == []


@pytest.fixture
def dialled(fleet: Fleet, key: paramiko.PKey) -> Iterator[Callable[[Harm], Channel]]:
    hosts: list[Hostile] = []
    channels: list[Channel] = []

    def dialled(harm: Harm) -> Channel:
        hosts.append(ssh_server(harm, key).__enter__())
        know(fleet, hosts[-1], key)
        channels.append(dial(fleet, hosts[-1].host))
        return channels[-1]

    yield dialled
    for channel in channels:
        began = time.monotonic()
        channel.close()
        assert time.monotonic() - began < GRACE
    for host in hosts:
        host.__exit__()


def code_of(ask: Callable[[float], object], seconds: float = 1.0) -> str:
    began, before = time.monotonic(), resident_mib()
    with pytest.raises(DeliveryError) as raised:
        ask(began + seconds)
    assert time.monotonic() - began < seconds + GRACE
    assert resident_mib() - before < LIMIT_MIB
    return raised.value.code


def read_on(channel: Channel, deadline: float) -> None:
    while channel.receive(65536, deadline=deadline):
        pass


def test_a_program_that_says_nothing_ends_at_the_deadline(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.SaysNothing())
    assert code_of(lambda deadline: channel.receive(1, deadline=deadline)) == "M4302"


def test_a_flood_that_nobody_reads_takes_no_memory(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.Floods())
    before = resident_mib()
    time.sleep(1)
    assert resident_mib() - before < LIMIT_MIB
    assert code_of(lambda deadline: read_on(channel, deadline)) == "M4302"


def test_a_flood_of_complaints_is_given_up(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.ComplainsWithoutEnd())
    assert code_of(lambda deadline: channel.receive(1, deadline=deadline), 2) in {"M4302", "M4310"}
    assert len(channel.complaints()) <= 8192


def test_a_flood_on_both_streams_is_read_and_ends_at_the_deadline(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.FloodsBoth())
    assert channel.receive(65536, deadline=time.monotonic() + 2).startswith(b"o")
    assert code_of(lambda deadline: read_on(channel, deadline), 2) in {"M4302", "M4310"}


def test_a_flood_while_we_send_is_bounded(dialled: Callable[[Harm], Channel]) -> None:
    channel, data = dialled(hostile.FloodsBoth()), bytes(2**23)
    assert code_of(lambda deadline: channel.send(data, deadline=deadline), 2) in {"M4302", "M4310"}


def test_a_host_that_sends_more_than_the_window_is_cut_off(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.FloodsOverTheWindow())
    before = resident_mib()
    time.sleep(1)
    assert resident_mib() - before < LIMIT_MIB
    assert code_of(lambda deadline: read_on(channel, deadline), 5) == "M4301"


def test_a_channel_that_is_closed_midway_is_the_end_of_the_program(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.ClosesMidway())
    deadline = time.monotonic() + 5
    assert channel.receive(100, deadline=deadline) == b"half"
    assert channel.receive(100, deadline=deadline) == b""


def test_a_connection_that_is_cut_midway_is_lost(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.CutsMidway())
    assert channel.receive(100, deadline=time.monotonic() + 5) == b"half"
    assert code_of(lambda deadline: channel.receive(100, deadline=deadline), 5) == "M4301"


def test_a_host_that_takes_nothing_ends_the_sender_at_the_deadline(dialled: Callable[[Harm], Channel]) -> None:
    channel = dialled(hostile.NoWindow())
    assert code_of(lambda deadline: channel.send(b"x", deadline=deadline)) == "M4302"


def test_closing_works_while_the_host_stalls(fleet: Fleet, dialled: Callable[[Harm], Channel]) -> None:
    with closing(dialled(hostile.Floods())):
        time.sleep(0.3)
