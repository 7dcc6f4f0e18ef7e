"""What every state store promises, as tests: a suite subclasses `StateStoreContract` and says how a state is made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import SealedKeyError, StateError, StateLocked
from mtlsctl.model.credential import (
    AuthorityId,
    AuthorityProfile,
    CertificateProfile,
    CertificationAuthority,
    Credential,
    CredentialId,
    KeyUsage,
)
from mtlsctl.model.release import (
    OLD_NAMES,
    Callee,
    Endpoint,
    FileFact,
    Receipt,
    Recipe,
    ServedListener,
    Socket,
)
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import (
    ClientCertificate,
    DirectoryHost,
    InstanceId,
    KeyAlgorithm,
    ListenerId,
    ProcessId,
    SshHost,
)
from mtlsctl.model.trust import OutsideAnchor, PeerPolicy
from mtlsctl.planner.refactoring import with_hosts_moved, with_services_moved, without_hosts
from mtlsctl.store.journal import Event
from mtlsctl.store.port import Intent, Outcome, ReleaseRecord, SwitchRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtlsctl.store.keysource import KeySource
    from mtlsctl.store.port import StateStore, StateWriter

LINEAGE = "0b1e6f0c-5b0e-4f5c-9a8e-3d1c2b4a5f60"
ESTATE = "calendar"
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
MAIL, SOCIAL = InstanceId("mail", "alpha"), InstanceId("social", "beta")
MAIL_CA, MAIL_CA_2 = AuthorityId("mail", 1), AuthorityId("mail", 2)
MAIL_1, MAIL_2 = CredentialId(MAIL, 1), CredentialId(MAIL, 2)
PROCESS = ProcessId("alpha", "nginx")
HOSTS = (
    DirectoryHost(name="alpha", directory="/srv/alpha", seen_as="/", pid_files=(("nginx", "run/nginx.pid"),)),
    SshHost(name="beta", address="192.0.2.7", port=2222, user="deploy", become=True),
)
CA_KEY = Secret(bytes(range(7, 145)))


@dataclass
class Clock:
    """A clock that a test sets."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Place:
    """Where a new state lies that belongs to LINEAGE and ESTATE; each `open` is another connection, as of a process."""

    open: Callable[..., StateStore]
    clock: Clock
    other_key: KeySource
    folder: Path
    opened: list[StateStore] = field(default_factory=list)

    def store(self, **arguments: object) -> StateStore:
        self.opened.append(self.open(**arguments))
        return self.opened[-1]


