"""What became of hosts and services that are no longer declared: `moved` and `removed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.source import Map
from mtlsctl.inventory.words import seq_of
from mtlsctl.model.topology import AbandonedHost, MovedHost, MovedService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from mtlsctl.inventory.words import Words


class Refactoring(NamedTuple):
    """Every host and service with the name that it bears in the end, and every host that is given up."""

    moved: tuple[MovedHost, ...] = ()
    renamed: tuple[MovedService, ...] = ()
    abandoned: tuple[AbandonedHost, ...] = ()


NOTHING_MOVED: Final = Refactoring()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What can be moved. `declared` are the names of its kind; None where they could not be read.

    `others` are names that are declared for something else and cannot be old ones either.
    """

    key: str
    unknown: str
    parse: Callable[[str], str]
    declared: AbstractSet[str] | None
    others: AbstractSet[str] = field(default=frozenset())


_HOST_NAME: Final = grammar.label("a host")
_SERVICE_NAME: Final = grammar.label("a service", grammar.MAX_SERVICE)


def hosts_declared(names: AbstractSet[str] | None) -> Kind:
    return Kind(key="host", unknown=codes.UNKNOWN_HOST, parse=_HOST_NAME, declared=names)


def services_declared(names: AbstractSet[str] | None, servers: AbstractSet[str]) -> Kind:
    """`servers` are outside: callers know them by name as they know services."""
    return Kind(key="service", unknown=codes.UNKNOWN_SERVICE, parse=_SERVICE_NAME, declared=names, others=servers)


def read_refactoring(words: Words, tree: Map, hosts: Kind, services: Kind) -> Refactoring:
    """What the entries say; where the declared names could not be read nothing is said about them."""
    _check_about_one(words, tree)
    moved = {name: node for node, name in _entries(words, tree, "moved", hosts)}
    renamed = {name: node for node, name in _entries(words, tree, "moved", services)}
    gone = {name: node for node, name in _entries(words, tree, "removed", hosts)}
    for name in sorted(moved.keys() & gone.keys()):
        at = gone[name].values_at["host"]
        related = [(words.problems.sources.span(moved[name].values_at["host"], name), "moved here")]
        message = f"the host `{name}` is moved, so it is not gone"
        words.problems.add(codes.CONFLICTING_KEYS, message, at, name, related=related)
    return Refactoring(
        moved=tuple(
            MovedHost(old=old, new=new, span=words.problems.sources.span(node.values_at["host"], old))
            for old, new, node in _ends(words, moved, hosts)
        ),
        renamed=tuple(
            MovedService(old=old, new=new, span=words.problems.sources.span(node.values_at["service"], old))
            for old, new, node in _ends(words, renamed, services)
        ),
        abandoned=tuple(
            AbandonedHost(name=name, span=words.problems.sources.span(node.values_at["host"], name))
            for name, node in gone.items()
            if _is_abandoned(words, name, node)
        ),
    )


def _check_about_one(words: Words, tree: Map) -> None:
    """Each move is of a host or of a service."""
    for node in seq_of(tree, "moved") or ():
        if not isinstance(node, Map):
            continue
        if "host" not in node and "service" not in node and not node.lost:
            words.problems.add(codes.MISSING_KEY, "an entry of `moved` has no `host` and no `service`", node.at)
        elif "host" in node and "service" in node:
            message = "one entry moves a host or a service, not both"
            words.problems.add(codes.CONFLICTING_KEYS, message, node.keys_at["service"], "service")


def _entries(words: Words, tree: Map, key: str, kind: Kind) -> Iterator[tuple[Map, str]]:
    """Each entry with what it is about, which stands there once and is not declared any more."""
    first: dict[str, Map] = {}
    for node in seq_of(tree, key) or ():
        if not isinstance(node, Map) or kind.key not in node:
            continue
        name = words.read(node, kind.key, kind.parse, None, is_name=True)
        if name is None:
            continue
        at = node.values_at[kind.key]
        if name in first:
            related = [(words.problems.sources.span(first[name].values_at[kind.key], name), "first given here")]
            words.problems.add(codes.REPEATED, f"the {kind.key} `{name}` stands twice", at, name, related=related)
        elif kind.declared is not None and name in kind.declared:
            message = f"the {kind.key} `{name}` is declared, so it is neither moved nor removed"
            advice = f"take it out of `{kind.key}s`, or drop this entry"
            words.problems.add(codes.STILL_DECLARED, message, at, name, help=advice)
        elif name in kind.others:
            message = f"callers know the {kind.key} `{name}` by its old name for a while, which is declared as another"
            advice = "drop this entry once it is applied everywhere, then give the name away"
            words.problems.add(codes.STILL_DECLARED, message, at, name, help=advice)
        else:
            first[name] = node
            yield node, name


def _ends(words: Words, moved: dict[str, Map], kind: Kind) -> Iterator[tuple[str, str, Map]]:
    """Old name, the name that it has after all moves, and the entry."""
    targets = _targets(words, moved, kind)
    for old, node in moved.items():
        new = _end(words, old, node, targets, kind)
        if new is not None:
            yield old, new, node


def _targets(words: Words, moved: dict[str, Map], kind: Kind) -> dict[str, str]:
    """By old name the next one: it is declared, or was moved on. Two of a kind never become one."""
    targets: dict[str, str] = {}
    taken: dict[str, Map] = {}
    for old, node in moved.items():
        new = words.read(node, "to", kind.parse, None, is_name=True)
        if new is None:
            continue
        at = node.values_at["to"]
        if new in taken:
            related = [(words.problems.sources.span(taken[new].values_at["to"], new), "the other one")]
            words.problems.add(codes.MOVED_TWICE, f"two {kind.key}s become `{new}`", at, new, related=related)
        elif kind.declared is not None and new not in kind.declared and new not in moved:
            advice = words.did_you_mean(new, kind.declared)
            message, label = f"unknown {kind.key} `{shown(new)}`", f"no {kind.key} has this name"
            words.problems.add(kind.unknown, message, at, new, label=label, help=advice)
        else:
            targets[old] = new
        taken.setdefault(new, node)
    return targets


def _end(words: Words, old: str, node: Map, targets: dict[str, str], kind: Kind) -> str | None:
    """The name that it bears after all its moves; None, and said once, where they lead back to where they began."""
    new, passed = targets.get(old), {old}
    while new is not None and new not in passed and new in targets:
        passed.add(new)
        new = targets[new]
    if new in passed:
        if old == min(passed):
            at = node.values_at[kind.key]
            message = f"the moves of the {kind.key} `{old}` lead back to it"
            words.problems.add(codes.MOVED_TWICE, message, at, old, help="drop the older of them")
        return None
    return new if kind.declared is not None and new in kind.declared else None


def _is_abandoned(words: Words, name: str, node: Map) -> bool:
    abandon = words.read(node, "abandon", grammar.switch, default=None)
    if abandon is False:
        words.problems.add(
            codes.NOT_ABANDONED,
            f"the host `{name}` is not given up here",
            node.values_at["abandon"],
            "false",
            help="a host that can be reached is taken out of `hosts`: the next apply removes what it holds",
        )
    return abandon is True
