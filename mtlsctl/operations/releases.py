"""All releases of a plan, rendered before the first of them is pushed; and the pointers that name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import CurrentPointer, FilePointer, StagedFile, StagedRelease
from mtlsctl.failpoints import reach
from mtlsctl.model.runtime import PointerKind
from mtlsctl.model.trust import OutsideAnchor
from mtlsctl.operations.drift import pointer_path
from mtlsctl.operations.outside import outside_certificate
from mtlsctl.pki.inspect import subject_text
from mtlsctl.render.process import render_pointer
from mtlsctl.render.release import Material, render_release
from mtlsctl.store.port import ReleaseRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtlsctl.deliver.layout import Pointer
    from mtlsctl.model.credential import Credential
    from mtlsctl.model.keystore import StoreSpecification
    from mtlsctl.model.plan import Step, StepId
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId, ProcessId
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.store.port import StateReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One release: what it means, what is put on the host, and what a host must be found to hold."""

    recipe: Recipe
    staged: StagedRelease
    record: ReleaseRecord
    credential: Credential
    issuer: bytes
    chain: tuple[bytes, ...]
    anchors: Mapping[TrustAnchor, bytes]
    subjects: Mapping[TrustAnchor, str] = field(default_factory=dict)
    shown: Mapping[str, bytes] = field(default_factory=dict)
    """Certificates that somebody else issued, by their SHA-256."""
    stores: tuple[StoreSpecification, ...] = ()
    """Of `staged` are missing these stores and what holds their password: `stores.assemble` adds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An instance as its process is to name it."""

    recipe: Recipe
    release: str


def render_releases(
    steps: Iterable[Step], state: State, reader: StateReader, catalog: Mapping[str, RuntimeFolder]
) -> dict[StepId, Rendered]:
    """Every release of every wave. Raises what a template or a value is at fault for, before any host is touched."""
    certificates = _Certificates(reader)
    return {
        step.id: _render(
            step.recipe, state.credentials[step.recipe.credential], certificates, catalog[step.recipe.runtime]
        )
        for step in steps
        if step.recipe is not None
    }


def render_again(recipe: Recipe, credential: Credential, reader: StateReader, folder: RuntimeFolder) -> Rendered:
    """A release that was live once, as it was rendered; raises as `render_releases` does, too for other templates."""
    return _render(recipe, credential, _Certificates(reader), folder)


class _Certificates:
    """DER by identifier, each read once."""

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._known: dict[TrustAnchor, bytes] = {}

    def of(self, wanted: TrustAnchor) -> bytes:
        if wanted not in self._known:
            self._known[wanted] = (
                outside_certificate(self._reader, wanted)
                if isinstance(wanted, OutsideAnchor)
                else self._reader.certificate(wanted)
            )
        return self._known[wanted]


def _render(recipe: Recipe, credential: Credential, certificates: _Certificates, folder: RuntimeFolder) -> Rendered:
    shown = {one for served in recipe.listeners if served.shows is not None for one in served.shows.chain}
    policies = [served.policy for served in recipe.listeners] + [callee.policy for callee in recipe.callees]
    anchors = {one: certificates.of(one) for policy in policies for one in policy.anchors}
    material = Material(
        chain=(certificates.of(credential.id),),
        certificate_sha256=credential.certificate_sha256,
        spki_sha256=credential.spki_sha256,
        anchors=anchors,
        subjects={one: subject_text(anchors[one]) for one in _naming(recipe)},
        shown={one: certificates.of(OutsideAnchor(recipe.instance.service, one)) for one in sorted(shown)},
    )
    rendered = render_release(recipe, folder, material)
    reach("release.rendered")
    return Rendered(
        recipe=recipe,
        staged=StagedRelease(
            service=rendered.service,
            release=rendered.release,
            key_spki_sha256=rendered.key_spki_sha256,
            files=tuple(StagedFile(path=one.path, content=one.content, mode=one.mode) for one in rendered.files),
            combined=rendered.combined,
            links=folder.manifest.links,
        ),
        record=ReleaseRecord(release=rendered.release, release_digest=rendered.release_digest, recipe=recipe),
        credential=credential,
        issuer=certificates.of(credential.profile.anchor),
        chain=material.chain,
        anchors=anchors,
        subjects=material.subjects,
        shown=material.shown,
        stores=rendered.stores,
    )


def _naming(recipe: Recipe) -> set[TrustAnchor]:
    """The anchors under which members are let in by name."""
    return {member.anchor for served in recipe.listeners for member in served.policy.members or ()}


def make_pointer(folder: RuntimeFolder, process: ProcessId, members: Sequence[Member]) -> Pointer | None:
    """The pointer that names these members; None when there are none."""
    if not members:
        return None
    path = pointer_path(folder.runtime, process)
    if folder.runtime.pointer is PointerKind.CURRENT:
        (only,) = members
        return CurrentPointer(path=path, target=str(PurePosixPath("releases", only.release)))
    content = render_pointer(folder, process, [(member.recipe, member.release) for member in members])
    return FilePointer(path=path, content=content)


def try_pointers(
    steps: Sequence[Step],
    rendered: Mapping[StepId, Rendered],
    members: Mapping[ProcessId, Mapping[InstanceId, Member]],
    catalog: Mapping[str, RuntimeFolder],
) -> None:
    """Render every pointer as it will be if all goes well, and forget it: a fault shows before any host is touched.

    Raises what `render_pointer` does: UnsafePlan for services that cannot share a port, RuntimeFolderError.
    """
    now = {process: dict(those) for process, those in members.items()}
    for (_, process), group in groupby(steps, key=lambda step: (step.id.wave, step.process)):
        those = now.setdefault(process, {})
        for step in group:
            those.pop(step.id.instance, None)
            if step.recipe is not None and step.id in rendered:
                those[step.id.instance] = Member(recipe=step.recipe, release=rendered[step.id].record.release)
        if those:
            runtime = next(iter(those.values())).recipe.runtime
            make_pointer(catalog[runtime], process, list(those.values()))
