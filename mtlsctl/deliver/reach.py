"""How a host is reached: what the inventory says, completed by the user's SSH configuration.

The inventory is hostile (a pull request may set `address`, `port`, `user`, `identity_file` and `jump`), the
configuration is the user's own. So what comes from the inventory is looked at here once more, whatever read it.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mtlsctl.deliver import ssh_config
from mtlsctl.errors import DeliveryError
from mtlsctl.model.diagnostic import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtlsctl.deliver.ssh_config import Asked
    from mtlsctl.model.topology import SshHost

PARAMIKO, OPENSSH = "paramiko", "openssh"

CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 30.0
KEEPALIVE_SECONDS = 15
MAX_JUMPS = 8
DEFAULT_PORT = 22

_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
_KEY_FILE = re.compile(r"~?/[A-Za-z0-9._/@+-]{1,255}")
_JUMP = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^@:\[\]]+))(?::(?P<port>[0-9]{1,5}))?"
)

DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")

REFUSED: Final = {
    "pkcs11provider": {"none"},
    "securitykeyprovider": {"internal", "none"},
    "knownhostscommand": {"none"},
    "revokedhostkeys": {"none"},
    "canonicalizehostname": {"no", "none"},
    "proxyusefdpass": {"no"},
    "bindinterface": set(),
    "pubkeyauthentication": {"yes", "true", "unbound", "host-bound"},
}
"""Directives that would change who is believed or how a host is reached, and the values that ask for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshOptions:
    """What the operator decides, never the repository.

    `config` stands for both configuration files, as with `ssh -F`; `known_hosts` for the user's file of host keys.
    """

    config: Path | None = None
    known_hosts: Path | None = None
    transport: str = PARAMIKO
    connect_seconds: float | None = None
    login_seconds: float = LOGIN_SECONDS
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @property
    def home(self) -> Path:
        return Path(self.environ.get("HOME") or Path.home())

    @property
    def for_programs(self) -> dict[str, str]:
        """What `ssh` and a ProxyCommand get of the environment: where agent and home are, and none of our secrets."""
        return {name: value for name, value in self.environ.items() if not name.startswith("MTLSCTL_")}

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> SshOptions:
        """MTLSCTL_SSH_CONFIG, MTLSCTL_KNOWN_HOSTS, MTLSCTL_SSH_TRANSPORT; raises DeliveryError M4314."""
        transport = environ.get("MTLSCTL_SSH_TRANSPORT") or PARAMIKO
        if transport not in (PARAMIKO, OPENSSH):
            raise DeliveryError(
                f"MTLSCTL_SSH_TRANSPORT is `{printable(transport)}`, which is not one of: {PARAMIKO}, {OPENSSH}",
                code="M4314",
            )
        return SshOptions(
            config=_file_of(environ.get("MTLSCTL_SSH_CONFIG")),
            known_hosts=_file_of(environ.get("MTLSCTL_KNOWN_HOSTS")),
            transport=transport,
            environ=dict(environ),
        )


def _file_of(said: str | None) -> Path | None:
    return Path(said).expanduser().absolute() if said else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A host to go through, as it was asked for; its own configuration is read when it is dialled."""

    host: str
    port: int | None = None
    user: str | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Everything that a connection needs to know. `name` is what messages call the host."""

    name: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    identities_are_named: bool
    identities_only: bool
    certificate_files: tuple[Path, ...]
    agent: Path | None
    proxy_command: str | None
    jumps: tuple[Hop, ...]
    known_as: tuple[str, ...]
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    hash_known_hosts: bool
    connect_seconds: float
    keepalive_seconds: int
    family: str
    bind_address: str | None
    least_rsa_bits: int
    algorithms: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def place(self) -> str:
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{host}:{self.port}"

    @property
    def known_hosts(self) -> tuple[Path, ...]:
        return self.user_known_hosts + self.global_known_hosts


