"""Whatever changes, no request of a declared caller fails: new connections go on while `mtlsctl apply` works."""

from __future__ import annotations

import contextlib
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from mtlsctl.model.plan import Wave
from mtlsctl.operations.apply import Wishes
from mtlsctl.operations.apply import apply as apply_now
from mtlsctl.planner.plan import make_plan
from tests.integration.estate import LOOPBACK, Estate, Inventory, internal, workspace_of
from tests.integration.load import Load, NodeLoad, Phases, by_curl_files, through_egress
from tests.integration.peers import (
    LET_IN,
    TURNED_AWAY,
    UNREACHABLE,
    Apache,
    Nginx,
    NodeServer,
    Place,
    Posing,
    Shown,
    by_python,
    posing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from mtlsctl.model.plan import Plan

pytestmark = [pytest.mark.usefixtures("loopback"), pytest.mark.peer("nginx"), pytest.mark.peer("node")]

BOTH = ["1.2", "1.3"]
CALLERS = ("mail", "social", "portal")
STALL_MILLISECONDS = 600
PROXIES: dict[str, type[Nginx | Apache]] = {"nginx": Nginx, "apache": Apache}


class Stage:
    """A server with callers: `mail` and `guest` with curl's files, `social` in Node, `portal` through a proxy."""

    def __init__(self, folder: Path, runtime: str, protocols: list[str], stall_milliseconds: int = 0) -> None:
        self.runtime, self.protocols, self.stall_milliseconds = runtime, protocols, stall_milliseconds
        self.portal = "apache" if runtime == "apache" else "nginx"
        self.estate = Estate(folder)
        self.saved = folder / "saved"
        self.hosts = {name: self.estate.address(n) for n, name in enumerate(("north", "south", "east"), 2)}
        self.ports = [self.estate.free_port(self.hosts["north"]) for _ in range(2)]
        self.egress = self.estate.free_port(LOOPBACK)
        self.inventory = self._first()

    def _first(self) -> Inventory:
        process = self.runtime if self.runtime in PROXIES else "schedule"
        pid_files = {"north": process, "south": self.portal, "east": "social"}
        main = {"name": "main", "port": self.ports[0], "bind": "host", "protocols": self.protocols}
        return {
            "version": 1,
            "name": "calendar",
            "hosts": {
                name: {"directory": f"out/{name}", "address": address}
                | {"pid_files": {pid_files[name]: f"run/{pid_files[name]}.pid"}}
                for name, address in self.hosts.items()
            },
            "services": {
                "schedule": {"runtime": self.runtime, "hosts": ["north"]}
                | {"listeners": [main | {"callers": [*CALLERS, "guest"]}]},
                "mail": {"runtime": "curl", "hosts": ["east"]},
                "guest": {"runtime": "curl", "hosts": ["east"]},
                "social": {"runtime": "node", "hosts": ["east"]},
                "portal": {
                    "runtime": self.portal,
                    "hosts": ["south"],
                    "settings": {"egress": {"schedule": self.egress}},
                },
            },
        }

    @property
    def services(self) -> dict[str, Any]:
        return self.inventory["services"]  # type: ignore[no-any-return]

    @property
    def main(self) -> dict[str, Any]:
        (server,) = (service for service in self.services.values() if "listeners" in service)
        return server["listeners"][0]  # type: ignore[no-any-return]

    def server(self) -> contextlib.AbstractContextManager[object]:
        north, address = self.estate.host("north"), self.hosts["north"]
        if self.runtime in PROXIES:
            return PROXIES[self.runtime](north, [(address, self.ports[0])])
        # Its author opens the new port before the inventory says so; mtlsctl cannot do that for a program.
        doors = [("main", address, port) for port in self.ports]
        return NodeServer(north, "schedule", doors, stall_milliseconds=self.stall_milliseconds)

    def current(self, service: str) -> Path:
        return self.estate.current("east", service)

    def save(self, service: str, name: str) -> Path:
        """A caller's release as it is now, kept by one who does not want to let go."""
        kept = self.saved / name
        shutil.copytree(self.current(service).resolve(), kept)
        return kept

    def leaf(self, service: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.current(service).resolve() / "tls.crt").read_bytes())

    def place(self, *, port: int = 0, name: str = "") -> Place:
        return Place(name or internal("schedule"), self.hosts["north"], port or self.main["port"])

    def call(self, folder: Path, place: Place | None = None, pose: Posing | None = None) -> Shown:
        return by_python(folder, "schedule", "schedule", place or self.place(), pose=pose)

    def newer_cas(self, *services: str) -> None:
        for name in services:
            asked = self.services[name].get("certification_authority", {"generation": 1})
            self.services[name]["certification_authority"] = {"generation": asked["generation"] + 1}

    def apply(self) -> None:
        self.estate.apply(self.inventory)


