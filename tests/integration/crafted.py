"""Certificates that no estate delivers: a look-alike of another CA, and a leaf of the right CA for another name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsctl.model.credential import SHARED
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.operations.issue import signing_keys
from mtlsctl.pki.keys import generate_key, private_pem
from mtlsctl.pki.probes import craft_foreign
from tests.integration.estate import ESTATE, workspace_of
from tests.integration.peers import Posing

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.pki.keys import PrivateKey
    from tests.integration.estate import Estate


def look_alike(folder: Path, release: Path) -> Posing:
    """All that a release's leaf and its CA say, and none of their keys."""
    leaf = x509.load_pem_x509_certificate((release / "tls.crt").read_bytes())
    made = craft_foreign(leaf.public_bytes(Encoding.DER), now=datetime.now(UTC))
    return _written(folder, made.chain, made.key.reveal())


def misnamed(folder: Path, estate: Estate, service: str, release: Path) -> Posing:
    """A leaf of the service's CA that is right in all but its name; of a service without one, one that signs itself."""
    leaf = x509.load_pem_x509_certificate((release / "tls.crt").read_bytes())
    key = generate_key(KeyAlgorithm.ECDSA_P256)
    made = x509.CertificateBuilder(
        issuer_name=leaf.issuer,
        subject_name=leaf.subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=leaf.not_valid_before_utc,
        not_valid_after=leaf.not_valid_after_utc,
        extensions=[_renamed(extension, key, leaf) for extension in leaf.extensions],
    ).sign(key if leaf.issuer == leaf.subject else _key_of_the_ca(estate, service), hashes.SHA256())
    return _written(folder, made.public_bytes(Encoding.PEM), private_pem(key).reveal())


def _renamed(
    extension: x509.Extension[x509.ExtensionType], key: PrivateKey, leaf: x509.Certificate
) -> x509.Extension[x509.ExtensionType]:
    value = extension.value
    if isinstance(value, x509.SubjectAlternativeName):
        names = value.get_values_for_type(x509.DNSName)
        value = x509.SubjectAlternativeName([x509.DNSName(f"other.{name}") for name in names])
    elif isinstance(value, x509.SubjectKeyIdentifier):
        value = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    elif isinstance(value, x509.AuthorityKeyIdentifier) and leaf.issuer == leaf.subject:
        value = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return x509.Extension(extension.oid, extension.critical, value)


def _key_of_the_ca(estate: Estate, service: str) -> PrivateKey:
    with workspace_of(estate).store(ESTATE) as store, store.lock(command="test", timeout_seconds=10) as writer:
        (authority,) = (one for one in writer.snapshot().authorities if one.service in (service, SHARED))
        return signing_keys(writer, [authority])[authority]


def _written(folder: Path, chain: bytes, key: bytes) -> Posing:
    folder.mkdir()
    made = Posing(folder / "tls.crt", folder / "tls.key")
    made.cert.write_bytes(chain)
    made.key.write_bytes(key)
    return made
