"""The plan as a value: what changes and why, what is issued, which releases go live when, what each waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.topology import outside

if TYPE_CHECKING:
    from datetime import datetime

    from mtlsctl.model.credential import AuthorityId, AuthorityProfile, CertificateProfile, CredentialId
    from mtlsctl.model.diagnostic import Diagnostic, Span
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.topology import Edge, InstanceId, KeyAlgorithm, KeyOrigin, ProcessId


class Wave(IntEnum):
    """The order in which an instance's releases go live.

    EXTEND presents the old identity and accepts old and new peers; ACTIVATE presents the new identity and still
    accepts both; WITHDRAW accepts new peers only. REMOVE drops what nobody calls any more; it makes no release.
    """

    EXTEND = 1
    ACTIVATE = 2
    WITHDRAW = 3
    REMOVE = 4

    def __str__(self) -> str:
        return self.name.lower()


class Reason(StrEnum):
    """Why a certificate or a CA is made anew."""

    NEW_INSTANCE = "new instance"
    NEW_SERVICE = "new service"
    FIRST_MEMBER = "first service under the shared CA"
    NAMES_CHANGED = "names changed"
    KEY_USAGE_CHANGED = "key usage changed"
    KEY_ALGORITHM_CHANGED = "key algorithm changed"
    LIFETIME_CHANGED = "lifetime changed"
    KEY_MISSING = "key missing on the host"
    REQUEST_CHANGED = "certificate request changed"
    KEY_OWNER_CHANGED = "the key's owner changed"
    SERVICE_RENAMED = "service renamed, and listeners compare its name"
    CA_ROTATED = "CA rotated"
    TRUST_MODEL_CHANGED = "trust model changed"
    NAME_OUTSIDE_CONSTRAINTS = "a name lies outside the CA's constraints"
    GENERATION_ASKED = "the inventory asks for a newer generation"
    RENEWAL_DUE = "renewal due"
    CA_ENDS = "the CA ends"


TIME_CAUSED = frozenset({Reason.RENEWAL_DUE, Reason.CA_ENDS})
"""Reasons that no edit of the inventory caused; they stay out of the fingerprint."""


class Op(StrEnum):
    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


class OutsideGrant(NamedTuple):
    """By what an outsider is let in: SHA-256 of the CAs, and identities or None for all that these vouch for."""

    certificates: tuple[str, ...]
    identities: tuple[str, ...] | None


DECLARED = "declared"
"""The reason of a call that becomes declared."""


class AccessChange(NamedTuple):
    """A call that becomes declared, or stops being so; `port` is the door's port as people know it.

    `span` is the place that declares it; of a call that ends, the door or the service that stays, if one does. Of a
    caller from outside `outside` says by what it is let in from now on, or was until now; CHANGE if that is another.
    """

    op: Op
    edge: Edge
    port: int
    span: Span | None
    reason: str = DECLARED
    outside: OutsideGrant | None = None

    @property
    def caller(self) -> str:
        """The caller as people are to read it."""
        return self.edge.caller if self.outside is None else outside(self.edge.caller)


class AuthorityChange(NamedTuple):
    """A CA to be made, or one whose key is to be destroyed (`op` REMOVE)."""

    op: Op
    id: AuthorityId
    profile: AuthorityProfile | None
    reasons: tuple[Reason, ...]
    due: bool
    """Whether time alone caused it."""


class CertificateChange(NamedTuple):
    """A leaf to be issued (ADD), replaced (CHANGE) or retired with its instance (REMOVE)."""

    op: Op
    instance: InstanceId
    profile: CertificateProfile | None
    names_before: tuple[str, ...]
    not_after_before: datetime | None
    reasons: tuple[Reason, ...]
    due: bool
    is_same_key: bool = False
    """Whether it is for the key of the one before: of a certificate request that is signed again."""


class ServiceChange(NamedTuple):
    """What else changes at an instance: trust, doors, calls, settings, template; `details` are short sentences."""

    op: Op
    instance: InstanceId
    details: tuple[str, ...]
    due: bool


class KeyRequest(NamedTuple):
    """A key to be born for a certificate, before anything is signed; only its public half is carried further."""

    credential: CredentialId
    key: KeyAlgorithm
    origin: KeyOrigin


class StepId(NamedTuple):
    instance: InstanceId
    wave: Wave

    def __str__(self) -> str:
        return f"{self.instance}/{self.wave}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One release of one instance, or its removal (`recipe` is None), and the steps that must be done before.

    Invariant: whatever it waits for lies in an earlier wave, so steps of one process and wave can go as one switch.
    `needs_restart`: the running process takes it up only when it is restarted.
    """

    id: StepId
    process: ProcessId
    recipe: Recipe | None
    waits_for: frozenset[StepId]
    needs_restart: bool = False


class HostMove(NamedTuple):
    """A host that the state knows by its old name."""

    old: str
    new: str
    span: Span | None


class ServiceMove(NamedTuple):
    """A service that the state knows by its old name, and the hosts on which something of it lies."""

    old: str
    new: str
    hosts: tuple[str, ...]
    span: Span | None


class Abandonment(NamedTuple):
    """A host that is given up with what is live on it."""

    host: str
    instances: tuple[InstanceId, ...]
    span: Span | None


class Risk(NamedTuple):
    """Something that an approver should see first, though nothing blocks it."""

    code: str
    summary: str
    span: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When the next certificate or CA will be due if nothing else changes."""

    subject: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that an apply would do. Holds no secret, and needs neither key nor network to be made.

    `moves`, `renames` and `abandonments` are written into the state first; all else is in the names of after.
    `authorities`, `requests` (for keys of ours) and `certificates` are done before any step runs, in that order.
    `fingerprint` is of what the inventory causes: two plans of the same edit on states that differ by renewals alone
    have the same.
    """

    estate: str
    lineage: str
    serial: int
    inventory_digest: str
    created_at: datetime
    moves: tuple[HostMove, ...] = ()
    renames: tuple[ServiceMove, ...] = ()
    abandonments: tuple[Abandonment, ...] = ()
    access: tuple[AccessChange, ...] = ()
    risks: tuple[Risk, ...] = ()
    authority_changes: tuple[AuthorityChange, ...] = ()
    certificate_changes: tuple[CertificateChange, ...] = ()
    service_changes: tuple[ServiceChange, ...] = ()
    requests: tuple[KeyRequest, ...] = ()
    steps: tuple[Step, ...] = ()
    refusals: tuple[Diagnostic, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()
    next_due: Due | None = None
    fingerprint: str = ""
    unchanged_instances: int = 0

    @property
    def has_changes(self) -> bool:
        return bool(
            self.is_refactoring or self.access or self.authority_changes or self.certificate_changes or self.steps
        )

    @property
    def is_refactoring(self) -> bool:
        """Whether something has to be written into the state before anything else is done."""
        return bool(self.moves or self.renames or self.abandonments)

    @property
    def authorities(self) -> tuple[AuthorityProfile, ...]:
        """The CAs to be made."""
        return tuple(change.profile for change in self.authority_changes if change.profile is not None)

    @property
    def certificates(self) -> tuple[CertificateProfile, ...]:
        """The leaves to be issued; each needs a key of ours first, or the request of who keeps the key."""
        return tuple(change.profile for change in self.certificate_changes if change.profile is not None)

    @property
    def processes(self) -> frozenset[ProcessId]:
        return frozenset(step.process for step in self.steps)
