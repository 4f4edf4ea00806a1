"""Checks before any training that the levels which targets name are recorded."""

from __future__ import annotations

from pathlib import Path

from lotteryfw.api.errors import Fault, LotteryError
from lotteryfw.recipe import Recipe
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.lab import CellLab


def absent_target_levels(
    recipe: Recipe, describe: Describe, data_folder: Path, device: str
) -> list[Fault]:
    """Return a fault for each target with levels that no search of its study records.

    Searches whose levels depend on results are not checked.
    """
    recorded: dict[tuple[str, str], set[int]] = {}
    targets = {}
    for cell in recipe.cells:
        chosen = [target for target in cell.targets if target.levels is not None]
        # The seeds of a combination have the same levels.
        levels = _levels(cell, describe, data_folder, device) if chosen else set()
        for target in chosen:
            targets[cell.study, target.name] = target
            known = recorded.setdefault((cell.study, target.name), set())
            # Without known levels, whatever the target names may come.
            known |= levels or (target.levels or frozenset())

    faults = []
    for position, target in targets.items():
        absent = sorted((target.levels or frozenset()) - recorded[position])
        if absent:
            where, key = target.written_at
            there = ", ".join(map(str, sorted(recorded[position])))
            text = f"the study '{position[0]}' has no level {', '.join(map(str, absent))}"
            key = f"{key.rpartition('.')[0]}.levels"
            faults.append(Fault(where, key, text, f"its levels are {there}"))
    return faults


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
