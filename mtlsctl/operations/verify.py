"""Proof by real handshakes, against running servers or against the applied files in embedded ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from ssl import SSLError
from threading import Lock
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import pointer_sha256
from mtlsctl.deliver.remote import RemoteTransport
from mtlsctl.errors import DeliveryError, MtlsctlError, PreflightError, SealedKeyError, StateLocked, UsageError
from mtlsctl.model.files import KEY_FILE, chain_file, servers_file
from mtlsctl.model.probe import Expectation, Observation, Outcome, Presented, Verdict
from mtlsctl.model.release import HeldFile
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import OUTSIDE, ClientCertificate, Edge, InstanceId, ListenerId, SshHost
from mtlsctl.model.trust import OutsideAnchor, in_order
from mtlsctl.operations.connections import at_each
from mtlsctl.operations.drift import pointer_path
from mtlsctl.operations.issue import intent_of, issuers_of, signing_keys
from mtlsctl.operations.outside import outside_certificate
from mtlsctl.operations.publication import make_receipt
from mtlsctl.operations.settle import served_by
from mtlsctl.pki.keys import generate_key, private_pem
from mtlsctl.pki.probes import (
    PROBE_KEY,
    craft_foreign,
    craft_foreign_outsider,
    draft_probe,
    lint_probe,
    sign_probe,
)
from mtlsctl.pki.stores import to_pem
from mtlsctl.planner.probes import make_probes
from mtlsctl.planner.trust import foreign_doors, outside_members
from mtlsctl.verify.embedded import EmbeddedServers, ListenerKey, listeners_of
from mtlsctl.verify.far import seen_from
from mtlsctl.verify.identity import Identity, identity_of
from mtlsctl.verify.look import check_identity
from mtlsctl.verify.prober import NotProbed, run_probes
from mtlsctl.verify.wire import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.probe import Probe
    from mtlsctl.model.release import Endpoint
    from mtlsctl.model.state import Live, State
    from mtlsctl.model.topology import Inventory
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.operations.workspace import Workspace
    from mtlsctl.store.port import StateReader, StateStore, StateWriter
    from mtlsctl.verify.handshake import Seen

Files = dict[str, HeldFile]
Crafted = dict[tuple[Presented, "InstanceId"], "Identity | NotProbed"]
NOWHERE = ("127.0.0.1", 0)
_ONLY_OF_RUNNING_SERVERS = frozenset({Presented.PLAINTEXT, Presented.OTHER_CA})
"""What an embedded server shows there says nothing about the applied files."""

_MAY_NAME_NONE = frozenset({"pem"})
"""Runtimes whose server is anybody's; nginx and Node name every CA that they are given."""

_OUT_OF_REACH = "M43"
"""How the codes begin that say that a host could not be asked."""

_BELIEVED_ELSEWHERE = NotProbed(reason="callers believe their machine there, which is not tried from a host over SSH")

