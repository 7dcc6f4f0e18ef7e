"""A document of any command as JSON text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def json_text(document: Mapping[str, object]) -> str:
    """ASCII only, so that no name can act on a terminal; each entry of each list on a line of its own.

    `indent` would do it too, in pure Python and at several times the cost of the plan itself.
    """
    entries = ",\n".join(f"  {json.dumps(key)}: {_value_text(value)}" for key, value in document.items())
    return f"{{\n{entries}\n}}\n"


def _value_text(value: object) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(f"    {json.dumps(one)}" for one in value) + "\n  ]"
