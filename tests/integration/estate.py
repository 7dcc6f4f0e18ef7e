"""An estate in a folder of its own: an inventory, the command line as its users run it, loopback addresses, ports."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from mtlsctl.operations.project import find_project
from mtlsctl.operations.workspace import Workspace
from mtlsctl.render.catalog import load_catalog

if TYPE_CHECKING:
    from pathlib import Path

ESTATE = "calendar"
LOOPBACK = "127.0.0.1"
_BELOW_EPHEMERAL = range(15_000, 30_000)

Inventory = dict[str, Any]


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Estate:
    """A project below `folder`; hosts are folders below `out/`, at addresses that no other estate uses."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        home = folder / "home"
        home.mkdir(parents=True)
        self.environ = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        self._given: set[int] = set()
        # Loopback is a whole /8 where these tests run: ports of two estates, or two runs, never meet.
        self._network = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(255)}"
        self.run("init", self.root, "--name", ESTATE, "--example", "empty", "--no-input", cwd=folder)

    def address(self, number: int) -> str:
        return f"{self._network}.{number}"

    def free_port(self, address: str) -> int:
        """A port that nobody has at this address, and that was not given before."""
        while (port := _free_port(address)) in self._given:
            pass
        self._given.add(port)
        return port

    def host(self, name: str) -> Path:
        return self.root / "out" / name

    def folder(self, host: str, service: str) -> Path:
        """`/etc/mtlsctl/<service>` of a host."""
        return self.host(host) / "etc/mtlsctl" / service

    def current(self, host: str, service: str) -> Path:
        """The symlink `current` of a process that has one."""
        return self.folder(host, service) / "current"

    def declare(self, inventory: Inventory) -> None:
        """Make this the inventory; YAML holds JSON."""
        (self.root / "inventories" / ESTATE / "inventory.yaml").write_text(json.dumps(inventory, indent=1) + "\n")

    def run(self, *arguments: object, cwd: Path | None = None) -> Ran:
        command = [sys.executable, "-m", "mtlsctl.cli", *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=cwd or self.root,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def apply(self, inventory: Inventory) -> Ran:
        """Make the inventory so; it has to go well."""
        self.declare(inventory)
        ran = self.run("apply", "--yes")
        assert ran.code == 0, f"{ran.out}\n{ran.err}"
        return ran


def _free_port(address: str) -> int:
    if address == LOOPBACK:
        return _free_low_port()
    with closing(socket.create_server((address, 0))) as listening:
        return int(listening.getsockname()[1])


def _free_low_port() -> int:
    """Every caller of this machine calls from 127.0.0.1 and may take any port there, so not one of those."""
    while True:
        port = secrets.choice(_BELOW_EPHEMERAL)
        try:
            socket.create_server((LOOPBACK, port)).close()
        except OSError:
            continue
        return port


def internal(service: str) -> str:
    """The name of a service that declares none."""
    return f"{service}.{ESTATE}.internal"


def bundle(service: str, listener: str) -> str:
    """How a callee is called in the files of its callers."""
    return service if listener == "main" else f"{service}.{listener}"


def workspace_of(estate: Estate) -> Workspace:
    """The estate as the use cases take it, for what the command line does not offer."""
    project = find_project(estate.root)
    assert project.inventory is not None
    return Workspace(
        project=project,
        inventory_path=project.inventory,
        state_url=project.state,
        catalog=load_catalog(),
        environ=estate.environ,
        clock=lambda: datetime.now(UTC),
    )
