"""What a release is made of, as a value that needs no key; and its two digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.topology import (
    ClientCertificate,
    ForwardIdentity,
    InstanceId,
    ListenerId,
    ProcessId,
    SettingValue,
    outside,
)
from mtlsctl.model.trust import Member, OutsideAnchor, PeerPolicy, TrustAnchor, in_order, member_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Socket(NamedTuple):
    """Where a listener's socket is bound; `address` is None for every address of the host."""

    address: str | None
    port: int


class Endpoint(NamedTuple):
    """Where an instance of a called service is dialled."""

    instance: InstanceId
    address: str
    port: int


class ShownCertificate(NamedTuple):
    """A chain that somebody else issued: the SHA-256 of its certificates, end entity first, and where its key lies."""

    chain: tuple[str, ...]
    key_path: str

    @property
    def leaf(self) -> str:
        return self.chain[0]

    def __str__(self) -> str:
        return f"certificate {self.leaf[:16]} with the key {self.key_path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedListener:
    """A listener as one release serves it; `callers` are those whose anchors the policy holds, outsiders among them.

    `shows` None: it shows the leaf of its instance.
    """

    name: str
    sockets: tuple[Socket, ...]
    client_certificate: ClientCertificate
    protocols: tuple[str, ...]
    callers: tuple[str, ...]
    policy: PeerPolicy
    forward_identity: ForwardIdentity | None = None
    shows: ShownCertificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """A listener of another service as one release calls it; `server_name` is the DNS-ID that is sent and checked.

    `asks`: it asks for a client certificate, so one is shown; else the call is one-way TLS.
    Of a server outside the estate the one endpoint's host is OUTSIDE. `believes_system`: instead of by the policy,
    which is empty then, it is believed by the CAs that the caller's own machine believes. The policy of a listener
    that shows a certificate of somebody else has anchors from outside, while it changes beside those of its service.
    """

    listener: ListenerId
    endpoints: tuple[Endpoint, ...]
    server_name: str
    policy: PeerPolicy
    asks: bool = True
    believes_system: bool = False

    @property
    def is_outside(self) -> bool:
        """Whether it is a server that is not of this estate."""
        return bool(self.endpoints) and self.endpoints[0].instance.is_outside

    @property
    def service(self) -> str:
        """The service that is called, also where `listener` says a name that it once had."""
        return self.endpoints[0].instance.service if self.endpoints else self.listener.service

    @property
    def is_believed_by_others(self) -> bool:
        """Whether a CA that is not ours vouches for it, so that there may be intermediates below that."""
        return self.believes_system or bool(self.policy.outsiders)

    def __str__(self) -> str:
        return outside(self.listener.service) if self.is_outside else str(self.listener)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides the bytes of a release, in symbols: credentials and anchors by identifier, never by bytes.

    `server_names` are all names that the leaf presents. `root` is the prefix of every rendered path. `holds_key` says
    whether the private key is in the release; a chain can be handed back to who keeps the key.
    """

    instance: InstanceId
    process: ProcessId
    runtime: str
    runtime_digest: str
    root: str
    credential: CredentialId
    server_names: tuple[str, ...]
    listeners: tuple[ServedListener, ...] = ()
    callees: tuple[Callee, ...] = ()
    settings: tuple[tuple[str, SettingValue], ...] = ()
    holds_key: bool = True
    _digest: list[str] = field(default_factory=list, compare=False, repr=False, init=False)

    @property
    def digest(self) -> str:
        """`recipe_digest`: SHA-256 of the canonical JSON of the recipe, hex."""
        if not self._digest:
            self._digest.append(canonical_digest(recipe_to_json(self)))
        return self._digest[0]

    def served(self, name: str) -> ServedListener | None:
        return next((served for served in self.listeners if served.name == name), None)

    def called(self, listener: ListenerId) -> Callee | None:
        return next((callee for callee in self.callees if callee.listener == listener), None)


def with_hosts_renamed(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The same release of the same instance, in the new names of hosts; names that are not there stay."""

    def anchor(one: TrustAnchor) -> TrustAnchor:
        return one.with_host_renamed(names) if isinstance(one, CredentialId) else one

    def policy(one: PeerPolicy) -> PeerPolicy:
        members = None if one.members is None else frozenset(Member(anchor(a), s) for a, s in one.members)
        return PeerPolicy(anchors=frozenset(map(anchor, one.anchors)), members=members)

    def endpoint(one: Endpoint) -> Endpoint:
        return one._replace(instance=one.instance.with_host_renamed(names))

    return replace(
        recipe,
        instance=recipe.instance.with_host_renamed(names),
        process=recipe.process.with_host_renamed(names),
        credential=recipe.credential.with_host_renamed(names),
        listeners=tuple(replace(served, policy=policy(served.policy)) for served in recipe.listeners),
        callees=tuple(
            replace(callee, endpoints=tuple(sorted(map(endpoint, callee.endpoints))), policy=policy(callee.policy))
            for callee in recipe.callees
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFile:
    """A file of a release as its host holds it.

    `content` is None where it holds a private key that never leaves its host; `spki_sha256` then names that key by its
    public half (SHA-256 of the DER SubjectPublicKeyInfo, hex).
    """

    mode: int
    sha256: str
    content: bytes | None = field(repr=False)
    spki_sha256: str | None = None

    @classmethod
    def of(cls, content: bytes, mode: int) -> HeldFile:
        """A file whose bytes were read."""
        return cls(mode=mode, sha256=hashlib.sha256(content).hexdigest(), content=content)

    def read(self) -> bytes:
        """The bytes; raises ValueError for a file that its host keeps to itself."""
        if self.content is None:
            raise ValueError("its host keeps this file to itself")
        return self.content


OLD_NAMES = "old names"
"""In the place of a digest of templates: rendered before a rename, so that files say and lie under the old name."""


def with_services_renamed(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The same release in the new names of services; none of them has a process of its own that bears its name.

    Callers know a renamed service by both names. A member stays the name that its leaf says. Where the files say an
    old name there are no templates that would render them so: the digest is OLD_NAMES.
    """

    def anchor(one: TrustAnchor) -> TrustAnchor:
        return one if isinstance(one, OutsideAnchor) else one.with_service_renamed(names)

    def policy(one: PeerPolicy) -> PeerPolicy:
        members = None if one.members is None else frozenset(Member(anchor(a), s) for a, s in one.members)
        return PeerPolicy(anchors=frozenset(map(anchor, one.anchors)), members=members)

    def served(one: ServedListener) -> ServedListener:
        beyond = one.policy.outsiders
        callers = (caller if caller in beyond else names.get(caller, caller) for caller in one.callers)
        return replace(one, callers=tuple(sorted(callers)), policy=policy(one.policy))

    def believed(one: Callee) -> PeerPolicy:
        """A CA from outside bears the name of the service for which it vouches."""
        found = policy(one.policy)
        if one.is_outside or not found.outsiders:
            return found
        beyond = (a._replace(name=names.get(a.name, a.name)) for a in found.anchors if isinstance(a, OutsideAnchor))
        own = (a for a in found.anchors if not isinstance(a, OutsideAnchor))
        return PeerPolicy(anchors=frozenset([*own, *beyond]), members=found.members)

    def called(one: Callee) -> list[Callee]:
        endpoints = tuple(sorted(e._replace(instance=e.instance.with_service_renamed(names)) for e in one.endpoints))
        again = replace(one, endpoints=endpoints, policy=believed(one))
        if one.is_outside or one.listener.service not in names:
            return [again]
        return [again, replace(again, listener=one.listener._replace(service=names[one.listener.service]))]

    def setting(value: SettingValue) -> SettingValue:
        return tuple(sorted((names.get(s, s), port) for s, port in value)) if isinstance(value, tuple) else value

    callees = [again for one in recipe.callees for again in called(one)]
    instance = recipe.instance.with_service_renamed(names)
    says_old_names = instance != recipe.instance or len(callees) > len(recipe.callees)
    return replace(
        recipe,
        instance=instance,
        runtime_digest=OLD_NAMES if says_old_names else recipe.runtime_digest,
        credential=recipe.credential.with_service_renamed(names),
        listeners=tuple(map(served, recipe.listeners)),
        callees=tuple(sorted(callees, key=lambda callee: callee.listener)),
        settings=tuple((name, setting(value)) for name, value in recipe.settings),
    )


class FileFact(NamedTuple):
    """A file of a published release as it was read back: path below the release, SHA-256, mode bits."""

    path: str
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a host was seen to hold when a release went live there."""

    release: str
    release_digest: str
    files: tuple[FileFact, ...]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, ASCII."""
    return _CANONICAL.encode(value)


def canonical_digest(value: object) -> str:
    """SHA-256 of the canonical JSON, hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def release_digest(recipe: Recipe, material: Mapping[str, str]) -> str:
    """The recipe with the digests of the material that fills it: certificate, SPKI, bundles; never a secret's bytes."""
    return canonical_digest({"recipe": recipe.digest, "material": dict(material)})


def recipe_to_json(recipe: Recipe) -> dict[str, object]:
    """A recipe as plain JSON values; `recipe_from_json` is its inverse."""
    return {
        "instance": list(recipe.instance),
        "process": list(recipe.process),
        "runtime": recipe.runtime,
        "runtime_digest": recipe.runtime_digest,
        "root": recipe.root,
        "credential": recipe.credential.sequence,
        "server_names": list(recipe.server_names),
        "listeners": [_listener_to_json(served) for served in recipe.listeners],
        "callees": [_callee_to_json(callee) for callee in recipe.callees],
        "settings": [[name, list(map(list, v)) if isinstance(v, tuple) else v] for name, v in recipe.settings],
        **({} if recipe.holds_key else {"holds_key": False}),
    }


SharedCallees = dict[tuple[str, ...], tuple[object, Callee]]


def recipe_from_json(data: Mapping[str, object], shared: SharedCallees | None = None) -> Recipe:
    """Rebuild a recipe that `recipe_to_json` wrote; raises KeyError, TypeError or ValueError on anything else.

    Recipes that are rebuilt with one `shared` (empty at first) have their equal callees in common: nearly all callers
    of a listener see it alike, and a callee is the most expensive part.
    """
    plain: dict = dict(data)  # type: ignore[type-arg]
    instance = InstanceId(*plain["instance"])
    return Recipe(
        instance=instance,
        process=ProcessId(*plain["process"]),
        runtime=plain["runtime"],
        runtime_digest=plain["runtime_digest"],
        root=plain["root"],
        credential=CredentialId(instance, plain["credential"]),
        server_names=tuple(plain["server_names"]),
        listeners=tuple(_listener_from_json(one) for one in plain["listeners"]),
        callees=tuple(_callee_from_json(one, {} if shared is None else shared) for one in plain["callees"]),
        settings=tuple(
            (name, tuple((s, p) for s, p in value) if isinstance(value, list) else value)
            for name, value in plain["settings"]
        ),
        holds_key=plain.get("holds_key", True),
    )


def _policy_to_json(policy: PeerPolicy) -> dict[str, object]:
    members = policy.members
    return {
        "anchors": [_anchor_to_json(anchor) for anchor in in_order(policy.anchors)],
        "members": None if members is None else [_member_to_json(one) for one in sorted(members, key=member_order)],
    }


def _member_to_json(member: Member) -> list[str | int]:
    return [member.name, *_anchor_to_json(member.anchor)]


def _anchor_to_json(anchor: TrustAnchor) -> list[str | int]:
    """`[service, generation]` of a CA, `[service, host, sequence]` of a leaf, `[name, sha256]` of one from outside."""
    return [*anchor.instance, anchor.sequence] if isinstance(anchor, CredentialId) else list(anchor)


def _anchor_from_json(data: Sequence[Any]) -> TrustAnchor:
    """What kind it is shows by how many parts it has and of which type the last is."""
    service, *host, last = data
    if host:
        return CredentialId(InstanceId(service, *host), last)
    return OutsideAnchor(service, last) if isinstance(last, str) else AuthorityId(service, last)


def _policy_from_json(data: dict) -> PeerPolicy:  # type: ignore[type-arg]
    members = data["members"]
    return PeerPolicy(
        anchors=frozenset(map(_anchor_from_json, data["anchors"])),
        members=None if members is None else frozenset(Member(_anchor_from_json(a), s) for s, *a in members),
    )


def _listener_to_json(served: ServedListener) -> dict[str, object]:
    return {
        "name": served.name,
        "sockets": [list(socket) for socket in served.sockets],
        "client_certificate": served.client_certificate.value,
        "protocols": list(served.protocols),
        "callers": list(served.callers),
        "policy": _policy_to_json(served.policy),
        **({} if served.forward_identity is None else {"forward_identity": served.forward_identity.value}),
        **({} if served.shows is None else {"shows": [list(served.shows.chain), served.shows.key_path]}),
    }


def _listener_from_json(data: dict) -> ServedListener:  # type: ignore[type-arg]
    return ServedListener(
        name=data["name"],
        sockets=tuple(Socket(*socket) for socket in data["sockets"]),
        client_certificate=ClientCertificate(data["client_certificate"]),
        protocols=tuple(data["protocols"]),
        callers=tuple(data["callers"]),
        policy=_policy_from_json(data["policy"]),
        forward_identity=ForwardIdentity(data["forward_identity"]) if "forward_identity" in data else None,
        shows=_shown_from_json(*data["shows"]) if "shows" in data else None,
    )


def _shown_from_json(chain: list[str], key_path: str) -> ShownCertificate:
    return ShownCertificate(tuple(chain), key_path)


def _callee_to_json(callee: Callee) -> dict[str, object]:
    return {
        "listener": list(callee.listener),
        "endpoints": [[list(endpoint.instance), endpoint.address, endpoint.port] for endpoint in callee.endpoints],
        "server_name": callee.server_name,
        "policy": _policy_to_json(callee.policy),
        **({} if callee.asks else {"asks": False}),  # recipes that were kept before the word have the same digest
        **({"believes_system": True} if callee.believes_system else {}),  # not in recipes from before the word
    }


def _callee_from_json(data: dict, shared: SharedCallees) -> Callee:  # type: ignore[type-arg]
    listener = ListenerId(*data["listener"])
    known = shared.get(listener)
    if known is not None and known[0] == data:
        return known[1]
    callee = Callee(
        listener=listener,
        endpoints=tuple(Endpoint(InstanceId(*one), address, port) for one, address, port in data["endpoints"]),
        server_name=data["server_name"],
        policy=_policy_from_json(data["policy"]),
        asks=data.get("asks", True),
        believes_system=data.get("believes_system", False),
    )
    shared[listener] = (data, callee)
    return callee
