"""Where things lie on a host. Pure: names only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtlsctl.model import files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtlsctl.model.release import FileFact

BASE = PurePosixPath(files.BASE)
LINEAGE_FILE = BASE / ".lineage"
"""Says whose tree it is. No service has a name with a dot, so nothing of a service can lie there."""
RELEASES_KEPT = 3

_END = b"-----END CERTIFICATE-----\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A file of a release; `path` is relative and slash-separated. Its bytes may be a store's or hold a password."""

    path: str
    content: bytes = field(repr=False)
    mode: int = files.PUBLIC_MODE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStoreOrder:
    """A PKCS#12 key store that a host makes of a release's key and certificate, under the password in a file of it."""

    path: str
    alias: str
    password_file: str
    is_legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRelease:
    """A release to be put on a host. Its private key is never among the files: the host links it by its public key.

    At each path of `combined` the host writes the certificate and the key into one file, 0600. `links` name files that
    also have a fixed place beside `current`, as symlinks through it: programs that watch a folder see there when
    `current` moves. `key_spki_sha256` is None for a release without a key, whose chain is handed back to its keeper.
    `key_stores` are made by a host that keeps its keys to itself; elsewhere such stores are among the files.
    """

    service: str
    release: str
    key_spki_sha256: str | None
    files: tuple[StagedFile, ...]
    combined: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    key_stores: tuple[KeyStoreOrder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePointer:
    """A configuration file that names releases by absolute path."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPointer:
    """The symlink `current`; `target` is relative to its folder: `releases/<release>`."""

    path: str
    target: str


Pointer = FilePointer | CurrentPointer


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a host holds of what was asked for; None stands for what is not there."""

    pointers: Mapping[str, Pointer | None]
    releases: Mapping[tuple[str, str], tuple[FileFact, ...] | None]
    """By service and release: its files in order of their paths, as a receipt has them."""
    keys: Mapping[tuple[str, str], bool]
    """By service and SPKI SHA-256."""


def service_folder(service: str) -> PurePosixPath:
    return BASE / service


def release_folder(service: str, release: str) -> PurePosixPath:
    """`/etc/mtlsctl/<service>/releases/<release>`: immutable once it has this name."""
    return service_folder(service) / "releases" / release


def partial_folder(service: str, release: str) -> PurePosixPath:
    """Where a release is written until it is whole; never named by a pointer."""
    return service_folder(service) / "releases" / f"{release}.partial"


def key_file(service: str, spki_sha256: str) -> PurePosixPath:
    """`/etc/mtlsctl/<service>/keys/<spki>.key`: born here, linked into every release that presents it."""
    return service_folder(service) / "keys" / f"{spki_sha256}.key"


def combined(chain_pem: bytes, key_pem: bytes) -> bytes:
    """The first certificate of a PEM file and a key as one PEM file (RFC 7468), for what takes both from one.

    Certificates after the first are left out: Apache httpd before 2.4.59 takes no more in such a file.
    """
    leaf, end, _ = chain_pem.partition(_END)
    return leaf + end + key_pem


def pointer_sha256(pointer: Pointer) -> str:
    """The digest by which a pointer is remembered: of a file's bytes, or of a symlink's target."""
    data = pointer.content if isinstance(pointer, FilePointer) else pointer.target.encode()
    return hashlib.sha256(data).hexdigest()
