"""A plan as a document, saved and read back: what was reviewed is what is applied, or nothing is."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.errors import PlanRefused, UsageError
from mtlsctl.model.diagnostic import printable
from mtlsctl.model.plan import Op
from mtlsctl.model.release import canonical_digest, canonical_json
from mtlsctl.model.topology import ProcessId
from mtlsctl.operations.project import is_estate_name, is_lineage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtlsctl.model.credential import CertificateProfile
    from mtlsctl.model.diagnostic import Diagnostic, Span
    from mtlsctl.model.plan import (
        Abandonment,
        AccessChange,
        AuthorityChange,
        CertificateChange,
        HostMove,
        KeyRequest,
        OutsideGrant,
        Plan,
        Risk,
        ServiceChange,
        ServiceMove,
        Step,
    )
    from mtlsctl.model.state import State

FORMAT_VERSION = "1.0"
LIFETIME = timedelta(hours=24)
"""A saved plan is refused after this: what it was made for has moved on."""

_LARGEST = 256 * 1024 * 1024
_MENTIONED = 5
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """A plan file that holds together and has not expired; whether it still fits is for `compare` to say.

    `actions` maps each action's identifier to the digest of what it does. `pointers` are the SHA-256 that each
    process's pointer had when the plan was made (None: there was none).
    """

    path: Path
    document: Mapping[str, object]
    estate: str
    lineage: str
    serial: int
    inventory_digest: str
    fingerprint: str
    created_at: datetime
    expires_at: datetime
    actions: Mapping[str, str]
    pointers: Mapping[ProcessId, str | None]


def plan_document(plan: Plan, state: State | None = None, *, speculative: bool = True) -> dict[str, object]:
    """The plan as plain JSON values: public facts only, every list in a fixed order.

    With the state it says what must still hold when it is applied; nothing in it is a secret, because neither the
    plan nor the snapshot has any. `sealed` is false: the checksum of a saved plan finds accidents and edits, it does
    not prove who made it.
    """
    return {
        "format_version": FORMAT_VERSION,
        "kind": "plan",
        "tool_version": __version__,
        "sealed": False,
        "speculative": speculative,
        "created_at": _stamp(plan.created_at),
        "expires_at": _stamp(plan.created_at + LIFETIME),
        "estate": plan.estate,
        "lineage": plan.lineage,
        "serial": plan.serial,
        "inventory": {"digest": f"sha256:{plan.inventory_digest}"},
        "fingerprint": plan.fingerprint,
        "has_changes": plan.has_changes,
        "grants": [_grant(one) for one in plan.access],
        "risks": [_risk(one) for one in plan.risks],
        "actions": actions_of(plan),
        "preconditions": [] if state is None else preconditions_of(plan, state),
        "next_due": None
        if plan.next_due is None
        else {"subject": plan.next_due.subject, "at": _stamp(plan.next_due.at)},
        "summary": summary_of(plan),
        "diagnostics": [_diagnostic(one) for one in (*plan.refusals, *plan.warnings)],
    }


def summary_of(plan: Plan) -> dict[str, int]:
    """`issue`, `renew`, `replace`, `remove` count certificates, `authorities` new CAs, the rest what is touched."""
    certificates, access = plan.certificate_changes, [one.op for one in plan.access]
    return {
        "issue": sum(one.op is Op.ADD for one in certificates),
        "renew": sum(one.op is Op.CHANGE and one.due for one in certificates),
        "replace": sum(one.op is Op.CHANGE and not one.due for one in certificates),
        "remove": sum(one.op is Op.REMOVE for one in certificates),
        "authorities": len(plan.authorities),
        "grants_added": access.count(Op.ADD),
        "grants_removed": access.count(Op.REMOVE),
        "hosts_moved": len(plan.moves),
        "services_renamed": len(plan.renames),
        "hosts_abandoned": len(plan.abandonments),
        "hosts_touched": len({step.process.host for step in plan.steps}),
        "processes_touched": len(plan.processes),
        "releases": sum(step.recipe is not None for step in plan.steps),
        "restarts": len({step.process for step in plan.steps if step.needs_restart}),
        "unchanged_instances": plan.unchanged_instances,
    }


def actions_of(plan: Plan) -> list[dict[str, object]]:
    """Everything that an apply would do, in the order in which it may be done."""
    return [
        *map(_move, plan.moves),
        *map(_rename, plan.renames),
        *map(_abandonment, plan.abandonments),
        *map(_authority, plan.authority_changes),
        *map(_request, plan.requests),
        *map(_certificate, plan.certificate_changes),
        *map(_service, plan.service_changes),
        *map(_step, plan.steps),
    ]


def preconditions_of(plan: Plan, state: State) -> list[dict[str, object]]:
    """What each touched process's pointer was last seen to hold."""
    pointers = _pointers(plan, state)
    return [
        {"host": process.host, "process": process.name, "pointer_sha256": pointers.get(process)}
        for process in sorted(plan.processes)
    ]


