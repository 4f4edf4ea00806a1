"""What was measured during the trainings, averaged over seeds: curves.jsonl beside levels.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lotteryfw.report.data.series import Point
from lotteryfw.report.data.stats import Spread
from lotteryfw.store import LevelRow

METRICS = ("validation_accuracy", "validation_loss", "dying_ratio", "turnover")
"""What is drawn of a training."""

_POINTS = 60
"""At most so many points a curve: more than a screen tells apart would only make the page heavy."""


@dataclass(frozen=True)
class Curves:
    """The curves of a run, each under its training's cell, variant and level."""

    by_row: Mapping[tuple[str, str, int], Mapping[str, Any]]

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> Curves:
        """From the lines of curves.jsonl."""
        return cls({(line["cell"], line["variant"], line["level"]): line for line in lines})

    def mean(self, point: Point, metric: str) -> list[tuple[int, Spread]]:
        """(step, spread over seeds) of one level's training, at most 60 of them; none where nothing was measured."""
        values: dict[int, list[float]] = {}
        for row in point.rows:
            for step, value in self._measured(row, metric):
                values.setdefault(step, []).append(value)
        return [(step, Spread.of(values[step])) for step in _thinned(sorted(values))]

    def has_mask_learned(self, row: LevelRow) -> bool:
        """Whether this training learned a mask: only such count the edges that it never selects."""
        return bool(self._line(row).get("dying_ratio"))

    def _measured(self, row: LevelRow, metric: str) -> list[tuple[int, float]]:
        curve = self._line(row)
        pairs = zip(curve.get("step", ()), curve.get(metric, ()), strict=False)
        return [(step, value) for step, value in pairs if value is not None and isfinite(value)]

    def _line(self, row: LevelRow) -> Mapping[str, Any]:
        return self.by_row.get((row.cell, row.variant, row.level), {})


def _thinned(steps: Sequence[int]) -> list[int]:
    last = len(steps) - 1
    if last < _POINTS:
        return list(steps)
    return [steps[round(place * last / (_POINTS - 1))] for place in range(_POINTS)]
