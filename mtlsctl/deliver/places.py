"""Where another machine listens and which addresses are its own, as its kernel lists them (proc(5))."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = tuple[str | None, int]
"""An address, or None for all of them, and a port."""

_LISTENS = re.compile(r" *\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) \S+ 0A (?:\S+ +){5}(\d+)")
_LOCAL = re.compile(r"\|-- ([0-9.]{7,15})\n +/32 host LOCAL")
_LOCAL_V6 = re.compile(r"^([0-9a-f]{32}) ", re.MULTILINE)


def listening(text: str, order: str) -> Iterator[tuple[str, Place]]:
    """(inode, place) of each line of `/proc/net/tcp` or `tcp6` in state 0A; `order` is that machine's, big or little.

    Every machine that runs us there is little-endian but IBM Z; lines that are none are passed over.
    """
    for line in text.splitlines():
        if found := _LISTENS.match(line):
            yield found[3], (address(found[1], order), int(found[2], 16))


def address(text: str, order: str) -> str | None:
    """An address in words of four bytes, each in the machine's order; None for all of them."""
    words = [bytes.fromhex(text[at : at + 8])[:: 1 if order == "big" else -1] for at in range(0, len(text), 8)]
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(b"".join(words))
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return None if found.is_unspecified else str(found)


def own_addresses(text: str) -> frozenset[str] | None:
    """From `/proc/net/fib_trie`, `if_inet6` and `ip_nonlocal_bind`, an empty line between; None when not known."""
    four, six, nonlocal_bind = (*text.split("\n\n"), "", "")[:3]
    found = set(_LOCAL.findall(four))
    if not found or nonlocal_bind.strip() == "1":
        return None
    return frozenset(found | {str(ipaddress.IPv6Address(int(one, 16))) for one in _LOCAL_V6.findall(six)})


def conflicts(wanted: Place, taken: frozenset[Place]) -> bool:
    """Whether a socket of that port is open at the address, at every address, or at any where every one is wanted."""
    address_, port = wanted
    return any(port == other and (None in (address_, there) or address_ == there) for there, other in taken)


def problem(wanted: Place, taken: frozenset[Place], own: frozenset[str] | None) -> str | None:
    """Why nothing could newly listen there; `own` are the machine's addresses, None when they are not known."""
    where = "every address" if wanted[0] is None else wanted[0]
    if conflicts(wanted, taken):
        return f"port {wanted[1]} at {where} is already open"
    if wanted[0] is None or own is None or wanted[0] in own:
        return None
    try:
        known = ipaddress.ip_address(wanted[0])
    except ValueError:
        return None  # a name; which address it has is for the machine to say
    return None if known.is_loopback else f"{known} is not an address of that machine"


def byte_order(kernel: str) -> str:
    """Of the machine that `uname -srm` describes."""
    return "big" if kernel.rpartition(" ")[2] in {"s390x", "s390", "ppc64", "ppc", "mips", "mips64"} else "little"