def _pointers(plan: Plan, state: State) -> Mapping[ProcessId, str]:
    """In the names that hosts will bear."""
    names = {move.old: move.new for move in plan.moves}
    return {ProcessId(names.get(at.host, at.host), at.name): sha256 for at, sha256 in state.pointers.items()}


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _place(span: Span | None) -> dict[str, object] | None:
    return None if span is None else {"file": span.file, "line": span.line, "column": span.column}


def _grant(one: AccessChange) -> dict[str, object]:
    return {
        "op": one.op.value,
        "caller": one.caller,
        "listener": f"{one.edge.listener}:{one.port}",
        "reason": one.reason,
        "source": _place(one.span),
        "outside": None if one.outside is None else _outside_grant(one.outside),
    }


def _outside_grant(grant: OutsideGrant) -> dict[str, object]:
    return {
        "certificates": list(grant.certificates),
        "identities": None if grant.identities is None else list(grant.identities),
    }


def _risk(one: Risk) -> dict[str, object]:
    return {"code": one.code, "summary": one.summary, "source": _place(one.span)}


def _diagnostic(one: Diagnostic) -> dict[str, object]:
    return {
        "severity": one.severity.value,
        "code": one.code,
        "summary": one.message,
        "source": _place(one.span),
        "help": one.help,
    }


_VERBS = {Op.ADD: "issue", Op.CHANGE: "replace", Op.REMOVE: "remove"}


def _move(one: HostMove) -> dict[str, object]:
    return {"id": f"host/{one.old}", "op": "move", "to": one.new, "source": _place(one.span)}


def _rename(one: ServiceMove) -> dict[str, object]:
    return {
        "id": f"service/{one.old}",
        "op": "rename",
        "to": one.new,
        "hosts": list(one.hosts),
        "source": _place(one.span),
    }


def _abandonment(one: Abandonment) -> dict[str, object]:
    instances = list(map(str, one.instances))
    return {"id": f"host/{one.host}", "op": "abandon", "instances": instances, "source": _place(one.span)}


def _authority(one: AuthorityChange) -> dict[str, object]:
    profile = one.profile
    after = (
        None
        if profile is None
        else {
            "common_name": profile.common_name,
            "key": profile.key.value,
            "lifetime_seconds": int(profile.lifetime.total_seconds()),
            "permitted_names": list(profile.permitted_names),
            "addresses": profile.addresses,
        }
    )
    return {
        "id": f"authority/{one.id.service}/g{one.id.generation}",
        "op": "destroy-key" if one.op is Op.REMOVE else "issue",
        "reasons": [_slug(reason.name) for reason in one.reasons],
        "due": one.due,
        "after": after,
        "unknown": [] if profile is None else ["serial", "sha256"],
    }


def _request(one: KeyRequest) -> dict[str, object]:
    return {
        "id": f"key/{one.credential}",
        "op": "request",
        "instance": str(one.credential.instance),
        "key": one.key.value,
        "origin": one.origin.value,
    }


def _certificate(one: CertificateChange) -> dict[str, object]:
    profile = one.profile
    before = {
        "names": list(one.names_before),
        "not_after": None if one.not_after_before is None else _stamp(one.not_after_before),
    }
    after = (
        None
        if profile is None
        else {
            "number": profile.id.sequence,
            "issuer": str(profile.authority),
            "names": list(profile.presented_names),
            "addresses": list(profile.addresses),
            "usages": sorted(usage.value for usage in profile.usages),
            "key": profile.key.value,
            "lifetime_seconds": int(profile.lifetime.total_seconds()),
            **_asked_for(one, profile),
        }
    )
    return {
        "id": f"certificate/{one.instance}",
        "op": "renew" if one.op is Op.CHANGE and one.due else _VERBS[one.op],
        "reasons": [_slug(reason.name) for reason in one.reasons],
        "due": one.due,
        "instance": str(one.instance),
        "before": None if one.op is Op.ADD else before,
        "after": after,
        "unknown": [] if profile is None else ["serial", "sha256"],
    }


def _asked_for(one: CertificateChange, profile: CertificateProfile) -> dict[str, object]:
    if profile.request_sha256 is None:
        return {}
    return {"request_sha256": profile.request_sha256, "same_key": one.is_same_key}


def _service(one: ServiceChange) -> dict[str, object]:
    return {
        "id": f"service/{one.instance}",
        "op": one.op.value,
        "due": one.due,
        "instance": str(one.instance),
        "details": list(one.details),
    }