def check_words(host: SshHost) -> None:
    """See that no value of the inventory can become an option or a command; raises DeliveryError M4314.

    The grammar of the inventory has refused all that already. A plan or a state that was tampered with has not
    passed it.
    """
    values = (
        ("address", host.address, _ADDRESS),
        ("user", host.user, _USER),
        ("identity_file", host.identity_file, _KEY_FILE),
    )
    for key, value, grammar in values:
        if value is not None and grammar.fullmatch(value) is None:
            raise DeliveryError(f"`{key}` of host {printable(host.name)} is not fit to be dialled", code="M4314")
    if host.jump is not None:
        parse_hop(host.jump)


def parse_hop(text: str) -> Hop:
    """`[user@]host[:port]`, also with `ssh://` before it; raises DeliveryError M4314."""
    found = _JUMP.fullmatch(text.removeprefix("ssh://").rstrip("/"))
    if found is not None:
        host, user = found["v6"] or found["host"], found["user"]
        port = int(found["port"]) if found["port"] else None
        is_fit = _ADDRESS.fullmatch(host) and (user is None or _USER.fullmatch(user))
        if is_fit and (port is None or 1 <= port <= 65535):  # noqa: PLR2004  what a port is
            return Hop(host=host, port=port, user=user)
    raise DeliveryError(f"`{printable(text)}` is not a jump host: [user@]host[:port]", code="M4314")


def reach_host(host: SshHost, options: SshOptions) -> Reach:
    """How a host of the inventory is reached; what the inventory says wins. Raises DeliveryError M4314.

    Port 22 is what an inventory that says nothing means, so a `Port` of the configuration wins over it.
    """
    check_words(host)
    asked = ask(host.address, options, port=None if host.port == DEFAULT_PORT else host.port, user=host.user)
    if host.jump is not None:
        asked.values["proxyjump"], asked.values["proxycommand"] = (host.jump,), ("none",)
    if host.identity_file is not None:
        asked.values["identityfile"], asked.values["identitiesonly"] = (host.identity_file,), ("yes",)
    return _reach(host.name, asked, options)


def reach_hop(hop: Hop, options: SshOptions) -> Reach:
    """How a jump host is reached, by the configuration of its own."""
    return _reach(hop.host, ask(hop.host, options, port=hop.port, user=hop.user), options)


def ask(name: str, options: SshOptions, *, port: int | None, user: str | None) -> Asked:
    """All that the configuration says about a name."""
    asked = ssh_config.Asked(
        original=name,
        user=_whoami(),
        home=options.home,
        set_port=port,
        set_user=user,
        environ=options.environ,
    )
    return ssh_config.resolve(
        asked, config=options.config, run=lambda command: ssh_config.run_match(command, options.for_programs)
    )