_NEEDS_THE_CA = frozenset({Presented.EXPIRED, Presented.WRONG_USAGE, Presented.DELIVERED})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What every probe showed. `left_out` forbidden pairs were sampled away; `serial` is the state's.

    `beyond` are declared calls of which one end is not ours: they are left out, and not counted among the probes.
    """

    loaded: LoadedInventory
    embedded: bool
    outcomes: tuple[Outcome, ...]
    left_out: int
    serial: int
    beyond: tuple[Edge, ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(1 for outcome in self.outcomes if outcome.verdict is verdict)


def verify(
    workspace: Workspace,
    *,
    embedded: bool = False,
    quick: bool = False,
    edges: Sequence[str] = (),
    from_hosts: bool = True,
    lock_timeout_seconds: float = 0.0,
    timeout_seconds: float = 5.0,
) -> VerifyReport:
    """Try every declared and every forbidden call; with `embedded` against the applied files in servers of our own.

    Delivered keys are used where they can be read: callers behind SSH call from their own hosts, unless `from_hosts` is
    false, so that the way through the network and the files are proven too. Certificates that have to be crafted with a
    CA's key, such as those that stand in for callers whose owners keep the key, are signed in memory, live for ten
    minutes and are on record; without the encryption key those probes are `not probed`.
    """
    loaded = workspace.load()
    probes = make_probes(loaded.inventory, quick=quick)
    chosen = tuple(one for one in _only(probes.probes, edges) if not embedded or _is_of_files(one))
    with closing(workspace.connections), workspace.store(loaded.inventory.name) as store:
        state = store.snapshot()
        applied = AppliedFiles.read(workspace, state)
        far = _Far(workspace=workspace, state=state) if from_hosts and not embedded else None
        crafted = _craft(store, state, _made_here(chosen, far), applied, workspace, lock_timeout_seconds)
        crafted |= _imitated_from_outside(loaded.inventory, chosen, workspace)
        shown = _shown_by_others(workspace, state, applied) if embedded else {}
        source = _Identities(
            store=store,
            state=state,
            applied=applied,
            crafted=crafted,
            embedded=embedded,
            caller=far,
            shown=shown,
            beliefs=_beliefs(loaded.inventory, state, store),
        )
        with _places(applied, state, shown, embedded=embedded) as connect:
            outcomes = run_probes(
                chosen,
                source,
                connect=connect,
                timeout_seconds=timeout_seconds,
                is_ours=embedded,
                call_far=source.far,
            )
    if not embedded:
        outcomes += _unread(chosen, applied)
    return VerifyReport(
        loaded=loaded,
        embedded=embedded,
        outcomes=tuple(_told_of_stand_in(one, crafted) for one in outcomes),
        left_out=probes.left_out,
        serial=state.serial,
        beyond=() if edges else probes.beyond,
    )


def _told_of_stand_in(outcome: Outcome, crafted: Crafted) -> Outcome:
    """What was not tried with the caller's own certificate says so."""
    probe = outcome.probe
    if probe.presented is not Presented.DELIVERED or probe.caller is None:
        return outcome
    is_stand_in = isinstance(crafted.get((Presented.DELIVERED, probe.caller)), Identity)
    return replace(outcome, stood_in=True) if is_stand_in else outcome


def _is_of_files(probe: Probe) -> bool:
    return probe.presented not in _ONLY_OF_RUNNING_SERVERS


def _unread(probes: Sequence[Probe], applied: AppliedFiles) -> tuple[Outcome, ...]:
    """One outcome for each door whose files could not be read or were altered: what runs may not be what restarts."""
    doors: dict[tuple[object, ...], Probe] = {}
    for probe in probes:
        if probe.endpoint.instance in applied.altered:
            door = probe.listener, probe.endpoint
            if door not in doors or probe.presented is Presented.OTHER_CA:
                doors[door] = probe
    return tuple(
        Outcome(probe=probe, observed=Observation.NOT_PROBED, evidence=applied.altered[probe.endpoint.instance])
        for probe in doors.values()
    )


def _only(probes: tuple[Probe, ...], edges: Sequence[str]) -> tuple[Probe, ...]:
    """The probes of the edges asked for (`caller->listener`), or all; raises UsageError for an edge that is none."""
    if not edges:
        return probes
    wanted = {edge.replace(" ", "") for edge in edges}
    known = {_edge(probe): probe for probe in probes if probe.presented is Presented.DELIVERED}
    unknown = sorted(wanted - known.keys())
    if unknown:
        raise UsageError(
            f"`{unknown[0]}` is no pair of services of this inventory",
            code="M9103",
            help="write it as 'caller->service' or 'caller->service:listener'",
        )
    return tuple(probe for probe in probes if probe.presented is Presented.DELIVERED and _edge(probe) in wanted)


