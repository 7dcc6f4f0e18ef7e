"""The services: where they run, which doors they open and to whom."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.outside import Beyond, read_outsiders
from mtlsctl.inventory.policies import Policies, read_policies, read_trust
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.requests import read_requests
from mtlsctl.inventory.server_certificates import BELIEVED, SHOWN, read_server_certificate
from mtlsctl.inventory.settings import read_settings
from mtlsctl.inventory.source import Map, Seq
from mtlsctl.inventory.words import map_of, seq_of
from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.runtime import Role
from mtlsctl.model.topology import (
    MAIN,
    Authorize,
    Bind,
    Caller,
    ClientCertificate,
    ForwardIdentity,
    Listener,
    Service,
    TrustModel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from mtlsctl.inventory.certificates import CertificateFiles
    from mtlsctl.inventory.problems import Place
    from mtlsctl.inventory.source import Node
    from mtlsctl.inventory.words import Words
    from mtlsctl.model.runtime import Runtime

UNBUILT_RUNTIMES: Final = frozenset({"go", "haproxy", "kafka", "postgresql", "python", "tomcat"})

_SERVICE_NAME = grammar.label("a service", grammar.MAX_SERVICE)
_LISTENER_NAME = grammar.label("a listener")
_BIND = grammar.choice({bind.value: bind for bind in Bind})
_PROTOCOL = grammar.choice({"1.2": "1.2", "1.3": "1.3"})
_CLIENT_CERTIFICATE = grammar.choice({mode.value: mode for mode in ClientCertificate})
_BOTH = ("1.2", "1.3")
_AUTHORIZE = grammar.choice({one.value: one for one in Authorize})
_FORWARD = grammar.choice({one.value: one for one in ForwardIdentity})
_MANNER = frozenset({"bind", "client_certificate", "authorize", "forward_identity"})
_SHORT_FORM = ("listen", "callers", "bind", "client_certificate", "authorize", "forward_identity", SHOWN, BELIEVED)


class Neighbours:
    """All that a service may name. What was refused stays known here, so that nothing follows from it."""

    def __init__(
        self,
        words: Words,
        hosts: Map | None,
        services: Map | None,
        runtimes: Mapping[str, Runtime],
        external_servers: Seq | None = None,
    ) -> None:
        self.hosts = _declared(hosts)
        self.services = _declared(services)
        self.external_servers = frozenset(filter(None, map(_name_of, external_servers or ())))
        self.runtimes = runtimes
        self._external_servers = external_servers
        self.are_hosts_known = hosts is not None
        self._nodes = services
        self._words = words
        self._callees: dict[str, set[str]] | None = None
        self._doubtful = set() if services is None else set(services.lost)
        self.mute = frozenset(name for name, node in _maps(services) if self._cannot_call(node))
        self.dubious_hosts = frozenset(filter(grammar.taken_for, self.hosts))
        self.surely_callers = self.services - self.mute - frozenset(filter(grammar.taken_for, self.services))

    def _cannot_call(self, node: Map) -> bool:
        name = node.get("runtime")
        runtime = self.runtimes.get(name) if isinstance(name, str) else None
        return runtime is not None and Role.CALLER not in runtime.roles

    def callees_of(self, service: str) -> AbstractSet[str]:
        """The services that let this one in, and those of which that is not known."""
        if self._callees is None:
            self._callees = {}
            for name, node in _maps(self._nodes):
                if _has_lost_callers(node):
                    self._doubtful.add(name)
                for callers in _caller_lists(node):
                    for caller in callers:
                        if isinstance(caller, str):
                            self._callees.setdefault(caller, set()).add(name)
            for server in self._external_servers or ():
                for caller in (isinstance(server, Map) and seq_of(server, "callers")) or ():
                    if isinstance(caller, str) and (called := _name_of(server)):
                        self._callees.setdefault(caller, set()).add(called)
        known: AbstractSet[str] = self._callees.get(service, frozenset())
        return known | self._doubtful if self._doubtful else known


def _name_of(node: Node) -> str | None:
    name = node.get("name") if isinstance(node, Map) else None
    return name if isinstance(name, str) else None


def _declared(node: Map | None) -> AbstractSet[str]:
    return frozenset() if node is None else node.keys() | node.lost


def _maps(node: Map | None) -> Iterator[tuple[str, Map]]:
    for name, value in () if node is None else node.items():
        if isinstance(value, Map):
            yield name, value


def _caller_lists(node: Map) -> Iterator[Seq]:
    listeners = seq_of(node, "listeners") or ()
    for one in (node, *listeners):
        if isinstance(one, Map) and (callers := seq_of(one, "callers")) is not None:
            yield callers


def _has_lost_callers(node: Map) -> bool:
    """Whether something was refused that may have named a caller."""
    listeners = seq_of(node, "listeners")
    if "listeners" in node.lost or (listeners is not None and listeners.is_holed):
        return True
    doors = [node, *(one for one in listeners or () if isinstance(one, Map))]
    return any("callers" in door.lost for door in doors) or any(callers.is_holed for callers in _caller_lists(node))


class _Subject(NamedTuple):
    """The service that is being read."""

    words: Words
    name: str
    at: Place
    node: Map
    neighbours: Neighbours
    runtime: Runtime | None
    beyond: Beyond


def read_services(
    words: Words, nodes: Map, estate: str, neighbours: Neighbours, defaults: Policies, files: CertificateFiles
) -> dict[str, Service]:
    """The services whose words could all be read, in the order of the inventory; `files` reads what they name."""
    services: dict[str, Service] = {}
    beyond = Beyond(words=words, files=files, taken=neighbours.services | neighbours.external_servers)
    for name, node in _maps(nodes):
        at = nodes.keys_at[name]
        if words.parsed(name, at, _SERVICE_NAME, is_name=True) is None:
            continue
        runtime = _runtime(words, node, neighbours.runtimes)
        subject = _Subject(
            words=words, name=name, at=at, node=node, neighbours=neighbours, runtime=runtime, beyond=beyond
        )
        service = _read_service(subject, estate, defaults)
        if service is not None:
            services[name] = service
    return services


def _read_service(subject: _Subject, estate: str, defaults: Policies) -> Service | None:
    words, node, name = subject.words, subject.node, subject.name
    trust = read_trust(words, map_of(node, "trust"), defaults.trust)
    inherited = defaults if trust is defaults.trust else replace(defaults, trust=trust)
    own = read_policies(words, map_of(node, "certificate"), _own_authority(subject, trust), inherited)
    hosts = _hosts(subject)
    names = _names(subject, estate)
    listeners = _listeners(subject)
    addresses = words.read(node, "addresses", grammar.switch, default=False)
    requests = read_requests(words, name, node, hosts, trust, subject.beyond.files.root)
    runtime = subject.runtime
    if runtime is None:
        return None
    if listeners:
        _check_can_listen(subject, runtime)
    settings_node = map_of(node, "settings")
    settings = (
        ()
        if "settings" in node.lost
        else read_settings(words, settings_node, runtime, name, subject.at, subject.neighbours.callees_of)
    )
    return Service(
        name=name,
        runtime=runtime.name,
        hosts=hosts,
        names=names,
        addresses=addresses,
        listeners=listeners,
        settings=settings,
        certificate=own.certificate,
        authority=own.authority,
        trust=trust,
        requests=requests,
        span=words.problems.sources.span(subject.at, name),
    )


def _own_authority(subject: _Subject, trust: TrustModel) -> Map | None:
    """The words about the service's CA; under another trust model it has none, and they are refused."""
    node = map_of(subject.node, "certification_authority")
    if node is not None and trust is not TrustModel.SERVICE_CA:
        at = subject.node.keys_at["certification_authority"]
        message = f"`{subject.name}` has no CA of its own under `{trust}`"
        advice = "the shared CA is described once, under the inventory's `trust: { certification_authority: ... }`"
        remedy = advice if trust is TrustModel.SHARED_CA else None
        subject.words.problems.add(codes.CONFLICTING_KEYS, message, at, "certification_authority", help=remedy)
        return None
    return node


