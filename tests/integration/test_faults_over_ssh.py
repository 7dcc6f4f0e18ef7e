"""What goes wrong on the way to a host and on it: each ends with its exit code, and the next apply converges."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.deliver import reach, session
from tests.integration.fleet import STRANGER, make_key, needs_a_fleet
from tests.integration.ssh_stage import (
    BASE,
    LET_IN,
    NGINX_POINTER,
    HostNginx,
    Stage,
    Wire,
    assert_all_whole,
    at,
    current,
    leaf_on,
    on,
    prove,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.repository import Estate, Inventory, Ran

pytestmark = [needs_a_fleet(), pytest.mark.peer("nginx"), pytest.mark.peer("curl"), pytest.mark.usefixtures("loopback")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="module")
def running(stage: Stage) -> Iterator[HostNginx]:
    with HostNginx(stage["web1"]) as nginx:
        yield nginx


@pytest.fixture
def nginx(running: HostNginx) -> Iterator[HostNginx]:
    yield running
    os.kill(running.process.pid, signal.SIGCONT)
    running.mend()
    running.include()


@pytest.fixture
def wire(stage: Stage) -> Iterator[Wire]:
    with Wire(stage, "web1") as wire:
        yield wire


Wires = Callable[[str], Wire]


@pytest.fixture
def wires(stage: Stage) -> Iterator[Wires]:
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(Wire(stage, name))


SHORT_SECONDS = 4.0


@pytest.fixture(autouse=True)
def _no_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls while these tests run, so no call that is under way is waited for."""
    monkeypatch.setattr("mtlsctl.operations.executor.HANDOVER_SECONDS", 0.0)


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Deadlines of seconds instead of a minute."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SETTLE_SECONDS",):
            patch.setattr(f"mtlsctl.operations.publication.{name}", 1.0)
            patch.setattr(f"mtlsctl.operations.interrupted.{name}", 1.0)
        for name in ("CHECK_SECONDS", "RELOAD_SECONDS", "KEY_SECONDS"):
            patch.setattr(f"mtlsctl.deliver.remote.{name}", SHORT_SECONDS)
        patch.setattr(session, "GREETING_SECONDS", SHORT_SECONDS)
        for kind, name in ((session.Request, "seconds"), (reach.SshOptions, "login_seconds")):
            patch.setitem(kind.__init__.__kwdefaults__ or {}, name, SHORT_SECONDS)
        short = session.script().replace(b"SECONDS_FOR_A_PROGRAM=10", b"SECONDS_FOR_A_PROGRAM=1")
        patch.setattr(session, "script", lambda: short)
        yield


def changed(inventory: Inventory) -> Inventory:
    """The server gets another leaf of the same CA: one process changes, on one host."""
    inventory["services"]["schedule"]["certificate"] = {"lifetime": "60d", "renew_before": "20d"}
    return inventory


def failed(ran: Ran, code: int, *said: str) -> None:
    assert ran.code == code, ran
    words = " ".join(ran.said.split())
    for one in said:
        assert one in words, (one, words)
    assert "Traceback" not in ran.said


def converges(estate: Estate, stage: Stage) -> None:
    estate.good("apply", "--yes")
    prove(estate)
    assert_all_whole(stage)
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    assert stage.call("mail").outcome == LET_IN


# --- a host that is out of reach ------------------------------------------------------------------------------------


def through(wire: Wire, inventory: Inventory) -> Inventory:
    inventory["hosts"][wire.to.host]["port"] = wire.port
    return inventory


@pytest.mark.usefixtures("nginx")
def test_a_host_that_is_down_blocks_what_waits_for_it_and_nothing_else(stage: Stage, wire: Wire) -> None:
    estate = stage.estate(through(wire, stage.inventory()))
    wire.down()
    ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4303", "web1 process=nginx wave=activate status=failed")
    assert current(stage["web3"], "report").is_dir()
    assert current(stage["web2"], "mail").is_dir()
    wire.mend()
    converges(estate, stage)