def _edge(probe: Probe) -> str:
    caller = probe.caller.service if probe.caller else ""
    return str(Edge(caller, probe.listener)).replace(" ", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedFiles:
    """The files of every live release as its host holds them now, or why they cannot be had."""

    files: Mapping[InstanceId, Files]
    missing: Mapping[InstanceId, str]
    altered: Mapping[InstanceId, str]
    """Those of `missing` whose host is a directory, so that they could have been read."""

    @classmethod
    def read(cls, workspace: Workspace, state: State) -> AppliedFiles:
        """Reads back through the pointer: what it names now counts, not what the state remembers."""
        files: dict[InstanceId, Files] = {}
        missing: dict[InstanceId, str] = {}
        altered: dict[InstanceId, str] = {}
        hosts = {one.host: workspace.transport_to(state.hosts[one.host]) for one in state.live}

        def read(host: str, transport: Transport) -> None:
            for instance, live in state.live.items():
                if instance.host != host:
                    continue
                try:
                    files[instance] = _read(workspace, state, instance, live, transport)
                except MtlsctlError as error:
                    missing[instance] = error.message
                    if not error.code.startswith(_OUT_OF_REACH):
                        altered[instance] = error.message

        at_each(hosts, read)
        return cls(files=files, missing=missing, altered=altered)

    def of(self, instance: InstanceId) -> Files | NotProbed:
        if instance in self.files:
            return self.files[instance]
        return NotProbed(reason=self.missing.get(instance, f"{instance} is not applied yet"))

    def has_no_key(self, instance: InstanceId) -> bool:
        """Whether its files are there and the key is with its owner, or never leaves its host."""
        return instance in self.files and not self._shows_key(self.files[instance])

    def _shows_key(self, files: Files) -> bool:
        return KEY_FILE in files and files[KEY_FILE].content is not None

    def door_of(self, instance: InstanceId) -> Files | NotProbed:
        """What a server is brought up from."""
        if self.has_no_key(instance):
            keeper = "its host" if KEY_FILE in self.files[instance] else "its owner"
            return NotProbed(reason=f"the key of {instance} is with {keeper}, so no server of ours can show it")
        return self.of(instance)


def _read(workspace: Workspace, state: State, instance: InstanceId, live: Live, transport: Transport) -> Files:
    runtime = workspace.runtimes[live.recipe.runtime]
    pointer = transport.read_pointer(pointer_path(runtime, live.recipe.process))
    if (pointer_sha256(pointer) if pointer else None) != state.pointers.get(live.recipe.process):
        raise DeliveryError(f"{live.recipe.process} was edited since it was applied", code="M4105")
    files = transport.read_release(instance.service, live.receipt.release)
    if make_receipt(live.receipt.release, live.receipt.release_digest, files) != live.receipt:
        raise DeliveryError(f"the release of {instance} was altered since it was applied", code="M4110")
    return files


Shown = Mapping[ListenerKey, "Identity | NotProbed"]
"""What embedded servers show in place of the instance's own leaf."""


def _shown_by_others(workspace: Workspace, state: State, applied: AppliedFiles) -> Shown:
    """Certificates that somebody else issued, with their keys from where the host has them."""
    shown: dict[ListenerKey, Identity | NotProbed] = {}
    for instance, files in applied.files.items():
        for served in state.live[instance].recipe.listeners:
            if served.shows is not None:
                transport = workspace.transport_to(state.hosts[instance.host])
                try:
                    key = transport.borrow_key(served.shows.key_path)
                except DeliveryError as error:
                    made: Identity | NotProbed = NotProbed(reason=error.message)
                else:
                    chain = files[chain_file(served.name)].read()
                    made = _identity(chain, key, transport.shown(served.shows.key_path))
                shown[ListenerKey(instance, served.name)] = _that_loads(made, served.shows.key_path)
    return shown


def _identity(chain: bytes, key: HeldFile, place: str) -> Identity | NotProbed:
    if key.content is None:
        return NotProbed(reason=f"the key at {place} stays there")
    return Identity(chain=chain, key=Secret(key.content))


def _that_loads(identity: Identity | NotProbed, path: str) -> Identity | NotProbed:
    if isinstance(identity, NotProbed):
        return identity
    try:
        check_identity(identity)
    except SSLError:
        return NotProbed(reason=f"the key at {path} does not belong to the certificate that is shown")
    return identity


def _beliefs(inventory: Inventory, state: State, store: StateReader) -> dict[ListenerId, bytes | None]:
    """By which anchors callers believe the doors that show a certificate of somebody else; None: their machine's."""
    foreign = foreign_doors(inventory, {instance: live.recipe for instance, live in state.live.items()})
    beliefs: dict[ListenerId, bytes | None] = {}
    for service in inventory.services.values() if foreign else ():
        for listener in service.listeners:
            shown = listener.server_certificate
            if shown is not None:
                ders = [inventory.certificates[one].der for one in shown.trust]
                beliefs[ListenerId(service.name, listener.name)] = to_pem(ders) if ders else None
    for live in state.live.values() if foreign else ():
        for callee in live.recipe.callees:
            if callee.listener in foreign:
                ders = [_certificate(store, anchor) for anchor in in_order(callee.policy.anchors)]
                beliefs[callee.listener] = to_pem(ders) if ders else None
    return beliefs


def _certificate(store: StateReader, anchor: TrustAnchor) -> bytes:
    return outside_certificate(store, anchor) if isinstance(anchor, OutsideAnchor) else store.certificate(anchor)


@contextmanager
def _places(
    applied: AppliedFiles, state: State, shown: Shown, *, embedded: bool
) -> Iterator[Callable[[Endpoint], tuple[str, int]]]:
    """Where a listener is dialled: at its host, or at an embedded server that holds its applied files."""
    if not embedded:
        yield lambda endpoint: (endpoint.address, endpoint.port)
        return
    recipes = {one: state.live[one].recipe for one in applied.files if not applied.has_no_key(one)}
    doors = {
        (instance, socket.port): ListenerKey(instance, served.name)
        for instance, recipe in recipes.items()
        for served in recipe.listeners
        for socket in served.sockets
    }
    listeners = [
        one
        for instance, recipe in recipes.items()
        for one in listeners_of(recipe, applied.files[instance], state, _of_instance(instance, shown))
    ]
    up = {one.key for one in listeners}
    doors = {place: key for place, key in doors.items() if key in up}
    with EmbeddedServers(listeners) as servers:

        def place(endpoint: Endpoint) -> tuple[str, int]:
            door = doors.get((endpoint.instance, endpoint.port))
            return servers.address_of(door) if door else NOWHERE

        yield place


def _of_instance(instance: InstanceId, shown: Shown) -> dict[str, Identity]:
    return {key.listener: one for key, one in shown.items() if key.instance == instance and isinstance(one, Identity)}


def _craft(
    store: StateStore,
    state: State,
    probes: Sequence[Probe],
    applied: AppliedFiles,
    workspace: Workspace,
    lock_timeout_seconds: float,
) -> Crafted:
    """Every certificate that the probes need and nobody here holds, by kind and imitated caller."""
    wanted = {
        (one.presented, one.caller)
        for one in probes
        if one.caller
        and not one.caller.is_outside
        and (one.presented is not Presented.DELIVERED or applied.has_no_key(one.caller))
    }
    crafted: Crafted = {}
    for kind, caller in wanted:
        if caller not in state.live:
            crafted[kind, caller] = NotProbed(reason=f"{caller} is not applied yet, so there is nothing to imitate")
        elif kind is Presented.FOREIGN_CA:
            crafted[kind, caller] = _foreign(store, state, caller, workspace)
    signed = sorted(one for one in wanted - crafted.keys() if one[0] in _NEEDS_THE_CA)
    try:
        with store.lock(command="verify", timeout_seconds=lock_timeout_seconds) as writer:
            return crafted | _sign_probes(writer, state, signed, workspace)
    except (SealedKeyError, StateLocked, PreflightError) as error:
        return crafted | {one: NotProbed(reason=error.message) for one in signed}


def _imitated_from_outside(inventory: Inventory, probes: Sequence[Probe], workspace: Workspace) -> Crafted:
    """Certificates that say what those of callers from outside say, by whom nobody vouches."""
    wanted = {one.caller for one in probes if one.caller is not None and one.caller.is_outside}
    if not wanted:
        return {}
    crafted: Crafted = {}
    for service in inventory.services.values():
        for listener in service.listeners:
            for outsider in listener.outsiders:
                caller = InstanceId(outsider.name, OUTSIDE)
                if caller in wanted:
                    made = craft_foreign_outsider(
                        inventory.certificates[outsider.certificates[0]].der,
                        min(one.subject for one in outside_members(outsider) if one.name)
                        if outsider.identities
                        else f"CN={outsider.name}",
                        now=workspace.clock(),
                    )
                    crafted[Presented.FOREIGN_CA, caller] = Identity(chain=made.chain, key=made.key)
    return crafted


def _foreign(store: StateReader, state: State, caller: InstanceId, workspace: Workspace) -> Identity:
    leaf = store.certificate(state.live[caller].recipe.credential)
    made = craft_foreign(leaf, now=workspace.clock())
    return Identity(chain=made.chain, key=made.key)


def _sign_probes(
    writer: StateWriter, state: State, wanted: Sequence[tuple[Presented, InstanceId]], workspace: Workspace
) -> Crafted:
    """Draft, record, lint, sign: the same order as for what is delivered; the certificates themselves are not kept."""
    if not wanted:
        return {}
    now = workspace.clock()
    profiles = {one: state.credentials[state.live[one[1]].recipe.credential].profile for one in wanted}
    alone = [one for one, profile in profiles.items() if profile.authority.is_leaf]
    reason = "its leaf signs itself with a key that never leaves its host: mtlsctl verify --from host"
    unsigned: Crafted = {one: NotProbed(reason=reason) for one in alone}
    profiles = {one: profile for one, profile in profiles.items() if one not in unsigned}
    keys = {one: generate_key(PROBE_KEY) for one in profiles}
    issuers = issuers_of(writer, {profile.authority for profile in profiles.values()})
    signers = signing_keys(writer, issuers)
    drafts = {
        one: draft_probe(one[0], profile, keys[one].public_key(), issuers[profile.authority], now=now)
        for one, profile in profiles.items()
    }
    intents = [intent_of(draft) for draft in drafts.values()]
    writer.record_intents(intents)
    linted = {one: lint_probe(draft) for one, draft in drafts.items()}
    writer.record_signing(intents)
    signed = {one: sign_probe(draft, signers[profiles[one].authority]) for one, draft in linted.items()}
    writer.record_probe_signed(intents)
    return unsigned | {one: Identity(chain=to_pem([der]), key=private_pem(keys[one])) for one, der in signed.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Far:
    """Calls that are made on the caller's own host, one at a time for each."""

    workspace: Workspace
    state: State
    locks: dict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))

    def makes(self, probe: Probe) -> bool:
        """Whether it is a call of a service behind SSH with the key that was delivered to it or born there."""
        if probe.presented is not Presented.DELIVERED or probe.caller is None or probe.caller not in self.state.live:
            return False
        return isinstance(self.state.hosts[probe.caller.host], SshHost)

    def call(self, probe: Probe, anchors: str | bytes) -> Seen | NotProbed:
        caller = probe.caller
        assert caller is not None  # noqa: S101  `makes` was asked
        transport = self.workspace.transport_to(self.state.hosts[caller.host])
        assert isinstance(transport, RemoteTransport)  # noqa: S101  its host is behind SSH
        try:
            with self.locks[caller.host]:
                done = transport.call(
                    caller.service,
                    self.state.live[caller].receipt.release,
                    anchors=anchors,
                    address=probe.endpoint.address,
                    port=probe.endpoint.port,
                    server_name=probe.server_name,
                    protocol=probe.protocol,
                )
        except DeliveryError as error:
            return NotProbed(reason=error.message)
        return seen_from(*done)


