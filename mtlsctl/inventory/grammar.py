"""The grammars of single values: text to a value that cannot be wrong, or `Unfit` with what is right."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

from mtlsctl.inventory import codes
from mtlsctl.inventory.problems import shown
from mtlsctl.model.identifiers import LABEL, DnsId, InvalidIdentifier, IpId, check_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_ESTATE: Final = 16
MAX_SERVICE: Final = 40
MAX_PORT: Final = 65535
MAX_NUMBER: Final = 2**31 - 1
MAX_GENERATION = 99
"""A common name has 64 characters (RFC 5280 appendix A.1), and the longest `service.estate CA g` takes 62 of them."""
MAX_DAYS: Final = 36_500
MAX_PATH: Final = 255

Chosen = TypeVar("Chosen")

AMBIGUOUS: Final = re.compile(
    r"~|null|yes|no|on|off|true|false"
    r"|[-+]?(0x[0-9a-f_]+|0o?[0-7_]+|0b[01_]+|[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?(e[-+]?[0-9]+)?)"
    r"|[-+]?\.([0-9][0-9_]*(e[-+]?[0-9]+)?|inf)|\.nan"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t ].*)?",
    re.IGNORECASE,
)
"""What some YAML reader takes for a truth value, nothing, a number or a date when it is not quoted."""

_LONGEST_AMBIGUOUS = 64
_FIRST_OF_AMBIGUOUS = frozenset("~nNyYoOtTfF-+.0123456789")
"""No word that begins otherwise is ambiguous; a look at it costs a tenth of a search."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
DURATION = re.compile(r"([1-9][0-9]{0,8})([dhm])")
# Compiled where they are first used: most inventories hold neither, and start-up is short.
_PATH_CHARACTERS = r"[A-Za-z0-9._/@+-]+"
_LOGIN = r"[a-z_][a-z0-9_-]{0,31}"
_HTTP_URL = re.compile(
    r"http://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:(?P<port>[0-9]+))?(?P<path>/[A-Za-z0-9._~/%+@:=,-]*)?"
)
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_MINUTES = {"d": 1440, "h": 60, "m": 1}


def taken_for(text: str) -> str | None:
    """What some YAML reader takes the unquoted word for; None where it is text to all of them."""
    if text[:1] not in _FIRST_OF_AMBIGUOUS or len(text) > _LONGEST_AMBIGUOUS or AMBIGUOUS.fullmatch(text) is None:
        return None
    word = text.lower()
    if word in ("yes", "on", "true"):
        return "true"
    if word in ("no", "off", "false"):
        return "false"
    return "nothing" if word in ("~", "null") else "a number or a date"


