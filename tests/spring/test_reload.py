"""What a running application takes up by itself, and what waits until somebody restarts it."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from tests.integration.estate import Estate, Inventory, internal
from tests.integration.load import Load, Phases, by_curl_files
from tests.integration.peers import LET_IN, TURNED_AWAY, Place, Shown, by_python, posing
from tests.spring.programs import SpringBoot, greeting, write_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("java")]

WAITS = 3


class Stage:
    """One application that serves, with callers that read curl's files."""

    def __init__(self, folder: Path, version: str, style: str) -> None:
        self.folder, self.version = folder, version
        self.estate = Estate(folder)
        self.hosts = {name: self.estate.address(number) for number, name in enumerate(("north", "east"), 2)}
        port = self.estate.free_port(self.hosts["north"])
        self.inventory: Inventory = {
            "version": 1,
            "name": "calendar",
            "hosts": {
                "north": {"directory": "out/north", "address": self.hosts["north"]}
                | {"pid_files": {"schedule": "run/schedule.pid"}},
                "east": {"directory": "out/east", "address": self.hosts["east"]},
            },
            "services": {
                "schedule": {"runtime": "spring-boot", "hosts": ["north"], "listen": port, "bind": "host"}
                | {"callers": ["mail", "guest"], "settings": {"spring_boot": version, "style": style}},
                "mail": {"runtime": "curl", "hosts": ["east"]},
                "guest": {"runtime": "curl", "hosts": ["east"]},
                "social": {"runtime": "curl", "hosts": ["east"]},
            },
        }

    @property
    def services(self) -> dict[str, Any]:
        return self.inventory["services"]  # type: ignore[no-any-return]

    @property
    def schedule(self) -> dict[str, Any]:
        return self.services["schedule"]  # type: ignore[no-any-return]

    @property
    def place(self) -> Place:
        name = self.schedule.get("names", [internal("schedule")])[0]
        return Place(name, self.hosts["north"], self.schedule["listen"])

    def server(self) -> SpringBoot:
        names = write_names(self.folder / "hosts", [self.place])
        return SpringBoot(self.version, self.estate.host("north"), "schedule", names, self.place)

    def release(self, caller: str) -> Path:
        return self.estate.current("east", caller).resolve()

    def call(self, folder: Path) -> Shown:
        return by_python(folder, "schedule", greeting("schedule"), self.place)

    def leaf(self) -> x509.Certificate:
        current = self.estate.current("north", "schedule")
        return x509.load_pem_x509_certificate((current / "tls.crt").read_bytes())

    def newer_ca(self, service: str) -> None:
        self.services[service]["certification_authority"] = {"generation": 2}


def new_lifetime(stage: Stage) -> None:
    """Every leaf is issued anew, by the same CAs."""
    before = stage.leaf()
    stage.inventory["defaults"] = {"certificate": {"lifetime": "60d", "renew_before": "20d"}}
    stage.estate.apply(stage.inventory)
    assert before.serial_number != stage.leaf().serial_number


def callers_ca(stage: Stage) -> None:
    """A caller gets a CA with a new key; the old one is good for nothing afterwards."""
    before = stage.release("mail")
    stage.newer_ca("mail")
    stage.estate.apply(stage.inventory)
    assert TURNED_AWAY == stage.call(before).outcome


def servers_ca(stage: Stage) -> None:
    """The server gets a CA with a new key; who believes the old one alone does not believe it any more."""
    before = stage.release("mail")
    stage.newer_ca("schedule")
    stage.estate.apply(stage.inventory)
    assert "CERTIFICATE_VERIFY_FAILED" in stage.call(before).detail


def edge_removal(stage: Stage) -> None:
    """One caller is let in no longer, with files that were good until then."""
    before = stage.release("guest")
    assert LET_IN == stage.call(before).outcome
    stage.schedule["callers"].remove("guest")
    stage.estate.apply(stage.inventory)
    assert TURNED_AWAY == stage.call(before).outcome


@contextlib.contextmanager
def under_load(stage: Stage) -> Iterator[Load]:
    mail = stage.estate.current("east", "mail")
    callers = [
        ("mail", partial(by_curl_files, mail, "schedule", greeting("schedule"), tls)) for tls in ("1.2", "1.3") * 2
    ]
    with stage.server(), Load(callers) as load:
        yield load


