"""A switch that was begun and whose end nobody recorded: it is settled by what its host holds and serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import pointer_sha256
from mtlsctl.errors import DeliveryError
from mtlsctl.model.runtime import Reload
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.drift import pointer_path
from mtlsctl.operations.executor import live_members
from mtlsctl.operations.publication import SETTLE_SECONDS, make_receipt
from mtlsctl.operations.releases import make_pointer
from mtlsctl.operations.settle import served_by
from mtlsctl.verify.wire import await_served

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtlsctl.deliver.layout import Pointer
    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.release import Recipe
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host
    from mtlsctl.operations.releases import Member
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.store.port import StateWriter, SwitchRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedSwitch:
    """An open switch with the host that it is about."""

    switch: SwitchRecord
    writer: StateWriter
    state: State
    host: Host
    folder: RuntimeFolder
    transport: Transport

    @property
    def _path(self) -> str:
        return pointer_path(self.folder.runtime, self.switch.process)

    def settle(self) -> str:
        """Finish a switch that had reached its rename, else see to it that the old releases are served; says which.

        Raises DeliveryError M4105 when the pointer is neither the old nor the new one, and what the process is at
        fault for when it serves neither.
        """
        pointer = self.transport.read_pointer(self._path)
        found = pointer_sha256(pointer) if pointer else None
        if found == self.switch.after:
            return self._finish()
        if found == self.switch.before:
            self._serve_old()
            return f"{self.switch.process}: an interrupted switch had not taken place"
        raise DeliveryError(
            f"{self.switch.process}: {self.transport.shown(self._path)} holds neither what an interrupted apply found "
            "nor what it was to write",
            code="M4105",
            help="put back one of the two, or move it away, then run the same command again",
        )

    def _finish(self) -> str:
        try:
            receipts = {
                record.recipe.instance: make_receipt(
                    record.release,
                    record.release_digest,
                    self.transport.read_release(record.recipe.instance.service, record.release),
                )
                for record in self.switch.releases
            }
            self._reload([record.recipe for record in self.switch.releases], may_refuse=False)
        except DeliveryError as error:
            return self._put_back(error)
        self.writer.record_switched(self.switch, receipts)
        for instance in self.switch.removed:
            self.transport.delete_service(instance.service)
        return f"{self.switch.process}: an interrupted switch had taken place and is finished"

    def _put_back(self, cause: DeliveryError) -> str:
        """The process does not take it up, so it gets back what it had; raises `cause` when that is not known."""
        previous = self._previous()
        if (pointer_sha256(previous) if previous else None) != self.switch.before:
            raise cause
        if previous is None:
            self.transport.remove_pointer(self._path)
        else:
            self.transport.switch(previous)
        self._serve_old()
        return f"{self.switch.process}: an interrupted switch was put back: {cause.message}"

    def _previous(self) -> Pointer | None:
        """What the pointer held before, made again from what the state says is live."""
        return make_pointer(self.folder, self.switch.process, self._live())

    def _live(self) -> list[Member]:
        return list(live_members(self.state).get(self.switch.process, {}).values())

    def _serve_old(self) -> None:
        """The process may have taken up the new releases before their pointer was put back."""
        self._reload([member.recipe for member in self._live()], may_refuse=True)
        self.writer.record_switched_back(self.switch)

    def _reload(self, recipes: Sequence[Recipe], *, may_refuse: bool) -> None:
        """Reload and read back. A process that `may_refuse` is one that can be seen to serve what it should anyway."""
        runtime = self.folder.runtime
        if runtime.reload is Reload.NONE:
            return
        expected = served_by(recipes, self.host, self.state, self.writer)
        try:
            absent = self.transport.reload(runtime.reload, program=runtime.process, process=self.switch.process.name)
        except DeliveryError:
            if not (may_refuse and expected):
                raise
            absent = None
        if absent is None:
            await_served(expected, deadline_seconds=SETTLE_SECONDS)


def settle_interrupted(
    writer: StateWriter,
    hosts: Mapping[str, Host],
    catalog: Mapping[str, RuntimeFolder],
    transports: Mapping[str, Transport],
) -> tuple[list[str], dict[str, DeliveryError]]:
    """Settle every open switch whose host can be looked at; gives a sentence for each, and the hosts that failed.

    Raises what a folder fails with: nothing keeps it from being looked at again.
    """
    said: list[str] = []
    failed: dict[str, DeliveryError] = {}
    for switch in writer.open_switches():
        host = switch.process.host
        if host not in transports or host in failed:
            continue
        state = writer.snapshot()
        one = InterruptedSwitch(
            switch=switch,
            writer=writer,
            state=state,
            host=hosts[host],
            folder=catalog[_runtime_of(switch, state)],
            transport=transports[host],
        )
        try:
            said.append(one.settle())
        except DeliveryError as error:
            if isinstance(hosts[host], DirectoryHost):
                raise
            failed[host] = error
    return said, failed


def _runtime_of(switch: SwitchRecord, state: State) -> str:
    for record in switch.releases:
        return record.recipe.runtime
    return next(state.live[instance].recipe.runtime for instance in switch.removed)
