"""The style of curves, in the static figures and on the page alike: colours, ticks and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from lotteryfw.report.data.series import Series, StudySeries

# Okabe & Ito's colours, which colour-blind people distinguish, without black and yellow, and a
# violet. More series than colours differ by line and marker.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A68B3")
KEPT_COLOUR, MASKED_COLOUR = HUES[0], HUES[1]
LINES = 4
"""The number of line styles: solid, dashed, dotted, dash-dotted."""

_ACCURACIES = (0, 50, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.7, 99.8, 99.9)


@dataclass(frozen=True)
class LineStyle:
    """The style of one series; each drawer has its own list for `line` and `marker`."""

    colour: str
    line: int
    marker: int


def line_style(index: int) -> LineStyle:
    """Return the style of the series at this index: the colour changes first, then the line."""
    return LineStyle(HUES[index % len(HUES)], index // len(HUES) % LINES, index)


def line_styles(series: Sequence[Series]) -> list[LineStyle]:
    """Return a style for each series.

    If there are several variants, the colour shows the combination and the line the variant.
    """
    combinations = list(dict.fromkeys(one.combination for one in series))
    variants = list(dict.fromkeys(one.variant for one in series))
    # one of the two says nothing, so colour and line together tell the series apart
    if len(combinations) == 1 or len(variants) == 1:
        return list(map(line_style, range(len(series))))

    styles = []
    for index, one in enumerate(series):
        hue = combinations.index(one.combination)
        line = variants.index(one.variant)
        styles.append(LineStyle(HUES[hue % len(HUES)], line % LINES, index))
    return styles


@dataclass(frozen=True)
class ErrorScale:
    """An axis of accuracies spaced by the logarithm of the error, all in per cent.

    On a plain axis 98 and 99 % would look alike. Errors below `floor` are drawn at `floor`; `low`
    and `high` are the accuracies at the ends, `ticks` those that are labelled. Every mean lies
    between the ends.
    """

    floor: float
    low: float
    high: float
    ticks: tuple[float, ...]

    def position(self, tick: float) -> float:
        """Return the accuracy at whose place on the axis a tick stands."""
        return min(tick, 100 - self.floor)


def error_scale(study: StudySeries, metric: str) -> ErrorScale | None:
    """Return the scale for an accuracy whose errors span a factor of ten; else None.

    None, too, for what is no share: an explained variance may be negative.
    """
    if not metric.endswith("accuracy") or study.unit(metric).scale != 100:
        return None

    worst, best = 0.0, 100.0  # per cent
    is_perfect = False
    for point in (*study.points, *([study.dense] if study.dense else [])):
        spread = point.spread(metric)
        if not spread:
            continue
        if not 0 <= spread.mean <= 1:
            return None
        error = 100 * (1 - spread.mean)
        worst = max(worst, error)
        # an error of 0 has no place on a log axis
        if error > 0:
            best = min(best, error)
        else:
            is_perfect = True
    # within a factor of ten a plain axis shows the differences, and is easier to read
    if worst < 10 * best:
        return None

    # room for the band below the best mean, and a margin at either end of the axis
    floor = best / 2
    low = max(0.0, 100 - 1.15 * worst)
    ticks: list[float] = []
    for tick in _ACCURACIES:
        if low <= tick <= 100 - floor:
            ticks.append(tick)
    if not is_perfect:
        return ErrorScale(floor, low, 100 - best / 1.4, tuple(ticks))
    # 100 stands at the floor, with room for its label
    while ticks and ticks[-1] > 100 - 1.2 * floor:
        ticks.pop()
    return ErrorScale(floor, low, 100 - floor / 1.2, (*ticks, 100))


def spaced_densities(densities: Sequence[float], gap: float) -> list[float]:
    """Return the largest, the smallest, and those between that lie more than `gap` decades apart.

    The ends are named whatever the gap is: a reader asks first where an axis begins and ends.
    """
    ordered = sorted(densities, reverse=True)
    spaced = ordered[:1]
    for density in ordered[1:-1]:
        has_room = log10(density / ordered[-1]) > gap
        if has_room and log10(spaced[-1] / density) > gap:
            spaced.append(density)
    return [*spaced, *ordered[1:][-1:]]


def caption(study: StudySeries, *notes: str, marks: str = "bands") -> str:
    """Return the caption of a plot: the number of seeds, the meaning of `marks`, and `notes`.

    Empty notes are left out, and the number of seeds where no training has figures.
    """
    # a level may have fewer seeds than others, where a training diverged or is still to come
    counts = sorted({len(point.rows) for point in study.points if point.rows})
    sentences = []
    if counts and counts[-1] > 1:
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        sentences.append(f"Mean over n = {n} seeds; {marks} are ±1 standard deviation.")
    elif counts:
        sentences.append("One seed.")
    if study.diverged:
        plural = "s" if study.diverged > 1 else ""
        sentences.append(f"{study.diverged} diverged training{plural} left out.")
    if study.left_out:
        sentences.append(f"Shown are {study.partly_shown}.")
    return " ".join([*sentences, *filter(None, notes)])
