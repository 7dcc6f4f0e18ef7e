"""What a door shows to who presents nothing: a good server beside each that is open in one way."""

from __future__ import annotations

import dataclasses
import ssl
from socket import MSG_PEEK
from typing import TYPE_CHECKING

import pytest

from mtlsctl.model.probe import Expectation, Observation, Outcome, Presented, Verdict
from mtlsctl.verify.doors import compare_first_flight
from mtlsctl.verify.embedded import EmbeddedServers
from mtlsctl.verify.wire import Served
from tests.support.ports import free_port
from tests.unit.verify.certificates import SCHEDULE_NAME, estate
from tests.unit.verify.servers import NGINX, OK, Nginx, Server, silence_of, speaking_tls
from tests.unit.verify.test_embedded import KEY, LISTENER
from tests.unit.verify.test_prober import PROBES, alerting, good_context, one_version, probe, probe_all, shown

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAINTEXT = probe(Presented.PLAINTEXT, None, Expectation.REFUSED, "1.2")
OTHER_CA = probe(Presented.OTHER_CA, None, Expectation.REFUSED, "1.2")
OTHER = {version: probe(Presented.OTHER_PROTOCOL, None, Expectation.REFUSED, version) for version in ("1.2", "1.3")}
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., tuple[str, int]]]:
    """Starts one nginx: `nginx(anchors, replaced, by)`."""
    server = Nginx(tmp_path)

    def start(*anchors: object, leaf: object = None, change: tuple[str, str] = ("", "")) -> tuple[str, int]:
        port = free_port()
        text = server.server(port, leaf or estate().schedule, *anchors, name=SCHEDULE_NAME)  # type: ignore[arg-type]
        server.conf.write_text(text.replace(*change) if change[0] else text)
        server.start()
        return "127.0.0.1", port

    yield start
    server.stop()


def seen(address: tuple[str, int], *probes: object, seconds: float = 2) -> tuple[Outcome, ...]:
    return probe_all(address, probes=probes, seconds=seconds)  # type: ignore[arg-type]


# whom it asks for and what it serves


@pytest.mark.peer("nginx")
@needs_nginx
def test_a_server_that_serves_what_was_applied_is_found_to_be_so(nginx: Callable[..., tuple[str, int]]) -> None:
    outcomes = seen(nginx(estate().mail_ca), OTHER_CA, PLAINTEXT)
    assert [
        (Verdict.AS_DECLARED, "serves what was applied"),
        (Verdict.AS_DECLARED, "HTTP 400, wants HTTPS"),
    ] == [(o.verdict, o.evidence) for o in outcomes]


@pytest.mark.peer("nginx")
@needs_nginx
def test_a_server_that_trusts_a_ca_too_many_is_found_though_it_refuses_everybody_that_is_tried(
    nginx: Callable[..., tuple[str, int]],
) -> None:
    stranger = estate().foreign_ca.issue("a stranger's CA")
    outcomes = seen(nginx(estate().mail_ca, stranger), *PROBES, OTHER_CA)
    contradictions = [(o.probe.presented, o.evidence) for o in outcomes if o.verdict is Verdict.CONTRADICTION]
    expected = "trusts 1 CA more than declared: CN=a stranger's CA"
    assert [(Presented.OTHER_CA, expected)] == contradictions, shown(outcomes)


@pytest.mark.peer("nginx")
@needs_nginx
def test_a_server_that_was_not_reloaded_is_found_by_its_old_certificate(nginx: Callable[..., tuple[str, int]]) -> None:
    old = estate().schedule_ca.issue("schedule", names=(SCHEDULE_NAME,))
    (outcome,) = seen(nginx(estate().mail_ca, leaf=old), OTHER_CA)
    expected = f"serves certificate {old.sha256[:16]}, not the applied {estate().schedule.sha256[:16]}"
    assert (Verdict.CONTRADICTION, expected, old.sha256) == (outcome.verdict, outcome.evidence, outcome.served_sha256)


