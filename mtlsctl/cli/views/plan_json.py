"""The JSON Schema of a plan's document."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def plan_schema() -> dict[str, object]:
    """JSON Schema (draft 7) of `plan -o json` and of a saved plan; unknown fields are to be ignored."""
    text, number, flag = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
    moment = {"type": "string", "format": "date-time"}
    place = _object({"file": text, "line": number, "column": number}, nullable=True)
    properties: dict[str, object] = {
        "format_version": {"type": "string", "pattern": r"^1\.\d+$"},
        "kind": {"const": "plan"},
        "tool_version": text,
        "sealed": flag,
        "speculative": flag,
        "created_at": moment,
        "expires_at": moment,
        "estate": text,
        "lineage": text,
        "serial": number,
        "inventory": _object({"digest": text}),
        "fingerprint": text,
        "has_changes": flag,
        "grants": _list(_object({"op": text, "caller": text, "listener": text, "source": place})),
        "risks": _list(_object({"code": text, "summary": text, "source": place})),
        "actions": _list(_object({"id": text, "op": text})),
        "preconditions": _list(
            _object({"host": text, "process": text, "pointer_sha256": {"type": ["string", "null"]}})
        ),
        "next_due": _object({"subject": text, "at": moment}, nullable=True),
        "summary": {"type": "object", "additionalProperties": number},
        "diagnostics": _list({"type": "object"}),
    }
    schema = _object(properties)
    schema["properties"] = {**properties, "checksum": text}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "mtlsctl plan", **schema}


def _object(properties: Mapping[str, object], *, nullable: bool = False) -> dict[str, object]:
    kind: object = ["object", "null"] if nullable else "object"
    return {"type": kind, "properties": dict(properties), "required": sorted(properties)}


def _list(items: object) -> dict[str, object]:
    return {"type": "array", "items": items}