BEFORE = ["certificate.signing", "stage.renamed", "stage.checked"]
BETWEEN = ["switch.intended", "switch.renamed"]
AFTER = ["switch.reloaded", "switch.settled", "switch.recorded", "prune.deleted"]


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("place", [*BEFORE, *BETWEEN, *AFTER])
def test_a_host_that_goes_down_during_an_apply_is_looked_at_by_the_next_one(
    stage: Stage, wire: Wire, place: str
) -> None:
    estate = stage.estate(through(wire, stage.inventory()))
    estate.good("apply", "--yes")
    before = stage.served()
    estate.write(through(wire, changed(stage.inventory())))
    with at(place, wire.down) as reached:
        ran = estate.run("apply", "--yes")
    assert place in reached
    assert "degraded" not in ran.said
    if place in AFTER:
        failed(ran, 0)
        assert stage.served() != before
    else:
        failed(ran, 3, "M4301")
        assert ("is not known" in ran.said) == (place in BETWEEN)
    assert_all_whole(stage)
    wire.mend()
    converges(estate, stage)
    assert stage.served() != before


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("place", [*BEFORE, *BETWEEN])
def test_a_connection_that_is_lost_for_a_moment_is_made_once_more_to_see_what_became_of_the_switch(
    stage: Stage, wire: Wire, place: str
) -> None:
    estate = stage.estate(through(wire, stage.inventory()))
    estate.good("apply", "--yes")
    before = stage.served()
    estate.write(through(wire, changed(stage.inventory())))
    with at(place, wire.cut) as reached:
        ran = estate.run("apply", "--yes")
    assert place in reached
    failed(ran, 3, "M4301")
    assert ("rolled back" in ran.said) == (place in BETWEEN)
    assert stage.served() == before == leaf_on(stage["web1"], "schedule")
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
def test_a_transfer_that_breaks_off_leaves_nothing_half_there(stage: Stage, wire: Wire, share: float) -> None:
    estate = stage.estate(through(wire, stage.inventory()))
    trial = stage.estate(through(wire, stage.inventory()))
    trial.good("apply", "--yes")
    whole = wire.sent
    stage.clear()
    wire.sent, wire.cut_after = 0, int(whole * share)
    ran = estate.run("apply", "--yes")
    failed(ran, 3)
    assert_all_whole(stage)
    wire.mend()
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("new_ones_too", [True, False])
@pytest.mark.parametrize("place", ["operation.opened", "stage.renamed", "switch.intended", "switch.renamed"])
def test_a_connection_that_falls_silent_ends_at_the_deadline(
    stage: Stage, wire: Wire, place: str, *, new_ones_too: bool
) -> None:
    """Neither side is told: the other end stands open, with its lock, when the next apply comes."""
    estate = stage.estate(through(wire, stage.inventory()))
    estate.good("apply", "--yes")
    estate.write(through(wire, changed(stage.inventory())))
    with impatient(), at(place, partial(wire.hold, new_ones_too=new_ones_too)) as reached:
        ran = estate.run("apply", "--yes")
    assert place in reached
    failed(ran, 3, "M4302")
    assert "degraded" not in ran.said
    assert_all_whole(stage)
    wire.mend()
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
def test_a_ca_that_a_host_out_of_reach_still_needs_is_not_dropped(stage: Stage, wires: Wires) -> None:
    """Its callers know the old CA of the server only, so the server goes on with it."""
    wire = wires("web2")
    inventory = through(wire, stage.inventory())
    estate = stage.estate(inventory)
    estate.good("apply", "--yes")
    before = stage.served()
    inventory["services"]["schedule"]["certification_authority"] = {"generation": 2}
    estate.write(inventory)
    wire.down()
    failed(estate.run("apply", "--yes"), 3, "M4303", "blocked")
    assert stage.served() == before
    assert stage.call("mail").outcome == LET_IN
    wire.mend()
    converges(estate, stage)
    assert stage.served().issuer != before.issuer


@pytest.mark.usefixtures("nginx")
def test_a_host_that_restarts_between_switch_and_reload_serves_the_new_release(
    stage: Stage, wire: Wire, nginx: HostNginx
) -> None:
    estate = stage.estate(through(wire, stage.inventory()))
    estate.good("apply", "--yes")
    before = stage.served()
    estate.write(through(wire, changed(stage.inventory())))

    def restart() -> None:
        wire.down()
        nginx.reread()

    with at("switch.renamed", restart):
        failed(estate.run("apply", "--yes"), 3, "M4301")
    until(lambda: stage.served() == leaf_on(stage["web1"], "schedule") != before)
    wire.mend()
    ran = estate.good("apply", "--yes")
    assert "an interrupted switch had taken place and is finished" in ran.err
    converges(estate, stage)


