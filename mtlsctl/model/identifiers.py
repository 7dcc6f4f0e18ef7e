"""Identifiers as RFC 9525 has them: what a verifier expects and what a certificate presents."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""The grammar of every name that we own: services, hosts, listeners, the estate."""

LONGEST_DNS_NAME = 253
_DNS_NAME = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")


class InvalidIdentifier(ValueError):
    """The text is not an identifier of the kind asked for; the message says what is."""


@dataclass(frozen=True, slots=True, order=True)
class DnsId:
    """A DNS-ID (RFC 9525 section 6.3): lower case, A-labels only, at most 253 characters, no wildcard."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Normalise to lower case; raises InvalidIdentifier with what a DNS name looks like."""
        value = text.lower()
        if len(value) > LONGEST_DNS_NAME or _DNS_NAME.fullmatch(value) is None:
            msg = "a DNS name is labels of letters, digits and hyphens joined by dots, at most 253 characters"
            raise InvalidIdentifier(msg)
        if value.rpartition(".")[2].isdigit():
            msg = "a DNS name does not end in a number; addresses enter with `addresses: true`"
            raise InvalidIdentifier(msg)
        return cls(value)

    def matches(self, presented: str) -> bool:
        """Whether a presented DNS-ID is this one; a wildcard stands for the whole leftmost label only."""
        presented = presented.lower()
        if not presented.startswith("*."):
            return presented == self.value
        return self.value.partition(".")[2] == presented[2:]

    def is_within(self, constraint: str) -> bool:
        """Whether an RFC 5280 section 4.2.1.10 dNSName constraint covers this name (subdomains included)."""
        return self.value == constraint or self.value.endswith("." + constraint)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class IpId:
    """An IP-ID (RFC 9525 section 6.4) in its canonical text form."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidIdentifier when the text is neither an IPv4 nor an IPv6 address."""
        try:
            return cls(str(ipaddress.ip_address(text)))
        except ValueError:
            msg = "an address is IPv4 (192.0.2.1) or IPv6 (2001:db8::1)"
            raise InvalidIdentifier(msg) from None

    def __str__(self) -> str:
        return self.value


SUBJECT_TYPES = {
    "CN": "2.5.4.3",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "C": "2.5.4.6",
    "DC": "0.9.2342.19200300.100.1.25",
    "UID": "0.9.2342.19200300.100.1.1",
}
"""The attribute types that OpenSSL, Java and RFC 4514 section 3 write by the same letters."""

LONGEST_SUBJECT = 512
_SUBJECT_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._:/@&*()-]{0,126}[A-Za-z0-9.*)])?")


def is_plain_value(text: str) -> bool:
    """Whether every program writes a subject's value with just these characters: none is escaped, none is hidden."""
    return _SUBJECT_VALUE.fullmatch(text) is not None and "  " not in text


def check_identity(text: str) -> None:
    """A common name, or with `=` in it a whole subject as RFC 4514 writes it; raises InvalidIdentifier for any other.

    Only what every program writes alike can be compared as text: one attribute in each RDN, of SUBJECT_TYPES, with
    plain values; no escapes, no spaces around commas.
    """
    if len(text) > LONGEST_SUBJECT:
        raise InvalidIdentifier(f"an identity has at most {LONGEST_SUBJECT} characters")
    if "=" not in text:
        if not is_plain_value(text):
            raise InvalidIdentifier(
                "a common name is letters, digits, single inner spaces and ._:/@&*()- , at most 128"
            )
        return
    for part in text.split(","):
        kind, _, value = part.partition("=")
        if kind not in SUBJECT_TYPES:
            types = ", ".join(SUBJECT_TYPES)
            msg = f"a whole subject is such as CN=api,O=Acme, without spaces around commas; its types are {types}"
            raise InvalidIdentifier(msg)
        if not is_plain_value(value):
            raise InvalidIdentifier("a value in a subject is letters, digits, single inner spaces and ._:/@&*()-")
