"""Building blocks of the page's charts: views as plain data that plotly.js draws.

A `Chart` may have several views, of which a reader sees one at a time. Colours, lines and the
choice of axes are those of the static figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite, log10
from typing import Any

from lotteryfw.report.data.choice import evenly_chosen
from lotteryfw.report.data.series import Point, PointSpread, Series, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent
from lotteryfw.report.plots.dot_plot import DotPlot
from lotteryfw.report.plots.line_plots import LinePlot
from lotteryfw.report.plots.style import ErrorScale, LineStyle, line_styles, spaced_densities

DENSE_COLOUR = "#8A8A8A"  # grey is seen on a light and on a dark page
DENSE_NAME = "dense network"
_DASHES = ("solid", "dash", "dot", "dashdot")
_MARKERS = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "triangle-down",
    "triangle-left",
    "triangle-right",
    "pentagon",
    "x",
    "hexagon",
    "star",
    "diamond-tall",
)
_TICKS = 8  # as many as fit the width of a phone
_TICK_LETTERS = 42  # side by side on it

Trace = dict[str, Any]
Height = Callable[[float], float]
"""A function from a figure to its height on the chart's axis."""


@dataclass(frozen=True)
class View:
    """One view of a chart: plotly.js's traces, and its layout's `xaxis` and `yaxis`.

    With `yaxis2` there is a second panel below, with the same x. `categories` are the names of x =
    0, 1, …, if it has names. `column` is the head of the figures in a file, where the axis has
    another title.
    """

    label: str
    traces: tuple[Trace, ...]
    xaxis: dict[str, Any]
    yaxis: dict[str, Any]
    yaxis2: dict[str, Any] | None = None
    categories: tuple[str, ...] = ()
    column: str = ""


@dataclass(frozen=True)
class Chart:
    """A titled chart of at least one view; `key` is unique on its page."""

    key: str
    title: str
    caption: str
    views: tuple[View, ...]


def curves_view(
    study: StudySeries,
    unit: Unit,
    point_spread: PointSpread,
    label: str = "",
    scale: ErrorScale | None = None,
) -> View:
    """Return a figure of each series against weights remaining, with the dense network's.

    With a scale the figure is an accuracy. It is plotted as 100 - accuracy, on a log axis that is
    labelled with the accuracy.
    """

    # a network without weights has no place on a log axis
    densities = sorted({point.density for point in study.points if point.density > 0})
    # an axis needs an end even where every level is without weights
    densities = densities or [1.0]
    traces: list[Trace] = []
    dense = point_spread(study.dense) if study.dense else None
    if dense:
        traces += _dense_line(dense, unit, densities, scale)
    for series, style in zip(study.series, line_styles(study.series), strict=True):
        traces += _series_curve(series, style, unit, point_spread, scale)

    xaxis = density_axis(densities)
    if not scale:
        return View(label or unit.axis, tuple(traces), xaxis, {"title": unit.axis})
    title = f"{unit.axis}, log-spaced error"
    yaxis = {"title": title, **_error_axis(scale)}
    return View(label or title, tuple(traces), xaxis, yaxis, column=unit.axis)


def _dense_line(
    spread: Spread, unit: Unit, densities: Sequence[float], scale: ErrorScale | None
) -> list[Trace]:
    # a line across the chart, as the goal of every level, not a point at 100 %
    points = [(100 * densities[-1], spread), (100 * densities[0], spread)]
    text = hover_text(DENSE_NAME, "100 % of the weights", unit, spread)
    line = {"color": DENSE_COLOUR, "dash": "longdash", "width": 1.5}
    style = {"line": line, "mode": "lines", "text": [text, text]}
    return _curve_of_unit(DENSE_NAME, points, unit, scale, style)


def _series_curve(
    series: Series,
    style: LineStyle,
    unit: Unit,
    point_spread: PointSpread,
    scale: ErrorScale | None,
) -> list[Trace]:
    points = []
    texts = []
    for point in series.points:
        spread = point_spread(point)
        # a density of 0 has no place on a log axis
        if spread and point.density > 0:
            points.append((100 * point.density, spread))
            texts.append(hover_text(series.label, _level_text(point), unit, spread))
    if not points:
        return []
    drawn = {"mode": "lines+markers", "text": texts, **plotly_style(style)}
    return _curve_of_unit(series.label, points, unit, scale, drawn)


