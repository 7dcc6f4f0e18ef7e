"""Runs probes: the declared calls first, because what they show decides what a silent close means."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mtlsctl.model.probe import Expectation, Observation, Outcome, Presented
from mtlsctl.verify.doors import Shown, ask_in_clear, compare_first_flight, greet_undeclared
from mtlsctl.verify.handshake import ABOUT_THE_CALLER, Ending, Seen, call, client_context, is_proof_of_service, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mtlsctl.model.probe import Probe
    from mtlsctl.model.release import Endpoint
    from mtlsctl.model.topology import ListenerId
    from mtlsctl.verify.identity import Identity
    from mtlsctl.verify.wire import Served

    Door = tuple[ListenerId, Endpoint, str, str]
    ClosedDoor = tuple[ListenerId, Endpoint, str]

_ALERTS_OF_A_CLOSED_DOOR = frozenset({"handshake_failure", "protocol_version", "insufficient_security"})
"""What a server says that has nothing to agree on; by itself it may also mean a caller that speaks something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotProbed:
    """Why a probe cannot be made; never a secret."""

    reason: str


class IdentitySource(Protocol):
    """Gives each probe what it needs, when it is made. Called from several threads."""

    def identity(self, probe: Probe) -> Identity | NotProbed | None:
        """What to present; None presents nothing (`Presented.NO_CERTIFICATE`)."""

    def anchors(self, probe: Probe) -> bytes | NotProbed | None:
        """With which anchors (PEM) to believe the server; None: with those of this machine.

        For a declared caller its own from its applied release; for any other probe those of the server's service,
        so that a refusal is known to come from it.
        """

    def served(self, probe: Probe) -> Served | NotProbed:
        """What the door shows if it serves what was applied (`Presented.OTHER_CA`)."""


@dataclass(frozen=True, slots=True)
class _Run:
    identities: IdentitySource
    connect: Callable[[Endpoint], tuple[str, int]]
    timeout_seconds: float
    is_ours: bool = False
    call_far: Callable[[Probe], Seen | NotProbed | None] = lambda _: None
    proven: set[Door] = field(default_factory=set)
    closed: set[ClosedDoor] = field(default_factory=set)
    """Doors at which nobody is to be let in, and that showed no certificate to a greeting."""
    greeted: set[tuple[ListenerId, Endpoint, str]] = field(default_factory=set)
    """Doors that showed what was applied: a handshake that they break off then is one about the caller."""

    def try_one(self, probe: Probe) -> Seen | Shown | NotProbed:
        match probe.presented:
            case Presented.PLAINTEXT:
                return ask_in_clear(
                    *self.connect(probe.endpoint), probe.server_name, timeout_seconds=self.timeout_seconds
                )
            case Presented.OTHER_PROTOCOL:
                place = self.connect(probe.endpoint)
                return greet_undeclared(*place, probe.server_name, probe.protocol, timeout_seconds=self.timeout_seconds)
            case Presented.OTHER_CA:
                return self._compare(probe)
            case _:
                return self._call(probe)

    def _compare(self, probe: Probe) -> Shown | NotProbed:
        served = self.identities.served(probe)
        if isinstance(served, NotProbed):
            return served
        return compare_first_flight(served, *self.connect(probe.endpoint), timeout_seconds=self.timeout_seconds)

    def _call(self, probe: Probe) -> Seen | NotProbed:
        far = self.call_far(probe)
        if far is not None:
            return far
        context = self._context(probe)
        if isinstance(context, NotProbed):
            return context
        address, port = self.connect(probe.endpoint)
        return call(context, address, port, probe.server_name, timeout_seconds=self.timeout_seconds)

    def _context(self, probe: Probe) -> ssl.SSLContext | NotProbed:
        identity, anchors = self.identities.identity(probe), self.identities.anchors(probe)
        if isinstance(identity, NotProbed):
            return identity
        if isinstance(anchors, NotProbed):
            return anchors
        if (identity is None) != (probe.presented is Presented.NO_CERTIFICATE):
            return NotProbed(reason="there is nothing to present")
        try:
            return client_context(identity, anchors, probe.protocol)
        except (ssl.SSLError, ValueError):
            return NotProbed(reason="the certificate, its key or the anchors do not load")

    def learn(self, probe: Probe, seen: Seen | Shown | NotProbed) -> None:
        if isinstance(seen, Seen) and is_proof_of_service(seen):
            self.proven.add(_door(probe))
        is_first_flight = isinstance(seen, Shown) and probe.presented is Presented.OTHER_CA
        if is_first_flight and isinstance(seen, Shown) and seen.observed is Observation.REFUSED and seen.served_sha256:
            self.greeted.add(_door(probe)[:3])

    def learn_closed(self, probe: Probe, seen: Seen | Shown | NotProbed) -> None:
        if isinstance(seen, Shown) and seen.shows_nothing:
            self.closed.add(_door(probe)[:3])

    def outcome(self, probe: Probe, seen: Seen | Shown | NotProbed) -> Outcome:
        if isinstance(seen, NotProbed):
            return Outcome(probe=probe, observed=Observation.NOT_PROBED, evidence=seen.reason)
        if isinstance(seen, Shown):
            return Outcome(
                probe=probe,
                observed=Observation.REFUSED if seen.if_proven and self._is_known(probe) else seen.observed,
                evidence=seen.evidence,
                http_status=seen.http_status,
                served_sha256=seen.served_sha256,
            )
        return Outcome(
            probe=probe,
            observed=observe(seen, probe.expected, proven=self._is_proven(probe, seen)),
            evidence=seen.evidence,
            http_status=seen.http_status,
            served_sha256=seen.served_sha256,
        )

    def _is_known(self, probe: Probe) -> bool:
        """Whether this listener is known to serve somebody, or to show nothing to anybody."""
        return self._serves(probe) or _door(probe)[:3] in self.closed

    def _is_proven(self, probe: Probe, seen: Seen) -> bool:
        """Whether it was the caller that ended the call; where nobody of ours may call, nobody is ever served."""
        if _door(probe) in self.proven or self._is_closed(probe, seen):
            return True
        knows = self.is_ours or _door(probe)[:3] in self.greeted
        return knows and seen.ending is Ending.ALERT and seen.detail in ABOUT_THE_CALLER

    def _is_closed(self, probe: Probe, seen: Seen) -> bool:
        """Whether the alert is that of a server that shows its certificate to nobody, as Apache closes a door."""
        is_such_alert = seen.ending is Ending.ALERT and seen.detail in _ALERTS_OF_A_CLOSED_DOOR
        return is_such_alert and _door(probe)[:3] in self.closed

    def _serves(self, probe: Probe) -> bool:
        """Whether a declared caller was served at the same listener, with whatever protocol."""
        return any(door[:3] == _door(probe)[:3] for door in self.proven)


