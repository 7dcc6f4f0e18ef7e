"""Key stores and trust stores (PKCS#12, RFC 7292) as values that hold neither key nor password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtlsctl.model.trust import TrustAnchor

ALIAS = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""The grammar of an alias (friendlyName): lower case, since Java compares them so and other readers do not."""

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
"""One path component that no shell, no program and no file system reads as anything else."""

SECRET_VARIABLE = re.compile(r"MTLSCTL_SECRET_[A-Z0-9_]{1,100}")
"""What an inventory's `env:` may name, so that it cannot ask for anything else of an environment."""

GENERATED = "generated"


class StoreKind(StrEnum):
    """What a store holds."""

    KEY = "key"
    """The private key with its chain under one alias."""
    CLIENTS = "clients"
    """The anchors of one listener's callers."""
    SERVERS = "servers"
    """The anchors of one callee."""
    ALL_SERVERS = "all_servers"
    """The anchors of all callees: for a program with one client context."""
    EVERYONE = "everyone"
    """The anchors of both directions: for a program with one trust store (`Enforcement.separate_trust` is false)."""
    PASSWORD = "password"  # noqa: S105  the word for a file, not a password
    """No store: the file with the password of the release's stores and of the key in them."""
    CERTIFICATE = "certificate"
    """No store: the end entity's certificate in DER."""
    ANCHOR = "anchor"
    """No store: one anchor of the callees in DER."""
    COMBINED = "combined"
    """No store: the end entity's certificate and its key in one PEM file, 0600; only where a callee asks for it."""


TRUST_STORES = frozenset({StoreKind.CLIENTS, StoreKind.SERVERS, StoreKind.ALL_SERVERS, StoreKind.EVERYONE})
SEALED = frozenset({StoreKind.KEY, *TRUST_STORES})
"""Kinds that are PKCS#12 files, opened by the password."""


class StoreProfile(StrEnum):
    """The algorithms of a store."""

    MODERN = "modern"
    """PBES2 with AES-256-CBC and HMAC-SHA-256 (RFC 8018), MAC SHA-256: Java 8u301, 11.0.12, 17 and newer."""
    LEGACY = "legacy"
    """PBES1 with SHA-1 and 3DES, MAC SHA-1 (RFC 7292 appendix B): for what is older."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpecification:
    """One store of a release: where it lies, and what must be in it.

    `path` is below the release. `alias` names the key's entry and is empty in a trust store; `anchors` are the entries
    of a trust store, each with its alias, and empty in a key store.
    """

    path: str
    kind: StoreKind
    profile: StoreProfile
    alias: str = ""
    anchors: tuple[tuple[str, TrustAnchor], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSource:
    """Where a store's password comes from: generated for each release, or a name that is looked up at apply."""

    variable: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: object) -> PasswordSource:
        """The inverse of `str`; raises ValueError for anything else. None stands for the default, `generated`."""
        kind, _, name = str(GENERATED if text is None else text).partition(":")
        if kind == GENERATED and not name:
            return cls()
        if kind == "env" and SECRET_VARIABLE.fullmatch(name):
            return cls(variable=name)
        if kind == "file" and FILE_NAME.fullmatch(name):
            return cls(file=name)
        msg = "a password is `generated`, a variable MTLSCTL_SECRET_... or a file of the folder of secrets"
        raise ValueError(msg)

    def __str__(self) -> str:
        if self.variable is not None:
            return f"env:{self.variable}"
        return GENERATED if self.file is None else f"file:{self.file}"
