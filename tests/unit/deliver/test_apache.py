"""What an Apache is asked before it is told to restart: each of these would have ended it."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver import apache
from mtlsctl.deliver.layout import CurrentPointer, FilePointer
from mtlsctl.deliver.local import LocalTransport
from mtlsctl.deliver.process import Running, children
from mtlsctl.errors import DeliveryError
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.verify.wire import read_first_flight
from tests.conftest import find_peer
from tests.integration.peers import Apache as Program
from tests.integration.peers import load_modules
from tests.support.patience import HAPPENED_SECONDS
from tests.support.ports import free_port
from tests.unit.verify.certificates import SCHEDULE_NAME, estate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.verify.certificates import Leaf

CONF = "/etc/apache2/conf-enabled/mtlsctl.conf"
needs_apache = [
    pytest.mark.peer("apache2"),
    pytest.mark.skipif(find_peer("apache2") is None, reason="apache2 is not installed"),
]


def host(root: Path, **pid_files: str) -> DirectoryHost:
    return DirectoryHost(name="here", directory=str(root), pid_files=tuple(pid_files.items()))


def listener(folder: Path, port: int, leaf: Leaf, anchor: Leaf, *, name: str = SCHEDULE_NAME, more: str = "") -> bytes:
    """A pointer file with one virtual host, whose files are written beside."""
    place = folder / f"files-{time.monotonic_ns()}"
    place.mkdir()
    (place / "crt").write_bytes(leaf.pem)
    (place / "key").write_bytes(leaf.key_pem)
    (place / "ca").write_bytes(anchor.pem)
    return (
        f'Listen "127.0.0.1:{port}" https\n<VirtualHost "127.0.0.1:{port}">\nServerName {name}\nSSLEngine on\n'
        f'SSLCertificateFile "{place}/crt"\nSSLCertificateKeyFile "{place}/key"\n'
        f'SSLCACertificateFile "{place}/ca"\nSSLVerifyClient require\n{more}</VirtualHost>\n'
    ).encode()


class TestCheck:
    pytestmark = needs_apache

    def check(self, root: Path, content: bytes, **pid_files: str) -> str | None:
        return LocalTransport(host(root, **pid_files)).check(Check.APACHE_TEST, FilePointer(path=CONF, content=content))

    def refused(self, root: Path, content: bytes, **pid_files: str) -> DeliveryError:
        with pytest.raises(DeliveryError) as raised:
            self.check(root, content, **pid_files)
        assert "M4201" == raised.value.code
        return raised.value

    def test_good_configuration_passes(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, listener(tmp_path, free_port(), estate().schedule, estate().mail_ca)) is None

    def test_a_syntax_error_is_refused_in_its_own_words(self, tmp_path: Path) -> None:
        assert "Invalid command 'Listne'" in " ".join(self.refused(tmp_path, b"Listne 1\n").notes)

    def test_a_key_of_another_certificate_is_refused_although_apache_calls_that_good_syntax(
        self, tmp_path: Path
    ) -> None:
        mismatched = estate().schedule.with_key_of(estate().mail)
        text = listener(tmp_path, free_port(), mismatched, estate().mail_ca)
        (tmp_path / "main").write_text(
            f'ServerRoot "{tmp_path}"\nDefaultRuntimeDir "{tmp_path}"\nErrorLog "{tmp_path}/log"\nServerName x\n'
            f"{load_modules()}\n{text.decode()}"
        )
        syntax = subprocess.run(
            [str(find_peer("apache2")), "-t", "-f", tmp_path / "main"], capture_output=True, text=True, check=False
        )
        assert (0, True) == (syntax.returncode, "Syntax OK" in syntax.stderr)
        assert "AH02565" in " ".join(self.refused(tmp_path, text).notes)

    def test_a_cipher_that_is_none_is_refused_although_apache_calls_that_good_syntax(self, tmp_path: Path) -> None:
        text = listener(
            tmp_path, free_port(), estate().schedule, estate().mail_ca, more="SSLCipherSuite NO-SUCH-CIPHER\n"
        )
        assert "Unable to configure permitted SSL ciphers" in " ".join(self.refused(tmp_path, text).notes)

    def test_a_port_that_another_program_has_is_refused(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = listener(tmp_path, port, estate().schedule, estate().mail_ca)
            refused = self.refused(tmp_path, text, apache="run/apache.pid")
            assert (f"port {port} at 127.0.0.1 is already open",) == tuple(refused.notes)
            # A folder without processes is for another machine, whose ports are not known here.
            assert self.check(tmp_path, text) is None

    def test_a_port_that_was_ours_before_is_not_taken(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as ours:
            text = listener(tmp_path, ours.getsockname()[1], estate().schedule, estate().mail_ca)
            LocalTransport(host(tmp_path)).switch(FilePointer(path=CONF, content=text))
            assert self.check(tmp_path, text, apache="run/apache.pid") is None

    @pytest.mark.parametrize(("before", "after"), [("", "127.0.0.1:"), ("127.0.0.1:", "")])
    def test_a_port_that_is_open_cannot_become_narrower_or_wider(self, tmp_path: Path, before: str, after: str) -> None:
        address = "" if not before else "127.0.0.1"
        with socket.create_server((address, 0)) as ours:
            port = ours.getsockname()[1]
            old, new = (f'Listen "{one}{port}" https\n'.encode() for one in (before, after))
            LocalTransport(host(tmp_path)).switch(FilePointer(path=CONF, content=old))
            assert f"port {port}" in " ".join(self.refused(tmp_path, new, apache="run/apache.pid").notes)

    @pytest.mark.parametrize("address", ["192.0.2.1", "[2001:db8::1]", "no-such-host.invalid"])
    def test_an_address_that_is_not_here_is_refused(self, tmp_path: Path, address: str) -> None:
        refused = self.refused(tmp_path, f'Listen "{address}:18443" https\n'.encode(), apache="run/apache.pid")
        assert address.strip("[]") in " ".join(refused.notes)

    def test_nothing_is_left_where_it_was_checked_and_nothing_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path / "temporary"
        place.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(place))
        self.check(tmp_path, listener(tmp_path, free_port(), estate().schedule, estate().mail_ca))
        self.refused(tmp_path, b"junk")
        assert [] == list(place.iterdir())
        assert [] == [one for one in _command_lines() if str(place).encode() in one]

    def test_paths_as_a_container_sees_them_are_not_checked(self, tmp_path: Path) -> None:
        seen = DirectoryHost(name="here", directory=str(tmp_path), seen_as="/")
        note = LocalTransport(seen).check(Check.APACHE_TEST, FilePointer(path=CONF, content=b"junk"))
        assert "was not run" in (note or "")

    def test_only_a_file_is_included(self, tmp_path: Path) -> None:
        with pytest.raises(DeliveryError):
            LocalTransport(host(tmp_path)).check(Check.APACHE_TEST, CurrentPointer(path="/x", target="y"))


def _command_lines() -> list[bytes]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes())
        except OSError:
            continue
    return found


def test_an_apache_that_is_not_installed_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlsctl.deliver.apache.find_program", lambda _: None)
    note = LocalTransport(host(tmp_path)).check(Check.APACHE_TEST, FilePointer(path=CONF, content=b"junk"))
    assert "not installed" in (note or "")


def test_the_program_has_two_names_and_no_third(tmp_path: Path) -> None:
    for name, is_apache in (("httpd", True), ("apache2", True), ("apachectl", False)):
        shutil.copy("/bin/sleep", tmp_path / name)
        with subprocess.Popen([tmp_path / name, "30"]) as child:
            try:
                deadline = time.monotonic() + HAPPENED_SECONDS
                while b"sleep" not in (Path(f"/proc/{child.pid}/cmdline").read_bytes() or b"sleep") and (
                    Path(f"/proc/{child.pid}/comm").read_text().strip() != name
                ):
                    assert time.monotonic() < deadline
                if is_apache:
                    Running(child.pid, "apache2").close()
                else:
                    with pytest.raises(DeliveryError, match="is apachectl, not apache2"):
                        Running(child.pid, "apache2")
            finally:
                child.kill()


def test_an_address_of_a_pointer_file_that_is_no_text_is_no_error() -> None:
    assert {("\ufffd", 80)} == apache.places_of(b'Listen "\xff:80" https\n')


def test_the_places_of_a_pointer_file_are_its_own_listen_lines() -> None:
    text = b'Listen "8443" https\nListen "10.0.0.1:9443" https\nListen "[::1]:1" https\n# Listen "2" https\n'
    assert {(None, 8443), ("10.0.0.1", 9443), ("::1", 1)} == apache.places_of(text)


def test_arguments_that_say_what_to_do_are_not_taken_over() -> None:
    given = [b"-d", b"/x", b"-k", b"start", b"-DFOREGROUND", b"-D", b"FOREGROUND", b"-D", b"SSL", b"-f", b"/c", b"-X"]
    assert [b"-d", b"/x", b"-D", b"SSL", b"-f", b"/c"] == list(apache._without_verbs(given))


class TestGraceful:
    pytestmark = needs_apache

    @pytest.fixture
    def port(self) -> int:
        return free_port()

    @pytest.fixture
    def transport(self, tmp_path: Path) -> LocalTransport:
        return LocalTransport(host(tmp_path / "host", apache="run/apache.pid"))

    @pytest.fixture
    def program(self, tmp_path: Path, transport: LocalTransport, port: int) -> Iterator[Program]:
        self.switch(tmp_path, transport, port, estate().schedule, estate().mail_ca)
        with Program(tmp_path / "host", [("127.0.0.1", port)], own=f'IncludeOptional "{tmp_path}/theirs/*.conf"') as it:
            yield it

    def switch(self, folder: Path, transport: LocalTransport, port: int, leaf: Leaf, anchor: Leaf) -> None:
        transport.switch(FilePointer(path=CONF, content=listener(folder, port, leaf, anchor)))

    def reload(self, transport: LocalTransport) -> str | None:
        return transport.reload(Reload.SIGNAL_USR1, program="apache2", process="apache")

    def test_the_first_connection_after_it_sees_the_new_release(
        self, tmp_path: Path, transport: LocalTransport, program: Program, port: int
    ) -> None:
        """A restart that does not wait for the old children to stop accepting fails here."""
        for leaf, anchor in [(estate().social, estate().social_ca), (estate().schedule, estate().mail_ca)] * 4:
            self.switch(tmp_path, transport, port, leaf, anchor)
            assert self.reload(transport) is None
            flights = [read_first_flight("127.0.0.1", port, SCHEDULE_NAME, 2) for _ in range(10)]
            assert {(leaf.der, (anchor.subject_der,))} == {(flight.leaf_der, flight.ca_names) for flight in flights}
        assert program.process.poll() is None

    def theirs(self, folder: Path, text: str) -> None:
        (folder / "theirs").mkdir(exist_ok=True)
        (folder / "theirs/own.conf").write_text(text)

    def test_a_broken_file_of_somebody_elses_is_found_before_the_signal(
        self, tmp_path: Path, transport: LocalTransport, program: Program, port: int
    ) -> None:
        """The signal alone would end it: it reads everything anew and stops at the first error."""
        self.theirs(tmp_path, "this is no directive\n")
        with pytest.raises(DeliveryError, match="was not signalled") as refused:
            self.reload(transport)
        assert ("M4203", True) == (refused.value.code, "Invalid command" in " ".join(refused.value.notes))
        assert estate().schedule.der == read_first_flight("127.0.0.1", port, SCHEDULE_NAME, 2).leaf_der
        assert "SIGUSR1" not in program.said()

    def test_a_module_that_it_does_not_have_is_found_before_the_signal(
        self, tmp_path: Path, transport: LocalTransport, port: int
    ) -> None:
        """Our own trial loads what there is; the real one has only what its administrator enabled."""
        self.switch(tmp_path, transport, port, estate().schedule, estate().mail_ca)
        with Program(tmp_path / "host", [("127.0.0.1", port)], without="headers") as program:
            text = listener(tmp_path, port, estate().social, estate().social_ca, more="RequestHeader unset X\n")
            pointer = FilePointer(path=CONF, content=text)
            assert transport.check(Check.APACHE_TEST, pointer) is None
            transport.switch(pointer)
            with pytest.raises(DeliveryError, match="was not signalled") as refused:
                self.reload(transport)
            assert "RequestHeader" in " ".join(refused.value.notes)
            assert "SIGUSR1" not in program.said()

    def test_one_that_ends_all_the_same_is_reported_as_ended(
        self, tmp_path: Path, transport: LocalTransport, program: Program
    ) -> None:
        """A key of somebody else's that does not match cannot be seen by any test of Apache's own."""
        other, mismatched = free_port(), estate().social.with_key_of(estate().mail)
        self.theirs(tmp_path, listener(tmp_path, other, mismatched, estate().mail_ca).decode())
        with pytest.raises(DeliveryError, match="ended when it was to take up") as refused:
            self.reload(transport)
        assert "M4205" == refused.value.code
        assert 0 != program.process.wait(10)
        assert "has ended" in (self.reload(transport) or "")

    def test_where_it_listens_is_known(self, program: Program, port: int) -> None:
        assert frozenset({("127.0.0.1", port)}) == apache.places_open(program.process.pid)

    @pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
    def test_a_child_that_still_serves_an_old_connection_is_not_waited_for(
        self, tmp_path: Path, transport: LocalTransport, port: int, mpm: str
    ) -> None:
        """It takes no new ones, and a download may last for hours."""
        self.switch(tmp_path, transport, port, estate().schedule, estate().mail_ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        (tmp_path / "mail.pem").write_bytes(estate().mail.pem + estate().mail.key_pem)
        context.load_cert_chain(tmp_path / "mail.pem")
        with (
            Program(tmp_path / "host", [("127.0.0.1", port)], mpm=mpm) as program,
            socket.create_connection(("127.0.0.1", port)) as connection,
            context.wrap_socket(connection, server_hostname=SCHEDULE_NAME) as secured,
        ):
            secured.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")
            self.switch(tmp_path, transport, port, estate().social, estate().social_ca)
            began = time.monotonic()
            assert self.reload(transport) is None
            assert time.monotonic() - began < 8
            flights = [read_first_flight("127.0.0.1", port, SCHEDULE_NAME, 2) for _ in range(10)]
            assert {estate().social.der} == {flight.leaf_der for flight in flights}
            assert program.process.poll() is None

    def test_no_connection_is_dropped(self, transport: LocalTransport, program: Program, port: int) -> None:
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
            self.reload(transport)
        stop.set()
        for thread in threads:
            thread.join()
        assert [] == failures
        assert program.process.poll() is None

    def test_a_process_whose_program_is_another_of_that_name_is_left_alone(
        self, tmp_path: Path, transport: LocalTransport
    ) -> None:
        """Its arguments name modules to be loaded, and its own program might be anything."""
        script = "import signal, time; signal.signal(10, lambda *_: exit(7)); print('up', flush=True); time.sleep(30)"
        imposter = tmp_path / "apache2"
        imposter.symlink_to(Path(sys.executable).resolve())
        with subprocess.Popen([imposter, "-c", script], stdout=subprocess.PIPE) as child:
            try:
                assert child.stdout is not None
                child.stdout.readline()
                (tmp_path / "host/run").mkdir(parents=True)
                (tmp_path / "host/run/apache.pid").write_text(str(child.pid))
                with pytest.raises(DeliveryError, match="not the one found here") as refused:
                    self.reload(transport)
                assert ("M4202", None) == (refused.value.code, child.poll())
            finally:
                child.kill()

    def test_children_are_told_apart_by_when_they_began(self, program: Program) -> None:
        before = children(program.process.pid)
        assert len(before) >= 2
        program.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + HAPPENED_SECONDS
        while not children(program.process.pid) - before or before & children(program.process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
