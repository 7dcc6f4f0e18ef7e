"""How long a person waits: whole processes against `python -c pass`, wall clock, medians of paired runs.

    python bench/startup.py [--rounds 15]

Targets: --version 3 x, --help 10 x, a plan of 20 services 20 x.
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

TARGETS = {"mtlsctl --version": 3.0, "mtlsctl --help": 10.0, "mtlsctl plan, 20 services": 20.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    mtlsctl = str(Path(sys.executable).with_name("mtlsctl"))
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_CONFIG_HOME": f"{folder}/config"}
        project = make_project(Path(folder), mtlsctl, env, services=20)
        variants = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "mtlsctl --version": [mtlsctl, "--version"],
            "mtlsctl --help": [mtlsctl, "--help"],
            "mtlsctl plan, 20 services": [mtlsctl, "plan"],
        }
        seen = rounds(variants, asked.rounds, cwd=project, env=env)
    floor = seen["python -c pass"]
    print(f"{'process':28}{'wall ms':>9}{'cpu ms':>9}{'x pass':>9}{'target':>9}")
    for name, runs in seen.items():
        target = f"{TARGETS[name]:.0f} x" if name in TARGETS else ""
        times = f"{median(runs, 'wall') * 1000:9.1f}{median(runs, 'cpu') * 1000:9.1f}"
        print(f"{name:28}{times}{median_ratio(runs, floor, 'wall'):9.2f}{target:>9}")


if __name__ == "__main__":
    main()
