"""The language of `runtime.yaml`. Unknown keys are errors; verbs are enumerated, never shell.

Written by hand over YAML's nodes and not with pydantic: it runs at every plan, where pydantic's import alone would
take the time that a whole plan may, and nodes know their lines.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, TypedDict

import yaml

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.files import BASE, CERTIFICATE_FILE, CHAINS_FOLDER, CLIENTS_FOLDER, KEY_FILE, SERVERS_FOLDER
from mtlsctl.model.identifiers import LABEL
from mtlsctl.model.keystore import FILE_NAME, SEALED, StoreKind, StoreProfile
from mtlsctl.model.runtime import (
    Check,
    Condition,
    Doors,
    Enforcement,
    PointerKind,
    ProcessScope,
    Reload,
    Role,
    Runtime,
    Setting,
    SettingType,
    SettingWords,
)
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity
from mtlsctl.render.reading import Reading, Wrong, compose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST_FILE = "runtime.yaml"
CURRENT_PATH = f"{BASE}/{{service}}/current"

EACH = ("callee", "listener")
STORE_EACH = {StoreKind.CLIENTS: "listener", StoreKind.SERVERS: "callee", StoreKind.ANCHOR: "anchor"}
"""Kinds of stores of which a release holds one for each listener, callee or anchor."""

STORE_SETTINGS = {
    "alias": SettingType.ALIAS,
    "store_password": SettingType.PASSWORD,
    "store_profile": SettingType.CHOICE,
}
"""The settings that stores follow, by the types that they must have where a manifest has them."""

_STORE_PATH = re.compile(
    r"(?:[A-Za-z0-9_-]|\{(?:callee|listener|anchor)\})(?:[A-Za-z0-9._/-]|\{(?:callee|listener|anchor)\})*"
)
_PATH = re.compile(r"(?:[A-Za-z0-9_-]|\{callee\}|\{listener\})(?:[A-Za-z0-9._/-]|\{callee\}|\{listener\})*")
_POINTER_PATH = re.compile(r"(?:/(?:[A-Za-z0-9_-]|\{service\})(?:[A-Za-z0-9._-]|\{service\})*)+")
_PROGRAM = re.compile(r"[A-Za-z0-9._-]{1,15}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SETTING = re.compile(r"[a-z][a-z0-9_]*")
_TEMPLATE = re.compile(r"[A-Za-z0-9._-]+\.j2")
_OURS = (CERTIFICATE_FILE, KEY_FILE, CLIENTS_FOLDER, SERVERS_FOLDER, CHAINS_FOLDER)
_FILES_OF_OURS = (f"{CERTIFICATE_FILE}/", f"{KEY_FILE}/")
_OPTIONAL = ("client_certificate", "forward_identity", "system_trust", "server_certificate")
"""What `enforces` need not say; then it cannot."""

_MANY_TO_ONE = frozenset({StoreKind.ALL_SERVERS, StoreKind.EVERYONE, StoreKind.ANCHOR})
"""Stores by which a program believes each of its callees by the anchors of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerFile:
    """A configuration file of the program; it includes the file `includes` of each member's release."""

    path: str
    template: str
    includes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """One file of a release, or one for each callee or listener (`each`), whose name fills the path."""

    path: str
    template: str
    each: str | None = None
    secret: bool = False
    """Whether it holds the password of the stores: mode 0600, and made only when the release is staged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStore:
    """One store of a release, or one for each listener, callee or anchor, whose name fills the path.

    `named_by` is the setting that gives the file another name; None where there is none.
    """

    path: str
    kind: StoreKind
    each: str | None = None
    named_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole `runtime.yaml`; `pointer` is None where the symlink `current` is switched."""

    name: str
    description: str
    roles: frozenset[Role]
    scope: ProcessScope
    program: str
    pointer: PointerFile | None
    check: Check
    reload: Reload
    files: tuple[ReleaseFile, ...]
    stores: tuple[ReleaseStore, ...]
    enforcement: Enforcement
    settings: tuple[Setting, ...]
    links: tuple[str, ...]
    """Files of a release with a fixed place beside `current`."""
    watched_with: SettingWords
    conditions: tuple[Condition, ...]
    doors: Doors

    @property
    def named_templates(self) -> frozenset[str]:
        """Every template that the manifest names."""
        named = {file.template for file in self.files}
        return frozenset(named if self.pointer is None else {*named, self.pointer.template})


