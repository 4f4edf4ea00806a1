"""Measurements during the trainings, averaged over seeds: curves.jsonl beside levels.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lotteryfw.report.data.series import Point
from lotteryfw.report.data.stats import Spread
from lotteryfw.store import LevelRow

MEASURED = ("validation_accuracy", "validation_loss", "dying_ratio", "turnover")
"""The metrics of a training that are drawn."""

# More points than a screen resolves would only make the page heavy.
_MAX_POINTS = 60


@dataclass(frozen=True)
class LearningCurves:
    """The curves of a run, by the cell, variant and level of their training."""

    by_row: Mapping[tuple[str, str, int], Mapping[str, Any]]

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> LearningCurves:
        """Return the curves in the lines of curves.jsonl."""
        return cls({(line["cell"], line["variant"], line["level"]): line for line in lines})

    def mean(self, point: Point, metric: str) -> list[tuple[int, Spread]]:
        """Return (step, spread over seeds) of a level's training, at most 60 of them.

        The list is empty if nothing was measured.
        """
        values: dict[int, list[float]] = {}
        for row in point.rows:
            for step, value in self._measured(row, metric):
                values.setdefault(step, []).append(value)
        return [(step, Spread.of(values[step])) for step in _thinned(sorted(values))]

    def learned_mask(self, row: LevelRow) -> bool:
        """Return True if this training learned a mask.

        Only such trainings record a dying ratio, the share of edges that are never selected.
        """
        return bool(self._line(row).get("dying_ratio"))

    def _measured(self, row: LevelRow, metric: str) -> list[tuple[int, float]]:
        curve = self._line(row)
        measured = []
        for step, value in zip(curve.get("step", ()), curve.get(metric, ()), strict=False):
            if value is not None and isfinite(value):
                measured.append((step, value))
        return measured

    def _line(self, row: LevelRow) -> Mapping[str, Any]:
        return self.by_row.get((row.cell, row.variant, row.level), {})


def _thinned(steps: Sequence[int]) -> list[int]:
    last = len(steps) - 1
    if last < _MAX_POINTS:
        return list(steps)
    return [steps[round(index * last / (_MAX_POINTS - 1))] for index in range(_MAX_POINTS)]
