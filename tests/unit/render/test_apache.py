"""A real Apache takes the rendered files, and refuses whom they do not let in."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlsctl.model.release import Socket
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity
from mtlsctl.render import context as variables
from mtlsctl.render.environment import render
from mtlsctl.render.quoting import Untrusted
from tests.conftest import find_peer
from tests.integration.peers import APACHE_FOLDER, load_modules
from tests.support.patience import ANSWERED_SECONDS, ENDED_SECONDS
from tests.support.ports import free_port
from tests.unit.render.recipes import (
    FOLDERS,
    _authority,
    _builder,
    anchors,
    call,
    door,
    pointer,
    recipe,
    written,
)
from tests.unit.render.test_peers import await_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtlsctl.model.release import Recipe

pytestmark = [
    pytest.mark.peer("apache2"),
    pytest.mark.skipif(find_peer("apache2") is None, reason="apache2 is not installed"),
]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
MAIN = """\
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/pid"
ErrorLog "{folder}/error.log"
LogLevel info
ServerName localhost
{modules}
User #65534
Group #65534
{own}
Include "{pointer}"
"""


def main_conf(folder: Path, included: Path, own: str = "") -> Path:
    file = folder / "apache.conf"
    file.write_text(MAIN.format(folder=folder, modules=load_modules(), own=own, pointer=included))
    return file


@contextlib.contextmanager
def running(folder: Path, *members: Recipe, own: str = "", at: int = 0) -> Iterator[Any]:
    with running_conf(folder, pointer(folder, *members), at or members[0].listeners[0].sockets[0].port, own) as it:
        yield it


@contextlib.contextmanager
def running_conf(folder: Path, included: Path, port: int, own: str = "") -> Iterator[Any]:
    argv = [str(find_peer("apache2")), "-f", str(main_conf(folder, included, own)), "-DFOREGROUND"]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as it:
        try:
            await_port(port, it)
            yield it
        finally:
            it.terminate()
            it.wait(20)


def ask(
    port: int,
    name: str | None,
    folder: Path | None,
    *,
    host: str = "",
    protocol: str = "1.3",
    cert: tuple[Path, Path] | None = None,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str] | str:
    """(status, body), or how TLS ended; the server's certificate is not judged."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = VERSIONS[protocol]
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if folder is not None:
        cert = (folder / "tls.crt", folder / "tls.key")
    if cert is not None:
        made.load_cert_chain(*cert)
    more = "".join(f"{key}: {value}\r\n" for key, value in (headers or {}).items())
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_SECONDS) as plain,
            made.wrap_socket(plain, server_hostname=name) as tls,
        ):
            request = f"GET {path} HTTP/1.1\r\nHost: {host or name}\r\n{more}Connection: close\r\n\r\n"
            tls.sendall(request.encode())
            answer = b"".join(iter(lambda: tls.recv(4096), b""))
    except ssl.SSLError as error:
        return error.reason or "refused"
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body.strip()


