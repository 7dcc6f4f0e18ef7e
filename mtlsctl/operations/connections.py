"""The transports of one run: one for each host, made when it is first asked for, and let go together."""

# ruff: noqa: PLC0415  a host over SSH is reached with what only it needs

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from mtlsctl.errors import DeliveryError
from mtlsctl.model.topology import DirectoryHost, SshHost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.topology import Host

T = TypeVar("T")

FORKS = 32
"""Hosts that are worked on at a time; their work is done by themselves, ours is to wait."""


@dataclass(frozen=True, slots=True)
class Connections:
    """Keeps what is open; threads may ask for hosts at the same time."""

    _open: dict[Host, Transport] = field(default_factory=dict)
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def to(self, host: Host, environ: Mapping[str, str]) -> Transport:
        """The transport to a host, as the operator's environment has it reached; connects when it is first used."""
        place = replace(host, name="", span=None)  # a host that was renamed is one host, and locked once
        with self._alone:
            if place not in self._open:
                self._open[place] = _transport(host, environ)
            return self._open[place]

    def close(self) -> None:
        """Let go of every host."""
        with self._alone:
            for transport in self._open.values():
                transport.close()
            self._open.clear()


def _transport(host: Host, environ: Mapping[str, str]) -> Transport:
    match host:
        case DirectoryHost():
            from mtlsctl.deliver.local import LocalTransport

            return LocalTransport(host)
        case SshHost():
            from mtlsctl.deliver.dial import dialler
            from mtlsctl.deliver.reach import SshOptions
            from mtlsctl.deliver.remote import RemoteTransport

            return RemoteTransport(host, dialler(host, SshOptions.from_environment(environ)))


def at_each(
    transports: Mapping[str, Transport], work: Callable[[str, Transport], T], *, forks: int = FORKS
) -> tuple[dict[str, T], dict[str, DeliveryError]]:
    """Do the same at every host, side by side; gives the answers and, for the others, why there is none.

    Other errors than those of delivery, and interruptions, are raised once all that has begun has ended.
    """
    answers: dict[str, T] = {}
    failed: dict[str, DeliveryError] = {}

    def one(name: str) -> None:
        try:
            answers[name] = work(name, transports[name])
        except DeliveryError as error:
            failed[name] = error

    _side_by_side(one, list(transports), forks)
    return answers, failed


def _side_by_side(work: Callable[[str], None], names: Sequence[str], forks: int) -> None:
    if len(names) == 1:  # it needs no thread
        work(names[0])
    elif names:
        with ThreadPoolExecutor(max_workers=min(forks, len(names))) as pool:
            try:
                for future in [pool.submit(work, name) for name in names]:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has begun is waited for, the rest is not begun
                raise
