"""One screen about an estate: its CAs, its certificates, what is live, what was done last."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, columns, counted, escaped, relative, stamp
from mtlsctl.model.topology import outside
from mtlsctl.operations.status import Standing

if TYPE_CHECKING:
    from mtlsctl.cli.views.page import Page
    from mtlsctl.operations.status import AuthorityStatus, CertificateStatus, Status
    from mtlsctl.store.port import Operation

_LISTED = 10

_WORDS = {
    Standing.OK: "ok",
    Standing.DUE: "DUE",
    Standing.EXPIRED: "EXPIRED",
    Standing.RETIRING: "RETIRING",
    Standing.KEY_DESTROYED: "key destroyed",
    Standing.PENDING: "WAITING",
}

_ADVICE = {
    Standing.EXPIRED: "mtlsctl apply",
    Standing.DUE: "mtlsctl apply",
    Standing.RETIRING: "not declared any more: mtlsctl apply",
    Standing.PENDING: "issued, on no host yet: mtlsctl apply",
}
"""What to do about a certificate that is not simply fine, the most urgent first."""


def status_text(found: Status, page: Page) -> str:
    blocks = [[_headline(found)], *_trouble(found, page), _authorities(found, page), _certificates(found, page)]
    blocks += [_outside(found, page), _processes(found, page), _hosts(found, page)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _hosts(found: Status, page: Page) -> list[str]:
    if found.refreshed is None:
        return []
    from mtlsctl.cli.views.drift import hosts_lines  # noqa: PLC0415  only a status that looked has it

    return hosts_lines(found.refreshed, page)


def _headline(found: Status) -> str:
    last = found.operations[0] if found.operations else None
    state = found.state
    if last is None:
        return f"{state.estate}   serial {state.serial}   nothing was applied yet"
    outcome = last.outcome.value if last.outcome else "not ended"
    when = relative(last.closed_at or last.opened_at, found.now)
    return f"{state.estate}   serial {state.serial}   last {last.command} {when} by {last.who} ({outcome})"


def _trouble(found: Status, page: Page) -> list[list[str]]:
    if found.state.interrupted is None:
        return []
    mark = page.paint(page.symbol("risk"), Tone.CHANGE)
    return [[f"{mark} operation {found.state.interrupted} was begun and never ended: mtlsctl apply goes on with it"]]


def _authorities(found: Status, page: Page) -> list[str]:
    held = sorted(found.authorities, key=lambda one: (one.authority.not_after, one.authority.id))
    telling = [one for one in held if one.standing is not Standing.OK] or held[:_LISTED]
    shown = held if page.full else telling
    rows = [
        [f"  {one.authority.id}", relative(one.authority.not_after, found.now), str(one.leaves), _WORDS[one.standing]]
        for one in shown
    ]
    lines = columns([["Service CAs", "expires", "leaves", "state"], *rows], indent="")
    if not held:
        return []
    return [page.paint(lines[0], Tone.BOLD), *lines[1:], *_more(len(held) - len(shown))]


def _outside(found: Status, page: Page) -> list[str]:
    """Certificates that somebody else made and has to replace."""
    if not found.outside:
        return []
    held = sorted(found.outside, key=lambda one: (one.not_after, one.anchor))
    shown = held if page.full else held[:_LISTED]
    rows = [
        [
            f"  {outside(one.anchor.name)}",
            relative(one.not_after, found.now),
            _WORDS[one.standing],
            escaped(one.subject),
        ]
        for one in shown
    ]
    lines = columns([["From outside", "expires", "state", "subject"], *rows], indent="")
    return [page.paint(lines[0], Tone.BOLD), *lines[1:], *_more(len(held) - len(shown))]


def _more(hidden: int) -> list[str]:
    return [f"  ... {hidden:,} more (--full lists them)"] if hidden else []


def _certificates(found: Status, page: Page) -> list[str]:
    count = Counter(one.standing for one in found.certificates)
    fine = count[Standing.OK] + count[Standing.RETIRING]
    counts = f"ok {fine}   due {count[Standing.DUE]}   expired {count[Standing.EXPIRED]}"
    rows = [_row(one, found) for kind in _ADVICE for one in found.certificates if one.standing is kind]
    rows += [
        [
            one.intent.common_name,
            relative(one.intent.not_after, found.now),
            "ORPHAN",
            f"serial {one.intent.serial}, may exist",
        ]
        for one in found.orphans
    ]
    shown = rows if page.full else rows[:_LISTED]
    return [
        f"{page.paint('Certificates', Tone.BOLD)}   {counts}   orphaned {len(found.orphans)}",
        *columns(shown),
        *_more(len(rows) - len(shown)),
    ]


def _row(one: CertificateStatus, found: Status) -> list[str]:
    when = relative(one.credential.not_after, found.now)
    advice = _ADVICE[one.standing]
    if one.standing is Standing.PENDING and one.credential.profile.request_sha256 is not None:
        advice = "issued for its owner's key, on no host yet: mtlsctl apply says where the key is to lie"
    return [str(one.credential.id.instance), when, _WORDS[one.standing], advice]


def _processes(found: Status, page: Page) -> list[str]:
    hosts = {one.host for one in found.state.live}
    size = f"{counted(len(found.state.live), 'instance')} live on {counted(len(hosts), 'host')}"
    lines = [f"{page.paint('Instances', Tone.BOLD)}      {size}"]
    return lines + [f"  {one}   KEY MISSING   mtlsctl apply issues a new certificate" for one in found.keys_missing]


def status_document(found: Status) -> dict[str, object]:
    """`state` is the standing; `certificates` are those that some process presents."""
    state = found.state
    hosts: dict[str, object] = {}
    if found.refreshed is not None:
        from mtlsctl.cli.views.drift import drift_document  # noqa: PLC0415  only a status that looked has it

        hosts = {"hosts": drift_document(found.refreshed)}
    waiting = [one for one in found.certificates if one.standing is Standing.PENDING]
    return {
        "format_version": "1.0",
        "kind": "status",
        "tool_version": __version__,
        "estate": state.estate,
        "lineage": state.lineage,
        "serial": state.serial,
        "interrupted": state.interrupted,
        "operations": [_operation(one) for one in found.operations],
        "authorities": [_authority(one) for one in found.authorities],
        "certificates": [_certificate(one) for one in found.certificates if one.release is not None],
        "outside": [
            {
                "name": one.anchor.name,
                "certificate_sha256": one.anchor.sha256,
                "subject": one.subject,
                "not_after": stamp(one.not_after),
                "state": one.standing.value,
            }
            for one in found.outside
        ],
        "undelivered": [str(one.credential.id) for one in waiting],
        "orphans": [{"issuer": str(one.intent.issuer), "serial": one.intent.serial} for one in found.orphans],
        "keys_missing": list(map(str, found.keys_missing)),
        "diagnostics": [],
        **hosts,
    }


def _authority(one: AuthorityStatus) -> dict[str, object]:
    return {
        "id": str(one.authority.id),
        "serial": one.authority.serial,
        "not_after": stamp(one.authority.not_after),
        "certificate_sha256": one.authority.certificate_sha256,
        "leaves": one.leaves,
        "state": one.standing.value,
    }


def _certificate(one: CertificateStatus) -> dict[str, object]:
    leaf = one.credential
    return {
        "instance": str(leaf.id.instance),
        "number": leaf.id.sequence,
        "serial": leaf.serial,
        "issuer": str(leaf.profile.authority),
        "names": list(leaf.profile.presented_names),
        "not_before": stamp(leaf.not_before),
        "not_after": stamp(leaf.not_after),
        "certificate_sha256": leaf.certificate_sha256,
        "request_sha256": leaf.profile.request_sha256,
        "release": one.release,
        "state": one.standing.value,
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
