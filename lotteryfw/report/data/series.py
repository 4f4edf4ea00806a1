"""Rows of levels.csv grouped into curves over seeds: one for each combination and variant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import isclose, isfinite
from typing import Any

from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import (
    FIGURE,
    LOSS_UNIT,
    Unit,
    figure_unit,
    metric_name,
    percent,
    unit_of,
)
from lotteryfw.store import METRIC, LevelRow

TICKET = "ticket"
"""The variant that is no control."""
DONE = "done"
"""The status of a row that has its figures."""

# Levels of different series are compared where their densities differ by less than this share.
_ALIKE = 0.05

Combination = tuple[tuple[str, str], ...]
"""A combination of the grid, as (axis, label) pairs."""


@dataclass(frozen=True)
class Point:
    """One level of a series over its seeds.

    `rows` have figures; `diverged` are the rows whose training diverged.
    """

    level: int
    density: float
    rows: tuple[LevelRow, ...]
    diverged: tuple[LevelRow, ...] = ()

    def spread(self, metric: str) -> Spread | None:
        """Return a column's spread over seeds; None if no row has a finite value."""
        values = []
        for row in self.rows:
            value = row.figure(metric)
            # a training that is done may have a figure that is NaN, which a mean would be, too
            if value is not None and isfinite(value):
                values.append(value)
        return Spread.of(values) if values else None


PointSpread = Callable[[Point], Spread | None]
"""A function that returns a figure's spread over the seeds of a point, or None."""


@dataclass(frozen=True)
class SharedLevel:
    """A level at which the series of a study are compared: those of about this density.

    `number` is None but where a series has several levels of one density, such as rounds that
    prune nothing: there levels of equal number are compared. `points` has at most one point of a
    series, by its label, and a point is in one level.
    """

    density: float
    number: int | None = None
    points: dict[str, Point] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """The weights remaining in per cent, behind the level's number if that is needed."""
        weights = percent(self.density)
        return weights if self.number is None else f"level {self.number}: {weights}"

    @property
    def text(self) -> str:
        """The level in words."""
        return f"{self.label} % of the weights"

    def is_like(self, point: Point) -> bool:
        """Return True if the point may be at this level."""
        return _alike(point.density, self.density) and self.number in (None, point.level)


@dataclass(frozen=True)
class Series:
    """One combination of a study's grid and one variant; `points` are in order of level.

    `label` is unique in its study. Searches that differ only in the density that they end at are
    one series: its points are their final levels from dense to sparse, `axes` are those that they
    share, and `parts` are the searches with that one point each.
    """

    label: str
    axes: Mapping[str, str]
    variant: str
    points: tuple[Point, ...]
    parts: tuple[Series, ...] = ()
    axis_values: Mapping[str, Any] = field(default_factory=dict)
    """The entries that the labels of `axes` stand for (see `LevelRow`)."""

    @property
    def combination(self) -> Combination:
        """The combination of the grid, hashable."""
        return tuple(self.axes.items())

    @property
    def rows(self) -> list[LevelRow]:
        """The rows that have figures."""
        rows: list[LevelRow] = []
        for point in self.points:
            rows += point.rows
        return rows

    @property
    def diverged(self) -> list[LevelRow]:
        """The rows whose training diverged."""
        rows: list[LevelRow] = []
        for point in self.points:
            rows += point.diverged
        return rows

    def diverged_by(self, point: Point) -> list[LevelRow]:
        """Return the rows whose training diverged, of the cells without figures at a level.

        A ticket that diverges ends its search; a control that does is trained at later levels, and
        the parts of a sweep are searches of their own.
        """
        if self.parts:
            return list(point.diverged)
        present = {row.cell for row in point.rows}
        return [
            row for row in self.diverged if row.level <= point.level and row.cell not in present
        ]

    @property
    def cells(self) -> set[str]:
        """The cells that have a row in this series."""
        return {row.cell for row in self.rows + self.diverged}

    def end(self, unfinished: Set[str]) -> Point | None:
        """Return the last level, of cells that are not `unfinished`; None if there is none.

        What a cell that is under way has last is only a step on its way.
        """
        for point in reversed(self.points):
            rows = tuple(row for row in point.rows if row.cell not in unfinished)
            diverged = tuple(row for row in point.diverged if row.cell not in unfinished)
            if rows or diverged:
                return replace(point, rows=rows, diverged=diverged)
        return None

    def at(self, level: SharedLevel) -> Point | None:
        """Return the point at a level of the study; None if the series has none there."""
        return level.points.get(self.label)

    def like(self, point: Point) -> Point | None:
        """Return the point of the density of another series' point, of its number if several."""

        def difference(own: Point) -> tuple[float, bool]:
            return abs(own.density - point.density), own.level != point.level

        alike = [own for own in self.points if _alike(own.density, point.density)]
        return min(alike, key=difference, default=None)


