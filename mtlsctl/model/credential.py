"""Certificates and authorities as they are known without any key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from mtlsctl.model.topology import InstanceId, KeyAlgorithm


SHARED = ""
"""Stands where a service's name does: the CA that services share is nobody's own."""


class AuthorityId(NamedTuple):
    """One generation of a service's CA, or of the shared one. Generation 0 is no CA: the leaf signs itself."""

    service: str
    generation: int

    @property
    def is_leaf(self) -> bool:
        """Whether it stands for a leaf that signs itself."""
        return self.generation == 0

    def with_service_renamed(self, names: Mapping[str, str]) -> AuthorityId:
        """The same CA by the new name of its service, if that has one. Its subject is what it was issued with."""
        return self._replace(service=names.get(self.service, self.service))

    def __str__(self) -> str:
        return "itself" if self.is_leaf else f"{self.service or 'shared'} CA g{self.generation}"


class CredentialId(NamedTuple):
    """The n-th certificate ever asked for an instance; known before it is issued."""

    instance: InstanceId
    sequence: int

    def __str__(self) -> str:
        return f"{self.instance}#{self.sequence}"

    def with_host_renamed(self, names: Mapping[str, str]) -> CredentialId:
        """The same certificate by the new name of its instance's host, if that has one."""
        return self._replace(instance=self.instance.with_host_renamed(names))

    def with_service_renamed(self, names: Mapping[str, str]) -> CredentialId:
        """The same certificate by the new name of its service, if that has one."""
        return self._replace(instance=self.instance.with_service_renamed(names))


class KeyUsage(StrEnum):
    """Extended key usages (RFC 5280 section 4.2.1.12) that an instance's edges need."""

    SERVER_AUTH = "serverAuth"
    CLIENT_AUTH = "clientAuth"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityProfile:
    """A CA to be made: self-signed, pathlen 0, names constrained (RFC 5280 section 4.2.1.10), critical.

    `permitted_names` are dNSName subtrees; the shared CA has none and is not constrained. Addresses are unconstrained
    with `addresses`, else excluded.
    """

    id: AuthorityId
    common_name: str
    key: KeyAlgorithm
    lifetime: timedelta
    permitted_names: tuple[str, ...]
    addresses: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateProfile:
    """A leaf to be issued: CN = service, SAN = names then transitional names then addresses.

    `common_name` stays what was issued, also of a service that was renamed since.
    `request_sha256` is of the certificate request whose key it is for; None where the key is ours.
    """

    id: CredentialId
    authority: AuthorityId
    common_name: str
    names: tuple[str, ...]
    transitional_names: tuple[str, ...]
    addresses: tuple[str, ...]
    usages: frozenset[KeyUsage]
    key: KeyAlgorithm
    lifetime: timedelta
    request_sha256: str | None = None

    @property
    def anchor(self) -> AuthorityId | CredentialId:
        """What peers trust in order to believe this leaf: its CA, or itself."""
        return self.id if self.authority.is_leaf else self.authority

    @property
    def presented_names(self) -> tuple[str, ...]:
        """Every DNS-ID that the leaf carries."""
        return self.names + self.transitional_names


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificationAuthority:
    """A CA that exists. `key_destroyed` once its last leaf has ended and nothing may be signed any more."""

    profile: AuthorityProfile
    serial: str
    not_before: datetime
    not_after: datetime
    certificate_sha256: str
    spki_sha256: str
    key_destroyed: bool = False

    @property
    def id(self) -> AuthorityId:
        return self.profile.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A leaf that was issued; its key is on the host of its instance and nowhere else, or with who asked for it."""

    profile: CertificateProfile
    serial: str
    not_before: datetime
    not_after: datetime
    certificate_sha256: str
    spki_sha256: str

    @property
    def id(self) -> CredentialId:
        return self.profile.id


def is_name_of_authority(estate: str, common_name: str) -> bool:
    """Whether a CA of this estate has, had or will have this name; case does not count."""
    owner, _, generation = common_name.casefold().rpartition(" ca g")
    return generation.isdecimal() and (owner == estate or owner.endswith(f".{estate}"))


def common_name_of_authority(estate: str, authority: AuthorityId) -> str:
    """`mail.calendar CA g2`: unique in each generation, short, the only RDN (it travels in each CertificateRequest).

    The shared CA has the estate's name alone: `calendar CA g1`.
    """
    owner = estate if authority.service == SHARED else f"{authority.service}.{estate}"
    return f"{owner} CA g{authority.generation}"
