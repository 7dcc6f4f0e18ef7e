"""What has to be made anew and why: CAs and leaves against what is issued. `now` is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.credential import (
    SHARED,
    AuthorityId,
    AuthorityProfile,
    CertificateProfile,
    CredentialId,
    common_name_of_authority,
)
from mtlsctl.model.plan import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from mtlsctl.model.credential import CertificationAuthority, Credential
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import AuthorityPolicy, InstanceId
    from mtlsctl.planner.identities import Wanted


class WantedAuthority(NamedTuple):
    """A CA as the inventory asks for it: whose it is (or SHARED), and what every name under it has to fit into.

    `is_live`: something of the owner is live, so that a first CA of its own means another trust model.
    """

    owner: str
    policy: AuthorityPolicy
    names: tuple[str, ...] = ()
    addresses: bool = True
    is_live: bool = False


class AuthorityDecision(NamedTuple):
    """The CA that is to sign: an existing one, or `profile` with the reasons to make it."""

    id: AuthorityId
    not_after: datetime
    profile: AuthorityProfile | None
    reasons: tuple[Reason, ...] = ()


class CredentialDecision(NamedTuple):
    """The leaf that an instance is to present: an existing one, or `profile` with the reasons to issue it."""

    id: CredentialId
    presented_names: tuple[str, ...]
    not_after: datetime
    profile: CertificateProfile | None
    before: Credential | None
    reasons: tuple[Reason, ...] = ()
    is_same_key: bool = False


def current_authorities(state: State) -> dict[str, CertificationAuthority]:
    """By owner the newest CA that can still sign."""
    newest: dict[str, CertificationAuthority] = {}
    for authority in state.authorities.values():
        known = newest.get(authority.id.service)
        if not authority.key_destroyed and (known is None or known.id < authority.id):
            newest[authority.id.service] = authority
    return newest


def newest_credentials(state: State) -> dict[InstanceId, Credential]:
    """The last issued leaf of each instance, live or not.

    One that is neither live nor has a key left is none: it belonged to an instance that was removed.
    """
    newest: dict[InstanceId, Credential] = {}
    for credential in state.credentials.values():
        known = newest.get(credential.id.instance)
        if known is None or known.id < credential.id:
            newest[credential.id.instance] = credential
    for instance in state.keys_missing - state.live.keys():
        newest.pop(instance, None)
    return newest


def decide_authority(
    wanted: WantedAuthority, current: CertificationAuthority | None, state: State, now: datetime, *, renew: bool
) -> AuthorityDecision:
    """Keep the CA or make its next generation."""
    if current is not None:
        reasons = tuple(_authority_reasons(wanted, current, now, renew=renew))
        if not reasons:
            return AuthorityDecision(id=current.id, not_after=current.not_after, profile=None)
    elif wanted.owner == SHARED:
        reasons = (Reason.FIRST_MEMBER,)
    elif wanted.is_live:
        reasons = (Reason.TRUST_MODEL_CHANGED,)
    else:
        reasons = (Reason.NEW_SERVICE,)
    generation = max(wanted.policy.generation, state.generations.get(wanted.owner, 0) + 1)
    authority = AuthorityId(wanted.owner, generation)
    profile = AuthorityProfile(
        id=authority,
        common_name=common_name_of_authority(state.estate, authority),
        key=wanted.policy.key,
        lifetime=wanted.policy.lifetime,
        permitted_names=wanted.names,
        addresses=wanted.addresses,
    )
    return AuthorityDecision(id=authority, not_after=now + profile.lifetime, profile=profile, reasons=reasons)


def _authority_reasons(
    wanted: WantedAuthority, current: CertificationAuthority, now: datetime, *, renew: bool
) -> Iterator[Reason]:
    policy, profile, names = wanted.policy, current.profile, wanted.names
    if policy.generation > current.id.generation:
        yield Reason.GENERATION_ASKED
    if policy.key != profile.key:
        yield Reason.KEY_ALGORITHM_CHANGED
    outside = any(not _is_permitted(name, profile.permitted_names) for name in names)
    if outside or (wanted.addresses and not profile.addresses):
        yield Reason.NAME_OUTSIDE_CONSTRAINTS
    if renew and now >= current.not_after - policy.renew_before:
        yield Reason.CA_ENDS


def _is_permitted(name: str, constraints: tuple[str, ...]) -> bool:
    return any(name == constraint or name.endswith("." + constraint) for constraint in constraints)


def decide_credential(
    wanted: Wanted, newest: Credential | None, state: State, now: datetime, *, renew: bool
) -> CredentialDecision:
    """Keep the newest leaf of an instance or issue the next one.

    A leaf that was issued and never went live is as good as a live one while its key is on the host.
    """
    reasons = (
        (Reason.NEW_INSTANCE,)
        if newest is None
        else tuple(_credential_reasons(wanted, newest, state, now, renew=renew))
    )
    if newest is not None and not reasons:
        return CredentialDecision(
            id=newest.id,
            presented_names=newest.profile.presented_names,
            not_after=newest.not_after,
            profile=None,
            before=newest,
        )
    profile = CertificateProfile(
        id=CredentialId(wanted.instance, state.sequences.get(wanted.instance, 0) + 1),
        authority=wanted.authority,
        common_name=wanted.instance.service,
        names=wanted.names,
        transitional_names=wanted.transitional_names,
        addresses=wanted.addresses,
        usages=wanted.usages,
        key=wanted.key,
        lifetime=wanted.policy.lifetime,
        request_sha256=wanted.request_sha256,
    )
    return CredentialDecision(
        id=profile.id,
        presented_names=profile.presented_names,
        not_after=now + profile.lifetime
        if wanted.authority_ends is None
        else min(now + profile.lifetime, wanted.authority_ends),
        profile=profile,
        before=newest,
        reasons=reasons,
        is_same_key=_is_same_key(wanted, newest),
    )


def _is_same_key(wanted: Wanted, newest: Credential | None) -> bool:
    """Only of a request: each leaf of ours gets a key of its own."""
    asked = wanted.request and wanted.request.asked
    return bool(asked and newest and asked.spki_sha256 == newest.spki_sha256)


def _credential_reasons(
    wanted: Wanted, newest: Credential, state: State, now: datetime, *, renew: bool
) -> Iterator[Reason]:
    have = newest.profile
    if wanted.instance in state.keys_missing:
        yield Reason.KEY_MISSING
    if have.authority.service != wanted.authority.service or have.authority.is_leaf is not wanted.authority.is_leaf:
        yield Reason.TRUST_MODEL_CHANGED
    elif have.authority != wanted.authority:
        yield Reason.CA_ROTATED
    if wanted.is_compared and have.common_name != wanted.instance.service:
        yield Reason.SERVICE_RENAMED
    if _names_differ(wanted, newest):
        yield Reason.NAMES_CHANGED
    yield from _key_reasons(wanted, have)
    if have.lifetime != wanted.policy.lifetime:
        yield Reason.LIFETIME_CHANGED
    if not wanted.usages <= have.usages:
        yield Reason.KEY_USAGE_CHANGED
    if renew and now >= newest.not_after - wanted.policy.renew_before:
        yield Reason.RENEWAL_DUE


def _key_reasons(wanted: Wanted, have: CertificateProfile) -> Iterator[Reason]:
    if (have.request_sha256 is None) is not (wanted.request_sha256 is None):
        yield Reason.KEY_OWNER_CHANGED
    elif have.request_sha256 != wanted.request_sha256:
        yield Reason.REQUEST_CHANGED
    if have.key != wanted.key:
        yield Reason.KEY_ALGORITHM_CHANGED


def _names_differ(wanted: Wanted, newest: Credential) -> bool:
    """Whether a name is missing, or one is carried as the service's own that is not any more.

    A leftover of a rename is marked as such and may stay until the next renewal; an own name that goes is re-issued
    now, though callers still check it, so that nothing is left to do once they have stopped.
    """
    have = newest.profile
    needed = {*wanted.names, *wanted.transitional_names}
    return (
        not needed.issubset(have.presented_names)
        or not set(have.names).issubset(wanted.names)
        or set(have.addresses) != set(wanted.addresses)
    )


def keys_to_destroy(state: State, kept: Mapping[str, AuthorityDecision], now: datetime) -> tuple[AuthorityId, ...]:
    """CAs that nothing is issued from any more and whose last leaf has ended."""
    return tuple(
        sorted(
            authority.id
            for authority in state.authorities.values()
            if not authority.key_destroyed
            and (authority.id.service not in kept or kept[authority.id.service].id != authority.id)
            and now >= state.leaf_ends.get(authority.id, authority.not_before)
        )
    )
