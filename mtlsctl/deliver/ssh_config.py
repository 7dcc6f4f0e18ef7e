"""The user's SSH configuration, read as `ssh -G` reads it (ssh_config(5)), for one host at a time.

A library's reader would do if it knew `Include`, quotes and an unknown `Match` for what they are. Values that come
from the inventory reach a `ProxyCommand` or `Match exec` only through `%h`, `%n`, `%p` and `%r`, and whoever asks has
checked them before (`reach.check_words`): a pull request may name a host, never a command.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.deliver.plain_files import read_plain
from mtlsctl.errors import DeliveryError
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_FILE = 1024 * 1024
MAX_INCLUDES = 16
EXEC_SECONDS = 10.0

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")

LISTED = frozenset({"identityfile", "certificatefile"})
"""Directives that add to what was said before; of all others the first value counts."""

_REST_OF_LINE = frozenset({"proxycommand", "localcommand", "remotecommand", "knownhostscommand"})
_KEYWORD = re.compile(r"\s*\"?([A-Za-z0-9]+)\"?(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)
_TOKEN = re.compile(r"%(.)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One directive. `arguments` are unquoted; `rest` is the line as it stands."""

    keyword: str
    arguments: tuple[str, ...]
    rest: str
    where: str


@dataclass(slots=True, kw_only=True)
class Asked:
    """What is known of a host while its configuration is read: what the command line would have said."""

    original: str
    user: str
    home: Path
    set_port: int | None = None
    set_user: str | None = None
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    wants_final: bool = False
    is_final: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def hostname(self) -> str:
        """The name to dial, as far as it is known."""
        return expand(self.one("hostname") or self.original, {"h": self.original, "n": self.original})

    @property
    def login(self) -> str:
        return self.set_user or self.one("user") or self.user

    @property
    def port(self) -> int:
        if self.set_port is not None:
            return self.set_port
        text = self.one("port") or "22"
        if not text.isdecimal() or not 1 <= int(text) <= 65535:  # noqa: PLR2004  what a port is
            raise _broken(f"`Port {printable(text)}` is not a port")
        return int(text)

    def one(self, keyword: str) -> str | None:
        """The directive's first argument, None where it is not said."""
        found = self.values.get(keyword)
        return found[0] if found else None

    def says(self, keyword: str, default: str) -> str:
        """The same in lower case, for words that are a choice."""
        return (self.one(keyword) or default).lower()

    def tokens(self) -> dict[str, str]:
        """What `%x` stands for in commands and paths; `%C` and `%k` have no use here."""
        return {
            "h": self.hostname,
            "n": self.original,
            "p": str(self.port),
            "r": self.login,
            "u": self.user,
            "d": str(self.home),
            "i": str(os.getuid()),
            "l": os.uname().nodename,
            "L": os.uname().nodename.partition(".")[0],
            "k": self.one("hostkeyalias") or self.original,
            "j": self.one("proxyjump") or "",
        }

    def path(self, text: str) -> Path:
        """A path of a directive: `~`, `%x` and `${NAME}` are expanded, what is relative counts from here."""
        said = expand(_ENVIRONMENT.sub(self._variable, text), self.tokens())
        if said == "~" or said.startswith("~/"):
            return self.home / said[2:]
        return Path(said)

    def _variable(self, found: re.Match[str]) -> str:
        if found[1] not in self.environ:
            raise _broken(f"the environment has no variable {found[1]}, which a path of it names")
        return self.environ[found[1]]


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """`%x` by the table, `%%` as a percent sign; raises DeliveryError M4314 for what the table does not have."""

    def one(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if found[1] not in tokens:
            raise _broken(f"`%{printable(found[1])}` in `{printable(text)}` is not understood")
        return tokens[found[1]]

    return _TOKEN.sub(one, text)


def resolve(
    asked: Asked, *, config: Path | None, system: Path | None = SYSTEM_CONFIG, run: Callable[[str], bool] | None = None
) -> Asked:
    """Fill in all that the files say about the host; the user's file first, and of each directive the first value.

    With `config` that file alone counts, as with `ssh -F`. `run` answers a `Match exec`. Raises DeliveryError M4314.
    """
    run = run or run_match
    user_file = asked.home / ".ssh" / "config"
    for final in (False, True):
        if final and not asked.wants_final:
            break
        asked.is_final = final
        if config is not None:
            _apply_file(asked, config, must_exist=True, run=run, folder=asked.home / ".ssh")
            continue
        _apply_file(asked, user_file, must_exist=False, run=run, folder=asked.home / ".ssh", is_private=True)
        if system is not None:
            _apply_file(asked, system, must_exist=False, run=run, folder=system.parent)
    return asked


def _apply_file(
    asked: Asked, path: Path, *, must_exist: bool, run: Callable[[str], bool], folder: Path, is_private: bool = False
) -> None:
    _apply(asked, path, must_exist=must_exist, run=run, folder=folder, is_private=is_private, active=True, depth=0)


def _apply(
    asked: Asked,
    path: Path,
    *,
    must_exist: bool,
    run: Callable[[str], bool],
    folder: Path,
    is_private: bool,
    active: bool,
    depth: int,
) -> None:
    if depth > MAX_INCLUDES:
        raise _broken(f"{path}: files include each other more than {MAX_INCLUDES} deep")
    outer = active
    for line in read_lines(path, must_exist=must_exist, is_private=is_private):
        if line.keyword == "host":
            active = outer and _matches_list(line.arguments, _name_for_host(asked))
        elif line.keyword == "match":
            active = outer and _matches(asked, line, run)
        elif line.keyword == "include":
            for included in _included(asked, line, folder):
                _apply(
                    asked,
                    included,
                    must_exist=False,
                    run=run,
                    folder=folder,
                    is_private=is_private,
                    active=active,
                    depth=depth + 1,
                )
        elif active:
            _take(asked, line)


def _name_for_host(asked: Asked) -> str:
    return asked.hostname if asked.is_final else asked.original


def _take(asked: Asked, line: Line) -> None:
    said = (line.rest,) if line.keyword in _REST_OF_LINE else line.arguments
    if not said or not said[0]:
        raise _broken(f"{line.where}: `{line.keyword}` has no value")
    if line.keyword in LISTED:
        before = asked.values.get(line.keyword, ())
        asked.values[line.keyword] = before + tuple(one for one in said[:1] if one not in before)
    else:
        asked.values.setdefault(line.keyword, said)
        # Of the two ways to go through another host, the first that is said counts.
        if line.keyword == "proxyjump":
            asked.values.setdefault("proxycommand", ("none",))
        elif line.keyword == "proxycommand":
            asked.values.setdefault("proxyjump", ("none",))


def _included(asked: Asked, line: Line, folder: Path) -> Iterator[Path]:
    for pattern in line.arguments:
        path = asked.path(pattern)
        base = path if path.is_absolute() else folder / path
        if any(c in str(base) for c in "*?["):
            yield from sorted(one for one in Path("/").glob(str(base).lstrip("/")) if one.is_file())
        else:
            yield base


def read_lines(path: Path, *, must_exist: bool, is_private: bool) -> list[Line]:
    """The directives of a file; none where the file need not be there. Raises DeliveryError M4314."""
    text = _read(path, must_exist=must_exist, is_private=is_private)
    return list(_parse_all(text, str(path)))


@lru_cache(maxsize=32)
def _parse_all(text: str, path: str) -> tuple[Line, ...]:
    """Read for each host, and the same for all of them."""
    return tuple(line for number, one in enumerate(text.splitlines(), 1) for line in _parse(one, f"{path}:{number}"))


def _read(path: Path, *, must_exist: bool, is_private: bool) -> str:
    try:
        content, found = read_plain(path, MAX_FILE)
    except FileNotFoundError:
        if must_exist:
            raise _broken(f"there is no {path}") from None
        return ""
    except OSError as error:
        raise _broken(f"{path} cannot be read: {error.strerror}") from None
    if is_private and (found.st_uid not in {0, os.getuid()} or found.st_mode & 0o022):
        raise _broken(f"{path} belongs to somebody else, or others may write to it", help=f"chmod go-w {path}")
    return content.decode("utf-8", "surrogateescape")


def _parse(text: str, where: str) -> Iterator[Line]:
    if not text.strip() or text.lstrip().startswith("#"):
        return
    found = _KEYWORD.fullmatch(text.rstrip())
    if found is None:
        raise _broken(f"{where}: not a directive")
    keyword, rest = found[1].lower(), found[2]
    arguments = () if keyword in _REST_OF_LINE else tuple(split_arguments(rest, where))
    yield Line(keyword=keyword, arguments=arguments, rest=rest, where=where)


def split_arguments(text: str, where: str) -> Iterator[str]:
    """Words as ssh splits them: quotes of both kinds, a backslash before one of them or itself, `#` ends the line."""
    position = 0
    while position < len(text):
        if text[position] in " \t":
            position += 1
            continue
        if text[position] == "#":
            return
        word, quote = "", ""
        while position < len(text) and (quote or text[position] not in " \t"):
            c, after = text[position], text[position + 1 : position + 2]
            if c == "\\" and after and (after in "'\"\\" or (not quote and after == " ")):
                word, position = word + after, position + 2
                continue
            if c in "'\"" and quote in ("", c):
                quote = "" if quote else c
            else:
                word += c
            position += 1
        if quote:
            raise _broken(f"{where}: a quote does not end")
        yield word


def _matches_list(patterns: Sequence[str], name: str) -> bool:
    """Ssh's pattern list: one that fits, and none with `!` that fits."""
    fits = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if matches_pattern(pattern[1:], name):
                return False
        elif matches_pattern(pattern, name):
            fits = True
    return fits


def matches_pattern(pattern: str, name: str) -> bool:
    """`*` and `?` and nothing else, whole text, in linear steps for each star; case counts."""
    at = star = 0
    position, mark = 0, -1
    while position < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, mark, at = at, position, at + 1
        elif at < len(pattern) and pattern[at] in ("?", name[position]):
            at, position = at + 1, position + 1
        elif mark >= 0:
            mark += 1
            at, position = star + 1, mark
        else:
            return False
    return pattern[at:].strip("*") == ""


def _matches(asked: Asked, line: Line, run: Callable[[str], bool]) -> bool:
    words = iter(line.arguments)
    for word in words:
        key, _, inline = word.partition("=")
        negated, criterion = key.startswith("!"), key.removeprefix("!").lower()
        if criterion == "all":
            holds = True
        elif criterion == "canonical":
            holds = False
        elif criterion == "final":
            asked.wants_final, holds = True, asked.is_final
        else:
            value = inline or next(words, None)
            if value is None:
                raise _broken(f"{line.where}: `Match {printable(criterion)}` has no value")
            holds = _holds(asked, criterion, value, run, line.where)
        if holds is negated:
            return False
    return True


def _holds(asked: Asked, criterion: str, value: str, run: Callable[[str], bool], where: str) -> bool:
    subjects: dict[str, Callable[[], str]] = {
        "host": lambda: asked.hostname,
        "originalhost": lambda: asked.original,
        "user": lambda: asked.login,
        "localuser": lambda: asked.user,
        "tagged": lambda: asked.one("tag") or "",
        "sessiontype": lambda: "exec",
    }
    if criterion in subjects:
        return _matches_list(value.split(","), subjects[criterion]())
    if criterion == "exec":
        return run(expand(value, asked.tokens()))
    raise DeliveryError(f"{where}: `Match {printable(criterion)}` is not understood", code="M4314", help=USE_OPENSSH)


USE_OPENSSH = "MTLSCTL_SSH_TRANSPORT=openssh drives the `ssh` program instead, which does it"


def run_match(command: str, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user's own command of a `Match exec` ends well; it has EXEC_SECONDS, and no input."""
    shell = (environ or os.environ).get("SHELL") or "/bin/sh"
    with subprocess.Popen(  # noqa: S603  the user's own configuration says so
        [shell, "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=None if environ is None else dict(environ),
    ) as child:
        try:
            return child.wait(EXEC_SECONDS) == 0
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise _broken(f"`Match exec {printable(command)}` did not end within {EXEC_SECONDS:g} s") from None


def _broken(what: str, *, help: str | None = None) -> DeliveryError:
    return DeliveryError(f"the SSH configuration: {what}", code="M4314", help=help)
