"""Whom a listener lets in and whom a caller believes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.model.credential import AuthorityId

if TYPE_CHECKING:
    from mtlsctl.model.identifiers import Identifier

TrustAnchor = AuthorityId
"""A self-signed certificate that is trusted. The planner treats it as opaque: hashable, ordered, printable."""

NAME_BYTES_WARN = 30_000
"""Above this a Java caller may fail: its handshake messages end at 32,768 bytes (`jdk.tls.maxHandshakeMessageSize`)."""

NAME_BYTES_LIMIT = 64_000
"""Above this every caller fails: the list of CA names has a two-byte length (RFC 8446 section 4.2.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPolicy:
    """Anchors, and the identifiers allowed under them; None allows every leaf that the anchors vouch for."""

    anchors: frozenset[TrustAnchor]
    identifiers: frozenset[Identifier] | None = None


def name_bytes(common_name: str) -> int:
    """Bytes that a CA with this one-RDN subject adds to a CertificateRequest: its DER name, and two for the length."""
    attribute = 5 + 2 + len(common_name.encode())
    return 2 + 2 + 2 + 2 + attribute
