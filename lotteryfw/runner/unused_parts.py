"""Finds parts of a recipe that decide nothing, before anything is trained.

Jobs are named by everything that decides them. So an axis whose values all ask for the same jobs
has no effect, and neither has a component whose name is in none of them. Torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.api.errors import Fault, LotteryError
from lotteryfw.api.steps import Clock
from lotteryfw.recipe import Recipe, WrittenParts
from lotteryfw.recipe.written_parts import Place
from lotteryfw.runner.idle_options import idle_options
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.jobs import Spec, digest
from lotteryfw.search.lab import CellLab

_SHOWN = 3
"""Pairs of equal cells that a warning names."""


@dataclass(frozen=True)
class _CellJobs:
    """The jobs that a cell asks for, as far as they are known before training.

    `identity` is equal for cells with the same jobs; None where it depends on results, or where
    the search cannot run, which is reported elsewhere.
    """

    cell: Cell
    identity: str | None
    prunes: bool


class UnusedParts:
    """The parts of a recipe that decide nothing: `faults`, and `warnings` for parts of a grid."""

    def __init__(self, recipe: Recipe, describe: Describe, data_folder: Path):
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self._describe = describe
        self._data_folder = data_folder
        studies: list[tuple[WrittenParts, list[_CellJobs]]] = []
        for parts in recipe.written_parts:
            if parts.axes or parts.components:
                cells = _first_seeds(cell for cell in recipe.cells if cell.study == parts.study)
                studies.append((parts, [self._jobs(cell) for cell in cells]))

        for written_at in dict.fromkeys(_places(studies, "axes")):
            self._check_axis(written_at, studies)
        for written_at in dict.fromkeys(_places(studies, "components")):
            self._check_component(written_at, studies)
        for _, jobs in studies:
            self._warn_of_equal_cells(jobs)
        self.warnings += _evaluated_once(recipe.cells)
        self.warnings += idle_options(recipe.cells)

    def _check_axis(
        self,
        written_at: Place,
        studies: Sequence[tuple[WrittenParts, list[_CellJobs]]],
    ) -> None:
        """Report the axis written at a place, unless its values differ in some study."""
        searches: dict[str, None] = {}
        prunes = False
        for parts, jobs in studies:
            for path, written in parts.axes.items():
                if written != written_at:
                    continue
                if _has_effect(path, jobs):
                    return
                for job in jobs:
                    searches[job.cell.search.use] = None
                    prunes = prunes or job.prunes
        if not prunes:
            # A study of dense networks alone is a trial of the others, such as with levels = 0.
            self.warnings.append(
                f"{written_at[0]}: {written_at[1]}: changes nothing, since no search prunes: its rows are "
                "the same under each name"
            )
            return
        text = f"has no effect: {_named(searches)} the same jobs for each of its values"
        remedy = "leave it out: its rows would be the same under several names"
        self.faults.append(Fault(*written_at, text, remedy))

    def _check_component(
        self,
        written_at: Place,
        studies: Sequence[tuple[WrittenParts, list[_CellJobs]]],
    ) -> None:
        """Report the component written at a place, unless a search of some study uses it."""
        searches: dict[str, None] = {}
        slots: dict[str, None] = {}
        for parts, jobs in studies:
            for slot, written in parts.components.items():
                if written != written_at:
                    continue
                if self._is_used(slot, jobs):
                    return
                slots[slot] = None
                for job in jobs:
                    searches[job.cell.search.use] = None
        slot = next(iter(slots))
        text = f"has no effect: {_named(searches)} the same jobs with any {slot}"
        self.faults.append(Fault(*written_at, text, f"leave {written_at[1]} out"))

    def _is_used(self, slot: str, cells: Sequence[_CellJobs]) -> bool:
        """Return whether some cell asks for other jobs when a component has another name."""
        tried: set[str] = set()
        for jobs in cells:
            cell = jobs.cell
            # Which components a search uses depends on these alone.
            parts = [self._describe(cell.search, cell.clock).canonical(), cell.criterion.use]
            if cell.parametrization is not None:
                parts.append(self._describe(cell.parametrization, cell.clock).canonical())
            search = digest(parts)
            if search in tried:
                continue
            tried.add(search)
            # A search that prunes nothing uses none of them; with more levels it would.
            if jobs.identity is None or not jobs.prunes:
                return True
            if self._renamed(cell, slot).identity != jobs.identity:
                return True
        return False

    def _renamed(self, cell: Cell, slot: str) -> _CellJobs:
        """Return the jobs of a cell whose component in a slot has another name."""
        # One object may be in two slots, such as the initialiser of weights and of scores.
        renamed: Any = getattr(cell, slot).model_copy()

        def describe(component: Component, clock: Clock) -> Spec:
            spec = self._describe(component, clock)
            if component is renamed:
                return Spec(spec.kind, f"{spec.use}/another", spec.provider, spec.options)
            return spec

        changes: dict[str, Any] = {slot: renamed}
        return self._jobs(replace(cell, **changes), describe)

    def _jobs(self, cell: Cell, describe: Describe | None = None) -> _CellJobs:
        try:
            # On the device on which equal names are equal jobs.
            lab = CellLab(cell, describe or self._describe, self._data_folder, "cpu")
        except LotteryError:
            return _CellJobs(cell, None, True)
        planned = plan_cell(lab)
        if planned.depends_on_results or planned.fault is not None:
            return _CellJobs(cell, None, True)
        origins = []
        prunes = False
        for request in planned.requests:
            origins.append(request.origin)
            prunes = prunes or not request.ticket.is_dense
        return _CellJobs(cell, digest(origins), prunes)

    def _warn_of_equal_cells(self, cells: Sequence[_CellJobs]) -> None:
        """Warn of cells that ask for the same jobs as another, where an axis matters to some only."""
        first: dict[str, Cell] = {}
        equal: list[tuple[Cell, Cell]] = []
        for jobs in cells:
            if jobs.identity is None or not jobs.prunes:
                continue
            # Dense trainings alone are equal under most axes, and were left out above.
            if jobs.identity in first:
                equal.append((first[jobs.identity], jobs.cell))
            else:
                first[jobs.identity] = jobs.cell
        if not equal:
            return
        pairs = []
        for one, other in equal[:_SHOWN]:
            pairs.append(f"{_combination(other)} equals {_combination(one)}")
        more = f", and {len(equal) - _SHOWN} more" if len(equal) > _SHOWN else ""
        self.warnings.append(
            f"study {cells[0].cell.study}: some combinations of its grid have the same results "
            f"under two names: {'; '.join(pairs)}{more}"
        )


def _evaluated_once(cells: Iterable[Cell]) -> list[str]:
    """Return a warning for each study whose `evaluate.every` is longer than its trainings."""
    warnings: dict[str, None] = {}
    for cell in cells:
        steps, total = cell.evaluate_every, cell.clock.total
        if steps > total:
            text = (
                f"study {cell.study}: evaluate.every is {steps:,} steps, and a training has "
                f"{total:,}: networks are evaluated at the end alone"
            )
            warnings[text] = None
    return list(warnings)


def _first_seeds(cells: Iterable[Cell]) -> list[Cell]:
    """Return the first cell of each combination of the grid: seeds ask for jobs in the same way."""
    first: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        first.setdefault(tuple(cell.axes.values()), cell)
    return list(first.values())


def _places(studies: Sequence[tuple[WrittenParts, list[_CellJobs]]], which: str) -> Iterator[Place]:
    for parts, _ in studies:
        yield from getattr(parts, which).values()


def _has_effect(path: str, cells: Sequence[_CellJobs]) -> bool:
    """Return whether two values of an axis, beside equal values of the others, differ in jobs."""
    identities: dict[str, str] = {}
    for jobs in cells:
        if jobs.identity is None:
            return True
        others = dict(jobs.cell.axes)
        del others[path]
        if identities.setdefault(str(others), jobs.identity) != jobs.identity:
            return True
    return False


def _combination(cell: Cell) -> str:
    return ", ".join(f"{axis}={label}" for axis, label in cell.axes.items())


def _named(searches: Iterable[str]) -> str:
    names = " and ".join(f"'{name}'" for name in searches)
    return f"the search {names} asks for" if " and " not in names else f"{names} ask for"
