"""All files of one release, from its recipe, its material and its runtime folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtlsctl.errors import PreflightError, UnsafePlan
from mtlsctl.model.diagnostic import Diagnostic
from mtlsctl.model.files import CERTIFICATE_FILE, PUBLIC_MODE, SECRET_MODE, release_name
from mtlsctl.model.keystore import SEALED, StoreKind
from mtlsctl.model.release import canonical_digest, release_digest
from mtlsctl.model.topology import ClientCertificate
from mtlsctl.model.trust import in_order
from mtlsctl.pki.stores import to_pem
from mtlsctl.render import codes
from mtlsctl.render.context import (
    UnfitSetting,
    callee_name,
    chain_file,
    clients_file,
    label,
    release_folder,
    release_variables,
    servers_file,
)
from mtlsctl.render.environment import render
from mtlsctl.render.quoting import Untrusted, Unwritable
from mtlsctl.render.stores import anchors_of_callers, specifications, stores_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtlsctl.model.keystore import StoreSpecification
    from mtlsctl.model.release import Recipe, ShownCertificate
    from mtlsctl.model.secret import Secret
    from mtlsctl.model.trust import PeerPolicy, TrustAnchor
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.render.manifest import ReleaseFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What fills a recipe: the chain (DER, end entity first, anchor absent) and the certificates of its anchors.

    `subjects` are those of the anchors under which members are let in by name, as RFC 4514 has them. `shown` are the
    certificates (DER) of chains that somebody else issued, by their SHA-256.
    """

    chain: tuple[bytes, ...]
    certificate_sha256: str
    spki_sha256: str
    anchors: Mapping[TrustAnchor, bytes]
    subjects: Mapping[TrustAnchor, str] = field(default_factory=dict)
    shown: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFile:
    """A public file of a release; `path` is relative and slash-separated."""

    path: str
    content: bytes = field(repr=False)
    mode: int = PUBLIC_MODE


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedRelease:
    """A release, complete but for what holds a secret: its private key, which its host links by `key_spki_sha256`, the
    stores that `stores` specifies, the files of certificate and key at the paths `combined`, and the manifest's secret
    files, which `render_secret_files` gives.

    `key_spki_sha256` is None for a release that does without its key.
    """

    service: str
    release: str
    release_digest: str
    key_spki_sha256: str | None
    files: tuple[RenderedFile, ...]
    stores: tuple[StoreSpecification, ...] = ()
    combined: tuple[str, ...] = ()


def render_release(recipe: Recipe, folder: RuntimeFolder, material: Material) -> RenderedRelease:
    """Every file of the release, sorted by path.

    Raises UnsafePlan when a value cannot be written (M2301, M2303), RuntimeFolderError when a template is at fault,
    PreflightError when the recipe, its material and the templates do not belong together.
    """
    if recipe.runtime_digest != folder.runtime.digest:
        message = f"{recipe.instance}: the templates of `{recipe.runtime}` have changed since the plan was made"
        raise PreflightError(message, code=codes.STALE_TEMPLATES, help="plan again")
    return fill(recipe, folder, material)


def fill(recipe: Recipe, folder: RuntimeFolder, material: Material) -> RenderedRelease:
    """`render_release` for a recipe that may name templates by another digest, as a golden case does."""
    try:
        return _filled(recipe, folder, material)
    except Unwritable as error:
        raise _refused(recipe, codes.UNWRITABLE, error) from None
    except UnfitSetting as error:
        raise _refused(recipe, codes.SETTING, error) from None


def render_secret_files(
    recipe: Recipe,
    folder: RuntimeFolder,
    release: str,
    password: Secret,
    subjects: Mapping[TrustAnchor, str] | None = None,
) -> tuple[RenderedFile, ...]:
    """What holds the password of a release's stores, 0600: the manifest's secret files and the password file itself.

    `subjects` as in Material; without them any text stands there, to try templates before there are certificates.
    Raises as `render_release` does; UnsafePlan M2301 when a syntax cannot hold a character of the password.
    """
    try:
        stores = specifications(recipe, folder.manifest)
        known = _stand_ins(recipe) if subjects is None else subjects
        variables = _variables(recipe, folder, release, stores, known)
        variables["store_password"] = Untrusted(password.reveal().decode("ascii", "replace"))
        files = dict(_rendered(recipe, folder, variables, secret=True))
    except Unwritable as error:
        raise _refused(recipe, codes.UNWRITABLE, error) from None
    except UnfitSetting as error:
        raise _refused(recipe, codes.SETTING, error) from None
    files |= {one.path: password.reveal() for one in stores if one.kind is StoreKind.PASSWORD}
    return tuple(RenderedFile(path=path, content=files[path], mode=SECRET_MODE) for path in sorted(files))


def _filled(recipe: Recipe, folder: RuntimeFolder, material: Material) -> RenderedRelease:
    bundles = dict(_bundles(recipe, material))
    stores = specifications(recipe, folder.manifest)
    digest = release_digest(recipe, {**_digests(material, bundles), **_store_digests(stores, material)})
    release = release_name(digest)
    variables = _variables(recipe, folder, release, stores, material.subjects)
    rendered = dict(_rendered(recipe, folder, variables, secret=False))
    exported = dict(_exported(stores, material))
    files = (
        RenderedFile(path=path, content=content)
        for path, content in sorted({**bundles, **rendered, **exported}.items())
    )
    return RenderedRelease(
        service=recipe.instance.service,
        release=release,
        release_digest=digest,
        key_spki_sha256=material.spki_sha256 if recipe.holds_key else None,
        files=tuple(files),
        stores=tuple(one for one in stores if one.kind in SEALED or one.kind is StoreKind.PASSWORD),
        combined=tuple(one.path for one in stores if one.kind is StoreKind.COMBINED),
    )


