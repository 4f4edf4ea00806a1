"""The one estimator of every verdict: Student's t on the values of a handful of seeds.

A hypothesis is a region of the line, from `low` to `high`, that should hold the true mean. Three
seeds or more decide it: it is supported if the 95 % interval lies in the region, contradicted if
the interval lies outside, and undecided if the interval holds a bound of the region. So each of
the two wrong verdicts has an error rate of at most 2.5 %.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Literal

from lotteryfw.report.data.stats import Spread, t_quantile, t_tail

Decision = Literal["supported", "contradicted", "undecided"]

FEWEST_SEEDS = 3
"""With fewer seeds a verdict is undecided, whatever the values are."""
LEVEL = 0.05
"""The error rate of both wrong verdicts together: half of it on either side."""
MOST_SEEDS = 1000
"""More seeds than this are not counted one by one: nobody will train them."""

_ROUNDING = 1e-9
"""Numbers are equal that differ by this share: a bound in decimals is not exact in binary."""


@dataclass(frozen=True)
class Region:
    """The values of a mean at which a hypothesis holds, both ends included unless `open_ends`."""

    low: float = -inf
    high: float = inf
    open_ends: bool = False

    def __contains__(self, value: float) -> bool:
        if self.open_ends:
            return self.low < value < self.high
        return self.low <= value <= self.high


ABOVE_ZERO = Region(low=0.0, open_ends=True)
"""One side is higher than another. Equal values in all seeds do not show it."""
BELOW_ZERO = Region(high=0.0, open_ends=True)
"""One side is lower than another."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds held against a region.

    `p_supported` is the probability of values as favourable as these if the hypothesis were just
    wrong, `p_contradicted` of values as unfavourable if it were just right; both are one-sided, and
    None with fewer than three seeds, or if a seed's value is not finite. `level` is the two-sided
    error rate at which the estimate is judged: 5 %, or less after a correction for several tests.
    `rivals` is the number of estimates of which any one would contradict the hypothesis, this one
    included: they share the error rate.
    """

    spread: Spread
    region: Region
    p_supported: float | None
    p_contradicted: float | None
    level: float = LEVEL
    rivals: int = 1

    @classmethod
    def of(cls, values: Sequence[float], region: Region, scale: float = 0.0) -> Estimate:
        """Return the estimate of at least one value, a value for each seed.

        `scale` is the size of the numbers that the values are differences of: a difference of a
        billionth of it is rounding.
        """
        spread = Spread.of(values)
        if spread.n < FEWEST_SEEDS or not isfinite(spread.mean):
            return cls(spread, region, None, None)
        largest = max(scale, *map(abs, values))
        for end in (region.low, region.high):
            if isfinite(end):
                largest = max(largest, abs(end))
        rounding = _ROUNDING * largest
        # The mean is in the region only if it is on the right side of both ends, so both tests
        # have to pass (Schuirmann 1987, two one-sided tests).
        inside, outside = [], []
        for end, side in ((region.low, 1), (region.high, -1)):
            if isfinite(end):
                distance = side * (spread.mean - end)
                inside.append(_p_beyond(distance, spread, region.open_ends, rounding))
                outside.append(_p_beyond(-distance, spread, True, rounding))
        # It is outside if it is beyond either end. It cannot be beyond both, so the smaller
        # p-value needs no correction.
        return cls(spread, region, max(inside), min(outside))

    @property
    def p(self) -> float | None:
        """The two-sided p-value: twice the smaller of the two; None with fewer than three seeds."""
        if self.p_supported is None or self.p_contradicted is None:
            return None
        return min(1.0, 2 * min(self.p_supported, self.p_contradicted))

    @property
    def decision(self) -> Decision:
        """The verdict at this estimate's own error rate."""
        return decide(self.p_supported, self.p_contradicted, self.level)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; None where there is no p-value."""
        return None if self.p_supported is None else self.spread.interval()

    def withheld(self) -> Estimate:
        """Return the same estimate, which decides nothing."""
        if self.p is None:
            return self
        return replace(self, p_supported=1.0, p_contradicted=1.0)

    def at_level(self, level: float) -> Estimate:
        """Return the same estimate, judged at another error rate."""
        return replace(self, level=level)

    def seeds_to_decide(self) -> int | None:
        """Return how many seeds would decide, if mean and spread stayed as they are.

        None means more than 1,000, or that no number would: the mean lies on a bound.
        """
        sd = self.spread.sd
        if sd is None:
            return FEWEST_SEEDS  # one seed says nothing of the spread
        # an end at infinity is infinitely far, and so never the nearer one
        to_low = abs(self.spread.mean - self.region.low)
        to_high = abs(self.spread.mean - self.region.high)
        distance = min(to_low, to_high)
        level = self.level if self.spread.mean in self.region else self.level / self.rivals

        def decides(n: int) -> bool:
            """Return whether half the width of the interval is less than that distance."""
            return t_quantile(1 - level / 2, n - 1) * sd / sqrt(n) < distance

        # the width falls with every seed, so the first number that decides can be bisected
        counts = range(FEWEST_SEEDS, MOST_SEEDS + 1)
        first = bisect_left(counts, True, key=decides)
        return counts[first] if first < len(counts) else None


def decide(p_supported: float | None, p_contradicted: float | None, level: float) -> Decision:
    """Return the verdict of two one-sided tests at a two-sided error rate."""
    if p_supported is None or p_contradicted is None:
        return "undecided"
    # half of the level on either side: what the 95 % interval does
    if p_supported <= level / 2:
        return "supported"
    if p_contradicted <= level / 2:
        return "contradicted"
    return "undecided"


def holm_levels(p_values: Sequence[float | None], level: float = LEVEL) -> list[float]:
    """Return the error rate at which each of several tests is judged, so that all keep `level`.

    Holm 1979: the smallest p-value is judged at level / m, the next one at level / (m - 1), and so
    on up to the first that is not significant; that one and all larger ones are judged at its
    rate. A test without a p-value is no test and does not count.
    """
    order: list[tuple[float, int]] = []
    for index, p_value in enumerate(p_values):
        if p_value is not None:
            order.append((p_value, index))
    order.sort()
    levels = [level] * len(p_values)
    remaining = len(order)
    for rank, (p_value, index) in enumerate(order):
        levels[index] = level / remaining
        if p_value > level / remaining:
            # Holm stops here: a later test is not significant at its own, milder rate, either
            for _, later in order[rank:]:
                levels[later] = level / remaining
            break
        remaining -= 1
    return levels


def _p_beyond(distance: float, spread: Spread, strictly: bool, rounding: float) -> float:
    """Return P(T ≥ t) of Student's t, if the mean lies `distance` beyond its bound."""
    assert spread.sd is not None, "one value has no spread"
    error = spread.sd / sqrt(spread.n)
    # equal values in all seeds differ by rounding at most, and t would magnify that
    is_equal = error <= _ROUNDING * rounding
    if is_equal or (abs(distance) <= rounding and error <= rounding):
        # on the bound itself: beyond it strictly is false, and not short of it is true
        if strictly:
            return 0.0 if distance > rounding else 1.0
        return 0.0 if distance >= -rounding else 1.0
    return t_tail(distance / error, spread.n - 1)