def sha256(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def serial_of(subject: object) -> str:
    return sha256("serial", subject)[:40]


def intent(subject: AuthorityId | CredentialId | str, issuer: AuthorityId | None = None) -> Intent:
    authority = issuer or (subject if isinstance(subject, AuthorityId) else MAIL_CA)
    return Intent(
        issuer=authority,
        serial=serial_of(subject),
        subject=subject,
        common_name=str(subject),
        not_after=NOW + timedelta(days=90),
        to_be_signed_sha256=sha256("tbs", subject),
    )


def authority(id: AuthorityId = MAIL_CA) -> tuple[CertificationAuthority, bytes]:
    certificate = f"certificate of {id}".encode()
    made = CertificationAuthority(
        profile=AuthorityProfile(
            id=id,
            common_name=f"{id.service}.calendar CA g{id.generation}",
            key=KeyAlgorithm.ECDSA_P256,
            lifetime=timedelta(days=1825),
            permitted_names=("mail.calendar.internal", "mail.example"),
            addresses=True,
        ),
        serial=serial_of(id),
        not_before=NOW - timedelta(minutes=5),
        not_after=NOW + timedelta(days=1825),
        certificate_sha256=hashlib.sha256(certificate).hexdigest(),
        spki_sha256=sha256("spki", id),
    )
    return made, certificate


def credential(id: CredentialId = MAIL_1, issuer: AuthorityId = MAIL_CA) -> tuple[Credential, bytes]:
    certificate = f"certificate of {id}".encode()
    made = Credential(
        profile=CertificateProfile(
            id=id,
            authority=issuer,
            common_name=id.instance.service,
            names=("mail.calendar.internal",),
            transitional_names=("mail.old.internal",),
            addresses=("192.0.2.1", "2001:db8::1"),
            usages=frozenset({KeyUsage.SERVER_AUTH}),
            key=KeyAlgorithm.ED25519,
            lifetime=timedelta(days=90),
        ),
        serial=serial_of(id),
        not_before=NOW - timedelta(minutes=5),
        not_after=NOW + timedelta(days=90),
        certificate_sha256=hashlib.sha256(certificate).hexdigest(),
        spki_sha256=sha256("spki", id),
    )
    return made, certificate


def recipe(id: CredentialId = MAIL_1) -> Recipe:
    return Recipe(
        instance=id.instance,
        process=PROCESS,
        runtime="nginx",
        runtime_digest=sha256("nginx"),
        root="/srv/alpha",
        credential=id,
        server_names=("mail.calendar.internal",),
        listeners=(
            ServedListener(
                name="main",
                sockets=(Socket(None, 8443), Socket("192.0.2.1", 9443)),
                client_certificate=ClientCertificate.REQUIRED,
                protocols=("1.2", "1.3"),
                callers=("social",),
                policy=PeerPolicy(anchors=frozenset({AuthorityId("social", 1), AuthorityId("social", 2)})),
            ),
        ),
        callees=(
            Callee(
                listener=ListenerId("schedule", "main"),
                endpoints=(Endpoint(InstanceId("schedule", "beta"), "192.0.2.7", 8444),),
                server_name="schedule.calendar.internal",
                policy=PeerPolicy(anchors=frozenset({AuthorityId("schedule", 1)})),
            ),
        ),
        settings=(("egress", (("schedule", 18444),)), ("upstream", "http://127.0.0.1:8080")),
    )


def release(id: CredentialId = MAIL_1) -> ReleaseRecord:
    made = recipe(id)
    return ReleaseRecord(release=made.digest[:16], release_digest=made.digest, recipe=made)


def receipt(id: CredentialId = MAIL_1) -> Receipt:
    record = release(id)
    files = (FileFact("tls.crt", sha256("crt", id), 0o640), FileFact("tls.key", sha256("key", id), 0o600))
    return Receipt(release=record.release, release_digest=record.release_digest, files=files)


def switch(id: CredentialId = MAIL_1, *, before: str | None = None, after: str | None = "") -> SwitchRecord:
    return SwitchRecord(
        process=PROCESS,
        before=before,
        after=sha256("pointer", id) if after == "" else after,
        releases=(release(id),),
        removed=(),
    )


def sign_authority(writer: StateWriter, id: AuthorityId = MAIL_CA, key: Secret = CA_KEY) -> None:
    writer.record_intents([intent(id)])
    writer.record_signing([intent(id)])
    writer.add_authorities([(*authority(id), key)])


def sign_credential(writer: StateWriter, id: CredentialId = MAIL_1) -> None:
    writer.record_intents([intent(id)])
    writer.record_signing([intent(id)])
    writer.add_credentials([credential(id)])


def go_live(writer: StateWriter, id: CredentialId = MAIL_1) -> SwitchRecord:
    made = switch(id)
    writer.record_hosts(HOSTS)
    writer.record_releases(made.releases)
    writer.record_switch_intended(made)
    writer.record_switched(made, {id.instance: receipt(id)})
    return made


def apply_once(writer: StateWriter) -> None:
    """A first apply, whole."""
    writer.open_operation("apply")
    sign_authority(writer)
    sign_credential(writer)
    go_live(writer)
    writer.close_operation(Outcome.DONE)


class StateStoreContract:
    """Subclasses give the fixture `place`."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, place: Place) -> StateStore:
        return place.store()

    @pytest.fixture
    def writer(self, store: StateStore) -> Iterator[StateWriter]:
        with store.lock(command="test", timeout_seconds=0) as writer:
            yield writer

    # What is read

    def test_a_new_state_knows_whose_it_is_and_nothing_else(self, store: StateStore) -> None:
        state = store.snapshot()
        assert (state.lineage, state.estate, state.serial) == (LINEAGE, ESTATE, 1)
        empty = (state.authorities, state.credentials, state.live, state.hosts, state.interrupted)
        assert not any(empty)
        assert store.check() == ()

    def test_what_was_recorded_is_read_back_equal_by_another_connection(
        self, place: Place, writer: StateWriter
    ) -> None:
        apply_once(writer)
        state = place.store().snapshot()
        assert state.authorities == {MAIL_CA: authority()[0]}
        assert state.credentials == {MAIL_1: credential()[0]}
        assert state.hosts == {host.name: host for host in HOSTS}
        assert {at: (live.recipe, live.receipt) for at, live in state.live.items()} == {MAIL: (recipe(), receipt())}
        assert state.pointers == {PROCESS: switch().after}
        assert state.serial == 2

    def test_a_recipe_that_is_read_back_has_the_digest_that_it_had(self, writer: StateWriter) -> None:
        apply_once(writer)
        assert writer.snapshot().live[MAIL].recipe.digest == recipe().digest

    def test_what_two_callers_see_differently_is_kept_apart(self, writer: StateWriter) -> None:
        sign_authority(writer)
        seen = []
        for number, port in enumerate((8444, 8445, 8444), start=1):
            at = CredentialId(InstanceId("mail", f"host-{number}"), 1)
            sign_credential(writer, at)
            (callee,) = recipe(at).callees
            endpoints = (callee.endpoints[0]._replace(port=port),)
            seen.append(replace(recipe(at), callees=(replace(callee, endpoints=endpoints),)))
            record = ReleaseRecord(release=seen[-1].digest[:16], release_digest=seen[-1].digest, recipe=seen[-1])
            made = replace(switch(), process=ProcessId(at.instance.host, "nginx"), releases=(record,))
            writer.record_switch_intended(made)
            got = Receipt(release=record.release, release_digest=record.release_digest, files=())
            writer.record_switched(made, {at.instance: got})
        assert [live.recipe for live in writer.snapshot().live.values()] == seen

    def test_a_snapshot_holds_the_live_credential_and_the_newest_and_no_other(self, writer: StateWriter) -> None:
        apply_once(writer)
        for number in (2, 3):
            sign_credential(writer, CredentialId(MAIL, number))
        assert set(writer.snapshot().credentials) == {MAIL_1, CredentialId(MAIL, 3)}

    def test_certificates_are_read_back_by_their_identifier(self, writer: StateWriter) -> None:
        apply_once(writer)
        assert writer.certificate(MAIL_CA) == authority()[1]
        assert writer.certificate(MAIL_1) == credential()[1]
        assert writer.credential(MAIL_1) == credential()[0]
        assert writer.credential(MAIL_1._replace(sequence=99)) is None

    def test_a_certificate_that_was_never_issued_is_an_error(self, store: StateStore) -> None:
        for absent in (MAIL_CA, MAIL_1):
            with pytest.raises(StateError, match="holds no certificate") as caught:
                store.certificate(absent)
            assert caught.value.code == "M3032"

    def test_a_certificate_from_outside_is_kept_and_found_by_its_digest(self, writer: StateWriter) -> None:
        first, second = OutsideAnchor("acme", sha256("one")), OutsideAnchor("acme", digest_of(b"two"))
        writer.keep_certificates([b"two", b"three"])
        assert b"two" == writer.certificate(second)
        assert b"two" == writer.certificate(OutsideAnchor("another name for it", second.sha256))
        with pytest.raises(StateError, match="holds no certificate") as caught:
            writer.certificate(first)
        assert caught.value.code == "M3032"

    def test_a_certificate_that_is_kept_is_kept_once_and_told_of_once(self, place: Place, writer: StateWriter) -> None:
        writer.keep_certificates([b"two"])
        writer.keep_certificates([b"two", b"three"])
        writer.keep_certificates([b"three"])
        told = [entry.detail["certificates"] for entry in writer.journal() if entry.event == Event.KEPT]
        assert [[digest_of(b"two")], [digest_of(b"three")]] == told
        assert b"three" == place.store().certificate(OutsideAnchor("acme", digest_of(b"three")))
        assert () == place.store().check()

    def test_a_release_name_means_what_was_recorded_and_another_means_nothing(self, writer: StateWriter) -> None:
        apply_once(writer)
        assert writer.release(MAIL, release().release) == release()
        assert writer.release(MAIL, "0" * 16) is None
        assert writer.release(SOCIAL, release().release) is None

    def test_the_journal_is_numbered_and_chained(self, writer: StateWriter) -> None:
        apply_once(writer)
        entries = list(writer.journal())
        assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
        assert len({entry.digest for entry in entries}) == len(entries)
        assert {entry.at for entry in entries} == {NOW}

    def test_a_note_is_journalled_with_the_operation_that_it_belongs_to(self, writer: StateWriter) -> None:
        operation = writer.open_operation("apply")
        writer.note("looked", {"event": "drift", "host": "alpha"})
        last = list(writer.journal())[-1]
        assert (last.event, last.operation) == ("looked", operation)
        assert last.detail == {"event": "drift", "host": "alpha"}

    def test_a_secret_cannot_be_noted(self, writer: StateWriter) -> None:
        before = len(list(writer.journal()))
        with pytest.raises(TypeError):
            writer.note("looked", {"key": CA_KEY})
        assert len(list(writer.journal())) == before

    # Signatures

    def test_an_intent_is_on_record_before_anything_is_signed(self, writer: StateWriter) -> None:
        writer.record_intents([intent(MAIL_CA), intent(MAIL_1)])
        found = writer.signatures()
        assert [one.intent for one in found] == [intent(MAIL_CA), intent(MAIL_1)]
        assert {(one.signed, one.recorded) for one in found} == {(False, False)}

    def test_each_step_of_a_signature_shows(self, writer: StateWriter) -> None:
        sign_authority(writer)
        writer.record_intents([intent(MAIL_1), intent("probe of mail")])
        writer.record_signing([intent(MAIL_1), intent("probe of mail")])
        writer.record_probe_signed([intent("probe of mail")])
        steps = {str(one.intent.subject): (one.signed, one.recorded) for one in writer.signatures()}
        assert steps == {"mail CA g1": (True, True), "mail@alpha#1": (True, False), "probe of mail": (True, True)}
        assert writer.check() == ()

    def test_two_journal_rows_tell_of_each_signature(self, writer: StateWriter) -> None:
        apply_once(writer)
        events = [entry.event for entry in writer.journal() if entry.detail.get("serial") == serial_of(MAIL_1)]
        assert events == ["signing", "signed"]

    def test_a_serial_is_not_used_twice_by_one_authority(self, writer: StateWriter) -> None:
        writer.record_intents([intent(MAIL_1)])
        again = replace(intent(MAIL_2), serial=serial_of(MAIL_1))
        for batch in ([again], [intent(MAIL_2), replace(intent("x"), serial=serial_of(MAIL_2))]):
            with pytest.raises(StateError) as caught:
                writer.record_intents(batch)
            assert caught.value.code == "M3030"
        assert [one.intent for one in writer.signatures()] == [intent(MAIL_1)]

    def test_another_authority_may_use_the_same_serial(self, writer: StateWriter) -> None:
        writer.record_intents([intent(MAIL_1), replace(intent(MAIL_1), issuer=MAIL_CA_2)])
        assert len(writer.signatures()) == 2

    def test_a_number_that_was_only_intended_is_given_out(self, writer: StateWriter) -> None:
        writer.record_intents([intent(MAIL_CA_2), intent(MAIL_2), intent("probe of mail")])
        state = writer.snapshot()
        assert (dict(state.sequences), dict(state.generations)) == ({MAIL: 2}, {"mail": 2})
        assert not state.credentials

    def test_a_leaf_that_may_exist_extends_its_authority_and_an_intent_does_not(self, writer: StateWriter) -> None:
        sign_authority(writer)
        writer.record_intents([intent(MAIL_1)])
        assert not writer.snapshot().leaf_ends
        writer.record_signing([intent(MAIL_1)])
        assert writer.snapshot().leaf_ends == {MAIL_CA: intent(MAIL_1).not_after}

    def test_nothing_is_recorded_as_signed_that_was_not_recorded_as_signing(self, writer: StateWriter) -> None:
        sign_authority(writer)
        writer.record_intents([intent(MAIL_1), intent("probe")])
        refused: tuple[Callable[[], None], ...] = (
            lambda: writer.add_credentials([credential()]),
            lambda: writer.record_probe_signed([intent("probe")]),
            lambda: writer.record_signing([intent(MAIL_2)]),
        )
        for attempt in refused:
            with pytest.raises(StateError) as caught:
                attempt()
            assert caught.value.code == "M3031"
        assert not writer.snapshot().credentials

    def test_a_batch_of_credentials_is_recorded_whole_or_not_at_all(self, writer: StateWriter) -> None:
        sign_authority(writer)
        writer.record_intents([intent(MAIL_1), intent(MAIL_2)])
        writer.record_signing([intent(MAIL_1)])
        with pytest.raises(StateError):
            writer.add_credentials([credential(MAIL_1), credential(MAIL_2)])
        assert not writer.snapshot().credentials
        writer.add_credentials([credential(MAIL_1)])
        assert set(writer.snapshot().credentials) == {MAIL_1}

    def test_other_bytes_than_those_of_the_certificate_are_refused(self, writer: StateWriter) -> None:
        sign_authority(writer)
        writer.record_intents([intent(MAIL_1)])
        writer.record_signing([intent(MAIL_1)])
        with pytest.raises(StateError) as caught:
            writer.add_credentials([(credential()[0], b"another")])
        assert caught.value.code == "M3031"

    # Keys of authorities

    def test_an_authority_s_key_comes_back_as_it_was_added(self, writer: StateWriter) -> None:
        sign_authority(writer)
        assert writer.authority_key(MAIL_CA) == CA_KEY

    def test_another_encryption_key_opens_nothing_and_seals_nothing(self, place: Place, store: StateStore) -> None:
        with store.lock(command="test", timeout_seconds=0) as writer:
            sign_authority(writer)
        with place.store(key_source=place.other_key).lock(command="test", timeout_seconds=0) as writer:
            writer.record_intents([intent(MAIL_CA_2)])
            writer.record_signing([intent(MAIL_CA_2)])
            refused: tuple[Callable[[], object], ...] = (
                writer.unlock,
                lambda: writer.authority_key(MAIL_CA),
                lambda: writer.add_authorities([(*authority(MAIL_CA_2), CA_KEY)]),
                lambda: writer.move_service("mail", "post"),
            )
            for attempt in refused:
                with pytest.raises(SealedKeyError, match="cannot be opened with this key") as caught:
                    attempt()
                assert caught.value.code == "M7001"
            assert set(writer.snapshot().authorities) == {MAIL_CA}

    def test_all_but_keys_is_read_and_written_without_an_encryption_key(self, place: Place) -> None:
        with place.store(key_source=None).lock(command="test", timeout_seconds=0) as writer:
            writer.record_intents([intent(MAIL_1)])
            with pytest.raises(SealedKeyError) as caught:
                writer.unlock()
        assert caught.value.code == "M7002"

    def test_a_destroyed_key_is_gone_and_its_certificate_stays(self, writer: StateWriter) -> None:
        sign_authority(writer)
        assert not writer.snapshot().authorities[MAIL_CA].key_destroyed
        writer.destroy_authority_key(MAIL_CA)
        assert writer.snapshot().authorities[MAIL_CA].key_destroyed
        assert writer.certificate(MAIL_CA) == authority()[1]
        for attempt in (writer.authority_key, writer.destroy_authority_key):
            with pytest.raises(StateError) as caught:
                attempt(MAIL_CA)
            assert caught.value.code == "M3034"

    def test_the_key_of_an_unknown_authority_is_an_error(self, writer: StateWriter) -> None:
        with pytest.raises(StateError) as caught:
            writer.authority_key(MAIL_CA_2)
        assert caught.value.code == "M3034"

    # Hosts and switches

    def test_a_host_is_recorded_as_it_is_now(self, writer: StateWriter) -> None:
        writer.record_hosts(HOSTS)
        moved = SshHost(name="beta", address="192.0.2.8")
        writer.record_hosts([moved])
        assert writer.snapshot().hosts == {"alpha": HOSTS[0], "beta": moved}

    def test_programs_are_those_that_were_found_last(self, writer: StateWriter) -> None:
        writer.record_programs({"alpha": {"nginx": "1.18.0", "node": "20.1.0"}, "beta": {"nginx": "1.22.1"}})
        writer.record_programs({"alpha": {"nginx": "1.26.0"}})
        assert writer.snapshot().programs == {"alpha": {"nginx": "1.26.0"}, "beta": {"nginx": "1.22.1"}}
        writer.record_programs({"beta": {}})
        assert writer.snapshot().programs == {"alpha": {"nginx": "1.26.0"}}
        writer.forget_host("alpha")
        assert writer.snapshot().programs == {}

    def test_programs_of_a_host_that_is_moved_are_those_of_the_new_one(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.record_programs({"alpha": {"nginx": "1.18.0"}, "gamma": {"nginx": "1.2.0", "node": "20.1.0"}})
        before, place = writer.snapshot(), replace(HOSTS[0], name="gamma")
        writer.move_host("alpha", place)
        assert with_hosts_moved(before, {"alpha": place}) == writer.snapshot()
        assert writer.snapshot().programs == {"gamma": {"nginx": "1.18.0", "node": "20.1.0"}}

    def test_a_forgotten_host_takes_what_it_held_with_it(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.forget_host("alpha")
        state = writer.snapshot()
        assert not any((state.live, state.pointers))
        assert MAIL in state.keys_missing
        assert set(state.hosts) == {"beta"}
        assert set(state.credentials) == {MAIL_1}

    def test_a_host_that_is_moved_is_in_every_place_what_it_was_under_its_old_name(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_credential(writer, MAIL_2)
        writer.record_key_missing(MAIL)
        before, place = writer.snapshot(), replace(HOSTS[0], name="gamma")
        writer.move_host("alpha", place)
        after = writer.snapshot()
        assert with_hosts_moved(before, {"alpha": place}) == after
        assert "'alpha'" not in repr(after)
        assert writer.check() == ()
        gamma = InstanceId("mail", "gamma")
        assert writer.certificate(CredentialId(gamma, 2)) == credential(MAIL_2)[1]
        known = writer.release(gamma, receipt().release)
        assert known is not None
        assert known.recipe == after.live[gamma].recipe

    def test_a_host_that_others_call_or_trust_is_moved_in_their_releases_too(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.move_host("beta", replace(HOSTS[1], name="delta"))
        (callee,) = writer.snapshot().live[MAIL].recipe.callees
        assert {"delta"} == {endpoint.instance.host for endpoint in callee.endpoints}

    def test_an_open_switch_of_a_host_that_is_moved_goes_on_under_its_new_name(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_credential(writer, MAIL_2)
        second = switch(MAIL_2, before=switch().after)
        writer.record_switch_intended(second)
        writer.move_host("alpha", replace(HOSTS[0], name="gamma"))
        (found,) = writer.open_switches()
        assert (found.process.host, found.before, found.after) == ("gamma", second.before, second.after)
        assert ["gamma"] == [one.recipe.instance.host for one in found.releases]

    def test_a_host_does_not_take_a_name_that_is_known(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_credential(writer, CredentialId(InstanceId("mail", "gamma"), 1))
        before = writer.snapshot()
        with pytest.raises(StateError) as caught:
            writer.move_host("alpha", replace(HOSTS[0], name="gamma"))
        assert caught.value.code == "M3042"
        assert writer.snapshot() == before

    def test_a_service_that_is_moved_is_in_every_place_what_it_was_under_its_old_name(
        self, writer: StateWriter
    ) -> None:
        apply_once(writer)
        sign_credential(writer, MAIL_2)
        writer.record_key_missing(MAIL)
        before = writer.snapshot()
        writer.move_service("mail", "post")
        after = writer.snapshot()
        assert with_services_moved(before, {"mail": "post"}) == after
        assert writer.check() == ()
        post = InstanceId("post", "alpha")
        assert (post in after.keys_missing, MAIL in after.keys_missing) == (True, False)
        assert writer.certificate(CredentialId(post, 2)) == credential(MAIL_2)[1]
        assert after.authorities[AuthorityId("post", 1)].profile.common_name == authority()[0].profile.common_name
        assert (after.generations["mail"], after.sequences[MAIL]) == (1, 2)
        known = writer.release(post, receipt().release)
        assert known is not None
        assert (known.recipe, OLD_NAMES) == (after.live[post].recipe, known.recipe.runtime_digest)

    def test_the_key_of_a_ca_is_sealed_for_its_new_name(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.move_service("mail", "post")
        assert writer.authority_key(AuthorityId("post", 1)).reveal() == CA_KEY.reveal()
        with pytest.raises(StateError):
            writer.authority_key(MAIL_CA)
        writer.destroy_authority_key(AuthorityId("post", 1))
        assert writer.check() == ()

    def test_a_moved_service_goes_on_signing_and_its_numbers_go_on(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.move_service("mail", "post")
        second, post_ca = CredentialId(InstanceId("post", "alpha"), 2), AuthorityId("post", 1)
        writer.record_intents([intent(second, post_ca)])
        writer.record_signing([intent(second, post_ca)])
        writer.add_credentials([credential(second, post_ca)])
        assert writer.check() == ()
        assert {post_ca} == {one.profile.authority for one in writer.snapshot().credentials.values()}

    def test_a_service_does_not_take_a_name_under_which_something_was_issued(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_authority(writer, AuthorityId("post", 1))
        before = writer.snapshot()
        with pytest.raises(StateError) as caught:
            writer.move_service("mail", "post")
        assert (caught.value.code, writer.snapshot()) == ("M3043", before)

    def test_a_service_may_be_moved_back_and_its_old_release_be_rendered_again(self, writer: StateWriter) -> None:
        apply_once(writer)
        before = writer.snapshot()
        writer.move_service("mail", "post")
        writer.move_service("post", "mail")
        again = writer.snapshot()
        assert (again.credentials, again.authorities) == (before.credentials, before.authorities)
        assert again.live[MAIL].recipe.runtime_digest == OLD_NAMES
        go_live(writer)
        assert writer.snapshot().live == before.live
        assert writer.check() == ()

    def test_what_a_moved_service_signed_stays_guarded(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.move_service("mail", "post")
        assert {AuthorityId("post", 1)} == {one.intent.issuer for one in writer.signatures()}
        assert ("service moved", {"service": "mail", "to": "post"}) in [
            (one.event, dict(one.detail)) for one in writer.journal()
        ]
        with pytest.raises(StateError) as caught:
            writer.record_intents([intent(CredentialId(InstanceId("post", "alpha"), 1), AuthorityId("post", 1))] * 2)
        assert caught.value.code == "M3030"

    def test_a_host_that_is_given_up_takes_what_it_held_with_it(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_credential(writer, MAIL_2)
        before = writer.snapshot()
        writer.abandon_host("alpha")
        assert without_hosts(before, frozenset({"alpha"})) == writer.snapshot()
        assert writer.check() == ()

    def test_what_becomes_of_a_host_stands_in_the_journal(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.move_host("alpha", replace(HOSTS[0], name="gamma"))
        writer.abandon_host("gamma")
        said = [(one.event, dict(one.detail)) for one in writer.journal()][-2:]
        assert [
            ("host moved", {"host": "alpha", "to": "gamma"}),
            ("host abandoned", {"host": "gamma", "instances": [["mail", "gamma"]]}),
        ] == said

    def test_an_intended_switch_is_open_until_it_is_settled(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_credential(writer, MAIL_2)
        second = replace(switch(MAIL_2, before=switch().after), removed=(InstanceId("old", "alpha"),))
        writer.record_switch_intended(second)
        assert writer.open_switches() == (second,)
        assert writer.snapshot().live[MAIL].recipe.credential == MAIL_1
        writer.record_switched(second, {MAIL: receipt(MAIL_2)})
        assert writer.open_switches() == ()
        assert writer.snapshot().live[MAIL].recipe.credential == MAIL_2
        assert writer.snapshot().pointers == {PROCESS: second.after}

    def test_a_switch_that_went_back_leaves_what_was_live(self, writer: StateWriter) -> None:
        apply_once(writer)
        sign_credential(writer, MAIL_2)
        second = switch(MAIL_2, before=switch().after)
        writer.record_switch_intended(second)
        writer.record_switched_back(second)
        state = writer.snapshot()
        assert writer.open_switches() == ()
        assert state.live[MAIL].recipe.credential == MAIL_1
        assert state.pointers == {PROCESS: switch().after}

    def test_a_first_switch_that_went_back_leaves_no_pointer(self, writer: StateWriter) -> None:
        sign_authority(writer)
        sign_credential(writer)
        writer.record_switch_intended(switch())
        writer.record_switched_back(switch())
        assert not writer.snapshot().pointers

    def test_a_switch_removes_the_instances_that_its_process_no_longer_names(self, writer: StateWriter) -> None:
        apply_once(writer)
        last = SwitchRecord(process=PROCESS, before=switch().after, after=None, releases=(), removed=(MAIL,))
        writer.record_switch_intended(last)
        writer.record_switched(last, {})
        state = writer.snapshot()
        assert not any((state.live, state.pointers))

    def test_a_process_is_not_switched_while_an_earlier_switch_is_open(self, writer: StateWriter) -> None:
        sign_authority(writer)
        sign_credential(writer)
        writer.record_switch_intended(switch())
        with pytest.raises(StateError) as caught:
            writer.record_switch_intended(switch())
        assert caught.value.code == "M3022"

    def test_nothing_goes_live_of_which_no_release_was_recorded(self, writer: StateWriter) -> None:
        sign_authority(writer)
        sign_credential(writer)
        with pytest.raises(StateError) as caught:
            writer.record_switched(switch(), {MAIL: receipt()})
        assert caught.value.code == "M3033"
        assert not writer.snapshot().live

    def test_what_was_found_gone_is_no_longer_live(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.record_gone(MAIL)
        assert not writer.snapshot().live
        assert set(writer.snapshot().credentials) == {MAIL_1}

    def test_a_missing_key_is_missing_until_the_next_credential(self, writer: StateWriter) -> None:
        apply_once(writer)
        writer.record_key_missing(MAIL)
        writer.record_key_missing(SOCIAL)
        assert writer.snapshot().keys_missing == {MAIL, SOCIAL}
        sign_credential(writer, MAIL_2)
        assert writer.snapshot().keys_missing == {SOCIAL}

    # Operations

    def test_the_serial_grows_by_one_with_each_operation_that_ends(self, writer: StateWriter) -> None:
        for number, outcome in enumerate((Outcome.DONE, Outcome.PARTIAL, Outcome.FAILED), start=2):
            writer.open_operation("apply")
            assert writer.snapshot().serial == number - 1
            writer.close_operation(outcome)
            assert writer.snapshot().serial == number

    def test_operations_are_listed_newest_first_with_how_they_ended(self, place: Place, writer: StateWriter) -> None:
        first = writer.open_operation("apply")
        place.clock.now += timedelta(minutes=1)
        writer.close_operation(Outcome.PARTIAL)
        second = writer.open_operation("renew")
        found = writer.operations()
        assert [(one.id, one.command, one.outcome) for one in found] == [
            (second, "renew", None),
            (first, "apply", Outcome.PARTIAL),
        ]
        assert (found[1].opened_at, found[1].closed_at) == (NOW, NOW + timedelta(minutes=1))
        assert [one.id for one in writer.operations(limit=1)] == [second]

    def test_an_operation_that_never_ended_is_seen_and_then_marked_abandoned(self, store: StateStore) -> None:
        with store.lock(command="test", timeout_seconds=0) as writer:
            left = writer.open_operation("apply")
            assert writer.snapshot().interrupted is None
        assert store.snapshot().interrupted == left
        with store.lock(command="test", timeout_seconds=0) as writer:
            assert writer.snapshot().interrupted == left
            writer.open_operation("apply")
            assert writer.snapshot().interrupted is None
            assert writer.operations()[1].outcome is Outcome.ABANDONED
            assert writer.snapshot().serial == 2

    def test_operations_are_opened_and_closed_in_turn(self, writer: StateWriter) -> None:
        with pytest.raises(StateError, match="no operation is open"):
            writer.close_operation(Outcome.DONE)
        writer.open_operation("apply")
        with pytest.raises(StateError, match="still open"):
            writer.open_operation("apply")

    # The clock

    def test_a_clock_five_minutes_behind_the_record_may_write(self, place: Place, writer: StateWriter) -> None:
        writer.note("looked", {})
        place.clock.now = NOW - timedelta(minutes=5)
        writer.note("looked", {})
        assert list(writer.journal())[-1].at == NOW - timedelta(minutes=5)

    def test_a_clock_further_behind_may_not_and_the_mark_does_not_go_back(
        self, place: Place, store: StateStore
    ) -> None:
        with store.lock(command="test", timeout_seconds=0) as writer:
            writer.note("looked", {})
            place.clock.now = NOW - timedelta(minutes=5)
            writer.note("looked", {})
            place.clock.now = NOW - timedelta(minutes=5, seconds=1)
            with pytest.raises(StateError) as caught:
                writer.note("looked", {})
        assert caught.value.code == "M3020"
        with (
            pytest.raises(StateError) as caught,
            place.store().lock(command="test", timeout_seconds=0),
        ):
            pytest.fail("the lock was given to a clock that went back")
        assert caught.value.code == "M3020"

    def test_a_state_is_read_whatever_the_clock_says(self, place: Place) -> None:
        place.clock.now = NOW - timedelta(days=400)
        assert place.store().snapshot().serial == 1

    # The lock

    @pytest.mark.usefixtures("writer")
    def test_a_second_writer_is_refused_and_told_who_holds_the_lock(self, place: Place) -> None:
        with (
            pytest.raises(StateLocked, match=r"held by `test` of .* on .* \(process [0-9]+\)") as caught,
            place.store().lock(command="apply", timeout_seconds=0.1),
        ):
            pytest.fail("two writers")
        assert caught.value.code == "M3010"

    def test_readers_are_not_blocked_by_the_writer(self, place: Place, writer: StateWriter) -> None:
        writer.open_operation("apply")
        reader = place.store()
        assert reader.snapshot().serial == 1
        assert reader.check() == ()

    def test_the_lock_is_free_after_its_holder_failed(self, store: StateStore) -> None:
        with pytest.raises(KeyError), store.lock(command="test", timeout_seconds=0):
            raise KeyError
        with store.lock(command="test", timeout_seconds=0) as writer:
            writer.note("looked", {})

    def test_a_writer_that_outlives_its_lock_writes_nothing(self, store: StateStore) -> None:
        with store.lock(command="test", timeout_seconds=0) as writer:
            pass
        with pytest.raises(StateLocked) as caught:
            writer.note("looked", {})
        assert caught.value.code == "M3011"

    # Copies

    def test_a_backup_holds_what_the_state_held(self, place: Place, writer: StateWriter) -> None:
        apply_once(writer)
        writer.backup(place.folder / "backup")
        copied = place.store(path=place.folder / "backup")
        assert copied.snapshot() == writer.snapshot()
        assert list(copied.journal()) == list(writer.journal())
        assert copied.check() == ()

    def test_a_backup_replaces_nothing(self, place: Place, store: StateStore) -> None:
        taken = place.folder / "taken"
        taken.write_text("mine")
        with pytest.raises(StateError) as caught:
            store.backup(taken)
        assert caught.value.code == "M3041"
        assert taken.read_text() == "mine"

    def test_a_backup_into_no_folder_leaves_nothing(self, place: Place, store: StateStore) -> None:
        with pytest.raises(StateError) as caught:
            store.backup(place.folder / "missing" / "backup")
        assert caught.value.code == "M3007"
