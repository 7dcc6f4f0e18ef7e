"""A CA and a leaf for each host, in this process, as who uses pyinfra would: made once, found again later."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

OUT = Path(os.environ["OUT"])
TEMPLATE = (Path(__file__).parent.parent / "nginx.conf.tmpl").read_text()


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def started(subject: str, issuer: str, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(named(issuer), named(subject), key, x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
    )


def write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def issue() -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    certificate = started("bench CA", "bench CA", authority.public_key(), 1825).sign(authority, hashes.SHA256())
    for line in Path(os.environ["HOSTS"]).read_text().splitlines():
        name, place = line.split()
        own = OUT / name
        own.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            started(name, "bench CA", key.public_key(), 90)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{name}.bench.internal")]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(authority, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write(own / "tls.key", secret)
        write(own / "tls.crt", leaf.public_bytes(pem))
        write(own / "ca.crt", certificate.public_bytes(pem))
        write(own / "nginx.conf", TEMPLATE.replace("@NAME@", name).replace("@PLACE@", place).encode())


if not OUT.exists():
    issue()
