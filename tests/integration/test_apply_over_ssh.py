"""`mtlsctl apply` over SSH, end to end: real sshd, an unprivileged user with sudo, a real nginx that is called."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

import mtlsctl.deliver.dial
from tests.conftest import find_peer
from tests.integration.fleet import needs_a_fleet
from tests.integration.ssh_stage import (
    BASE,
    LET_IN,
    NGINX_POINTER,
    TURNED_AWAY,
    HostNginx,
    Stage,
    assert_all_whole,
    assert_nothing_is_left_over,
    current,
    leaf_on,
    on,
    prove,
    shapes_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtlsctl.deliver.channel import Channel, Dialler
    from tests.integration.fleet import Sshd
    from tests.integration.repository import Estate

pytestmark = [needs_a_fleet(), pytest.mark.peer("nginx"), pytest.mark.peer("curl"), pytest.mark.usefixtures("loopback")]

MODELS = ["service-ca", "shared-ca", "pinned"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="module")
def nginx(stage: Stage) -> Iterator[HostNginx]:
    with HostNginx(stage["web1"]) as nginx:
        yield nginx


@pytest.fixture(autouse=True)
def _no_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls while these tests run, so no call that is under way is waited for."""
    monkeypatch.setattr("mtlsctl.operations.executor.HANDOVER_SECONDS", 0.0)


def change(estate: Estate, inventory: dict[str, Any]) -> None:
    estate.write(inventory)
    estate.good("apply", "--yes")
    prove(estate)


def main_of(inventory: dict[str, Any]) -> dict[str, Any]:
    return inventory["services"]["schedule"]["listeners"][0]  # type: ignore[no-any-return]


# --- the life of an estate ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nginx")
def test_an_estate_from_its_first_apply_to_its_last(stage: Stage) -> None:
    inventory = stage.inventory()
    inventory["services"]["guest"] = {"runtime": "curl", "hosts": ["web2"]}
    main_of(inventory)["callers"] = ["mail", "social", "guest"]
    estate = stage.estate(inventory)

    estate.good("apply", "--yes")
    prove(estate)
    assert_all_whole(stage)
    first = stage.served()
    assert first == leaf_on(stage["web1"], "schedule")
    assert stage.call("mail").outcome == LET_IN
    assert stage.call("guest").outcome == LET_IN
    assert stage.call("mail", pose="social").outcome == LET_IN
    on(stage["web2"], f"mkdir -p /run/host/stolen && cp -rL {BASE}/guest/current/. /run/host/stolen")

    main_of(inventory)["callers"].remove("guest")
    del inventory["services"]["guest"]
    change(estate, inventory)
    assert not stage["web2"].path(f"{BASE}/guest").exists()
    stolen = ["--cert", "/run/host/stolen/tls.crt", "--key", "/run/host/stolen/tls.key"]
    assert stage.call("mail", more=stolen).outcome == TURNED_AWAY
    assert stage.call("mail").outcome == LET_IN

    inventory["services"]["report"] = {"runtime": "pem", "hosts": ["web3"]}
    main_of(inventory)["callers"].append("report")
    change(estate, inventory)
    reporter = current(stage["web3"], "report")
    reporter_shows = ["--cert", "/run/host/report.pem", "--key", "/run/host/report.pem"]
    stage["web2"].path("/run/host/report.pem").write_bytes(
        b"".join((reporter / name).read_bytes() for name in ("tls.crt", "tls.key"))
    )
    assert stage.call("mail", more=reporter_shows).outcome == LET_IN

    inventory["defaults"] = {"certificate": {"lifetime": "60d", "renew_before": "20d"}}
    change(estate, inventory)
    assert stage.served() == leaf_on(stage["web1"], "schedule") != first
    assert stage.call("mail").outcome == LET_IN

    del inventory["services"]["report"], inventory["hosts"]["web3"]
    main_of(inventory)["callers"].remove("report")
    change(estate, inventory)
    assert [one.name for one in stage["web3"].path(BASE).glob("[!.]*")] == []
    assert stage.call("mail", more=reporter_shows).outcome == TURNED_AWAY
    assert "web3" not in estate.good("status", "-o", "json").out

    inventory["services"] = {"mail": {"runtime": "curl", "hosts": ["web2"]}}
    change(estate, inventory)
    assert not stage["web1"].path(NGINX_POINTER).exists()
    assert not stage["web1"].path(f"{BASE}/schedule").exists()
    assert_nothing_is_left_over(stage["web2"], "mail")


