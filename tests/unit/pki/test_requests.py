"""Certificate requests: the key that they prove is taken out, and nothing else is believed."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsctl.errors import PreflightError
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki import codes
from mtlsctl.pki.inspect import parse_certificate
from mtlsctl.pki.issue import draft_certificate, lint, sign
from mtlsctl.pki.keys import generate_key, spki_sha256
from mtlsctl.pki.requests import read_request
from tests.unit.pki.making import DAY, NOW, certificate_profile, key_of, make_authority

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

KEY = generate_key(KeyAlgorithm.ECDSA_P256)
SHA256_RSA, SHA1_RSA = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
"""OIDs of signatures (RFC 8017 appendix C), as DER encodes them."""


def made(
    key: CertificateIssuerPrivateKeyTypes,
    *extensions: x509.ExtensionType,
    common_name: str = "mail",
    digest: hashes.SHA256 | hashes.SHA512 | None = None,
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for one in extensions:
        builder = builder.add_extension(one, critical=True)
    is_ed = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if is_ed else digest or hashes.SHA256()).public_bytes(Encoding.DER)


def refused(der: bytes) -> str:
    with pytest.raises(PreflightError) as caught:
        read_request(der)
    assert not caught.value.message.isspace()
    return caught.value.code


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_every_kind_of_key_that_we_make_may_be_brought(algorithm: KeyAlgorithm) -> None:
    key = key_of(algorithm)
    found = read_request(made(key))
    assert (algorithm, spki_sha256(key.public_key())) == (found.key, found.spki_sha256)
    assert found.public_key == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
        rsa.generate_private_key(65537, 1024),  # noqa: S505  what is refused
        rsa.generate_private_key(3, 2048),
        dsa.generate_private_key(2048),
    ],
    ids=["p384", "k256", "ed448", "rsa1024", "exponent", "dsa"],
)
def test_any_other_key_is_refused(key: CertificateIssuerPrivateKeyTypes) -> None:
    assert refused(made(key)) == codes.REQUEST_KEY


def test_a_request_that_somebody_else_signed_proves_nothing() -> None:
    """The key of one request under the signature of another's: what replays a public key that is known."""
    mine, other = made(KEY), made(generate_key(KeyAlgorithm.ECDSA_P256))
    body = x509.load_der_x509_csr(mine).tbs_certrequest_bytes
    theirs = x509.load_der_x509_csr(other)
    forged = other.replace(theirs.tbs_certrequest_bytes, body)
    assert refused(forged) == codes.POSSESSION


def test_a_signature_with_a_broken_hash_proves_nothing() -> None:
    key = cast("rsa.RSAPrivateKey", key_of(KeyAlgorithm.RSA_2048))
    good = made(key)
    request = x509.load_der_x509_csr(good)
    signature = key.sign(request.tbs_certrequest_bytes, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    assert read_request(good)
    assert refused(good.replace(request.signature, signature).replace(SHA256_RSA, SHA1_RSA)) == codes.POSSESSION


def test_longer_hashes_are_as_good() -> None:
    assert read_request(made(KEY, digest=hashes.SHA512())).key is KeyAlgorithm.ECDSA_P256


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x03\x02\x01\x00", made(KEY) + b"\0", made(KEY)[:-1]])
def test_what_is_no_request_is_refused(der: bytes) -> None:
    assert refused(der) == codes.REQUEST


def test_a_certificate_is_no_request() -> None:
    assert refused(make_authority().issuer.certificate) == codes.REQUEST


def test_the_names_that_it_asks_for_are_told() -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("mail.example.com"),
            x509.IPAddress(ip_address("192.0.2.1")),
            x509.UniformResourceIdentifier("spiffe://calendar/mail"),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])),
        ]
    )
    asked = read_request(made(KEY, names)).names
    assert asked == ("mail", "mail.example.com", "192.0.2.1", "spiffe://calendar/mail", "CN=other")


def test_nothing_of_a_request_but_its_key_gets_into_the_certificate() -> None:
    wishes = (
        x509.BasicConstraints(ca=True, path_length=3),
        x509.SubjectAlternativeName([x509.DNSName("bank.example")]),
        x509.KeyUsage(
            digital_signature=True,
            content_commitment=True,
            key_encipherment=True,
            data_encipherment=True,
            key_agreement=True,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        ),
    )
    request = read_request(made(KEY, *wishes, common_name="bank"))
    authority, profile = make_authority(), certificate_profile(request_sha256="ab" * 32)
    draft = draft_certificate(profile, request.public_key, authority.issuer, now=NOW)
    leaf = parse_certificate(sign(lint(draft), authority.key).der)
    assert (("mail",), ("mail.calendar.internal",)) == (leaf.common_names, leaf.names)
    assert not leaf.is_ca
    assert leaf.key_usages == {"digital_signature"}
    assert leaf.public_key == KEY.public_key()
    assert leaf.not_after - NOW == 90 * DAY


MADE = made(KEY)


@settings(max_examples=200, deadline=timedelta(seconds=5))
@given(st.data())
def test_whatever_byte_differs_a_request_is_read_or_refused_and_never_believed_for_another_key(
    data: st.DataObject,
) -> None:
    der = bytearray(MADE)
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    try:
        found = read_request(bytes(der))
    except PreflightError:
        return
    assert found.public_key == KEY.public_key()