def parse_manifest(text: bytes, file: str) -> Manifest:
    """Read a manifest; raises RuntimeFolderError with every problem and its place."""
    node, reading = compose(text, file), Reading(file)
    manifest = _manifest(reading, node)
    if manifest is not None:
        for misfit in _misfits(manifest):
            reading.complain(misfit, node)
    if manifest is None or reading.problems:
        raise RuntimeFolderError(sorted(reading.problems, key=lambda one: one.order))
    return manifest


def to_runtime(manifest: Manifest, digest: str) -> Runtime:
    """The manifest as the planner knows it."""
    pointer = manifest.pointer
    return Runtime(
        name=manifest.name,
        digest=digest,
        roles=manifest.roles,
        scope=manifest.scope,
        process=manifest.program,
        pointer=PointerKind.CURRENT if pointer is None else PointerKind.FILE,
        pointer_path=CURRENT_PATH if pointer is None else pointer.path,
        enforcement=manifest.enforcement,
        settings=manifest.settings,
        check=manifest.check,
        reload=manifest.reload,
        watched_with=manifest.watched_with,
        conditions=manifest.conditions,
        doors=manifest.doors,
        needs_key=bool(manifest.files or manifest.stores),
        separate_servers=not any(store.kind in _MANY_TO_ONE for store in manifest.stores),
    )


def _manifest(reading: Reading, node: yaml.Node | None) -> Manifest | None:
    try:
        top = reading.record(
            node,
            "a manifest",
            ("version", "name", "description", "roles", "process", "enforces"),
            ("files", "stores", "settings", "conditions", "doors"),
        )
        if reading.text(top["version"], "`version`") != "1":
            raise reading.wrong("`version` is 1", top["version"])
        files = tuple(_file(reading, one) for one in reading.items(top.get("files"), "`files`"))
        stores = tuple(_store(reading, one) for one in reading.items(top.get("stores"), "`stores`"))
        return Manifest(
            name=reading.text(top["name"], "`name`", LABEL),
            description=reading.text(top["description"], "`description`"),
            roles=frozenset(reading.word(one, "a role", Role) for one in reading.items(top["roles"], "`roles`")),
            files=files,
            stores=stores,
            enforcement=_enforcement(reading, top["enforces"]),
            settings=tuple(_settings(reading, top.get("settings"), _top_names(files, stores))),
            conditions=tuple(_condition(reading, one) for one in reading.items(top.get("conditions"), "`conditions`")),
            doors=_doors(reading, top["doors"]) if "doors" in top else Doors(),
            **_process(reading, top["process"]),
        )
    except Wrong:
        return None


class _Process(TypedDict):
    scope: ProcessScope
    program: str
    pointer: PointerFile | None
    check: Check
    reload: Reload
    links: tuple[str, ...]
    watched_with: SettingWords


def _process(reading: Reading, node: yaml.Node) -> _Process:
    parts = reading.record(
        node, "`process`", ("scope", "pointer"), ("program", "check", "reload", "watched_with", "links")
    )
    links = reading.items(parts.get("links"), "`links`")
    return {
        "scope": reading.word(parts["scope"], "`scope`", ProcessScope),
        "program": reading.text(parts["program"], "`program`", _PROGRAM) if "program" in parts else "",
        "pointer": _pointer(reading, parts["pointer"]),
        "check": reading.word(parts["check"], "`check`", Check) if "check" in parts else Check.NONE,
        "reload": reading.word(parts["reload"], "`reload`", Reload) if "reload" in parts else Reload.NONE,
        "links": tuple(reading.text(one, "a link's name", FILE_NAME) for one in links),
        "watched_with": _words(reading, parts.get("watched_with"), "`watched_with`"),
    }


