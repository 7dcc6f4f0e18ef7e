"""What a CA and a leaf say, stated again over the parsed certificate without looking at the code that builds them."""

from __future__ import annotations

import ast
import base64
import hashlib
import ipaddress
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

import mtlsctl.pki
from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import AuthorityId, CertificateProfile, KeyUsage
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.draft import random_serial
from mtlsctl.pki.issue import Draft, Issuer, LintedDraft, LintError, draft_authority, draft_certificate, lint, sign
from mtlsctl.pki.keys import generate_key, private_der, spki_sha256

from .making import DAY, NOW, P256, authority_profile, certificate_profile, key_of, make_authority, make_leaf

SUBJECT = NameOID.COMMON_NAME
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def assert_is_ca(certificate: x509.Certificate) -> None:
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (True, True, 0) == (basic.critical, basic.value.ca, basic.value.path_length)
    assert {"key_cert_sign", "crl_sign"} == asserted(certificate)
    assert certificate.subject == certificate.issuer
    assert own_key_identifier(certificate) == authority_key_identifier(certificate)
    assert 5 == len(certificate.extensions)


def assert_is_leaf(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (True, False, None) == (basic.critical, basic.value.ca, basic.value.path_length)
    is_rsa = isinstance(certificate.public_key(), rsa.RSAPublicKey)
    assert {"digital_signature"} | ({"key_encipherment"} if is_rsa else set()) == asserted(certificate)
    assert own_key_identifier(issuer) == authority_key_identifier(certificate)
    assert not certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert 6 == len(certificate.extensions)
    certificate.verify_directly_issued_by(issuer)


def asserted(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    return {name for name in KEY_USAGES if getattr(usage.value, name)}


def own_key_identifier(certificate: x509.Certificate) -> bytes:
    found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert not found.critical
    assert x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()) == found.value
    return found.value.digest


def authority_key_identifier(certificate: x509.Certificate) -> bytes:
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert (False, None, None) == (
        found.critical,
        found.value.authority_cert_issuer,
        found.value.authority_cert_serial_number,
    )
    assert found.value.key_identifier is not None
    return found.value.key_identifier


def usages_of(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert not found.critical
    return set(found.value)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_a_ca_and_its_leaf_hold_to_the_profile_with_every_key_algorithm(algorithm: KeyAlgorithm) -> None:
    authority = make_authority(authority_profile(key=algorithm))
    leaf = make_leaf(authority, certificate_profile(key=algorithm))
    ca = x509.load_der_x509_certificate(authority.issuer.certificate)
    end_entity = x509.load_der_x509_certificate(leaf.der)
    assert_is_ca(ca)
    assert_is_leaf(end_entity, ca)
    expected = None if algorithm is KeyAlgorithm.ED25519 else hashes.SHA256.name
    for certificate in (ca, end_entity):
        found = certificate.signature_hash_algorithm
        assert expected == (None if found is None else found.name)
        assert x509.Version.v3 == certificate.version


@pytest.mark.parametrize("leaf_key", [KeyAlgorithm.ED25519, KeyAlgorithm.RSA_2048])
def test_a_leaf_may_have_another_kind_of_key_than_its_ca(leaf_key: KeyAlgorithm) -> None:
    authority = make_authority()
    leaf = x509.load_der_x509_certificate(make_leaf(authority, certificate_profile(key=leaf_key)).der)
    assert_is_leaf(leaf, x509.load_der_x509_certificate(authority.issuer.certificate))


def test_the_subjects_are_one_common_name_each() -> None:
    authority = make_authority(authority_profile("mail", 2))
    leaf = x509.load_der_x509_certificate(make_leaf(authority).der)
    ca = x509.load_der_x509_certificate(authority.issuer.certificate)
    assert "CN=mail.calendar CA g2" == ca.subject.rfc4514_string()
    assert "CN=mail" == leaf.subject.rfc4514_string()
    assert ca.subject == leaf.issuer


def test_a_ca_is_constrained_to_its_names_and_to_no_address() -> None:
    ca = x509.load_der_x509_certificate(make_authority().issuer.certificate)
    constraints = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert [x509.DNSName("mail.calendar.internal")] == constraints.value.permitted_subtrees
    everything = [x509.IPAddress(ipaddress.ip_network(net)) for net in ("0.0.0.0/0", "::/0")]
    assert everything == constraints.value.excluded_subtrees


def test_a_ca_of_a_service_with_addresses_leaves_them_unconstrained() -> None:
    ca = x509.load_der_x509_certificate(make_authority(authority_profile(addresses=True)).issuer.certificate)
    assert ca.extensions.get_extension_for_class(x509.NameConstraints).value.excluded_subtrees is None


def test_a_leaf_presents_names_then_transitional_names_then_addresses() -> None:
    authority = make_authority(authority_profile(addresses=True, permitted_names=("example.com", "localhost")))
    profile = certificate_profile(
        names=("b.example.com", "a.example.com"),
        transitional_names=("localhost",),
        addresses=("192.0.2.7", "2001:db8::1"),
    )
    leaf = x509.load_der_x509_certificate(make_leaf(authority, profile).der)
    presented = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    expected = ["b.example.com", "a.example.com", "localhost", "192.0.2.7", "2001:db8::1"]
    assert expected == [str(name.value) for name in presented]


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ({KeyUsage.SERVER_AUTH}, {ExtendedKeyUsageOID.SERVER_AUTH}),
        ({KeyUsage.CLIENT_AUTH}, {ExtendedKeyUsageOID.CLIENT_AUTH}),
        (set(KeyUsage), {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}),
    ],
)
def test_a_leaf_is_for_what_its_edges_need(usages: set[KeyUsage], expected: set[x509.ObjectIdentifier]) -> None:
    leaf = make_leaf(make_authority(), certificate_profile(usages=frozenset(usages)))
    assert expected == usages_of(x509.load_der_x509_certificate(leaf.der))


