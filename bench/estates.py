"""Inventories of any size: each service in nginx with one port, one name and five callers."""

from __future__ import annotations

import shutil
import subprocess
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CALLERS = 5
SERVICES_ON_A_HOST = 10


def inventory_lines(services: int) -> Iterator[str]:
    random = Random(7)
    hosts = max(1, services // SERVICES_ON_A_HOST)
    yield from ("version: 1", "name: bench", "hosts:")
    for host in range(hosts):
        address = f"10.{host >> 16}.{host >> 8 & 255}.{host & 255}"
        yield f"  node-{host}: {{ directory: out/node-{host}, address: {address} }}"
    yield "services:"
    for number in range(services):
        others = sorted(set(random.sample(range(services), min(CALLERS + 1, services))) - {number})[:CALLERS]
        yield f"  service-{number}:"
        yield "    runtime: nginx"
        yield f"    hosts: [node-{number % hosts}]"
        yield f"    names: [service-{number}.bench.example]"
        yield f"    listen: {2000 + number // hosts}"
        yield f"    callers: [{', '.join(f'service-{other}' for other in others)}]"


def make_project(folder: Path, mtlsctl: str, env: Mapping[str, str], *, services: int) -> Path:
    """A new project with an inventory of this size; its one file is `inventories/bench/all.yaml`."""
    project = folder / f"estate-{services}"
    init = [mtlsctl, "init", str(project), "--name", "bench", "--example", "empty", "--no-input"]
    subprocess.run(init, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shutil.rmtree(project / "inventories")
    inventory = project / "inventories" / "bench"
    inventory.mkdir(parents=True)
    (inventory / "all.yaml").write_text("\n".join(inventory_lines(services)) + "\n", encoding="ascii")
    return project