def _whoami() -> str:
    """Who runs this, by the number and not by what the environment says, as ssh does it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _reach(name: str, asked: Asked, options: SshOptions) -> Reach:
    _refuse_unbuilt(name, asked)
    hostname = asked.hostname
    if _ADDRESS.fullmatch(hostname) is None or _USER.fullmatch(asked.login) is None:
        raise DeliveryError(f"the SSH configuration gives {name} a HostName or User that cannot be", code="M4314")
    named = asked.values.get("identityfile", ())
    keys = tuple(asked.path(one) for one in named if one.lower() != "none")
    folder = asked.home / ".ssh"
    return Reach(
        name=name,
        hostname=hostname,
        port=asked.port,
        user=asked.login,
        identity_files=keys if named else tuple(folder / one for one in DEFAULT_KEYS),
        identities_are_named=bool(named),
        identities_only=asked.says("identitiesonly", "no") == "yes",
        certificate_files=tuple(asked.path(one) for one in asked.values.get("certificatefile", ())),
        agent=_agent(asked),
        proxy_command=_proxy_command(asked),
        jumps=_jumps(asked),
        known_as=_known_as(asked),
        user_known_hosts=(options.known_hosts,)
        if options.known_hosts
        else _files(asked, "userknownhostsfile", (f"{folder}/known_hosts", f"{folder}/known_hosts2")),
        global_known_hosts=_files(
            asked, "globalknownhostsfile", ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
        ),
        hash_known_hosts=asked.says("hashknownhosts", "no") == "yes",
        connect_seconds=options.connect_seconds or _seconds(asked, "connecttimeout", CONNECT_SECONDS),
        keepalive_seconds=round(_seconds(asked, "serveraliveinterval", KEEPALIVE_SECONDS)),
        family=asked.says("addressfamily", "any"),
        bind_address=asked.one("bindaddress"),
        least_rsa_bits=round(_seconds(asked, "requiredrsasize", 1024)),
        algorithms=tuple(
            (keyword, value)
            for keyword in (
                "kexalgorithms", "ciphers", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms",
                "pubkeyacceptedkeytypes", "casignaturealgorithms",
            )
            if (value := asked.one(keyword)) is not None
        ),
        notes=_notes(asked),
    )  # fmt: skip


def _refuse_unbuilt(name: str, asked: Asked) -> None:
    for keyword, harmless in REFUSED.items():
        value = asked.one(keyword)
        if value is not None and value.lower() not in harmless:
            raise _cannot(name, f"{keyword} {value}")
    methods = asked.one("preferredauthentications")
    if methods is not None and "publickey" not in methods.lower().split(","):
        raise _cannot(name, f"preferredauthentications {methods}")


def _cannot(name: str, directive: str) -> DeliveryError:
    return DeliveryError(
        f"the SSH configuration of {name} says `{printable(directive)}`, which is not built here",
        code="M4314",
        help=ssh_config.USE_OPENSSH,
    )


def _notes(asked: Asked) -> tuple[str, ...]:
    if asked.says("gssapiauthentication", "no") == "yes":
        return ("GSSAPIAuthentication is set for it, and only MTLSCTL_SSH_TRANSPORT=openssh can log in that way",)
    return ()


def _agent(asked: Asked) -> Path | None:
    said = asked.one("identityagent") or "SSH_AUTH_SOCK"
    if said.lower() == "none":
        return None
    if said == "SSH_AUTH_SOCK":
        found = asked.environ.get("SSH_AUTH_SOCK")
    elif said.startswith("$"):
        found = asked.environ.get(said.removeprefix("$").strip("{}"))
    else:
        return asked.path(said)
    return Path(found) if found else None


def _proxy_command(asked: Asked) -> str | None:
    said = asked.one("proxycommand")
    if said is None or said.strip().lower() == "none":
        return None
    return ssh_config.expand(said, asked.tokens())


def _jumps(asked: Asked) -> tuple[Hop, ...]:
    said = asked.one("proxyjump")
    if said is None or said.lower() == "none":
        return ()
    hops = tuple(parse_hop(ssh_config.expand(one.strip(), asked.tokens())) for one in said.split(","))
    if len(hops) > MAX_JUMPS:
        raise DeliveryError(f"more than {MAX_JUMPS} jump hosts", code="M4314")
    return hops


def _known_as(asked: Asked) -> tuple[str, ...]:
    """The names of a host in known_hosts, the one that a changed key is looked for under first."""
    alias = asked.one("hostkeyalias")
    if alias is not None:
        return (alias.lower(),)
    name = asked.hostname.lower()
    return (name,) if asked.port == DEFAULT_PORT else (f"[{name}]:{asked.port}", name)


def _files(asked: Asked, keyword: str, default: tuple[str, ...]) -> tuple[Path, ...]:
    said = asked.values.get(keyword)
    if said is None:
        return tuple(Path(one) for one in default)
    return tuple(asked.path(one) for one in said if one.lower() != "none")


def _seconds(asked: Asked, keyword: str, default: float) -> float:
    """Ssh's times: seconds, or numbers with s, m, h, d, w."""
    said = asked.one(keyword)
    if said is None or said.lower() == "none":
        return default
    parts = re.findall(r"([0-9]{1,9})([smhdwSMHDW]?)", said)
    if not parts or "".join(a + b for a, b in parts) != said:
        raise DeliveryError(f"the SSH configuration: `{keyword} {printable(said)}` is not a number", code="M4314")
    seconds = sum(int(a) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[b.lower()] for a, b in parts)
    return seconds or default
