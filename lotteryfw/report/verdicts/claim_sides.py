"""The values of a claim's sides in a run: one for each seed, or one for each seed and level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lotteryfw.api.steps import Step
from lotteryfw.report.data.best_level import best_rows
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import TICKET, Combination, Point, Series, StudySeries
from lotteryfw.report.data.units import percent
from lotteryfw.store import METRIC, LevelRow

if TYPE_CHECKING:
    from lotteryfw.recipe import Side

PointKey = tuple[Combination, int]
"""A combination of the grid and a level."""


class NotTested(Exception):
    """A side has no values in this run; the text says why."""


@dataclass(frozen=True)
class Evidence:
    """The parts of a run that claims are judged by; `lengths` are by study."""

    studies: Mapping[str, StudySeries]
    finished: set[str]
    lengths: Mapping[str, Step]
    findings: Findings

    @classmethod
    def of(cls, data: RunData, metrics: Sequence[str]) -> Evidence:
        """Return the evidence of a run, with the findings of these metrics."""
        # a half-finished cell has its early levels only, which would bias a mean over levels
        finished: set[str] = set()
        for cell, status in data.manifest.get("cells", {}).items():
            if status == "done":
                finished.add(cell)
        return cls(
            # all of them, not those that are shown: what is shown was chosen by its results
            studies={study.name: study for study in data.studies},
            finished=finished,
            lengths=_lengths(data.resolved),
            findings=data.findings_of(metrics),
        )


def _lengths(resolved: Mapping[str, Any]) -> dict[str, Step]:
    """Return the training length that the recipe gives each study."""
    lengths = {}
    for study in resolved.get("study", []):
        if "length" in study.get("train", {}):
            lengths[str(study["name"])] = Step.parse(study["train"]["length"])
    return lengths


@dataclass(frozen=True)
class SideValues:
    """The values of a side; `points` are by seed, then by combination and level.

    Only seeds in which every series of the side ran to its end are among them.
    """

    side: Side
    series: tuple[Series, ...]
    points: Mapping[int, Mapping[PointKey, float]]
    densities: tuple[float, ...]

    @property
    def means(self) -> dict[int, float]:
        """The side's mean for each seed: over the levels of a series, then over series."""
        means = {}
        for seed, points in self.points.items():
            by_series: dict[Combination, list[float]] = {}
            for (combination, _), value in points.items():
                by_series.setdefault(combination, []).append(value)
            # in two steps, so that a series with more levels does not weigh more
            means[seed] = fmean(map(fmean, by_series.values()))
        return means

    @property
    def combinations(self) -> set[Combination]:
        """The combinations of the grid that its series are of."""
        return {series.combination for series in self.series}

    @property
    def steps(self) -> int:
        """The length of the side's longest training, in optimizer updates."""
        return max(map(_longest_training, self.series), default=0)


def side_values(side: Side, evidence: Evidence) -> SideValues:
    """Return the values of a side. Raises NotTested with the reason if there are none."""
    study = evidence.studies.get(side.study)
    if study is None:
        raise NotTested(f"study '{side.study}' has no results")
    selected = select(study, side)
    if not selected:
        raise NotTested(f"this run has no {side_text(side)}")

    by_series: list[dict[int, dict[PointKey, float]]] = []
    densities: set[float] = set()
    has_rows = False
    for series in selected:
        rows = _rows(series, side, evidence)
        has_rows = has_rows or bool(rows)
        if not rows and _has_no_such_level(series, side, evidence):
            continue  # it ended at another density, as searches of a density sweep do
        values: dict[int, dict[PointKey, float]] = {}
        for row in rows:
            figure = _figure(row, side.metric, evidence.findings)
            # an analysis may run on a few levels only
            if figure is not None:
                values.setdefault(row.seed, {})[series.combination, row.level] = figure
                densities.add(row.density)
        by_series.append(values)

    # Seeds are paired, so each has to have a value in every series: a mean over other series is
    # another quantity.
    seeds: set[int] = set()
    if by_series:
        seeds = set.intersection(*map(set, by_series))
    if not seeds:
        if has_rows and not densities:
            raise NotTested(f"this run has no figure '{side.metric}' of {side_text(side)}")
        raise NotTested(_no_level(side, selected))
    points: dict[int, dict[PointKey, float]] = {}
    for seed in sorted(seeds):
        points[seed] = {}
        for values in by_series:
            points[seed] |= values[seed]
    return SideValues(side, tuple(selected), points, tuple(sorted(densities, reverse=True)))


def at_shared_levels(values: Mapping[str, SideValues]) -> dict[str, SideValues]:
    """Return the sides with tickets and their controls at the levels that both have.

    Controls may be trained at chosen levels alone, and a mean over other levels is another quantity.
    Raises NotTested where there is no such level.
    """
    shared = dict(values)
    for one, other in (("higher", "lower"), ("of", "like")):
        if one in values and other in values and _are_beside(values[one], values[other]):
            shared[one] = _only_at(values[one], values[other])
            shared[other] = _only_at(values[other], values[one])
    return shared


