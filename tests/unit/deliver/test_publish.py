from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.layout import FilePointer, StagedFile, StagedRelease, pointer_sha256
from mtlsctl.deliver.local import LocalTransport
from mtlsctl.deliver.publish import Published, Switch, Verbs, publish
from mtlsctl.errors import DeliveryError, PreflightError
from mtlsctl.model.release import HeldFile
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import DirectoryHost, ProcessId

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.deliver.layout import Pointer

CONF = "/etc/nginx/conf.d/mtlsctl.conf"
SPKI = "5" * 64
OLD, NEW = FilePointer(path=CONF, content=b"# old\n"), FilePointer(path=CONF, content=b"# new\n")
STAGED = StagedRelease(
    service="mail", release="1" * 16, key_spki_sha256=SPKI, files=(StagedFile(path="tls.crt", content=b"c"),)
)


def held(transport: LocalTransport) -> str | None:
    pointer = transport.read_pointer(CONF)
    return None if pointer is None else pointer_sha256(pointer)


@dataclass
class Journal:
    """Remembers what it was told, and what the pointer held at that moment."""

    transport: LocalTransport
    lines: list[tuple[str, str | None]] = field(default_factory=list)

    def intended(self) -> None:
        self.lines.append(("intended", held(self.transport)))

    def switched(self) -> None:
        self.lines.append(("switched", held(self.transport)))

    def switched_back(self) -> None:
        self.lines.append(("switched back", held(self.transport)))


class World:
    def __init__(self, root: Path) -> None:
        self.transport = LocalTransport(DirectoryHost(name="here", directory=str(root)))
        self.transport.put_key("mail", SPKI, Secret(b"k"))
        self.journal = Journal(self.transport)
        self.inspected: list[tuple[str, str, dict[str, HeldFile]]] = []
        self.settled = 0
        self.settle_error: Exception | None = None
        self.back_error: Exception | None = None
        self.inspect_error: Exception | None = None

    def publish(self, *, before: Pointer | None, after: Pointer | None, reload: Reload = Reload.NONE) -> Published:
        switch = Switch(
            process=ProcessId("here", "nginx"),
            releases=(STAGED,),
            pointer=after,
            pointer_path=CONF,
            expected_before=None if before is None else pointer_sha256(before),
        )
        return publish(self.transport, switch, self.verbs(reload), self.journal)

    def verbs(self, reload: Reload) -> Verbs:
        return Verbs(
            check=Check.NONE,
            reload=reload,
            program="nginx",
            inspect=self.inspect,
            settle=self.settle,
            settle_back=self.settle_back,
        )

    def inspect(self, service: str, release: str, files: dict[str, HeldFile]) -> None:
        self.inspected.append((service, release, files))
        if self.inspect_error:
            raise self.inspect_error

    def settle(self) -> None:
        self.settled += 1
        if self.settle_error:
            raise self.settle_error

    def settle_back(self) -> None:
        if self.back_error:
            raise self.back_error

    def holds(self) -> str | None:
        return held(self.transport)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def sha(pointer: Pointer) -> str:
    return pointer_sha256(pointer)


def test_a_first_publication_stages_inspects_switches_and_settles(world: World) -> None:
    published = world.publish(before=None, after=NEW)
    assert ("staged", "checked", "switched", "reloaded", "settled") == published.steps
    assert [
        ("mail", "1" * 16, {"tls.crt": HeldFile.of(b"c", 0o640), "tls.key": HeldFile.of(b"k", 0o600)})
    ] == world.inspected
    assert [("intended", None), ("switched", sha(NEW))] == world.journal.lines
    assert 1 == world.settled


def test_a_signal_that_had_no_object_is_a_note(world: World) -> None:
    published = world.publish(before=None, after=NEW, reload=Reload.SIGNAL_HUP_MASTER)
    assert ("no pid_files entry for nginx: the reload is yours",) == published.notes


def test_a_pointer_that_was_edited_is_not_overwritten(world: World) -> None:
    edited = FilePointer(path=CONF, content=b"# by hand\n")
    world.transport.switch(edited)
    with pytest.raises(DeliveryError, match="was edited since") as refused:
        world.publish(before=OLD, after=NEW)
    assert ("M4105", sha(edited), []) == (refused.value.code, world.holds(), world.journal.lines)


def test_a_foreign_file_where_the_first_pointer_would_lie_is_not_overwritten(world: World) -> None:
    world.transport.switch(OLD)
    with pytest.raises(DeliveryError, match="already exists"):
        world.publish(before=None, after=NEW)
    assert sha(OLD) == world.holds()


def test_a_release_that_does_not_hold_together_is_not_switched_to(world: World) -> None:
    world.transport.switch(OLD)
    world.inspect_error = PreflightError("key and certificate differ", code="M7001")
    with pytest.raises(PreflightError):
        world.publish(before=OLD, after=NEW)
    assert (sha(OLD), []) == (world.holds(), world.journal.lines)


@pytest.mark.parametrize("before", [OLD, None])
def test_what_does_not_settle_is_put_back(world: World, before: Pointer | None) -> None:
    if before is not None:
        world.transport.switch(before)
    world.settle_error = DeliveryError("serves the old certificate", code="M4204", notes=("seen",))
    with pytest.raises(DeliveryError, match="rolled back") as refused:
        world.publish(before=before, after=NEW)
    held = None if before is None else sha(before)
    assert ("M4204", ("seen",)) == (refused.value.code, refused.value.notes)
    assert [("intended", held), ("switched back", held)] == world.journal.lines