def _pointer(reading: Reading, node: yaml.Node) -> PointerFile | None:
    if isinstance(node, yaml.ScalarNode) and node.value == "current":
        return None
    parts = reading.record(node, "`pointer` (if it is not `current`)", ("file", "template", "includes"))
    return PointerFile(
        path=reading.text(parts["file"], "`file`, an absolute path,", _POINTER_PATH),
        template=reading.text(parts["template"], "`template`", _TEMPLATE),
        includes=reading.text(parts["includes"], "`includes`"),
    )


def _file(reading: Reading, node: yaml.Node) -> ReleaseFile:
    parts = reading.record(node, "an entry of `files`", ("path", "template"), ("each", "secret"))
    each = reading.text(parts["each"], "`each`") if "each" in parts else None
    if each is not None and each not in EACH:
        raise reading.wrong(f"`each` is one of {', '.join(EACH)}", parts["each"])
    path = reading.text(parts["path"], "`path`, relative,", _PATH)
    problem = _path_problem(path, each)
    if problem:
        raise reading.wrong(problem, parts["path"])
    return ReleaseFile(
        path=path,
        template=reading.text(parts["template"], "`template`", _TEMPLATE),
        each=each,
        secret=reading.switch(parts["secret"], "`secret`") if "secret" in parts else False,
    )


def _store(reading: Reading, node: yaml.Node) -> ReleaseStore:
    parts = reading.record(node, "an entry of `stores`", ("path", "kind"), ("each", "named_by"))
    kind = reading.word(parts["kind"], "`kind`", StoreKind)
    each = reading.text(parts["each"], "`each`") if "each" in parts else None
    if each != STORE_EACH.get(kind):
        wanted = STORE_EACH.get(kind)
        what = f"goes with `each: {wanted}`" if wanted else "goes with no `each`"
        raise reading.wrong(f"`kind: {kind}` {what}", node)
    path = reading.text(parts["path"], "`path`, relative,", _STORE_PATH)
    problem = _store_path_problem(path, each)
    if problem:
        raise reading.wrong(problem, parts["path"])
    named_by = reading.text(parts["named_by"], "`named_by`", _SETTING) if "named_by" in parts else None
    if named_by is not None and "/" in path:
        raise reading.wrong("a store that a setting names lies in no folder of the release", parts["path"])
    if named_by is not None and each is not None:
        raise reading.wrong("`named_by` gives one name, and there is a store for each", parts["named_by"])
    return ReleaseStore(path=path, kind=kind, each=each, named_by=named_by)


def _store_path_problem(path: str, each: str | None) -> str | None:
    if ".." in path or "//" in path or path.endswith("/"):
        return "`path` is relative and goes only down"
    if path in _OURS or path.startswith(_FILES_OF_OURS) or path.endswith((".pem", ".key", ".crt")):
        return "certificates, keys and bundles have fixed names and are in every release"
    if set(re.findall(r"\{(\w+)\}", path)) != ({each} if each else set()):
        return "what `each` says stands in `path`, in braces, and nothing else does"
    return None


def _top_names(files: tuple[ReleaseFile, ...], stores: tuple[ReleaseStore, ...]) -> frozenset[str]:
    """What lies in a release besides the files that settings name, so that none of them gets such a name."""
    paths = [file.path for file in files] + [store.path for store in stores if store.named_by is None]
    return frozenset(name.lower() for name in (*_OURS, *(path.split("/", 1)[0] for path in paths)))


def _path_problem(path: str, each: str | None) -> str | None:
    if ".." in path or "//" in path or path.endswith("/"):
        return "`path` is relative and goes only down"
    if path.split("/", 1)[0] in _OURS or path.endswith((".pem", ".key", ".crt")):
        return "certificates, keys and bundles have fixed names and are in every release"
    if set(re.findall(r"\{(\w+)\}", path)) != ({each} if each else set()):
        return "`each: callee` goes with {callee} in `path`, `each: listener` with {listener}"
    return None


