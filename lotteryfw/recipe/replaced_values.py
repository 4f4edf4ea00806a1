"""Checks values of a study that its grid replaces: their mistakes, and options that are lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lotteryfw.recipe.axes import Axis
from lotteryfw.recipe.components import components_of
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.paths import is_below, value_at
from lotteryfw.recipe.pydantic_errors import Problem, shown
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import SLOTS, Engine, Evaluate, RandomnessTable, Table, Train

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
        value = value_at(table, problem.keys)
        # A missing key is no mistake: an axis may give it. A list of seeds is an axis itself, and
        # two axes of one key are reported as such.
        is_seeds = problem.keys[0] == "randomness" and isinstance(value, list)
        if (
            value is not None
            and not is_seeds
            and any(is_below(problem.keys, axis.keys) for axis in replaced)
        ):
            mistakes.append(problem)
    return mistakes


def lost_options(
    table: Mapping[str, Any], axes: Sequence[Axis], resolver: ComponentResolver
) -> list[Problem]:
    """Return values of axes that seem to mean the table's component, and lose its options.

    A value is a whole component. One that is a name alone, or options without a name, reads as if
    it had the table's options as well. A value with its `use` and options says what it means.
    """
    problems = []
    for axis in axes:
        base = value_at(table, axis.keys)
        base = {"use": base} if isinstance(base, str) else base
        if axis.keys not in SLOTS or not isinstance(base, Mapping):
            continue
        for index, value in enumerate(axis.values):
            option = _lost_option(axis, axes, base, value, resolver)
            if option is None:
                continue
            text = f"does not have `{axis.path}`'s {option} = {shown(base[option])}"
            remedy = f"write it here, or vary {axis.path}.{option}"
            if option == "use":
                remedy = "write the `use` that is meant"
            problems.append(Problem((*axis.written, index), text, remedy))
    return problems


def _lost_option(
    axis: Axis,
    axes: Sequence[Axis],
    base: Mapping[str, Any],
    value: Any,
    resolver: ComponentResolver,
) -> str | None:
    """Return an option of `base` that a value of the same component has not; None if it has all.

    An option that has its default is not lost, nor one that another axis gives.
    """
    kind = SLOTS[axis.keys]
    if isinstance(value, str):
        if resolver.offer(kind, value) != resolver.offer(kind, base):
            return None
        entry: dict[str, Any] = {"use": value}
    elif isinstance(value, Mapping) and "use" not in value:
        if "use" in base and resolver.offer(kind, value) != resolver.offer(kind, base):
            return "use"
        entry = dict(value)
    else:
        return None

    for other in axes:
        if other.keys[:-1] == axis.keys:
            entry.setdefault(str(other.keys[-1]), other.values[0])
    component, _ = resolver.component(kind, entry)
    for option, base_value in base.items():
        if option not in entry and component is not None:
            meant, _ = resolver.component(kind, {**entry, option: base_value})
            if meant not in (None, component):
                return option
    return None
