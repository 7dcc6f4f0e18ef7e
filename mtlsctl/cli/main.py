"""The entry: what can be answered without loading anything is answered first."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Never returns: exits with a code of the documented table."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["version"]):
        from mtlsctl import __version__

        print(f"mtlsctl {__version__}")  # noqa: T201  the one result that needs no printer
        sys.exit(0)
    if "_MTLSCTL_COMPLETE" not in os.environ and (not arguments or arguments in (["-h"], ["--help"], ["help"])):
        from mtlsctl.cli.overview import OVERVIEW

        sys.stdout.write(OVERVIEW)
        sys.exit(0 if arguments else 64)
    _rest_the_collector(arguments)
    from mtlsctl.cli.app import run

    _leave(run(arguments))


def _leave(code: int) -> NoReturn:
    """All files are closed by now; to take a large inventory apart in memory would cost a tenth of the run."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code or 1)  # The interpreter tries once more, and says what is wrong.
    os._exit(code)


def _rest_the_collector(arguments: list[str]) -> None:
    """A short run makes values that live to its end; looking for cycles among them costs a tenth of a large plan."""
    import gc

    if {"apply", "verify"} & set(arguments):
        gc.set_threshold(100_000, 50, 50)
    else:
        gc.disable()
