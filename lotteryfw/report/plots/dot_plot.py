"""A plot of figures side by side, where there is no curve to draw: a dot for each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit
from lotteryfw.report.plots.style import LineStyle

_WIDTH = 0.7  # of the space between two categories, so that neighbours stay apart


@dataclass(frozen=True)
class DotRow:
    """One combination: its spread over seeds in each category that it has."""

    label: str
    style: LineStyle
    spreads: Mapping[str, Spread]


@dataclass(frozen=True)
class DotPlot:
    """Categories from left to right, each with one dot for each row that has it.

    `axis` names the property that the categories are values of, if there is one.
    """

    title: str
    unit: Unit
    categories: tuple[str, ...]
    rows: tuple[DotRow, ...]
    axis: str = ""

    def x(self, row: int, category: str) -> float:
        """Return the x of a row's dot: categories are at 0, 1, …, and rows are spread around."""
        # by the row's index in the plot and not in the category, so that a row is at the same side
        # of every category, even where others are absent
        step = _WIDTH / len(self.rows)
        return self.categories.index(category) + step * (row - (len(self.rows) - 1) / 2)


def dot_plot(
    title: str, unit: Unit, categories: Sequence[str], rows: Sequence[DotRow], axis: str = ""
) -> DotPlot | None:
    """Return the plot of the rows that have a figure; None if no row has one."""
    filled = tuple(row for row in rows if row.spreads)
    return DotPlot(title, unit, tuple(categories), filled, axis) if filled else None
