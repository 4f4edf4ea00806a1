"""Rows of levels.csv grouped into the curves that people compare: over seeds, one for each combination and variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from lotteryfw.report.stats import Spread
from lotteryfw.report.sweeps import without_density
from lotteryfw.store import LevelRow

TICKET = "ticket"
"""The variant that is no control."""
DONE = "done"
"""The status of a row that has its figures."""
_ALIKE = 0.05  # levels of different series are compared where their densities differ by less than this share
_APART = 0.01  # searches for different densities end at such: an option of this name may mean something else


@dataclass(frozen=True)
class Point:
    """One level of a series over its seeds: the rows that have figures, and those whose training diverged."""

    level: int
    density: float
    rows: tuple[LevelRow, ...]
    diverged: tuple[LevelRow, ...] = ()

    def spread(self, metric: str) -> Spread | None:
        """A column's spread over seeds; None where no row has it."""
        values = [value for row in self.rows if (value := getattr(row, metric)) is not None]
        return Spread.of(values) if values else None


@dataclass(frozen=True)
class Series:
    """One combination of a study's grid and one variant. `points` are in order of level, `label` is unique in its study.

    Searches for one density each that differ in nothing else are one series: its points are where each of them ended,
    from dense to sparse, its `axes` those that they share, and `parts` the searches with that one point each.
    """

    label: str
    axes: Mapping[str, str]
    variant: str
    points: tuple[Point, ...]
    parts: tuple[Series, ...] = ()

    @property
    def rows(self) -> list[LevelRow]:
        """The rows that have figures."""
        return [row for point in self.points for row in point.rows]

    @property
    def cells(self) -> set[str]:
        """The cells that have a row of it."""
        return {row.cell for point in self.points for row in (*point.rows, *point.diverged)}

    def at(self, density: float) -> Point | None:
        """The level of this density, or of almost this: series that are cut alike differ by rounding."""
        alike = [point for point in self.points if _alike(point.density, density)]
        return min(alike, key=lambda point: abs(point.density - density), default=None)


@dataclass(frozen=True)
class Study:
    """The series of a study, in the order of its recipe. `dense`: the dense network, where all series share one.

    `searches` are the combinations one by one with all their levels: other than `series` where a series joins several.
    `left_out` says how many searches more the study has, where it is shown in part.
    """

    name: str
    series: tuple[Series, ...]
    searches: tuple[Series, ...]
    dense: Point | None
    left_out: int = 0

    @property
    def cells(self) -> set[str]:
        """The cells that have a row."""
        return set[str]().union(*(series.cells for series in self.searches))

    @property
    def partly_shown(self) -> str:
        """What is said where series are left out; empty where none is."""
        if not self.left_out:
            return ""
        count = len(self.searches)
        return (
            f"{count:,} of {count + self.left_out:,} series, those of the highest validation accuracy; "
            "levels.csv has all"
        )

    @property
    def parts(self) -> list[Series]:
        """The combinations one by one, with the points that `series` has of them."""
        return [part for series in self.series for part in series.parts or (series,)]

    @property
    def flat(self) -> bool:
        """Whether no series has a second point, so that there is no curve to draw."""
        return all(len(series.points) == 1 for series in self.series)

    @property
    def apart(self) -> Study | None:
        """The same study search by search, where joining them left levels out."""
        left_out = sum(len(each.points) for each in self.searches) > sum(
            len(each.points) for each in self.series
        )
        return replace(self, series=self.searches) if left_out else None

    @property
    def seeds(self) -> list[int]:
        """Every seed that has a row."""
        return sorted({row.seed for series in self.searches for row in series.rows})

    @property
    def densities(self) -> list[float]:
        """The levels to compare series at, from dense to sparse: those of the longest, then what others have besides.

        Series that are cut alike share them.
        """
        found: list[float] = []
        for series in sorted(self.series, key=lambda each: -len(each.points)):
            found += [
                point.density
                for point in series.points
                if not any(_alike(point.density, d) for d in found)
            ]
        return sorted(found, reverse=True)

    @property
    def diverged(self) -> int:
        """How many trainings on record diverged."""
        return sum(len(point.diverged) for series in self.searches for point in series.points)


