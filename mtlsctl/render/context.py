"""The variables that a template sees. This page is their reference.

**Every template of a release**

- `service`: the service's name. `process`: the name of the process that it belongs to.
- `release`: the release's name. `folder`: the release's folder on the host, an absolute path.
- `current`: the absolute path of the service's symlink `current` (which exists only for runtimes that use one).
- `home`: the absolute path of the service's folder, in which `current` and the manifest's `links` lie.
- `certificate`, `private_key`: absolute paths of `tls.crt` (chain, end entity first, anchor absent) and `tls.key`.
- `server_names`: every name that the certificate presents. `dns_names`: those of them that a caller can ask for by
  SNI (no addresses, RFC 6066 section 3).
- `listeners`: each with `name`, `is_main` (whether that is its name), `certificate` and `private_key` (absolute paths
  of the chain that it shows, end entity first, and of its key: `tls.crt` and `tls.key`, or where it shows what somebody
  else issued `chains/<listener>.crt` and a key elsewhere on the host), `sockets` (each with `address` or none for every
  address, `port`, and `place`, which is both as one word: `8443`, `10.0.0.1:8443`, `[2001:db8::1]:8443`),
  `client_certificate` (`required`, `optional`, `none`), `protocols` (of `1.2`, `1.3`), `clients_trust` (absolute path
  of the callers' anchors, none when nobody may call), `verify_depth` (CA certificates in the longest chain minus one),
  `callers` (service names), `members` (none when the anchors alone say who gets in; else each leaf that does, with
  `issuer` and `subject`, RFC 4514 texts that are compared as wholes), `forward_identity` (none, or how the program
  behind is to be told who called, once what the caller said about that was removed: `headers` as `X-SSL-Client-*`,
  `rfc9440` as `Client-Cert`).
- `callees`: each with `name` (`service`, or `service.listener` when it is not the main one; the stem of its files),
  `service`, `listener`, `server_name` (the name to send and to check), `endpoints` (each with `address`, `port`,
  `place`), `ports` (each with `port`, its `endpoints`, and `addresses`: those of its endpoints joined by commas,
  none unless all are numeric), `servers_trust` (absolute path of the callee's anchors; none for one that
  is believed by what the machine believes), `verify_depth`, `asks` (whether it asks for a certificate; if
  not, none is to be shown).
- `settings`: every setting of the manifest, none when absent, but for a password. A `callee_ports` setting maps callee
  names to ports; a `choice` is one of its words, to compare with.
- `stores`: absolute paths of the manifest's stores, none where the release holds no such store: `key`, `all_servers`,
  `everyone`, `combined`, and by the name of a listener `clients`, by that of a callee `servers`
  (`stores.servers[callee.name]`). `store_alias`: the alias of the key. `store_password_file`: absolute path of the file
  with their password.
- `store_password`: the password of the stores and of the key in them, only in a file with `secret: true`.
- `callee` or `listener`: the one at hand, in a file with `each`.

**The template of a pointer file**

- `process`: the name of the process.
- `sockets`: every address and port of its services, each once: `address`, `port`, `place`, `protocols`, and the
  absolute paths `certificate` and `private_key` of one of the services there.
- `local_ports`: every port on 127.0.0.1 that a `callee_ports` setting asks for.
- `includes`: each with `service` and `path`, the absolute path of the file that the manifest's `includes` names.
- `longest_name`: the length of the longest server name, in characters.

Values are `Untrusted` and pass a quoting filter on their way out, but for ports, depths, lengths (numbers) and for
`client_certificate`, `forward_identity` and `protocols` (a closed set of words, to compare with and not to print).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.model import files
from mtlsctl.model.files import BASE, CERTIFICATE_FILE, KEY_FILE, RELEASE_NAME
from mtlsctl.model.identifiers import LABEL, DnsId, InvalidIdentifier, IpId, check_identity
from mtlsctl.model.keystore import ALIAS, FILE_NAME
from mtlsctl.model.runtime import SettingType
from mtlsctl.model.topology import MAIN
from mtlsctl.model.trust import OutsideAnchor
from mtlsctl.render.quoting import Untrusted, Unwritable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtlsctl.model.release import Callee, Endpoint, Recipe, ServedListener
    from mtlsctl.model.runtime import Runtime, Setting
    from mtlsctl.model.topology import ListenerId, SettingValue
    from mtlsctl.model.trust import Member, PeerPolicy, TrustAnchor

RELEASE_VARIABLES = frozenset(
    {
        "service",
        "process",
        "release",
        "folder",
        "current",
        "home",
        "certificate",
        "private_key",
        "server_names",
        "dns_names",
        "listeners",
        "callees",
        "settings",
        "stores",
        "store_alias",
        "store_password_file",
    }
)
SECRET_VARIABLES = frozenset({"store_password"})
PROCESS_VARIABLES = frozenset({"process", "sockets", "local_ports", "includes", "longest_name"})
EACH_VARIABLES = frozenset({"callee", "listener"})
NUMBERS = frozenset({"port", "verify_depth", "longest_name"})
"""Variables and attributes that are numbers wherever they stand: the only ones that need no filter."""

_ROOT = re.compile(r"(?:/[A-Za-z0-9._@+-]+)*")
_PROTOCOLS = ("1.2", "1.3")
_LARGEST_PORT = 65_535


class UnfitSetting(ValueError):
    """A setting cannot be rendered for this service; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceView:
    """A socket of ours or an endpoint of a callee."""

    address: Untrusted | None
    port: int
    place: Untrusted


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A leaf that is let in, by the whole text of both names."""

    issuer: Untrusted
    subject: Untrusted


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerView:
    name: Untrusted
    is_main: bool
    certificate: Untrusted
    private_key: Untrusted
    sockets: tuple[PlaceView, ...]
    client_certificate: str
    forward_identity: str | None
    protocols: tuple[str, ...]
    clients_trust: Untrusted | None
    verify_depth: int
    callers: tuple[Untrusted, ...]
    members: tuple[MemberView, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortView:
    port: int
    endpoints: tuple[PlaceView, ...]
    addresses: Untrusted | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeView:
    name: Untrusted
    service: Untrusted
    listener: Untrusted
    server_name: Untrusted
    endpoints: tuple[PlaceView, ...]
    ports: tuple[PortView, ...]
    servers_trust: Untrusted | None
    verify_depth: int
    asks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSocketView:
    address: Untrusted | None
    port: int
    place: Untrusted
    protocols: tuple[str, ...]
    certificate: Untrusted
    private_key: Untrusted


@dataclass(frozen=True, slots=True, kw_only=True)
class IncludeView:
    service: Untrusted
    path: Untrusted


def release_variables(
    recipe: Recipe, release: str, runtime: Runtime, subjects: Mapping[TrustAnchor, str]
) -> dict[str, object]:
    """What every template of this release sees; raises Unwritable or UnfitSetting for what no file may hold.

    `subjects` are those of the anchors under which members are let in by name.
    """
    folder = release_folder(recipe, release)
    service = label(recipe.instance.service)
    _check_doors(recipe, runtime)
    return {
        "service": Untrusted(service),
        "process": Untrusted(label(recipe.process.name)),
        "release": Untrusted(release),
        "folder": Untrusted(folder),
        "current": Untrusted(f"{root_of(recipe)}{BASE}/{service}/current"),
        "home": Untrusted(f"{root_of(recipe)}{BASE}/{service}"),
        "certificate": Untrusted(f"{folder}/{CERTIFICATE_FILE}"),
        "private_key": Untrusted(f"{folder}/{KEY_FILE}"),
        "server_names": tuple(Untrusted(checked_name(name)) for name in recipe.server_names),
        "dns_names": tuple(Untrusted(checked_name(name)) for name in recipe.server_names if not _is_numeric(name)),
        "listeners": tuple(listener_view(one, folder, root_of(recipe), subjects) for one in recipe.listeners),
        "callees": tuple(callee_view(one, folder) for one in recipe.callees),
        "settings": _settings(recipe, runtime),
    }


def _check_doors(recipe: Recipe, runtime: Runtime) -> None:
    """What the inventory and the plan have refused already: a file would say one thing of two, or the wrong one."""
    for served in recipe.listeners:
        if runtime.doors.names and served.name not in runtime.doors.names:
            raise UnfitSetting(f"the runtime `{runtime.name}` has no listener `{label(served.name)}`")
        if runtime.doors.one_port and len(served.sockets) != 1:
            raise UnfitSetting(f"the runtime `{runtime.name}` listens at one place for each listener")


def release_folder(recipe: Recipe, release: str) -> str:
    """The release's folder as the host sees it."""
    if not RELEASE_NAME.fullmatch(release):
        raise Unwritable("a release is named by 16 hex digits")
    return f"{root_of(recipe)}{BASE}/{label(recipe.instance.service)}/releases/{release}"


