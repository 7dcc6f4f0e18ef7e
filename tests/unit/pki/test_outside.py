"""Certificates that somebody else made: which can be anchors, and what they say."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from mtlsctl.errors import PreflightError
from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.release import HeldFile
from mtlsctl.pki.keys import private_pem
from mtlsctl.pki.outside import chain_unfitness, facts_of, is_issued_by, is_key_of, unfitness

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
    names: tuple[str, ...] = (),
    purposes: tuple[ObjectIdentifier, ...] = (),
    signs: bool = True,
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
            digital_signature=signs,
            content_commitment=False,
            key_encipherment=not signs,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=usage,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usages, critical=True)
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(alternatives, critical=False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
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


# --- chains that a listener shows -------------------------------------------------------------------------------------

SITE = name((NameOID.COMMON_NAME, "site"))
BELOW = name((NameOID.COMMON_NAME, "Acme Issuing CA"))
ISSUING = ec.generate_private_key(ec.SECP256R1())
ROOT_DER = made(key=OTHER)
ISSUING_DER = made(subject=BELOW, issuer=ACME, key=ISSUING, signer=OTHER)
NAMES = (DnsId("a.example.com"), DnsId("b.example.com"))


def site(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "subject": SITE,
        "issuer": BELOW,
        "signer": ISSUING,
        "ca": False,
        "usage": False,
        "names": ("a.example.com", "B.example.com"),
        "purposes": (ExtendedKeyUsageOID.SERVER_AUTH,),
    }
    return made(**{**values, **changes})


@pytest.mark.parametrize(
    "chain",
    [
        (site(), ISSUING_DER),
        (site(), ISSUING_DER, ROOT_DER),
        (site(names=("*.example.com",)), ISSUING_DER),
        (site(purposes=()), ISSUING_DER),
        (site(usage=None), ISSUING_DER),
        (site(ca=None), ISSUING_DER),
        (site(issuer=ACME, signer=OTHER),),
        (site(key=RSA), ISSUING_DER),
    ],
    ids=[
        "as bought",
        "with its root",
        "wildcard",
        "any purpose",
        "no keyUsage",
        "no CA said",
        "no intermediate",
        "RSA",
    ],
)
def test_a_chain_for_the_names_below_what_is_trusted_can_be_shown(chain: tuple[bytes, ...]) -> None:
    assert [] == list(chain_unfitness(chain, NAMES, [made(), ROOT_DER], NOW))
    assert [] == list(chain_unfitness(chain, NAMES, [], NOW))


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ((ISSUING_DER, site()), "its first certificate is a CA"),
        ((site(subject=ACME, issuer=ACME, signer=KEY),), "signs itself"),
        ((site(names=("a.example.com",)), ISSUING_DER), "does not present b.example.com; it presents a.example.com"),
        ((site(names=()), ISSUING_DER), "it presents no DNS name"),
        ((site(names=("*.com",)), ISSUING_DER), "does not present a.example.com, b.example.com"),
        ((site(purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)), ISSUING_DER), "is not for servers"),
        ((site(signs=False), ISSUING_DER), "is not for signatures"),
        ((site(), ROOT_DER), "certificate 1 of it is not signed by the next one"),
        ((site(), ISSUING_DER, site()), "certificate 2 of it is not signed by the next one"),
        ((site(signer=KEY), site(key=KEY, subject=BELOW), ISSUING_DER), "certificate 2 of it is no CA"),
        ((site(),), "nothing in `servers_trust` signed it: its last certificate is of `CN=Acme Issuing CA`"),
        ((site(), made(subject=BELOW, issuer=ACME, key=ISSUING, signer=RSA)), "nothing in `servers_trust` signed it"),
        ((site(key=SMALL), ISSUING_DER), "1024 bits"),
    ],
)
def test_a_chain_that_callers_or_servers_would_not_take_is_refused_and_told_why(
    chain: tuple[bytes, ...], why: str
) -> None:
    assert why in "; ".join(chain_unfitness(chain, NAMES, [ROOT_DER]))


def test_a_chain_is_good_as_long_as_all_of_it_and_only_where_that_is_asked() -> None:
    chain = (site(), ISSUING_DER)
    assert [] == list(chain_unfitness(chain, NAMES, [ROOT_DER]))
    ended = list(chain_unfitness(chain, NAMES, [ROOT_DER], NOW + timedelta(days=1)))
    assert ["`CN=site` ended on 2026-11-23 00:00", "`CN=Acme Issuing CA` ended on 2026-11-23 00:00"] == ended
    assert 2 == len(list(chain_unfitness(chain, NAMES, [ROOT_DER], NOW - timedelta(days=2))))


def test_a_key_is_that_of_a_certificate_or_is_not() -> None:
    assert is_key_of(held(private_pem(KEY).reveal()), site())
    assert not is_key_of(held(private_pem(OTHER).reveal()), site())
    with pytest.raises(PreflightError):
        is_key_of(held(b"no key"), site())


def test_a_host_that_keeps_the_key_says_its_public_half_alone() -> None:
    kept = replace(held(b""), content=None)
    assert is_key_of(replace(kept, spki_sha256=facts_of(site()).spki_sha256), site())
    assert not is_key_of(replace(kept, spki_sha256="0" * 64), site())
    assert not is_key_of(kept, site())


def held(content: bytes) -> HeldFile:
    return HeldFile.of(content, 0o600)


def test_the_names_that_a_leaf_presents_are_among_its_facts() -> None:
    assert ("a.example.com", "b.example.com") == tuple(one.lower() for one in facts_of(site()).names)
    assert () == facts_of(made()).names
