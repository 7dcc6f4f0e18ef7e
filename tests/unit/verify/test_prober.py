"""Every probe against servers that are right, and servers that are wrong in one way each."""

from __future__ import annotations

import dataclasses
import ssl
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from mtlsctl.model.probe import Expectation, Observation, Outcome, Presented, Probe, Verdict
from mtlsctl.model.release import Endpoint
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import InstanceId, ListenerId
from mtlsctl.verify.identity import Identity
from mtlsctl.verify.prober import NotProbed, run_probes
from mtlsctl.verify.wire import Served
from tests.support.ports import free_port
from tests.unit.verify.certificates import CLIENT_ONLY, SCHEDULE_NAME, estate
from tests.unit.verify.servers import NGINX, OK, Nginx, Server, answer, speaking_tls, tls_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.verify.certificates import Leaf

    Address = tuple[str, int]

LISTENER = ListenerId("schedule", "main")
ENDPOINT = Endpoint(InstanceId("schedule", "here"), "192.0.2.1", 8443)
MAIL, SOCIAL = InstanceId("mail", "here"), InstanceId("social", "here")
KINDS = (
    (Presented.DELIVERED, MAIL, Expectation.ALLOWED),
    (Presented.DELIVERED, SOCIAL, Expectation.REFUSED),
    (Presented.NO_CERTIFICATE, None, Expectation.REFUSED),
    (Presented.FOREIGN_CA, MAIL, Expectation.REFUSED),
    (Presented.EXPIRED, MAIL, Expectation.REFUSED),
    (Presented.WRONG_USAGE, MAIL, Expectation.REFUSED),
)
SECONDS = 0.5


def probe(presented: Presented, caller: InstanceId | None, expected: Expectation, protocol: str) -> Probe:
    return Probe(
        listener=LISTENER,
        endpoint=ENDPOINT,
        server_name=SCHEDULE_NAME,
        protocol=protocol,
        presented=presented,
        caller=caller,
        expected=expected,
    )


# The refused ones stand first, so that it is the prober that puts the declared calls before them.
PROBES = tuple(
    probe(presented, caller, expected, protocol)
    for presented, caller, expected in reversed(KINDS)
    for protocol in ("1.2", "1.3")
)


class Identities:
    def identity(self, probe: Probe) -> Identity | NotProbed | None:
        match probe.presented, probe.caller:
            case Presented.NO_CERTIFICATE, _:
                return None
            case Presented.FOREIGN_CA, _:
                return estate().foreign.identity
            case Presented.EXPIRED, _:
                return estate().expired.identity
            case Presented.WRONG_USAGE, _:
                return estate().wrong_usage.identity
            case _, caller:
                return (estate().mail if caller == MAIL else estate().social).identity

    def anchors(self, probe: Probe) -> bytes | NotProbed:
        return estate().schedule_ca.pem

    def served(self, probe: Probe) -> Served | NotProbed:
        return Served(
            address=probe.endpoint.address,
            port=probe.endpoint.port,
            server_name=probe.server_name,
            certificate_sha256=estate().schedule.sha256,
            ca_names=frozenset({estate().mail_ca.subject_der}),
        )


def probe_all(address: Address, *, probes: tuple[Probe, ...] = PROBES, seconds: float = SECONDS) -> tuple[Outcome, ...]:
    return run_probes(probes, Identities(), connect=lambda _: address, timeout_seconds=seconds)


def shown(outcomes: tuple[Outcome, ...]) -> str:
    return "\n".join(f"{o.probe.presented} {o.probe.protocol} {o.observed}: {o.evidence}" for o in outcomes)


@contextmanager
def tls(context: ssl.SSLContext, then: Callable[[ssl.SSLSocket], None] = answer) -> Iterator[Address]:
    with Server(speaking_tls(context, then)) as server:
        yield server.address


def good_context() -> ssl.SSLContext:
    return tls_context(estate().schedule, estate().mail_ca)


# servers that are right


def test_a_server_that_is_right_is_found_to_be_so() -> None:
    with tls(good_context()) as address:
        outcomes = probe_all(address, seconds=5)
    assert {Verdict.AS_DECLARED} == {outcome.verdict for outcome in outcomes}, shown(outcomes)
    assert PROBES == tuple(outcome.probe for outcome in outcomes)


