"""What the inventory declares: hosts, services, listeners and who may call them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mtlsctl.model.diagnostic import Span
    from mtlsctl.model.identifiers import DnsId

SettingValue = str | int | bool | tuple[tuple[str, int], ...]
"""A checked setting: text, number, switch, or pairs of (service, port) in order of the service."""


OUTSIDE = ""
"""Stands where a host's name does: not of this estate. No host can have this name."""


class InstanceId(NamedTuple):
    """A service on a host; with OUTSIDE for the host a server or a caller that is not of this estate."""

    service: str
    host: str

    @property
    def is_outside(self) -> bool:
        return self.host == OUTSIDE

    def __str__(self) -> str:
        return outside(self.service) if self.is_outside else f"{self.service}@{self.host}"

    def with_host_renamed(self, names: Mapping[str, str]) -> InstanceId:
        """The same instance by the new name of its host, if that has one."""
        return self._replace(host=names.get(self.host, self.host))

    def with_service_renamed(self, names: Mapping[str, str]) -> InstanceId:
        """The same instance by the new name of its service, if that has one; nobody outside is a service."""
        return self if self.is_outside else self._replace(service=names.get(self.service, self.service))


def outside(name: str) -> str:
    """How somebody from outside is called, so that nobody takes it for a service."""
    return f"{name} (outside)"


class ProcessId(NamedTuple):
    """What one check and one reload act on: a program of a host."""

    host: str
    name: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"

    def with_host_renamed(self, names: Mapping[str, str]) -> ProcessId:
        """The same process by the new name of its host, if that has one."""
        return self._replace(host=names.get(self.host, self.host))


class ListenerId(NamedTuple):
    """A door of a service."""

    service: str
    listener: str

    def __str__(self) -> str:
        return self.service if self.listener == MAIN else f"{self.service}:{self.listener}"


class Edge(NamedTuple):
    """A declared call: from a service to a listener."""

    caller: str
    listener: ListenerId

    def __str__(self) -> str:
        return f"{self.caller} -> {self.listener}"


MAIN = "main"
"""The name of a service's only listener."""

ANYBODY = "*"
"""In the place of a caller: whoever comes without a certificate. No service can have this name."""

ANY_MEMBER = "*member"
"""In the place of a caller: every service that the shared CA vouches for, now and later. No service has this name."""


class KeyAlgorithm(StrEnum):
    ECDSA_P256 = "ecdsa-p256"
    ED25519 = "ed25519"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class ClientCertificate(StrEnum):
    """What a listener asks of a caller, from the tightest to the loosest.

    OPTIONAL lets in declared callers and whoever shows no certificate; a wrong one is refused. NONE asks for none.
    """

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


class Authorize(StrEnum):
    """Who gets in under anchors that vouch for more than the declared callers."""

    CALLERS = "callers"
    ANY_MEMBER = "any-member"


class ForwardIdentity(StrEnum):
    """How a listener tells the program behind it who called: in headers of a fixed name, or as RFC 9440 says."""

    HEADERS = "headers"
    RFC9440 = "rfc9440"


class Bind(StrEnum):
    """Where a listener's socket is bound."""

    ALL = "all"
    HOST = "host"


class TrustModel(StrEnum):
    SERVICE_CA = "service-ca"
    SHARED_CA = "shared-ca"
    PINNED = "pinned"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryHost:
    """A local folder that stands for a host, as DESTDIR does; paths inside it are those of the host.

    `directory` is absolute. `seen_as` replaces it in rendered paths. `pid_files` names, by process, a file below
    the folder whose process is signalled at a reload; without one the files change and the reload is the user's.
    """

    name: str
    directory: str
    address: str = "127.0.0.1"
    seen_as: str | None = None
    pid_files: tuple[tuple[str, str], ...] = ()
    span: Span | None = field(default=None, compare=False)

    @property
    def root(self) -> str:
        """The prefix of every rendered path, without a trailing slash."""
        return (self.directory if self.seen_as is None else self.seen_as).rstrip("/")


class KeyOrigin(StrEnum):
    """Where the keys of a host's instances are born: there, or here for a host that is a folder or cannot make them."""

    HOST = "host"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHost:
    """A host reached over SSH. `become` is whether commands run through sudo; `keys` says where its keys are born."""

    name: str
    address: str
    port: int = 22
    user: str | None = None
    identity_file: str | None = None
    jump: str | None = None
    become: bool = False
    keys: KeyOrigin = KeyOrigin.HOST
    span: Span | None = field(default=None, compare=False)

    @property
    def root(self) -> str:
        """Rendered paths are the host's own."""
        return ""


Host = DirectoryHost | SshHost


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedHost:
    """A host that was renamed where it is; `new` is declared."""

    old: str
    new: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedService:
    """A service that was renamed and is otherwise the same; `new` is declared."""

    old: str
    new: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonedHost:
    """A host that is gone; what is on it is out of reach."""

    name: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePolicy:
    """How a service's leaves are made and when they are due (`renew_before` their end)."""

    key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    lifetime: timedelta = timedelta(days=90)
    renew_before: timedelta = timedelta(days=30)


