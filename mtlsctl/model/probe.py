"""A handshake to be tried, what it should show and what it showed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtlsctl.model.release import Endpoint
    from mtlsctl.model.topology import InstanceId, ListenerId


class Presented(StrEnum):
    """What the prober shows: a delivered credential, nothing, or what must be refused.

    The last three need no certificate: an undeclared protocol version is greeted, HTTP is sent without TLS, and the
    first flight is compared with what was applied, as a certificate of another CA may be one that nobody can try.
    """

    DELIVERED = "delivered"
    NO_CERTIFICATE = "no certificate"
    FOREIGN_CA = "foreign CA"
    EXPIRED = "expired"
    WRONG_USAGE = "wrong key usage"
    OTHER_PROTOCOL = "undeclared protocol"
    PLAINTEXT = "plain HTTP"
    OTHER_CA = "undeclared CA"


class Expectation(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"


class Observation(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    INCONCLUSIVE = "inconclusive"
    NOT_PROBED = "not probed"


class Verdict(StrEnum):
    AS_DECLARED = "as declared"
    CONTRADICTION = "contradiction"
    INCONCLUSIVE = "inconclusive"
    NOT_PROBED = "not probed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One try. `caller` is the instance whose delivered key is used, or the one that a crafted certificate imitates."""

    listener: ListenerId
    endpoint: Endpoint
    server_name: str
    protocol: str
    presented: Presented
    caller: InstanceId | None
    expected: Expectation


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a probe showed; `evidence` is an alert, an HTTP status or an error in a few words, never a secret.

    `stood_in`: with a certificate of a few minutes in place of the caller's own, whose key its owner keeps.
    """

    probe: Probe
    observed: Observation
    evidence: str = ""
    http_status: int | None = None
    served_sha256: str | None = None
    stood_in: bool = False

    @property
    def verdict(self) -> Verdict:
        """Only `allowed` and `refused` can satisfy an expectation."""
        match self.observed:
            case Observation.NOT_PROBED:
                return Verdict.NOT_PROBED
            case Observation.ALLOWED | Observation.REFUSED:
                same = self.observed.value == self.probe.expected.value
                return Verdict.AS_DECLARED if same else Verdict.CONTRADICTION
            case _:
                return Verdict.INCONCLUSIVE
