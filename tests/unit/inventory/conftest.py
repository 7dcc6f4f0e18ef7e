"""Runtimes by hand, and a loader of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InventoryError
from mtlsctl.inventory import LoadedInventory, load_inventory
from mtlsctl.model.diagnostic import Diagnostic
from tests.unit.inventory.runtimes import RUNTIMES

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[[str], LoadedInventory]
Refuse = Callable[[str], tuple[Diagnostic, ...]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(text: str) -> LoadedInventory:
        path = tmp_path / "inventory.yaml"
        path.write_bytes(text.encode())
        return load_inventory(path, RUNTIMES, root=tmp_path)

    return loaded


@pytest.fixture
def refuse(load: Load) -> Refuse:
    def refused(text: str) -> tuple[Diagnostic, ...]:
        with pytest.raises(InventoryError) as caught:
            load(text)
        return caught.value.diagnostics

    return refused
