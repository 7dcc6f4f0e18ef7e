"""Decryption under a password, of what strangers have encrypted: the work that a file may ask for is bounded.

PBES2 (RFC 8018 section 6.2) and the older schemes of PKCS#12 (RFC 7292 appendix C). Nothing is ever encrypted here.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from mtlsctl.errors import InspectionError
from mtlsctl.pki import codes
from mtlsctl.pki.asn1 import INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, Node, NotAsn1

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS_LIMIT = 2_000_000
"""Rounds of one derivation: OWASP asks for 600,000."""

WORK_LIMIT = 10_000_000
"""Rounds of all derivations of one run: some ten seconds."""

_RC2_LIMIT = 256 * 1024
"""Bytes that are decrypted with RC2, which is slow here and only ever held a few certificates."""

_PBES2, _PBKDF2 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12"
_PBMAC1 = "1.2.840.113549.1.5.14"
_HMACS = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_AES = {
    "2.16.840.1.101.3.4.1.2": 16,
    "2.16.840.1.101.3.4.1.22": 24,
    "2.16.840.1.101.3.4.1.42": 32,
}
_TRIPLE_DES_CBC = "1.2.840.113549.3.7"
_PKCS12 = "1.2.840.113549.1.12.1."
_PKCS12_KEYS = {"3": ("3DES", 24), "4": ("3DES-2", 16), "5": ("RC2-128", 16), "6": ("RC2-40", 5)}
_KEY, _IV, _MAC = 1, 2, 3
"""What a derivation of PKCS#12 is for (RFC 7292 appendix B.3)."""


class WrongPassword(Exception):
    """What came out is not what was encrypted."""


class Work:
    """What may still be spent on derivations; raises InspectionError M7393 beyond it."""

    def __init__(self) -> None:
        self._left = WORK_LIMIT

    def spend(self, rounds: int) -> int:
        if not 0 < rounds <= min(ROUNDS_LIMIT, self._left):
            raise InspectionError(
                f"its key derivation asks for {rounds:,} rounds, or for too many of them in all",
                code=codes.TOO_MUCH,
                notes=(f"at most {ROUNDS_LIMIT:,} rounds are made for one, {WORK_LIMIT:,} in all",),
            )
        self._left -= rounds
        return rounds


class Scheme(NamedTuple):
    """How something is encrypted, for people: `PBES2 AES-256, sha256, 10,000 rounds`."""

    name: str
    rounds: int
    is_weak: bool

    def __str__(self) -> str:
        return f"{self.name}, {self.rounds:,} rounds"


def decrypt(algorithm: Node, ciphertext: bytes, password: str, work: Work) -> tuple[bytes, Scheme]:
    """Decrypt by an AlgorithmIdentifier.

    Raises WrongPassword, NotAsn1, and InspectionError for a scheme that is not known (M7392) or too much work (M7393).
    """
    kind, *parameters = algorithm.expect(SEQUENCE).children()
    name = kind.oid()
    if name == _PBES2 and parameters:
        return _pbes2(parameters[0], ciphertext, password, work)
    if name.startswith(_PKCS12) and name.removeprefix(_PKCS12) in _PKCS12_KEYS and parameters:
        return _pbes1(name.removeprefix(_PKCS12), parameters[0], ciphertext, password, work)
    raise _unknown(name)


def _unknown(name: str) -> InspectionError:
    return InspectionError(f"it is encrypted in a way that is not read here ({name})", code=codes.NOT_READ)


def _pbes2(parameters: Node, ciphertext: bytes, password: str, work: Work) -> tuple[bytes, Scheme]:
    derivation, cipher = (one.expect(SEQUENCE).children() for one in parameters.expect(SEQUENCE).children())
    if derivation[0].oid() != _PBKDF2:
        raise _unknown(derivation[0].oid())
    kind, iv = cipher[0].oid(), cipher[1].expect(OCTET_STRING).content
    size = 24 if kind == _TRIPLE_DES_CBC else _AES.get(kind)
    if size is None:
        raise _unknown(kind)
    key, digest, rounds = _pbkdf2(derivation[1], size, password, work)
    plain = _cbc(TripleDES(key) if kind == _TRIPLE_DES_CBC else AES(key), iv, ciphertext)
    shown = "3DES" if kind == _TRIPLE_DES_CBC else f"AES-{8 * size}"
    return plain, Scheme(f"PBES2 {shown}, {digest}", rounds, is_weak=False)


