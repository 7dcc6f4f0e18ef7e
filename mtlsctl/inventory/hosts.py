"""The hosts: folders that stand for a machine, and machines behind SSH."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.words import map_of
from mtlsctl.model.topology import DirectoryHost, Host, KeyOrigin, SshHost

if TYPE_CHECKING:
    from mtlsctl.inventory.source import Map
    from mtlsctl.inventory.words import Words

FOLDER_KEYS: Final = ("directory", "seen_as", "pid_files")
SSH_KEYS: Final = ("port", "user", "identity_file", "jump", "become", "keys")

_HOST_NAME = grammar.label("a host")
_KEYS = grammar.choice({one.value: one for one in KeyOrigin})
_PROCESS_NAME = grammar.label("a process")
_UNWRITABLE = frozenset("\"'\\$`;{}#")
"""What no configuration file of every runtime can carry in a path."""


def read_hosts(words: Words, nodes: Map, root: Path) -> dict[str, Host]:
    """The hosts whose words are all right, in the order of the inventory."""
    hosts: dict[str, Host] = {}
    for name, node in nodes.items():
        assert not isinstance(node, (str, list))  # noqa: S101  the shape was checked
        at = nodes.keys_at[name]
        if words.parsed(name, at, _HOST_NAME, is_name=True) is not None:
            host = _read_host(words, name, node, nodes, root)
            if host is not None:
                hosts[name] = host
    _refuse_shared_folders(words, hosts)
    return hosts


def _read_host(words: Words, name: str, node: Map, nodes: Map, root: Path) -> Host | None:
    if not _is_one_kind(words, name, node, nodes):
        return None
    before = len(words.problems.found)
    host = _folder_host(words, name, node, nodes, root) if "directory" in node else _ssh_host(words, name, node, nodes)
    return host if len(words.problems.found) == before else None


def _is_one_kind(words: Words, name: str, node: Map, nodes: Map) -> bool:
    if any(key in node.lost and key not in node.keys_at for key in ("directory", "address")):
        return False  # A misspelt key, or one of a second host of this name, was reported.
    given = [key for key in ("directory", "address") if key in node or key in node.lost]
    if not given:
        message = f"the host `{name}` has neither an `address` (SSH) nor a `directory` (a folder here)"
        words.problems.add(codes.MISSING_KEY, message, nodes.keys_at[name], name)
        return False
    is_folder = "directory" in given
    wrong = [key for key in (SSH_KEYS if is_folder else FOLDER_KEYS) if key in node]
    for key in wrong:
        if is_folder:
            message = f"`{key}` is of hosts behind SSH, and `{name}` is a folder"
            related = [(words.problems.sources.span(node.keys_at["directory"], "directory"), "which makes it a folder")]
        else:
            message, related = f"`{key}` is of hosts that are a folder, and `{name}` has no `directory`", []
        words.problems.add(codes.CONFLICTING_KEYS, message, node.keys_at[key], key, related=related)
    return not wrong and not {"directory", "address"} & node.lost


def _folder_host(words: Words, name: str, node: Map, nodes: Map, root: Path) -> DirectoryHost | None:
    folder = words.read(node, "directory", grammar.folder, None)
    if folder is None:
        return None
    directory = str(Path(root.absolute(), folder))
    seen_as = words.read(node, "seen_as", grammar.absolute_path, None)
    if seen_as is None and (not directory.isprintable() or _UNWRITABLE & set(directory)):
        words.problems.add(
            codes.PATH,
            "the absolute path of this folder holds a character that configuration files cannot carry",
            node.values_at["directory"],
            folder,
            help="choose another folder, or say `seen_as`",
        )
    return DirectoryHost(
        name=name,
        directory=directory,
        address=words.read(node, "address", grammar.address, "127.0.0.1", is_name=True),
        seen_as=seen_as,
        pid_files=_pid_files(words, map_of(node, "pid_files")),
        span=words.problems.sources.span(nodes.keys_at[name], name),
    )


def _pid_files(words: Words, node: Map | None) -> tuple[tuple[str, str], ...]:
    if node is None:
        return ()
    found: list[tuple[str, str]] = []
    for process in node:
        if words.parsed(process, node.keys_at[process], _PROCESS_NAME, is_name=True) is not None:
            path = words.read(node, process, grammar.relative_path, None)
            found += [] if path is None else [(process, path)]
    return tuple(sorted(found))


def _ssh_host(words: Words, name: str, node: Map, nodes: Map) -> SshHost | None:
    address = words.read(node, "address", grammar.address, None, is_name=True)
    if address is None:
        return None
    return SshHost(
        name=name,
        address=address,
        port=words.read(node, "port", grammar.port, 22),
        user=words.read(node, "user", grammar.login, None, is_name=True),
        identity_file=words.read(node, "identity_file", grammar.key_file, None),
        jump=words.read(node, "jump", grammar.jump, None, is_name=True),
        become=words.read(node, "become", grammar.switch, default=False),
        keys=words.read(node, "keys", _KEYS, KeyOrigin.HOST),
        span=words.problems.sources.span(nodes.keys_at[name], name),
    )


def _refuse_shared_folders(words: Words, hosts: dict[str, Host]) -> None:
    """Two hosts in one folder would overwrite each other's pointers."""
    first: dict[str, DirectoryHost] = {}
    for host in hosts.values():
        if not isinstance(host, DirectoryHost):
            continue
        other = first.setdefault(host.directory, host)
        if other is not host and other.span is not None:
            message = f"the hosts `{other.name}` and `{host.name}` are the same folder"
            words.problems.put(
                codes.SHARED_DIRECTORY, message, host.span, related=[(other.span, f"`{other.name}` is declared here")]
            )
