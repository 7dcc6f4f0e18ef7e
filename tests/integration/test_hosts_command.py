"""What there is at a host before anything is delivered to it, and whose key it shows: nothing is accepted unasked."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.deliver.reach import OPENSSH, PARAMIKO
from tests.cli.test_terminal import on_a_terminal
from tests.integration.fleet import DEPLOYER, STRANGER, Fleet, free_port, needs_a_fleet
from tests.integration.repository import Estate, Ran, calendar, make_estate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.fleet import Sshd

pytestmark = needs_a_fleet()

LATE = """\
#!/bin/sh
# An hour ahead, but what it is asked to read is read as it is.
case $1 in -d) exec /bin/date "$@" ;; esac
exec /bin/date -d '+1 hour' "$@"
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture(scope="module")
def web1(fleet: Fleet) -> Sshd:
    return fleet.start("web1", own=["/usr/local/sbin"])


@pytest.fixture(scope="module")
def web2(fleet: Fleet) -> Sshd:
    return fleet.start("web2")


@pytest.fixture
def estate(fleet: Fleet, web1: Sshd, web2: Sshd, tmp_path: Path) -> Iterator[Estate]:
    """Nothing is applied; every host is known."""
    before = fleet.known_hosts.read_text()
    estate = replace(make_estate(tmp_path / "estate"), environ={**fleet.environment(), "MTLSCTL_NO_INPUT": "1"})
    estate.write(inventory(web1, web2))
    yield estate
    fleet.known_hosts.write_text(before)
    for late in (web1.path("/usr/local/sbin/date"), web1.path("/usr/local/sbin/nginx")):
        late.unlink(missing_ok=True)


def inventory(web1: Sshd, web2: Sshd, **more: Any) -> dict[str, Any]:
    made = calendar(hosts={"web1": host(web1), "web2": host(web2, user=DEPLOYER, become=True), **more})
    made["services"]["schedule"]["listen"] = free_port(web1.address)
    return made


def host(sshd: Sshd, user: str = "root", **more: object) -> dict[str, Any]:
    return {"address": sshd.address, "port": sshd.port, "user": user, **more}


def report(ran: Ran, name: str) -> dict[str, Any]:
    (found,) = (one for one in ran.json["hosts"] if one["name"] == name)
    return dict(found)


def codes(found: dict[str, Any]) -> list[str]:
    return [one["code"] for one in found["findings"]]


# --- list -----------------------------------------------------------------------------------------------------------


def test_hosts_are_listed_with_the_way_to_them(estate: Estate, web1: Sshd, web2: Sshd) -> None:
    estate.write(inventory(web1, web2, here={"directory": "out"}))
    lines = estate.good("hosts", "list").out.splitlines()
    assert [["web1", "ssh"], ["web2", "ssh"], ["here", "folder"]] == [line.split()[:2] for line in lines]
    assert f"{DEPLOYER}@{web2.address}:{web2.port}" in lines[1]
    assert "sudo" in lines[1]
    listed = estate.good("hosts", "list", "-o", "json").json["hosts"]
    assert [["mail", "schedule"], ["report", "social"], []] == [one["services"] for one in listed]


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [PARAMIKO, OPENSSH])
def test_a_fit_host_is_described(estate: Estate, transport: str) -> None:
    ran = estate.good("hosts", "check", "-o", "json", MTLSCTL_SSH_TRANSPORT=transport)
    for name in ("web1", "web2"):
        found = report(ran, name)
        assert (True, None, 0) == (found["fit"], found["error"], found["uid"])
        assert {"openssl", "tar", "coreutils", "flock"} <= found["tools"].keys()
        assert abs(found["clock_off_seconds"]) < 5
        assert found["free_bytes"] > 0
    nginx = next(one for one in report(ran, "web1")["processes"] if one["name"] == "nginx")
    assert ("nginx-test", "signal-hup-master", ["schedule"]) == (nginx["check"], nginx["reload"], nginx["services"])


def test_it_is_told_in_words(estate: Estate) -> None:
    said = estate.good("hosts", "check", "web2").out
    assert "sudo" in said
    assert "works as root" in said
    assert "openssl 3." in said
    assert "social: social; " in said
    assert said.endswith("1 host: 1 fit, 0 not.\n")
    assert "web1" not in said


def test_nothing_is_left_on_a_host_that_was_checked(estate: Estate, web1: Sshd) -> None:
    before = web1.run("find", "/etc", "/root", "-newer", "/run/host/authorized_keys").stdout
    estate.good("hosts", "check")
    assert before == web1.run("find", "/etc", "/root", "-newer", "/run/host/authorized_keys").stdout


