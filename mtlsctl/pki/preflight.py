"""Our own check of a staged release: its bytes as they were read back, nothing trusted.

Several runtimes do not look before they load (Apache goes down on a key that does not match, Node trusts nothing after
one malformed block), so what they would stumble over is found here, before the switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import CredentialId
from mtlsctl.model.files import CERTIFICATE_FILE, CLIENTS_FOLDER, KEY_FILE, SECRET_MODE, clients_file, servers_file
from mtlsctl.model.keystore import SEALED, StoreKind
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import ClientCertificate
from mtlsctl.model.trust import NAME_BYTES_LIMIT, NAME_BYTES_WARN, in_order
from mtlsctl.pki import codes
from mtlsctl.pki.inspect import parse_certificate, presents
from mtlsctl.pki.keys import load_private, spki_sha256
from mtlsctl.pki.keystores import check_password, content_of, read_store
from mtlsctl.pki.lint import issuer_findings
from mtlsctl.pki.stores import parse_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from mtlsctl.model.credential import Credential
    from mtlsctl.model.keystore import StoreSpecification
    from mtlsctl.model.release import HeldFile, Recipe
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.pki.inspect import Parsed

_WRITABLE_BY_OTHERS = 0o022
_SPECIAL_BITS = 0o7000
_PRIVATE_MARK = b"PRIVATE KEY-----"
_END_OF_CERTIFICATE = b"-----END CERTIFICATE-----\n"


class Finding(NamedTuple):
    """What is wrong; the message begins with the path."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a release must agree with: the policy (recipe), what was issued, and the certificates behind the symbols."""

    recipe: Recipe
    credential: Credential
    anchors: Mapping[TrustAnchor, bytes]
    issuer: bytes
    now: datetime
    is_presented: bool
    stores: tuple[StoreSpecification, ...]
    combined: tuple[str, ...]


