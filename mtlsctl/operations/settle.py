"""What a process must be seen to serve after a reload: new on disk is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.model.topology import ClientCertificate
from mtlsctl.pki.inspect import subject_der
from mtlsctl.verify.wire import Served

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtlsctl.model.release import Recipe, ServedListener
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host
    from mtlsctl.store.port import StateReader


def served_by(recipes: Iterable[Recipe], host: Host, state: State, reader: StateReader) -> list[Served]:
    """For each door and socket: the leaf that it shows and the names of the CAs that it asks for."""
    return [
        Served(
            address=host.address,
            port=socket.port,
            server_name=recipe.server_names[0],
            certificate_sha256=state.credentials[recipe.credential].certificate_sha256,
            ca_names=_asked(served, reader),
        )
        for recipe in recipes
        for served in recipe.listeners
        if served.callers
        for socket in served.sockets
    ]


def _asked(served: ServedListener, reader: StateReader) -> frozenset[bytes] | None:
    if served.client_certificate is ClientCertificate.NONE:
        return None
    return frozenset(subject_der(reader.certificate(anchor)) for anchor in served.policy.anchors)
