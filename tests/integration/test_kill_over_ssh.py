"""Kill the controller anywhere while it works on three hosts, run it again: it converges, nothing torn was served."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsctl.failpoints import FAILPOINTS
from tests.integration.fleet import needs_a_fleet
from tests.integration.ssh_stage import (
    BASE,
    LET_IN,
    NGINX_POINTER,
    HostNginx,
    Stage,
    assert_all_whole,
    assert_nothing_is_left_over,
    leaf_on,
    on,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.repository import Estate, Inventory

pytestmark = [needs_a_fleet(), pytest.mark.peer("nginx"), pytest.mark.peer("curl"), pytest.mark.usefixtures("loopback")]

KILLED = -9
BACK = ("back.renamed", "back.reloaded", "back.recorded")
"""What only a switch that failed passes."""

ELSEWHERE = {"stage.partial", "stage.written", "stage.synced"}
"""Steps that a host over SSH goes by itself, in one request: there `stage.renamed` alone is ours."""

RENAME = {"carry.linked", "service.carried", "service.moved"}
"""What only the renaming of a service passes, which is refused over SSH."""

HASTY = "import mtlsctl.operations.executor as executor\nexecutor.HANDOVER_SECONDS = 0.0\n"


def changed(inventory: Inventory) -> Inventory:
    """Rotates a CA, renames a service, removes another, on all three hosts."""
    services = inventory["services"]
    services["schedule"]["certification_authority"] = {"generation": 2}
    services["mail"]["names"] = ["mail.example.com"]
    services["report"]["certificate"] = {"lifetime": "60d", "renew_before": "20d"}
    del services["guest"]
    return inventory


def first_inventory(stage: Stage) -> Inventory:
    inventory = stage.inventory()
    inventory["services"]["guest"] = {"runtime": "pem", "hosts": ["web3"], "listen": 19444, "callers": ["social"]}
    return inventory


class Kept:
    """An estate with its hosts, to go back to: the hosts in an archive on each, the project in a folder."""

    def __init__(self, stage: Stage, nginx: HostNginx, place: Path) -> None:
        self.stage, self.nginx, self.copy = stage, nginx, place / "kept"
        self.estate = stage.estate(first_inventory(stage))
        self.estate.good("apply", "--yes")
        self.estate.write(changed(first_inventory(stage)))
        for host in stage.fleet.hosts.values():
            on(host, f"cd / && tar -cf /run/host/kept.tar {BASE} $(ls {NGINX_POINTER} 2>/dev/null) 2>/dev/null")
        shutil.copytree(self.estate.folder, self.copy, symlinks=True)

    def back(self) -> Estate:
        self.stage.clear()
        for host in self.stage.fleet.hosts.values():
            on(host, "tar -C / -xpf /run/host/kept.tar")
        for folder in (self.estate.folder, self.estate.temp):
            shutil.rmtree(folder)
        shutil.copytree(self.copy, self.estate.folder, symlinks=True)
        self.estate.temp.mkdir()
        self.nginx.reread()
        return self.estate


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="module")
def nginx(stage: Stage) -> Iterator[HostNginx]:
    with HostNginx(stage["web1"]) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def kept(stage: Stage, nginx: HostNginx, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(stage, nginx, tmp_path_factory.mktemp("kill"))


@pytest.fixture(autouse=True)
def _no_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlsctl.operations.executor.HANDOVER_SECONDS", 0.0)


def leaves_of(stage: Stage) -> set[bytes]:
    """Every leaf in a whole release of the server."""
    folder = stage["web1"].path(f"{BASE}/schedule/releases")
    return {(one / "tls.crt").read_bytes() for one in folder.glob("*") if "." not in one.name}


def served_is_whole(stage: Stage) -> None:
    """The handshake ends only when key and certificate fit; the leaf is that of a whole release which is there."""
    leaf = stage.served()
    assert any(leaf.public_bytes(Encoding.PEM) in one for one in leaves_of(stage))


def kill(estate: Estate, stage: Stage, failpoint: str, *, before: str = "") -> None:
    ran = estate.command("apply", "--yes", before=HASTY + before, MTLSCTL_FAILPOINT=f"{failpoint}:kill")
    assert ran.code == KILLED, (failpoint, ran)
    assert_all_whole(stage)
    estate.good("state", "check")


def recovers(estate: Estate, stage: Stage) -> None:
    estate.good("apply", "--yes")
    plan = estate.good("plan", "--detailed-exitcode")
    assert plan.out.startswith("Nothing to change."), plan
    estate.good("state", "check")
    assert_all_whole(stage)
    assert_nothing_is_left_over(stage["web1"], "schedule")
    assert_nothing_is_left_over(stage["web2"], "mail", "social")
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    assert stage.call("mail").outcome == LET_IN


def passed(estate: Estate, log: Path) -> Counter[str]:
    estate.good("apply", "--yes", MTLSCTL_FAILPOINT_LOG=str(log))
    return Counter(log.read_text().split())


@pytest.mark.usefixtures("nginx")
def test_every_place_is_reached_but_those_that_the_host_passes_by_itself(
    stage: Stage, kept: Kept, tmp_path: Path
) -> None:
    first = passed(stage.estate(first_inventory(stage)), tmp_path / "first")
    second = passed(kept.back(), tmp_path / "second")
    assert set(FAILPOINTS) - {*first, *second} == {*BACK, *ELSEWHERE, *RENAME}
    assert set(EACH_FIRST) == {*first}
    assert set(EACH_SECOND) == {*second}


EACH_SECOND = [one for one in FAILPOINTS if one not in {*BACK, *ELSEWHERE, *RENAME}]
EACH_FIRST = [one for one in EACH_SECOND if one != "remove.deleted"]
LAST = ["stage.renamed*3", "switch.renamed*4", "switch.recorded*6"]


BIRTH = [
    "operation.opened",
    "authority.recorded",
    "key.written",
    "certificate.signed",
    "stage.renamed",
    "switch.renamed",
    "switch.recorded",
]
"""Where it matters that there was nothing before; the change below passes every place."""


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("failpoint", BIRTH)
def test_a_first_install_killed_anywhere_is_finished_by_the_next_apply(stage: Stage, failpoint: str) -> None:
    estate = stage.estate(first_inventory(stage))
    kill(estate, stage, failpoint)
    recovers(estate, stage)


@pytest.mark.parametrize("failpoint", [*EACH_SECOND, *LAST])
def test_a_change_killed_anywhere_is_finished_by_the_next_apply(stage: Stage, kept: Kept, failpoint: str) -> None:
    estate = kept.back()
    kill(estate, stage, failpoint)
    served_is_whole(stage)
    assert stage.call("mail").outcome == LET_IN
    recovers(estate, stage)


SHORT = """
import mtlsctl.operations.publication as publication
import mtlsctl.operations.interrupted as interrupted
publication.SETTLE_SECONDS = interrupted.SETTLE_SECONDS = 1.0
"""


@pytest.mark.parametrize("failpoint", BACK)
def test_a_way_back_that_is_killed_is_gone_to_its_end_by_the_next_apply(
    stage: Stage, nginx: HostNginx, kept: Kept, failpoint: str
) -> None:
    estate = kept.back()
    old = stage.served()
    nginx.spoil()
    try:
        kill(estate, stage, failpoint, before=SHORT)
        assert stage.served() == old
        still = estate.run("apply", "--yes")
        assert (still.code, "Traceback" in still.said) == (3, False), still
        assert stage.served() == old
    finally:
        nginx.mend()
    recovers(estate, stage)


def test_an_apply_that_is_killed_again_and_again_still_ends(stage: Stage, kept: Kept) -> None:
    estate = kept.back()
    for failpoint in ("certificate.signed", "stage.renamed", "switch.renamed", "switch.renamed", "switch.settled"):
        kill(estate, stage, failpoint)
        served_is_whole(stage)
    recovers(estate, stage)
