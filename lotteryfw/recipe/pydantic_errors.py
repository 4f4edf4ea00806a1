"""Puts pydantic's errors into plain words."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from lotteryfw.api.errors import nearest
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.paths import value_at


@dataclass(frozen=True)
class Problem:
    """Something wrong in a table, at `keys` below it."""

    keys: Keys
    text: str
    remedy: str = ""


COMPONENT = "component"
"""The type of pydantic's errors about components within components."""
MAX_PROBLEMS = 100
"""Problems of one table that are looked at: the closest known name takes a millisecond to find."""
_MUST = {
    "greater_than": "> {gt}",
    "greater_than_equal": ">= {ge}",
    "less_than": "< {lt}",
    "less_than_equal": "<= {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_pattern_mismatch": "a string that matches {pattern}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "string_too_short": "at least {min_length} long",
    "string_too_long": "at most {max_length} long",
    # what people write is a TOML value: the types have TOML's names
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "an integer"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_sub_type"), "a string"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
        "a table",
    ),
}


def problems(
    error: ValidationError,
    entry: Any,
    known_keys: Iterable[str],
    owner: str = "",
    counts: Callable[[ErrorDetails], bool] | None = None,
) -> list[Problem]:
    """Return the problems of `entry`, a table that may have the keys `known_keys`.

    `owner` names whose keys they are, if that helps the reader. `counts` says of an error if it counts;
    None for all.
    """
    result: list[Problem] = []
    # by key, what each member of a union expects there
    expected: dict[Keys, list[str]] = {}
    errors = [item for item in error.errors(include_url=False) if not counts or counts(item)]
    for item in errors[:MAX_PROBLEMS]:
        kind = item["type"]
        context = item.get("ctx", {})
        # a component that is named by a string has no keys in the recipe, but may lack some
        keys = _keys(item["loc"], entry, kind in ("missing", COMPONENT))
        if kind == "missing":
            result.append(Problem(keys, "is required"))
        elif kind == "extra_forbidden":
            text = f"{owner} has no option '{keys[-1]}'" if owner else "unknown key"
            # a key of a nested table is not among the known ones
            remedy = nearest(str(keys[-1]), known_keys) if len(keys) == 1 else ""
            result.append(Problem(keys, text, remedy))
        elif kind == COMPONENT:
            text, remedy = context.get("text", item["msg"]), context.get("remedy", "")
            result.append(Problem(keys, text, remedy))
        elif kind in ("value_error", "assertion_error"):
            result.append(Problem(keys, str(context["error"])))
        elif kind in _MUST:
            expected.setdefault(keys, []).append(_MUST[kind].format(**_bounds(context)))
        else:
            result.append(Problem(keys, f"{item['msg']}, got {shown(item['input'])}"))

    # each member of a union reports at the same keys what it expects; one problem names them all
    for keys, choices in expected.items():
        text = " or ".join(dict.fromkeys(choices))
        value = value_at(entry, keys)
        remedy = _as_list(value) if "a list" in choices else ""
        result.append(Problem(keys, f"must be {text}, got {shown(value)}", remedy))
    if len(errors) > MAX_PROBLEMS:
        result.append(Problem((), f"{len(errors) - MAX_PROBLEMS:,} more faults are not shown"))
    return result


def as_error(problem: Problem) -> InitErrorDetails:
    """Return a problem of a component within a component, as an error that `problems` turns back."""
    texts = {"text": problem.text, "remedy": problem.remedy}
    error = PydanticCustomError(COMPONENT, "{text}", texts)
    return InitErrorDetails(type=error, loc=problem.keys, input=None)


def _as_list(value: Any) -> str:
    """Return how a list is written that was given as "a,b", which --set takes as a string, or as 3."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"a list is written [{value}]"
    if not isinstance(value, str) or "," not in value:
        return ""
    items = []
    for item in value.split(","):
        try:
            items.append(repr(tomllib.loads(f"item = {item}")["item"]))
        except tomllib.TOMLDecodeError:
            items.append(f'"{item.strip()}"')
    return f"a list is written [{', '.join(items)}], in quotes for the shell"


def _bounds(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds of an error as people write them: 1 for 1.0."""
    bounds = dict(context)
    for name, value in context.items():
        if isinstance(value, float):
            bounds[name] = f"{value:g}"
    return bounds


def shown(value: Any) -> str:
    """Return a value as a message quotes it."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return textwrap.shorten(text, 80)


def _keys(loc: Iterable[str | int], entry: Any, is_missing: bool) -> Keys:
    """Return the part of an error's location that is written in the recipe.

    pydantic's locations also name members of unions and the types of dict keys.
    """
    keys: list[str | int] = []
    value = entry
    parts = list(loc)
    for index, part in enumerate(parts):
        is_key = isinstance(value, Mapping) and part in value
        is_index = isinstance(value, list) and isinstance(part, int)
        if is_key or is_index:
            value = value[part]
            keys.append(part)
        elif is_missing and index == len(parts) - 1:
            keys.append(part)
    return tuple(keys)