@pytest.mark.peer("nginx")
@needs_nginx
def test_a_server_of_tls_13_only_is_compared_too(nginx: Callable[..., tuple[str, int]]) -> None:
    only_13 = ("TLSv1.2 TLSv1.3", "TLSv1.3")
    (outcome,) = seen(nginx(estate().mail_ca, estate().social_ca, change=only_13), OTHER_CA)
    assert (Verdict.CONTRADICTION, "trusts 1 CA more than declared: CN=social.calendar CA g1") == (
        outcome.verdict,
        outcome.evidence,
    )


@pytest.mark.peer("nginx")
@needs_nginx
@pytest.mark.parametrize("protocols", ["TLSv1.2 TLSv1.3", "TLSv1.3"])
def test_a_door_that_nobody_may_use_is_to_refuse_or_to_trust_nobody(
    nginx: Callable[..., tuple[str, int]], protocols: str
) -> None:
    change = ("ssl_protocols TLSv1.2 TLSv1.3;", f"ssl_protocols {protocols}; ssl_reject_handshake on;")
    refusing = compare_first_flight(NOBODY, *nginx(estate().mail_ca, change=change), timeout_seconds=2)
    assert Observation.REFUSED is refusing.observed, refusing


@pytest.mark.peer("nginx")
@needs_nginx
def test_a_door_that_nobody_may_use_and_that_trusts_somebody_is_found(nginx: Callable[..., tuple[str, int]]) -> None:
    open_door = compare_first_flight(NOBODY, *nginx(estate().mail_ca), timeout_seconds=2)
    assert (Observation.ALLOWED, "trusts 1 CA more than declared: CN=mail.calendar CA g1") == (
        open_door.observed,
        open_door.evidence,
    )


NOBODY = Served(address="", port=0, server_name=SCHEDULE_NAME, certificate_sha256=None, ca_names=frozenset())


def test_a_server_that_names_no_ca_is_compared_by_its_certificate() -> None:
    with EmbeddedServers([LISTENER]) as servers:
        (outcome,) = seen(servers.address_of(KEY), OTHER_CA)
    assert (Verdict.AS_DECLARED, "serves what was applied, names no CA") == (outcome.verdict, outcome.evidence)


def test_a_server_that_should_name_its_cas_and_names_none_is_no_pass() -> None:
    expected = dataclasses.replace(
        NOBODY,
        certificate_sha256=estate().schedule.sha256,
        ca_names=frozenset({estate().mail_ca.subject_der}),
        may_name_none=False,
    )
    with EmbeddedServers([LISTENER]) as servers:
        compared = compare_first_flight(expected, *servers.address_of(KEY), timeout_seconds=2)
    assert (Observation.INCONCLUSIVE, True) == (compared.observed, "names no CA" in compared.evidence)


def test_a_server_that_asks_for_no_certificate_is_found_before_anybody_calls() -> None:
    context = good_context()
    context.verify_mode = ssl.CERT_NONE
    with Server(speaking_tls(context)) as server:
        (outcome,) = seen(server.address, OTHER_CA)
    assert (Verdict.CONTRADICTION, "asks for no client certificate") == (outcome.verdict, outcome.evidence)


@pytest.mark.parametrize("serve", [alerting(80), alerting(40), silence_of(0.0)])
def test_a_first_flight_that_does_not_come_is_no_pass(serve: Callable[[socket.socket], None]) -> None:
    with Server(serve) as server:
        (outcome,) = seen(server.address, OTHER_CA)
    assert Verdict.INCONCLUSIVE is outcome.verdict, shown((outcome,))


@pytest.mark.parametrize("one", [PLAINTEXT, OTHER_CA, *OTHER.values()])
def test_a_port_where_nobody_listens_is_unreachable(one: object) -> None:
    (outcome,) = seen(("127.0.0.1", free_port()), one)
    assert (Observation.UNREACHABLE, Verdict.INCONCLUSIVE) == (outcome.observed, outcome.verdict)


# a protocol version that is not declared