def studies_of(rows: Iterable[LevelRow]) -> list[Study]:
    """The studies in levels.csv, in its order."""
    found: dict[str, list[LevelRow]] = {}
    for row in rows:
        found.setdefault(row.study, []).append(row)
    return [_study(name, of_study) for name, of_study in found.items()]


def _study(name: str, rows: Sequence[LevelRow]) -> Study:
    grouped: dict[tuple[tuple[tuple[str, str], ...], str], list[LevelRow]] = {}
    for row in rows:
        grouped.setdefault((tuple(row.axes.items()), row.variant), []).append(row)
    searches = [
        Series("", dict(axes), variant, _points(own)) for (axes, variant), own in grouped.items()
    ]
    return Study(name, labelled(_joined(searches)), labelled(searches), _dense(rows))


def _joined(searches: Sequence[Series]) -> list[Series]:
    """The same, with each sweep over densities as one series in the place of its first search."""
    alike: dict[tuple[tuple[tuple[str, str], ...], str], list[Series]] = {}
    for search in searches:
        alike.setdefault((tuple(without_density(search.axes).items()), search.variant), []).append(
            search
        )
    return [
        each
        for (axes, variant), own in alike.items()
        for each in _sweep(dict(axes), variant, own) or own
    ]


def _sweep(axes: Mapping[str, str], variant: str, searches: Sequence[Series]) -> list[Series]:
    """One series of where these searches ended; none where they did not end at different densities."""
    parts = [replace(each, points=each.points[-1:]) for each in searches]
    parts.sort(key=lambda each: -each.points[0].density)
    ends = [each.points[0].density for each in parts]
    if len(parts) < 2 or any(sparser > dense * (1 - _APART) for dense, sparser in pairwise(ends)):
        return []
    return [Series("", axes, variant, tuple(each.points[0] for each in parts), tuple(parts))]


def _alike(density: float, other: float) -> bool:
    return density == other or abs(density - other) < _ALIKE * other


def _points(rows: Sequence[LevelRow]) -> tuple[Point, ...]:
    levels: dict[int, list[LevelRow]] = {}
    for row in rows:
        levels.setdefault(row.level, []).append(row)
    points = []
    for level, at_level in sorted(levels.items()):
        done = tuple(row for row in at_level if row.status == DONE)
        diverged = tuple(row for row in at_level if row.status != DONE)
        points.append(Point(level, fmean(row.density for row in at_level), done, diverged))
    return tuple(points)


def _dense(rows: Iterable[LevelRow]) -> Point | None:
    """The dense network over seeds, each seed's training once; None where series start from different ones."""
    found: dict[tuple[int, str], LevelRow] = {}
    for row in rows:
        if row.variant == TICKET and row.status == DONE and is_dense(row):
            found.setdefault((row.seed, row.key), row)
    distinct = len({seed for seed, _ in found}) == len(found)
    return Point(0, 1.0, tuple(found.values())) if found and distinct else None


def is_dense(row: LevelRow) -> bool:
    """Whether a row is of the dense network, trained. A learned mask may keep every weight, too, but is no level 0."""
    return row.level == 0 and row.weights_kept == row.weights_total and row.steps > 0


def labelled(series: Sequence[Series]) -> tuple[Series, ...]:
    """With what tells each from the others: the values that vary, and their axis where a value alone says little."""
    axes = dict.fromkeys(axis for each in series for axis in each.axes)
    varying = [axis for axis in axes if len({each.axes.get(axis) for each in series}) > 1]

    def label(each: Series, in_full: bool) -> str:
        words = [_word(axis, each.axes[axis], in_full) for axis in varying if axis in each.axes]
        return (
            " · ".join([*words, *([] if each.variant == TICKET else [arm_label(each.variant)])])
            or TICKET
        )

    short = [label(each, in_full=False) for each in series]
    labels = (
        short if len(set(short)) == len(short) else [label(each, in_full=True) for each in series]
    )
    return tuple(replace(each, label=label) for each, label in zip(series, labels, strict=True))


def arm_label(variant: str) -> str:
    """Return what a variant other than the ticket is called in a legend."""
    return variant


def _word(axis: str, value: str, in_full: bool) -> str:
    speaks = value[:1].isalpha() and value not in ("true", "false", "none")
    if in_full:
        return f"{axis}={value}"
    return value if speaks else f"{axis.rpartition('.')[2]}={value}"
