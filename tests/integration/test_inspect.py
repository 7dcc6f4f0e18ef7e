"""`mtlsctl inspect HOST:PORT` against a real nginx, and against embedded servers that hold applied files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.operations.verify import AppliedFiles
from mtlsctl.verify.embedded import EmbeddedServers, ListenerKey, listeners_of
from tests.integration.estate import ESTATE, Estate, Inventory, Ran, internal, workspace_of
from tests.integration.peers import Nginx

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("loopback")]


class Site:
    """schedule behind nginx on a host of its own; mail may call, social may not."""

    def __init__(self, folder: Path) -> None:
        self.estate = Estate(folder)
        self.address = self.estate.address(2)
        self.port = self.estate.free_port(self.address)
        self.target = f"{self.address}:{self.port}"

    def inventory(self, *callers: str, **changes: Any) -> Inventory:
        listening = {"runtime": "nginx", "hosts": ["north"], "listen": self.port, "bind": "host"}
        return {
            "version": 1,
            "name": ESTATE,
            "hosts": {
                "north": {"directory": "out/north", "address": self.address},
                "west": {"directory": "out/west", "address": self.estate.address(3)},
            },
            "services": {
                "schedule": {**listening, "callers": list(callers), **changes},
                "mail": {"runtime": "pem", "hosts": ["west"]},
                "social": {"runtime": "pem", "hosts": ["west"]},
            },
        }

    def nginx(self) -> Nginx:
        return Nginx(self.estate.host("north"), [(self.address, self.port)])

    def inspect(self, *arguments: object) -> Ran:
        return self.estate.run("inspect", self.target, *arguments)

    def document(self, *arguments: object) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.inspect("-o", "json", *arguments).out)
        return document


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.estate.apply(site.inventory("mail"))
    return site


def problems(document: dict[str, Any]) -> set[str]:
    return {one["code"] for one in document["diagnostics"]}


@pytest.mark.peer("nginx")
def test_a_server_of_the_estate_is_known_and_nothing_is_wrong_with_it(site: Site) -> None:
    with site.nginx():
        document = site.document()
        text = " ".join(site.inspect().out.split())
    server, (certificate,) = document["server"], document["certificates"]
    assert (0, set()) == (document["exit_code"], problems(document))
    assert ("schedule@north", "main", internal("schedule"), "estate") == (
        server["instance"], server["listener"], server["server_name"], server["server_name_from"],
    )  # fmt: skip
    assert {"1.2": True, "1.3": True} == {name: one["spoken"] for name, one in server["versions"].items()}
    assert (True, True) == (server["asks_for_certificate"], server["requires_certificate"])
    assert [{"name": "CN=mail.calendar CA g1", "anchor": "mail CA g1"}] == server["ca_names"]
    assert ("live", [{"caller": "mail@west", "listener": "schedule"}]) == (
        certificate["estate"]["role"], certificate["estate"]["believed_by"],
    )  # fmt: skip
    assert "asks for a client certificate of CN=mail.calendar CA g1 (mail CA g1); required" in text
    assert "Nothing is wrong with what it shows." in text


@pytest.mark.peer("nginx")
def test_a_declared_caller_gets_in_and_another_does_not(site: Site) -> None:
    release = site.estate.current("west", "mail")
    chain, key = release / "tls.crt", release / "tls.key"
    with site.nginx():
        mail, social = site.document("--as", "mail"), site.document("--as", "social@west")
        files = site.document("--certificate", chain, "--key", key)
        mismatch = site.inspect("--certificate", chain, "--key", site.estate.current("west", "social") / "tls.key")
    assert ("mail@west", 200) == (mail["server"]["presented"], mail["server"]["with_certificate"]["http_status"])
    assert 400 == social["server"]["with_certificate"]["http_status"]
    assert 200 == files["server"]["with_certificate"]["http_status"]
    assert (1, True) == (mismatch.code, "M7309" in mismatch.err)
    assert not any(line in mismatch.err for line in key.read_text().splitlines()[1:-1])


@pytest.mark.peer("nginx")
def test_a_name_that_the_server_has_not_is_refused_and_said(site: Site) -> None:
    with site.nginx():
        ran = site.inspect("--server-name", "other.example.com")
    assert (1, True) == (ran.code, "error[M7325]" in ran.out)
    assert "alert unrecognized_name" in " ".join(ran.out.split())


@pytest.mark.peer("nginx")
def test_a_server_that_was_not_reloaded_is_found_by_its_certificate_and_by_whom_it_asks_for(site: Site) -> None:
    with site.nginx():
        site.estate.apply(site.inventory("mail", "social", names=["new.example.com", internal("schedule")]))
        document = site.document("--server-name", internal("schedule"))
    assert {"M7323", "M7324"} == problems(document) & {"M7323", "M7324"}
    assert 1 == document["exit_code"]
    assert "does not ask for social CA g1" in " ".join(one["summary"] for one in document["diagnostics"])
    assert "earlier" == document["certificates"][0]["estate"]["role"]


@pytest.mark.peer("nginx")
def test_a_server_that_asks_for_more_than_was_applied_is_found(site: Site) -> None:
    with site.nginx():
        site.estate.apply(site.inventory("social"))
        document = site.document()
    assert "M7324" in problems(document)
    assert "asks for certificates of CN=mail.calendar CA g1" in " ".join(
        one["summary"] for one in document["diagnostics"]
    )


def test_an_embedded_server_is_inspected_by_whoever_names_it(site: Site) -> None:
    workspace = workspace_of(site.estate)
    with workspace.store(ESTATE) as store:
        state = store.snapshot()
    (instance,) = (one for one in state.live if one.service == "schedule")
    files = AppliedFiles.read(workspace, state).files[instance]
    with EmbeddedServers(listeners_of(state.live[instance].recipe, files, state)) as servers:
        address, port = servers.address_of(ListenerKey(instance, "main"))
        ran = site.estate.run(
            "inspect", f"{address}:{port}", "--server-name", internal("schedule"), "--as", "mail", "-o", "json"
        )
        unnamed = site.estate.run("inspect", f"{address}:{port}")
    document = json.loads(ran.out)
    assert (0, 200) == (ran.code, document["server"]["with_certificate"]["http_status"])
    assert (True, []) == (document["server"]["requires_certificate"], document["server"]["ca_names"])
    assert "live" == document["certificates"][0]["estate"]["role"]
    assert (1, True) == (unnamed.code, "error[M7325]" in unnamed.out)


def test_where_nobody_listens_nothing_is_said_but_that(site: Site) -> None:
    ran = site.inspect()
    assert (1, "", True) == (ran.code, ran.out, "error[M7395]" in ran.err)
