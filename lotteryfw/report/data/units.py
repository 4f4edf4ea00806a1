"""Units of figures: accuracies and densities in per cent, steps with thousands separators."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lotteryfw.report.data.stats import Spread

ACCURACY = "test_accuracy"
"""The metric that tables, figures and charts show first."""
FIGURE = "accuracy"
"""The name of an objective's figure where the manifest has none; columns have it always."""
LOSS_UNIT = "nats per example"
"""The unit of an objective's loss where the manifest has none: that of cross-entropy."""
OBJECTIVE_FIGURES = {
    ACCURACY,
    "validation_accuracy",
    "early_test_accuracy",
    "early_validation_accuracy",
    "metric.train_accuracy",
}
"""The columns of levels.csv that have the objective's figure."""
SUMMARY_METRICS = (ACCURACY, "early_stop_step")
"""The metrics of a summary: a table and a panel for each."""


@dataclass(frozen=True)
class Unit:
    """The unit in which a metric is shown: `scale` times the stored figure, with `decimals`.

    `title` heads a table, `axis` labels an axis, `suffix` follows a figure and
    `difference_suffix` a difference of two figures.
    """

    title: str
    axis: str
    scale: float
    decimals: int
    suffix: str
    difference_suffix: str

    def number(self, value: float, sign: str = "") -> str:
        """Return a figure without its unit; `sign="+"` also marks gains."""
        # z: a difference that rounds to zero is "0.00" and not "-0.00"
        return f"{value * self.scale:{sign}z,.{self.decimals}f}"

    def spread(self, spread: Spread, sign: str = "") -> str:
        """Return "97.81 ± 0.12", or the mean alone for a single value."""
        mean = self.number(spread.mean, sign)
        if spread.sd is None:
            return mean
        return f"{mean} ± {self.number(spread.sd)}"


def metric_name(metric: str, figure: str) -> str:
    """Return a column of levels.csv in words; `figure` is what the objective calls its figure.

    >>> metric_name("early_test_accuracy", "explained variance")
    'early test explained variance'
    """
    name = metric.replace("_", " ")
    if metric in OBJECTIVE_FIGURES:
        name = name.replace(FIGURE, figure)
    return name


def unit_of(metric: str, figure: str = FIGURE, loss_unit: str = LOSS_UNIT) -> Unit:
    """Return the unit of a column of levels.csv, or of the curve of one.

    `figure` is what the objective calls its figure, and `loss_unit` the unit of its loss.
    """
    name = metric_name(metric, figure).replace("early stop step", "early-stopping step")
    name = re.sub("^early (.*)", r"\1 at the early-stopping step", name)
    if metric.endswith("accuracy"):
        return _share(name)
    if metric.endswith("loss"):
        axis = f"{name} ({loss_unit})" if loss_unit else name
        return Unit(name, axis, 1, 4, "", "")
    if metric.endswith("density"):
        return _share(name)
    if metric.startswith("weights"):
        return Unit(name, name, 1, 0, " weights", " weights")
    return Unit(name, f"{name} (updates)", 1, 0, " steps", " steps")


def figure_unit(figure: str, kind: str) -> Unit:
    """Return the unit of a figure that the run folder calls a "share" or a "number".

    These are the figures of analyses and of kernels.
    """
    name = figure.replace("_", " ")
    if kind == "share":
        return _share(name)
    return Unit(name, name, 1, 4, "", "")


def _share(name: str) -> Unit:
    return Unit(f"{name}, %", f"{name} (%)", 100, 2, " %", " points")


def percent(density: float) -> str:
    """Return the weights remaining in per cent, as papers write them, without the sign.

    >>> [percent(density) for density in (1, 0.5127, 0.07, 0.0041)]
    ['100', '51.3', '7', '0.41']
    """
    value = 100 * density
    # below one per cent a decimal would hide the level: 0.41 and 0.36 are different ones
    if value >= 0.95:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2g}"


def density_range(densities: list[float]) -> str:
    """Return the densest and the sparsest in per cent: "51.3–21.1", or one where they read alike.

    `densities` fall from dense to sparse.
    """
    # a dict drops the second of two equal texts
    ends = dict.fromkeys((percent(densities[0]), percent(densities[-1])))
    return "–".join(ends)


def duration(seconds: float) -> str:
    """Return a duration for people.

    >>> [duration(seconds) for seconds in (0.2, 75, 4000, 20_000)]
    ['0.2 s', '75 s', '67 min', '5.6 h']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
