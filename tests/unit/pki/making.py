"""CAs and leaves for tests: made by the floor itself, with everything that a test does not care about filled in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509

from mtlsctl.model.credential import (
    AuthorityId,
    AuthorityProfile,
    CertificateProfile,
    CredentialId,
    KeyUsage,
    common_name_of_authority,
)
from mtlsctl.model.topology import InstanceId, KeyAlgorithm
from mtlsctl.pki.draft import Draft, _authority_extensions, leaf_extensions, make_unsigned, name_of
from mtlsctl.pki.issue import Issuer, draft_authority, draft_certificate, lint, sign
from mtlsctl.pki.keys import generate_key, private_pem
from mtlsctl.pki.stores import to_pem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mtlsctl.model.credential import Credential
    from mtlsctl.pki.issue import SignedCertificate
    from mtlsctl.pki.keys import PrivateKey

NOW = datetime.now(UTC).replace(microsecond=0)
P256 = KeyAlgorithm.ECDSA_P256
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A CA with its key, as an apply holds it while it signs."""

    issuer: Issuer
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return to_pem([self.issuer.certificate])


@dataclass(frozen=True)
class Leaf:
    """A leaf with its key, as a host holds it."""

    der: bytes
    credential: Credential
    key: PrivateKey

    def write(self, folder: Path) -> tuple[Path, Path]:
        folder.mkdir(exist_ok=True)
        chain, key = folder / "tls.crt", folder / "tls.key"
        chain.write_bytes(to_pem([self.der]))
        key.write_bytes(private_pem(self.key).reveal())
        return chain, key


@cache
def key_of(algorithm: KeyAlgorithm, number: int = 0) -> PrivateKey:
    """RSA keys are slow to make, so tests share a few."""
    return generate_key(algorithm)


def authority_profile(service: str = "mail", generation: int = 1, **changes: Any) -> AuthorityProfile:
    named = AuthorityId(service, generation)
    profile = AuthorityProfile(
        id=named,
        common_name=common_name_of_authority("calendar", named),
        key=P256,
        lifetime=1825 * DAY,
        permitted_names=(f"{service}.calendar.internal",),
        addresses=False,
    )
    return replace(profile, **changes)


def certificate_profile(service: str = "mail", generation: int = 1, **changes: Any) -> CertificateProfile:
    profile = CertificateProfile(
        id=CredentialId(InstanceId(service, "web1"), 1),
        authority=AuthorityId(service, generation),
        common_name=service,
        names=(f"{service}.calendar.internal",),
        transitional_names=(),
        addresses=(),
        usages=frozenset(KeyUsage),
        key=P256,
        lifetime=90 * DAY,
    )
    return replace(profile, **changes)


def make_authority(profile: AuthorityProfile | None = None, *, now: datetime = NOW, number: int = 0) -> Authority:
    profile = profile or authority_profile()
    key = generate_key(P256) if profile.key is P256 else key_of(profile.key, number)
    signed = sign(lint(draft_authority(profile, key, now=now)), key)
    return Authority(Issuer(authority=signed.value, certificate=signed.der), key)


def make_leaf(authority: Authority, profile: CertificateProfile | None = None, *, now: datetime = NOW) -> Leaf:
    profile = profile or certificate_profile(*authority.issuer.authority.id)
    key = generate_key(P256) if profile.key is P256 else key_of(profile.key, 7)
    draft = draft_certificate(profile, key.public_key(), authority.issuer, now=now)
    signed: SignedCertificate[Credential] = sign(lint(draft), authority.key)
    return Leaf(signed.der, signed.value, key)


Extensions = list[x509.Extension[x509.ExtensionType]]


def altered_leaf(
    authority: Authority,
    alter: Callable[[Extensions], Iterable[x509.Extension[x509.ExtensionType]]],
    profile: CertificateProfile | None = None,
) -> Draft[CertificateProfile]:
    """A draft that says something else than its profile, as a mistake in the code that builds it would."""
    profile = profile or certificate_profile()
    public = generate_key(profile.key).public_key()
    extensions = list(leaf_extensions(profile, public, authority.issuer))
    return Draft(
        profile=profile,
        unsigned=make_unsigned(
            subject=name_of(profile.common_name),
            public_key=public,
            issuer=authority.issuer,
            extensions=alter(extensions),
            validity=(NOW, NOW + DAY),
            now=NOW,
        ),
    )


def altered_authority(
    alter: Callable[[Extensions], Iterable[x509.Extension[x509.ExtensionType]]],
    profile: AuthorityProfile | None = None,
) -> Draft[AuthorityProfile]:
    profile = profile or authority_profile()
    public = generate_key(profile.key).public_key()
    return Draft(
        profile=profile,
        unsigned=make_unsigned(
            subject=name_of(profile.common_name),
            public_key=public,
            issuer=None,
            extensions=alter(list(_authority_extensions(profile, public))),
            validity=(NOW, NOW + DAY),
            now=NOW,
        ),
    )
