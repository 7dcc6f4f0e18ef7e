"""What a file holds, whatever its form: certificates, keys, requests, revocation lists, and how it was opened.

Files come from strangers. Sizes and the work for a password are bounded, one broken part does not hide the others, and
of a private key nothing leaves this module but its algorithm and the digest of its public half.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from mtlsctl.errors import InspectionError, PreflightError
from mtlsctl.pki import codes
from mtlsctl.pki.asn1 import OCTET_STRING, SEQUENCE, NotAsn1, read_one
from mtlsctl.pki.inspect import UNREADABLE, Parsed, common_names_of, key_name, parse_certificate, signature_holds
from mtlsctl.pki.jks import JCEKS_MAGIC, MAGIC, jks_holds, read_jks
from mtlsctl.pki.pbe import Work, WrongPassword, decrypt, names_a_scheme
from mtlsctl.pki.pem import is_pem, read_pem
from mtlsctl.pki.pkcs12 import BagKind, is_pkcs12, read_pkcs12

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from mtlsctl.model.secret import Secret
    from mtlsctl.pki.pem import Block, PemFile
    from mtlsctl.pki.pkcs12 import Bag, Pkcs12

FILE_LIMIT = 8 * 1024 * 1024
"""Bytes of the largest file that is looked at."""

CERTIFICATE_LIMIT = 10_000
_KEY_LIMIT = 16 * 1024
"""Bytes of the largest private key: one of RSA with 16,384 bits fits."""

WELL_KNOWN = "changeit"
"""Java's own default; with the empty one it is tried before anybody is asked."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_PKCS7 = "1.2.840.113549.1.7."


class Form(StrEnum):
    """How a file is written; TLS for what a server showed."""

    PEM = "PEM"
    DER = "DER"
    PKCS12 = "PKCS#12"
    JKS = "JKS"
    TLS = "TLS"


