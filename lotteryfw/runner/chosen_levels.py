"""Checks before any training that the levels which a recipe names are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lotteryfw.api.errors import Fault, LotteryError
from lotteryfw.recipe import Recipe
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.lab import CellLab

_Place = tuple[str, str, str]
"""A study, and the file and the key where levels are named for it."""


def absent_levels(
    recipe: Recipe, describe: Describe, data_folder: Path, device: str
) -> list[Fault]:
    """Return a fault for each list of levels with some that no search of its study records.

    The lists are those of targets, controls and analyses. Searches whose levels depend on results
    are not checked.
    """
    recorded: dict[_Place, set[int]] = {}
    named: dict[_Place, frozenset[int]] = {}
    for cell in recipe.cells:
        chosen = dict(_chosen(cell))
        # The seeds of a combination have the same levels.
        levels = _levels(cell, describe, data_folder, device) if chosen else set()
        for place, wanted in chosen.items():
            named[place] = wanted
            # Without known levels, whatever is named may come.
            recorded.setdefault(place, set()).update(levels or wanted)

    faults = []
    for place, wanted in named.items():
        absent = sorted(wanted - recorded[place])
        if absent:
            study, where, key = place
            there = ", ".join(map(str, sorted(recorded[place])))
            text = f"the study '{study}' has no level {', '.join(map(str, absent))}"
            faults.append(Fault(where, key, text, f"its levels are {there}"))
    return faults


def _chosen(cell: Cell) -> Iterator[tuple[_Place, frozenset[int]]]:
    """Yield the lists of levels of a cell, each with its place."""
    for target in cell.targets:
        if target.levels is not None:
            where, key = target.written_at
            yield (cell.study, where, f"{key.rpartition('.')[0]}.levels"), target.levels
    for chosen in (cell.control_levels, cell.analysis_levels):
        if chosen is not None:
            yield (cell.study, *chosen.written_at), chosen.levels


def _levels(cell: Cell, describe: Describe, data_folder: Path, device: str) -> set[int]:
    """Return the levels whose tickets a cell records; none if they are not known."""
    try:
        lab = CellLab(cell, describe, data_folder, device)
        planned = plan_cell(lab)
    # A component that breaks ends its own cells, when they run.
    except LotteryError:
        return set()
    if planned.depends_on_results or planned.fault is not None:
        return set()
    return {record.level for record in lab.records if record.variant == "ticket"}
