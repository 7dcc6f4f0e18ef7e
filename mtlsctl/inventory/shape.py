"""The structure of the language: which keys stand where, and what kind of value each takes.

`schema.py` says the same at length, with pydantic, for editors and people. This table is what every run reads: pydantic
alone takes as long to import as a whole plan may. A test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from mtlsctl.inventory import codes
from mtlsctl.inventory.grammar import taken_for
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.source import Map, Seq
from mtlsctl.inventory.suggest import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtlsctl.inventory.problems import Place, Problems
    from mtlsctl.inventory.source import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A single value. `unbuilt_mapping` names what a mapping at this place will mean one day."""

    unbuilt_mapping: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list; or `instead` of it one certain word."""

    each: Shape
    instead: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A mapping whose keys are names that the author chooses."""

    each: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A mapping whose keys the language knows; `unbuilt` are known by name and not built yet."""

    what: str
    fields: Mapping[str, Shape]
    required: tuple[str, ...] = ()
    unbuilt: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anything:
    """What a runtime's manifest types, not the language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordOr:
    """A single value, or a mapping of this shape."""

    mapping: Named | Record


Shape = Word | ListOf | Named | Record | Anything | WordOr

WORD: Final = Word()
_WORDS: Final = ListOf(each=WORD)
OUTSIDER: Final = Record(
    what="a caller from outside",
    fields={"name": WORD, "certificates": _WORDS, "identities": _WORDS, "authorize": WORD},
    required=("name", "certificates"),
)
EXTERNAL_SERVER: Final = Record(
    what="an external server",
    fields={"name": WORD, "endpoint": WORD, "certificates": ListOf(each=WORD, instead="system"), "callers": _WORDS},
    required=("name", "endpoint", "certificates", "callers"),
)
_CALLERS: Final = ListOf(each=WordOr(mapping=OUTSIDER))
_UNBUILT_KEYS: Final = {"keys": "choosing where keys are born"}
SERVER_CERTIFICATE: Final = Record(
    what="a server certificate", fields={"chain": WORD, "key_path": WORD}, required=("chain", "key_path")
)
_SERVERS_TRUST: Final = ListOf(each=WORD, instead="system")

CERTIFICATE: Final = Record(
    what="a certificate policy",
    fields={"key": WORD, "lifetime": WORD, "renew_before": WORD},
)
DEFAULT_AUTHORITY: Final = Record(
    what="a CA policy",
    fields={"key": WORD, "lifetime": WORD, "renew_before": WORD},
)
AUTHORITY: Final = Record(
    what="a CA policy",
    fields={"key": WORD, "lifetime": WORD, "renew_before": WORD, "generation": WORD},
)
TRUST: Final = Record(what="trust", fields={"model": WORD}, required=("model",))
ESTATE_TRUST: Final = Record(
    what="trust", fields={"model": WORD, "certification_authority": AUTHORITY}, required=("model",)
)
DEFAULTS: Final = Record(
    what="defaults",
    fields={"certificate": CERTIFICATE, "certification_authority": DEFAULT_AUTHORITY},
    unbuilt=_UNBUILT_KEYS,
)
HOST: Final = Record(
    what="a host",
    fields={
        "directory": WORD,
        "address": WORD,
        "seen_as": WORD,
        "pid_files": Named(each=WORD),
        "port": WORD,
        "user": WORD,
        "identity_file": WORD,
        "jump": WORD,
        "become": WORD,
        "keys": WORD,
    },
    unbuilt=_UNBUILT_KEYS,
)
LISTENER: Final = Record(
    what="a listener",
    fields={
        "name": WORD,
        "port": WORD,
        "bind": WORD,
        "client_certificate": WORD,
        "protocols": _WORDS,
        "authorize": WORD,
        "forward_identity": WORD,
        "server_certificate": SERVER_CERTIFICATE,
        "servers_trust": _SERVERS_TRUST,
        "callers": _CALLERS,
    },
    required=("port",),
)
SERVICE: Final = Record(
    what="a service",
    fields={
        "runtime": WORD,
        "hosts": _WORDS,
        "names": _WORDS,
        "addresses": WORD,
        "listen": WORD,
        "bind": WORD,
        "client_certificate": WORD,
        "authorize": WORD,
        "forward_identity": WORD,
        "server_certificate": SERVER_CERTIFICATE,
        "servers_trust": _SERVERS_TRUST,
        "callers": _CALLERS,
        "listeners": ListOf(each=LISTENER),
        "settings": Named(each=Anything()),
        "certificate": CERTIFICATE,
        "certification_authority": AUTHORITY,
        "trust": TRUST,
        "certificate_request": WordOr(mapping=Named(each=WORD)),
    },
    required=("runtime", "hosts"),
    unbuilt={
        **_UNBUILT_KEYS,
        "restart": "allowing a restart where a reload is not enough",
    },
)
MOVED: Final = Record(
    what="a move",
    fields={"host": WORD, "service": WORD, "to": WORD},
    required=("to",),
)
REMOVED: Final = Record(
    what="a removal",
    fields={"host": WORD, "abandon": WORD},
    required=("host", "abandon"),
)
INVENTORY: Final = Record(
    what="an inventory",
    fields={
        "version": WORD,
        "name": WORD,
        "defaults": DEFAULTS,
        "trust": ESTATE_TRUST,
        "hosts": Named(each=HOST),
        "services": Named(each=SERVICE),
        "moved": ListOf(each=MOVED),
        "removed": ListOf(each=REMOVED),
        "external_servers": ListOf(each=EXTERNAL_SERVER),
    },
    required=("version", "name", "hosts", "services"),
    unbuilt=_UNBUILT_KEYS,
)


