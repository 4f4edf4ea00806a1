"""What analyses found: analyses.jsonl beside levels.csv, whatever the analyses are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lotteryfw.report.data.series import Point
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, found_unit, unit_of
from lotteryfw.store import LevelRow

Line = Mapping[str, Any]
Place = tuple[str, str, int]
"""Cell, variant and level."""


@dataclass(frozen=True)
class Findings:
    """The findings of a run, in the order of its file. A metric is "analysis.figure", as a claim says it."""

    lines: Sequence[Line]
    numbers: Mapping[tuple[str, str], Mapping[Place, float]]
    """The single numbers that were found of a level by itself: by metric and layer, which is "" for all of a network."""
    units: Mapping[str, str]
    """What each metric is said to be: "share" or "number"."""

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Findings:
        """From the lines of analyses.jsonl."""
        lines = list(lines)
        numbers: dict[tuple[str, str], dict[Place, float]] = {}
        for line in lines:
            if not line["against"] and not isinstance(line["value"], list):
                numbers.setdefault((metric_of(line), line["layer"]), {})[place_of(line)] = line[
                    "value"
                ]
        return cls(lines, numbers, {metric_of(line): line["unit"] for line in lines})

    def within(self, study: str) -> Findings:
        """Those of one study."""
        return Findings.of(line for line in self.lines if line["study"] == study)

    @property
    def analyses(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(line["analysis"] for line in self.lines))

    def metrics(self, analysis: str) -> dict[str, list[str]]:
        """The single numbers that it found of levels, each with its layers; "" among them is the whole network."""
        found: dict[str, list[str]] = {}
        for metric, layer in self.numbers:
            if metric.partition(".")[0] == analysis:
                found.setdefault(metric, []).append(layer)
        return found

    def number(self, row: LevelRow, metric: str, layer: str = "") -> float | None:
        """What was found of a row of levels.csv."""
        return self.numbers.get((metric, layer), {}).get((row.cell, row.variant, row.level))

    def spread(self, point: Point, metric: str, layer: str = "") -> Spread | None:
        """Its spread over seeds; None where nothing was found of them."""
        values = [
            value for row in point.rows if (value := self.number(row, metric, layer)) is not None
        ]
        return Spread.of(values) if values else None

    def unit(self, metric: str) -> Unit:
        """The unit of a metric: as its findings say, or that of a column of levels.csv."""
        said = self.units.get(metric)
        return found_unit(metric.partition(".")[2], said) if said else unit_of(metric)


def metric_of(line: Line) -> str:
    """The name by which a claim would call the figure."""
    return f"{line['analysis']}.{line['figure']}"


def place_of(line: Line) -> Place:
    """The row of levels.csv that a finding is about."""
    return line["cell"], line["variant"], line["level"]
