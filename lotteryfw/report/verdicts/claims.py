"""The claims of a recipe, checked against the levels of its run.

Seeds are the sample. For each seed, a side of a claim is the mean of the metric over the levels in
the claim's range of density; a side of several series is the mean of theirs. An order is judged by
the paired differences over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from lotteryfw.api.errors import StoreError
from lotteryfw.api.steps import Step
from lotteryfw.report.data.best_level import best_rows
from lotteryfw.report.data.density_sweeps import any_density, bare_name
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import TICKET, Point, Series, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent
from lotteryfw.store import METRIC, LevelRow, RunFolder

if TYPE_CHECKING:
    from lotteryfw.recipe import Claim

ClaimOutcome = Literal["reproduced", "not reproduced", "not tested"]

_TOLERANCE = 1e-9  # a bound in decimals is not exact in binary


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict of a run on a claim.

    `numbers` are the figures in words; `reason` says why the claim is not tested. `spread` is over
    seeds, in the metric's own unit: of the difference higher - lower, or of the value itself.
    """

    claim: Claim
    outcome: ClaimOutcome
    numbers: str = ""
    reason: str = ""
    spread: Spread | None = None

    @property
    def tested(self) -> str:
        """The comparison and where it is made: the claim in the words of its recipe."""
        return _tested(self.claim)

    @property
    def explanation(self) -> str:
        """Reason and numbers in one line; empty if there is neither."""
        return "; ".join(part for part in (self.reason, self.numbers) if part)


def check_claims(run: RunFolder | RunData) -> list[ClaimVerdict]:
    """Return a verdict for each claim of the run's recipe, in order.

    - An order (`higher`, `lower`) is reproduced if the mean difference is above 0 and, over two
      seeds or more, its 95 % interval excludes 0. One seed does not test it.
    - A value (`of`, `expect`) is reproduced if the mean lies within `tolerance`, or keeps
      `at_least` or `at_most`.
    - A likeness (`of`, `like`) is reproduced if the mean difference lies within `tolerance`.
    - Only cells that ran to their end count, so a half-finished run or one that diverged does not
      bias a comparison.

    Raises StoreError if a file cannot be read.
    """
    data = RunData.of(run)
    claims = _read_claims(data)
    evidence = _Evidence(
        studies={study.name: study for study in data.studies},
        finished=_finished_cells(data),
        lengths=_lengths(data.resolved),
        findings=data.findings_of(claim.metric for claim in claims),
    )
    return [_verdict(claim, evidence) for claim in claims]


@dataclass(frozen=True)
class _Evidence:
    """The parts of a run that claims are checked against; `lengths` are by study."""

    studies: Mapping[str, StudySeries]
    finished: set[str]
    lengths: Mapping[str, Step]
    findings: Findings


def _read_claims(data: RunData) -> list[Claim]:
    from lotteryfw.recipe import Claim  # here, because it imports the whole recipe language

    try:
        return [Claim.model_validate(table) for table in data.resolved.get("claim", [])]
    except ValueError as error:
        path = data.folder.path / "resolved.toml"
        raise StoreError(f"{path}: cannot be read: {error}") from error


def _finished_cells(data: RunData) -> set[str]:
    statuses = data.manifest.get("cells", {})
    return {cell for cell, status in statuses.items() if status == "done"}


def _lengths(resolved: Mapping[str, Any]) -> dict[str, Step]:
    """Return the training length that the recipe gives each study."""
    lengths = {}
    for study in resolved.get("study", []):
        if "length" in study.get("train", {}):
            lengths[str(study["name"])] = Step.parse(study["train"]["length"])
    return lengths


def select(study: StudySeries, selector: Mapping[str, Any]) -> list[Series]:
    """Return the combinations in which every axis of a claim's selector has its label.

    Without a `variant` it selects tickets. A component's label selects the combinations of exactly
    this label; if there are none, the density sweep of this label; and if there is none, every
    component of this name, whatever its options. Each search of a sweep has only the level that it
    ended at.
    """
    from lotteryfw.api.labels import label_of
    from lotteryfw.recipe.claims import ARM

    variant = selector.get(ARM, TICKET)
    selected = [series for series in study.parts if series.variant == variant]
    for axis, value in selector.items():
        if axis != ARM:
            selected = _with_label(selected, axis, label_of(value))
    return selected


def _with_label(candidates: Sequence[Series], axis: str, label: str) -> list[Series]:
    """Return the series with this label on an axis, by the narrowest reading that matches any."""
    for reading in (lambda text, value: text, any_density, bare_name):
        matching = []
        for series in candidates:
            text, value = series.axes.get(axis), series.axis_values.get(axis)
            if text is not None and reading(text, value) == label:
                matching.append(series)
        if matching:
            return matching
    return []


