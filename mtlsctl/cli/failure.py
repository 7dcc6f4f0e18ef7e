"""An exception becomes text or JSON and an exit code; a traceback never reaches the screen."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.app import exit_code_of
from mtlsctl.cli.terminal import plain_terminal
from mtlsctl.cli.views.diagnostics import diagnostic_json, diagnostics_text, failure_text, summary_of
from mtlsctl.cli.views.page import counted
from mtlsctl.errors import MtlsctlError
from mtlsctl.model.diagnostic import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.cli.views.diagnostics import SourceLine

MACHINE = frozenset({"json", "ndjson", "markdown", "junit"})


def report(error: Exception, arguments: Sequence[str]) -> int:
    """Say what went wrong, in the format that was asked for, and give the exit code."""
    failure = _failure(error)
    code = exit_code_of(error)
    color = _value_of(arguments, "", "--color")
    known = color if color in ("always", "never") else "auto"
    terminal = plain_terminal(color=known, ascii="--ascii" in arguments)
    asked = format_asked(arguments)
    source = source_lines(Path.cwd(), *_given(arguments))
    if asked in MACHINE:
        terminal.result(_machine_text(asked, failure, code, source))
    diagnostics = getattr(failure, "diagnostics", None)
    if diagnostics is None:
        terminal.complain(failure_text(failure.code, failure.message, failure.notes, failure.help, terminal.err_page))
    else:
        text = diagnostics_text(diagnostics, terminal.err_page, source)
        terminal.complain(f"{text}\n{summary_of(diagnostics)}\n")
    return code


def _failure(error: Exception) -> MtlsctlError:
    match error:
        case MtlsctlError():
            return error
        case OSError():
            place = f": {error.filename}" if isinstance(error.filename, str) else ""
            return MtlsctlError(f"{error.strerror or 'the system refused'}{place}", code="M9002")
        case _:
            return _bug(error)


def _bug(error: Exception) -> MtlsctlError:
    """Kinds and places only: a message or a local variable could hold what must not be written anywhere."""
    import tempfile

    text = "\n".join([f"mtlsctl {__version__}, Python {sys.version.split()[0]}", *_frames(error)]) + "\n"
    notes: tuple[str, ...] = ()
    try:
        handle, name = tempfile.mkstemp(prefix="mtlsctl-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        notes = (f"where it happened is written to {name}",)
    except OSError:
        notes = (f"where it happened: {_frames(error)[-1].strip()}",)
    return MtlsctlError(
        f"a bug in mtlsctl ({type(error).__name__}); nothing that you did",
        code="M9001",
        notes=notes,
        help="run the same command again: what was done is kept; and report the file",
    )


def _frames(error: BaseException) -> list[str]:
    import traceback

    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        lines.append(f"{type(seen).__module__}.{type(seen).__qualname__}")
        frames = traceback.extract_tb(seen.__traceback__)
        lines += [f"  {Path(one.filename).name}:{one.lineno} {one.name}" for one in frames]
        seen = seen.__cause__ or seen.__context__
    return lines


def format_asked(arguments: Sequence[str]) -> str:
    """The format as far as it can be read from arguments that may not even parse."""
    asked = _value_of(arguments, "-o", "--format")
    return asked if asked is not None else os.environ.get("MTLSCTL_FORMAT", "text")


def _value_of(arguments: Sequence[str], short: str, long: str) -> str | None:
    found = None
    for number, one in enumerate(arguments):
        if one == "--":
            break
        if one and one in (short, long) and number + 1 < len(arguments):
            found = arguments[number + 1]
        elif one.startswith(f"{long}="):
            found = one.partition("=")[2]
        elif short and one.startswith(short) and not one.startswith("--") and len(one) > len(short):
            found = one[len(short) :].removeprefix("=")
    return found


def _given(arguments: Sequence[str]) -> list[Path]:
    """The inventory that the operator named, which may lie anywhere."""
    named = _value_of(arguments, "-i", "--inventory")
    return [Path(named)] if named else []


def source_lines(start: Path, *given: Path) -> SourceLine:
    """Reads lines of files that diagnostics name: plain ones below the project's root or in what was given.

    Nothing below those places is reached through a symlink: what is quoted ends in logs that others read.
    """
    root = _root_above(Path(os.path.abspath(start)))  # noqa: PTH100  resolve() would follow
    # A link that was given is the operator's to follow.
    places = [root, *(Path(os.path.abspath(one)) for one in given), *(one.resolve() for one in given)]  # noqa: PTH100
    known: dict[str, list[str]] = {}

    def line_of(file: str, line: int) -> str | None:
        if file not in known:
            known[file] = _lines(root, places, file)
        lines = known[file]
        return lines[line - 1] if 0 < line <= len(lines) else None

    return line_of


_LARGEST = 16 * 1024 * 1024
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def _root_above(start: Path) -> Path:
    """The folder of `mtlsctl.yaml`, not above the repository; without one, where we are."""
    for folder in (start, *start.parents):
        if (folder / "mtlsctl.yaml").exists():
            return folder
        if (folder / ".git").exists():
            break
    return start


def _lines(root: Path, places: Sequence[Path], file: str) -> list[str]:
    path = Path(os.path.abspath(root / file))  # noqa: PTH100  resolve() would follow
    for place in places:
        if path.is_relative_to(place):
            try:
                content = _content(place, path.relative_to(place).parts)
            except (OSError, ValueError):
                continue
            return content.decode("utf-8", errors="replace").removeprefix("\ufeff").split("\n")
    return []


def _content(place: Path, names: Sequence[str]) -> bytes:
    """What is in a plain file; raises OSError for anything else, for a link on the way and above 16 MiB."""
    descriptor = os.open(place, _OPEN if names else _OPEN | os.O_NOFOLLOW)
    try:
        for name in names:
            below = os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise OSError(errno.EINVAL, "not a plain file")
        with os.fdopen(os.dup(descriptor), "rb") as opened:
            return opened.read(found.st_size)
    finally:
        os.close(descriptor)


def failure_document(failure: MtlsctlError, code: int, source: SourceLine | None) -> dict[str, object]:
    """Every failure as diagnostics, with the code that the process exits with."""
    diagnostics = getattr(failure, "diagnostics", None) or (
        Diagnostic(code=failure.code, message=failure.message, notes=failure.notes, help=failure.help),
    )
    return {
        "format_version": "1.0",
        "kind": "error",
        "tool_version": __version__,
        "exit_code": code,
        "diagnostics": [diagnostic_json(one, source) for one in sorted(diagnostics, key=lambda one: one.order)],
    }


def _machine_text(asked: str, failure: MtlsctlError, code: int, source: SourceLine) -> str:
    document = failure_document(failure, code, source)
    if asked == "json":
        from mtlsctl.cli.views.document import json_text

        return json_text(document)
    if asked == "ndjson":
        import json

        return json.dumps({"type": "error", **document}) + "\n"
    summaries = _summaries(failure)
    if asked == "junit":
        from mtlsctl.cli.views.verify_junit import junit_failure

        return junit_failure(summaries)
    from mtlsctl.cli.views.plan_markdown import inline

    lines = [f"- {inline(text)}" for text in summaries[:50]]
    return "\n".join([f"### mtlsctl failed: {counted(len(summaries), 'problem')}", "", *lines]) + "\n"


def _summaries(failure: MtlsctlError) -> list[str]:
    diagnostics: Sequence[Diagnostic] | None = getattr(failure, "diagnostics", None)
    if diagnostics is None:
        return [f"{failure.code}: {failure.message}"]
    return [f"{one.code}: {one.message}" + (f" ({one.span})" if one.span else "") for one in diagnostics]