class RequestedKey(NamedTuple):
    """What a certificate request asks a certificate for: the kind of its key, and the SHA-256 of its public half."""

    algorithm: KeyAlgorithm
    spki_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """A request (PKCS#10, RFC 2986) of somebody who keeps the key; `sha256` is over its DER.

    `path` is relative to the repository. `asked` is None until the request was taken apart and its proof of possession
    held; nothing is planned before.
    """

    path: str
    der: bytes = field(repr=False)
    sha256: str
    asked: RequestedKey | None = None
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityPolicy:
    """How a service's CA is made; `generation` is the least that the inventory asks for."""

    key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    lifetime: timedelta = timedelta(days=1825)
    renew_before: timedelta = timedelta(days=180)
    generation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A service that may call, and where the inventory says so."""

    service: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideCertificate:
    """A certificate that somebody else made, as a file below the repository holds it."""

    der: bytes = field(repr=False)
    file: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsider:
    """A caller from outside: whoever shows a leaf that one of these CAs signed itself, under one of these identities.

    `certificates` are the SHA-256 of their DER. `identities` None lets in everybody for whom they ever vouch, through
    intermediates too. See `trust.Member` for what an identity is.
    """

    name: str
    certificates: tuple[str, ...]
    identities: tuple[str, ...] | None
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalServer:
    """A server outside the estate and the services that call it; `host`, a DNS name, is what they check.

    `certificates` are the SHA-256 of the CAs to believe; none: those that the caller's own machine believes.
    """

    name: str
    host: str
    port: int
    certificates: tuple[str, ...]
    callers: tuple[Caller, ...] = ()
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """A certificate that somebody else issued and a listener shows in place of its instance's own.

    `chain` are the SHA-256 of its certificates (DER), end entity first, as `file` holds them. `key_path` is absolute,
    on the host; nobody but the program reads that key. `trust` are the SHA-256 of the CAs by which callers believe it;
    none: those that each caller's own machine believes.
    """

    chain: tuple[str, ...]
    key_path: str
    trust: tuple[str, ...]
    file: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port, its callers and what it asks of them; `protocols` is a sorted subset of ("1.2", "1.3").

    `server_certificate` None: it shows the certificate that mtlsctl issued.
    """

    name: str = MAIN
    port: int
    bind: Bind = Bind.ALL
    client_certificate: ClientCertificate = ClientCertificate.REQUIRED
    protocols: tuple[str, ...] = ("1.2", "1.3")
    authorize: Authorize = Authorize.CALLERS
    forward_identity: ForwardIdentity | None = None
    callers: tuple[Caller, ...] = ()
    outsiders: tuple[Outsider, ...] = ()
    server_certificate: ServerCertificate | None = None
    span: Span | None = field(default=None, compare=False)


_SEVERAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service: one runtime, one or more hosts, the names that callers check, the doors that it opens.

    `names` is never empty: without any in the inventory it is `<service>.<estate>.internal`. The first is the
    one that callers check. `settings` holds the values that its runtime's manifest types, sorted by name. `requests`
    are by host, for all hosts or for none: with them the keys are not ours.
    """

    name: str
    runtime: str
    hosts: tuple[str, ...]
    names: tuple[DnsId, ...]
    addresses: bool = False
    listeners: tuple[Listener, ...] = ()
    settings: tuple[tuple[str, SettingValue], ...] = ()
    certificate: CertificatePolicy = CertificatePolicy()
    authority: AuthorityPolicy = AuthorityPolicy()
    trust: TrustModel = TrustModel.SERVICE_CA
    restart_allowed: bool = False
    requests: tuple[tuple[str, CertificateRequest], ...] = ()
    span: Span | None = field(default=None, compare=False)

    def request_for(self, host: str) -> CertificateRequest | None:
        return dict(self.requests).get(host)

    @property
    def instances(self) -> tuple[InstanceId, ...]:
        return tuple([InstanceId(self.name, host) for host in self.hosts])

    @property
    def listeners_by_name(self) -> Sequence[Listener]:
        """The listeners in the order of their names; most services have one or none."""
        return self.listeners if len(self.listeners) < _SEVERAL else sorted(self.listeners, key=attrgetter("name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that is declared. Every name in it resolves: hosts of services, callers of listeners.

    `digest` is over the meaning (not the bytes) of the files that it came from. `shared_authority` says how the CA is
    made that the services of trust model `shared-ca` have in common. `certificates` are the anchors from outside,
    `chains` all certificates that listeners show in place of ours, both by the SHA-256 of their DER.
    """

    name: str
    hosts: Mapping[str, Host]
    services: Mapping[str, Service]
    digest: str
    shared_authority: AuthorityPolicy = AuthorityPolicy()
    moved: tuple[MovedHost, ...] = ()
    renamed: tuple[MovedService, ...] = ()
    abandoned: tuple[AbandonedHost, ...] = ()
    external_servers: tuple[ExternalServer, ...] = ()
    certificates: Mapping[str, OutsideCertificate] = field(default_factory=dict)
    chains: Mapping[str, OutsideCertificate] = field(default_factory=dict)

    def edges(self) -> Iterator[tuple[Edge, Span | None]]:
        """Every declared call within the estate with the place that declares it, in the order of the inventory."""
        for service in self.services.values():
            for listener in service.listeners:
                door = ListenerId(service.name, listener.name)
                for caller in listener.callers:
                    yield Edge(caller.service, door), caller.span

    def former_names(self) -> dict[str, list[str]]:
        """By service the names that it had, sorted: of those that were renamed, as long as the inventory says so."""
        found: dict[str, list[str]] = {}
        for one in sorted(self.renamed, key=lambda one: one.old):
            found.setdefault(one.new, []).append(one.old)
        return found

    def has_authority(self, owner: str) -> bool:
        """Whether this service is to have a CA of its own; of no owner, whether any service is under the shared one."""
        if owner:
            return owner in self.services and self.services[owner].trust is TrustModel.SERVICE_CA
        return any(service.trust is TrustModel.SHARED_CA for service in self.services.values())

    def authority_policy(self, owner: str) -> AuthorityPolicy:
        """How the CA of this service is made, or the shared one (which has no owner)."""
        return self.services[owner].authority if owner else self.shared_authority

    def instances(self) -> Iterator[InstanceId]:
        for service in self.services.values():
            yield from service.instances