def plain(port: int, host: str = "", path: str = "/") -> tuple[int, str]:
    """Plain HTTP to a local port."""
    command = ["curl", "-q", "-s", "-w", "%{http_code}", "--path-as-is", f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run([*command, *(["-H", f"Host: {host}"] if host else [])], capture_output=True, check=True)
    return int(done.stdout[-3:]), done.stdout[:-3].decode().strip()


def called(folder: Path, name: str, *services: str) -> Path:
    """The release folder of a caller, which has a certificate of its own CA."""
    return written(recipe(name, "pem", root=folder, callees=[call(one) for one in services]))[1]


def test_who_is_declared_gets_in_and_nobody_else_gets_past_the_handshake(tmp_path: Path) -> None:
    port = free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    beside = recipe("ledger", "apache", root=tmp_path, listeners=[door(port, callers=("social",))])
    closed = recipe("vault", "apache", root=tmp_path, listeners=[door(port, callers=())])
    mail, social = called(tmp_path, "mail", "schedule"), called(tmp_path, "social", "ledger")
    schedule, ledger, vault = (f"{name}.calendar.internal" for name in ("schedule", "ledger", "vault"))
    with running(tmp_path, serving, beside, closed):
        for protocol in VERSIONS:
            assert (200, "schedule") == ask(port, schedule, mail, protocol=protocol)
            assert (200, "ledger") == ask(port, ledger, social, protocol=protocol)
            assert (200, "schedule") == ask(port, schedule.upper(), mail, protocol=protocol)
            assert "TLSV1_ALERT_UNKNOWN_CA" == ask(port, schedule, social, protocol=protocol)
            assert "TLSV1_ALERT_UNKNOWN_CA" == ask(port, ledger, mail, protocol=protocol)
            # Let in by one name, a caller cannot go on to another.
            assert 421 == ask(port, schedule, mail, host=ledger, protocol=protocol)[0]
            assert 421 == ask(port, ledger, social, host=schedule, protocol=protocol)[0]
        nobody = {protocol: ask(port, schedule, None, protocol=protocol) for protocol in VERSIONS}
        assert {"1.2": "SSLV3_ALERT_HANDSHAKE_FAILURE", "1.3": "TLSV13_ALERT_CERTIFICATE_REQUIRED"} == nobody
        refusal = {"1.2": "SSLV3_ALERT_HANDSHAKE_FAILURE", "1.3": "TLSV1_ALERT_PROTOCOL_VERSION"}
        for protocol, alert in refusal.items():
            # Nobody may call `vault`; and without a name, or with a foreign one, nobody sees even a certificate.
            for name in (vault, None, "unknown.example", "mtlsctl-nobody.invalid"):
                for caller in (mail, social, None):
                    assert alert == ask(port, name, caller, host=schedule, protocol=protocol), name


def test_a_key_that_both_sides_share_does_not_open_the_catch_all(tmp_path: Path) -> None:
    """Its one cipher is for such keys, and no server here has one."""
    port = free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    with running(tmp_path, serving):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-psk", "00", "-psk_identity", "x"]
        for more in (["-tls1_2", "-cipher", "PSK-AES128-GCM-SHA256"], ["-tls1_3"]):
            done = subprocess.run(
                [*command, *more], input="", capture_output=True, text=True, check=False, timeout=ENDED_SECONDS
            )
            assert "Cipher is (NONE)" in done.stdout


def test_a_door_has_its_own_protocol_beside_another_of_the_same_port(tmp_path: Path) -> None:
    port = free_port()
    old = recipe("schedule", "apache", root=tmp_path, listeners=[door(port, protocols=("1.2",))])
    new = recipe("ledger", "apache", root=tmp_path, listeners=[door(port, protocols=("1.3",))])
    mail = called(tmp_path, "mail", "schedule")
    with running(tmp_path, old, new):
        shown = {
            (service, protocol): ask(port, f"{service}.calendar.internal", mail, protocol=protocol)
            for service in ("schedule", "ledger")
            for protocol in VERSIONS
        }
    assert ((200, "schedule"), (200, "ledger")) == (shown["schedule", "1.2"], shown["ledger", "1.3"])
    assert ["TLSV1_ALERT_PROTOCOL_VERSION"] * 2 == [shown["schedule", "1.3"], shown["ledger", "1.2"]]


def test_a_main_configuration_with_other_cas_widens_nothing(tmp_path: Path) -> None:
    """`SSLCACertificatePath` of the main server is inherited by every virtual host that does not say its own."""
    with tempfile.TemporaryDirectory() as hashed:
        # Apache's children look there at every handshake, as another user where the test is root's.
        Path(hashed).chmod(0o755)
        _widened_by(Path(hashed), tmp_path)


def _widened_by(hashed: Path, tmp_path: Path) -> None:
    _, social_ca = _authority("social")
    (hashed / "ca.pem").write_bytes(social_ca.public_bytes(serialization.Encoding.PEM))
    subprocess.run(["openssl", "rehash", str(hashed)], check=True)
    port, other = free_port(), free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    mail, social = called(tmp_path, "mail", "schedule"), called(tmp_path, "social", "schedule")
    _, folder = written(serving)
    theirs = (
        f'SSLCACertificatePath "{hashed}"\nListen 127.0.0.1:{other} https\n<VirtualHost 127.0.0.1:{other}>\n'
        f'SSLEngine on\nSSLCertificateFile "{folder}/tls.crt"\nSSLCertificateKeyFile "{folder}/tls.key"\n'
        f'SSLVerifyClient require\nServerName theirs.example\nErrorDocument 200 "theirs "\n'
        '<Location "/">\nRedirectMatch 200 ^\n</Location>\n</VirtualHost>\n'
    )
    with running(tmp_path, serving, own=theirs):
        assert (200, "theirs") == ask(other, "theirs.example", social)
        assert "TLSV1_ALERT_UNKNOWN_CA" == ask(port, "schedule.calendar.internal", social)
        assert (200, "schedule") == ask(port, "schedule.calendar.internal", mail)


ECHO = """
import http.server, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = self.path + "".join(f"\\n{key.lower()}: {value}" for key, value in self.headers.items())
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A backend that says what it was asked."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        try:
            yield int(it.stdout.readline())
        finally:
            it.kill()


FORGED = [
    "X-SSL-Client-Issuer-DN",
    "X_SSL_Client_Issuer_DN",
    "X-SSL-Client-DN",
    "X_SSL_Client_DN",
    "X-SSL_Client-DN",
    "X-SSL-Client-Verify",
    "X-SSL-Client-Cert",
    "X-Forwarded-Client-Cert",
    "X_Forwarded-Client_Cert",
    "Client-Cert",
    "Client_Cert",
    "Client-Cert-Chain",
    "Client_Cert_Chain",
    "Forwarded",
    "X_Forwarded_For",
    "X-Forwarded_Proto",
    "X-Real-IP",
]


def test_an_upstream_gets_the_path_as_it_came_and_no_identity_that_a_caller_made_up(tmp_path: Path) -> None:
    port = free_port()
    with echo() as backend:
        for number, (upstream, prefix) in enumerate(
            [
                (f"http://127.0.0.1:{backend}", ""),
                (f"http://127.0.0.1:{backend}/", ""),
                (f"http://127.0.0.1:{backend}/app", "/app"),
                (f"http://127.0.0.1:{backend}/app/", "/app"),
            ]
        ):
            root = tmp_path / str(number)
            root.mkdir()
            settings = [("upstream", upstream)]
            serving = recipe("schedule", "apache", root=root, listeners=[door(port)], settings=settings)
            mail = called(root, "mail", "schedule")
            forged = {**dict.fromkeys(FORGED, "forged"), "X-Forwarded-For": "192.0.2.9", "X-Own": "kept"}
            with running(root, serving):
                answer = ask(port, "schedule.calendar.internal", mail, path="/a%2Fb/%c3%a9?q=1&x", headers=forged)
                assert isinstance(answer, tuple)
                path, *lines = answer[1].split("\n")
                headers = dict(line.split(": ", 1) for line in lines)
                assert (200, f"{prefix}/a%2Fb/%c3%a9?q=1&x") == (answer[0], path)
                assert "forged" not in answer[1]
                assert ("kept", "127.0.0.1", "https", "schedule.calendar.internal") == tuple(
                    headers[name] for name in ("x-own", "x-forwarded-for", "x-forwarded-proto", "host")
                )
                assert "TLSV1_ALERT_UNKNOWN_CA" == ask(
                    port, "schedule.calendar.internal", called(root, "social", "schedule")
                )


def test_the_program_behind_is_told_who_called_and_by_nobody_else(tmp_path: Path) -> None:
    port, maybe = free_port(), free_port()
    forwarding = replace(door(port), forward_identity=ForwardIdentity.HEADERS)
    doors = [forwarding, replace(forwarding, name="maybe", sockets=(Socket(None, maybe),))]
    doors[1] = replace(doors[1], client_certificate=ClientCertificate.OPTIONAL)
    with echo() as backend:
        settings = [("upstream", f"http://127.0.0.1:{backend}")]
        serving = recipe("schedule", "apache", root=tmp_path, listeners=doors, settings=settings)
        mail = called(tmp_path, "mail", "schedule")

        def told(at: int, caller: Path | None, **more: str) -> list[str]:
            forged = {**dict.fromkeys(FORGED, "forged"), **more}
            answer = ask(at, "schedule.calendar.internal", caller, headers=forged)
            assert isinstance(answer, tuple)
            return sorted(line for line in answer[1].lower().split("\n") if "ssl" in line or "cert" in line)

        identity = [
            "x-ssl-client-dn: cn=mail",
            "x-ssl-client-issuer-dn: cn=mail.calendar ca g1",
            "x-ssl-client-verify: success",
        ]
        with running(tmp_path, serving):
            assert [identity, identity] == [told(port, mail), told(maybe, mail)]
            assert ["x-ssl-client-verify: none"] == told(maybe, None)
            # RFC 9110 section 7.6.1: a proxy passes nothing on that `Connection` names.
            for hidden in (
                "X-SSL-Client-Verify, X-SSL-Client-DN, x-ssl-client-issuer-dn",
                "keep-alive,X-SSL-Client-DN",
            ):
                assert identity == told(maybe, mail, Connection=hidden)


@pytest.mark.parametrize("mode", [ClientCertificate.OPTIONAL, ClientCertificate.NONE])
def test_a_door_for_anonymous_callers_takes_no_wrong_certificate(tmp_path: Path, mode: ClientCertificate) -> None:
    port = free_port()
    made = door(port)
    if mode is ClientCertificate.NONE:
        made = replace(made, callers=(), policy=anchors())
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[replace(made, client_certificate=mode)])
    mail, social = called(tmp_path, "mail", "schedule"), called(tmp_path, "social", "schedule")
    with running(tmp_path, serving):
        for protocol in VERSIONS:
            shown = [
                ask(port, "schedule.calendar.internal", caller, protocol=protocol) for caller in (None, mail, social)
            ]
            wrong = (200, "schedule") if mode is ClientCertificate.NONE else "TLSV1_ALERT_UNKNOWN_CA"
            assert [(200, "schedule"), (200, "schedule"), wrong] == shown


# --- calls ----------------------------------------------------------------------------------------------------------


def test_an_apache_calls_an_apache_and_believes_only_its_callee(tmp_path: Path) -> None:
    port, egress, fooled, misnamed, two, other = (free_port() for _ in range(6))
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    calling = recipe(
        "mail",
        "apache",
        root=tmp_path,
        settings=[("egress", (("schedule", egress), ("ledger", misnamed), ("vault", two)))],
    )
    # The name of one and the CA of another: the certificate is good and the name is not.
    wrong_name = replace(call("ledger", other), policy=anchors("schedule"))
    two_places = replace(
        call("vault", port, "127.0.0.1", "127.0.0.2"),
        policy=anchors("schedule"),
        server_name="schedule.calendar.internal",
    )
    calling = replace(calling, callees=(call("schedule", port), wrong_name, two_places))
    deceived = recipe(
        "social",
        "apache",
        root=tmp_path,
        callees=[replace(call("schedule", port), policy=anchors("ledger"))],
        settings=[("egress", (("schedule", fooled),))],
    )
    _, folder = written(serving)
    shows_it_to_everybody = (
        f"Listen 127.0.0.1:{other} https\n<VirtualHost 127.0.0.1:{other}>\nServerName any.example\nSSLEngine on\n"
        f'SSLCertificateFile "{folder}/tls.crt"\nSSLCertificateKeyFile "{folder}/tls.key"\n'
        'ErrorDocument 200 "ledger "\n<Location "/">\nRedirectMatch 200 ^\n</Location>\n</VirtualHost>\n'
    )
    with running(tmp_path, serving, calling, deceived, own=shows_it_to_everybody):
        assert (200, "schedule") == plain(egress)
        assert (200, "schedule") == plain(egress, "schedule.calendar.internal")
        assert (200, "schedule") == plain(egress, "SCHEDULE.calendar.internal")
        assert (200, "schedule") == plain(egress, "anything.example", "/a%2Fb//c?d")
        assert (200, "schedule") == plain(two)
        assert 500 <= plain(misnamed)[0] < 600
        assert 500 <= plain(fooled)[0] < 600
        log = (tmp_path / "error.log").read_text()
    assert "AH02411: SSL Proxy: Peer certificate does not match for hostname ledger.calendar.internal" in log
    assert "unable to get local issuer certificate" in log


def test_the_first_of_two_endpoints_may_be_down(tmp_path: Path) -> None:
    port, egress = free_port(), free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port, address="127.0.0.1")])
    callee = call("schedule", port, "127.0.0.9", "127.0.0.1")
    calling = recipe("mail", "apache", root=tmp_path, callees=[callee], settings=[("egress", (("schedule", egress),))])
    with running(tmp_path, serving, calling):
        assert [(200, "schedule")] * 4 == [plain(egress) for _ in range(4)]


# --- members --------------------------------------------------------------------------------------------------------

CA_OF_ALL = "mail"
"""One CA that has signed for many; `members` decides among them."""


def signed(folder: Path, name: str, subject: x509.Name, names: tuple[str, ...] = ("x.example",)) -> tuple[Path, Path]:
    """A certificate by the CA that the door trusts, for whatever subject."""
    authority_key, authority = _authority(CA_OF_ALL)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(subject, authority.subject, key)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    leaf = builder.sign(authority_key, hashes.SHA256())
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def subject(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(*part) for part in parts])


CN, ORG, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
ISSUER = "CN=mail.calendar CA g1"
ODD = {
    "comma": subject((ORG, "Acme, Inc."), (CN, "web")),
    "apostrophe": subject((CN, "o'web")),
    "quote": subject((CN, 'a"web"')),
    "backslash": subject((CN, "a\\web")),
    "semicolon": subject((CN, "a;web<b>+c")),
    "spaces": subject((CN, " web ")),
    "hash": subject((CN, "#web")),
    "umlaut": subject((ORG, "Bücher"), (CN, "wéb")),
    "long": subject((ORG, "Acme"), (OU, "x" * 60), (CN, "web")),
}


def members_of(made: Recipe, members: list[tuple[str, str]], folder: Path) -> Path:
    """The pointer file, with the instance's file as it is when only these members are let in."""
    included = pointer(folder, made)
    release, place = written(made)
    known = variables.release_variables(made, release.release, FOLDERS["apache"].runtime, {})
    known["stores"] = None
    views = tuple(variables.MemberView(issuer=Untrusted(i), subject=Untrusted(s)) for i, s in members)
    known["listeners"] = tuple(replace(one, members=views) for one in known["listeners"])  # type: ignore[attr-defined]
    (place / "apache.conf").write_bytes(render(FOLDERS["apache"], "instance.conf.j2", known))
    return included


def test_a_member_is_let_in_by_its_whole_subject_and_issuer_and_by_nothing_less(tmp_path: Path) -> None:
    port = free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    attacks = {
        "another": subject((CN, "batch")),
        "comma inside": subject((ORG, "x,CN=web"), (CN, "batch")),
        "comma outside": subject((CN, "batch"), (ORG, "x,CN=web")),
        "two names": subject((CN, "batch"), (CN, "web")),
        "two names reversed": subject((CN, "web"), (CN, "batch")),
        "longer": subject((CN, "web.evil")),
        "shorter": subject((CN, "we")),
        "case": subject((CN, "WEB")),
        "more": subject((ORG, "Acme"), (CN, "web")),
        "expression": subject((CN, "' || 'a' == 'a")),
        "variable": subject((CN, "%{SSL_CLIENT_I_DN}")),
        "as text": subject((CN, r"\'web")),
    }
    own = signed(tmp_path, "web", subject((CN, "web")))
    included = members_of(serving, [(ISSUER, "CN=web"), ("CN=other CA g1", "CN=batch")], tmp_path)
    with running_conf(tmp_path, included, port):
        for protocol in VERSIONS:
            assert (200, "schedule") == ask(port, "schedule.calendar.internal", None, cert=own, protocol=protocol)
        for name, one in attacks.items():
            answer = ask(port, "schedule.calendar.internal", None, cert=signed(tmp_path, "attack", one))
            assert (name, 403) == (name, answer[0])
            assert "schedule" not in answer[1]


def test_a_subject_that_needs_escapes_is_compared_as_it_is(tmp_path: Path) -> None:
    port = free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    members = [(ISSUER, one.rfc4514_string()) for one in ODD.values()]
    shown = {}
    with running_conf(tmp_path, members_of(serving, members, tmp_path), port):
        for name, one in ODD.items():
            answer = ask(port, "schedule.calendar.internal", None, cert=signed(tmp_path, "odd", one))
            shown[name] = answer[0]
    assert dict.fromkeys(ODD, 200) == shown


def test_a_list_of_no_members_lets_nobody_in(tmp_path: Path) -> None:
    port = free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    with running_conf(tmp_path, members_of(serving, [], tmp_path), port):
        answer = ask(port, "schedule.calendar.internal", None, cert=signed(tmp_path, "web", subject((CN, "web"))))
        assert (403, "mtlsctl: not a declared caller") == answer


def test_an_upstream_is_not_reached_by_who_is_no_member(tmp_path: Path) -> None:
    port = free_port()
    with echo() as backend:
        settings = [("upstream", f"http://127.0.0.1:{backend}")]
        serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)], settings=settings)
        with running_conf(tmp_path, members_of(serving, [(ISSUER, "CN=web")], tmp_path), port):
            good, bad = (
                ask(port, "schedule.calendar.internal", None, cert=signed(tmp_path, one, subject((CN, one))))
                for one in ("web", "batch")
            )
    assert (200, 403) == (good[0], bad[0])
    assert "/\n" in good[1]