def _runtime(words: Words, node: Map, runtimes: Mapping[str, Runtime]) -> Runtime | None:
    name = node.get("runtime")
    if not isinstance(name, str):
        return None
    if name in runtimes:
        return runtimes[name]
    at = node.values_at["runtime"]
    if not words.is_text(name, at):
        return None
    if name in UNBUILT_RUNTIMES:
        words.problems.add(codes.NOT_BUILT, f"the runtime `{name}` is not built yet", at, name)
        return None
    advice = words.did_you_mean(name, runtimes) or f"there is {', '.join(sorted(runtimes))}"
    words.problems.add(codes.UNKNOWN_RUNTIME, f"unknown runtime `{shown(name)}`", at, name, help=advice)
    return None


def _hosts(subject: _Subject) -> tuple[str, ...]:
    """The known hosts of the service; it has one at least, or that is reported."""
    words, items, neighbours = subject.words, seq_of(subject.node, "hosts"), subject.neighbours
    if items is None:
        return ()
    if not items and not items.is_holed:
        at = subject.node.keys_at["hosts"]
        words.problems.add(codes.NO_HOSTS, f"`{subject.name}` has no hosts", at, "hosts")
    hosts: list[str] = []
    for host, at in words.unrepeated(items, "host"):
        if host in neighbours.dubious_hosts and not words.is_text(host, at):
            continue
        if host in neighbours.hosts:
            hosts.append(host)
        elif neighbours.are_hosts_known and words.is_text(host, at):
            advice = words.did_you_mean(host, neighbours.hosts)
            message = f"unknown host `{shown(host)}`"
            words.problems.add(codes.UNKNOWN_HOST, message, at, host, label="no host has this name", help=advice)
    return tuple(hosts)