def test_each_refusal_names_its_alert() -> None:
    with tls(good_context()) as address:
        evidence = {
            (o.probe.presented, o.probe.caller, o.probe.protocol): o.evidence for o in probe_all(address, seconds=5)
        }
    assert {
        "HTTP 200",
        "alert unknown_ca",
        "alert handshake_failure",
        "alert certificate_required",
        "alert certificate_expired",
        "alert unsupported_certificate",
    } <= set(evidence.values())
    assert "HTTP 200" == evidence[Presented.DELIVERED, MAIL, "1.3"]
    assert "alert unknown_ca" == evidence[Presented.DELIVERED, SOCIAL, "1.3"]


def test_an_allowed_call_says_what_was_served() -> None:
    with tls(good_context()) as address:
        outcomes = probe_all(address, seconds=5)
    allowed = [outcome for outcome in outcomes if outcome.observed is Observation.ALLOWED]
    assert {(200, estate().schedule.sha256)} == {(outcome.http_status, outcome.served_sha256) for outcome in allowed}


def test_any_answer_of_the_application_means_that_the_caller_got_in() -> None:
    for status in (b"204 No Content", b"302 Found", b"400 Bad Request", b"403 Forbidden", b"502 Bad Gateway"):
        response = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
        with tls(good_context(), lambda secured, response=response: answer(secured, response)) as address:  # type: ignore[misc]
            outcomes = probe_all(address, seconds=5)
        assert {Verdict.AS_DECLARED} == {outcome.verdict for outcome in outcomes}, shown(outcomes)


@pytest.mark.peer("nginx")
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_real_nginx_that_is_right_is_found_to_be_so(tmp_path: Path) -> None:
    """It finishes the handshake with everybody and refuses with a page."""
    port, nginx = free_port(), Nginx(tmp_path)
    nginx.conf.write_text(nginx.server(port, estate().schedule, estate().mail_ca, name=SCHEDULE_NAME))
    nginx.start()
    try:
        outcomes = probe_all(("127.0.0.1", port), seconds=5)
    finally:
        nginx.stop()
    assert {Verdict.AS_DECLARED} == {outcome.verdict for outcome in outcomes}, shown(outcomes)
    pages = [outcome for outcome in outcomes if "page for a refused certificate" in outcome.evidence]
    assert len(PROBES) - 2 == len(pages)


@pytest.mark.peer("nginx")
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize(
    ("wanted", "instead"),
    [
        ("ssl_verify_client on", "ssl_verify_client off"),
        ("ssl_verify_client on", "ssl_verify_client optional"),
        ("ssl_verify_client on", "ssl_verify_client optional_no_ca"),
        ("ssl_verify_client on;", "ssl_verify_client on; ssl_verify_depth 0; ssl_reject_handshake on;"),
        ("ssl_verify_client on;", "ssl_verify_client on; error_page 495 496 =200 /in;"),
    ],
)
def test_a_real_nginx_that_is_wrong_is_caught(tmp_path: Path, wanted: str, instead: str) -> None:
    port, nginx = free_port(), Nginx(tmp_path)
    text = nginx.server(port, estate().schedule, estate().mail_ca, name=SCHEDULE_NAME)
    assert wanted in text
    nginx.conf.write_text(text.replace(wanted, instead))
    nginx.start()
    try:
        outcomes = probe_all(("127.0.0.1", port), seconds=5)
    finally:
        nginx.stop()
    assert Verdict.CONTRADICTION in {outcome.verdict for outcome in outcomes}, shown(outcomes)


# servers that are wrong: for each the probes that must contradict; with none, the declared call is in doubt

MAIL_, SOCIAL_ = frozenset({"mail"}), frozenset({"social"})
NONE, FOREIGN, EXPIRED, USAGE = (
    frozenset({kind.value})
    for kind in (Presented.NO_CERTIFICATE, Presented.FOREIGN_CA, Presented.EXPIRED, Presented.WRONG_USAGE)
)
NOTHING: frozenset[str] = frozenset()


def kind_of(outcome: Outcome) -> str:
    delivered = outcome.probe.presented is Presented.DELIVERED and outcome.probe.caller
    return delivered.service if delivered else outcome.probe.presented.value


