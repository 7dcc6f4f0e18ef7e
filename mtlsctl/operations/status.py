"""What is issued, what is live and what is due: from the state, with the inventory's limits where it can be read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mtlsctl.errors import InventoryError
from mtlsctl.operations.outside import live_facts
from mtlsctl.planner.lifecycle import current_authorities, newest_credentials
from mtlsctl.planner.outside import SOON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from mtlsctl.model.credential import AuthorityId, CertificationAuthority, Credential, CredentialId
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId, Inventory, Service
    from mtlsctl.model.trust import OutsideAnchor
    from mtlsctl.operations.refresh import Refreshed
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.store.port import Operation, Signature, StateReader

_LEAF_SHARE, _AUTHORITY_SHARE = 3, 10
"""Without an inventory a leaf is due in the last third of its lifetime, a CA in the last tenth: as by default."""


class Standing(StrEnum):
    """How a CA or a certificate stands at a moment."""

    OK = "ok"
    DUE = "due"
    EXPIRED = "expired"
    RETIRING = "retiring"
    """A CA that signs no more and whose last leaf has not ended; a live leaf of a service that is not declared."""
    KEY_DESTROYED = "key_destroyed"
    PENDING = "pending"
    """Issued and not live yet: the next apply puts it on its host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityStatus:
    """`leaves` counts those that it signed, that are live or the newest of their instance, and that have not ended."""

    authority: CertificationAuthority
    standing: Standing
    leaves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """`release` is the live one that presents it; None where none does."""

    credential: Credential
    standing: Standing
    release: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideStatus:
    """A certificate from outside that something live trusts or shows; DUE when its end is near.

    Somebody else makes the next one.
    """

    anchor: OutsideAnchor
    subject: str
    not_after: datetime
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One screen. `orphans` are signatures that may exist and whose certificate never came back.

    `keys_missing` are live instances without the key of their newest certificate; a removed instance misses none.
    """

    state: State
    now: datetime
    operations: tuple[Operation, ...]
    authorities: tuple[AuthorityStatus, ...]
    certificates: tuple[CertificateStatus, ...]
    orphans: tuple[Signature, ...]
    keys_missing: tuple[InstanceId, ...]
    outside: tuple[OutsideStatus, ...] = ()
    refreshed: Refreshed | None = None
    """What the hosts and the sockets show, where they were asked."""


def status(workspace: Workspace, *, look: bool = False) -> Status:
    """Read the state; opens no key, and no host unless it is to `look` at them.

    An inventory that cannot be read does not hide the state; to look at hosts it has to be readable.
    """
    inventory, now = workspace.load().inventory if look else _declared(workspace), workspace.clock()
    refreshed = None
    services = None if inventory is None else inventory.services
    with workspace.store(workspace.project.name) as store:
        state = store.snapshot()
        operations, signatures = store.operations(), store.signatures()
        outside = _outside(state, store, now)
        if look and inventory is not None:
            from mtlsctl.operations.refresh import refresh  # noqa: PLC0415  only this looks at hosts

            refreshed = refresh(workspace, inventory, state, store)
    return Status(
        state=state,
        now=now,
        operations=operations,
        authorities=_authorities(inventory, state, now),
        certificates=_certificates(services, state, now),
        orphans=tuple(one for one in signatures if one.signed and not one.recorded),
        keys_missing=tuple(sorted(state.keys_missing & state.live.keys())),
        outside=outside,
        refreshed=refreshed,
    )


def _outside(state: State, reader: StateReader, now: datetime) -> tuple[OutsideStatus, ...]:
    found = live_facts(state, reader)
    return tuple(
        OutsideStatus(
            anchor=anchor,
            subject=facts.shown,
            not_after=facts.not_after,
            standing=Standing.EXPIRED if now >= facts.not_after else _due_or_ok(facts.not_after, SOON, now),
        )
        for anchor, facts in sorted(found.items())
    )


def _declared(workspace: Workspace) -> Inventory | None:
    try:
        return workspace.load().inventory
    except InventoryError:
        return None


def _authorities(inventory: Inventory | None, state: State, now: datetime) -> tuple[AuthorityStatus, ...]:
    current, leaves = current_authorities(state), _leaves(state, now)
    return tuple(
        AuthorityStatus(
            authority=one,
            standing=_standing_of_authority(one, inventory, current, now),
            leaves=leaves.get(one.id, 0),
        )
        for one in sorted(state.authorities.values(), key=lambda one: one.id)
    )


def _leaves(state: State, now: datetime) -> dict[AuthorityId, int]:
    counts: dict[AuthorityId, int] = {}
    for one in state.credentials.values():
        if now < one.not_after:
            counts[one.profile.authority] = counts.get(one.profile.authority, 0) + 1
    return counts


def _standing_of_authority(
    one: CertificationAuthority,
    inventory: Inventory | None,
    current: Mapping[str, CertificationAuthority],
    now: datetime,
) -> Standing:
    if one.key_destroyed:
        return Standing.KEY_DESTROYED
    if now >= one.not_after:
        return Standing.EXPIRED
    if current[one.id.service] is not one or (inventory is not None and not inventory.has_authority(one.id.service)):
        return Standing.RETIRING
    if inventory is None:
        renew_before = (one.not_after - one.not_before) / _AUTHORITY_SHARE
    else:
        renew_before = inventory.authority_policy(one.id.service).renew_before
    return _due_or_ok(one.not_after, renew_before, now)


def _certificates(services: Mapping[str, Service] | None, state: State, now: datetime) -> tuple[CertificateStatus, ...]:
    """The live ones, and newer ones that wait for their release."""
    newest = newest_credentials(state)
    shown: dict[CredentialId, str] = {one.recipe.credential: one.receipt.release for one in state.live.values()}
    return tuple(
        CertificateStatus(
            credential=one,
            standing=_standing(one, services, now) if one.id in shown else Standing.PENDING,
            release=shown.get(one.id),
        )
        for one in sorted(state.credentials.values(), key=lambda one: one.id)
        if one.id in shown or newest.get(one.id.instance) is one
    )


def _standing(one: Credential, services: Mapping[str, Service] | None, now: datetime) -> Standing:
    if now >= one.not_after:
        return Standing.EXPIRED
    if services is None:
        return _due_or_ok(one.not_after, (one.not_after - one.not_before) / _LEAF_SHARE, now)
    service = services.get(one.id.instance.service)
    return Standing.RETIRING if service is None else _due_or_ok(one.not_after, service.certificate.renew_before, now)


def _due_or_ok(end: datetime, renew_before: timedelta, now: datetime) -> Standing:
    return Standing.DUE if now >= end - renew_before else Standing.OK