class Unfit(ValueError):
    """A value does not follow its grammar; the message says what is right."""

    def __init__(self, code: str, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


def label(what: str, longest: int = 63) -> Callable[[str], str]:
    """The grammar of the names that we own (see `model.identifiers.LABEL`), with a limit of its own."""

    def parse(text: str) -> str:
        if len(text) > longest:
            message = f"`{shown(text)}` is too long for the name of {what}: {len(text)} characters, at most {longest}"
            raise Unfit(codes.NAME_TOO_LONG, message)
        if LABEL.fullmatch(text) is None:
            message = f"`{shown(text)}` cannot be the name of {what}"
            raise Unfit(codes.NAME, message, "a name is lower-case letters, digits and inner hyphens")
        return text

    return parse


def choice(options: Mapping[str, Chosen], unbuilt: Mapping[str, str] | None = None) -> Callable[[str], Chosen]:
    """One of the words that a key takes; `unbuilt` are the words that it will take one day, and their meaning."""

    def parse(text: str) -> Chosen:
        if unbuilt is not None and text in unbuilt:
            raise Unfit(codes.NOT_BUILT, f"{unbuilt[text]} is not built yet")
        if text not in options:
            raise Unfit(codes.NOT_A_CHOICE, f"`{shown(text)}` is not one of: {', '.join(options)}")
        return options[text]

    return parse


@lru_cache(maxsize=1024)
def port(text: str) -> int:
    """1 to 65535, decimal. The same few stand in thousands of listeners."""
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= MAX_PORT:
        raise Unfit(codes.PORT, f"`{shown(text)}` is not a port: a number from 1 to {MAX_PORT}")
    return int(text)


def number(text: str) -> int:
    """A whole number, decimal, from 0."""
    if _NUMBER.fullmatch(text) is None or int(text) > MAX_NUMBER:
        raise Unfit(codes.NUMBER, f"`{shown(text)}` is not a whole number from 0 to {MAX_NUMBER}")
    return int(text)


def counted_from_one(text: str) -> int:
    value = number(text)
    if not 1 <= value <= MAX_GENERATION:
        raise Unfit(codes.NUMBER, f"generations are numbers from 1 to {MAX_GENERATION}")
    return value


def switch(text: str) -> bool:
    """`true` or `false`, as YAML 1.2 has it; not `yes`, not `on`."""
    if text not in ("true", "false"):
        raise Unfit(codes.SWITCH, f"`{shown(text)}` is not a switch: true or false")
    return text == "true"


def duration(text: str) -> timedelta:
    """`90d`, `12h` or `30m`; at most 36,500 days."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise Unfit(codes.DURATION, f"`{shown(text)}` is not a duration: 90d, 12h or 30m")
    if int(found[1]) * _MINUTES[found[2]] > MAX_DAYS * _MINUTES["d"]:
        raise Unfit(codes.DURATION, f"`{text}` is longer than {MAX_DAYS} days")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def duration_text(value: timedelta) -> str:
    """The shortest text that `duration` reads back."""
    minutes = int(value.total_seconds()) // 60
    unit = next(unit for unit in "dhm" if minutes % _MINUTES[unit] == 0)
    return f"{minutes // _MINUTES[unit]}{unit}"


def dns_name(text: str) -> DnsId:
    """A DNS-ID (RFC 9525); no wildcard, IDNA names as A-labels (`xn--...`)."""
    if "*" in text:
        raise Unfit(codes.DNS_NAME, f"`{shown(text)}` is a wildcard", "name each host that callers reach")
    if not text.isascii():
        raise Unfit(
            codes.DNS_NAME, f"`{shown(text)}` is not ASCII", "write an international name as its A-label, xn--..."
        )
    try:
        return DnsId.parse(text)
    except InvalidIdentifier as error:
        raise Unfit(codes.DNS_NAME, f"`{shown(text)}` is not a DNS name: {error}") from None


@lru_cache(maxsize=1024)
def address(text: str) -> str:
    """An IP address in its canonical form, or a DNS name in lower case. The same few stand in thousands of settings."""
    if len(text) <= MAX_PATH and text.isascii() and "%" not in text:
        for kind in (IpId, DnsId) if text[-1:].isdigit() or ":" in text else (DnsId, IpId):
            try:
                return kind.parse(text).value
            except InvalidIdentifier:
                continue
    raise Unfit(codes.ADDRESS, f"`{shown(text)}` is neither an IP address nor a DNS name")


_ENDPOINT = r"([A-Za-z0-9.-]+):([0-9]{1,5})"


def identity(text: str) -> str:
    """A common name, or a whole subject as RFC 4514 writes it, as far as every program writes it alike."""
    try:
        check_identity(text)
    except InvalidIdentifier as error:
        raise Unfit(codes.IDENTITY, f"`{shown(text)}` cannot be compared as an identity: {error}") from None
    return text


def endpoint(text: str) -> tuple[str, int]:
    """`host:port`. The host is a DNS name: it is what callers check, and not every program checks addresses."""
    found = re.fullmatch(_ENDPOINT, text)
    if found is None:
        raise Unfit(codes.ENDPOINT, f"`{shown(text)}` is not an endpoint: a DNS name and a port, name:443")
    try:
        return DnsId.parse(found[1]).value, port(found[2])
    except InvalidIdentifier:
        message = f"`{shown(text)}` is not an endpoint: its host is not a DNS name, which is what callers check"
        raise Unfit(codes.ENDPOINT, message) from None
    except Unfit as error:
        raise Unfit(codes.ENDPOINT, f"`{shown(text)}` is not an endpoint: {error.message}") from None


def _path(text: str) -> str:
    if len(text) > MAX_PATH or re.fullmatch(_PATH_CHARACTERS, text) is None:
        raise Unfit(
            codes.PATH, f"`{shown(text)}` is not a path: letters, digits and ._/@+- , at most {MAX_PATH} characters"
        )
    if ".." in text.split("/") or "//" in text:
        raise Unfit(codes.PATH, f"`{shown(text)}` is not a path: it holds `..` or `//`")
    return text


def folder(text: str) -> str:
    """A path, absolute or not, without `..`; trailing slashes do not count."""
    if _path(text).startswith("-"):
        raise Unfit(codes.PATH, f"`{text}` begins with a hyphen", f"write ./{text}")
    return text.rstrip("/") or "/"


def absolute_path(text: str) -> str:
    if not _path(text).startswith("/") or "." in text.split("/"):
        raise Unfit(codes.PATH, f"`{text}` is not an absolute path")
    return text


def relative_path(text: str) -> str:
    if _path(text).startswith(("/", "-")) or {"", "."} & set(text.split("/")):
        raise Unfit(codes.PATH, f"`{text}` is not a path below the host's folder, such as run/nginx.pid")
    return text


def file_of_repository(text: str) -> str:
    """A path below the repository, without `.` and `..`."""
    if _path(text).startswith(("/", "-")) or {"", "."} & set(text.split("/")):
        raise Unfit(codes.PATH, f"`{text}` is not a path below the repository, such as requests/mail.csr")
    return text


def key_file(text: str) -> str:
    """An absolute path, or one below the user's home (`~/...`)."""
    absolute_path(text.removeprefix("~"))
    return text


def login(text: str) -> str:
    """A user name as Linux has it."""
    if re.fullmatch(_LOGIN, text) is None:
        raise Unfit(codes.LOGIN, f"`{shown(text)}` is not a user: lower-case letters, digits, _ and -, at most 32")
    return text


def jump(text: str) -> str:
    """`[user@]host[:port]`; an IPv6 address stands in brackets."""
    user, at, rest = text.rpartition("@")
    if at:
        login(user)
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::([0-9]+))?", rest)
    if found is None:
        raise Unfit(codes.LOGIN, f"`{shown(text)}` is not a jump host: [user@]host[:port]")
    address(found[1] or found[2])
    if found[3] is not None:
        port(found[3])
    return text


def http_url(text: str) -> str:
    """`http://host[:port][/path]`: no user, query or fragment, nothing that a configuration file would expand.

    Not `https`: a program that is given one as it stands would not check the server. A called service is a callee.
    """
    found = _HTTP_URL.fullmatch(text)
    if found is None:
        raise Unfit(codes.SETTING_VALUE, f"`{shown(text)}` is not a URL: http://host[:port][/path] and no more")
    try:
        address(found["host"].strip("[]"))
        if found["port"] is not None:
            port(found["port"])
    except Unfit as error:
        raise Unfit(codes.SETTING_VALUE, f"`{shown(text)}` is not a URL: {error.message}") from None
    return text
