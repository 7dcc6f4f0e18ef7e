"""Ruby takes the rendered module as it is: with Net::HTTP and, where it is installed, Faraday."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import find_peer
from tests.support.patience import ENDED_SECONDS
from tests.unit.render.recipes import call, door, make_current, recipe, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtlsctl.model.release import Callee

pytestmark = pytest.mark.peer("ruby")

BY_NET_HTTP = "Mtlsctl.service('mail').start('schedule') { |http| http.get('/').body }"
BY_FARADAY = "Mtlsctl.service('mail').faraday('schedule').get('/').body"
WAYS = [BY_NET_HTTP, pytest.param(BY_FARADAY, marks=pytest.mark.peer("faraday"))]


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = dict(part[0] for part in self.connection.getpeercert()["subject"])["commonName"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Who is refused is told so by TLS."""


@contextlib.contextmanager
def serving(folder: Path, shows: Path | None = None) -> Iterator[int]:
    """The service of a release at a port; it answers with its caller's name. `shows` is whose certificate it shows."""
    shown = shows or folder
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown / "tls.crt", shown / "tls.key")
    context.load_verify_locations(folder / "clients/main.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with Quiet(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def schedule(below: Path) -> Path:
    return written(recipe("schedule", "pem", root=below / "there", listeners=[door()]))[1]


def mail(below: Path, *callees: Callee) -> Path:
    """The caller's release, which `current` then names."""
    _, folder = written(recipe("mail", "ruby", root=below / "here", callees=callees))
    make_current(folder)
    return folder


def ruby(folder: Path, *lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that loads the module and prints what each line gives, or the class of what it raises."""
    module = folder.parent.parent / "current/mtls.rb"
    tried = [f"puts((begin; {line}; rescue StandardError => e; (e.cause || e).class; end).to_s)" for line in lines]
    command = [find_peer("ruby") or "", "-w", "-e", "\n".join([f"require {json.dumps(str(module))}", *tried])]
    # Warnings of installed libraries are not ours.
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS, env={**os.environ, **environment}
    )


def printed(folder: Path, *lines: str, **environment: str) -> list[str]:
    done = ruby(folder, *lines, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("way", WAYS)
def test_the_callee_is_called_by_its_name_at_its_address_with_our_certificate(way: str, tmp_path: Path) -> None:
    with serving(schedule(tmp_path)) as port:
        assert ["mail"] == printed(mail(tmp_path, call("schedule", port)), way)


@pytest.mark.parametrize("way", WAYS)
def test_an_authority_of_the_system_is_not_believed(way: str, tmp_path: Path) -> None:
    """Faraday believes those besides a `ca_file`."""
    _, other = written(recipe("other", "pem", root=tmp_path / "other", names=("schedule.calendar.internal",)))
    _, believed = written(recipe("social", "pem", root=tmp_path / "social", callees=[call("other")]))
    with serving(schedule(tmp_path), shows=other) as port:
        folder = mail(tmp_path, call("schedule", port))
        anchor = str(believed / "servers/other.pem")
        assert ["OpenSSL::SSL::SSLError"] == printed(folder, way, SSL_CERT_FILE=anchor)
        # The server is as good as any for somebody who believes that authority.
        plain = (
            f"release = Mtlsctl.service('mail'); http = release.http('schedule'); "
            f"http.cert_store = OpenSSL::X509::Store.new.tap {{ |one| one.add_file('{anchor}') }}; http.get('/').body"
        )
        assert ["mail"] == printed(folder, plain)


@pytest.mark.parametrize("way", WAYS)
def test_a_proxy_of_the_environment_is_passed_by(way: str, tmp_path: Path) -> None:
    with serving(schedule(tmp_path)) as port:
        nowhere = "http://127.0.0.1:1"
        folder = mail(tmp_path, call("schedule", port))
        assert ["mail"] == printed(folder, way, http_proxy=nowhere, https_proxy=nowhere, HTTPS_PROXY=nowhere)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_of_another_name_is_refused(way: str, tmp_path: Path) -> None:
    _, misnamed = written(recipe("schedule", "pem", root=tmp_path / "misnamed", names=("elsewhere.example",)))
    with serving(schedule(tmp_path), shows=misnamed) as port:
        assert ["OpenSSL::SSL::SSLError"] == printed(mail(tmp_path, call("schedule", port)), way)


def test_an_endpoint_that_nobody_listens_at_is_left_out(tmp_path: Path) -> None:
    with serving(schedule(tmp_path)) as port:
        # Nobody listens at the first address: the server is at 127.0.0.1 alone.
        folder = mail(tmp_path, call("schedule", port, "127.0.0.2", "127.0.0.1"))
        assert ["mail"] == printed(folder, BY_NET_HTTP)
    assert ["Errno::ECONNREFUSED"] == printed(folder, BY_NET_HTTP)


@pytest.mark.peer("faraday")
def test_a_program_that_runs_follows_each_switch_and_keeps_what_works(tmp_path: Path) -> None:
    with serving(schedule(tmp_path)) as port, socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = closed.getsockname()[1]
        root = tmp_path / "here"
        _, good = written(recipe("mail", "ruby", root=root, callees=[call("schedule", port)]))
        _, more = written(recipe("mail", "ruby", root=root, callees=[call("schedule", port), call("ledger", nowhere)]))
        _, broken = written(recipe("mail", "ruby", root=root, callees=[call("ledger", nowhere)]))
        _, stranger = written(recipe("social", "ruby", root=root))
        (broken / "tls.key").unlink()
        (broken / "tls.key").write_bytes((stranger / "tls.key").read_bytes())
        make_current(good)
        switch = "File.symlink('releases/%s', '{0}.next'); File.rename('{0}.next', '{0}'); nil".format(
            good.parent.parent / "current"
        )
        kept = "($kept ||= Mtlsctl.service('mail').faraday('schedule')).get('/').body"
        name = "Mtlsctl.service('mail').name"
        done = ruby(good, name, kept, switch % more.name, name, kept, switch % broken.name, name, name, kept)
    expected = [good.name, "mail", "", more.name, "mail", "", more.name, more.name, "mail"]
    assert expected == done.stdout.splitlines(), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("mtlsctl:")]
    assert len(said) == 1
    assert f"mail keeps release {more.name}" in said[0]
    assert "does not belong to" in said[0]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "servers/schedule.pem").write_text(""), "no certificate in"),
        (lambda folder: (folder / "tls.crt").write_text(""), "no certificate in"),
        (lambda folder: (folder / "tls.key").unlink(), "No such file"),
    ],
)
def test_a_release_with_a_file_missing_is_not_taken(spoil: Any, says: str, tmp_path: Path) -> None:
    folder = mail(tmp_path, call("schedule"))
    spoil(folder)
    done = ruby(folder, "'loaded'")
    assert (1, "") == (done.returncode, done.stdout)
    assert says in done.stderr


def test_a_certificate_of_the_middle_is_sent_and_all_checks_are_on(tmp_path: Path) -> None:
    folder = mail(tmp_path, call("schedule"))
    (folder / "tls.crt").write_bytes((folder / "tls.crt").read_bytes() + (folder / "servers/schedule.pem").read_bytes())
    options = "$options = Mtlsctl.service('mail').http_options('schedule'); "
    lines = [
        options + "$options[:extra_chain_cert].map(&:subject)",
        "$options[:verify_mode] == OpenSSL::SSL::VERIFY_PEER",
        "$options[:verify_hostname]",
        "$options[:min_version] == OpenSSL::SSL::TLS1_2_VERSION",
        "Mtlsctl.service('mail').http('schedule').proxy?",
        "Mtlsctl.service('mail').url('schedule', '/today')",
        "Mtlsctl.service('mail').inspect.include?('PRIVATE')",
    ]
    first, *rest = printed(folder, *lines)
    assert "schedule.calendar CA g1" in first
    assert ["true", "true", "true", "false", "https://schedule.calendar.internal:8443/today", "false"] == rest


@pytest.mark.parametrize(
    ("line", "raised"),
    [
        ("Mtlsctl.service('mail').http('ledger')", "KeyError"),
        ("Mtlsctl.service('social')", "KeyError"),
        ("Mtlsctl.service('mail').prepare(Net::HTTP.new('elsewhere.example', 8443), 'schedule')", "ArgumentError"),
        (
            "Mtlsctl.service('mail').prepare(Net::HTTP.new('schedule.calendar.internal', 1), 'schedule')",
            "ArgumentError",
        ),
    ],
)
def test_what_the_release_does_not_know_is_an_error(line: str, raised: str, tmp_path: Path) -> None:
    assert [raised] == printed(mail(tmp_path, call("schedule")), line)
