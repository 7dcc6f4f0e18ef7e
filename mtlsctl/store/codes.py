"""The diagnostic codes of this floor, with what each means; `explain` prints them."""

from __future__ import annotations

from types import MappingProxyType

MISSING = "M3001"
FOREIGN = "M3002"
BROKEN = "M3003"
NEWER_FORMAT = "M3004"
NOT_BUILT = "M3005"
UNKNOWN_URL = "M3006"
UNUSABLE = "M3007"
EXISTS = "M3009"
LOCKED = "M3010"
LOCK_LOST = "M3011"
CLOCK_BACK = "M3020"
OPERATION_ORDER = "M3021"
SWITCH_UNSETTLED = "M3022"
SERIAL_REPEATED = "M3030"
SIGNATURE_ORDER = "M3031"
CERTIFICATE_UNKNOWN = "M3032"
CONTRADICTION = "M3033"
AUTHORITY_KEY_GONE = "M3034"
GOES_BACK = "M3040"
TARGET_EXISTS = "M3041"
HOST_KNOWN = "M3042"
SERVICE_KNOWN = "M3043"
SWAPPED_CERTIFICATE = "M3050"

DOES_NOT_OPEN = "M7001"
KEY_MISSING = "M7002"
KEY_EXPOSED = "M7003"
PASSPHRASE_WEAK = "M7004"  # noqa: S105  a code, no password
KEY_INSIDE = "M7005"
KEY_SOURCE = "M7006"
KEY_EXISTS = "M7007"

MEANINGS = MappingProxyType(
    {
        MISSING: "There is no state where it is looked for. An empty one is never made instead: it would give every "
        "service of a live estate a new CA.",
        FOREIGN: "The state belongs to another lineage or estate than the inventory.",
        BROKEN: "The file is not a state, or is damaged. Restore a backup.",
        NEWER_FORMAT: "The state was written by a newer mtlsctl, which keeps what this one does not know.",
        NOT_BUILT: "This kind of state is planned and not built yet.",
        UNKNOWN_URL: "The state's URL names no kind of state that there is; `sqlite:PATH` is one.",
        UNUSABLE: "The state, its lock or a copy cannot be read or written: permissions, a full disk, no folder.",
        EXISTS: "A new state is not made where there is one, or what is left of one.",
        LOCKED: "Another operation writes to the state. The lock ends with its process.",
        LOCK_LOST: "The lock was taken over, or its time is over; nothing more is written by the one who had it.",
        CLOCK_BACK: "The clock is more than five minutes behind the latest time in the state: dates would be wrong.",
        OPERATION_ORDER: "An operation is opened while one is open, or closed while none is.",
        SWITCH_UNSETTLED: "A process has a switch whose end is unknown; it is settled by looking at the host first.",
        SERIAL_REPEATED: "A CA would use a serial number a second time (RFC 5280 section 4.1.2.2 forbids it).",
        SIGNATURE_ORDER: "A signature is recorded out of order, or its certificate is not the one that was made.",
        CERTIFICATE_UNKNOWN: "The state holds no certificate of this name.",
        CONTRADICTION: "What was to be recorded contradicts what the state holds; nothing was recorded.",
        AUTHORITY_KEY_GONE: "The CA's key is not on record, or was destroyed; nothing can be signed with it.",
        GOES_BACK: "The backup is older than the state: what was signed since would be forgotten.",
        TARGET_EXISTS: "A backup replaces nothing: the file exists.",
        HOST_KNOWN: "A host cannot be given a name under which the state holds something already.",
        SERVICE_KNOWN: "A service cannot be given a name under which the state holds something already.",
        SWAPPED_CERTIFICATE: "The certificate of a CA in the state is not of the key that was sealed with it.",
        DOES_NOT_OPEN: "The encryption key is not the one that sealed the CA keys, or one was altered or moved.",
        KEY_MISSING: "There is no encryption key where it is looked for, or what is there is none.",
        KEY_EXPOSED: "The file of the encryption key can be read by others than its owner, or is no file.",
        PASSPHRASE_WEAK: "The passphrase is shorter than 20 characters and than five words, or is easy to foresee.",
        KEY_INSIDE: "The encryption key lies in the repository or beside the state: who copies one would have both.",
        KEY_SOURCE: "The environment names the source of the encryption key twice or wrongly.",
        KEY_EXISTS: "A new encryption key never replaces one.",
    }
)
"""Every code -> what holds when it is reported, in one or two sentences."""