def _curve_of_unit(
    name: str,
    points: Sequence[tuple[float, Spread]],
    unit: Unit,
    scale: ErrorScale | None,
    style: Trace,
) -> list[Trace]:
    if scale is None:
        return curve(name, points, lambda value: value * unit.scale, **style)
    floor = scale.floor
    # What is drawn is the error: the page saves the figures themselves, which the plain view
    # stores in any case.
    figures = [rounded(spread.mean * unit.scale) for _, spread in points]
    return curve(
        name,
        points,
        lambda value: max(100 - value * unit.scale, floor),
        customdata=figures,
        **style,
    )


def _level_text(point: Point) -> str:
    return f"{percent(point.density)} % of the weights, level {point.level}"


def dots_view(plot: DotPlot) -> View:
    """Return dots with bars of ±1 sd, each row in its own colour."""
    last = len(plot.categories) - 1
    # numbers, and not plotly's categories, so that the dots of one category stand side by side
    xaxis = {
        "title": plot.axis,
        "tickvals": list(range(last + 1)),
        "ticktext": list(map(plotly_text, plot.categories)),
        "range": [-0.5, last + 0.5],
    }
    traces = tuple(_dots(plot, index) for index in range(len(plot.rows)))
    yaxis = {"title": plot.title}
    return View(plot.title, traces, xaxis, yaxis, categories=plot.categories)


def _dots(plot: DotPlot, index: int) -> Trace:
    row, unit = plot.rows[index], plot.unit
    x, means, deviations, texts, counts = [], [], [], [], []
    for category, spread in row.spreads.items():
        counts.append(spread.n)
        x.append(rounded(plot.x(index, category)))
        means.append(rounded(spread.mean * unit.scale))
        deviations.append(rounded((spread.sd or 0) * unit.scale))
        texts.append(hover_text(row.label, plotly_text(category), unit, spread))
    # the style of a curve has its colour in the line, which dots do not have
    marker = plotly_style(row.style)["marker"]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{plotly_text(row.label)} (n = {count_range(counts)})",
        "legendgroup": row.label,
        "x": x,
        "y": means,
        "error_y": {"type": "data", "array": deviations, "thickness": 1.2, "width": 3},
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {**marker, "color": row.style.colour},
    }


