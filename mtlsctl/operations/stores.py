"""Passwords as the inventory names them, and the stores that are made where the key is: when a release is staged."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import KeyStoreOrder, StagedFile
from mtlsctl.errors import PreflightError, SecretMissing, UnsafePlan
from mtlsctl.model.files import PUBLIC_MODE, SECRET_MODE
from mtlsctl.model.keystore import SEALED, PasswordSource, StoreKind, StoreProfile
from mtlsctl.model.secret import Secret
from mtlsctl.pki.keys import load_private
from mtlsctl.pki.keystores import (
    LONGEST_PASSWORD,
    check_password,
    content_of,
    generate_password,
    make_store,
    read_store,
)
from mtlsctl.render.release import render_secret_files
from mtlsctl.render.stores import password_source, specifications

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtlsctl.deliver.layout import StagedRelease
    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.keystore import StoreSpecification
    from mtlsctl.model.release import Recipe
    from mtlsctl.operations.releases import Rendered
    from mtlsctl.pki.keystores import StoreContent
    from mtlsctl.render.catalog import RuntimeFolder

SECRETS_FOLDER = "MTLSCTL_SECRETS_DIR"
MISSING = "M7401"
EXPOSED = "M7402"

_NO_RELEASE = "0" * 16
_STAND_IN = Secret(b"x" * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """What the operator's environment gives for the sources that an inventory names; each was looked up once."""

    known: Mapping[PasswordSource, Secret] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> Secret | None:
        """The password of a release's stores; None where one is generated."""
        return self.known.get(password_source(recipe))


def look_up_passwords(
    recipes: Iterable[Recipe],
    catalog: Mapping[str, RuntimeFolder],
    environ: Mapping[str, str],
    *,
    keep_out: Sequence[Path] = (),
) -> Passwords:
    """Every password that these releases need, and a try of each in the files that it goes into.

    Raises SecretMissing (M7401, M7402) for one that is not there or that others can read, PreflightError M7107 for one
    that programs read differently, UnsafePlan M2301 for one that a file cannot hold: before anything is begun.
    """
    known: dict[PasswordSource, Secret] = {}
    for recipe in recipes:
        folder = catalog[recipe.runtime]
        if not any(one.kind in SEALED for one in specifications(recipe, folder.manifest)):
            continue
        source = password_source(recipe)
        if source != PasswordSource() and source not in known:
            known[source] = _look_up(source, environ, keep_out)
        render_secret_files(recipe, folder, _NO_RELEASE, known.get(source, _STAND_IN))
    return Passwords(known=known)


def _look_up(source: PasswordSource, environ: Mapping[str, str], keep_out: Sequence[Path]) -> Secret:
    if source.variable is not None:
        value = environ.get(source.variable, "")
        if not value:
            raise SecretMissing(
                f"the inventory names the variable {source.variable} for the password of stores, and it is not set",
                code=MISSING,
                help="set it in the environment of this command only",
            )
        content = os.fsencode(value)
    else:
        content = _read_secret(str(source.file), environ, keep_out)
    try:
        return check_password(Secret(content))
    except PreflightError as error:
        raise PreflightError(f"{source}: {error.message}", code=error.code, help=error.help) from None


def _read_secret(name: str, environ: Mapping[str, str], keep_out: Sequence[Path]) -> bytes:
    folder = Path(environ.get("MTLSCTL_SECRETS_DIR", ""))
    if not folder.is_absolute():
        raise SecretMissing(
            f"the inventory names the file `{name}` for the password of stores, and {SECRETS_FOLDER} names no folder",
            code=MISSING,
            help=f"{SECRETS_FOLDER}=/an/absolute/path, outside the repository",
        )
    for refused in keep_out:
        if folder.resolve().is_relative_to(refused.resolve()):
            raise SecretMissing(
                f"{SECRETS_FOLDER} lies inside {refused}: who copies that folder would have the passwords",
                code=EXPOSED,
                help="move it outside the repository",
            )
    return _read_private(folder, name)


