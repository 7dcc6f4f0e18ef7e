"""The names of what every release holds, whatever the runtime; below the release's folder unless it says otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtlsctl.model.topology import MAIN

if TYPE_CHECKING:
    from mtlsctl.model.topology import ListenerId

BASE = "/etc/mtlsctl"
"""Where the folders of all services lie on a host."""

CERTIFICATE_FILE = "tls.crt"
"""The chain in PEM: end entity first, anchor absent."""
KEY_FILE = "tls.key"
CLIENTS_FOLDER = "clients"
SERVERS_FOLDER = "servers"
CHAINS_FOLDER = "chains"

PUBLIC_MODE = 0o640
SECRET_MODE = 0o600
"""Of whatever holds a private key or a password."""

RELEASE_NAME = re.compile(r"[0-9a-f]{16}")


def release_name(release_digest: str) -> str:
    """The folder's name: the first 16 hex digits of the release's digest."""
    return release_digest[:16]


def clients_file(listener: str) -> str:
    """The anchors of a listener's callers; a listener that lets in nobody by certificate has none."""
    return f"{CLIENTS_FOLDER}/{listener}.pem"


def servers_file(listener: ListenerId) -> str:
    """The anchors to believe a called listener by."""
    return f"{SERVERS_FOLDER}/{callee_name(listener)}.pem"


def chain_file(listener: str) -> str:
    """The chain that a listener shows where somebody else issued it; its key is not in the release."""
    return f"{CHAINS_FOLDER}/{listener}.crt"


def callee_name(listener: ListenerId) -> str:
    """How a caller's files call a listener: `service`, or `service.listener` when that is not its main one."""
    return listener.service if listener.listener == MAIN else f"{listener.service}.{listener.listener}"
