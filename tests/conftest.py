"""Peers are real programs. A missing one skips its tests with the reason; MTLSCTL_REQUIRE_PEERS makes it a failure."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

import mtlsctl

if TYPE_CHECKING:
    from collections.abc import Iterable

SBIN = "/usr/sbin:/sbin:/usr/local/sbin"


LIBRARIES = {"faraday": ("ruby", "-e", "require 'faraday'")}
"""Peers that are no programs, with what ends well where they are."""


@cache
def find_peer(name: str) -> str | None:
    """The path of a program, also where only root's PATH looks; for a library that of the program that has it."""
    if name in LIBRARIES:
        program, *arguments = LIBRARIES[name]
        found = find_peer(program)
        has_it = found and subprocess.run([found, *arguments], capture_output=True, check=False).returncode == 0
        return found if has_it else None
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), SBIN]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [mark.args[0] for mark in item.iter_markers("peer") if find_peer(mark.args[0]) is None]
    if not missing:
        return
    reason = f"not installed here: {', '.join(missing)}"
    if os.environ.get("MTLSCTL_REQUIRE_PEERS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


LONGEST = (
    "tests/integration/test_rotation_under_load.py",
    "tests/spring/",
    "tests/interop/",
    "tests/integration/",
    "tests/properties/",
)
"""Where the tests are that take the longest, in this order: what is left at the end, when workers have no more to take,
should be short."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With workers (`--dist loadgroup`): the longest first, and together what shares something that is set up once."""
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=lambda item: next((at for at, path in enumerate(LONGEST) if item.nodeid.startswith(path)), 99))
    for item in items:
        if group := _group_of(item):
            item.add_marker(pytest.mark.xdist_group(group))


def _group_of(item: pytest.Item) -> str:
    """Its module, if all of that is fast, or else what it shares with others of its module; nothing for one alone."""
    module = item.nodeid.partition("::")[0]
    if not module.startswith(LONGEST):
        return module
    made = getattr(item, "_fixtureinfo", None)
    fixtures = made.name2fixturedefs.values() if made else ()
    shared = {one.argname: one.params for (*_, one) in fixtures if one.scope == "module" and one.argname[0] != "_"}
    if not shared:
        return ""
    parameters: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return " ".join([module, *_words(parameters[name] for name, params in shared.items() if params)])


def _words(values: Iterable[object]) -> Iterable[str]:
    return map(str, values)


@pytest.fixture(scope="session", autouse=True)
def _everything_is_imported() -> None:
    """A module that is imported for the first time while a test has patched another would keep the patch for good."""
    for found in pkgutil.walk_packages(mtlsctl.__path__, "mtlsctl."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own keys and settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    for name in [one for one in os.environ if one.startswith("MTLSCTL_") and not one.startswith("MTLSCTL_REQUIRE")]:
        if name not in ("MTLSCTL_TOPOLOGIES", "MTLSCTL_SEED", "MTLSCTL_UPDATE_GOLDEN"):
            monkeypatch.delenv(name)
