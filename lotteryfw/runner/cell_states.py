"""The states of a run's cells, as its manifest has them: how they ended, and what decided them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from lotteryfw.api.component import Component
from lotteryfw.api.digests import digest
from lotteryfw.api.fingerprints import fingerprint_of
from lotteryfw.api.kinds import DataSource
from lotteryfw.runner.cells import Status
from lotteryfw.runner.context import StudyContext
from lotteryfw.search.cell import Cell
from lotteryfw.search.numerics import numerics
from lotteryfw.store import failed_cells

UNFINISHED = "unfinished"
"""The status of a cell that has not ended."""


def cell_states(context: StudyContext, device: str) -> dict[str, str]:
    """Return, for each cell, a digest of what decides its results beside the recipe.

    That is the code of every component, the content of data and of the file that it starts from,
    and whatever decides the bits of a result. A run's folder is of one recipe, options included.
    A file that a search reads by `lab.load` is not in it: only the search knows which.
    """
    common = [context.engine, numerics(device)]
    known: dict[int, list[str]] = {}

    def of_component(component: Component) -> list[str]:
        # cells share their components
        if id(component) not in known:
            decides = []
            for part in (component, *component.nested()):
                decides.append(f"{part.use} {context.provider(part)}")
                if isinstance(part, DataSource):
                    decides.append(fingerprint_of(part, context.data_folder))
            known[id(component)] = decides
        return known[id(component)]

    def of_cell(cell: Cell) -> list[str]:
        decides = [cell.start.digest] if cell.start else []
        for field in fields(cell):
            value = getattr(cell, field.name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Component):
                    decides += of_component(part)
        for target in cell.targets:
            decides += of_cell(target.cell)
        return decides

    return {cell.id: digest([common, of_cell(cell)])[:16] for cell in context.recipe.cells}


def ended_cells(cells: Any) -> dict[str, Status]:
    """Return how cells ended by the manifest of an earlier run, as far as it says that."""
    entries = cells.items() if isinstance(cells, dict) else ()
    known = get_args(Status)
    return {cell: status for cell, status in entries if status in known}


def earlier_failures(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the reason of each cell that failed in an earlier run.

    There is no path of a traceback: these are deleted as a new run begins.
    """
    failures = {}
    for failed in failed_cells(manifest):
        failures[failed.cell] = {"reason": failed.reason, "traceback": ""}
    return failures