def _names(subject: _Subject, estate: str) -> tuple[DnsId, ...]:
    words, items = subject.words, seq_of(subject.node, "names")
    found = (
        []
        if items is None
        else [
            name
            for text, at in words.unrepeated(items, "name")
            if (name := words.parsed(text, at, grammar.dns_name, is_name=True)) is not None
        ]
    )
    unique = tuple(dict.fromkeys(found) if len(found) > 1 else found)
    if items is not None and len(unique) < len(found):
        at = subject.node.keys_at["names"]
        words.problems.add(codes.REPEATED, "a name stands twice: upper and lower case are the same", at, "names")
    return unique or (DnsId(f"{subject.name}.{estate}.internal"),)


def _listeners(subject: _Subject) -> tuple[Listener, ...]:
    node, words = subject.node, subject.words
    if "listeners" not in node:
        return _short_form(subject)
    for key in _SHORT_FORM:
        if key in node:
            related = [(words.problems.sources.span(node.keys_at["listeners"], "listeners"), "the long form")]
            message = f"`{key}` is of the short form, and `{subject.name}` has `listeners`"
            words.problems.add(codes.CONFLICTING_KEYS, message, node.keys_at[key], key, related=related)
    items = seq_of(node, "listeners") or Seq(0)
    found = [_long_form(subject, one, len(items)) for one in items if isinstance(one, Map)]
    listeners = [one for one in found if one is not None]
    _refuse_repeated(subject, items)
    _check_door_names(subject, items)
    return tuple(listeners)


def _short_form(subject: _Subject) -> tuple[Listener, ...]:
    node, words = subject.node, subject.words
    if "listen" not in node:
        for key in _SHORT_FORM[1:]:
            if key in node and "listen" not in node.lost and "listeners" not in node.lost:
                message = f"`{subject.name}` has `{key}` and no `listen`"
                advice = "say on which port it listens: `listen: 8443`"
                words.problems.add(codes.CONFLICTING_KEYS, message, node.keys_at[key], key, help=advice)
        return ()
    port = words.read(node, "listen", grammar.port, None)
    at = node.values_at["listen"]
    manner = _manner(subject, node)
    callers = _callers(subject, node, at, manner.client_certificate)
    outsiders = read_outsiders(subject.beyond, seq_of(node, "callers"))
    shown = read_server_certificate(subject.beyond, node, subject.runtime)
    if port is None:
        return ()
    return (
        Listener(
            port=port,
            bind=manner.bind,
            client_certificate=manner.client_certificate,
            authorize=manner.authorize,
            forward_identity=manner.forward_identity,
            callers=callers,
            outsiders=outsiders,
            server_certificate=shown,
            span=words.problems.sources.span(at, str(port)),
        ),
    )


