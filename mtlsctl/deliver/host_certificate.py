"""Certificates of host keys, in OpenSSH's own format (PROTOCOL.certkeys): read, and held against what must hold.

The signature is checked by whoever can; this module says over which bytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mtlsctl.deliver.known_hosts import CERTIFICATE_SUFFIX, HostKey, kind_of

HOST = 2
"""The type of a certificate that is a host's."""

FIELDS = {"ssh-ed25519": 1, "ecdsa-sha2-nistp256": 2, "ecdsa-sha2-nistp384": 2, "ecdsa-sha2-nistp521": 2, "ssh-rsa": 2}
"""How many strings make up the public key of a kind."""

SIGNATURES = {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
              "rsa-sha2-256", "rsa-sha2-512"}  # fmt: skip
"""What a CA may sign with: not `ssh-rsa`, which is SHA-1."""


class UnreadableCertificate(ValueError):
    """The bytes are not a certificate of a kind that is known."""


class HostCertificate(NamedTuple):
    """What a certificate says. `key` is the host's plain key, `signed` the bytes that `signature` is over."""

    key: HostKey
    authority: HostKey
    type: int
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: bytes
    signed: bytes
    signature: bytes

    def objection(self, names: tuple[str, ...], *, now: float) -> str | None:
        """Why it does not vouch for a host of that name now, None when it does; its signature apart."""
        if self.type != HOST:
            return "it is not a certificate of a host"
        if not self.valid_after <= now < self.valid_before:
            return "it is not valid now"
        if self.critical_options:
            return "it has a critical option, and a host's may have none"
        bare = {one.rpartition(":")[0].strip("[]") if one.startswith("[") else one for one in names}
        # Whole names, as ssh compares them: no wildcards, and an empty list is for nobody.
        if bare.isdisjoint(one.lower() for one in self.principals):
            return "it is for other names"
        if kind_of(self.signature) not in SIGNATURES:
            return "it is signed with SHA-1, or in a way that is not known"
        return None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise UnreadableCertificate("it ends too early")
        self.at += count
        return taken

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def string(self) -> bytes:
        return self.take(self.number(">I"))


def read_certificate(blob: bytes) -> HostCertificate:
    """Raises UnreadableCertificate."""
    reader = _Reader(blob)
    kind = reader.string().decode("ascii", "replace")
    plain = kind.removesuffix(CERTIFICATE_SUFFIX)
    if plain == kind or plain not in FIELDS:
        raise UnreadableCertificate("it is of no kind that is known")
    reader.string()  # the nonce
    fields = [reader.string() for _ in range(FIELDS[plain])]
    reader.number(">Q")  # the serial number
    type_ = reader.number(">I")
    reader.string()  # the key's name, for people
    principals = _Reader(reader.string())
    names: list[str] = []
    while principals.at < len(principals.data):
        names.append(principals.string().decode("utf-8", "replace"))
    valid_after, valid_before = reader.number(">Q"), reader.number(">Q")
    critical_options = reader.string()
    reader.string()  # extensions
    reader.string()  # reserved
    authority = reader.string()
    signed = blob[: reader.at]
    signature = reader.string()
    if reader.at != len(blob):
        raise UnreadableCertificate("it goes on after its end")
    return HostCertificate(
        key=HostKey(plain, b"".join(_string(one) for one in (plain.encode("ascii"), *fields))),
        authority=HostKey(kind_of(authority) or "", authority),
        type=type_,
        principals=tuple(names),
        valid_after=valid_after,
        valid_before=valid_before,
        critical_options=critical_options,
        signed=signed,
        signature=signature,
    )


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
