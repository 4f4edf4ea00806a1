"""Recipes as TOML, so that what is read back is the same, order and all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w


def to_toml(recipe: Mapping[str, Any]) -> str:
    """A recipe's text.

    TOML has plain keys stand before tables, and the order of a grid's axes is that of its cells: an axis is one plain
    key, whatever its values are.
    """
    return "\n".join(_lines(recipe, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    below = (
        {}
        if path[-1:] == ("grid",)
        else {key: value for key, value in table.items() if _is_tables(value)}
    )
    for key, value in table.items():
        if key not in below:
            yield f"{_key(key)} = {_inline(value)}"
    for key, value in below.items():
        here = (*path, _key(key))
        for each in [value] if isinstance(value, Mapping) else value:
            yield ""
            yield f"[{'.'.join(here)}]" if isinstance(value, Mapping) else f"[[{'.'.join(here)}]]"
            yield from _lines(each, here)


def _is_tables(value: Any) -> bool:
    rows = value if isinstance(value, list) else [value]
    return bool(rows) and all(isinstance(row, Mapping) for row in rows)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_inline(each)}" for key, each in value.items()) + " }"
        )
    if isinstance(value, list):
        rows = [_inline(each) for each in value]
        return (
            "[\n" + "".join(f"    {row},\n" for row in rows) + "]"
            if _is_tables(value)
            else f"[{', '.join(rows)}]"
        )
    return tomli_w.dumps({"_": value}).removeprefix("_ = ").removesuffix("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
