"""YAML to an inventory: read with places, checked whole, resolved to the model."""

from __future__ import annotations

from typing import Any

from mtlsctl.inventory.load import LoadedInventory, load_inventory

__all__ = ["LoadedInventory", "json_schema", "load_inventory"]


def json_schema() -> dict[str, Any]:
    """The language as JSON Schema draft 7, for editors; imports pydantic, which no other door of this floor does."""
    from mtlsctl.inventory.schema import draft7  # noqa: PLC0415  slow to import

    return draft7()
