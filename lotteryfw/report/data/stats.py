"""Mean, spread and confidence interval of a handful of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin, sqrt, tan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """`mean` and sample standard deviation `sd` (over n - 1; None for one value) of `n` values."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        n = len(values)
        mean = sum(values) / n
        sd = sqrt(sum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return cls(mean, sd, n)

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Student's interval for the true mean: mean ± t sd / √n; None for one value, which says nothing of it."""
        if self.sd is None:
            return None
        half = t_quantile((1 + confidence) / 2, self.n - 1) * self.sd / sqrt(self.n)
        return self.mean - half, self.mean + half


def bootstrap(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap's interval for the true mean: Efron & Tibshirani 1993, section 13.3.

    Resamples are drawn from a stream of its own, so the same values in the same order give the same interval. With a
    handful of values it is narrower than Student's, and never reaches beyond them.
    """
    return _bootstrap(tuple(values), confidence)


@lru_cache(maxsize=10_000)  # the terminal's tables and the page ask for the same ones
def _bootstrap(values: tuple[float, ...], confidence: float) -> tuple[float, float]:
    import numpy as np

    drawn = np.asarray(values, dtype=float)[_resamples(len(values))]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn.mean(axis=1), (tail, 1 - tail))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _resamples(count: int) -> NDArray[Any]:
    """Return [10,000, count]: which of so many values each resample draws. It is what a fresh stream's `choice` draws,
    which takes four times as long as all the rest."""
    import numpy as np

    return np.random.default_rng(0).integers(0, count, size=(_RESAMPLES, count))


def t_quantile(p: float, freedom: int) -> float:
    """The value that a Student-t variable of `freedom` degrees of freedom stays below with probability p in [0.5, 1).

    >>> round(t_quantile(0.975, 4), 3)
    2.776
    """
    low, high = 0.0, pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(middle, freedom) < 2 * p - 1 else (low, middle)
    return tan(low) * sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """P(|T| ≤ tan(angle) √freedom), exactly: Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
