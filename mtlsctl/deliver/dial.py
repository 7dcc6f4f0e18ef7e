"""Which wire to a host: paramiko, or the `ssh` program where the operator says so. Imports neither before it dials."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtlsctl.deliver import known_hosts
from mtlsctl.deliver.reach import OPENSSH, SshOptions, reach_host
from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtlsctl.deliver.channel import Channel, Dialler
    from mtlsctl.deliver.known_hosts import HostKey
    from mtlsctl.model.topology import SshHost


def dialler(host: SshHost, options: SshOptions) -> Dialler:
    """The way to a host; nothing is connected before it is called."""

    def dial(command: str) -> Channel:
        if options.transport == OPENSSH:
            from mtlsctl.deliver import openssh  # noqa: PLC0415  one of the two is enough

            return openssh.dial(host, command, options=options)
        with _without_invoke():
            from mtlsctl.deliver import ssh  # noqa: PLC0415  paramiko takes longer to import than a plan
        return ssh.dial(host, command, options=options)

    return dial


def shown_key(host: SshHost, options: SshOptions) -> HostKey:
    """The key that a host shows just now, for a person to compare; nobody logs in. Raises DeliveryError."""
    with _without_invoke():
        from mtlsctl.deliver import ssh  # noqa: PLC0415  see above
    return ssh.scan(host, options=options)


def trust(host: SshHost, key: HostKey, options: SshOptions) -> tuple[Path, bool]:
    """Write down that a host is known by this key: the file, and whether that is news to it.

    Raises DeliveryError M4305 when the host is known by another key of that kind: a person takes the old line out.
    """
    reach = reach_host(host, options)
    if not reach.user_known_hosts:
        raise DeliveryError(
            f"the SSH configuration keeps no known hosts for {host.name} (UserKnownHostsFile none)",
            code="M4314",
            help="MTLSCTL_KNOWN_HOSTS names a file",
        )
    known = known_hosts.look_up(reach.known_hosts, reach.known_as)
    if known.has(key) and not known.is_revoked(key):
        return reach.user_known_hosts[0], False
    path = reach.user_known_hosts[0]
    return path, known_hosts.record(path, reach.known_as[0], key, is_hashed=reach.hash_known_hosts)


@contextmanager
def _without_invoke() -> Iterator[None]:
    """Paramiko takes `invoke` along if it is there, and with that asyncio: more than half of the time it takes.

    That is for a directive that its own parser of ssh_config knows, which is not used here.
    """
    is_left_out = "invoke" not in sys.modules and f"{__package__}.ssh" not in sys.modules
    if is_left_out:
        sys.modules["invoke"] = None  # type: ignore[assignment]  # importing it fails, which paramiko allows for
    try:
        yield
    finally:
        if is_left_out:
            sys.modules.pop("invoke", None)
