"""How each kind of caller tries: all tries of a kind in one go, each with a new connection."""

from __future__ import annotations

import http.client
import json
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.conftest import find_peer
from tests.integration.estate import LOOPBACK
from tests.integration.peers import (
    TURNED_AWAY,
    UNREACHABLE,
    Apache,
    Nginx,
    Posing,
    Shown,
    answered,
    by_curl,
    by_egress,
    by_node,
    by_python,
)
from tests.interop.matrix import TRIES, VERSIONS, Try, caller_name
from tests.interop.servers import PEERS, SMALL, java_classes
from tests.interop.world import key_store
from tests.support.patience import ANSWERED_SECONDS, ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.integration.peers import Place
    from tests.interop.world import World

Seen = dict[Try, Shown]


def one_by_one(world: World, kind: str, call: Callable[[Path, Try, Posing | str | None], Shown]) -> Seen:
    caller = caller_name(kind)
    poses, current = world.poses(caller), world.estate.current("callers", caller)
    return {tried: call(current, tried, poses.get(tried.case)) for tried in TRIES}


def url_of(world: World, tried: Try) -> str:
    place = world.places[tried.door]
    return f"https://{place.name}:{place.port}/"


def curl(world: World) -> Seen:
    def call(current: Path, tried: Try, pose: Posing | str | None) -> Shown:
        return by_curl(current, tried.door.callee, tried.door.service, url_of(world, tried), pose=pose)

    return one_by_one(world, "curl", call)


def python(world: World) -> Seen:
    def call(current: Path, tried: Try, pose: Posing | str | None) -> Shown:
        return by_python(current, tried.door.callee, tried.door.service, world.places[tried.door], pose=pose)

    return one_by_one(world, "Python", call)


def node(world: World) -> Seen:
    module = world.estate.current("callers", caller_name("Node")) / "mtls.cjs"
    poses = world.poses(caller_name("Node"))
    cases = {
        str(number): {
            "id": str(number),
            "module": str(module),
            "callee": tried.door.callee,
            "service": tried.door.service,
            **shown_files(poses.get(tried.case)),
        }
        for number, tried in enumerate(TRIES)
    }
    shown = by_node(list(cases.values()))
    return {tried: shown[str(number)] for number, tried in enumerate(TRIES)}


def shown_files(pose: Posing | str | None) -> dict[str, str | None]:
    match pose:
        case None:
            return {}
        case Posing():
            return {"cert": str(pose.cert), "key": str(pose.key)}
        case _:
            return {"cert": None, "key": None}


def ruby(world: World) -> Seen:
    """Each try twice, by Net::HTTP and by Faraday, which have to agree."""
    caller = caller_name("Ruby")
    module = world.estate.current("callers", caller) / "mtls.rb"
    poses = world.poses(caller)
    cases = [{"callee": tried.door.callee, **shown_files(poses.get(tried.case))} for tried in TRIES]
    said = json.loads(output(["ruby", PEERS / "caller.rb", module, caller], json.dumps(cases)))
    return {
        tried: agreed(tried, *(one_of(tried, said) for said in both)) for tried, both in zip(TRIES, said, strict=True)
    }


POSING = "posing"
"""The password of the stores of posers."""


def jvm(world: World) -> Seen:
    """HttpClient; Java is told where the names are by a file, as DNS would."""
    caller = caller_name("JVM")
    hosts, poses = world.folder / "java-hosts", {}
    hosts.write_text("".join(f"{place.address} {place.name}\n" for place in world.places.values()))
    for case, pose in world.poses(caller).items():
        poses[case] = world.folder / f"java-{case.name}.p12" if isinstance(pose, Posing) else "none"
        if isinstance(pose, Posing):
            (world.folder / f"java-{case.name}.p12").write_bytes(key_store(pose, POSING))
    arguments = world.estate.current("callers", caller) / "java.args"
    options = [f"@{arguments}", *SMALL, f"-Djdk.net.hosts.file={hosts}", "-cp", java_classes()]
    lines = [f"{url_of(world, tried)} {poses.get(tried.case, 'own')}\n" for tried in TRIES]
    said = output(["java", *options, "Caller", POSING], "".join(lines)).splitlines()
    return {tried: by_java(tried, line) for tried, line in zip(TRIES, said, strict=True)}


def by_java(tried: Try, line: str) -> Shown:
    word, rest = line.split(" ", 1)
    if word.isdigit():
        return answered(tried.door.service, int(word), rest)
    return Shown({"unreachable": UNREACHABLE, "refused": TURNED_AWAY}[word], rest)