def _read_private(folder: Path, name: str) -> bytes:
    place = folder / name
    try:
        within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
        finally:
            os.close(within)
    except OSError as error:
        raise SecretMissing(
            f"the password of stores cannot be read at {place}: {error.strerror}",
            code=MISSING,
            help=f"put it there, mode 0600, itself and not a symlink; {SECRETS_FOLDER} names the folder",
        ) from None
    try:
        seen = os.fstat(opened)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
            raise SecretMissing(
                f"{place} is not a file that only you can read (mode {stat.S_IMODE(seen.st_mode):04o})",
                code=EXPOSED,
                help=f"chmod 600 {place}",
            )
        content = os.read(opened, LONGEST_PASSWORD + 3)
    finally:
        os.close(opened)
    return content.removesuffix(b"\n").removesuffix(b"\r")


def assemble(rendered: Rendered, folder: RuntimeFolder, transport: Transport, passwords: Passwords) -> StagedRelease:
    """The release with its stores and secret files, as it is to be staged.

    Where it lies on the host already, whole and with a password that may stand, it is given as it lies there: stores
    of the same content have other bytes each time, and a second apply writes nothing. The key is read from the host,
    used, and forgotten. Raises DeliveryError for the host, PreflightError for a store that cannot be made.
    """
    if not rendered.stores:
        return rendered.staged
    wanted = passwords.of(rendered.recipe)
    making = _Making(rendered=rendered, folder=folder, is_kept=transport.keeper is not None)
    files = making.lying_there(transport, wanted) or making.anew(transport, wanted or generate_password())
    return replace(
        rendered.staged,
        files=tuple(sorted((*rendered.staged.files, *files), key=lambda one: one.path)),
        key_stores=making.orders(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """The stores of one release. Where keys are kept by their host (`is_kept`), it makes the key stores itself."""

    rendered: Rendered
    folder: RuntimeFolder
    is_kept: bool

    def expected(self, store: StoreSpecification) -> StoreContent:
        return content_of(
            store,
            spki_sha256=self.rendered.credential.spki_sha256,
            chain=self.rendered.chain,
            anchors=self.rendered.anchors,
        )

    def secret_files(self, password: Secret) -> list[StagedFile]:
        rendered = self.rendered
        made = render_secret_files(rendered.recipe, self.folder, rendered.staged.release, password, rendered.subjects)
        return [StagedFile(path=one.path, content=one.content, mode=one.mode) for one in made]

    def orders(self) -> tuple[KeyStoreOrder, ...]:
        """What the host is to make of its key and of the certificate."""
        if not self.is_kept:
            return ()
        return tuple(
            KeyStoreOrder(
                path=one.path,
                alias=one.alias,
                password_file=self._password_file,
                is_legacy=one.profile is StoreProfile.LEGACY,
            )
            for one in self.rendered.stores
            if one.kind is StoreKind.KEY
        )

    @property
    def _password_file(self) -> str:
        (path,) = (one.path for one in self.rendered.stores if one.kind is StoreKind.PASSWORD)
        return path

    def anew(self, transport: Transport, password: Secret) -> list[StagedFile]:
        staged = self.rendered.staged
        key = None
        if not self.is_kept:
            key = load_private(transport.read_key(staged.service, self.rendered.credential.spki_sha256))
        stores = [
            StagedFile(
                path=one.path,
                content=make_store(
                    one, key, chain=self.rendered.chain, anchors=self.rendered.anchors, password=password
                ),
                mode=_mode(one),
            )
            for one in self._sealed()
        ]
        return [*stores, *self.secret_files(password)]

    def lying_there(self, transport: Transport, wanted: Secret | None) -> list[StagedFile] | None:
        """What the host holds of it, if that is what would be made now; None to make it anew."""
        staged = self.rendered.staged
        if not transport.has_release(staged.service, staged.release):
            return None
        found = transport.read_release(staged.service, staged.release)
        try:
            password = check_password(Secret(found[self._password_file].read()))
            if wanted is not None and password != wanted:
                return None
            stores = {one.path: (one, found[one.path].read()) for one in self._sealed()}
            if any(read_store(content, password) != self.expected(one) for one, content in stores.values()):
                return None
            files = self.secret_files(password)
        except (KeyError, ValueError, PreflightError, UnsafePlan):
            return None  # altered: it makes way
        return [StagedFile(path=path, content=data, mode=_mode(one)) for path, (one, data) in stores.items()] + files

    def _sealed(self) -> list[StoreSpecification]:
        kept = {StoreKind.KEY} if self.is_kept else set()
        return [one for one in self.rendered.stores if one.kind in SEALED - kept]


def _mode(store: StoreSpecification) -> int:
    return SECRET_MODE if store.kind is StoreKind.KEY else PUBLIC_MODE