@pytest.mark.parametrize("place", ["stage.renamed", "switch.intended", "switch.renamed", "switch.reloaded"])
def test_somebody_else_who_reloads_meanwhile_does_no_harm(stage: Stage, nginx: HostNginx, place: str) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    estate.write(changed(stage.inventory()))
    with at(place, nginx.reread) as reached:
        estate.good("apply", "--yes")
    assert place in reached
    converges(estate, stage)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"address": "nowhere.invalid"}, "M4303"),
        ({"jump": "127.9.0.2:9"}, "M4311"),
        ({"port": 9}, "M4303"),
        ({"address": "::1", "port": 9}, "M4303"),
    ],
    ids=["no such name", "jump host down", "nobody listens", "nobody listens there over IPv6"],
)
def test_a_host_that_there_is_no_way_to_fails_alone(stage: Stage, words: dict[str, Any], code: str) -> None:
    inventory = stage.inventory()
    inventory["hosts"]["web1"] |= words
    inventory["services"]["schedule"]["listeners"][0]["bind"] = "all"
    estate = stage.estate(inventory)
    failed(estate.run("apply", "--yes"), 3, code)
    assert current(stage["web3"], "report").is_dir()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_apply_that_is_interrupted_finishes_the_host_that_it_works_on(
    stage: Stage, nginx: HostNginx, sent: signal.Signals, code: int
) -> None:
    del nginx
    estate = stage.estate()
    process = stopped(estate, "switch.intended")
    os.kill(process.pid, sent)
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (out, err)
    assert "web1 process=nginx wave=activate status=done" in err
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    converges(estate, stage)


# --- a host that does not let us in, or is not the one ----------------------------------------------------------------


def test_an_unknown_host_key_stops_that_host_alone(stage: Stage) -> None:
    estate = stage.estate()
    stage.fleet.forget_all()
    for name in ("web2", "web3"):
        stage.fleet.know(stage[name])
    ran = estate.run("apply", "--yes")
    stage.fleet.know(stage["web1"])
    failed(ran, 3, "M4304", stage["web1"].host_key().fingerprint)
    assert current(stage["web3"], "report").is_dir()
    assert not stage["web1"].path(f"{BASE}/schedule").exists()
    estate.good("apply", "--yes")


def test_a_changed_host_key_stops_that_host_and_shows_both(stage: Stage) -> None:
    estate = stage.estate()
    host = stage["web1"]
    other = make_key(stage.folder / "other")
    stage.fleet.forget_all()
    for name in ("web2", "web3"):
        stage.fleet.know(stage[name])
    with stage.fleet.known_hosts.open("a") as file:
        file.write(f"[{host.address}]:{host.port} {other.text}\n")
    ran = estate.run("apply", "--yes")
    stage.fleet.forget_all()
    for one in stage.fleet.hosts.values():
        stage.fleet.know(one)
    failed(ran, 3, "M4305", host.host_key().fingerprint, other.fingerprint)
    assert not host.path(f"{BASE}/schedule").exists()
    estate.good("apply", "--yes")


def test_a_user_who_may_not_use_sudo_changes_nothing(stage: Stage) -> None:
    inventory = stage.inventory()
    inventory["hosts"]["web2"]["user"] = STRANGER
    estate = stage.estate(inventory)
    failed(estate.run("apply", "--yes"), 3, "M4307")
    assert not stage["web2"].path(BASE).exists()
    inventory["hosts"]["web2"] = stage.host("web2")
    estate.write(inventory)
    estate.good("apply", "--yes")


def test_a_user_who_is_not_root_and_says_nothing_of_sudo_changes_nothing(stage: Stage) -> None:
    inventory = stage.inventory()
    del inventory["hosts"]["web2"]["become"]
    estate = stage.estate(inventory)
    failed(estate.run("apply", "--yes"), 3, "M4101", "Permission denied", "become: true")
    inventory["hosts"]["web2"] = stage.host("web2")
    estate.write(inventory)
    estate.good("apply", "--yes")


FILL = f"head -c 8m /dev/zero >{BASE}/.fill 2>/dev/null; truncate -s -$(({{room}} * 4096)) {BASE}/.fill"
NAMES = f"mkdir {BASE}/.fill && cd {BASE}/.fill && seq 300 | xargs touch 2>/dev/null; ls | tail -n 3 | xargs rm"
"""Room for a few pages, or for a few files."""