def _enforcement(reading: Reading, node: yaml.Node) -> Enforcement:
    names = tuple(field.name for field in fields(Enforcement) if field.default is MISSING)
    parts = reading.record(node, "`enforces`", names, _OPTIONAL)
    return Enforcement(
        **{name: reading.switch(parts[name], f"`{name}`") for name in names},
        client_certificate=_modes(reading, parts.get("client_certificate")),
        system_trust=_is_able(reading, parts, "system_trust"),
        server_certificate=_is_able(reading, parts, "server_certificate"),
        **_forwarding(reading, parts.get("forward_identity")),
    )


def _is_able(reading: Reading, parts: Mapping[str, yaml.Node], name: str) -> bool:
    return name in parts and reading.switch(parts[name], f"`{name}`")


class _Forwarding(TypedDict):
    forward_identity: frozenset[ForwardIdentity]
    cannot_forward: tuple[tuple[ForwardIdentity, str], ...]


def _forwarding(reading: Reading, node: yaml.Node | None) -> _Forwarding:
    """Each form with `true`, or with the reason why not; a form that is not named it cannot."""
    able: set[ForwardIdentity] = set()
    reasons: list[tuple[ForwardIdentity, str]] = []
    for name, value in (reading.entries(node, "`forward_identity`") if node is not None else {}).items():
        if name not in {form.value for form in ForwardIdentity}:
            raise reading.wrong(f"a form of `forward_identity` is one of {', '.join(ForwardIdentity)}", value)
        text = reading.text(value, f"`{name}`, `true` or the reason why not,")
        if text == "true":
            able.add(ForwardIdentity(name))
        else:
            reasons.append((ForwardIdentity(name), text))
    return {"forward_identity": frozenset(able), "cannot_forward": tuple(reasons)}


def _modes(reading: Reading, node: yaml.Node | None) -> frozenset[ClientCertificate]:
    """What a manifest does not claim is refused: `required` alone unless it says more."""
    if node is None:
        return frozenset({ClientCertificate.REQUIRED})
    return frozenset(
        reading.word(one, "a mode of `client_certificate`", ClientCertificate)
        for one in reading.items(node, "`client_certificate`")
    )


def _settings(reading: Reading, node: yaml.Node | None, reserved: frozenset[str]) -> Iterator[Setting]:
    for name, part in sorted((reading.entries(node, "`settings`") if node is not None else {}).items()):
        if not _SETTING.fullmatch(name):
            raise reading.wrong("a setting's name is lower case letters, digits and underscores", part)
        parts = reading.record(part, f"the setting `{name}`", ("type", "description"), ("required", "values"))
        kind = reading.word(parts["type"], "`type`", SettingType)
        if ("values" in parts) != (kind is SettingType.CHOICE):
            raise reading.wrong("`values` goes with `type: choice`, and only with it", part)
        yield Setting(
            name=name,
            type=kind,
            required=reading.switch(parts["required"], "`required`") if "required" in parts else False,
            description=reading.text(parts["description"], "`description`"),
            values=_values(reading, parts["values"]) if "values" in parts else (),
            reserved=reserved if kind is SettingType.FILE_NAME else frozenset(),
        )


def _values(reading: Reading, node: yaml.Node) -> tuple[str, ...]:
    found = tuple(reading.text(one, "a value", _VALUE) for one in reading.items(node, "`values`"))
    if not found or len(set(found)) != len(found):
        raise reading.wrong("`values` is a list of different words, one at least", node)
    return found


def _words(reading: Reading, node: yaml.Node | None, what: str) -> SettingWords:
    """Settings, each with a list of words."""
    if node is None:
        return ()
    return tuple((name, _values(reading, words)) for name, words in sorted(reading.entries(node, what).items()))


def _condition(reading: Reading, node: yaml.Node) -> Condition:
    parts = reading.record(node, "an entry of `conditions`", ("setting", "value", "needs"))
    return Condition(
        setting=reading.text(parts["setting"], "`setting`", _SETTING),
        value=reading.text(parts["value"], "`value`", _VALUE),
        needs=_words(reading, parts["needs"], "`needs`"),
    )


