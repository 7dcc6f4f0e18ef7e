"""Runtime folders made for a test: a good one, and whatever a test changes in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mtlsctl.model.release import recipe_to_json
from mtlsctl.render.cases import cases_of, render_case, write_expected
from mtlsctl.render.catalog import RuntimeFolder, read_folder
from tests.unit.render.recipes import call, door, recipe

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
version: 1
name: sample
description: a sample
roles: [server, caller]
process: { scope: host, program: sample, pointer: { file: /etc/sample.conf, template: process.j2, includes: a.conf } }
files:
  - { path: a.conf, template: a.conf.j2 }
  - { path: "to/{callee}.conf", template: callee.j2, each: callee }
enforces:
  anchors: true
  identifiers: false
  crls: false
  separate_trust: true
  refuse_all: true
  server_names: true
settings:
  depth: { type: integer, description: a number }
"""

TEMPLATES = {
    "process.j2": "{% for one in includes %}include {{ one.path | nginx }};\n{% endfor %}",
    "a.conf.j2": "service {{ service | nginx }};\n{% for at in listeners %}{{ at.verify_depth }};{% endfor %}\n",
    "callee.j2": "name {{ callee.server_name | nginx }};\n",
}


def make_folder(below: Path, manifest: str = MANIFEST, **templates: str) -> Path:
    """A folder named `sample` with a README, a case, and templates; `a_conf_j2=...` replaces one."""
    path = below / "sample"
    (path / "cases/one").mkdir(parents=True)
    (path / "runtime.yaml").write_text(manifest)
    (path / "README.md").write_text("# sample\n")
    texts = {**TEMPLATES, **{name.replace("_", "."): text for name, text in templates.items()}}
    for name, text in texts.items():
        (path / name).write_text(text)
    made = recipe("schedule", "nginx", listeners=[door()], callees=[call("ledger")])
    (path / "cases/one/recipe.json").write_text(json.dumps({**recipe_to_json(made), "runtime_digest": "0"}))
    return path


def good_folder(below: Path) -> RuntimeFolder:
    folder = read_folder(make_folder(below))
    for case in cases_of(folder):
        write_expected(case, render_case(folder, case))
    return folder
