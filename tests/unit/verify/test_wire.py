from __future__ import annotations

import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import DeliveryError
from mtlsctl.verify.wire import NotTls, Served, await_served, read_first_flight
from tests.support.ports import free_port
from tests.unit.verify.certificates import SCHEDULE_NAME, estate
from tests.unit.verify.servers import Nginx, Server, answer, speaking_tls, tls_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.verify.certificates import Leaf


def vector(width: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return len(body).to_bytes(width) + body


def flight_of(leaf: Leaf, *names: bytes, record_size: int = 16_000) -> bytes:
    """A TLS 1.2 server's first flight, cut into records; Python's own servers never name any CA."""
    asked = vector(1, b"\x01\x40") + vector(2, b"\x04\x03") + vector(2, *(vector(2, name) for name in names))
    messages = (
        b"\x02" + vector(3, bytes(38)),
        b"\x0b" + vector(3, vector(3, vector(3, leaf.der))),
        b"\x0d" + vector(3, asked),
        b"\x0e" + vector(3),
    )
    stream = b"".join(messages)
    cuts = range(0, len(stream), record_size)
    return b"".join(b"\x16\x03\x03" + vector(2, stream[at : at + record_size]) for at in cuts)


def showing(leaf: Leaf, *names: bytes, record_size: int = 16_000) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(flight_of(leaf, *names, record_size=record_size))

    return serve


def context(*, lowest: ssl.TLSVersion, highest: ssl.TLSVersion) -> ssl.SSLContext:
    made = tls_context(estate().schedule, estate().mail_ca, estate().social_ca)
    made.minimum_version, made.maximum_version = lowest, highest
    return made


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_is_read_without_any_key(highest: ssl.TLSVersion) -> None:
    with Server(speaking_tls(context(lowest=ssl.TLSVersion.TLSv1_2, highest=highest))) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 2)
    assert ("1.2", estate().schedule.der, ()) == (flight.protocol, flight.leaf_der, flight.ca_names)


@pytest.mark.parametrize("record_size", [1, 7, 16_000])
def test_the_names_of_the_cas_are_read_however_the_records_are_cut(record_size: int) -> None:
    names = (estate().mail_ca.subject_der, estate().social_ca.subject_der)
    with Server(showing(estate().schedule, *names, record_size=record_size)) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 2)
    assert (estate().schedule.der, names) == (flight.leaf_der, flight.ca_names)


def test_a_server_of_tls_13_only_shows_its_certificate_and_asks_without_names() -> None:
    only = context(lowest=ssl.TLSVersion.TLSv1_3, highest=ssl.TLSVersion.TLSv1_3)
    with Server(speaking_tls(only)) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 2)
    assert ("1.3", estate().schedule.der, ()) == (flight.protocol, flight.leaf_der, flight.ca_names)


def test_a_server_of_tls_13_only_that_asks_for_nothing_names_nobody() -> None:
    only = tls_context(estate().schedule, verify=ssl.CERT_NONE)
    only.minimum_version = ssl.TLSVersion.TLSv1_3
    with Server(speaking_tls(only)) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 2)
    assert ("1.3", estate().schedule.der, None) == (flight.protocol, flight.leaf_der, flight.ca_names)


@pytest.mark.peer("nginx")
@pytest.mark.parametrize("protocol", ["1.2", "1.3"])
def test_nginx_is_settled_when_it_asks_for_the_new_cas_with_either_protocol(tmp_path: Path, protocol: str) -> None:
    """Its certificate is the same before and after: only the names tell that callers of a new CA are let in."""
    nginx, port = Nginx(tmp_path), free_port()
    mail, social = estate().mail_ca.subject_der, estate().social_ca.subject_der
    at, leaf = ("127.0.0.1", port), estate().schedule.sha256
    text = nginx.server(port, estate().schedule, estate().mail_ca, estate().social_ca, name=SCHEDULE_NAME)
    nginx.conf.write_text(text.replace("TLSv1.2 TLSv1.3", f"TLSv{protocol}"))
    nginx.start()
    try:
        flight = read_first_flight(*at, SCHEDULE_NAME, 2)
        assert (protocol, {mail, social}) == (flight.protocol, set(flight.ca_names or ()))
        await_served([served(at, leaf, frozenset({mail, social}))], deadline_seconds=5)
        with pytest.raises(DeliveryError) as raised:
            await_served([served(at, leaf, frozenset({mail}))], deadline_seconds=0.2)
    finally:
        nginx.stop()
    assert ("M4204", True) == (raised.value.code, "1 are too many" in raised.value.notes[0])


def test_a_server_that_asks_for_nothing_names_nobody() -> None:
    with Server(speaking_tls(tls_context(estate().schedule, verify=ssl.CERT_NONE))) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 2)
    assert (estate().schedule.der, None) == (flight.leaf_der, flight.ca_names)


def test_names_that_fill_several_records_are_read_whole() -> None:
    many = tuple(b"0" + bytes([60]) + f"{n:060}".encode() for n in range(1000))
    with Server(showing(estate().schedule, *many)) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 5)
    assert many == flight.ca_names


def test_a_name_that_is_refused_is_an_alert() -> None:
    refusing = tls_context(estate().schedule)
    refusing.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    with Server(speaking_tls(refusing)) as server:
        flight = read_first_flight(*server.address, SCHEDULE_NAME, 2)
    assert (None, 112) == (flight.leaf_der, flight.alert)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x03\x00\x08\x0b\x00\x00\x04\x00\xff\xff\xff\x0e\x00\x00\x00",
        b"\x17\x03\x03\x00\x01x",
        b"\x16\x03\x03\xff\xff" + b"\x0b" * 0xFFFF + (b"\x16\x03\x03\xff\xff" + b"\x00" * 0xFFFF) * 9,
    ],
)
def test_what_is_not_tls_is_said_to_be_so(garbage: bytes) -> None:
    with Server(lambda connection: connection.sendall(garbage)) as server, pytest.raises((NotTls, OSError)):
        read_first_flight(*server.address, SCHEDULE_NAME, 2)