def _step(one: Step) -> dict[str, object]:
    return {
        "id": f"release/{one.id}",
        "op": "remove" if one.recipe is None else "publish",
        "instance": str(one.id.instance),
        "host": one.process.host,
        "process": one.process.name,
        "wave": str(one.id.wave),
        "recipe_digest": None if one.recipe is None else one.recipe.digest,
        "waits_for": sorted(map(str, one.waits_for)),
    }


def _slug(name: str) -> str:
    return name.lower()


# --- saving ---------------------------------------------------------------------------------------------------------


def write_saved_plan(path: Path, plan: Plan, state: State) -> None:
    """Write it whole or not at all, 0600; replaces an earlier plan, never any other file."""
    import os
    import tempfile

    if path.is_symlink() or (path.exists() and not _is_plan(path)):
        raise UsageError(
            f"{path} is there and is not a plan; it is left as it is",
            code="M5008",
            help="name another file after --out",
        )
    content = _sealed_text(plan_document(plan, state, speculative=False)).encode("ascii")
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink()
        raise


def _is_plan(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file() and b'"kind":"plan"' in path.read_bytes()
    return False


def _sealed_text(document: Mapping[str, object]) -> str:
    """Canonical JSON in one line, with a checksum over everything else in it."""
    payload = {key: value for key, value in document.items() if key != "checksum"}
    return canonical_json({**payload, "checksum": f"sha256:{canonical_digest(payload)}"}) + "\n"


# --- reading back ---------------------------------------------------------------------------------------------------


def load_saved_plan(path: Path, now: datetime) -> SavedPlan:
    """Read a plan file; raises PlanRefused when it is not one, was altered, has expired or is of another version.

    One text stands for one document, so a change of any byte is found, also one that JSON would not notice.
    """
    document = _document(path)
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise _refused(
            f"{path} has format version {_shown(version)}; this version of mtlsctl reads {FORMAT_VERSION}", "M5004"
        )
    saved = _parsed(path, document)
    if now >= saved.expires_at:
        raise _refused(f"this plan expired at {_stamp(saved.expires_at)}", "M5005")
    if saved.created_at - now > _CLOCKS_DIFFER:
        raise _refused(f"this plan was made at {_stamp(saved.created_at)}, which this clock calls the future", "M5005")
    return saved


def _document(path: Path) -> Mapping[str, object]:
    text = _text(path)
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("kind") != "plan":
            raise _refused(f"{path} is not a plan", "M5001")
        if _sealed_text(document) != text:
            raise _refused(f"{path} was altered after it was saved", "M5010")
    except (ValueError, RecursionError):
        raise _refused(f"{path} is not a plan, or was altered", "M5001") from None
    return document


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise _refused(f"{path} is larger than any plan", "M5001")
        return path.read_bytes().decode("ascii")
    except FileNotFoundError:
        raise UsageError(
            f"there is no plan at {path}", code="M5009", help="mtlsctl plan --out FILE makes one"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds bytes that no plan holds"
        raise _refused(f"{path} cannot be read as a plan: {reason}", "M5001") from None


def _parsed(path: Path, document: Mapping[str, object]) -> SavedPlan:
    plain: dict = dict(document)  # type: ignore[type-arg]  # its shape is looked at first
    if not _fits(document, _SHAPE):
        raise _refused(f"{path} is not a plan: a part of it is missing, or is not what it should be", "M5001")
    try:
        created_at, expires_at = _time(plain["created_at"]), _time(plain["expires_at"])
    except (ValueError, OverflowError):
        raise _refused(f"{path} is not a plan: a time in it is none", "M5001") from None
    if expires_at - created_at != LIFETIME:
        raise _refused(f"{path} claims another lifetime than the 24 hours that a plan has", "M5005")
    if len({one["id"] for one in plain["actions"]}) != len(plain["actions"]):
        raise _refused(f"{path} is not a plan: two of its actions have one name", "M5001")
    return SavedPlan(
        path=path,
        document=document,
        estate=plain["estate"],
        lineage=plain["lineage"],
        serial=plain["serial"],
        inventory_digest=plain["inventory"]["digest"].removeprefix("sha256:"),
        fingerprint=plain["fingerprint"],
        created_at=created_at,
        expires_at=expires_at,
        actions={one["id"]: canonical_digest(one) for one in plain["actions"]},
        pointers={ProcessId(one["host"], one["process"]): one["pointer_sha256"] for one in plain["preconditions"]},
    )


def _time(text: str) -> datetime:
    """Exactly as `_stamp` writes it: aware and UTC; raises ValueError."""
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    if _stamp(at) != text:
        raise ValueError(text)
    return at


def _is_word(value: object) -> bool:
    """A text that can be printed as it is."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD and value.isprintable()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_maybe_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_serial(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _fits(value: object, shape: object) -> bool:
    """Whether a value has a shape: {key: shape, "key?": shape, ...}, [shape of each], or a rule."""
    match shape:
        case dict():
            return isinstance(value, dict) and all(
                _fits(value[key.rstrip("?")], inner) if key.rstrip("?") in value else key.endswith("?")
                for key, inner in shape.items()
            )
        case [each]:
            return isinstance(value, list) and all(_fits(one, each) for one in value)
        case _:
            return bool(shape(value))  # type: ignore[operator]


_LONGEST_WORD = 4096
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_FINGERPRINT = re.compile("mp1:[0-9a-f]{4}(-[0-9a-f]{4}){2}")
_SHAPE = {
    "created_at": _is_word,
    "expires_at": _is_word,
    "estate": lambda value: isinstance(value, str) and is_estate_name(value),
    "lineage": lambda value: isinstance(value, str) and is_lineage(value),
    "serial": _is_serial,
    "inventory": {"digest": _is_digest},
    "fingerprint": lambda value: isinstance(value, str) and _FINGERPRINT.fullmatch(value) is not None,
    "grants": [
        {
            "op": lambda value: isinstance(value, str) and value in {op.value for op in Op},
            "caller": _is_word,
            "listener": _is_word,
            "reason": _is_text,
        }
    ],
    "risks": [{"code": _is_word, "summary": _is_text}],
    "actions": [{"id": _is_word, "op": _is_word, "reasons?": [_is_word], "details?": [_is_word]}],
    "preconditions": [{"host": _is_word, "process": _is_word, "pointer_sha256": _is_maybe_text}],
    "diagnostics": [{"severity": _is_word, "code": _is_word, "summary": _is_text, "help": _is_maybe_text}],
}
"""What is read of a plan, by us and by what prints it; the checksum proves nothing about who wrote it."""


def _shown(value: object) -> str:
    return value if isinstance(value, str) and len(value) < 20 and value.isprintable() else "unknown"  # noqa: PLR2004


def _refused(message: str, code: str, notes: Sequence[str] = ()) -> PlanRefused:
    return PlanRefused(
        printable(message),
        code=code,
        notes=tuple(map(printable, notes)),
        help="mtlsctl plan --out FILE makes a new one",
    )


# --- does it still fit ----------------------------------------------------------------------------------------------


def compare(saved: SavedPlan, current: Plan, state: State) -> None:
    """Raise PlanRefused with everything that moved under the plan; a serial that moved elsewhere is tolerated.

    `current` is made from today's inventory and state as of the moment at which the saved plan was made, so that
    nothing differs by time alone.
    """
    if saved.lineage != current.lineage or saved.estate != current.estate:
        raise _refused(
            f"this plan was made for {_estate(saved.estate, saved.lineage)}, not for "
            f"{_estate(current.estate, current.lineage)}",
            "M5006",
        )
    if saved.actions and not current.has_changes:
        raise _refused("this plan was already applied: nothing is left of it to do", "M5007")
    moved = _moved(saved, current, state)
    if moved:
        things = "1 thing" if len(moved) == 1 else f"{len(moved)} things"
        raise _refused(
            f"this plan is stale; {things} changed since it was made", "M5002", _with_serial(saved, state, moved)
        )


def _estate(name: str, lineage: str) -> str:
    return f"estate {name} (lineage {lineage[:8]}...)"


def _moved(saved: SavedPlan, current: Plan, state: State) -> list[str]:
    moved = []
    if saved.serial > state.serial:
        moved.append(f"state: serial {state.serial} is older than the plan's {saved.serial}; was a backup restored?")
    if saved.inventory_digest != current.inventory_digest:
        moved.append("inventory: what it declares has changed")
    if saved.fingerprint != current.fingerprint:
        moved.append(f"fingerprint: {saved.fingerprint} is now {current.fingerprint}")
    pointers = _pointers(current, state)
    for process, pointer in saved.pointers.items():
        if pointers.get(process) != pointer:
            moved.append(f"target: {process} names other releases than it did")
    overlap = _overlap(saved, current)
    if overlap:
        more = f" and {len(overlap) - _MENTIONED} more" if len(overlap) > _MENTIONED else ""
        moved.append(f"overlap: {', '.join(overlap[:_MENTIONED])}{more} would be done differently now")
    return moved


def _overlap(saved: SavedPlan, current: Plan) -> list[str]:
    now = {str(action["id"]): canonical_digest(action) for action in actions_of(current)}
    return sorted(one for one in now.keys() | saved.actions.keys() if now.get(one) != saved.actions.get(one))


def _with_serial(saved: SavedPlan, state: State, moved: Sequence[str]) -> tuple[str, ...]:
    if saved.serial < state.serial:
        return (f"state: serial {saved.serial} -> {state.serial}", *moved)
    return tuple(moved)
