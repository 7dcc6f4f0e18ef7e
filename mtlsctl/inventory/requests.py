"""Certificate requests whose owners keep the keys: which file is for which host. What is in them is for `pki`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes
from mtlsctl.inventory.files import one_block, read_file_of_repository
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.source import Map
from mtlsctl.model.topology import CertificateRequest, TrustModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtlsctl.inventory.problems import Place
    from mtlsctl.inventory.words import Words

KEY: Final = "certificate_request"
LABELS: Final = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
"""RFC 7468 section 7; keytool writes the second."""

Requests = tuple[tuple[str, CertificateRequest], ...]


def read_requests(
    words: Words, service: str, node: Map, hosts: tuple[str, ...], trust: TrustModel, root: Path
) -> Requests:
    """By host the request of who keeps its key: one for each host of the service, or none at all."""
    value = node.get(KEY)
    if value is None:
        return ()
    at = node.keys_at[KEY]
    if trust is TrustModel.PINNED:
        message = f"under `pinned` a certificate signs itself, and the key for that is not `{service}`'s to give"
        words.problems.add(codes.REQUEST_PINNED, message, at, KEY, help="choose another trust model for this service")
        return ()
    _refuse_chosen_key(words, node)
    if isinstance(value, Map):
        found = [_read(words, host, path, where, root) for host, path, where in _by_host(words, service, value, hosts)]
        _refuse_forgotten(words, service, value, hosts, at)
    else:
        _refuse_several(words, service, hosts, at)
        found = [_read(words, host, str(value), node.values_at[KEY], root) for host in hosts[:1]]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one[0]))


def _refuse_chosen_key(words: Words, node: Map) -> None:
    """Whoever makes the key has chosen its kind; a word of ours about it would be ignored."""
    certificate = node.get("certificate")
    if isinstance(certificate, Map) and "key" in certificate:
        related = [(words.problems.sources.span(node.keys_at[KEY], KEY), "whose owner made the key")]
        message = "`key` is for keys that mtlsctl makes"
        words.problems.add(codes.CONFLICTING_KEYS, message, certificate.keys_at["key"], "key", related=related)


def _refuse_several(words: Words, service: str, hosts: tuple[str, ...], at: Place) -> None:
    if len(hosts) > 1:
        message = f"`{service}` runs on {len(hosts)} hosts, and each has a key of its own"
        example = ", ".join(f"{host}: requests/{service}-{host}.csr" for host in hosts[:2])
        more = ", ..." if len(hosts) > 2 else ""  # noqa: PLR2004  as many as are shown
        advice = f"one request for each: {KEY}: {{ {example}{more} }}"
        words.problems.add(codes.REQUEST_HOSTS, message, at, KEY, help=advice)


def _by_host(words: Words, service: str, node: Map, hosts: tuple[str, ...]) -> Iterator[tuple[str, str, Place]]:
    for host, path in node.items():
        at = node.keys_at[host]
        if host in hosts and isinstance(path, str):
            yield host, path, node.values_at[host]
        elif host not in hosts and words.is_text(host, at):
            advice = words.did_you_mean(host, hosts)
            words.problems.add(
                codes.REQUEST_HOSTS, f"`{service}` does not run on `{shown(host)}`", at, host, help=advice
            )


def _refuse_forgotten(words: Words, service: str, node: Map, hosts: tuple[str, ...], at: Place) -> None:
    missing = [host for host in hosts if host not in node and host not in node.lost]
    if missing:
        listed = ", ".join(f"`{host}`" for host in missing[:5])
        message = f"`{service}` has no request for {listed}"
        words.problems.add(codes.REQUEST_HOSTS, message, at, KEY, help="name one for each host, or none at all")


def _read(words: Words, host: str, path: str, at: Place, root: Path) -> tuple[str, CertificateRequest] | None:
    def parse(text: str) -> bytes:
        return one_block(read_file_of_repository(root, text), text, LABELS, "one certificate request (PKCS#10, PEM)")

    der = words.parsed(path, at, parse)
    if der is None:
        return None
    span = words.problems.sources.span(at, path)
    return host, CertificateRequest(path=path, der=der, sha256=hashlib.sha256(der).hexdigest(), span=span)
