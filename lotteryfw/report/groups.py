"""Rows of levels.csv grouped into the curves that people compare: over seeds, one for each combination and arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lotteryfw.report.stats import Spread
from lotteryfw.store import LevelRow

TICKET = "ticket"
"""The arm that is no control."""
DONE = "done"
"""The status of a row that has its figures."""


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
    """One combination of a study's grid and one arm. `points` are in order of level, `label` is unique in its study."""

    label: str
    axes: Mapping[str, str]
    arm: str
    points: tuple[Point, ...]

    @property
    def rows(self) -> list[LevelRow]:
        """The rows that have figures."""
        return [row for point in self.points for row in point.rows]


@dataclass(frozen=True)
class Study:
    """The series of a study, in the order of its recipe. `dense`: the dense network, where all series share one."""

    name: str
    series: tuple[Series, ...]
    dense: Point | None

    @property
    def seeds(self) -> list[int]:
        """Every seed that has a row."""
        return sorted({row.seed for series in self.series for row in series.rows})

    @property
    def diverged(self) -> int:
        """How many trainings on record diverged."""
        return sum(len(point.diverged) for series in self.series for point in series.points)


def studies_of(rows: Iterable[LevelRow]) -> list[Study]:
    """The studies in levels.csv, in its order."""
    found: dict[str, list[LevelRow]] = {}
    for row in rows:
        found.setdefault(row.study, []).append(row)
    return [_study(name, of_study) for name, of_study in found.items()]


def _study(name: str, rows: Sequence[LevelRow]) -> Study:
    grouped: dict[tuple[tuple[tuple[str, str], ...], str], list[LevelRow]] = {}
    for row in rows:
        grouped.setdefault((tuple(row.axes.items()), row.arm), []).append(row)
    labels = _labels([(dict(axes), arm) for axes, arm in grouped])
    series = [
        Series(label, dict(axes), arm, _points(of_series))
        for label, ((axes, arm), of_series) in zip(labels, grouped.items(), strict=True)
    ]
    return Study(name, tuple(series), _dense(rows))


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
        if row.arm == TICKET and row.status == DONE and row.weights_kept == row.weights_total:
            found.setdefault((row.seed, row.key), row)
    distinct = len({seed for seed, _ in found}) == len(found)
    return Point(0, 1.0, tuple(found.values())) if found and distinct else None


def _labels(series: Sequence[tuple[Mapping[str, str], str]]) -> list[str]:
    """What tells each series from the others: the values that vary, with their axis where a value alone says little."""
    axes = dict.fromkeys(axis for own, _ in series for axis in own)
    varying = [axis for axis in axes if len({own.get(axis) for own, _ in series}) > 1]

    def label(own: Mapping[str, str], arm: str, in_full: bool) -> str:
        words = [_word(axis, own[axis], in_full) for axis in varying if axis in own]
        return " · ".join([*words, *([] if arm == TICKET else [f"{arm} control"])]) or TICKET

    short = [label(own, arm, in_full=False) for own, arm in series]
    return short if len(set(short)) == len(short) else [label(own, arm, in_full=True) for own, arm in series]


def _word(axis: str, value: str, in_full: bool) -> str:
    speaks = value[:1].isalpha() and value not in ("true", "false")
    if in_full:
        return f"{axis}={value}"
    return value if speaks else f"{axis.rpartition('.')[2]}={value}"
