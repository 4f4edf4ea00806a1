"""Results of analyses: analyses.jsonl beside levels.csv, for analyses of any name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lotteryfw.report.data.series import Point
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, figure_unit, unit_of
from lotteryfw.store import LevelRow

Line = Mapping[str, Any]
LevelKey = tuple[str, str, int]
"""Cell, variant and level."""


@dataclass(frozen=True)
class Findings:
    """The findings of a run, in the order of its file.

    A metric is called "analysis.figure", as in a claim. `numbers` are the single numbers of one
    level, by metric and layer; layer "" is the whole network. `units` are "share" or "number".
    """

    lines: Sequence[Line]
    numbers: Mapping[tuple[str, str], Mapping[LevelKey, float]]
    units: Mapping[str, str]

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Findings:
        """Return the findings in the lines of analyses.jsonl."""
        lines = list(lines)
        numbers: dict[tuple[str, str], dict[LevelKey, float]] = {}
        units: dict[str, str] = {}
        for line in lines:
            metric = metric_of(line)
            units[metric] = line["unit"]
            # a figure of a pair of tickets, or a sample of weights, is no number of one level
            if not line["against"] and not isinstance(line["value"], list):
                by_level = numbers.setdefault((metric, line["layer"]), {})
                by_level[level_key(line)] = line["value"]
        return cls(lines, numbers, units)

    def of_study(self, study: str) -> Findings:
        """Return the findings of one study."""
        return Findings.of(line for line in self.lines if line["study"] == study)

    @property
    def analyses(self) -> list[str]:
        """The names of the analyses, in order."""
        # a dict, unlike a set, keeps the order of the file
        return list(dict.fromkeys(line["analysis"] for line in self.lines))

    def metrics(self, analysis: str) -> dict[str, list[str]]:
        """Return the metrics of an analysis that are single numbers, each with its layers.

        Layer "" is the whole network.
        """
        layers_by_metric: dict[str, list[str]] = {}
        for metric, layer in self.numbers:
            if metric.partition(".")[0] == analysis:
                layers_by_metric.setdefault(metric, []).append(layer)
        return layers_by_metric

    def number(self, row: LevelRow, metric: str, layer: str = "") -> float | None:
        """Return a metric of a row of levels.csv; None if it was not analysed."""
        return self.numbers.get((metric, layer), {}).get((row.cell, row.variant, row.level))

    def spread(self, point: Point, metric: str, layer: str = "") -> Spread | None:
        """Return the spread of a metric over seeds; None if no seed has a finite value."""
        values = []
        for row in point.rows:
            value = self.number(row, metric, layer)
            if value is not None and isfinite(value):
                values.append(value)
        return Spread.of(values) if values else None

    def unit(self, metric: str) -> Unit:
        """Return the unit of a metric, or that of a column of levels.csv."""
        kind = self.units.get(metric)
        # a plugin's figure may end in "loss" and still be a share: the run folder says its unit
        if kind:
            return figure_unit(metric.partition(".")[2], kind)
        return unit_of(metric)


def metric_of(line: Line) -> str:
    """Return the name by which a claim would call the figure."""
    return f"{line['analysis']}.{line['figure']}"


def level_key(line: Line) -> LevelKey:
    """Return the cell, variant and level of a finding."""
    return line["cell"], line["variant"], line["level"]
