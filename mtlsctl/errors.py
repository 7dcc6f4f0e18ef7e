"""Every exception that mtlsctl raises on purpose, split by who must act.

    MtlsctlError                      exit  who acts
    ├── UsageError                     64   the person at the keyboard
    ├── InventoryError                  7   the author of the inventory
    ├── UnsafePlan                      7   the author of the inventory, or whoever may force it
    ├── RuntimeFolderError              7   the author of a runtime folder
    ├── PlanRefused                     6   whoever made or carried the saved plan
    ├── StateLocked                     5   whoever holds the lock
    ├── VerificationFailed              4   whoever runs the services
    ├── RollbackRefused                 7   whoever asked to go back, and may force it
    ├── DeliveryError                   3   whoever runs the host
    ├── StateError                      1   the operator: state missing, foreign or broken
    ├── SealedKeyError                  1   the operator: the encryption key is missing or wrong
    ├── SecretMissing                   1   the operator: a password that the inventory names is not there
    ├── InspectionError                 1   whoever made the file, or runs the server, that was inspected
    └── PreflightError                  1   us: a release that we made does not hold together
        └── LintError (in `pki`)        1   us: a certificate that we were about to sign

The core collects diagnostics as values; only the rim raises. One handler, in `cli`, turns an
exception into text and an exit code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.model.diagnostic import Diagnostic


class Terminated(BaseException):
    """Somebody asked this process to end (SIGTERM); like KeyboardInterrupt no error, and nothing may swallow it."""


class MtlsctlError(Exception):
    """Something a person can act on; `code` is the stable `M` number, `help` the next step."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str, notes: Sequence[str] = (), help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.notes = tuple(notes)
        self.help = help


class UsageError(MtlsctlError):
    """The command line does not say what to do."""

    exit_code = 64


class _Diagnosed(MtlsctlError):
    """Carries a list of diagnostics, already sorted; the message only counts them."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        first = diagnostics[0]
        super().__init__(f"{len(diagnostics)} problem(s), the first: {first.message}", code=first.code)
        self.diagnostics = tuple(diagnostics)


class InventoryError(_Diagnosed):
    """The inventory cannot be read as the language says."""

    exit_code = 7


class UnsafePlan(_Diagnosed):
    """The inventory is well formed, but what it asks cannot be done or cannot be enforced."""

    exit_code = 7


class RuntimeFolderError(_Diagnosed):
    """A runtime folder (manifest, templates, cases) does not hold together."""

    exit_code = 7


class PlanRefused(MtlsctlError):
    """A saved plan is stale, altered, expired or made for another estate."""

    exit_code = 6


class StateLocked(MtlsctlError):
    """Another operation holds the state."""

    exit_code = 5


class VerificationFailed(MtlsctlError):
    """A real handshake contradicts the inventory."""

    exit_code = 4


class DeliveryError(MtlsctlError):
    """One process of one host could not be changed; what it served before, it serves again."""

    exit_code = 3


class RollbackRefused(MtlsctlError):
    """Going back would break something, or there is nothing to go back to."""

    exit_code = 7


class StateError(MtlsctlError):
    """The state is missing, foreign, corrupt or older than what it describes."""


class SealedKeyError(MtlsctlError):
    """The encryption key is missing or wrong, or a sealed value was altered; never says more."""


class SecretMissing(MtlsctlError):
    """A secret that the inventory names is not where the operator keeps secrets, or others can read it."""


class PreflightError(MtlsctlError):
    """A release that was rendered or staged does not hold together."""


class InspectionError(MtlsctlError):
    """What was to be inspected is nothing that can be read, or nothing answers there."""
