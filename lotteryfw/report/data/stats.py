"""Mean, spread and confidence interval of a handful of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan, cos, pi, sin, sqrt, tan


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `n` values.

    `sd` divides by n - 1, so it is None for a single value.
    """

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        n = len(values)
        mean = sum(values) / n
        if n == 1:
            return cls(mean, None, n)

        # two passes: sum(x²) - n mean² would cancel nearly all digits of accuracies near 1
        squares = sum((value - mean) ** 2 for value in values)
        return cls(mean, sqrt(squares / (n - 1)), n)

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Return Student's interval for the true mean, mean ± t sd / √n; None for one value."""
        if self.sd is None:
            return None
        half = t_quantile((1 + confidence) / 2, self.n - 1) * self.sd / sqrt(self.n)
        return self.mean - half, self.mean + half


def t_tail(t: float, freedom: int) -> float:
    """Return P(T > t) for Student's t with `freedom` degrees of freedom.

    >>> round(t_tail(2.776, 4), 3)
    0.025
    """
    beyond = (1 - _central_probability(atan(abs(t) / sqrt(freedom)), freedom)) / 2
    # the density is even, so one formula for |t| serves both sides
    return beyond if t >= 0 else 1 - beyond


def t_quantile(p: float, freedom: int) -> float:
    """Return the p-quantile of Student's t with `freedom` degrees of freedom, p in [0.5, 1).

    >>> round(t_quantile(0.975, 4), 3)
    2.776
    """
    # by the angle θ = arctan(t / √freedom), in which the whole axis is finite and easy to bisect
    low, high = 0.0, pi / 2
    # bisect until no float lies between the bounds
    while low < (middle := (low + high) / 2) < high:
        if _central_probability(middle, freedom) < 2 * p - 1:
            low = middle
        else:
            high = middle
    return tan(low) * sqrt(freedom)


def _central_probability(angle: float, freedom: int) -> float:
    """Return P(|T| ≤ tan(angle) √freedom), exactly: Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    # The series is finite: freedom odd has cos θ times 1, 2/3 cos²θ, …, freedom even has 1,
    # 1/2 cos²θ, …, so no tolerance and no table is needed for the handful of seeds of a study.
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    # with one degree of freedom (two seeds) the sum is empty, and P = 2θ / π
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    if odd:
        return 2 / pi * (angle + sin(angle) * total)
    return sin(angle) * total