def test_a_process_that_cannot_be_put_back_is_degraded_and_stays_on_record(world: World) -> None:
    world.transport.switch(OLD)
    world.settle_error = DeliveryError("serves nothing", code="M4204")
    world.back_error = DeliveryError("still serves nothing", code="M4204")
    with pytest.raises(DeliveryError, match="degraded") as refused:
        world.publish(before=OLD, after=NEW)
    assert ("M4108", ["intended"]) == (refused.value.code, [event for event, _ in world.journal.lines])
    assert ("the switch: serves nothing", "putting back: still serves nothing") == refused.value.notes


def test_a_pointer_is_taken_away_and_put_back_like_any_other(world: World) -> None:
    world.transport.switch(OLD)
    world.settle_error = DeliveryError("still served", code="M4204")
    with pytest.raises(DeliveryError):
        world.publish(before=OLD, after=None)
    assert sha(OLD) == world.holds()
    world.settle_error = None
    published = world.publish(before=OLD, after=None)
    assert ("staged", "switched", "reloaded", "settled") == published.steps
    assert world.holds() is None


def test_a_journal_that_cannot_record_success_leaves_the_host_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError("database is full")

    monkeypatch.setattr(world.journal, "switched", refuse)
    with pytest.raises(OSError, match="full"):
        world.publish(before=None, after=NEW)
    assert sha(NEW) == world.holds()


@pytest.mark.parametrize("place", ["switch.intended", "switch.renamed", "switch.reloaded", "switch.settled"])
def test_a_failure_at_any_place_of_the_switch_puts_the_old_pointer_back(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    world.transport.switch(OLD)
    monkeypatch.setattr("mtlsctl.failpoints._reached", {})
    monkeypatch.setenv("MTLSCTL_FAILPOINT", f"{place}:raise")
    with pytest.raises(DeliveryError, match="rolled back"):
        world.publish(before=OLD, after=NEW)
    assert [("intended", sha(OLD)), ("switched back", sha(OLD))] == world.journal.lines
    monkeypatch.delenv("MTLSCTL_FAILPOINT")
    world.publish(before=OLD, after=NEW)
    assert sha(NEW) == world.holds()


def test_every_place_of_a_switch_is_gone_through(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "places"
    monkeypatch.setenv("MTLSCTL_FAILPOINT_LOG", str(log))
    world.publish(before=None, after=OLD)
    stage = ["stage.partial", "stage.written", "stage.synced", "stage.renamed", "stage.checked"]
    switch = ["switch.intended", "switch.renamed", "switch.reloaded", "switch.settled", "switch.recorded"]
    assert stage + switch == log.read_text().split()
    log.unlink()
    world.settle_error = OSError("no")
    with pytest.raises(DeliveryError):
        world.publish(before=OLD, after=NEW)
    assert log.read_text().split()[-4:] == ["switch.renamed", "back.renamed", "back.reloaded", "back.recorded"]


class Wire(LocalTransport):
    """A host whose connection is lost for good when `is_cut`; `dialled` counts what was tried to have it back."""

    is_cut = False
    dialled = 0
    comes_back = False

    def reconnect(self) -> None:
        self.dialled += 1
        if self.is_cut and not self.comes_back:
            raise DeliveryError("nobody answers", code="M4303")
        self.is_cut = False

    def read_pointer(self, path: str) -> Pointer | None:
        if self.is_cut:
            raise DeliveryError("the connection was lost", code="M4301")
        return super().read_pointer(path)


@pytest.fixture
def wired(world: World, tmp_path: Path) -> tuple[World, Wire]:
    wire = Wire(DirectoryHost(name="here", directory=str(tmp_path)))
    world.transport = wire
    return world, wire


def cut_while_settling(world: World, wire: Wire, monkeypatch: pytest.MonkeyPatch, code: str = "M4302") -> None:
    def settle() -> None:
        wire.is_cut = True
        raise DeliveryError("it did not answer in time", code=code)

    monkeypatch.setattr(world, "settle", settle)


def test_a_host_that_falls_silent_is_dialled_once_more_and_put_back(
    wired: tuple[World, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, wire = wired
    world.publish(before=None, after=OLD)
    wire.comes_back = True
    cut_while_settling(world, wire, monkeypatch)
    with pytest.raises(DeliveryError, match="did not answer in time; rolled back") as failed:
        world.publish(before=OLD, after=NEW)
    assert ("M4302", 1) == (failed.value.code, wire.dialled)
    assert sha(OLD) == world.holds()
    assert "switched back" == world.journal.lines[-1][0]


def test_a_host_that_stays_silent_is_unknown_and_its_switch_stays_on_record(
    wired: tuple[World, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, wire = wired
    world.publish(before=None, after=OLD)
    cut_while_settling(world, wire, monkeypatch)
    with pytest.raises(DeliveryError, match="is not known") as failed:
        world.publish(before=OLD, after=NEW)
    assert ("M4302", 1) == (failed.value.code, wire.dialled)
    assert any("nobody answers" in note for note in failed.value.notes)
    assert "intended" == world.journal.lines[-1][0]


def test_a_host_that_is_lost_on_the_way_back_is_unknown_and_not_degraded(
    wired: tuple[World, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, wire = wired
    world.publish(before=None, after=OLD)
    cut_while_settling(world, wire, monkeypatch, code="M4204")
    with pytest.raises(DeliveryError, match="is not known") as failed:
        world.publish(before=OLD, after=NEW)
    assert ("M4301", 0) == (failed.value.code, wire.dialled)
