"""`mtlsctl inspect` with and without an estate: what it says, how it ends, what it never says."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.estate import INVENTORY, Estate
from tests.unit.pki.foreign import DAY, make, make_ca
from tests.unit.pki.test_contents import JKS, SAMPLES, java_trust_store, key_store, revocation_list

ROOT = Path(__file__).resolve().parents[2]
CA = make_ca("a CA")
LEAF = make("leaf", CA)


@pytest.fixture
def alone(estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estate:
    """The command line in a folder that belongs to no estate."""
    folder = tmp_path / "alone"
    (folder / ".git").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return Estate(folder, estate._capture)


def release(estate: Estate, service: str) -> Path:
    (found,) = (estate.folder / "out/etc/mtlsctl" / service / "releases").iterdir()
    return found


def certificate(ran: Any) -> dict[str, Any]:
    (only,) = ran.json["certificates"]
    return dict(only)


# --- in an estate ---------------------------------------------------------------------------------------------------


def test_a_live_certificate_is_known_with_all_who_believe_it(estate: Estate) -> None:
    estate.good("apply", "--yes")
    text = estate.good("inspect", str(release(estate, "schedule") / "tls.crt"))
    said = " ".join(text.out.split())
    assert "calendar: live certificate of schedule@here (number 1), signed by schedule CA g1" in said
    assert "believed by mail@here (at schedule)" in said
    assert "Nothing is wrong with it." in said
    here = certificate(estate.good("inspect", str(release(estate, "mail") / "tls.crt"), "-o", "json"))["estate"]
    door = {"instance": "schedule@here", "listener": "main", "ports": [18443], "members": None}
    assert ("live", "mail@here", [door], []) == (
        here["role"],
        here["instance"],
        here["let_in_by"],
        here["believed_by"],
    )


def test_a_ca_is_known_by_whom_it_opens_a_door_for(estate: Estate) -> None:
    estate.good("apply", "--yes")
    ran = estate.good("inspect", str(release(estate, "schedule") / "clients/main.pem"))
    assert "opens     schedule@here:18443 to whatever it signed" in ran.out
    assert "calendar: mail CA g1" in ran.out


def test_a_certificate_that_nobody_needs_is_trusted_by_nobody(estate: Estate) -> None:
    estate.good("apply", "--yes")
    assert "by nobody here" in estate.good("inspect", str(release(estate, "other") / "tls.crt")).out


def test_an_earlier_certificate_is_known_from_the_record_of_signatures(estate: Estate, tmp_path: Path) -> None:
    estate.good("apply", "--yes")
    kept = tmp_path / "kept.crt"
    kept.write_bytes((release(estate, "mail") / "tls.crt").read_bytes())
    for number in (1, 2):
        names = f"runtime: curl, hosts: [here], names: [mail{number}.example]"
        estate.inventory.write_text(INVENTORY.replace("runtime: curl, hosts: [here]", names))
        estate.good("apply", "--yes")
    here = certificate(estate.good("inspect", str(kept), "-o", "json"))["estate"]
    assert ("earlier", "mail@here", 1, "mail CA g1") == (
        here["role"],
        here["instance"],
        here["number"],
        here["signed_by"],
    )


def test_a_live_key_is_known_and_not_one_line_of_it_is_said(estate: Estate) -> None:
    estate.good("apply", "--yes")
    key = release(estate, "mail") / "tls.key"
    ran = estate.good("inspect", str(key), "-vvv")
    assert "the live key of mail@here" in ran.out
    assert all(line not in ran.out + ran.err for line in key.read_text().splitlines()[1:-1])


def test_the_key_beside_a_certificate_is_compared(estate: Estate) -> None:
    estate.good("apply", "--yes")
    mail, schedule = release(estate, "mail"), release(estate, "schedule")
    assert estate.run("inspect", str(mail / "tls.crt"), "--key", str(mail / "tls.key")).code == 0
    ran = estate.run("inspect", str(mail / "tls.crt"), "--key", str(schedule / "tls.key"))
    assert (ran.code, "M7309" in ran.out) == (1, True)


@pytest.mark.parametrize("model", ["shared-ca", "pinned"])
def test_under_every_trust_model_it_is_told_who_trusts_a_leaf(estate: Estate, model: str) -> None:
    estate.inventory.write_text(INVENTORY.replace("hosts:\n", f"trust: {{ model: {model} }}\nhosts:\n", 1))
    estate.good("apply", "--yes")
    mail, other = (
        certificate(estate.good("inspect", str(release(estate, one) / "tls.crt"), "-o", "json"))["estate"]
        for one in ("mail", "other")
    )
    assert ["schedule@here"] == [one["instance"] for one in mail["let_in_by"]]
    assert [] == other["let_in_by"]
    assert ({"shared-ca": "shared CA g1", "pinned": None}[model],) == (mail["signed_by"],)


def test_the_stores_of_a_java_service_are_known_by_what_is_in_them(estate: Estate) -> None:
    text = INVENTORY.replace("runtime: pem, hosts", "runtime: java, hosts").replace("[mail]", "[mail, other]")
    estate.inventory.write_text(text)
    estate.good("apply", "--yes")
    stores = release(estate, "other")
    (password,) = stores.rglob("store-password")
    files = sorted(stores.rglob("*.p12"))
    assert len(files) > 1
    said = ""
    for file in files:
        ran = estate.good("inspect", str(file), "--password-file", str(password))
        said += " ".join(ran.out.split())
        assert password.read_text() not in ran.out + ran.err
    assert "the live key of other@here" in said
    assert "live certificate of other@here" in said
    assert "calendar: schedule CA g1" in said
    assert estate.run("inspect", str(files[0])).code == 1


def test_an_imitation_of_a_ca_and_what_it_signed_are_told(estate: Estate, tmp_path: Path) -> None:
    estate.good("apply", "--yes")
    false = make_ca("mail.calendar CA g1")
    for name, made in (("ca.pem", false), ("leaf.pem", make("mail", false))):
        (tmp_path / name).write_bytes(made.pem)
        ran = estate.run("inspect", str(tmp_path / name))
        assert (ran.code, "error[M7320]" in ran.out) == (1, True), ran.out
        assert "by nobody here" in ran.out


def test_what_a_ca_signed_behind_the_states_back_is_told(estate: Estate, tmp_path: Path) -> None:
    estate.good("apply", "--yes")
    behind = signed_behind(estate)
    (tmp_path / "stolen.pem").write_bytes(behind)
    ran = estate.run("inspect", str(tmp_path / "stolen.pem"))
    assert (ran.code, "error[M7321]" in ran.out) == (1, True)
    assert "opens     schedule@here:18443" in ran.out


def signed_behind(estate: Estate) -> bytes:
    """A leaf of mail's CA with a key of the test's."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from mtlsctl.operations.issue import signing_keys  # noqa: PLC0415
    from mtlsctl.operations.project import find_project  # noqa: PLC0415
    from mtlsctl.operations.workspace import Workspace  # noqa: PLC0415
    from mtlsctl.pki.inspect import parse_certificate  # noqa: PLC0415
    from mtlsctl.render.catalog import load_catalog  # noqa: PLC0415
    from tests.unit.pki.foreign import Made  # noqa: PLC0415

    workspace = Workspace(
        project=find_project(estate.folder),
        inventory_path=estate.inventory,
        state_url=find_project(estate.folder).state,
        catalog=load_catalog(),
        environ=dict(os.environ),
        clock=lambda: datetime.now(UTC),
    )
    with workspace.store("calendar") as store, store.lock(command="test", timeout_seconds=10) as writer:
        (authority,) = (one for one in writer.snapshot().authorities if one.service == "mail")
        key = signing_keys(writer, [authority])[authority]
        issuer = Made(parse_certificate(writer.certificate(authority)).certificate, key)  # type: ignore[arg-type]
        return make("mail", issuer, names=("mail.calendar.internal",)).pem