@contextlib.contextmanager
def under_load(stage: Stage) -> Iterator[tuple[Load, NodeLoad]]:
    """Everything is applied and up; six threads and a Node program call."""
    stage.apply()
    mails = [
        ("mail", partial(by_curl_files, stage.current("mail"), "schedule", "schedule", tls))
        for tls in stage.protocols * (4 // len(stage.protocols))
    ]
    portals = [("portal", through_egress("schedule", stage.egress))] * 2
    with (
        stage.server(),
        PROXIES[stage.portal](stage.estate.host("south"), [(LOOPBACK, stage.egress)]),
        NodeLoad(stage.estate.host("east"), "social", "schedule") as node,
        Load([*mails, *portals]) as load,
    ):
        yield load, node


def callers_cas(stage: Stage) -> None:
    """All callers get CAs with new keys; the old ones are good for nothing afterwards."""
    before = stage.save("mail", "before-callers-cas")
    stage.newer_cas(*CALLERS)
    stage.apply()
    assert "CN=mail.calendar CA g2" == stage.leaf("mail").issuer.rfc4514_string()
    assert TURNED_AWAY == stage.call(stage.current("mail"), pose=posing(before)).outcome


def servers_ca(stage: Stage) -> None:
    """The server gets a CA with a new key; who believes the old one alone does not believe it any more."""
    before = stage.save("mail", "before-servers-ca")
    stage.newer_cas("schedule")
    stage.apply()
    assert "CERTIFICATE_VERIFY_FAILED" in stage.call(before).detail


def edge_removal(stage: Stage) -> None:
    """One caller is let in no longer, with files that were good until then."""
    before = stage.save("guest", "before-removal")
    assert LET_IN == stage.call(before).outcome
    stage.main["callers"].remove("guest")
    stage.apply()
    assert TURNED_AWAY == stage.call(before).outcome


def port_change(stage: Stage) -> None:
    """Callers move to the new port; nginx and Apache close the old one, a program's own socket is its own affair."""
    stage.main["port"] = stage.ports[1]
    stage.apply()
    assert LET_IN == stage.call(stage.current("mail"), stage.place(port=stage.ports[1])).outcome
    at_the_old = stage.call(stage.current("mail"), stage.place(port=stage.ports[0])).outcome
    assert (UNREACHABLE if stage.runtime in PROXIES else LET_IN) == at_the_old


def rename(stage: Stage) -> None:
    """Callers check the new name."""
    stage.services["schedule"]["names"] = ["agenda.example.com"]
    stage.apply()
    assert LET_IN == stage.call(stage.current("mail"), stage.place(name="agenda.example.com")).outcome


def service_renamed(stage: Stage) -> None:
    """Its name in the inventory is another one; the certificate is the same, and callers know it by both names."""
    before = stage.place()
    served = stage.call(stage.current("mail"), before)
    _call_service(stage, "schedule", "agenda", names=[internal("schedule")])
    stage.services["portal"]["settings"]["egress"] = {"agenda": stage.egress}
    stage.apply()
    assert served == stage.call(stage.current("mail"), before)
    assert not (stage.estate.host("north") / "etc/mtlsctl/schedule").exists()


def caller_renamed(stage: Stage) -> None:
    """The same of one that calls: it goes on under the subject that it has."""
    _call_service(stage, "portal", "gate", names=[internal("portal")])
    stage.apply()


def default_name_follows(stage: Stage) -> None:
    """Without `names` the service answers to another one, by default: callers move to it, and the CA is a new one."""
    del stage.services["agenda"]["names"]
    stage.apply()
    assert LET_IN == stage.call(stage.current("mail"), stage.place(name=internal("agenda"))).outcome


def all_at_once(stage: Stage) -> None:
    """Name, default name and the callers' CAs in one edit, over a rename that everybody still has in both names."""
    _call_service(stage, "agenda", "plans")
    stage.services["gate"]["settings"]["egress"] = {"plans": stage.egress}
    stage.newer_cas("mail", "social", "gate")
    stage.apply()


def under_a_shared_ca(stage: Stage) -> None:
    for service in stage.services.values():
        service.pop("certification_authority", None)
    stage.inventory["trust"] = {"model": "shared-ca"}
    stage.apply()


def member_renamed(stage: Stage) -> None:
    """Listeners compare its name, so its leaf is issued anew; they let in both in between."""
    _call_service(stage, "gate", "entry")
    stage.apply()


def _call_service(stage: Stage, old: str, new: str, **more: Any) -> None:
    stage.services[new] = stage.services.pop(old) | more
    for service in stage.services.values():
        for listener in service.get("listeners", ()):
            listener["callers"] = [new if one == old else one for one in listener["callers"]]
    stage.inventory.setdefault("moved", []).append({"service": old, "to": new})


def new_lifetime(stage: Stage) -> None:
    """Every leaf is issued anew, by the same CAs."""
    before = stage.leaf("mail")
    stage.inventory["defaults"] = {"certificate": {"lifetime": "60d", "renew_before": "20d"}}
    stage.apply()
    assert before.issuer == stage.leaf("mail").issuer
    assert before.serial_number != stage.leaf("mail").serial_number


def shared_ca(stage: Stage) -> None:
    """One CA for all: what it vouches for gets in by name alone."""
    before = stage.save("mail", "before-shared-ca")
    stage.inventory["trust"] = {"model": "shared-ca"}
    stage.apply()
    assert "CN=calendar CA g1" == stage.leaf("mail").issuer.rfc4514_string()
    assert TURNED_AWAY == stage.call(stage.current("mail"), pose=posing(before)).outcome


def newer_shared_ca(stage: Stage) -> None:
    """The CA of all gets a new key; the old one is good for nothing afterwards."""
    before = stage.save("mail", "before-newer-shared-ca")
    stage.inventory["trust"]["certification_authority"] = {"generation": 2}
    stage.apply()
    assert "CN=calendar CA g2" == stage.leaf("mail").issuer.rfc4514_string()
    assert TURNED_AWAY == stage.call(stage.current("mail"), pose=posing(before)).outcome


def edge_removal_by_name(stage: Stage) -> None:
    """One caller is let in no longer, though the CA that vouches for it is trusted on."""
    before = stage.save("guest", "before-removal")
    assert LET_IN == stage.call(before).outcome
    stage.main["callers"].remove("guest")
    stage.apply()
    assert TURNED_AWAY == stage.call(before).outcome
    assert LET_IN == stage.call(stage.current("mail")).outcome


def pinned(stage: Stage) -> None:
    """Every leaf signs itself; a member of the shared CA is a stranger."""
    before = stage.save("mail", "before-pinned")
    stage.inventory["trust"] = {"model": "pinned"}
    stage.apply()
    assert "CN=mail" == stage.leaf("mail").issuer.rfc4514_string()
    assert TURNED_AWAY == stage.call(stage.current("mail"), pose=posing(before)).outcome


def new_lifetime_of_pinned(stage: Stage) -> None:
    """Every leaf is issued anew, which every peer has to learn; the old ones are refused in the end."""
    before = stage.save("mail", "before-new-leaf")
    stage.inventory["defaults"] = {"certificate": {"lifetime": "60d", "renew_before": "20d"}}
    stage.apply()
    assert TURNED_AWAY == stage.call(stage.current("mail"), pose=posing(before)).outcome


def service_cas(stage: Stage) -> None:
    """Back to a CA of each service's own."""
    before = stage.save("mail", "before-service-cas")
    del stage.inventory["trust"]
    stage.apply()
    assert stage.leaf("mail").issuer.rfc4514_string().startswith("CN=mail.calendar CA g")
    assert TURNED_AWAY == stage.call(stage.current("mail"), pose=posing(before)).outcome


def without_a_failure(stage: Stage, changes: Iterable[Callable[[Stage], None]]) -> None:
    phases = Phases()
    with under_load(stage) as (load, node):
        for change in changes:
            with phases.phase(change.__name__):
                change(stage)
        calls = [*load.calls, *node.calls()]
    assert {} == phases.failures(calls)
    assert phases.least(calls) >= 10


@pytest.mark.parametrize("runtime", ["nginx", "node", pytest.param("apache", marks=pytest.mark.peer("apache2"))])
def test_no_declared_request_fails_whatever_changes(tmp_path: Path, runtime: str) -> None:
    changes = (callers_cas, servers_ca, edge_removal, port_change, rename, new_lifetime)
    without_a_failure(Stage(tmp_path, runtime, BOTH), changes)


@pytest.mark.parametrize("runtime", ["nginx", pytest.param("apache", marks=pytest.mark.peer("apache2"))])
def test_no_declared_request_fails_when_services_are_renamed(tmp_path: Path, runtime: str) -> None:
    """Programs that call go on calling by the name that they know; behind the server is one that stays what it is."""
    stage = Stage(tmp_path, runtime, BOTH)
    changes = (
        *(service_renamed, caller_renamed, default_name_follows, all_at_once),
        *(under_a_shared_ca, member_renamed),
    )
    with answering("schedule") as port:
        stage.services["schedule"]["settings"] = {"upstream": f"http://{LOOPBACK}:{port}"}
        without_a_failure(stage, changes)


@contextlib.contextmanager
def answering(text: str) -> Iterator[int]:
    """A program behind a server that answers everything with one line; gives its port on LOOPBACK."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"{text}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("runtime", ["nginx", "node"])
def test_no_declared_request_fails_when_the_trust_model_changes(tmp_path: Path, runtime: str) -> None:
    """From a CA of each service's own to a shared one and to leaves that sign themselves, and back."""
    changes = (shared_ca, newer_shared_ca, edge_removal_by_name, pinned, new_lifetime_of_pinned, service_cas)
    without_a_failure(Stage(tmp_path, runtime, BOTH), changes)


def test_no_declared_request_fails_at_a_program_that_stalls_and_hides_whom_it_asks_for(tmp_path: Path) -> None:
    """It takes up a release late, and calls that began before a switch arrive after it; TLS 1.3 hides its CAs."""
    without_a_failure(Stage(tmp_path, "node", ["1.3"], STALL_MILLISECONDS), (callers_cas, servers_ca))


@pytest.mark.parametrize("runtime", ["nginx", "node", pytest.param("apache", marks=pytest.mark.peer("apache2"))])
def test_the_naive_order_fails_under_the_same_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """Without this the tests above would prove nothing: the leaf comes before the trust in it, and requests fail."""
    stage, phases = Stage(tmp_path, runtime, BOTH), Phases()
    with under_load(stage) as (load, node):
        monkeypatch.setattr("mtlsctl.operations.apply.make_plan", leaf_before_trust)
        with phases.phase("callers"):
            stage.newer_cas(*CALLERS)
            apply_hastily(stage)
        with phases.phase("server"):
            stage.newer_cas("schedule")
            apply_hastily(stage)
        failed = phases.failures([*load.calls, *node.calls()])
    assert {"callers", "server"} == failed.keys()
    assert {"mail", "social"} <= {caller for caller, _ in failed["callers"]}


def apply_hastily(stage: Stage) -> None:
    stage.estate.declare(stage.inventory)
    done = apply_now(workspace_of(stage.estate), Wishes(approve=lambda _: True, report=lambda _: None))
    assert done.is_whole, done.processes


def leaf_before_trust(*arguments: Any) -> Plan:
    """The plan without its waits, activations first."""
    plan = make_plan(*arguments)
    hasty = sorted(plan.steps, key=lambda step: (step.id.wave is not Wave.ACTIVATE, step.id.wave, step.process))
    return replace(plan, steps=tuple(replace(step, waits_for=frozenset()) for step in hasty))
