from __future__ import annotations

import hashlib
import pickle
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mtlsctl.errors import PreflightError
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.keys import algorithm_of, generate_key, load_private, private_der, private_pem, spki_sha256

from .making import P256, key_of


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_a_key_is_of_the_algorithm_asked_for_and_survives_both_forms(algorithm: KeyAlgorithm) -> None:
    key = key_of(algorithm)
    assert algorithm is algorithm_of(key.public_key())
    for written in (private_pem(key), private_der(key)):
        assert spki_sha256(key.public_key()) == spki_sha256(load_private(written).public_key())


def test_a_key_in_pem_is_pkcs8_and_ends_with_a_newline() -> None:
    pem = private_pem(generate_key(P256)).reveal()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert pem.endswith(b"-----END PRIVATE KEY-----\n")


def test_every_key_is_another() -> None:
    assert 20 == len({spki_sha256(generate_key(P256).public_key()) for _ in range(20)})


def test_the_name_of_a_key_is_the_digest_of_its_public_half() -> None:
    public = generate_key(P256).public_key()
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(encoded).hexdigest() == spki_sha256(public)


def sealed_with_a_password() -> bytes:
    key = generate_key(P256)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))


def of_another_kind(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


UNREADABLE = {
    "nothing": b"",
    "text": b"correct horse battery staple",
    "a public key": generate_key(P256).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "cut short": private_der(generate_key(P256)).reveal()[:-7],
    "broken PEM": private_pem(generate_key(P256)).reveal()[:90],
    "sealed": sealed_with_a_password(),
    "another curve": of_another_kind(ec.generate_private_key(ec.SECP384R1())),
    "RSA of another size": of_another_kind(rsa.generate_private_key(65537, 1024)),  # noqa: S505  it is refused
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_not_one_of_our_keys_is_refused_without_being_quoted(kind: str) -> None:
    content = UNREADABLE[kind]
    with pytest.raises(PreflightError) as refused:
        load_private(Secret(content))
    assert "M7105" == refused.value.code
    told = "".join(traceback.format_exception(refused.value)) + repr(refused.value)
    assert refused.value.__context__ is None
    assert not any(content[at : at + 8].decode("latin-1") in told for at in range(0, max(0, len(content) - 40), 8))


def test_a_written_key_shows_nothing_of_itself() -> None:
    for secret in (private_pem(generate_key(P256)), private_der(generate_key(P256))):
        assert "***" == repr(secret) == str(secret)
        with pytest.raises(TypeError, match="not serialised"):
            pickle.dumps(secret)
