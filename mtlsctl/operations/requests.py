"""Certificate requests of an inventory, taken apart before anything is planned with them."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mtlsctl.errors import InventoryError, PreflightError
from mtlsctl.inventory.problems import shown
from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.topology import InstanceId, RequestedKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.credential import CertificateProfile
    from mtlsctl.model.topology import CertificateRequest, Host, Inventory, Service
    from mtlsctl.pki.keys import PublicKey
    from mtlsctl.pki.requests import Request

NAMES_IGNORED = "M2201"
"""A warning: a request asks for names that the inventory does not give."""


def check_requests(loaded: LoadedInventory) -> LoadedInventory:
    """The same inventory with what its requests ask for filled in, and warnings about names that they ask for in vain.

    Nothing is imported where there are none. Raises InventoryError with every request that is none, that is for a key
    which is not used here, whose maker did not prove to have the key, or whose key another instance has too.
    """
    asking = [service for service in loaded.inventory.services.values() if service.requests]
    if not asking:
        return loaded
    problems: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    first: dict[str, tuple[InstanceId, CertificateRequest]] = {}
    services = dict(loaded.inventory.services)
    for service in asking:
        checked: list[tuple[str, CertificateRequest]] = []
        for host, request in service.requests:
            try:
                found = _read(request)
            except PreflightError as error:
                problems.append(_about(request, error))
                continue
            other = first.setdefault(found.spki_sha256, (InstanceId(service.name, host), request))
            problems += _twice(other, InstanceId(service.name, host), request)
            warnings += _in_vain(service, loaded.inventory.hosts[host], request, found)
            asked = RequestedKey(found.key, found.spki_sha256)
            checked.append((host, replace(request, asked=asked)))
        services[service.name] = replace(service, requests=tuple(checked))
    warnings = sorted((*loaded.warnings, *warnings), key=lambda one: one.order)
    if problems:
        raise InventoryError(sorted((*problems, *warnings), key=lambda one: one.order))
    inventory = replace(loaded.inventory, services=services)
    return replace(loaded, inventory=inventory, warnings=tuple(warnings))


def brought_keys(inventory: Inventory, profiles: tuple[CertificateProfile, ...]) -> Mapping[InstanceId, PublicKey]:
    """The public keys of the certificates that are issued for requests, out of these very requests."""
    brought: dict[InstanceId, PublicKey] = {}
    for profile in profiles:
        instance = profile.id.instance
        request = inventory.services[instance.service].request_for(instance.host)
        if profile.request_sha256 is not None and request is not None and request.sha256 == profile.request_sha256:
            brought[instance] = _read(request).public_key
    return brought


def _read(request: CertificateRequest) -> Request:
    from mtlsctl.pki.requests import read_request

    return read_request(request.der)


def _about(request: CertificateRequest, error: PreflightError) -> Diagnostic:
    return Diagnostic(code=error.code, message=error.message, span=request.span, notes=error.notes, help=error.help)


def _twice(
    other: tuple[InstanceId, CertificateRequest], instance: InstanceId, request: CertificateRequest
) -> Iterator[Diagnostic]:
    from mtlsctl.pki.codes import KEY_TWICE

    if other[0] == instance:
        return
    related = () if other[1].span is None else ((other[1].span, "the other one"),)
    yield Diagnostic(
        code=KEY_TWICE,
        message=f"{other[0]} and {instance} ask for certificates for the same key",
        span=request.span,
        help="each instance has a key of its own: have another request made",
        related=related,
    )


def _in_vain(service: Service, host: Host, request: CertificateRequest, found: Request) -> Iterator[Diagnostic]:
    given = {service.name, *(name.value for name in service.names), *([host.address] if service.addresses else [])}
    names = [name for name in found.names if name.lower() not in given]
    if names:
        listed = ", ".join(shown(name) for name in names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
        yield Diagnostic(
            code=NAMES_IGNORED,
            severity=Severity.WARNING,
            message=f"`{request.path}` asks for {listed}, which the certificate of `{service.name}` will not carry",
            span=request.span,
            help="names come from the inventory alone: list them under `names`, or let it be",
        )
