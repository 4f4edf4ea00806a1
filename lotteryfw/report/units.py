"""Figures as people read them: accuracies and densities in per cent, steps with thousands apart."""

from __future__ import annotations

from dataclasses import dataclass

from lotteryfw.report.stats import Spread


@dataclass(frozen=True)
class Unit:
    """How a metric is shown: `scale` times the stored figure, with so many decimals. `apart` is a difference's unit."""

    title: str
    scale: float
    decimals: int
    suffix: str
    apart: str

    def number(self, value: float, sign: str = "") -> str:
        """A figure without its unit; `sign="+"` also marks gains."""
        return f"{value * self.scale:{sign},.{self.decimals}f}"

    def spread(self, spread: Spread, sign: str = "") -> str:
        """ "97.81 ± 0.12", or the mean alone where there is one value."""
        mean = self.number(spread.mean, sign)
        return mean if spread.sd is None else f"{mean} ± {self.number(spread.sd)}"


def unit_of(metric: str) -> Unit:
    """The unit of a column of levels.csv."""
    title = metric.replace("_", " ").replace("early stop step", "early-stopping step")
    if metric.endswith("accuracy"):
        return Unit(f"{title}, %", 100, 2, " %", " points")
    if metric.endswith("loss"):
        return Unit(title, 1, 4, "", "")
    return Unit(title, 1, 0, " steps", " steps")


def percent(density: float) -> str:
    """Weights remaining in per cent, as the papers write it, without the sign.

    >>> [percent(density) for density in (1, 0.5127, 0.07, 0.0041)]
    ['100', '51.3', '7', '0.41']
    """
    value = 100 * density
    return f"{value:.1f}".removesuffix(".0") if value >= 0.95 else f"{value:.2g}"
