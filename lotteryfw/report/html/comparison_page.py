"""The page of a comparison of runs: one chart of the differences, and the tables."""

from __future__ import annotations

from pathlib import Path

from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent
from lotteryfw.report.html.plotly_chart import (
    DENSE_COLOUR,
    Chart,
    Trace,
    View,
    curve,
    density_axis,
    hover_text,
    plotly_style,
)
from lotteryfw.report.html.rendering import render
from lotteryfw.report.plots.style import line_style
from lotteryfw.report.tables.comparison import comparison_tables
from lotteryfw.report.verdicts.comparison import Comparison
from lotteryfw.store import atomic_write


def write_comparison_page(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as one page that needs no network. Raises StoreError."""
    chart = comparison_chart(comparison)
    # two losses have one title, whatever their units are
    titles = " and ".join(dict.fromkeys(unit.title for unit in comparison.units))
    text = render(
        "comparison.html",
        [chart],
        title=f"{titles}: {len(comparison.runs)} runs compared",
        first=comparison.runs[0],
        chart=chart,
        tables=comparison_tables(comparison),
        notes=comparison.notes,
    )
    atomic_write(path, text.encode())
    return path


def comparison_chart(comparison: Comparison) -> Chart:
    """Return the chart of all differences to the first run, with their 95 % intervals.

    Figures of several units, of studies with objectives of their own, have a view each.
    """
    views = tuple(_view(comparison, unit) for unit in comparison.units)
    text = "Above zero: higher than the first run. Bands are 95 % Student-t intervals of a level."
    return Chart("comparison", "Differences to the first run", text, views)


def _view(comparison: Comparison, unit: Unit) -> View:
    densities: set[float] = set()
    traces: list[Trace] = []
    for index, series in enumerate(comparison.series):
        if series.unit != unit:
            continue
        points = []
        texts = []
        name = f"{series.run} · {series.name}"
        for level in series.levels:
            # a density of 0 has no place on a log axis
            if level.density > 0:
                densities.add(level.density)
                spread = level.estimate.spread
                points.append((100 * level.density, spread))
                where = f"{percent(level.density)} % of the weights, {level.verdict}"
                texts.append(hover_text(name, where, unit, spread, sign="+"))
        if points:
            traces += curve(
                name,
                points,
                lambda value: value * unit.scale,
                band=_interval,
                mode="lines+markers",
                text=texts,
                **plotly_style(line_style(index)),
            )
    title = f"difference in {unit.axis}"
    # an axis needs an end even where every level is without weights
    ordered = sorted(densities) or [1.0]
    # the line first, and so below the curves
    return View(title, (_zero_line(ordered), *traces), density_axis(ordered), {"title": title})


def _interval(spread: Spread) -> tuple[float, float]:
    # one seed has no interval: its band has no width, and is not drawn
    return spread.interval() or (spread.mean, spread.mean)


def _zero_line(densities: list[float]) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [100 * densities[-1], 100 * densities[0]],
        "y": [0, 0],
        "line": {"color": DENSE_COLOUR, "dash": "longdash", "width": 1.5},
        "name": "no difference",
        "legendgroup": "no difference",
        "hoverinfo": "skip",
    }
