"""Panels of the static figures: functions that draw on matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log10
from typing import TYPE_CHECKING, Any

from lotteryfw.report.data.choice import evenly_chosen
from lotteryfw.report.data.series import PointSpread, Series, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent
from lotteryfw.report.plots.analysis_views import Scatter, WeightSample
from lotteryfw.report.plots.dot_plot import DotPlot
from lotteryfw.report.plots.line_plots import LinePlot
from lotteryfw.report.plots.style import (
    HUES,
    KEPT_COLOUR,
    MASKED_COLOUR,
    ErrorScale,
    LineStyle,
    line_styles,
    spaced_densities,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#222222"
PANEL_SIZE = (4.9, 4.3)
"""Width and height of a panel of curves, in inches."""

_GRID_COLOUR = "#DDDDDD"
_LONG_DASH: Any = (0, (6, 3))
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = "os^Dv<>PXphd*"
_SMALL_LETTERS = 36  # the same in a small panel, with letters of 7 points
_LETTERS = 50  # category names side by side in a panel, before they touch


def draw_curves(
    axes: Axes,
    study: StudySeries,
    unit: Unit,
    point_spread: PointSpread,
    scale: ErrorScale | None = None,
) -> None:
    """Draw a figure of each series against weights remaining, with the dense network's."""
    # an error below the floor is drawn at it
    highest = 100 - scale.floor if scale else inf
    dense = point_spread(study.dense) if study.dense else None
    if dense:
        _draw_dense(axes, dense, unit.scale, highest)
    for series, style in zip(study.series, line_styles(study.series), strict=True):
        _draw_curve(axes, series, point_spread, style, unit.scale, highest)

    # a network without weights has no place on a log axis
    densities = sorted({point.density for point in study.points} - {0.0})
    if densities:
        axes.set_xscale("log")
        _label_densities(axes, densities)
    axes.set_xlabel("weights remaining (%)")
    axes.set_ylabel(unit.axis)
    # thousands apart, for steps; 10 digits hide what a tick's binary value is off by
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if scale:
        _space_by_error(axes, scale)
    _finish(axes)


def draw_dots(axes: Axes, plot: DotPlot) -> None:
    """Draw a dot with a bar of ±1 sd for each row in each category."""
    scale = plot.unit.scale
    for index, row in enumerate(plot.rows):
        x, means, deviations = [], [], []
        for category, spread in row.spreads.items():
            x.append(plot.x(index, category))
            means.append(spread.mean * scale)
            deviations.append((spread.sd or 0) * scale)  # no bar for a single seed
        axes.errorbar(
            x,
            means,
            yerr=deviations,
            color=row.style.colour,
            linestyle="none",
            marker=_marker(row.style),
            markersize=5,
            capsize=2,
            linewidth=1,
            label=row.label,
        )

    count = len(plot.categories)
    is_tight = count * max(map(len, plot.categories)) > _LETTERS
    axes.set_xticks(range(count), plot.categories, fontsize=9, rotation=20 if is_tight else 0)
    # half a category of room on either side, whichever categories have dots
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xlabel(plot.axis)
    axes.set_ylabel(plot.title)
    _finish(axes)


