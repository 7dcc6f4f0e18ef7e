"""Listeners that show a certificate which somebody else issued, and by whom their callers then believe them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.grammar import Unfit
from mtlsctl.inventory.outside import SYSTEM, certificates_at
from mtlsctl.inventory.words import map_of
from mtlsctl.model.files import BASE
from mtlsctl.model.runtime import Role
from mtlsctl.model.topology import ServerCertificate

if TYPE_CHECKING:
    from mtlsctl.inventory.outside import Beyond
    from mtlsctl.inventory.source import Map
    from mtlsctl.model.runtime import Runtime

SHOWN: Final = "server_certificate"
BELIEVED: Final = "servers_trust"


def read_server_certificate(beyond: Beyond, node: Map, runtime: Runtime | None) -> ServerCertificate | None:
    """What the listener shows in place of a certificate of ours; whatever is wrong with it is reported."""
    shown = map_of(node, SHOWN)
    if shown is None:
        if BELIEVED in node and SHOWN not in node.lost:
            message = "callers believe a listener by its service's CA, unless it has a `server_certificate`"
            advice = f"take `{BELIEVED}` out, or say what the listener shows"
            beyond.words.problems.add(codes.CONFLICTING_KEYS, message, node.keys_at[BELIEVED], BELIEVED, help=advice)
        return None
    trust = _trust(beyond, node)
    path = shown.get("chain")
    chain = beyond.files.read_chain(path, shown.values_at["chain"]) if isinstance(path, str) else ()
    key_path = beyond.words.read(shown, "key_path", _key_path, None)
    _check_can_show(beyond, node, runtime)
    if trust is None or not chain or key_path is None:
        return None
    span = beyond.words.problems.sources.span(shown.values_at["chain"], str(path))
    return ServerCertificate(chain=chain, key_path=key_path, trust=trust, file=str(path), span=span)


def _trust(beyond: Beyond, node: Map) -> tuple[str, ...] | None:
    """The digests of the CAs that callers believe, none of `system`; None when it is not said."""
    if node.get(BELIEVED) == SYSTEM:
        return ()
    if BELIEVED not in node:
        if BELIEVED not in node.lost:
            beyond.words.problems.add(
                codes.MISSING_KEY,
                f"a listener with a `{SHOWN}` has no `{BELIEVED}`",
                node.keys_at[SHOWN],
                SHOWN,
                help=f"say by whom callers believe it: `{BELIEVED}: [issuer.pem]`, or `{BELIEVED}: system` where "
                "every caller's machine knows the issuer",
            )
        return None
    return certificates_at(beyond, node, BELIEVED) or None


def _key_path(text: str) -> str:
    """An absolute path of the host that is no folder, and nothing of mtlsctl's own: those keys have owners."""
    path = grammar.absolute_path(text)
    if path.endswith("/"):
        raise Unfit(codes.PATH, f"`{path}` is a folder, and a key is a file")
    if path.startswith(f"{BASE}/"):
        raise Unfit(codes.PATH, f"`{path}` lies among the files of mtlsctl", f"put the key outside {BASE}")
    return path


def _check_can_show(beyond: Beyond, node: Map, runtime: Runtime | None) -> None:
    if runtime is None or Role.SERVER not in runtime.roles or runtime.enforcement.server_certificate:
        return
    beyond.words.problems.add(
        codes.CANNOT_SHOW,
        f"the runtime `{runtime.name}` cannot show a certificate whose key is not among the files of its release",
        node.keys_at[SHOWN],
        SHOWN,
        help="put nginx or Apache in front of it, with the certificate there",
    )
