"""Issuance, in the one order there is: draft, record the intent, lint, record the signing, sign.

The order is held by types: `sign` takes a LintedDraft, which `lint` alone makes, from a Draft, which carries all that
an intent records (`issuer_id`, `serial`, `subject_id`, `common_name`, `not_after`, `to_be_signed_sha256`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, overload

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import AuthorityProfile, CertificateProfile, CertificationAuthority, Credential
from mtlsctl.pki import codes
from mtlsctl.pki.draft import Draft, Drafted, Issuer, Unsigned, draft_authority, draft_certificate, split_certificate
from mtlsctl.pki.keys import PrivateKey, PublicKey, spki_sha256
from mtlsctl.pki.lint import LintedDraft, LintError, lint

__all__ = [
    "Draft",
    "Drafted",
    "Issuer",
    "LintError",
    "LintedDraft",
    "SignedCertificate",
    "draft_authority",
    "draft_certificate",
    "lint",
    "sign",
]

_SHA256 = hashes.SHA256()
_ECDSA = ec.ECDSA(_SHA256)
_PKCS1 = padding.PKCS1v15()
_SEQUENCE, _BIT_STRING, _LONG_FORM = 0x30, 0x03, 0x80
V = TypeVar("V", CertificationAuthority, Credential)

Signer = Callable[[bytes], bytes]
"""Signs for a key that is elsewhere: ECDSA or RSA (PKCS#1 v1.5) with SHA-256, or Ed25519, as X.509 has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCertificate(Generic[V]):
    """A certificate (DER) that a real key signed, checked again after it did; `value` is what the state keeps of it."""

    der: bytes = field(repr=False)
    value: V


@overload
def sign(
    linted: LintedDraft[AuthorityProfile], key: PrivateKey | Signer
) -> SignedCertificate[CertificationAuthority]: ...
@overload
def sign(linted: LintedDraft[CertificateProfile], key: PrivateKey | Signer) -> SignedCertificate[Credential]: ...
def sign(
    linted: LintedDraft[AuthorityProfile] | LintedDraft[CertificateProfile], key: PrivateKey | Signer
) -> SignedCertificate[CertificationAuthority] | SignedCertificate[Credential]:
    """Sign exactly the bytes that were linted.

    Raises PreflightError (M7103) when the key is not the issuer's, or what came out is not what was linted; then
    nothing of it leaves this function.
    """
    draft = linted.draft
    der = sign_unsigned(draft.unsigned, key)
    profile = draft.profile
    if isinstance(profile, AuthorityProfile):
        return SignedCertificate(der=der, value=_authority(profile, draft, der))
    return SignedCertificate(der=der, value=_credential(profile, draft, der))


def _authority(profile: AuthorityProfile, draft: Drafted, der: bytes) -> CertificationAuthority:
    return CertificationAuthority(
        profile=profile,
        serial=draft.serial,
        not_before=draft.not_before,
        not_after=draft.not_after,
        certificate_sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=spki_sha256(draft.unsigned.public_key),
    )


def _credential(profile: CertificateProfile, draft: Drafted, der: bytes) -> Credential:
    return Credential(
        profile=profile,
        serial=draft.serial,
        not_before=draft.not_before,
        not_after=draft.not_after,
        certificate_sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=spki_sha256(draft.unsigned.public_key),
    )


def sign_unsigned(unsigned: Unsigned, key: PrivateKey | Signer) -> bytes:
    """Sign the very bytes that were linted, and verify it with the issuer's public key; callers hold a lint's token.

    The certificate is the twin with another signature (RFC 5280 section 4.1). The library's builder would encode
    everything a second time; so nothing stands between what the lint read and what is signed.
    """
    to_be_signed, algorithm = split_certificate(unsigned.twin)
    signature = _element(_BIT_STRING, b"\0" + _signature(to_be_signed, key))
    der = _element(_SEQUENCE, to_be_signed + algorithm + signature)
    if not _is_as_linted(der, unsigned):
        raise PreflightError(
            f"the signature under `{unsigned.common_name}` is not the one that was meant: the key is not its issuer's",
            code=codes.SIGNATURE,
        )
    return der


def _signature(content: bytes, key: PrivateKey | Signer) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(content, _ECDSA)
        case ed25519.Ed25519PrivateKey():
            return key.sign(content)
        case rsa.RSAPrivateKey():
            return key.sign(content, _PKCS1, _SHA256)
        case _:
            return key(content)


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < _LONG_FORM:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(length))) + length + content


def _is_as_linted(der: bytes, unsigned: Unsigned) -> bool:
    """Read back as a stranger would: the linted bytes under a signature that holds."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        content = certificate.tbs_certificate_bytes
        _verify(certificate.signature, content, unsigned.signing_key)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return hashlib.sha256(content).hexdigest() == unsigned.to_be_signed_sha256


def _verify(signature: bytes, content: bytes, key: PublicKey) -> None:
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, content, _ECDSA)
        case ed25519.Ed25519PublicKey():
            key.verify(signature, content)
        case rsa.RSAPublicKey():
            key.verify(signature, content, _PKCS1, _SHA256)
