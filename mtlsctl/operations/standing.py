"""What a certificate, a key or a name of a CA is to an estate, and who there trusts it: from the state alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.credential import AuthorityId, CertificationAuthority, Credential, CredentialId, KeyUsage
from mtlsctl.model.topology import ListenerId
from mtlsctl.model.trust import EVERYBODY, Member, OutsideAnchor
from mtlsctl.operations.outside import outside_anchors, outside_certificate
from mtlsctl.pki.asn1 import name_text
from mtlsctl.pki.inspect import USAGE_OIDS, parse_certificate, signed_by
from mtlsctl.pki.outside import comparable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mtlsctl.model.release import Recipe
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.pki.inspect import Parsed
    from mtlsctl.store.port import Signature, StateReader

CANDIDATE_LIMIT = 20
"""CAs of one name that are compared: there is one generation of each in an estate that is well."""


class Role(StrEnum):
    """What something is to the estate."""

    AUTHORITY = "authority"
    """One of its CAs."""
    LIVE = "live"
    """The certificate, or its key, that an instance presents."""
    WAITING = "waiting"
    """Issued and not live yet."""
    EARLIER = "earlier"
    """Issued once, and followed by another."""
    PROBE = "probe"
    """Made for a verification."""
    UNRECORDED = "unrecorded"
    """Signed by one of its CAs, and the state does not know of it."""
    IMITATION = "imitation"
    """Named like one of its CAs, or as if signed by it, with another key."""
    OUTSIDE = "outside"
    """A CA of somebody outside that something here trusts."""
    OUTSIDE_MEMBER = "outside member"
    """Signed by such a CA itself."""
    SAME_KEY = "same key"
    """Another certificate for a key that the estate knows."""
    STRANGER = "stranger"
    """Nothing of the estate's."""


class Admitting(NamedTuple):
    """A listener of an instance that lets in who presents the certificate, as its live release says.

    `members` are the services that it lets in by name, where the CA alone does not decide; None of a single leaf.
    """

    instance: InstanceId
    listener: str
    ports: tuple[int, ...]
    members: tuple[str, ...] | None = None


