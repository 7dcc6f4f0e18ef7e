"""Every rule of a certificate, stated a second time over what was parsed, and the token that only passing them gives.

The rules never look at how a certificate was built. They read the twin's bytes as a stranger would, so that a mistake
in `draft` is found before a real key signs.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Generic, NoReturn, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import SHARED, AuthorityProfile, CertificateProfile, KeyUsage
from mtlsctl.model.identifiers import LABEL, DnsId, InvalidIdentifier
from mtlsctl.pki import codes
from mtlsctl.pki.draft import BACKDATED, EVERY_NETWORK, Draft, P, Unsigned
from mtlsctl.pki.inspect import Parsed, parse_certificate
from mtlsctl.pki.keys import PublicKey, algorithm_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

_MAX_SERIAL_BITS = 159
_AUTHORITY_NAME = re.compile(rf"{LABEL.pattern}\.{LABEL.pattern} CA g[1-9][0-9]*")
_SHARED_NAME = re.compile(rf"{LABEL.pattern} CA g[1-9][0-9]*")

_AUTHORITY_EXTENSIONS = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.NAME_CONSTRAINTS: True,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}
_LEAF_EXTENSIONS = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}
"""Exactly these, and whether each is critical."""

_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: KeyUsage.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH: KeyUsage.CLIENT_AUTH,
}
_SIGNATURES: dict[type[PublicKey] | None, x509.ObjectIdentifier] = {
    ec.EllipticCurvePublicKey: SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    ed25519.Ed25519PublicKey: SignatureAlgorithmOID.ED25519,
    rsa.RSAPublicKey: SignatureAlgorithmOID.RSA_WITH_SHA256,
}
_TOKEN = object()


class LintError(PreflightError):
    """A certificate that was about to be signed breaks rules; `findings` has them all."""

    def __init__(self, subject: object, findings: Sequence[str]) -> None:
        message = f"the certificate of {subject} would break {len(findings)} rule(s): {findings[0]}"
        super().__init__(message, code=codes.LINT, notes=findings[1:])
        self.findings = tuple(findings)


@final
class LintedDraft(Generic[P]):
    """A draft that passed; `sign` takes nothing else, and only `lint` can make one."""

    __slots__ = ("draft",)
    draft: Draft[P]

    def __init__(self, draft: Draft[P], *, token: object) -> None:
        if token is not _TOKEN:
            msg = "only lint() makes a LintedDraft"
            raise TypeError(msg)
        object.__setattr__(self, "draft", draft)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        msg = "a LintedDraft does not change"
        raise AttributeError(msg)


def lint(draft: Draft[P]) -> LintedDraft[P]:
    """Check every rule on the twin that the throwaway key signed; raises LintError with all that are broken."""
    findings = (*_now_findings(draft.unsigned), *profile_findings(draft.unsigned, draft.profile))
    if findings:
        raise LintError(draft.profile.id, findings)
    return LintedDraft(draft, token=_TOKEN)


def profile_findings(unsigned: Unsigned, profile: AuthorityProfile | CertificateProfile) -> tuple[str, ...]:
    """All rules of a profile that the twin breaks, each as one sentence; empty is good."""
    try:
        twin = parse_certificate(unsigned.twin)
    except PreflightError as error:
        return (error.message,)
    rules = _authority_rules if isinstance(profile, AuthorityProfile) else _leaf_rules
    return (
        *_bytes_findings(twin, unsigned),
        *_name_findings(twin, unsigned, profile),
        *_validity_findings(twin, unsigned, profile.lifetime),
        *_key_findings(twin, unsigned, profile),
        *_identifier_findings(twin, unsigned),
        *rules(twin, unsigned, profile),
    )


def _now_findings(unsigned: Unsigned) -> Iterator[str]:
    if not unsigned.not_before <= unsigned.drafted_at < unsigned.not_after:
        yield "it is not valid at the moment of its signature"


def _bytes_findings(twin: Parsed, unsigned: Unsigned) -> Iterator[str]:
    certificate = twin.certificate
    if hashlib.sha256(certificate.tbs_certificate_bytes).hexdigest() != unsigned.to_be_signed_sha256:
        yield "its digest is not that of the recorded intent"
    if certificate.version is not x509.Version.v3:
        yield "it is not version 3"
    serial = certificate.serial_number
    if serial != unsigned.serial:
        yield "its serial is not the one of the recorded intent"
    if not 0 < serial.bit_length() <= _MAX_SERIAL_BITS:
        yield "its serial is not a positive number of at most 20 octets"
    if certificate.signature_algorithm_oid != _SIGNATURES.get(kind_of(unsigned.signing_key)):
        yield "it is not signed as its issuer's key signs, with SHA-256 or Ed25519"


def _name_findings(twin: Parsed, unsigned: Unsigned, profile: AuthorityProfile | CertificateProfile) -> Iterator[str]:
    subject, common_names = twin.subject, twin.common_names
    if len(subject.rdns) != 1 or common_names != (profile.common_name,) or len(list(subject)) != 1:
        yield f"its subject is not the common name `{profile.common_name}` alone"
    grammar, shape = _shape_of_name(profile)
    if not all(grammar.fullmatch(name) for name in common_names):
        yield f"its common name is not {shape}"
    expected = subject if unsigned.issuer is None else unsigned.issuer.parsed.subject
    if twin.issuer != expected:
        yield "its issuer is not the subject of the CA that signs it"


def _shape_of_name(profile: AuthorityProfile | CertificateProfile) -> tuple[re.Pattern[str], str]:
    if isinstance(profile, CertificateProfile):
        return LABEL, "a service's name"
    if profile.id.service == SHARED:
        return _SHARED_NAME, "`<estate> CA g<n>`"
    return _AUTHORITY_NAME, "`<service>.<estate> CA g<n>`"


def _validity_findings(twin: Parsed, unsigned: Unsigned, lifetime: timedelta) -> Iterator[str]:
    start, end = twin.not_before, twin.not_after
    if (start, end) != (unsigned.not_before, unsigned.not_after):
        yield "its dates are not those of the recorded intent"
    if not start < end:
        yield "it ends before it begins"
    if end - start > lifetime + BACKDATED:
        yield "it lives longer than its profile allows"
    if unsigned.issuer is not None and end > unsigned.issuer.parsed.not_after:
        yield "it outlives its CA"


def _key_findings(twin: Parsed, unsigned: Unsigned, profile: AuthorityProfile | CertificateProfile) -> Iterator[str]:
    if algorithm_of(twin.public_key) is not profile.key:
        yield f"its key is not {profile.key.value}"
    if twin.public_key != unsigned.public_key:
        yield "its key is not the one that was asked for"


def _identifier_findings(twin: Parsed, unsigned: Unsigned) -> Iterator[str]:
    expected = x509.SubjectKeyIdentifier.from_public_key(unsigned.public_key).digest
    if twin.subject_key_identifier != expected:
        yield "its subject key identifier is not the SHA-1 of its key (RFC 5280 section 4.2.1.2)"
    above = expected if unsigned.issuer is None else unsigned.issuer.parsed.subject_key_identifier
    authority = twin.authority_key_identifier
    if authority is None or authority.key_identifier != above or authority.authority_cert_serial_number is not None:
        yield "its authority key identifier is not its issuer's subject key identifier alone"


def _extension_findings(twin: Parsed, expected: dict[x509.ObjectIdentifier, bool]) -> Iterator[str]:
    found = twin.criticality
    if found == expected:
        return
    for oid in sorted(expected.keys() | found.keys(), key=lambda oid: oid.dotted_string):
        if oid not in found:
            yield f"the extension {_readable(oid)} is missing"
        elif oid not in expected:
            yield f"the extension {_readable(oid)} has no place in it"
        elif found[oid] != expected[oid]:
            yield f"the extension {_readable(oid)} is {'' if found[oid] else 'not '}critical"


def _readable(oid: x509.ObjectIdentifier) -> str:
    names = {known: name for name, known in vars(ExtensionOID).items() if isinstance(known, x509.ObjectIdentifier)}
    return names.get(oid, oid.dotted_string).lower().replace("_", " ")


def _authority_rules(
    twin: Parsed, _unsigned: Unsigned, profile: AuthorityProfile | CertificateProfile
) -> Iterator[str]:
    assert isinstance(profile, AuthorityProfile)  # noqa: S101  chosen by its type
    expected = dict(_AUTHORITY_EXTENSIONS)
    if profile.id.service == SHARED:
        del expected[ExtensionOID.NAME_CONSTRAINTS]
    yield from _extension_findings(twin, expected)
    if not twin.is_ca or twin.path_length != 0:
        yield "it is not a CA of path length 0"
    if twin.key_usages != {"key_cert_sign", "crl_sign"}:
        yield "its key usage is not keyCertSign and cRLSign alone"
    if profile.id.service != SHARED:
        yield from _constraint_findings(twin, profile)


def _constraint_findings(twin: Parsed, profile: AuthorityProfile) -> Iterator[str]:
    constraints = twin.constraints
    if not constraints.permitted_names or constraints.permitted_names != profile.permitted_names:
        yield "its name constraints do not permit exactly the service's names"
    if constraints.excluded_names or constraints.permitted_networks is not None or constraints.unknown:
        yield "its name constraints hold something besides permitted names and excluded networks"
    if constraints.excluded_networks != (() if profile.addresses else EVERY_NETWORK):
        wanted = "leave addresses alone" if profile.addresses else "exclude every address"
        yield f"its name constraints do not {wanted}"


def _leaf_rules(twin: Parsed, unsigned: Unsigned, profile: AuthorityProfile | CertificateProfile) -> Iterator[str]:
    assert isinstance(profile, CertificateProfile)  # noqa: S101  chosen by its type
    yield from _extension_findings(twin, _LEAF_EXTENSIONS)
    if twin.is_ca or twin.path_length is not None:
        yield "it is a CA"
    rsa_only = {"key_encipherment"} if kind_of(twin.public_key) is rsa.RSAPublicKey else set()
    if twin.key_usages != {"digital_signature"} | rsa_only:
        yield "its key usage is not what its kind of key needs in a handshake"
    if not twin.usage_oids or {_USAGES.get(oid) for oid in twin.usage_oids} != profile.usages:
        yield "its extended key usages are not exactly those that its edges need, at least one"
    yield from _presented_findings(twin, profile)
    if unsigned.issuer is None:
        if not profile.authority.is_leaf:
            yield f"it would sign itself instead of being signed by {profile.authority}"
        return
    if unsigned.issuer.authority.id != profile.authority:
        yield f"it would be signed by {unsigned.issuer.authority.id} instead of {profile.authority}"
    yield from issuer_findings(twin, unsigned.issuer.parsed)


def _presented_findings(twin: Parsed, profile: CertificateProfile) -> Iterator[str]:
    names, addresses = twin.names, twin.addresses
    if not names:
        yield "it presents no DNS name"
    if names != profile.presented_names or addresses != tuple(str(ip_address(one)) for one in profile.addresses):
        yield "its names and addresses are not those of its profile"
    if len(twin.general_names) != len(names) + len(addresses):
        yield "it presents something besides DNS names and addresses"
    if len(set(twin.general_names)) != len(twin.general_names):
        yield "it presents a name twice"
    yield from (f"`{name}` is not a DNS name" for name in names if not _is_dns_id(name))


def _is_dns_id(name: str) -> bool:
    try:
        return DnsId.parse(name).value == name
    except InvalidIdentifier:
        return False


def issuer_findings(leaf: Parsed, issuer: Parsed) -> Iterator[str]:
    """What keeps an issuer from vouching for a leaf, signature and dates aside (RFC 5280 section 6.1.4)."""
    if not issuer.is_ca or "key_cert_sign" not in issuer.key_usages:
        yield "its issuer is not a CA that may sign certificates"
    yield from outside_findings(leaf, issuer)


def outside_findings(leaf: Parsed, issuer: Parsed) -> Iterator[str]:
    """What a leaf presents outside the name constraints of a CA above it (RFC 5280 section 4.2.1.10)."""
    constraints = issuer.constraints
    for name in leaf.names:
        if not constraints.allow_name(name):
            yield f"`{name}` lies outside the names that its CA is constrained to"
    for address in leaf.addresses:
        if not constraints.allow_address(address):
            yield f"{address} lies outside the addresses that its CA is constrained to"
