"""What a certificate says, read from its bytes alone."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import KeyUsage
from mtlsctl.model.identifiers import DnsId, InvalidIdentifier
from mtlsctl.pki import codes
from mtlsctl.pki.keys import algorithm_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
USAGE_OIDS = {
    KeyUsage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
    KeyUsage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
}
UNREADABLE = (
    ValueError,
    KeyError,  # an unknown string type in a name, in older releases of the library
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # a serial that is not positive; raised only where warnings are errors
)
"""What the library raises for bytes that are not what they should be."""

_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)
E = TypeVar("E", bound=x509.ExtensionType)
_USAGE_NAMES = {oid: usage.value for usage, oid in USAGE_OIDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """A certificate as people ask about it: names as they are presented, times in UTC, digests in hex.

    `key` is an algorithm of the inventory, or the library's name for any other. `usages` are extended key usages by
    name, unknown ones in dotted form; without the extension the tuple is empty and every usage is allowed. `subject` is
    the common name where that is all, `subject_dn` the whole as RFC 4514 writes it; of the issuer likewise. `digest` is
    that of its signature, None where the scheme has one of its own. `spki_sha256` is None for an unknown kind of key.
    """

    subject: str
    issuer: str
    subject_dn: str
    issuer_dn: str
    serial: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    certificate_sha256: str
    spki_sha256: str | None
    usages: tuple[str, ...]
    key: str
    digest: str | None
    is_ca: bool
    is_self_issued: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A certificate taken apart once. What it does not say is None or empty; `der` is its own bytes.

    `public_key` is None for a key of a kind that the library does not know. `key_usages` and `usage_oids` are the
    asserted key usages (by the library's names) and extended key usages; `criticality` tells of each extension.
    """

    der: bytes
    certificate: x509.Certificate
    public_key: CertificatePublicKeyTypes | None
    subject: x509.Name
    issuer: x509.Name
    not_before: datetime
    not_after: datetime
    criticality: Mapping[x509.ObjectIdentifier, bool]
    general_names: tuple[x509.GeneralName, ...]
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    key_usages: frozenset[str]
    usage_oids: frozenset[x509.ObjectIdentifier]
    is_ca: bool
    path_length: int | None
    subject_key_identifier: bytes | None
    authority_key_identifier: x509.AuthorityKeyIdentifier | None
    constraints: Constraints

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    @property
    def spki_sha256(self) -> str | None:
        """None for a key of a kind that the library does not know."""
        if self.public_key is None:
            return None
        encoded = self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(encoded).hexdigest()

    @property
    def is_self_issued(self) -> bool:
        """Whether it names itself as its issuer (RFC 5280 section 6.1)."""
        return self.subject == self.issuer

    @property
    def digest(self) -> str | None:
        """By which digest it is signed; None where the scheme has one of its own, or is not known."""
        try:
            algorithm = self.certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return None
        return None if algorithm is None else algorithm.name

    @property
    def common_names(self) -> tuple[str, ...]:
        return common_names_of(self.subject)

    @property
    def issuer_common_names(self) -> tuple[str, ...]:
        return common_names_of(self.issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Name constraints for DNS names and addresses; None permits all. Other kinds of name are listed as `unknown`."""

    permitted_names: tuple[str, ...] | None = None
    excluded_names: tuple[str, ...] = ()
    permitted_networks: tuple[IpNetwork, ...] | None = None
    excluded_networks: tuple[IpNetwork, ...] = ()
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, extension: x509.NameConstraints) -> Constraints:
        permitted, excluded = extension.permitted_subtrees or [], extension.excluded_subtrees or []
        return cls(
            permitted_names=_dns_names(permitted) or None,
            excluded_names=_dns_names(excluded),
            permitted_networks=_networks(permitted) or None,
            excluded_networks=_networks(excluded),
            unknown=tuple(
                type(name).__name__
                for name in [*permitted, *excluded]
                if not isinstance(name, (x509.DNSName, x509.IPAddress))
            ),
        )

    def allow_name(self, name: str) -> bool:
        """Whether a DNS name lies inside; a wildcard is judged by what it stands below."""
        try:
            dns = DnsId.parse(name.removeprefix("*."))
        except InvalidIdentifier:
            return False
        inside = self.permitted_names is None or any(dns.is_within(_bare(one)) for one in self.permitted_names)
        return inside and not any(dns.is_within(_bare(one)) for one in self.excluded_names)

    def allow_address(self, address: str) -> bool:
        """Whether an address lies inside."""
        ip = ipaddress.ip_address(address)
        inside = self.permitted_networks is None or any(ip in network for network in self.permitted_networks)
        return inside and not any(ip in network for network in self.excluded_networks)


def parse_certificate(der: bytes) -> Parsed:
    """Decode one certificate with all its extensions; raises PreflightError (M7104), which does not quote the bytes."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        parsed = _taken_apart(der, certificate) if certificate.serial_number > 0 else None
    except UNREADABLE:
        parsed = None
    if parsed is None:
        raise PreflightError("the bytes are not an X.509 certificate", code=codes.CERTIFICATE_UNREADABLE)
    return parsed


def _taken_apart(der: bytes, certificate: x509.Certificate) -> Parsed:
    extensions = {extension.oid: extension for extension in certificate.extensions}
    values = {type(extension.value): extension.value for extension in extensions.values()}
    general_names = tuple(_value(values, x509.SubjectAlternativeName) or ())
    basic = _value(values, x509.BasicConstraints)
    identifier = _value(values, x509.SubjectKeyIdentifier)
    constraints = _value(values, x509.NameConstraints)
    return Parsed(
        der=der,
        certificate=certificate,
        public_key=_public_key(certificate),
        subject=certificate.subject,
        issuer=certificate.issuer,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        criticality={oid: extension.critical for oid, extension in extensions.items()},
        general_names=general_names,
        names=_dns_names(general_names),
        addresses=tuple(str(name.value) for name in general_names if type(name) is x509.IPAddress),
        key_usages=_asserted(_value(values, x509.KeyUsage)),
        usage_oids=frozenset(_value(values, x509.ExtendedKeyUsage) or ()),
        is_ca=basic is not None and basic.ca,
        path_length=None if basic is None else basic.path_length,
        subject_key_identifier=None if identifier is None else identifier.digest,
        authority_key_identifier=_value(values, x509.AuthorityKeyIdentifier),
        constraints=Constraints() if constraints is None else Constraints.of(constraints),
    )


def _value(values: Mapping[type, x509.ExtensionType], kind: type[E]) -> E | None:
    value = values.get(kind)
    return value if isinstance(value, kind) else None


def _asserted(usage: x509.KeyUsage | None) -> frozenset[str]:
    return frozenset() if usage is None else frozenset(name for name in _KEY_USAGES if getattr(usage, name))


def _public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def signature_holds(
    key: object,
    signed: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList,
    content: bytes,
) -> bool | None:
    """Whether a key made a signature; None where it cannot be told, as the scheme is not known.

    The library's own checks call a digest that they do not accept a wrong signature, which is another thing.
    """
    try:
        digest, parameters = signed.signature_hash_algorithm, _parameters(signed)
        match key:
            case rsa.RSAPublicKey() if digest is not None:
                key.verify(signed.signature, content, parameters or padding.PKCS1v15(), digest)
            case ec.EllipticCurvePublicKey() if digest is not None:
                key.verify(signed.signature, content, ec.ECDSA(digest))
            case dsa.DSAPublicKey() if digest is not None:
                key.verify(signed.signature, content, digest)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signed.signature, content)
            case _:
                return None
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, ValueError, TypeError, OverflowError):
        return None
    return True


