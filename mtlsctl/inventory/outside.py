"""What is not of this estate: callers whose certificates somebody else signs, and servers that somebody else runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.source import Map, Seq
from mtlsctl.inventory.words import seq_of
from mtlsctl.model.topology import Authorize, Caller, ExternalServer, Outsider

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mtlsctl.inventory.certificates import CertificateFiles
    from mtlsctl.inventory.problems import Place
    from mtlsctl.inventory.services import Neighbours
    from mtlsctl.inventory.words import Words
    from mtlsctl.model.topology import Service

SYSTEM: Final = "system"
"""In the place of certificates: those that the caller's own machine believes."""

_OUTSIDER_NAME = grammar.label("a caller from outside", grammar.MAX_SERVICE)
_SERVER_NAME = grammar.label("an external server", grammar.MAX_SERVICE)
_AUTHORIZE = grammar.choice({Authorize.ANY_MEMBER.value: Authorize.ANY_MEMBER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """What reading somebody from outside needs: the files, and the names that are taken."""

    words: Words
    files: CertificateFiles
    taken: Collection[str]


def read_outsiders(beyond: Beyond, callers: Seq | None) -> tuple[Outsider, ...]:
    """The callers of one listener that are mappings; whatever is wrong with one is reported."""
    if callers is None or Map not in map(type, callers):
        return ()
    found: list[Outsider] = []
    first: dict[str, Place] = {
        text: at for text, at in zip(callers, callers.items_at, strict=True) if isinstance(text, str)
    }
    for node in callers:
        outsider = _read_outsider(beyond, node) if isinstance(node, Map) else None
        if outsider is None or not isinstance(node, Map):
            continue
        at = node.values_at["name"]
        if outsider.name in first:
            span = beyond.words.problems.sources.span(first[outsider.name], outsider.name)
            message = f"the caller `{outsider.name}` stands twice"
            beyond.words.problems.add(codes.REPEATED, message, at, outsider.name, related=[(span, "first given here")])
            continue
        first[outsider.name] = at
        found.append(outsider)
    return tuple(found)


def _read_outsider(beyond: Beyond, node: Map) -> Outsider | None:
    words = beyond.words
    name = words.read(node, "name", _OUTSIDER_NAME, None, is_name=True)
    if name is not None and name in beyond.taken:
        message = f"`{name}` is the name of something else here; nobody from outside can have it too"
        words.problems.add(codes.OUTSIDE_NAME, message, node.values_at["name"], name, help="choose another name")
        name = None
    certificates = certificates_at(beyond, node, "certificates")
    identities = _identities(words, node)
    if name is None or not certificates:
        return None
    return Outsider(
        name=name,
        certificates=certificates,
        identities=identities,
        span=words.problems.sources.span(node.values_at["name"], name),
    )


def certificates_at(beyond: Beyond, node: Map, key: str) -> tuple[str, ...]:
    """The digests of the anchors in all the files that a key lists, sorted."""
    items = seq_of(node, key)
    if items is None:
        return ()
    if not items and not items.is_holed:
        beyond.words.problems.add(codes.NO_VALUE, f"`{key}` has no value", node.keys_at[key], key)
    found = {digest for path, at in beyond.words.unrepeated(items, "file") for digest in beyond.files.read(path, at)}
    return tuple(sorted(found))


def _identities(words: Words, node: Map) -> tuple[str, ...] | None:
    """Who is let in under the certificates; None for everybody, which has to be said."""
    items = seq_of(node, "identities")
    everybody = words.read(node, "authorize", _AUTHORIZE, None)
    if items is None:
        if everybody is None and not {"identities", "authorize"} & node.lost:
            message = "a CA from outside vouches for everyone whom it ever signs: who of them may call is not said"
            advice = "name `identities: [...]`, or say `authorize: any-member`"
            at = node.keys_at.get("name", node.at)
            words.problems.add(codes.NO_AUTHORIZATION, message, at, "name" if "name" in node else "", help=advice)
        return None
    at = node.keys_at["identities"]
    if everybody is not None:
        message = "`identities` and `authorize: any-member` exclude each other"
        words.problems.add(codes.CONFLICTING_KEYS, message, at, "identities")
    if not items and not items.is_holed:
        words.problems.add(codes.NO_VALUE, "`identities` has no value", at, "identities")
    found = [words.parsed(text, place, grammar.identity) for text, place in words.unrepeated(items, "identity")]
    return tuple(sorted({one for one in found if one is not None}))


def check_outsiders(words: Words, services: Iterable[Service]) -> None:
    """One name stands for the same certificates at every listener; what may be done with them may differ."""
    first: dict[str, Outsider] = {}
    for service in services:
        for listener in service.listeners:
            for outsider in listener.outsiders:
                other = first.setdefault(outsider.name, outsider)
                if other.certificates != outsider.certificates:
                    related = [] if other.span is None else [(other.span, "the others")]
                    message = f"`{outsider.name}` has other certificates here than at another listener"
                    advice = "give one of the two another name"
                    words.problems.put(codes.OTHER_CERTIFICATES, message, outsider.span, related=related, help=advice)


def read_external_servers(beyond: Beyond, nodes: Seq | None, neighbours: Neighbours) -> tuple[ExternalServer, ...]:
    """The servers whose words are all right, in the order of the inventory; a second one of a name is reported."""
    found: dict[str, ExternalServer] = {}
    for node in nodes or ():
        server = _read_external_server(beyond, node, neighbours) if isinstance(node, Map) else None
        if server is None:
            continue
        other = found.setdefault(server.name, server)
        if other is not server:
            related = [] if other.span is None else [(other.span, "the other one")]
            message = f"two external servers have the name `{server.name}`"
            beyond.words.problems.put(codes.REPEATED, message, server.span, related=related)
    return tuple(found.values())


def _read_external_server(beyond: Beyond, node: Map, neighbours: Neighbours) -> ExternalServer | None:
    words = beyond.words
    name = words.read(node, "name", _SERVER_NAME, None, is_name=True)
    if name is not None and name in neighbours.services:
        message = f"`{name}` is a service of this estate; a server outside it cannot have that name too"
        words.problems.add(codes.OUTSIDE_NAME, message, node.values_at["name"], name, help="choose another name")
        name = None
    endpoint = words.read(node, "endpoint", grammar.endpoint, None)
    is_system = node.get("certificates") == SYSTEM
    certificates = () if is_system else certificates_at(beyond, node, "certificates")
    callers = _callers(words, node, neighbours)
    if name is None or endpoint is None or not (is_system or certificates):
        return None
    span = words.problems.sources.span(node.values_at["name"], name)
    host, port = endpoint
    return ExternalServer(name=name, host=host, port=port, certificates=certificates, callers=callers, span=span)


def _callers(words: Words, node: Map, neighbours: Neighbours) -> tuple[Caller, ...]:
    """The services that may call it; they are ours, and of a runtime that calls."""
    items = seq_of(node, "callers")
    if items is None:
        return ()
    if not items and not items.is_holed:
        words.problems.add(codes.NO_VALUE, "`callers` has no value", node.keys_at["callers"], "callers")
    known = [(name, at) for name, at in words.unrepeated(items, "caller") if _can_call(words, name, at, neighbours)]
    return tuple(Caller(service=name, span=words.problems.sources.span(at, name)) for name, at in known)


def _can_call(words: Words, name: str, at: Place, neighbours: Neighbours) -> bool:
    if not words.is_text(name, at):
        return False
    if name not in neighbours.services:
        advice = words.did_you_mean(name, neighbours.services)
        label = "no service has this name"
        words.problems.add(codes.UNKNOWN_CALLER, f"unknown caller `{shown(name)}`", at, name, label=label, help=advice)
        return False
    if name in neighbours.mute:
        words.problems.add(codes.CANNOT_CALL, f"`{name}` cannot call: its runtime only listens", at, name)
        return False
    return True
