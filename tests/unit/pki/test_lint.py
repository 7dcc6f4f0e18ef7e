"""Each rule broken once, by a draft that says what its profile does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlsctl.model.credential import CertificateProfile, KeyUsage
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.draft import Draft, leaf_extensions, make_unsigned, name_of
from mtlsctl.pki.lint import LintError, lint

from .making import (
    DAY,
    NOW,
    P256,
    Authority,
    Extensions,
    altered_authority,
    altered_leaf,
    authority_profile,
    certificate_profile,
    key_of,
    make_authority,
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


def without(kind: type[x509.ExtensionType], extensions: Extensions) -> Extensions:
    return [one for one in extensions if not isinstance(one.value, kind)]


def instead(extensions: Extensions, value: x509.ExtensionType, *, critical: bool) -> Extensions:
    return [*without(type(value), extensions), x509.Extension(value.oid, critical, value)]


def findings_of(draft: Draft[CertificateProfile]) -> str:
    with pytest.raises(LintError) as refused:
        lint(draft)
    assert "M7101" == refused.value.code
    return "\n".join(refused.value.findings)


def test_an_unaltered_leaf_and_ca_pass(authority: Authority) -> None:
    lint(altered_leaf(authority, lambda extensions: extensions))
    lint(altered_authority(lambda extensions: extensions))


KEY_USAGE_OF_A_CA = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
LEAF_MISTAKES = {
    "it is a CA": (x509.BasicConstraints(ca=True, path_length=None), True),
    "basic constraints is not critical": (x509.BasicConstraints(ca=False, path_length=None), False),
    "its key usage is not": (KEY_USAGE_OF_A_CA, True),
    "its extended key usages": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),
    "extended key usage is critical": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), True),
    "not those of its profile": (x509.SubjectAlternativeName([x509.DNSName("a.mail.calendar.internal")]), False),
    "presents no DNS name": (x509.SubjectAlternativeName([x509.RFC822Name("a@mail.calendar.internal")]), False),
    "lies outside the names": (x509.SubjectAlternativeName([x509.DNSName("social.calendar.internal")]), False),
    "is not a DNS name": (x509.SubjectAlternativeName([x509.DNSName("*.mail.calendar.internal")]), False),
    "presents a name twice": (x509.SubjectAlternativeName([x509.DNSName("mail.calendar.internal")] * 2), False),
    "its subject key identifier is not": (x509.SubjectKeyIdentifier(b"x" * 20), False),
    "its authority key identifier is not": (x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False),
    "extension name constraints has no place": (x509.NameConstraints([x509.DNSName("mail")], None), True),
}


@pytest.mark.parametrize("rule", LEAF_MISTAKES)
def test_a_leaf_that_breaks_a_rule_is_not_signed(rule: str, authority: Authority) -> None:
    value, critical = LEAF_MISTAKES[rule]
    assert rule in findings_of(altered_leaf(authority, lambda found: instead(found, value, critical=critical)))


@pytest.mark.parametrize(
    "kind",
    [
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.SubjectKeyIdentifier,
        x509.AuthorityKeyIdentifier,
    ],
)
def test_a_leaf_that_lacks_an_extension_is_not_signed(kind: type[x509.ExtensionType], authority: Authority) -> None:
    assert "is missing" in findings_of(altered_leaf(authority, lambda found: without(kind, found)))


AUTHORITY_MISTAKES = {
    "path length 0": (x509.BasicConstraints(ca=True, path_length=1), True),
    "not a CA": (x509.BasicConstraints(ca=False, path_length=None), True),
    "keyCertSign and cRLSign alone": (KEY_USAGE_OF_A_CA, True),
    "extension extended key usage has no place": (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        False,
    ),
    "name constraints is not critical": (x509.NameConstraints([x509.DNSName("a.example")], None), False),
    "permit exactly": (x509.NameConstraints([x509.DNSName("a.example")], None), True),
    "exclude every address": (x509.NameConstraints([x509.DNSName("mail.calendar.internal")], None), True),
    "something besides": (
        x509.NameConstraints([x509.DNSName("mail.calendar.internal"), x509.RFC822Name("a.example")], None),
        True,
    ),
}


@pytest.mark.parametrize("rule", AUTHORITY_MISTAKES)
def test_a_ca_that_breaks_a_rule_is_not_signed(rule: str) -> None:
    value, critical = AUTHORITY_MISTAKES[rule]
    with pytest.raises(LintError) as refused:
        lint(altered_authority(lambda found: instead(found, value, critical=critical)))
    assert any(rule in finding for finding in refused.value.findings)


def test_a_ca_without_any_permitted_name_is_not_signed() -> None:
    with pytest.raises(LintError, match="do not permit exactly"):
        lint(altered_authority(lambda found: found, authority_profile(permitted_names=())))


def drafted(authority: Authority, profile: CertificateProfile, **changes: object) -> Draft[CertificateProfile]:
    key = key_of(profile.key).public_key()
    arguments: dict[str, object] = {
        "subject": name_of(profile.common_name),
        "public_key": key,
        "issuer": authority.issuer,
        "extensions": leaf_extensions(profile, key, authority.issuer),
        "validity": (NOW, NOW + DAY),
        "now": NOW,
    }
    return Draft(profile=profile, unsigned=make_unsigned(**(arguments | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["mail,social", "mail=1", "mail\n", "Mail", "mail/CN=social", "-mail", "mail.x", "ma il"]
)
def test_a_common_name_that_could_be_read_as_two_is_not_signed(name: str, authority: Authority) -> None:
    profile = certificate_profile(common_name=name)
    assert "its common name is not a service's name" in findings_of(drafted(authority, profile))


def test_a_subject_of_two_names_is_not_signed(authority: Authority) -> None:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("mail", "social")]
    for subject in (x509.Name(attributes), x509.Name([x509.RelativeDistinguishedName(attributes)])):
        draft = drafted(authority, certificate_profile(), subject=subject)
        assert "alone" in findings_of(draft)


@pytest.mark.parametrize("name", ["mail.calendar", "mail.calendar CA g0", "mail CA g1", "mail.calendar CA g1,x"])
def test_the_common_name_of_a_ca_says_service_estate_and_generation(name: str) -> None:
    with pytest.raises(LintError, match="its common name is not"):
        lint(altered_authority(lambda found: found, authority_profile(common_name=name)))


@pytest.mark.parametrize(
    ("start", "end", "rule"),
    [
        (NOW, NOW + 91 * DAY, "lives longer than its profile"),
        (NOW + DAY, NOW + 2 * DAY, "not valid at the moment"),
        (NOW - 2 * DAY, NOW - DAY, "not valid at the moment"),
        (NOW, NOW + 2000 * DAY, "outlives its CA"),
    ],
)
def test_dates_outside_the_profile_are_not_signed(start: object, end: object, rule: str, authority: Authority) -> None:
    assert rule in findings_of(drafted(authority, certificate_profile(), validity=(start, end)))


def test_the_dates_of_an_allowed_leaf_pass(authority: Authority) -> None:
    lint(drafted(authority, certificate_profile(), validity=(NOW - timedelta(minutes=5), NOW + 90 * DAY)))


def test_a_key_of_another_kind_than_asked_for_is_not_signed(authority: Authority) -> None:
    draft = drafted(authority, certificate_profile(key=KeyAlgorithm.ED25519))
    asked_for = replace(draft, profile=certificate_profile())
    assert "its key is not ecdsa-p256" in findings_of(asked_for)


def test_a_ca_signs_for_its_own_service_and_generation_only(authority: Authority) -> None:
    profile = certificate_profile("mail", 2)
    assert "would be signed by mail CA g1 instead of mail CA g2" in findings_of(drafted(authority, profile))


def test_addresses_are_signed_only_where_the_ca_permits_them(authority: Authority) -> None:
    profile = certificate_profile(addresses=("192.0.2.1", "2001:db8::1"))
    lint(drafted(make_authority(authority_profile(addresses=True)), profile))
    found = findings_of(drafted(authority, profile))
    assert "192.0.2.1 lies outside" in found
    assert "2001:db8::1 lies outside" in found


def test_a_leaf_does_not_vouch_for_a_leaf(authority: Authority) -> None:
    draft = drafted(authority, certificate_profile())
    itself = replace(draft, unsigned=replace(draft.unsigned, issuer=None))
    assert "would sign itself instead of being signed by mail CA g1" in findings_of(itself)


def test_bytes_that_differ_from_the_recorded_intent_are_not_signed(authority: Authority) -> None:
    one = drafted(authority, certificate_profile())
    other = drafted(authority, certificate_profile(usages=frozenset({KeyUsage.CLIENT_AUTH})))
    changes: dict[str, dict[str, Any]] = {
        "extended key usages are not": {"twin": other.unsigned.twin},
        "digest is not that of the recorded intent": {"to_be_signed_sha256": other.unsigned.to_be_signed_sha256},
        "serial is not the one of the recorded intent": {"serial": other.unsigned.serial},
        "its key is not the one that was asked for": {"public_key": key_of(P256, 99).public_key()},
    }
    for rule, change in changes.items():
        assert rule in findings_of(replace(one, unsigned=replace(one.unsigned, **change)))


def test_a_serial_of_twenty_one_octets_is_not_signed(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlsctl.pki.draft.random_serial", lambda: 1 << 159)
    assert "at most 20 octets" in findings_of(drafted(authority, certificate_profile()))


def test_all_broken_rules_are_told_at_once(authority: Authority) -> None:
    draft = altered_leaf(authority, lambda found: without(x509.KeyUsage, without(x509.SubjectKeyIdentifier, found)))
    with pytest.raises(LintError) as refused:
        lint(draft)
    assert len(refused.value.findings) >= 4
    assert refused.value.findings[1:] == refused.value.notes


def test_a_twin_that_cannot_be_read_is_not_signed(authority: Authority) -> None:
    draft = drafted(authority, certificate_profile())
    assert "not an X.509 certificate" in findings_of(replace(draft, unsigned=replace(draft.unsigned, twin=b"no")))
