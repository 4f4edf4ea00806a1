"""Runs compared with each other: differences paired by seed, level by level.

Every other run is compared with the first. Both trainings of a pair have the same seed, and so the
same first weights and data order where the runs have these in common: their common luck cancels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import UsageError, nearest
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import TICKET, Point, Series, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import ACCURACY, OBJECTIVE_FIGURES, Unit
from lotteryfw.report.verdicts.estimate import ABOVE_ZERO, Decision, Estimate, holm_levels
from lotteryfw.store import METRIC, LevelRow

VERDICTS: dict[Decision, str] = {
    "supported": "higher",
    "contradicted": "lower",
    "undecided": "undecided",
}
"""The words for a difference to the first run, by the decision on "it is above zero"."""


_POSITIONS = ("seed", "level", "weights_total")


@dataclass(frozen=True)
class ComparedLevel:
    """A level of both runs: their spreads over the shared seeds, and the paired differences.

    The estimate is of other - first, judged at the error rate that Holm's method leaves it.
    `is_shared`: both runs have the very same trainings here, so there is nothing to test.
    `diverged` are the seeds of both runs that are left out since a training of one of them diverged
    here, or at a level before, which ended its search: with any, nothing is decided.
    """

    density: float
    first: Spread
    other: Spread
    estimate: Estimate
    seeds: tuple[int, ...]
    is_shared: bool = False
    diverged: tuple[int, ...] = ()

    @property
    def p(self) -> float | None:
        """The two-sided p-value; None with fewer than three seeds, and for shared trainings."""
        return None if self.is_shared else self.estimate.p

    @property
    def verdict(self) -> str:
        """The verdict: "higher", "lower", "undecided", or "same training"."""
        return "same training" if self.is_shared else VERDICTS[self.estimate.decision]


@dataclass(frozen=True)
class ComparedSeries:
    """One series of another run against that of the first run; `levels` from dense to sparse.

    `unit` is that of the metric in its study: studies may have objectives of their own.
    """

    study: str
    label: str
    run: str
    levels: tuple[ComparedLevel, ...]
    unit: Unit

    @property
    def name(self) -> str:
        """Study and series, as tables and legends name them."""
        return f"{self.study} · {self.label}"


@dataclass(frozen=True)
class Comparison:
    """All compared series of several runs. `notes` say what could not be compared, and why."""

    metric: str
    runs: tuple[str, ...]
    series: tuple[ComparedSeries, ...]
    notes: tuple[str, ...]

    @property
    def units(self) -> list[Unit]:
        """The units of the series, each once."""
        return list(dict.fromkeys(series.unit for series in self.series))

    def plain(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each compared level, as plain data in the units of levels.csv."""
        for series in self.series:
            for level in series.levels:
                interval = level.estimate.interval
                yield {
                    "study": series.study,
                    "series": series.label,
                    "first": self.runs[0],
                    "other": series.run,
                    "metric": self.metric,
                    "density": level.density,
                    "first_mean": level.first.mean,
                    "other_mean": level.other.mean,
                    "difference": level.estimate.spread.mean,
                    "sd": level.estimate.spread.sd,
                    "interval": list(interval) if interval else None,
                    "seeds": list(level.seeds),
                    "p": level.p,
                    "verdict": level.verdict,
                }