def test_a_silent_server_is_not_waited_for_beyond_the_timeout() -> None:
    with Server(lambda _: time.sleep(0.5)) as server, pytest.raises(TimeoutError):
        read_first_flight(*server.address, SCHEDULE_NAME, 0.2)


def served(address: tuple[str, int], sha256: str | None, names: frozenset[bytes] | None = None) -> Served:
    return Served(
        address=address[0], port=address[1], server_name=SCHEDULE_NAME, certificate_sha256=sha256, ca_names=names
    )


def test_what_is_served_as_expected_has_settled() -> None:
    names = frozenset({estate().mail_ca.subject_der})
    with Server(showing(estate().schedule, estate().mail_ca.subject_der)) as server:
        await_served([served(server.address, estate().schedule.sha256, names)], deadline_seconds=2)
        await_served([served(server.address, estate().schedule.sha256)], deadline_seconds=2)
        await_served([], deadline_seconds=2)


@pytest.mark.parametrize(
    ("sha256", "names", "complaint"),
    [
        (estate().mail.sha256, None, "serves certificate"),
        (estate().schedule.sha256, frozenset({estate().social_ca.subject_der}), "1 that are expected are missing, 1"),
        (None, None, "nobody may be let in"),
    ],
    ids=["another leaf", "other CAs", "anything at all"],
)
def test_what_is_not_served_as_expected_does_not_settle(
    sha256: str | None, names: frozenset[bytes] | None, complaint: str
) -> None:
    with (
        Server(showing(estate().schedule, estate().mail_ca.subject_der)) as server,
        pytest.raises(DeliveryError) as refused,
    ):
        await_served([served(server.address, sha256, names)], deadline_seconds=0.3)
    assert "M4204" == refused.value.code
    assert complaint in refused.value.notes[0]


def test_a_server_that_asks_for_no_certificate_does_not_settle() -> None:
    expected = frozenset({estate().mail_ca.subject_der})
    with (
        Server(speaking_tls(tls_context(estate().schedule, verify=ssl.CERT_NONE))) as server,
        pytest.raises(DeliveryError) as refused,
    ):
        await_served([served(server.address, estate().schedule.sha256, expected)], deadline_seconds=0.3)
    assert "asks for no client certificate" in refused.value.notes[0]


def open_to_anybody(address: tuple[str, int], *, asks: bool, lets_in_anybody: bool) -> Served:
    leaf = estate().schedule.sha256
    return replace(served(address, leaf), asks=asks, lets_in_anybody=lets_in_anybody)


MODES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("expected", MODES)
@pytest.mark.parametrize("mode", MODES)
def test_a_change_of_what_is_asked_settles_only_once_it_is_served(
    mode: str, expected: str, highest: ssl.TLSVersion
) -> None:
    """Required and optional look alike in the first flight, so who shows nothing is tried."""
    context = tls_context(estate().schedule, estate().mail_ca, verify=MODES[mode])
    context.maximum_version = highest
    with Server(speaking_tls(context)) as server:
        wanted = open_to_anybody(server.address, asks=expected != "none", lets_in_anybody=expected != "required")
        # Whatever does ask for a certificate is compared with the names of the CAs, where those are known.
        if mode == "none" and expected != "none":
            wanted = replace(wanted, ca_names=frozenset())
        if mode == expected:
            await_served([wanted], deadline_seconds=3)
            return
        with pytest.raises(DeliveryError) as refused:
            await_served([wanted], deadline_seconds=0.3)
    complaints = ("asks for a client", "asks for no client", "refuses who shows no", "lets in who shows no")
    assert any(one in refused.value.notes[0] for one in complaints), refused.value.notes


def test_a_server_that_speaks_something_else_than_http_is_given_the_benefit_of_the_doubt() -> None:
    context = tls_context(estate().schedule, verify=ssl.CERT_NONE)
    with Server(speaking_tls(context, lambda connection: answer(connection, b"220 ready\r\n"))) as server:
        for lets_in in (True, False):
            await_served([open_to_anybody(server.address, asks=False, lets_in_anybody=lets_in)], deadline_seconds=3)


def test_a_closed_port_does_not_settle() -> None:
    with pytest.raises(DeliveryError) as refused:
        await_served([served(("127.0.0.1", free_port()), None)], deadline_seconds=0.2)
    assert "refused" in refused.value.notes[0]


def test_reads_that_disagree_do_not_settle() -> None:
    """Two workers, one of them old: every other read shows the old certificate."""
    contexts = [tls_context(leaf) for leaf in (estate().schedule, estate().mail)]
    turn = iter(range(10_000))

    def serve(connection: object) -> None:
        speaking_tls(contexts[next(turn) % 2])(connection)  # type: ignore[arg-type]

    with Server(serve) as server, pytest.raises(DeliveryError):
        await_served([served(server.address, estate().schedule.sha256)], deadline_seconds=0.5)


def test_a_server_that_changes_late_is_waited_for() -> None:
    contexts = [tls_context(leaf) for leaf in (estate().mail, estate().schedule)]
    turn = iter(range(10_000))

    def serve(connection: object) -> None:
        speaking_tls(contexts[next(turn) > 4])(connection)  # type: ignore[arg-type]

    with Server(serve) as server:
        await_served([served(server.address, estate().schedule.sha256)], deadline_seconds=5)
