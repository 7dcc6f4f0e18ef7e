"""All files of one release, from its recipe, its material and its runtime folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtlsctl.errors import PreflightError, UnsafePlan
from mtlsctl.model.diagnostic import Diagnostic
from mtlsctl.model.release import release_digest
from mtlsctl.model.topology import ClientCertificate
from mtlsctl.model.trust import in_order
from mtlsctl.pki.stores import to_pem
from mtlsctl.render import codes
from mtlsctl.render.context import (
    CERTIFICATE_FILE,
    UnfitSetting,
    callee_name,
    clients_file,
    label,
    release_variables,
    servers_file,
)
from mtlsctl.render.environment import render
from mtlsctl.render.quoting import Unwritable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtlsctl.model.release import Recipe
    from mtlsctl.model.trust import PeerPolicy, TrustAnchor
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.render.manifest import ReleaseFile

PUBLIC_MODE = 0o640
RELEASE_NAME_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What fills a recipe: the chain (DER, end entity first, anchor absent) and the certificates of its anchors.

    `subjects` are those of the anchors under which members are let in by name, as RFC 4514 has them.
    """

    chain: tuple[bytes, ...]
    certificate_sha256: str
    spki_sha256: str
    anchors: Mapping[TrustAnchor, bytes]
    subjects: Mapping[TrustAnchor, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFile:
    """A public file of a release; `path` is relative and slash-separated."""

    path: str
    content: bytes
    mode: int = PUBLIC_MODE


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedRelease:
    """A release, complete but for its private key, which its host links by `key_spki_sha256`."""

    service: str
    release: str
    release_digest: str
    key_spki_sha256: str
    files: tuple[RenderedFile, ...]


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


def _filled(recipe: Recipe, folder: RuntimeFolder, material: Material) -> RenderedRelease:
    stores = dict(_stores(recipe, material))
    digest = release_digest(recipe, _digests(material, stores))
    release = digest[:RELEASE_NAME_DIGITS]
    variables = release_variables(recipe, release, folder.runtime, material.subjects)
    rendered = dict(_rendered(recipe, folder, variables))
    files = (RenderedFile(path=path, content=content) for path, content in sorted({**stores, **rendered}.items()))
    return RenderedRelease(
        service=recipe.instance.service,
        release=release,
        release_digest=digest,
        key_spki_sha256=material.spki_sha256,
        files=tuple(files),
    )


def _stores(recipe: Recipe, material: Material) -> Iterator[tuple[str, bytes]]:
    """The files that every release holds, whatever the runtime."""
    yield CERTIFICATE_FILE, to_pem(material.chain)
    for served in recipe.listeners:
        asks = served.client_certificate is not ClientCertificate.NONE
        if bool(served.policy.anchors) != (asks and bool(served.callers)):
            message = f"{recipe.instance}: the anchors of the listener `{served.name}` do not fit its callers"
            raise PreflightError(message, code=codes.EMPTY_BUNDLE)
        if served.policy.anchors:
            yield clients_file(served), _bundle(served.policy, material)
    for callee in recipe.callees:
        if not callee.policy.anchors:
            message = f"{recipe.instance}: no anchor to believe `{callee_name(callee.listener)}` by"
            raise PreflightError(message, code=codes.EMPTY_BUNDLE)
        yield servers_file(callee.listener), _bundle(callee.policy, material)


def _bundle(policy: PeerPolicy, material: Material) -> bytes:
    missing = in_order(policy.anchors - material.anchors.keys())
    if missing:
        raise PreflightError(f"the certificate of {missing[0]} is not at hand", code=codes.ANCHOR_MISSING)
    return to_pem(material.anchors[anchor] for anchor in in_order(policy.anchors))


def _digests(material: Material, stores: Mapping[str, bytes]) -> dict[str, str]:
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in stores.items()}
    return {**digests, "certificate": material.certificate_sha256, "spki": material.spki_sha256}


def _rendered(recipe: Recipe, folder: RuntimeFolder, variables: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    for file in folder.manifest.files:
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
