"""The diagnostic codes of this floor, with what each means; `explain` prints them."""

from __future__ import annotations

from types import MappingProxyType

LINT = "M7101"
AUTHORITY_ENDED = "M7102"
SIGNATURE = "M7103"
CERTIFICATE_UNREADABLE = "M7104"
KEY_UNREADABLE = "M7105"
PEM = "M7106"
STORE_PASSWORD = "M7107"  # noqa: S105  a code, not a password
STORE = "M7108"

FILE_MISSING = "M7201"
KEY_MISMATCH = "M7202"
WRONG_CERTIFICATE = "M7203"
CHAIN = "M7204"
DATES = "M7205"
NAMES = "M7206"
USAGES = "M7207"
BUNDLE = "M7208"
MODE = "M7209"
NAME_BUDGET = "M7210"
KEY_OUTSIDE = "M7211"
STORE_CONTENT = "M7212"

MEANINGS = MappingProxyType(
    {
        LINT: "A certificate that was about to be signed breaks a rule of its profile; no real key was used.",
        AUTHORITY_ENDED: "A CA cannot sign now: its time is over, or has not come because the clock stands wrong.",
        SIGNATURE: "What a key signed is not what was linted, or the key is not the CA's; it is thrown away.",
        CERTIFICATE_UNREADABLE: "The bytes are not one X.509 certificate.",
        KEY_UNREADABLE: "The bytes are not an unencrypted private key of a kind that is used here.",
        PEM: "A PEM file is empty, cut short, or holds something besides certificates that each end with a newline.",
        STORE_PASSWORD: "A store's password is too short, too long, or has a character that programs read differently.",
        STORE: "A PKCS#12 store cannot be made, cannot be opened with its password, or does not hold what was put in.",
        FILE_MISSING: "A release lacks a file that it must hold.",
        KEY_MISMATCH: "The private key of a release does not belong to its certificate.",
        WRONG_CERTIFICATE: "A release presents another certificate than the one that was issued for it.",
        CHAIN: "A release's chain does not lead to the CA of its service, or holds more than it should.",
        DATES: "A certificate is not valid now, or outlives its CA.",
        NAMES: "A certificate does not present every name under which its instance is called.",
        USAGES: "A certificate lacks the key usage that its instance's edges need.",
        BUNDLE: "A trust bundle is not exactly what the policy says: anchors are missing, too many or repeated.",
        MODE: "A file can be read or written by more users than it should be.",
        NAME_BUDGET: "A listener's CA names are too long for a handshake: above 64,000 bytes every caller fails.",
        KEY_OUTSIDE: "Private key bytes stand in a file other than `tls.key`.",
        STORE_CONTENT: "A key store or trust store of a release is not exactly what the policy says.",
    }
)
"""Every code -> what holds when it is reported, in one or two sentences."""
