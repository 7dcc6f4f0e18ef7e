"""A server as a stranger finds it: good ones, and those that lie, stall or speak something else."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InspectionError
from mtlsctl.model.secret import Secret
from mtlsctl.pki import codes
from mtlsctl.verify.handshake import Ending
from mtlsctl.verify.identity import Identity, load_identity
from mtlsctl.verify.look import Look, look_at, resolve
from tests.unit.verify.certificates import SCHEDULE_NAME, estate
from tests.unit.verify.servers import Server, silence_of, speaking_tls, tls_context
from tests.unit.verify.test_wire import showing

if TYPE_CHECKING:
    from collections.abc import Callable


def look(serve: Callable[[socket.socket], None], identity: Identity | None = None) -> Look:
    with Server(serve) as server:
        return look_at(*server.address, SCHEDULE_NAME, identity, timeout_seconds=8)


def serving(*versions: ssl.TLSVersion, verify: ssl.VerifyMode = ssl.CERT_REQUIRED) -> Callable[[socket.socket], None]:
    context = tls_context(estate().schedule, estate().mail_ca, verify=verify)
    if versions:
        context.minimum_version, context.maximum_version = versions[0], versions[-1]
    return speaking_tls(context)


def spoken(seen: Look) -> list[str]:
    return [one.protocol for one in seen.greetings if one.is_spoken]


def test_both_versions_are_seen_with_the_chain_and_what_is_asked_for() -> None:
    seen = look(serving())
    assert ["1.2", "1.3"] == spoken(seen)
    assert seen.newest is not None
    assert ((estate().schedule.der,), True) == (seen.newest.chain, seen.newest.asks)
    assert seen.without is not None
    assert Ending.ALERT is seen.without.ending


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_of_one_version_is_seen_as_such(version: ssl.TLSVersion) -> None:
    seen = look(serving(version), estate().mail.identity)
    assert [{ssl.TLSVersion.TLSv1_2: "1.2", ssl.TLSVersion.TLSv1_3: "1.3"}[version]] == spoken(seen)
    assert seen.presenting is not None
    assert (Ending.ANSWERED, 200) == (seen.presenting.ending, seen.presenting.http_status)
    (other,) = [one for one in seen.greetings if not one.is_spoken]
    assert "alert protocol_version" == other.reason


def test_a_stranger_is_refused_and_a_server_that_asks_for_nothing_lets_everyone_in() -> None:
    stranger = look(serving(), estate().foreign.identity)
    assert stranger.presenting is not None
    assert Ending.ALERT is stranger.presenting.ending
    open_to_all = look(serving(verify=ssl.CERT_NONE))
    assert open_to_all.newest is not None
    assert open_to_all.newest.asks is False
    assert open_to_all.without is not None
    assert 200 == open_to_all.without.http_status


def test_a_chain_of_several_certificates_is_kept_in_its_order() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = estate().schedule.pem + estate().schedule_ca.pem
    load_identity(context, Identity(chain=pem, key=Secret(estate().schedule.key_pem)))
    seen = look(speaking_tls(context))
    chains = [one.flight.chain for one in seen.greetings if one.flight]
    assert [(estate().schedule.der, estate().schedule_ca.der)] * 2 == chains


def test_the_names_that_a_server_asks_for_are_kept() -> None:
    seen = look(showing(estate().schedule, estate().mail_ca.subject_der))
    flight = seen.greetings[0].flight
    assert flight is not None
    assert (estate().mail_ca.subject_der,) == flight.ca_names


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"", b"\x16\x03\x03\xff\xff" + b"x" * 100, b"\0" * 50],
)
def test_what_does_not_speak_tls_is_refused_with_what_came(said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(said)

    with pytest.raises(InspectionError) as raised:
        look(serve)
    assert codes.NOT_A_TLS_SERVER == raised.value.code


def test_a_server_that_says_nothing_ends_with_the_deadline() -> None:
    started = time.monotonic()
    with Server(silence_of(1)) as server, pytest.raises(InspectionError) as raised:
        look_at(*server.address, SCHEDULE_NAME, None, timeout_seconds=1)
    assert codes.NOT_A_TLS_SERVER == raised.value.code
    assert time.monotonic() - started < 6


def test_a_server_that_sends_without_end_is_cut_off() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        while True:
            connection.sendall(b"\x16\x03\x03\x40\x00" + b"\x0b" * 0x4000)

    with pytest.raises(InspectionError):
        look(serve)


def test_an_answer_without_end_is_cut_off() -> None:
    def endless(secured: ssl.SSLSocket) -> None:
        secured.recv(4096)
        for _ in range(10_000):
            secured.sendall(b"HTTP/1.1 200 OK\r\n" + b"x" * 10_000)

    seen = look(speaking_tls(tls_context(estate().schedule, verify=ssl.CERT_NONE), endless))
    assert seen.without is not None
    assert 200 == seen.without.http_status


def test_a_port_where_nobody_listens_and_a_name_without_address_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    for host, port_ in (("127.0.0.1", port), ("no-such-name.invalid", 443)):
        with pytest.raises(InspectionError) as raised:
            look_at(host, port_, "x.example", None, timeout_seconds=4)
        assert codes.NO_ANSWER == raised.value.code


def test_a_resolver_that_does_not_answer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> list[object]:
        time.sleep(1)
        return []

    monkeypatch.setattr("mtlsctl.verify.look.getaddrinfo", slow)
    started = time.monotonic()
    with pytest.raises(InspectionError, match="no answer from the resolver"):
        resolve("slow.example", 443, timeout_seconds=0.2)
    assert time.monotonic() - started < 1.5
