"""Writes recipes as TOML that reads back as the same recipe, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w


def to_toml(recipe: Mapping[str, Any]) -> str:
    """Return a recipe's text.

    In TOML, plain keys come before tables, but the order of a grid's axes is that of its cells. So
    each axis is written as one plain key, whatever its values are.
    """
    return "\n".join(_lines(recipe, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    # plain keys first: after a header they would belong to its table
    tables = {}
    for key, value in table.items():
        if _is_tables(value) and path[-1:] != ("grid",):
            tables[key] = value
        else:
            yield f"{_key(key)} = {_inline(value)}"
    for key, value in tables.items():
        here = (*path, _key(key))
        header = ".".join(here)
        if isinstance(value, Mapping):
            yield from ("", f"[{header}]")
            yield from _lines(value, here)
            continue
        for entry in value:
            yield from ("", f"[[{header}]]")
            yield from _lines(entry, here)


def _is_tables(value: Any) -> bool:
    """Return True for a table, and for a list of tables that is not empty."""
    rows = value if isinstance(value, list) else [value]
    return bool(rows) and all(isinstance(row, Mapping) for row in rows)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = [f"{_key(key)} = {_inline(entry)}" for key, entry in value.items()]
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        rows = [_inline(entry) for entry in value]
        # tables get a line each
        if _is_tables(value):
            return "[\n    " + ",\n    ".join(rows) + ",\n]"
        return f"[{', '.join(rows)}]"
    return tomli_w.dumps({"_": value}).removeprefix("_ = ").removesuffix("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
