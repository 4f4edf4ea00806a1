"""JSON that every tool reads: numbers that are not finite are written as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_DUMP = json.JSONEncoder(allow_nan=False).encode


def strict_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as strict JSON: a number that is not finite is written as null."""
    # as it is first: nearly all values are finite, and a copy of each would cost more than writing
    try:
        return _DUMP(value) if indent is None else json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def parse_json(text: str | bytes) -> Any:
    """Return the data of a JSON text that may be damaged, or a stranger's.

    Raises ValueError where it is no JSON, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def noted(finding: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an analysis result with a `note` where its value has numbers that are not finite."""
    value = finding.get("value")
    values = value if isinstance(value, list | tuple) else [value]
    strange = {str(item) for item in values if isinstance(item, float) and not math.isfinite(item)}
    note = f"not finite: {', '.join(sorted(strange))}"
    return {**finding, "note": finding.get("note", note)} if strange else finding


def with_nan(value: Any) -> Any:
    """Return the value of an analysis result with NaN where the file has null."""
    if isinstance(value, list):
        return [math.nan if item is None else item for item in value]
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    """Return the same plain data with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