_TEXT: Final = frozenset({str})


class Spot(NamedTuple):
    """What a node is called in messages, and the word that the caret underlines."""

    title: str
    at: Place
    text: str = ""


def fit(node: Node, shape: Shape, spot: Spot, problems: Problems) -> bool:
    """Whether the node has the shape; whatever inside it has not is reported, dropped and remembered as lost."""
    match shape:
        case Word():
            return (node.__class__ is str and node != "") or _refuse_word(node, shape, spot, problems)
        case ListOf():
            return _fit_list(node, shape, spot, problems)
        case Named():
            return _fit_named(node, shape, spot, problems)
        case Record():
            return _fit_record(node, shape, spot, problems)
        case Anything():
            return True
        case WordOr():
            return fit(node, shape.mapping if isinstance(node, Map) else WORD, spot, problems)


def _is_plainly_fit(node: Node, shape: Shape | None) -> bool:
    """Whether it is what nearly all is: a word, or a list of words. What is not may still be fit."""
    if node.__class__ is str:
        return shape is WORD and node != ""
    if not isinstance(shape, ListOf) or not isinstance(node, Seq):
        return False
    return isinstance(shape.each, Word | WordOr) and "" not in node and {*map(type, node)} <= _TEXT


def _fit_list(node: Node, shape: ListOf, spot: Spot, problems: Problems) -> bool:
    if not isinstance(node, Seq):
        if shape.instead is None:
            return _refuse_kind(node, "a list", "[]", spot, problems)
        return node == shape.instead or _refuse_kind(node, f"a list or `{shape.instead}`", None, spot, problems)
    each, title = shape.each, f"an entry of {spot.title}"
    takes_words = isinstance(each, Word | WordOr)
    unfit = [
        index
        for index, value in enumerate(node)
        if not (takes_words and value.__class__ is str and value)
        and not fit(value, each, _spot_of_item(title, value, node.items_at[index], each), problems)
    ]
    for index in reversed(unfit):
        node.drop(index)
    return True


def _fit_named(node: Node, shape: Named, spot: Spot, problems: Problems) -> bool:
    if not isinstance(node, Map):
        return _refuse_kind(node, "a mapping", "{}", spot, problems)
    each = shape.each
    for key in [key for key, value in node.items() if not fit(value, each, _spot(key, value, node), problems)]:
        node.drop(key)
    return True


