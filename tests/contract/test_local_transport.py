from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.local import LocalTransport
from mtlsctl.model.topology import DirectoryHost
from tests.contract.transport import Place, TransportContract

if TYPE_CHECKING:
    from pathlib import Path


class TestLocalTransport(TransportContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        root = tmp_path / "host"
        return Place(LocalTransport(DirectoryHost(name="here", directory=str(root))), root)
