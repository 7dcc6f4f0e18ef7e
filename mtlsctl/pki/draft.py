"""Certificates before any real key has touched them.

A draft is built once and signed with a throwaway key. That twin has the very bytes to be signed (only the signature
differs), so its digest can be recorded as the intent before the real signature exists, and the lint reads the twin.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import (
    AuthorityId,
    AuthorityProfile,
    CertificateProfile,
    CertificationAuthority,
    CredentialId,
)
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki import codes
from mtlsctl.pki.inspect import USAGE_OIDS, Parsed, parse_certificate
from mtlsctl.pki.keys import PrivateKey, PublicKey, algorithm_of, generate_key, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtlsctl.model.credential import KeyUsage

BACKDATED = timedelta(minutes=5)
"""How far before now a certificate begins, for hosts whose clock is behind ours."""

SERIAL_BITS = 159
"""Random bits of a serial: the most that stay positive in 20 octets (RFC 5280 section 4.1.2.2)."""

EVERY_NETWORK = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))

_SHA256 = hashes.SHA256()
_LONG_FORM = 0x80
P = TypeVar("P", AuthorityProfile, CertificateProfile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A CA as it signs: what is known of it and its certificate (DER). Its key is handed over at the signature alone.

    Raises PreflightError when the certificate is not that of the authority.
    """

    authority: CertificationAuthority
    certificate: bytes = field(repr=False)
    parsed: Parsed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parsed = parse_certificate(self.certificate)
        if parsed.sha256 != self.authority.certificate_sha256:
            raise PreflightError(f"the certificate is not that of {self.authority.id}", code=codes.WRONG_CERTIFICATE)
        if algorithm_of(parsed.public_key) is None:
            raise PreflightError(f"the key of {self.authority.id} is of a kind that is not used here", code=codes.LINT)
        object.__setattr__(self, "parsed", parsed)

    @property
    def public_key(self) -> PublicKey:
        key = self.parsed.public_key
        assert isinstance(key, PublicKey)  # noqa: S101  checked when this was made
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """The bytes that are to be signed. `issuer` is None for a certificate that signs itself; times are whole seconds.

    `twin` is the DER of the certificate that the throwaway key signed; what is to be signed is part of it.
    """

    issuer: Issuer | None
    common_name: str
    serial: int
    not_before: datetime
    not_after: datetime
    drafted_at: datetime
    public_key: PublicKey
    to_be_signed_sha256: str
    twin: bytes = field(repr=False)

    @property
    def signing_key(self) -> PublicKey:
        """The public half of the key that is to sign."""
        return self.public_key if self.issuer is None else self.issuer.public_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """What every kind of draft tells an intent; `serial` is hex in lower case without a prefix."""

    unsigned: Unsigned

    @property
    def common_name(self) -> str:
        return self.unsigned.common_name

    @property
    def serial(self) -> str:
        return f"{self.unsigned.serial:x}"

    @property
    def not_before(self) -> datetime:
        return self.unsigned.not_before

    @property
    def not_after(self) -> datetime:
        return self.unsigned.not_after

    @property
    def to_be_signed_sha256(self) -> str:
        return self.unsigned.to_be_signed_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft(Drafted, Generic[P]):
    """A CA or a leaf to be: record the intent, `lint` it, then `sign` it."""

    profile: P

    @property
    def issuer_id(self) -> AuthorityId:
        """Who signs; a CA signs itself."""
        profile = self.profile
        return profile.authority if isinstance(profile, CertificateProfile) else profile.id

    @property
    def subject_id(self) -> AuthorityId | CredentialId:
        return self.profile.id


def draft_authority(profile: AuthorityProfile, key: PrivateKey, *, now: datetime) -> Draft[AuthorityProfile]:
    """A self-signed CA over the key's public half; the key itself is not used.

    Raises PreflightError (M7101) when a name of the profile cannot be written into a certificate.
    """
    public_key = key.public_key()
    return Draft(
        profile=profile,
        unsigned=make_unsigned(
            subject=name_of(profile.common_name),
            public_key=public_key,
            issuer=None,
            extensions=_authority_extensions(profile, public_key),
            validity=(now - BACKDATED, now + profile.lifetime),
            now=now,
        ),
    )


