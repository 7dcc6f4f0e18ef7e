"""What the certificates do in real TLS: Python's ssl over memory, TLS 1.2 and 1.3, as strict as Python 3.13."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtlsctl.model.credential import KeyUsage
from mtlsctl.model.probe import Presented
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.draft import leaf_extensions, make_unsigned, name_of
from mtlsctl.pki.issue import sign_unsigned
from mtlsctl.pki.keys import generate_key, private_pem
from mtlsctl.pki.probes import craft_foreign, draft_probe, lint_probe, sign_probe
from mtlsctl.pki.stores import to_pem

from .making import (
    DAY,
    NOW,
    P256,
    Authority,
    Leaf,
    authority_profile,
    certificate_profile,
    make_authority,
    make_leaf,
)

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SERVER_NAME = "mail.calendar.internal"
CALLER = certificate_profile("social", usages=frozenset({KeyUsage.CLIENT_AUTH}))
LISTENER = certificate_profile("mail", usages=frozenset({KeyUsage.SERVER_AUTH}))


class Estate:
    """A listener `mail` that trusts the CA of `social`, which trusts the CA of `mail`."""

    def __init__(self, folder: Path, key: KeyAlgorithm = P256) -> None:
        self.folder = folder
        self.mail_ca = make_authority(authority_profile("mail", key=key))
        self.social_ca = make_authority(authority_profile("social", key=key))
        self.mail = make_leaf(self.mail_ca, replace(LISTENER, key=key))
        self.social = make_leaf(self.social_ca, replace(CALLER, key=key))

    def call(
        self,
        version: ssl.TLSVersion,
        *,
        caller: Leaf | None = None,
        listener: Leaf | None = None,
        server_name: str = SERVER_NAME,
        clients: bytes | None = None,
        servers: bytes | None = None,
        identity: tuple[Path, Path] | None = None,
    ) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*(listener or self.mail).write(self.folder / "listener"))
        server.load_verify_locations(cadata=(clients or self.social_ca.pem).decode())
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_cert_chain(*(identity or (caller or self.social).write(self.folder / "caller")))
        client.load_verify_locations(cadata=(servers or self.mail_ca.pem).decode())
        for context in (server, client):
            context.minimum_version = context.maximum_version = version
            context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        exchange(server, client, server_name)


def exchange(server_context: ssl.SSLContext, client_context: ssl.SSLContext, server_name: str) -> None:
    """Handshake, then bytes both ways: in TLS 1.3 a refusal of the caller arrives only when it reads."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=server_name)
    waiting = [client.do_handshake, server.do_handshake]
    for _ in range(10):
        waiting = [step for step in waiting if not done(step)]
    assert not waiting
    server.write(b"hello")
    assert b"hello" == client.read(5)


