"""Limits on recipes, so that checking one is quick: depth, numbers, lists, text, cells, levels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lotteryfw.api.errors import Fault
from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.limits import CELLS, DEPTH, ENTRIES, LEVELS, NUMBER, SEED, readable
from lotteryfw.recipe.layered_table import Keys, dotted
from lotteryfw.recipe.pydantic_errors import MAX_PROBLEMS, Problem
from lotteryfw.recipe.schema import listed

_SEEDS = ("seed", "seeds")
_LEVELS = ("levels", "cycles", "densities")
"""Options of a search that set its number of levels: an integer, or a list of that length."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Control characters other than tab and the ends of lines."""
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}.,=\n]',
    re.DOTALL,
)
"""The parts of a TOML text that decide its nesting; strings and comments are skipped as wholes."""


def too_deep(text: str) -> str:
    """Return where a TOML text nests deeper than the limit, or an empty string.

    tomllib raises RecursionError for such a text, and its time grows with the square of a key's length.
    """
    limit = DEPTH.value
    brackets = dots = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("[", "{"):
            brackets += 1
        elif token in ("]", "}"):
            brackets = max(0, brackets - 1)
        # a.b.c nests as deep as [a.b.c]; the dots of one key count until it ends
        if token == ".":
            dots += 1
        elif token in ("=", ",", "\n", "[", "{"):
            dots = 0
        if max(brackets, dots + 1) > limit:
            line = text.count("\n", 0, match.start()) + 1
            return f"line {line} is nested deeper than the limit of {limit}"
    return ""


def out_of_bounds(table: Mapping[str, Any], where: str) -> list[Fault]:
    """Return a fault for every value of a table that no recipe may have at any key."""
    faults: list[Fault] = []
    # no recursion: a hostile table is nested deeper than Python's stack
    pending: list[tuple[Keys, Any]] = [((), table)]
    depth = DEPTH.value
    while pending and len(faults) < MAX_PROBLEMS:
        keys, value = pending.pop()
        if problem := _problem(keys, value):
            faults.append(Fault(where, dotted(keys), *problem))
        if len(keys) > depth:
            problem = (f"is nested deeper than the limit of {depth}", DEPTH.remedy)
            return [*faults, Fault(where, dotted(keys[:4]), *problem)]
        entries: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            entries = value.items()
        elif isinstance(value, list):
            entries = enumerate(value)
        for key, entry in entries:
            if isinstance(key, str) and (text := _unusable_text(key)):
                faults.append(Fault(where, dotted((*keys, key)), f"the key {text}"))
            pending.append(((*keys, key), entry))
    return faults


def too_many_cells(studies: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[str, str] | None:
    """Return the problem and remedy of studies with more cells than the limit, else None.

    `studies` are their names and tables. The cells are counted without making one.
    """
    total = sum(_cells(table) for _, table in studies)
    if not CELLS.exceeded_by(total):
        return None
    text = f"asks for {CELLS.excess(total, 'cells')} (axes times seeds, over all studies)"
    return text, CELLS.remedy


def too_many_levels(search: SearchAlgorithm) -> list[Problem]:
    """Return a problem for each option of a search that gives it more levels than the limit."""
    problems = []
    for name in _LEVELS:
        value = getattr(search, name, None)
        count = len(value) if isinstance(value, list | tuple) else value
        if isinstance(count, int) and LEVELS.exceeded_by(count):
            problems.append(
                Problem((name,), f"asks for {LEVELS.excess(count, name)}", LEVELS.remedy)
            )
    return problems


def _cells(table: Mapping[str, Any]) -> int:
    grid = table.get("grid")
    try:
        seeds = listed(table.get("seeds"))
    except ValueError:
        seeds = None
    # faults in the types are reported later, by the study
    cells = len(seeds) if isinstance(seeds, list) else 1
    randomness = table.get("randomness")
    for axes in (grid, randomness):
        # a list of seeds is an axis, too
        for values in axes.values() if isinstance(axes, Mapping) else ():
            if isinstance(values, list):
                cells *= len(values)
    return cells


def _problem(keys: Keys, value: Any) -> tuple[str, str] | None:
    if isinstance(value, str):
        text = _unusable_text(value)
        return (text, "") if text else None
    if isinstance(value, int):
        limit = SEED if _is_seed(keys) else NUMBER
        if abs(value) > limit.value:
            return f"{readable(value)} is beyond the limit of {readable(limit.value)}", limit.remedy
    # seeds and axes are limited by the cells that they make
    is_limited = isinstance(value, list) and not _is_seed(keys) and "grid" not in keys
    if is_limited and ENTRIES.exceeded_by(len(value)):
        return f"has {ENTRIES.excess(len(value), 'entries')}", ENTRIES.remedy
    return None


def _is_seed(keys: Keys) -> bool:
    names = [key for key in keys if isinstance(key, str)]
    # "randomness.order" as a table, or as the dotted path of an axis
    if "randomness" in dotted(keys).split("."):
        return True
    return bool(names) and (names[-1] in _SEEDS or names[-1].endswith("_seed"))


def _unusable_text(text: str) -> str:
    """Return why a text cannot be kept in a file, or would change a terminal; else an empty string."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"is not UTF-8 text: {text[:60]!a}"
    if match := _CONTROL.search(text):
        return f"has the control character {match[0]!a} at position {match.start()}"
    return ""
