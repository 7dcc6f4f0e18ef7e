"""A runtime as the planner knows it: what it can enforce, what it wants, how it is checked and reloaded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtlsctl.model.release import Recipe

from mtlsctl.model.topology import ClientCertificate, ForwardIdentity


class Role(StrEnum):
    SERVER = "server"
    CALLER = "caller"


class ProcessScope(StrEnum):
    """What one check and one reload act on: all instances of the runtime on a host, or each instance alone."""

    HOST = "host"
    INSTANCE = "instance"


class PointerKind(StrEnum):
    """The one thing that a rename switches: a file that includes releases, or the symlink `current`."""

    FILE = "file"
    CURRENT = "current"


class SettingType(StrEnum):
    """The types that a manifest may give a setting; there is none for free text that reaches a file unquoted."""

    HTTP_URL = "http_url"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    CALLEE_PORTS = "callee_ports"
    CHOICE = "choice"
    """One of the words that the manifest lists."""
    FILE_NAME = "file_name"
    """The name of a file of the release, one path component."""
    ALIAS = "alias"
    """The name of a key's entry in a store, lower case."""
    PASSWORD = "password"  # noqa: S105  the type of a setting, not a password
    """Where a password comes from; never the password itself."""


class Check(StrEnum):
    """How staged configuration is checked before the switch; enumerated, never free shell."""

    NONE = "none"
    NGINX_TEST = "nginx-test"
    NODE_CHECK = "node-check"
    APACHE_TEST = "apache-test"


class Reload(StrEnum):
    """How a process takes up what the pointer names.

    WATCH: it follows the symlink `current` by itself. RESTART: it reads its files when it starts and never again.
    """

    NONE = "none"
    SIGNAL_HUP_MASTER = "signal-hup-master"
    SIGNAL_HUP = "signal-hup"
    SIGNAL_USR1 = "signal-usr1"
    WATCH = "watch"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a runtime: its type, whether it must be given, what it means (for the reference).

    `values` are the words of a choice. `reserved` are the names, in small letters, that a file may not be given.
    """

    name: str
    type: SettingType
    required: bool
    description: str
    values: tuple[str, ...] = ()
    reserved: frozenset[str] = frozenset()


SettingWords = tuple[tuple[str, tuple[str, ...]], ...]
"""Names of settings, each with the words of which its value has to be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`value` of `setting` needs other settings to be among certain words."""

    setting: str
    value: str
    needs: SettingWords


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What listeners a program can have: of any name unless `names` lists them, and how many ports each at a time."""

    names: tuple[str, ...] = ()
    one_port: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What a runtime can enforce by itself.

    `separate_trust`: the store for callers and the stores for servers are two. `refuse_all`: a listener without
    callers can be rendered so that nobody gets in. `server_names`: several services share a port by SNI.
    `client_certificate`: what its listeners can ask of callers; with `optional` it refuses every wrong certificate.
    `forward_identity`: how it can tell the program behind it who called, having removed what callers said themselves;
    `cannot_forward` has the reasons why it cannot do so otherwise.
    `system_trust`: a call can be rendered so that it believes what its machine believes; where the runtime has a
    setting SYSTEM_CERTIFICATES, only with it. `server_certificate`: a listener can show a certificate whose key lies
    elsewhere on the host, as a file that mtlsctl does not read.
    """

    anchors: bool
    identifiers: bool
    crls: bool
    separate_trust: bool
    refuse_all: bool
    server_names: bool
    client_certificate: frozenset[ClientCertificate] = frozenset({ClientCertificate.REQUIRED})
    forward_identity: frozenset[ForwardIdentity] = frozenset()
    cannot_forward: tuple[tuple[ForwardIdentity, str], ...] = ()

    def why_not(self, form: ForwardIdentity) -> str:
        """Why it cannot forward the caller's identity in this form, as the manifest says it; else what it can do."""
        able = ", ".join(one.value for one in ForwardIdentity if one in self.forward_identity)
        return dict(self.cannot_forward).get(form) or (f"it can: {able}" if able else "it has nothing behind it")

    system_trust: bool = False
    server_certificate: bool = False


SYSTEM_CERTIFICATES = "system_certificates"
"""The setting by which a service says where its machine keeps the CAs that it believes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime folder, read and checked. `digest` covers the manifest and the bytes of every template."""

    name: str
    digest: str
    roles: frozenset[Role]
    scope: ProcessScope
    process: str
    """The program's name, as the kernel shows it; a signal goes to nothing else."""
    pointer: PointerKind
    pointer_path: str
    """Absolute path on the host of the file or symlink that is switched; `{service}` stands for the service."""
    enforcement: Enforcement
    settings: tuple[Setting, ...]
    check: Check
    reload: Reload
    separate_servers: bool = True
    """Whether each callee is believed by its own anchors only, and not by those of the others."""
    watched_with: SettingWords = ()
    """With these settings a program that else has to be restarted follows new certificates of its listeners itself."""
    conditions: tuple[Condition, ...] = ()
    doors: Doors = Doors()
    needs_key: bool = True
    """Whether its files name or hold the private key; else a release may do without."""


def reload_of(runtime: Runtime, before: Recipe | None, after: Recipe | None) -> Reload:
    """How the running process of an instance takes up this change; None: it was not there, or is to go.

    A program that watches its certificates takes up those and nothing else; what it calls with it never reads again.
    """
    if runtime.reload is not Reload.RESTART or not runtime.watched_with:
        return runtime.reload
    if before is None or after is None or before.callees or after.callees:
        return Reload.RESTART
    given = dict(after.settings)
    watches = all(given.get(name) in words for name, words in runtime.watched_with)
    return Reload.WATCH if watches and _without_material(before) == _without_material(after) else Reload.RESTART


def _without_material(recipe: Recipe) -> object:
    """All that is not read from the files of certificates. Whether there is a file of anchors at all is among it."""
    listeners = tuple(
        (one.name, one.sockets, one.client_certificate, one.protocols, bool(one.policy.anchors))
        for one in recipe.listeners
    )
    return (recipe.runtime_digest, recipe.root, recipe.settings, listeners)
