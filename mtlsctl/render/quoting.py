"""Values that cannot reach a file unquoted, and one quoting filter for each target syntax.

Each filter takes an `Untrusted`, or a list whose parts are Untrusted, numbers or text that stands in the template,
and gives one word of the target syntax as `Quoted`. A filter refuses rather than escapes wherever readers of the
syntax are known to differ.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

_SPRING_NAME = re.compile(r"[a-z0-9]+(?:[.-]+[a-z0-9]+)*")

LONGEST = 2048
"""Characters of one word; nginx stops at 4096 bytes, and no honest value comes near."""


class Unwritable(ValueError):
    """A value cannot be written into a file of this syntax; the message says why and never quotes it raw."""


class Untrusted:
    """Text that came from outside. Deliberately no `str`: it cannot be joined, formatted, printed or measured.

    It can be compared with another and serve as a key, which gives nothing away to the output.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Untrusted) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Untrusted(...)"

    def __str__(self) -> NoReturn:
        msg = "a value from outside must pass a quoting filter"
        raise TypeError(msg)

    def __format__(self, spec: str) -> NoReturn:
        str(self)
        raise AssertionError


class Quoted(str):
    """One word of a target syntax, quoted; what is made from it by any operation is a plain `str` again."""

    __slots__ = ()


Word = Untrusted | list[object]


def _text_of(word: object) -> str:
    parts = word if isinstance(word, list) else [word]
    if isinstance(word, str) or not parts:
        msg = "a quoting filter takes a variable, or a list of variables and literals"
        raise TypeError(msg)
    return "".join(map(_part, parts))


def _part(part: object) -> str:
    if isinstance(part, Untrusted):
        return part._text  # noqa: SLF001  the one place that may look inside
    if isinstance(part, str) or (isinstance(part, int) and not isinstance(part, bool)):
        return str(part)
    msg = f"a quoting filter cannot write a {type(part).__name__}"
    raise TypeError(msg)


def _printable(word: object, *, refused: str, syntax: str) -> str:
    text = _text_of(word)
    if not text:
        raise Unwritable(f"an empty value cannot be written into {syntax}")
    if len(text) > LONGEST:
        raise Unwritable(f"a value of {len(text)} characters is too long for {syntax}")
    # `isprintable` is false for controls, line and paragraph separators, surrogates, and the invisible
    # characters that turn the direction of text.
    bad = next((one for one in text if not one.isprintable() or one in refused), None)
    if bad is not None:
        raise Unwritable(f"the character U+{ord(bad):04X} cannot be written into {syntax}")
    return text


def nginx(word: object) -> Quoted:
    """A double-quoted nginx parameter. Refused: `$` (a variable), quotes and backslashes, whatever is not printable."""
    return Quoted('"' + _printable(word, refused='$"\\', syntax="an nginx configuration") + '"')


def apache(word: object) -> Quoted:
    """A double-quoted argument of an Apache directive.

    Refused: `$` and `%` before a brace (a defined name, a variable), quotes, backslashes, whatever is not printable.
    """
    return Quoted('"' + _apache(word, refused="") + '"')


def apache_name(word: object) -> Quoted:
    """The same for `ServerName`, where a colon would begin a port; so no IPv6 address, nor a pattern."""
    return Quoted('"' + _apache(word, refused=":*?") + '"')


def apache_url(word: object) -> Quoted:
    """The same for the target of `ProxyPass "/"`, with a slash at its end: Apache puts the path right behind it."""
    text = _apache(word, refused="?#*")
    return Quoted('"' + text.removesuffix("/") + '/"')


def apache_message(word: object) -> Quoted:
    """One line of text for `ErrorDocument`, which reads it as the string of an expression; refused as there."""
    return Quoted('"' + _apache(word, refused="$%") + '\\n"')


def apache_expression(word: object) -> Quoted:
    """A single-quoted string of an Apache expression (`Require expr`), to compare whole strings with.

    Backslashes and quotes, which RFC 4514 text has, are escaped. Refused: `$` and `%`, which begin a defined name, a
    back reference or a variable even inside quotes, and whatever is not printable.
    """
    text = _printable(word, refused="$%", syntax="an Apache expression")
    return Quoted("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")


def _apache(word: object, *, refused: str) -> str:
    text = _printable(word, refused='"\\' + refused, syntax="an Apache configuration")
    for opening in ("${", "%{"):
        if opening in text:
            raise Unwritable(f"`{opening}` cannot be written into an Apache configuration")
    return text


def js(word: object) -> Quoted:
    """A JavaScript string in ASCII, safe inside HTML too; every text can be written."""
    text = json.dumps(_text_of(word), ensure_ascii=True)
    return Quoted(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def curl(word: object) -> Quoted:
    """A double-quoted value of a curl config file (`curl -K`), where backslashes and quotes have an escape."""
    return Quoted(_curl_quoted(_printable(word, refused="", syntax="a curl config file")))


def curl_certificate(word: object) -> Quoted:
    """The same for `cert`, where a bare colon would begin the password; refused: `pkcs11:` and other URIs."""
    text = _printable(word, refused="", syntax="a curl config file")
    if not text.startswith("/"):
        raise Unwritable("curl's `cert` takes an absolute path here")
    return Quoted(_curl_quoted(text.replace("\\", "\\\\").replace(":", "\\:")))


def java_argument(word: object) -> Quoted:
    """One argument of a file for `java @file`, double-quoted as its launcher reads it. Refused: what is not ASCII."""
    text = _printable(word, refused="", syntax="a Java argument file")
    if not text.isascii():
        raise Unwritable("a Java argument file is read in the encoding of the locale: only ASCII is written")
    return Quoted('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


def ruby(word: object) -> Quoted:
    """A single-quoted Ruby string, where nothing is interpolated; refused: whatever is not printable."""
    text = _printable(word, refused="", syntax="a Ruby string")
    return Quoted("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")


def spring(word: object) -> Quoted:
    """A value of a Spring Boot properties file, in ASCII with the escapes of `java.util.Properties`.

    Refused: `${` and `#{`, which Spring replaces in every value, whatever the file's syntax says.
    """
    text = _printable(word, refused="", syntax="a Spring properties file")
    if "${" in text or "#{" in text:
        raise Unwritable("`${` and `#{` cannot be written into a Spring properties file: Spring would replace them")
    return Quoted("".join(map(_property_character, text)))


def spring_name(word: object) -> Quoted:
    """A part of a key of a Spring Boot properties file, in brackets, where nothing has a meaning but letters do.

    Refused: whatever is not a lower-case letter, a digit, a dot or a hyphen, since Spring drops it or reads it as more.
    """
    text = _printable(word, refused="", syntax="a key of Spring properties")
    if not _SPRING_NAME.fullmatch(text):
        raise Unwritable("a name in Spring's keys is lower-case letters, digits, dots and hyphens")
    return Quoted(f"[{text}]")


def _property_character(one: str) -> str:
    if one in "\\ ":
        return "\\" + one
    if one.isascii():
        return one
    units = one.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _curl_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


FILTERS: dict[str, Callable[[object], Quoted]] = {
    "nginx": nginx,
    "apache": apache,
    "apache_name": apache_name,
    "apache_url": apache_url,
    "apache_message": apache_message,
    "apache_expression": apache_expression,
    "js": js,
    "curl": curl,
    "curl_certificate": curl_certificate,
    "ruby": ruby,
    "java_argument": java_argument,
    "spring": spring,
    "spring_name": spring_name,
}
"""Every filter that a template may use, and there is no other."""
