"""Figures as people read them: accuracies and densities in per cent, steps with thousands apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lotteryfw.report.data.stats import Spread


@dataclass(frozen=True)
class Unit:
    """How a metric is shown: `scale` times the stored figure, with so many decimals.

    `title` heads a table, `axis` is written along an axis, `apart` is the unit of a difference.
    """

    title: str
    axis: str
    scale: float
    decimals: int
    suffix: str
    apart: str

    def number(self, value: float, sign: str = "") -> str:
        """A figure without its unit; `sign="+"` also marks gains."""
        return f"{value * self.scale:{sign}z,.{self.decimals}f}"

    def spread(self, spread: Spread, sign: str = "") -> str:
        """ "97.81 ± 0.12", or the mean alone where there is one value."""
        mean = self.number(spread.mean, sign)
        return mean if spread.sd is None else f"{mean} ± {self.number(spread.sd)}"


_SHARES = ("accuracy", "dying_ratio", "turnover")


def unit_of(metric: str) -> Unit:
    """The unit of a column of levels.csv, or of what curves.jsonl measures."""
    name = metric.replace("_", " ").replace("early stop step", "early-stopping step")
    name = re.sub("^early (.*)", r"\1 at the early-stopping step", name)
    if metric.endswith(_SHARES):
        return _share(name)
    if metric.endswith("loss"):
        return Unit(name, f"{name} (nats per example)", 1, 4, "", "")
    return Unit(name, f"{name} (updates)", 1, 0, " steps", " steps")


def found_unit(figure: str, said: str) -> Unit:
    """The unit of an analysis' figure, which its findings say: "share" or "number"."""
    name = figure.replace("_", " ")
    return _share(name) if said == "share" else Unit(name, name, 1, 4, "", "")


def _share(name: str) -> Unit:
    return Unit(f"{name}, %", f"{name} (%)", 100, 2, " %", " points")


def percent(density: float) -> str:
    """Weights remaining in per cent, as the papers write it, without the sign.

    >>> [percent(density) for density in (1, 0.5127, 0.07, 0.0041)]
    ['100', '51.3', '7', '0.41']
    """
    value = 100 * density
    return f"{value:.1f}".removesuffix(".0") if value >= 0.95 else f"{value:.2g}"
