"""What every use case works on: one project, its inventory, its state, its hosts."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtlsctl.operations.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.runtime import Runtime
    from mtlsctl.model.topology import Host
    from mtlsctl.operations.project import Project
    from mtlsctl.render.catalog import RuntimeFolder
    from mtlsctl.store.port import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Settings and adapters of one run; nothing in it is opened before it is used."""

    project: Project
    inventory_path: Path
    state_url: str
    catalog: Mapping[str, RuntimeFolder]
    environ: Mapping[str, str]
    clock: Callable[[], datetime]
    connections: Connections = field(default_factory=Connections)

    @property
    def runtimes(self) -> dict[str, Runtime]:
        return {name: folder.runtime for name, folder in self.catalog.items()}

    def load(self) -> LoadedInventory:
        """The inventory; raises InventoryError with every problem in it, its requests and certificates included."""
        from mtlsctl.inventory import load_inventory
        from mtlsctl.operations.outside import refuse_unfit
        from mtlsctl.operations.requests import check_requests

        loaded = check_requests(load_inventory(self.inventory_path, self.runtimes, root=self.project.root))
        refuse_unfit(loaded.inventory)
        return loaded

    @contextmanager
    def store(self, estate: str | None) -> Iterator[StateStore]:
        """The state of this project and estate; raises StateError when it is missing, foreign or broken."""
        from mtlsctl.store.keysource import resolve_key_source
        from mtlsctl.store.location import open_state

        lineage = self.project.lineage
        source = resolve_key_source(self.environ, lineage=lineage, keep_out=[self.project.root]) if lineage else None
        store = open_state(
            self.state_url,
            base=self.project.root,
            lineage=lineage,
            estate=estate,
            key_source=source,
            clock=self.clock,
        )
        try:
            yield store
        finally:
            store.close()

    def transport_to(self, host: Host) -> Transport:
        """How bytes get to a host, the same all through a run; nothing is connected before it is used."""
        return self.connections.to(host, self.environ)
