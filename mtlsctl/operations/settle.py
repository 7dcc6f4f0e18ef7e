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
            certificate_sha256=(
                state.credentials[recipe.credential].certificate_sha256 if served.shows is None else served.shows.leaf
            ),
            ca_names=_asked(served, reader),
            asks=served.client_certificate is not ClientCertificate.NONE,
            lets_in_anybody=_anybody(recipe, served, state),
        )
        for recipe in recipes
        for served in recipe.listeners
        if served.callers or served.client_certificate is ClientCertificate.NONE
        for socket in served.sockets
    ]


def _asked(served: ServedListener, reader: StateReader) -> frozenset[bytes] | None:
    if served.client_certificate is ClientCertificate.NONE:
        return None
    return frozenset(subject_der(reader.certificate(anchor)) for anchor in served.policy.anchors)


def _anybody(recipe: Recipe, served: ServedListener, state: State) -> bool | None:
    """Whether a call without a certificate is let in; not asked of a door that is closed to it and always was."""
    live = state.live.get(recipe.instance)
    before = live.recipe.served(served.name) if live else None
    modes = {served.client_certificate, before.client_certificate if before else ClientCertificate.REQUIRED}
    if modes == {ClientCertificate.REQUIRED}:
        return None
    return served.client_certificate is not ClientCertificate.REQUIRED