def test_a_leaf_without_any_usage_is_refused() -> None:
    authority = make_authority()
    draft = draft_certificate(
        certificate_profile(usages=frozenset()), generate_key(P256).public_key(), authority.issuer, now=NOW
    )
    with pytest.raises(LintError, match="extended key usage"):
        lint(draft)


def test_certificates_begin_five_minutes_ago_and_end_with_their_lifetime() -> None:
    authority = make_authority(now=NOW - DAY)
    leaf = make_leaf(authority).credential
    assert (NOW - timedelta(minutes=5), NOW + 90 * DAY) == (leaf.not_before, leaf.not_after)


def test_a_leaf_never_outlives_its_ca() -> None:
    authority = make_authority(authority_profile(lifetime=10 * DAY))
    assert NOW + 10 * DAY == make_leaf(authority).credential.not_after


def test_a_ca_that_ended_signs_nothing() -> None:
    authority = make_authority(authority_profile(lifetime=DAY), now=NOW - 2 * DAY)
    with pytest.raises(PreflightError, match=r"mail CA g1 ended on .*cannot sign") as refused:
        make_leaf(authority)
    assert "M7102" == refused.value.code


def test_a_ca_that_has_not_begun_signs_nothing() -> None:
    with pytest.raises(PreflightError, match="this clock has not reached"):
        make_leaf(make_authority(now=NOW + DAY))


def test_a_ca_whose_key_was_destroyed_signs_nothing() -> None:
    issuer = make_authority().issuer
    gone = Issuer(authority=replace(issuer.authority, key_destroyed=True), certificate=issuer.certificate)
    with pytest.raises(PreflightError, match="its key was destroyed"):
        draft_certificate(certificate_profile(), generate_key(P256).public_key(), gone, now=NOW)


def test_an_issuer_is_not_made_of_another_cas_certificate() -> None:
    one, other = make_authority().issuer, make_authority().issuer
    with pytest.raises(PreflightError, match="is not that of mail CA g1"):
        Issuer(authority=one.authority, certificate=other.certificate)


def test_a_draft_tells_all_that_an_intent_records_before_anything_is_signed() -> None:
    authority = make_authority()
    profile = certificate_profile()
    draft = draft_certificate(profile, generate_key(P256).public_key(), authority.issuer, now=NOW)
    signed = sign(lint(draft), authority.key)
    certificate = x509.load_der_x509_certificate(signed.der)
    assert AuthorityId("mail", 1) == draft.issuer_id
    assert profile.id == draft.subject_id
    assert "mail" == draft.common_name
    assert certificate.serial_number == int(draft.serial, 16)
    assert certificate.not_valid_after_utc == draft.not_after
    assert hashlib.sha256(certificate.tbs_certificate_bytes).hexdigest() == draft.to_be_signed_sha256


def test_a_ca_is_its_own_issuer_in_an_intent() -> None:
    key = generate_key(P256)
    draft = draft_authority(authority_profile("mail", 3), key, now=NOW)
    assert (AuthorityId("mail", 3), AuthorityId("mail", 3)) == (draft.issuer_id, draft.subject_id)
    assert "mail.calendar CA g3" == draft.common_name


def test_what_the_state_keeps_agrees_with_the_certificate() -> None:
    authority = make_authority()
    leaf = make_leaf(authority)
    for der, value, key in (
        (leaf.der, leaf.credential, leaf.key),
        (authority.issuer.certificate, authority.issuer.authority, authority.key),
    ):
        certificate = x509.load_der_x509_certificate(der)
        assert f"{certificate.serial_number:x}" == value.serial
        assert hashlib.sha256(der).hexdigest() == value.certificate_sha256
        assert spki_sha256(key.public_key()) == value.spki_sha256
        assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (
            value.not_before,
            value.not_after,
        )