def _verdict(claim: Claim, evidence: _Evidence) -> ClaimVerdict:
    study = evidence.studies.get(claim.study)
    if study is None:
        return _not_tested(claim, f"study '{claim.study}' has no results")

    sides: list[dict[int, float]] = []
    for selector in claim.selectors().values():
        selected = select(study, selector)
        if not selected:
            return _not_tested(claim, f"this run has no {_words(selector)}")
        if claim.needs_length:
            length = evidence.lengths.get(claim.study)
            reason = _too_short(claim.needs_length, selected, length)
            if reason:
                return _not_tested(claim, reason)
        side = _mean_by_seed(selected, claim, evidence)
        if not side:
            return _not_tested(claim, _no_level(claim, selector, selected))
        sides.append(side)

    unit = study.unit(claim.metric)
    if "." in claim.metric and not claim.metric.startswith(METRIC):
        unit = evidence.findings.unit(claim.metric)
    if len(sides) == 1:
        return _value_verdict(claim, unit, sides[0])
    return _order_verdict(claim, unit, sides[0], sides[1])


def _not_tested(claim: Claim, reason: str) -> ClaimVerdict:
    return ClaimVerdict(claim, "not tested", reason=reason)


def _no_level(claim: Claim, selector: Mapping[str, Any], selected: Sequence[Series]) -> str:
    reason = f"no finished cell of {_words(selector)} has a level at {_range(claim)}"
    if any(series.diverged for series in selected):
        return f"{reason}, as trainings diverged"
    return reason


def _mean_by_seed(
    selected: Sequence[Series], claim: Claim, evidence: _Evidence
) -> dict[int, float]:
    """Return a side's value for each seed in which all its series ran to their end.

    A seed of which a training diverged is left out.
    """
    lowest, highest = claim.density[0] - _TOLERANCE, claim.density[1] + _TOLERANCE
    by_series = []
    for series in selected:
        points = [point for point in series.points if lowest <= point.density <= highest]
        if not points and series.cells <= evidence.finished:
            continue  # it ended at another density, as searches of a density sweep do
        by_series.append(_series_means(points, claim, evidence))

    if not by_series:
        return {}
    seeds = set.intersection(*map(set, by_series))
    means = {}
    for seed in sorted(seeds):
        means[seed] = fmean(series_means[seed] for series_means in by_series)
    return means


def _series_means(points: Sequence[Point], claim: Claim, evidence: _Evidence) -> dict[int, float]:
    """Return the mean of the claim's metric over these levels, for each seed."""
    diverged: set[int] = set()
    for point in points:
        diverged.update(row.seed for row in point.diverged)

    rows = []
    for point in points:
        for row in point.rows:
            if row.cell in evidence.finished and row.seed not in diverged:
                rows.append(row)
    if claim.at == "best level":
        rows = best_rows(rows)

    values: dict[int, list[float]] = {}
    for row in rows:
        figure = _figure(row, claim.metric, evidence.findings)
        if figure is not None:
            values.setdefault(row.seed, []).append(figure)
    return {seed: fmean(figures) for seed, figures in values.items()}


def _figure(row: LevelRow, metric: str, findings: Findings) -> float | None:
    if "." in metric and not metric.startswith(METRIC):
        return findings.number(row, metric)
    return row.figure(metric)


def _order_verdict(
    claim: Claim, unit: Unit, higher: Mapping[int, float], lower: Mapping[int, float]
) -> ClaimVerdict:
    """Return the verdict on two sides: one is higher or, with a tolerance, they are alike."""
    seeds = sorted(higher.keys() & lower.keys())
    if not seeds:
        return _not_tested(claim, "no seed is finished on both sides")

    spread = Spread.of([higher[seed] - lower[seed] for seed in seeds])
    higher_mean = unit.number(fmean(higher[seed] for seed in seeds))
    lower_mean = unit.number(fmean(lower[seed] for seed in seeds))
    difference = _spread_text(unit, spread, "+", unit.difference_suffix)
    numbers = f"{higher_mean} against {lower_mean}{unit.suffix}: {difference}"

    if claim.tolerance is not None:
        holds = abs(spread.mean) <= claim.tolerance + _TOLERANCE
        tolerance = f"{unit.number(claim.tolerance)}{unit.difference_suffix}"
        numbers = f"{numbers}; alike within {tolerance}"
        return _tested_verdict(claim, holds, numbers, spread)

    interval = spread.interval()
    if interval is None:
        reason = "one seed gives no confidence interval"
        return ClaimVerdict(claim, "not tested", numbers, reason, spread)
    return _tested_verdict(claim, interval[0] > 0, numbers, spread)


