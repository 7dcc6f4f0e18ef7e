"""Bytes to a place and back. `tests/contract/transport.py` is the suite that every transport passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.deliver.layout import Observed, Pointer, StagedRelease
    from mtlsctl.model.release import HeldFile
    from mtlsctl.model.runtime import Check, Reload
    from mtlsctl.model.secret import Secret
    from mtlsctl.model.topology import KeyAlgorithm


class KeyKeeper(Protocol):
    """A host where private keys are born and stay."""

    def request_key(self, service: str, algorithm: KeyAlgorithm, common_name: str) -> bytes:
        """Make a key on the host, kept as `put_key` keeps one; gives a request for it (PKCS#10, RFC 2986) in DER."""

    def sign_with_key(self, service: str, spki_sha256: str, to_be_signed: bytes) -> bytes:
        """The signature by a key of the host as X.509 has it: with SHA-256, or Ed25519. Raises DeliveryError M4103."""


class Transport(Protocol):
    """One host. Paths are absolute and those of the host; a transport maps them to where its host lies.

    No method follows a symlink but our own `current`. Nothing is ever edited: files are made new (mode set at
    creation, O_EXCL) and renamed, data and directories are synced before a rename returns. Every method raises
    DeliveryError, naming the path and the step, and leaves what was there before.
    """

    @property
    def keeper(self) -> KeyKeeper | None:
        """The host where it keeps its keys, so that `put_key` and `read_key` are not for it; None where it does not."""

    def lock(self, lineage: str) -> None:
        """Keep every other controller from this host until `close`, whatever state it works on.

        Raises StateLocked, which names the holder.
        """

    def close(self) -> None:
        """Let go of the host, and of the lock on it."""

    def reconnect(self) -> None:
        """Be there again, with the lock, after a connection was lost; once, and raises as the first verb would."""

    def shown(self, path: str) -> str:
        """A path of the host as a person finds it from here."""

    def claim(self, lineage: str) -> None:
        """Mark the host's tree as this estate's, or see that it is; raises DeliveryError M4111 when it is another's."""

    def put_key(self, service: str, spki_sha256: str, key: Secret) -> None:
        """Keep a key born for this host, 0600 in a 0700 folder, named by its public key; idempotent."""

    def has_key(self, service: str, spki_sha256: str) -> bool:
        """Whether the key is there to be carried into a release."""

    def expect_key(self, service: str, spki_sha256: str) -> bool:
        """The same of a key that somebody else puts there: the folder for it is made where it is missing."""

    def read_key(self, service: str, spki_sha256: str) -> Secret:
        """A key of this host, for the moment of one signature by itself, or of one store that is made of it.

        Raises DeliveryError M4103 when it is not there.
        """

    def carry(self, service: str, to: str, *, release: str | None, keys: Sequence[str]) -> None:
        """Have what is there of a service under another name too: its live release and keys, the same to the byte.

        Nothing goes from its old place: what is live names files there. A key that is not there is left out; what is
        there already stays. Raises DeliveryError M4103 when the release is not there.
        """

    def borrow_key(self, path: str) -> HeldFile:
        """A private key that is not mtlsctl's own, for one comparison or one server of ours; it is kept nowhere.

        It comes without its bytes from a host over a wire. The only file that may be reached through symlinks, as ACME
        clients keep theirs; none leads out of the host. Raises DeliveryError M4116 when it is not there, M4117
        when it cannot be read.
        """

    def stage(self, release: StagedRelease) -> None:
        """Write `<release>.partial`, link its key, sync, rename to its name; see to the links beside `current`.

        A release of that name that holds just these files is left as it is; one that was altered makes way.
        """

    def stage_and_read(self, releases: Sequence[StagedRelease]) -> list[dict[str, HeldFile]]:
        """`stage` all of them, then `read_release` of each."""

    def read_release(self, service: str, release: str) -> dict[str, HeldFile]:
        """Every file below the release by its path, read back without following symlinks.

        What holds a private key comes without its bytes from a host that keeps its keys to itself.
        """

    def observe(
        self,
        *,
        pointers: Sequence[str],
        releases: Sequence[tuple[str, str]],
        keys: Sequence[tuple[str, str]],
        lock_for: str | None = None,
    ) -> Observed:
        """What a look at a host is for: pointers by path, releases by service and name, keys by service and SPKI.

        With `lock_for`, a lineage, the host is locked first; it raises then what `lock` raises.
        """

    def has_release(self, service: str, release: str) -> bool:
        """Whether a whole release of that name is there."""

    def check(self, check: Check, pointer: Pointer) -> str | None:
        """Check staged configuration with the runtime's own program before the switch.

        Gives None when it is good, else why it was not run (the program is not there). Raises DeliveryError with at
        most 20 lines of what the program said.
        """

    def read_pointer(self, path: str) -> Pointer | None:
        """The pointer as it is now, ready to be put back by `switch`; None when there is none."""

    def switch(self, pointer: Pointer) -> None:
        """Exactly one rename, synced."""

    def remove_pointer(self, path: str) -> None:
        """Take the pointer away, synced; absent is fine."""

    def reload(self, reload: Reload, *, program: str, process: str) -> str | None:
        """Make the process take up what the pointer names and wait until it has (old workers no longer accept).

        Gives None when done, else why there was nothing to signal. Raises DeliveryError when the process refuses.
        """

    def releases(self, service: str) -> Sequence[str]:
        """Whole releases that the host holds, oldest first."""

    def delete_releases(self, service: str, releases: Sequence[str]) -> None:
        """Delete releases (first a rename away from their names), and partial ones."""

    def delete_keys_except(self, service: str, keep: Sequence[str]) -> None:
        """Delete keys whose SPKI is not in `keep`."""

    def delete_service(self, service: str) -> None:
        """Delete everything below the service's folder."""
