"""The test of each form of a claim: an estimate over seeds, and the figures in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING

from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.units import Unit
from lotteryfw.report.verdicts.claim_sides import PointKey, SideValues
from lotteryfw.report.verdicts.estimate import ABOVE_ZERO, BELOW_ZERO, Estimate, Region
from lotteryfw.report.verdicts.evidence import NotTested

if TYPE_CHECKING:
    from lotteryfw.recipe import Claim

FEWEST_POINTS = 5
"""A rank correlation needs as many cells and levels in each seed: fewer make it too coarse."""

_CORRELATION = Unit("rank correlation", "rank correlation", 1, 2, "", "")


@dataclass(frozen=True)
class ClaimTest:
    """A claim's estimate; `numbers` are all figures in words, `ours` the one that is judged."""

    estimate: Estimate
    numbers: str
    ours: str


def run_test(claim: Claim, values: Mapping[str, SideValues], findings: Findings) -> ClaimTest:
    """Return the test of a claim by the values of its sides.

    Raises NotTested with the reason if the values do not allow it.
    """
    for key, region in (("rises_with", ABOVE_ZERO), ("falls_with", BELOW_ZERO)):
        if key in values:
            return _correlation_test(values["of"].points, values[key].points, region)
    unit = _shared_unit([findings.unit(side.side.metric) for side in values.values()])
    if claim.rises_along is not None:
        return _trend_test(claim, list(values.values()), unit)
    if "higher" in values:
        higher, lower = values["higher"].means, values["lower"].means
        if claim.tolerance is None:
            return _difference_test(unit, higher, lower, ABOVE_ZERO)
        # non-inferiority: the difference may be negative, down to the margin
        test = _difference_test(unit, higher, lower, Region(low=-claim.tolerance))
        margin = f"{unit.number(claim.tolerance)}{unit.difference_suffix}"
        return replace(test, numbers=f"{test.numbers}; no lower by {margin} or more")
    if "like" in values:
        assert claim.tolerance is not None, "the form of a likeness"
        # equivalence: the whole interval has to lie within the margin, so that few or noisy seeds
        # do not pass for a likeness
        region = Region(-claim.tolerance, claim.tolerance)
        test = _difference_test(unit, values["of"].means, values["like"].means, region)
        alike = f"alike within {unit.number(claim.tolerance)}{unit.difference_suffix}"
        return replace(test, numbers=f"{test.numbers}; {alike}")
    return _value_test(claim, unit, values["of"].means)


def _shared_unit(units: Sequence[Unit]) -> Unit:
    """Return the unit in which all sides are compared. Raises NotTested where they have several."""
    first, *others = units
    for other in others:
        # two metrics may have one unit, such as two shares
        if replace(other, title=first.title, axis=first.axis) != first:
            raise NotTested(f"'{first.title}' and '{other.title}' have different units")
    return first


def _difference_test(
    unit: Unit, first: Mapping[int, float], second: Mapping[int, float], region: Region
) -> ClaimTest:
    """Return the test of first - second, paired by seed."""
    firsts, seconds, differences = [], [], []
    for seed in _common_seeds(first, second):
        firsts.append(first[seed])
        seconds.append(second[seed])
        # paired: both sides start from the same weights, so their common luck cancels
        differences.append(first[seed] - second[seed])
    scale = max(map(abs, firsts + seconds))
    estimate = Estimate.of(differences, region, scale)
    first_mean, second_mean = unit.number(fmean(firsts)), unit.number(fmean(seconds))
    ours = _estimate_text(estimate, unit, "+", unit.difference_suffix)
    return ClaimTest(estimate, f"{first_mean} against {second_mean}{unit.suffix}: {ours}", ours)


def _common_seeds(first: Mapping[int, object], second: Mapping[int, object]) -> list[int]:
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise NotTested("no seed is finished on both sides")
    return seeds


def _value_test(claim: Claim, unit: Unit, means: Mapping[int, float]) -> ClaimTest:
    if claim.at_least is not None:
        region = Region(low=claim.at_least)
    elif claim.at_most is not None:
        region = Region(high=claim.at_most)
    else:
        assert claim.expect is not None, "the form of a value"
        assert claim.tolerance is not None, "the form of a value"
        region = Region(claim.expect - claim.tolerance, claim.expect + claim.tolerance)
    estimate = Estimate.of(list(means.values()), region)
    ours = _estimate_text(estimate, unit, "", unit.suffix)
    return ClaimTest(estimate, f"{ours}; published {value_text(claim, unit)}", ours)


def value_text(claim: Claim, unit: Unit) -> str:
    """Return the published value or bound of a claim about a value; empty for other claims."""
    if claim.at_least is not None:
        return f"{unit.number(claim.at_least)}{unit.suffix} or more"
    if claim.at_most is not None:
        return f"{unit.number(claim.at_most)}{unit.suffix} or less"
    if claim.expect is None or claim.tolerance is None:
        return ""
    # not "a ± b", which stands for a mean and the standard deviation over seeds
    tolerance = f"{unit.number(claim.tolerance)}{unit.difference_suffix}"
    return f"{unit.number(claim.expect)}{unit.suffix}, within {tolerance}"