def draft_certificate(
    profile: CertificateProfile, public_key: PublicKey, issuer: Issuer | None, *, now: datetime
) -> Draft[CertificateProfile]:
    """A leaf that ends with its lifetime or with its CA, whichever comes first; without an issuer it signs itself.

    Raises PreflightError: M7102 when the CA cannot sign now, M7101 when a name cannot be written into a certificate.
    """
    validity = now - BACKDATED, now + profile.lifetime
    if issuer is not None:
        refuse_ended(issuer, now)
        validity = max(validity[0], issuer.parsed.not_before), min(validity[1], issuer.parsed.not_after)
    return Draft(
        profile=profile,
        unsigned=make_unsigned(
            subject=name_of(profile.common_name),
            public_key=public_key,
            issuer=issuer,
            extensions=leaf_extensions(profile, public_key, issuer),
            validity=validity,
            now=now,
        ),
    )


def make_unsigned(
    *,
    subject: x509.Name,
    public_key: PublicKey,
    issuer: Issuer | None,
    extensions: Iterable[x509.Extension[x509.ExtensionType]],
    validity: tuple[datetime, datetime],
    now: datetime,
) -> Unsigned:
    """Build once, with a new random serial, and sign the twin."""
    serial = random_serial()
    start, end = (moment.astimezone(UTC).replace(microsecond=0) for moment in validity)
    # Given at once: the builder's own methods copy it and ask after abstract classes, and the lint checks all anyway.
    builder = x509.CertificateBuilder(
        issuer_name=subject if issuer is None else issuer.parsed.subject,
        subject_name=subject,
        public_key=public_key,
        serial_number=serial,
        not_valid_before=start.replace(tzinfo=None),
        not_valid_after=end.replace(tzinfo=None),
        extensions=list(extensions),
    )
    signing = public_key if issuer is None else issuer.public_key
    twin = _signed_by_throwaway(builder, signing).public_bytes(Encoding.DER)
    return Unsigned(
        issuer=issuer,
        common_name=str(next(iter(subject)).value),
        serial=serial,
        not_before=start,
        not_after=end,
        drafted_at=now,
        public_key=public_key,
        to_be_signed_sha256=hashlib.sha256(split_certificate(twin)[0]).hexdigest(),
        twin=twin,
    )


def split_certificate(der: bytes) -> tuple[bytes, bytes]:
    """The to-be-signed part and the AlgorithmIdentifier that follows it, as encoded (RFC 5280 section 4.1)."""
    start, _ = _content_of(der, 0)
    _, middle = _content_of(der, start)
    _, end = _content_of(der, middle)
    return der[start:middle], der[middle:end]