def clients_file(served: ServedListener) -> str:
    """As `model.files` has it; raises Unwritable for what is no name of ours."""
    return files.clients_file(label(served.name))


def chain_file(served: ServedListener) -> str:
    """As `model.files` has it; raises Unwritable for what is no name of ours."""
    return files.chain_file(label(served.name))


def servers_file(listener: ListenerId) -> str:
    """As `model.files` has it; raises Unwritable for what is no name of ours."""
    return files.servers_file(_checked(listener))


def callee_name(listener: ListenerId) -> str:
    """As `model.files` has it; raises Unwritable for what is no name of ours."""
    return files.callee_name(_checked(listener))


def _checked(listener: ListenerId) -> ListenerId:
    label(listener.service)
    label(listener.listener)
    return listener


def listener_view(served: ServedListener, folder: str, root: str, subjects: Mapping[TrustAnchor, str]) -> ListenerView:
    lets_in, shows = bool(served.policy.anchors), served.shows
    chain = CERTIFICATE_FILE if shows is None else chain_file(served)
    return ListenerView(
        name=Untrusted(label(served.name)),
        is_main=served.name == MAIN,
        certificate=Untrusted(f"{folder}/{chain}"),
        private_key=Untrusted(f"{folder}/{KEY_FILE}" if shows is None else f"{root}{checked_path(shows.key_path)}"),
        sockets=tuple(place_view(socket.address, socket.port) for socket in served.sockets),
        client_certificate=served.client_certificate.value,
        forward_identity=None if served.forward_identity is None else served.forward_identity.value,
        protocols=checked_protocols(served.protocols),
        clients_trust=Untrusted(f"{folder}/{clients_file(served)}") if lets_in else None,
        verify_depth=_verify_depth(served.policy),
        callers=tuple(Untrusted(label(caller)) for caller in served.callers),
        members=_member_views(served.policy, subjects),
    )


