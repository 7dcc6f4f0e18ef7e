from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mtlsctl.errors import SealedKeyError, UsageError
from mtlsctl.model.secret import Secret
from mtlsctl.store import keysource
from mtlsctl.store.keysource import (
    KeyDescriptor,
    KeyFile,
    PassphraseFile,
    create_key_file,
    default_key_path,
    is_weak,
    key_from_passphrase,
    resolve_key_source,
)

SALT = b"s" * 16
SCRYPT_VECTOR = "c2071233af7bbe61585462b1f1e38324299497e9114e275b595b925b38323267"
WORDS = b"copper violin eleven harbour orbit\n"


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def code_of(source: keysource.KeySource) -> str:
    with pytest.raises(SealedKeyError) as caught:
        source.key(SALT)
    return caught.value.code


# Files


def test_a_created_key_file_gives_the_same_key_each_time(tmp_path: Path) -> None:
    create_key_file(tmp_path / "a" / "b" / "estate.key")
    source = KeyFile(tmp_path / "a" / "b" / "estate.key")
    assert source.key(SALT) == source.key(b"another")
    assert len(source.key(SALT).reveal()) == 32


def test_a_created_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "keys" / "estate.key")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / part).stat().st_mode) for part in ("keys", "keys/estate.key")]
    assert modes == [0o700, 0o600]
    assert [entry.name for entry in (tmp_path / "keys").iterdir()] == ["estate.key"]


def test_two_created_keys_differ(tmp_path: Path) -> None:
    for name in "ab":
        create_key_file(tmp_path / name)
    assert KeyFile(tmp_path / "a").key(SALT) != KeyFile(tmp_path / "b").key(SALT)


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_key_file_never_replaces_anything(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "estate.key"
    path.write_bytes(b"old") if kind == "file" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SealedKeyError) as caught:
        create_key_file(path)
    assert caught.value.code == "M7007"
    assert [entry.name for entry in tmp_path.iterdir()] == ["estate.key"]


def test_a_missing_key_file_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SealedKeyError, match=r"estate\.key") as caught:
        KeyFile(tmp_path / "estate.key").key(SALT)
    assert caught.value.code == "M7002"
    assert "MTLSCTL_KEY_SOURCE" in (caught.value.help or "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_key_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    assert code_of(KeyFile(private(tmp_path / "k", b"k" * 32, mode))) == "M7003"
    assert code_of(PassphraseFile(private(tmp_path / "p", WORDS, mode))) == "M7003"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_that_only_its_owner_reaches_is_read(tmp_path: Path, mode: int) -> None:
    assert KeyFile(private(tmp_path / "k", b"k" * 32, mode)).key(SALT) == Secret(b"k" * 32)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(SealedKeyError) as caught:
        KeyFile(private(tmp_path / "k", b"k" * length)).key(SALT)
    assert caught.value.code == "M7002"
    assert "kkk" not in str(caught.value)


def test_a_folder_and_a_named_pipe_are_no_key_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert code_of(KeyFile(tmp_path / "pipe")) == "M7003"
    assert code_of(KeyFile(tmp_path)) == "M7003"


# Where a key may not lie


def test_a_key_in_the_repository_or_beside_the_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "repository" / "deep").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    keep_out = (tmp_path / "repository", tmp_path / "state")
    for folder in (tmp_path / "repository" / "deep", tmp_path / "state"):
        assert code_of(KeyFile(private(folder / "k", b"k" * 32), keep_out=keep_out)) == "M7005"
        assert code_of(PassphraseFile(private(folder / "p", WORDS), keep_out=keep_out)) == "M7005"
        with pytest.raises(SealedKeyError) as caught:
            create_key_file(folder / "new", keep_out=keep_out)
        assert caught.value.code == "M7005"
    outside = private(tmp_path / "repository-not", b"k" * 32)
    assert KeyFile(outside, keep_out=keep_out).key(SALT) == Secret(b"k" * 32)


def test_a_symlink_does_not_hide_where_a_key_lies(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    private(tmp_path / "repository" / "k", b"k" * 32)
    (tmp_path / "link").symlink_to(tmp_path / "repository" / "k")
    (tmp_path / "alias").symlink_to(tmp_path / "repository")
    assert code_of(KeyFile(tmp_path / "link", keep_out=(tmp_path / "repository",))) == "M7005"
    assert code_of(KeyFile(tmp_path / "repository" / "k", keep_out=(tmp_path / "alias",))) == "M7005"


# Descriptors


def test_a_key_from_a_pipe_is_read_once_and_remembered() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"p" * 32)
    os.close(writing)
    source = KeyDescriptor(reading)
    try:
        assert source.key(SALT) == source.key(SALT) == Secret(b"p" * 32)
    finally:
        os.close(reading)


