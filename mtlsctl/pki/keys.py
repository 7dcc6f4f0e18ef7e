"""Private keys: made, written and read as `Secret`, named by the digest of their public half."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, assert_never, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from mtlsctl.errors import PreflightError
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki import codes

if TYPE_CHECKING:
    from collections.abc import Hashable

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_RSA_BITS = {KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096}
_RSA_ALGORITHM = {bits: algorithm for algorithm, bits in _RSA_BITS.items()}
_RSA_EXPONENT = 65537


def generate_key(algorithm: KeyAlgorithm) -> PrivateKey:
    """A new key from the operating system's generator; RSA takes from a tenth of a second to several."""
    match algorithm:
        case KeyAlgorithm.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyAlgorithm.RSA_2048 | KeyAlgorithm.RSA_3072 | KeyAlgorithm.RSA_4096:
            return rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS[algorithm])
        case _:
            assert_never(algorithm)


def algorithm_of(key: object) -> KeyAlgorithm | None:
    """The algorithm of a public key, or None for one that no profile may ask for."""
    kind = kind_of(key)
    if kind is ed25519.Ed25519PublicKey:
        return KeyAlgorithm.ED25519
    if kind is rsa.RSAPublicKey:
        return _RSA_ALGORITHM.get(cast("rsa.RSAPublicKey", key).key_size)
    if kind is ec.EllipticCurvePublicKey and type(cast("ec.EllipticCurvePublicKey", key).curve) is ec.SECP256R1:
        return KeyAlgorithm.ECDSA_P256
    return None


def kind_of(key: object) -> type[PublicKey] | None:
    """Which of the three kinds a public key is, if any; cached by type, since abstract classes are slow to ask."""
    return _kind(cast("Hashable", type(key)))


@cache
def _kind(type_: Hashable) -> type[PublicKey] | None:
    kinds: tuple[type[PublicKey], ...] = (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)
    return next((kind for kind in kinds if issubclass(cast("type", type_), kind)), None)


def private_pem(key: PrivateKey) -> Secret:
    """PKCS#8 in PEM (RFC 7468 section 10), not encrypted, newline at its end."""
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def private_der(key: PrivateKey) -> Secret:
    """PKCS#8 in DER (RFC 5958), not encrypted: what a store seals."""
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def load_private(data: Secret) -> PrivateKey:
    """Read an unencrypted key, DER or PEM; raises PreflightError (M7105), which never quotes what it read."""
    content = data.reveal()
    load = load_pem_private_key if content.lstrip().startswith(b"-----BEGIN") else load_der_private_key
    try:
        key = load(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    # Raised outside the handler, so that the library's error does not hang on ours as its context.
    if not isinstance(key, PrivateKey) or algorithm_of(key.public_key()) is None:
        raise PreflightError(
            "the private key cannot be read: it is not an unencrypted P-256, Ed25519 or RSA (2048, 3072, 4096) key",
            code=codes.KEY_UNREADABLE,
        )
    return key


def spki_der(public_key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_sha256(public_key: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hex: the name of a key wherever it lies."""
    return hashlib.sha256(spki_der(public_key)).hexdigest()
