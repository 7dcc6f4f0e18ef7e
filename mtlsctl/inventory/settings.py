"""A service's settings, by the types of its runtime's manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.inventory import codes, grammar
from mtlsctl.inventory.problems import shown
from mtlsctl.inventory.shape import refuse_unquoted_key
from mtlsctl.inventory.source import Map
from mtlsctl.model.keystore import ALIAS, FILE_NAME, GENERATED, SECRET_VARIABLE, PasswordSource
from mtlsctl.model.runtime import SettingType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from mtlsctl.inventory.problems import Place
    from mtlsctl.inventory.source import Node
    from mtlsctl.inventory.words import Words
    from mtlsctl.model.runtime import Runtime, Setting
    from mtlsctl.model.topology import SettingValue

    CalleesOf = Callable[[str], AbstractSet[str]]

_SIMPLE: dict[SettingType, Callable[[str], str | int | bool]] = {
    SettingType.HTTP_URL: grammar.http_url,
    SettingType.INTEGER: grammar.number,
    SettingType.BOOLEAN: grammar.switch,
}


def read_settings(
    words: Words, node: Map | None, runtime: Runtime, service: str, at: Place, callees_of: CalleesOf
) -> tuple[tuple[str, SettingValue], ...]:
    """The checked values, sorted by name; whatever is unknown, missing or of a wrong type is reported."""
    values = [] if node is None else _read_values(words, node, runtime, service, callees_of)
    for setting in runtime.settings:
        if setting.required and (node is None or (setting.name not in node and setting.name not in node.lost)):
            message = f"the runtime `{runtime.name}` needs the setting `{setting.name}`"
            words.problems.add(codes.MISSING_SETTING, message, at, service)
    return tuple(sorted(values))


def _read_values(
    words: Words, node: Map, runtime: Runtime, service: str, callees_of: CalleesOf
) -> list[tuple[str, SettingValue]]:
    """What is given, each checked alone, then what has to fit together."""
    known = {setting.name: setting for setting in runtime.settings}
    values: list[tuple[str, SettingValue]] = []
    for name, value in node.items():
        if name not in known:
            _report_unknown(words, name, node, runtime, known)
            continue
        found = _value(words, known[name], value, node, service, callees_of)
        values += [] if found is None else [(name, found)]
    _refuse_one_name(
        words, node, [(name, value) for name, value in values if known[name].type is SettingType.FILE_NAME]
    )
    _check_conditions(words, node, runtime, dict(values))
    return values


def _check_conditions(words: Words, node: Map, runtime: Runtime, values: Mapping[str, SettingValue]) -> None:
    """Values that are right alone and that the runtime cannot have together."""
    for condition in runtime.conditions:
        if values.get(condition.setting) != condition.value:
            continue
        for name, fitting in condition.needs:
            if name in values and values[name] not in fitting:
                message = f"`{condition.setting}: {condition.value}` does not go with `{name}: {values[name]}`"
                advice = f"it needs `{name}` to be one of {', '.join(fitting)}"
                at = node.values_at[condition.setting]
                words.problems.add(codes.SETTINGS_DIFFER, message, at, condition.value, help=advice)


def _report_unknown(words: Words, name: str, node: Map, runtime: Runtime, known: dict[str, Setting]) -> None:
    has = f"it has {', '.join(known)}" if known else "it has no settings"
    if refuse_unquoted_key(name, node.keys_at[name], has, words.problems):
        return
    free = [one for one in known if one not in node]
    advice = words.did_you_mean(name, free) or has
    message = f"the runtime `{runtime.name}` has no setting `{shown(name)}`"
    words.problems.add(codes.UNKNOWN_SETTING, message, node.keys_at[name], name, help=advice)
    node.lost.update(one for one in free if advice == f"did you mean `{one}`?")


def _value(
    words: Words, setting: Setting, value: Node, node: Map, service: str, callees_of: CalleesOf
) -> SettingValue | None:
    at, name = node.values_at[setting.name], setting.name
    if setting.type is SettingType.CALLEE_PORTS:
        if isinstance(value, Map):
            return _callee_ports(words, value, service, callees_of)
        message = f"the setting `{name}` is a mapping of services to ports"
        words.problems.add(codes.SETTING_VALUE, message, at, value if isinstance(value, str) else "")
        return None
    if setting.type is SettingType.PASSWORD:
        return _password(words, name, value, node)
    if not isinstance(value, str) or not value:
        words.problems.add(codes.SETTING_VALUE, f"the setting `{name}` is a single value", node.keys_at[name], name)
        return None
    return words.parsed(value, at, _as_setting(name, _grammar(setting)))


def _grammar(setting: Setting) -> Callable[[str], str | int | bool]:
    match setting.type:
        case SettingType.CHOICE:
            return grammar.choice({value: value for value in setting.values})
        case SettingType.FILE_NAME:
            return lambda text: _file_name(text, setting.reserved)
        case SettingType.ALIAS:
            return _alias
        case _:
            return _SIMPLE[setting.type]


def _file_name(text: str, reserved: AbstractSet[str]) -> str:
    if FILE_NAME.fullmatch(text) is None:
        message = f"`{shown(text)}` is not a file name: letters, digits and inner `.-`, `_` anywhere, at most 64"
        raise grammar.Unfit(codes.SETTING_VALUE, message)
    if text.lower() in reserved:
        raise grammar.Unfit(codes.SETTING_VALUE, f"`{text}` is the name of another file of the release")
    return text


def _alias(text: str) -> str:
    if ALIAS.fullmatch(text) is None:
        message = f"`{shown(text)}` is not an alias: small letters, digits and inner `._-`, at most 64"
        raise grammar.Unfit(codes.SETTING_VALUE, message)
    return text


def _refuse_one_name(words: Words, node: Map, names: list[tuple[str, SettingValue]]) -> None:
    """Two files of a release with one name; some file systems do not tell large letters from small."""
    first: dict[str, str] = {}
    for name, value in names:
        other = first.setdefault(str(value).lower(), name)
        if other != name:
            message = f"the settings `{other}` and `{name}` give two files one name"
            words.problems.add(codes.SETTING_VALUE, message, node.values_at[name], str(value))


def _password(words: Words, name: str, value: Node, node: Map) -> str | None:
    """Where a password comes from. What stands here in its place may be one, so it is never repeated."""
    found = PasswordSource()
    if isinstance(value, Map) and len(value) == 1:
        ((kind, word),) = value.items()
        if kind == "env" and isinstance(word, str) and SECRET_VARIABLE.fullmatch(word):
            found = PasswordSource(variable=word)
        elif kind == "file" and isinstance(word, str) and FILE_NAME.fullmatch(word):
            found = PasswordSource(file=word)
    if value != GENERATED and found == PasswordSource():
        message = f"the setting `{name}` says where a password comes from, and is never one"
        advice = "`generated`, { env: MTLSCTL_SECRET_NAME } or { file: NAME }, a file of the folder MTLSCTL_SECRETS_DIR"
        words.problems.add(codes.SETTING_VALUE, message, node.keys_at[name], name, help=advice)
        return None
    return str(found)


def _as_setting(name: str, parse: Callable[[str], str | int | bool]) -> Callable[[str], str | int | bool]:
    """The same grammar, with the setting's name in the message and the code of settings."""

    def parsed(text: str) -> str | int | bool:
        try:
            return parse(text)
        except grammar.Unfit as error:
            raise grammar.Unfit(codes.SETTING_VALUE, f"the setting `{name}`: {error.message}", error.help) from None

    return parsed


def _callee_ports(words: Words, node: Map, service: str, callees_of: CalleesOf) -> tuple[tuple[str, int], ...]:
    pairs: list[tuple[str, int]] = []
    first: dict[int, str] = {}
    for callee, value in node.items():
        at = node.keys_at[callee]
        if not words.is_text(callee, at):
            continue
        if callee not in callees_of(service):
            message = f"`{service}` does not call `{shown(callee)}`"
            advice = words.did_you_mean(callee, callees_of(service)) or f"declare it: `callers` of `{shown(callee)}`"
            words.problems.add(codes.NOT_A_CALLEE, message, at, callee, help=advice)
            continue
        if not isinstance(value, str):
            words.problems.add(codes.SETTING_VALUE, f"the port for `{callee}` is a single value", at, callee)
            continue
        port = words.parsed(value, node.values_at[callee], grammar.port)
        if port is None:
            continue
        if first.setdefault(port, callee) != callee:
            message = f"port {port} already leads to `{first[port]}`"
            words.problems.add(codes.PORT_TAKEN, message, node.values_at[callee], value)
            continue
        pairs.append((callee, port))
    return tuple(sorted(pairs))
