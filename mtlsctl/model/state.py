"""What is issued and what is live, as of a moment; read from the store, never edited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtlsctl.model.credential import AuthorityId
from mtlsctl.model.trust import common_name_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mtlsctl.model.credential import CertificationAuthority, Credential, CredentialId
    from mtlsctl.model.release import Receipt, Recipe
    from mtlsctl.model.topology import Host, InstanceId, ProcessId


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The release that an instance's process names."""

    recipe: Recipe
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A snapshot. `lineage` is random and made once; `serial` grows by one with each operation that ends.

    `credentials` holds, of each instance, the live one and the newest; `sequences` the last number given out,
    also to a certificate that may have been signed and never came back. `pointers` are the SHA-256 of what each
    process's pointer was last seen to hold. `keys_missing` are instances whose host no longer holds their key.
    `hosts` are all hosts that may still hold something of ours. `programs` are versions by host and program, as
    `hosts check` found them last; a host that it did not look at is not there.
    """

    lineage: str
    serial: int
    estate: str
    authorities: Mapping[AuthorityId, CertificationAuthority] = field(default_factory=dict)
    credentials: Mapping[CredentialId, Credential] = field(default_factory=dict)
    sequences: Mapping[InstanceId, int] = field(default_factory=dict)
    generations: Mapping[str, int] = field(default_factory=dict)
    """The last CA generation given out, by service."""
    leaf_ends: Mapping[AuthorityId, datetime] = field(default_factory=dict)
    """When the last leaf that each CA signed ends."""
    live: Mapping[InstanceId, Live] = field(default_factory=dict)
    pointers: Mapping[ProcessId, str] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
    programs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keys_missing: frozenset[InstanceId] = frozenset()
    interrupted: str | None = None
    """The operation that was begun and never ended, if any; the next apply looks at the hosts first."""

    def common_name_of(self, anchor: AuthorityId | CredentialId) -> str:
        """The one RDN of an anchor's subject as it was issued, else as it will be: services may be renamed since."""
        known = self.authorities.get(anchor) if isinstance(anchor, AuthorityId) else self.credentials.get(anchor)
        return known.profile.common_name if known is not None else common_name_of(self.estate, anchor)
