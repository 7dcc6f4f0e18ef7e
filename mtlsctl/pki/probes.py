"""Certificates for a verification, which are never kept; nearly all are such that every listener must refuse them.

Two come from a real CA (one has ended, one is for servers only), so they are intended, linted and recorded like any
other; the foreign one imitates a CA with a key of its own. None lives longer than ten minutes.

A third from a real CA is fit: it stands in for the certificate of a caller whose key its owner keeps, so that its call
can be tried at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsctl.model.credential import KeyUsage
from mtlsctl.model.probe import Presented
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.draft import (
    BACKDATED,
    Drafted,
    leaf_extensions,
    make_unsigned,
    name_of,
    random_serial,
    refuse_ended,
)
from mtlsctl.pki.inspect import parse_certificate
from mtlsctl.pki.issue import sign_unsigned
from mtlsctl.pki.keys import generate_key, private_pem
from mtlsctl.pki.lint import LintError, profile_findings
from mtlsctl.pki.stores import to_pem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mtlsctl.model.credential import AuthorityId, CertificateProfile
    from mtlsctl.model.secret import Secret
    from mtlsctl.pki.draft import Issuer
    from mtlsctl.pki.keys import PrivateKey, PublicKey

PROBE_LIFETIME = timedelta(minutes=10)
"""From `not_before` to `not_after`, at most."""

EXPIRED_FOR = timedelta(hours=1)
"""How long ago an expired probe ended: longer than any clock that a host may have."""

PROBE_KEY = KeyAlgorithm.ECDSA_P256
_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class CraftedCertificate:
    """A chain (PEM, leaf first) and its key (PKCS#8 PEM), ready to be presented."""

    chain: bytes
    key: Secret = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeDraft(Drafted):
    """A certificate for a few minutes: a type of its own, so that it can never be signed as a credential."""

    kind: Presented
    profile: CertificateProfile

    @property
    def issuer_id(self) -> AuthorityId:
        return self.profile.authority

    @property
    def subject_id(self) -> str:
        """What an intent records as its subject."""
        return f"probe {self.kind.value}: {self.profile.id.instance}"


@final
class LintedProbe:
    """A probe that is unfit in its one way and no other, or not at all; only `lint_probe` makes one."""

    __slots__ = ("draft",)
    draft: ProbeDraft

    def __init__(self, draft: ProbeDraft, *, token: object) -> None:
        if token is not _TOKEN:
            msg = "only lint_probe() makes a LintedProbe"
            raise TypeError(msg)
        object.__setattr__(self, "draft", draft)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        msg = "a LintedProbe does not change"
        raise AttributeError(msg)


def draft_probe(
    kind: Presented, caller: CertificateProfile, public_key: PublicKey, issuer: Issuer, *, now: datetime
) -> ProbeDraft:
    """A certificate of the caller's own CA: ended an hour ago (EXPIRED), for servers only (WRONG_USAGE), or as the
    caller's own is (DELIVERED).

    `caller` is the profile of the imitated leaf; the key is of kind PROBE_KEY. Raises PreflightError (M7102) when the
    CA cannot sign now, ValueError for a kind that needs no CA.
    """
    refuse_ended(issuer, now)
    profile = _probe_profile(kind, caller)
    ca_end = issuer.parsed.not_after
    end = now - EXPIRED_FOR if kind is Presented.EXPIRED else min(now + PROBE_LIFETIME - BACKDATED, ca_end)
    start = end - PROBE_LIFETIME if kind is Presented.EXPIRED else now - BACKDATED
    unsigned = make_unsigned(
        subject=name_of(profile.common_name),
        public_key=public_key,
        issuer=issuer,
        extensions=leaf_extensions(profile, public_key, issuer),
        validity=(start, end),
        now=now,
    )
    return ProbeDraft(unsigned=unsigned, kind=kind, profile=profile)


def _probe_profile(kind: Presented, caller: CertificateProfile) -> CertificateProfile:
    usages = {
        Presented.EXPIRED: KeyUsage.CLIENT_AUTH,
        Presented.WRONG_USAGE: KeyUsage.SERVER_AUTH,
        Presented.DELIVERED: KeyUsage.CLIENT_AUTH,
    }
    if kind not in usages:
        msg = f"no CA signs a probe of kind `{kind.value}`"
        raise ValueError(msg)
    lifetime = PROBE_LIFETIME - BACKDATED
    return replace(caller, usages=frozenset({usages[kind]}), key=PROBE_KEY, lifetime=lifetime)


def lint_probe(draft: ProbeDraft) -> LintedProbe:
    """All rules of a leaf but the one that it may break on purpose, and those of a probe; raises LintError."""
    findings = (*_probe_findings(draft), *profile_findings(draft.unsigned, draft.profile))
    if findings:
        raise LintError(draft.subject_id, findings)
    return LintedProbe(draft, token=_TOKEN)


def _probe_findings(draft: ProbeDraft) -> Iterator[str]:
    start, end, now = draft.not_before, draft.not_after, draft.unsigned.drafted_at
    if end - start > PROBE_LIFETIME:
        yield "a probe lives for ten minutes at most"
    match draft.kind:
        case Presented.EXPIRED:
            as_meant = end <= now - EXPIRED_FOR
        case Presented.WRONG_USAGE:
            as_meant = start <= now < end and draft.profile.usages == {KeyUsage.SERVER_AUTH}
        case Presented.DELIVERED:
            as_meant = start <= now < end and draft.profile.usages == {KeyUsage.CLIENT_AUTH}
        case _:
            as_meant = False
    if not as_meant:
        yield f"it is not what a probe for `{draft.kind.value}` is to be"


def sign_probe(linted: LintedProbe, key: PrivateKey) -> bytes:
    """Sign with the CA's key and verify; gives the DER. Raises PreflightError (M7103) as `sign` does."""
    return sign_unsigned(linted.draft.unsigned, key)


def craft_foreign(imitating: bytes, *, now: datetime) -> CraftedCertificate:
    """A leaf that says all that `imitating` (DER) says, issued by a CA that looks like its issuer and has another key.

    Subject, issuer, serial, names and authority key identifier are the same, and both usages are allowed: only the
    signature tells them apart. The false CA follows in the chain.
    """
    model = parse_certificate(imitating)
    authority_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), generate_key(PROBE_KEY)
    validity = (now - BACKDATED, now + PROBE_LIFETIME - BACKDATED)
    authority = _foreign_authority(model.issuer, model.authority_key_identifier, authority_key, validity)
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    builder = _builder(model.subject, model.issuer, leaf_key.public_key(), validity).serial_number(
        model.certificate.serial_number
    )
    for extension in model.certificate.extensions:
        builder = builder.add_extension(_imitated(extension.value, usages, leaf_key), extension.critical)
    leaf = builder.sign(authority_key, hashes.SHA256())
    ders = [certificate.public_bytes(Encoding.DER) for certificate in (leaf, authority)]
    return CraftedCertificate(chain=to_pem(ders), key=private_pem(leaf_key))


