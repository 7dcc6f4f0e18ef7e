"""Each row of the documented table, and that stdout parses in every machine format, also on failure."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlsctl.cli.app import COMMANDS, build_app, run
from mtlsctl.cli.codes import meanings, tables
from mtlsctl.cli.overview import OVERVIEW
from tests.cli.estate import INVENTORY, Estate
from tests.support.patience import ENDED_SECONDS

ROOT = Path(__file__).resolve().parents[2]


def test_0_is_success(estate: Estate) -> None:
    assert estate.run("validate").code == 0


def test_1_is_a_missing_state(estate: Estate) -> None:
    (estate.folder / ".mtlsctl" / "state.db").unlink()
    ran = estate.run("plan")
    assert (ran.code, "error[M3001]" in ran.err) == (1, True)


def test_a_missing_or_foreign_state_has_three_remedies_each_said_once(estate: Estate, tmp_path: Path) -> None:
    state = estate.folder / ".mtlsctl" / "state.db"
    state.rename(tmp_path / "state.db")
    missing = estate.run("plan").err
    other = make_lineage(estate, tmp_path / "other")
    other.rename(state)
    foreign = estate.run("plan").err
    for said, code in ((missing, "M3001"), (foreign, "M3002")):
        assert f"error[{code}]" in said
        for remedy in ("mtlsctl state restore FILE", "point --state at", "mtlsctl init --new-lineage"):
            assert said.count(remedy) == 1
        assert ": or " not in said
    ran = estate.run("init")
    assert (ran.code, "error[M3002]" in ran.err) == (1, True)


def make_lineage(estate: Estate, folder: Path) -> Path:
    estate.good("init", str(folder), "--name", "calendar")
    return folder / ".mtlsctl" / "state.db"


def test_a_backup_that_cannot_be_restored_is_not_to_be_restored_from_a_backup(estate: Estate, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 20)
    foreign = make_lineage(estate, tmp_path / "other")
    for backup, code in ((tmp_path / "none.db", "M3001"), (tmp_path / "text.db", "M3003"), (foreign, "M3002")):
        ran = estate.run("state", "restore", str(backup))
        assert (ran.code, f"error[{code}]" in ran.err) == (1, True), ran
        assert "restore a backup" not in ran.err
        assert "name another backup: mtlsctl state restore FILE" in ran.err


def test_1_is_a_system_that_refuses(estate: Estate) -> None:
    ran = estate.run("plan", "--out", "no/such/folder/x.mtlsplan")
    assert (ran.code, "error[M9002]" in ran.err) == (1, True)


def test_1_is_a_verification_that_could_not_try(estate: Estate) -> None:
    assert estate.run("verify", "--embedded").code == 1


def test_2_is_changes_pending_and_only_where_it_was_asked_for(estate: Estate) -> None:
    assert estate.run("plan", "--detailed-exitcode").code == 2
    assert estate.run("plan").code == 0
    estate.good("apply", "--yes")
    assert estate.run("plan", "--detailed-exitcode").code == 0


def test_3_is_a_process_that_failed(estate: Estate) -> None:
    estate.good("apply", "--yes")
    (estate.folder / "out/etc/nginx/conf.d/mtlsctl.conf").write_text("edited by hand\n")
    estate.inventory.write_text(INVENTORY.replace("callers: [mail]", "callers: [mail, other]"))
    ran = estate.run("apply", "--yes")
    assert ran.code == 3
    assert "here/nginx in extend: M4105 " in ran.out
    assert "    help: move it away if it is not needed" in ran.out
    assert "here/other in activate: blocked, waits for schedule@here/extend\n" in ran.out
    assert "Run again" not in ran.out
    assert 'instances=schedule@here code=M4105 message="' in ran.err
    again = estate.run("apply", "--yes", "-o", "json").json
    assert [one["instances"] for one in again["processes"]][:2] == [["schedule@here"], ["other@here"]]
    assert again["processes"][0]["help"].startswith("move it away")


def test_4_is_a_contradiction(estate: Estate) -> None:
    estate.good("apply", "--yes")
    estate.inventory.write_text(INVENTORY.replace("callers: [mail]", "callers: [other]"))
    ran = estate.run("verify", "--embedded")
    assert ran.code == 4
    assert "✗" in ran.out


def test_5_is_a_lock_that_somebody_holds(estate: Estate) -> None:
    holder = (
        "import sys, fcntl\n"
        "lock = open(sys.argv[1], 'a')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    lock = estate.folder / ".mtlsctl" / "state.db.lock"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ran = estate.run("apply", "--yes", "--lock-timeout", "0s")
        process.communicate("")
    assert (ran.code, "error[M3010]" in ran.err) == (5, True)


def test_6_is_a_plan_that_was_altered(estate: Estate) -> None:
    estate.good("plan", "--out", "x.mtlsplan")
    file = estate.folder / "x.mtlsplan"
    file.write_text(file.read_text().replace('"serial":1', '"serial":2'))
    assert estate.run("apply", "x.mtlsplan").code == 6
    assert estate.run("show", "x.mtlsplan").code == 6


def test_7_is_an_inventory_with_errors(estate: Estate) -> None:
    estate.inventory.write_text(INVENTORY.replace("[mail]", "[nobody]"))
    for command in ("validate", "plan", "verify"):
        assert estate.run(command).code == 7
    assert estate.run("apply", "--yes").code == 7


@pytest.mark.parametrize(
    "arguments",
    [
        ["paln"],
        ["plan", "--nope"],
        ["plan", "-o", "yaml"],
        ["plan", "--color", "sometimes"],
        ["state"],
        ["state", "nope"],
        ["explain", "M0000"],
        ["-o", "json"],
        ["apply", "--lock-timeout", "soon"],
        ["journal", "--last", "x"],
        ["-C", "/no/such/folder", "plan"],
        ["runtimes", "lint", "no/such/folder"],
    ],
)
def test_64_is_wrong_usage_everywhere(estate: Estate, arguments: list[str]) -> None:
    ran = estate.run(*arguments)
    assert ran.code == 64
    assert ran.err.startswith("error[M9")
    assert "Traceback" not in ran.err


def test_a_command_that_is_nearly_right_is_suggested(estate: Estate) -> None:
    assert "did you mean `plan`?" in estate.run("paln").err


def test_70_is_a_bug_with_a_file_that_holds_no_values(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        secret = "hunter2-" + "x" * 20
        raise RuntimeError(secret)

    monkeypatch.setattr("mtlsctl.operations.plan.make_plan", broken)
    ran = estate.run("plan", "-vvv")
    assert ran.code == 70
    written = Path(re.findall(r"written to\s+(\S+)", ran.err)[0])
    assert written.stat().st_mode & 0o777 == 0o600
    text = written.read_text()
    assert "RuntimeError" in text
    assert "test_exit_codes.py" in text
    assert "hunter2" not in text + ran.err + ran.out
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_are_interrupted_and_terminated(estate: Estate, number: signal.Signals, code: int) -> None:
    waits = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background starts without it
        "import mtlsctl.operations.plan as plan\n"
        "def wait(workspace, *, look):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "plan.plan = wait\n"
        "from mtlsctl.cli.app import run\n"
        "sys.exit(run(['plan']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", waits],
        cwd=estate.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=ENDED_SECONDS)
    assert process.returncode == code
    assert "Traceback" not in err


def entry(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtlsctl.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDED_SECONDS,
    )


def test_version_and_help_load_no_library(tmp_path: Path) -> None:
    probe = (
        "import sys\n"
        "sys.argv = ['mtlsctl', sys.argv[1]]\n"
        "from mtlsctl.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "slow = {'typer', 'click', 'yaml', 'pydantic', 'jinja2', 'cryptography', 'sqlite3'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    for flag, first in (("--version", "mtlsctl 0."), ("--help", "mtlsctl - mutual TLS")):
        done = subprocess.run(
            [sys.executable, "-c", probe, flag],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(first)
        assert done.stdout.endswith("[]\n")


def test_no_command_shows_the_help_and_is_wrong_usage(tmp_path: Path) -> None:
    done = entry(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (64, OVERVIEW)


def test_a_plan_loads_neither_the_pki_nor_templates(estate: Estate) -> None:
    probe = (
        "import sys\nfrom mtlsctl.cli.app import run\ncode = run(['plan', '-q'])\n"
        "print(code, sorted({'cryptography', 'jinja2', 'paramiko'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=estate.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "0 []\n"


def test_a_reader_that_goes_away_is_no_traceback(estate: Estate) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m mtlsctl.cli plan -q --full | true'],
        cwd=estate.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_help_names_every_command_and_no_other() -> None:
    listed = re.findall(r"^(?:Everyday|State|Tooling):(.*)$", OVERVIEW, re.MULTILINE)
    assert sorted(" ".join(listed).split()) == sorted(COMMANDS)
    assert sorted(typer.main.get_command(build_app()).commands) == sorted(COMMANDS)  # type: ignore[attr-defined]
    assert max(map(len, OVERVIEW.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(estate: Estate, command: str) -> None:
    ran = estate.run(command, "--help")
    assert ran.code == 0
    assert f"Usage: mtlsctl {command}" in ran.out


FORMATS = [
    ("plan", "json"),
    ("plan", "markdown"),
    ("validate", "json"),
    ("verify", "json"),
    ("verify", "junit"),
    ("apply", "json"),
    ("show", "json"),
    ("status", "json"),
    ("journal", "json"),
]


def parse(format: str, text: str) -> None:
    match format:
        case "json":
            assert json.loads(text)["format_version"] == "1.0"
        case "junit":
            ET.fromstring(text)  # noqa: S314  our own text
        case _:
            assert text.startswith(("### ", "<!-- "))


@pytest.mark.parametrize(("command", "format"), FORMATS)
@pytest.mark.parametrize("failure", ["none", "inventory", "state", "usage", "bug"])
def test_stdout_parses_in_every_machine_format_also_on_failure(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, command: str, format: str, failure: str
) -> None:
    extra = ["--yes"] if command == "apply" else []
    match failure:
        case "inventory":
            estate.inventory.write_text(INVENTORY.replace("[mail]", "[nobody]"))
        case "state":
            (estate.folder / ".mtlsctl" / "state.db").unlink()
        case "usage":
            extra.append("--no-such-flag")
        case "bug":
            monkeypatch.setattr("mtlsctl.cli.wiring.project_of", lambda _: 1 / 0)
    ran = estate.run(command, "-o", format, *extra)
    parse(format, ran.out)
    assert "Traceback" not in ran.err
    if format == "json" and "exit_code" in ran.json:
        assert ran.json["exit_code"] == ran.code


@given(st.lists(st.text(max_size=8), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_arguments_there_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in (arguments, ["plan", *arguments], ["state", *arguments], ["explain", *arguments]):
        code = run(line)
        assert code in {0, 1, 6, 7, 64}
        assert "Traceback" not in capsys.readouterr().err


def test_no_code_means_two_things() -> None:
    assert sorted(code for table in tables() for code in table) == list(meanings())


def test_every_code_that_the_source_names_is_explained(estate: Estate) -> None:
    named = {
        code for path in (ROOT / "mtlsctl").rglob("*.py") for code in re.findall(r'"(M\d{4})"', path.read_text("utf-8"))
    }
    assert sorted(named - meanings().keys()) == []
    assert estate.good("explain", "m1107").out.startswith("M1107  (inventory)\n\n")
    lines = estate.good("explain").out.splitlines()
    assert len(lines) == len(meanings())
    assert [line for line in lines if not re.match(r"M\d{4}  [`A-Z]", line) or "  Mtlsctl.yaml" in line] == []


@pytest.mark.parametrize(
    ("words", "expected"), [("mtlsctl pl", "plan"), ("mtlsctl plan --detail", "--detailed-exitcode")]
)
def test_a_shell_can_complete_commands_and_flags(tmp_path: Path, words: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mtlsctl.cli"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "_MTLSCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [expected]
