"""One screen about an estate: its CAs, its certificates, what is live, what was done last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, columns, counted, relative, stamp
from mtlsctl.planner.lifecycle import newest_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.credential import AuthorityId, CertificationAuthority, Credential
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId
    from mtlsctl.store.port import Operation, Signature

_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusScreen:
    """`renew_before` says of each service when its leaves are due; without an inventory it is empty."""

    state: State
    operations: tuple[Operation, ...]
    signatures: tuple[Signature, ...]
    now: datetime
    renew_before: Mapping[str, timedelta]

    @property
    def live(self) -> tuple[Credential, ...]:
        """Every certificate that some process presents."""
        known = self.state.credentials
        wanted = (one.recipe.credential for one in self.state.live.values())
        return tuple(known[one] for one in sorted(wanted) if one in known)

    @property
    def expired(self) -> tuple[Credential, ...]:
        return tuple(one for one in self.live if one.not_after <= self.now)

    @property
    def due(self) -> tuple[Credential, ...]:
        return tuple(one for one in self.live if one.not_after > self.now and self.now >= self.due_at(one))

    @property
    def undelivered(self) -> tuple[Credential, ...]:
        """Issued, newer than what is live, and on no host yet."""
        live = {one.recipe.credential for one in self.state.live.values()}
        newest = newest_credentials(self.state).values()
        return tuple(sorted((one for one in newest if one.id not in live), key=lambda one: one.id))

    @property
    def keys_missing(self) -> tuple[InstanceId, ...]:
        """Live without the key of their newest certificate; a removed instance misses none."""
        return tuple(sorted(self.state.keys_missing & self.state.live.keys()))

    @property
    def orphans(self) -> tuple[Signature, ...]:
        """May have been signed, and came back nowhere."""
        return tuple(one for one in self.signatures if one.signed and not one.recorded)

    def due_at(self, one: Credential) -> datetime:
        third = (one.not_after - one.not_before) / 3
        return one.not_after - self.renew_before.get(one.id.instance.service, third)

    def leaves_of(self, authority: AuthorityId) -> int:
        return sum(one.profile.authority == authority and one.not_after > self.now for one in self._known())

    def _known(self) -> Sequence[Credential]:
        return tuple(self.state.credentials.values())


def status_text(screen: StatusScreen, page: Page) -> str:
    blocks = [[_headline(screen)], *_trouble(screen, page), _authorities(screen, page), _certificates(screen, page)]
    blocks.append(_processes(screen, page))
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _headline(screen: StatusScreen) -> str:
    last = screen.operations[0] if screen.operations else None
    state = screen.state
    if last is None:
        return f"{state.estate}   serial {state.serial}   nothing was applied yet"
    outcome = last.outcome.value if last.outcome else "not ended"
    when = relative(last.closed_at or last.opened_at, screen.now)
    return f"{state.estate}   serial {state.serial}   last {last.command} {when} by {last.who} ({outcome})"


def _trouble(screen: StatusScreen, page: Page) -> list[list[str]]:
    if screen.state.interrupted is None:
        return []
    mark = page.paint(page.symbol("risk"), Tone.CHANGE)
    return [[f"{mark} operation {screen.state.interrupted} was begun and never ended: mtlsctl apply goes on with it"]]


def _authorities(screen: StatusScreen, page: Page) -> list[str]:
    held = sorted(screen.state.authorities.values(), key=lambda one: (one.not_after, one.id))
    rows = [_authority_row(one, screen) for one in held]
    shown = rows if page.full else [row for row in rows if row[3] != "ok"] or rows[:_LISTED]
    lines = columns(
        [["Service CAs", "expires", "leaves", "state"], *([f"  {row[0]}", *row[1:]] for row in shown)], indent=""
    )
    if not rows:
        return []
    hidden = len(rows) - len(shown)
    return [
        page.paint(lines[0], Tone.BOLD),
        *lines[1:],
        *([f"  ... {hidden:,} more (--full lists them)"] if hidden else []),
    ]


def _authority_row(one: CertificationAuthority, screen: StatusScreen) -> list[str]:
    latest = screen.state.generations.get(one.id.service, one.id.generation)
    if one.key_destroyed:
        condition = "key destroyed"
    elif one.not_after <= screen.now:
        condition = "EXPIRED"
    elif one.id.generation < latest:
        condition = "RETIRING"
    else:
        condition = "ok"
    return [str(one.id), relative(one.not_after, screen.now), str(screen.leaves_of(one.id)), condition]


def _certificates(screen: StatusScreen, page: Page) -> list[str]:
    bad = {*(one.id for one in screen.expired), *(one.id for one in screen.due)}
    fine = sum(one.id not in bad for one in screen.live)
    counts = f"ok {fine}   due {len(screen.due)}   expired {len(screen.expired)}   orphaned {len(screen.orphans)}"
    lines = [f"{page.paint('Certificates', Tone.BOLD)}   {counts}"]
    rows = [
        [f"{one.id.instance}", relative(one.not_after, screen.now), "EXPIRED", "mtlsctl apply"]
        for one in screen.expired
    ]
    rows += [[f"{one.id.instance}", relative(one.not_after, screen.now), "DUE", "mtlsctl apply"] for one in screen.due]
    rows += [
        [f"{one.id.instance}", relative(one.not_after, screen.now), "WAITING", "issued, on no host yet: mtlsctl apply"]
        for one in screen.undelivered
    ]
    rows += [
        [
            one.intent.common_name,
            relative(one.intent.not_after, screen.now),
            "ORPHAN",
            f"serial {one.intent.serial}, may exist",
        ]
        for one in screen.orphans
    ]
    shown = rows if page.full else rows[:_LISTED]
    lines += columns(shown)
    if len(shown) < len(rows):
        lines.append(f"  ... {len(rows) - len(shown):,} more (--full lists them)")
    return lines


def _processes(screen: StatusScreen, page: Page) -> list[str]:
    hosts = {one.host for one in screen.state.live}
    size = f"{counted(len(screen.state.live), 'instance')} live on {counted(len(hosts), 'host')}"
    missing = screen.keys_missing
    lines = [f"{page.paint('Instances', Tone.BOLD)}      {size}"]
    return lines + [f"  {one}   KEY MISSING   mtlsctl apply issues a new certificate" for one in missing]


def status_document(screen: StatusScreen) -> dict[str, object]:
    state = screen.state
    return {
        "format_version": "1.0",
        "kind": "status",
        "tool_version": __version__,
        "estate": state.estate,
        "lineage": state.lineage,
        "serial": state.serial,
        "interrupted": state.interrupted,
        "operations": [_operation(one) for one in screen.operations],
        "authorities": [
            {
                "id": str(one.id),
                "serial": one.serial,
                "not_after": stamp(one.not_after),
                "certificate_sha256": one.certificate_sha256,
                "leaves": screen.leaves_of(one.id),
                "state": _authority_row(one, screen)[3],
            }
            for one in sorted(state.authorities.values(), key=lambda one: one.id)
        ],
        "certificates": [_certificate(one, screen) for one in screen.live],
        "undelivered": [str(one.id) for one in screen.undelivered],
        "orphans": [{"issuer": str(one.intent.issuer), "serial": one.intent.serial} for one in screen.orphans],
        "keys_missing": list(map(str, screen.keys_missing)),
        "diagnostics": [],
    }


def _certificate(one: Credential, screen: StatusScreen) -> dict[str, object]:
    condition = "ok"
    if one.not_after <= screen.now:
        condition = "expired"
    elif screen.now >= screen.due_at(one):
        condition = "due"
    return {
        "instance": str(one.id.instance),
        "number": one.id.sequence,
        "serial": one.serial,
        "issuer": str(one.profile.authority),
        "names": list(one.profile.presented_names),
        "not_before": stamp(one.not_before),
        "not_after": stamp(one.not_after),
        "certificate_sha256": one.certificate_sha256,
        "state": condition,
    }


def _operation(one: Operation) -> dict[str, object]:
    return {
        "id": one.id,
        "command": one.command,
        "who": one.who,
        "opened_at": stamp(one.opened_at),
        "closed_at": None if one.closed_at is None else stamp(one.closed_at),
        "outcome": None if one.outcome is None else one.outcome.value,
    }