def test_the_private_key_of_a_ca_in_a_file_is_an_error(estate: Estate, tmp_path: Path) -> None:
    estate.good("apply", "--yes")
    file = tmp_path / "ca.key"
    file.write_bytes(ca_key(estate))
    ran = estate.run("inspect", str(file))
    assert (ran.code, "error[M7322]" in ran.out) == (1, True)


def ca_key(estate: Estate) -> bytes:
    from mtlsctl.pki.keys import private_pem  # noqa: PLC0415
    from tests.integration.crafted import _key_of_the_ca  # noqa: PLC0415

    class Place:
        root, environ = estate.folder, dict(os.environ)

    return private_pem(_key_of_the_ca(Place, "mail")).reveal()  # type: ignore[arg-type]


def test_a_state_that_cannot_be_read_does_not_hide_the_file_and_one_that_was_named_does(
    estate: Estate, tmp_path: Path
) -> None:
    file = tmp_path / "leaf.pem"
    file.write_bytes(LEAF.pem + CA.pem)
    (estate.folder / ".mtlsctl/state.db").write_text("broken" * 100)
    ran = estate.good("inspect", str(file))
    assert "M3003" in ran.out
    assert estate.run("inspect", str(file), "--state", "sqlite:nowhere.db").code == 1


# --- without one ----------------------------------------------------------------------------------------------------


