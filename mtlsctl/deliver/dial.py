"""Which wire to a host: paramiko, or the `ssh` program where the operator says so. Imports neither before it dials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.deliver.reach import OPENSSH, SshOptions

if TYPE_CHECKING:
    from mtlsctl.deliver.channel import Channel, Dialler
    from mtlsctl.model.topology import SshHost


def dialler(host: SshHost, options: SshOptions) -> Dialler:
    """The way to a host; nothing is connected before it is called."""

    def dial(command: str) -> Channel:
        if options.transport == OPENSSH:
            from mtlsctl.deliver import openssh  # noqa: PLC0415  one of the two is enough

            return openssh.dial(host, command, options=options)
        from mtlsctl.deliver import ssh  # noqa: PLC0415  paramiko takes ten times as long to import as a plan does

        return ssh.dial(host, command, options=options)

    return dial
