"""What became of hosts that are no longer declared: `moved` and `removed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.source import Map
from mtlsctl.inventory.words import seq_of
from mtlsctl.model.topology import AbandonedHost, MovedHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from mtlsctl.inventory.words import Words

_HOST_NAME: Final = grammar.label("a host")


def read_refactoring(
    words: Words, tree: Map, declared: AbstractSet[str] | None
) -> tuple[tuple[MovedHost, ...], tuple[AbandonedHost, ...]]:
    """Every renamed host with the name that it bears in the end, and every host that is given up.

    `declared` are the names of hosts; None where they could not be read, so that nothing can be said about them.
    """
    moved = {name: node for node, name in _hosts(words, tree, "moved", declared)}
    gone = {name: node for node, name in _hosts(words, tree, "removed", declared)}
    for name in sorted(moved.keys() & gone.keys()):
        at = gone[name].values_at["host"]
        related = [(words.problems.sources.span(moved[name].values_at["host"], name), "moved here")]
        message = f"the host `{name}` is moved, so it is not gone"
        words.problems.add(codes.CONFLICTING_KEYS, message, at, name, related=related)
    targets = _targets(words, moved, declared)
    return (
        tuple(
            MovedHost(old=old, new=new, span=words.problems.sources.span(node.values_at["host"], old))
            for old, node in moved.items()
            if (new := _end(words, old, node, targets, declared)) is not None
        ),
        tuple(
            AbandonedHost(name=name, span=words.problems.sources.span(node.values_at["host"], name))
            for name, node in gone.items()
            if _is_abandoned(words, name, node)
        ),
    )


def _hosts(words: Words, tree: Map, key: str, declared: AbstractSet[str] | None) -> Iterator[tuple[Map, str]]:
    """Each entry with its host, which stands there once and is not declared any more."""
    first: dict[str, Map] = {}
    for node in seq_of(tree, key) or ():
        if not isinstance(node, Map):
            continue
        if "host" not in node and not node.lost:
            words.problems.add(codes.MISSING_KEY, f"an entry of `{key}` has no `host`", node.at)
        name = words.read(node, "host", _HOST_NAME, None, is_name=True)
        if name is None:
            continue
        at = node.values_at["host"]
        if name in first:
            related = [(words.problems.sources.span(first[name].values_at["host"], name), "first given here")]
            words.problems.add(codes.REPEATED, f"the host `{name}` stands twice", at, name, related=related)
        elif declared is not None and name in declared:
            message = f"the host `{name}` is declared, so it is neither moved nor removed"
            advice = "take it out of `hosts`, or drop this entry"
            words.problems.add(codes.STILL_DECLARED, message, at, name, help=advice)
        else:
            first[name] = node
            yield node, name


def _targets(words: Words, moved: dict[str, Map], declared: AbstractSet[str] | None) -> dict[str, str]:
    """By old name the next one: a host that is declared, or one that was moved on. Two hosts never become one."""
    targets: dict[str, str] = {}
    taken: dict[str, Map] = {}
    for old, node in moved.items():
        new = words.read(node, "to", _HOST_NAME, None, is_name=True)
        if new is None:
            continue
        at = node.values_at["to"]
        if new in taken:
            related = [(words.problems.sources.span(taken[new].values_at["to"], new), "the other one")]
            words.problems.add(codes.MOVED_TWICE, f"two hosts become `{new}`", at, new, related=related)
        elif declared is not None and new not in declared and new not in moved:
            advice = words.did_you_mean(new, declared)
            message = f"unknown host `{shown(new)}`"
            words.problems.add(codes.UNKNOWN_HOST, message, at, new, label="no host has this name", help=advice)
        else:
            targets[old] = new
        taken.setdefault(new, node)
    return targets


def _end(words: Words, old: str, node: Map, targets: dict[str, str], declared: AbstractSet[str] | None) -> str | None:
    """The name that a host bears after all its moves; None, and said once, where they lead back to where they began."""
    new, passed = targets.get(old), {old}
    while new is not None and new not in passed and new in targets:
        passed.add(new)
        new = targets[new]
    if new in passed:
        if old == min(passed):
            at = node.values_at["host"]
            message = f"the moves of the host `{old}` lead back to it"
            words.problems.add(codes.MOVED_TWICE, message, at, old, help="drop the older of them")
        return None
    return new if declared is not None and new in declared else None


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
