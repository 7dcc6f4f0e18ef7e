"""The models for people and the table for runs say the same; the reference is fresh."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from mtlsctl.inventory import codes, json_schema
from mtlsctl.inventory.problems import Problems, Sources
from mtlsctl.inventory.schema import InventoryWords
from mtlsctl.inventory.shape import INVENTORY, Anything, ListOf, Named, Record, Shape, Spot, Word, WordOr, fit
from mtlsctl.inventory.source import Map, Seq, read_file
from tests.unit.inventory.test_cases import CASES, NAMES

if TYPE_CHECKING:
    from mtlsctl.inventory.source import Node

REPOSITORY = Path(__file__).parents[3]
UNSTRUCTURED = {codes.NOT_BUILT}


def models_below(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_below(inner)]


def records_below(shape: Shape) -> list[Record]:
    match shape:
        case Record():
            return [shape]
        case Named() | ListOf():
            return records_below(shape.each)
        case WordOr():
            return records_below(shape.mapping)
        case Word() | Anything():
            return []


def assert_same(model: type[BaseModel], record: Record) -> None:
    assert list(model.model_fields) == list(record.fields)
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    assert sorted(required) == sorted(record.required)
    for name, field in model.model_fields.items():
        models, records = models_below(field.annotation), records_below(record.fields[name])
        assert len(models) == len(records)
        for inner_model, inner_record in zip(models, records, strict=True):
            assert_same(inner_model, inner_record)


def plain(node: Node) -> Any:
    if isinstance(node, Map):
        return {key: plain(value) for key, value in node.items()}
    return [plain(one) for one in node] if isinstance(node, Seq) else node


def test_the_models_and_the_table_have_the_same_keys_in_the_same_places() -> None:
    assert_same(InventoryWords, INVENTORY)


@pytest.mark.parametrize("name", NAMES)
def test_the_models_and_the_table_accept_the_same_structures(name: str) -> None:
    problems = Problems(Sources())
    tree = read_file(CASES / f"{name}.yaml", name, problems)
    if tree is None or problems.found:
        return
    words = plain(tree)
    words["version"] = "1" if isinstance(words.get("version"), str) and words["version"] else words.get("version", [])
    tree["version"] = "1" if isinstance(tree.get("version"), str) and tree["version"] else tree.get("version", Seq(0))
    tree.keys_at.setdefault("version", 0)
    fit(tree, INVENTORY, Spot("the inventory", 0), problems)
    try:
        InventoryWords.model_validate(words)
    except ValidationError:
        assert problems.found
    else:
        assert problems.found == []


def test_every_key_has_a_description() -> None:
    schema = json_schema()
    for name, part in {"the file": schema, **schema["definitions"]}.items():
        for key, value in part["properties"].items():
            assert value.get("description"), f"{key} of {name}"


def test_the_editor_schema_is_draft_7_and_resolves_within_itself() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in text
    assert "prefixItems" not in text
    for part in text.split('"$ref": "')[1:]:
        assert part.split('"')[0].removeprefix("#/definitions/") in schema["definitions"]


def test_the_example_of_the_reference_is_an_inventory_with_known_keys() -> None:
    page = (REPOSITORY / "docs/reference/inventory.md").read_text(encoding="utf-8")
    example = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    assert set(example) <= set(json_schema()["properties"])


def test_the_reference_is_fresh() -> None:
    made = runpy.run_path(str(REPOSITORY / "scripts/inventory_reference.py"))["page"]()
    assert made == (REPOSITORY / "docs/reference/inventory.md").read_text(encoding="utf-8")
