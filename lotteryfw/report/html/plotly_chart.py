"""What charts of the page are made of: views as plain data that plotly.js draws. Nothing here knows of HTML.

A `Chart` may have several views, of which a reader sees one at a time. Colours, lines and the choice of axes are those
of the static figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any

from lotteryfw.report.data.series import Point, Study
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent
from lotteryfw.report.plots.dot_plot import Dots
from lotteryfw.report.plots.style import ErrorScale, Look, looks_of, spaced

DENSE = "#8A8A8A"  # grey is seen on a light and on a dark page
DENSE_NAME = "dense network"
_DASHES = ("solid", "dash", "dot", "dashdot")
_MARKERS = (
    "circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-left", "triangle-right", "pentagon", "x",
    "hexagon", "star", "diamond-tall",
)  # fmt: skip
_TICKS = 8

Trace = dict[str, Any]
Told = Callable[[Point], Spread | None]
"""A figure's spread over the seeds of a point, if it has one."""


@dataclass(frozen=True)
class View:
    """What one choice shows: plotly.js's traces, and its layout's `xaxis` and `yaxis`."""

    label: str
    traces: tuple[Trace, ...]
    xaxis: dict[str, Any]
    yaxis: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A titled chart of at least one view; `key` is unique on its page."""

    key: str
    title: str
    caption: str
    views: tuple[View, ...]


def against_density(
    study: Study, unit: Unit, told: Told, label: str = "", scale: ErrorScale | None = None
) -> View:
    """A figure of each series against weights remaining, beside the dense network's.

    With a scale it is an accuracy: plotted as 100 - accuracy, on a log axis that is labelled with the accuracy.
    """

    def height(value: float) -> float:
        return max(100 - value * unit.scale, scale.floor) if scale else value * unit.scale

    densities = {
        point.density for each in study.series for point in each.points if point.density > 0
    }
    traces: list[Trace] = []
    if study.dense and (spread := told(study.dense)):
        text = [hover(DENSE_NAME, "100 % of the weights", unit, spread)] * 2
        ends = [(100 * edge, spread) for edge in (max(densities), min(densities))]
        line = {"color": DENSE, "dash": "longdash", "width": 1.5}
        traces += curve(DENSE_NAME, ends, height, line=line, mode="lines", text=text)
    for series, look in zip(study.series, looks_of(study.series), strict=True):
        # a network of which nothing is left has no place on a log axis
        points = [
            (point, spread)
            for point in series.points
            if point.density > 0 and (spread := told(point))
        ]
        text = [
            hover(
                series.label,
                f"{percent(point.density)} % of the weights, level {point.level}",
                unit,
                spread,
            )
            for point, spread in points
        ]
        at = [(100 * point.density, spread) for point, spread in points]
        if at:
            traces += curve(
                series.label, at, height, mode="lines+markers", text=text, **drawn(look)
            )
    title = f"{unit.axis}, log-spaced error" if scale else unit.axis
    axis = density_axis(sorted(densities))
    return View(label or title, tuple(traces), axis, {"title": title, **_error_axis(scale)})


def dotted(dots: Dots) -> View:
    """Dots with bars of ±1 sd, each row in its own colour."""
    traces: list[Trace] = []
    for place, row in enumerate(dots.rows):
        spreads = [(dots.at(place, name), name, spread) for name, spread in row.spreads.items()]
        n = counts(spread.n for _, _, spread in spreads)
        traces.append({
            "type": "scatter", "mode": "markers", "name": f"{escape(row.label)} (n = {n})", "legendgroup": row.label,
            "x": [rounded(x) for x, _, _ in spreads],
            "y": [rounded(spread.mean * dots.unit.scale) for _, _, spread in spreads],
            "error_y": {"type": "data", "array": [rounded((s.sd or 0) * dots.unit.scale) for _, _, s in spreads],
                        "thickness": 1.2, "width": 3},
            "text": [hover(row.label, name, dots.unit, spread) for _, name, spread in spreads],
            "hovertemplate": "%{text}<extra></extra>", "marker": drawn(row.look)["marker"] | {"color": row.look.colour},
        })  # fmt: skip
    last = len(dots.places) - 1
    axis = {
        "title": dots.axis,
        "tickvals": [*range(last + 1)],
        "ticktext": [escape(place) for place in dots.places],
    }
    return View(
        dots.title, tuple(traces), axis | {"range": [-0.5, last + 0.5]}, {"title": dots.title}
    )


def density_axis(densities: Sequence[float]) -> dict[str, Any]:
    ticks = spaced(
        densities, log10(densities[-1] / densities[0]) / _TICKS
    )  # all of them fit a phone
    return {
        "title": "weights remaining (%)",
        "type": "log",
        "tickangle": 0,
        "autorange": "reversed",  # as in the papers, from dense to sparse
        "tickvals": [100 * density for density in ticks],
        "ticktext": [percent(density) for density in ticks],
    }


def _error_axis(scale: ErrorScale | None) -> dict[str, Any]:
    if scale is None:
        return {}
    ticks = {
        "tickvals": [100 - tick for tick in scale.ticks],
        "ticktext": [f"{tick:g}" for tick in scale.ticks],
    }
    return {"type": "log", "autorange": "reversed", **ticks}


def curve(
    name: str,
    points: Sequence[tuple[float, Spread]],
    height: Callable[[float], float],
    **style: Any,
) -> list[Trace]:
    """A curve of at least one point, and its band of ±1 sd beneath it; a click in the legend hides both."""
    n = counts(spread.n for _, spread in points)
    own = {
        "type": "scatter", "name": f"{escape(name)} (n = {n})", "legendgroup": name,
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    x = [rounded(place) for place, _ in points]
    line = {**own, "x": x, "y": [rounded(height(spread.mean)) for _, spread in points], **style}
    if not any(spread.sd for _, spread in points):
        return [line]
    high, low = (
        [rounded(height(s.mean + sign * (s.sd or 0))) for _, s in points] for sign in (1, -1)
    )
    band = {
        "type": "scatter", "legendgroup": name, "showlegend": False, "hoverinfo": "skip", "mode": "lines",
        "x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "line": {"width": 0}, "fill": "toself",
        "fillcolor": f"{style['line']['color']}26",
    }  # fmt: skip
    return [band, line]


def drawn(look: Look) -> dict[str, Any]:
    line = {"color": look.colour, "dash": _DASHES[look.line], "width": 2}
    return {"line": line, "marker": {"symbol": _MARKERS[look.marker % len(_MARKERS)], "size": 7}}


def hover(name: str, where: str, unit: Unit, spread: Spread) -> str:
    """What is told of a point. plotly.js reads a little HTML in it, so a name is escaped."""
    n = f"n = {spread.n}" if spread.sd is None else f"mean ± sd, n = {spread.n}"
    figures = f"{unit.spread(spread)}{unit.suffix} ({n})"
    lines = [f"<b>{escape(name)}</b>", where, figures]
    if interval := spread.interval():
        lines.append(f"95 % interval {' to '.join(map(unit.number, interval))}")
    return "<br>".join(lines)


def counts(found: Iterable[int]) -> str:
    """ "5", or "3–5"."""
    every = list(found)
    return "–".join(dict.fromkeys((str(min(every)), str(max(every)))))


def rounded(value: float, digits: int = 6) -> float:
    """A figure with so many digits: more than a screen shows would only make the page heavy."""
    return float(f"{value:.{digits}g}")