def lines_view(label: str, plot: LinePlot, lower: LinePlot | None = None) -> View:
    """Return the lines of a plot, and of another plot of the same x in a panel below."""
    traces = _plot_lines(plot)
    if lower:
        for trace in _plot_lines(lower):
            # its lines are those of the upper panel, which the legend names already
            traces.append({**trace, "yaxis": "y2", "showlegend": False})
    xaxis: dict[str, Any] = {"title": plot.x_title}
    if plot.categories:
        last = len(plot.categories) - 1
        letters = max(map(len, plot.categories)) + 2  # with a gap
        ticks = evenly_chosen(range(last + 1), max(2, _TICK_LETTERS // letters))
        xaxis |= {
            "tickvals": ticks,
            "ticktext": [plotly_text(plot.categories[tick]) for tick in ticks],
            "range": [-0.1 * last, 1.1 * last],
        }
    yaxis2 = {"title": lower.unit.axis} if lower else None
    yaxis = {"title": plot.unit.axis}
    return View(label, tuple(traces), xaxis, yaxis, yaxis2, plot.categories)


def _plot_lines(plot: LinePlot) -> list[Trace]:
    traces: list[Trace] = []
    for line in plot.lines:
        texts = []
        for x, spread in line.points:
            texts.append(
                hover_text(line.label, plotly_text(plot.position_text(x)), plot.unit, spread)
            )
        traces += curve(
            line.label,
            line.points,
            lambda value: value * plot.unit.scale,
            mode="lines+markers",
            text=texts,
            **plotly_style(line.style),
        )
    return traces


def density_axis(densities: Sequence[float]) -> dict[str, Any]:
    """Return the log axis of weights remaining for densities in rising order."""
    # a tenth less than an even division: levels are a little uneven where layers have rates of
    # their own, and of two gaps that look alike one would be named and the other not
    gap = 0.9 * log10(densities[-1] / densities[0]) / _TICKS
    ticks = spaced_densities(densities, gap)
    return {
        "title": "weights remaining (%)",
        "type": "log",
        "tickangle": 0,
        "autorange": "reversed",  # as in the papers, from dense to sparse
        "tickvals": [100 * density for density in ticks],
        "ticktext": list(map(percent, ticks)),
    }


def _error_axis(scale: ErrorScale) -> dict[str, Any]:
    errors, accuracies = [], []
    for tick in scale.ticks:
        # plotly.js has no axis of this spacing: it shows the error, labelled with the accuracy
        errors.append(100 - scale.position(tick))
        accuracies.append(f"{tick:g}")
    return {"type": "log", "autorange": "reversed", "tickvals": errors, "ticktext": accuracies}


def deviation_band(spread: Spread) -> tuple[float, float]:
    """Return mean ± sd."""
    sd = spread.sd or 0
    return spread.mean - sd, spread.mean + sd


def curve(
    name: str,
    points: Sequence[tuple[float, Spread]],
    height: Height,
    band: Callable[[Spread], tuple[float, float]] = deviation_band,
    **style: Any,
) -> list[Trace]:
    """Return a curve of at least one point, and its band, by default ±1 sd, beneath it.

    Both are one legend group, so a click in the legend hides both.
    """
    x, means, highs, lows, counts = [], [], [], [], []
    has_band = False
    for position, spread in points:
        low, high = band(spread)
        has_band = has_band or high > low
        counts.append(spread.n)
        x.append(rounded(position))
        # the ends of the band by `height`, too, which need not be linear
        means.append(rounded(height(spread.mean)))
        highs.append(rounded(height(high)))
        lows.append(rounded(height(low)))

    line = {
        "type": "scatter",
        "name": f"{plotly_text(name)} (n = {count_range(counts)})",
        "legendgroup": name,
        "hovertemplate": "%{text}<extra></extra>",
        "x": x,
        "y": means,
        **style,
    }
    # one seed, or seeds that agree: a band without width would only make the page heavy
    if not has_band:
        return [line]

    outline = {
        "type": "scatter",
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
        "mode": "lines",
        # the outline: forth along the upper edge, back along the lower
        "x": [*x, *reversed(x)],
        "y": [*highs, *reversed(lows)],
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": f"{style['line']['color']}26",  # hexadecimal: an opacity of 15 %
    }
    return [outline, line]


def plotly_style(style: LineStyle) -> dict[str, Any]:
    """Return a series' style as plotly.js's `line` and `marker`."""
    line = {"color": style.colour, "dash": _DASHES[style.line], "width": 2}
    return {"line": line, "marker": {"symbol": _MARKERS[style.marker % len(_MARKERS)], "size": 7}}


def plotly_text(text: str) -> str:
    """Return a text for plotly.js, which reads a little HTML; it does not know &quot;."""
    return escape(text, quote=False)


def hover_text(name: str, where: str, unit: Unit, spread: Spread, sign: str = "") -> str:
    """Return the text of a point; plotly.js reads a little HTML in it, so the name is escaped."""
    n = f"n = {spread.n}" if spread.sd is None else f"mean ± sd, n = {spread.n}"
    suffix = unit.difference_suffix if sign else unit.suffix
    figures = f"{unit.spread(spread, sign)}{suffix} ({n})"
    lines = [f"<b>{plotly_text(name)}</b>", where, figures]
    interval = spread.interval()
    if interval:
        low, high = interval
        lines.append(f"95 % interval {unit.number(low, sign)} to {unit.number(high, sign)}")
    return "<br>".join(lines)


def count_range(counts: Iterable[int]) -> str:
    """Return the range of these counts, as "5" or "3–5"."""
    ordered = sorted(counts)
    ends = dict.fromkeys((str(ordered[0]), str(ordered[-1])))
    return "–".join(ends)


def rounded(value: float, digits: int = 6) -> float | None:
    """Return a figure with so many digits: more than a screen shows would make the page heavy.

    None, which plotly.js leaves out, stands for a value that is not finite: JSON has no NaN.
    """
    return float(f"{value:.{digits}g}") if isfinite(value) else None