def test_a_file_is_inspected_where_there_is_no_estate(alone: Estate) -> None:
    (alone.folder / "leaf.pem").write_bytes(LEAF.pem + CA.pem)
    ran = alone.good("inspect", "leaf.pem")
    assert "Who trusts it is not known: no estate was found here." in ran.out
    document = alone.good("inspect", "leaf.pem", "-o", "json").json
    assert (None, "no estate was found here") == (document["estate"], document["why_no_estate"])
    assert [1, 2] == document["chain"]


def test_1_is_something_wrong_and_a_warning_alone_is_0(alone: Estate) -> None:
    (alone.folder / "ended.pem").write_bytes(make("mail", start=-2 * DAY, end=-DAY).pem)
    (alone.folder / "unused.pem").write_bytes(make("mail", usages=()).pem)
    ended = alone.run("inspect", "ended.pem")
    assert (1, True) == (ended.code, "error[M7301]: the certificate ended on" in ended.out)
    unused = alone.run("inspect", "unused.pem")
    assert (0, True) == (unused.code, "warning[M7304]" in unused.out)
    document = alone.run("inspect", "ended.pem", "-o", "json").json
    assert (1, ["M7301"]) == (document["exit_code"], [one["code"] for one in document["diagnostics"]])


def test_the_password_comes_from_a_variable_or_a_file_and_never_from_an_argument(
    alone: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone.folder / "made.p12").write_bytes(key_store(LEAF, LEAF, CA))
    (alone.folder / "word").write_text("open sesame\n")
    monkeypatch.setenv("A_WORD", "open sesame")
    assert alone.run("inspect", "made.p12").code == 1
    for flags in (("--password-env", "A_WORD"), ("--password-file", "word")):
        ran = alone.good("inspect", "made.p12", *flags)
        assert "opened with the given password: 2 certificates, 1 private key" in " ".join(ran.out.split())
        assert "sesame" not in ran.out + ran.err
    assert alone.run("inspect", "made.p12", "--password", "open sesame").code == 64
    assert alone.run("inspect", "made.p12", "--password-env", "NO_WORD").code == 64
    assert alone.run("inspect", "made.p12", "--password-env", "A_WORD", "--password-file", "word").code == 64
    (alone.folder / "word").write_text("wrong")
    assert "error[M7394]" in alone.run("inspect", "made.p12", "--password-file", "word").err


def test_a_well_known_password_is_tried_and_said(alone: Estate) -> None:
    (alone.folder / "trust.p12").write_bytes(java_trust_store("one", "two"))
    assert "2 entries to Java, opened with the well-known password `changeit`" in alone.good("inspect", "trust.p12").out
    (alone.folder / "trust.jks").write_bytes(JKS)
    assert "opened with the well-known password `changeit`" in alone.good("inspect", "trust.jks").out


def test_a_password_is_asked_for_on_a_terminal_and_not_shown(alone: Estate) -> None:
    (alone.folder / "made.p12").write_bytes(key_store(LEAF, LEAF, CA))
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    with subprocess.Popen(
        [sys.executable, "-m", "mtlsctl.cli", "inspect", "made.p12"],
        cwd=alone.folder,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs),  # noqa: PLW1509  one thread
    ) as process:
        os.close(theirs)
        said = _until(ours, b"Password of the file")
        os.write(ours, b"open sesame\n")
        said += _until(ours, None)
        code = process.wait(30)
    os.close(ours)
    assert 0 == code, said
    assert b"opened with the given password" in b" ".join(said.split())
    assert b"sesame" not in said


def _take_terminal(descriptor: int) -> None:
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def _until(descriptor: int, wanted: bytes | None) -> bytes:
    said = b""
    while wanted is None or wanted not in said:
        if not select.select([descriptor], [], [], 30)[0]:
            break
        try:
            chunk = os.read(descriptor, 4096)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    return said


