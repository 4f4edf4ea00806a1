"""The estimator of every verdict: error rates under the null, regions, Holm's correction."""

from __future__ import annotations

from math import inf, nan, sqrt

import numpy as np
import pytest
from support.fake_runs import row

from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.stats import t_tail
from lotteryfw.report.verdicts.claim_tests import rank_correlation
from lotteryfw.report.verdicts.estimate import (
    ABOVE_ZERO,
    BELOW_ZERO,
    Estimate,
    Region,
    decide,
    holm_levels,
)
from lotteryfw.report.verdicts.winning_tickets import WINS, winning_tickets

RUNS = 4000
"""Simulated studies for each number of seeds."""


def four_standard_errors(rate: float) -> float:
    """Return four standard errors of a binomial share: one run in 16,000 is farther off."""
    return 4 * sqrt(rate * (1 - rate) / RUNS)


def share(seeds: int, decision: str, region: Region, mean: float) -> float:
    """Return the share of simulated studies with this verdict, at a true mean and unit spread."""
    rng = np.random.default_rng(seeds)
    studies = rng.normal(mean, 1.0, size=(RUNS, seeds))
    decisions = [Estimate.of(list(values), region).decision for values in studies]
    return decisions.count(decision) / RUNS


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("decision", ["supported", "contradicted"])
def test_an_order_has_its_nominal_error_rate_under_the_null(seeds: int, decision: str) -> None:
    rate = share(seeds, decision, ABOVE_ZERO, mean=0.0)
    assert rate == pytest.approx(0.025, abs=four_standard_errors(0.025))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_likeness_at_the_edge_of_its_tolerance_is_supported_at_most_at_the_nominal_rate(
    seeds: int,
) -> None:
    # far ends, so that only the near one can be at fault: then the rate is nominal
    rate = share(seeds, "supported", Region(-100.0, 100.0), mean=100.0)
    assert rate == pytest.approx(0.025, abs=four_standard_errors(0.025))
    assert share(seeds, "supported", Region(-1.0, 1.0), mean=1.0) <= 0.025 + four_standard_errors(
        0.025
    )
    assert share(seeds, "contradicted", Region(-1.0, 1.0), mean=1.0) <= 0.03


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_no_more_winning_tickets_under_the_null_than_the_nominal_rate(
    seeds: int, levels: int
) -> None:
    """The accuracy is just that of the dense network, and nothing of the speed is in doubt.

    Of several levels, the rate is that of one winner or more.
    """
    rng = np.random.default_rng(seeds)
    wins = 0
    runs = 2000  # so that the tolerance is less than the rate, and a function that never wins fails
    for gains in rng.normal(0.0, 0.01, size=(runs, seeds, levels)):
        rows = []
        for seed, of_seed in enumerate(gains):
            rows.append(row({}, 0.9, seed=seed, stop=500))
            for level, gain in enumerate(of_seed, 1):
                rows.append(
                    row({}, 0.9 + gain, seed=seed, level=level, density=0.5**level, stop=100)
                )
        [study] = group_studies(rows)
        [series] = winning_tickets(study)
        wins += any(level.outcome in WINS for level in series.levels)
    assert wins / runs == pytest.approx(0.025, abs=4 * sqrt(0.025 * 0.975 / runs))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_rank_correlation_has_no_more_than_the_nominal_error_rate(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    supported = 0
    for _ in range(RUNS):
        correlations = []
        for points in rng.normal(size=(seeds, 5, 2)):
            correlations.append(rank_correlation([tuple(point) for point in points]))
        supported += Estimate.of(correlations, ABOVE_ZERO).decision == "supported"
    # five points have 120 orders, so the correlation is not quite normal
    assert supported / RUNS == pytest.approx(0.025, abs=four_standard_errors(0.025) + 0.005)


@pytest.mark.parametrize("count", [2, 16])
def test_holm_keeps_the_error_rate_of_a_family(count: int) -> None:
    rng = np.random.default_rng(count)
    families_in_error = 0
    for studies in rng.normal(size=(1000, count, 5)):
        estimates = [Estimate.of(list(values), ABOVE_ZERO) for values in studies]
        levels = holm_levels([estimate.p for estimate in estimates])
        decisions = [
            estimate.at_level(level).decision
            for estimate, level in zip(estimates, levels, strict=True)
        ]
        families_in_error += any(decision != "undecided" for decision in decisions)
    assert families_in_error / 1000 <= 0.05 + 4 * sqrt(0.05 * 0.95 / 1000)


def test_holm_is_the_published_procedure() -> None:
    # Holm 1979: 0.001 ≤ 0.05/4, 0.01 ≤ 0.05/3, but 0.03 > 0.05/2, where it stops
    levels = holm_levels([0.01, 0.03, None, 0.04, 0.001])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05, 0.05 / 2, 0.05 / 4])