def _pbkdf2(parameters: Node, size: int, password: str, work: Work) -> tuple[bytes, str, int]:
    salt, count, *rest = parameters.expect(SEQUENCE).children()
    rounds = work.spend(count.number())
    asked = next((one.number() for one in rest if one.tag == INTEGER), size)
    prf = next((one.children()[0].oid() for one in rest if one.tag == SEQUENCE), "1.2.840.113549.2.7")
    if asked != size or prf not in _HMACS:
        raise _unknown(prf)
    digest = _HMACS[prf]
    salt_bytes = salt.expect(OCTET_STRING).content
    return hashlib.pbkdf2_hmac(digest, password.encode(), salt_bytes, rounds, size), digest, rounds


def _pbes1(kind: str, parameters: Node, ciphertext: bytes, password: str, work: Work) -> tuple[bytes, Scheme]:
    salt, count = parameters.expect(SEQUENCE).children()
    shown, size = _PKCS12_KEYS[kind]
    rounds = work.spend(count.number())
    secret, salt_bytes = _bmp(password), salt.expect(OCTET_STRING).content
    key = _derived("sha1", _KEY, secret, salt_bytes, rounds, size)
    iv = _derived("sha1", _IV, secret, salt_bytes, work.spend(rounds), 8)
    if shown.startswith("RC2"):
        plain = _unpadded(_rc2_cbc(key, iv, ciphertext), 8)
    else:
        plain = _cbc(TripleDES(key if size == 24 else key + key[:8]), iv, ciphertext)  # noqa: PLR2004  three keys
    return plain, Scheme(f"PBE-SHA1-{shown}", rounds, is_weak=shown == "RC2-40")


def _cbc(algorithm: AES | TripleDES, iv: bytes, ciphertext: bytes) -> bytes:
    block = algorithm.block_size // 8
    if len(iv) != block or not ciphertext or len(ciphertext) % block:
        raise NotAsn1
    try:
        decryptor = Cipher(algorithm, CBC(iv)).decryptor()
        plain = decryptor.update(ciphertext) + decryptor.finalize()
    except (UnsupportedAlgorithm, ValueError):
        raise _unknown("a cipher that this machine's OpenSSL does not offer") from None
    return _unpadded(plain, block)


def _unpadded(plain: bytes, block: int) -> bytes:
    """RFC 8018 section 6.1.1 step 4. Nobody watches the time that this takes: the file is ours to read."""
    count = plain[-1]
    if not 0 < count <= block or plain[-count:] != bytes([count]) * count:
        raise WrongPassword
    return plain[:-count]


def _bmp(password: str) -> bytes:
    """A BMPString with its end (RFC 7292 appendix B.1)."""
    return password.encode("utf-16-be", "surrogatepass") + b"\0\0"


def _derived(name: str, purpose: int, secret: bytes, salt: bytes, rounds: int, size: int) -> bytes:
    """RFC 7292 appendix B.2."""
    digest = getattr(hashlib, name)
    block = digest().block_size
    mixed = bytearray(_stretched(salt, block) + _stretched(secret, block))
    result = b""
    while len(result) < size:
        piece: bytes = digest(bytes([purpose]) * block + mixed).digest()
        for _ in range(rounds - 1):
            piece = digest(piece).digest()
        result += piece
        addend = int.from_bytes(_stretched(piece, block)[:block]) + 1
        for at in range(0, len(mixed), block):
            total = int.from_bytes(mixed[at : at + block]) + addend
            mixed[at : at + block] = (total % (1 << 8 * block)).to_bytes(block)
    return result[:size]


