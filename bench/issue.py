"""Certificates per second: keys, drafts, intents, lint, signatures and the record of them, against a bare loop.

    python bench/issue.py [--certificates 500] [--rounds 9]

Both sides make P-256 keys and certificates with the same extensions and write both as PEM. The bare side is what a
script with `cryptography` does: build, sign, done. Ours also allocates and records the intents, lints a twin, records
the signing, signs, verifies the signature and records the certificates, all durably in SQLite. Rounds alternate; each
gives one ratio, and the median of the ratios is the figure.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlsctl.model.credential import AuthorityId, AuthorityProfile, CertificateProfile, CredentialId, KeyUsage
from mtlsctl.model.topology import InstanceId, KeyAlgorithm
from mtlsctl.pki.issue import Draft, Issuer, draft_authority, draft_certificate, lint, sign
from mtlsctl.pki.keys import generate_key, private_der, private_pem
from mtlsctl.pki.stores import to_pem
from mtlsctl.store.keysource import KeyFile, create_key_file
from mtlsctl.store.location import create_state, open_state
from mtlsctl.store.port import Intent, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtlsctl.pki.keys import PrivateKey
    from mtlsctl.store.port import StateWriter

TARGET = 1 / 3
NAME = "mail.calendar.internal"
LIFETIME = timedelta(days=90)


def profile_of(number: int) -> CertificateProfile:
    return CertificateProfile(
        id=CredentialId(InstanceId("mail", "web1"), number),
        authority=AuthorityId("mail", 1),
        common_name="mail",
        names=(NAME,),
        transitional_names=(),
        addresses=(),
        usages=frozenset(KeyUsage),
        key=KeyAlgorithm.ECDSA_P256,
        lifetime=LIFETIME,
    )


def intent_of(draft: Draft[AuthorityProfile] | Draft[CertificateProfile]) -> Intent:
    return Intent(
        issuer=draft.issuer_id,
        serial=draft.serial,
        subject=draft.subject_id,
        common_name=draft.common_name,
        not_after=draft.not_after,
        to_be_signed_sha256=draft.to_be_signed_sha256,
    )


def issue(
    profiles: Sequence[CertificateProfile], issuer: Issuer, key: PrivateKey, writer: StateWriter
) -> list[tuple[bytes, bytes]]:
    now = datetime.now(UTC)
    keys = [generate_key(KeyAlgorithm.ECDSA_P256) for _ in profiles]
    drafts = [
        draft_certificate(profile, leaf.public_key(), issuer, now=now)
        for profile, leaf in zip(profiles, keys, strict=True)
    ]
    intents = [intent_of(draft) for draft in drafts]
    writer.record_intents(intents)
    linted = [lint(draft) for draft in drafts]
    writer.record_signing(intents)
    signed = [sign(one, key) for one in linted]
    writer.add_credentials([(one.value, one.der) for one in signed])
    return [(to_pem([one.der]), private_pem(leaf).reveal()) for one, leaf in zip(signed, keys, strict=True)]


def bare(count: int, issuer: Issuer, key: PrivateKey) -> list[tuple[bytes, bytes]]:
    now = datetime.now(UTC)
    name = issuer.parsed.subject
    identifier = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key)
    made = []
    for _ in range(count):
        leaf = ec.generate_private_key(ec.SECP256R1())
        public = leaf.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")]))
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=False,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .sign(key, hashes.SHA256())
        )
        private = leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        made.append((certificate.public_bytes(Encoding.PEM), private))
    return made


def seconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, default=500, help="in one batch")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    key = generate_key(KeyAlgorithm.ECDSA_P256)
    with tempfile.TemporaryDirectory() as folder, new_state(Path(folder)) as writer:
        issuer = new_authority(key, writer)
        pairs = rounds(options.rounds, options.certificates, issuer, key, writer)
    return report(pairs, options.certificates)


@contextmanager
def new_state(folder: Path) -> Iterator[StateWriter]:
    key_file = folder / "key" / "state.key"
    create_key_file(key_file)
    lineage = str(uuid.uuid4())
    create_state("sqlite:state/state.db", base=folder, lineage=lineage, estate="calendar")
    store = open_state(
        "sqlite:state/state.db", base=folder, lineage=lineage, estate="calendar", key_source=KeyFile(key_file)
    )
    with closing(store), store.lock(command="bench", timeout_seconds=5) as writer:
        writer.open_operation("bench")
        yield writer
        writer.close_operation(Outcome.DONE)


def new_authority(key: PrivateKey, writer: StateWriter) -> Issuer:
    profile = AuthorityProfile(
        id=AuthorityId("mail", 1),
        common_name="mail.calendar CA g1",
        key=KeyAlgorithm.ECDSA_P256,
        lifetime=timedelta(days=1825),
        permitted_names=(NAME,),
        addresses=False,
    )
    draft = draft_authority(profile, key, now=datetime.now(UTC))
    writer.record_intents([intent_of(draft)])
    linted = lint(draft)
    writer.record_signing([intent_of(draft)])
    signed = sign(linted, key)
    writer.add_authority(signed.value, signed.der, private_der(key))
    return Issuer(authority=signed.value, certificate=signed.der)


def rounds(count: int, size: int, issuer: Issuer, key: PrivateKey, writer: StateWriter) -> list[tuple[float, float]]:
    issue([profile_of(number) for number in range(1, 4)], issuer, key, writer)
    bare(3, issuer, key)
    pairs = []
    for number in range(count):
        batch = [profile_of(4 + number * size + one) for one in range(size)]  # a plan has them already
        sides: list[Callable[[], object]] = [
            partial(bare, size, issuer, key),
            partial(issue, batch, issuer, key, writer),
        ]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        taken = {side: seconds(sides[side]) for side in order}
        pairs.append((taken[0], taken[1]))
    return pairs


def report(pairs: list[tuple[float, float]], size: int) -> int:
    ratio = statistics.median(bare_time / ours for bare_time, ours in pairs)
    print(f"bare loop      {size / statistics.median(one for one, _ in pairs):8.0f} certificates/s")
    print(f"mtlsctl        {size / statistics.median(two for _, two in pairs):8.0f} certificates/s")
    print(f"median ratio   {ratio:8.2f}  (target: at least {TARGET:.2f}; {len(pairs)} paired rounds of {size})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
