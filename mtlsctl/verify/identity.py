"""A chain and its key, as shown in a handshake; the key never lies in a readable file on the way into OpenSSL."""

from __future__ import annotations

import os
import ssl
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.model.files import CERTIFICATE_FILE, KEY_FILE
from mtlsctl.model.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtlsctl.model.release import HeldFile

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Identity:
    """A certificate chain (PEM, end entity first) and its private key (PEM, not encrypted)."""

    chain: bytes
    key: Secret


def identity_of(files: Mapping[str, HeldFile]) -> Identity:
    """What a release presents, from its files as they were read back; raises KeyError when one is missing."""
    return Identity(chain=files[CERTIFICATE_FILE].read(), key=Secret(files[KEY_FILE].read()))


def load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    """Let a context present an identity; raises ssl.SSLError when the two do not belong together."""
    # OpenSSL reads both from files only. An anonymous file in memory is one that nobody else can open.
    with _private_file(identity.key.reveal() + b"\n" + identity.chain) as path:
        context.load_cert_chain(path, password=b"")


@contextmanager
def _private_file(content: bytes) -> Iterator[str]:
    if sys.platform == "linux":
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    import tempfile  # noqa: PLC0415  only where there are no anonymous files

    with tempfile.TemporaryDirectory(prefix="mtlsctl-") as folder:
        path = Path(folder, "identity.pem")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        yield str(path)