# --- a host that cannot take it -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nginx")
def test_a_read_only_file_system_fails_its_host_before_anything_is_switched(stage: Stage) -> None:
    estate = stage.estate()
    on(stage["web1"], f"mkdir -p {BASE} && mount -t tmpfs -o ro,mode=0755 tmpfs {BASE}")
    ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4101", "cannot")
    assert not stage["web1"].path(NGINX_POINTER).exists()
    on(stage["web1"], f"umount {BASE}")
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("fill", [*(FILL.format(room=room) for room in (1, 2, 3, 5)), NAMES])
def test_a_full_disk_fails_its_host_and_leaves_what_was_served(stage: Stage, fill: str) -> None:
    inventory = stage.inventory()
    estate = stage.estate(inventory)
    on(stage["web1"], f"mkdir -p {BASE} && mount -t tmpfs -o size=4m,nr_inodes=200,mode=0755 tmpfs {BASE}")
    estate.good("apply", "--yes")
    before = stage.served()
    estate.write(changed(inventory))
    on(stage["web1"], fill)
    ran = estate.run("apply", "--yes")
    failed(ran, 3, "No space left on device")
    assert stage.served() == before == leaf_on(stage["web1"], "schedule")
    assert list(stage["web1"].path(f"{BASE}/schedule/releases").glob("*.partial")) == []
    on(stage["web1"], f"rm -r {BASE}/.fill")
    converges(estate, stage)
    stage.clear()


# --- a process that does not take it up -------------------------------------------------------------------------------


def two_services(stage: Stage, second: dict[str, Any]) -> Inventory:
    inventory = stage.inventory()
    inventory["services"]["agenda"] = {
        "runtime": "nginx",
        "hosts": ["web1"],
        "listeners": [{"name": "main", "port": stage.second_port, "bind": "host", "callers": ["mail"]}],
        **second,
    }
    return inventory


@pytest.mark.usefixtures("nginx")
def test_a_check_that_fails_names_the_instance_and_lets_the_others_go_on(stage: Stage) -> None:
    estate = stage.estate(two_services(stage, {"settings": {"upstream": "http://nowhere.invalid:80"}}))
    ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4201", "status=failed instances=agenda@web1", "nowhere.invalid")
    assert "status=done instances=schedule@web1" in ran.err
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    estate.write(two_services(stage, {}))
    converges(estate, stage)


def test_a_file_of_somebody_else_that_nginx_refuses_is_found_before_it_is_signalled(
    stage: Stage, nginx: HostNginx
) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    before = stage.served()
    estate.write(changed(stage.inventory()))
    nginx.spoil()
    ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4203", "rolled back", "broken.conf")
    assert "degraded" not in ran.said
    assert stage.served() == before == leaf_on(stage["web1"], "schedule")
    nginx.mend()
    converges(estate, stage)


def test_a_master_that_does_nothing_on_a_signal_gets_its_old_release_back(stage: Stage, nginx: HostNginx) -> None:
    """It is stopped: the signal is sent and waits, the workers go on."""
    estate = stage.estate()
    estate.good("apply", "--yes")
    before = stage.served()
    estate.write(changed(stage.inventory()))
    os.kill(nginx.process.pid, signal.SIGSTOP)
    with impatient():
        ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4203", "did not take up the new configuration", "rolled back")
    assert stage.served() == before == leaf_on(stage["web1"], "schedule")
    os.kill(nginx.process.pid, signal.SIGCONT)
    converges(estate, stage)


def test_a_server_that_does_not_read_our_file_is_found_out_by_what_it_serves(stage: Stage, nginx: HostNginx) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    before = stage.served()
    own = "/run/host/own"
    replaced = f"s#{current_on(stage)}#{own}#g"
    on(stage["web1"], f"cp -r {current_on(stage)} {own} && sed -i '{replaced}' {own}/nginx.conf")
    on(stage["web1"], f"sed '{replaced}' {NGINX_POINTER} >{own}/main.conf")
    nginx.include(f"{own}/main.conf")
    estate.write(changed(stage.inventory()))
    ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4204", "rolled back")
    assert stage.served() == before == leaf_on(stage["web1"], "schedule")
    nginx.include()
    converges(estate, stage)


def current_on(stage: Stage) -> str:
    return f"{BASE}/schedule/releases/{current(stage['web1'], 'schedule').name}"