def preflight(
    files: Mapping[str, HeldFile],
    *,
    recipe: Recipe,
    credential: Credential,
    anchors: Mapping[TrustAnchor, bytes],
    issuer: bytes,
    now: datetime,
    is_presented: bool = False,
    stores: tuple[StoreSpecification, ...] = (),
    combined: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Check a release as it lies on its host; certificates are DER, `issuer` is the leaf's CA.

    Gives warnings, each naming its path. Raises PreflightError (M72xx) with the first finding, and the others as notes.
    `is_presented` says that the instance shows this leaf already. That it has ended is then no reason to refuse: an
    estate that was left alone for too long is renewed through releases that still carry the old leaf. `combined` are
    the files that hold the leaf and its key, one after the other, and the only others where a key may be.
    """
    expected = Expected(
        recipe=recipe,
        credential=credential,
        anchors=anchors,
        issuer=issuer,
        now=now,
        is_presented=is_presented,
        stores=stores,
        combined=combined,
    )
    bundles = expected_bundles(recipe)
    findings = tuple(_hidden_findings(files, expected)) or (
        *_identity_findings(files, expected),
        *_bundle_findings(files, expected, bundles),
        *_store_findings(files, expected),
        *_combined_findings(files, combined),
        *_mode_findings(files, expected),
        *_secret_findings(files, combined),
        *_budget_findings(files, bundles),
    )
    if findings:
        first, *others = findings
        raise PreflightError(first.message, code=first.code, notes=[other.message for other in others])
    return (*_budget_warnings(files, bundles), *_ended_anchors(expected, bundles), *_ended_leaf(expected))


def expected_bundles(recipe: Recipe) -> dict[str, frozenset[TrustAnchor]]:
    """Every PEM bundle that a release of this recipe holds, and the anchors in it; a door without callers has none."""
    clients = {
        clients_file(served.name): served.policy.anchors
        for served in recipe.listeners
        if served.policy.anchors and served.client_certificate is not ClientCertificate.NONE
    }
    servers = {
        servers_file(callee.listener): callee.policy.anchors for callee in recipe.callees if not callee.believes_system
    }
    return clients | servers


def _identity_findings(files: Mapping[str, HeldFile], expected: Expected) -> Iterator[Finding]:
    needed = (CERTIFICATE_FILE, KEY_FILE) if expected.recipe.holds_key else (CERTIFICATE_FILE,)
    missing = [path for path in needed if path not in files]
    if missing:
        yield from (Finding(codes.FILE_MISSING, f"{path} is missing") for path in missing)
        return
    try:
        chain = [parse_certificate(der) for der in parse_bundle(files[CERTIFICATE_FILE].read())]
        issuer = parse_certificate(expected.issuer)
    except PreflightError as error:
        yield Finding(error.code, f"{CERTIFICATE_FILE}: {error.message}")
        return
    leaf = chain[0]
    if KEY_FILE in files:
        yield from _key_findings(files[KEY_FILE], leaf)
    yield from _credential_findings(leaf, expected.credential)
    yield from _chain_findings(chain, issuer, signs_itself=expected.credential.profile.authority.is_leaf)
    yield from _date_findings(leaf, issuer, expected)
    yield from _name_findings(leaf, expected.recipe)
    yield from _usage_findings(leaf, expected.recipe)


def _key_findings(held: HeldFile, leaf: Parsed) -> Iterator[Finding]:
    try:
        public_half = _public_half(held)
    except PreflightError as error:
        yield Finding(error.code, f"{KEY_FILE}: {error.message}")
        return
    if leaf.public_key is None or public_half != spki_sha256(leaf.public_key):  # type: ignore[arg-type]
        yield Finding(codes.KEY_MISMATCH, f"{KEY_FILE} does not belong to the certificate in {CERTIFICATE_FILE}")


def _public_half(held: HeldFile) -> str | None:
    """Of the key in a PEM file: its host says it of a key that never leaves it."""
    if held.content is None:
        return held.spki_sha256
    return spki_sha256(load_private(Secret(held.content)).public_key())


def _hidden_findings(files: Mapping[str, HeldFile], expected: Expected) -> Iterator[Finding]:
    """A host keeps to itself what holds its keys, and nothing else."""
    private = _private_files(expected)
    for path, held in sorted(files.items()):
        if held.content is None and path not in private:
            yield Finding(codes.KEY_OUTSIDE, f"{path} is not shown by its host, as if it held a private key")


def _private_files(expected: Expected) -> frozenset[str]:
    stores = (one.path for one in expected.stores if one.kind is StoreKind.KEY)
    return frozenset({KEY_FILE, *stores, *expected.combined})


def _credential_findings(leaf: Parsed, credential: Credential) -> Iterator[Finding]:
    if leaf.sha256 != credential.certificate_sha256:
        yield Finding(
            codes.WRONG_CERTIFICATE, f"{CERTIFICATE_FILE} does not begin with the certificate {credential.id}"
        )
    elif leaf.public_key is None or spki_sha256(leaf.public_key) != credential.spki_sha256:  # type: ignore[arg-type]
        yield Finding(codes.KEY_MISMATCH, f"{CERTIFICATE_FILE} holds another key than {credential.id} was issued for")


def _chain_findings(chain: list[Parsed], issuer: Parsed, *, signs_itself: bool) -> Iterator[Finding]:
    leaf = chain[0]
    if len(chain) != 1:
        yield Finding(
            codes.CHAIN, f"{CERTIFICATE_FILE} holds {len(chain)} certificates; the leaf alone leads to its CA"
        )
    if leaf.is_ca or (leaf.subject == leaf.issuer) is not signs_itself:
        yield Finding(codes.CHAIN, f"{CERTIFICATE_FILE} does not begin with an end entity")
    try:
        leaf.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, ValueError, TypeError):
        yield Finding(codes.CHAIN, f"{CERTIFICATE_FILE} is not signed by {issuer.common_names[0]}")
    authority = leaf.authority_key_identifier
    if authority is None or authority.key_identifier != issuer.subject_key_identifier:
        yield Finding(codes.CHAIN, f"{CERTIFICATE_FILE} does not carry its CA's key identifier")
    if not signs_itself:
        yield from (Finding(codes.CHAIN, f"{CERTIFICATE_FILE}: {text}") for text in issuer_findings(leaf, issuer))


def _date_findings(leaf: Parsed, issuer: Parsed, expected: Expected) -> Iterator[Finding]:
    now = expected.now
    for who, certificate in ((CERTIFICATE_FILE, leaf), ("the CA of " + CERTIFICATE_FILE, issuer)):
        if now < certificate.not_before:
            yield Finding(codes.DATES, f"{who} is not valid before {certificate.not_before:%Y-%m-%d %H:%M}")
        if now >= certificate.not_after and not expected.is_presented:
            yield Finding(codes.DATES, f"{who} ended on {certificate.not_after:%Y-%m-%d %H:%M}")
    if leaf.not_after > issuer.not_after:
        yield Finding(codes.DATES, f"{CERTIFICATE_FILE} outlives its CA")


def _name_findings(leaf: Parsed, recipe: Recipe) -> Iterator[Finding]:
    for name in recipe.server_names:
        if not presents(leaf, name):
            yield Finding(codes.NAMES, f"{CERTIFICATE_FILE} does not present the name {name}")


def _usage_findings(leaf: Parsed, recipe: Recipe) -> Iterator[Finding]:
    if recipe.listeners and ExtendedKeyUsageOID.SERVER_AUTH not in leaf.usage_oids:
        yield Finding(codes.USAGES, f"{CERTIFICATE_FILE} is not for servers (serverAuth), and its instance listens")
    shows = any(callee.asks for callee in recipe.callees)
    if shows and ExtendedKeyUsageOID.CLIENT_AUTH not in leaf.usage_oids:
        yield Finding(codes.USAGES, f"{CERTIFICATE_FILE} is not for clients (clientAuth), and its instance calls")


def _bundle_findings(
    files: Mapping[str, HeldFile], expected: Expected, bundles: Mapping[str, frozenset[TrustAnchor]]
) -> Iterator[Finding]:
    present = {path for path in files if path.endswith(".pem")}
    for path in sorted(bundles.keys() - present):
        yield Finding(codes.FILE_MISSING, f"{path} is missing")
    for path in sorted(present - bundles.keys()):
        yield Finding(codes.BUNDLE, f"{path} has no place in this release")
    for path in sorted(present & bundles.keys()):
        yield from _anchor_findings(path, files[path].read(), bundles[path], expected.anchors)


def _anchor_findings(
    path: str, pem: bytes, policy: frozenset[TrustAnchor], anchors: Mapping[TrustAnchor, bytes]
) -> Iterator[Finding]:
    try:
        found = parse_bundle(pem)
    except PreflightError as error:
        yield Finding(codes.BUNDLE, f"{path}: {error.message}")
        return
    held, wanted = set(found), {anchors.get(anchor): anchor for anchor in policy}
    for anchor in in_order(anchor for der, anchor in wanted.items() if der not in held):
        yield Finding(codes.BUNDLE, f"{path} lacks {anchor}")
    if not held <= wanted.keys():
        yield Finding(codes.BUNDLE, f"{path} trusts a certificate that no edge declares")
    if len(found) != len(held):
        yield Finding(codes.BUNDLE, f"{path} holds a certificate twice")
    pinned = {der for der, anchor in wanted.items() if isinstance(anchor, CredentialId)}
    yield from _self_signed_findings(path, found, pinned)


def _self_signed_findings(path: str, found: tuple[bytes, ...], pinned: AbstractSet[bytes | None]) -> Iterator[Finding]:
    """Anchors sign themselves and have a key identifier; anything else is chosen wrongly by some TLS stack."""
    for der in found:
        try:
            anchor = parse_certificate(der)
        except PreflightError as error:
            yield Finding(codes.BUNDLE, f"{path}: {error.message}")
            continue
        is_meant = anchor.is_ca is not (der in pinned)
        if not is_meant or anchor.subject != anchor.issuer or anchor.subject_key_identifier is None:
            kind = "leaf" if der in pinned else "CA"
            yield Finding(codes.BUNDLE, f"{path} holds a certificate that is not a self-signed {kind}")


def _store_findings(files: Mapping[str, HeldFile], expected: Expected) -> Iterator[Finding]:
    """Each store opened with the password that lies beside it: what a program finds in it is what it must find."""
    for one in expected.stores:
        if one.path not in files:
            yield Finding(codes.FILE_MISSING, f"{one.path} is missing")
    password = next((one.path for one in expected.stores if one.kind is StoreKind.PASSWORD), None)
    if password is None or password not in files or CERTIFICATE_FILE not in files:
        return
    for one in expected.stores:
        if one.kind in SEALED and one.path in files:
            yield from _content_findings(one, files, Secret(files[password].read()), expected)


def _content_findings(
    store: StoreSpecification, files: Mapping[str, HeldFile], password: Secret, expected: Expected
) -> Iterator[Finding]:
    if files[store.path].content is None:
        if files[store.path].spki_sha256 != expected.credential.spki_sha256:
            yield Finding(codes.STORE_CONTENT, f"{store.path} holds another key than it must")
        return
    try:
        found = read_store(files[store.path].read(), check_password(password))
        chain = parse_bundle(files[CERTIFICATE_FILE].read())
    except PreflightError as error:
        yield Finding(error.code, f"{store.path}: {error.message}")
        return
    wanted = content_of(store, spki_sha256=expected.credential.spki_sha256, chain=chain, anchors=expected.anchors)
    differing = (
        ("another alias", found.alias != wanted.alias),
        ("another key", found.key_spki_sha256 != wanted.key_spki_sha256),
        ("another chain", found.chain != wanted.chain),
        ("other anchors", found.anchors != wanted.anchors),
    )
    yield from (
        Finding(codes.STORE_CONTENT, f"{store.path} holds {what} than it must") for what, is_so in differing if is_so
    )


def _combined_findings(files: Mapping[str, HeldFile], combined: Sequence[str]) -> Iterator[Finding]:
    """Read as its program reads it: one certificate, then one key, and both are those of the release."""
    for path in combined:
        if path not in files:
            yield Finding(codes.FILE_MISSING, f"{path} is missing")
        elif files[path].content is None:
            if KEY_FILE in files and files[path].spki_sha256 != files[KEY_FILE].spki_sha256:
                yield Finding(codes.KEY_MISMATCH, f"{path} does not hold the key of this release")
        elif CERTIFICATE_FILE in files and KEY_FILE in files:
            chain, mark, key = files[path].read().partition(_END_OF_CERTIFICATE)
            is_leaf = files[CERTIFICATE_FILE].read().startswith(chain + mark) and _readable_blocks(chain + mark)
            if not is_leaf or key != files[KEY_FILE].read():
                yield Finding(codes.KEY_MISMATCH, f"{path} does not hold the certificate and the key of this release")


def _mode_findings(files: Mapping[str, HeldFile], expected: Expected) -> Iterator[Finding]:
    private = _private_files(expected) | {one.path for one in expected.stores if one.kind is StoreKind.PASSWORD}
    for path, held in sorted(files.items()):
        bits = held.mode & 0o7777
        if path in private and bits != SECRET_MODE:
            yield Finding(codes.MODE, f"{path} has mode {bits:04o} instead of {SECRET_MODE:04o}")
        elif bits & (_WRITABLE_BY_OTHERS | _SPECIAL_BITS):
            yield Finding(codes.MODE, f"{path} has mode {bits:04o}; only its owner may write to it")


def _secret_findings(files: Mapping[str, HeldFile], combined: Sequence[str]) -> Iterator[Finding]:
    for path, held in sorted(files.items()):
        if path not in (KEY_FILE, *combined) and _PRIVATE_MARK in (held.content or b""):
            yield Finding(codes.KEY_OUTSIDE, f"{path} holds a private key; only {KEY_FILE} may")


def _budget_findings(files: Mapping[str, HeldFile], bundles: Mapping[str, frozenset[TrustAnchor]]) -> Iterator[Finding]:
    for path, size in _name_sizes(files, bundles):
        if size > NAME_BYTES_LIMIT:
            yield Finding(
                codes.NAME_BUDGET,
                f"{path}: the names of its CAs take {size:,} bytes; above {NAME_BYTES_LIMIT:,} every caller fails",
            )


def _budget_warnings(files: Mapping[str, HeldFile], bundles: Mapping[str, frozenset[TrustAnchor]]) -> Iterator[str]:
    for path, size in _name_sizes(files, bundles):
        if size > NAME_BYTES_WARN:
            yield f"{path}: the names of its CAs take {size:,} bytes; above {NAME_BYTES_WARN:,} Java callers may fail"


def _name_sizes(
    files: Mapping[str, HeldFile], bundles: Mapping[str, frozenset[TrustAnchor]]
) -> Iterator[tuple[str, int]]:
    """What each listener's CA names add to a CertificateRequest: the DER name and two bytes of length for each."""
    for path in sorted(bundles.keys() & files.keys()):
        if path.startswith(f"{CLIENTS_FOLDER}/"):
            yield path, sum(_name_size(der) for der in _readable_blocks(files[path].read()))


def _readable_blocks(pem: bytes) -> tuple[bytes, ...]:
    try:
        return parse_bundle(pem)
    except PreflightError:
        return ()  # reported where the bundle itself is judged


def _name_size(der: bytes) -> int:
    try:
        return len(parse_certificate(der).subject.public_bytes()) + 2
    except PreflightError:
        return 0


def _ended_anchors(expected: Expected, bundles: Mapping[str, frozenset[TrustAnchor]]) -> Iterator[str]:
    """Java goes on believing an anchor that has ended, all others do not: worth a word, and no reason to stop."""
    for path, policy in sorted(bundles.items()):
        for anchor in in_order(policy):
            end = parse_certificate(expected.anchors[anchor]).not_after
            if end <= expected.now:
                yield f"{path}: {anchor} ended on {end:%Y-%m-%d}"


def _ended_leaf(expected: Expected) -> Iterator[str]:
    """Only of one that was shown before; any other is refused."""
    end = expected.credential.not_after
    if end <= expected.now:
        yield f"{CERTIFICATE_FILE} ended on {end:%Y-%m-%d %H:%M}; its successor follows"
