"""Passwords of stores: looked up where the operator keeps them, before anything is begun; and what is staged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.errors import PreflightError, SecretMissing
from mtlsctl.operations.stores import look_up_passwords
from tests.unit.render.recipes import FOLDERS, call, recipe

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.model.secret import Secret


def look_up(source: str, environ: dict[str, str], **more: Any) -> Secret | None:
    one = recipe("mail", "java", callees=[call("ledger")], settings=[("store_password", source)])
    return look_up_passwords([one], FOLDERS, environ, **more).of(one)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "store").write_bytes(b"from a file\n")
    (folder / "store").chmod(0o600)
    return folder


def refused(source: str, environ: dict[str, str], **more: Any) -> SecretMissing:
    with pytest.raises(SecretMissing) as caught:
        look_up(source, environ, **more)
    assert 1 == caught.value.exit_code
    return caught.value


def test_a_generated_password_is_looked_up_nowhere() -> None:
    assert look_up("generated", {}) is None


def test_a_password_is_the_value_of_its_variable() -> None:
    found = look_up("env:MTLSCTL_SECRET_A", {"MTLSCTL_SECRET_A": 'with "quotes"', "MTLSCTL_SECRET_B": "x"})
    assert found is not None
    assert b'with "quotes"' == found.reveal()


@pytest.mark.parametrize("environ", [{}, {"MTLSCTL_SECRET_A": ""}, {"MTLSCTL_SECRET_B": "something"}])
def test_a_variable_that_is_not_set_is_said_to_be(environ: dict[str, str]) -> None:
    error = refused("env:MTLSCTL_SECRET_A", environ)
    assert "M7401" == error.code
    assert "MTLSCTL_SECRET_A" in error.message


@pytest.mark.parametrize("value", ["kurz", "pässwort", "line\nbreak", " before", "x" * 300])
def test_a_value_that_programs_read_differently_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(PreflightError) as caught:
        look_up("env:MTLSCTL_SECRET_A", {"MTLSCTL_SECRET_A": value})
    assert "M7107" == caught.value.code
    assert value not in str(caught.value)
    assert "MTLSCTL_SECRET_A" in str(caught.value)


@pytest.mark.parametrize("content", [b"from a file", b"from a file\n", b"from a file\r\n"])
def test_a_password_is_the_content_of_its_file_without_the_end_of_the_line(secrets: Path, content: bytes) -> None:
    (secrets / "store").write_bytes(content)
    found = look_up("file:store", {"MTLSCTL_SECRETS_DIR": str(secrets)})
    assert found is not None
    assert b"from a file" == found.reveal()


def test_a_file_that_is_not_there_is_said_to_be(secrets: Path) -> None:
    assert "M7401" == refused("file:other", {"MTLSCTL_SECRETS_DIR": str(secrets)}).code
    assert "M7401" == refused("file:store", {}).code
    assert "M7401" == refused("file:store", {"MTLSCTL_SECRETS_DIR": "relative"}).code
    assert "M7401" == refused("file:store", {"MTLSCTL_SECRETS_DIR": str(secrets / "store")}).code


def test_a_symlink_is_not_followed(secrets: Path) -> None:
    (secrets / "link").symlink_to("store")
    assert "M7401" == refused("file:link", {"MTLSCTL_SECRETS_DIR": str(secrets)}).code


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_can_reach_is_refused(secrets: Path, mode: int) -> None:
    (secrets / "store").chmod(mode)
    assert "M7402" == refused("file:store", {"MTLSCTL_SECRETS_DIR": str(secrets)}).code


def test_what_is_no_file_is_refused(secrets: Path) -> None:
    os.mkfifo(secrets / "pipe", 0o600)
    (secrets / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert refused(f"file:{name}", {"MTLSCTL_SECRETS_DIR": str(secrets)}).code in {"M7401", "M7402"}


def test_a_folder_inside_the_repository_is_refused(secrets: Path, tmp_path: Path) -> None:
    environ = {"MTLSCTL_SECRETS_DIR": str(secrets)}
    assert "M7402" == refused("file:store", environ, keep_out=[tmp_path]).code
    outside = tmp_path / "elsewhere"
    outside.symlink_to(secrets)
    assert "M7402" == refused("file:store", {"MTLSCTL_SECRETS_DIR": str(outside)}, keep_out=[secrets]).code
    assert look_up("file:store", environ, keep_out=[tmp_path / "repository"]) is not None


def test_a_runtime_without_stores_needs_no_password() -> None:
    look_up_passwords([recipe("mail", "curl", callees=[call("ledger")])], FOLDERS, {})
