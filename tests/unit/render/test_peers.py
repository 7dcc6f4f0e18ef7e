"""nginx, Node and curl take the rendered files as they are."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tests.support.patience import ENDED_SECONDS, HAPPENED_SECONDS, STARTED_SECONDS
from tests.support.ports import free_port
from tests.unit.render.recipes import anchors, call, door, make_current, pointer, recipe, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SBIN = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"
NGINX = shutil.which("nginx", path=SBIN) or ""
NODE = shutil.which("node") or ""
CURL = shutil.which("curl") or ""
PEERS = {"nginx": NGINX, "node": NODE, "curl": CURL}

Test = TypeVar("Test", bound="Callable[..., object]")


def needs(*names: str) -> Callable[[Test], Test]:
    """Marks a test with each peer, and skips it with the reason where one is missing."""

    def mark(test: Test) -> Test:
        for name in names:
            missing = pytest.mark.skipif(not PEERS[name], reason=f"{name} is not installed")
            test = pytest.mark.peer(name)(missing(test))
        return test

    return mark


def main_conf(tmp_path: Path, include: Path) -> Path:
    temporary = "".join(
        f"    {name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"daemon off;\npid {tmp_path}/nginx.pid;\nerror_log stderr info;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{temporary}    include {include};\n}}\n"
    )
    return file


def nginx_test(tmp_path: Path, *members: Any) -> subprocess.CompletedProcess[str]:
    conf = main_conf(tmp_path, pointer(tmp_path, *members))
    return subprocess.run([NGINX, "-t", "-c", conf, "-e", "stderr"], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def running_nginx(tmp_path: Path, *members: Any) -> Iterator[subprocess.Popen[bytes]]:
    conf = main_conf(tmp_path, pointer(tmp_path, *members))
    with (tmp_path / "log").open("wb") as log, subprocess.Popen([NGINX, "-c", conf, "-e", "stderr"], stderr=log) as it:
        try:
            port = members[0].listeners[0].sockets[0].port
            await_port(port, it)
            yield it
        finally:
            it.terminate()


def await_port(port: int, program: Any) -> None:
    deadline = time.monotonic() + STARTED_SECONDS
    while time.monotonic() < deadline and program.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    pytest.fail(f"nothing listens at {port}")


def curl(folder: Any, callee: str, url: str, *more: Any) -> subprocess.CompletedProcess[str]:
    command = [CURL, "-q", "-s", "-S", "-K", folder / f"{callee}.curlrc", *more, url]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS)


@needs("nginx")
def test_nginx_takes_listeners_callers_egress_and_a_long_name(tmp_path: Path) -> None:
    name = "a-name-of-more-than-sixty-characters-which-nginx-does-not-hold.example.com"
    serving = recipe(
        "schedule",
        "nginx",
        root=tmp_path,
        names=(name,),
        listeners=[door(free_port()), door(free_port(), name="closed", callers=(), address="127.0.0.1")],
        settings=[("upstream", "http://127.0.0.1:8080/app")],
    )
    calling = recipe(
        "mail",
        "nginx",
        root=tmp_path,
        callees=[call("schedule", 8443, "127.0.0.1", "::1"), call("ledger", 9443, listener="admin")],
        settings=[("egress", (("schedule", free_port()),))],
    )
    done = nginx_test(tmp_path, serving, calling)
    assert (done.returncode, "[warn]" in done.stderr) == (0, False), done.stderr


@needs("nginx", "curl")
def test_nginx_lets_a_declared_curl_in_and_refuses_everyone_else(tmp_path: Path) -> None:
    port = free_port()
    serving = recipe("schedule", "nginx", root=tmp_path, listeners=[door(port)])
    beside = recipe("ledger", "nginx", root=tmp_path, listeners=[door(port, callers=("social",))])
    closed = recipe("vault", "nginx", root=tmp_path, listeners=[door(port, callers=())])
    callees = [call(name, port) for name in ("schedule", "ledger", "vault")]
    _, mail = written(recipe("mail", "curl", root=tmp_path, callees=callees))

    def get(service: str, *more: Any) -> subprocess.CompletedProcess[str]:
        return curl(mail, service, f"https://{service}.calendar.internal:{port}/", *more)

    with running_nginx(tmp_path, serving, beside, closed):
        for version in ("1.2", "1.3"):
            exactly = (f"--tlsv{version}", "--tls-max", version)
            assert (0, "schedule\n") == ((done := get("schedule", *exactly)).returncode, done.stdout)
            refused = get("ledger", *exactly)
            assert (22, True) == (refused.returncode, "400" in refused.stderr)
            assert (35, "") == ((done := get("vault", *exactly)).returncode, done.stdout)
        # Let in by one name, a caller cannot go on to another; and without a name nobody gets anywhere.
        misdirected = get("schedule", "-H", "Host: ledger.calendar.internal")
        assert (22, True) == (misdirected.returncode, "421" in misdirected.stderr)
        host = ("--insecure", "-H", "Host: schedule.calendar.internal")
        assert 35 == curl(mail, "schedule", f"https://127.0.0.1:{port}/", *host).returncode


@needs("nginx", "curl")
def test_an_nginx_calls_an_nginx_and_believes_only_its_callee(tmp_path: Path) -> None:
    port, egress, wrong = free_port(), free_port(), free_port()
    serving = recipe("schedule", "nginx", root=tmp_path, listeners=[door(port)])
    calling = recipe(
        "mail", "nginx", root=tmp_path, callees=[call("schedule", port)], settings=[("egress", (("schedule", egress),))]
    )
    fooled = recipe(
        "social",
        "nginx",
        root=tmp_path,
        callees=[replace(call("schedule", port), policy=anchors("ledger"))],
        settings=[("egress", (("schedule", wrong),))],
    )
    with running_nginx(tmp_path, serving, calling, fooled):
        command = [CURL, "-q", "-s", "-o", "-", "-w", "%{http_code}"]
        good = subprocess.run([*command, f"http://127.0.0.1:{egress}/"], capture_output=True, text=True, check=True)
        bad = subprocess.run([*command, f"http://127.0.0.1:{wrong}/"], capture_output=True, text=True, check=True)
    assert "schedule\n200" == good.stdout
    assert bad.stdout.endswith("502")


SERVER = """
const https = require('node:https');
const mtls = require(process.argv[2] + '/mtls.cjs');
const server = https.createServer(mtls.serverOptions(), (_, response) => response.end(mtls.release() + '\\n'));
mtls.keepReloaded(server, 'main', { watch: process.argv[3] === 'watch' });
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""

