"""How curves look, in the static figures and in the page alike: colour, line and marker of a series, ticks, axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import TypeVar

from lotteryfw.report.data.series import Series, Study

T = TypeVar("T")

# Okabe & Ito's colours without black and yellow: told apart by colour-blind people too. Line and marker tell the rest.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A68B3")
LINES = 4
"""How many kinds of line there are: solid, dashed, dotted, both."""

_ACCURACIES = (0, 50, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.7, 99.8, 99.9)


@dataclass(frozen=True)
class Look:
    """`line` and `marker` are numbers: each way of drawing has its own kinds."""

    colour: str
    line: int
    marker: int


def looks_of(series: Sequence[Series]) -> list[Look]:
    """A look for each series. With controls, a colour means a combination and a line a variant."""
    combinations = list(dict.fromkeys(tuple(each.axes.items()) for each in series))
    variants = list(dict.fromkeys(each.variant for each in series))
    by_arm = len(combinations) > 1 and len(variants) > 1
    looks = []
    for place, each in enumerate(series):
        hue, line = divmod(place, len(HUES))[::-1]
        if by_arm:
            hue, line = combinations.index(tuple(each.axes.items())), variants.index(each.variant)
        looks.append(Look(HUES[hue % len(HUES)], line % LINES, place))
    return looks


@dataclass(frozen=True)
class ErrorScale:
    """Accuracies spaced by the logarithm of the error, as 98 and 99 % would else look alike. All in per cent.

    Errors below `floor` are drawn there. `low` and `high` are the accuracies at the ends, `ticks` those to name.
    """

    floor: float
    low: float
    high: float
    ticks: tuple[float, ...]


def error_scale(study: Study, metric: str) -> ErrorScale | None:
    """The scale for an accuracy that reaches from good to useless; None where a plain axis shows it as well."""
    if not metric.endswith("accuracy"):
        return None
    spreads = [
        spread
        for series in study.series
        for point in series.points
        if (spread := point.spread(metric))
    ]
    errors = [100 * (1 - spread.mean) for spread in spreads]
    best = min((error for error in errors if error > 0), default=100.0)
    if max(errors, default=0.0) < 10 * best:
        return None
    floor, low = best / 2, max(0.0, 100 - 1.15 * max(errors))
    return ErrorScale(
        floor, low, 100 - best / 1.4, tuple(t for t in _ACCURACIES if low <= t <= 100 - floor)
    )


def spaced(densities: Sequence[float], gap: float) -> list[float]:
    """As many of the densities as lie at least `gap` decades apart, falling from the largest."""
    chosen: list[float] = []
    for density in sorted(densities, reverse=True):
        if not chosen or log10(chosen[-1] / density) > gap:
            chosen.append(density)
    return chosen


def chosen(every: Sequence[T], most: int) -> list[T]:
    """At most so many (two at least), evenly, the first and the last among them."""
    last = len(every) - 1
    if last < most:
        return list(every)
    return [every[round(place * last / (most - 1))] for place in range(most)]


def caption(study: Study, marks: str = "bands") -> str:
    """What is drawn: means over so many seeds, and `marks` around them."""
    counts = sorted(
        {len(point.rows) for series in study.series for point in series.points if point.rows}
    )
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    told = [
        f"Mean over n = {n} seeds; {marks} are ±1 standard deviation."
        if counts[-1] > 1
        else "One seed."
    ]
    if study.diverged:
        told.append(
            f"{study.diverged} diverged training{'s' if study.diverged > 1 else ''} left out."
        )
    if study.left_out:
        told.append(f"Shown are {study.partly_shown}.")
    return " ".join(told)
