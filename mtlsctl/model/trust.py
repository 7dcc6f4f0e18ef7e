"""Whom a listener lets in and whom a caller believes."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.credential import SHARED, AuthorityId, CredentialId, common_name_of_authority

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime


class OutsideAnchor(NamedTuple):
    """A certificate that somebody else made: under whose name the inventory has it, and the SHA-256 of its DER."""

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}'s certificate {self.sha256[:16]}"


TrustAnchor = AuthorityId | CredentialId | OutsideAnchor
"""A self-signed certificate that is trusted: a CA of ours or from outside, or under `pinned` a leaf."""

NAME_BYTES_WARN = 30_000
"""Above this a Java caller may fail: its handshake messages end at 32,768 bytes (`jdk.tls.maxHandshakeMessageSize`)."""

NAME_BYTES_LIMIT = 64_000
"""Above this every caller fails: the list of CA names has a two-byte length (RFC 8446 section 4.2.4)."""


def anchor_order(anchor: TrustAnchor) -> tuple[str, str, int, str]:
    """Sorts anchors of every kind: by service or outsider, CAs before leaves, then by host, number and digest."""
    match anchor:
        case AuthorityId():
            return anchor.service, "", anchor.generation, ""
        case CredentialId():
            return anchor.instance.service, anchor.instance.host, anchor.sequence, ""
        case OutsideAnchor():
            return anchor.name, "", 0, anchor.sha256


def in_order(anchors: Iterable[TrustAnchor]) -> list[TrustAnchor]:
    return sorted(anchors, key=anchor_order)


EVERYBODY = SHARED
"""Stands where a member's name does: whoever the anchor vouches for."""


class Member(NamedTuple):
    """Who is let in by name: the anchor's subject is its leaf's issuer, `name` says the leaf's subject.

    Of an anchor of ours `name` is a service, and `CN=<service>` the subject. Of one from outside it is an identity:
    the subject is `CN=<identity>`, or the identity itself where it holds `=`. EVERYBODY is no name: it stands for all
    that the anchor vouches for.
    """

    anchor: TrustAnchor
    name: str

    @property
    def subject(self) -> str:
        """The leaf's subject as RFC 4514 writes it; of EVERYBODY there is none."""
        is_whole = isinstance(self.anchor, OutsideAnchor) and "=" in self.name
        return self.name if is_whole else f"CN={self.name}"


def member_order(member: Member) -> tuple[object, ...]:
    """Sorts members: by name, then by anchor."""
    return member.name, anchor_order(member.anchor)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPolicy:
    """Anchors, and the members allowed under them; None allows every leaf that the anchors vouch for."""

    anchors: frozenset[TrustAnchor]
    members: frozenset[Member] | None = None

    @property
    def implied_members(self) -> frozenset[Member]:
        """The members, also where the anchors say them alone."""
        if self.members is not None:
            return self.members
        return frozenset([Member(one, vouched_for(one)) for one in self.anchors])

    @property
    def is_mixed(self) -> bool:
        """Whether names have to be compared under one anchor and must not be under another: no runtime does that."""
        return self.members is not None and any(one.name == EVERYBODY for one in self.members)

    @property
    def takes_members(self) -> bool:
        """Whether every service that the shared CA vouches for is let in."""
        if self.members is None:
            return SHARED in [one.service for one in self.anchors if isinstance(one, AuthorityId)]
        return any(one.name == EVERYBODY and _is_shared(one.anchor) for one in self.members)

    @property
    def outsiders(self) -> frozenset[str]:
        """The names of those whose anchors come from outside."""
        return frozenset([one.name for one in self.anchors if isinstance(one, OutsideAnchor)])


NOBODY = PeerPolicy(anchors=frozenset())


def policy_of(members: Iterable[Member]) -> PeerPolicy:
    """Just these members, by name where an anchor of theirs vouches for others too.

    Whoever lets in all members of the shared CA lets them in under each generation of it.
    """
    found = frozenset(members)
    everybody = {one.anchor for one in found if one.name == EVERYBODY}
    if any(_is_shared(one) for one in everybody):
        everybody.update(one.anchor for one in found if _is_shared(one.anchor))
    if everybody:
        named = (one for one in found if one.anchor not in everybody)
        found = frozenset([*named, *(Member(one, EVERYBODY) for one in everybody)])
    alone = PeerPolicy(anchors=frozenset([one.anchor for one in found]))
    return alone if alone.implied_members == found else PeerPolicy(anchors=alone.anchors, members=found)


def _is_shared(anchor: TrustAnchor) -> bool:
    return isinstance(anchor, AuthorityId) and anchor.service == SHARED


def vouched_for(anchor: TrustAnchor) -> str:
    """The only service that an anchor vouches for; EVERYBODY for the CA of many and for every one from outside."""
    match anchor:
        case AuthorityId():
            return anchor.service
        case CredentialId():
            return anchor.instance.service
        case OutsideAnchor():
            return EVERYBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideFacts:
    """What a certificate from outside says, read once; the planner sees no more of it.

    `subject` is RFC 4514 text, or None where programs write it differently, so that it cannot be compared as text.
    `key_name` stands for the subject as programs look issuers up by it: case and spaces do not count (RFC 5280 section
    7.1). `name_bytes` are those that it adds to a CertificateRequest. `path_length` None: any number of intermediates.
    """

    subject: str | None
    shown: str
    key_name: str
    spki_sha256: str
    path_length: int | None
    name_bytes: int
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...] = ()
    """DNS names that it presents, a wildcard among them; an anchor has none."""


NOTHING_OUTSIDE: Mapping[str, OutsideFacts] = MappingProxyType({})


def common_name_of(estate: str, anchor: AuthorityId | CredentialId) -> str:
    """The one RDN of the subject of an anchor of ours."""
    if isinstance(anchor, AuthorityId):
        return common_name_of_authority(estate, anchor)
    return anchor.instance.service


def key_name(attributes: Iterable[Iterable[tuple[str, str]]]) -> str:
    """One text for all names that programs take for the same issuer: of each RDN its (dotted OID, value) pairs.

    Case does not count, nor how many spaces stand where, nor the type of string (RFC 5280 section 7.1).
    """
    return ",".join("+".join(sorted(f"{oid}={_settled(value)}" for oid, value in one)) for one in attributes)


def _settled(value: str) -> str:
    return " ".join(value.casefold().split())


def common_name_in(key_name: str) -> str | None:
    """The common name of a subject whose one RDN it is, in small letters; None of any other subject."""
    is_only = key_name.startswith(_COMMON_NAME) and "," not in key_name and "+" not in key_name
    return key_name.removeprefix(_COMMON_NAME) if is_only else None


_COMMON_NAME = "2.5.4.3="


def name_bytes(common_name: str) -> int:
    """Bytes that a CA with this one-RDN subject adds to a CertificateRequest: its DER name, and two for the length."""
    attribute = 5 + 2 + len(common_name.encode())
    return 2 + 2 + 2 + 2 + attribute
