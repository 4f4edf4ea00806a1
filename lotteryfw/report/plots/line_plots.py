"""Plots of figures against an ordered axis of the grid, and along the positions of an analysis.

An axis has an order if its values are numbers or lengths, such as rewind steps. Positions are a
list that an analysis marks with the role "along", such as the points of a line between networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from lotteryfw.report.data.findings import Findings, LevelKey, Line, level_key, metric_of
from lotteryfw.report.data.grouping import labelled, varying_axes
from lotteryfw.report.data.series import (
    Combination,
    Point,
    PointSpread,
    Series,
    SharedLevel,
    StudySeries,
)
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit
from lotteryfw.report.plots.style import LineStyle, line_style, line_styles

ALONG = "along"
"""The role of a list of positions."""

_ORDERED = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)(it|ep|%)?")
_UNORDERED_TABLE = "randomness."  # its integers name streams, of which none comes after another

Positions = Sequence[tuple[float, float]]
"""Pairs of a position and the figure there."""


@dataclass(frozen=True)
class OrderedAxis:
    """An axis of the grid whose values are numbers or lengths; `values` are its labels in order."""

    name: str
    values: tuple[str, ...]

    @property
    def title(self) -> str:
        """The axis for people: "rewind step"."""
        return self.name.replace(".", " ").replace("_", " ")


@dataclass(frozen=True)
class PlotLine:
    """One line of a plot: pairs of x and the spread over seeds there."""

    label: str
    style: LineStyle
    points: tuple[tuple[float, Spread], ...]


@dataclass(frozen=True)
class LinePlot:
    """Lines over a common x; with `categories` it is 0, 1, … and these are its names."""

    unit: Unit
    x_title: str
    lines: tuple[PlotLine, ...]
    categories: tuple[str, ...] = ()

    def position_text(self, x: float) -> str:
        """Return a position in words."""
        value = self.categories[int(x)] if self.categories else f"{x:.4g}"
        return f"{self.x_title} {value}"


def ordered_axes(study: StudySeries) -> list[OrderedAxis]:
    """Return the axes of a study that figures can be plotted against.

    A study of one level each has none: its figures stand by axis already.
    """
    axes: list[OrderedAxis] = []
    if study.single_level:
        return axes
    for name in varying_axes([series.axes for series in study.series]):
        labels = dict.fromkeys(series.axes.get(name, "") for series in study.series)
        matches = [_ORDERED.fullmatch(label) for label in labels]
        if name.startswith(_UNORDERED_TABLE) or not all(matches):
            continue
        values = list(labels)
        # steps and per cent of a training cannot be compared here: the recipe's order stays
        if len({match[2] for match in matches if match}) == 1:
            values.sort(key=_number)
        axes.append(OrderedAxis(name, tuple(values)))
    return axes


def _number(label: str) -> float:
    match = _ORDERED.fullmatch(label)
    return float(match[1]) if match else 0.0


def pruned_levels(study: StudySeries) -> list[SharedLevel]:
    """Return the levels of a study without the dense network that all series share."""
    levels = []
    for level in study.levels:
        is_dense = level.density == 1 and not level.number
        if not (is_dense and study.dense):
            levels.append(level)
    return levels


def plot_by_axis(
    study: StudySeries,
    axis: OrderedAxis,
    level: SharedLevel,
    unit: Unit,
    point_spread: PointSpread,
) -> LinePlot | None:
    """Return a figure of one level against an axis, a line for each combination of the others."""
    spreads: dict[tuple[Combination, str], dict[str, Spread]] = {}
    for series in study.series:
        others = dict(series.axes)
        value = others.pop(axis.name, "")
        point = series.at(level)
        spread = point_spread(point) if point else None
        # a line is there for every combination, so that all levels have the same styles
        by_value = spreads.setdefault((tuple(others.items()), series.variant), {})
        if spread:
            by_value[value] = spread

    # series without points, only to name the lines by what distinguishes them
    names = [Series("", dict(combination), variant, ()) for combination, variant in spreads]
    named = labelled(names)
    lines = []
    for one, style, by_value in zip(named, line_styles(named), spreads.values(), strict=True):
        points = []
        for index, value in enumerate(axis.values):
            if value in by_value:
                points.append((float(index), by_value[value]))
        if points:
            lines.append(PlotLine(one.label, style, tuple(points)))
    return LinePlot(unit, axis.title, tuple(lines), axis.values) if lines else None


def figures_along(findings: Findings, analysis: str) -> dict[str, dict[LevelKey, Positions]]:
    """Return the lists of whole networks that an analysis gives along positions, by metric."""
    positions: dict[LevelKey, Line] = {}
    lists: list[Line] = []
    for line in findings.lines:
        is_list = isinstance(line["value"], list) and not line["layer"] and not line["against"]
        if line["analysis"] != analysis or not is_list:
            continue
        if line.get("role") == ALONG:
            positions[level_key(line)] = line
        elif not line.get("role"):
            lists.append(line)

    along: dict[str, dict[LevelKey, Positions]] = {}
    for line in lists:
        key = level_key(line)
        x = positions[key]["value"] if key in positions else []
        # a list of another length, or of a level without positions, has no place on the axis
        if len(x) == len(line["value"]) > 1:
            pairs = list(zip(x, line["value"], strict=True))
            along.setdefault(metric_of(line), {})[key] = pairs
    return along


def position_name(findings: Findings, analysis: str) -> str:
    """Return the name of an analysis' positions: "alpha"."""
    for line in findings.lines:
        if line["analysis"] == analysis and line.get("role") == ALONG:
            return str(line["figure"]).replace("_", " ")
    return ""


def plot_along(
    study: StudySeries,
    level: SharedLevel,
    unit: Unit,
    x_title: str,
    figures: Mapping[LevelKey, Positions],
) -> LinePlot | None:
    """Return a figure along its positions at one level, a line for each series."""
    lines = []
    for series, style in zip(study.series, line_styles(study.series), strict=True):
        lines += _line_along(series.label, style, series.at(level), figures)
    return LinePlot(unit, x_title, tuple(lines)) if lines else None


def plot_levels_along(
    series: Series,
    levels: Sequence[SharedLevel],
    unit: Unit,
    x_title: str,
    figures: Mapping[LevelKey, Positions],
) -> LinePlot | None:
    """Return a figure of one series along its positions, a line for each level."""
    lines = []
    for index, level in enumerate(levels):
        lines += _line_along(level.text, line_style(index), series.at(level), figures)
    return LinePlot(unit, x_title, tuple(lines)) if lines else None


def _line_along(
    label: str, style: LineStyle, point: Point | None, figures: Mapping[LevelKey, Positions]
) -> list[PlotLine]:
    values: dict[float, list[float]] = {}
    for row in point.rows if point else ():
        for x, value in figures.get((row.cell, row.variant, row.level), ()):
            if isfinite(x) and isfinite(value):
                values.setdefault(x, []).append(value)
    if not values:
        return []
    points = [(x, Spread.of(at_x)) for x, at_x in sorted(values.items())]
    return [PlotLine(label, style, tuple(points))]