def _are_beside(one: SideValues, other: SideValues) -> bool:
    """Return True for the same searches, at every level of the same densities, but other networks."""
    a, b = one.side, other.side
    at_same_levels = a.density == b.density and a.at == b.at == "every level"
    is_same_search = a.study == b.study and one.combinations == other.combinations
    return at_same_levels and is_same_search and a.variant != b.variant


def _only_at(values: SideValues, other: SideValues) -> SideValues:
    points = {}
    for seed, by_level in values.points.items():
        # a seed that the other side lacks is not compared
        both = by_level.keys() & other.points.get(seed, by_level).keys()
        if both:
            points[seed] = {key: by_level[key] for key in sorted(both)}
    if not points:
        names = f"{side_text(values.side)} and {side_text(other.side)}"
        raise NotTested(f"{names} have no level in common at {density_text(values.side)}")
    return replace(values, points=points)


def select(study: StudySeries, side: Side) -> list[Series]:
    """Return the combinations that a side selects, each with all its levels."""
    # here, because a report without claims does not need the recipe language
    from lotteryfw.recipe.claim_selection import select_combinations

    candidates = []
    for series in study.searches:
        if series.variant == side.variant:
            candidates.append((series.axes, series))
    return select_combinations(candidates, side.axes)


def _rows(series: Series, side: Side, evidence: Evidence) -> list[LevelRow]:
    """Return the rows at the side's levels, of the seeds in which no training of them diverged."""
    candidates = series.points[-1:] if side.at == "last level" else series.points
    points: list[Point] = []
    diverged: set[int] = set()
    for point in candidates:
        if side.has_level(point.density):
            points.append(point)
            # The whole seed is out: a mean over the levels that remain would leave out the
            # sparsest ones, where trainings diverge and figures are worst.
            diverged.update(row.seed for row in point.diverged)

    rows = []
    for point in points:
        for row in point.rows:
            if row.cell in evidence.finished and row.seed not in diverged:
                rows.append(row)
    return best_rows(rows) if side.at == "best level" else rows


def _has_no_such_level(series: Series, side: Side, evidence: Evidence) -> bool:
    """Return True if a series that ran to its end has no level of the side's densities."""
    for point in series.points:
        if side.has_level(point.density):
            return False
    # a series that is still running may get there yet
    return series.cells <= evidence.finished


def _figure(row: LevelRow, metric: str, findings: Findings) -> float | None:
    if "." in metric and not metric.startswith(METRIC):
        return findings.number(row, metric)
    return row.figure(metric)


def _no_level(side: Side, selected: Sequence[Series]) -> str:
    reason = f"no finished cell of {side_text(side)} has a level at {density_text(side)}"
    for series in selected:
        if series.diverged:
            return f"{reason}, as trainings diverged"
    return reason


def too_short(needed: Step, values: SideValues, evidence: Evidence) -> str:
    """Return why the trainings of a side are too short; empty if they are not.

    A length in steps is compared with the longest training of each series, as a rewound round is
    shorter than the whole. One in epochs is compared with the recipe's length, as a run does not
    record the number of steps in an epoch.
    """
    recipe_length = evidence.lengths.get(values.side.study)
    lengths = [_length(series, needed, recipe_length) for series in values.series]
    # a length in another unit cannot be compared, so it is the first to be reported
    shortest = min(lengths, key=lambda length: (length.unit == needed.unit, length.amount))
    if shortest.unit != needed.unit:
        return f"not at this length, as far as is known: needs {needed}, this run has {shortest}"
    if shortest.amount < needed.amount:
        return f"not at this length: needs {needed}, this run has {shortest}"
    return ""


def _length(series: Series, needed: Step, recipe_length: Step | None) -> Step:
    # an axis of the grid overrides what the study has in common
    if "train.length" in series.axes:
        recipe_length = Step.parse(series.axes["train.length"])
    # in epochs the recipe is believed; in updates ("it") the rows say what was really trained
    if recipe_length and recipe_length.unit == needed.unit != "it":
        return recipe_length
    return Step(Fraction(_longest_training(series)), "it")


def _longest_training(series: Series) -> int:
    """Return the length of a series' longest training, in optimizer updates."""
    return max((row.steps for row in series.rows), default=0)


def side_text(side: Side) -> str:
    """Return the axes and the variant of a side in words."""
    words = [f"{axis}={value}" for axis, value in side.axes.items()]
    if side.variant != TICKET:
        words.append(f"variant={side.variant}")
    return ", ".join(words) or TICKET


def density_text(side: Side) -> str:
    """Return the densities of a side in words."""
    low, high = map(percent, side.density)
    if (low, high) == ("0", "100"):
        return "all levels"
    if low == high:
        return f"{low} % of the weights"
    return f"{low} to {high} % of the weights"