@pytest.mark.parametrize(("declared", "other"), [("1.3", "1.2"), ("1.2", "1.3")])
def test_a_version_that_is_not_declared_is_found_where_it_is_spoken(declared: str, other: str) -> None:
    only = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[declared]
    with Server(speaking_tls(one_version(only))) as server:
        (right,) = seen(server.address, OTHER[other])
    with Server(speaking_tls(good_context())) as server:
        (wrong,) = seen(server.address, OTHER[other])
    assert [
        (Verdict.AS_DECLARED, "alert protocol_version"),
        (Verdict.CONTRADICTION, f"speaks TLS {other}, which is not declared"),
    ] == [(right.verdict, right.evidence), (wrong.verdict, wrong.evidence)]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_greeting_that_is_closed_on_proves_nothing_where_nobody_was_served(version: str) -> None:
    with Server(silence_of(0.0)) as server:
        (outcome,) = seen(server.address, OTHER[version])
    # Whether the end is read or the reset comes first differs from run to run, and so do the words.
    assert Verdict.INCONCLUSIVE == outcome.verdict


def test_a_greeting_that_is_closed_on_is_a_refusal_where_somebody_was_served() -> None:
    def no_alert(connection: socket.socket) -> None:
        """Speaks TLS 1.3; closes on any other greeting."""
        greeting = connection.recv(4096, MSG_PEEK)
        if b"\x00\x2b\x00\x03\x02\x03\x04" in greeting:
            speaking_tls(one_version(ssl.TLSVersion.TLSv1_3))(connection)
        else:
            connection.recv(4096)

    declared = tuple(p for p in PROBES if p.protocol == "1.3" and p.expected is Expectation.ALLOWED)
    with Server(no_alert) as server:
        outcomes = seen(server.address, *declared, OTHER["1.2"])
    assert [Verdict.AS_DECLARED] * 2 == [o.verdict for o in outcomes], shown(outcomes)


# HTTP without TLS


def in_clear(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    return serve


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (OK, Verdict.CONTRADICTION),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Verdict.CONTRADICTION),
        (b"220 mail.example.com ESMTP\r\n", Verdict.CONTRADICTION),
        (b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://x/\r\n\r\n", Verdict.INCONCLUSIVE),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nmissing parameter", Verdict.INCONCLUSIVE),
        (b"\x16\x03\x03\x00\x01\x00", Verdict.INCONCLUSIVE),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            Verdict.AS_DECLARED,
        ),
        (b"\x15\x03\x03\x00\x02\x02\x0a", Verdict.AS_DECLARED),
        (b"", Verdict.AS_DECLARED),
    ],
)
def test_an_answer_in_clear_is_found(answer: bytes, verdict: Verdict) -> None:
    with Server(in_clear(answer)) as server:
        (outcome,) = seen(server.address, PLAINTEXT)
    assert verdict is outcome.verdict, shown((outcome,))


def test_a_server_that_speaks_tls_only_refuses_what_comes_in_clear() -> None:
    with Server(speaking_tls(good_context())) as server:
        (outcome,) = seen(server.address, PLAINTEXT)
    assert Verdict.AS_DECLARED is outcome.verdict, shown((outcome,))


@pytest.mark.peer("nginx")
@needs_nginx
def test_an_nginx_that_serves_the_port_in_clear_is_found(nginx: Callable[..., tuple[str, int]]) -> None:
    (outcome,) = seen(nginx(estate().mail_ca, change=(" ssl;", ";")), PLAINTEXT)
    assert (Verdict.CONTRADICTION, 200) == (outcome.verdict, outcome.http_status)


def test_no_answer_in_clear_is_no_pass() -> None:
    with Server(silence_of(0.6)) as server:
        (outcome,) = seen(server.address, PLAINTEXT, seconds=0.3)
    assert (Observation.UNREACHABLE, "no answer in time") == (outcome.observed, outcome.evidence)


def test_a_name_that_is_not_served_is_no_pass() -> None:
    changed = dataclasses.replace(OTHER_CA, server_name="other.example.com")
    with EmbeddedServers([LISTENER]) as servers:
        (outcome,) = seen(servers.address_of(KEY), changed)
    assert (Verdict.INCONCLUSIVE, "alert unrecognized_name") == (outcome.verdict, outcome.evidence)
