"""The outcomes as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.verify_text import row_of, why_left_out
from mtlsctl.model.probe import Observation, Presented, Verdict
from mtlsctl.model.topology import outside

if TYPE_CHECKING:
    from mtlsctl.cli.views.verify_text import VerifyScreen
    from mtlsctl.model.probe import Outcome
    from mtlsctl.model.topology import InstanceId


def verify_document(screen: VerifyScreen) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "verify",
        "tool_version": __version__,
        "embedded": screen.embedded,
        "results": [_result(one, screen) for one in screen.outcomes],
        "summary": {
            "checks": len(screen.outcomes),
            "as_declared": screen.count(Verdict.AS_DECLARED),
            "contradictions": screen.count(Verdict.CONTRADICTION),
            "inconclusive": screen.count(Verdict.INCONCLUSIVE),
            "not_probed": screen.count(Verdict.NOT_PROBED),
            "left_out": screen.left_out,
            "outside": len(screen.beyond),
        },
        "outside": [
            {"caller": one.caller, "listener": str(one.listener), "reason": why_left_out(one)} for one in screen.beyond
        ],
        "exit_code": screen.exit_code,
        "diagnostics": [],
    }


def _result(one: Outcome, screen: VerifyScreen) -> dict[str, object]:
    probe = one.probe
    source = screen.source_of(probe)
    return {
        "caller": None if probe.caller is None else _name(probe.caller),
        "caller_instance": None if probe.caller is None else str(probe.caller),
        "listener": row_of(probe),
        "instance": str(probe.endpoint.instance),
        "expected": probe.expected.value,
        "observed": one.observed.value,
        "verdict": one.verdict.value.replace(" ", "_"),
        "probe": {
            "address": probe.endpoint.address,
            "port": probe.endpoint.port,
            "server_name": probe.server_name,
            "tls": probe.protocol,
            "presented": probe.presented.name.lower(),
            "mode": _mode(one),
            "application_data": one.observed is Observation.ALLOWED,
        },
        "evidence": {"text": one.evidence, "http_status": one.http_status, "served_sha256": one.served_sha256},
        "source": None if source is None else {"file": source.file, "line": source.line, "column": source.column},
    }


def _name(caller: InstanceId) -> str:
    return outside(caller.service) if caller.is_outside else caller.service


def _mode(one: Outcome) -> str:
    if one.stood_in:
        return "probe-certificate"
    return "delivered-key" if one.probe.presented is Presented.DELIVERED else "crafted"
