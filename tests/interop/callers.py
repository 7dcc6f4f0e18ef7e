"""How each kind of caller tries: all tries of a kind in one go, each with a new connection."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

from mtlsctl.deliver.layout import combined
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
        list(map(str, command)), input=given, capture_output=True, text=True, check=False, timeout=300
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
    """Its way out as it is; where it poses as somebody else, a server of ours that calls on in the same way."""
    port = world.estate.free_port(LOOPBACK)
    calls = way_out_calls(world, "nginx")
    locations = "".join(map(nginx_location, calls.values()))
    own = f"server {{ listen {LOOPBACK}:{port};\n{locations}}}\n"
    ports = [port, *(local for (kind, _), local in world.egress.items() if kind == "nginx")]
    with Nginx(world.estate.host("callers"), [(LOOPBACK, one) for one in ports], own=own):
        return by_way_out(world, "nginx", port, calls)


class PosedCall(NamedTuple):
    """A call of our own beside the way out: with its anchors and name, and with the certificate of somebody else."""

    path: str
    place: Place
    anchors: Path
    pose: Posing | str


def way_out_calls(world: World, kind: str) -> dict[Try, PosedCall]:
    """One call for each try that poses."""
    calls = {}
    for version in VERSIONS:
        caller = caller_name(kind, version)
        release, poses = world.release("callers", caller), world.poses(caller)
        for number, tried in enumerate(TRIES):
            if tried.version == version and tried.case in poses:
                anchors = release / f"servers/{tried.door.callee}.pem"
                calls[tried] = PosedCall(f"/try-{number}/", world.places[tried.door], anchors, poses[tried.case])
    return calls


def nginx_location(call: PosedCall) -> str:
    to = call.place
    return (
        f"location {call.path} {{ proxy_pass https://{to.address}:{to.port}/; {shown_by_nginx(call.pose)}"
        f" proxy_ssl_trusted_certificate {call.anchors}; proxy_ssl_verify on; proxy_ssl_name {to.name};"
        f" proxy_ssl_server_name on; proxy_ssl_session_reuse off; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        f" proxy_set_header Host {to.name}; }}\n"
    )


def shown_by_nginx(pose: Posing | str) -> str:
    if isinstance(pose, Posing):
        return f"proxy_ssl_certificate {pose.cert}; proxy_ssl_certificate_key {pose.key};"
    return ""


def apache(world: World) -> Seen:
    """Its way out as it is; where it poses as somebody else, ports of ours that call on in the same way."""
    calls = way_out_calls(world, "Apache")
    ports = {tried: world.estate.free_port(LOOPBACK) for tried in calls}
    own = "".join(apache_hosts(ports[tried], call, world.folder) for tried, call in calls.items())
    ways_out = [local for (kind, _), local in world.egress.items() if kind == "Apache"]
    with Apache(world.estate.host("callers"), [(LOOPBACK, one) for one in (*ways_out, *ports.values())], own=own):
        return {
            tried: by_egress(tried.door.service, ports.get(tried) or world.egress["Apache", tried.door])
            for tried in TRIES
        }


def apache_hosts(port: int, call: PosedCall, folder: Path) -> str:
    """A port that makes every request one for the service's name, and calls on with that."""
    to = call.place
    shows = ""
    if isinstance(call.pose, Posing):
        both = folder / f"{port}.pem"
        both.write_bytes(combined(call.pose.cert.read_bytes(), call.pose.key.read_bytes()))
        shows = f"SSLProxyMachineCertificateFile {both}\n"
    begin = f"<VirtualHost {LOOPBACK}:{port}>\nProxyPreserveHost On\nRequestHeader set Host {to.name}\n"
    return (
        f"Listen {LOOPBACK}:{port}\n{begin}ServerName other.invalid\nProxyPass / http://{LOOPBACK}:{port}/\n"
        f"</VirtualHost>\n{begin}ServerName {to.name}\nSSLProxyEngine on\nSSLProxyVerify require\n{shows}"
        f"SSLProxyCACertificateFile {call.anchors}\nSSLProxyProtocol -all +TLSv1.2 +TLSv1.3\n"
        f"ProxyPass / https://{to.address}:{to.port}/ disablereuse=on\n</VirtualHost>\n"
    )


def by_way_out(world: World, kind: str, port: int, calls: Mapping[Try, PosedCall]) -> Seen:
    return {
        tried: by_egress(tried.door.service, port, calls[tried].path)
        if tried in calls
        else by_egress(tried.door.service, world.egress[kind, tried.door])
        for tried in TRIES
    }


TRY: dict[str, Callable[[World], Seen]] = {
    "curl": curl,
    "Python": python,
    "Node": node,
    "JVM": jvm,
    "Ruby": ruby,
    "nginx": nginx,
    "Apache": apache,
}
