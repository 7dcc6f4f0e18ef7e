"""A call that a host made with its own openssl: what its ending means, as for a call that was made here."""

from __future__ import annotations

import re

from mtlsctl.verify.handshake import Ending, Seen, judge_answer

_ALERT = re.compile(r"SSL alert number ([0-9]{1,3})")
_DISTRUST = re.compile(r"verify error:num=[0-9]+:([a-zA-Z0-9 ,_'-]{1,100})")
_CONNECT = re.compile(
    r"connect:errno=([0-9]{1,3})|(Connection refused|No route to host|Network is unreachable|Connection timed out"
    r"|Name or service not known|No address associated with hostname|Temporary failure in name resolution)"
)
_NOT_TLS = re.compile(r":(wrong version number|unexpected message|packet length too long|record layer failure)")
_STOPPED = frozenset({124, 137})

_ALERTS = {
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""RFC 8446 section 6 and RFC 5246 section 7.2."""


def seen_from(status: int, answer: bytes, said: str) -> Seen:
    """What `openssl s_client -quiet` showed: its exit status, what it read, what it said on standard error."""
    found = _ALERT.findall(said)
    alert = _ALERTS.get(int(found[-1]), f"number {found[-1]}") if found else None
    if answer or alert is not None:
        return judge_answer(answer, alert)
    if distrust := _DISTRUST.search(said):
        return Seen(ending=Ending.SERVER_DISTRUSTED, detail=distrust[1])
    if connect := _CONNECT.search(said):
        return Seen(ending=Ending.UNREACHABLE, detail=(connect[2] or f"error {connect[1]}").lower())
    if status in _STOPPED:
        return Seen(ending=Ending.SILENT)
    if other := _NOT_TLS.search(said):
        return Seen(ending=Ending.NOT_TLS, detail=other[1])
    return Seen(ending=Ending.CLOSED)
