"""Host keys that are known, in the files that ssh keeps; ssh-keygen says the same where there is one."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.known_hosts import HostKey, Mark, hashed, judge, look_up, parse_line, record
from mtlsctl.errors import DeliveryError
from tests.conftest import find_peer

if TYPE_CHECKING:
    from pathlib import Path


def make(kind: str = "ssh-ed25519", content: bytes = b"1" * 32) -> HostKey:
    parts = (kind.encode(), content)
    return HostKey(kind, b"".join(len(one).to_bytes(4, "big") + one for one in parts))


KEY, OTHER, RSA = make(), make(content=b"2" * 32), make("ssh-rsa")


def known(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("patterns", "names", "has"),
    [
        ("web1", ["web1"], True),
        ("web2", ["web1"], False),
        ("a,web1,b", ["web1"], True),
        ("*.example", ["web1.example"], True),
        ("*.example,!web1.example", ["web1.example"], False),
        ("!web1.example,*.example", ["web1.example"], False),
        ("[web1]:2222", ["[web1]:2222", "web1"], True),
        ("web1", ["[web1]:2222", "web1"], True),
        ("[web1]:2222", ["web1"], False),
        ("WEB1", ["web1"], True),
        pytest.param(hashed("web1"), ["web1"], True, id="hashed"),  # the salt is random
        pytest.param(hashed("web2"), ["web1"], False, id="hashed-other"),  # the salt is random
        pytest.param(hashed("[web1]:2222"), ["[web1]:2222", "web1"], True, id="hashed-port"),  # the salt is random
    ],
)
def test_a_host_is_found_by_its_names(tmp_path: Path, patterns: str, names: list[str], has: bool) -> None:  # noqa: FBT001
    found = look_up([known(tmp_path, f"{patterns} {KEY.text} a comment\n")], names)
    assert found.has(KEY) is has
    assert not found.has(OTHER)


def test_the_key_of_another_port_does_not_pass_for_that_of_a_known_one(tmp_path: Path) -> None:
    names = ["[web1]:2222", "web1"]
    found = look_up([known(tmp_path, f"[web1]:2222 {KEY.text}\nweb1 {OTHER.text}\nweb1 {RSA.text}\n")], names)
    judge(found, KEY, host="web1", place="web1:2222")
    with pytest.raises(DeliveryError) as refused:
        judge(found, OTHER, host="web1", place="web1:2222")
    assert "M4305" == refused.value.code
    assert (KEY.kind,) == found.kinds


def test_a_line_that_is_none_is_passed_over(tmp_path: Path) -> None:
    text = f"# web1 {KEY.text}\n\nweb1\nweb1 ssh-ed25519\nweb1 ssh-rsa {KEY.text.split()[1]}\nweb1 ssh-ed25519 !!!\n@x web1 {KEY.text}\n|1|x web1 {KEY.text}\n"  # noqa: E501
    assert look_up([known(tmp_path, text)], ["web1"]).keys == ()


def test_a_known_key_is_believed_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    found = look_up([known(tmp_path, f"web1 {KEY.text}\n")], ["web1"])
    judge(found, KEY, host="web1", place="web1:22")
    nobody = look_up([tmp_path / "none"], ["web1"])
    with pytest.raises(DeliveryError) as refused:
        judge(nobody, KEY, host="web1", place="web1:22")
    assert refused.value.code == "M4304"
    assert KEY.fingerprint in refused.value.notes[0]


def test_another_key_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    found = look_up([known(tmp_path, f"web1 {KEY.text}\n")], ["web1"])
    for shown in (OTHER, RSA):
        with pytest.raises(DeliveryError) as refused:
            judge(found, shown, host="web1", place="web1:22")
        assert refused.value.code == "M4305"
        assert KEY.fingerprint in refused.value.notes[0]
        assert shown.fingerprint in refused.value.notes[1]


def test_a_revoked_key_is_refused_though_it_is_known(tmp_path: Path) -> None:
    found = look_up([known(tmp_path, f"web1 {KEY.text}\n@revoked * {KEY.text}\n")], ["web1"])
    with pytest.raises(DeliveryError, match="revoked"):
        judge(found, KEY, host="web1", place="web1:22")


def test_a_ca_is_no_host_key(tmp_path: Path) -> None:
    found = look_up([known(tmp_path, f"@cert-authority web1 {KEY.text}\n")], ["web1"])
    assert [one.mark for one in found.authorities] == [Mark.AUTHORITY]
    with pytest.raises(DeliveryError) as refused:
        judge(found, KEY, host="web1", place="web1:22")
    assert refused.value.code == "M4304"


def test_the_kinds_that_a_host_is_known_by_come_first(tmp_path: Path) -> None:
    found = look_up([known(tmp_path, f"web1 {RSA.text}\nweb1 {KEY.text}\nweb1 {OTHER.text}\n")], ["web1"])
    assert found.kinds == ("ssh-rsa", "ssh-ed25519")


def test_a_file_that_cannot_be_read_does_not_make_a_host_unknown(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DeliveryError) as refused:
        look_up([tmp_path / "folder"], ["web1"])
    assert refused.value.code == "M4314"


@pytest.mark.parametrize("is_hashed", [False, True])
def test_a_key_is_recorded_once_and_nothing_else_is_changed(tmp_path: Path, is_hashed: bool) -> None:  # noqa: FBT001
    path = tmp_path / "ssh" / "known_hosts"
    assert record(path, "web1", KEY, is_hashed=is_hashed)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not record(path, "web1", KEY, is_hashed=is_hashed)
    assert record(path, "[web2]:2222", OTHER, is_hashed=is_hashed)
    assert look_up([path], ["web1"]).has(KEY)
    assert look_up([path], ["[web2]:2222"]).has(OTHER)
    assert len(path.read_text().splitlines()) == 2
    assert ("web1" in path.read_text()) is not is_hashed


def test_a_last_line_without_an_end_stays_a_line(tmp_path: Path) -> None:
    path = known(tmp_path, f"web9 {OTHER.text}")
    record(path, "web1", KEY, is_hashed=False)
    assert path.read_text() == f"web9 {OTHER.text}\nweb1 {KEY.text}\n"


def test_another_key_of_that_kind_is_not_recorded(tmp_path: Path) -> None:
    path = known(tmp_path, f"web1 {KEY.text}\n")
    with pytest.raises(DeliveryError) as refused:
        record(path, "web1", OTHER, is_hashed=False)
    assert refused.value.code == "M4305"
    assert record(path, "web1", RSA, is_hashed=False)


def test_a_revoked_key_is_not_recorded(tmp_path: Path) -> None:
    path = known(tmp_path, f"@revoked * {KEY.text}\n")
    with pytest.raises(DeliveryError, match="revoked"):
        record(path, "web1", KEY, is_hashed=False)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeliveryError) as refused:
        record(tmp_path / "file" / "known_hosts", "web1", KEY, is_hashed=False)
    assert refused.value.code in {"M4101", "M4314"}


@pytest.mark.peer("ssh-keygen")
def test_ssh_keygen_finds_what_we_record_and_prints_the_same_fingerprint(tmp_path: Path) -> None:
    keygen = str(find_peer("ssh-keygen"))
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    kind, text, *_ = (tmp_path / "key.pub").read_text().split()
    key = HostKey(kind, base64.b64decode(text))
    said = subprocess.run([keygen, "-lf", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == key.fingerprint
    assert said.stdout.split()[-1] == f"({key.short_kind})"
    path = tmp_path / "known_hosts"
    record(path, "[web1]:2222", key, is_hashed=True)
    found = subprocess.run([keygen, "-F", "[web1]:2222", "-f", str(path)], capture_output=True, text=True, check=True)
    assert key.text in found.stdout


@pytest.mark.peer("ssh-keygen")
def test_we_find_what_ssh_keygen_hashed(tmp_path: Path) -> None:
    path = known(tmp_path, f"web1,web2 {KEY.text}\n[web3]:22 {KEY.text}\n")
    keygen = str(find_peer("ssh-keygen"))
    subprocess.run([keygen, "-H", "-f", str(path)], capture_output=True, check=True)
    assert "web1" not in path.read_text()
    for name in ("web1", "web2", "[web3]:22"):
        assert look_up([path], [name]).has(KEY)


@pytest.mark.parametrize("line", ["\0" * 100, "a" * 100_000, "web1 " + "ssh-ed25519 " * 5000, "@revoked", "|1|||| x y"])
def test_a_line_of_nonsense_is_none(line: str) -> None:
    assert parse_line(line, "here") is None
