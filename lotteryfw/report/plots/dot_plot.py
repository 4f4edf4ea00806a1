"""Figures of several combinations side by side, where there is no curve to draw: each figure has a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit
from lotteryfw.report.plots.style import Look

_WIDTH = 0.7  # of the space between two places


@dataclass(frozen=True)
class Row:
    """One combination: its spread over seeds at each place that it has."""

    label: str
    look: Look
    spreads: Mapping[str, Spread]


@dataclass(frozen=True)
class Dots:
    """Places from left to right, and the rows of which each place shows one dot. Empty where no row has any."""

    title: str
    unit: Unit
    places: tuple[str, ...]
    rows: tuple[Row, ...]
    axis: str = ""
    """What the places are values of, if of one thing."""

    def at(self, row: int, place: str) -> float:
        """Where the dot of a row stands: the places are 0, 1, …, and rows stand beside each other around them."""
        step = _WIDTH / len(self.rows)
        return self.places.index(place) + step * (row - (len(self.rows) - 1) / 2)