def _parameters(
    signed: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList,
) -> padding.AsymmetricPadding | None:
    """How an RSA signature is padded, where it says so."""
    found = signed.signature_algorithm_parameters
    return found if isinstance(found, padding.AsymmetricPadding) else None


def signed_by(below: Parsed, above: Parsed) -> bool | None:
    """Whether a certificate names another as its issuer and that one's key signed it; None where it cannot be told."""
    if below.issuer != above.subject:
        return False
    return signature_holds(above.public_key, below.certificate, below.certificate.tbs_certificate_bytes)


def presents(parsed: Parsed, name: str) -> bool:
    """Whether a certificate presents a DNS name or an address (RFC 9525 section 6); its common name never counts."""
    try:
        reference = DnsId.parse(name)
    except InvalidIdentifier:
        return name in parsed.addresses
    return any(reference.matches(presented) for presented in parsed.names)


def facts_of(parsed: Parsed) -> CertificateFacts:
    """What people ask about a certificate."""
    return CertificateFacts(
        subject=label_of(parsed.subject),
        issuer=label_of(parsed.issuer),
        subject_dn=parsed.subject.rfc4514_string(),
        issuer_dn=parsed.issuer.rfc4514_string(),
        serial=f"{parsed.certificate.serial_number:x}",
        names=parsed.names,
        addresses=parsed.addresses,
        not_before=parsed.not_before,
        not_after=parsed.not_after,
        certificate_sha256=parsed.sha256,
        spki_sha256=parsed.spki_sha256,
        usages=tuple(sorted(_USAGE_NAMES.get(oid, oid.dotted_string) for oid in parsed.usage_oids)),
        key=key_name(parsed.public_key),
        digest=parsed.digest,
        is_ca=parsed.is_ca,
        is_self_issued=parsed.is_self_issued,
    )


def label_of(name: x509.Name) -> str:
    """The common name where it is the whole name, as with all of ours; else the name as RFC 4514 writes it."""
    common = common_names_of(name)
    return common[0] if len(common) == 1 and len(list(name)) == 1 else name.rfc4514_string()


def common_names_of(name: x509.Name) -> tuple[str, ...]:
    return tuple(str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME))


def key_name(key: object) -> str:
    """The inventory's word for the algorithm of a public key; for any other `rsa-1024`, `ecdsa-secp384r1` and so on."""
    algorithm = algorithm_of(key)
    if algorithm is not None:
        return algorithm.value
    match key:
        case rsa.RSAPublicKey():
            return f"rsa-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"ecdsa-{key.curve.name}"
        case dsa.DSAPublicKey():
            return f"dsa-{key.key_size}"
        case _:
            return "unknown" if key is None else type(key).__name__.removesuffix("PublicKey").lower()


def _dns_names(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    # `isinstance` would ask the abstract class, which is slow for each kind that does not match.
    return tuple(name.value for name in names if type(name) is x509.DNSName)


def _networks(names: list[x509.GeneralName]) -> tuple[IpNetwork, ...]:
    values = (name.value for name in names if isinstance(name, x509.IPAddress))
    return tuple(value for value in values if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network))


def _bare(constraint: str) -> str:
    return constraint.lower().removeprefix(".")


def subject_der(certificate: bytes) -> bytes:
    """The DER of a certificate's subject, as a CertificateRequest names a CA (RFC 5246 section 7.4.4)."""
    return x509.load_der_x509_certificate(certificate).subject.public_bytes()


def subject_text(certificate: bytes) -> str:
    """A certificate's subject as one text (RFC 4514)."""
    return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()


def issuer_and_subject(certificate: bytes) -> tuple[str, str]:
    """Both names as texts (RFC 4514): compared as wholes they say which leaf of an anchor this is."""
    parsed = x509.load_der_x509_certificate(certificate)
    return parsed.issuer.rfc4514_string(), parsed.subject.rfc4514_string()
