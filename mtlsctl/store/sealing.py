"""Sealed values: a CA key encrypted for its row, so that a stolen state is no CA and a moved value does not open.

Each value has a random 256-bit key of its own, used once, which is wrapped by the encryption key; both steps are
AES-256-GCM (NIST SP 800-38D) and both are bound to lineage, table, column, row and format. Layout:
version (1) | nonce (12) | wrapped key and tag (48) | nonce (12) | value and tag.
"""

from __future__ import annotations

import secrets
from typing import Final, NoReturn

from mtlsctl.errors import SealedKeyError
from mtlsctl.model.release import canonical_json
from mtlsctl.model.secret import Secret
from mtlsctl.store import codes

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_NONCE: Final = 12
_TAG: Final = 16
_WRAPPED: Final = KEY_BYTES + _TAG
_SMALLEST: Final = len(_VERSION) + _NONCE + _WRAPPED + _NONCE + _TAG


def place_of(lineage: str, table: str, column: str, *row: str | int) -> bytes:
    """The associated data of a sealed value: where it belongs."""
    return canonical_json(["mtlsctl sealed value", _VERSION[0], lineage, table, column, list(row)]).encode()


def seal(key: Secret, place: bytes, value: Secret) -> bytes:
    """Encrypt for one place; no two results are alike."""
    own = secrets.token_bytes(KEY_BYTES)
    wrapped = _encrypt(_wrapping_key(key), place + b" key", own)
    return _VERSION + wrapped + _encrypt(own, place + b" value", value.reveal())


def unseal(key: Secret, place: bytes, sealed: bytes) -> Secret:
    """The value; raises SealedKeyError, always the same, for a wrong key, place or byte."""
    if len(sealed) < _SMALLEST or not sealed.startswith(_VERSION):
        refuse()
    wrapped, value = sealed[1 : 1 + _NONCE + _WRAPPED], sealed[1 + _NONCE + _WRAPPED :]
    own = _decrypt(_wrapping_key(key), place + b" key", wrapped)
    return Secret(_decrypt(own, place + b" value", value))


def refuse() -> NoReturn:
    """One message whatever was wrong: it tells an attacker nothing, and the cause is not knowable anyway."""
    raise SealedKeyError(
        "the sealed keys of this state cannot be opened with this key",
        code=codes.DOES_NOT_OPEN,
        help="point MTLSCTL_KEY_SOURCE or MTLSCTL_PASSPHRASE_FILE at the key that this state was made with; "
        "if that is the key, run `mtlsctl state check` and restore a backup",
    )


def _wrapping_key(key: Secret) -> bytes:
    """RFC 5869: what wraps is derived under a label, so that the encryption key can serve other ends under others."""
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  only who seals pays for it
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand  # noqa: PLC0415

    return HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=b"mtlsctl key wrapping 1").derive(key.reveal())


def _encrypt(key: bytes, place: bytes, value: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, value, place)


def _decrypt(key: bytes, place: bytes, sealed: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
    except InvalidTag:
        pass
    refuse()
