"""Hosts to deliver to: real sshd processes on loopback, each in a mount namespace with an /etc and a /run of its own.

What is written there is seen by that host alone, and the machine's own files, /etc/ssh, /etc/sudoers.d and /root/.ssh
among them, are never touched: users, sudo rules and keys of a host exist in its namespace.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from mtlsctl.deliver.known_hosts import HostKey, parse_key
from mtlsctl.deliver.reach import PARAMIKO, SshOptions
from mtlsctl.model.topology import SshHost
from tests.conftest import find_peer
from tests.integration.peers import Program
from tests.support import ports

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEPLOYER, STRANGER = "mtlsdeploy", "mtlsstranger"
"""Users of every host: one who may do everything with sudo, and one who may not."""

UIDS = {DEPLOYER: 61183, STRANGER: 61184}
PRIVATE = "/run/host"
"""What a host alone has: the layers of its /etc, homes, keys."""

START = r"""
set -eu
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/sshd /run/host/up /run/host/work /run/host/home
mount -t overlay -o lowerdir=/etc,upperdir=/run/host/up,workdir=/run/host/work overlay /etc 2>/dev/null || {
  cp -a /etc /run/host/etc
  mount --bind /run/host/etc /etc
}
own=$1; shell=$2; folder=$3; sshd=$4
for path in $own; do mount -t tmpfs -o mode=0755 tmpfs "$path"; done
# Root of the host is at home there as well: no file of this machine's root is read or written.
sed -i "s#^root:.*#root:x:0:0:root:/run/host/home/root:$shell#" /etc/passwd
cat "$folder/passwd" >>/etc/passwd
cat "$folder/group" >>/etc/group
if [ -f /etc/shadow ]; then cat "$folder/shadow" >>/etc/shadow; fi
mkdir -p /etc/sudoers.d
cp "$folder/sudoers" /etc/sudoers.d/mtlsctl-test
chmod 0440 /etc/sudoers.d/mtlsctl-test
cp "$folder/authorized_keys" /run/host/authorized_keys
chmod 0644 /run/host/authorized_keys
for user in root $(cut -d: -f1 "$folder/passwd"); do
  mkdir -p "/run/host/home/$user"
  chown "$user" "/run/host/home/$user"
