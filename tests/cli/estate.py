"""A repository of inventories in a folder, and the command line in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from mtlsctl.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

INVENTORY = """\
version: 1
name: calendar
hosts:
  here: { directory: out }
services:
  schedule: { runtime: nginx, hosts: [here], listen: 18443, callers: [mail] }
  mail: { runtime: curl, hosts: [here] }
  other: { runtime: pem, hosts: [here] }
"""


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Estate:
    """Commands run in its folder."""

    def __init__(self, folder: Path, capture: Callable[[], tuple[str, str]]) -> None:
        self.folder = folder
        self._capture = capture

    @property
    def inventory(self) -> Path:
        return self.folder / "inventories" / "calendar" / "inventory.yaml"

    def run(self, *arguments: str) -> Ran:
        self._capture()
        code = run(list(arguments))
        return Ran(code, *self._capture())

    def good(self, *arguments: str) -> Ran:
        ran = self.run(*arguments)
        assert ran.code == 0, ran
        return ran


def make_estate(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Estate:
    """A project with three services on one folder; nothing is applied."""
    (folder / ".git").mkdir(parents=True)
    monkeypatch.chdir(folder)
    estate = Estate(folder, lambda: tuple(capsys.readouterr()))  # type: ignore[arg-type, return-value]
    estate.good("init", "--name", "calendar", "--example", "empty")
    estate.inventory.write_text(INVENTORY)
    return estate
