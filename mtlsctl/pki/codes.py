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
REQUEST = "M7110"
REQUEST_KEY = "M7111"
KEY_TWICE = "M7112"

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

NOT_IN_FORCE = "M7301"
NO_NAMES = "M7302"
WEAK = "M7303"
USE = "M7304"
CHAIN_ORDER = "M7305"
CHAIN_OPEN = "M7306"
NOT_SIGNED = "M7307"
CONSTRAINED = "M7308"
KEY_BESIDE = "M7309"
ALIAS = "M7310"
JAVA_SEES_NOTHING = "M7311"
OPENS_FOR_ALL = "M7312"
UNSEALED = "M7313"
FORM = "M7314"
PART_UNREADABLE = "M7315"
PROFILE = "M7316"
POSSESSION = "M7317"
REVOCATION_LIST = "M7318"
NAME_MISSING = "M7319"
IMITATION = "M7320"
UNRECORDED = "M7321"
KEY_IN_CLEAR = "M7322"
SERVES_OTHER = "M7323"
ASKS_OTHER = "M7324"
NO_HANDSHAKE = "M7325"

NOT_RECOGNISED = "M7390"
BROKEN = "M7391"
NOT_READ = "M7392"
TOO_MUCH = "M7393"
NOT_OPENED = "M7394"
NO_ANSWER = "M7395"
NOT_A_TLS_SERVER = "M7396"

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
        REQUEST: "The bytes are not a certificate request (PKCS#10).",
        REQUEST_KEY: "A certificate request is for a key of a kind that is not used here, or for a weak one.",
        KEY_TWICE: "Two instances ask for certificates for one and the same key; each has a key of its own.",
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
        NOT_IN_FORCE: "A certificate has ended, is not valid yet, or lives longer than the CA that signed it.",
        NO_NAMES: "An end entity presents no name; a common name alone is refused by most callers.",
        WEAK: "A key is too short or a signature uses a digest that can be forged; most TLS stacks refuse it.",
        USE: "A certificate does not allow the use that it is put to, or says nothing about its use.",
        CHAIN_ORDER: "The certificates of a chain do not stand in order: end entity first, then who signed it.",
        CHAIN_OPEN: "A chain does not lead to a certificate that signs itself, nor to a CA of this estate.",
        NOT_SIGNED: "A certificate names an issuer whose key did not sign it.",
        CONSTRAINED: "A name lies outside what a CA of the chain may vouch for, or that CA may not sign at all.",
        KEY_BESIDE: "A private key stands beside a certificate that it does not belong to.",
        ALIAS: "Two entries of a store have one alias, so that Java shows only one of them.",
        JAVA_SEES_NOTHING: "To Java a PKCS#12 file is empty: its certificates lack the attribute of a trusted one.",
        OPENS_FOR_ALL: "A store with a private key opens with a password that everybody knows.",
        UNSEALED: "Whether somebody changed a store could not be checked, as its password is not known.",
        FORM: "A file can be read, but not by every program: its form is old, or text stands where none belongs.",
        PART_UNREADABLE: "A part of a file is not what it says it is; the rest was read.",
        PROFILE: "A certificate lacks something that a strict TLS stack asks for, or says what none understands.",
        POSSESSION: "A certificate request is not signed by the key that it asks for.",
        REVOCATION_LIST: "A revocation list is out of date, or not signed by the CA that it names.",
        NAME_MISSING: "A certificate does not present the name under which it was asked for.",
        IMITATION: "A certificate bears the name of this estate's CA, or says that it was signed by it, and was not.",
        UNRECORDED: "A CA of this estate signed a certificate that the state does not know.",
        KEY_IN_CLEAR: "The private key of a CA of this estate lies in a file.",
        SERVES_OTHER: "A server of this estate serves another certificate than the one that was applied.",
        ASKS_OTHER: "A server of this estate asks for certificates of other CAs than was applied, or for none.",
        NO_HANDSHAKE: "A server refuses the name that it was asked for before it shows any certificate.",
        NOT_RECOGNISED: "The bytes are nothing that can be inspected.",
        BROKEN: "A file begins as a key store and goes on as none.",
        NOT_READ: "A file is of a kind, or encrypted in a way, that is known and not read.",
        TOO_MUCH: "A file is larger, or asks for more work, than is given to anything that strangers made.",
        NOT_OPENED: "A file does not open without its password, or not with the one that was given.",
        NO_ANSWER: "Nothing answers at an address.",
        NOT_A_TLS_SERVER: "What answers at an address does not speak TLS 1.2 or 1.3.",
    }
)
"""Every code -> what holds when it is reported, in one or two sentences."""