def test_signing_with_another_key_than_the_cas_gives_nothing() -> None:
    authority = make_authority()
    draft = draft_certificate(certificate_profile(), generate_key(P256).public_key(), authority.issuer, now=NOW)
    for wrong in (generate_key(P256), key_of(KeyAlgorithm.ED25519), key_of(KeyAlgorithm.RSA_2048)):
        with pytest.raises(PreflightError, match="key is not its issuer's") as refused:
            sign(lint(draft), wrong)
        assert "M7103" == refused.value.code


def test_no_value_or_refusal_on_the_way_shows_a_key() -> None:
    authority, wrong = make_authority(), generate_key(P256)
    draft = draft_certificate(certificate_profile(), generate_key(P256).public_key(), authority.issuer, now=NOW)
    with pytest.raises(PreflightError) as refused:
        sign(lint(draft), wrong)
    shown = [repr(draft), repr(lint(draft)), repr(sign(lint(draft), authority.key)), repr(authority.issuer)]
    shown.append("".join(traceback.format_exception(refused.value)))
    for key in (wrong, authority.key):
        scalar = key.private_numbers().private_value  # type: ignore[union-attr]
        der = private_der(key).reveal()
        forms = [f"{scalar:x}", str(scalar), der.hex(), base64.b64encode(der).decode(), repr(der)[2:-1]]
        assert not any(form in text for form in forms for text in shown)


def test_only_lint_makes_what_sign_takes() -> None:
    draft = draft_authority(authority_profile(), generate_key(P256), now=NOW)
    with pytest.raises(TypeError, match="only lint"):
        LintedDraft(draft, token=object())
    linted = lint(draft)
    with pytest.raises(AttributeError, match="does not change"):
        linted.draft = draft


def test_real_keys_sign_in_one_function_of_the_whole_floor() -> None:
    places = set()
    for path in Path(mtlsctl.pki.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
                if any(isinstance(call, ast.Attribute) and call.attr == "sign" for call in calls):
                    places.add(f"{path.stem}.{function.name}")
    throwaway = {"draft._signed_by_throwaway", "probes.craft_foreign", "probes._foreign_authority"}
    throwaway.add("probes.craft_foreign_outsider")
    assert throwaway | {"issue._signature"} == places


def test_a_hundred_thousand_serials_differ_and_are_positive_in_twenty_octets() -> None:
    serials = [random_serial() for _ in range(100_000)]
    assert 100_000 == len(set(serials))
    assert all(serial > 0 and serial.to_bytes(20, "big")[0] < 0x80 for serial in serials)
    assert 159 == max(serial.bit_length() for serial in serials)


def test_two_certificates_of_one_profile_differ_in_their_serial() -> None:
    authority = make_authority()
    assert make_leaf(authority).credential.serial != make_leaf(authority).credential.serial


def test_a_common_name_without_room_is_refused_by_name() -> None:
    with pytest.raises(PreflightError, match=r"is 65 characters long; a common name has 1 to 64"):
        draft_authority(authority_profile(common_name="a" * 65), generate_key(P256), now=NOW)


@pytest.mark.parametrize(("names", "addresses"), [(("münchen.example",), ()), (("mail.calendar.internal",), ("web1",))])
def test_a_name_that_no_certificate_can_hold_is_refused(names: tuple[str, ...], addresses: tuple[str, ...]) -> None:
    with pytest.raises(PreflightError, match="cannot be written into a certificate"):
        make_leaf(make_authority(), certificate_profile(names=names, addresses=addresses))


@settings(max_examples=60, deadline=None)
@given(service=LABELS, estate=st.from_regex(r"[a-z0-9]{1,16}", fullmatch=True), labels=st.lists(LABELS, max_size=6))
def test_every_name_of_our_grammar_can_be_issued_below_its_constraint(
    service: str, estate: str, labels: list[str]
) -> None:
    constraint = f"{service}.{estate}.internal"
    name = ".".join([*labels, constraint])
    authority = make_authority(
        authority_profile(service, common_name=f"{service}.{estate} CA g1", permitted_names=(constraint,))
    )
    leaf = x509.load_der_x509_certificate(make_leaf(authority, certificate_profile(service, names=(name,))).der)
    presented = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name] == presented.get_values_for_type(x509.DNSName)


@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=80))
def test_whatever_the_name_is_it_is_refused_or_presented_unchanged(name: str) -> None:
    authority = make_authority(authority_profile(permitted_names=("example",)))
    try:
        leaf = make_leaf(authority, certificate_profile(names=(f"{name}.example",)))
    except PreflightError:
        return
    certificate = x509.load_der_x509_certificate(leaf.der)
    presented = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [f"{name}.example"] == presented.get_values_for_type(x509.DNSName)


def test_the_draft_of_one_kind_is_not_mistaken_for_the_other() -> None:
    authority = make_authority()
    draft: Draft[CertificateProfile] = draft_certificate(
        certificate_profile(), generate_key(P256).public_key(), authority.issuer, now=NOW
    )
    mistaken = Draft(profile=authority_profile(), unsigned=draft.unsigned)
    with pytest.raises(LintError, match="would break"):
        lint(mistaken)
