"""Checks values of a study that its grid replaces, and which therefore are in no cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lotteryfw.recipe.axes import Axis
from lotteryfw.recipe.components import components_of
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.paths import is_below, value_at
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import Engine, Evaluate, RandomnessTable, Table, Train

_FIXED_TABLES: dict[str, type[Table]] = {
    "train": Train,
    "evaluate": Evaluate,
    "engine": Engine,
    "randomness": RandomnessTable,
}


def replaced_problems(
    table: Mapping[str, Any], axes: Sequence[Axis], resolver: ComponentResolver
) -> list[Problem]:
    """Return the mistakes in values of a study's table that its axes replace."""
    # a list of seeds is an axis where it stands, and replaces nothing
    replaced = [axis for axis in axes if axis.written != axis.keys]
    faults = FaultCollector()
    components_of(table, resolver, faults)
    for key, model in _FIXED_TABLES.items():
        faults.at(key).value_of(resolver.table(model, table.get(key, {})))
    mistakes = []
    for problem in faults.problems:
        # A missing key is no mistake: an axis may give it.
        is_written = value_at(table, problem.keys) is not None
        if is_written and any(is_below(problem.keys, axis.keys) for axis in replaced):
            mistakes.append(problem)
    return mistakes