def test_a_host_that_is_not_fit_is_told_beside_those_that_are(estate: Estate, web1: Sshd, web2: Sshd) -> None:
    with socket.create_server(("127.9.77.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    made = inventory(web1, web2, web3={"address": "127.9.77.1", "port": port, "user": "root"})
    made["hosts"]["web2"] = host(web2, user=STRANGER, become=True)
    estate.write(made)
    ran = estate.run("hosts", "check", "-o", "json")
    assert 3 == ran.code == ran.json["exit_code"]
    assert [True, False, False] == [one["fit"] for one in ran.json["hosts"]]
    assert "M4307" == report(ran, "web2")["error"]["code"]
    assert "M4303" == report(ran, "web3")["error"]["code"]
    said = estate.run("hosts", "check", "web2").out
    assert "M4307 web2: sudo does not let this user become root without a password" in said
    assert "NOPASSWD" in said


def test_a_host_whose_key_is_not_known_hears_nothing_from_us(estate: Estate, fleet: Fleet, web1: Sshd) -> None:
    fleet.forget_all()
    ran = estate.run("hosts", "check", "web1", "-o", "json")
    assert (3, "M4304") == (ran.code, report(ran, "web1")["error"]["code"])
    assert web1.host_key().fingerprint in "".join(report(ran, "web1")["error"]["notes"])


def test_a_clock_that_is_far_off_is_found_and_keeps_an_apply_from_that_host(estate: Estate, web1: Sshd) -> None:
    date = web1.path("/usr/local/sbin/date")
    date.write_text(LATE)
    date.chmod(0o755)
    ran = estate.run("hosts", "check", "web1", "-o", "json")
    assert (3, ["M4313"]) == (ran.code, codes(report(ran, "web1")))
    assert 3590 < report(ran, "web1")["clock_off_seconds"] < 3610
    ran = estate.run("apply", "--yes", "-o", "json")
    assert 3 == ran.code
    failed = {(one["host"], one["code"]) for one in ran.json["processes"] if one["status"] == "failed"}
    assert {("web1", "M4313")} == failed
    assert not web1.path("/etc/mtlsctl/mail").exists()
    date.unlink()
    estate.good("apply", "--yes")
    estate.good("hosts", "check")


def test_a_program_that_is_too_old_and_a_port_that_is_taken_are_found(estate: Estate, web1: Sshd, web2: Sshd) -> None:
    program = web1.path("/usr/local/sbin/nginx")
    program.write_text("#!/bin/sh\necho nginx version: nginx/1.18.0 >&2\n")
    program.chmod(0o755)
    made = inventory(web1, web2)
    with socket.create_server((web1.address, 0)) as somebody:
        made["services"]["schedule"]["listen"] = somebody.getsockname()[1]
        estate.write(made)
        ran = estate.run("hosts", "check", "web1", "-o", "json")
    assert (3, ["M4316", "M4317"]) == (ran.code, codes(report(ran, "web1")))
    old, taken = report(ran, "web1")["findings"]
    assert "nginx there is 1.18.0" in old["message"]
    assert ("error", "warning") == (old["severity"], taken["severity"])
    ran = estate.run("plan")
    assert 7 == ran.code
    assert "error[M2042]: `schedule` cannot be on web1: nginx there is 1.18.0" in ran.err
    program.unlink()
    estate.good("hosts", "check", "web1")  # looks again
    estate.good("plan")


def test_a_name_that_is_no_host_is_wrong_usage(estate: Estate) -> None:
    assert 64 == estate.run("hosts", "check", "web9").code
    assert 64 == estate.run("hosts", "check", "x*").code
    assert 64 == estate.run("hosts", "trust", "web9").code


def test_a_folder_is_looked_at_too(estate: Estate, web1: Sshd, web2: Sshd) -> None:
    estate.write(inventory(web1, web2, here={"directory": "out"}))
    assert "a folder, " in estate.good("hosts", "check", "here").out
    (estate.folder / "out").write_text("in the way")
    ran = estate.run("hosts", "check", "here", "-o", "json")
    assert (3, ["M4101"]) == (ran.code, codes(report(ran, "here")))


# --- trust ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [PARAMIKO, OPENSSH])
def test_a_key_that_was_compared_is_written_down_and_apply_works(
    estate: Estate, fleet: Fleet, web1: Sshd, web2: Sshd, transport: str
) -> None:
    fleet.forget_all()
    environ = {"MTLSCTL_SSH_TRANSPORT": transport}
    assert 3 == estate.run("hosts", "check", **environ).code
    for one in (web1, web2):
        ran = estate.good("hosts", "trust", one.host, "--fingerprint", one.host_key().fingerprint, **environ)
        assert f"{one.host} is known from now on by ED25519 {one.host_key().fingerprint}" in ran.out
    estate.good("hosts", "check", **environ)
    assert 2 == len(fleet.known_hosts.read_text().splitlines())
    ran = estate.good("hosts", "trust", "web1", **environ)  # nothing is asked about what is known
    assert "is known already by" in ran.out
    assert 2 == len(fleet.known_hosts.read_text().splitlines())


def test_without_anybody_to_ask_nothing_is_accepted(estate: Estate, fleet: Fleet, web1: Sshd) -> None:
    fleet.forget_all()
    ran = estate.run("hosts", "trust", "web1")
    assert 64 == ran.code
    assert f"ED25519 {web1.host_key().fingerprint}" in ran.err
    assert "" == fleet.known_hosts.read_text()


@pytest.mark.parametrize(("answer", "is_trusted"), [("yes", True), ("y", False), ("", False)])
def test_whoever_is_asked_sees_the_fingerprint_first(
    estate: Estate, fleet: Fleet, web1: Sshd, answer: str, *, is_trusted: bool
) -> None:
    fleet.forget_all()
    environ = {**estate.environ, "MTLSCTL_NO_INPUT": "", "CI": "", "MTLSCTL_KEY_SOURCE": f"file:{estate.key_file}"}
    code, said = on_a_terminal(estate, answer, "hosts", "trust", "web1", question="Is it the same?", **environ)
    assert (0 if is_trusted else 1) == code
    before, _, _ = said.partition("Is it the same?")
    assert f"ED25519 {web1.host_key().fingerprint}" in before
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in before
    assert is_trusted is bool(fleet.known_hosts.read_text())


def test_another_fingerprint_than_the_one_that_is_shown_is_refused(estate: Estate, fleet: Fleet, web2: Sshd) -> None:
    fleet.forget_all()
    ran = estate.run("hosts", "trust", "web1", "--fingerprint", web2.host_key().fingerprint)
    assert 3 == ran.code
    assert "M4304" in ran.err
    assert "" == fleet.known_hosts.read_text()


@pytest.mark.parametrize("fingerprint", ["", "SHA256:abc", "MD5:00:11", "yes", "SHA256:" + "a" * 44])
def test_what_is_no_fingerprint_is_wrong_usage(estate: Estate, fleet: Fleet, fingerprint: str) -> None:
    fleet.forget_all()
    assert 64 == estate.run("hosts", "trust", "web1", "--fingerprint", fingerprint).code
    assert "" == fleet.known_hosts.read_text()


@pytest.mark.parametrize("place", ["user", "global"])
def test_a_key_that_has_changed_is_never_replaced(
    estate: Estate, fleet: Fleet, web1: Sshd, web2: Sshd, tmp_path: Path, place: str
) -> None:
    """Neither with the right fingerprint, nor when another file knows the old one."""
    old = f"[{web1.address}]:{web1.port} {web2.host_key().text}\n"
    known, system = fleet.known_hosts, tmp_path / "ssh_known_hosts"
    known.write_text(old if place == "user" else "")
    system.write_text(old if place == "global" else "")
    fleet.configure(f"GlobalKnownHostsFile {system}")
    before = known.read_text()
    try:
        for more in ([], ["--fingerprint", web1.host_key().fingerprint]):
            ran = estate.run("hosts", "trust", "web1", *more)
            assert 3 == ran.code
            assert "M4305" in ran.err
            assert web1.host_key().fingerprint in ran.err
            assert web2.host_key().fingerprint in ran.err
            assert "take the old line out" in " ".join(ran.err.split())
    finally:
        fleet.configure()
    assert before == known.read_text()


def test_a_folder_has_no_key(estate: Estate, web1: Sshd, web2: Sshd) -> None:
    estate.write(inventory(web1, web2, here={"directory": "out"}))
    ran = estate.run("hosts", "trust", "here")
    assert 64 == ran.code
    assert "is a folder" in ran.err


def test_a_jump_host_is_trusted_by_its_name(estate: Estate, fleet: Fleet, web1: Sshd, web2: Sshd) -> None:
    made = inventory(web1, web2)
    made["hosts"]["web1"]["jump"] = f"root@{web2.address}:{web2.port}"
    estate.write(made)
    fleet.forget_all()
    ran = estate.run("hosts", "check", "web1", "-o", "json")
    assert (3, "M4311") == (ran.code, report(ran, "web1")["error"]["code"])
    assert web2.host_key().fingerprint in str(report(ran, "web1")["error"])
    estate.good("hosts", "trust", web2.address, "--fingerprint", web2.host_key().fingerprint)
    estate.good("hosts", "trust", "web1", "--fingerprint", web1.host_key().fingerprint)
    estate.good("hosts", "check", "web1")


def test_without_a_state_hosts_are_checked_all_the_same(estate: Estate) -> None:
    estate.state.unlink()
    estate.good("hosts", "check")
    assert not estate.state.exists()


def test_a_state_that_is_broken_is_told_and_left_alone(estate: Estate) -> None:
    estate.state.write_bytes(b"this is no state" * 300)
    ran = estate.run("hosts", "check")
    assert 1 == ran.code
    assert "error[M3" in ran.err
