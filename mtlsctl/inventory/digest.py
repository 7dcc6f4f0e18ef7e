"""The digest of what an inventory means: the same for any layout, order and file, for any place of the checkout."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from mtlsctl.inventory.grammar import duration_text
from mtlsctl.inventory.refactoring import NOTHING_MOVED, Refactoring
from mtlsctl.model.topology import DirectoryHost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mtlsctl.model.topology import (
        AuthorityPolicy,
        CertificatePolicy,
        ExternalServer,
        Host,
        Listener,
        Outsider,
        ServerCertificate,
        Service,
    )


def digest_of(
    name: str,
    hosts: Mapping[str, Host],
    services: Mapping[str, Service],
    external_servers: Iterable[ExternalServer],
    shared: AuthorityPolicy,
    root: Path,
    refactoring: Refactoring = NOTHING_MOVED,
) -> str:
    """SHA-256, in hex, over the canonical JSON of all that is declared.

    The first of a service's names stays the first (callers check it); every other order is forgotten.
    """
    policies: dict[tuple[CertificatePolicy, AuthorityPolicy], list[str | int]] = {}
    top = f"{str(root.absolute()).rstrip('/')}/"
    meaning: dict[str, object] = {
        "name": name,
        "shared": _authority_words(shared),
        "hosts": [_host(hosts[one], top) for one in sorted(hosts)],
        "services": [_service(services[one], policies) for one in sorted(services)],
    }
    if refactoring.moved:
        meaning["moved"] = sorted([one.old, one.new] for one in refactoring.moved)
    if refactoring.renamed:
        meaning["renamed"] = sorted([one.old, one.new] for one in refactoring.renamed)
    if refactoring.abandoned:
        meaning["abandoned"] = sorted(one.name for one in refactoring.abandoned)
    if beyond := sorted(map(_external_server, external_servers)):
        meaning["external_servers"] = beyond
    text = json.dumps(meaning, separators=(",", ":"), ensure_ascii=True, sort_keys=True, check_circular=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _host(host: Host, top: str) -> list[object]:
    """`top` is the root of the repository with a slash at its end: a folder below it is said from there."""
    if isinstance(host, DirectoryHost):
        place = host.directory.removeprefix(top) if f"{host.directory}/" != top else "."
        return [host.name, "directory", place, host.address, host.seen_as, host.pid_files]
    return [
        host.name,
        "ssh",
        host.address,
        host.port,
        host.user,
        host.identity_file,
        host.jump,
        host.become,
        host.keys.value,
    ]


def _service(
    service: Service, policies: dict[tuple[CertificatePolicy, AuthorityPolicy], list[str | int]]
) -> list[object]:
    pair = (service.certificate, service.authority)
    if pair not in policies:
        policies[pair] = _policy_words(*pair)
    names = [name.value for name in service.names]
    return [
        service.name,
        service.runtime,
        sorted(service.hosts),
        [names[0], *sorted(names[1:])],
        service.addresses,
        [_listener(one) for one in sorted(service.listeners, key=lambda one: one.name)],
        service.settings,
        policies[pair],
        service.trust,
        service.restart_allowed,
        *([] if not service.requests else [{"requests": [[host, one.sha256] for host, one in service.requests]}]),
    ]


def _listener(listener: Listener) -> list[object]:
    return [
        listener.name,
        listener.port,
        listener.bind,
        listener.client_certificate,
        listener.protocols,
        listener.authorize,
        *([] if listener.forward_identity is None else [listener.forward_identity]),
        sorted(caller.service for caller in listener.callers),
        *([sorted(map(_outsider, listener.outsiders))] if listener.outsiders else []),
        *([] if listener.server_certificate is None else [_shown(listener.server_certificate)]),
    ]


def _shown(shown: ServerCertificate) -> dict[str, object]:
    return {"chain": shown.chain, "key_path": shown.key_path, "trust": shown.trust}


def _outsider(outsider: Outsider) -> list[object]:
    return [outsider.name, outsider.certificates, outsider.identities]


def _external_server(server: ExternalServer) -> list[object]:
    callers = sorted(caller.service for caller in server.callers)
    return [server.name, server.host, server.port, server.certificates, callers]


def _policy_words(certificate: CertificatePolicy, authority: AuthorityPolicy) -> list[str | int]:
    return [
        certificate.key,
        duration_text(certificate.lifetime),
        duration_text(certificate.renew_before),
        *_authority_words(authority),
    ]


def _authority_words(authority: AuthorityPolicy) -> list[str | int]:
    return [
        authority.key,
        duration_text(authority.lifetime),
        duration_text(authority.renew_before),
        authority.generation,
    ]