def checked_path(text: str) -> str:
    """An absolute path of a file, as `root_of` has it."""
    if not text or not _ROOT.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise Unwritable("the path of a key is absolute, of letters, digits and `._@+-`")
    return text


OUTSIDE_DEPTH = 9
"""Intermediates that a chain from outside may hold where only its root counts; a root's own limit holds besides."""


def _verify_depth(policy: PeerPolicy) -> int:
    """None for our own CAs, nor where names are compared: there the issuer has to be the anchor itself."""
    return OUTSIDE_DEPTH if policy.outsiders and policy.members is None else 0


def _member_views(policy: PeerPolicy, subjects: Mapping[TrustAnchor, str]) -> tuple[MemberView, ...] | None:
    if policy.members is None:
        return None
    if policy.is_mixed:
        raise Unwritable("names cannot be compared for some callers of a listener and not for others")
    pairs = sorted((subjects[one.anchor], _checked_subject(one)) for one in policy.members)
    return tuple(MemberView(issuer=Untrusted(issuer), subject=Untrusted(subject)) for issuer, subject in pairs)


def _checked_subject(member: Member) -> str:
    """The subject as text: a service's, or an identity that every program writes alike."""
    if not isinstance(member.anchor, OutsideAnchor):
        return f"CN={label(member.name)}"
    try:
        check_identity(member.name)
    except InvalidIdentifier as error:
        raise Unwritable(str(error)) from None
    return member.subject


def callee_view(callee: Callee, folder: str) -> CalleeView:
    return CalleeView(
        name=Untrusted(callee_name(callee.listener)),
        service=Untrusted(callee.listener.service),
        listener=Untrusted(callee.listener.listener),
        server_name=Untrusted(checked_name(callee.server_name)),
        endpoints=_endpoint_views(callee.endpoints),
        ports=tuple(_port_view(port, callee.endpoints) for port in sorted({one.port for one in callee.endpoints})),
        servers_trust=None if callee.believes_system else Untrusted(f"{folder}/{servers_file(callee.listener)}"),
        verify_depth=OUTSIDE_DEPTH if callee.is_believed_by_others else 0,
        asks=callee.asks,
    )


def place_view(address: str | None, port: int) -> PlaceView:
    return PlaceView(
        address=None if address is None else Untrusted(checked_address(address)),
        port=checked_port(port),
        place=Untrusted(place(address, port)),
    )


