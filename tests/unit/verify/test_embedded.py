from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import replace

import pytest

from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.probe import Expectation, Observation, Presented, Verdict
from mtlsctl.model.release import HeldFile, Recipe, ServedListener, Socket
from mtlsctl.model.topology import ClientCertificate, InstanceId, ProcessId
from mtlsctl.model.trust import PeerPolicy
from mtlsctl.verify.embedded import EmbeddedListener, EmbeddedServers, ListenerKey, listeners_of
from mtlsctl.verify.wire import read_first_flight
from tests.support.world import new_state
from tests.unit.verify.certificates import SCHEDULE_NAME, estate
from tests.unit.verify.test_prober import PROBES, probe_all, shown

KEY = ListenerKey(InstanceId("schedule", "here"), "main")
LISTENER = EmbeddedListener(
    key=KEY,
    identity=estate().schedule.identity,
    clients=estate().mail_ca.pem,
    client_certificate=ClientCertificate.REQUIRED,
    protocols=("1.2", "1.3"),
    server_names=(SCHEDULE_NAME,),
)


def test_applied_files_in_an_embedded_server_show_the_whole_matrix() -> None:
    with EmbeddedServers([LISTENER]) as servers:
        outcomes = probe_all(servers.address_of(KEY), seconds=5)
    assert {Verdict.AS_DECLARED} == {outcome.verdict for outcome in outcomes}, shown(outcomes)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(LISTENER, clients=estate().social_ca.pem),
        replace(LISTENER, clients=estate().mail_ca.pem + estate().social_ca.pem),
        replace(LISTENER, clients=None),
        replace(LISTENER, client_certificate=ClientCertificate.OPTIONAL),
        replace(LISTENER, client_certificate=ClientCertificate.NONE),
        replace(LISTENER, protocols=("1.3",)),
        replace(LISTENER, server_names=("other.example.com",)),
        replace(LISTENER, identity=estate().social.identity),
    ],
)
def test_applied_files_that_are_wrong_are_caught(wrong: EmbeddedListener) -> None:
    with EmbeddedServers([wrong]) as servers:
        outcomes = probe_all(servers.address_of(KEY), seconds=5)
    assert Verdict.CONTRADICTION in {outcome.verdict for outcome in outcomes}, shown(outcomes)


def test_a_listener_without_callers_lets_nobody_in_and_says_so() -> None:
    with EmbeddedServers([replace(LISTENER, clients=None)]) as servers:
        nobody = tuple(replace(probe, expected=Expectation.REFUSED) for probe in PROBES)
        outcomes = probe_all(servers.address_of(KEY), probes=nobody, seconds=5)
    assert {(Observation.REFUSED, "alert unrecognized_name")} == {(o.observed, o.evidence) for o in outcomes}


@pytest.mark.parametrize(("name", "alert"), [(SCHEDULE_NAME, None), (SCHEDULE_NAME.upper(), None), ("x.example", 112)])
def test_only_its_own_names_are_answered(name: str, alert: int | None) -> None:
    with EmbeddedServers([LISTENER]) as servers:
        assert alert == read_first_flight(*servers.address_of(KEY), name, 2).alert


def test_a_greeting_without_a_name_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        EmbeddedServers([LISTENER]) as servers,
        socket.create_connection(servers.address_of(KEY)) as connection,
        pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"),
    ):
        context.wrap_socket(connection)


def test_each_listener_has_a_port_of_its_own() -> None:
    other = replace(
        LISTENER,
        key=ListenerKey(InstanceId("social", "here"), "admin"),
        identity=estate().social.identity,
        server_names=("social",),
    )
    with EmbeddedServers([LISTENER, other]) as servers:
        seen = [
            read_first_flight(*servers.address_of(listener.key), listener.server_names[0], 2).leaf_der
            for listener in (LISTENER, other)
        ]
    assert [estate().schedule.der, estate().social.der] == seen


def test_nothing_is_resumed() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_verify_locations(cadata=estate().schedule_ca.pem.decode())
    from mtlsctl.verify.identity import load_identity  # noqa: PLC0415

    load_identity(context, estate().mail.identity)
    with EmbeddedServers([LISTENER]) as servers:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version = context.maximum_version = version
            session: ssl.SSLSession | None = None
            for _ in range(2):
                with (
                    socket.create_connection(servers.address_of(KEY)) as connection,
                    context.wrap_socket(connection, server_hostname=SCHEDULE_NAME, session=session) as secured,
                ):
                    secured.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert secured.recv(4096).startswith(b"HTTP/1.1 200 OK")
                    session = secured.session
                    assert not secured.session_reused


def test_files_that_do_not_load_leave_nothing_open() -> None:
    before = threading.active_count()
    wrong = replace(LISTENER, identity=estate().schedule.with_key_of(estate().mail).identity)
    with pytest.raises(ssl.SSLError), EmbeddedServers([LISTENER, wrong]):
        pass
    assert before == threading.active_count()


def test_leaving_ends_every_thread_and_does_not_wait_for_idle_callers() -> None:
    before = threading.active_count()
    with EmbeddedServers([LISTENER]) as servers:
        idle = [socket.create_connection(servers.address_of(KEY)) for _ in range(12)]
        time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert before == threading.active_count()
    for connection in idle:
        connection.close()


def recipe(*anchors: AuthorityId) -> Recipe:
    instance = KEY.instance
    served = ServedListener(
        name="main",
        sockets=(Socket(None, 8443),),
        client_certificate=ClientCertificate.REQUIRED,
        protocols=("1.2", "1.3"),
        callers=tuple(anchor.service for anchor in anchors),
        policy=PeerPolicy(anchors=frozenset(anchors)),
    )
    return Recipe(
        instance=instance,
        process=ProcessId("here", "nginx"),
        runtime="nginx",
        runtime_digest="0",
        root="",
        credential=CredentialId(instance, 1),
        server_names=(SCHEDULE_NAME,),
        listeners=(served,),
    )


def files(*more: str) -> dict[str, HeldFile]:
    present = {
        "tls.crt": HeldFile.of(estate().schedule.pem, 0o640),
        "tls.key": HeldFile.of(estate().schedule.key_pem, 0o600),
    }
    return present | {path: HeldFile.of(estate().mail_ca.pem, 0o640) for path in more}


def test_listeners_are_made_from_the_files_of_a_release() -> None:
    (listener,) = listeners_of(recipe(AuthorityId("mail", 1)), files("clients/main.pem"), new_state())
    assert replace(LISTENER, identity=listener.identity) == listener
    assert (estate().schedule.pem, estate().schedule.identity.key) == (listener.identity.chain, listener.identity.key)


def test_only_a_listener_without_callers_may_lack_its_file() -> None:
    with pytest.raises(KeyError):
        listeners_of(recipe(AuthorityId("mail", 1)), files(), new_state())
    (listener,) = listeners_of(recipe(), files("clients/main.pem"), new_state())
    assert listener.admits_nobody


def test_every_kind_of_certificate_is_in_the_matrix() -> None:
    without = {Presented.PLAINTEXT, Presented.OTHER_CA, Presented.OTHER_PROTOCOL}
    assert set(Presented) - without == {probe.presented for probe in PROBES}
