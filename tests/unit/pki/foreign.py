"""Certificates as strangers make them: by the library itself, none of our rules between."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .making import NOW

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    Key = ec.EllipticCurvePrivateKey | RSAPrivateKey

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sealed_key_pem(self, password: bytes) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def make(
    common_name: str,
    by: Made | None = None,
    *,
    names: tuple[str, ...] | None = None,
    ca: bool = False,
    path_length: int | None = None,
    usages: tuple[x509.ObjectIdentifier, ...] = BOTH,
    key: Key | None = None,
    start: timedelta = -DAY,
    end: timedelta = 30 * DAY,
    constraints: x509.NameConstraints | None = None,
    issuer: str | None = None,
    address: str | None = None,
) -> Made:
    """`issuer` is the name that it claims where that is not its signer's."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = by.key if by else key
    named = name_of(issuer) if issuer else (by.certificate.subject if by else name_of(common_name))
    builder = x509.CertificateBuilder().subject_name(name_of(common_name)).issuer_name(named)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW + start).not_valid_after(NOW + end)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if by is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    presented: list[x509.GeneralName] = [x509.DNSName(one) for one in (names if names is not None else ())]
    if names is None and not ca:
        presented = [x509.DNSName(f"{common_name}.example")]
    if address:
        presented.append(x509.IPAddress(ipaddress.ip_address(address)))
    if presented:
        builder = builder.add_extension(x509.SubjectAlternativeName(presented), critical=False)
    if usages and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return Made(builder.sign(signer, hashes.SHA256()), key)


def make_ca(common_name: str = "ca", by: Made | None = None, **changes: object) -> Made:
    return make(common_name, by, ca=True, **changes)  # type: ignore[arg-type]
