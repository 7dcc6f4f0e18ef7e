"""The codes of every problem that an inventory can have, and what each one means in a line."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

UNREADABLE: Final = "M1001"
SYNTAX: Final = "M1002"
TOO_LARGE: Final = "M1003"
NOT_UTF8: Final = "M1004"
BYTE_ORDER_MARK: Final = "M1005"
TAB: Final = "M1006"
ALIAS: Final = "M1007"
TAG: Final = "M1008"
DUPLICATE_KEY: Final = "M1009"
TOO_MANY_NODES: Final = "M1010"
TOO_DEEP: Final = "M1011"
UNQUOTED: Final = "M1012"
SCALAR_TOO_LONG: Final = "M1013"
UNSEEN_CHARACTER: Final = "M1014"
SEVERAL_DOCUMENTS: Final = "M1015"
EMPTY_FILE: Final = "M1016"
KEY_NOT_TEXT: Final = "M1017"

UNKNOWN_KEY: Final = "M1020"
MISSING_KEY: Final = "M1021"
WRONG_KIND: Final = "M1022"
NO_VALUE: Final = "M1023"
NOT_A_CHOICE: Final = "M1024"
CONFLICTING_KEYS: Final = "M1025"

NAME: Final = "M1030"
NAME_TOO_LONG: Final = "M1031"
DNS_NAME: Final = "M1032"
ADDRESS: Final = "M1033"
PORT: Final = "M1034"
NUMBER: Final = "M1035"
SWITCH: Final = "M1036"
DURATION: Final = "M1037"
PATH: Final = "M1038"
LOGIN: Final = "M1039"
LIFETIMES: Final = "M1040"
LIFETIME_TOO_SHORT: Final = "M1041"

FILE: Final = "M1050"
PEM: Final = "M1051"
REQUEST_HOSTS: Final = "M1052"
REQUEST_PINNED: Final = "M1053"

NOT_BUILT: Final = "M1090"

UNKNOWN_RUNTIME: Final = "M1101"
UNKNOWN_HOST: Final = "M1102"
NO_HOSTS: Final = "M1103"
SHARED_DIRECTORY: Final = "M1104"
UNKNOWN_CALLER: Final = "M1107"
CALLS_ITSELF: Final = "M1108"
REPEATED: Final = "M1109"
CANNOT_LISTEN: Final = "M1110"
CANNOT_CALL: Final = "M1111"
NO_CALLERS: Final = "M1112"
REPEATED_LISTENER: Final = "M1113"
PORT_TAKEN: Final = "M1114"
PORT_DIFFERS: Final = "M1115"
NAME_TAKEN: Final = "M1116"
UNNAMED_LISTENER: Final = "M1117"
MODE_NOT_ENFORCED: Final = "M1118"
OPTIONAL_FOR_NOBODY: Final = "M1119"

UNKNOWN_SETTING: Final = "M1120"
MISSING_SETTING: Final = "M1121"
SETTING_VALUE: Final = "M1122"
NOT_A_CALLEE: Final = "M1123"
CANNOT_FORWARD: Final = "M1124"
LISTENER_NAME: Final = "M1125"
SETTINGS_DIFFER: Final = "M1126"

STILL_DECLARED: Final = "M1130"
UNKNOWN_SERVICE: Final = "M1133"
MOVED_TWICE: Final = "M1131"
NOT_ABANDONED: Final = "M1132"
CERTIFICATE_UNFIT: Final = "M1160"
IDENTITY: Final = "M1161"
ENDPOINT: Final = "M1162"
OUTSIDE_NAME: Final = "M1163"
NO_AUTHORIZATION: Final = "M1164"
OTHER_CERTIFICATES: Final = "M1165"
CHAIN_UNFIT: Final = "M1166"
CANNOT_SHOW: Final = "M1167"

UNUSED_HOST: Final = "M1150"
IDLE_SERVICE: Final = "M1151"
LONG_LIFETIME: Final = "M1152"
UNKNOWN_PROCESS: Final = "M1153"

MEANINGS: Final = MappingProxyType(
    {
        UNREADABLE: "a file or folder of the inventory cannot be read, or is not a plain file",
        SYNTAX: "the text is not YAML",
        TOO_LARGE: "a file is larger than 8 MiB",
        NOT_UTF8: "a file is not UTF-8",
        BYTE_ORDER_MARK: "a file begins with a byte order mark",
        TAB: "a tab stands in the indentation",
        ALIAS: "an anchor, an alias or a merge key is used; an inventory spells things out",
        TAG: "a YAML tag or directive is used; types come from the language, not from the file",
        DUPLICATE_KEY: "the same key, or the same host or service, is given twice",
        TOO_MANY_NODES: "a file holds more than 2,000,000 keys and values",
        TOO_DEEP: "mappings and lists are nested deeper than 32",
        UNQUOTED: "an unquoted word that many tools read as a truth value, a number or a date stands for a name",
        SCALAR_TOO_LONG: "one value is longer than 4 KiB",
        UNSEEN_CHARACTER: "a control, bidirectional or invisible character",
        SEVERAL_DOCUMENTS: "a file holds more than one YAML document",
        EMPTY_FILE: "a file holds nothing",
        KEY_NOT_TEXT: "a key is a list, a mapping, empty, or an unquoted number, date or truth value",
        UNKNOWN_KEY: "the language has no such key at this place",
        MISSING_KEY: "a key that has no default is missing",
        WRONG_KIND: "a list, a mapping or a single value stands where another of the three is meant",
        NO_VALUE: "a key has no value",
        NOT_A_CHOICE: "a value is not among the ones that the key takes",
        CONFLICTING_KEYS: "two keys exclude each other, or one lacks the other that it needs",
        NAME: "a name is not lower-case letters, digits and inner hyphens",
        NAME_TOO_LONG: "a name has more characters than fit into a certificate's subject",
        DNS_NAME: "a DNS name does not follow the grammar, or is a wildcard",
        ADDRESS: "an address is neither an IP address nor a DNS name",
        PORT: "a port is not a number from 1 to 65535",
        NUMBER: "a number does not follow the grammar, or lies outside its range",
        SWITCH: "a switch is neither true nor false",
        DURATION: "a duration is not a whole number with d, h or m",
        PATH: "a path does not follow the grammar",
        LOGIN: "a user or a jump host does not follow the grammar",
        LIFETIMES: "lifetimes and renewals do not fit each other",
        LIFETIME_TOO_SHORT: "a lifetime is shorter than one hour",
        FILE: "a file that the inventory names is not there, is no plain file, or is reached through a symbolic link",
        PEM: "a file that the inventory names holds something else than the PEM that belongs there",
        REQUEST_HOSTS: "the certificate requests of a service are not one for each of its hosts",
        REQUEST_PINNED: "a certificate request cannot be pinned: only its owner could sign it by its own key",
        NOT_BUILT: "a part of the language that this version does not build yet",
        UNKNOWN_RUNTIME: "no runtime has this name",
        UNKNOWN_HOST: "no host has this name",
        NO_HOSTS: "a service runs nowhere",
        SHARED_DIRECTORY: "two hosts are the same folder",
        UNKNOWN_CALLER: "no service has the name of this caller",
        CALLS_ITSELF: "a service is declared as its own caller",
        REPEATED: "an entry stands twice in one list",
        CANNOT_LISTEN: "a service listens though its runtime only calls",
        CANNOT_CALL: "a service is declared as a caller though its runtime only listens",
        NO_CALLERS: "a listener has no callers and its runtime cannot refuse everybody",
        REPEATED_LISTENER: "two listeners of a service have one name",
        PORT_TAKEN: "a port of a host is wanted twice by what cannot share it",
        PORT_DIFFERS: "services that share a port differ in protocols or in where they bind",
        NAME_TAKEN: "two services answer to the same DNS name on one port",
        LISTENER_NAME: "the runtime has no listener of this name",
        UNNAMED_LISTENER: "one of several listeners has no name",
        MODE_NOT_ENFORCED: "a runtime cannot enforce what a listener asks of its callers",
        OPTIONAL_FOR_NOBODY: "a listener takes certificates and has no callers to show one",
        UNKNOWN_SETTING: "the runtime has no such setting",
        MISSING_SETTING: "a setting that the runtime needs is missing",
        SETTING_VALUE: "a setting's value does not follow its type",
        SETTINGS_DIFFER: "two settings are right alone, and the runtime cannot have them together",
        NOT_A_CALLEE: "a setting names a service that this one does not call",
        CANNOT_FORWARD: "a runtime cannot tell the program behind it in this form who called",
        STILL_DECLARED: "a host or a service is moved or removed and declared at the same time",
        UNKNOWN_SERVICE: "no service has this name",
        MOVED_TWICE: "moves contradict each other: two become one, or one becomes itself",
        NOT_ABANDONED: "an entry of `removed` does not give up its host",
        CERTIFICATE_UNFIT: "a certificate from outside cannot be an anchor: not self-signed, no CA, or too weak",
        IDENTITY: "an identity is no text that every program writes alike",
        ENDPOINT: "an endpoint is not a DNS name and a port",
        OUTSIDE_NAME: "somebody outside has the name of something inside",
        NO_AUTHORIZATION: "a caller from outside has neither identities nor `authorize: any-member`",
        OTHER_CERTIFICATES: "a caller from outside has different certificates at different listeners",
        CHAIN_UNFIT: "a chain cannot be shown: its names, its use, its order, or nothing that is trusted signed it",
        CANNOT_SHOW: "the runtime cannot show a certificate whose key is not among the files of its release",
        UNUSED_HOST: "no service runs on a host",
        IDLE_SERVICE: "a service neither listens nor calls",
        LONG_LIFETIME: "a certificate lives longer than 398 days",
        UNKNOWN_PROCESS: "a pid file is named for a process that does not run on the host",
    }
)
