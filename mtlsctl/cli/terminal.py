"""Standard output for the result, standard error for everything else."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mtlsctl.cli.views.page import Page, safe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DEFAULT_WIDTH = 80
_NARROWEST, _WIDEST = 40, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where text goes, and what each stream can show. Machine formats are written as they are, and alone."""

    out: TextIO
    err: TextIO
    page: Page
    """Of standard output."""
    err_page: Page
    quiet: bool = False
    verbose: int = 0
    interactive: bool = False
    """Whether a question can be asked: both ends are a terminal and nobody forbade it."""
    live: bool = False
    """Whether progress is for eyes: standard error is a terminal that moves, and this is not a CI job."""

    def result(self, text: str) -> None:
        """What was asked for."""
        self.out.write(safe(text, colour=self.page.colour))
        self.out.flush()

    def say(self, text: str) -> None:
        """A word on the side; `--quiet` silences it."""
        if not self.quiet:
            self.complain(text)

    def detail(self, level: int, text: Callable[[], str]) -> None:
        """A word on the side for those who gave that many `-v`; made only for them."""
        if self.verbose >= level:
            self.say(text())

    def complain(self, text: str) -> None:
        """A word on the side that is always said."""
        self.err.write(safe(text, colour=self.err_page.colour))
        self.err.flush()

    def ask(self, question: str) -> str:
        """One line from the keyboard; the end of the input counts as an empty answer."""
        self.err.write(safe(question, colour=self.err_page.colour))
        self.err.flush()
        return sys.stdin.readline().strip()

    def ask_secret(self, question: str) -> str:
        """One line from the keyboard that is not shown; the end of the input counts as an empty answer."""
        from getpass import getpass  # noqa: PLC0415  few runs ask

        try:
            return getpass(safe(question, colour=self.err_page.colour), stream=self.err)
        except EOFError:
            return ""


def open_terminal(
    *, color: str, ascii: bool, quiet: bool, verbose: int, no_input: bool, full: bool, environ: Mapping[str, str]
) -> Terminal:
    """Judge the streams of this process; flags win over the environment."""
    out, err = sys.stdout, sys.stderr
    dumb = environ.get("TERM") == "dumb"
    batch = bool(environ.get("CI"))
    no_input = no_input or batch or bool(environ.get("MTLSCTL_NO_INPUT"))
    return Terminal(
        out=out,
        err=err,
        page=_page(out, color=color, ascii=ascii, full=full, environ=environ),
        err_page=_page(err, color=color, ascii=ascii, full=full, environ=environ),
        quiet=quiet,
        verbose=verbose,
        interactive=not no_input and _is_terminal(sys.stdin) and _is_terminal(err),
        live=_is_terminal(err) and not dumb and not batch,
    )


def plain_terminal(*, color: str, ascii: bool) -> Terminal:
    """For a failure, which may come before any flag was understood."""
    return open_terminal(
        color=color, ascii=ascii, quiet=False, verbose=0, no_input=True, full=False, environ=os.environ
    )


def _page(stream: TextIO, *, color: str, ascii: bool, full: bool, environ: Mapping[str, str]) -> Page:
    return Page(
        width=_width(environ),
        colour=_wants_colour(stream, color, environ),
        ascii=ascii or not _speaks_unicode(stream),
        full=full,
    )


def _width(environ: Mapping[str, str]) -> int:
    """`COLUMNS`, else the terminal's own, else 80."""
    asked = environ.get("COLUMNS", "")
    width = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 5 else 0  # noqa: PLR2004  four digits
    width = width or shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
    return min(max(width, _NARROWEST), _WIDEST)


def _wants_colour(stream: TextIO, color: str, environ: Mapping[str, str]) -> bool:
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return _is_terminal(stream) and environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _speaks_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") in {"utf8", "utf16", "utf32"}