done
exec "$sshd" -D -e -f "$folder/sshd_config"
"""

SSHD_CONFIG = """\
ListenAddress {address}
Port {port}
{keys}
PidFile none
AuthorizedKeysFile {private}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
MaxStartups 200
MaxSessions 20
UseDNS no
PrintMotd no
LogLevel VERBOSE
Subsystem sftp /bin/false
{more}
"""


def needs_a_fleet() -> pytest.MarkDecorator:
    """For the modules that use it: skipped, with the reason, where sshd cannot have files of its own."""
    return pytest.mark.skipif(bool(why := why_not()) and not os.environ.get("MTLSCTL_REQUIRE_PEERS"), reason=why)


def why_not() -> str:
    """Why there can be no fleet here; empty when there can."""
    missing = [one for one in ("sshd", "ssh", "ssh-keygen", "sudo", "unshare") if find_peer(one) is None]
    if missing:
        return f"not installed here: {', '.join(missing)}"
    if os.getuid() != 0:
        return "only root can give each sshd files of its own (unshare --mount)"
    tried = subprocess.run(
        [str(find_peer("unshare")), "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no mount namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "", comment: str = "test") -> HostKey:
    """A key pair at `path` and `path.pub`; gives its public half."""
    path.unlink(missing_ok=True)
    subprocess.run(
        [str(find_peer("ssh-keygen")), "-q", "-t", kind, "-N", passphrase, "-C", comment, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return public_key(path)


def public_key(path: Path) -> HostKey:
    kind, text, *_ = path.with_name(f"{path.name}.pub").read_text().split()
    key = parse_key(kind, text)
    assert key is not None
    return key


def sign(authority: Path, key: Path, *options: str) -> None:
    """A certificate for a key, beside it."""
    command = [str(find_peer("ssh-keygen")), "-q", "-s", str(authority), "-I", "test", *options, f"{key}.pub"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


class Sshd(Program):
    """A host. `path` finds its files from outside while it runs."""

    ends_its_group = True

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        address: str,
        *,
        kinds: Sequence[str] = ("ed25519",),
        shell: str = "/bin/sh",
        own: Iterable[str] = (),
        more: str = "",
    ) -> None:
        self.fleet, self.address, self.port = fleet, address, free_port(address)
        self.folder = fleet.folder / name
        self.folder.mkdir()
        self.kinds = tuple(kinds)
        for kind in kinds:
            make_key(self.key_file(kind), kind=kind)
        self.host = name
        self._write(shell, more)
        argv: list[object] = [find_peer("unshare"), "--mount", "--propagation", "private", "sh", "-c", START, "sh"]
        argv += [" ".join(own), shell, self.folder, find_peer("sshd")]
        super().__init__(f"sshd of {name}", argv, self.folder / "log", at=[(address, self.port)])

    def key_file(self, kind: str) -> Path:
        return self.folder / f"host_{kind}"

    def host_key(self, kind: str | None = None) -> HostKey:
        return public_key(self.key_file(kind or self.kinds[0]))

    def _write(self, shell: str, more: str) -> None:
        passwd = [f"{user}:x:{uid}:{uid}:test:{PRIVATE}/home/{user}:{shell}" for user, uid in UIDS.items()]
        (self.folder / "passwd").write_text("\n".join(passwd) + "\n")
        (self.folder / "group").write_text("".join(f"{user}:x:{uid}:\n" for user, uid in UIDS.items()))
        # A star: no password fits, and the account is not locked, which sshd would hold against it.
        (self.folder / "shadow").write_text("".join(f"{user}:*:19000:0:99999:7:::\n" for user in UIDS))
        (self.folder / "sudoers").write_text(f"Defaults !syslog\n{DEPLOYER} ALL=(root) NOPASSWD: ALL\n")
        (self.folder / "authorized_keys").write_text(self.fleet.key.with_name("id.pub").read_text())
        keys = "\n".join(f"HostKey {self.key_file(kind)}" for kind in self.kinds)
        (self.folder / "sshd_config").write_text(
            SSHD_CONFIG.format(address=self.address, port=self.port, keys=keys, private=PRIVATE, more=more)
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def path(self, inside: str) -> Path:
        """A file of the host as it is reached from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def members(self) -> list[int]:
        """The processes of the host: all in its namespace, those of open sessions among them."""
        try:
            mine = Path(f"/proc/{self.pid}/ns/mnt").readlink()
        except OSError:
            return []
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with suppress(OSError):
                    if (folder / "ns/mnt").readlink() == mine:
                        found.append(int(folder.name))
        return found

    def run(self, *argv: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command on the host, as root, without SSH."""
        command = ["nsenter", "--mount", f"--target={self.pid}", "--", *argv]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)

    def inventory(
        self,
        *,
        user: str | None = "root",
        become: bool = False,
        jump: str | None = None,
        identity_file: str | None = None,
    ) -> SshHost:
        """As an inventory declares it."""
        return SshHost(
            name=self.host,
            address=self.address,
            port=self.port,
            user=user,
            become=become,
            jump=jump,
            identity_file=identity_file,
        )

    def yaml(self, *, user: str = "root", become: bool = False) -> str:
        """The same as text, for an inventory on disk."""
        more = ", become: true" if become else ""
        return f"{self.host}: {{ address: {self.address}, port: {self.port}, user: {user}{more} }}"

    def logged(self, what: str) -> int:
        """How often its log says something."""
        return self.log.read_text("utf-8", "replace").count(what)

    def drop_sessions(self) -> None:
        """End every connection, as a cable that is pulled does for the programs; the listener stays."""
        for _ in range(10):  # a server replaces the child that was killed before it
            others = [pid for pid in self.members() if pid != self.pid]
            for pid in others:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not others:
                break
            time.sleep(0.01)

    def __exit__(self, *arguments: object) -> None:
        self.drop_sessions()
        super().__exit__(*arguments)


class Fleet:
    """Hosts and the client that reaches them: a key, a configuration and known hosts of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key = folder / "id"
        make_key(self.key)
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch(0o600)
        self.config = folder / "ssh_config"
        self.hosts: dict[str, Sshd] = {}
        self._started = 0
        self._stack = ExitStack()
        self.configure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._stack.close()

    def start(self, name: str, *, known: bool = True, start: bool = True, **options: object) -> Sshd:
        """One more host, at an address of its own; its keys are known unless told otherwise.

        With `start=False` its files are there, and `run` starts it.
        """
        number = self._started = self._started + 1
        host = Sshd(self, name, f"127.9.{number // 250}.{number % 250 + 1}", **options)  # type: ignore[arg-type]
        if start:
            self.run(host)
        if known:
            self.know(host)
        return host

    def run(self, host: Sshd) -> Sshd:
        self._stack.enter_context(host)
        self.hosts[host.host] = host
        return host

    def know(self, host: Sshd, *kinds: str) -> None:
        with self.known_hosts.open("a") as file:
            for kind in kinds or host.kinds:
                file.write(f"[{host.address}]:{host.port} {host.host_key(kind).text}\n")

    def forget_all(self) -> None:
        self.known_hosts.write_text("")

    def configure(self, text: str = "", *, identity: bool = True) -> None:
        """The client's configuration; `text` stands before what holds for all hosts."""
        lines = [text, "Host *", f"  UserKnownHostsFile {self.known_hosts}", "  GlobalKnownHostsFile /dev/null"]
        lines += ["  IdentityAgent none"] if "IdentityAgent" not in text else []
        lines += [f"  IdentityFile {self.key}", "  IdentitiesOnly yes"] if identity else []
        self.config.write_text("\n".join(lines) + "\n")

    def options(self, transport: str = PARAMIKO, **changes: object) -> SshOptions:
        environ = {**os.environ, **self.environment(transport)}
        changes = {"connect_seconds": 5, "login_seconds": 10, **changes}
        return SshOptions(config=self.config, transport=transport, environ=environ, **changes)  # type: ignore[arg-type]

    def environment(self, transport: str = PARAMIKO) -> Mapping[str, str]:
        """What the operator sets for the command line."""
        return {"MTLSCTL_SSH_CONFIG": str(self.config), "MTLSCTL_SSH_TRANSPORT": transport}


def free_port(address: str) -> int:
    """A port that nobody has at this address."""
    return ports.free_port(address)


def sshd_version() -> tuple[int, int]:
    said = subprocess.run([str(find_peer("sshd")), "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"OpenSSH_([0-9]+)\.([0-9]+)", said.stdout + said.stderr)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class SshAgent:
    """A real ssh-agent with some keys in it, at a path of its own."""

    def __init__(self, folder: Path, *keys: Path) -> None:
        self.path, self.keys = folder / "agent", keys

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [str(find_peer("ssh-agent")), "-D", "-a", str(self.path)], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not (self.path.exists() and stat.S_ISSOCK(self.path.stat().st_mode)):
            assert time.monotonic() < deadline, "ssh-agent does not listen"
            time.sleep(0.01)
        return self

    def add(self, key: Path, passphrase: str = "") -> None:
        """As `ssh-add` does; a key with a passphrase is opened in a copy, which is taken away again."""
        copy = self.path.with_name("to-add")
        shutil.copy(key, copy)
        copy.chmod(0o600)
        if passphrase:
            change = ["ssh-keygen", "-q", "-p", "-P", passphrase, "-N", "", "-f", str(copy)]
            subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
        environ = {**os.environ, "SSH_AUTH_SOCK": str(self.path)}
        subprocess.run(["ssh-add", "-q", str(copy)], check=True, env=environ, stderr=subprocess.DEVNULL)
        copy.unlink()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