def test_a_way_back_that_fails_too_is_said_to_be_degraded(stage: Stage, nginx: HostNginx) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    estate.write(changed(stage.inventory()))
    nginx.spoil()
    folder = NGINX_POINTER.rpartition("/")[0]
    freeze = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    with at("switch.renamed", partial(on, stage["web1"], freeze)):
        ran = estate.run("apply", "--yes")
    failed(ran, 3, "M4108", "degraded", f"web1:{NGINX_POINTER}", "Read-only file system")
    on(stage["web1"], f"umount {folder}")
    nginx.mend()
    converges(estate, stage)


def test_a_server_that_ended_during_a_reload_is_told_of(stage: Stage, nginx: HostNginx) -> None:
    """Nothing runs that could be reloaded: the files are there for its next start."""
    estate = stage.estate()
    stage["web1"].path("/run/nginx.pid").rename(stage["web1"].path("/run/nginx.pid.away"))
    ran = estate.good("apply", "--yes")
    stage["web1"].path("/run/nginx.pid.away").rename(stage["web1"].path("/run/nginx.pid"))
    assert "nginx is not running" in ran.err


# --- what others did meanwhile --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nginx")
def test_a_pointer_that_was_edited_is_not_overwritten(stage: Stage) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    pointer = stage["web1"].path(NGINX_POINTER)
    whole = pointer.read_bytes()
    pointer.write_bytes(whole + b"# by hand\n")
    estate.write(changed(stage.inventory()))
    failed(estate.run("apply", "--yes"), 3, "M4105", f"web1:{NGINX_POINTER} was edited")
    assert pointer.read_bytes() == whole + b"# by hand\n"
    pointer.write_bytes(whole)
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
def test_a_pointer_that_is_edited_during_an_apply_is_not_overwritten(stage: Stage) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    pointer = stage["web1"].path(NGINX_POINTER)
    whole = pointer.read_bytes()
    estate.write(changed(stage.inventory()))
    with at("stage.checked", partial(pointer.write_bytes, whole + b"# by hand\n")):
        ran = estate.run("apply", "--yes")
    edited = pointer.read_bytes() == whole + b"# by hand\n"
    failed(ran, 3, "M4105")
    assert edited
    pointer.write_bytes(whole)
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize(
    "damage",
    [
        "echo '# by hand' >>$R/nginx.conf",
        "rm $R/tls.crt",
        "rm -r $R",
        "chmod 644 $R/tls.key",
        "cp /etc/hostname $R/more",
        "rm -r $(dirname $R)/../keys",
    ],
)
def test_what_was_altered_or_lost_on_a_host_is_made_anew(stage: Stage, damage: str) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    on(stage["web1"], f"R={current_on(stage)}; {damage}")
    converges(estate, stage)


@pytest.mark.usefixtures("nginx")
def test_a_file_that_is_edited_during_an_apply_is_found_before_the_switch_or_made_anew_after_it(stage: Stage) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    estate.write(changed(stage.inventory()))

    def edit() -> None:
        on(stage["web1"], f"for one in {BASE}/schedule/releases/*/nginx.conf; do echo '# by hand' >>$one; done")

    with at("stage.renamed", edit):
        ran = estate.run("apply", "--yes")
    assert ran.code in {0, 3}, ran
    converges(estate, stage)
    assert "by hand" not in (current(stage["web1"], "schedule") / "nginx.conf").read_text()


# --- two controllers ------------------------------------------------------------------------------------------------


def stopped(estate: Estate, place: str) -> Any:
    """An apply in a process of its own that stands still at a place."""
    process = estate.start("apply", "--yes", MTLSCTL_FAILPOINT=f"{place}:stop")
    until(lambda: process.poll() is not None or state_of(process.pid) == "T", seconds=30)
    assert process.poll() is None, process.communicate()
    return process


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_two_controllers_with_a_state_each_exclude_each_other(stage: Stage) -> None:
    first = stage.estate()
    second = stage.estate()
    process = stopped(first, "switch.intended")
    try:
        failed(second.run("apply", "--yes"), 5, "M4312", str(process.pid))
    finally:
        os.kill(process.pid, signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    ran = second.run("apply", "--yes")
    failed(ran, 3, "M4111")
    prove(first)


def test_two_controllers_with_one_state_exclude_each_other(stage: Stage) -> None:
    estate = stage.estate()
    process = stopped(estate, "switch.intended")
    try:
        failed(estate.run("apply", "--yes"), 5)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    estate.good("apply", "--yes")
    prove(estate)
