"""A part of a fleet, at a pace, as it is typed: over both transports, with hosts that refuse among them."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.deliver.reach import OPENSSH, PARAMIKO
from tests.cli.test_terminal import on_a_terminal
from tests.integration.fleet import DEPLOYER, STRANGER, Fleet, free_port, needs_a_fleet
from tests.integration.repository import Estate, Ran, make_estate

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.fleet import Sshd

pytestmark = needs_a_fleet()

HOSTS = 3
SLOW = """\
#!/bin/sh
# The runtime's own check takes its time; nothing of it is waited for by us in the test.
: >/run/checking
while [ -e /run/slow ]; do sleep 0.05; done
exec /usr/sbin/nginx "$@"
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as made:
        for number in range(1, HOSTS + 1):
            made.start(f"web{number}", own=["/usr/local/sbin"])
        yield made


@pytest.fixture
def estate(fleet: Fleet, tmp_path: Path) -> Iterator[Estate]:
    """A front and a caller on each host; hosts that nothing was applied to."""
    before = fleet.known_hosts.read_text()
    estate = replace(make_estate(tmp_path / "estate"), environ=fleet.environment())
    estate.write(inventory(fleet))
    yield estate
    fleet.known_hosts.write_text(before)
    for host in fleet.hosts.values():
        host.run("rm", "-rf", "/etc/mtlsctl", "/etc/nginx/conf.d/mtlsctl.conf", "/usr/local/sbin/nginx")
        host.run("rm", "-f", "/run/slow", "/run/checking")


def inventory(fleet: Fleet) -> dict[str, Any]:
    hosts = list(fleet.hosts.values())[:HOSTS]
    return {
        "version": 1,
        "name": "calendar",
        "hosts": {
            one.host: {"address": one.address, "port": one.port, "user": DEPLOYER, "become": True} for one in hosts
        },
        "services": {
            "front": {
                "runtime": "nginx",
                "hosts": [one.host for one in hosts],
                "listeners": [{"port": free_port("127.0.0.1"), "bind": "host", "callers": ["mail"]}],
            },
            "mail": {"runtime": "pem", "hosts": [one.host for one in hosts]},
        },
    }


def statuses(ran: Ran) -> dict[str, str]:
    """By `host/process`, how it ended in its last wave."""
    return {f"{one['host']}/{one['process']}": one["status"] for one in ran.json["processes"]}


def holds(host: Sshd) -> bool:
    return host.path("/etc/nginx/conf.d/mtlsctl.conf").exists()


@pytest.mark.parametrize("transport", [PARAMIKO, OPENSSH])
def test_one_host_first_and_the_others_later(estate: Estate, fleet: Fleet, transport: str) -> None:
    environ = {"MTLSCTL_SSH_TRANSPORT": transport}
    ran = estate.good("apply", "--yes", "--limit", "web2", **environ)
    assert "Left for the next apply: web1/mail, web1/nginx, web3/mail, web3/nginx." in ran.out
    assert [False, True, False] == [holds(one) for one in fleet.hosts.values()]
    ran = estate.good("apply", "--yes", "--batch", "1,100%", "--forks", "2", "-o", "json", **environ)
    assert {"done"} == set(statuses(ran).values())
    assert [True, True, True] == [holds(one) for one in fleet.hosts.values()]
    assert estate.good("plan").out.startswith("Nothing to change.")


def test_hosts_that_were_not_asked_for_are_not_even_dialled(estate: Estate, fleet: Fleet) -> None:
    before = {name: host.logged("Connection from") for name, host in fleet.hosts.items()}
    estate.good("apply", "--yes", "--limit", "web1")
    now = {name: host.logged("Connection from") for name, host in fleet.hosts.items()}
    assert before | {"web1": now["web1"]} == now


@pytest.mark.parametrize("transport", [PARAMIKO, OPENSSH])
def test_a_host_whose_sudo_refuses_fails_and_the_others_go_on(estate: Estate, fleet: Fleet, transport: str) -> None:
    made = inventory(fleet)
    made["hosts"]["web1"]["user"] = STRANGER
    estate.write(made)
    ran = estate.run("apply", "--yes", "-o", "json", MTLSCTL_SSH_TRANSPORT=transport)
    assert 3 == ran.code
    assert {"M4307"} == {one["code"] for one in ran.json["processes"] if one["status"] == "failed"}
    assert {"web1/mail", "web1/nginx"} == {name for name, status in statuses(ran).items() if status == "failed"}
    assert [False, True, True] == [holds(one) for one in fleet.hosts.values()]


def test_a_host_that_is_not_known_or_is_another_one_gets_nothing(estate: Estate, fleet: Fleet) -> None:
    web1, web2, web3 = fleet.hosts.values()
    fleet.forget_all()
    fleet.know(web3)
    with fleet.known_hosts.open("a") as file:
        file.write(f"[{web2.address}]:{web2.port} {web1.host_key().text}\n")
    ran = estate.run("apply", "--yes", "-o", "json")
    assert 3 == ran.code
    failed = {(one["host"], one["code"]) for one in ran.json["processes"] if one["status"] == "failed"}
    assert {("web1", "M4304"), ("web2", "M4305")} == failed
    assert [False, False, True] == [holds(one) for one in fleet.hosts.values()]
    estate.good("hosts", "trust", "web1", "--fingerprint", web1.host_key().fingerprint)
    ran = estate.run("apply", "--yes", "--limit", "web1,web3")
    assert 0 == ran.code
    assert [True, False, True] == [holds(one) for one in fleet.hosts.values()]


