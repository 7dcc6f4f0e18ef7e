"""What every transport promises, as tests: a suite subclasses `TransportContract` and says how its host is made."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.layout import (
    CurrentPointer,
    FilePointer,
    StagedFile,
    StagedRelease,
)
from mtlsctl.errors import DeliveryError
from mtlsctl.model.release import FileFact, HeldFile
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.keys import generate_key, private_pem

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.pki.keys import PrivateKey

KEY = Secret(b"-----BEGIN PRIVATE KEY-----\nnot really\n-----END PRIVATE KEY-----\n")
LENT: PrivateKey = generate_key(KeyAlgorithm.ECDSA_P256)
SPKI = "5" * 64
OTHER_SPKI = "6" * 64
FIRST, SECOND, THIRD = "1" * 16, "2" * 16, "3" * 16
FILES = (
    StagedFile(path="tls.crt", content=b"certificate"),
    StagedFile(path="clients/main.pem", content=b"anchors"),
    StagedFile(path="servers/mail.pem", content=b"others"),
)
CURRENT = "/etc/mtlsctl/mail/current"
CONF = "/etc/nginx/conf.d/mtlsctl.conf"


@dataclass(frozen=True)
class Place:
    """A transport, and where its host's files can be looked at."""

    transport: Transport
    root: Path

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def release(
    name: str = FIRST, *, service: str = "mail", spki: str | None = SPKI, files: tuple[StagedFile, ...] = FILES
) -> StagedRelease:
    return StagedRelease(service=service, release=name, key_spki_sha256=spki, files=files)


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TransportContract:
    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    def held_key(self) -> HeldFile:
        """The key of a release as the transport gives it back."""
        return HeldFile.of(KEY.reveal(), 0o600)

    def borrowed(self, key: PrivateKey) -> HeldFile:
        """What a host gives of a key that is not ours."""
        return HeldFile.of(private_pem(key).reveal(), 0o600)

    @pytest.fixture
    def keyed(self, place: Place) -> Place:
        place.transport.put_key("mail", SPKI, KEY)
        return place

    # keys

    def test_a_key_is_private_from_its_folder_on(self, keyed: Place) -> None:
        path = keyed.at(f"/etc/mtlsctl/mail/keys/{SPKI}.key")
        assert KEY.reveal() == path.read_bytes()
        assert (0o600, 0o700) == (mode_of(path), mode_of(path.parent))

    def test_a_file_of_certificate_and_key_is_made_where_the_key_is(self, keyed: Place) -> None:
        chain = b"-----BEGIN CERTIFICATE-----\nleaf\n-----END CERTIFICATE-----\n"
        files = (StagedFile(path="tls.crt", content=chain * 2), *FILES[1:])
        made = StagedRelease(
            service="mail", release=FIRST, key_spki_sha256=SPKI, files=files, combined=("tls.combined",)
        )
        path = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}/tls.combined")
        keyed.transport.stage(made)
        assert (chain + KEY.reveal(), 0o600) == (path.read_bytes(), mode_of(path))
        before = path.stat().st_ino
        keyed.transport.stage(made)
        assert before == path.stat().st_ino
        path.write_bytes(b"altered")
        keyed.transport.stage(made)
        assert chain + KEY.reveal() == path.read_bytes()
        path.chmod(0o640)
        keyed.transport.stage(made)
        assert 0o600 == mode_of(path)
        assert KEY.reveal().decode() not in repr(made)

    def test_one_look_shows_pointers_releases_and_keys_and_what_is_not_there(self, keyed: Place) -> None:
        transport = keyed.transport
        transport.stage(release())
        transport.switch(CurrentPointer(path=CURRENT, target=f"releases/{FIRST}"))
        seen = transport.observe(
            pointers=[CURRENT, CONF],
            releases=[("mail", FIRST), ("mail", SECOND)],
            keys=[("mail", SPKI), ("social", SPKI)],
        )
        held = transport.read_release("mail", FIRST)
        facts = tuple(FileFact(path, one.sha256, one.mode) for path, one in sorted(held.items()))
        assert {CURRENT: transport.read_pointer(CURRENT), CONF: None} == seen.pointers
        assert {("mail", FIRST): facts, ("mail", SECOND): None} == seen.releases
        assert {("mail", SPKI): True, ("social", SPKI): False} == seen.keys

    def test_a_key_is_kept_once(self, keyed: Place) -> None:
        before = keyed.at(f"/etc/mtlsctl/mail/keys/{SPKI}.key").stat()
        keyed.transport.put_key("mail", SPKI, KEY)
        assert before.st_ino == keyed.at(f"/etc/mtlsctl/mail/keys/{SPKI}.key").stat().st_ino

    def test_a_host_knows_which_keys_it_has(self, keyed: Place) -> None:
        assert keyed.transport.has_key("mail", SPKI)
        assert not keyed.transport.has_key("mail", OTHER_SPKI)
        assert not keyed.transport.has_key("social", SPKI)

    def test_a_key_is_read_back_for_a_store_and_one_that_is_gone_is_said_to_be(self, keyed: Place) -> None:
        assert KEY == keyed.transport.read_key("mail", SPKI)
        for service, spki in (("mail", OTHER_SPKI), ("social", SPKI)):
            with pytest.raises(DeliveryError) as refused:
                keyed.transport.read_key(service, spki)
            assert "M4103" == refused.value.code

    def test_a_key_that_its_owner_puts_there_finds_its_folder_and_is_linked(self, place: Place) -> None:
        assert not place.transport.expect_key("mail", SPKI)
        path = place.at(f"/etc/mtlsctl/mail/keys/{SPKI}.key")
        assert (0o700, []) == (mode_of(path.parent), names_in(path.parent))
        path.write_bytes(KEY.reveal())
        path.chmod(0o600)
        assert place.transport.expect_key("mail", SPKI)
        place.transport.stage(release())
        assert self.held_key() == place.transport.read_release("mail", FIRST)["tls.key"]

    def test_a_key_behind_a_symlink_is_not_read(self, keyed: Place) -> None:
        key = keyed.at(f"/etc/mtlsctl/mail/keys/{SPKI}.key")
        key.rename(key.with_name("elsewhere"))
        key.symlink_to("elsewhere")
        with pytest.raises(DeliveryError):
            keyed.transport.read_key("mail", SPKI)

    def test_a_key_of_somebody_else_is_borrowed_from_where_it_lies_and_behind_a_symlink(self, place: Place) -> None:
        """An ACME client keeps a link to the newest key beside the certificate, and the key elsewhere."""
        path = place.at("/etc/letsencrypt/archive/site/privkey7.pem")
        path.parent.mkdir(parents=True)
        path.write_bytes(private_pem(LENT).reveal())
        link = place.at("/etc/letsencrypt/live/site/privkey.pem")
        link.parent.mkdir(parents=True)
        link.symlink_to("../../archive/site/privkey7.pem")
        path.chmod(0o600)
        for one in ("archive/site/privkey7.pem", "live/site/privkey.pem"):
            assert self.borrowed(LENT) == place.transport.borrow_key(f"/etc/letsencrypt/{one}")
        assert [path.name] == names_in(path.parent)

    def test_a_key_that_cannot_be_borrowed_is_said_to_be_gone_or_why_not(self, place: Place) -> None:
        folder = place.at("/etc/ssl/private")
        folder.mkdir(parents=True)
        (folder / "large.key").write_bytes(b"x" * 70_000)
        os.mkfifo(folder / "pipe.key")
        for name, code, why in (
            ("none.key", "M4116", "there is no key"),
            ("large.key", "M4117", "too large"),
            ("pipe.key", "M4117", "not a plain file"),
            ("", "M4117", "cannot be read"),
        ):
            with pytest.raises(DeliveryError, match=why) as refused:
                place.transport.borrow_key(f"/etc/ssl/private/{name}".rstrip("/"))
            assert code == refused.value.code
        for path in ("etc/ssl/a.key", "/etc/../a.key"):
            with pytest.raises(DeliveryError) as refused:
                place.transport.borrow_key(path)
            assert "M4102" == refused.value.code

    def test_keys_that_are_not_kept_are_deleted(self, keyed: Place) -> None:
        keyed.transport.put_key("mail", OTHER_SPKI, KEY)
        keyed.transport.delete_keys_except("mail", [OTHER_SPKI])
        assert [f"{OTHER_SPKI}.key"] == names_in(keyed.at("/etc/mtlsctl/mail/keys"))

    def test_a_keys_folder_that_others_may_enter_is_refused(self, keyed: Place) -> None:
        keyed.at("/etc/mtlsctl/mail/keys").chmod(0o755)
        with pytest.raises(DeliveryError, match="0755") as refused:
            keyed.transport.put_key("mail", OTHER_SPKI, KEY)
        assert "M4102" == refused.value.code

    # whose tree it is

    def test_a_tree_is_claimed_once_and_by_nobody_else(self, place: Place) -> None:
        place.transport.claim("b7f0")
        place.transport.claim("b7f0")
        with pytest.raises(DeliveryError) as refused:
            place.transport.claim("0000")
        assert "M4111" == refused.value.code

    # releases

    def test_a_staged_release_is_whole_and_read_back_as_it_was_given(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        expected = {file.path: HeldFile.of(file.content, 0o640) for file in FILES}
        expected["tls.key"] = self.held_key()
        assert expected == keyed.transport.read_release("mail", FIRST)
        assert keyed.transport.has_release("mail", FIRST)

    def test_a_release_folder_is_closed_to_others(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        folder = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}")
        assert [0o750] * 4 == [mode_of(p) for p in (folder, folder / "clients", folder.parent, folder.parent.parent)]

    def test_modes_do_not_depend_on_the_umask(self, keyed: Place) -> None:
        old = os.umask(0o077)
        try:
            keyed.transport.stage(release())
        finally:
            os.umask(old)
        folder = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}")
        assert (0o750, 0o640) == (mode_of(folder), mode_of(folder / "tls.crt"))

    def test_a_release_that_is_there_already_is_left_as_it_is(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        before = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}").stat().st_ino
        keyed.transport.stage(release())
        assert before == keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}").stat().st_ino

    @pytest.mark.parametrize("damaged", ["tls.crt", "tls.key"])
    def test_a_release_that_was_altered_is_made_anew(self, keyed: Place, damaged: str) -> None:
        keyed.transport.stage(release())
        whole = keyed.transport.read_release("mail", FIRST)
        keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}/{damaged}").unlink()
        keyed.transport.stage(release())
        assert whole == keyed.transport.read_release("mail", FIRST)

    def test_a_link_lies_beside_current_and_goes_through_it(self, keyed: Place) -> None:
        """A program that watches the folder of the link sees when `current` moves."""
        linked = replace(release(), links=("tls.crt",))
        keyed.transport.stage(linked)
        link = keyed.at("/etc/mtlsctl/mail/tls.crt")
        assert ("current/tls.crt", False) == (str(link.readlink()), link.exists())
        keyed.transport.switch(CurrentPointer(path=CURRENT, target=f"releases/{FIRST}"))
        assert b"certificate" == link.read_bytes()
        before = link.lstat().st_ino
        keyed.transport.stage(linked)
        assert before == link.lstat().st_ino

    def test_what_lies_where_a_link_should_is_left_alone(self, keyed: Place) -> None:
        (keyed.at("/etc/mtlsctl/mail") / "tls.crt").write_bytes(b"somebody's")
        with pytest.raises(DeliveryError, match="not a symlink to current") as refused:
            keyed.transport.stage(replace(release(), links=("tls.crt",)))
        assert ("M4102", b"somebody's") == (refused.value.code, keyed.at("/etc/mtlsctl/mail/tls.crt").read_bytes())

    def test_a_path_is_shown_as_it_is_found_from_here(self, keyed: Place) -> None:
        assert str(keyed.at("/etc/mtlsctl")) == keyed.transport.shown("/etc/mtlsctl")

    def test_what_an_earlier_kill_left_behind_is_replaced(self, keyed: Place) -> None:
        leftover = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}.partial")
        leftover.mkdir(parents=True)
        for folder in (leftover.parent, leftover):
            folder.chmod(0o750)
        (leftover / "half").write_text("half")
        assert not keyed.transport.has_release("mail", FIRST)
        keyed.transport.stage(release())
        assert "half" not in keyed.transport.read_release("mail", FIRST)
        assert not leftover.exists()

    def test_a_release_may_do_without_a_key(self, keyed: Place) -> None:
        keyed.transport.stage(release(spki=None))
        expected = {file.path: HeldFile.of(file.content, 0o640) for file in FILES}
        assert expected == keyed.transport.read_release("mail", FIRST)
        before = keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}").stat().st_ino
        keyed.transport.stage(release(spki=None))
        assert before == keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}").stat().st_ino

    def test_a_key_in_a_release_that_does_without_is_no_part_of_it(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        keyed.transport.stage(release(spki=None))
        assert "tls.key" not in keyed.transport.read_release("mail", FIRST)

    def test_a_release_whose_key_is_gone_is_not_staged(self, place: Place) -> None:
        with pytest.raises(DeliveryError, match="is gone") as refused:
            place.transport.stage(release())
        assert "M4103" == refused.value.code
        assert () == tuple(place.transport.releases("mail"))
        assert [] == list(place.at("/etc/mtlsctl/mail/releases").iterdir())

    @pytest.mark.parametrize("path", ["tls.key", "../../../x", "/etc/passwd", "", "a//b", "a/./b", "a\n"])
    def test_a_file_that_would_lie_elsewhere_is_refused(self, keyed: Place, path: str) -> None:
        with pytest.raises(DeliveryError, match="not the name of a public file"):
            keyed.transport.stage(release(files=(StagedFile(path=path, content=b"x"),)))
        assert not keyed.transport.has_release("mail", FIRST)

    @pytest.mark.parametrize("service", ["..", "a/b", "", "A", "x" * 64, "mail\n"])
    def test_a_service_that_is_not_a_label_is_refused(self, keyed: Place, service: str) -> None:
        with pytest.raises(DeliveryError):
            keyed.transport.stage(release(service=service))
        with pytest.raises(DeliveryError):
            keyed.transport.delete_service(service)

    @pytest.mark.parametrize("name", ["..", "current", "1" * 15, "1" * 17, "1" * 15 + "/", f"{FIRST}.partial"])
    def test_a_name_that_is_not_a_release_is_refused(self, keyed: Place, name: str) -> None:
        with pytest.raises(DeliveryError):
            keyed.transport.stage(release(name))
        with pytest.raises(DeliveryError):
            keyed.transport.delete_releases("mail", [name])

    def test_releases_are_listed_oldest_first_and_partial_ones_are_not(self, keyed: Place) -> None:
        for at, name in enumerate((THIRD, FIRST, SECOND)):
            keyed.transport.stage(release(name))
            os.utime(keyed.at(f"/etc/mtlsctl/mail/releases/{name}"), (at, at))
        keyed.at(f"/etc/mtlsctl/mail/releases/{'4' * 16}.partial").mkdir()
        assert (THIRD, FIRST, SECOND) == tuple(keyed.transport.releases("mail"))
        assert () == tuple(keyed.transport.releases("social"))

    def test_deleting_releases_leaves_the_others_and_their_keys(self, keyed: Place) -> None:
        keyed.transport.stage(release(FIRST))
        keyed.transport.stage(release(SECOND))
        keyed.at(f"/etc/mtlsctl/mail/releases/{THIRD}.partial").mkdir()
        keyed.transport.delete_releases("mail", [FIRST])
        assert [SECOND] == names_in(keyed.at("/etc/mtlsctl/mail/releases"))
        assert keyed.transport.has_key("mail", SPKI)

    def test_deleting_a_service_leaves_nothing_of_it_and_all_of_others(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        keyed.transport.put_key("social", SPKI, KEY)
        keyed.transport.delete_service("mail")
        keyed.transport.delete_service("mail")
        assert ["social"] == names_in(keyed.at("/etc/mtlsctl"))

    def test_reading_a_release_that_is_not_there_is_an_error(self, place: Place) -> None:
        with pytest.raises(DeliveryError):
            place.transport.read_release("mail", FIRST)

    # pointers

    def test_a_pointer_file_is_switched_whole(self, place: Place) -> None:
        for content in (b"one", b"two"):
            pointer = FilePointer(path=CONF, content=content)
            place.transport.switch(pointer)
            assert pointer == place.transport.read_pointer(CONF)
            assert (content, 0o644) == (place.at(CONF).read_bytes(), mode_of(place.at(CONF)))
        assert ["mtlsctl.conf"] == names_in(place.at(CONF).parent)

    def test_current_is_switched_to_a_whole_release(self, keyed: Place) -> None:
        for name in (FIRST, SECOND):
            keyed.transport.stage(release(name))
            pointer = CurrentPointer(path=CURRENT, target=f"releases/{name}")
            keyed.transport.switch(pointer)
            assert pointer == keyed.transport.read_pointer(CURRENT)
            assert f"releases/{name}" == str(keyed.at(CURRENT).readlink())

    @pytest.mark.parametrize(
        "target", [f"releases/{THIRD}", f"releases/{THIRD}.partial", "../../../etc", "releases", "/etc"]
    )
    def test_current_never_names_what_is_not_a_whole_release(self, keyed: Place, target: str) -> None:
        keyed.transport.stage(release())
        with pytest.raises(DeliveryError, match="whole release"):
            keyed.transport.switch(CurrentPointer(path=CURRENT, target=target))
        assert keyed.transport.read_pointer(CURRENT) is None

    def test_a_pointer_that_is_absent_reads_as_none_and_may_be_removed(self, place: Place) -> None:
        assert place.transport.read_pointer(CONF) is None
        place.transport.remove_pointer(CONF)
        place.transport.switch(FilePointer(path=CONF, content=b"x"))
        place.transport.remove_pointer(CONF)
        assert place.transport.read_pointer(CONF) is None

    def test_a_half_written_pointer_of_an_earlier_kill_is_replaced(self, place: Place) -> None:
        folder = place.at(CONF).parent
        folder.mkdir(parents=True)
        (folder / ".mtlsctl.conf.partial").write_text("half")
        place.transport.switch(FilePointer(path=CONF, content=b"whole"))
        assert ["mtlsctl.conf"] == names_in(folder)

    def test_a_folder_or_a_symlink_where_the_pointer_file_lies_is_left_alone(self, place: Place) -> None:
        place.at(CONF).parent.mkdir(parents=True)
        place.at(CONF).symlink_to("elsewhere")
        with pytest.raises(DeliveryError, match="not a file"):
            place.transport.switch(FilePointer(path=CONF, content=b"x"))
        place.at(CONF).unlink()
        place.at(CONF).mkdir()
        with pytest.raises(DeliveryError, match="not a file"):
            place.transport.switch(FilePointer(path=CONF, content=b"x"))

    def test_a_folder_where_current_lies_is_left_alone(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        keyed.at(CURRENT).mkdir()
        with pytest.raises(DeliveryError, match="not a symlink"):
            keyed.transport.switch(CurrentPointer(path=CURRENT, target=f"releases/{FIRST}"))

    # symlinks

    @pytest.mark.parametrize("component", ["etc", "etc/mtlsctl", "etc/mtlsctl/mail", "etc/mtlsctl/mail/releases"])
    def test_a_symlink_in_any_component_is_not_followed(self, place: Place, component: str) -> None:
        outside = place.root.parent / "outside"
        outside.mkdir()
        link = place.root / component
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(outside, target_is_directory=True)
        with pytest.raises(DeliveryError, match="symlink") as refused:
            place.transport.stage(release())
        assert "M4102" == refused.value.code
        assert [] == list(outside.iterdir())

    def test_a_symlink_inside_a_release_is_not_read(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        (keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}") / "extra").symlink_to("/etc/passwd")
        with pytest.raises(DeliveryError):
            keyed.transport.read_release("mail", FIRST)

    def test_a_fifo_inside_a_release_is_not_waited_for(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        os.mkfifo(keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}") / "extra")
        with pytest.raises(DeliveryError, match="regular file"):
            keyed.transport.read_release("mail", FIRST)

    def test_a_symlink_in_place_of_a_key_is_not_a_key(self, keyed: Place) -> None:
        keyed.at(f"/etc/mtlsctl/mail/keys/{OTHER_SPKI}.key").symlink_to("/etc/shadow")
        assert not keyed.transport.has_key("mail", OTHER_SPKI)

    def test_deleting_does_not_follow_symlinks(self, keyed: Place) -> None:
        outside = keyed.root.parent / "outside"
        outside.mkdir()
        (outside / "precious").write_text("x")
        keyed.transport.stage(release())
        (keyed.at(f"/etc/mtlsctl/mail/releases/{FIRST}") / "trap").symlink_to(outside, target_is_directory=True)
        keyed.transport.delete_service("mail")
        assert (outside / "precious").exists()

    @pytest.mark.parametrize("path", ["etc/x", "/etc/../x", "//x", "/etc/x/", "/", "/etc/\x00x", "/etc/a\nb"])
    def test_a_pointer_path_that_is_not_plain_is_refused(self, place: Place, path: str) -> None:
        with pytest.raises(DeliveryError):
            place.transport.switch(FilePointer(path=path, content=b"x"))

    # secrets, checks, reloads

    def test_no_error_shows_a_key(self, place: Place) -> None:
        place.at("/etc").mkdir(parents=True)
        place.at("/etc/mtlsctl").write_text("in the way")
        with pytest.raises(DeliveryError) as refused:
            place.transport.put_key("mail", SPKI, KEY)
        assert "PRIVATE" not in repr(refused.value.__dict__) + repr(refused.value)

    def test_nothing_to_check_and_nothing_to_reload_is_fine(self, place: Place) -> None:
        assert place.transport.check(Check.NONE, FilePointer(path=CONF, content=b"")) is None
        assert place.transport.reload(Reload.NONE, program="curl", process="mail") is None

    # another name

    def test_a_service_is_carried_to_another_name_whole_and_stays_where_it_is(self, keyed: Place) -> None:
        keyed.transport.stage(release())
        found = keyed.transport.read_release("mail", FIRST)
        for _ in range(2):
            keyed.transport.carry("mail", "post", release=FIRST, keys=[SPKI, OTHER_SPKI])
            assert found == keyed.transport.read_release("post", FIRST) == keyed.transport.read_release("mail", FIRST)
            assert KEY.reveal() == keyed.at(f"/etc/mtlsctl/post/keys/{SPKI}.key").read_bytes()
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