def _value_verdict(claim: Claim, unit: Unit, side: Mapping[int, float]) -> ClaimVerdict:
    spread = Spread.of(list(side.values()))
    if claim.at_least is not None:
        holds = spread.mean >= claim.at_least - _TOLERANCE
        expected = f"{unit.number(claim.at_least)}{unit.suffix} or more"
    elif claim.at_most is not None:
        holds = spread.mean <= claim.at_most + _TOLERANCE
        expected = f"{unit.number(claim.at_most)}{unit.suffix} or less"
    else:
        assert claim.expect is not None, "the form of a value claim"
        assert claim.tolerance is not None, "the form of a value claim"
        holds = abs(spread.mean - claim.expect) <= claim.tolerance + _TOLERANCE
        tolerance = unit.number(claim.tolerance)
        expected = f"{unit.number(claim.expect)} ± {tolerance}{unit.suffix}"
    numbers = f"{_spread_text(unit, spread, '', unit.suffix)}; expected {expected}"
    return _tested_verdict(claim, holds, numbers, spread)


def _tested_verdict(claim: Claim, holds: bool, numbers: str, spread: Spread) -> ClaimVerdict:
    outcome: ClaimOutcome = "reproduced" if holds else "not reproduced"
    return ClaimVerdict(claim, outcome, numbers, spread=spread)


def _spread_text(unit: Unit, spread: Spread, sign: str, suffix: str) -> str:
    plural = "s" if spread.n > 1 else ""
    text = f"{unit.spread(spread, sign)}{suffix}, {spread.n} seed{plural}"
    interval = spread.interval()
    if interval:
        low, high = (unit.number(end, sign) for end in interval)
        text += f", 95 % interval {low} to {high}"
    return text


def _too_short(needed: Step, selected: Sequence[Series], recipe_length: Step | None) -> str:
    """Return why these trainings are too short; empty if they are not.

    A length in steps is compared with the longest training of each series, as a rewound round is
    shorter than the whole. One in epochs is compared with the recipe's length, as a run does not
    record the number of steps in an epoch.
    """
    lengths = [_length(series, needed, recipe_length) for series in selected]
    # a length in another unit cannot be compared, so it is the first to be reported
    shortest = min(lengths, key=lambda length: (length.unit == needed.unit, length.amount))
    if shortest.unit != needed.unit:
        return f"not at this length, as far as is known: needs {needed}, this run has {shortest}"
    if shortest.amount < needed.amount:
        return f"not at this length: needs {needed}, this run has {shortest}"
    return ""


def _length(series: Series, needed: Step, recipe_length: Step | None) -> Step:
    if "train.length" in series.axes:
        recipe_length = Step.parse(series.axes["train.length"])
    if recipe_length and recipe_length.unit == needed.unit != "it":
        return recipe_length
    longest = max((row.steps for row in series.rows), default=0)
    return Step(Fraction(longest), "it")


def _words(selector: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in selector.items()) or TICKET


def _tested(claim: Claim) -> str:
    """Return the claim's own terms in a line."""
    parts = [
        f"{claim.metric.replace('_', ' ')}: {_comparison(claim)}",
        f"study {claim.study}",
        "all levels" if claim.density == [0, 1] else _range(claim),
    ]
    if claim.at != "every level":
        parts.append(f"the {claim.at} of each seed")
    if claim.needs_length is not None:
        parts.append(f"trainings of {claim.needs_length} or more")
    return " · ".join(parts)


def _comparison(claim: Claim) -> str:
    sides = {name: _words(selector) for name, selector in claim.selectors().items()}
    if "higher" in sides:
        return f"{sides['higher']} above {sides['lower']}"
    if "like" in sides:
        return f"{sides['of']} like {sides['like']}, give or take {claim.tolerance:g}"
    if claim.at_least is not None:
        return f"{sides['of']} at {claim.at_least:g} or more"
    if claim.at_most is not None:
        return f"{sides['of']} at {claim.at_most:g} or less"
    return f"{sides['of']} at {claim.expect:g}, give or take {claim.tolerance:g}"


def _range(claim: Claim) -> str:
    """Return the densities of a claim in words."""
    low, high = map(percent, claim.density)
    if low == high:
        return f"{low} % of the weights"
    return f"{low} to {high} % of the weights"
