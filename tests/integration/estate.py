"""An estate in a folder of its own: an inventory, the command line as its users run it, loopback addresses, ports."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from mtlsctl.operations.project import find_project
from mtlsctl.operations.workspace import Workspace
from mtlsctl.render.catalog import load_catalog
from tests.support import ports
from tests.support.patience import ANSWERED_SECONDS, ENDED_SECONDS, HAPPENED_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

ESTATE = "calendar"
LOOPBACK = "127.0.0.1"

_PATIENTLY = f"""
import sys
from mtlsctl.cli.main import main
from mtlsctl.deliver.local import LocalTransport
from mtlsctl.operations import interrupted, publication, verify
publication.SETTLE_SECONDS = interrupted.SETTLE_SECONDS = {HAPPENED_SECONDS}
defaults = LocalTransport.__init__.__kwdefaults__
defaults |= dict.fromkeys(("check_deadline_seconds", "reload_deadline_seconds"), {HAPPENED_SECONDS})
verify.verify.__kwdefaults__["timeout_seconds"] = {ANSWERED_SECONDS}
sys.argv[0] = "mtlsctl"
main()
"""
"""These commands as users start them, but that they give up a program later: what is slow may be the machine."""

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
        # Loopback is a whole /8 where these tests run: ports of two estates, or two runs, never meet.
        self._network = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(255)}"
        self.run("init", self.root, "--name", ESTATE, "--example", "empty", "--no-input", cwd=folder)

    def address(self, number: int) -> str:
        return f"{self._network}.{number}"

    @staticmethod
    def free_port(address: str) -> int:
        """A port that nobody has at this address."""
        return ports.free_port(address)

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
        start = ["-c", _PATIENTLY] if arguments[0] in ("apply", "verify") else ["-m", "mtlsctl.cli"]
        command = [sys.executable, *start, *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=cwd or self.root,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ENDED_SECONDS,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def apply(self, inventory: Inventory) -> Ran:
        """Make the inventory so; it has to go well."""
        self.declare(inventory)
        ran = self.run("apply", "--yes")
        assert ran.code == 0, f"{ran.out}\n{ran.err}"
        return ran


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
