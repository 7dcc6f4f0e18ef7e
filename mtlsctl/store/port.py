"""The state as the floors above see it. `tests/contract/state_store.py` is the suite that every store passes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from mtlsctl.model.credential import AuthorityId, CertificationAuthority, Credential, CredentialId
    from mtlsctl.model.release import Receipt, Recipe
    from mtlsctl.model.secret import Secret
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, InstanceId, ProcessId
    from mtlsctl.model.trust import TrustAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A signature that is about to be made: recorded before it exists, so that whatever was signed is on record.

    `subject` is an authority's or a credential's identifier, or `probe ...` for a certificate of a verification.
    """

    issuer: AuthorityId
    serial: str
    subject: AuthorityId | CredentialId | str
    common_name: str
    not_after: datetime
    to_be_signed_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One line of the append-only journal; `digest` chains it to the one before."""

    number: int
    at: datetime
    operation: str | None
    event: str
    detail: Mapping[str, object]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """A release that was rendered: enough to know what it is when a host is found to hold it."""

    release: str
    release_digest: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRecord:
    """A switch that was begun and not recorded as done or undone.

    `before` and `after` are the SHA-256 of the pointer (None: absent). `releases` are those that the process
    names after it; `removed` the instances that it no longer names.
    """

    process: ProcessId
    before: str | None
    after: str | None
    releases: tuple[ReleaseRecord, ...]
    removed: tuple[InstanceId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One intended or made signature, for `status`, `show` and `state check`.

    `signed`: it may exist (its first journal row is there). `recorded`: it came back (its second row is there). What
    is signed and not recorded is to be treated as issued.
    """

    intent: Intent
    operation: str | None
    signed: bool
    recorded: bool


class Outcome(StrEnum):
    """How an operation ended."""

    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One apply, from its opening to its end."""

    id: str
    command: str
    who: str
    opened_at: datetime
    closed_at: datetime | None
    outcome: Outcome | None


class StateReader(Protocol):
    """Reads a consistent snapshot; never blocks a writer and is never blocked by one for long."""

    def snapshot(self) -> State:
        """The state as of now."""

    def certificate(self, id: TrustAnchor) -> bytes:
        """The DER of a certificate that was issued or kept; raises StateError when there is none."""

    def credential(self, id: CredentialId) -> Credential | None:
        """A leaf that was issued, also one that the snapshot does not show any more."""

    def release(self, instance: InstanceId, release: str) -> ReleaseRecord | None:
        """What a release name of an instance means."""

    def open_switches(self) -> tuple[SwitchRecord, ...]:
        """Switches whose end is unknown, to be settled by looking at the host."""

    def signatures(self) -> tuple[Signature, ...]:
        """Every signature that was intended, oldest first."""

    def operations(self, limit: int = 20) -> tuple[Operation, ...]:
        """The latest operations, newest first."""

    def journal(self) -> Iterator[JournalEntry]:
        """Every entry, oldest first."""

    def check(self) -> tuple[str, ...]:
        """What does not hold: pages, the journal's chain, two rows for each signature, references. Empty is good."""

    def backup(self, target: Path) -> None:
        """A consistent copy (0600, made whole or not at all); raises StateError when the target exists."""


class StateWriter(StateReader, Protocol):
    """The one writer. Each call is one durable transaction: when it returns, a power cut does not undo it."""

    def open_operation(self, command: str) -> str:
        """Begin; gives the operation's identifier. Operations that were left open are marked `abandoned`."""

    def note(self, event: str, detail: Mapping[str, object]) -> None:
        """Append to the journal; `detail` holds no secret."""

    def record_intents(self, intents: Sequence[Intent]) -> None:
        """All intents of a batch at once, before its first signature; raises StateError on a repeated serial."""

    def record_signing(self, intents: Sequence[Intent]) -> None:
        """The first of two rows of each signature: it may exist from now on."""

    def add_authorities(self, made: Sequence[tuple[CertificationAuthority, bytes, Secret]]) -> None:
        """Second row of each signature, all in one transaction; the keys are sealed before they are stored."""

    def add_credentials(self, issued: Sequence[tuple[Credential, bytes]]) -> None:
        """Second row of each signature, all in one transaction."""

    def keep_certificates(self, certificates: Sequence[bytes]) -> None:
        """Certificates (DER) that somebody else made and that releases trust; one that is kept already stays."""

    def record_probe_signed(self, intents: Sequence[Intent]) -> None:
        """Second row of a probe certificate, which is not kept."""

    def unlock(self) -> None:
        """Prove that the encryption key opens this state, so that nothing is begun without; raises SealedKeyError."""

    def authority_key(self, id: AuthorityId) -> Secret:
        """The private key as it was added; raises SealedKeyError when it does not open, StateError when destroyed."""

    def destroy_authority_key(self, id: AuthorityId) -> None:
        """Overwrite and forget the sealed key; its certificate stays."""

    def record_hosts(self, hosts: Sequence[Host]) -> None:
        """Hosts that may hold something of ours from now on."""

    def record_programs(self, found: Mapping[str, Mapping[str, str]]) -> None:
        """Versions of programs, by host and program, in place of all that was on record of these hosts."""

    def forget_host(self, name: str) -> None:
        """A host that was cleaned: it holds no releases, no pointers and no keys any more."""

    def move_host(self, old: str, host: Host) -> None:
        """A host bears another name from now on; all that was on record of it is on record of the new one.

        Raises StateError when anything is on record of the new name already.
        """

    def move_service(self, old: str, new: str) -> None:
        """A service bears another name from now on; all that was on record of it is on record of the new one.

        The keys of its CAs are sealed anew. What was signed stays as it was, subjects too, and so does the last number
        given out under the old name. Raises StateError when anything was issued under the new name already, and
        SealedKeyError.
        """

    def abandon_host(self, name: str) -> None:
        """A host that is gone: as if it had been cleaned, though nobody cleaned it."""

    def record_releases(self, releases: Sequence[ReleaseRecord]) -> None:
        """Releases that were rendered, before the first of them is staged."""

    def record_switch_intended(self, switch: SwitchRecord) -> None:
        """Just before the rename."""

    def record_switched(self, switch: SwitchRecord, receipts: Mapping[InstanceId, Receipt]) -> None:
        """The pointer names `switch.after` and the process serves it: its instances are live with these receipts."""

    def record_switched_back(self, switch: SwitchRecord) -> None:
        """The pointer names `switch.before` again, or never stopped doing so."""

    def record_gone(self, instance: InstanceId) -> None:
        """Observed: the host no longer holds what was live; the instance is to be made anew."""

    def record_key_missing(self, instance: InstanceId) -> None:
        """Observed: the key that the instance's credential needs is gone; ends with the next issued credential."""

    def close_operation(self, outcome: Outcome) -> None:
        """End it: the serial grows by one."""


class StateStore(StateReader, Protocol):
    """A state at a place."""

    def lock(self, *, command: str, timeout_seconds: float) -> AbstractContextManager[StateWriter]:
        """The one writer, or StateLocked naming who holds it; a lock dies with its process."""

    def close(self) -> None: ...
