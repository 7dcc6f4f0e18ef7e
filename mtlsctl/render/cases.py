"""Golden cases of a runtime folder: `cases/<case>/recipe*.json` and what comes out of them under `expected/`.

A case needs no real certificate: its material is made up from names, so that the expected files never change with
time. Several recipes in a case are members of one process, as its pointer file shows.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.model.release import recipe_from_json
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import ProcessId
from mtlsctl.model.trust import OutsideAnchor, common_name_of
from mtlsctl.render import codes
from mtlsctl.render.process import render_pointer
from mtlsctl.render.release import Material, fill, render_secret_files

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.model.release import Recipe
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.render.catalog import RuntimeFolder


MADE_UP_PASSWORD = Secret(b"made-up-password")
"""Stands for the password of stores; the stores themselves hold salts and a key, and are in no case."""


def cases_of(folder: RuntimeFolder) -> list[Path]:
    """The folders of all cases, sorted."""
    return sorted({file.parent for file in folder.path.glob("cases/*/recipe*.json")})


def made_up_material(recipe: Recipe) -> Material:
    """Material that looks like some in files, and that no TLS library would take."""
    policies = [served.policy for served in recipe.listeners] + [callee.policy for callee in recipe.callees]
    anchors = {anchor for policy in policies for anchor in policy.anchors}
    shown = {one for served in recipe.listeners if served.shows is not None for one in served.shows.chain}
    chain = (f"certificate {recipe.credential}".encode(),)
    return Material(
        chain=chain,
        certificate_sha256=hashlib.sha256(chain[0]).hexdigest(),
        spki_sha256=hashlib.sha256(f"key {recipe.credential}".encode()).hexdigest(),
        anchors={anchor: str(anchor).encode() for anchor in anchors},
        subjects={anchor: _made_up_subject(anchor) for anchor in anchors},
        shown={one: f"certificate {one}".encode() for one in shown},
    )


def _made_up_subject(anchor: TrustAnchor) -> str:
    return f"CN={anchor.name} CA" if isinstance(anchor, OutsideAnchor) else f"CN={common_name_of('calendar', anchor)}"


def render_case(folder: RuntimeFolder, case: Path) -> dict[str, bytes]:
    """Every file of the case by its path below `expected/`: `<service>/<file>`, and the pointer file's own name."""
    recipes = [_recipe(file) for file in sorted(case.glob("recipe*.json"))]
    releases = [fill(recipe, folder, made_up_material(recipe)) for recipe in recipes]
    found = {f"{one.service}/{file.path}": file.content for one in releases for file in one.files}
    for recipe, one in zip(recipes, releases, strict=True):
        for file in render_secret_files(recipe, folder, one.release, MADE_UP_PASSWORD) if one.stores else ():
            found[f"{one.service}/{file.path}"] = file.content
    pointer = folder.manifest.pointer
    if pointer is not None:
        process = ProcessId(recipes[0].instance.host, recipes[0].process.name)
        members = [(recipe, one.release) for recipe, one in zip(recipes, releases, strict=True)]
        found[PurePosixPath(pointer.path).name] = render_pointer(folder, process, members)
    return found


def expected_of(case: Path) -> dict[str, bytes]:
    """What the case expects."""
    below = case / "expected"
    return {file.relative_to(below).as_posix(): file.read_bytes() for file in below.rglob("*") if file.is_file()}


def write_expected(case: Path, files: dict[str, bytes]) -> None:
    """Take what came out as what is expected from now on; read the difference before it is committed."""
    for path in expected_of(case).keys() - files.keys():
        (case / "expected" / path).unlink()
    for path, content in files.items():
        file = case / "expected" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _recipe(file: Path) -> Recipe:
    try:
        return recipe_from_json(json.loads(file.read_bytes()))
    except (OSError, KeyError, TypeError, ValueError) as error:
        message = f"not a recipe: {type(error).__name__}: {error}"
        span = Span(str(file), 1, 1, 1)
        raise RuntimeFolderError([Diagnostic(code=codes.CASES_MISSING, message=message, span=span)]) from None
