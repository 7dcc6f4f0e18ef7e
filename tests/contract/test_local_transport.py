from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.local import LocalTransport
from mtlsctl.errors import DeliveryError
from mtlsctl.model.topology import DirectoryHost
from tests.contract.transport import Place, TransportContract

if TYPE_CHECKING:
    from pathlib import Path


class TestLocalTransport(TransportContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        root = tmp_path / "host"
        return Place(LocalTransport(DirectoryHost(name="here", directory=str(root))), root)

    def test_no_symlink_leads_a_borrower_out_of_the_hosts_folder(self, place: Place) -> None:
        elsewhere = place.root.parent / "secret.key"
        elsewhere.write_bytes(b"of this machine")
        link = place.at("/etc/ssl/private/site.key")
        link.parent.mkdir(parents=True)
        link.symlink_to(elsewhere)
        with pytest.raises(DeliveryError, match="leads out of the host's folder") as refused:
            place.transport.borrow_key("/etc/ssl/private/site.key")
        assert "M4117" == refused.value.code
