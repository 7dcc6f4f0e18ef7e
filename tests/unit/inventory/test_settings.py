"""The types of settings that name files, choose words and say where a password comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InventoryError
from mtlsctl.inventory import codes, load_inventory
from mtlsctl.model.runtime import Setting, SettingType
from tests.unit.inventory.runtimes import runtime

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.model.topology import SettingValue

RESERVED = frozenset({"tls.crt", "tls.key", "clients", "servers", "java.args"})


def setting(name: str, kind: SettingType, **more: object) -> Setting:
    return Setting(name=name, type=kind, required=False, description="", **more)  # type: ignore[arg-type]


STORED = replace(
    runtime("stored"),
    settings=(
        setting("alias", SettingType.ALIAS),
        setting("keystore_file", SettingType.FILE_NAME, reserved=RESERVED),
        setting("store_password", SettingType.PASSWORD),
        setting("store_profile", SettingType.CHOICE, values=("modern", "legacy")),
        setting("truststore_file", SettingType.FILE_NAME, reserved=RESERVED),
    ),
)


def read(tmp_path: Path, text: str) -> dict[str, SettingValue]:
    file = tmp_path / "inventory.yaml"
    file.write_text(
        "version: 1\nname: calendar\nhosts: { here: { directory: out } }\n"
        f"services:\n  mail:\n    runtime: stored\n    hosts: [here]\n    settings: {{ {text} }}\n"
    )
    loaded = load_inventory(file, {"stored": STORED}, root=tmp_path)
    return dict(loaded.inventory.services["mail"].settings)


def refusals(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InventoryError) as refused:
        read(tmp_path, text)
    assert {codes.SETTING_VALUE} == {one.code for one in refused.value.diagnostics}
    return [one.message for one in refused.value.diagnostics]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("store_profile: legacy", "legacy"),
        ("keystore_file: keystore_server_1.jks", "keystore_server_1.jks"),
        ("keystore_file: _x", "_x"),
        ("alias: server_1.key-a", "server_1.key-a"),
        ("store_password: generated", "generated"),
        ("store_password: { env: MTLSCTL_SECRET_STORE }", "env:MTLSCTL_SECRET_STORE"),
        ("store_password: { file: store.password }", "file:store.password"),
    ],
)
def test_a_setting_is_read_by_its_type(tmp_path: Path, text: str, value: str) -> None:
    assert {text.partition(":")[0]: value} == read(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "store_profile: newest",
        "store_profile: [modern]",
        "keystore_file: .hidden",
        "keystore_file: -rf",
        "keystore_file: a/b",
        "keystore_file: ..",
        'keystore_file: "a b"',
        'keystore_file: "a\\"b"',
        'keystore_file: "${HOME}"',
        "keystore_file: clé.p12",
        "keystore_file: " + "x" * 65,
        "keystore_file: tls.key",
        "keystore_file: TLS.KEY",
        "keystore_file: java.args",
        "keystore_file: clients",
        "alias: Server",
        "alias: a b",
        'alias: "a,b"',
        "alias: é",
        "alias: -a",
    ],
)
def test_a_value_outside_its_grammar_is_refused(tmp_path: Path, text: str) -> None:
    assert refusals(tmp_path, text)


def test_two_files_with_one_name_are_refused_whatever_the_case_of_its_letters(tmp_path: Path) -> None:
    (said,) = refusals(tmp_path, "keystore_file: store.p12, truststore_file: STORE.p12")
    assert "give two files one name" in said
    assert 2 == len(read(tmp_path, "keystore_file: key.p12, truststore_file: trust.p12"))


@pytest.mark.parametrize(
    "value",
    [
        "hunter2-hunter2",
        "[hunter2-hunter2]",
        "{ env: HOME }",
        "{ env: MTLSCTL_PASSPHRASE_FILE }",
        "{ env: mtlsctl_secret_x }",
        "{ env: MTLSCTL_SECRET_ }",
        '{ env: "MTLSCTL_SECRET_X=1" }',
        "{ env: [MTLSCTL_SECRET_X] }",
        "{ file: /etc/passwd }",
        "{ file: ../x }",
        "{ file: .hidden }",
        "{ file: a/b }",
        "{ value: hunter2-hunter2 }",
        "{ env: MTLSCTL_SECRET_A, file: b }",
        "{}",
        "env:MTLSCTL_SECRET_A",
    ],
)
def test_a_password_is_never_written_down_and_comes_only_from_where_secrets_are(tmp_path: Path, value: str) -> None:
    (said,) = refusals(tmp_path, f"store_password: {value}")
    assert "hunter2" not in said
    assert "is never one" in said