def _content_of(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at a place begins and ends."""
    first = der[at + 1]
    if first < _LONG_FORM:
        return at + 2, at + 2 + first
    start = at + 2 + (first & ~_LONG_FORM)
    return start, start + int.from_bytes(der[at + 2 : start], "big")


def refuse_ended(issuer: Issuer, now: datetime) -> None:
    """Raise PreflightError (M7102) unless the CA is valid now and its key still exists."""
    ca = issuer.parsed
    if issuer.authority.key_destroyed:
        problem, help_ = "cannot sign: its key was destroyed", None
    elif now >= ca.not_after:
        problem = f"ended on {ca.not_after:%Y-%m-%d}, so it cannot sign"
        help_ = "a new plan makes its next generation"
    elif now < ca.not_before:
        problem = f"begins on {ca.not_before:%Y-%m-%d %H:%M} UTC, which this clock has not reached"
        help_ = "set the clock of this machine"
    else:
        return
    raise PreflightError(f"{issuer.authority.id} {problem}", code=codes.AUTHORITY_ENDED, help=help_)


def random_serial() -> int:
    """A positive serial of up to 159 random bits, so never more than 20 octets (RFC 5280 section 4.1.2.2)."""
    return secrets.randbits(SERIAL_BITS) or random_serial()


def name_of(common_name: str) -> x509.Name:
    """A subject of one RDN; raises PreflightError where X.520 has no room for it (64 characters)."""
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError:
        message = f"`{common_name}` is {len(common_name)} characters long; a common name has 1 to 64"
        raise PreflightError(message, code=codes.LINT) from None


def leaf_extensions(
    profile: CertificateProfile, public_key: PublicKey, issuer: Issuer | None
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """What a leaf says besides subject and key; AKI is the issuer's SKI, copied (RFC 5280 section 4.2.1.1).

    One that signs itself names its own: by it a peer finds the right one among several of the same subject.
    """
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    above = identifier if issuer is None else _identifier_of(issuer)
    return (
        *_fixed_leaf_extensions(profile.usages, encipherment=kind_of(public_key) is rsa.RSAPublicKey),
        _extension(x509.SubjectAlternativeName(_general_names(profile.presented_names, profile.addresses))),
        _extension(identifier),
        _extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above)),
    )


@cache
def _fixed_leaf_extensions(
    usages: frozenset[KeyUsage], *, encipherment: bool
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    oids = [USAGE_OIDS[usage] for usage in sorted(usages)]
    return (
        _extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        _extension(_key_usage(leaf=True, encipherment=encipherment), critical=True),
        *([_extension(x509.ExtendedKeyUsage(oids))] if oids else []),
    )


def _authority_extensions(
    profile: AuthorityProfile, public_key: PublicKey
) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    excluded = None if profile.addresses else [x509.IPAddress(network) for network in EVERY_NETWORK]
    permitted = _general_names(profile.permitted_names) or None
    constraints = [] if permitted is excluded is None else [x509.NameConstraints(permitted, excluded)]
    return (
        _extension(x509.BasicConstraints(ca=True, path_length=0), critical=True),
        _extension(_key_usage(leaf=False, encipherment=False), critical=True),
        *(_extension(one, critical=True) for one in constraints),
        _extension(identifier),
        _extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)),
    )


def _general_names(names: Iterable[str], addresses: Iterable[str] = ()) -> list[x509.GeneralName]:
    try:
        ips = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        return [*(x509.DNSName(name) for name in names), *ips]
    except ValueError as error:
        raise PreflightError(f"a name cannot be written into a certificate: {error}", code=codes.LINT) from None


def _identifier_of(issuer: Issuer) -> x509.SubjectKeyIdentifier:
    digest = issuer.parsed.subject_key_identifier
    if digest is None:
        raise PreflightError(f"{issuer.authority.id} has no subject key identifier", code=codes.LINT)
    return x509.SubjectKeyIdentifier(digest)


def _key_usage(*, leaf: bool, encipherment: bool) -> x509.KeyUsage:
    """Leaves sign handshakes (and RSA ones unwrap keys, for TLS 1.2); CAs sign certificates and CRLs. Nothing else."""
    return x509.KeyUsage(
        digital_signature=leaf,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        encipher_only=False,
        decipher_only=False,
    )


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _signed_by_throwaway(builder: x509.CertificateBuilder, signing: PublicKey) -> x509.Certificate:
    kind = kind_of(signing)
    return builder.sign(_throwaway(kind), None if kind is ed25519.Ed25519PublicKey else _SHA256)


@cache
def _throwaway(kind: type[PublicKey] | None) -> PrivateKey:
    """One key for each kind of signature, made in this process and never stored; it vouches for nothing."""
    if kind is ec.EllipticCurvePublicKey:
        return generate_key(KeyAlgorithm.ECDSA_P256)
    if kind is ed25519.Ed25519PublicKey:
        return generate_key(KeyAlgorithm.ED25519)
    return generate_key(KeyAlgorithm.RSA_2048)  # the size of an RSA key is not in the bytes that it signs