@pytest.mark.parametrize("content", [b"", b"p" * 31, b"p" * 33])
def test_a_pipe_with_another_length_is_refused(content: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    try:
        assert code_of(KeyDescriptor(reading)) == "M7002"
    finally:
        os.close(reading)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    assert code_of(KeyDescriptor(987)) == "M7002"


# Passphrases


def test_a_passphrase_gives_one_key_for_one_salt(tmp_path: Path) -> None:
    source = PassphraseFile(private(tmp_path / "p", WORDS))
    assert source.key(SALT) == key_from_passphrase(Secret(WORDS.strip()), SALT)
    assert source.key(SALT) != source.key(b"t" * 16)


def test_the_price_of_a_guess_is_as_documented() -> None:
    assert (keysource.SCRYPT_N, keysource.SCRYPT_R, keysource.SCRYPT_P) == (2**17, 8, 1)
    # RFC 7914 section 12 has no vector of this size; OpenSSL computed this one.
    assert key_from_passphrase(Secret(b"password"), b"NaCl").reveal().hex() == SCRYPT_VECTOR


def test_line_ends_of_a_passphrase_file_do_not_count(tmp_path: Path) -> None:
    shapes = (WORDS.strip(), WORDS, WORDS.strip() + b"\r\n")
    keys = [PassphraseFile(private(tmp_path / str(n), shape)).key(SALT) for n, shape in enumerate(shapes)]
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.parametrize(
    "weak",
    [
        "",
        "\n",
        "password",
        "correct horse bat",
        "nineteen characters",
        "a b c d e f",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "abababababababababababababab",
        "word word word word word",
        " " * 40,
        "12345678901234567890",
        "98765432109876543210",
        "passwordpassword1234",
        "p@ssw0rdp@ssw0rd1234",
        "Summer2024Summer2024!",
        "abcdefghijklmnopqrstuvwxyz",
        "aabbccddeeffgghhiijjkk",
        "abcd efgh ijkl mnop qrst",
        "qwertyuiopasdfghjklzxcvbnm",
        "correct horse battery staple",
        "Correct-Horse-Battery-Staple",
        "correct horse battery staple orbit",
        "one two three four five",
    ],
)
def test_a_weak_passphrase_is_refused(tmp_path: Path, weak: str) -> None:
    assert is_weak(weak.strip("\n").encode())
    with pytest.raises(SealedKeyError) as caught:
        PassphraseFile(private(tmp_path / "p", weak.encode())).key(SALT)
    assert caught.value.code == "M7004"
    assert not weak.strip() or weak not in str(caught.value)


@pytest.mark.parametrize(
    "strong",
    [
        "copper violin eleven harbour orbit",
        "k3v9-xq2m-7hd0-wz5t-b",
        "48150372960417385926",
        "Tr0ub4dor&3-and-more!",
        "zwölf Boxkämpfer jagen Viktor",
    ],
)
def test_a_strong_passphrase_is_taken(strong: str) -> None:
    assert not is_weak(strong.encode())


def test_a_passphrase_without_end_is_refused(tmp_path: Path) -> None:
    assert code_of(PassphraseFile(private(tmp_path / "p", b"many different words indeed " * 1000))) == "M7004"


# The environment


def test_the_environment_names_the_source(tmp_path: Path) -> None:
    keep_out = (tmp_path / "repository",)

    def place(**environ: str) -> tuple[type, str]:
        source = resolve_key_source(environ, lineage="abc", keep_out=keep_out)
        return type(source), source.place

    assert place(MTLSCTL_KEY_SOURCE="file:/k") == (KeyFile, "/k")
    assert place(MTLSCTL_KEY_SOURCE="fd:7") == (KeyDescriptor, "file descriptor 7")
    assert place(MTLSCTL_PASSPHRASE_FILE="/p") == (PassphraseFile, "the passphrase in /p")
    assert place(XDG_CONFIG_HOME="/x") == (KeyFile, "/x/mtlsctl/keys/abc.key")
    assert place(HOME="/h") == (KeyFile, "/h/.config/mtlsctl/keys/abc.key")


def test_a_relative_configuration_folder_is_ignored() -> None:
    assert default_key_path({"XDG_CONFIG_HOME": "here", "HOME": "/h"}, "abc") == Path("/h/.config/mtlsctl/keys/abc.key")


def test_the_source_that_the_environment_names_keeps_out_too(tmp_path: Path) -> None:
    key = private(tmp_path / "k", b"k" * 32)
    source = resolve_key_source({"MTLSCTL_KEY_SOURCE": f"file:{key}"}, lineage="abc", keep_out=(tmp_path,))
    assert code_of(source) == "M7005"


@pytest.mark.parametrize(
    "value",
    ["file:", "fd:", "fd:x", "fd:-1", "fd:1e3", "fd:²", "fd:99999999999", "/k", "env:KEY", "s3cret-key-material"],
)
def test_a_source_that_there_is_not_is_a_usage_error_that_does_not_repeat_it(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_key_source({"MTLSCTL_KEY_SOURCE": value}, lineage="abc")
    assert caught.value.code == "M7006"
    assert len(value) < 4 or value not in str(caught.value).replace("file:PATH", "").replace("fd:NUMBER", "")


def test_two_sources_are_a_usage_error() -> None:
    with pytest.raises(UsageError):
        resolve_key_source({"MTLSCTL_KEY_SOURCE": "fd:3", "MTLSCTL_PASSPHRASE_FILE": "/p"}, lineage="abc")


def test_nothing_is_read_before_a_key_is_asked_for() -> None:
    resolve_key_source({"MTLSCTL_KEY_SOURCE": "file:/no/such/file"}, lineage="abc")
    resolve_key_source({"MTLSCTL_PASSPHRASE_FILE": "/no/such/file"}, lineage="abc")


def test_no_source_shows_a_key(tmp_path: Path) -> None:
    source = KeyFile(private(tmp_path / "k", b"visible-" * 4))
    assert "visible" not in repr(source.key(SALT)) + repr(source) + source.place


def test_without_a_home_folder_the_default_key_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        default_key_path({"HOME": "~no-such-user-here/x"}, "l")
    assert caught.value.code == "M7006"
