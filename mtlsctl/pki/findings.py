"""What is wrong with certificates, chains and stores that somebody else may have made.

`lint` holds our own certificates to their profiles, `preflight` our own releases to their policies; these rules are
those that any TLS stack may stumble over.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.identifiers import DnsId, InvalidIdentifier
from mtlsctl.pki import codes
from mtlsctl.pki.contents import WELL_KNOWN, Form, Opened, key_bits
from mtlsctl.pki.inspect import label_of, presents, signed_by
from mtlsctl.pki.lint import outside_findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mtlsctl.pki.contents import Contents, HeldKey, HeldList, HeldRequest
    from mtlsctl.pki.inspect import Parsed

CHAIN_LIMIT = 10
"""Certificates in a chain whose signatures are checked: OpenSSL and Java stop at such a depth too."""

CHAINS_CHECKED = 100
_LABEL_LIMIT = 60
_RSA_BITS, _CURVE_BITS = 2048, 256
_FORGEABLE = frozenset({"md2", "md5", "sha1"})
_HOURS = "%Y-%m-%d %H:%M UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What everything is judged against; `authorities` are the CAs of the estate."""

    contents: Contents
    now: datetime
    authorities: Sequence[Parsed]

    def parsed(self, place: int) -> Parsed:
        return self.contents.certificates[place].parsed

    def who(self, place: int) -> str:
        if len(self.contents.certificates) == 1:
            return "the certificate"
        return f"certificate {place + 1} ({_short(label_of(self.parsed(place).subject))})"


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_LIMIT else text[: _LABEL_LIMIT - 3] + "..."


def judge(
    contents: Contents, *, now: datetime, authorities: Sequence[Parsed] = (), server_name: str | None = None
) -> tuple[Diagnostic, ...]:
    """Everything that is wrong, the parts in their order; `server_name` is the name that is asked for, if any."""
    context = _Context(contents=contents, now=now, authorities=authorities)
    return (
        *_reading_findings(contents),
        *_store_findings(context),
        *_key_findings(context),
        *(found for place in range(len(contents.certificates)) for found in _certificate_findings(context, place)),
        *_chains_findings(context),
        *_use_findings(context, server_name),
        *(found for number, one in enumerate(contents.requests, 1) for found in _request_findings(one, number)),
        *(found for number, one in enumerate(contents.lists, 1) for found in _list_findings(context, one, number)),
    )


def _error(code: str, message: str, *, where: str = "", help: str | None = None) -> Diagnostic:
    return Diagnostic(code=code, message=message, label=where, help=help)


def _warning(code: str, message: str, *, where: str = "", help: str | None = None) -> Diagnostic:
    return Diagnostic(code=code, message=message, severity=Severity.WARNING, label=where, help=help)


# --- the file -------------------------------------------------------------------------------------------------------


def _reading_findings(contents: Contents) -> Iterator[Diagnostic]:
    for one in contents.problems:
        severity = Severity.ERROR if one.is_error else Severity.WARNING
        yield Diagnostic(code=one.code, message=one.message, severity=severity, label=one.where, help=one.help)


def _store_findings(context: _Context) -> Iterator[Diagnostic]:
    contents = context.contents
    if contents.form in {Form.PKCS12, Form.JKS}:
        yield from _alias_findings(contents)
        yield from _java_findings(context)
    if contents.opened is Opened.NOT_OPENED:
        yield _warning(
            codes.UNSEALED,
            "its integrity was not checked, as no password was given",
            help="give it: --password-env NAME or --password-file PATH",
        )
    if contents.keys and contents.opened in {Opened.EMPTY, Opened.WELL_KNOWN}:
        shown = "the empty password" if contents.opened is Opened.EMPTY else f"the well-known password `{WELL_KNOWN}`"
        yield _warning(
            codes.OPENS_FOR_ALL,
            f"it holds a private key and opens with {shown}: who reads the file has the key",
            help="give it a password of its own, or guard the file as you would the key alone",
        )