def output(command: list[object], given: str) -> str:
    """What a program of ours says to all its cases."""
    command[0] = find_peer(str(command[0]))
    done = subprocess.run(
        list(map(str, command)), input=given, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_of(tried: Try, said: Mapping[str, Any]) -> Shown:
    if "status" in said:
        return answered(tried.door.service, said["status"], said["body"])
    return Shown(UNREACHABLE if said["unreachable"] else TURNED_AWAY, said["error"])


def agreed(tried: Try, *all_shown: Shown) -> Shown:
    outcomes = {shown.outcome for shown in all_shown}
    assert len(outcomes) == 1, (tried, all_shown)
    return all_shown[0]


def nginx(world: World) -> Seen:
    calls = posed_calls(world, "nginx")
    own = "".join(map(nginx_server, calls.values()))
    with Nginx(world.estate.host("callers"), local_places(world, "nginx", calls), own=own):
        return by_way_out(world, "nginx", calls)


def apache(world: World) -> Seen:
    """It keeps a certificate back whose CA the server does not ask for, so some posers come with none."""
    calls = posed_calls(world, "Apache")
    own = "".join(apache_server(call, world.folder / f"apache-{call.port}") for call in calls.values())
    with Apache(world.estate.host("callers"), local_places(world, "Apache", calls), own=own):
        return by_way_out(world, "Apache", calls)


class PosedCall(NamedTuple):
    """A server of our own beside the way out, at a port of its own: it calls on as that does, as somebody else."""

    port: int
    place: Place
    anchors: Path
    pose: Posing | str


def posed_calls(world: World, kind: str) -> dict[Try, PosedCall]:
    """One for each try that poses."""
    calls = {}
    for version in VERSIONS:
        caller = caller_name(kind, version)
        release, poses = world.release("callers", caller), world.poses(caller)
        for tried in TRIES:
            if tried.version == version and tried.case in poses:
                anchors = release / f"servers/{tried.door.callee}.pem"
                port = world.estate.free_port(LOOPBACK)
                calls[tried] = PosedCall(port, world.places[tried.door], anchors, poses[tried.case])
    return calls


def local_places(world: World, kind: str, calls: Mapping[Try, PosedCall]) -> list[tuple[str, int]]:
    own = [call.port for call in calls.values()]
    return [(LOOPBACK, port) for port in (*own, *(port for (one, _), port in world.egress.items() if one == kind))]


def nginx_server(call: PosedCall) -> str:
    to, pose = call.place, call.pose
    shown = (
        f"proxy_ssl_certificate {pose.cert}; proxy_ssl_certificate_key {pose.key};" if isinstance(pose, Posing) else ""
    )
    return (
        f"server {{ listen {LOOPBACK}:{call.port}; location / {{ proxy_pass https://{to.address}:{to.port}; {shown}"
        f" proxy_ssl_trusted_certificate {call.anchors}; proxy_ssl_verify on; proxy_ssl_name {to.name};"
        f" proxy_ssl_server_name on; proxy_ssl_session_reuse off; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        f" proxy_set_header Host {to.name}; }} }}\n"
    )


def apache_server(call: PosedCall, folder: Path) -> str:
    """Apache sends and checks the name that a request is for. What it shows is written below the folder."""
    to, shown = call.place, shown_by_apache(call.pose, folder) if isinstance(call.pose, Posing) else ""
    return (
        f"Listen {LOOPBACK}:{call.port} http\n<VirtualHost {LOOPBACK}:{call.port}>\nServerName {to.name}\n"
        f"SSLProxyEngine on\n{shown}SSLProxyCACertificateFile {call.anchors}\nSSLProxyVerify require\n"
        f"SSLProxyVerifyDepth 1\nSSLProxyCheckPeerName on\nSSLProxyProtocol -all +TLSv1.2 +TLSv1.3\n"
        f'ProxyPreserveHost On\nProxyPass "/" "https://{to.address}:{to.port}/" retry=0 disablereuse=on\n'
        f"</VirtualHost>\n"
    )


def shown_by_apache(pose: Posing, folder: Path) -> str:
    """It takes an end entity and its key in one file, and what stands above it in another."""
    end = "-----END CERTIFICATE-----\n"
    leaf, above = pose.cert.read_text().split(end, 1)
    alone, rest = folder / "leaf.pem", folder / "above.pem"
    folder.mkdir()
    alone.write_text(leaf + end + pose.key.read_text())
    rest.write_text(above)
    chain = f"SSLProxyMachineCertificateChainFile {rest}\n" if above else ""
    return f"SSLProxyMachineCertificateFile {alone}\n{chain}"


def by_way_out(world: World, kind: str, calls: Mapping[Try, PosedCall]) -> Seen:
    """Plain HTTP to local ports: the way out as it was applied, or the server that poses."""
    return {
        tried: by_poser(tried, calls[tried])
        if tried in calls
        else by_egress(tried.door.service, world.egress[kind, tried.door])
        for tried in TRIES
    }


def by_poser(tried: Try, call: PosedCall) -> Shown:
    connection = http.client.HTTPConnection(LOOPBACK, call.port, timeout=ANSWERED_SECONDS)
    try:
        connection.request("GET", "/", headers={"Host": call.place.name})
        response = connection.getresponse()
        return answered(tried.door.service, response.status, response.read().decode())
    except OSError as error:
        return Shown(UNREACHABLE, repr(error))
    finally:
        connection.close()


TRY: dict[str, Callable[[World], Seen]] = {
    "curl": curl,
    "Python": python,
    "Node": node,
    "JVM": jvm,
    "Ruby": ruby,
    "nginx": nginx,
    "Apache": apache,
}