def craft_foreign_outsider(authority: bytes, subject: str, *, now: datetime) -> CraftedCertificate:
    """A leaf with this subject (RFC 4514) that names a CA from outside (DER) as its issuer, which never signed it.

    Name and key identifier of the issuer are those of the CA, a false one of which follows in the chain.
    """
    model = parse_certificate(authority)
    authority_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), generate_key(PROBE_KEY)
    validity = (now - BACKDATED, now + PROBE_LIFETIME - BACKDATED)
    identifier = x509.AuthorityKeyIdentifier(model.subject_key_identifier, None, None)
    false_authority = _foreign_authority(model.subject, identifier, authority_key, validity)
    name = x509.Name.from_rfc4514_string(subject)
    leaf = _builder(name, model.subject, leaf_key.public_key(), validity).serial_number(random_serial())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    for value, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage(usages), False),
        (x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), False),
        (identifier, False),
    ):
        leaf = leaf.add_extension(value, critical)
    ders = [one.public_bytes(Encoding.DER) for one in (leaf.sign(authority_key, hashes.SHA256()), false_authority)]
    return CraftedCertificate(chain=to_pem(ders), key=private_pem(leaf_key))


def _imitated(value: x509.ExtensionType, usages: x509.ExtendedKeyUsage, key: PrivateKey) -> x509.ExtensionType:
    match value:
        case x509.ExtendedKeyUsage():
            return usages
        case x509.SubjectKeyIdentifier():
            return x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        case _:
            return value


def _foreign_authority(
    name: x509.Name,
    identifier: x509.AuthorityKeyIdentifier | None,
    key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    builder = _builder(name, name, key.public_key(), validity).serial_number(random_serial())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    if identifier is not None and identifier.key_identifier is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier.key_identifier), critical=False)
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, validity: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    start, end = validity
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.not_valid_before(start).not_valid_after(end)
