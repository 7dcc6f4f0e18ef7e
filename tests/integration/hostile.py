"""Hosts that mean harm: sockets that say what they like, and an SSH server that is kind until it has let us in."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_IGNORE,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
    cMSG_EXT_INFO,
)
from paramiko.message import Message

from mtlsctl.deliver.known_hosts import HostKey
from mtlsctl.model.topology import SshHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.fleet import Fleet

ADDRESS = "127.9.250.1"
STALL_SECONDS = 30


class Hostile:
    """Listens, and lets `behave` loose on each connection, in a thread."""

    def __init__(self, behave: Callable[[socket.socket, threading.Event], None]) -> None:
        self._behave = behave
        self._over = threading.Event()
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server((ADDRESS, 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(Exception):
            self._behave(connection, self._over)
        with suppress(OSError):
            connection.close()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in (self._listener, *self._connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(5)

    @property
    def host(self) -> SshHost:
        return SshHost(name="web1", address=ADDRESS, port=self._listener.getsockname()[1], user="root")


class Kind(paramiko.ServerInterface):
    """Lets everybody in and starts everything; `harm` changes one of its methods."""

    def __init__(self, harm: Harm, over: threading.Event) -> None:
        self.harm, self.over = harm, over
        self.transport: paramiko.Transport | None = None

    def stall(self) -> None:
        self.over.wait(STALL_SECONDS)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.harm.at_login(self)
        return AUTH_FAILED if self.harm.refuses else AUTH_SUCCESSFUL

    def get_banner(self) -> tuple[str | None, str | None]:
        return (self.harm.banner, "en") if self.harm.banner else (None, None)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return self.harm.at_open(self)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        starts = self.harm.at_exec(self, channel)
        if starts:
            threading.Thread(target=self._run, args=(channel,), daemon=True).start()
        return starts

    def _run(self, channel: paramiko.Channel) -> None:
        with suppress(Exception):
            # The mark that the wire by `ssh` asks for is not said: these hosts are paramiko's affair.
            time.sleep(0.05)
            self.harm.program(self, channel)


class Harm:
    """What a hostile host does at each step; nothing, unless a subclass says so."""

    refuses = False
    banner: str | None = None
    window: int | None = None

    def at_login(self, server: Kind) -> None: ...

    def at_open(self, server: Kind) -> int:
        return OPEN_SUCCEEDED

    def at_exec(self, server: Kind, channel: paramiko.Channel) -> bool:
        return True

    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        server.stall()


class StallsAtLogin(Harm):
    def at_login(self, server: Kind) -> None:
        server.stall()


class IgnoresAtLogin(Harm):
    """Sends packets that mean nothing, without end."""

    def at_login(self, server: Kind) -> None:
        assert server.transport is not None
        while not server.over.is_set():
            message = Message()
            message.add_byte(bytes([MSG_IGNORE]))
            message.add_string(b"x" * 1000)
            server.transport._send_message(message)  # type: ignore[attr-defined]


class CountsExtensions(Harm):
    """Says that four thousand million extensions follow."""

    def at_login(self, server: Kind) -> None:
        assert server.transport is not None
        message = Message()
        message.add_byte(cMSG_EXT_INFO)
        message.add_int(0xFFFFFFFF)
        server.transport._send_message(message)  # type: ignore[attr-defined]
        server.stall()


class RefusesWithEscapes(Harm):
    refuses = True
    banner = "\x1b]0;owned\x07\x1b[2J\x9b31mgo away\x00\r\n" * 50


class StallsAtOpen(Harm):
    def at_open(self, server: Kind) -> int:
        server.stall()
        return OPEN_SUCCEEDED


class RefusesChannels(Harm):
    def at_open(self, server: Kind) -> int:
        return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class StallsAtExec(Harm):
    def at_exec(self, server: Kind, channel: paramiko.Channel) -> bool:
        server.stall()
        return True


class RefusesExec(Harm):
    def at_exec(self, server: Kind, channel: paramiko.Channel) -> bool:
        return False


class SaysNothing(Harm):
    pass


class Floods(Harm):
    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        while not server.over.is_set():
            channel.sendall(b"\0" * 32768)


class ComplainsWithoutEnd(Harm):
    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        while not server.over.is_set():
            channel.sendall_stderr(b"\x1b[31m!" * 5000)


class FloodsBoth(Harm):
    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        while not server.over.is_set():
            channel.sendall_stderr(b"e" * 32768)
            channel.sendall(b"o" * 32768)


class FloodsOverTheWindow(Harm):
    """Does not care for how much was asked."""

    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        channel.out_window_size = 2**50
        while not server.over.is_set():
            channel.sendall(b"\0" * 32768)


class ClosesMidway(Harm):
    """Ends the program's channel without saying how it ended."""

    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        channel.sendall(b"half")
        channel.close()
        server.stall()


class CutsMidway(Harm):
    def program(self, server: Kind, channel: paramiko.Channel) -> None:
        channel.sendall(b"half")
        time.sleep(0.2)
        assert server.transport is not None
        server.transport.close()


class NoWindow(Harm):
    """Never takes a byte."""

    window = 0


def ssh_server(harm: Harm, key: paramiko.PKey) -> Hostile:
    def behave(connection: socket.socket, over: threading.Event) -> None:
        server = Kind(harm, over)
        transport = server.transport = paramiko.Transport(connection)
        if harm.window is not None:
            transport.default_window_size = harm.window
        transport.add_server_key(key)
        try:
            transport.start_server(server=server)
            over.wait(STALL_SECONDS)
        finally:
            transport.close()

    return Hostile(behave)


def know(fleet: Fleet, hostile: Hostile, key: paramiko.PKey) -> None:
    """Write its key into the known hosts: a host that was good when it was trusted."""
    host_key = HostKey(key.get_name(), key.asbytes())
    fleet.known_hosts.write_text(f"[{ADDRESS}]:{hostile.host.port} {host_key.text}\n")
