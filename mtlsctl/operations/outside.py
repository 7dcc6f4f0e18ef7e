"""Certificates from outside on their way: looked at before anything is planned, kept with the state, proven.

Everything that takes apart a certificate is imported where there is one: the plan of an estate without any loads
no such library.
"""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.errors import InventoryError, StateError, UsageError
from mtlsctl.inventory import codes
from mtlsctl.model.diagnostic import Diagnostic
from mtlsctl.model.trust import NOTHING_OUTSIDE, OutsideAnchor, in_order
from mtlsctl.store.codes import SWAPPED_CERTIFICATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.plan import Step
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Inventory, OutsideCertificate
    from mtlsctl.model.trust import OutsideFacts, TrustAnchor
    from mtlsctl.store.port import StateReader, StateWriter


def refuse_unfit(inventory: Inventory, *, now: datetime | None = None) -> None:
    """Raise InventoryError (M1160, M1166) with every certificate that cannot be an anchor or be shown, and why.

    Whether one is valid at a time is asked with `now`; a plan says that itself, as it knows what is live.
    """
    if not inventory.certificates and not inventory.chains:
        return
    problems = [problem for one in inventory.certificates.values() for problem in _problems(one, now)]
    if not problems:  # a chain is held against anchors that are in order
        problems = list(_chain_problems(inventory, now))
    if problems:
        raise InventoryError(sorted(problems, key=lambda one: one.order))


def _problems(certificate: OutsideCertificate, now: datetime | None) -> Iterator[Diagnostic]:
    from mtlsctl.errors import PreflightError
    from mtlsctl.pki.outside import unfitness

    try:
        reasons = list(unfitness(certificate.der, now))
    except PreflightError as error:
        reasons = [error.message]
    for reason in reasons:
        yield Diagnostic(
            code=codes.CERTIFICATE_UNFIT,
            message=f"`{certificate.file}` cannot be an anchor: {reason}",
            span=certificate.span,
            help="ask for the root: the self-signed certificate of the CA",
        )


def _chain_problems(inventory: Inventory, now: datetime | None) -> Iterator[Diagnostic]:
    from mtlsctl.errors import PreflightError
    from mtlsctl.pki.outside import chain_unfitness

    for service in inventory.services.values():
        for listener in service.listeners:
            shown = listener.server_certificate
            if shown is None:
                continue
            chain = [inventory.chains[one].der for one in shown.chain]
            anchors = [inventory.certificates[one].der for one in shown.trust]
            try:
                reasons = list(chain_unfitness(chain, service.names, anchors, now))
            except PreflightError as error:
                reasons = [error.message]
            for reason in reasons:
                yield Diagnostic(
                    code=codes.CHAIN_UNFIT,
                    message=f"`{shown.file}` cannot be shown by `{service.name}`: {reason}",
                    span=shown.span,
                )


def facts_of_outside(inventory: Inventory, state: State, reader: StateReader) -> Mapping[str, OutsideFacts]:
    """What each certificate from outside says that the inventory declares or that something live trusts."""
    live = outside_anchors(live.recipe for live in state.live.values())
    if not inventory.certificates and not inventory.chains and not live:
        return NOTHING_OUTSIDE
    from mtlsctl.pki.outside import facts_of

    ders = {one.sha256: outside_certificate(reader, one) for one in live if one.sha256 not in inventory.certificates}
    ders |= {sha256: one.der for sha256, one in (*inventory.chains.items(), *inventory.certificates.items())}
    return {sha256: facts_of(der) for sha256, der in ders.items()}


def live_facts(state: State, reader: StateReader) -> dict[OutsideAnchor, OutsideFacts]:
    """What each certificate from outside says that something live trusts, or shows by its service's name."""
    live = outside_anchors(live.recipe for live in state.live.values()) | {
        OutsideAnchor(instance.service, one)
        for instance, live in state.live.items()
        for served in live.recipe.listeners
        for one in (served.shows.chain if served.shows else ())
    }
    if not live:
        return {}
    from mtlsctl.pki.outside import facts_of

    return {anchor: facts_of(outside_certificate(reader, anchor)) for anchor in live}


