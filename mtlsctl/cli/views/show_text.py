"""What is live: of each instance its release, its certificate, whom it lets in and whom it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, columns, escaped, relative, shortened, stamp
from mtlsctl.model.topology import ANY_MEMBER, ANYBODY, ClientCertificate, outside
from mtlsctl.model.trust import EVERYBODY, OutsideAnchor, in_order, member_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.credential import Credential
    from mtlsctl.model.release import ServedListener
    from mtlsctl.model.state import Live, State
    from mtlsctl.model.trust import Member, TrustAnchor
    from mtlsctl.operations.outside import HandedOut


def show_text(state: State, now: datetime, page: Page) -> str:
    head = ["instance", "process", "release", "certificate", "ends", "lets in", "calls"]
    rows = [_row(live, state, now) for _, live in sorted(state.live.items())]
    if not rows:
        return "Nothing is live yet. Next: mtlsctl plan\n"
    lines = columns([head, *rows], indent="")
    if not page.full and max(map(len, lines)) > page.width:
        lines = columns([row[:2] + row[3:5] + [shortened(row[5], 24)] for row in (head, *rows)], indent="")
    return "\n".join([page.paint(lines[0], Tone.BOLD), *lines[1:]]) + "\n"


def _row(live: Live, state: State, now: datetime) -> list[str]:
    recipe = live.recipe
    credential = state.credentials.get(recipe.credential)
    return [
        str(recipe.instance),
        recipe.process.name,
        live.receipt.release,
        "unknown" if credential is None else _certificate(credential),
        "" if credential is None else relative(credential.not_after, now),
        " ".join(who for served in recipe.listeners for who in _let_in(served)) or "-",
        " ".join(map(str, recipe.callees)) or "-",
    ]


def _certificate(credential: Credential) -> str:
    key = ", owner's key" if credential.profile.request_sha256 is not None else ""
    return f"{credential.profile.authority}, {credential.serial[:8]}...{key}"


def _let_in(served: ServedListener) -> list[str]:
    is_open = served.client_certificate is not ClientCertificate.REQUIRED
    others = [
        *(["anybody"] if is_open else []),
        *(["every member of the shared CA"] if served.policy.takes_members else []),
    ]
    return [*_callers(served), *others]


def _callers(served: ServedListener) -> list[str]:
    beyond = served.policy.outsiders
    return [outside(caller) if caller in beyond else caller for caller in served.callers]


def _anchor(anchor: TrustAnchor) -> str:
    """Its name; of one from outside with its whole digest."""
    return f"{outside(anchor.name)} sha256:{anchor.sha256}" if isinstance(anchor, OutsideAnchor) else str(anchor)


def _member(member: Member) -> dict[str, object]:
    subject = None if member.name == EVERYBODY else member.subject
    return {"anchor": _anchor(member.anchor), "subject": subject}


def show_document(state: State) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "show",
        "tool_version": __version__,
        "estate": state.estate,
        "lineage": state.lineage,
        "serial": state.serial,
        "live": [_live(live, state) for _, live in sorted(state.live.items())],
        "diagnostics": [],
    }


def _live(live: Live, state: State) -> dict[str, object]:
    recipe = live.recipe
    credential = state.credentials.get(recipe.credential)
    return {
        "instance": str(recipe.instance),
        "host": recipe.process.host,
        "process": recipe.process.name,
        "runtime": recipe.runtime,
        "release": live.receipt.release,
        "release_digest": live.receipt.release_digest,
        "recipe_digest": recipe.digest,
        "files": [{"path": one.path, "sha256": one.sha256, "mode": f"{one.mode:04o}"} for one in live.receipt.files],
        "listeners": [
            {
                "name": served.name,
                "sockets": [{"address": socket.address, "port": socket.port} for socket in served.sockets],
                "client_certificate": served.client_certificate.value,
                "callers": _callers(served),
                "anchors": [_anchor(anchor) for anchor in in_order(served.policy.anchors)],
                "members": None
                if served.policy.members is None
                else [_member(one) for one in sorted(served.policy.members, key=member_order)],
            }
            for served in recipe.listeners
        ],
        "calls": list(map(str, recipe.callees)),
        "certificate": None
        if credential is None
        else {
            "serial": credential.serial,
            "issuer": str(credential.profile.authority),
            "names": list(credential.profile.presented_names),
            "not_before": stamp(credential.not_before),
            "not_after": stamp(credential.not_after),
            "certificate_sha256": credential.certificate_sha256,
            "request_sha256": credential.profile.request_sha256,
        },
    }


def _call(grant: Mapping[str, str], words: str) -> str:
    if grant["caller"] == ANYBODY:
        return f"anybody {words} {grant['listener']} without a certificate"
    who = "every member of the shared CA" if grant["caller"] == ANY_MEMBER else grant["caller"]
    return f"{who} {words} {grant['listener']}"


def anchors_text(found: Sequence[HandedOut]) -> str:
    """The certificates one after the other, as programs read them: nothing else stands between them."""
    return "".join(one.pem for one in found)


def anchors_document(found: Sequence[HandedOut]) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "anchors",
        "tool_version": __version__,
        "anchors": [{"anchor": one.anchor, "instances": list(one.instances), "pem": one.pem} for one in found],
        "diagnostics": [],
    }


def saved_plan_text(document: Mapping[str, object]) -> str:
    """A saved plan, read again from its file: access first, then each action in a line."""
    plain: dict = dict(document)  # type: ignore[type-arg]  # a document whose checksum held
    words = {"add": "may call", "change": "still may call", "remove": "may no longer call"}
    signs = {"add": "+", "change": "~", "remove": "-"}
    lines = [
        f"Plan of {plain['estate']}, serial {plain['serial']}, made {plain['created_at']}, until {plain['expires_at']}",
        f"Fingerprint  {plain['fingerprint']}",
        "",
        "Access changes",
    ]
    lines += [f"  {signs[one['op']]} {_call(one, words[one['op']])}" for one in plain["grants"]]
    lines += ["  none"] * (not plain["grants"])
    lines += [f"  ! {one['code']} {escaped(one['summary'])}" for one in plain["risks"]]
    lines += [
        "",
        "Actions",
        *columns(
            [[one["op"], one["id"], ", ".join(one.get("reasons", one.get("details", ())))] for one in plain["actions"]]
        ),
    ]
    return "\n".join(lines) + "\n"
