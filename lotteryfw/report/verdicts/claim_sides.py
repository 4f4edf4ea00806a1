"""The values of a claim's sides in a run: one for each seed, or one for each seed and level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from operator import attrgetter, itemgetter
from statistics import fmean
from typing import TYPE_CHECKING

from lotteryfw.api.steps import Step
from lotteryfw.report.data.best_level import best_rows
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.series import TICKET, Combination, Series
from lotteryfw.report.data.units import density_range, percent
from lotteryfw.report.verdicts.evidence import (
    Evidence,
    NotTested,
    StudyEvidence,
    longest_training,
)
from lotteryfw.store import METRIC, LevelRow

if TYPE_CHECKING:
    from lotteryfw.recipe import Side

PointKey = tuple[Combination, int]
"""A combination of the grid and a level."""


@dataclass(frozen=True)
class SideValues:
    """The values of a side; `points` are by seed, then by combination and level.

    Only seeds that have a value in every series of the side are among them.
    `diverged` are the seeds that are left out because a training diverged.
    """

    side: Side
    series: tuple[Series, ...]
    points: Mapping[int, Mapping[PointKey, float]]
    density_of: Mapping[PointKey, float]
    diverged: frozenset[int]

    @property
    def densities(self) -> list[float]:
        """The densities that the values are of, from dense to sparse."""
        return sorted(set(map(self.density_of.__getitem__, self._keys)), reverse=True)

    @property
    def levels_text(self) -> str:
        """The levels that the values are of: "14 levels, 8.7–0.5 % of the weights"."""
        if self.side.at != "every level":
            return ", ".join((density_text(self.side), f"the {self.side.at}"))
        levels = len(set(map(itemgetter(1), self._keys)))
        text = f"{density_range(self.densities)} % of the weights"
        return f"{levels} levels, {text}" if levels > 1 else text

    @property
    def _keys(self) -> set[PointKey]:
        """The combinations and levels at which some seed has a value."""
        return set().union(*self.points.values())

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
        return longest_training(self.series)


def side_values(side: Side, evidence: Evidence) -> SideValues:
    """Return the values of a side. Raises NotTested with the reason if there are none."""
    if side.study not in evidence.studies:
        raise NotTested(f"study '{side.study}' has no results")
    selected = select(side, evidence)
    if not selected:
        raise NotTested(f"this run has no {side_text(side)}")

    by_series: list[dict[int, dict[PointKey, float]]] = []
    density_of: dict[PointKey, float] = {}
    diverged: set[int] = set()
    has_rows = False
    for series in selected:
        rows, lost = _rows(series, side, evidence)
        diverged |= lost
        has_rows = has_rows or bool(rows)
        if not rows and _has_no_such_level(series, side, evidence):
            continue  # it ended at another density, as searches of a density sweep do
        values: dict[int, dict[PointKey, float]] = {}
        for row in rows:
            figure = _figure(row, side.metric, evidence.findings)
            # an analysis may run on a few levels only
            if figure is not None:
                key = series.combination, row.level
                values.setdefault(row.seed, {})[key] = figure
                density_of[key] = row.density
        by_series.append(values)

    # Seeds are paired, so each has to have a value in every series: a mean over other series is
    # another quantity.
    seeds: set[int] = set()
    if by_series:
        seeds = set.intersection(*map(set, by_series))
    if not seeds:
        if has_rows and not density_of:
            raise NotTested(f"this run has no figure '{side.metric}' of {side_text(side)}")
        raise NotTested(_no_level(side, selected))
    points: dict[int, dict[PointKey, float]] = {}
    for seed in sorted(seeds):
        points[seed] = {}
        for values in by_series:
            points[seed] |= values[seed]
    return SideValues(side, tuple(selected), points, density_of, frozenset(diverged))


def at_shared_levels(values: Mapping[str, SideValues]) -> dict[str, SideValues]:
    """Return the sides with tickets and their controls at the levels that all of them have.

    Controls may be trained at chosen levels alone, and a mean over other levels is another quantity.
    Raises NotTested where there is no such level, or where their last levels are not the same.
    """
    shared = dict(values)
    for keys in (("higher", "lower"), ("of", "like"), tuple(filter(str.isdigit, values))):
        sides = [values[key] for key in keys if key in values]
        if len(sides) > 1 and _are_beside(sides):
            for key, side in zip(keys, sides, strict=True):
                shared[key] = _only_shared(side, sides)
    return shared


def _are_beside(sides: Sequence[SideValues]) -> bool:
    """Return True for the same searches at levels of the same densities, but other networks."""
    first, *others = sides
    variants = {first.side.variant}
    for other in others:
        a, b = first.side, other.side
        if (a.study, a.density, a.at) != (b.study, b.density, b.at):
            return False
        if first.combinations != other.combinations:
            return False
        variants.add(b.variant)
    # validation chooses a level of its own for each
    return first.side.at != "best level" and len(variants) > 1


def _only_shared(values: SideValues, sides: Sequence[SideValues]) -> SideValues:
    """Return a side with the levels that all sides have."""
    points = {}
    for seed, by_level in values.points.items():
        shared = set(by_level)
        for other in sides:
            # a seed that another side lacks is not compared
            shared &= other.points.get(seed, by_level).keys()
        if shared != set(by_level) and values.side.at == "last level":
            raise NotTested(f"the last levels of {_names(sides)} are not the same")
        if shared:
            points[seed] = {key: by_level[key] for key in sorted(shared)}
    if not points:
        raise NotTested(f"{_names(sides)} have no level in common at {density_text(values.side)}")
    return replace(values, points=points)


def _names(sides: Sequence[SideValues]) -> str:
    return " and ".join(side_text(one.side) for one in sides)


def select(side: Side, evidence: Evidence) -> list[Series]:
    """Return the combinations that a side selects, each with all its levels.

    Raises NotTested if one of them is still to run: a mean over the others is another quantity.
    """
    # here, because a report without claims does not need the recipe language
    from lotteryfw.recipe.claim_selection import select_combinations

    study = evidence.studies[side.study]
    searches: dict[Combination, list[Series]] = {}
    for series in study.series.searches:
        searches.setdefault(series.combination, []).append(series)
    # They count, as a label may stand for another combination where the one it names is missing.
    for axes in study.without_rows:
        searches.setdefault(tuple(axes.items()), [])

    candidates = []
    for combination, variants in searches.items():
        candidates.append((dict(combination), variants))
    selected = []
    for variants in select_combinations(candidates, side.axes):
        is_finished, has_variant = bool(variants), False
        for series in variants:
            is_finished = is_finished and series.cells <= evidence.ended
            if series.variant == side.variant:
                has_variant = True
                selected.append(series)
        # one that ran to its end without this variant does not have it, and does not count
        if not has_variant and not is_finished:
            raise NotTested(f"some searches of {side_text(side)} have no results yet")
    return selected


def _rows(series: Series, side: Side, evidence: Evidence) -> tuple[list[LevelRow], set[int]]:
    """Return the rows at the side's levels, and the seeds without them since a training diverged.

    The whole seed is out: a mean over the levels that remain would leave out the sparsest ones,
    where trainings diverge and figures are worst.
    """
    candidates = series.points[-1:] if side.at == "last level" else series.points
    cut_short = series.cells & evidence.diverged
    rows: list[LevelRow] = []
    diverged: set[int] = set()
    for point in candidates:
        if not side.has_level(point.density):
            continue
        rows += point.rows
        diverged.update(map(attrgetter("seed"), point.diverged))
        if cut_short:
            # A search ends at a training that diverged, and never gets to the levels of the others.
            missing = cut_short.difference(map(attrgetter("cell"), point.rows))
            for row in series.rows + series.diverged:
                if row.cell in missing:
                    diverged.add(row.seed)
    rows = [row for row in rows if row.cell in evidence.ended and row.seed not in diverged]
    return best_rows(rows) if side.at == "best level" else rows, diverged


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
    """Return why the trainings of a side are too short; empty if they are not."""
    study = evidence.studies[values.side.study]
    lengths = [_length(series, needed, study) for series in values.series]
    # a length in another unit cannot be compared, so it is the first to be reported
    shortest = min(lengths, key=lambda length: (length.unit == needed.unit, length.amount))
    if shortest.unit != needed.unit:
        return f"not at this length, as far as is known: needs {needed}, this run has {shortest}"
    if shortest.amount < needed.amount:
        return f"not at this length: needs {needed}, this run has {shortest}"
    return ""


def _length(series: Series, needed: Step, study: StudyEvidence) -> Step:
    """Return the length of a series' trainings, in the unit of `needed` where it is known.

    In epochs it is the recipe's, as a run does not record the number of steps in an epoch. In
    updates ("it") rows say what was trained: the longest training of the same search counts, as
    tickets and controls that start at step k are trained for what is left.
    """
    length = study.length
    # an axis of the grid overrides what the study has in common, and a target overrides both
    if "train.length" in series.axes:
        length = Step.parse(series.axes["train.length"])
    length = study.target_lengths.get(series.variant) or length
    if length and length.unit == needed.unit != "it":
        return length

    beside = [series]
    if series.variant not in study.target_lengths:
        for other in study.series.searches:
            is_same_search = other.combination == series.combination
            if is_same_search and other.variant not in study.target_lengths:
                beside.append(other)
    return Step(Fraction(longest_training(beside)), "it")


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