@pytest.mark.usefixtures("nginx")
def test_an_apply_that_has_nothing_to_do_changes_nothing_on_any_host(stage: Stage) -> None:
    estate = stage.estate()
    estate.good("apply", "--yes")
    listing = "find /etc/mtlsctl /etc/nginx/conf.d ! -name .lock -printf '%p %i %m %s %C@\\n' | sort"
    before = [on(host, f"{listing} 2>/dev/null") for host in stage.fleet.hosts.values()]
    prove(estate)
    assert before == [on(host, f"{listing} 2>/dev/null") for host in stage.fleet.hosts.values()]


# --- three trust models, keys born here and there -------------------------------------------------------------------


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("keys", ["host", "controller"])
@pytest.mark.parametrize("model", MODELS)
def test_declared_callers_get_in_and_others_do_not(stage: Stage, model: str, keys: str) -> None:
    inventory = stage.inventory(keys=keys)
    inventory["trust"] = {"model": model}
    inventory["services"]["report"] = {"runtime": "pem", "hosts": ["web3"]}
    main_of(inventory)["callers"] = ["mail"]
    heard = Heard()
    estate = stage.estate(inventory)
    with heard.listening():
        estate.good("apply", "--yes")
    prove(estate)
    assert_all_whole(stage)
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    assert stage.call("mail").outcome == LET_IN
    assert stage.call("mail", pose="social").outcome == TURNED_AWAY
    assert stage.call("mail", more=["--cert", "/dev/null"]).outcome == TURNED_AWAY
    issuer = leaf_on(stage["web1"], "schedule").issuer.rfc4514_string()
    assert issuer == {"service-ca": "CN=schedule.calendar CA g1", "shared-ca": "CN=calendar CA g1"}.get(
        model, "CN=schedule"
    )
    keys_there = [key for host in stage.fleet.hosts.values() for key in keys_of(host)]
    assert len(keys_there) == 4
    crossed = [heard.holds(key) for key in keys_there]
    assert crossed == [keys == "controller"] * 4
    for key in keys_there:
        assert not anywhere_below(estate, key)


def keys_of(host: Sshd) -> list[bytes]:
    return [path.read_bytes() for path in host.path(BASE).glob("*/keys/*.key")]


class Heard:
    """All that passed between us and the hosts, both ways, in clear."""

    def __init__(self) -> None:
        self.flows: list[bytearray] = []

    def holds(self, pem: bytes) -> bool:
        return any(shape in flow for flow in self.flows for shape in shapes_of(pem))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        real = mtlsctl.deliver.dial.dialler

        def dialler(*arguments: Any) -> Dialler:
            return lambda command: Overheard(real(*arguments)(command), self.flows)

        with mock.patch("mtlsctl.deliver.dial.dialler", dialler):
            yield


class Overheard:
    """A channel whose two directions are kept."""

    def __init__(self, channel: Channel, flows: list[bytearray]) -> None:
        self._channel, self._sent, self._received = channel, bytearray(), bytearray()
        flows += [self._sent, self._received]

    def send(self, data: bytes, *, deadline: float) -> None:
        self._sent += data
        self._channel.send(data, deadline=deadline)

    def receive(self, limit: int, *, deadline: float) -> bytes:
        data = self._channel.receive(limit, deadline=deadline)
        self._received += data
        return data

    def complaints(self) -> bytes:
        return self._channel.complaints()

    def close(self) -> None:
        self._channel.close()


