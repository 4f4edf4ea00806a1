"""Plots of studies with one level for each combination, such as learned masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller

from lotteryfw.report.data.grouping import labelled
from lotteryfw.report.data.series import (
    TICKET,
    Combination,
    Point,
    PointSpread,
    Series,
    StudySeries,
)
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit
from lotteryfw.report.plots.dot_plot import DotPlot, DotRow, dot_plot
from lotteryfw.report.plots.style import LineStyle, line_style, line_styles

EXPECTED, WHOLE = "expected", "whole network"
"""Two densities of a network: the requested one (of a sampled mask, its mean), and the mask's."""
DENSITY_UNIT = Unit("weights remaining, %", "weights remaining (%)", 100, 2, " %", " points")

_EQUAL = 0.01  # densities that differ by less than this share count as one


@dataclass(frozen=True)
class GridCombination:
    """The series of one combination of the grid, with the label of its ticket."""

    label: str
    style: LineStyle
    series: tuple[Series, ...]


def grid_combinations(study: StudySeries) -> list[GridCombination]:
    """Return the combinations of a study's grid, in order."""
    grouped: dict[Combination, list[Series]] = {}
    for series in study.series:
        grouped.setdefault(series.combination, []).append(series)

    combinations = []
    for index, members in enumerate(grouped.values()):
        # a control's label names its variant; one without its ticket is better than no row
        label = members[0].label
        for series in members:
            if series.variant == TICKET:
                label = series.label
        combinations.append(GridCombination(label, line_style(index), tuple(members)))
    return combinations


def metric_by_variant(study: StudySeries, metric: str) -> DotPlot | None:
    """Return a plot of a metric by variant, with a row for each combination."""
    rows = []
    for combination in grid_combinations(study):
        spreads = {}
        for series in combination.series:
            spread = series.points[0].spread(metric)
            if spread:
                spreads[series.variant] = spread
        rows.append(DotRow(combination.label, combination.style, spreads))

    unit = study.unit(metric)
    variants = dict.fromkeys(series.variant for series in study.series)
    return dot_plot(unit.axis, unit, list(variants), rows)


def metric_compared(study: StudySeries, metric: str) -> DotPlot | None:
    """Return a plot of a metric by variant or, if there are only tickets, by an axis' values."""
    if {series.variant for series in study.series} != {TICKET}:
        return metric_by_variant(study, metric)
    return figure_by_axis(study, study.unit(metric), methodcaller("spread", metric))


def figure_by_axis(study: StudySeries, unit: Unit, point_spread: PointSpread) -> DotPlot | None:
    """Return a plot of the tickets' figures by the values of the axis that has most.

    It has a row for each combination of the other axes.
    """
    tickets = [series for series in study.series if series.variant == TICKET]
    axis = _longest_axis(tickets)

    # the spreads of each combination of the other axes, by the value of this axis
    spreads: dict[Combination, dict[str, Spread]] = {}
    categories: dict[str, None] = {}
    for ticket in tickets:
        others = dict(ticket.axes)
        # a study of one combination has no axis, and its only column is the ticket
        category = others.pop(axis, TICKET)
        categories[category] = None
        row_spreads = spreads.setdefault(tuple(others.items()), {})
        spread = point_spread(ticket.points[0])
        if spread:
            row_spreads[category] = spread

    # series without points, only to name the rows by what distinguishes them
    series = labelled([Series("", dict(combination), TICKET, ()) for combination in spreads])
    rows = []
    for one, style in zip(series, line_styles(series), strict=True):
        rows.append(DotRow(one.label, style, spreads[one.combination]))

    axis_name = axis.rpartition(".")[2].replace("_", " ")
    return dot_plot(unit.axis, unit, list(categories), rows, axis_name)


def _longest_axis(tickets: Sequence[Series]) -> str:
    values: dict[str, set[str | None]] = {}
    for ticket in tickets:
        for name in ticket.axes:
            # a ticket that lacks the axis counts as one value more: None
            values[name] = {other.axes.get(name) for other in tickets}
    # of axes of equal length the first in the recipe
    return max(values, key=lambda name: len(values[name]), default="")


def density_plot(study: StudySeries) -> DotPlot | None:
    """Return a plot of each ticket's densities: expected, of the network, and of each layer.

    Return None if every ticket keeps the same share everywhere.
    """
    rows = []
    for combination in grid_combinations(study):
        for series in combination.series:
            # a control keeps as many weights in each layer as its ticket
            if series.variant == TICKET and series.points[0].rows:
                spreads = _density_spreads(series.points[0])
                rows.append(DotRow(combination.label, combination.style, spreads))
    if all(map(_has_equal_means, rows)):
        return None

    categories: dict[str, None] = {}
    for row in rows:
        categories.update(dict.fromkeys(row.spreads))
    return dot_plot(DENSITY_UNIT.axis, DENSITY_UNIT, list(categories), rows)


def _density_spreads(point: Point) -> dict[str, Spread]:
    values: dict[str, list[float]] = {}
    for row in point.rows:
        values.setdefault(EXPECTED, []).append(row.requested_density)
        values.setdefault(WHOLE, []).append(row.density)
        for layer, density in row.densities_by_layer().items():
            values.setdefault(layer, []).append(density)
    return {name: Spread.of(densities) for name, densities in values.items()}


def _has_equal_means(row: DotRow) -> bool:
    means = []
    for spread in row.spreads.values():
        means.append(spread.mean)
    # within 1 %, as a small layer cannot keep exactly the share that a large one keeps
    return max(means) - min(means) <= _EQUAL * max(means)