def _long_form(subject: _Subject, node: Map, count: int) -> Listener | None:
    words = subject.words
    name = words.read(node, "name", _LISTENER_NAME, MAIN, is_name=True)
    if count > 1 and "name" not in node and "name" not in node.lost:
        at = node.keys_at.get("port", node.at)
        words.problems.add(codes.UNNAMED_LISTENER, f"each of several listeners of `{subject.name}` needs a `name`", at)
    port = words.read(node, "port", grammar.port, None)
    at = node.values_at.get("port", node.at)
    manner = _manner(subject, node)
    protocols = _protocols(words, node)
    callers = _callers(subject, node, at, manner.client_certificate)
    outsiders = read_outsiders(subject.beyond, seq_of(node, "callers"))
    shown = read_server_certificate(subject.beyond, node, subject.runtime)
    if port is None:
        return None
    return Listener(
        name=name,
        port=port,
        bind=manner.bind,
        client_certificate=manner.client_certificate,
        protocols=protocols,
        authorize=manner.authorize,
        forward_identity=manner.forward_identity,
        callers=callers,
        outsiders=outsiders,
        server_certificate=shown,
        span=words.problems.sources.span(at, str(node["port"])),
    )


class _Manner(NamedTuple):
    """What four words say of a listener; few have any of them."""

    bind: Bind = Bind.ALL
    client_certificate: ClientCertificate = ClientCertificate.REQUIRED
    authorize: Authorize = Authorize.CALLERS
    forward_identity: ForwardIdentity | None = None


_USUAL = _Manner()


def _manner(subject: _Subject, node: Map) -> _Manner:
    if _MANNER.isdisjoint(node):
        return _USUAL
    words, mode = subject.words, _mode(subject, node)
    return _Manner(
        bind=words.read(node, "bind", _BIND, Bind.ALL),
        client_certificate=mode,
        authorize=words.read(node, "authorize", _AUTHORIZE, Authorize.CALLERS),
        forward_identity=_forwarding(subject, node, mode),
    )


def _mode(subject: _Subject, node: Map) -> ClientCertificate:
    """What the door asks of callers, as far as its runtime can enforce it; anything else is reported."""
    mode = subject.words.read(node, "client_certificate", _CLIENT_CERTIFICATE, ClientCertificate.REQUIRED)
    runtime = subject.runtime
    if "client_certificate" not in node or runtime is None or Role.SERVER not in runtime.roles:
        return mode
    able = runtime.enforcement.client_certificate
    if mode not in able:
        subject.words.problems.add(
            codes.MODE_NOT_ENFORCED,
            f"the runtime `{runtime.name}` cannot enforce `client_certificate: {mode}`",
            node.values_at["client_certificate"],
            mode.value,
            help="it can: " + ", ".join(one.value for one in ClientCertificate if one in able),
        )
    return mode


def _forwarding(subject: _Subject, node: Map, mode: ClientCertificate) -> ForwardIdentity | None:
    """How the program behind is told who called, if it is to be; what the runtime cannot do is reported."""
    words, runtime = subject.words, subject.runtime
    form = words.read(node, "forward_identity", _FORWARD, None)
    if form is None:
        return None
    at = node.values_at["forward_identity"]
    if mode is ClientCertificate.NONE:
        related = [(words.problems.sources.span(node.values_at["client_certificate"], mode.value), "nobody shows one")]
        message = "there is no identity to forward where no certificate is asked for"
        words.problems.add(codes.CONFLICTING_KEYS, message, at, form.value, related=related)
    elif runtime is not None and Role.SERVER in runtime.roles and form not in runtime.enforcement.forward_identity:
        words.problems.add(
            codes.CANNOT_FORWARD,
            f"the runtime `{runtime.name}` cannot forward the caller's identity as `{form}`",
            at,
            form.value,
            help=runtime.enforcement.why_not(form),
        )
    return form


def _refuse_repeated(subject: _Subject, items: Seq) -> None:
    first: dict[str, Map] = {}
    for node in items:
        name = node.get("name") if isinstance(node, Map) else None
        if not isinstance(node, Map) or not isinstance(name, str):
            continue
        other = first.setdefault(name, node)
        if other is not node:
            span = subject.words.problems.sources.span(other.values_at["name"], name)
            message = f"two listeners of `{subject.name}` have the name `{shown(name)}`"
            at = node.values_at["name"]
            subject.words.problems.add(codes.REPEATED_LISTENER, message, at, name, related=[(span, "the other one")])


