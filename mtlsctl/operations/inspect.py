"""What a file or a server is, who trusts it in this estate, and what is wrong with it. Changes nothing anywhere."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.errors import InspectionError, PreflightError, UsageError
from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.identifiers import DnsId, InvalidIdentifier, IpId
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import ClientCertificate, InstanceId
from mtlsctl.model.trust import in_order
from mtlsctl.operations.standing import Estate, Role, Standing
from mtlsctl.pki import codes
from mtlsctl.pki.asn1 import name_text
from mtlsctl.pki.contents import FILE_LIMIT, Passwords, from_chain, read_contents
from mtlsctl.pki.findings import judge
from mtlsctl.pki.inspect import facts_of
from mtlsctl.verify.handshake import CERTIFICATE_ALERTS, Ending
from mtlsctl.verify.identity import Identity, identity_of
from mtlsctl.verify.look import check_identity, look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import BinaryIO

    from mtlsctl.model.credential import AuthorityId
    from mtlsctl.model.release import ServedListener
    from mtlsctl.model.state import Live
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.pki.contents import Contents, HeldList
    from mtlsctl.pki.inspect import CertificateFacts, Parsed
    from mtlsctl.store.port import StateReader
    from mtlsctl.verify.look import Look
    from mtlsctl.verify.wire import FirstFlight

STDIN = "-"
_ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})")
_HIGHEST_PORT = 65535
_SHOWN = 3
_ERRORS_EXIT = 1
REFUSALS = CERTIFICATE_ALERTS | {"handshake_failure"}
"""Alerts that answer a caller without a certificate; TLS 1.2 has none of its own for that (RFC 5246 section 7.4.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtHand:
    """The estate that the working directory belongs to. Without one `reader` is None and `why_not` says why."""

    reader: StateReader | None
    why_not: str | None = None
    workspace: Callable[[], Workspace] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked: a file (`-` is standard input) or HOST:PORT, and what to bring along.

    `key` of a file is what is to belong to its certificate; of a server it goes with `certificate`. `bearer` is
    `SERVICE[@HOST]`, whose delivered key is used at a server.
    """

    target: str
    server_name: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    bearer: str | None = None


class AskedName(NamedTuple):
    """A CA that a server asks for: its name (DER, and as RFC 4514 writes it), and which anchor of the estate it is."""

    der: bytes
    text: str
    anchor: TrustAnchor | None


class Door(NamedTuple):
    """A listener of the estate at the address that was asked."""

    live: Live
    served: ServedListener


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What was seen of a server. `door` is what the estate has there; `name_from` says why that name was asked for.

    `ca_names` None: it asks for no certificate, or (`asks` None) that cannot be told.
    """

    look: Look
    name_from: str
    door: Door | None
    asks: bool | None
    ca_names: tuple[AskedName, ...] | None
    bearer: str | None

    @property
    def requires(self) -> bool | None:
        """Whether a client certificate is required, as far as one request without any shows; None when it does not."""
        seen = self.look.without
        if not self.asks or seen is None:
            return self.asks
        if seen.ending is Ending.ANSWERED:
            return seen.refusal_page
        return True if seen.ending is Ending.ALERT and seen.detail in REFUSALS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found. `standings` and `facts` go with the certificates, `key_standings` with the keys.

    `estate` is (name, lineage, serial), None without one; then `why_no_estate` says why.
    """

    target: str
    contents: Contents
    facts: tuple[CertificateFacts, ...]
    standings: tuple[Standing, ...]
    key_standings: tuple[Standing, ...]
    request_standings: tuple[Standing, ...]
    list_signers: tuple[AuthorityId | None, ...]
    findings: tuple[Diagnostic, ...]
    now: datetime
    served: Served | None = None
    estate: tuple[str, str, int] | None = None
    why_no_estate: str | None = None

    @property
    def exit_code(self) -> int:
        """1 when something is wrong; warnings alone are no failure."""
        return _ERRORS_EXIT if any(one.severity is Severity.ERROR for one in self.findings) else 0


def inspect(asked: Asked, at_hand: AtHand, passwords: Passwords, now: datetime, stdin: BinaryIO) -> Inspection:
    """Look at a file or a server.

    Raises UsageError when it is neither (M9107), when flags do not go together (M9108) or name nobody (M9109);
    InspectionError when it cannot be read or does not answer; OSError from the file.
    """
    place = endpoint_of(asked.target)
    estate = None if at_hand.reader is None else Estate.read(at_hand.reader)
    if place is None:
        found = _inspect_file(asked, estate, passwords, now, stdin)
    else:
        found = _inspect_server(asked, place, estate, at_hand, now)
    if estate is None:
        return replace(found, why_no_estate=at_hand.why_not)
    return replace(found, estate=(estate.state.estate, estate.state.lineage, estate.state.serial))


def endpoint_of(target: str) -> tuple[str, int] | None:
    """(host, port), or None for a file; what exists is a file. Raises UsageError M9107 for what is neither."""
    if target == STDIN or _exists(target):
        return None
    found = _ENDPOINT.fullmatch(target)
    if found is None or not 0 < int(found[2]) <= _HIGHEST_PORT:
        raise UsageError(
            f"there is no file {target[:200]}, and it is not HOST:PORT",
            code="M9107",
            help="mtlsctl inspect FILE, or mtlsctl inspect schedule.example.com:8443",
        )
    return _host(found[1].strip("[]")), int(found[2])


def _exists(target: str) -> bool:
    try:
        return Path(target).exists()
    except (OSError, ValueError):
        return False


def _host(text: str) -> str:
    """A DNS name or an address in its canonical form; raises UsageError M9107."""
    for kind in (IpId, DnsId):
        try:
            return kind.parse(text).value
        except InvalidIdentifier:
            continue
    raise UsageError(f"`{text[:100]}` is neither a DNS name nor an address", code="M9107")


def _checked_name(asked: Asked) -> str | None:
    return None if asked.server_name is None else _host(asked.server_name)


# --- files ----------------------------------------------------------------------------------------------------------


def _inspect_file(
    asked: Asked, estate: Estate | None, passwords: Passwords, now: datetime, stdin: BinaryIO
) -> Inspection:
    if asked.certificate is not None or asked.bearer is not None:
        raise UsageError(
            "--certificate and --as are for servers", code="M9108", help="of a file only --key and --server-name count"
        )
    server_name = _checked_name(asked)
    contents = read_contents(_read(asked.target, stdin), passwords)
    beside = () if asked.key is None else _key_beside(contents, asked.key, passwords)
    found = _judged(asked.target, contents, estate, now, server_name)
    return replace(found, findings=(*beside, *found.findings))


def _read(target: str, stdin: BinaryIO) -> bytes:
    """At most one byte more than a file may have: `read_contents` refuses it then."""
    if target == STDIN:
        return stdin.read(FILE_LIMIT + 1)
    with Path(target).open("rb") as file:
        return file.read(FILE_LIMIT + 1)


def _key_beside(contents: Contents, file: Path, passwords: Passwords) -> tuple[Diagnostic, ...]:
    """Whether a private key in another file belongs to the first certificate of this one."""
    held = read_contents(_read(str(file), _nowhere()), passwords)
    known = [one.spki_sha256 for one in held.keys if one.spki_sha256 is not None]
    if not known or not contents.certificates:
        raise UsageError(
            f"{file} holds no private key that can be read" if not known else "there is no certificate beside it",
            code="M9108",
            help="--key FILE is the private key that is to belong to the certificate",
        )
    if contents.certificates[0].parsed.spki_sha256 in known:
        return ()
    message = f"the private key in {file} does not belong to the certificate"
    return (Diagnostic(code=codes.KEY_BESIDE, message=message, label="certificate 1"),)


def _nowhere() -> BinaryIO:
    from io import BytesIO

    return BytesIO()


def _judged(
    target: str, contents: Contents, estate: Estate | None, now: datetime, server_name: str | None
) -> Inspection:
    held = [one.parsed for one in contents.certificates]
    authorities = () if estate is None else (*estate.above(held), *_issuers_of_lists(contents, estate))
    standings = tuple(Standing() if estate is None else estate.standing(one, now) for one in held)
    keys = tuple(
        Standing() if estate is None else estate.standing_of_key(one.spki_sha256)
        for one in (*contents.keys, *contents.public_keys)
    )
    requests = tuple(
        Standing() if estate is None else estate.standing_of_key(one.spki_sha256) for one in contents.requests
    )
    signers = tuple(None if estate is None else _signer_of(one, estate) for one in contents.lists)
    findings = judge(contents, now=now, authorities=authorities, server_name=server_name)
    return Inspection(
        target=target,
        contents=contents,
        facts=tuple(map(facts_of, held)),
        standings=standings,
        key_standings=keys,
        request_standings=requests,
        list_signers=signers,
        findings=(*findings, *_estate_findings(contents, standings, keys)),
        now=now,
    )


def _issuers_of_lists(contents: Contents, estate: Estate) -> tuple[Parsed, ...]:
    wanted = {one for held in contents.lists for one in estate.authorities_named(held.issuer_common_names)}
    return tuple(estate.anchor(one) for one in sorted(wanted))


def _signer_of(held: HeldList, estate: Estate) -> AuthorityId | None:
    named = estate.authorities_named(held.issuer_common_names)
    return next((one for one in named if held.signed_by(estate.anchor(one))), None)


def _estate_findings(
    contents: Contents, standings: tuple[Standing, ...], keys: tuple[Standing, ...]
) -> Iterator[Diagnostic]:
    for number, (held, standing) in enumerate(zip(contents.certificates, standings, strict=True), start=1):
        where, issuer = f"certificate {number}", " ".join(held.parsed.issuer_common_names)
        if standing.role is Role.IMITATION:
            yield Diagnostic(
                code=codes.IMITATION,
                message=f"{where} bears the name of this estate's CA `{issuer[:80]}`, whose key did not sign it",
                label=where,
                help="nobody here trusts it; it may be of an earlier lineage or of a state that was lost",
            )
        if standing.role is Role.UNRECORDED:
            yield Diagnostic(
                code=codes.UNRECORDED,
                message=f"{where} was signed by {standing.signer}, and the state does not know of it",
                label=where,
                help="unless an older backup was restored, somebody else has the CA's key: raise its `generation`",
            )
    for number, standing in enumerate(keys[: len(contents.keys)], start=1):
        if standing.role is Role.AUTHORITY:
            yield Diagnostic(
                code=codes.KEY_IN_CLEAR,
                message=f"key {number} is the private key of {standing.subject}: who has this file can sign for it",
                label=f"key {number}",
                help="destroy the file and raise the `generation` of that CA",
            )


# --- servers --------------------------------------------------------------------------------------------------------


def _inspect_server(
    asked: Asked, place: tuple[str, int], estate: Estate | None, at_hand: AtHand, now: datetime
) -> Inspection:
    identity, bearer = _identity(asked, estate, at_hand)
    given = _checked_name(asked)
    doors = [] if estate is None else _doors(estate, *place)
    name, name_from = _name_to_ask(given, place[0], doors)
    look = look_at(*place, name, identity)
    door = next((one for one in doors if name in one.live.recipe.server_names), None)
    flight = look.newest
    names = _asked_names(look, door, estate)
    served = Served(
        look=look,
        name_from=name_from,
        door=door,
        asks=None if flight is None else flight.asks,
        ca_names=names,
        bearer=bearer,
    )
    found = _judged(asked.target, from_chain(() if flight is None else flight.chain), estate, now, name)
    return replace(found, served=served, findings=(*found.findings, *_server_findings(served, estate)))


def _name_to_ask(given: str | None, host: str, doors: list[Door]) -> tuple[str, str]:
    """What was given, the name that was typed, or the one that the estate's server at this address has."""
    if given is not None:
        return given, "given"
    if doors and host not in doors[0].live.recipe.server_names:
        return doors[0].live.recipe.server_names[0], "estate"
    return host, "target"


def _doors(estate: Estate, host: str, port: int) -> list[Door]:
    """Live listeners of the estate at an address or a name."""
    found = []
    for instance, live in sorted(estate.state.live.items()):
        at = estate.state.hosts[instance.host].address if instance.host in estate.state.hosts else None
        for served in live.recipe.listeners:
            places = {(socket.address or at, socket.port) for socket in served.sockets}
            named = host in live.recipe.server_names and port in {socket.port for socket in served.sockets}
            if (host, port) in places or named:
                found.append(Door(live, served))
    return found


def _asked_names(look: Look, door: Door | None, estate: Estate | None) -> tuple[AskedName, ...] | None:
    """Of the newest version that shows any; None when no certificate is asked for, or nothing can be told."""
    flights: list[FirstFlight] = [one.flight for one in reversed(look.greetings) if one.flight is not None]
    names = next((one.ca_names for one in flights if one.ca_names is not None), None)
    if names is None:
        return None
    expected = {} if door is None or estate is None else _expected_names(door, estate)
    return tuple(
        AskedName(name, name_text(name) or "unreadable", expected.get(name) or (estate.named(name) if estate else None))
        for name in names
    )


def _expected_names(door: Door, estate: Estate) -> dict[bytes, TrustAnchor]:
    """What a listener is to ask for: the subjects of its anchors; several pinned leaves have one."""
    anchors = in_order(door.served.policy.anchors)
    return {estate.anchor(one).subject.public_bytes(): one for one in reversed(anchors)}


def _identity(asked: Asked, estate: Estate | None, at_hand: AtHand) -> tuple[Identity | None, str | None]:
    if asked.bearer is not None and (asked.certificate is not None or asked.key is not None):
        raise UsageError("--as and --certificate are two ways to the same", code="M9108", help="give one of them")
    if (asked.certificate is None) != (asked.key is None):
        raise UsageError("--certificate and --key go together", code="M9108", help="--certificate CHAIN --key KEY")
    if asked.bearer is not None:
        return _delivered(asked.bearer, estate, at_hand)
    if asked.certificate is None or asked.key is None:
        return None, None
    return _from_files(asked.certificate, asked.key), str(asked.certificate)


def _from_files(certificate: Path, key: Path) -> Identity:
    from mtlsctl.pki.keys import load_private, private_pem
    from mtlsctl.pki.stores import to_pem

    chain = read_contents(_read(str(certificate), _nowhere()), Passwords()).certificates
    if not chain:
        raise UsageError(f"{certificate} holds no certificate", code="M9108")
    try:
        pem = private_pem(load_private(Secret(_read(str(key), _nowhere()))))
    except PreflightError as error:
        raise UsageError(f"{key}: {error.message}", code="M9108") from None
    identity = Identity(chain=to_pem([one.parsed.der for one in chain]), key=pem)
    return _fitting(identity, f"{key} does not belong to {certificate}")


def _fitting(identity: Identity, complaint: str) -> Identity:
    try:
        check_identity(identity)
    except ssl.SSLError:
        raise InspectionError(complaint, code=codes.KEY_BESIDE) from None
    return identity


def _delivered(bearer: str, estate: Estate | None, at_hand: AtHand) -> tuple[Identity, str]:
    """The key of a live instance, as its host holds it now: one that is a folder."""
    from mtlsctl.operations.verify import AppliedFiles

    if estate is None or at_hand.workspace is None:
        raise UsageError("--as needs an estate, and none was found", code="M9109", help=at_hand.why_not)
    service, _, host = bearer.partition("@")
    known = [one for one in sorted(estate.state.live) if one.service == service and host in ("", one.host)]
    if len(known) != 1:
        names = ", ".join(str(one) for one in known[:_SHOWN]) or "no such instance is live"
        raise UsageError(
            f"--as {bearer[:100]} does not name one live instance: {names}", code="M9109", help="--as SERVICE@HOST"
        )
    instance = known[0]
    only = replace(estate.state, live={instance: estate.state.live[instance]})
    applied = AppliedFiles.read(at_hand.workspace(), only)
    if instance not in applied.files:
        raise UsageError(f"--as {instance}: {applied.missing[instance]}", code="M9109")
    files = applied.files[instance]
    return _fitting(identity_of(files), f"the delivered key of {instance} does not belong to its certificate"), str(
        instance
    )


def _server_findings(served: Served, estate: Estate | None) -> Iterator[Diagnostic]:
    look = served.look
    if look.newest is None:
        reasons = "; ".join(f"TLS {one.protocol}: {one.reason or 'no certificate'}" for one in look.greetings)
        yield Diagnostic(
            code=codes.NO_HANDSHAKE,
            message=f"it refuses whoever asks for {look.server_name} ({reasons})",
            help="ask for another name with --server-name, or look whether anybody is to be let in there",
        )
        return
    if served.door is not None and estate is not None:
        yield from _door_findings(served, served.door, estate, look.newest)


def _door_findings(served: Served, door: Door, estate: Estate, flight: FirstFlight) -> Iterator[Diagnostic]:
    import hashlib

    instance: InstanceId = door.live.recipe.instance
    credential = estate.state.credentials.get(door.live.recipe.credential)
    shown = hashlib.sha256(flight.leaf_der or b"").hexdigest()
    own = None if credential is None else credential.certificate_sha256
    given = own if door.served.shows is None else door.served.shows.leaf
    if given is not None and shown != given:
        yield Diagnostic(
            code=codes.SERVES_OTHER,
            message=f"{instance} was given certificate {given[:16]} and serves {shown[:16]}",
            help="was the process reloaded, and does it read the files that were applied? mtlsctl verify tells more",
        )
    if door.served.client_certificate is not ClientCertificate.REQUIRED or served.asks is None:
        return
    if not served.asks:
        yield Diagnostic(
            code=codes.ASKS_OTHER,
            message=f"{instance} asks for no client certificate, and is to let in {_and(door.served.callers)} only",
            help="was the process reloaded? mtlsctl verify tries who gets in",
        )
    elif served.ca_names:
        yield from _name_findings(served.ca_names, door, estate)


def _name_findings(names: tuple[AskedName, ...], door: Door, estate: Estate) -> Iterator[Diagnostic]:
    """A server that names no CA at all lets nothing be told."""
    expected = _expected_names(door, estate)
    asked = {one.der for one in names}
    extra = [one.text[:80] for one in names if one.der not in expected]
    missing = [str(one) for der, one in expected.items() if der not in asked]
    verbs = ((extra, "asks for certificates of {}, which was not applied"), (missing, "does not ask for {}"))
    for which, verb in verbs:
        if which:
            more = f" and {len(which) - _SHOWN} more" if len(which) > _SHOWN else ""
            yield Diagnostic(
                code=codes.ASKS_OTHER,
                message=f"{door.live.recipe.instance} {verb.format(', '.join(which[:_SHOWN]) + more)}",
                help="was the process reloaded, and does anything else in its configuration trust more or less?",
            )


def _and(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nobody"
