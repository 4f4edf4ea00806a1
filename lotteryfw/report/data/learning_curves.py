"""Measurements during the trainings, averaged over seeds: curves.jsonl beside levels.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lotteryfw.report.data.choice import evenly_chosen
from lotteryfw.report.data.series import Point, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, figure_unit
from lotteryfw.store import LevelRow

_MEASURED = ("validation_accuracy", "validation_loss")
"""The metrics that every training has a curve of."""

# More points than a screen resolves would only make the page heavy.
_MAX_POINTS = 60


@dataclass(frozen=True)
class LearningCurves:
    """The curves of a run, by the cell, variant and level of their training."""

    by_row: Mapping[tuple[str, str, int], Mapping[str, Any]]
    units: Mapping[str, str]
    """The units, "share" or "number", of the metrics that only some trainings have."""

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> LearningCurves:
        """Return the curves in the lines of curves.jsonl."""
        by_row = {}
        units: dict[str, str] = {}
        for line in lines:
            by_row[line["cell"], line["variant"], line["level"]] = line
            units |= line.get("units", {})
        return cls(by_row, units)

    @property
    def metrics(self) -> list[str]:
        """The metrics of trainings that there are curves of."""
        return [*_MEASURED, *self.units]

    def unit(self, metric: str, study: StudySeries) -> Unit:
        """Return the unit of a metric of a study's trainings."""
        kind = self.units.get(metric)
        return figure_unit(metric, kind) if kind else study.unit(metric)

    def mean(self, point: Point, metric: str) -> list[tuple[int, Spread]]:
        """Return (step, spread over seeds) of a level's training, at most 60 of them.

        The list is empty if nothing was measured.
        """
        values: dict[int, list[float]] = {}
        for row in point.rows:
            for step, value in self._measured(row, metric):
                values.setdefault(step, []).append(value)
        curve = []
        # evenly by index and not by step, so that dense early measurements stay dense
        for step in evenly_chosen(sorted(values), _MAX_POINTS):
            # over the seeds that have a value here: one that diverged later on has none
            curve.append((step, Spread.of(values[step])))
        return curve

    def _measured(self, row: LevelRow, metric: str) -> list[tuple[int, float]]:
        curve = self._line(row)
        measured = []
        # not strict: a training that lacks the metric has steps all the same
        for step, value in zip(curve.get("step", ()), curve.get(metric, ()), strict=False):
            # null at steps without a measurement; infinite where the training diverged
            if value is not None and isfinite(value):
                measured.append((step, value))
        return measured

    def _line(self, row: LevelRow) -> Mapping[str, Any]:
        return self.by_row.get((row.cell, row.variant, row.level), {})
