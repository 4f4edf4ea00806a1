"""Facts of the studies of a recipe that a run's manifest keeps for its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lotteryfw.search.cell import Cell


def input_shapes(cells: Sequence[Cell], data_folder: Path) -> dict[str, list[int]]:
    """Return the shape of an input of each study; a study of several shapes has none."""
    by_source: dict[int, tuple[int, ...]] = {}
    by_study: dict[str, set[tuple[int, ...]]] = {}
    for cell in cells:
        # once for each source: some look at their files
        if id(cell.data) not in by_source:
            by_source[id(cell.data)] = tuple(cell.data.facts(data_folder).shape)
        by_study.setdefault(cell.study, set()).add(by_source[id(cell.data)])
    shapes = {}
    for study, study_shapes in by_study.items():
        if len(study_shapes) == 1:
            shapes[study] = list(study_shapes.pop())
    return shapes


def metric_units(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the names of the further figures of levels.csv, each with its unit."""
    units: dict[str, str] = {}
    for cell in cells:
        units |= cell.metric_units
    return units


def figure_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Return what the objective of each study reports; of several objectives, with "or" between."""
    # a dictionary keeps the order of the recipe, and each name once
    by_study: dict[str, dict[str, None]] = {}
    for cell in cells:
        by_study.setdefault(cell.study, {})[cell.objective.figure_name] = None
    return {study: " or ".join(names) for study, names in by_study.items()}


def loss_units(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the unit of each study's loss; empty where objectives have different ones."""
    by_study: dict[str, set[str]] = {}
    for cell in cells:
        by_study.setdefault(cell.study, set()).add(cell.objective.loss_unit)
    return {study: units.pop() if len(units) == 1 else "" for study, units in by_study.items()}
