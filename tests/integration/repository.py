"""Estates on directory hosts: the inventory as plain values, the command line in this process or in its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mtlsctl.cli.app import run
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]

Inventory = dict[str, Any]


def calendar(**changes: Any) -> Inventory:
    """Four services on two hosts in four runtimes; JSON is YAML, so it can be edited as values."""
    return {
        "version": 1,
        "name": "calendar",
        "hosts": {"web1": {"directory": "out/web1"}, "web2": {"directory": "out/web2"}},
        "services": {
            "schedule": {"runtime": "nginx", "hosts": ["web1"], "listen": 18443, "callers": ["mail", "social"]},
            "mail": {"runtime": "curl", "hosts": ["web1"]},
            "social": {"runtime": "node", "hosts": ["web2"]},
            "report": {"runtime": "pem", "hosts": ["web2"], "listen": 19443, "callers": ["social"]},
        },
        **changes,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass(frozen=True, slots=True, kw_only=True)
class Estate:
    """A project's folder. Its encryption key lies beside it; `temp` is where its commands put what is temporary."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def key_file(self) -> Path:
        return self.folder.with_name(self.folder.name + "-key") / "key"

    @property
    def temp(self) -> Path:
        return self.folder.with_name(self.folder.name + "-temp")

    @property
    def inventory(self) -> Path:
        return self.folder / "inventories" / "calendar" / "inventory.yaml"

    @property
    def state(self) -> Path:
        return self.folder / ".mtlsctl" / "state.db"

    def write(self, inventory: Inventory) -> None:
        self.inventory.write_text(json.dumps(inventory, indent=1))

    def run(self, *arguments: str, **environ: str) -> Ran:
        """In this process: fast, and everything that it wrote to its streams."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self._environ(environ)),
            mock.patch("tempfile.tempdir", str(self.temp)),
            mock.patch("mtlsctl.failpoints._reached", {}),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(list(arguments))
        return Ran(code=code, out=out.getvalue(), err=err.getvalue())

    def good(self, *arguments: str, **environ: str) -> Ran:
        ran = self.run(*arguments, **environ)
        assert ran.code == 0, (arguments, ran)
        return ran

    def command(self, *arguments: str, before: str = "", **environ: str) -> Ran:
        """In a process of its own, which may be killed; `before` is Python that runs first in it."""
        done = subprocess.run(
            _argv(before, arguments),
            cwd=self.folder,
            env={**os.environ, **self._environ(environ), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=ENDED_SECONDS,
        )
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)

    def start(self, *arguments: str, before: str = "", **environ: str) -> subprocess.Popen[str]:
        """Like `command`, without waiting for its end."""
        return subprocess.Popen(
            _argv(before, arguments),
            cwd=self.folder,
            env={**os.environ, **self._environ(environ), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _environ(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "MTLSCTL_KEY_SOURCE": f"file:{self.key_file}",
            "TMPDIR": str(self.temp),
            "COLUMNS": "120",
            **self.environ,
            **more,
        }

    def prove(self) -> None:
        """Nothing is left to do, the state is sound, and real handshakes say what the inventory says."""
        plan = self.run("plan", "--detailed-exitcode")
        assert plan.code == 0, plan
        assert plan.out.startswith("Nothing to change."), plan
        self.good("state", "check")
        verified = self.run("verify", "--embedded")
        assert verified.code == 0, verified
        assert "0 contradictions, 0 inconclusive, 0 not probed" in verified.out

    def converge(self) -> Ran:
        """One apply, after which everything is proven."""
        applied = self.good("apply", "--yes")
        self.prove()
        return applied


def _argv(before: str, arguments: tuple[str, ...]) -> list[str]:
    start = f"import sys\n{before}\nfrom mtlsctl.cli.main import main\nsys.argv[0] = 'mtlsctl'\nmain()\n"
    return [sys.executable, "-c", start, *arguments]


def make_estate(folder: Path, inventory: Inventory | None = None) -> Estate:
    """A new project with a key of its own; nothing is applied."""
    estate = Estate(folder=folder)
    (folder / ".git").mkdir(parents=True)
    estate.temp.mkdir()
    estate.good("init", "--name", "calendar", "--example", "empty", "--no-input")
    estate.write(calendar() if inventory is None else inventory)
    return estate


class Kept:
    """A copy of an estate to go back to: same place, same content, as often as wanted.

    The place is the same because the state knows directory hosts by absolute path.
    """

    def __init__(self, estate: Estate, copy: Path) -> None:
        self._estate, self._copy = estate, copy
        shutil.copytree(estate.folder, copy, symlinks=True)

    def back(self) -> Estate:
        for folder in (self._estate.folder, self._estate.temp):
            shutil.rmtree(folder)
        shutil.copytree(self._copy, self._estate.folder, symlinks=True)
        self._estate.temp.mkdir()
        return self._estate


# --- what lies on the hosts -----------------------------------------------------------------------------------------

_INCLUDE = re.compile(r'^include "?(?P<path>[^";]+/releases/[^";]+)"?;$', re.MULTILINE)
_NAMED = re.compile(r'"?(?P<path>/[^";\s]+/releases/[0-9a-f]{16}/[^";\s]+)"?')
Places = dict[str, Path]


def hosts_of(estate: Estate) -> Places:
    return {path.name: path for path in sorted((estate.folder / "out").iterdir())} if has_hosts(estate) else {}


def has_hosts(estate: Estate) -> bool:
    return (estate.folder / "out").is_dir()


def releases_named(estate: Estate) -> Iterator[Path]:
    """Every release folder that a pointer on a host names."""
    for host in hosts_of(estate).values():
        pointer = host / "etc/nginx/conf.d/mtlsctl.conf"
        if pointer.exists():
            yield from (Path(found["path"]).parent for found in _INCLUDE.finditer(pointer.read_text()))
        for current in sorted(host.glob("etc/mtlsctl/*/current")):
            yield current.parent / current.readlink()


def assert_whole(release: Path) -> x509.Certificate:
    """The release has all its files, none of them empty or torn, and its key is that of its certificate."""
    assert release.is_dir(), f"{release} is named and not there"
    assert re.fullmatch(r"[0-9a-f]{16}", release.name)
    leaf = x509.load_pem_x509_certificates((release / "tls.crt").read_bytes())[0]
    key = serialization.load_pem_private_key((release / "tls.key").read_bytes(), None)
    assert leaf.public_key() == key.public_key(), f"{release}: key and chain differ"
    assert (release / "tls.key").stat().st_mode & 0o777 == 0o600
    for path in (one for one in release.rglob("*") if one.is_file()):
        assert path.read_bytes().endswith(b"\n"), f"{path} is torn"
        if path.suffix in {".pem", ".crt"}:
            assert x509.load_pem_x509_certificates(path.read_bytes())
        if path.suffix in {".conf", ".curlrc"}:
            named = [Path(found["path"]) for found in _NAMED.finditer(path.read_text())]
            assert [one for one in named if not one.exists()] == [], f"{path} names what is not there"
    return leaf


def certificates_on_hosts(estate: Estate) -> Iterator[x509.Certificate]:
    """Every certificate in any file below the hosts, unfinished releases included."""
    for host in hosts_of(estate).values():
        for path in host.rglob("*"):
            if path.suffix in {".pem", ".crt"} and path.is_file() and path.stat().st_size:
                yield from x509.load_pem_x509_certificates(path.read_bytes())