def _doors(reading: Reading, node: yaml.Node) -> Doors:
    parts = reading.record(node, "`doors`", (), ("names", "one_port"))
    return Doors(
        names=tuple(
            reading.text(one, "a listener's name", LABEL) for one in reading.items(parts.get("names"), "`names`")
        ),
        one_port=reading.switch(parts["one_port"], "`one_port`") if "one_port" in parts else False,
    )


def _misfits(manifest: Manifest) -> Iterator[str]:
    """What each part allows and the whole does not."""
    pointer, whole_host = manifest.pointer, manifest.scope is ProcessScope.HOST
    paths = [file.path for file in manifest.files] + [store.path for store in manifest.stores]
    yield from _store_misfits(manifest)
    yield from _condition_misfits(manifest)
    if not manifest.roles:
        yield "`roles` is empty: the runtime could be used for nothing"
    if len(set(paths)) != len(paths):
        yield "two files have the same path"
    if manifest.reload is not Reload.NONE and not manifest.program:
        yield "a program that is reloaded needs its name in `program`: a signal goes to nothing else"
    if pointer is None:
        if whole_host:
            yield "a process of the whole host has a pointer file, since `current` belongs to one service"
        return
    if ("{service}" in pointer.path) == whole_host:
        yield "a pointer file names {service} if each instance has its own, and only then"
    if pointer.includes not in {file.path for file in manifest.files if file.each is None}:
        yield "`includes` names one of `files` that every release holds once"


def _store_misfits(manifest: Manifest) -> Iterator[str]:
    kinds = [store.kind for store in manifest.stores]
    is_sealed = bool(SEALED & set(kinds))
    if len(set(kinds)) != len(kinds):
        yield "two stores are of the same kind"
    if kinds.count(StoreKind.PASSWORD) != int(is_sealed):
        yield "stores have one entry of `kind: password` beside them, and it stands only beside stores"
    if any(file.secret for file in manifest.files) and not is_sealed:
        yield "a file is `secret` by the password of the stores, and there are none"
    if StoreKind.EVERYONE in kinds and manifest.enforcement.separate_trust:
        yield "a store for everyone is one store for both directions, so `separate_trust` is false"
    yield from _store_setting_misfits(manifest)


def _condition_misfits(manifest: Manifest) -> Iterator[str]:
    """Words that no setting can have would be conditions that nobody notices; and links that lead nowhere."""
    known = {setting.name: setting.values for setting in manifest.settings}
    stated = [*manifest.watched_with]
    for condition in manifest.conditions:
        stated += [(condition.setting, (condition.value,)), *condition.needs]
    for name, words in stated:
        missing = sorted(set(words).difference(known.get(name, ())))
        if missing:
            yield f"`{name}` is no setting that can be {', '.join(missing)}"
    if set(manifest.links) - {CERTIFICATE_FILE, *(file.path for file in manifest.files)}:
        yield "`links` names files that every release holds"
    if manifest.links and manifest.pointer is not None:
        yield "`links` go through `current`, which this runtime does not have"
    if manifest.watched_with and manifest.reload is not Reload.RESTART:
        yield "`watched_with` says when `reload: restart` is not needed"


def _store_setting_misfits(manifest: Manifest) -> Iterator[str]:
    settings = {setting.name: setting for setting in manifest.settings}
    for named_by in [store.named_by for store in manifest.stores if store.named_by is not None]:
        if named_by not in settings or settings[named_by].type is not SettingType.FILE_NAME:
            yield f"`named_by` names a setting of `type: file_name`, and `{named_by}` is none"
    for name, kind in STORE_SETTINGS.items():
        if name in settings and settings[name].type is not kind:
            yield f"the setting `{name}` has `type: {kind}`"
    if not set(settings["store_profile"].values if "store_profile" in settings else ()) <= set(StoreProfile):
        yield f"`store_profile` is one of {', '.join(StoreProfile)}"
    if any(one.type is SettingType.PASSWORD and name != "store_password" for name, one in settings.items()):
        yield "the only password is `store_password`"
