"""Versions of programs: what is written for one needs a version that knows all of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Version = tuple[int, ...]

LEAST_VERSIONS: Mapping[str, tuple[Version, str]] = {
    "nginx": (
        (1, 19, 4),
        "it has no ssl_reject_handshake, so callers without a server name could get around a listener",
    ),
    "apache2": ((2, 4, 37), "it does not take all of it"),
    "httpd": ((2, 4, 37), "it does not take all of it"),
    "node": ((12,), "it speaks no TLS 1.3"),
}
"""By program: the first version that knows all that is written for it, and what an older one lacks."""

FOUND_AS: Mapping[str, tuple[str, ...]] = {"apache2": ("apache2", "httpd")}
"""The names that a program has on a host, where it is not its own alone."""

_VERSION = re.compile(r"(?:^|[^0-9.])(\d{1,4}(?:\.\d{1,5}){1,3})")


def version_text(text: str) -> str:
    """The number in what a program says of its version, else all that it says."""
    found = _VERSION.search(text)
    return found[1] if found else text


def is_older(text: str, least: Version) -> bool:
    """Whether a program says a version below `least`; what cannot be read is not held against it."""
    found = _VERSION.search(text)
    return found is not None and tuple(map(int, found[1].split("."))) < least


def found_as(program: str, known: Mapping[str, str]) -> tuple[str, str] | None:
    """Under which name a program was found, and the version that it says; None when it was not."""
    return next(((name, known[name]) for name in FOUND_AS.get(program, (program,)) if name in known), None)


def too_old(name: str, text: str) -> str | None:
    """Why what is written for a program cannot be taken by the version that it says; None when it can."""
    if name not in LEAST_VERSIONS or not is_older(text, LEAST_VERSIONS[name][0]):
        return None
    least, lacks = LEAST_VERSIONS[name]
    return f"{version_text(text)}, and what is written for it needs {'.'.join(map(str, least))}: {lacks}"