def plain_http(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request")


def plain_answer_at_once(connection: socket.socket) -> None:
    connection.sendall(OK)
    connection.recv(4096)


def silent_close(connection: socket.socket) -> None:
    connection.recv(4096)


def black_hole(_: socket.socket) -> None:
    time.sleep(SECONDS * 1.5)


def garbage(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x16\x03\x03\x00\x04\xff\xff\xff\xff" * 9)


def hold_after_handshake(_: ssl.SSLSocket) -> None:
    time.sleep(SECONDS * 1.5)


def close_after_request(secured: ssl.SSLSocket) -> None:
    secured.recv(4096)


def drip(secured: ssl.SSLSocket) -> None:
    for _ in range(20):
        secured.sendall(b"H")
        time.sleep(0.1)


def banner(secured: ssl.SSLSocket) -> None:
    secured.sendall(b"220 mail.example.com ESMTP\r\n")


def optional_certificate() -> ssl.SSLContext:
    return tls_context(estate().schedule, estate().mail_ca, verify=ssl.CERT_OPTIONAL)


def one_version(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = good_context()
    context.minimum_version = context.maximum_version = version
    return context


def rejecting_names() -> ssl.SSLContext:
    context = good_context()
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return context


def alerting(number: int) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02" + bytes([number]))

    return serve


def no_common_cipher() -> ssl.SSLContext:
    context = one_version(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return context


def other_leaf(name: str, **how: bool) -> Leaf:
    return estate().schedule_ca.issue("schedule", names=(name,), **how)  # type: ignore[arg-type]


TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
WRONG: dict[str, tuple[Callable[[], Callable[[socket.socket], None]], frozenset[str]]] = {
    "asks for no certificate": (
        lambda: speaking_tls(tls_context(estate().schedule, verify=ssl.CERT_NONE)),
        SOCIAL_ | NONE | FOREIGN | EXPIRED | USAGE,
    ),
    "asks and does without": (lambda: speaking_tls(optional_certificate()), NONE),
    "trusts everybody of the estate": (
        lambda: speaking_tls(tls_context(estate().schedule, estate().mail_ca, estate().social_ca)),
        SOCIAL_,
    ),
    "trusts the wrong caller": (
        lambda: speaking_tls(tls_context(estate().schedule, estate().social_ca)),
        MAIL_ | SOCIAL_,
    ),
    "trusts nobody": (lambda: speaking_tls(tls_context(estate().schedule)), MAIL_),
    "trusts the foreign CA": (
        lambda: speaking_tls(tls_context(estate().schedule, estate().mail_ca, estate().foreign_ca)),
        FOREIGN,
    ),
    "is not the server that the caller believes": (
        lambda: speaking_tls(tls_context(estate().social, estate().mail_ca)),
        MAIL_,
    ),
    "has a certificate for another name": (
        lambda: speaking_tls(tls_context(other_leaf("billing.example.com"), estate().mail_ca)),
        MAIL_,
    ),
    "has an expired certificate": (
        lambda: speaking_tls(tls_context(other_leaf(SCHEDULE_NAME, ended=True), estate().mail_ca)),
        MAIL_,
    ),
    "has a certificate for callers only": (
        lambda: speaking_tls(tls_context(client_only_leaf(), estate().mail_ca)),
        MAIL_,
    ),
    "speaks TLS 1.2 only": (lambda: speaking_tls(one_version(TLS12)), MAIL_),
    "speaks TLS 1.3 only": (lambda: speaking_tls(one_version(TLS13)), MAIL_),
    "has no cipher for its key": (lambda: speaking_tls(no_common_cipher()), MAIL_),
    "does not know the name": (lambda: speaking_tls(rejecting_names()), MAIL_),
    "fails inside": (lambda: alerting(80), MAIL_),
    "refuses every handshake": (lambda: alerting(40), MAIL_),
    "closes on everybody before the handshake": (lambda: silent_close, NOTHING),
    "closes on everybody after the handshake": (
        lambda: speaking_tls(optional_certificate(), close_after_request),
        NOTHING,
    ),
    "closes on its callers after the request": (lambda: speaking_tls(good_context(), close_after_request), NOTHING),
    "never answers a greeting": (lambda: black_hole, NOTHING),
    "never answers a request": (lambda: speaking_tls(good_context(), hold_after_handshake), NOTHING),
    "answers a letter at a time": (lambda: speaking_tls(good_context(), drip), NOTHING),
    "speaks first and not HTTP": (lambda: speaking_tls(optional_certificate(), banner), NONE),
    "speaks plain HTTP": (lambda: plain_http, NOTHING),
    "answers before any handshake": (lambda: plain_answer_at_once, NOTHING),
    "speaks gibberish": (lambda: garbage, NOTHING),
}


def client_only_leaf() -> Leaf:
    return estate().schedule_ca.issue("schedule", names=(SCHEDULE_NAME,), usages=CLIENT_ONLY)


@pytest.mark.parametrize("defect", WRONG)
def test_a_server_that_is_wrong_never_passes(defect: str) -> None:
    make, contradicted = WRONG[defect]
    with Server(make()) as server:
        outcomes = probe_all(server.address)
    assert contradicted == {kind_of(o) for o in outcomes if o.verdict is Verdict.CONTRADICTION}, shown(outcomes)
    if not contradicted:
        declared = {o.verdict for o in outcomes if o.probe.expected is Expectation.ALLOWED}
        assert {Verdict.INCONCLUSIVE} == declared, shown(outcomes)
    refusals = [o for o in outcomes if o.verdict is Verdict.AS_DECLARED and o.probe.expected is Expectation.REFUSED]
    assert all(outcome.evidence.startswith("alert ") for outcome in refusals), shown(outcomes)


@pytest.mark.parametrize("defect", [d for d in WRONG if d.startswith(("speaks TLS", "has no cipher"))])
def test_a_version_that_nobody_was_served_with_proves_no_refusal_by_itself(defect: str) -> None:
    with Server(WRONG[defect][0]()) as server:
        outcomes = probe_all(server.address)
    served = {o.probe.protocol for o in outcomes if o.observed is Observation.ALLOWED}
    unserved = [o for o in outcomes if o.probe.protocol not in served and o.probe.expected is Expectation.REFUSED]
    assert {Verdict.INCONCLUSIVE} == {outcome.verdict for outcome in unserved}, shown(outcomes)


# what a silence means


def test_a_silent_close_of_tls_13_is_a_refusal_where_a_declared_caller_was_served() -> None:
    """Node and the JDK send no alert at all; in TLS 1.2 they close before the handshake is complete."""

    def only_mail(secured: ssl.SSLSocket) -> None:
        if secured.getpeercert(binary_form=True) == estate().mail.der:
            answer(secured)
        else:
            secured.recv(4096)

    everybody = tls_context(estate().schedule, estate().mail_ca, estate().social_ca)
    probes = tuple(p for p in PROBES if p.presented is Presented.DELIVERED)
    with tls(everybody, only_mail) as address:
        outcomes = probe_all(address, probes=probes)
        alone = probe_all(address, probes=tuple(p for p in probes if p.expected is Expectation.REFUSED))
    verdicts = {(o.probe.protocol, o.probe.caller): o.verdict for o in outcomes}
    assert {
        ("1.2", MAIL): Verdict.AS_DECLARED,
        ("1.3", MAIL): Verdict.AS_DECLARED,
        ("1.2", SOCIAL): Verdict.INCONCLUSIVE,
        ("1.3", SOCIAL): Verdict.AS_DECLARED,
    } == verdicts, shown(outcomes)
    assert {Verdict.INCONCLUSIVE} == {outcome.verdict for outcome in alone}, shown(alone)


def test_a_silent_close_before_a_tls_12_handshake_is_complete_is_a_refusal_where_somebody_was_served() -> None:
    """What Node does: it judges the caller before its own Finished leaves."""

    def serve(connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        everybody = tls_context(estate().schedule, estate().mail_ca, estate().social_ca)
        secured = everybody.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(4096))
            else:
                break
        if secured.getpeercert(binary_form=True) != estate().mail.der:
            return
        connection.sendall(outgoing.read())
        incoming.write(connection.recv(4096))
        secured.write(OK)
        connection.sendall(outgoing.read())

    probes = tuple(p for p in PROBES if p.presented is Presented.DELIVERED and p.protocol == "1.2")
    with Server(serve) as server:
        outcomes = probe_all(server.address, probes=probes)
    assert {Verdict.AS_DECLARED} == {outcome.verdict for outcome in outcomes}, shown(outcomes)


@pytest.mark.parametrize("is_declared_closed", [True, False])
def test_a_server_that_has_nothing_to_agree_on_is_a_closed_door_where_nobody_is_to_be_let_in(
    is_declared_closed: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    """Apache's way: its alerts may mean anything, unless its certificate is to be shown to nobody and is not."""

    class Closed(Identities):
        def served(self, probe: Probe) -> Served | NotProbed:
            known = super().served(probe)
            assert isinstance(known, Served)
            return dataclasses.replace(known, certificate_sha256=None) if is_declared_closed else known

    context = tls_context(estate().schedule, estate().mail_ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK-AES128-GCM-SHA256")
    refused = [probe for probe in PROBES if probe.expected is Expectation.REFUSED]
    look = probe(Presented.OTHER_CA, None, Expectation.REFUSED, "1.2")
    with tls(context) as address:
        outcomes = run_probes((*refused, look), Closed(), connect=lambda _: address, timeout_seconds=SECONDS)
    expected = Verdict.AS_DECLARED if is_declared_closed else Verdict.INCONCLUSIVE
    assert {expected} == {outcome.verdict for outcome in outcomes}, shown(outcomes)
    assert {"alert handshake_failure", "alert protocol_version"} == {outcome.evidence for outcome in outcomes}


def test_a_handshake_that_finishes_proves_nothing() -> None:
    """TLS 1.3: the caller has finished before the server has looked at its certificate."""
    probes = tuple(p for p in PROBES if p.protocol == "1.3")
    with tls(good_context()) as address:
        refused = [o for o in probe_all(address, probes=probes) if o.observed is Observation.REFUSED]
    assert 5 == len(refused)
    assert {estate().schedule.sha256} == {outcome.served_sha256 for outcome in refused}


def test_a_closed_port_is_unreachable() -> None:
    outcomes = probe_all(("127.0.0.1", free_port()))
    assert {Observation.UNREACHABLE} == {outcome.observed for outcome in outcomes}
    assert {"unreachable: Connection refused"} == {outcome.evidence for outcome in outcomes}


# what cannot be tried


class Unable(Identities):
    def __init__(self, *, identity: Identity | NotProbed | None, anchors: bytes | NotProbed) -> None:
        self._identity, self._anchors = identity, anchors

    def identity(self, probe: Probe) -> Identity | NotProbed | None:
        return self._identity

    def anchors(self, probe: Probe) -> bytes | NotProbed:
        return self._anchors


@pytest.mark.parametrize(
    ("identity", "anchors", "reason"),
    [
        (NotProbed(reason="the key cannot be read"), b"", "the key cannot be read"),
        (estate().mail.identity, NotProbed(reason="not applied yet"), "not applied yet"),
        (None, estate().schedule_ca.pem, "there is nothing to present"),
        (estate().mail.with_key_of(estate().social).identity, estate().schedule_ca.pem, "do not load"),
        (Identity(chain=b"", key=Secret(b"")), estate().schedule_ca.pem, "do not load"),
        (estate().mail.identity, b"", "do not load"),
        (estate().mail.identity, "ü".encode(), "do not load"),
    ],
)
def test_what_cannot_be_tried_is_not_probed(
    identity: Identity | NotProbed | None, anchors: bytes | NotProbed, reason: str
) -> None:
    one = probe(Presented.DELIVERED, MAIL, Expectation.ALLOWED, "1.3")
    with tls(good_context()) as address:
        (outcome,) = run_probes([one], Unable(identity=identity, anchors=anchors), connect=lambda _: address)
    assert (Verdict.NOT_PROBED, True) == (outcome.verdict, reason in outcome.evidence)


def test_no_evidence_shows_a_key() -> None:
    outcomes: list[Outcome] = []
    for make, _ in WRONG.values():
        with Server(make()) as server:
            outcomes += probe_all(server.address, probes=PROBES[-2:], seconds=0.2)
    text = repr(outcomes) + repr(estate().mail.identity)
    assert "PRIVATE" not in text


def test_many_doors_are_tried_at_once() -> None:
    """Eight black holes take one timeout, not eight."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(black_hole))
        began = time.monotonic()
        probe_all(server.address, probes=PROBES[:8])
    assert time.monotonic() - began < SECONDS * 6


def test_probes_of_one_door_prove_nothing_about_another() -> None:
    other = Endpoint(InstanceId("schedule", "there"), "192.0.2.2", 8443)
    allowed = probe(Presented.DELIVERED, MAIL, Expectation.ALLOWED, "1.3")
    refused = dataclasses.replace(probe(Presented.NO_CERTIFICATE, None, Expectation.REFUSED, "1.3"), endpoint=other)
    with tls(good_context()) as good, Server(silent_close) as closing:
        outcomes = run_probes(
            [allowed, refused],
            Identities(),
            connect=lambda endpoint: closing.address if endpoint == other else good,
        )
    assert [Verdict.AS_DECLARED, Verdict.INCONCLUSIVE] == [outcome.verdict for outcome in outcomes]
