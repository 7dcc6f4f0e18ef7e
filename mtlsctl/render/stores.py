"""Which stores a release holds, under which names, with what in them: symbols, never keys, bytes or passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtlsctl.model.keystore import (
    ALIAS,
    FILE_NAME,
    TRUST_STORES,
    PasswordSource,
    StoreKind,
    StoreProfile,
    StoreSpecification,
)
from mtlsctl.model.trust import in_order
from mtlsctl.render.context import UnfitSetting, callee_name, label
from mtlsctl.render.quoting import Untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtlsctl.model.release import Recipe
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.render.manifest import Manifest, ReleaseStore

_NOT_OF_AN_ALIAS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresView:
    """The stores of a release as a template sees them: absolute paths; none where the release holds no such store.

    `clients` and `servers` give a path by the name of the listener, of the callee.
    """

    key: Untrusted | None
    clients: Mapping[Untrusted, Untrusted]
    servers: Mapping[Untrusted, Untrusted]
    all_servers: Untrusted | None
    everyone: Untrusted | None
    combined: Untrusted | None


def specifications(recipe: Recipe, manifest: Manifest) -> tuple[StoreSpecification, ...]:
    """Every store of the release, sorted by path; a trust store that would be empty is left out.

    Raises UnfitSetting for a setting that no store can follow, and when two files would have one name.
    """
    settings = dict(recipe.settings)
    alias = str(settings.get("alias") or label(recipe.instance.service))
    if ALIAS.fullmatch(alias) is None:
        raise UnfitSetting("an alias is small letters, digits and inner `._-`")
    try:
        profile = StoreProfile(str(settings.get("store_profile") or StoreProfile.MODERN))
    except ValueError:
        raise UnfitSetting("`store_profile` is not among those that there are") from None
    is_asked = any(callee.asks for callee in recipe.callees)
    made = [
        StoreSpecification(
            path=path,
            kind=store.kind,
            profile=profile,
            alias=alias if store.kind is StoreKind.KEY else "",
            anchors=tuple(zip(aliases(anchors), in_order(anchors), strict=True)),
        )
        for store in manifest.stores
        for path, anchors in _occasions(store, recipe)
        if (anchors or store.kind not in TRUST_STORES) and (is_asked or store.kind is not StoreKind.COMBINED)
    ]
    paths = [one.path.lower() for one in made]
    if len(set(paths)) != len(paths):
        raise UnfitSetting("two files of the release would have one name")
    return tuple(sorted(made, key=lambda one: one.path))


def password_source(recipe: Recipe) -> PasswordSource:
    """Where the password of a release's stores comes from; raises UnfitSetting when the setting says nothing."""
    try:
        return PasswordSource.parse(dict(recipe.settings).get("store_password"))
    except ValueError as error:
        raise UnfitSetting(str(error)) from None


def anchors_of_callers(recipe: Recipe) -> frozenset[TrustAnchor]:
    return frozenset().union(*(served.policy.anchors for served in recipe.listeners))


def anchors_of_callees(recipe: Recipe) -> frozenset[TrustAnchor]:
    return frozenset().union(*(callee.policy.anchors for callee in recipe.callees))


def aliases(anchors: Iterable[TrustAnchor]) -> list[str]:
    """One alias for each anchor in order, such as `mail-ca-g2`; no two alike, or Java would lose one silently."""
    found: list[str] = []
    for anchor in in_order(anchors):
        plain = _NOT_OF_AN_ALIAS.sub("-", str(anchor).lower()).strip("-")[:60] or "anchor"
        alias, number = plain, 1
        while alias in found:
            number += 1
            alias = f"{plain}-{number}"
        found.append(alias)
    return found


def stores_view(
    specifications: Iterable[StoreSpecification], recipe: Recipe, manifest: Manifest, folder: str
) -> StoresView:
    """The stores for templates, below the release's absolute folder."""
    there = {one.path for one in specifications}
    paths: dict[StoreKind, dict[Untrusted, Untrusted]] = {}
    for store in manifest.stores:
        names = _names(store, recipe) if store.each is not None else [""]
        for name, (path, _) in zip(names, _occasions(store, recipe), strict=True):
            if path in there:
                paths.setdefault(store.kind, {})[Untrusted(name)] = Untrusted(f"{folder}/{path}")

    def only(kind: StoreKind) -> Untrusted | None:
        return next(iter(paths.get(kind, {}).values()), None)

    return StoresView(
        key=only(StoreKind.KEY),
        clients=paths.get(StoreKind.CLIENTS, {}),
        servers=paths.get(StoreKind.SERVERS, {}),
        all_servers=only(StoreKind.ALL_SERVERS),
        everyone=only(StoreKind.EVERYONE),
        combined=only(StoreKind.COMBINED),
    )


def _occasions(store: ReleaseStore, recipe: Recipe) -> Iterator[tuple[str, frozenset[TrustAnchor]]]:
    """The paths that one entry of the manifest stands for, with the anchors that go into each."""
    match store.kind:
        case StoreKind.CLIENTS:
            anchors = [served.policy.anchors for served in recipe.listeners]
        case StoreKind.SERVERS:
            anchors = [callee.policy.anchors for callee in recipe.callees]
        case StoreKind.ANCHOR:
            anchors = [frozenset({anchor}) for anchor in in_order(anchors_of_callees(recipe))]
        case StoreKind.ALL_SERVERS:
            yield _path(store, recipe), anchors_of_callees(recipe)
            return
        case StoreKind.EVERYONE:
            yield _path(store, recipe), anchors_of_callers(recipe) | anchors_of_callees(recipe)
            return
        case _:
            yield _path(store, recipe), frozenset()
            return
    for name, those in zip(_names(store, recipe), anchors, strict=True):
        yield store.path.replace(f"{{{store.each}}}", name), those


def _names(store: ReleaseStore, recipe: Recipe) -> list[str]:
    match store.kind:
        case StoreKind.CLIENTS:
            return [label(served.name) for served in recipe.listeners]
        case StoreKind.SERVERS:
            return [callee_name(callee.listener) for callee in recipe.callees]
        case _:
            return aliases(anchors_of_callees(recipe))


def _path(store: ReleaseStore, recipe: Recipe) -> str:
    named = None if store.named_by is None else dict(recipe.settings).get(store.named_by)
    if named is None:
        return store.path
    if not isinstance(named, str) or FILE_NAME.fullmatch(named) is None:
        raise UnfitSetting("a file name is letters, digits and `._-`, no dot in front")
    return str(PurePosixPath(named))
