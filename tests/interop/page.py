"""The page for people, `docs/reference/interop.md`: a section for each trust model, written from what was seen."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from tests.docs.pages import ROOT, table_below
from tests.integration.peers import LET_IN, UNREACHABLE
from tests.interop.matrix import CALLERS, SERVERS, VERSIONS, Case, Try, expected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.integration.peers import Shown

PAGE = ROOT / "docs" / "reference" / "interop.md"
CASES = tuple(case for case in Case if case is not Case.AS_ITSELF)
"""What a cell shows, in this order."""

GETS_IN, IS_REFUSED, CONTRADICTS = "✓", "·", "✗"

HEAD = f"""# What works with what

Real processes, on loopback, that read what one `mtlsctl apply` wrote as it is. `make interop` runs them and writes this
page from what came out; every run of the tests compares its results with the page.

A cell has a mark for each of {len(CASES)} tries, in this order:

{"".join(f"{number}. {case}{chr(10)}" for number, case in enumerate(CASES, 1))}
`{GETS_IN}` gets the service's own answer, `{IS_REFUSED}` is refused, `{CONTRADICTS}` is not what it has to be. The
first four are refused by the server, the last two by the caller: there a server of the same kind, at an address of its
own, shows a certificate of a CA that nobody here knows, and one that is good in all but its name.

A listener speaks one version of TLS alone. Apache as a caller keeps back a certificate whose CA the server does not ask
for, so some of its second and fourth tries come with none; all other callers are made to show theirs.
"""


def section(model: str, seen: Mapping[str, Mapping[Try, Shown]], notes: Sequence[str]) -> str:
    """The section of a model, from what each kind of caller saw."""
    head = ["server", "TLS", *CALLERS]
    rows = [
        [server, tls, *(cell(model, server, version, seen[caller]) for caller in CALLERS)]
        for server in SERVERS
        for version, tls in VERSIONS.items()
    ]
    lines = [head, ["---"] * len(head), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"## {model}\n\n{table}" + "".join(f"\n{filled(note)}\n" for note in notes)


def filled(note: str) -> str:
    return textwrap.fill(note, 118, break_long_words=False, break_on_hyphens=False)


def cell(model: str, server: str, version: str, seen: Mapping[Try, Shown]) -> str:
    tried = [Try(server, version, case) for case in CASES]
    return f"`{''.join(mark(expected(model, one), seen[one].outcome) for one in tried)}`"


def mark(wanted: str, outcome: str) -> str:
    if outcome != wanted or outcome == UNREACHABLE:
        return CONTRADICTS
    return GETS_IN if outcome == LET_IN else IS_REFUSED


def sections(text: str) -> dict[str, str]:
    """The sections of the page by their model."""
    found = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {
        name: f"## {name}\n{content}".rstrip("\n") + "\n" for name, content in zip(found[::2], found[1::2], strict=True)
    }


def with_section(text: str, model: str, written: str, order: Sequence[str]) -> str:
    """The page with one section anew, and what else it has as it was."""
    found = {**sections(text), model: written}
    return "\n".join([HEAD, *(found[name] for name in order if name in found)])


def cells() -> dict[tuple[str, str, str, str], str]:
    """The marks of the page by model, server, version and caller."""
    return {
        (model, row[0], row[1], caller): marks.strip("`")
        for model in sections(PAGE.read_text("utf-8"))
        for row in table_below(PAGE, model)
        for caller, marks in zip(header(model)[2:], row[2:], strict=True)
    }


def header(model: str) -> list[str]:
    first = sections(PAGE.read_text("utf-8"))[model].splitlines()[2]
    return [one.strip() for one in first.strip("|").split("|")]