def _trend_test(claim: Claim, sides: Sequence[SideValues], unit: Unit) -> ClaimTest:
    """Return the test that each side is higher than the one before.

    The trend is supported only if every step is: then no correction is due, as an error in any of
    them is an error in all. It is contradicted if one step is, at an error rate shared by all.
    The estimate is that of the step that decides.
    """
    steps, estimates = [], []
    for before, after in pairwise(sides):
        step = _difference_test(unit, after.means, before.means, ABOVE_ZERO)
        steps.append(step)
        estimates.append(step.estimate)
    index, estimate = _weakest(estimates)

    assert claim.rises_along is not None, "the form of a trend"
    [values] = claim.rises_along.values()
    ours = f"weakest step, {values[index]} to {values[index + 1]}: {steps[index].ours}"
    # of the seeds that all have, if there are any, so that the means are those of the steps
    shared = set(sides[0].means)
    for side in sides:
        shared &= side.means.keys()
    means = []
    for side in sides:
        counted = map(side.means.__getitem__, shared or side.means)
        means.append(unit.number(fmean(counted)))
    return ClaimTest(estimate, f"{' → '.join(means)}{unit.suffix}; {ours}", ours)


def _weakest(steps: Sequence[Estimate]) -> tuple[int, Estimate]:
    """Return the step that decides a trend, by its index, with the p-values of the trend."""
    supported, contradicted = [], []
    for index, step in enumerate(steps):
        if step.p_supported is None or step.p_contradicted is None:
            # too few seeds: they leave the whole trend undecided
            return index, step
        supported.append(step.p_supported)
        contradicted.append(step.p_contradicted)
    # Intersection-union: every step has to pass, so the worst p-value is that of the trend.
    p_supported = max(supported)
    # Bonferroni: any one of the steps contradicts, so they share the error rate.
    p_contradicted = min(1.0, min(contradicted) * len(steps))
    if p_contradicted < p_supported:
        index = contradicted.index(min(contradicted))
    else:
        index = supported.index(p_supported)
    estimate = replace(
        steps[index], p_supported=p_supported, p_contradicted=p_contradicted, rivals=len(steps)
    )
    return index, estimate


def _correlation_test(
    first: Mapping[int, Mapping[PointKey, float]],
    second: Mapping[int, Mapping[PointKey, float]],
    region: Region,
) -> ClaimTest:
    """Return the test of Spearman's rank correlation over each seed's points."""
    correlations = []
    counts, most = [], 0
    for seed in _common_seeds(first, second):
        pairs = []
        # an analysis may lack some of the levels that the accuracy has
        for key in sorted(first[seed].keys() & second[seed].keys()):
            pair = first[seed][key], second[seed][key]
            # what is no number has no rank
            if all(map(isfinite, pair)):
                pairs.append(pair)
        most = max(most, len(pairs))
        if len(pairs) >= FEWEST_POINTS:
            correlations.append(rank_correlation(pairs))
            counts.append(len(pairs))
    if not correlations:
        raise NotTested(f"a rank correlation needs {FEWEST_POINTS} cells and levels, not {most}")

    estimate = Estimate.of(correlations, region, scale=1.0)
    ours = _estimate_text(estimate, _CORRELATION, "+", "")
    numbers = f"rank correlation over {min(counts)} cells and levels of each seed: {ours}"
    return ClaimTest(estimate, numbers, ours)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    It is 0 if either of the two is the same everywhere.

    >>> rank_correlation([(1, 10), (2, 20), (3, 15)])
    0.5
    """
    firsts, seconds = zip(*pairs, strict=True)
    # Pearson's correlation of the ranks. Ranks with ties are multiples of 1/2, so all the sums
    # below are exact, and 0 is exactly 0.
    middle = (len(pairs) - 1) / 2  # the mean of the ranks 0 to n - 1, with or without ties
    product = first_squares = second_squares = 0.0
    for a, b in zip(_ranks(firsts), _ranks(seconds), strict=True):
        product += (a - middle) * (b - middle)
        first_squares += (a - middle) ** 2
        second_squares += (b - middle) ** 2
    squares = first_squares * second_squares
    return product / squares**0.5 if squares else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 0; equal values have the mean of their ranks."""
    ordered = sorted(values)
    ranks = []
    for value in values:
        below = ordered.index(value)
        ranks.append(below + (ordered.count(value) - 1) / 2)
    return ranks


def _estimate_text(estimate: Estimate, unit: Unit, sign: str, suffix: str) -> str:
    spread = estimate.spread
    plural = "s" if spread.n > 1 else ""
    text = f"{unit.spread(spread, sign)}{suffix}, {spread.n} seed{plural}"
    if estimate.interval:
        low, high = estimate.interval
        text += f", 95 % interval {unit.number(low, sign)} to {unit.number(high, sign)}"
    return text