def _door(probe: Probe) -> Door:
    return probe.listener, probe.endpoint, probe.server_name, probe.protocol


def run_probes(
    probes: Sequence[Probe],
    identities: IdentitySource,
    *,
    connect: Callable[[Endpoint], tuple[str, int]],
    workers: int = 8,
    timeout_seconds: float = 5.0,
    is_ours: bool = False,
    call_far: Callable[[Probe], Seen | NotProbed | None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Make every probe and say what each showed, in the order given; declared calls are made before all others.

    `is_ours`: the servers are embedded ones, of which nothing but the applied files can be wrong. `call_far` makes the
    call on the caller's own host where that is to be so, and gives None for one that is made here.
    """
    run = _Run(identities, connect, timeout_seconds, is_ours, call_far)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="probe") as pool:
        seen = dict(_try_all(pool, run, _with(probes, Expectation.ALLOWED)))
        for at, what in seen.items():
            run.learn(probes[at], what)
        seen |= _try_all(pool, run, _with(probes, Expectation.REFUSED))
        for at, what in seen.items():
            run.learn_closed(probes[at], what)
            if probes[at].presented is Presented.OTHER_CA:
                run.learn(probes[at], what)
    return tuple(run.outcome(probe, seen[at]) for at, probe in enumerate(probes))


def _with(probes: Sequence[Probe], expected: Expectation) -> list[tuple[int, Probe]]:
    return [(at, probe) for at, probe in enumerate(probes) if probe.expected is expected]


def _try_all(
    pool: ThreadPoolExecutor, run: _Run, numbered: list[tuple[int, Probe]]
) -> Iterable[tuple[int, Seen | Shown | NotProbed]]:
    places = [at for at, _ in numbered]
    return zip(places, pool.map(run.try_one, [probe for _, probe in numbered]), strict=True)