def compare_runs(runs: Sequence[RunData], metric: str = ACCURACY) -> Comparison:
    """Return the comparison of each other run with the first, in a metric of levels.csv.

    Series are matched by study and label. Raises UsageError for fewer than two runs, for a metric
    that none has, and where no series of two runs match.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more; `lotteryfw runs` lists them")
    first, *others = runs
    _refuse_unknown(metric, runs)
    names = _names([run.folder.path for run in runs])
    series: list[ComparedSeries] = []
    notes: list[str] = []
    for other, name in zip(others, names[1:], strict=True):
        pairs, unmatched = _matched(first, other, (names[0], name), metric)
        notes += unmatched
        for study, one, two in pairs:
            levels = tuple(_compared_levels(one, two, metric))
            if levels:
                notes += _divergence_notes(f"{study.name} · {one.label}", levels)
                corrected, unit = _corrected(levels), study.unit(metric)
                series.append(ComparedSeries(study.name, one.label, name, corrected, unit))
            else:
                notes.append(f"{study.name} · {one.label}: no level and seed of {name} is shared")
    if not series:
        reasons = "".join(f"\n  {note}" for note in notes)
        raise UsageError(f"these runs have nothing to compare:{reasons}")
    return Comparison(metric, names, tuple(series), tuple(notes))


def _refuse_unknown(metric: str, runs: Sequence[RunData]) -> None:
    columns: set[str] = set()
    for column in fields(LevelRow):
        # "float | None" is one of these, too; a seed or a level is no figure
        if str(column.type).startswith(("int", "float")) and column.name not in _POSITIONS:
            columns.add(column.name)
    for run in runs:
        columns |= {METRIC + name for name in run.manifest.get("metrics", {})}
    if metric not in columns:
        raise UsageError(f"there is no metric '{metric}'; {nearest(metric, columns)}")


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a name for each run: the folder's own, or the whole path where two are alike."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError(f"{names[0]}: a run cannot be compared with itself; name each run once")
    return tuple(names)


_Match = tuple[StudySeries, Series, Series]


def _matched(
    first: RunData, other: RunData, names: tuple[str, str], metric: str
) -> tuple[list[_Match], list[str]]:
    """Return the series of two runs in pairs, and notes on those that have no partner."""
    first_name, other_name = names
    pairs: list[_Match] = []
    notes: list[str] = []
    for one, two in _matched_studies(first.studies, other.studies):
        if metric in OBJECTIVE_FIGURES and one.figure != two.figure:
            # one column, but figures of two meanings: a difference of them says nothing
            reports = f"{first_name} reports {one.figure}, {other_name} {two.figure}"
            notes.append(f"{one.name}: {reports}, which cannot be compared")
            continue
        partners = {series.label: series for series in two.series}
        lone = _lone_tickets(one, two)
        for series in one.series:
            partner = partners.get(series.label)
            if partner is None and lone and series.variant == TICKET:
                # one search in either run: the option by which they differ is no part of a label
                partner = lone
            if partner is None:
                remedy = nearest(series.label, partners)
                notes.append(f"{other_name} has no series '{series.label}' in {two.name}; {remedy}")
            else:
                pairs.append((one, series, partner))
    if not pairs and not notes:
        notes.append(_nothing_in_common(first, other, names))
    return pairs, notes


def _nothing_in_common(first: RunData, other: RunData, names: tuple[str, str]) -> str:
    for run, name in zip((first, other), names, strict=True):
        if not run.studies:
            return f"{name} has no finished level"
    studies = ", ".join(study.name for study in other.studies)
    return f"{names[0]} and {names[1]} have no study in common; {names[1]} has {studies}"


def _matched_studies(
    first: Sequence[StudySeries], other: Sequence[StudySeries]
) -> list[tuple[StudySeries, StudySeries]]:
    by_name = {study.name: study for study in other}
    shared = [(study, by_name[study.name]) for study in first if study.name in by_name]
    # recipes of two names, which people run to compare them, have one study each
    if not shared and len(first) == len(other) == 1:
        return [(first[0], other[0])]
    return shared


def _lone_tickets(one: StudySeries, two: StudySeries) -> Series | None:
    """Return the only ticket series of `two` if `one` has only one, too."""
    tickets: list[list[Series]] = []
    for study in (one, two):
        tickets.append([series for series in study.series if series.variant == TICKET])
    return tickets[1][0] if len(tickets[0]) == len(tickets[1]) == 1 else None


def _compared_levels(first: Series, other: Series, metric: str) -> Iterator[ComparedLevel]:
    for point in first.points:
        partner = other.like(point)
        # at small rates several levels are alike: each must be the nearest of the other
        if partner is None or first.like(partner) is not point:
            continue
        rows, other_rows = _by_seed(point, metric), _by_seed(partner, metric)
        seeds = sorted(rows.keys() & other_rows.keys())
        if not seeds:
            continue
        firsts: list[float] = []
        others: list[float] = []
        is_shared = True
        # over the shared seeds alone, so that the difference of the means is the mean difference
        for seed in seeds:
            firsts.append(float(rows[seed].figure(metric) or 0.0))
            others.append(float(other_rows[seed].figure(metric) or 0.0))
            is_shared = is_shared and rows[seed].key == other_rows[seed].key
        differences = [two - one for one, two in zip(firsts, others, strict=True)]
        estimate = Estimate.of(differences, ABOVE_ZERO)
        diverged = _diverged(first, point) | _diverged(other, partner)
        lost = tuple(sorted(diverged & _seeds(first) & _seeds(other)))
        yield ComparedLevel(
            point.density,
            Spread.of(firsts),
            Spread.of(others),
            estimate.withheld() if lost else estimate,
            tuple(seeds),
            is_shared,
            lost,
        )


def _diverged(series: Series, point: Point) -> set[int]:
    return {row.seed for row in series.diverged_by(point)}


def _seeds(series: Series) -> set[int]:
    return {row.seed for row in series.rows + series.diverged}


def _divergence_notes(name: str, levels: Sequence[ComparedLevel]) -> Iterator[str]:
    """Yield a note for the first level at which each seed is left out."""
    noted: set[int] = set()
    for level in levels:
        for seed in sorted(set(level.diverged) - noted):
            noted.add(seed)
            yield (
                f"{name}: seed {seed} diverged in one of the runs at {level.density:.1%} of the "
                "weights; where it is left out, nothing is decided"
            )


def _by_seed(point: Point, metric: str) -> Mapping[int, LevelRow]:
    """Return the rows that have the figure, by seed."""
    return {row.seed: row for row in point.rows if row.figure(metric) is not None}


def _corrected(levels: Sequence[ComparedLevel]) -> tuple[ComparedLevel, ...]:
    """Return the levels with the error rates that Holm's method leaves to each."""
    rates = holm_levels([level.p for level in levels])
    corrected = []
    for level, rate in zip(levels, rates, strict=True):
        corrected.append(replace(level, estimate=level.estimate.at_level(rate)))
    return tuple(corrected)
