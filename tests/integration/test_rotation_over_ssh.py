"""Releases in a row over SSH under load: each request is a new connection, and not one of them fails.

A handshake ends only when the key that a server holds fits the certificate that it shows, so a mismatched pair would be
a failed request too. MTLSCTL_ROTATIONS says how many releases; fifty take some minutes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.fleet import needs_a_fleet
from tests.integration.load import Load
from tests.integration.peers import LET_IN, Place, Shown, answered, caller_context, get
from tests.integration.ssh_stage import (
    HostApache,
    HostNginx,
    HostNode,
    Stage,
    current,
    leaf_on,
    leaf_served,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509

    from tests.integration.repository import Inventory

pytestmark = [
    needs_a_fleet(),
    *(pytest.mark.peer(name) for name in ("nginx", "apache2", "node", "curl")),
    pytest.mark.usefixtures("loopback"),
]

ROTATIONS = int(os.environ.get("MTLSCTL_ROTATIONS", "8"))
SERVERS = {"schedule": "web1", "diary": "web2", "agenda": "web3"}
TLS = ("1.2", "1.3")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


def port_of(stage: Stage, service: str) -> int:
    return {"schedule": stage.port, "diary": stage.node_port, "agenda": stage.apache_port}[service]


def inventory(stage: Stage, number: int, **words: Any) -> Inventory:
    """Every leaf is another one for each number, of the same CAs."""
    runtimes = {"schedule": "nginx", "diary": "node", "agenda": "apache"}
    services = {
        name: {
            "runtime": runtime,
            "hosts": [SERVERS[name]],
            "listeners": [{"name": "main", "port": port_of(stage, name), "bind": "host", "callers": ["mail"]}],
        }
        for name, runtime in runtimes.items()
    }
    return stage.inventory(**words) | {
        "services": services | {"mail": {"runtime": "curl", "hosts": ["web2"]}},
        "defaults": {"certificate": {"lifetime": f"{60 + number}d", "renew_before": "20d"}},
    }


def call(stage: Stage, service: str, tls: str) -> Shown:
    """As curl does: the folder that `current` names is found once, and everything is read from there."""
    folder = current(stage["web2"], "mail")
    name = f"{service}.calendar.internal"
    place = Place(name, stage[SERVERS[service]].address, port_of(stage, service))
    status, body = get(caller_context(folder, service, tls=(tls,)), place, host=name)
    return answered(service, status, body)


def served(stage: Stage, service: str) -> x509.Certificate:
    return leaf_served(stage[SERVERS[service]].address, port_of(stage, service), f"{service}.calendar.internal")


def test_no_request_fails_while_release_follows_release(stage: Stage) -> None:
    with HostNginx(stage["web1"]), HostApache(stage["web3"]):
        estate = stage.estate(inventory(stage, 0))
        estate.good("apply", "--yes")
        doors = [{"listener": "main", "address": stage["web2"].address, "port": stage.node_port}]
        callers = [(f"{name} {tls}", partial(call, stage, name, tls)) for name in SERVERS for tls in TLS]
        with HostNode(stage["web2"], "diary", "server.cjs", "diary", json.dumps(doors), 0) as node:
            node.places = [(stage["web2"].address, stage.node_port)]
            node.await_places()
            seen = {name: {served(stage, name)} for name in SERVERS}
            with Load(callers) as load:
                for number in range(1, ROTATIONS + 1):
                    estate.write(inventory(stage, number))
                    estate.good("apply", "--yes")
                    for name, host in SERVERS.items():
                        leaf = served(stage, name)
                        assert leaf == leaf_on(stage[host], name)
                        seen[name].add(leaf)
    assert [one for one in load.calls if one.failure is not None] == []
    assert {name: len(leaves) for name, leaves in seen.items()} == dict.fromkeys(SERVERS, ROTATIONS + 1)
    assert min(Counter(one.caller for one in load.calls).values()) >= ROTATIONS


def test_the_load_would_notice(stage: Stage) -> None:
    """Without this the test above would prove nothing: a server that ends for a moment is a failed request."""
    with HostNginx(stage["web1"]):
        estate = stage.estate(inventory(stage, 0))
        estate.good("apply", "--yes")
        with Load([("schedule", partial(call, stage, "schedule", "1.3"))]) as load:
            while not load.calls:
                pass
            assert load.calls[-1].failure is None
    with Load([("schedule", partial(call, stage, "schedule", "1.3"))]) as load:
        while not load.calls:
            pass
    assert load.calls[0].failure is not None
    assert LET_IN not in (load.calls[0].failure or "")
