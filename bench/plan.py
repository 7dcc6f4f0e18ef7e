"""The whole `mtlsctl plan` process against the floor: PyYAML's C loader reading the same file, its collector off.

    python bench/plan.py [--rounds 3] [--sizes 100,1000,10000]

CPU of the process and its peak memory, medians of paired runs. Targets at 10,000 services with five callers each: 3 x
the floor's CPU, below 1 GiB.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from estates import make_project
from paired import median, median_ratio, rounds

FLOOR = "import gc, sys, yaml; gc.disable(); yaml.load(open(sys.argv[1], 'rb').read(), yaml.CSafeLoader)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="100,1000,10000")
    asked = parser.parse_args()
    mtlsctl = str(Path(sys.executable).with_name("mtlsctl"))
    print(f"{'services':>9}{'floor cpu s':>13}{'plan cpu s':>12}{'x floor':>9}{'plan wall s':>13}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_CONFIG_HOME": f"{folder}/config"}
        for size in map(int, asked.sizes.split(",")):
            project = make_project(Path(folder), mtlsctl, env, services=size)
            variants = {
                "floor": [sys.executable, "-c", FLOOR, str(project / "inventories/bench/all.yaml")],
                "plan": [mtlsctl, "plan"],
            }
            seen = rounds(variants, asked.rounds, cwd=project, env=env)
            floor, plan = seen["floor"], seen["plan"]
            figures = f"{median(floor, 'cpu'):13.2f}{median(plan, 'cpu'):12.2f}{median_ratio(plan, floor, 'cpu'):9.2f}"
            peak = max(one.peak_mib for one in plan)
            print(f"{size:9}{figures}{median(plan, 'wall'):13.2f}{peak:10.0f}", flush=True)


if __name__ == "__main__":
    main()
