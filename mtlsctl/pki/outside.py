"""Certificates that somebody else made: whether one can be an anchor, and what it says."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsctl.model.identifiers import LONGEST_SUBJECT, SUBJECT_TYPES, is_plain_value
from mtlsctl.model.secret import Secret
from mtlsctl.model.trust import OutsideFacts, key_name
from mtlsctl.pki.inspect import parse_certificate
from mtlsctl.pki.keys import load_private, spki_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mtlsctl.model.identifiers import DnsId
    from mtlsctl.model.release import HeldFile
    from mtlsctl.pki.inspect import Parsed

LEAST_RSA_BITS = 2048
"""OpenSSL at its default security level refuses less, and some of its servers then do not start."""

_TYPES = {oid: name for name, oid in SUBJECT_TYPES.items()}
_SHOWN = 120
_NAMES_SHOWN = 5


def unfitness(der: bytes, now: datetime | None = None) -> Iterator[str]:
    """Why this certificate cannot be an anchor, at all or with `now` at that time; raises PreflightError (M7104).

    Programs differ in what they do with anything else than a self-signed CA with a key identifier: some take an
    intermediate for an anchor and some do not, some find only the first CA of a name, some do not start.
    """
    parsed = parse_certificate(der)
    if parsed.subject != parsed.issuer:
        issuer = _shown(parsed.issuer)
        yield f"it is signed by `{issuer}` and not by itself: an intermediate alone is an anchor to some programs only"
    elif not _signs_itself(parsed):
        yield "it names itself as its issuer, and its signature is not its own"
    if not parsed.is_ca:
        yield "it is no CA (basicConstraints)"
    if parsed.key_usages and "key_cert_sign" not in parsed.key_usages:
        yield "its key is not for signing certificates (keyUsage)"
    if parsed.subject_key_identifier is None:
        yield "it has no subject key identifier: of two CAs of one name some programs find only the first"
    if not list(parsed.subject):
        yield "it has no name"
    if now is not None and now < parsed.not_before:
        yield f"it is not valid before {parsed.not_before:%Y-%m-%d %H:%M}"
    if now is not None and now >= parsed.not_after:
        yield f"it ended on {parsed.not_after:%Y-%m-%d %H:%M}"
    yield from _weaknesses(parsed)


def chain_unfitness(
    chain: Sequence[bytes], names: Sequence[DnsId], anchors: Sequence[bytes], now: datetime | None = None
) -> Iterator[str]:
    """Why a server of these names cannot show this chain (DER, end entity first), at all or with `now` at that time.

    `anchors` are those by which callers believe it; without any that is not looked at. Raises PreflightError (M7104).
    """
    leaf, *above = (parse_certificate(der) for der in chain)
    yield from _leaf_unfitness(leaf, names)
    for place, (one, signer) in enumerate(pairwise([leaf, *above]), 1):
        if not _is_signed_by(one, signer):
            yield f"certificate {place} of it is not signed by the next one: the end entity first, then who signed it"
        elif not signer.is_ca:
            yield f"certificate {place + 1} of it is no CA (basicConstraints)"
    top = above[-1] if above else leaf
    if anchors and not any(top.der == der or _is_signed_by(top, parse_certificate(der)) for der in anchors):
        yield f"nothing in `servers_trust` signed it: its last certificate is of `{_shown(top.issuer)}`"
    for one in (leaf, *above):
        if now is not None and now < one.not_before:
            yield f"`{_shown(one.subject)}` is not valid before {one.not_before:%Y-%m-%d %H:%M}"
        if now is not None and now >= one.not_after:
            yield f"`{_shown(one.subject)}` ended on {one.not_after:%Y-%m-%d %H:%M}"


def _leaf_unfitness(leaf: Parsed, names: Sequence[DnsId]) -> Iterator[str]:
    if leaf.is_ca:
        yield "its first certificate is a CA; the server's own comes first"
    elif leaf.subject == leaf.issuer and _signs_itself(leaf):
        yield "its first certificate signs itself, so there is no CA by which callers could believe it"
    if leaf.usage_oids and ExtendedKeyUsageOID.SERVER_AUTH not in leaf.usage_oids:
        yield "it is not for servers (extended key usage serverAuth)"
    if leaf.key_usages and "digital_signature" not in leaf.key_usages:
        yield "its key is not for signatures (keyUsage), and every handshake here is signed"
    missing = [name.value for name in names if not any(name.matches(one) for one in leaf.names)]
    if missing:
        presented = ", ".join(one if one.isprintable() else "?" for one in leaf.names[:_NAMES_SHOWN]) or "no DNS name"
        yield f"it does not present {', '.join(missing)}; it presents {presented[:_SHOWN]}"
    yield from _weaknesses(leaf)


def _signs_itself(parsed: Parsed) -> bool:
    return _is_signed_by(parsed, parsed)


def _is_signed_by(parsed: Parsed, signer: Parsed) -> bool:
    try:
        parsed.certificate.verify_directly_issued_by(signer.certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _weaknesses(parsed: Parsed) -> Iterator[str]:
    match parsed.public_key:
        case rsa.RSAPublicKey(key_size=bits) if bits < LEAST_RSA_BITS:
            yield f"its RSA key has {bits} bits, and servers refuse less than {LEAST_RSA_BITS}"
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            pass
        case _:
            yield "its key is of a kind that not every program knows"
    try:
        algorithm = parsed.certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        yield "its signature is of a kind that not every program knows"
        return
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        yield f"its signature is made with {algorithm.name.upper()}, which programs refuse"


def facts_of(der: bytes) -> OutsideFacts:
    """What a certificate from outside says; raises PreflightError (M7104) for one that cannot be read."""
    parsed = parse_certificate(der)
    rdns = [[(one.oid.dotted_string, _text(one.value)) for one in rdn] for rdn in parsed.subject.rdns]
    return OutsideFacts(
        subject=comparable(parsed.subject),
        shown=_shown(parsed.subject),
        key_name=key_name(rdns),
        spki_sha256="" if parsed.public_key is None else spki_sha256(parsed.public_key),  # type: ignore[arg-type]
        path_length=parsed.path_length,
        name_bytes=len(parsed.subject.public_bytes()) + 2,
        not_before=parsed.not_before,
        not_after=parsed.not_after,
        names=parsed.names,
    )


def comparable(name: x509.Name) -> str | None:
    """The name as RFC 4514 text, where every program writes the same one."""
    parts = []
    for rdn in reversed(name.rdns):
        attributes = list(rdn)
        kind, value = _TYPES.get(attributes[0].oid.dotted_string), attributes[0].value
        if len(attributes) > 1 or kind is None or not isinstance(value, str) or not is_plain_value(value):
            return None
        parts.append(f"{kind}={value}")
    text = ",".join(parts)
    return text if text and len(text) <= LONGEST_SUBJECT else None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _shown(name: x509.Name) -> str:
    """For messages: printable, and never long."""
    text = "".join(one if one.isprintable() else "?" for one in name.rfc4514_string())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def is_key_of(held: HeldFile, certificate: bytes) -> bool:
    """Whether a private key (PEM, not encrypted) is that of a certificate (DER); raises PreflightError for no key.

    Its host may say its public half alone.
    """
    known = held.spki_sha256 if held.content is None else spki_sha256(load_private(Secret(held.content)).public_key())
    return known is not None and known == parse_certificate(certificate).spki_sha256


def is_issued_by(certificate: bytes, anchor: bytes) -> bool:
    """Whether the anchor itself signed this leaf: its name alone may be that of another CA."""
    leaf, issuer = x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(anchor)
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
