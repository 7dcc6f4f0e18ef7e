"""What is issued, what is live and what is due, from the state alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mtlsctl.planner.lifecycle import current_authorities, newest_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.credential import CertificationAuthority, Credential
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId, Inventory
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.store.port import Operation, Signature


class Standing(StrEnum):
    """How a CA or a certificate stands at a moment."""

    OK = "ok"
    DUE = "due"
    ENDED = "ended"
    RETIRING = "retiring"
    """A CA that signs no more and whose last leaf has not ended."""
    KEY_DESTROYED = "key destroyed"
    PENDING = "pending"
    """Issued and not live yet: the next apply puts it on its host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityStatus:
    authority: CertificationAuthority
    standing: Standing
    leaves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    credential: Credential
    standing: Standing
    release: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One screen. `orphans` are signatures that may exist and whose certificate never came back."""

    loaded: LoadedInventory
    state: State
    now: datetime
    operations: tuple[Operation, ...]
    authorities: tuple[AuthorityStatus, ...]
    certificates: tuple[CertificateStatus, ...]
    orphans: tuple[Signature, ...]


def status(workspace: Workspace) -> Status:
    """Read the state; opens no key and no host."""
    loaded = workspace.load()
    now = workspace.clock()
    with workspace.store(loaded.inventory.name) as store:
        state = store.snapshot()
        operations, signatures = store.operations(), store.signatures()
    return Status(
        loaded=loaded,
        state=state,
        now=now,
        operations=operations,
        authorities=_authorities(loaded.inventory, state, now),
        certificates=_certificates(loaded.inventory, state, now),
        orphans=tuple(one for one in signatures if one.signed and not one.recorded),
    )


def _authorities(inventory: Inventory, state: State, now: datetime) -> tuple[AuthorityStatus, ...]:
    current = current_authorities(state)
    leaves = _leaves_of(state)
    return tuple(
        AuthorityStatus(
            authority=one,
            standing=_authority_standing(one, inventory, current, now),
            leaves=leaves.get(one.id, 0),
        )
        for one in sorted(state.authorities.values(), key=lambda one: one.id)
    )


def _leaves_of(state: State) -> dict[object, int]:
    counts: dict[object, int] = {}
    for live in state.live.values():
        issuer = state.credentials[live.recipe.credential].profile.authority
        counts[issuer] = counts.get(issuer, 0) + 1
    return counts


def _authority_standing(
    authority: CertificationAuthority,
    inventory: Inventory,
    current: Mapping[str, CertificationAuthority],
    now: datetime,
) -> Standing:
    service = inventory.services.get(authority.id.service)
    if authority.key_destroyed:
        return Standing.KEY_DESTROYED
    if now >= authority.not_after:
        return Standing.ENDED
    if service is None or current[authority.id.service] is not authority:
        return Standing.RETIRING
    return Standing.DUE if now >= authority.not_after - service.authority.renew_before else Standing.OK


def _certificates(inventory: Inventory, state: State, now: datetime) -> tuple[CertificateStatus, ...]:
    newest = newest_credentials(state)
    shown = {live.recipe.credential: live.receipt.release for live in state.live.values()}
    return tuple(
        CertificateStatus(
            credential=one,
            standing=_standing(one, inventory, now, is_live=one.id in shown),
            release=shown.get(one.id),
        )
        for one in sorted(state.credentials.values(), key=lambda one: one.id)
        if one.id in shown or newest.get(one.id.instance) is one
    )


def _standing(credential: Credential, inventory: Inventory, now: datetime, *, is_live: bool) -> Standing:
    if now >= credential.not_after:
        return Standing.ENDED
    if not is_live:
        return Standing.PENDING
    instance: InstanceId = credential.id.instance
    service = inventory.services.get(instance.service)
    if service is None:
        return Standing.RETIRING
    return Standing.DUE if now >= credential.not_after - service.certificate.renew_before else Standing.OK
