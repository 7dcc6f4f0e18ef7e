"""PKCS#12 key stores and Java trust stores (RFC 7292): made, and read back for what they hold.

Two stores of the same content never have the same bytes (random salts), so they are compared by what `read_store`
gives. A trust store is only ever made by `serialize_java_truststore`: without Oracle's trusted-key attribute Java finds
no entry in it and says nothing.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PBES,
    PKCS12Certificate,
    load_pkcs12,
    serialize_java_truststore,
    serialize_key_and_certificates,
)

from mtlsctl.errors import PreflightError
from mtlsctl.model.keystore import ALIAS, StoreKind, StoreProfile
from mtlsctl.model.secret import Secret
from mtlsctl.pki import codes
from mtlsctl.pki.asn1 import INTEGER, OCTET_STRING, NotAsn1, read_one
from mtlsctl.pki.keys import PrivateKey, spki_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.serialization import KeySerializationEncryption

    from mtlsctl.model.keystore import StoreSpecification
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.pki.asn1 import Node

ROUNDS = 10_000
"""Of the key derivation. 100,000 cost `keytool` seconds for each entry; the password is random, not a person's."""

GENERATED_CHARACTERS = 32
LONGEST_PASSWORD = 256
SHORTEST_PASSWORD = 6
"""What `keytool` takes."""

