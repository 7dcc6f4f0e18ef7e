"""The outcomes for CI systems that read JUnit's XML; what was not probed is an error there, never a skip."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from mtlsctl.cli.views.verify_text import column_of, row_of, what_happened
from mtlsctl.model.probe import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.cli.views.verify_text import VerifyScreen
    from mtlsctl.model.probe import Outcome

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def verify_junit(screen: VerifyScreen) -> str:
    suites: dict[str, list[Outcome]] = defaultdict(list)
    for one in screen.outcomes:
        suites[row_of(one.probe)].append(one)
    lines = [_HEAD, f"<testsuites {_counts(screen.outcomes)}>"]
    for name, outcomes in sorted(suites.items()):
        lines.append(f"  <testsuite name={_quoted(name)} {_counts(outcomes)}>")
        for one in outcomes:
            lines += _case(name, one)
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def junit_failure(summaries: Sequence[str]) -> str:
    """A run that could not begin, as one failing case."""
    return "\n".join(
        [
            _HEAD,
            '<testsuites tests="1" failures="0" errors="1">',
            '  <testsuite name="mtlsctl" tests="1" failures="0" errors="1">',
            '    <testcase classname="mtlsctl" name="run">',
            *(f"      <error message={_quoted(text)}/>" for text in summaries),
            "    </testcase>",
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )


def _counts(outcomes: Sequence[Outcome]) -> str:
    failures = sum(one.verdict is Verdict.CONTRADICTION for one in outcomes)
    errors = sum(one.verdict in {Verdict.INCONCLUSIVE, Verdict.NOT_PROBED} for one in outcomes)
    return f'tests="{len(outcomes)}" failures="{failures}" errors="{errors}"'


def _case(suite: str, one: Outcome) -> list[str]:
    probe = one.probe
    who = column_of(probe) if probe.caller is None else f"{column_of(probe)} ({probe.caller})"
    name = f"{who} is {probe.expected.value} at {probe.endpoint.instance} over TLS {probe.protocol}"
    head = f"    <testcase classname={_quoted(suite)} name={_quoted(name)}"
    if one.verdict is Verdict.AS_DECLARED:
        return [head + "/>"]
    kind = "failure" if one.verdict is Verdict.CONTRADICTION else "error"
    message = f"type={_quoted(one.verdict.value)} message={_quoted(what_happened(one))}"
    return [head + ">", f"      <{kind} {message}/>", "    </testcase>"]


def _quoted(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
