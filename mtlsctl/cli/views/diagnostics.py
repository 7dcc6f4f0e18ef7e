"""A diagnostic as people read it (after rustc), and as machines do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtlsctl.cli.views.page import Tone, cells, counted, escaped, wrapped
from mtlsctl.model.diagnostic import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.diagnostic import Diagnostic, Span

    SourceLine = Callable[[str, int], str | None]
    """Gives line N (from 1) of a file, or None where it cannot be read."""

ERRORS_SHOWN = 20
_MARGIN = 12
_LEAST_CODE = 24


def diagnostics_text(diagnostics: Sequence[Diagnostic], page: Page, source: SourceLine) -> str:
    """All of them, sorted by place; above twenty errors the rest is counted (`--full` shows them)."""
    ordered = sorted(diagnostics, key=lambda one: one.order)
    errors = [one for one in ordered if one.severity is Severity.ERROR]
    hidden = set() if page.full else set(map(id, errors[ERRORS_SHOWN:]))
    blocks = [diagnostic_text(one, page, source) for one in ordered if id(one) not in hidden]
    if hidden:
        blocks.append(f"... and {counted(len(hidden), 'more error')} (--full shows them)\n")
    return "\n".join(blocks)


def summary_of(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`."""
    count = Counter(one.severity for one in diagnostics)
    return ", ".join(counted(count[kind], kind.value) for kind in Severity if count[kind]) or "no problems"


def diagnostic_text(one: Diagnostic, page: Page, source: SourceLine) -> str:
    tone = Tone.ERROR if one.severity is Severity.ERROR else Tone.CHANGE
    lines = [f"{page.paint(f'{one.severity.value}[{one.code}]', tone)}: {page.paint(escaped(one.message), Tone.BOLD)}"]
    places = [(one.span, one.label, "-->")] if one.span else []
    places += [(span, text, ":::") for span, text in one.related]
    margin = max((len(str(span.line)) for span, _, _ in places), default=1)
    for span, label, arrow in places:
        lines += _snippet(span, label, arrow, margin, page, source, tone)
    lines += _footnotes(one.notes, one.help, margin, page)
    return "\n".join(lines) + "\n"


def failure_text(code: str, message: str, notes: Sequence[str], help: str | None, page: Page) -> str:
    """An error that has no place in a file."""
    head = f"{page.paint(f'error[{code}]', Tone.ERROR)}: {page.paint(escaped(message), Tone.BOLD)}"
    return "\n".join([head, *_footnotes(notes, help, 1, page)]) + "\n"


def _footnotes(notes: Sequence[str], help: str | None, margin: int, page: Page) -> list[str]:
    lines: list[str] = []
    texts = [("note", note) for note in notes] + ([("help", help)] if help else [])
    for word, text in texts:
        first = f"{' ' * margin} = {word}: "
        lines += _indented(text, first, page.width)
    return lines


def _indented(text: str, first: str, width: int) -> list[str]:
    """Each line of the text, wrapped below where it begins."""
    rest = " " * len(first)
    lines: list[str] = []
    for number, line in enumerate(text.splitlines() or [""]):
        lines += wrapped(escaped(line), width=width, first=rest if number else first, rest=rest)
    return lines


def _snippet(span: Span, label: str, arrow: str, margin: int, page: Page, source: SourceLine, tone: Tone) -> list[str]:
    bar = f"{' ' * margin} |"
    place = f"{' ' * margin}{page.paint(arrow, Tone.DIM)} {escaped(str(span))}"
    text = source(span.file, span.line)
    if text is None:
        return [f"{place}  {escaped(label)}".rstrip()]
    before, marked, after = _windowed(text, span, page.width - margin - 3)
    caret = " " * cells(before) + page.paint("^" * max(1, cells(marked)), tone)
    return [
        place,
        bar,
        f"{span.line:>{margin}} | {before}{marked}{after}",
        f"{bar} {caret} {escaped(label)}".rstrip(),
    ]


def _windowed(text: str, span: Span, width: int) -> tuple[str, str, str]:
    """The line before, at and after the caret, cut where it does not fit; cuts show as three dots."""
    start, end = span.column - 1, max(span.end_column - 1, span.column)
    before, marked, after = escaped(text[:start]), escaped(text[start:end]), escaped(text[end:])
    width = max(width, _LEAST_CODE)
    if cells(marked) > width - _MARGIN:
        marked = marked[: width - _MARGIN] + "..."
    room = width - cells(marked)
    if cells(before) + cells(after) > room and cells(before) > room // 2:
        before = "..." + before[-(max(room // 2, 4) - 3) :]
    if cells(after) > room - cells(before):
        after = after[: max(0, room - cells(before) - 3)] + "..."
    return before, marked, after


def diagnostic_json(one: Diagnostic, source: SourceLine | None = None) -> dict[str, object]:
    """Columns count characters from 1; `byte` counts from 0 into the line's UTF-8, where the line can be read."""
    document: dict[str, object] = {
        "severity": one.severity.value,
        "code": one.code,
        "summary": one.message,
        "detail": one.label,
        "file": one.span.file if one.span else None,
        "range": _range(one.span, source) if one.span else None,
        "snippet": source(one.span.file, one.span.line) if one.span and source else None,
        "notes": list(one.notes),
        "help": one.help,
        "related": [{"file": span.file, "range": _range(span, source), "summary": text} for span, text in one.related],
    }
    return document


def _range(span: Span, source: SourceLine | None) -> dict[str, object]:
    line = source(span.file, span.line) if source else None
    return {"start": _position(span.line, span.column, line), "end": _position(span.line, span.end_column, line)}


def _position(line: int, column: int, text: str | None) -> dict[str, int]:
    position = {"line": line, "column": column}
    if text is not None:
        position["byte"] = len(text[: column - 1].encode(errors="surrogatepass"))
    return position