class Opened(StrEnum):
    """With which password a file was opened."""

    GIVEN = "given"
    EMPTY = "empty"
    WELL_KNOWN = "changeit"
    NOT_OPENED = "not opened"
    """What is not encrypted was read; whether it was changed could not be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """The one that the operator gave, or how to ask for one; `ask` is None where nobody is there to answer."""

    given: Secret | None = None
    ask: Callable[[], Secret | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCertificate:
    """A certificate and where it stands. `is_entry`: Java shows it as a trusted entry of its own."""

    parsed: Parsed
    alias: str | None = None
    is_entry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A private key, as far as it may be known. `chain` are places in the file's certificates, end entity first.

    `spki_sha256` is None, and `algorithm` too, for one that was not opened. `encrypted` says how it lay in the file.
    """

    algorithm: str | None
    spki_sha256: str | None
    encrypted: str | None
    alias: str | None = None
    chain: tuple[int, ...] = ()
    certificate_given: int | None = None
    """The certificate that stands for this key, even where it does not belong to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRequest:
    """A certificate request (RFC 2986) and whether the key that it asks for has signed it; None: not told."""

    subject: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    algorithm: str
    key_bits: int | None
    spki_sha256: str
    digest: str | None
    is_proven: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldList:
    """A revocation list (RFC 5280 section 5). `number` is None where it does not say."""

    value: x509.CertificateRevocationList
    issuer: str
    number: int | None
    revoked: int

    @property
    def issuer_common_names(self) -> tuple[str, ...]:
        return common_names_of(self.value.issuer)

    @property
    def this_update(self) -> datetime:
        return self.value.last_update_utc

    @property
    def next_update(self) -> datetime | None:
        return self.value.next_update_utc

    def signed_by(self, issuer: Parsed) -> bool | None:
        """Whether a certificate's key signed it, its name aside; None where it cannot be told."""
        return signature_holds(issuer.public_key, self.value, self.value.tbs_certlist_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What reading alone has shown to be wrong; `where` is a part of the file, empty for all of it."""

    code: str
    message: str
    is_error: bool = True
    where: str = ""
    help: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that was found. Certificates are named by their places.

    `chain` are those that are to be one chain, end entity first if all is well; `anchors` those that stand for
    themselves; chains of keys are with the keys. `java_entries` counts what Java would list; None outside key stores.
    """

    form: Form
    certificates: tuple[HeldCertificate, ...] = ()
    keys: tuple[HeldKey, ...] = ()
    public_keys: tuple[HeldKey, ...] = ()
    requests: tuple[HeldRequest, ...] = ()
    lists: tuple[HeldList, ...] = ()
    chain: tuple[int, ...] = ()
    anchors: tuple[int, ...] = ()
    opened: Opened | None = None
    java_entries: int | None = None
    version: int | None = None
    schemes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_contents(data: bytes, passwords: Passwords) -> Contents:
    """Recognise a file and read it.

    Raises InspectionError: not recognised (M7390), broken (M7391), known and not read (M7392), too large or too much
    work (M7393), no password that opens it (M7394).
    """
    if len(data) > FILE_LIMIT:
        raise InspectionError(f"the file is larger than {FILE_LIMIT // 2**20} MiB", code=codes.TOO_MUCH)
    if not data.strip():
        raise InspectionError("the file is empty", code=codes.NOT_RECOGNISED)
    if data.startswith(JCEKS_MAGIC):
        raise InspectionError(
            "it is a JCEKS key store, which is not read here",
            code=codes.NOT_READ,
            help="make a PKCS#12 file of it: keytool -importkeystore -srcstoretype JCEKS -deststoretype PKCS12",
        )
    if data.startswith(MAGIC):
        return _from_jks(data, passwords)
    if data.startswith(_UTF16):
        raise InspectionError(
            "it is text in UTF-16, as PowerShell writes it", code=codes.NOT_READ, help="save it as ASCII"
        )
    if is_pkcs12(data):
        return _from_pkcs12(data, passwords)
    return _from_pem(read_pem(data), passwords) if is_pem(data) else _from_der(data, passwords)


def from_chain(chain: Sequence[bytes]) -> Contents:
    """What a server showed: DER, in its order."""
    reading = _Reading(Passwords())
    for number, der in enumerate(chain, start=1):
        reading.certificate(der, f"certificate {number} of the chain")
    return reading.contents(Form.TLS, chain=tuple(range(len(reading.certificates))))


class _Reading:
    """Collects what is found; a part that cannot be read becomes a problem."""

    def __init__(self, passwords: Passwords) -> None:
        self.passwords, self.work = passwords, Work()
        self.certificates: list[HeldCertificate] = []
        self.keys: list[HeldKey] = []
        self.public_keys: list[HeldKey] = []
        self.requests: list[HeldRequest] = []
        self.lists: list[HeldList] = []
        self.problems: list[Problem] = []
        self.opened: Opened | None = None

    def certificate(self, der: bytes, where: str, *, alias: str | None = None, is_entry: bool = False) -> int | None:
        """The place of a certificate, or None when it is none."""
        if len(self.certificates) >= CERTIFICATE_LIMIT:
            raise InspectionError(f"it holds more than {CERTIFICATE_LIMIT:,} certificates", code=codes.TOO_MUCH)
        try:
            parsed = parse_certificate(der)
        except PreflightError:
            self.unreadable(where, "is not an X.509 certificate")
            return None
        self.certificates.append(HeldCertificate(parsed=parsed, alias=alias, is_entry=is_entry))
        return len(self.certificates) - 1

    def unreadable(self, where: str, what: str) -> None:
        self.problems.append(Problem(code=codes.PART_UNREADABLE, message=f"{where} {what}", where=where))

    def key(self, pkcs8: bytes, where: str, *, encrypted: str | None, alias: str | None = None) -> HeldKey | None:
        """The facts of a private key, in whatever form its DER is."""
        facts = _private_facts(pkcs8)
        if facts is None:
            self.unreadable(where, "is not a private key of a known kind")
            return None
        algorithm, digest = facts
        return HeldKey(algorithm=algorithm, spki_sha256=digest, encrypted=encrypted, alias=alias)

    def request(self, der: bytes, where: str) -> None:
        found = _request(der)
        if found is None:
            self.unreadable(where, "is not a certificate request")
        else:
            self.requests.append(found)

    def revocation_list(self, der: bytes, where: str) -> None:
        found = _revocation_list(der)
        if found is None:
            self.unreadable(where, "is not a revocation list")
        else:
            self.lists.append(found)

    def contents(self, form: Form, **changes: object) -> Contents:
        made = Contents(
            form=form,
            certificates=tuple(self.certificates),
            keys=tuple(self.keys),
            public_keys=tuple(self.public_keys),
            requests=tuple(self.requests),
            lists=tuple(self.lists),
            problems=tuple(self.problems),
            opened=self.opened,
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    def candidates(self) -> Iterator[tuple[Opened, str | None]]:
        """Passwords in the order in which they are tried; whoever gave one does not want another."""
        if self.passwords.given is not None:
            yield Opened.GIVEN, _text(self.passwords.given)
            return
        yield from ((Opened.EMPTY, ""), (Opened.EMPTY, None), (Opened.WELL_KNOWN, WELL_KNOWN))
        asked = self.passwords.ask() if self.passwords.ask is not None else None
        if asked is not None:
            self.passwords = Passwords(given=asked)
            yield Opened.GIVEN, _text(asked)

    def no_password(self) -> InspectionError:
        if self.passwords.given is not None:
            return InspectionError("the password does not open it", code=codes.NOT_OPENED)
        return InspectionError(
            f"it needs a password: neither the empty one nor `{WELL_KNOWN}` opens it",
            code=codes.NOT_OPENED,
            help="give it: --password-env NAME or --password-file PATH",
        )


def _text(secret: Secret) -> str:
    try:
        return secret.reveal().decode("utf-8")
    except UnicodeDecodeError:
        raise InspectionError("the password is not UTF-8", code=codes.NOT_OPENED) from None


# --- PEM and DER ----------------------------------------------------------------------------------------------------

_CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_KEYS = frozenset({"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"})
_REQUESTS = frozenset({"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"})
_PARAMETERS = frozenset({"EC PARAMETERS", "DH PARAMETERS"})
_OLD_ENCRYPTION = "the old form of OpenSSL (MD5)"


def _from_pem(file: PemFile, passwords: Passwords) -> Contents:
    reading = _Reading(passwords)
    for block in file.blocks:
        _take_block(reading, block)
    found = (reading.certificates, reading.keys, reading.public_keys, reading.requests, reading.lists)
    if not any(found):
        raise _nothing(reading.problems)
    if file.has_text:
        text = "text stands outside the blocks; OpenSSL passes over it, others do not"
        reading.problems.append(Problem(code=codes.FORM, message=text, is_error=False))
    if not file.ends_well and reading.certificates:
        text = "its last line has no newline; where another file is put behind it, Node trusts nothing"
        reading.problems.append(Problem(code=codes.FORM, message=text, is_error=False))
    return _arranged(reading, Form.PEM)


def _nothing(problems: Sequence[Problem]) -> InspectionError:
    notes = tuple(one.message for one in problems[:5])
    return InspectionError("there is nothing in it that can be read", code=codes.NOT_RECOGNISED, notes=notes)


def _take_block(reading: _Reading, block: Block) -> None:
    where = f"the block at line {block.line}"
    if block.der is None:
        reading.unreadable(where, f"({block.label}) has no end or is not base64")
        return
    match block.label:
        case label if label in _CERTIFICATES:
            reading.certificate(block.der, where)
        case label if label in _KEYS and block.is_encrypted:
            reading.keys.append(HeldKey(algorithm=None, spki_sha256=None, encrypted=_OLD_ENCRYPTION))
        case label if label in _KEYS:
            _take_key(reading, block.der, where)
        case "ENCRYPTED PRIVATE KEY":
            _take_encrypted_key(reading, block.der, where)
        case label if label in _REQUESTS:
            reading.request(block.der, where)
        case "X509 CRL":
            reading.revocation_list(block.der, where)
        case "PUBLIC KEY":
            _take_public_key(reading, block.der, where)
        case label if label in _PARAMETERS:
            pass
        case label:
            text = f"{where} is `{label}`, which is not read here"
            reading.problems.append(Problem(code=codes.NOT_READ, message=text, is_error=False, where=where))


def _take_key(reading: _Reading, der: bytes, where: str, encrypted: str | None = None) -> None:
    key = reading.key(der, where, encrypted=encrypted)
    if key is not None:
        reading.keys.append(key)


def _take_encrypted_key(reading: _Reading, der: bytes, where: str) -> None:
    """PKCS#8 (RFC 5958 section 3): what it is can be said without opening it, so no password is no reason to stop."""
    try:
        algorithm, content = read_one(der).expect(SEQUENCE).children()
        ciphertext = content.expect(OCTET_STRING).octets()
    except (NotAsn1, ValueError):
        reading.unreadable(where, "is not an encrypted private key")
        return
    try:
        for opened, password in reading.candidates():
            if password is None:
                continue
            try:
                plain, scheme = decrypt(algorithm, ciphertext, password, reading.work)
            except WrongPassword:
                continue
            if _private_facts(plain) is not None:
                reading.opened = opened
                _take_key(reading, plain, where, str(scheme))
                return
    except (NotAsn1, ValueError, OverflowError):
        reading.unreadable(where, "is not an encrypted private key")
        return
    except InspectionError as error:
        if error.code != codes.NOT_READ:
            raise
        reading.keys.append(HeldKey(algorithm=None, spki_sha256=None, encrypted=error.message))
        return
    if reading.passwords.given is not None:
        raise reading.no_password()
    reading.keys.append(HeldKey(algorithm=None, spki_sha256=None, encrypted="with a password that was not given"))


def _take_public_key(reading: _Reading, der: bytes, where: str) -> None:
    facts = _public_facts(der)
    if facts is None:
        reading.unreadable(where, "is not a public key of a known kind")
    else:
        reading.public_keys.append(HeldKey(algorithm=facts[0], spki_sha256=facts[1], encrypted=None))


def _from_der(data: bytes, passwords: Passwords) -> Contents:
    reading = _Reading(passwords)
    if not _take_der(reading, data):
        raise _unrecognised(data)
    return _arranged(reading, Form.DER)


def _take_der(reading: _Reading, data: bytes) -> bool:
    """Tried one after the other: each reader refuses what is not its own."""
    if reading.certificate(data, "it") is not None:
        return True
    reading.problems.clear()
    request, revoked, private, public = (
        _request(data),
        _revocation_list(data),
        _private_facts(data),
        _public_facts(data),
    )
    if request is not None:
        reading.requests.append(request)
    elif revoked is not None:
        reading.lists.append(revoked)
    elif private is not None:
        reading.keys.append(HeldKey(algorithm=private[0], spki_sha256=private[1], encrypted=None))
    elif public is not None:
        reading.public_keys.append(HeldKey(algorithm=public[0], spki_sha256=public[1], encrypted=None))
    elif _is_encrypted_key(data):
        _take_encrypted_key(reading, data, "it")
        return not reading.problems
    else:
        return False
    return True


def _is_encrypted_key(data: bytes) -> bool:
    try:
        algorithm, content = read_one(data).expect(SEQUENCE).children()
    except (NotAsn1, ValueError):
        return False
    return content.tag == OCTET_STRING and names_a_scheme(algorithm)


def _unrecognised(data: bytes) -> InspectionError:
    try:
        first = read_one(data).expect(SEQUENCE).children()[0]
        is_pkcs7 = first.oid().startswith(_PKCS7)
    except (NotAsn1, ValueError, IndexError):
        is_pkcs7 = False
    if is_pkcs7:
        return InspectionError(
            "it is a PKCS#7 file, which is not read here",
            code=codes.NOT_READ,
            help="openssl pkcs7 -inform DER -print_certs makes PEM of it",
        )
    return InspectionError(
        "it is no certificate, key, request, revocation list or key store that is known here",
        code=codes.NOT_RECOGNISED,
        help="PEM, DER, PKCS#12 and JKS are read",
    )


def _arranged(reading: _Reading, form: Form) -> Contents:
    """Which certificates are a chain and which stand for themselves, and which of them each key belongs to."""
    places = range(len(reading.certificates))
    held = [one.parsed for one in reading.certificates]
    ends = [at for at in places if not held[at].is_ca]
    is_chain = bool(reading.keys and held) or any(held[at].subject != held[at].issuer for at in ends)
    chain = tuple(places) if is_chain and (len(held) > 1 or ends) else ()
    by_key = {one.spki_sha256: at for at, one in reversed(list(enumerate(held)))}
    keys = tuple(
        replace(
            key,
            chain=chain if by_key.get(key.spki_sha256 or "") == (chain[0] if chain else None) else (),
            certificate_given=by_key.get(key.spki_sha256 or "", places[0] if held and key.spki_sha256 else None),
        )
        for key in reading.keys
    )
    return reading.contents(form, chain=chain, anchors=() if chain else tuple(places), keys=keys)


# --- key stores -----------------------------------------------------------------------------------------------------


def _from_pkcs12(data: bytes, passwords: Passwords) -> Contents:
    reading = _Reading(passwords)
    store = _opened_pkcs12(data, reading)
    certificates: dict[int, Bag] = {}
    for number, bag in enumerate(store.bags, start=1):
        if bag.kind is BagKind.CERTIFICATE:
            place = reading.certificate(
                bag.content, f"certificate bag {number}", alias=bag.alias, is_entry=bag.is_trusted
            )
            if place is not None:
                certificates[place] = bag
        elif bag.kind is BagKind.REVOCATION_LIST:
            reading.revocation_list(bag.content, f"bag {number}")
    for number, bag in enumerate(store.bags, start=1):
        if bag.kind is BagKind.KEY:
            _take_key_bag(reading, bag, number, certificates)
    in_chains = {at for key in reading.keys for at in key.chain}
    secrets = sum(bag.kind is BagKind.SYMMETRIC_KEY for bag in store.bags)
    entries = sum(one.is_entry for one in reading.certificates) + len(reading.keys) + secrets
    rest = tuple(at for at in range(len(reading.certificates)) if at not in in_chains)
    if any(scheme.is_weak for scheme in store.schemes):
        text = "its certificates are encrypted with RC2 of 40 bits, which OpenSSL 3 does not open"
        reading.problems.append(Problem(code=codes.FORM, message=text, is_error=False))
    schemes = {str(one) for one in store.schemes} | {str(bag.scheme) for bag in store.bags if bag.scheme}
    return reading.contents(Form.PKCS12, anchors=rest, java_entries=entries, schemes=tuple(sorted(schemes)))


def _opened_pkcs12(data: bytes, reading: _Reading) -> Pkcs12:
    """With the first password that opens it; a file that is neither sealed nor encrypted opens with any."""
    broken: InspectionError | None = None
    for opened, password in reading.candidates():
        try:
            store = read_pkcs12(data, password, reading.work)
        except WrongPassword:
            continue
        except InspectionError as error:
            if error.code != codes.BROKEN:
                raise
            broken = error
            continue
        needs_none = not store.is_sealed and not any(bag.is_encrypted for bag in store.bags)
        reading.opened = None if needs_none else opened
        return store
    raise broken or reading.no_password()


def _take_key_bag(reading: _Reading, bag: Bag, number: int, certificates: dict[int, Bag]) -> None:
    how = str(bag.scheme) if bag.scheme else ("with the whole" if bag.is_encrypted else None)
    key = reading.key(bag.content, f"key bag {number}", encrypted=how, alias=bag.alias)
    if key is None:
        return
    held = [one.parsed for one in reading.certificates]
    given = _certificate_of(key, bag, certificates, held)
    chain = () if given is None else _path_from(given, held)
    reading.keys.append(replace(key, chain=chain, certificate_given=given))


def _certificate_of(key: HeldKey, bag: Bag, certificates: dict[int, Bag], held: Sequence[Parsed]) -> int | None:
    """By the local key identifier, as Java does; without one by the key itself."""
    if bag.local_key is not None:
        named = [at for at, one in certificates.items() if one.local_key == bag.local_key]
        if named:
            return next((at for at in named if held[at].spki_sha256 == key.spki_sha256), named[0])
    return next((at for at in certificates if held[at].spki_sha256 == key.spki_sha256), None)


def _path_from(start: int, held: Sequence[Parsed]) -> tuple[int, ...]:
    """From issuer to issuer by name, as Java puts the chain of a PKCS#12 entry together."""
    subjects: dict[object, int] = {}
    for at, one in enumerate(held):
        subjects.setdefault(one.subject, at)
    path = [start]
    while held[path[-1]].issuer != held[path[-1]].subject:
        above = subjects.get(held[path[-1]].issuer)
        if above is None or above in path:
            break
        path.append(above)
    return tuple(path)


def _from_jks(data: bytes, passwords: Passwords) -> Contents:
    reading = _Reading(passwords)
    store = read_jks(data)
    anchors: list[int] = []
    for number, entry in enumerate(store.entries, start=1):
        where = f"entry {number} (`{entry.alias}`)"
        places = [
            reading.certificate(der, where, alias=entry.alias, is_entry=not entry.is_key) for der in entry.certificates
        ]
        known = tuple(at for at in places if at is not None)
        if not entry.is_key:
            anchors += known
            continue
        parsed = reading.certificates[known[0]].parsed if known else None
        reading.keys.append(
            HeldKey(
                algorithm=None if parsed is None else key_name(parsed.public_key),
                spki_sha256=None,
                encrypted="JKS, not opened",
                alias=entry.alias,
                chain=known,
            )
        )
    reading.opened = next(
        (opened for opened, text in reading.candidates() if text is not None and jks_holds(data, text)),
        Opened.NOT_OPENED,
    )
    if reading.opened is Opened.NOT_OPENED and reading.passwords.given is not None:
        raise reading.no_password()
    return reading.contents(Form.JKS, anchors=tuple(anchors), java_entries=len(store.entries), version=store.version)


# --- single things --------------------------------------------------------------------------------------------------


def _private_facts(der: bytes) -> tuple[str, str] | None:
    """(algorithm, digest of the SPKI). The key itself is not checked: that takes minutes for one made to be slow."""
    if len(der) > _KEY_LIMIT:
        return None
    try:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
        return _facts_of(key.public_key())
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        return None


def _public_facts(der: bytes) -> tuple[str, str] | None:
    if len(der) > _KEY_LIMIT:
        return None
    try:
        return _facts_of(load_der_public_key(der))
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        return None


def _facts_of(key: object) -> tuple[str, str]:
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return key_name(key), hashlib.sha256(encoded).hexdigest()


def key_bits(key: object) -> int | None:
    """The size that a rule may be about: RSA's and DSA's modulus, the order of a curve; None for what has one size."""
    match key:
        case rsa.RSAPublicKey() | dsa.DSAPublicKey() | ec.EllipticCurvePublicKey():
            return key.key_size
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return None
        case _:
            return None


def _request(der: bytes) -> HeldRequest | None:
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        names = _names_of(request)
        algorithm, digest = _facts_of(key)
        return HeldRequest(
            subject=request.subject.rfc4514_string(),
            names=tuple(name.value for name in names if isinstance(name, x509.DNSName)),
            addresses=tuple(str(name.value) for name in names if isinstance(name, x509.IPAddress)),
            algorithm=algorithm,
            key_bits=key_bits(key),
            spki_sha256=digest,
            digest=None if request.signature_hash_algorithm is None else request.signature_hash_algorithm.name,
            is_proven=signature_holds(key, request, request.tbs_certrequest_bytes),
        )
    except (*UNREADABLE, OverflowError):
        return None


def _names_of(request: x509.CertificateSigningRequest) -> tuple[x509.GeneralName, ...]:
    try:
        return tuple(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _revocation_list(der: bytes) -> HeldList | None:
    try:
        value = x509.load_der_x509_crl(der)
        try:
            number = value.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except x509.ExtensionNotFound:
            number = None
        return HeldList(value=value, issuer=value.issuer.rfc4514_string(), number=number, revoked=len(value))
    except (*UNREADABLE, OverflowError):
        return None