def _alias_findings(contents: Contents) -> Iterator[Diagnostic]:
    entries = [one.alias for one in contents.certificates if one.is_entry] + [one.alias for one in contents.keys]
    seen: dict[str, int] = {}
    for alias in entries:
        if alias is not None:
            seen[alias.lower()] = seen.get(alias.lower(), 0) + 1
    for alias, count in seen.items():
        if count > 1:
            yield _error(
                codes.ALIAS,
                f"{count} entries have the alias `{_short(alias)}`; Java shows one of them",
                help="give each entry an alias of its own; upper and lower case are the same to Java",
            )


def _java_findings(context: _Context) -> Iterator[Diagnostic]:
    contents = context.contents
    unseen = [at for at in contents.anchors if not contents.certificates[at].is_entry]
    if contents.java_entries == 0 and contents.certificates:
        count = len(contents.certificates)
        yield _error(
            codes.JAVA_SEES_NOTHING,
            f"as a trust store it is empty to Java: {count} certificate{'s' * (count > 1)} without the attribute of a "
            "trusted entry, as `openssl pkcs12 -export -nokeys` writes them",
            help="make it with keytool -importcert -storetype PKCS12, or let mtlsctl write it",
        )
    elif unseen and contents.form is Form.PKCS12:
        yield _warning(
            codes.JAVA_SEES_NOTHING,
            f"{context.who(unseen[0])}{f' and {len(unseen) - 1} more' if unseen[1:] else ''}: no entry to Java, "
            "as it is in no key's chain and not marked as trusted",
        )


# --- keys -----------------------------------------------------------------------------------------------------------


def _key_findings(context: _Context) -> Iterator[Diagnostic]:
    for number, key in enumerate((*context.contents.keys, *context.contents.public_keys), start=1):
        where = f"key {number}"
        yield from _weak_key(key.algorithm, where)
        yield from _beside(context, key, where)


def _beside(context: _Context, key: HeldKey, where: str) -> Iterator[Diagnostic]:
    given = key.certificate_given
    is_store = context.contents.form in {Form.PKCS12, Form.JKS}
    if given is not None and key.spki_sha256 is not None and context.parsed(given).spki_sha256 != key.spki_sha256:
        yield _error(
            codes.KEY_BESIDE,
            f"{where} does not belong to {context.who(given)} beside it",
            where=where,
            help="find the key whose SPKI digest is that of the certificate, or issue the certificate anew",
        )
    elif is_store and given is None and not key.chain:
        yield _warning(codes.KEY_BESIDE, f"{where} has no certificate beside it", where=where)


def _weak_key(algorithm: str | None, where: str) -> Iterator[Diagnostic]:
    """By its name: a key that is only named is judged like one that is there."""
    kind, _, size = (algorithm or "").partition("-")
    if kind == "rsa" and size.isdigit() and int(size) < _RSA_BITS:
        yield _error(codes.WEAK, f"{where} is RSA with {size} bits; below {_RSA_BITS} it is refused", where=where)
    if kind == "dsa":
        yield _error(codes.WEAK, f"{where} is DSA, which TLS 1.3 does not know and most stacks refuse", where=where)


# --- each certificate -----------------------------------------------------------------------------------------------


def _certificate_findings(context: _Context, place: int) -> Iterator[Diagnostic]:
    parsed, who = context.parsed(place), context.who(place)
    where = f"certificate {place + 1}"
    yield from _date_findings(parsed, who, where, context.now)
    yield from _strength_findings(parsed, who, where)
    yield from _name_findings(parsed, who, where)
    yield from _profile_findings(parsed, who, where)


def _date_findings(parsed: Parsed, who: str, where: str, now: datetime) -> Iterator[Diagnostic]:
    start, end = parsed.not_before, parsed.not_after
    if start >= end:
        yield _error(codes.NOT_IN_FORCE, f"{who} ends before it begins", where=where)
    elif now >= end:
        advice = "renew it: mtlsctl apply, if it is of an estate"
        yield _error(codes.NOT_IN_FORCE, f"{who} ended on {end:{_HOURS}}", where=where, help=advice)
    elif now < start:
        advice = "look at the clock here and where it was made"
        yield _error(codes.NOT_IN_FORCE, f"{who} is not valid before {start:{_HOURS}}", where=where, help=advice)