def done(step: object) -> bool:
    try:
        step()  # type: ignore[operator]
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", [P256, KeyAlgorithm.ED25519, KeyAlgorithm.RSA_2048])
def test_a_declared_caller_gets_in(tmp_path: Path, version: ssl.TLSVersion, key: KeyAlgorithm) -> None:
    Estate(tmp_path, key).call(version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_caller_whose_ca_is_not_declared_is_refused(estate: Estate, version: ssl.TLSVersion) -> None:
    stranger = make_leaf(make_authority(authority_profile("billing")), certificate_profile("billing"))
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        estate.call(version, caller=stranger)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_listener_itself_is_not_a_caller_of_its_own_door(estate: Estate, version: ssl.TLSVersion) -> None:
    both = make_leaf(estate.mail_ca, certificate_profile("mail"))
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        estate.call(version, caller=both)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_listener_of_another_name_is_not_believed(estate: Estate, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        estate.call(version, server_name="social.calendar.internal")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_caller_with_the_usage_of_a_server_is_refused(estate: Estate, version: ssl.TLSVersion) -> None:
    unfit = make_leaf(estate.social_ca, replace(CALLER, usages=frozenset({KeyUsage.SERVER_AUTH})))
    with pytest.raises(ssl.SSLError, match=r"unsuitable certificate purpose|unsupported certificate purpose"):
        estate.call(version, caller=unfit)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_listener_with_the_usage_of_a_client_is_not_believed(estate: Estate, version: ssl.TLSVersion) -> None:
    unfit = make_leaf(estate.mail_ca, replace(LISTENER, usages=frozenset({KeyUsage.CLIENT_AUTH})))
    with pytest.raises(ssl.SSLError, match=r"unsuitable certificate purpose|unsupported certificate purpose"):
        estate.call(version, listener=unfit)


def unchecked_leaf(authority: Authority, profile: object = CALLER, *, days: int = 30) -> Leaf:
    """A leaf that no lint has seen; `lint` refuses all that is tried with these."""
    key = generate_key(P256)
    profile = profile if isinstance(profile, type(CALLER)) else CALLER
    unsigned = make_unsigned(
        subject=name_of(profile.common_name),
        public_key=key.public_key(),
        issuer=authority.issuer,
        extensions=leaf_extensions(profile, key.public_key(), authority.issuer),
        validity=(NOW - 10 * DAY, NOW + days * DAY),
        now=NOW,
    )
    return Leaf(sign_unsigned(unsigned, authority.key), make_leaf(make_authority()).credential, key)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ca_that_ended_takes_its_leaves_with_it(estate: Estate, version: ssl.TLSVersion) -> None:
    ended = make_authority(authority_profile("social", lifetime=DAY), now=NOW - 3 * DAY)
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        estate.call(version, caller=unchecked_leaf(ended), clients=ended.pem)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_name_outside_the_constraints_is_not_believed(estate: Estate, version: ssl.TLSVersion) -> None:
    outside = replace(LISTENER, names=("social.calendar.internal",))
    with pytest.raises(ssl.SSLError, match="permitted subtree violation"):
        estate.call(version, listener=unchecked_leaf(estate.mail_ca, outside), server_name="social.calendar.internal")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_caller_with_a_name_outside_the_constraints_is_refused(estate: Estate, version: ssl.TLSVersion) -> None:
    outside = replace(CALLER, names=("mail.calendar.internal",))
    with pytest.raises(ssl.SSLError, match="permitted subtree violation"):
        estate.call(version, caller=unchecked_leaf(estate.social_ca, outside))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_two_generations_of_a_ca_overlap_in_either_order(
    estate: Estate, version: ssl.TLSVersion, order: tuple[int, int]
) -> None:
    generations = {number: make_authority(authority_profile("social", number)) for number in (1, 2)}
    bundle = to_pem([generations[number].issuer.certificate for number in order])
    for number, authority in generations.items():
        leaf = make_leaf(authority, certificate_profile("social", number))
        estate.call(version, caller=leaf, clients=bundle)
        with pytest.raises(ssl.SSLError, match="certificate verify failed"):
            estate.call(version, caller=leaf, clients=generations[3 - number].pem)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", [0, 1])
def test_two_cas_of_one_name_are_told_apart_by_their_key_identifiers(
    estate: Estate, version: ssl.TLSVersion, order: int
) -> None:
    twins = [make_authority(authority_profile("social")) for _ in range(2)]
    bundle = to_pem([twins[order].issuer.certificate, twins[1 - order].issuer.certificate])
    for authority in twins:
        estate.call(version, caller=make_leaf(authority, CALLER), clients=bundle)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "evidence"),
    [
        (Presented.EXPIRED, "certificate has expired"),
        (Presented.WRONG_USAGE, r"unsuitable certificate purpose|unsupported certificate purpose"),
    ],
)
def test_a_probe_is_refused_for_its_own_reason(
    estate: Estate, version: ssl.TLSVersion, kind: Presented, evidence: str
) -> None:
    key = generate_key(P256)
    draft = draft_probe(kind, CALLER, key.public_key(), estate.social_ca.issuer, now=NOW)
    der = sign_probe(lint_probe(draft), estate.social_ca.key)
    with pytest.raises(ssl.SSLError, match=evidence):
        estate.call(version, caller=replace(estate.social, der=der, key=key))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_foreign_ca_that_imitates_a_declared_one_is_refused(estate: Estate, version: ssl.TLSVersion) -> None:
    crafted = craft_foreign(estate.social.der, now=NOW)
    chain, key = estate.folder / "chain.pem", estate.folder / "key.pem"
    chain.write_bytes(crafted.chain)
    key.write_bytes(crafted.key.reveal())
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        estate.call(version, identity=(chain, key))


@pytest.mark.peer("openssl")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("key", [P256, KeyAlgorithm.ED25519, KeyAlgorithm.RSA_2048])
def test_openssl_verifies_strictly_what_we_issue_and_refuses_what_others_did(tmp_path: Path, key: KeyAlgorithm) -> None:
    estate = Estate(tmp_path, key)
    anchor = tmp_path / "mail.pem"
    anchor.write_bytes(estate.mail_ca.pem)
    wrong = tmp_path / "social.pem"
    wrong.write_bytes(estate.social_ca.pem)
    leaf, key_file = estate.mail.write(tmp_path / "mail")
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", SERVER_NAME]
    for trusted, expected in ((anchor, 0), (wrong, 2)):
        run = subprocess.run([*command, "-CAfile", trusted, leaf], capture_output=True, check=False)
        assert expected == run.returncode, run.stderr
    assert private_pem(estate.mail.key).reveal() == key_file.read_bytes()
