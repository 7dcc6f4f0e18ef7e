"""The whole `mtlsctl apply` process over SSH against what people use instead, on a fleet of real sshd and nginx.

    python bench/push.py [--hosts 10] [--rounds 3] [--peers shell,floor] [--forks 32] [--venvs FOLDER]

The job: a CA or several, N leaves of P-256 with their trust and an nginx configuration, one on each of N hosts, checked
by `nginx -t` and taken up by a reload. Each host is an sshd with files of its own and an nginx that runs. `first` finds
nothing, `again` has nothing to do, `edge` adds one caller to one service and switches the two hosts that this concerns.

Peers, each measured in the same rounds, against which the ratios are taken:

- floor: `ssh host true`, 16 at a time; what no tool that starts `ssh` once for each host can be below
- shell: an `sh` loop, 16 at a time: key and certificate made here, one connection with tar, nginx -t and reload
- keys-there: the same with the key made on the host and the request signed here, so two connections
- ansible, pyinfra: made ready in virtual environments below `--venvs` when they are asked for (they are downloaded)

All of them use curve25519-sha256. Every tool but mtlsctl leaves out the lock, the comparison with what lies there, the
read-back, the way back and the look at what is served. Targets share the machine with the controller, so only
ratios mean anything; `cpu` is the controller's processes alone. `--table FILE` keeps the single figures (JSON).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from paired import Run, median, median_ratio, run  # noqa: E402

from tests.integration.fleet import Fleet, free_port, why_not  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.integration.fleet import Sshd

PEERS = Path(__file__).parent / "peers"
JOBS = "16"
VENVS = {"ansible": "ansible-core==2.19.14", "pyinfra": "pyinfra==3.10.0"}

NGINX = """\
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log /run/nginx-error.log;
events { worker_connections 64; }
http {
    access_log off;
    include /etc/nginx/conf.d/*.conf;
}
"""
BARE = """
rm -rf /etc/mtlsctl /etc/bench /etc/nginx/conf.d
mkdir /etc/nginx/conf.d
"""
START = f"""{BARE}
cat >/etc/nginx/nginx.conf
nginx -c /etc/nginx/nginx.conf
"""
STOP_SERVING = f"""{BARE}
nginx -s reload
"""


# --- the fleet ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Hosts, the folder that everything lies in, and the environment of the tools."""

    folder: Path
    fleet: Fleet
    hosts: list[Sshd]
    ports: list[int]
    venvs: Path
    forks: int | None
    env: Mapping[str, str] = field(default_factory=dict)

    def fresh(self, name: str) -> Path:
        """A place for what a peer makes; nothing is there."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return place

    def empty(self) -> None:
        """Take away from the hosts whatever a peer put there."""
        _everywhere(self.hosts, STOP_SERVING)


def _everywhere(hosts: list[Sshd], script: str, text: str | None = None) -> None:
    def one(host: Sshd) -> None:
        ran = host.run("sh", "-ec", script, text=text)
        if ran.returncode:
            sys.exit(f"{host.host}: {ran.stderr}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, hosts))


def make_bench(stack: ExitStack, count: int, venvs: Path, forks: int | None) -> Bench:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-push-")))
    fleet = stack.enter_context(Fleet(folder / "fleet"))
    hosts = [_start(fleet, f"host{number}") for number in range(count)]
    fleet.configure("\n".join(_block(host) for host in hosts))
    _everywhere(hosts, START, NGINX)
    ports = [free_port(host.address) for host in hosts]
    places = zip(hosts, ports, strict=True)
    (folder / "hosts").write_text("".join(f"{host.host} {host.address}:{port}\n" for host, port in places))
    env = {
        **os.environ,
        **fleet.environment(),
        "XDG_CONFIG_HOME": f"{folder}/config",
        "PYTHONPATH": str(ROOT),
        "SSH_CONFIG": str(fleet.config),
        "HOSTS": str(folder / "hosts"),
        "PEERS": str(PEERS),
        "LC_ALL": "C.UTF-8",
    }
    env.pop("SSH_AUTH_SOCK", None)
    return Bench(folder=folder, fleet=fleet, hosts=hosts, ports=ports, venvs=venvs, forks=forks, env=env)


def _start(fleet: Fleet, name: str) -> Sshd:
    """A host with SFTP, which the others copy files by."""
    host = fleet.start(name, own=("/var/log/nginx",), start=False)
    config = host.folder / "sshd_config"
    config.write_text(config.read_text().replace("sftp /bin/false", "sftp internal-sftp"))
    return fleet.run(host)


def _block(host: Sshd) -> str:
    return (
        f"Host {host.host} {host.address}\n  HostName {host.address}\n  Port {host.port}\n  User root\n"
        "  KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org\n  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n  LogLevel ERROR"
    )


# --- who does the job -----------------------------------------------------------------------------------------------


def inventory(bench: Bench, *, with_edge: bool) -> str:
    """A ring: each service is called by the one before it, and with the edge the first also by the one opposite."""
    count = len(bench.hosts)
    lines = ["version: 1", "name: bench", "hosts:"]
    lines += [f"  {host.yaml()}" for host in bench.hosts]
    lines += ["services:"]
    for number, host in enumerate(bench.hosts):
        callers = {(number - 1) % count} | ({count // 2} if with_edge and number == 0 else set())
        lines.append(f"  svc{number}:")
        lines.append(f"    runtime: nginx\n    hosts: [{host.host}]\n    listen: {bench.ports[number]}\n    bind: host")
        lines.append(f"    callers: [{', '.join(f'svc{one}' for one in sorted(callers - {number}))}]")
    return "\n".join(lines) + "\n"


def quietly(argv: list[str], folder: Path, env: Mapping[str, str]) -> Run:
    """What it complains about is shown when it fails."""
    with tempfile.TemporaryFile() as complaints:
        try:
            return run(argv, cwd=folder, env=env, complaints=complaints)
        except subprocess.CalledProcessError:
            complaints.seek(0)
            sys.stderr.write(complaints.read().decode("utf-8", "replace")[-4000:])
            raise


class Mtlsctl:
    """An estate of its own for each round; its CAs and its state begin with nothing."""

    name = "mtlsctl"

    def __init__(self, bench: Bench) -> None:
        self.bench, self.turn = bench, 0
        self.program = str(Path(sys.executable).with_name("mtlsctl"))

    def begin(self) -> None:
        self.turn += 1
        self.project = self.bench.folder / f"estate{self.turn}"
        key = {"MTLSCTL_KEY_SOURCE": f"file:{self.bench.folder}/key{self.turn}"}
        self.env = {**self.bench.env, **key}
        init = [self.program, "init", str(self.project), "--name", "bench", "--example", "empty", "--no-input"]
        subprocess.run(init, env=self.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.project / "inventories")
        (self.project / "inventories" / "bench").mkdir(parents=True)
        self._write(with_edge=False)

    def _write(self, *, with_edge: bool) -> None:
        text = inventory(self.bench, with_edge=with_edge)
        (self.project / "inventories" / "bench" / "all.yaml").write_text(text, encoding="ascii")

    def _apply(self) -> Run:
        more = [] if self.bench.forks is None else ["--forks", str(self.bench.forks)]
        return quietly([self.program, "apply", "--yes", *more], self.project, self.env)

    def runs(self) -> dict[str, Callable[[], Run]]:
        return {"first": self._apply, "again": self._apply, "edge": self._edge}

    def _edge(self) -> Run:
        self._write(with_edge=True)
        return self._apply()


class Command:
    """A peer whose job is one command, the same each time; `kinds` is what of it means something."""

    def __init__(self, bench: Bench, name: str, argv: list[str], kinds: tuple[str, ...]) -> None:
        self.bench, self.name, self.argv, self.kinds = bench, name, argv, kinds

    def begin(self) -> None:
        self.out = self.bench.fresh(f"out-{self.name}")
        self.env = {**self.bench.env, "OUT": str(self.out)}

    def _run(self) -> Run:
        return quietly(self.argv, self.bench.folder, self.env)

    def runs(self) -> dict[str, Callable[[], Run]]:
        return dict.fromkeys(self.kinds, self._run)


class Ansible(Command):
    def begin(self) -> None:
        super().begin()
        places = zip(self.bench.hosts, self.bench.ports, strict=True)
        hosts = "".join(f"{one.host} ansible_host={one.address} place={one.address}:{port}\n" for one, port in places)
        (self.bench.folder / "ansible.ini").write_text(f"[fleet]\n{hosts}")
        self.env = {
            **self.env,
            "ANSIBLE_CONFIG": str(PEERS / "ansible" / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.bench.folder / "ansible-home"),
            "ANSIBLE_SSH_ARGS": f"-F {self.bench.fleet.config} -o ControlMaster=auto -o ControlPersist=60s",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.bench.fresh("cp")),
        }
        self.env.pop("PYTHONPATH")
        self.argv = [
            *(str(self.bench.venvs / "ansible" / "bin" / "ansible-playbook"), "-i", "ansible.ini"),
            *("-e", f"out={self.out}", "-e", f"peers={PEERS}", str(PEERS / "ansible" / "site.yml")),
        ]


class Pyinfra(Command):
    def begin(self) -> None:
        super().begin()
        self.env.pop("PYTHONPATH")
        here = PEERS / "pyinfra"
        program = str(self.bench.venvs / "pyinfra" / "bin" / "pyinfra")
        self.argv = [program, "-y", "--parallel", "50", str(here / "inventory.py"), str(here / "deploy.py")]


def _shell(which: str) -> list[str]:
    loop = f'sh "$PEERS/shell/authority.sh" "$OUT" && exec xargs -P {JOBS} -n 2 sh "$PEERS/shell/{which}.sh" <"$HOSTS"'
    return ["sh", "-c", loop]


def peer(bench: Bench, name: str) -> Command:
    match name:
        case "floor":
            loop = f'exec cut -d" " -f1 "$HOSTS" | xargs -P {JOBS} -I@ ssh -n -F "$SSH_CONFIG" @ true'
            return Command(bench, name, ["sh", "-c", loop], ("first", "again", "edge"))
        case "shell":
            return Command(bench, name, _shell("here"), ("first",))
        case "keys-there":
            return Command(bench, name, _shell("there"), ("first",))
        case "ansible":
            return Ansible(bench, name, [], ("first", "again"))
        case "pyinfra":
            return Pyinfra(bench, name, [], ("first", "again"))
        case _:
            sys.exit(f"no peer is called {name}")


def install(venvs: Path, name: str) -> None:
    """A virtual environment with the peer, from the package index, unless it is there."""
    if (venvs / name / "bin" / "python").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(venvs / name)], check=True)
    subprocess.run([str(venvs / name / "bin" / "python"), "-m", "pip", "install", "-q", VENVS[name]], check=True)


# --- the figures ----------------------------------------------------------------------------------------------------

Seen = dict[str, dict[str, list[Run]]]


def measure(bench: Bench, names: list[str], count: int) -> Seen:
    """By kind and by tool, the runs of each round; who begins changes with the round."""
    tools: list[Mtlsctl | Command] = [Mtlsctl(bench), *(peer(bench, name) for name in names)]
    seen: Seen = {kind: {} for kind in ("first", "again", "edge")}
    for turn in range(count):
        for tool in tools[turn % len(tools) :] + tools[: turn % len(tools)]:
            tool.begin()
            for kind, once in tool.runs().items():
                seen[kind].setdefault(tool.name, []).append(once())
            if tool.name != "floor":
                bench.empty()
    return seen


def show(seen: Seen, hosts: int) -> None:
    rounds = len(seen["first"]["mtlsctl"])
    print(
        f"{hosts} hosts, {rounds} rounds: medians, and of the ratios inside the rounds; below 1 is less than the peer"
    )
    print(f"{'':7}{'':12}{'wall s':>8}{'cpu s':>8}{'MiB':>6}   mtlsctl is (least to most)")
    for kind, tools in seen.items():
        ours = tools["mtlsctl"]
        for name, runs in tools.items():
            peak = max(one.peak_mib for one in runs)
            line = f"{kind:7}{name:12}{median(runs, 'wall'):8.2f}{median(runs, 'cpu'):8.2f}{peak:6.0f}"
            if name != "mtlsctl":
                ratios = [a.wall / b.wall for a, b in zip(ours, runs, strict=True)]
                line += f"   {_x(statistics.median(ratios))} x its wall ({_x(min(ratios))} to {_x(max(ratios))}),"
                line += f" {_x(median_ratio(ours, runs, 'cpu'))} x its cpu"
            print(line)
    print("MiB: the largest process of each tool; mtlsctl is one process.", flush=True)


def _x(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="shell,keys-there,floor")
    parser.add_argument("--forks", type=int)
    parser.add_argument("--venvs", type=Path, default=Path(tempfile.gettempdir()) / "mtlsctl-bench")
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    if reason := why_not():
        print(f"not measured: {reason}")
        return
    names = [name for name in asked.peers.split(",") if name]
    for name in names:
        if name in VENVS:
            install(asked.venvs, name)
    with ExitStack() as stack:
        bench = make_bench(stack, asked.hosts, asked.venvs, asked.forks)
        seen = measure(bench, names, asked.rounds)
    show(seen, asked.hosts)
    if asked.table is not None:
        plain = {kind: {name: [asdict(one) for one in runs] for name, runs in of.items()} for kind, of in seen.items()}
        asked.table.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