def _variables(
    recipe: Recipe,
    folder: RuntimeFolder,
    release: str,
    stores: tuple[StoreSpecification, ...],
    subjects: Mapping[TrustAnchor, str],
) -> dict[str, object]:
    place = release_folder(recipe, release)
    alias = next((one.alias for one in stores if one.kind is StoreKind.KEY), None)
    password = next((one.path for one in stores if one.kind is StoreKind.PASSWORD), None)
    return {
        **release_variables(recipe, release, folder.runtime, subjects),
        "stores": stores_view(stores, recipe, folder.manifest, place),
        "store_alias": None if alias is None else Untrusted(alias),
        "store_password_file": None if password is None else Untrusted(f"{place}/{password}"),
    }


def _stand_ins(recipe: Recipe) -> dict[TrustAnchor, str]:
    return dict.fromkeys(anchors_of_callers(recipe), "CN=stand-in")


def _store_digests(stores: tuple[StoreSpecification, ...], material: Material) -> dict[str, str]:
    """What decides the content of each store; its bytes are other ones each time, and are never part of a digest."""
    return {
        f"store {one.path}": canonical_digest(
            [one.kind, one.profile, one.alias, [[alias, _sha256(_anchor(a, material))] for alias, a in one.anchors]]
        )
        for one in stores
    }


def _exported(stores: tuple[StoreSpecification, ...], material: Material) -> Iterator[tuple[str, bytes]]:
    """Certificates in DER, for programs that take no PEM."""
    for one in stores:
        if one.kind is StoreKind.CERTIFICATE:
            yield one.path, material.chain[0]
        if one.kind is StoreKind.ANCHOR:
            ((_, anchor),) = one.anchors
            yield one.path, _anchor(anchor, material)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _anchor(anchor: TrustAnchor, material: Material) -> bytes:
    if anchor not in material.anchors:
        raise PreflightError(f"the certificate of {anchor} is not at hand", code=codes.ANCHOR_MISSING)
    return material.anchors[anchor]


def _bundles(recipe: Recipe, material: Material) -> Iterator[tuple[str, bytes]]:
    """The files that every release holds, whatever the runtime."""
    yield CERTIFICATE_FILE, to_pem(material.chain)
    for served in recipe.listeners:
        asks = served.client_certificate is not ClientCertificate.NONE
        if bool(served.policy.anchors) != (asks and bool(served.callers)):
            message = f"{recipe.instance}: the anchors of the listener `{served.name}` do not fit its callers"
            raise PreflightError(message, code=codes.EMPTY_BUNDLE)
        if served.policy.anchors:
            yield clients_file(served), _bundle(served.policy, material)
        if served.shows is not None:
            yield chain_file(served), _shown_chain(served.shows, material)
    for callee in recipe.callees:
        if callee.believes_system and not callee.policy.anchors:
            continue
        if not callee.policy.anchors:
            message = f"{recipe.instance}: no anchor to believe `{callee_name(callee.listener)}` by"
            raise PreflightError(message, code=codes.EMPTY_BUNDLE)
        yield servers_file(callee.listener), _bundle(callee.policy, material)


def _shown_chain(shows: ShownCertificate, material: Material) -> bytes:
    missing = next((one for one in shows.chain if one not in material.shown), None)
    if missing is not None:
        raise PreflightError(f"the certificate {missing[:16]} is not at hand", code=codes.ANCHOR_MISSING)
    return to_pem(material.shown[one] for one in shows.chain)


def _bundle(policy: PeerPolicy, material: Material) -> bytes:
    return to_pem(_anchor(anchor, material) for anchor in in_order(policy.anchors))


def _digests(material: Material, bundles: Mapping[str, bytes]) -> dict[str, str]:
    digests = {path: _sha256(content) for path, content in bundles.items()}
    return {**digests, "certificate": material.certificate_sha256, "spki": material.spki_sha256}


def _rendered(
    recipe: Recipe, folder: RuntimeFolder, variables: dict[str, object], *, secret: bool
) -> Iterator[tuple[str, bytes]]:
    for file in folder.manifest.files:
        if file.secret is not secret:
            continue
        for path, extra in _occasions(file, recipe, variables):
            yield path, render(folder, file.template, {**variables, **extra})


def _occasions(
    file: ReleaseFile, recipe: Recipe, variables: dict[str, object]
) -> Iterator[tuple[str, dict[str, object]]]:
    """The paths that one entry of the manifest stands for, with the variable that goes with each."""
    if file.each is None:
        yield file.path, {}
        return
    views = variables[f"{file.each}s"]
    names = (
        [callee_name(callee.listener) for callee in recipe.callees]
        if file.each == "callee"
        else [label(served.name) for served in recipe.listeners]
    )
    for name, view in zip(names, views, strict=True):  # type: ignore[call-overload]
        yield file.path.replace(f"{{{file.each}}}", name), {file.each: view}


def _refused(recipe: Recipe, code: str, error: Exception) -> UnsafePlan:
    message = f"{ascii(str(recipe.instance))[1:-1]} cannot be rendered for `{recipe.runtime}`: {error}"
    return UnsafePlan([Diagnostic(code=code, message=message)])