def _made_here(probes: Sequence[Probe], far: _Far | None) -> tuple[Probe, ...]:
    return tuple(one for one in probes if far is None or not far.makes(one))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identities:
    """What each probe presents and believes; reads keys from applied files, never from the state."""

    store: StateReader
    state: State
    applied: AppliedFiles
    crafted: Mapping[tuple[Presented, InstanceId], Identity | NotProbed]
    embedded: bool
    caller: _Far | None
    shown: Shown
    beliefs: Mapping[ListenerId, bytes | None]
    lock: Lock = field(default_factory=Lock)

    def far(self, probe: Probe) -> Seen | NotProbed | None:
        if self.caller is None or not self.caller.makes(probe):
            return None
        anchors = self._far_anchors(probe)
        return anchors if isinstance(anchors, NotProbed) else self.caller.call(probe, anchors)

    def _far_anchors(self, probe: Probe) -> str | bytes | NotProbed:
        """A declared caller believes what lies in its own release, any other what makes a refusal sure to be one."""
        assert probe.caller is not None  # noqa: S101  it makes the call
        if probe.expected is Expectation.ALLOWED and self._calls(probe.caller, probe):
            if self._believes_its_machine(probe.caller, probe):
                return _BELIEVED_ELSEWHERE
            return servers_file(probe.listener)
        anchors = self.anchors(probe)
        return _BELIEVED_ELSEWHERE if anchors is None else anchors

    def identity(self, probe: Probe) -> Identity | NotProbed | None:
        if probe.caller is None:
            return None
        if probe.presented is Presented.DELIVERED and not self.applied.has_no_key(probe.caller):
            files = self.applied.of(probe.caller)
            return files if isinstance(files, NotProbed) else identity_of(files)
        return self.crafted[probe.presented, probe.caller]

    def anchors(self, probe: Probe) -> bytes | NotProbed | None:
        closed = self._closed(probe) if self.embedded else None
        if closed is not None:
            return closed
        if probe.caller is not None and probe.expected is Expectation.ALLOWED and self._calls(probe.caller, probe):
            files = self.applied.of(probe.caller)
            path = servers_file(probe.listener)
            if isinstance(files, NotProbed):
                return files
            if self._believes_its_machine(probe.caller, probe):
                return None
            return files[path].read() if path in files else NotProbed(reason=f"{probe.caller} holds no {path}")
        return self._anchors_of_server(probe)

    def _anchors_of_server(self, probe: Probe) -> bytes | NotProbed | None:
        live = self.state.live.get(probe.endpoint.instance)
        if live is None:
            return NotProbed(reason=f"{probe.endpoint.instance} is not applied yet")
        served = live.recipe.served(probe.listener.listener)
        if served is not None and served.shows is not None and probe.listener in self.beliefs:
            return self.beliefs[probe.listener]
        anchor = self.state.credentials[live.recipe.credential].profile.anchor
        with self.lock:
            return to_pem([self.store.certificate(anchor)])

    def _calls(self, caller: InstanceId, probe: Probe) -> bool:
        """Whether it is declared to call, so that it holds what it believes; another member may only get in."""
        live = self.state.live.get(caller)
        return live is None or live.recipe.called(probe.listener) is not None

    def _closed(self, probe: Probe) -> NotProbed | None:
        """Why there is no embedded server for a door."""
        door = self.applied.door_of(probe.endpoint.instance)
        shown = self.shown.get(ListenerKey(probe.endpoint.instance, probe.listener.listener))
        return next((one for one in (door, shown) if isinstance(one, NotProbed)), None)

    def _believes_its_machine(self, caller: InstanceId, probe: Probe) -> bool:
        live = self.state.live.get(caller)
        callee = live.recipe.called(probe.listener) if live is not None else None
        return callee is not None and callee.believes_system

    def served(self, probe: Probe) -> Served | NotProbed:
        """By the live recipe; a listener without callers is to refuse every handshake, or to ask for no CA."""
        instance = probe.endpoint.instance
        live = self.state.live.get(instance)
        listener = live.recipe.served(probe.listener.listener) if live else None
        if live is None or listener is None:
            return NotProbed(reason=f"{probe.listener} of {instance} is not applied yet")
        host = self.state.hosts[instance.host]
        if not listener.callers and listener.client_certificate is not ClientCertificate.NONE:
            nobody, name = frozenset[bytes](), probe.server_name
            return Served(
                address=host.address,
                port=probe.endpoint.port,
                server_name=name,
                certificate_sha256=None,
                ca_names=nobody,
            )
        with self.lock:
            (served, *_) = served_by([replace(live.recipe, listeners=(listener,))], host, self.state, self.store)
        return replace(served, may_name_none=live.recipe.runtime in _MAY_NAME_NONE, lets_in_anybody=None)
