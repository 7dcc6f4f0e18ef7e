"""Certificates that somebody else made: PEM files below the repository, read as bytes and named by their digest.

What they say is not looked at here: that takes a library which a plan without any must not load.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes
from mtlsctl.inventory.files import blocks_of, read_file_of_repository
from mtlsctl.inventory.grammar import Unfit
from mtlsctl.inventory.problems import shown
from mtlsctl.model.topology import OutsideCertificate

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.inventory.problems import Place
    from mtlsctl.inventory.words import Words

LABEL: Final = "CERTIFICATE"
MAX_IN_A_FILE: Final = 16


class CertificateFiles:
    """The files that an inventory names, each read once.

    `found` are anchors, `chains` what listeners show; both by the SHA-256 of their DER.
    """

    def __init__(self, words: Words, root: Path) -> None:
        self._words = words
        self.root = root
        self._known: dict[str, tuple[bytes, ...]] = {}
        self.found: dict[str, OutsideCertificate] = {}
        self.chains: dict[str, OutsideCertificate] = {}

    def read(self, path: str, at: Place) -> tuple[str, ...]:
        """The digests of a file's anchors; none when something was wrong with it, which is reported once."""
        return self._read(path, at, self.found)

    def read_chain(self, path: str, at: Place) -> tuple[str, ...]:
        """The digests of a chain's certificates in the order of the file; none when something was wrong with it."""
        return self._read(path, at, self.chains)

    def _read(self, path: str, at: Place, kept: dict[str, OutsideCertificate]) -> tuple[str, ...]:
        if path not in self._known:
            ders = self._words.parsed(path, at, lambda text: ders_of(read_file_of_repository(self.root, text), text))
            self._known[path] = ders or ()
        digests = tuple(hashlib.sha256(der).hexdigest() for der in self._known[path])
        span = self._words.problems.sources.span(at, path)
        for digest, der in zip(digests, self._known[path], strict=True):
            kept.setdefault(digest, OutsideCertificate(der=der, file=path, span=span))
        return digests


def ders_of(content: bytes, path: str) -> tuple[bytes, ...]:
    """The DER of each certificate of a file that holds nothing else; raises Unfit (M1051)."""
    blocks = blocks_of(content, path)
    other = next((one.label for one in blocks if one.label != LABEL), None)
    if not blocks:
        advice = "openssl x509 -inform DER -in FILE writes a DER certificate as PEM"
        raise Unfit(codes.PEM, f"`{path}` holds no PEM certificate", advice)
    if other is not None:
        raise Unfit(codes.PEM, f"`{path}` is to hold certificates and nothing else; it holds {shown(other.lower())}")
    if len(blocks) > MAX_IN_A_FILE:
        raise Unfit(codes.PEM, f"`{path}` holds more than {MAX_IN_A_FILE} certificates")
    return tuple(one.der for one in blocks)
