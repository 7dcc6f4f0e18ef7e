"""CAs and leaves by hand, of any shape: what partners have, and what attackers make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.integration.peers import Posing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
OIDS = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}


def subject(*attributes: tuple[str, str]) -> x509.Name:
    """One RDN for each (type, value), in the order in which they stand in the certificate."""
    return x509.Name([x509.NameAttribute(OIDS[kind], value) for kind, value in attributes])


def common_name(text: str) -> x509.Name:
    return subject(("CN", text))


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A CA that signs whatever it is asked to; `above` are the intermediates that a leaf of it needs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def intermediate(self, name: x509.Name, *, identifier: bytes | None = None) -> Authority:
        """A CA below this one, of any name; with `identifier` its key identifier claims to be another's."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, key, self, ca=True, identifier=identifier)
        return Authority(certificate=certificate, key=key, above=(certificate, *self.above))

    def leaf(
        self, folder: Path, name: x509.Name, *, names: Sequence[str] = (), with_chain: Sequence[x509.Certificate] = ()
    ) -> Posing:
        """A leaf in files, with the intermediates that it needs and `with_chain` behind them."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, key, self, names=names)
        folder.mkdir(parents=True)
        made = Posing(folder / "tls.crt", folder / "tls.key")
        chain = (certificate, *self.above, *with_chain)
        made.cert.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
        made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return made


def root(name: x509.Name, *, identifier: bytes | None = None, days: int = 30) -> Authority:
    """A self-signed CA without a limit on what is below it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(certificate=_signed(name, key, None, ca=True, identifier=identifier, days=days), key=key)


def _signed(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: Authority | None,
    *,
    ca: bool = False,
    names: Sequence[str] = (),
    identifier: bytes | None = None,
    days: int = 30,
) -> x509.Certificate:
    now = datetime.now(UTC)
    signer = key if issuer is None else issuer.key
    builder = x509.CertificateBuilder(
        issuer_name=name if issuer is None else issuer.certificate.subject,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=40),
        not_valid_after=now + timedelta(days=days),
    ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(
        own if identifier is None else x509.SubjectKeyIdentifier(identifier), critical=False
    )
    if issuer is not None:
        above = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(above, None, None), critical=False)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(BOTH), critical=False)
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(signer, hashes.SHA256())
