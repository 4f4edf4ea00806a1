"""Pydantic's errors in plain words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lotteryfw.api.errors import nearest
from lotteryfw.recipe.layered_table import Keys


@dataclass(frozen=True)
class Problem:
    """Something wrong in a table, at `keys` below it."""

    keys: Keys
    text: str
    remedy: str = ""


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
    error: ValidationError, given: Any, known: Iterable[str], owner: str = ""
) -> list[Problem]:
    """What is wrong with `given`, whose keys are `known`. `owner` says whose keys they are, where that helps."""
    found: list[Problem] = []
    wanted: dict[Keys, list[str]] = {}
    errors = error.errors(include_url=False)
    for each in errors[:MAX_PROBLEMS]:
        keys, context = _keys(each["loc"], given, each["type"] == "missing"), each.get("ctx", {})
        bounds = {
            name: f"{value:g}" if isinstance(value, float) else value
            for name, value in context.items()
        }
        if each["type"] == "missing":
            found.append(Problem(keys, "is required"))
        elif each["type"] == "extra_forbidden":
            text = f"{owner} has no option '{keys[-1]}'" if owner else "unknown key"
            found.append(
                Problem(keys, text, nearest(str(keys[-1]), known) if len(keys) == 1 else "")
            )
        elif each["type"] in ("value_error", "assertion_error"):
            found.append(Problem(keys, str(context["error"])))
        elif must := _MUST.get(each["type"]):
            wanted.setdefault(keys, []).append(must.format(**bounds))
        else:
            found.append(Problem(keys, f"{each['msg']}, got {shown(each['input'])}"))
    for (
        keys,
        musts,
    ) in wanted.items():  # the members of a union each say what they want at one place
        value: Any = given
        for key in keys:
            value = value[key]
        found.append(
            Problem(keys, f"must be {' or '.join(dict.fromkeys(musts))}, got {shown(value)}")
        )
    if len(errors) > MAX_PROBLEMS:
        found.append(Problem((), f"{len(errors) - MAX_PROBLEMS:,} more faults are not shown"))
    return found


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    return textwrap.shorten(str(value).lower() if isinstance(value, bool) else repr(value), 80)


def _keys(loc: Iterable[str | int], given: Any, is_missing: bool) -> Keys:
    # pydantic's places also name members of unions and keys of dicts; what stands in the recipe is what counts
    keys: list[str | int] = []
    parts = list(loc)
    for place, part in enumerate(parts):
        if (isinstance(given, Mapping) and part in given) or (
            isinstance(given, list) and isinstance(part, int)
        ):
            given = given[part]  # type: ignore[index]
            keys.append(part)
        elif is_missing and place == len(parts) - 1:
            keys.append(part)
    return tuple(keys)
