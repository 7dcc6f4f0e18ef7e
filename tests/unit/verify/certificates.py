"""Small authorities and leaves made on the spot, good and bad, without the code under test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlsctl.model.secret import Secret
from mtlsctl.verify.identity import Identity

NOW = datetime.now(UTC).replace(microsecond=0)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)


@dataclass(frozen=True)
class Leaf:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def subject_der(self) -> bytes:
        return self.certificate.subject.public_bytes()

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def identity(self) -> Identity:
        return Identity(chain=self.pem, key=Secret(self.key_pem))

    def with_key_of(self, other: Leaf) -> Leaf:
        return replace(self, key=other.key)

    def issue(
        self,
        name: str,
        *,
        names: tuple[str, ...] = (),
        usages: tuple[x509.ObjectIdentifier, ...] = BOTH,
        ended: bool = False,
    ) -> Leaf:
        end = NOW - timedelta(days=1) if ended else NOW + timedelta(days=1)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, self.certificate.subject, key, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names or (name,)]), critical=False)
        )
        return Leaf(builder.sign(self.key, hashes.SHA256()), key)


def make_authority(name: str) -> Leaf:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(name, subject, key, NOW + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Leaf(builder.sign(key, hashes.SHA256()), key)


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=10))
        .not_valid_after(end)
    )


SCHEDULE_NAME = "schedule.example.com"


@dataclass(frozen=True)
class Estate:
    """mail may call schedule; social may not, though it has a CA of its own."""

    schedule_ca: Leaf
    mail_ca: Leaf
    social_ca: Leaf
    schedule: Leaf
    mail: Leaf
    social: Leaf
    foreign_ca: Leaf
    foreign: Leaf
    expired: Leaf
    wrong_usage: Leaf


@cache
def estate() -> Estate:
    schedule_ca, mail_ca, social_ca = (make_authority(f"{n}.calendar CA g1") for n in ("schedule", "mail", "social"))
    foreign_ca = make_authority("mail.calendar CA g1")
    return Estate(
        schedule_ca=schedule_ca,
        mail_ca=mail_ca,
        social_ca=social_ca,
        schedule=schedule_ca.issue("schedule", names=(SCHEDULE_NAME,)),
        mail=mail_ca.issue("mail"),
        social=social_ca.issue("social"),
        foreign_ca=foreign_ca,
        foreign=foreign_ca.issue("mail"),
        expired=mail_ca.issue("mail", ended=True),
        wrong_usage=mail_ca.issue("mail", usages=SERVER_ONLY),
    )