def outside_anchors(recipes: Iterable[Recipe]) -> frozenset[OutsideAnchor]:
    """The anchors from outside that these recipes trust."""
    return frozenset(
        anchor
        for recipe in recipes
        for policy in (*(one.policy for one in recipe.listeners), *(one.policy for one in recipe.callees))
        for anchor in policy.anchors
        if isinstance(anchor, OutsideAnchor)
    )


def outside_certificate(reader: StateReader, anchor: OutsideAnchor) -> bytes:
    """The certificate as the state keeps it; raises StateError M3050 when it is another than its anchor says."""
    der = reader.certificate(anchor)
    if hashlib.sha256(der).hexdigest() != anchor.sha256:
        raise _swapped(anchor)
    return der


def keep_outside(writer: StateWriter, inventory: Inventory, steps: Iterable[Step]) -> None:
    """Keep what these steps trust and show: a later release may have to trust it once more when the file is gone."""
    recipes = [step.recipe for step in steps if step.recipe is not None]
    wanted = {one.sha256 for one in outside_anchors(recipes)}
    known = {one: inventory.certificates[one].der for one in wanted & inventory.certificates.keys()}
    shown = {one for recipe in recipes for served in recipe.listeners if served.shows for one in served.shows.chain}
    known |= {one: inventory.chains[one].der for one in shown & inventory.chains.keys()}
    if known:
        writer.keep_certificates([known[one] for one in sorted(known)])


def prove_outside(
    writer: StateWriter,
    inventory: Inventory,
    state: State,
    steps: Iterable[Step],
    transports: Mapping[str, Transport],
) -> None:
    """What the inventory declares it holds the bytes of. Anything else has to be trusted on a host already.

    Who can write the state could else name a certificate of their own there, to be trusted by the next release.
    Raises StateError M3050.
    """
    wanted = outside_anchors(step.recipe for step in steps if step.recipe is not None)
    undeclared = {one for one in wanted if one.sha256 not in inventory.certificates}
    for anchor in sorted(undeclared):
        if outside_certificate(writer, anchor) not in _held(anchor, state, transports):
            raise _swapped(anchor)


def _held(anchor: TrustAnchor, state: State, transports: Mapping[str, Transport]) -> set[bytes]:
    """The certificates of every bundle on a host that is to hold this anchor, in all of which it has to be."""
    from mtlsctl.errors import PreflightError
    from mtlsctl.pki.preflight import expected_bundles
    from mtlsctl.pki.stores import parse_bundle

    held: list[set[bytes]] = []
    for instance, live in state.live.items():
        paths = [path for path, anchors in expected_bundles(live.recipe).items() if anchor in anchors]
        transport = transports.get(instance.host)
        if not paths or transport is None:
            continue  # a host that cannot be asked proves nothing, and refutes nothing
        files = transport.read_release(instance.service, live.receipt.release)
        for path in paths:
            try:
                held.append(set(parse_bundle(files[path].read())))
            except (KeyError, ValueError, PreflightError):
                held.append(set())
    return set.intersection(*held) if held else set()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """A certificate that somebody outside has to trust in order to believe one of our services; `pem` is one block."""

    anchor: str
    instances: tuple[str, ...]
    pem: str


def anchors_to_hand_out(reader: StateReader, state: State, service: str) -> tuple[HandedOut, ...]:
    """What vouches for the leaves that a service shows or is about to show; raises UsageError (M9110) without any."""
    from mtlsctl.pki.stores import to_pem

    found: dict[TrustAnchor, list[str]] = {}
    for credential in state.credentials.values():
        if credential.id.instance.service == service:
            found.setdefault(credential.profile.anchor, []).append(str(credential.id.instance))
    if not found:
        raise UsageError(
            f"no certificate of a service `{service}` is on record",
            code="M9110",
            help="mtlsctl show lists what is live; apply the inventory first",
        )
    return tuple(
        HandedOut(
            anchor=str(anchor),
            instances=tuple(sorted(set(found[anchor]))),
            pem=to_pem([reader.certificate(anchor)]).decode("ascii"),
        )
        for anchor in in_order(found)
    )


def _swapped(anchor: OutsideAnchor) -> StateError:
    return StateError(
        f"the state names {anchor}, which is in no file of the repository and on no host that is to trust it",
        code=SWAPPED_CERTIFICATE,
        help="somebody altered the state: restore a backup with `mtlsctl state restore FILE`",
    )