def _strength_findings(parsed: Parsed, who: str, where: str) -> Iterator[Diagnostic]:
    key = parsed.public_key
    bits = key_bits(key)
    match key:
        case None:
            yield _warning(codes.WEAK, f"{who} has a key of an unknown kind", where=where)
        case rsa.RSAPublicKey() if bits is not None and bits < _RSA_BITS:
            yield _error(
                codes.WEAK, f"{who} has an RSA key of {bits} bits; below {_RSA_BITS} it is refused", where=where
            )
        case ec.EllipticCurvePublicKey() if bits is not None and bits < _CURVE_BITS:
            yield _error(codes.WEAK, f"{who} has a key on a curve of {bits} bits", where=where)
        case dsa.DSAPublicKey():
            yield _error(codes.WEAK, f"{who} has a DSA key, which most stacks refuse", where=where)
        case _:
            pass
    # Nobody checks the signature that an anchor makes over itself.
    if parsed.digest in _FORGEABLE and not (parsed.is_ca and parsed.is_self_issued):
        yield _error(codes.WEAK, f"{who} is signed with {parsed.digest.upper()}, which can be forged", where=where)


def _name_findings(parsed: Parsed, who: str, where: str) -> Iterator[Diagnostic]:
    if parsed.is_ca:
        return
    if not parsed.general_names:
        yield _error(
            codes.NO_NAMES,
            f"{who} presents no name: it has no subjectAltName, and a common name is not looked at",
            where=where,
            help="issue it anew with the name as a DNS name",
        )
    for name in parsed.names[:100]:
        if not _is_name(name):
            yield _warning(codes.PROFILE, f"{who} presents `{_short(name)}`, which is no DNS name", where=where)


def _is_name(name: str) -> bool:
    try:
        DnsId.parse(name.removeprefix("*."))
    except InvalidIdentifier:
        return False
    return True


_KNOWN = frozenset(value for name, value in vars(ExtensionOID).items() if isinstance(value, x509.ObjectIdentifier))


def _profile_findings(parsed: Parsed, who: str, where: str) -> Iterator[Diagnostic]:
    if parsed.certificate.version is not x509.Version.v3:
        yield _warning(codes.PROFILE, f"{who} is not of version 3, so it says nothing about its use", where=where)
        return
    for oid, critical in parsed.criticality.items():
        if critical and oid not in _KNOWN:
            text = (
                f"{who} has the critical extension {oid.dotted_string}, which must be refused by who does not know it"
            )
            yield _error(codes.PROFILE, text, where=where)
    yield from _authority_findings(parsed, who, where) if parsed.is_ca else _leaf_findings(parsed, who, where)


def _authority_findings(parsed: Parsed, who: str, where: str) -> Iterator[Diagnostic]:
    if ExtensionOID.KEY_USAGE in parsed.criticality and "key_cert_sign" not in parsed.key_usages:
        yield _error(codes.USE, f"{who} is a CA that may not sign certificates (keyCertSign)", where=where)
    if parsed.criticality.get(ExtensionOID.BASIC_CONSTRAINTS) is False:
        yield _warning(codes.PROFILE, f"{who} is a CA whose basic constraints are not critical", where=where)
    if parsed.criticality.get(ExtensionOID.NAME_CONSTRAINTS) is False:
        yield _warning(codes.PROFILE, f"{who} has name constraints that are not critical", where=where)
    if parsed.subject_key_identifier is None:
        text = f"{who} has no subject key identifier; of two CAs with one name OpenSSL then takes the first"
        yield _warning(codes.PROFILE, text, where=where)