CALLER = """
const https = require('node:https');
const mtls = require(process.argv[2] + '/mtls.cjs');
const options = { agent: mtls.agent('schedule') };
for (const key of ['minVersion', 'maxVersion']) { if (process.argv[3]) { options[key] = process.argv[3]; } }
https.get(mtls.url('schedule', '/today'), options, (response) => {
  response.setEncoding('utf8').on('data', (text) => process.stdout.write(text));
}).on('error', (error) => { console.log(error.code); process.exitCode = 1; });
"""


@contextlib.contextmanager
def running_node(tmp_path: Path, folder: Any, watch: str = "signal") -> Iterator[tuple[subprocess.Popen[str], int]]:
    script = tmp_path / "server.cjs"
    script.write_text(SERVER)
    current = folder.parent.parent / "current"
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([NODE, script, current, watch], stdout=subprocess.PIPE, stderr=log, text=True) as it,
    ):
        try:
            assert it.stdout is not None
            yield it, int(it.stdout.readline())
        finally:
            it.terminate()


def node_call(tmp_path: Path, folder: Any, version: str = "") -> tuple[int, str]:
    script = tmp_path / "caller.cjs"
    script.write_text(CALLER)
    command = [NODE, script, folder, version]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS)
    return done.returncode, done.stdout.strip()


