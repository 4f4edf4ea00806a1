"""Checks before any training that the levels which claims are about exist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lotteryfw.api.errors import Fault, LotteryError
from lotteryfw.api.kinds import MaskSearch
from lotteryfw.recipe import Recipe, Side
from lotteryfw.recipe.claim_selection import select_combinations
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.lab import CellLab

_NEAREST = 3


def missing_levels(
    recipe: Recipe, describe: Describe, data_folder: Path, device: str
) -> list[Fault]:
    """Return a fault for each side of a claim that no level of its searches is about.

    Searches that learn masks, and those that depend on results, have levels that are not known
    before training, and are not checked.
    """
    densities: dict[str, list[tuple[int, float]]] = {}
    faults: dict[Fault, None] = {}  # a set that keeps its order
    for claim, origin in zip(recipe.claims, recipe.claim_origins, strict=True):
        if origin is None or claim.untested:
            continue
        where, key = origin
        for name, side in claim.sides().items():
            # A side without a density is about all levels, whichever there are.
            if side.density == (0.0, 1.0):
                continue
            planned = _planned(recipe, side, densities, describe, data_folder, device)
            if planned and not any(map(side.has_level, planned)):
                part = f"{key}.rises_along" if name.isdigit() else f"{key}.{name}"
                faults[Fault(where, part, *_problem(side, planned))] = None
    return list(faults)


def _planned(
    recipe: Recipe,
    side: Side,
    densities: dict[str, list[tuple[int, float]]],
    describe: Describe,
    data_folder: Path,
    device: str,
) -> set[float]:
    """Return the densities of a side's levels; empty if they are not known."""
    cells = [(cell.axes, cell) for cell in recipe.cells if cell.study == side.study]
    planned: set[float] = set()
    combinations: set[tuple[tuple[str, str], ...]] = set()
    for cell in select_combinations(cells, side.axes):
        axes = tuple(cell.axes.items())
        if axes in combinations:
            continue  # seeds have the same levels
        combinations.add(axes)
        if cell.id not in densities:
            densities[cell.id] = _levels(cell, describe, data_folder, device)
        if not densities[cell.id]:
            return set()
        for level, density in densities[cell.id]:
            if _has_figures(cell, side, level):
                planned.add(density)
    return planned


def _has_figures(cell: Cell, side: Side, level: int) -> bool:
    """Return whether the controls or analyses that a side may be about are there at a level."""
    if side.variant in (control.use for control in cell.controls) and not cell.has_controls(level):
        return False
    analysis = side.metric.partition(".")[0]
    return analysis not in (one.use for one in cell.analyses) or cell.is_analysed(level)


def _levels(
    cell: Cell, describe: Describe, data_folder: Path, device: str
) -> list[tuple[int, float]]:
    """Return each level that a cell records with its density; none if they are not known."""
    if isinstance(cell.search, MaskSearch):
        return []
    try:
        lab = CellLab(cell, describe, data_folder, device)
        planned = plan_cell(lab)
        if planned.depends_on_results or planned.fault is not None:
            return []
        total = sum(lab.context.pruner.sizes.values())
        densities = []
        for record in lab.records:
            kept = record.ticket.source.kept_by_budgets()
            densities.append((record.level, sum(kept.values()) / total))
        return densities
    except LotteryError:  # a component that breaks ends its own cells, when they run
        return []


def _problem(side: Side, planned: Iterable[float]) -> tuple[str, str]:
    low, high = side.density
    middle = (low + high) / 2
    nearest = sorted(planned, key=lambda density: abs(density - middle))[:_NEAREST]
    densities = ", ".join(f"{density:.4g}" for density in sorted(nearest, reverse=True))
    text = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    problem = f"the study '{side.study}' has no level of density {text}"
    return problem, f"the nearest are {densities}"