def test_a_main_configuration_that_is_satisfied_with_anything_lets_no_other_member_in(tmp_path: Path) -> None:
    """As configurations of Apache 2.2 are that were taken along."""
    port = free_port()
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[door(port)])
    module = APACHE_FOLDER / "mod_access_compat.so"
    own = f'LoadModule access_compat_module "{module}"\n<Location "/">\nSatisfy Any\n</Location>\n'
    with running_conf(tmp_path, members_of(serving, [(ISSUER, "CN=web")], tmp_path), port, own):
        for name, status in (("web", 200), ("batch", 403)):
            answer = ask(port, "schedule.calendar.internal", None, cert=signed(tmp_path, name, subject((CN, name))))
            assert (name, status) == (name, answer[0])


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_port_that_is_open_on_every_address_is_opened_once(tmp_path: Path) -> None:
    """As it is while a listener moves from every address to one."""
    port = free_port()
    moving = replace(door(port), sockets=(Socket(None, port), Socket("127.0.0.1", port)))
    serving = recipe("schedule", "apache", root=tmp_path, listeners=[moving])
    mail = called(tmp_path, "mail", "schedule")
    with running(tmp_path, serving):
        assert (200, "schedule") == ask(port, "schedule.calendar.internal", mail)
        assert "TLSV1_ALERT_PROTOCOL_VERSION" == ask(port, "unknown.example", mail)


def test_a_service_that_calls_nobody_has_its_key_in_one_file_only(tmp_path: Path) -> None:
    release, folder = written(recipe("schedule", "apache", root=tmp_path, listeners=[door()]))
    assert ((), False) == (release.combined, (folder / "tls.combined").exists())
    release, folder = written(recipe("mail", "apache", root=tmp_path, callees=[call("schedule")]))
    assert ("tls.combined",) == release.combined
    assert (folder / "tls.crt").read_bytes() + (folder / "tls.key").read_bytes() == (
        folder / "tls.combined"
    ).read_bytes()
