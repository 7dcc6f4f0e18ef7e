"""While keys are made, carried and put into stores: no list of processes shows them, no other user can read them."""

from __future__ import annotations

import contextlib
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from tests.integration.fleet import needs_a_fleet
from tests.integration.ssh_stage import BASE, Stage, current, on, prove, shapes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.repository import Estate, Inventory

pytestmark = [needs_a_fleet(), pytest.mark.usefixtures("loopback")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


class Watch:
    """Looks again and again, as fast as it can, from a thread of its own."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look, self._stop, self.looks = look, threading.Event(), 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._look()
            self.looks += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Processes:
    """All that any process of this machine was ever seen to be started with; hosts are in the same list."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def look(self) -> None:
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    self.seen.add((folder / "cmdline").read_bytes())
                    self.seen.add((folder / "environ").read_bytes())

    def show(self, *shapes: bytes) -> bool:
        return any(shape in one for one in self.seen for shape in shapes)


class Modes:
    """Whatever is below the hosts' folder, with each mode that it was ever seen to have."""

    def __init__(self, stage: Stage) -> None:
        self.tops = [host.path(BASE) for host in stage.fleet.hosts.values()]
        self.seen: dict[str, set[int]] = {}

    def look(self) -> None:
        for top in self.tops:
            with contextlib.suppress(OSError):
                self._below(top, "")

    def _below(self, folder: Path, name: str) -> None:
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    mode = path.lstat().st_mode
                    below = f"{name}/{path.name}"
                    if not stat.S_ISLNK(mode):
                        self.seen.setdefault(below, set()).add(mode)
                    if stat.S_ISDIR(mode):
                        self._below(path, below)


def inventory(stage: Stage, keys: str) -> Inventory:
    """Keys in files, in one file with their certificate (Apache), and in stores with passwords."""
    made = stage.inventory(keys=keys)
    made["trust"] = {"model": "pinned"}
    made["services"] = {
        "ledger": {
            "runtime": "spring-boot",
            "hosts": ["web2"],
            "listen": 18443,
            "callers": ["batch"],
            "settings": {"spring_boot": "3.2", "style": "classic"},
        },
        "batch": {
            "runtime": "java",
            "hosts": ["web3"],
            "settings": {"store_password": {"env": "MTLSCTL_SECRET_BATCH"}},
        },
        "front": {
            "runtime": "apache",
            "hosts": ["web1"],
            "listeners": [{"name": "main", "port": stage.port, "bind": "host", "callers": ["batch"]}],
        },
        "mail": {"runtime": "pem", "hosts": ["web1"]},
    }
    return made


CHOSEN = "chosen-by-its-owner-0815"


@pytest.mark.parametrize("keys", ["host", "controller"])
def test_no_secret_is_in_a_list_of_processes_and_none_is_readable_by_others_for_a_moment(
    stage: Stage, keys: str
) -> None:
    estate = stage.estate(inventory(stage, keys))
    processes, modes = Processes(), Modes(stage)
    with Watch(processes.look) as first, Watch(modes.look) as second:
        process = estate.start("apply", "--yes", MTLSCTL_SECRET_BATCH=CHOSEN)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert min(first.looks, second.looks) > 10
    prove_with_password(estate)
    pems = [path.read_bytes() for host in stage.fleet.hosts.values() for path in host.path(BASE).glob("*/keys/*.key")]
    assert len(pems) == 4
    password = (current(stage["web2"], "ledger") / "secrets/store-password").read_bytes()
    assert (current(stage["web3"], "batch") / "secrets/store-password").read_bytes() == CHOSEN.encode()
    assert processes.show(b"mtlsctl\0apply\0--yes") or processes.show(b"apply\0--yes")
    assert processes.show(b"head -c")
    assert not processes.show(*(shape for pem in pems for shape in shapes_of(pem)), password)
    shown_by = [one for one in processes.seen if CHOSEN.encode() in one]
    assert all(b"MTLSCTL_SECRET_BATCH=" in one for one in shown_by), "only the operator's own environment has it"
    assert {path: modes_of(modes, path) for path in sorted(modes.seen) if not is_closed(modes, path)} == {}
    assert any(path.endswith("/tls.key") for path in modes.seen)
    assert any(path.endswith("keystore.p12") for path in modes.seen)


def prove_with_password(estate: Estate) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTLSCTL_SECRET_BATCH", CHOSEN)
        prove(estate)


def modes_of(modes: Modes, path: str) -> list[str]:
    return sorted(stat.filemode(mode) for mode in modes.seen[path])


def is_closed(modes: Modes, path: str) -> bool:
    """Others may not read it and the group may not write it; what is secret is its owner's alone."""
    name = path.rpartition("/")[2]
    if path.startswith("/.check."):  # a server on trial writes there what it likes: nobody else gets into the folder
        folder = "/" + path.split("/")[1]
        return all(stat.S_IMODE(mode) & 0o077 == 0 for mode in modes.seen.get(folder, ()))
    if name in {".lineage", ".lineage.partial"}:
        return all(stat.S_IMODE(mode) & 0o022 == 0 for mode in modes.seen[path])
    secret = "/keys" in path or "/secrets" in path or name in {"tls.key", "tls.combined", "keystore.p12", ".lock"}
    return all(
        stat.S_IMODE(mode) & (0o077 if secret and not stat.S_ISDIR(mode) else 0o007 | 0o020) == 0
        for mode in modes.seen[path]
    )


def test_the_watches_would_notice(stage: Stage, tmp_path: Path) -> None:
    estate = stage.estate(inventory(stage, "host"))
    estate.good("apply", "--yes", MTLSCTL_SECRET_BATCH=CHOSEN)
    (key,) = stage["web1"].path(BASE).glob("mail/keys/*.key")
    processes, modes = Processes(), Modes(stage)
    with Watch(processes.look) as first, Watch(modes.look) as second:
        on(stage["web1"], f"cp {BASE}/mail/keys/{key.name} /run/host/copy")
        show = f"umask 022; cat /run/host/copy >{BASE}/mail/keys/open.key"
        on(stage["web1"], f"{show}; sh -c 'sleep 1; :' \"$(cat /run/host/copy)\"")
    assert min(first.looks, second.looks) > 0
    assert processes.show(*shapes_of(key.read_bytes()))
    assert not is_closed(modes, "/mail/keys/open.key")
