"""Where a repository of inventories says what it is: `mtlsctl.yaml`, found upwards from the working directory."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsctl.errors import InventoryError, UsageError
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.model.identifiers import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = "mtlsctl.yaml"
STATE = "sqlite:.mtlsctl/state.db"
_KEYS = ("version", "name", "lineage", "inventory", "state")
_OPERATORS = frozenset(
    {
        "key_source",
        "passphrase_file",
        "templates",
        "policy",
        "plugins",
        "identity_file",
        "host_keys",
        "known_hosts",
        "yes",
    }
)
"""What a pull request must not decide: it belongs to the operator's environment or command line."""
_LARGEST = 64 * 1024
_LONGEST_ESTATE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A repository of inventories. `file` is None where there is no `mtlsctl.yaml`; then `lineage` is unknown too."""

    root: Path
    file: Path | None
    name: str | None
    lineage: str | None
    inventory: Path | None
    state: str


def find_project(start: Path) -> Project:
    """The project that `start` lies in, or the folder itself as one without a file.

    Goes up to the root of the repository (the folder with `.git`) or of the file system, whichever comes first,
    and trusts no file that others can replace (Ansible read a hostile `ansible.cfg`: CVE-2018-10875).
    """
    for folder in _upwards(start.resolve()):
        file = folder / FILE
        if file.is_file() or file.is_symlink():
            _refuse_replaceable(folder, file)
            return read_project(file)
    return _without_file(start.resolve())


def _upwards(start: Path) -> Iterator[Path]:
    device = start.stat().st_dev
    for folder in (start, *start.parents):
        if folder.stat().st_dev != device:
            return
        yield folder
        if (folder / ".git").exists():
            return


def _refuse_replaceable(folder: Path, file: Path) -> None:
    """Who can replace the file decides where state and inventory lie: only this user and root may."""
    for place in (folder, file):
        found = place.lstat()  # the folder is resolved already
        if stat.S_ISLNK(found.st_mode):
            raise UsageError(f"{place} is a symbolic link, so it is not read", code="M1901", help="put the file there")
        if found.st_uid not in {0, os.geteuid()}:
            raise UsageError(
                f"{place} belongs to user {found.st_uid}, so {FILE} in it is not read",
                code="M1901",
                help="work in a copy of your own, or run as the user whom it belongs to",
            )
        if found.st_mode & stat.S_IWOTH:
            raise UsageError(
                f"{place} can be written by everyone, so {FILE} in it is not read",
                code="M1901",
                help=f"chmod o-w {place}",
            )


def _without_file(root: Path) -> Project:
    return Project(root=root, file=None, name=None, lineage=None, inventory=_only_inventory(root), state=STATE)


def _only_inventory(root: Path) -> Path | None:
    """`inventories/` when it is one environment or holds exactly one, else unknown."""
    folder = root / "inventories"
    if not folder.is_dir():
        return None
    entries = sorted(one for one in folder.iterdir() if one.is_dir() or one.suffix in {".yaml", ".yml"})
    return entries[0] if len(entries) == 1 else None


def refuse_leading_out(root: Path, path: Path) -> None:
    """Raise UsageError M1907 when a path that the repository chose leaves it, or goes through a symlink below it.

    Whoever opens a pull request chooses that path, and errors quote what is read there.
    """
    if ".." in path.parts or not path.is_relative_to(root):
        raise UsageError(f"the inventory does not lie below {root}", code="M1907")
    place = root
    for name in path.relative_to(root).parts:
        place = place / name
        if place.is_symlink():
            raise UsageError(
                f"{place.relative_to(root)} is a symbolic link; nothing was read",
                code="M1907",
                help="put the inventory itself there, or name another one with --inventory",
            )


def read_project(file: Path) -> Project:
    """Parse the file; raises InventoryError with every problem and its place."""
    entries = _entries(file)
    problems = [*_unknown(file, entries), *_missing(file, entries), *_malformed(entries)]
    if problems:
        raise InventoryError(sorted(problems, key=lambda one: one.order))
    values = {key: value for key, (value, _) in entries.items()}
    root = file.parent
    inventory = values.get("inventory")
    return Project(
        root=root,
        file=file,
        name=values["name"],
        lineage=values["lineage"],
        inventory=_only_inventory(root) if inventory is None else root / inventory,
        state=values.get("state", STATE),
    )


def _entries(file: Path) -> dict[str, tuple[str, Span]]:
    """Key -> (text, place of the key). Five flat strings need no more than PyYAML's own nodes."""
    import yaml

    try:
        node = yaml.compose(_text(file), Loader=yaml.SafeLoader)
    except RecursionError:
        raise _broken(file, 1, 1, "the file is nested too deeply") from None
    except UnicodeDecodeError:
        raise _broken(file, 1, 1, "the file is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _broken(file, line, column, f"not YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
    except (ValueError, OverflowError):  # an escape that names no character
        raise _broken(file, 1, 1, "an escape names no Unicode character") from None
    if not isinstance(node, yaml.MappingNode):
        raise _broken(file, 1, 1, "a mapping with `version`, `name` and `lineage` is expected")
    return _flat(file, node)


def _text(file: Path) -> str:
    """What is in the file itself: a link put there meanwhile, or a device, is not read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _broken(file, 1, 1, f"the file cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _broken(file, 1, 1, "this is not a plain file")
        content = opened.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise _broken(file, 1, 1, "the file is larger than 64 KiB")
    return content.decode("utf-8")


def _flat(file: Path, node: object) -> dict[str, tuple[str, Span]]:
    import yaml

    entries: dict[str, tuple[str, Span]] = {}
    for key, value in node.value:  # type: ignore[attr-defined]
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise _broken(file, line, column, "each key has one text as its value")
        if key.value in entries:
            raise _broken(file, line, column, f"`{key.value}` stands here twice")
        place = Span(file.name, line, column, column + len(key.value))
        entries[key.value] = (value.value, place)
    return entries


def _broken(file: Path, line: int, column: int, message: str) -> InventoryError:
    return InventoryError([Diagnostic(code="M1902", message=message, span=Span(file.name, line, column, column + 1))])


def _unknown(file: Path, entries: dict[str, tuple[str, Span]]) -> Iterator[Diagnostic]:
    for key, (_, place) in entries.items():
        if key in _OPERATORS:
            yield Diagnostic(
                code="M1904",
                message=f"`{key}` is not accepted in {file.name}",
                span=place,
                notes=("a pull request can change this file, so what protects the estate is set by the operator",),
                help="give it on the command line or in the environment",
            )
        elif key not in _KEYS:
            yield Diagnostic(
                code="M1903", message=f"unknown key `{key}`", span=place, help=f"known keys: {', '.join(_KEYS)}"
            )


def _missing(file: Path, entries: dict[str, tuple[str, Span]]) -> Iterator[Diagnostic]:
    for key in ("version", "name", "lineage"):
        if key not in entries:
            yield Diagnostic(code="M1905", message=f"`{key}` is missing", span=Span(file.name, 1, 1, 2))


def _malformed(entries: dict[str, tuple[str, Span]]) -> Iterator[Diagnostic]:
    rules: dict[str, tuple[Callable[[str], bool], str]] = {
        "version": ("1".__eq__, "`version` is 1"),
        "name": (is_estate_name, f"a name is at most {_LONGEST_ESTATE} characters: a-z, 0-9 and inner hyphens"),
        "lineage": (is_lineage, "a lineage is the UUID that `mtlsctl init` wrote"),
        "inventory": (_is_inside, "`inventory` is a path inside this repository"),
        "state": (_is_state, "`state` is sqlite:PATH or postgresql://..."),
    }
    for key, (fits, rule) in rules.items():
        if key in entries and not fits(entries[key][0]):
            yield Diagnostic(code="M1906", message=rule, span=entries[key][1])


def is_estate_name(text: str) -> bool:
    return len(text) <= _LONGEST_ESTATE and LABEL.fullmatch(text) is not None


def is_lineage(text: str) -> bool:
    import uuid

    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _is_inside(text: str) -> bool:
    path = Path(text)
    return bool(text) and text.isprintable() and not path.is_absolute() and ".." not in path.parts


def _is_state(text: str) -> bool:
    return text.startswith(("sqlite:", "postgresql:")) and len(text) > len("sqlite:")