_LONGEST_SALT = 32
_CONSTRUCTED = 0x20
_ALPHABET = string.ascii_letters + string.digits
_ALGORITHMS = {
    StoreProfile.MODERN: (PBES.PBESv2SHA256AndAES256CBC, hashes.SHA256),
    StoreProfile.LEGACY: (PBES.PBESv1SHA1And3KeyTripleDESCBC, hashes.SHA1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreContent:
    """What a store holds, to be compared. `anchors` are its trusted entries; a key store has none of them.

    `key_spki_sha256` names the key by its public half; None where there is none. `chain` begins with its certificate.
    """

    alias: str | None
    key_spki_sha256: str | None
    chain: tuple[bytes, ...]
    anchors: tuple[tuple[str, bytes], ...]


def generate_password() -> Secret:
    """32 letters and digits: 190 bits, and one word in every syntax."""
    return Secret("".join(secrets.choice(_ALPHABET) for _ in range(GENERATED_CHARACTERS)).encode())


def check_password(password: Secret) -> Secret:
    """The password, if every reader of PKCS#12 takes it alike: printable ASCII, 6 to 256 characters, no space
    at either end, which programs that read it from a file cut off.

    Others derive different keys in OpenSSL and in Java. Raises PreflightError (M7107), which says nothing of it.
    """
    text = password.reveal()
    is_printable = text.isascii() and text.decode("ascii").isprintable()
    if not SHORTEST_PASSWORD <= len(text) <= LONGEST_PASSWORD or not is_printable or text.strip() != text:
        raise PreflightError(
            f"a store's password is {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, printable ASCII, "
            "no space at its ends",
            code=codes.STORE_PASSWORD,
            help="give it another one: other characters mean different passwords to Java and to OpenSSL",
        )
    return password


def make_key_store(
    key: PrivateKey, chain: Sequence[bytes], *, alias: str, password: Secret, profile: StoreProfile
) -> bytes:
    """A PKCS#12 file with one private key and its chain (DER, end entity first) under one alias.

    Opened again before it is given away: raises PreflightError (M7107, M7108, M7202) when it cannot be made or read
    back.
    """
    leaf, *others = (_certificate(der) for der in chain)
    if leaf.public_key() != key.public_key():
        raise PreflightError("the key belongs to another certificate", code=codes.KEY_MISMATCH)
    made = serialize_key_and_certificates(
        _alias(alias), key, leaf, others or None, _encryption(check_password(password), profile)
    )
    expected = StoreContent(alias=alias, key_spki_sha256=spki_sha256(key.public_key()), chain=tuple(chain), anchors=())
    return _read_back(made, password, expected)


def make_trust_store(anchors: Mapping[str, bytes], *, password: Secret, profile: StoreProfile) -> bytes:
    """A PKCS#12 trust store of these certificates (alias -> DER), as Java reads it.

    Aliases are lower-case ASCII, so no two can be one to Java. Raises PreflightError (M7107, M7108), also for a store
    without anchors: programs take an empty one for none and believe whatever came with the Java runtime.
    """
    if not anchors:
        raise PreflightError("a trust store without anchors is not written", code=codes.STORE)
    entries = [PKCS12Certificate(_certificate(der), _alias(alias)) for alias, der in sorted(anchors.items())]
    made = serialize_java_truststore(entries, _encryption(check_password(password), profile))
    expected = StoreContent(alias=None, key_spki_sha256=None, chain=(), anchors=tuple(sorted(anchors.items())))
    return _read_back(made, password, expected)


def make_store(
    store: StoreSpecification,
    key: PrivateKey | None,
    *,
    chain: Sequence[bytes],
    anchors: Mapping[TrustAnchor, bytes],
    password: Secret,
) -> bytes:
    """The store that is specified; only a key store needs the key. Raises PreflightError (M7107, M7108)."""
    if store.kind is StoreKind.KEY:
        if key is None:
            raise PreflightError("a key store is made where its key is", code=codes.STORE)
        return make_key_store(key, chain, alias=store.alias, password=password, profile=store.profile)
    return make_trust_store(
        {alias: anchors[anchor] for alias, anchor in store.anchors}, password=password, profile=store.profile
    )


def content_of(
    store: StoreSpecification, *, spki_sha256: str, chain: Sequence[bytes], anchors: Mapping[TrustAnchor, bytes]
) -> StoreContent:
    """What the store that is specified must hold: of a key store the key by its public half, and its chain."""
    if store.kind is StoreKind.KEY:
        return StoreContent(alias=store.alias, key_spki_sha256=spki_sha256, chain=tuple(chain), anchors=())
    entries = tuple(sorted((alias, anchors[anchor]) for alias, anchor in store.anchors))
    return StoreContent(alias=None, key_spki_sha256=None, chain=(), anchors=entries)


def read_store(data: bytes, password: Secret) -> StoreContent:
    """What a PKCS#12 file holds; raises PreflightError (M7108) when the password does not open it or it is not one.

    Also for one that asks for more rounds than ours have: who may write on a host could have us derive for hours.
    """
    try:
        opened = load_pkcs12(data, password.reveal()) if _most_rounds(read_one(data)) <= ROUNDS else None
    except (ValueError, TypeError):
        opened = None
    # Raised outside the handler, so that the library's error does not hang on ours as its context.
    if opened is None or (opened.key is not None and not isinstance(opened.key, PrivateKey)):
        raise PreflightError("the store cannot be opened with its password", code=codes.STORE)
    others = [(_name(one), one.certificate.public_bytes(Encoding.DER)) for one in opened.additional_certs]
    if opened.key is None:
        return StoreContent(alias=None, key_spki_sha256=None, chain=(), anchors=tuple(sorted(others)))
    leaf = opened.cert
    return StoreContent(
        alias=_name(leaf) if leaf is not None else None,
        key_spki_sha256=spki_sha256(opened.key.public_key()),
        chain=(
            *([] if leaf is None else [leaf.certificate.public_bytes(Encoding.DER)]),
            *(der for name, der in others if not name),
        ),
        anchors=tuple(sorted((name, der) for name, der in others if name)),
    )


def _most_rounds(node: Node) -> int:
    """The largest number that stands in the clear: rounds, versions. What is encrypted, or a salt, is passed over.

    Raises NotAsn1 for what cannot be looked through, since others might read a number there.
    """
    if node.tag == INTEGER:
        return node.number()
    if node.tag & ~_CONSTRUCTED == OCTET_STRING:
        content = node.octets()
        try:
            inner = read_one(content) if len(content) > _LONGEST_SALT else None
        except NotAsn1:
            inner = None
        return 0 if inner is None else _most_rounds(inner)
    return max(map(_most_rounds, node.children()), default=0) if node.tag & _CONSTRUCTED else 0


def _read_back(made: bytes, password: Secret, expected: StoreContent) -> bytes:
    if read_store(made, password) != expected:
        raise PreflightError("a store does not hold what was put into it", code=codes.STORE)
    return made


def _encryption(password: Secret, profile: StoreProfile) -> KeySerializationEncryption:
    algorithm, mac = _ALGORITHMS[profile]
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(ROUNDS)
    return builder.key_cert_algorithm(algorithm).hmac_hash(mac()).build(password.reveal())


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise PreflightError("the bytes are not one X.509 certificate", code=codes.CERTIFICATE_UNREADABLE) from None


def _alias(text: str) -> bytes:
    if ALIAS.fullmatch(text) is None:
        raise PreflightError("an alias is lower-case ASCII: letters, digits and `._-`", code=codes.STORE)
    return text.encode()


def _name(entry: PKCS12Certificate) -> str:
    return (entry.friendly_name or b"").decode("utf-8", "replace")