def await_answer(expected: Any, ask: Any) -> None:
    deadline = time.monotonic() + HAPPENED_SECONDS
    while (answer := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert expected == answer


@needs("node")
@pytest.mark.parametrize("watch", ["signal", "watch"])
def test_a_node_server_follows_current_and_keeps_the_old_release_when_the_new_one_is_broken(
    tmp_path: Path, watch: str
) -> None:
    first, folder = written(recipe("schedule", "node", root=tmp_path, listeners=[door()]))
    second, other = written(recipe("schedule", "node", root=tmp_path, listeners=[door(callers=("social",))]))
    broken, third = written(recipe("schedule", "node", root=tmp_path, listeners=[door(callers=("ledger",))]))
    closed, fourth = written(recipe("schedule", "node", root=tmp_path, listeners=[door(callers=())]))
    assert 4 == len({first.release, second.release, broken.release, closed.release})
    make_current(folder)
    with running_node(tmp_path, folder, watch) as (server, port):
        calls = {
            name: written(recipe(name, "node", root=tmp_path, callees=[call("schedule", port)]))[1]
            for name in ("mail", "social", "ledger")
        }

        def ask(name: str, version: str = "") -> tuple[int, str]:
            return node_call(tmp_path, calls[name], version)

        def switch(to: Any) -> None:
            make_current(to)
            if watch == "signal":
                server.send_signal(signal.SIGHUP)

        for version in ("TLSv1.2", "TLSv1.3"):
            assert (0, first.release) == ask("mail", version)
            assert 1 == ask("social", version)[0]
        switch(other)
        await_answer((0, second.release), lambda: ask("social"))
        assert 1 == ask("mail")[0]
        (third / "tls.key").write_bytes((calls["ledger"] / "tls.key").read_bytes())
        switch(third)
        await_answer(1, lambda: (tmp_path / "log").read_text().count("keeps release") and 1)
        assert (0, second.release) == ask("social")
        assert 1 == ask("ledger")[0]
        switch(fourth)
        await_answer(1, lambda: ask("social")[0])
        assert [1, 1] == [ask("mail")[0], ask("ledger")[0]]
        assert "PRIVATE" not in (tmp_path / "log").read_text()


@needs("node", "curl")
def test_curl_calls_node(tmp_path: Path) -> None:
    release, folder = written(recipe("schedule", "node", root=tmp_path, listeners=[door()]))
    make_current(folder)
    with running_node(tmp_path, folder) as (_, port):
        callee = call("schedule", port)
        _, mail = written(recipe("mail", "curl", root=tmp_path, callees=[callee]))
        _, social = written(recipe("social", "curl", root=tmp_path, callees=[callee]))
        _, fooled = written(recipe("mail", "curl", root=tmp_path, callees=[replace(callee, policy=anchors("ledger"))]))
        url = f"https://schedule.calendar.internal:{port}/"
        assert release.release + "\n" == curl(mail, "schedule", url).stdout
        assert 0 != curl(social, "schedule", url).returncode
        assert 60 == curl(fooled, "schedule", url).returncode
        assert 1 == curl(mail, "schedule", f"http://schedule.calendar.internal:{port}/").returncode


@needs("node")
def test_a_node_caller_refuses_a_server_that_is_not_its_callee(tmp_path: Path) -> None:
    _, folder = written(recipe("ledger", "node", root=tmp_path, listeners=[door()]))
    make_current(folder)
    with running_node(tmp_path, folder) as (_, port):
        same_name = replace(call("schedule", port), policy=anchors("ledger"))
        _, wrong_name = written(recipe("mail", "node", root=tmp_path, callees=[same_name]))
        _, wrong_anchor = written(recipe("mail", "node", root=tmp_path, callees=[call("schedule", port)]))
        assert (1, "ERR_TLS_CERT_ALTNAME_INVALID") == node_call(tmp_path, wrong_name)
        assert (1, "UNABLE_TO_VERIFY_LEAF_SIGNATURE") == node_call(tmp_path, wrong_anchor)


@needs("node")
def test_a_path_with_every_allowed_character_reaches_node_unchanged(tmp_path: Path) -> None:
    made = recipe("mail", "node", root="/A-z0.9_@+", callees=[call("schedule", 8443, "127.0.0.1", "::1")])
    _, folder = written(made, below=tmp_path)
    text = (folder / "mtls.cjs").read_text() + "console.log(JSON.stringify([...CALLEES]));\n"
    done = subprocess.run([NODE, "-"], input=text, capture_output=True, text=True, check=True)
    ((name, callee),) = json.loads(done.stdout)
    assert ("schedule", "schedule.calendar.internal") == (name, callee["serverName"])
    assert callee["serversTrust"].startswith("/A-z0.9_@+/etc/mtlsctl/mail/releases/")
    assert [("127.0.0.1", 8443), ("::1", 8443)] == [(one["address"], one["port"]) for one in callee["endpoints"]]
