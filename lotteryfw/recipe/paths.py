"""Paths into plain tables: read, replace and remove the value at a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lotteryfw.recipe.layered_table import Keys


def value_at(table: Any, keys: Keys) -> Any:
    """Return the value at this path of a table, or None."""
    value = table
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def with_value(table: Mapping[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    """Return a copy of the table with this value at the path; only tables on the path are copied.

    The name of a component on the path becomes a table, so that the component can get options.
    """
    key, *rest = keys
    if not rest:
        return {**table, str(key): value}
    below = table.get(str(key))
    if not isinstance(below, Mapping):
        below = {"use": below} if isinstance(below, str) else {}
    return {**table, str(key): with_value(below, tuple(rest), value)}


def without(table: Mapping[str, Any], paths: Sequence[Keys]) -> dict[str, Any]:
    """Return the table without the values at these paths, each a key or an axis of the grid."""
    rest = {key: value for key, value in table.items() if (key,) not in paths}
    grid = rest.get("grid")
    if isinstance(grid, Mapping):
        rest["grid"] = {path: axis for path, axis in grid.items() if ("grid", path) not in paths}
    return rest


def is_below(keys: Keys, path: Keys) -> bool:
    """Return True for the path itself, and for any path that goes on from it."""
    return keys[: len(path)] == path