def _stretched(value: bytes, block: int) -> bytes:
    """Repeated to the next whole number of blocks."""
    size = block * -(-len(value) // block)
    return (value * (size // len(value) + 1))[:size] if value else b""


def mac_holds(mac: Node, content: bytes, password: str | None, work: Work) -> bool:
    """Whether a MacData (RFC 7292 section 4, or PBMAC1 of RFC 9579) fits the content; password None is none at all."""
    info, salt, *rest = mac.expect(SEQUENCE).children()
    algorithm, value = info.expect(SEQUENCE).children()
    kind, *parameters = algorithm.expect(SEQUENCE).children()
    expected = value.expect(OCTET_STRING).content
    if kind.oid() == _PBMAC1 and parameters:
        return _pbmac1(parameters[0], content, password or "", expected, work)
    digest = HASHES.get(kind.oid())
    if digest is None:
        raise _unknown(kind.oid())
    rounds = work.spend(rest[0].number() if rest else 1)
    secret = b"" if password is None else _bmp(password)
    size = hashlib.new(digest).digest_size
    key = _derived(digest, _MAC, secret, salt.expect(OCTET_STRING).content, rounds, size)
    return hmac.compare_digest(hmac.digest(key, content, digest), expected)


def _pbmac1(parameters: Node, content: bytes, password: str, expected: bytes, work: Work) -> bool:
    derivation, scheme = (one.expect(SEQUENCE).children() for one in parameters.expect(SEQUENCE).children())
    digest = _HMACS.get(scheme[0].oid())
    if derivation[0].oid() != _PBKDF2 or digest is None:
        raise _unknown(derivation[0].oid())
    key, _, _ = _pbkdf2(derivation[1], hashlib.new(digest).digest_size, password, work)
    return hmac.compare_digest(hmac.digest(key, content, digest), expected)


def names_a_scheme(node: Node) -> bool:
    """Whether an AlgorithmIdentifier may be one of encryption under a password (an EncryptedPrivateKeyInfo's)."""
    try:
        kind, *rest = node.expect(SEQUENCE).children()
        name = kind.expect(OBJECT_IDENTIFIER).oid()
    except (NotAsn1, ValueError):
        return False
    return bool(rest) and rest[0].tag != NULL and name.startswith(("1.2.840.113549.1.5.", _PKCS12, "1.3.6.1.4.1.42.2."))


# --- RC2 (RFC 2268): in old files certificates are encrypted with 40 bits of it, which no library offers any more ---

_PI = bytes.fromhex(
    "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2"
    "179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82"
    "54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb626"
    "6fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7"
    "08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ec"
    "c2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731"
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a9"
    "0d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad"
)


def _rc2_key(key: bytes) -> Sequence[int]:
    """Section 2, with as many effective bits as the key has."""
    expanded, mask = bytearray(key), 0xFF
    for at in range(len(key), 128):
        expanded.append(_PI[(expanded[at - 1] + expanded[at - len(key)]) & 0xFF])
    at = 128 - len(key)
    expanded[at] = _PI[expanded[at] & mask]
    for at in range(127 - len(key), -1, -1):
        expanded[at] = _PI[expanded[at + 1] ^ expanded[at + len(key)]]
    return [expanded[2 * at] | expanded[2 * at + 1] << 8 for at in range(64)]


def _rc2_block(keys: Sequence[int], block: bytes) -> bytes:
    """Section 4: mixing backwards, with two mashing rounds between."""
    r = [int.from_bytes(block[at : at + 2], "little") for at in (0, 2, 4, 6)]
    at = 63
    for rounds in (5, 6, 5):
        for _ in range(rounds):
            for one, shift in ((3, 5), (2, 3), (1, 2), (0, 1)):
                turned = (r[one] >> shift | r[one] << 16 - shift) & 0xFFFF
                chosen = (r[one - 1] & r[one - 2]) + (~r[one - 1] & r[one - 3])
                r[one] = (turned - keys[at] - chosen) & 0xFFFF
                at -= 1
        if at > 0:
            for one in (3, 2, 1, 0):
                r[one] = (r[one] - keys[r[one - 1] & 63]) & 0xFFFF
    return b"".join(one.to_bytes(2, "little") for one in r)


def _rc2_cbc(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    if not ciphertext or len(ciphertext) % 8:
        raise NotAsn1
    if len(ciphertext) > _RC2_LIMIT:
        raise InspectionError(f"more than {_RC2_LIMIT:,} bytes are encrypted with RC2", code=codes.TOO_MUCH)
    keys, before, plain = _rc2_key(key), iv, bytearray()
    for at in range(0, len(ciphertext), 8):
        block = ciphertext[at : at + 8]
        plain += bytes(a ^ b for a, b in zip(_rc2_block(keys, block), before, strict=True))
        before = block
    return bytes(plain)