def _fit_record(node: Node, shape: Record, spot: Spot, problems: Problems) -> bool:
    if not isinstance(node, Map):
        return _refuse_kind(node, "a mapping", None, spot, problems)
    fields = shape.fields
    unfit: list[str] = []
    for key, value in node.items():
        inner = fields.get(key)
        if _is_plainly_fit(value, inner):
            continue
        if inner is None:
            _refuse_key(key, shape, node, problems)
            unfit.append(key)
        elif not fit(value, inner, _spot(key, value, node), problems):
            unfit.append(key)
    for key in unfit:
        node.drop(key)
    for key in shape.required:
        if key not in node and key not in node.lost:
            node.lost.add(key)
            problems.add(codes.MISSING_KEY, f"{shown(spot.title)} has no `{key}`", spot.at, spot.text)
    return True


def _spot_of_item(title: str, value: Node, at: Place, each: Shape) -> Spot:
    """What an entry of a list is called; a mapping among single values by what it is."""
    if isinstance(value, Map) and isinstance(each, WordOr) and isinstance(each.mapping, Record):
        title = each.mapping.what
    return Spot(title, at, value if isinstance(value, str) else "")


def _spot(key: str, value: Node, node: Map) -> Spot:
    """A single value is underlined itself, a list or mapping by its key."""
    if isinstance(value, str) and value:
        return Spot(f"`{key}`", node.values_at[key], value)
    return Spot(f"`{key}`", node.keys_at[key], key)


def _refuse_word(node: Node, shape: Word, spot: Spot, problems: Problems) -> bool:
    if isinstance(node, Map) and shape.unbuilt_mapping:
        refuse_unbuilt(shape.unbuilt_mapping, spot.at, spot.text, problems)
        return False
    return _refuse_kind(node, "a single value", None, spot, problems)


def _refuse_kind(node: Node, wanted: str, empty: str | None, spot: Spot, problems: Problems) -> bool:
    title = shown(spot.title)
    if node == "":
        advice = None if empty is None else f"an empty one is written {empty}"
        problems.add(codes.NO_VALUE, f"{title} has no value", spot.at, spot.text, help=advice)
    else:
        advice = f"write [{shown(node)}]" if empty == "[]" and isinstance(node, str) else None
        message = f"{title} is {wanted}, not {_kind(node)}"
        problems.add(codes.WRONG_KIND, message, spot.at, spot.text, help=advice)
    return False


def _kind(node: Node) -> str:
    if isinstance(node, Map):
        return "a mapping"
    return "a list" if isinstance(node, Seq) else f"`{shown(node)}`"


def _refuse_key(key: str, shape: Record, node: Map, problems: Problems) -> None:
    at = node.keys_at[key]
    if key in shape.unbuilt:
        refuse_unbuilt(shape.unbuilt[key], at, key, problems)
        return
    known = "the keys here are " + ", ".join(shape.fields)
    if refuse_unquoted_key(key, at, known, problems):
        return
    near = suggestion(key, [one for one in shape.fields if one not in node])
    advice = f"did you mean `{near}`?" if near else known
    problems.add(codes.UNKNOWN_KEY, f"unknown key `{shown(key)}` in {shape.what}", at, key, help=advice)
    if near:
        node.lost.add(near)  # A misspelt key is not reported as missing too.


def refuse_unquoted_key(key: str, at: Place, help: str, problems: Problems) -> bool:
    """Whether an unknown key is no text to many tools; it is reported, and no word is suggested for a number."""
    meaning = taken_for(key)
    if meaning is None or problems.sources.is_quoted(at):
        return False
    message = f"the unquoted key `{key}`, which many tools read as {meaning}; keys are words"
    problems.add(codes.KEY_NOT_TEXT, message, at, key, help=help)
    return True


def refuse_unbuilt(feature: str, at: Place, text: str, problems: Problems) -> None:
    """Refuse by name a part of the language that this version cannot do; it is never ignored."""
    problems.add(codes.NOT_BUILT, f"{feature} is not built yet", at, text)
