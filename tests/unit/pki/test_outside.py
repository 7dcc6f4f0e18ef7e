"""Certificates that somebody else made: which can be anchors, and what they say."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from mtlsctl.errors import PreflightError
from mtlsctl.pki.outside import facts_of, is_issued_by, unfitness

NOW = datetime(2026, 11, 22, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
# By openssl: the library that makes the others signs with SHA-1 no more.
SIGNED_WITH_SHA1 = base64.b64decode(
    "MIIBezCCASKgAwIBAgIUQJbWTiWscHJIGXbJGKEOKj5QuPowCQYHKoZIzj0EATATMREwDwYDVQQDDAhPbGQgUm9vdDAgFw0yNjEx"
    "MjIxMDM4MTBaGA8yMTI2MTAyOTEwMzgxMFowEzERMA8GA1UEAwwIT2xkIFJvb3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARa"
    "0V4ZDRzByuTTLzhOh6m1V7xH5B9S4FkGi0svfjBzD9jBk/uRXKSKvlka5lULyKJDEr14AIzHcF8VjT0/YP61o1MwUTAdBgNVHQ4E"
    "FgQUdYb2TVcNfwWPqJbu8IgnW1UP4P0wHwYDVR0jBBgwFoAUdYb2TVcNfwWPqJbu8IgnW1UP4P0wDwYDVR0TAQH/BAUwAwEB/zAJ"
    "BgcqhkjOPQQBA0gAMEUCIDCWxSsaSfN1UnANTcX2aI3VVR7VMgmFZ8JSB+d9cBnJAiEAsVPuwrAMfcXdIOwpN2eU9xv1fJ+VO9it"
    "/UDeQeoWjPA="
)
EMAIL = ObjectIdentifier("1.2.840.113549.1.9.1")


def name(*attributes: tuple[ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


ACME = name((NameOID.ORGANIZATION_NAME, "Acme"), (NameOID.COMMON_NAME, "Acme Root CA"))


def made(
    *,
    subject: x509.Name = ACME,
    issuer: x509.Name | None = None,
    key: Any = KEY,
    signer: Any = None,
    ca: bool | None = True,
    usage: bool | None = True,
    identifier: bool = True,
    algorithm: Any = hashes.SHA256(),  # noqa: B008
    path_length: int | None = None,
) -> bytes:
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer or subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=1),
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if usage is not None:
        usages = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=usage,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usages, critical=True)
    if identifier:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(own, critical=False)
    return builder.sign(signer or key, algorithm).public_bytes(Encoding.DER)


ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505  to be refused
DSA = dsa.generate_private_key(2048)


@pytest.mark.parametrize(
    "der",
    [
        made(),
        made(usage=None),
        made(key=RSA),
        made(key=ED25519, algorithm=None),
        made(path_length=0),
        made(algorithm=hashes.SHA512()),
    ],
    ids=["ours alike", "without keyUsage", "RSA", "Ed25519", "pathlen 0", "SHA-512"],
)
def test_a_self_signed_ca_with_a_key_identifier_can_be_an_anchor(der: bytes) -> None:
    assert [] == list(unfitness(der, NOW))


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (made(issuer=name((NameOID.COMMON_NAME, "Above")), signer=OTHER), "is signed by `CN=Above` and not by itself"),
        (made(signer=OTHER), "its signature is not its own"),
        (made(ca=False), "is no CA"),
        (made(ca=None), "is no CA"),
        (made(usage=False), "not for signing certificates"),
        (made(identifier=False), "no subject key identifier"),
        (made(subject=x509.Name([])), "has no name"),
        (made(key=SMALL), "1024 bits"),
        (made(key=DSA), "of a kind that not every program knows"),
        (SIGNED_WITH_SHA1, "SHA1"),
    ],
    ids=["intermediate", "forged", "leaf", "no CA said", "usage", "no SKI", "no name", "small", "DSA", "SHA-1"],
)
def test_anything_else_is_refused_and_told_why(der: bytes, why: str) -> None:
    assert why in "; ".join(unfitness(der))


def test_a_time_counts_only_where_it_is_asked_for() -> None:
    assert [] == list(unfitness(made()))
    assert ["it ended on 2026-11-23 00:00"] == list(unfitness(made(), NOW + timedelta(days=1)))
    assert ["it is not valid before 2026-11-21 00:00"] == list(unfitness(made(), NOW - timedelta(days=2)))


@pytest.mark.parametrize("bytes_", [b"", b"\x30\x00", made()[:-1], b"-----BEGIN CERTIFICATE-----"])
def test_bytes_that_are_no_certificate_are_said_to_be_none(bytes_: bytes) -> None:
    with pytest.raises(PreflightError, match=r"not an X\.509 certificate"):
        list(unfitness(bytes_))


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (ACME, "CN=Acme Root CA,O=Acme"),
        (name((NameOID.COMMON_NAME, "Acme (UK) & Sons")), "CN=Acme (UK) & Sons"),
        (name((NameOID.COMMON_NAME, "Acme, Inc.")), None),
        (name((NameOID.COMMON_NAME, 'Acme "Root"')), None),
        (name((NameOID.COMMON_NAME, "Acmé")), None),
        (name((NameOID.COMMON_NAME, "a|CN=mail")), None),
        (name((NameOID.COMMON_NAME, "a\nCN=mail")), None),
        (name((NameOID.COMMON_NAME, " Acme")), None),
        (name((NameOID.COMMON_NAME, "Acme  Root")), None),
        (name((EMAIL, "ca@acme.example"), (NameOID.COMMON_NAME, "Acme")), None),
        (name((NameOID.STREET_ADDRESS, "Road 1"), (NameOID.COMMON_NAME, "Acme")), None),
        (
            x509.Name(
                [
                    x509.RelativeDistinguishedName(
                        [
                            x509.NameAttribute(NameOID.COMMON_NAME, "Acme"),
                            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x"),
                        ]
                    )
                ]
            ),
            None,
        ),
        (x509.Name([]), None),
    ],
)
def test_a_subject_is_text_to_compare_with_only_where_every_program_writes_it_alike(
    subject: x509.Name, text: str | None
) -> None:
    assert text == facts_of(made(subject=subject)).subject


def test_names_that_programs_take_for_one_have_one_key_name() -> None:
    plain = facts_of(made(subject=name((NameOID.COMMON_NAME, "Acme Root")))).key_name
    for alike in ("ACME ROOT", "acme  root", " Acme Root "):
        assert plain == facts_of(made(subject=name((NameOID.COMMON_NAME, alike)))).key_name
    for other in ("Acme Roots", "AcmeRoot"):
        assert plain != facts_of(made(subject=name((NameOID.COMMON_NAME, other)))).key_name
    assert plain != facts_of(made(subject=name((NameOID.ORGANIZATION_NAME, "Acme Root")))).key_name


def test_the_key_and_not_the_certificate_says_which_ca_it_is() -> None:
    first, renewed, other = facts_of(made()), facts_of(made()), facts_of(made(key=OTHER))
    assert first.spki_sha256 == renewed.spki_sha256 != other.spki_sha256
    assert (first.path_length, facts_of(made(path_length=0)).path_length) == (None, 0)


def test_what_is_shown_of_a_subject_is_printable_and_short() -> None:
    long = name(*[(NameOID.ORGANIZATIONAL_UNIT_NAME, f"unit\x1b[31m {number}") for number in range(20)])
    shown = facts_of(made(subject=long)).shown
    assert shown.isprintable()
    assert len(shown) <= 120


def test_a_leaf_is_an_anchors_own_only_by_its_signature() -> None:
    leaf = made(subject=name((NameOID.COMMON_NAME, "api")), issuer=ACME, key=OTHER, signer=KEY, ca=False)
    assert is_issued_by(leaf, made())
    assert not is_issued_by(leaf, made(key=OTHER))
    assert not is_issued_by(leaf, made(subject=name((NameOID.COMMON_NAME, "Acme Root CA"))))
