from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.remote import RemoteTransport
from mtlsctl.errors import DeliveryError
from mtlsctl.model.release import HeldFile
from mtlsctl.model.topology import SshHost
from mtlsctl.pki.keys import spki_sha256
from tests.contract.transport import KEY, SPKI, Place, TransportContract
from tests.support.hosts import FolderHost, need_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtlsctl.pki.keys import PrivateKey


@pytest.fixture(params=["sh", "bash --posix"], ids=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestRemoteTransport(TransportContract):
    @pytest.fixture
    def place(self, tmp_path: Path, shell: str) -> Iterator[Place]:
        need_hosts()
        host = FolderHost(tmp_path / "host")
        transport = RemoteTransport(SshHost(name="web1", address="192.0.2.1"), host.dial, shell=shell)
        yield Place(transport, host.root)
        transport.close()
        host.close()

    def held_key(self) -> HeldFile:
        """It stays there; this one's public half cannot be told, since it is no key."""
        return HeldFile(mode=0o600, sha256=hashlib.sha256(KEY.reveal()).hexdigest(), content=None)

    def borrowed(self, key: PrivateKey) -> HeldFile:
        """That key stays there too, and is a real one."""
        held = super().borrowed(key)
        return replace(held, content=None, spki_sha256=spki_sha256(key.public_key()))

    def test_a_file_that_holds_no_private_key_is_not_taken_for_one(self, place: Place) -> None:
        path = place.at("/etc/ssl/private/site.key")
        path.parent.mkdir(parents=True)
        path.write_bytes(KEY.reveal())
        with pytest.raises(DeliveryError, match="no private key") as refused:
            place.transport.borrow_key("/etc/ssl/private/site.key")
        assert "M4117" == refused.value.code

    def test_a_key_is_read_back_for_a_store_and_one_that_is_gone_is_said_to_be(self, keyed: Place) -> None:
        """Never over a wire."""
        with pytest.raises(DeliveryError) as refused:
            keyed.transport.read_key("mail", SPKI)
        assert "M4315" == refused.value.code

    def test_a_path_is_shown_as_it_is_found_from_here(self, keyed: Place) -> None:
        assert "web1:/etc/mtlsctl" == keyed.transport.shown("/etc/mtlsctl")
