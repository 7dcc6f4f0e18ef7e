"""Any layout of the same declarations is the same inventory; whatever else is read, only InventoryError comes out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsctl.errors import InventoryError
from mtlsctl.inventory import load_inventory
from tests.unit.inventory.runtimes import RUNTIMES
from tests.unit.inventory.test_cases import CASES

if TYPE_CHECKING:
    from mtlsctl.model.diagnostic import Diagnostic

FLOW = {"block": False, "flow": True, "mixed": None}
SEEDS = sorted(path.read_bytes() for path in CASES.glob("*.yaml"))
TOKENS = [
    b"&a", b"*a", b"<<:", b"!!str", b"---", b"...", b"no", b"~", b"[", b"]", b"{", b"}", b"\t", b"\n", b"\r", b"\x00",
    b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xae", b'"\\ud800"', b'"\\U0010FFFF"', b"? ", b": ", b"- ", b"|", b">", b"#",
    b"callers:", b"hosts:", b"services:", b"listeners:", b"99999999999", b"'", b'"', b"%YAML 1.1\n", b"@", b"`",
]  # fmt: skip


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """An inventory that is right, as plain values."""
    names = draw(
        st.lists(st.from_regex(r"[a-z]{3,8}(-[a-z]{2,4})?", fullmatch=True), min_size=1, max_size=5, unique=True)
    )
    hosts = draw(st.lists(st.from_regex(r"[a-z]{2,5}[0-9]", fullmatch=True), min_size=1, max_size=3, unique=True))
    services: dict[str, Any] = {}
    for index, name in enumerate(names):
        services[name] = {
            "runtime": draw(st.sampled_from(["nginx", "node", "pem"])),
            "hosts": draw(st.lists(st.sampled_from(hosts), min_size=1, unique=True)),
            "listen": 8000 + index,
            "callers": [one for one in draw(st.lists(st.sampled_from(names), unique=True)) if one != name],
            "addresses": draw(st.booleans()),
        }
        if draw(st.booleans()):
            services[name]["names"] = [f"{name}.example.com", f"x{index}.example"]
        if draw(st.booleans()):
            services[name]["certificate"] = {"lifetime": draw(st.sampled_from(["40d", "90d", "960h"]))}
    folders = {name: {"directory": f"./out/{name}"} for name in hosts}
    return {"version": 1, "name": "estate", "hosts": folders, "services": services}


def digest(files: dict[str, str]) -> str:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, text in files.items():
            (root / name).write_text(text, encoding="utf-8")
        return load_inventory(root, RUNTIMES, root=root).inventory.digest


def shuffled(node: Any, draw: Any) -> Any:
    """The same mappings in another order of keys."""
    if not isinstance(node, dict):
        return node
    keys = draw(st.permutations(list(node)))
    return {key: shuffled(node[key], draw) for key in keys}


@given(tree=trees(), draw=st.data(), flow=st.sampled_from(["block", "flow", "mixed"]), indent=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_another_layout_of_the_same_inventory_has_the_same_digest(
    tree: dict[str, Any], draw: st.DataObject, flow: str, indent: int
) -> None:
    other = shuffled(tree, draw.draw)
    parts = {f"{name}.yaml": {"services": {name: one}} for name, one in other["services"].items()}
    rest = {key: value for key, value in other.items() if key != "services"}
    whole = {"whole.yaml": yaml.safe_dump(tree)}
    style: dict[str, Any] = {"default_flow_style": FLOW[flow], "indent": indent, "sort_keys": False, "width": 40}
    one_file = {"a.yaml": "# made anew\n---\n" + yaml.safe_dump(other, **style)}
    many = {"rest.yml": yaml.safe_dump(rest, **style)} | {name: yaml.safe_dump(part) for name, part in parts.items()}
    assert digest(whole) == digest(one_file) == digest(many)


def read(data: bytes) -> None:
    """Nothing but InventoryError may come out, and what it carries can be shown."""
    found: tuple[Diagnostic, ...] | None = None
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.yaml")
        path.write_bytes(data)
        try:
            load_inventory(path, RUNTIMES, root=Path(place))
        except InventoryError as error:
            found = error.diagnostics
    assert found is None or list(found) == sorted(found, key=lambda one: one.order) != []
    for one in found or ():
        assert one.message.isprintable()
        assert one.span is None or one.span.column < one.span.end_column


@given(data=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read(data)


@given(text=st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text.encode("utf-8", "surrogatepass"))


@given(draw=st.data(), seed=st.sampled_from(SEEDS))
@settings(max_examples=300, deadline=None)
def test_a_damaged_inventory_is_read_or_refused(draw: st.DataObject, seed: bytes) -> None:
    data = seed
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data)))
        cut = draw.draw(st.integers(0, 12))
        token = draw.draw(st.sampled_from(TOKENS) | st.binary(max_size=3))
        data = data[:at] + token + data[at + cut :]
    read(data)


@given(draw=st.data(), tree=trees())
@settings(max_examples=150, deadline=None)
def test_a_wrong_value_anywhere_is_read_or_refused(draw: st.DataObject, tree: dict[str, Any]) -> None:
    places = list(_places(tree))
    node, key = draw.draw(st.sampled_from(places))
    odd: list[Any] = ["no", "", None, [], {}, [[]], [{}], {"a": "b"}, 0, -1, "x" * 70, "a;b", [None], ["a", {}], True]
    node[key] = draw.draw(st.sampled_from(odd))
    read(yaml.safe_dump(tree).encode())


def _places(node: Any) -> Any:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)