def draw_lines(axes: Axes, plot: LinePlot | None, title: str) -> None:
    """Draw lines with bands of ±1 sd; without a plot the panel stays empty."""
    axes.set_title(title, fontsize=8)
    if plot is None:
        axes.set_axis_off()
        return
    for line in plot.lines:
        _draw_line(axes, line.points, line.style, plot.unit.scale, line.label)
    if plot.categories:
        # fewer names where they would touch: a panel has room for so many letters
        letters = max(map(len, plot.categories)) + 2
        ticks = evenly_chosen(range(len(plot.categories)), max(2, _SMALL_LETTERS // letters))
        axes.set_xticks(ticks, [plot.categories[tick] for tick in ticks], fontsize=7)
    axes.tick_params(labelsize=7)
    axes.set_xlabel(plot.x_title, fontsize=8)
    axes.set_ylabel(plot.unit.axis, fontsize=8)
    _finish(axes)


def draw_scatter(axes: Axes, scatter: Scatter, unit: Unit) -> None:
    """Draw accuracy against a figure, with a colour for each value of an axis of the grid."""
    for index, (value, points) in enumerate(scatter.groups.items()):
        figures, accuracies = [], []
        for point in points:
            figures.append(point.x * unit.scale)
            accuracies.append(point.y * scatter.y_unit.scale)
        axes.plot(
            figures,
            accuracies,
            linestyle="none",
            color=HUES[index % len(HUES)],
            marker=_MARKERS[index // len(HUES) % len(_MARKERS)],
            markersize=4.5,
            alpha=0.8,
            label=value,
        )
    axes.set_xlabel(unit.axis)
    axes.set_ylabel(scatter.y_unit.axis)
    if scatter.axis:
        axes.legend(title=scatter.axis_name, fontsize=7, title_fontsize=8, frameon=False)
    _finish(axes)


def draw_weights(axes: Axes, sample: WeightSample, title: str) -> None:
    """Draw w_f against w_i, kept and masked, and the diagonal of unchanged weights."""
    ends = sample.ends
    axes.plot(ends, ends, color="#888888", linestyle=_LONG_DASH, linewidth=1, label="unchanged")
    # the kept ones last, and so on top: at low densities they are few
    for name, kept, colour in (("masked", False, MASKED_COLOUR), ("kept", True, KEPT_COLOUR)):
        befores, afters = [], []
        for before, after in sample.weights(kept):
            befores.append(before)
            afters.append(after)
        axes.plot(
            befores,
            afters,
            color=colour,
            linestyle="none",
            marker=".",
            markersize=2.5,
            alpha=0.6,
            label=name,
        )
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(color=_GRID_COLOUR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _marker(style: LineStyle) -> str:
    return _MARKERS[style.marker % len(_MARKERS)]


def _draw_dense(axes: Axes, spread: Spread, scale: float, highest: float) -> None:
    # a line across the panel, as the goal of every level, not a point at 100 %
    mean = min(spread.mean * scale, highest)
    axes.axhline(mean, color=INK, linestyle=_LONG_DASH, linewidth=1, label="dense network")
    if spread.sd:
        low, high = _band(spread, scale, highest)
        axes.axhspan(low, high, color=INK, alpha=0.08, linewidth=0)


def _draw_curve(
    axes: Axes,
    series: Series,
    point_spread: PointSpread,
    style: LineStyle,
    scale: float,
    highest: float,
) -> None:
    points = []
    for point in series.points:
        spread = point_spread(point)
        # a density of 0 has no place on a log axis
        if spread and point.density > 0:
            points.append((100 * point.density, spread))
    _draw_line(axes, points, style, scale, series.label, highest)


def _draw_line(
    axes: Axes,
    points: Sequence[tuple[float, Spread]],
    style: LineStyle,
    scale: float,
    label: str,
    highest: float = inf,
) -> None:
    x, means, lows, highs = [], [], [], []
    for position, spread in points:
        low, high = _band(spread, scale, highest)
        x.append(position)
        means.append(min(spread.mean * scale, highest))
        lows.append(low)
        highs.append(high)

    axes.plot(
        x,
        means,
        color=style.colour,
        linestyle=_DASHES[style.line],
        linewidth=1.6,
        markersize=4,
        marker=_marker(style),
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=label,
    )
    axes.fill_between(x, lows, highs, color=style.colour, alpha=0.15, linewidth=0)


def _band(spread: Spread, scale: float, highest: float) -> tuple[float, float]:
    """Return mean ± sd, at most `highest`."""
    sd = spread.sd or 0
    low, high = (spread.mean - sd) * scale, (spread.mean + sd) * scale
    return min(low, highest), min(high, highest)


def _space_by_error(axes: Axes, scale: ErrorScale) -> None:
    import numpy as np
    from matplotlib.ticker import NullLocator

    smallest = min(scale.floor, 100 - scale.high)

    def to_axis(accuracy: Any) -> Any:
        # minus, so that a higher accuracy is higher up
        return -np.log10(np.maximum(100 - accuracy, smallest))

    def to_accuracy(height: Any) -> Any:
        return 100 - 10.0**-height

    axes.set_yscale("function", functions=(to_axis, to_accuracy))
    axes.set_ylim(scale.low, scale.high)
    axes.set_yticks(list(map(scale.position, scale.ticks)), [f"{tick:g}" for tick in scale.ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{axes.get_ylabel()}, log-spaced error")


def _label_densities(axes: Axes, densities: Sequence[float]) -> None:
    """Label as many of the real levels as fit without touching, falling from left to right."""
    from matplotlib.ticker import FixedLocator, NullLocator

    densest, sparsest = 100 * max(densities), 100 * min(densities)
    # 3 % of the axis at either end, a factor on a log axis; of a single level a factor of 2
    margin = (densest / sparsest) ** 0.03 if densest > sparsest else 2.0
    left_end, right_end = densest * margin, sparsest / margin
    axes.set_xlim(left_end, right_end)
    # the axes themselves take about 0.8 of a panel's width
    inches_per_decade = PANEL_SIZE[0] * 0.8 / log10(left_end / right_end)
    labelled = spaced_densities(densities, 0.46 / inches_per_decade)  # inches: "51.3" is narrower
    axes.xaxis.set_major_locator(FixedLocator([100 * density for density in labelled]))
    # a log axis' own minor ticks stand at densities that nothing was trained at
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: percent(value / 100))