def _check_door_names(subject: _Subject, items: Seq) -> None:
    """A program whose configuration has places for certain listeners has none for others."""
    names = () if subject.runtime is None else subject.runtime.doors.names
    for node in items:
        name = node.get("name") if isinstance(node, Map) else None
        if names and isinstance(node, Map) and isinstance(name, str) and name not in names:
            at, advice = node.values_at["name"], f"its listeners are {' and '.join(names)}"
            message = f"a service with the runtime `{subject.node['runtime']}` has no listener `{shown(name)}`"
            subject.words.problems.add(codes.LISTENER_NAME, message, at, name, help=advice)


def _protocols(words: Words, node: Map) -> tuple[str, ...]:
    items = seq_of(node, "protocols")
    if items is None:
        return _BOTH
    found = [words.parsed(text, at, _PROTOCOL) for text, at in words.unrepeated(items, "protocol")]
    if not items and not items.is_holed:
        words.problems.add(codes.NO_VALUE, "`protocols` has no value", node.keys_at["protocols"], "protocols")
    return tuple(sorted(one for one in found if one is not None)) or _BOTH


def _callers(subject: _Subject, node: Map, door_at: Place, mode: ClientCertificate) -> tuple[Caller, ...]:
    """Those who may call; a door for nobody needs a runtime that can say so."""
    items = seq_of(node, "callers")
    if not items:
        if "callers" not in node.lost and not (items is not None and items.is_holed):
            _check_without_callers(subject, node, door_at, mode)
        return ()
    words, surely_callers, own = subject.words, subject.neighbours.surely_callers, subject.name
    known = words.unrepeated(items, "caller")
    named = {name for name, _ in known}
    if own in named or not named <= surely_callers:
        known = [(name, at) for name, at in known if _is_caller(subject, name, at)]
    spans = words.problems.sources.spans(known)
    return tuple([Caller(service=name, span=span) for (name, _), span in zip(known, spans, strict=True)])


def _is_caller(subject: _Subject, name: str, at: Place) -> bool:
    """Whether the word names a service that can call this one; anything else is reported."""
    words, neighbours = subject.words, subject.neighbours
    if not words.is_text(name, at):
        return False
    if name not in neighbours.services:
        advice = words.did_you_mean(name, neighbours.services)
        label = "no service has this name"
        words.problems.add(codes.UNKNOWN_CALLER, f"unknown caller `{shown(name)}`", at, name, label=label, help=advice)
        return False
    if name == subject.name:
        words.problems.add(codes.CALLS_ITSELF, f"`{name}` is declared as its own caller", at, name)
        return False
    if name in neighbours.mute:
        words.problems.add(codes.CANNOT_CALL, f"`{name}` cannot call: its runtime only listens", at, name)
        return False
    return True


def _check_without_callers(subject: _Subject, node: Map, door_at: Place, mode: ClientCertificate) -> None:
    match mode:
        case ClientCertificate.NONE:
            pass  # Anybody may call, whoever is configured to.
        case ClientCertificate.OPTIONAL:
            subject.words.problems.add(
                codes.OPTIONAL_FOR_NOBODY,
                f"`{subject.name}` lets in callers with and without a certificate here, and has no callers",
                node.values_at["client_certificate"],
                mode.value,
                help="name its callers; or say `none` where anybody may call, `required` where nobody may",
            )
        case ClientCertificate.REQUIRED:
            _check_can_refuse_all(subject, node, door_at)


def _check_can_refuse_all(subject: _Subject, node: Map, door_at: Place) -> None:
    runtime = subject.runtime
    if runtime is None or runtime.enforcement.refuse_all or Role.SERVER not in runtime.roles:
        return
    word = node.get("listen", node.get("port", ""))
    message = f"nobody may call `{subject.name}` here, and its runtime `{runtime.name}` cannot refuse everybody"
    text = word if isinstance(word, str) else ""
    subject.words.problems.add(codes.NO_CALLERS, message, door_at, text, help="name its callers, or drop the listener")


def _check_can_listen(subject: _Subject, runtime: Runtime) -> None:
    if Role.SERVER in runtime.roles:
        return
    key = "listen" if "listen" in subject.node else "listeners"
    message = f"`{subject.name}` listens, and its runtime `{runtime.name}` only calls"
    subject.words.problems.add(codes.CANNOT_LISTEN, message, subject.node.keys_at[key], key)