def test_a_canary_that_fails_keeps_the_others_as_they_were(estate: Estate, fleet: Fleet) -> None:
    web1 = fleet.hosts["web1"]
    web1.run("mkdir", "-p", "/etc/nginx/conf.d")
    web1.path("/etc/nginx/conf.d/mtlsctl.conf").write_text("# mine\n")
    ran = estate.run("apply", "--yes", "--batch", "1,100%", "-o", "json")
    assert 3 == ran.code
    assert "failed" == statuses(ran)["web1/nginx"]
    assert {"blocked"} == {status for name, status in statuses(ran).items() if not name.startswith("web1/")}
    assert "# mine\n" == web1.path("/etc/nginx/conf.d/mtlsctl.conf").read_text()
    assert [False, False] == [holds(fleet.hosts[name]) for name in ("web2", "web3")]
    web1.run("rm", "/etc/nginx/conf.d/mtlsctl.conf")
    ran = estate.good("apply", "--yes", "--batch", "1,100%", "-o", "json")
    assert {"done"} == set(statuses(ran).values())


def test_a_stream_tells_of_each_host_as_it_goes(estate: Estate) -> None:
    told = [json.loads(line) for line in estate.good("apply", "--yes", "-o", "ndjson").out.splitlines()]
    started = [(one["host"], one["process"]) for one in told if one.get("status") == "started"]
    done = [(one["host"], one["process"]) for one in told if one.get("status") == "done"]
    assert sorted(started) == sorted(done)
    assert 6 == len(done)
    assert ("version", "summary", 6) == (told[0]["type"], told[-1]["type"], told[-1]["done"])


def test_on_a_terminal_what_runs_is_shown_and_then_gone(estate: Estate, fleet: Fleet) -> None:
    slow(fleet.hosts["web1"])
    environ = {**estate.environ, "CI": "", "MTLSCTL_KEY_SOURCE": f"file:{estate.key_file}"}
    released = release_soon(fleet.hosts["web1"])
    code, said = on_a_terminal(estate, "yes", "apply", **environ)
    released.wait()
    assert code == 0
    assert "running, " in said
    assert any("web1 nginx  " in drawn for drawn in said.split("running, "))
    assert said.rstrip().endswith("Next: mtlsctl verify")


# --- interrupted ----------------------------------------------------------------------------------------------------


def slow(host: Sshd) -> None:
    """Its check of nginx goes on until /run/slow is gone."""
    program = host.path("/usr/local/sbin/nginx")
    program.write_text(SLOW)
    program.chmod(0o755)
    host.path("/run/slow").touch()


def release_soon(host: Sshd) -> subprocess.Popen[bytes]:
    import subprocess  # noqa: PLC0415  one test

    script = f"while [ ! -e {host.path('/run/checking')} ]; do sleep 0.05; done; sleep 1; rm {host.path('/run/slow')}"
    return subprocess.Popen(["sh", "-c", script])


def await_check(host: Sshd) -> None:
    end = time.monotonic() + 30
    while not host.path("/run/checking").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], within: float = 30) -> Ran:
    out, err = process.communicate(timeout=within)
    return Ran(code=process.returncode, out=out, err=err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_finishes_the_hosts_that_are_under_way(
    estate: Estate, fleet: Fleet, number: signal.Signals, code: int
) -> None:
    web1 = fleet.hosts["web1"]
    slow(web1)
    process = estate.start("apply", "--yes", "--forks", "1")
    await_check(web1)
    os.kill(process.pid, number)
    time.sleep(0.5)
    assert process.poll() is None
    web1.path("/run/slow").unlink()
    ran = ended(process)
    assert code == ran.code
    assert "stopping after what is under way on the hosts" in ran.err
    done = [line for line in ran.err.splitlines() if "status=done" in line]
    assert "web1 process=nginx" in done[-1]
    assert [True, False, False] == [holds(one) for one in fleet.hosts.values()]
    estate.good("apply", "--yes")
    assert estate.good("plan").out.startswith("Nothing to change.")


def test_a_second_interruption_stops_at_once_and_the_next_apply_goes_on(estate: Estate, fleet: Fleet) -> None:
    web1 = fleet.hosts["web1"]
    slow(web1)
    process = estate.start("apply", "--yes")
    await_check(web1)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    assert 130 == ended(process).code
    assert time.monotonic() - began < 8
    web1.path("/run/slow").unlink()
    estate.good("apply", "--yes")
    assert estate.good("plan").out.startswith("Nothing to change.")


def test_a_termination_waits_no_longer_than_its_grace(estate: Estate, fleet: Fleet) -> None:
    web1 = fleet.hosts["web1"]
    slow(web1)
    process = estate.start("apply", "--yes", before="import mtlsctl.cli.app as app; app.GRACE_SECONDS = 1")
    await_check(web1)
    os.kill(process.pid, signal.SIGTERM)
    began = time.monotonic()
    assert 143 == ended(process).code
    assert 0.8 < time.monotonic() - began < 10
    web1.path("/run/slow").unlink()
    estate.good("apply", "--yes")