@dataclass(frozen=True)
class StudySeries:
    """The series of a study, in the order of its recipe.

    `searches` are the combinations one by one with all their levels; they differ from `series`
    where a series joins several. `dense` is the dense network, if all series share one. `left_out`
    counts the searches that are not shown.
    """

    name: str
    series: tuple[Series, ...]
    searches: tuple[Series, ...]
    dense: Point | None
    left_out: int = 0
    metric_units: Mapping[str, str] = field(default_factory=dict)
    """The columns of the recipe's metrics, "metric.NAME", each with its unit."""
    figure: str = FIGURE
    """The name of the figure that the study's objective reports."""
    loss_unit: str = LOSS_UNIT
    """The unit of the objective's loss; empty if it has none."""
    unfinished: frozenset[str] = frozenset()
    """The cells that have rows and have not ended."""

    @property
    def figure_key(self) -> str:
        """The name of the figure as a part of keys and names of files."""
        return self.figure.replace(" ", "_")

    def unit(self, metric: str) -> Unit:
        """Return the unit of a column of levels.csv."""
        kind = self.metric_units.get(metric)
        if kind:
            return figure_unit(metric_name(metric, self.figure).removeprefix(METRIC), kind)
        return unit_of(metric, self.figure, self.loss_unit)

    @property
    def cells(self) -> set[str]:
        """The cells that have a row."""
        names: set[str] = set()
        for search in self.searches:
            names |= search.cells
        return names

    @property
    def points(self) -> list[Point]:
        """The points of all series."""
        points: list[Point] = []
        for series in self.series:
            points += series.points
        return points

    @property
    def partly_shown(self) -> str:
        """A note on the series that are left out; empty if none is."""
        if not self.left_out:
            return ""
        count = len(self.searches)
        return (
            f"{count:,} of {count + self.left_out:,} series, those of the highest validation "
            f"{self.figure}; levels.csv has all"
        )

    @property
    def parts(self) -> list[Series]:
        """The combinations one by one, with the points that `series` has of them."""
        return split_sweeps(self.series)

    @property
    def single_level(self) -> bool:
        """True if every series has one point, so that there is no curve to draw."""
        return all(len(series.points) == 1 for series in self.series)

    @property
    def one_density(self) -> bool:
        """True if all points have the same density, as where nothing is pruned."""
        return len({point.density for point in self.points}) == 1

    @property
    def by_search(self) -> StudySeries | None:
        """The study with a series for each search; None if `series` has all levels already."""
        searched = replace(self, series=self.searches)
        return searched if len(searched.points) > len(self.points) else None

    @property
    def seeds(self) -> list[int]:
        """Every seed that has a row, in order."""
        seeds: set[int] = set()
        for search in self.searches:
            for row in search.rows:
                seeds.add(row.seed)
        return sorted(seeds)

    @cached_property
    def levels(self) -> list[SharedLevel]:
        """The levels at which series are compared, from dense to sparse.

        They are those of the longest series, then those that others have besides. Series that are
        pruned alike share them: their densities differ by rounding.
        """
        repeated = self._repeated_densities()
        levels: list[SharedLevel] = []
        # the longest first, so that the others are matched to the levels of one series
        for series in sorted(self.series, key=lambda one: -len(one.points)):
            # A series is compared only with earlier ones: its own levels may lie close together.
            earlier = list(levels)
            for point in series.points:
                level = _shared_level(point, series.points, earlier)
                if level is None:
                    is_repeated = any(_alike(point.density, density) for density in repeated)
                    level = SharedLevel(point.density, point.level if is_repeated else None)
                    levels.append(level)
                level.points[series.label] = point
        return sorted(levels, key=lambda level: (-level.density, level.number or 0))

    def _repeated_densities(self) -> set[float]:
        """Return the densities that several levels of one series have."""
        repeated: set[float] = set()
        for series in self.series:
            for earlier, later in pairwise(series.points):
                # not ==: means of one density over other numbers of seeds differ in a last digit
                if isclose(earlier.density, later.density):
                    repeated.add(later.density)
        return repeated

    def of_seeds(self, seeds: Sequence[int]) -> StudySeries:
        """Return the study as it was if only these seeds had been run."""
        return replace(
            self,
            series=_of_seeds(self.series, seeds),
            searches=_of_seeds(self.searches, seeds),
            dense=_point_of_seeds(self.dense, seeds) if self.dense else None,
        )

    @property
    def diverged(self) -> int:
        """The number of trainings on record that diverged."""
        return sum(len(search.diverged) for search in self.searches)


def _shared_level(
    point: Point, points: Sequence[Point], levels: Iterable[SharedLevel]
) -> SharedLevel | None:
    """Return the level that a point of a series with these points is at; None if at none.

    Each is the nearest of the other. At small rates several levels are alike, and a figure must
    not stand at those that its network was not trained at.
    """
    alike = [level for level in levels if level.is_like(point)]
    if not alike:
        return None
    nearest = min(alike, key=lambda level: abs(level.density - point.density))
    rivals = [other for other in points if nearest.is_like(other)]
    closest = min(rivals, key=lambda other: abs(other.density - nearest.density))
    return nearest if closest is point else None


def _of_seeds(series: Iterable[Series], seeds: Sequence[int]) -> tuple[Series, ...]:
    kept = []
    for one in series:
        points = [_point_of_seeds(point, seeds) for point in one.points]
        remaining = tuple(point for point in points if point)
        # a series that these seeds do not have
        if remaining:
            kept.append(replace(one, points=remaining, parts=_of_seeds(one.parts, seeds)))
    return tuple(kept)


def _point_of_seeds(point: Point, seeds: Sequence[int]) -> Point | None:
    rows = tuple(row for row in point.rows if row.seed in seeds)
    diverged = tuple(row for row in point.diverged if row.seed in seeds)
    return replace(point, rows=rows, diverged=diverged) if rows or diverged else None


def split_sweeps(series: Iterable[Series]) -> list[Series]:
    """Return the series, with the parts of a density sweep in place of the sweep."""
    parts: list[Series] = []
    for one in series:
        parts += one.parts or (one,)
    return parts


def _alike(density: float, other: float) -> bool:
    return density == other or abs(density - other) < _ALIKE * other