@pytest.mark.parametrize(
    ("values", "region", "decision"),
    [
        ([0.018, 0.02, 0.022], ABOVE_ZERO, "supported"),
        ([-0.018, -0.02, -0.022], ABOVE_ZERO, "contradicted"),
        ([0.01, 0.02, 0.03], ABOVE_ZERO, "undecided"),  # 4.30 × 0.01 / √3 is more than the mean
        ([0.02, 0.021], ABOVE_ZERO, "undecided"),  # two seeds do not decide
        ([0.0, 0.0, 0.0], ABOVE_ZERO, "undecided"),
        ([0.0, 0.0, 0.0], Region(low=0.0), "supported"),
        ([0.1, 0.1, 0.1], ABOVE_ZERO, "supported"),
        ([0.79, 0.8, 0.81], Region(0.7, 0.9), "supported"),
        ([0.79, 0.8, 0.81], Region(0.82, 0.9), "undecided"),
        ([0.79, 0.8, 0.81], Region(0.9, 0.95), "contradicted"),
        ([0.79, 0.8, 0.81], Region(high=0.7), "contradicted"),
        ([-0.018, -0.02, -0.022], BELOW_ZERO, "supported"),
        # what is equal but for rounding is so in relation to the numbers
        ([5e-10, 5.1e-10, 4.9e-10], Region(high=1e-10), "contradicted"),
        ([2e-10, 2.1e-10, 1.9e-10], ABOVE_ZERO, "supported"),
        ([0.3, 0.3, 0.1 + 0.2], Region(high=0.3), "supported"),
        # a figure that is no number decides nothing
        ([5.0, 6.0, nan], Region(high=10.0), "undecided"),
        ([inf, 1.0, 2.0], Region(low=0.0), "undecided"),
    ],
)
def test_the_interval_and_the_region_decide(
    values: list[float], region: Region, decision: str
) -> None:
    estimate = Estimate.of(values, region)
    assert estimate.decision == decision
    if estimate.interval:
        low, high = region.low - 1e-9, region.high + 1e-9
        inside = all(low <= end <= high for end in estimate.interval)
        assert inside or decision != "supported"


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_number_of_seeds_that_would_decide(seeds: int) -> None:
    values = [0.01 + 0.02 * (-1) ** seed for seed in range(seeds)]
    needed = Estimate.of(values, ABOVE_ZERO).seeds_to_decide()
    assert needed is not None
    spread = Estimate.of(values, ABOVE_ZERO).spread
    assert spread.sd is not None

    def decides(n: int) -> bool:
        return t_tail(spread.mean / (spread.sd / sqrt(n)), n - 1) < 0.025

    assert decides(needed)
    assert not decides(needed - 1)
    assert Estimate.of([-1.0, 0.0, 1.0], ABOVE_ZERO).seeds_to_decide() is None


def test_equal_sides_are_equal_whatever_rounding_does_to_their_difference() -> None:
    differences = [0.1 + 0.2 - 0.3, 0.0, 0.0]
    assert Estimate.of(differences, ABOVE_ZERO, scale=0.3).decision == "undecided"
    assert Estimate.of(differences, Region(low=0.0), scale=0.3).decision == "supported"


def test_tails_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for t in (-3.0, -0.5, 0.0, 0.1, 2.776, 12.0):
        for freedom in (1, 2, 3, 4, 9, 50):
            assert t_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-12)


def test_rank_correlations_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    pairs = [(1.0, 5.0), (2.0, 5.0), (2.0, 1.0), (7.0, 3.0), (4.0, 2.5)]
    expected = stats.spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic
    assert rank_correlation(pairs) == pytest.approx(expected)
    assert rank_correlation([(1.0, 2.0), (2.0, 2.0)]) == 0.0


def test_without_p_values_nothing_is_decided() -> None:
    assert decide(None, None, 0.05) == "undecided"