def place(address: str | None, port: int) -> str:
    """Address and port as one word; an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    port = checked_port(port)
    return str(port) if address is None else f"{_bracketed(checked_address(address))}:{port}"


def label(text: str) -> str:
    """A name of ours, which becomes part of paths."""
    if not LABEL.fullmatch(text):
        raise Unwritable("a name is lower case letters, digits and hyphens, at most 63")
    return text


def root_of(recipe: Recipe) -> str:
    """The prefix of every path: nothing, or an absolute path that no syntax reads as a pattern or a step up."""
    if not _ROOT.fullmatch(recipe.root) or {".", ".."} & set(recipe.root.split("/")):
        raise Unwritable("a host's folder is an absolute path of letters, digits and `._@+-`")
    return recipe.root


def checked_name(text: str) -> str:
    """A DNS-ID or IP-ID as it stands in a certificate."""
    try:
        (IpId if _is_numeric(text) else DnsId).parse(text)
    except InvalidIdentifier as error:
        raise Unwritable(str(error)) from None
    return text


def checked_address(text: str) -> str:
    """Where to bind or to dial: numeric, or a DNS name."""
    return checked_name(text)


def checked_port(port: object) -> int:
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _LARGEST_PORT:
        raise Unwritable(f"a port is a number from 1 to {_LARGEST_PORT}")
    return port


def checked_protocols(protocols: Sequence[str]) -> tuple[str, ...]:
    """A subset of TLS 1.2 and 1.3 that is not empty: an empty list would mean a program's own default."""
    if not protocols or not set(protocols) <= set(_PROTOCOLS):
        raise Unwritable("protocols are `1.2` and `1.3`, at least one of them")
    return tuple(protocols)


def _endpoint_views(endpoints: Iterable[Endpoint]) -> tuple[PlaceView, ...]:
    return tuple(place_view(one.address, one.port) for one in endpoints)


def _port_view(port: int, endpoints: Sequence[Endpoint]) -> PortView:
    there = [one for one in endpoints if one.port == port]
    numeric = all(_is_numeric(one.address) for one in there)
    joined = ",".join(_bracketed(one.address) for one in there)
    return PortView(port=port, endpoints=_endpoint_views(there), addresses=Untrusted(joined) if numeric else None)


def _is_numeric(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _settings(recipe: Recipe, runtime: Runtime) -> Mapping[str, object]:
    given = dict(recipe.settings)
    known = {setting.name: setting for setting in runtime.settings}
    for name in sorted(given.keys() - known.keys()):
        raise UnfitSetting(f"the runtime `{runtime.name}` has no setting `{name}`")
    return {
        name: _setting(given.get(name), setting, recipe)
        for name, setting in known.items()
        if setting.type is not SettingType.PASSWORD
    }


def _setting(value: SettingValue | None, setting: Setting, recipe: Recipe) -> object:
    kind = setting.type
    match kind, value:
        case _, None:
            return None
        case SettingType.HTTP_URL, str():
            return _url(value)
        case SettingType.CHOICE, str():
            return _chosen(value, setting)
        case SettingType.FILE_NAME | SettingType.ALIAS, str():
            return _named(value, kind)
        case SettingType.INTEGER, bool():
            pass
        case (SettingType.BOOLEAN, bool()) | (SettingType.INTEGER, int()):
            return value
        case SettingType.CALLEE_PORTS, tuple():
            return {Untrusted(name): port for name, port in local_ports(value, recipe)}
    raise UnfitSetting(f"a setting is not of its type {kind.value}")


def _chosen(value: str, setting: Setting) -> str:
    if value not in setting.values:
        raise UnfitSetting(f"the setting `{setting.name}` is one of {', '.join(setting.values)}")
    return value


def _named(value: str, kind: SettingType) -> Untrusted:
    if not (FILE_NAME if kind is SettingType.FILE_NAME else ALIAS).fullmatch(value):
        raise UnfitSetting(f"a setting is not of its type {kind.value}")
    return Untrusted(value)


def _url(value: str) -> Untrusted:
    if not value.startswith("http://"):
        # Towards https a program would encrypt to anyone: the call belongs into the inventory as an edge.
        raise UnfitSetting("only an `http://` URL can be rendered: an `https` server behind it would not be checked")
    return Untrusted(value)


def local_ports(pairs: Sequence[tuple[str, int]], recipe: Recipe) -> tuple[tuple[str, int], ...]:
    """Callee names with the local port of each. A service whose only called listener is not `main` stands for that.

    A pair without such a callee is left out: between the waves a call may be gone before its setting.
    """
    found = []
    for service, port in pairs:
        doors = [callee.listener for callee in recipe.callees if callee.listener.service == service]
        main = [door for door in doors if door.listener == MAIN]
        if len(doors) > 1 and not main:
            raise UnfitSetting(f"`{label(service)}` is called at several listeners: a local port cannot stand for all")
        found += [(callee_name(door), checked_port(port)) for door in main or doors]
    return tuple(found)
