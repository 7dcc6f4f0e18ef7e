"""Which calls work among releases as they are, whatever the inventory says: by trust, by name and by place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.topology import ClientCertificate
from mtlsctl.model.trust import EVERYBODY, Member

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtlsctl.model.credential import Credential, CredentialId
    from mtlsctl.model.release import Callee, Recipe, ServedListener
    from mtlsctl.model.topology import InstanceId


class LiveEdge(NamedTuple):
    """A caller that gets in at a listener of an instance."""

    caller: InstanceId
    callee: InstanceId
    listener: str

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}:{self.listener}"


class OpenDoor(NamedTuple):
    """A service whose anchors a listener of an instance holds."""

    caller: str
    callee: InstanceId
    listener: str

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}:{self.listener}"


def live_edges(
    recipes: Mapping[InstanceId, Recipe], credentials: Mapping[CredentialId, Credential]
) -> frozenset[LiveEdge]:
    """Every call that the releases are made for and that both ends allow; callers and servers outside stay out."""
    return frozenset(edge for recipe in recipes.values() for edge in _calls(recipe, recipes, credentials))


def open_doors(recipes: Mapping[InstanceId, Recipe]) -> frozenset[OpenDoor]:
    """Every service that some listener lets in."""
    return frozenset(
        OpenDoor(caller, instance, served.name)
        for instance, recipe in recipes.items()
        for served in recipe.listeners
        for caller in served.callers
    )


def _calls(
    caller: Recipe, recipes: Mapping[InstanceId, Recipe], credentials: Mapping[CredentialId, Credential]
) -> Iterator[LiveEdge]:
    for callee in caller.callees:
        for endpoint in callee.endpoints:
            server = recipes.get(endpoint.instance)
            served = server.served(callee.listener.listener) if server is not None else None
            if server is None or served is None or endpoint.port not in {socket.port for socket in served.sockets}:
                continue
            if _is_believed(server, callee, credentials) and _is_let_in(caller, served, credentials):
                yield LiveEdge(caller.instance, server.instance, served.name)


def _is_believed(server: Recipe, callee: Callee, credentials: Mapping[CredentialId, Credential]) -> bool:
    shown = credentials[server.credential].profile.anchor
    return callee.server_name in server.server_names and shown in callee.policy.anchors


def _is_let_in(caller: Recipe, served: ServedListener, credentials: Mapping[CredentialId, Credential]) -> bool:
    if served.client_certificate is ClientCertificate.NONE:
        return True
    anchor = credentials[caller.credential].profile.anchor
    members = served.policy.members
    if anchor not in served.policy.anchors:
        return False
    return members is None or bool({Member(anchor, caller.instance.service), Member(anchor, EVERYBODY)} & members)
