"""Whoever types what a page says gets what the page says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.inventory import load_inventory
from mtlsctl.render.cases import render_case
from mtlsctl.render.catalog import load_catalog, read_folder, runtimes_of
from tests.conftest import SBIN
from tests.docs.pages import PAGES, ROOT, Command, File, ports_of, read_page
from tests.support.patience import ENDED_SECONDS
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docs.pages import Page

RUNNABLE = [page for page in map(read_page, PAGES) if page.commands]


@dataclass
class Reader:
    """Somebody who follows a page in a folder, and may go into another one on the way."""

    folder: Path
    at: Path
    environment: dict[str, str]

    def follow(self, page: Page) -> None:
        for step in page.steps:
            match step:
                case File():
                    file = self.folder / step.path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(step.content, "utf-8")
                case Command():
                    self.type(step)

    def type(self, command: Command) -> None:
        if command.line.startswith("cd "):
            self.at = self.at / command.line.removeprefix("cd ")
            return
        code, out, err = self.run(command.line)
        assert command.code == code, (command.line, out, err)
        assert command.prints(out), f"$ {command.line}\n{out}\nand not\n{chr(10).join(command.printed)}\n{err}"

    def run(self, line: str) -> tuple[int, str, str]:
        """Into files: what a program that goes on in the background holds open would never end."""
        out, err = self.folder.parent / "out", self.folder.parent / "err"
        with out.open("wb") as first, err.open("wb") as second:
            ended = subprocess.run(
                ["sh", "-c", line],
                cwd=self.at,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=first,
                stderr=second,
                timeout=ENDED_SECONDS,
                check=False,
            )
        code = ended.returncode if ended.returncode >= 0 else 128 - ended.returncode
        return code, out.read_text("utf-8"), err.read_text("utf-8")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    programs = tmp_path / "bin"
    programs.mkdir()
    ours = programs / "mtlsctl"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mtlsctl.cli "$@"\n')
    ours.chmod(0o755)
    folder = tmp_path / "page"
    (folder / ".git").mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "FORCE_COLOR"}}
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath), SBIN])
    environment = kept | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    yield Reader(folder=folder, at=folder, environment=environment)
    _end_what_was_started(folder)


def _end_what_was_started(folder: Path) -> None:
    """Programs of a page say in a pid file who they are; only one that works in the page's folder is ended."""
    for file in folder.rglob("run/*.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text())
            if Path(f"/proc/{pid}/cwd").resolve().is_relative_to(folder.resolve()):
                os.kill(pid, signal.SIGTERM)


def _free_ports(wanted: list[str]) -> dict[str, str]:
    return {old: str(free_port()) for old in wanted}


def _runs(page: Page) -> object:
    marks = [pytest.mark.peer(program) for program in page.needs]
    return pytest.param(page.path, id=str(page.path.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("path", [_runs(page) for page in RUNNABLE])
def test_a_page_can_be_followed(reader: Reader, path: Path) -> None:
    page = read_page(path)
    if page.needs:
        page = read_page(path, _free_ports(ports_of(path)))
    if not page.commands[0].line.startswith("mtlsctl init"):
        begun = reader.run("mtlsctl init . --name calendar --example calendar --no-input --quiet")
        assert begun[0] == 0, begun
    reader.follow(page)


def test_a_page_that_promises_something_else_is_found(reader: Reader) -> None:
    good = Command(line="mtlsctl --version", printed=("mtlsctl 0.1.0",))
    reader.type(good)
    for wrong in (
        Command(line=good.line, printed=("mtlsctl 0.1.1",)),
        Command(line=good.line, printed=()),
        Command(line=good.line, printed=good.printed, code=2),
        Command(line=good.line, printed=("...", "one more")),
    ):
        with pytest.raises(AssertionError):
            reader.type(wrong)


def test_the_pages_that_are_to_be_followed_are() -> None:
    names = {page.path.name for page in RUNNABLE}
    assert {"README.md", "waves.md", "recover.md", "use-with-nginx.md", "use-with-node.md"} <= names


def test_the_inventory_of_the_readme_is_the_example_in_ten_lines(tmp_path: Path) -> None:
    shown = (ROOT / "README.md").read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    assert 10 == len(shown.splitlines())
    (tmp_path / "shown.yaml").write_text(shown)
    runtimes = runtimes_of(load_catalog())
    loaded = [
        load_inventory(path, runtimes, root=tmp_path).inventory
        for path in (tmp_path / "shown.yaml", ROOT / "inventories" / "calendar")
    ]
    assert loaded[0] == loaded[1]


def test_the_runtime_of_the_how_to_gives_json(reader: Reader) -> None:
    reader.follow(read_page(ROOT / "docs" / "how-to" / "write-a-runtime.md"))
    places = reader.folder / "places"
    rendered = render_case(read_folder(places), places / "cases" / "a-caller")
    given = json.loads(rendered["cron/schedule.json"])
    assert ("schedule.calendar.internal", 8443) == (given["name"], given["port"])
