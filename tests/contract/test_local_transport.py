from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.local import LocalTransport
from mtlsctl.errors import DeliveryError
from mtlsctl.model.topology import DirectoryHost
from tests.contract.transport import FIRST, KEY, OTHER_SPKI, SPKI, Place, TransportContract, mode_of, names_in, release

if TYPE_CHECKING:
    from pathlib import Path


class TestLocalTransport(TransportContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        root = tmp_path / "host"
        return Place(LocalTransport(DirectoryHost(name="here", directory=str(root))), root)

    # Over SSH it is not built: see `RemoteTransport.carry`.

    def test_a_service_is_carried_to_another_name_whole_and_stays_where_it_is(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        found = keyed.transport.read_release("mail", FIRST)
        for _ in range(2):
            keyed.transport.carry("mail", "post", release=FIRST, keys=[SPKI, OTHER_SPKI])
            assert found == keyed.transport.read_release("post", FIRST) == keyed.transport.read_release("mail", FIRST)
            assert KEY.reveal() == keyed.transport.read_key("post", SPKI).reveal()
        assert not keyed.transport.has_key("post", OTHER_SPKI)
        folders = [f"/etc/mtlsctl/{name}/{below}" for name in ("mail", "post") for below in ("keys", "releases")]
        modes = [mode_of(keyed.at(one)) for one in folders]
        assert modes[:2] == modes[2:]
        assert mode_of(keyed.at(f"/etc/mtlsctl/post/releases/{FIRST}")) == 0o750
        assert mode_of(keyed.at(f"/etc/mtlsctl/post/releases/{FIRST}/tls.key")) == 0o600
        keyed.transport.delete_service("mail")
        assert found == keyed.transport.read_release("post", FIRST)

    def test_what_an_earlier_kill_left_of_a_carried_release_is_replaced(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        partial = keyed.at(f"/etc/mtlsctl/post/releases/{FIRST}.partial")
        partial.mkdir(parents=True, mode=0o700)
        for folder in (partial.parent, partial.parent.parent):
            folder.chmod(0o750)
        (partial / "tls.crt").write_text("half")
        keyed.transport.carry("mail", "post", release=FIRST, keys=[])
        assert keyed.transport.read_release("mail", FIRST) == keyed.transport.read_release("post", FIRST)
        assert [FIRST] == names_in(partial.parent)

    def test_a_release_that_is_gone_is_not_carried(self, keyed: Place) -> None:
        with pytest.raises(DeliveryError) as caught:
            keyed.transport.carry("mail", "post", release=FIRST, keys=[SPKI])
        assert caught.value.code == "M4103"
        assert not keyed.transport.has_release("post", FIRST)

    def test_nothing_behind_a_symlink_is_carried(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        secret = keyed.root / "secret"
        secret.write_text("of somebody else")
        lying = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}/tls.crt")
        lying.unlink()
        lying.symlink_to(secret)
        keyed.transport.carry("mail", "post", release=FIRST, keys=[])
        with pytest.raises(DeliveryError):
            keyed.transport.read_release("post", FIRST)

    def test_no_symlink_leads_a_borrower_out_of_the_hosts_folder(self, place: Place) -> None:
        elsewhere = place.root.parent / "secret.key"
        elsewhere.write_bytes(b"of this machine")
        link = place.at("/etc/ssl/private/site.key")
        link.parent.mkdir(parents=True)
        link.symlink_to(elsewhere)
        with pytest.raises(DeliveryError, match="leads out of the host's folder") as refused:
            place.transport.borrow_key("/etc/ssl/private/site.key")
        assert "M4117" == refused.value.code
