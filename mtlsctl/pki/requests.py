"""Certificate requests (PKCS#10, RFC 2986): a stranger's bytes, believed in nothing but the possession of a key.

Names, usages and every other wish in a request are ignored: all that goes into a certificate comes from its profile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import NameOID

from mtlsctl.errors import PreflightError
from mtlsctl.pki import codes
from mtlsctl.pki.inspect import UNREADABLE
from mtlsctl.pki.keys import PublicKey, algorithm_of, kind_of, spki_sha256

if TYPE_CHECKING:
    from mtlsctl.model.topology import KeyAlgorithm

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_LEAST_EXPONENT, _LONGEST_EXPONENT = 65537, 64
"""Of an RSA key: none that is known to be weak, and no more bits than every TLS stack takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a request proves, and what it asks for besides: `names` are every DNS name, address and common name."""

    public_key: PublicKey = field(repr=False)
    key: KeyAlgorithm
    spki_sha256: str
    names: tuple[str, ...]


def read_request(der: bytes) -> Request:
    """Take a request apart and check that whoever made it has the private key.

    Raises PreflightError: M7110 for what is no request, M7111 for a key that no profile may ask for, M7317 when the
    signature is not by that key, or with a hash that can be forged.
    """
    request = _parsed(der)
    public_key = _key_of(request)
    algorithm = algorithm_of(public_key)
    if algorithm is None or not isinstance(public_key, PublicKey) or _is_weak(public_key):
        raise PreflightError(
            "the key of the request is not one that certificates are made for",
            code=codes.REQUEST_KEY,
            help="make a request for a P-256, Ed25519 or RSA (2048, 3072 or 4096 bits) key",
        )
    if not _is_possessed(request, public_key):
        raise PreflightError(
            "the request is not signed with its own key, so nothing shows that its maker has that key",
            code=codes.POSSESSION,
            help="make it anew, and sign with SHA-256: openssl req -new -sha256 -key FILE -out FILE",
        )
    return Request(public_key=public_key, key=algorithm, spki_sha256=spki_sha256(public_key), names=_names_of(request))


def _parsed(der: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_der_x509_csr(der)
        _ = request.extensions, request.subject
    except UNREADABLE:
        request = None
    if request is None:
        raise PreflightError("this is not a certificate request (PKCS#10)", code=codes.REQUEST)
    return request


def _key_of(request: x509.CertificateSigningRequest) -> object:
    try:
        return request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _is_weak(key: PublicKey) -> bool:
    """Whether an RSA exponent is small, even, or so large that checking a signature takes long."""
    if kind_of(key) is not rsa.RSAPublicKey:
        return False
    exponent = cast("rsa.RSAPublicKey", key).public_numbers().e
    return exponent < _LEAST_EXPONENT or exponent % 2 == 0 or exponent.bit_length() > _LONGEST_EXPONENT


def _is_possessed(request: x509.CertificateSigningRequest, key: PublicKey) -> bool:
    try:
        algorithm = request.signature_hash_algorithm
        is_strong = kind_of(key) is ed25519.Ed25519PublicKey if algorithm is None else isinstance(algorithm, _HASHES)
        is_valid = is_strong and request.is_signature_valid
    except UNREADABLE:
        return False
    return is_valid


def _names_of(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    common = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    found = [one.value for one in request.extensions if isinstance(one.value, x509.SubjectAlternativeName)]
    alternative = [_text(name) for names in found for name in names]
    return tuple(dict.fromkeys([*common, *alternative]))


def _text(name: x509.GeneralName) -> str:
    value = name.value
    return value.rfc4514_string() if isinstance(value, x509.Name) else str(value)
