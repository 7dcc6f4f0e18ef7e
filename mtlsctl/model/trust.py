"""Whom a listener lets in and whom a caller believes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.credential import SHARED, AuthorityId, CredentialId, common_name_of_authority

if TYPE_CHECKING:
    from collections.abc import Iterable

TrustAnchor = AuthorityId | CredentialId
"""A self-signed certificate that is trusted: a CA, or under `pinned` a leaf."""

NAME_BYTES_WARN = 30_000
"""Above this a Java caller may fail: its handshake messages end at 32,768 bytes (`jdk.tls.maxHandshakeMessageSize`)."""

NAME_BYTES_LIMIT = 64_000
"""Above this every caller fails: the list of CA names has a two-byte length (RFC 8446 section 4.2.4)."""


def anchor_order(anchor: TrustAnchor) -> tuple[str, str, int]:
    """Sorts anchors of every kind: by service, CAs before leaves, then by host and number."""
    if isinstance(anchor, AuthorityId):
        return anchor.service, "", anchor.generation
    return anchor.instance.service, anchor.instance.host, anchor.sequence


def in_order(anchors: Iterable[TrustAnchor]) -> list[TrustAnchor]:
    return sorted(anchors, key=anchor_order)


class Member(NamedTuple):
    """A service that is let in by name: the anchor's subject is its leaf's issuer, `CN=<service>` its subject."""

    anchor: TrustAnchor
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPolicy:
    """Anchors, and the members allowed under them; None allows every leaf that the anchors vouch for."""

    anchors: frozenset[TrustAnchor]
    members: frozenset[Member] | None = None

    @property
    def implied_members(self) -> frozenset[Member] | None:
        """The members, also where the anchors say them alone; None when an anchor vouches for everybody."""
        if self.members is not None:
            return self.members
        implied = [Member(one, vouched_for(one)) for one in self.anchors]
        return None if any(one.service == SHARED for one in implied) else frozenset(implied)


NOBODY = PeerPolicy(anchors=frozenset())


def vouched_for(anchor: TrustAnchor) -> str:
    """The only service that an anchor vouches for; SHARED for the CA of many."""
    return anchor.service if isinstance(anchor, AuthorityId) else anchor.instance.service


def common_name_of(estate: str, anchor: TrustAnchor) -> str:
    """The one RDN of an anchor's subject."""
    if isinstance(anchor, AuthorityId):
        return common_name_of_authority(estate, anchor)
    return anchor.instance.service


def name_bytes(common_name: str) -> int:
    """Bytes that a CA with this one-RDN subject adds to a CertificateRequest: its DER name, and two for the length."""
    attribute = 5 + 2 + len(common_name.encode())
    return 2 + 2 + 2 + 2 + attribute