def _leaf_findings(parsed: Parsed, who: str, where: str) -> Iterator[Diagnostic]:
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    if not parsed.usage_oids:
        yield _warning(codes.USE, f"{who} does not say whether it is for servers or for clients", where=where)
    elif not (wanted | {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}) & parsed.usage_oids:
        yield _error(codes.USE, f"{who} is neither for servers nor for clients", where=where)
    if ExtensionOID.KEY_USAGE in parsed.criticality and "digital_signature" not in parsed.key_usages:
        yield _error(codes.USE, f"{who} may not sign a handshake (digitalSignature)", where=where)
    if parsed.authority_key_identifier is None and not parsed.is_self_issued:
        yield _warning(codes.PROFILE, f"{who} has no authority key identifier; Python 3.13 refuses it", where=where)


# --- chains ---------------------------------------------------------------------------------------------------------


def _chains_findings(context: _Context) -> Iterator[Diagnostic]:
    contents = context.contents
    chains = {chain: None for chain in (contents.chain, *(key.chain for key in contents.keys)) if chain}
    for number, chain in enumerate(chains):
        if number == CHAINS_CHECKED:
            text = f"of {len(chains):,} chains only the first {CHAINS_CHECKED} were checked"
            yield _warning(codes.NOT_SIGNED, text)
            return
        yield from _chain_findings(context, chain)


def _chain_findings(context: _Context, chain: tuple[int, ...]) -> Iterator[Diagnostic]:
    if len(chain) > CHAIN_LIMIT:
        text = f"a chain of {len(chain)} certificates; above {CHAIN_LIMIT} none is accepted"
        yield _error(codes.CHAIN_ORDER, text)
        return
    out_of_order = tuple(_order_findings(context, chain))
    yield from out_of_order
    if not out_of_order:
        for below, above in pairwise(chain):
            yield from _link_findings(context, context.who(below), context.parsed(below), context.parsed(above))
        for above in chain[1:]:
            yield from _constraint_findings(context, chain[0], context.parsed(above))
        yield from _end_findings(context, chain)


def _order_findings(context: _Context, chain: tuple[int, ...]) -> Iterator[Diagnostic]:
    advice = "put the end entity first, then the CA that signed it, and so on"
    held = [context.parsed(place) for place in chain]
    ends = [place for place, one in zip(chain, held, strict=True) if not one.is_ca]
    if ends and held[0].is_ca:
        text = f"the chain begins with {context.who(chain[0])}, a CA; {context.who(ends[0])} belongs before it"
        yield _error(codes.CHAIN_ORDER, text, where=f"certificate {chain[0] + 1}", help=advice)
        return
    for at, one in enumerate(held[1:], start=1):
        if held[at - 1].issuer != one.subject:
            kind = "stands in the wrong place" if one.subject in {each.issuer for each in held} else "has no place"
            text = f"{context.who(chain[at])} {kind} in the chain: it did not sign {context.who(chain[at - 1])}"
            yield _error(codes.CHAIN_ORDER, text, where=f"certificate {chain[at] + 1}", help=advice)


def _link_findings(context: _Context, who: str, below: Parsed, above: Parsed) -> Iterator[Diagnostic]:
    signer = _short(label_of(above.subject))
    holds = signed_by(below, above)
    if holds is None:
        yield _warning(codes.NOT_SIGNED, f"whether {signer} signed {who} cannot be told: the scheme is not known here")
    if holds is False:
        yield _error(codes.NOT_SIGNED, f"{who} is not signed by the key of {signer}")
        return
    may_sign = ExtensionOID.KEY_USAGE not in above.criticality or "key_cert_sign" in above.key_usages
    if not above.is_ca or not may_sign:
        yield _error(codes.CONSTRAINED, f"{who} is signed by {signer}, which is not a CA that may sign certificates")
    if below.is_ca and above.path_length == 0:
        yield _error(codes.CONSTRAINED, f"{who} is a CA below {signer}, which allows none (path length 0)")
    if below.not_after > above.not_after and context.now < above.not_after:
        text = f"{who} outlives {signer}, which ends on {above.not_after:{_HOURS}}"
        yield _warning(codes.NOT_IN_FORCE, text)


def _constraint_findings(context: _Context, place: int, above: Parsed) -> Iterator[Diagnostic]:
    for text in islice(outside_findings(context.parsed(place), above), 10):
        yield _error(codes.CONSTRAINED, f"{context.who(place)}: {text}", where=f"certificate {place + 1}")