class Believing(NamedTuple):
    """An instance that believes the certificate at a server, as its live release says."""

    caller: InstanceId
    listener: ListenerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`subject` is whom it belongs to: an authority, an instance or, where neither is known, None.

    `signer` is the CA of the estate whose key signed it, None for a pinned leaf, which signs itself. `admits` and
    `believes` are what it opens now: both are empty for a certificate that is not in force. `outside` are the callers
    and servers outside whose CA it is, or whose CA signed it.
    """

    role: Role = Role.STRANGER
    subject: AuthorityId | InstanceId | None = None
    sequence: int | None = None
    signer: AuthorityId | None = None
    outside: tuple[str, ...] = ()
    admits: tuple[Admitting, ...] = ()
    believes: tuple[Believing, ...] = ()


@dataclass(frozen=True, slots=True)
class Estate:
    """An estate as it can be asked about what was found somewhere."""

    state: State
    reader: StateReader
    _by_digest: dict[str, CertificationAuthority | Credential]
    _by_key: dict[str, CertificationAuthority | Credential]
    _by_name: dict[str, list[AuthorityId]]
    _beyond: tuple[OutsideAnchor, ...]
    _parsed: dict[TrustAnchor, Parsed] = field(default_factory=dict)
    _signatures: list[dict[str, Signature]] = field(default_factory=list)

    @classmethod
    def read(cls, reader: StateReader) -> Estate:
        state = reader.snapshot()
        known: list[CertificationAuthority | Credential] = [*state.credentials.values(), *state.authorities.values()]
        names: dict[str, list[AuthorityId]] = {}
        for one in sorted(state.authorities.values(), key=lambda one: one.id):
            names.setdefault(one.profile.common_name, []).append(one.id)
        return cls(
            state,
            reader,
            {one.certificate_sha256: one for one in known},
            {one.spki_sha256: one for one in known},
            names,
            tuple(sorted(outside_anchors(live.recipe for live in state.live.values()))),
        )

    def anchor(self, wanted: TrustAnchor) -> Parsed:
        """The certificate of one of its CAs or leaves, or of a CA from outside, read once."""
        if wanted not in self._parsed:
            match wanted:
                case OutsideAnchor():
                    der = outside_certificate(self.reader, wanted)
                case _:
                    der = self.reader.certificate(wanted)
            self._parsed[wanted] = parse_certificate(der)
        return self._parsed[wanted]

    def authorities_named(self, common_names: Sequence[str]) -> tuple[AuthorityId, ...]:
        """Those whose whole name is the one common name; one of its CAs has no other kind of name."""
        return tuple(self._by_name.get(common_names[0], ())[:CANDIDATE_LIMIT]) if len(common_names) == 1 else ()

    def named(self, name_der: bytes) -> AuthorityId | None:
        """The CA that a server means when it asks for certificates by this name."""
        text = name_text(name_der) or ""
        wanted = self.authorities_named((text.removeprefix("CN="),)) if text.startswith("CN=") else ()
        return next((one for one in wanted if self.anchor(one).subject.public_bytes() == name_der), None)

    def above(self, certificates: Sequence[Parsed]) -> tuple[Parsed, ...]:
        """Its CAs that certificates name as their issuer."""
        names = {one.issuer_common_names for one in certificates}
        wanted = {authority for name in names for authority in self.authorities_named(name)}
        return tuple(self.anchor(one) for one in sorted(wanted))

    def standing(self, parsed: Parsed, now: datetime) -> Standing:
        """What a certificate is here, and who trusts it now."""
        return (
            self._known(parsed, now)
            or self._shown(parsed)
            or self._signed(parsed, now)
            or self._from_outside(parsed, now)
            or self._resembling(parsed)
        )

    def standing_of_key(self, spki_sha256: str | None) -> Standing:
        """What a key is here: of a CA, of an instance, or nothing."""
        match self._by_key.get(spki_sha256 or ""):
            case CertificationAuthority() as authority:
                return Standing(role=Role.AUTHORITY, subject=authority.id)
            case Credential() as credential:
                return self._of(credential)
            case None:
                return Standing()

    def _known(self, parsed: Parsed, now: datetime) -> Standing | None:
        match self._by_digest.get(parsed.sha256):
            case CertificationAuthority() as authority:
                found = Standing(role=Role.AUTHORITY, subject=authority.id, signer=authority.id)
                return self._with_trust(found, [authority.id], parsed, now)
            case Credential() as credential:
                return self._with_trust(self._of(credential), [credential.profile.anchor], parsed, now)
            case None:
                return None

    def _shown(self, parsed: Parsed) -> Standing | None:
        """Issued by somebody else, and shown by a listener here; callers believe it by CAs that may be anybody's."""
        lives = [live.recipe for _, live in sorted(self.state.live.items())]
        for recipe in lives:
            for served in recipe.listeners:
                if served.shows is not None and served.shows.leaf == parsed.sha256:
                    door = ListenerId(recipe.instance.service, served.name)
                    callers = (one.instance for one in lives if one.called(door) is not None)
                    believes = tuple(Believing(caller, door) for caller in callers)
                    return Standing(role=Role.LIVE, subject=recipe.instance, believes=believes)
        return None

    def _of(self, credential: Credential) -> Standing:
        live = self.state.live.get(credential.id.instance)
        is_live = live is not None and live.recipe.credential == credential.id
        return Standing(
            role=Role.LIVE if is_live else Role.WAITING,
            subject=credential.id.instance,
            sequence=credential.id.sequence,
            signer=None if credential.profile.authority.is_leaf else credential.profile.authority,
        )

    def _signed(self, parsed: Parsed, now: datetime) -> Standing | None:
        """Signed here, and not among what is live or newest: the record of signatures says what it was."""
        named = self.authorities_named(parsed.issuer_common_names)
        signer = next((one for one in named if signed_by(parsed, self.anchor(one))), None)
        is_own = parsed.is_self_issued and signed_by(parsed, parsed) is True
        if signer is None and not is_own:
            return Standing(role=Role.IMITATION) if named else None
        signature = self._recorded(hashlib.sha256(parsed.certificate.tbs_certificate_bytes).hexdigest())
        match signature.intent.subject if signature is not None else None:
            case CredentialId() as credential:
                found = Standing(
                    role=Role.EARLIER, subject=credential.instance, sequence=credential.sequence, signer=signer
                )
                return self._with_trust(found, [credential if signer is None else signer], parsed, now)
            case str() if signer is not None:
                return self._with_trust(Standing(role=Role.PROBE, signer=signer), [signer], parsed, now)
            case _ if signer is not None:
                return self._with_trust(Standing(role=Role.UNRECORDED, signer=signer), [signer], parsed, now)
            case _:
                return None

    def _recorded(self, to_be_signed_sha256: str) -> Signature | None:
        if not self._signatures:
            self._signatures.append({one.intent.to_be_signed_sha256: one for one in self.reader.signatures()})
        return self._signatures[0].get(to_be_signed_sha256)

    def _from_outside(self, parsed: Parsed, now: datetime) -> Standing | None:
        role = Role.OUTSIDE
        anchors = [one for one in self._beyond if one.sha256 == parsed.sha256]
        if not anchors:
            role = Role.OUTSIDE_MEMBER
            named = (one for one in self._beyond if self.anchor(one).subject == parsed.issuer)
            anchors = [one for one in named if signed_by(parsed, self.anchor(one))]
        found = Standing(role=role, outside=tuple(sorted({one.name for one in anchors})))
        return self._with_trust(found, anchors, parsed, now) if anchors else None

    def _resembling(self, parsed: Parsed) -> Standing:
        key = self.standing_of_key(parsed.spki_sha256)
        if key.subject is not None:
            return Standing(role=Role.SAME_KEY, subject=key.subject, sequence=key.sequence)
        is_alike = parsed.is_ca and bool(self.authorities_named(parsed.common_names))
        return Standing(role=Role.IMITATION if is_alike else Role.STRANGER)

    def _with_trust(self, found: Standing, anchors: Sequence[TrustAnchor], parsed: Parsed, now: datetime) -> Standing:
        if not parsed.not_before <= now < parsed.not_after:
            return found
        recipes = [live.recipe for _, live in sorted(self.state.live.items())]
        may = {usage for usage, oid in USAGE_OIDS.items() if oid in parsed.usage_oids or not parsed.usage_oids}
        leaf = None if found.role in {Role.AUTHORITY, Role.OUTSIDE} else parsed
        admits = [one for anchor in anchors for one in _admitting(recipes, anchor, leaf)]
        believes = [one for anchor in anchors for one in _believing(recipes, anchor, leaf)]
        return replace(
            found,
            admits=tuple(dict.fromkeys(admits)) if KeyUsage.CLIENT_AUTH in may else (),
            believes=tuple(dict.fromkeys(believes)) if KeyUsage.SERVER_AUTH in may else (),
        )


