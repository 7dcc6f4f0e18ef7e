from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import KeyUsage
from mtlsctl.pki.inspect import Constraints, facts_of, parse_certificate
from mtlsctl.pki.keys import spki_sha256

from .making import NOW, authority_profile, certificate_profile, make_authority, make_leaf


def test_a_leaf_is_described_as_people_ask_about_it() -> None:
    authority = make_authority(authority_profile("mail", 2, addresses=True))
    leaf = make_leaf(
        authority,
        certificate_profile(
            "mail", 2, addresses=("192.0.2.7", "2001:db8:0:0::1"), usages=frozenset({KeyUsage.CLIENT_AUTH})
        ),
    )
    facts = facts_of(parse_certificate(leaf.der))
    assert ("mail", "mail.calendar CA g2", False) == (facts.subject, facts.issuer, facts.is_ca)
    assert ("mail.calendar.internal",) == facts.names
    assert ("192.0.2.7", "2001:db8::1") == facts.addresses
    assert (leaf.credential.serial, "ecdsa-p256", ("clientAuth",)) == (facts.serial, facts.key, facts.usages)
    assert (leaf.credential.not_before, leaf.credential.not_after) == (facts.not_before, facts.not_after)
    assert hashlib.sha256(leaf.der).hexdigest() == facts.certificate_sha256
    assert spki_sha256(leaf.key.public_key()) == facts.spki_sha256


def foreign(*attributes: x509.NameAttribute[str]) -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name(attributes)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(0xAB).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)


def test_somebody_elses_certificate_is_described_too() -> None:
    made = foreign(
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ACME, Inc."), x509.NameAttribute(NameOID.COMMON_NAME, "api")
    )
    facts = facts_of(parse_certificate(made))
    assert ("CN=api,O=ACME\\, Inc.", "ecdsa-secp384r1", "ab") == (facts.subject, facts.key, facts.serial)
    assert ((), (), (), False) == (facts.names, facts.addresses, facts.usages, facts.is_ca)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_are_refused_and_not_quoted(content: bytes) -> None:
    with pytest.raises(PreflightError) as refused:
        parse_certificate(content)
    assert "the bytes are not an X.509 certificate" == refused.value.message


@pytest.mark.parametrize("cut", [1, 50, 200])
def test_a_certificate_cut_short_or_with_a_tail_is_refused(cut: int) -> None:
    der = make_authority().issuer.certificate
    for broken in (der[:-cut], der + b"\0" * cut):
        with pytest.raises(PreflightError):
            parse_certificate(broken)


def test_any_flipped_byte_is_refused_or_changes_the_digest() -> None:
    der = make_authority().issuer.certificate
    digest = facts_of(parse_certificate(der)).certificate_sha256
    for at in range(len(der)):
        altered = der[:at] + bytes([der[at] ^ 0xFF]) + der[at + 1 :]
        try:
            assert digest != facts_of(parse_certificate(altered)).certificate_sha256
        except PreflightError:
            continue


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("lab.test", True),
        ("a.lab.test", True),
        ("*.lab.test", True),
        ("A.LAB.TEST", True),
        ("xlab.test", False),
        ("test", False),
        ("no.lab.test", False),
        ("lab.test.evil", False),
        ("bad name.lab.test", False),
    ],
)
def test_names_are_constrained_with_their_subdomains(name: str, allowed: bool) -> None:  # noqa: FBT001  a table
    constraints = Constraints(permitted_names=("lab.test",), excluded_names=("no.lab.test",))
    assert allowed is constraints.allow_name(name)


def test_without_constraints_everything_is_allowed() -> None:
    assert Constraints().allow_name("anything.example")
    assert Constraints().allow_address("192.0.2.1")