def anywhere_below(estate: Estate, pem: bytes) -> bool:
    """Whether the key is in the project, its state or what is temporary."""
    shapes = shapes_of(pem)
    files = [one for top in (estate.folder, estate.temp) for one in top.rglob("*") if one.is_file()]
    return any(shape in path.read_bytes() for path in files for shape in shapes)


# --- key stores -----------------------------------------------------------------------------------------------------


@pytest.mark.peer("keytool")
@pytest.mark.parametrize("profile", ["modern", "legacy"])
@pytest.mark.parametrize("keys", ["host", "controller"])
def test_java_opens_the_key_stores_that_were_made_on_the_host(stage: Stage, keys: str, profile: str) -> None:
    inventory = stage.inventory(keys=keys)
    inventory["services"] = {
        "ledger": {
            "runtime": "spring-boot",
            "hosts": ["web2"],
            "listen": 18443,
            "callers": ["batch"],
            "settings": {"spring_boot": "3.2", "style": "classic", "store_profile": profile},
        },
        "batch": {"runtime": "java", "hosts": ["web3"], "settings": {"store_profile": profile}},
    }
    estate = stage.estate(inventory)
    estate.good("apply", "--yes")
    prove(estate)
    for name, service in (("web2", "ledger"), ("web3", "batch")):
        folder = current(stage[name], service)
        password = (folder / "secrets/store-password").read_text()
        stores = {path.relative_to(folder).as_posix() for path in folder.rglob("*.p12")}
        assert "keystore.p12" in stores
        for store in stores:
            said = listed(folder / store, password)
            assert ("PrivateKeyEntry" in said, "trustedCertEntry" in said) == (
                store == "keystore.p12",
                store != "keystore.p12",
            ), said
        assert f"{service}," in listed(folder / "keystore.p12", password)
        for secret in ("keystore.p12", "secrets/store-password"):
            assert (folder / secret).stat().st_mode & 0o777 == 0o600


def listed(store: Path, password: str) -> str:
    done = subprocess.run(
        [str(find_peer("keytool")), "-list", "-keystore", store, "-storetype", "PKCS12", "-storepass:env", "PASSWORD"],
        env={"PASSWORD": password, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


# --- a key that somebody else made ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("nginx")
def test_a_key_that_its_owner_made_on_the_host_gets_its_certificate(stage: Stage) -> None:
    inventory = stage.inventory()
    estate = stage.estate(inventory)
    on(
        stage["web1"],
        "mkdir -p /run/host/own && cd /run/host/own && openssl ecparam -name prime256v1 -genkey -noout -out ec"
        " && openssl pkcs8 -topk8 -nocrypt -in ec -out key"
        " && openssl req -new -key key -subj /CN=schedule -out request",
    )
    requests = estate.folder / "requests"
    requests.mkdir(exist_ok=True)
    (requests / "schedule.csr").write_text(on(stage["web1"], "cat /run/host/own/request"))
    inventory["services"]["schedule"]["certificate_request"] = "requests/schedule.csr"
    estate.write(inventory)
    waiting = estate.run("apply", "--yes")
    assert (waiting.code, "M4112" in waiting.said) == (3, True), waiting
    spki = on(
        stage["web1"], "openssl pkey -in /run/host/own/key -pubout -outform DER | sha256sum | cut -d' ' -f1"
    ).strip()
    assert f"web1:{BASE}/schedule/keys/{spki}.key" in waiting.said
    on(stage["web1"], f"install -m 600 /run/host/own/key {BASE}/schedule/keys/{spki}.key")
    estate.good("apply", "--yes")
    prove(estate)
    assert stage.served() == leaf_on(stage["web1"], "schedule")
    assert stage.call("mail").outcome == LET_IN