def _admitting(recipes: Sequence[Recipe], anchor: TrustAnchor, leaf: Parsed | None) -> Iterator[Admitting]:
    """Listeners that trust an anchor; of a leaf only those that let in its name under it."""
    for recipe in recipes:
        for served in recipe.listeners:
            if anchor not in served.policy.anchors:
                continue
            members = served.policy.members
            ports = tuple(socket.port for socket in served.sockets)
            under = None if members is None else {one for one in members if one.anchor == anchor}
            is_open = under is None or Member(anchor, EVERYBODY) in under
            if leaf is None:
                names = tuple(sorted(one.name for one in under or ()))
                yield Admitting(recipe.instance, served.name, ports, None if is_open else names)
            elif is_open or comparable(leaf.subject) in {one.subject for one in under or ()}:
                yield Admitting(recipe.instance, served.name, ports)


def _believing(recipes: Sequence[Recipe], anchor: TrustAnchor, leaf: Parsed | None) -> Iterator[Believing]:
    """Callers that trust an anchor; they check the name too, and believe a leaf only where it presents it."""
    for recipe in recipes:
        for callee in recipe.callees:
            if anchor in callee.policy.anchors and (leaf is None or callee.server_name in leaf.names):
                yield Believing(recipe.instance, callee.listener)