def test_standard_input_is_a_file(alone: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CA.pem)))
    assert "a CA" in alone.good("inspect", "-").out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["nothing:0"],
        ["nothing:65536"],
        ["no_name:443"],
        ["a b:443"],
        ["x" * 300 + ":443"],
        ["leaf.pem", "--as", "mail"],
        ["leaf.pem", "--certificate", "leaf.pem"],
        ["leaf.pem", "--key", "leaf.pem"],
        ["leaf.pem", "--server-name", "no name"],
        ["127.0.0.1:1", "--certificate", "leaf.pem"],
        ["127.0.0.1:1", "--key", "leaf.pem"],
        ["127.0.0.1:1", "--as", "mail"],
        ["127.0.0.1:1", "--as", "mail", "--certificate", "leaf.pem", "--key", "leaf.pem"],
    ],
)
def test_64_is_what_is_neither_a_file_nor_a_server_and_flags_that_do_not_go_together(
    alone: Estate, arguments: list[str]
) -> None:
    (alone.folder / "leaf.pem").write_bytes(LEAF.pem)
    ran = alone.run("inspect", *arguments)
    assert (64, True) == (ran.code, ran.err.startswith("error[M9"))


def test_a_folder_and_a_port_where_nobody_listens_are_1(alone: Estate) -> None:
    assert alone.run("inspect", str(alone.folder)).code == 1
    ran = alone.run("inspect", "127.0.0.1:1")
    assert (1, True) == (ran.code, "error[M7395]" in ran.err)


def test_a_file_named_like_a_server_is_a_file(alone: Estate) -> None:
    (alone.folder / "127.0.0.1:1").write_bytes(CA.pem)
    assert "1 certificate" in alone.good("inspect", "127.0.0.1:1").out


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_a_file_says_cannot_act_on_a_terminal(alone: Estate, format: str) -> None:
    evil = "x\x1b]0;owned\x07\u202egnp\nPlan: fine"
    (alone.folder / "evil.p12").write_bytes(java_trust_store(evil, evil.upper()))
    (alone.folder / "evil.pem").write_bytes(make(evil, names=()).pem)
    (alone.folder / "evil.jks").write_bytes(JKS.replace(b"mail", b"\x1b[2J"))
    for file in ("evil.p12", "evil.pem", "evil.jks"):
        out = alone.run("inspect", file, "-o", format).out
        assert out
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
        assert "\nPlan: fine" not in out


def test_a_thousand_certificates_are_one_screen_and_all_of_them_in_full(alone: Estate) -> None:
    (alone.folder / "many.pem").write_bytes(CA.pem * 1000)
    lines = alone.good("inspect", "many.pem").out.splitlines()
    assert len(lines) < 60
    assert any("980 more (--full lists them)" in line for line in lines)
    assert 1000 == alone.good("inspect", "many.pem", "--full").out.count("issuer    itself")


def test_every_screen_fits_its_width(alone: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone.folder / "made.p12").write_bytes(key_store(LEAF, LEAF, CA, password=b"changeit"))
    (alone.folder / "list.pem").write_bytes(CA.pem + revocation_list())
    monkeypatch.setenv("COLUMNS", "80")
    for file in ("made.p12", "list.pem"):
        out = alone.run("inspect", file, "--ascii").out
        assert out.isascii()
        assert 80 >= max(len(line) for line in out.splitlines() if "[M7" not in line)


QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@QUICK
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6))
def test_no_file_however_it_was_altered_ends_in_a_traceback(
    alone: Estate, sample: bytes, changes: list[tuple[int, int]]
) -> None:
    altered = bytearray(sample)
    for at, value in changes:
        altered[at % len(altered)] = value
    (alone.folder / "altered").write_bytes(bytes(altered))
    for form in ("text", "json"):
        ran = alone.run("inspect", "altered", "-o", form)
        assert ran.code in (0, 1), ran.err
        assert "Traceback" not in ran.err


@pytest.mark.parametrize("arguments", [["nothing"], ["127.0.0.1:1"], ["broken"]])
def test_a_failure_is_a_document_too(alone: Estate, arguments: list[str]) -> None:
    (alone.folder / "broken").write_bytes(b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1")
    ran = alone.run("inspect", *arguments, "-o", "json")
    assert ("error", ran.code) == (ran.json["kind"], ran.json["exit_code"])