@pytest.mark.parametrize("version", ["3.5", "4.1"])
def test_no_declared_request_fails_while_an_application_follows_what_is_applied(tmp_path: Path, version: str) -> None:
    """Without a restart: the watcher of the bundle sees each switch of `current`, and an apply waits until it did."""
    stage, phases = Stage(tmp_path, version, "bundle-pem"), Phases()
    stage.estate.apply(stage.inventory)
    changes: list[Callable[[Stage], None]] = [new_lifetime, callers_ca, servers_ca, edge_removal]
    with under_load(stage) as load:
        for change in changes:
            with phases.phase(change.__name__):
                change(stage)
        verified, status = stage.estate.run("verify"), stage.estate.run("status")
    assert {} == phases.failures(load.calls)
    assert phases.least(load.calls) >= 10
    assert (0, 0) == (verified.code, status.code), (verified, status)


def test_an_application_that_reads_once_goes_on_until_it_is_restarted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "2.7", "classic")
    stage.schedule["callers"] = ["mail", "guest"]
    stage.estate.apply(stage.inventory)
    with stage.server():
        assert LET_IN == stage.call(stage.release("guest")).outcome
        stage.schedule["callers"] = ["mail"]
        stage.estate.declare(stage.inventory)
        planned = stage.estate.run("plan")
        assert "schedule takes this up when you restart it on north" in planned.out
        assert "restart" in planned.out.partition("Processes")[2]
        before = stage.release("guest")
        assert 0 == stage.estate.run("apply", "--yes").code
        # The files are new, the program is not; verify says so.
        assert LET_IN == stage.call(before).outcome
        verified = stage.estate.run("verify")
        assert (4, True) == (verified.code, "guest" in verified.out), verified
    with stage.server():
        assert TURNED_AWAY == stage.call(before).outcome
        assert LET_IN == stage.call(stage.release("mail")).outcome
        assert 0 == stage.estate.run("verify").code


def test_what_waits_for_a_restart_stays_for_the_next_apply(tmp_path: Path) -> None:
    """A caller's new CA is not shown to an application that has not read it yet."""
    stage = Stage(tmp_path, "3.5", "bundle-jks")
    stage.estate.apply(stage.inventory)
    with stage.server():
        stage.newer_ca("mail")
        stage.estate.declare(stage.inventory)
        first = stage.estate.run("apply", "--yes")
        assert (WAITS, True) == (first.code, "the restart of schedule@north" in first.out), first
        assert LET_IN == stage.call(stage.release("mail")).outcome
    with stage.server():
        assert 0 == stage.estate.run("apply", "--yes").code
        assert LET_IN == stage.call(stage.release("mail")).outcome
        assert "CN=mail.calendar CA g2" in issuer_of(stage.release("mail"))


def issuer_of(release: Path) -> str:
    return x509.load_pem_x509_certificate((release / "tls.crt").read_bytes()).issuer.rfc4514_string()


def test_a_second_port_is_refused_since_an_application_has_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "3.5", "bundle-pem")
    stage.estate.apply(stage.inventory)
    stage.schedule["listen"] = stage.estate.free_port(stage.hosts["north"])
    stage.estate.declare(stage.inventory)
    planned = stage.estate.run("plan")
    assert (7, True) == (planned.code, "changes its port" in planned.err), planned


def test_pinned_leaves_are_told_apart_and_members_of_a_shared_authority_cannot_be(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "4.1", "bundle-pem")
    stage.inventory["trust"] = {"model": "shared-ca"}
    stage.estate.declare(stage.inventory)
    refused = stage.estate.run("plan")
    assert (7, True) == (refused.code, "spring-boot" in refused.err), refused
    stage.inventory["trust"] = {"model": "pinned"}
    stage.schedule["callers"] = ["mail"]
    stage.services["archive"] = {"runtime": "pem", "hosts": ["east"], "listen": 9443, "callers": ["guest"]}
    stage.estate.apply(stage.inventory)
    guest = stage.estate.current("east", "guest").resolve()
    with stage.server():
        assert LET_IN == stage.call(stage.release("mail")).outcome
        as_guest = by_python(stage.release("mail"), "schedule", greeting("schedule"), stage.place, pose=posing(guest))
        assert TURNED_AWAY == as_guest.outcome
        assert 0 == stage.estate.run("verify", "--edge", "mail->schedule").code
