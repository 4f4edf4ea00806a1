"""Rows of levels.csv grouped into the series of their studies, with labels that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from lotteryfw.report.data.density_sweeps import without_density
from lotteryfw.report.data.series import (
    DONE,
    TICKET,
    Combination,
    Point,
    Series,
    StudySeries,
)
from lotteryfw.report.data.units import FIGURE, LOSS_UNIT
from lotteryfw.store import METRIC, LevelRow

# Searches are joined to a sweep only where their final densities differ by more than this share:
# an option called density may mean something else.
_APART = 0.01


def group_studies(
    rows: Iterable[LevelRow],
    metric_units: Mapping[str, str] | None = None,
    figures: Mapping[str, str] | None = None,
    loss_units: Mapping[str, str] | None = None,
    ended: Set[str] | None = None,
) -> list[StudySeries]:
    """Return the studies of levels.csv, in its order.

    `metric_units` are those of the run's metrics by their names; one without is a "number".
    `figures` names the figure of each study's objective; one without is an accuracy. `loss_units`
    has the unit of its loss. `ended` are the cells that have ended; None means all of them.
    """
    by_study: dict[str, list[LevelRow]] = {}
    for row in rows:
        by_study.setdefault(row.study, []).append(row)
    studies = []
    for name, study_rows in by_study.items():
        units: dict[str, str] = {}
        unfinished: set[str] = set()
        for row in study_rows:
            for metric in row.metrics:
                units[METRIC + metric] = (metric_units or {}).get(metric, "number")
            if ended is not None and row.cell not in ended:
                unfinished.add(row.cell)
        figure = (figures or {}).get(name, FIGURE)
        study = _group_series(name, study_rows, frozenset(unfinished))
        loss_unit = (loss_units or {}).get(name, LOSS_UNIT)
        studies.append(replace(study, metric_units=units, figure=figure, loss_unit=loss_unit))
    return studies


def _group_series(name: str, rows: Sequence[LevelRow], unfinished: frozenset[str]) -> StudySeries:
    grouped: dict[tuple[Combination, str], list[LevelRow]] = {}
    for row in rows:
        grouped.setdefault((tuple(row.axes.items()), row.variant), []).append(row)

    searches = []
    for (axes, variant), series_rows in grouped.items():
        values = series_rows[0].axis_values
        points = _points(series_rows)
        searches.append(Series("", dict(axes), variant, points, axis_values=values))
    joined = labelled(_join_sweeps(searches, unfinished))
    return StudySeries(name, joined, labelled(searches), _dense(rows), unfinished=unfinished)


def _join_sweeps(searches: Sequence[Series], unfinished: Set[str]) -> list[Series]:
    """Return the searches, each sweep over densities as one series in place of its first."""
    alike: dict[tuple[Combination, str], list[Series]] = {}
    for search in searches:
        axes = tuple(without_density(search.axes, search.axis_values).items())
        alike.setdefault((axes, search.variant), []).append(search)

    joined: list[Series] = []
    for (axes, variant), members in alike.items():
        sweep = _sweep(dict(axes), variant, members, unfinished)
        joined += [sweep] if sweep else members
    return joined


def _sweep(
    axes: Mapping[str, str], variant: str, searches: Sequence[Series], unfinished: Set[str]
) -> Series | None:
    """Return one series of the levels that searches ended at; None unless their densities differ.

    None, too, where fewer than two have ended.
    """
    parts: list[Series] = []
    for search in searches:
        # the levels before the last are steps on the way to the density that was asked for
        end = search.end(unfinished)
        if end:
            parts.append(replace(search, points=(end,)))
    if len(parts) < 2:
        return None
    # a grid may list its densities in any order, and a curve is drawn from dense to sparse
    parts.sort(key=lambda part: -part.points[0].density)
    ends = tuple(part.points[0] for part in parts)
    for denser, sparser in pairwise(ends):
        if sparser.density > denser.density * (1 - _APART):
            return None
    return Series("", axes, variant, ends, tuple(parts))


def _points(rows: Sequence[LevelRow]) -> tuple[Point, ...]:
    levels: dict[int, list[LevelRow]] = {}
    for row in rows:
        levels.setdefault(row.level, []).append(row)

    points = []
    for level, at_level in sorted(levels.items()):
        done: list[LevelRow] = []
        diverged: list[LevelRow] = []
        for row in at_level:
            if row.status == DONE:
                done.append(row)
            else:
                diverged.append(row)
        # diverged rows count, as their masks are the level's all the same
        density = fmean(row.density for row in at_level)
        points.append(Point(level, density, tuple(done), tuple(diverged)))
    return tuple(points)


def _dense(rows: Iterable[LevelRow]) -> Point | None:
    """Return the dense network over seeds; None if series start from different ones."""
    # Cells that share a dense training have a row of it each: the key tells that it is one.
    trainings: dict[tuple[int, str], LevelRow] = {}
    for row in rows:
        if row.variant == TICKET and row.status == DONE and is_dense(row):
            trainings.setdefault((row.seed, row.key), row)

    # two trainings of one seed: the grid varies the model or the training, so none is "the" dense
    seeds = {seed for seed, _ in trainings}
    if not trainings or len(seeds) < len(trainings):
        return None
    return Point(0, 1.0, tuple(trainings.values()))


def is_dense(row: LevelRow) -> bool:
    """Return True for a row of the trained dense network.

    A learned mask may keep every weight, too, but it is no trained level 0.
    """
    return row.level == 0 and row.weights_kept == row.weights_total and row.steps > 0


def labelled(series: Sequence[Series]) -> tuple[Series, ...]:
    """Return the series with labels that distinguish them.

    A label has the values that vary, with their axes where a value alone would be unclear.
    """
    varying = varying_axes([one.axes for one in series])
    labels = [_label(one, varying, in_full=False) for one in series]
    # two axes may have a value of one name, such as "random", which then needs its axis
    if len(set(labels)) < len(labels):
        labels = [_label(one, varying, in_full=True) for one in series]
    with_labels = []
    for one, label in zip(series, labels, strict=True):
        with_labels.append(replace(one, label=label))
    return tuple(with_labels)


def varying_axes(combinations: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the axes that have several values among these combinations, in order."""
    values: dict[str, set[str | None]] = {}
    for combination in combinations:
        for axis in combination:
            if axis not in values:
                # a combination that lacks the axis counts as one value more: None
                values[axis] = {other.get(axis) for other in combinations}
    return [axis for axis, labels in values.items() if len(labels) > 1]


def _label(series: Series, varying: Sequence[str], in_full: bool) -> str:
    words = []
    for axis in varying:
        if axis in series.axes:
            words.append(_word(axis, series.axes[axis], in_full))
    if series.variant != TICKET:
        words.append(series.variant)
    return " · ".join(words) or TICKET


def _word(axis: str, value: str, in_full: bool) -> str:
    if in_full:
        return f"{axis}={value}"
    # "0.1" or "true" says nothing without its axis
    if value[:1].isalpha() and value not in ("true", "false", "none"):
        return value
    return f"{axis.rpartition('.')[2]}={value}"
