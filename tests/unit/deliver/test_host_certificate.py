"""Certificates of host keys: what they say, and what they must not be believed in."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from mtlsctl.deliver.host_certificate import HOST, UnreadableCertificate, read_certificate
from mtlsctl.deliver.known_hosts import kind_of

NOW = 1_000_000


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@dataclass
class Made:
    kind: bytes = b"ssh-ed25519-cert-v01@openssh.com"
    type: int = HOST
    principals: list[bytes] = field(default_factory=lambda: [b"web1"])
    after: int = NOW - 10
    before: int = NOW + 10
    critical: bytes = b""
    signature: bytes = string(b"ssh-ed25519") + string(b"s" * 64)

    def blob(self) -> bytes:
        authority = string(b"ssh-ed25519") + string(b"c" * 32)
        return b"".join(
            [
                string(self.kind), string(b"nonce"), string(b"k" * 32), struct.pack(">QI", 7, self.type),
                string(b"name"), string(b"".join(map(string, self.principals))),
                struct.pack(">QQ", self.after, self.before), string(self.critical), string(b""), string(b""),
                string(authority), string(self.signature),
            ]
        )  # fmt: skip


def test_a_certificate_vouches_for_its_names() -> None:
    certificate = read_certificate(Made(principals=[b"other", b"WEB1"]).blob())
    assert certificate.objection(("web1",), now=NOW) is None
    assert certificate.objection(("[web1]:2222", "web1"), now=NOW) is None
    assert certificate.objection(("web2",), now=NOW) is not None
    assert kind_of(certificate.key.blob) == certificate.key.kind == "ssh-ed25519"


@pytest.mark.parametrize(
    "made",
    [
        Made(type=1),
        Made(principals=[]),
        Made(principals=[b"*"]),
        Made(principals=[b"web*"]),
        Made(after=NOW + 1),
        Made(before=NOW),
        Made(critical=string(b"force-command") + string(b"x")),
        Made(signature=string(b"ssh-rsa") + string(b"s" * 256)),
        Made(signature=b""),
    ],
)
def test_what_is_wrong_with_a_certificate_is_an_objection(made: Made) -> None:
    assert read_certificate(made.blob()).objection(("web1",), now=NOW) is not None


def test_what_is_no_certificate_is_refused_wherever_it_breaks_off() -> None:
    blob = Made().blob()
    for length in range(len(blob)):
        with pytest.raises(UnreadableCertificate):
            read_certificate(blob[:length])
    with pytest.raises(UnreadableCertificate):
        read_certificate(blob + b"x")
    with pytest.raises(UnreadableCertificate):
        read_certificate(Made(kind=b"ssh-ed25519").blob())


def test_the_signature_is_over_all_that_stands_before_it() -> None:
    made = Made()
    certificate = read_certificate(made.blob())
    assert certificate.signed + string(made.signature) == made.blob()
