"""The job for pyinfra: certificates in this process, four files to each host, nginx -t, reload."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from issue import OUT  # made once for each process
from pyinfra import host
from pyinfra.operations import files, server

PLACES = {
    "tls.key": ("/etc/bench/tls.key", "600"),
    "tls.crt": ("/etc/bench/tls.crt", "644"),
    "ca.crt": ("/etc/bench/ca.crt", "644"),
    "nginx.conf": ("/etc/nginx/conf.d/bench.conf", "644"),
}

files.directory(name="folder", path="/etc/bench", mode="700")
changed = [
    files.put(name=name, src=f"{OUT}/{host.name}/{name}", dest=place, mode=mode)
    for name, (place, mode) in PLACES.items()
]
server.shell(
    name="reload",
    commands=["nginx -t -q && nginx -s reload"],
    _if=lambda: any(one.did_change() for one in changed),
)