def _end_findings(context: _Context, chain: tuple[int, ...]) -> Iterator[Diagnostic]:
    last = context.parsed(chain[-1])
    if last.is_self_issued:
        if signed_by(last, last) is False:
            yield _error(
                codes.NOT_SIGNED, f"{context.who(chain[-1])} names itself as its issuer and did not sign itself"
            )
        return
    ours = [one for one in context.authorities if one.subject == last.issuer]
    signers = [one for one in ours if signed_by(last, one)]
    for above in signers[:1]:
        yield from _link_findings(context, context.who(chain[-1]), last, above)
        yield from _constraint_findings(context, chain[0], above)
    # Above an intermediate CA nothing has to be sent: who believes the root has it.
    if not ours and not last.is_ca:
        yield _warning(
            codes.CHAIN_OPEN,
            f"the chain ends at {context.who(chain[-1])}, signed by `{_short(label_of(last.issuer))}`, which is "
            "neither here nor a CA of an estate that was found",
            help="if that is an intermediate CA, its certificate belongs behind this one",
        )


def _use_findings(context: _Context, server_name: str | None) -> Iterator[Diagnostic]:
    contents = context.contents
    ends = [at for at in (*contents.chain[:1], *contents.anchors) if not context.parsed(at).is_ca]
    ends += [key.chain[0] for key in contents.keys if key.chain and not contents.chain]
    if not ends:
        return
    leaf, who = context.parsed(ends[0]), context.who(ends[0])
    usable = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if contents.form is Form.TLS and leaf.usage_oids and not leaf.usage_oids & usable:
        yield _error(
            codes.USE, f"{who} is served and is not for servers (serverAuth)", where=f"certificate {ends[0] + 1}"
        )
    if server_name is not None and leaf.general_names and not presents(leaf, server_name):
        yield _error(
            codes.NAME_MISSING,
            f"{who} does not present {server_name}",
            where=f"certificate {ends[0] + 1}",
            help="ask for one of its names with --server-name, or add the name where it is issued",
        )


# --- requests and revocation lists ----------------------------------------------------------------------------------


def _request_findings(one: HeldRequest, number: int) -> Iterator[Diagnostic]:
    where = f"request {number}"
    if one.is_proven is None:
        yield _warning(codes.POSSESSION, "whether its key signed the request cannot be told", where=where)
    if one.is_proven is False:
        yield _error(
            codes.POSSESSION,
            "the request is not signed by the key that it asks for: whoever made it may not have the key",
            where=where,
            help="have it made anew by who holds the key",
        )
    yield from _weak_key(one.algorithm, "the key of the request")
    if one.digest in _FORGEABLE:
        yield _warning(codes.WEAK, f"the request is signed with {one.digest.upper()}", where=where)


def _list_findings(context: _Context, one: HeldList, number: int) -> Iterator[Diagnostic]:
    where, now = f"revocation list {number}", context.now
    if one.next_update is None:
        yield _warning(codes.REVOCATION_LIST, "the list does not say when the next one is due", where=where)
    elif now >= one.next_update:
        text = f"the list is out of date since {one.next_update:{_HOURS}}: servers that use it refuse every caller"
        yield _error(codes.REVOCATION_LIST, text, where=where, help="publish a new one")
    if now < one.this_update:
        text = f"the list is not valid before {one.this_update:{_HOURS}}"
        yield _error(codes.REVOCATION_LIST, text, where=where)
    if one.number is None:
        yield _warning(codes.REVOCATION_LIST, "the list has no number (RFC 5280 section 5.2.3)", where=where)
    issuers = [held.parsed for held in context.contents.certificates] + list(context.authorities)
    named = [issuer for issuer in issuers if issuer.subject == one.value.issuer]
    if named and all(one.signed_by(issuer) is False for issuer in named[:CHAIN_LIMIT]):
        text = f"the list names {_short(one.issuer)} as its issuer, whose key did not sign it"
        yield _error(codes.REVOCATION_LIST, text, where=where)
