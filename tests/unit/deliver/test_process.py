from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver.layout import CurrentPointer, FilePointer, StagedFile, StagedRelease
from mtlsctl.deliver.local import LocalTransport
from mtlsctl.deliver.process import OUTPUT_LIMIT, Running, _describe, parse_pid, run_program, shown_lines
from mtlsctl.errors import DeliveryError
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.verify.wire import Served, await_served, read_first_flight
from tests.support.patience import HAPPENED_SECONDS
from tests.support.ports import free_port
from tests.unit.verify.certificates import SCHEDULE_NAME, estate
from tests.unit.verify.servers import NGINX, Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

CONF = "/etc/nginx/conf.d/mtlsctl.conf"
needs_nginx = [pytest.mark.peer("nginx"), pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


def host(root: Path, **pid_files: str) -> DirectoryHost:
    return DirectoryHost(name="here", directory=str(root), pid_files=tuple(pid_files.items()))


# programs


def test_a_program_runs_with_a_bare_environment_and_no_input() -> None:
    script = "import os, sys; print(sorted(set(os.environ) - {'LC_CTYPE'}), repr(sys.stdin.read()))"
    ran = run_program([sys.executable, "-c", script], deadline_seconds=10)
    assert (0, b"['LC_ALL', 'PATH'] ''\n") == (ran.status, ran.output)


def test_a_program_that_does_not_end_is_killed_with_its_children() -> None:
    ran = run_program(["/bin/sh", "-c", "sleep 60 & sleep 60"], deadline_seconds=0.2)
    assert "it did not end in time" == ran.stopped


def test_a_program_that_floods_is_killed() -> None:
    ran = run_program(["/bin/sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx; done"], deadline_seconds=20)
    assert (OUTPUT_LIMIT, True) == (len(ran.output), "said more" in (ran.stopped or ""))


def test_at_most_twenty_lines_are_shown_and_none_of_them_moves_the_cursor() -> None:
    shown = shown_lines(b"\n".join(b"%d \x1b[2J\xff\x9b" % n for n in range(100)))
    assert 20 == len(shown)
    assert r"99 \x1b[2J\xff\x9b" == shown[-1]


# pid files


@pytest.mark.parametrize("content", [b"17\n", b"17"])
def test_a_pid_file_holds_digits(content: bytes) -> None:
    assert 17 == parse_pid(content, "x.pid")


@pytest.mark.parametrize(
    "content", [b"", b"1", b"0", b"-1", b"017", b"17 18", b"17\n\n", b" 17", b"1e3", b"\xb2", b"9" * 8]
)
def test_a_pid_file_that_holds_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(DeliveryError) as refused:
        parse_pid(content, "x.pid")
    assert "M4202" == refused.value.code


def await_name(child: subprocess.Popen[bytes], name: str) -> None:
    """A child keeps its parent's name for a moment after it was started."""
    deadline = time.monotonic() + HAPPENED_SECONDS
    while name not in _describe(child.pid)[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_of_another_program_is_not_signalled() -> None:
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        try:
            await_name(child, "sleep")
            with pytest.raises(DeliveryError, match="is sleep, not nginx"):
                Running(child.pid, "nginx")
            assert child.poll() is None
        finally:
            child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which signals a process catches")
@pytest.mark.parametrize("reload", [Reload.SIGNAL_HUP, Reload.SIGNAL_HUP_MASTER])
def test_a_process_that_a_hang_up_would_end_is_left_alone(tmp_path: Path, reload: Reload) -> None:
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        try:
            await_name(child, "sleep")
            (tmp_path / "mail.pid").write_text(str(child.pid))
            with pytest.raises(DeliveryError, match="has no handler for SIGHUP") as refused:
                LocalTransport(host(tmp_path, mail="mail.pid")).reload(reload, program="sleep", process="mail")
            assert ("M4202", None) == (refused.value.code, child.poll())
        finally:
            child.kill()


def test_a_process_that_ended_and_was_not_collected_does_not_run() -> None:
    with subprocess.Popen(["/bin/sleep", "0"]) as child:
        time.sleep(0.2)
        with pytest.raises(ProcessLookupError):
            Running(child.pid, "sleep")


def test_without_a_pid_file_entry_the_reload_is_the_users(tmp_path: Path) -> None:
    note = LocalTransport(host(tmp_path)).reload(Reload.SIGNAL_HUP, program="node", process="mail")
    assert "no pid_files entry for mail: the reload is yours" == note


def test_a_process_that_does_not_run_takes_it_up_when_it_starts(tmp_path: Path) -> None:
    transport = LocalTransport(host(tmp_path, mail="run/mail.pid"))
    assert "is not running" in (transport.reload(Reload.SIGNAL_HUP, program="node", process="mail") or "")
    (tmp_path / "run").mkdir()
    with subprocess.Popen(["/bin/true"]) as child:
        pass
    (tmp_path / "run/mail.pid").write_text(f"{child.pid}\n")
    assert "has ended" in (transport.reload(Reload.SIGNAL_HUP, program="node", process="mail") or "")


def test_a_pid_file_behind_a_symlink_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "mail.pid").symlink_to("/proc/self/stat")
    with pytest.raises(DeliveryError):
        LocalTransport(host(tmp_path, mail="mail.pid")).reload(Reload.SIGNAL_HUP, program="node", process="mail")
    with pytest.raises(DeliveryError, match="not a plain"):
        LocalTransport(host(tmp_path, mail="../x.pid")).reload(Reload.SIGNAL_HUP, program="node", process="mail")


# checks


class TestNginxTest:
    pytestmark = needs_nginx

    @pytest.fixture
    def nginx(self, tmp_path: Path) -> Nginx:
        return Nginx(tmp_path)

    def check(self, root: Path, text: str) -> str | None:
        pointer = FilePointer(path=CONF, content=text.encode())
        return LocalTransport(host(root)).check(Check.NGINX_TEST, pointer)

    def test_good_configuration_passes(self, nginx: Nginx) -> None:
        text = nginx.server(free_port(), estate().schedule, estate().mail_ca, name="x")
        assert self.check(nginx.folder, text) is None

    def test_good_configuration_passes_while_its_port_is_taken(self, nginx: Nginx) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            text = nginx.server(taken.getsockname()[1], estate().schedule, estate().mail_ca, name="x")
            assert self.check(nginx.folder, text) is None

    def test_an_address_of_another_machine_is_a_note(self, nginx: Nginx) -> None:
        text = nginx.server(free_port(), estate().schedule, estate().mail_ca, name="x")
        note = self.check(nginx.folder, text.replace("127.0.0.1", "192.0.2.1"))
        assert "cannot bind here" in (note or "")

    def test_a_key_of_another_certificate_is_refused_in_nginx_words(self, nginx: Nginx) -> None:
        mismatched = estate().schedule.with_key_of(estate().mail)
        text = nginx.server(free_port(), mismatched, estate().mail_ca, name="x")
        with pytest.raises(DeliveryError) as refused:
            self.check(nginx.folder, text)
        assert "M4201" == refused.value.code
        assert "key values mismatch" in " ".join(refused.value.notes)

    def test_a_syntax_error_is_refused(self, nginx: Nginx) -> None:
        with pytest.raises(DeliveryError):
            self.check(nginx.folder, "server { listen")

    def test_nothing_is_left_where_it_was_checked(self, nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
        place = nginx.folder / "temporary"
        place.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(place))
        self.check(nginx.folder, "# empty\n")
        assert [] == list(place.iterdir())

    def test_paths_as_a_container_sees_them_are_not_checked(self, tmp_path: Path) -> None:
        seen = DirectoryHost(name="here", directory=str(tmp_path), seen_as="/")
        note = LocalTransport(seen).check(Check.NGINX_TEST, FilePointer(path=CONF, content=b"junk"))
        assert "was not run" in (note or "")


def test_a_check_whose_program_is_missing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlsctl.deliver.local.find_program", lambda _: None)
    transport = LocalTransport(host(tmp_path))
    pointers = FilePointer(path=CONF, content=b""), CurrentPointer(path="/etc/mtlsctl/mail/current", target="x")
    assert "not installed" in (transport.check(Check.NGINX_TEST, pointers[0]) or "")
    assert "not installed" in (transport.check(Check.NODE_CHECK, pointers[1]) or "")


@pytest.mark.peer("node")
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_node_module_is_checked_for_its_syntax(tmp_path: Path) -> None:
    transport = LocalTransport(host(tmp_path))
    transport.put_key("mail", "5" * 64, Secret(b"k"))
    for number, text in ((1, b"module.exports = {}"), (2, b"module.exports = {")):
        files = (StagedFile(path="mtls.cjs", content=text),)
        transport.stage(StagedRelease(service="mail", release=f"{number:016}", key_spki_sha256="5" * 64, files=files))
    good, bad = (CurrentPointer(path="/etc/mtlsctl/mail/current", target=f"releases/{n:016}") for n in (1, 2))
    assert transport.check(Check.NODE_CHECK, good) is None
    with pytest.raises(DeliveryError) as refused:
        transport.check(Check.NODE_CHECK, bad)
    assert "SyntaxError" in " ".join(refused.value.notes)


# reloads of a real nginx


class TestNginxReload:
    pytestmark = needs_nginx

    @pytest.fixture
    def port(self) -> int:
        return free_port()

    @pytest.fixture
    def nginx(self, tmp_path: Path, port: int) -> Iterator[Nginx]:
        nginx = Nginx(tmp_path)
        nginx.conf.write_text(nginx.server(port, estate().schedule, estate().mail_ca, name=SCHEDULE_NAME))
        nginx.start()
        yield nginx
        nginx.stop()

    def transport(self, nginx: Nginx, deadline_seconds: float = 10) -> LocalTransport:
        return LocalTransport(
            host(nginx.folder / "host", nginx="run/nginx.pid"), reload_deadline_seconds=deadline_seconds
        )

    def reload(self, nginx: Nginx, deadline_seconds: float = 10) -> str | None:
        transport = self.transport(nginx, deadline_seconds)
        return transport.reload(Reload.SIGNAL_HUP_MASTER, program="nginx", process="nginx")

    def test_the_first_connection_after_a_reload_sees_the_new_release(self, nginx: Nginx, port: int) -> None:
        """A reload that does not wait for the old workers to stop accepting fails here."""
        transport = self.transport(nginx)
        leaves = [(estate().social, estate().social_ca), (estate().schedule, estate().mail_ca)] * 4
        for leaf, anchor in leaves:
            text = nginx.server(port, leaf, anchor, name=SCHEDULE_NAME)
            transport.switch(FilePointer(path=CONF, content=text.encode()))
            assert self.reload(nginx) is None
            flights = [read_first_flight("127.0.0.1", port, SCHEDULE_NAME, 2) for _ in range(10)]
            assert {(leaf.der, (anchor.subject_der,))} == {(flight.leaf_der, flight.ca_names) for flight in flights}

    def test_the_names_by_sni_are_each_servers_own(self, nginx: Nginx, port: int) -> None:
        text = nginx.server(port, estate().schedule, estate().mail_ca, name=SCHEDULE_NAME)
        text += nginx.server(port, estate().social, estate().schedule_ca, name="social")
        self.transport(nginx).switch(FilePointer(path=CONF, content=text.encode()))
        self.reload(nginx)
        expected = [
            (SCHEDULE_NAME, estate().schedule, estate().mail_ca),
            ("social", estate().social, estate().schedule_ca),
        ]
        await_served(
            [
                Served(
                    address="127.0.0.1",
                    port=port,
                    server_name=name,
                    certificate_sha256=leaf.sha256,
                    ca_names=frozenset({ca.subject_der}),
                )
                for name, leaf, ca in expected
            ],
            deadline_seconds=5,
        )

    def test_a_reload_that_nginx_refuses_is_an_error(self, nginx: Nginx, port: int) -> None:
        nginx.conf.write_text("server { listen")
        with pytest.raises(DeliveryError, match="did not take up") as refused:
            self.reload(nginx, deadline_seconds=1)
        assert "M4203" == refused.value.code
        assert estate().schedule.der == read_first_flight("127.0.0.1", port, SCHEDULE_NAME, 2).leaf_der

    def test_a_worker_that_still_serves_an_old_connection_is_not_waited_for(self, nginx: Nginx, port: int) -> None:
        """It takes no new ones, and a download may last for hours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            context.wrap_socket(connection, server_hostname=SCHEDULE_NAME) as secured,
        ):
            secured.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")
            began = time.monotonic()
            assert self.reload(nginx) is None
            assert time.monotonic() - began < 5

    def test_no_connection_is_dropped_by_reloads(self, nginx: Nginx, port: int) -> None:
        failures: list[BaseException] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    read_first_flight("127.0.0.1", port, SCHEDULE_NAME, 5)
                except OSError as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            self.reload(nginx)
        stop.set()
        for thread in threads:
            thread.join()
        assert [] == failures


def test_a_hang_up_reaches_the_process_of_a_pid_file(tmp_path: Path) -> None:
    """Any program will do: what is looked at is the name that the kernel shows."""
    script = "import signal, time; signal.signal(1, lambda *_: exit(7)); print('up', flush=True); time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (tmp_path / "app.pid").write_text(str(child.pid))
        transport = LocalTransport(host(tmp_path, mail="app.pid"))
        program = Path(sys.executable).resolve().name
        assert transport.reload(Reload.SIGNAL_HUP, program=program, process="mail") is None
        assert 7 == child.wait(5)


def test_a_program_that_reads_once_is_said_to_need_a_restart(tmp_path: Path) -> None:
    note = LocalTransport(host(tmp_path, mail="mail.pid")).reload(Reload.RESTART, program="java", process="mail")
    assert "mail goes on with what it has read until you restart it" == note


def test_a_program_that_watches_is_waited_for_where_it_is_known_to_run_and_not_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeping:  # a SIGHUP would end it
        try:
            (tmp_path / "mail.pid").write_text(f"{sleeping.pid}\n")
            transport = LocalTransport(host(tmp_path, mail="mail.pid", social="social.pid"))
            assert transport.reload(Reload.WATCH, program="sleep", process="mail") is None
            assert "is not running" in (transport.reload(Reload.WATCH, program="sleep", process="social") or "")
            assert "not looked at" in (transport.reload(Reload.WATCH, program="sleep", process="report") or "")
            with pytest.raises(DeliveryError, match="not java"):
                transport.reload(Reload.WATCH, program="java", process="mail")
            assert sleeping.poll() is None
        finally:
            sleeping.kill()
