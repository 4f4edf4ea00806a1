"""The charts of every study: accuracy and early-stopping step against density, and what training measured."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from operator import methodcaller
from typing import Any

from lotteryfw.report.data.learning_curves import METRICS as MEASURED
from lotteryfw.report.data.learning_curves import Curves
from lotteryfw.report.data.series import Point, Study
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.html.plotly_chart import (
    DENSE,
    DENSE_NAME,
    Chart,
    Trace,
    View,
    against_density,
    curve,
    dotted,
    drawn,
)
from lotteryfw.report.plots.style import HUES, caption, chosen, error_scale, looks_of
from lotteryfw.report.tables.single_level import compared, densities

ACCURACIES = ("test_accuracy", "early_test_accuracy", "validation_accuracy")
"""The views of a study's first chart."""

_LEVELS = 6
"""For how many densities learning curves are shown."""


def density_charts(study: Study) -> list[Chart]:
    """Accuracy, and early-stopping step, against weights remaining. None for a study without a level to draw.

    Where searches are joined to one series, a chart more shows each with all its levels. Where there are no curves,
    what is shown is each combination's variants, and the densities of its ticket.
    """
    if not any(point.density and point.rows for series in study.series for point in series.points):
        return []
    told = caption(study)
    if study.flat:
        shown = [*(compared(study, metric) for metric in ACCURACIES), densities(study)]
        views = tuple(dotted(each) for each in shown if each)
        return [
            Chart(f"{study.name}/accuracy", "Accuracy and density", caption(study, "bars"), views)
        ]
    steps = _metric(study, "early_stop_step")
    charts = [
        Chart(
            f"{study.name}/accuracy",
            "Accuracy against weights remaining",
            told,
            tuple(_accuracies(study)),
        ),
        Chart(
            f"{study.name}/steps", "Early-stopping step against weights remaining", told, (steps,)
        ),
    ]
    if study.apart:
        views = tuple(_accuracies(study.apart))
        charts.insert(
            1, Chart(f"{study.name}/searches", "Each search, level by level", told, views)
        )
    return charts


def learning_chart(study: Study, curves: Curves) -> Chart | None:
    """What was measured during training: all series at one density, and one series at several."""
    views = [view for metric in MEASURED for view in _learning_views(study, curves, metric)]
    if not views:
        return None
    return Chart(f"{study.name}/learning", "Learning curves", caption(study), tuple(views))


def _accuracies(study: Study) -> list[View]:
    views = []
    for metric in ACCURACIES:
        if scale := error_scale(study, metric):
            views.append(
                against_density(study, unit_of(metric), methodcaller("spread", metric), scale=scale)
            )
        views.append(_metric(study, metric))
    return views


def _metric(study: Study, metric: str) -> View:
    return against_density(study, unit_of(metric), methodcaller("spread", metric))


def _learning_views(study: Study, curves: Curves, metric: str) -> list[View]:
    unit = unit_of(metric)
    name = unit.axis.partition(" (")[0]
    whole = [("all series", _all_series(study, curves, metric, None))]
    compared = whole if study.flat else _by_level(study, curves, metric)
    return [
        View(
            f"{label} · {name}",
            tuple(traces),
            {"title": "training step (updates)"},
            {"title": unit.axis},
        )
        for label, traces in compared
        if traces
    ]


def _by_level(study: Study, curves: Curves, metric: str) -> Iterator[tuple[str, list[Trace]]]:
    """All series at one density after another, then each series at all of them."""
    densities = chosen(study.densities, _LEVELS)
    for density in densities:
        dense = _learning(
            DENSE_NAME, study.dense, curves, metric, line={"color": DENSE, "dash": "longdash"}
        )
        if density == 1 and dense:
            continue  # every series starts from that very network, and every other view shows it
        yield (
            f"{percent(density)} % of the weights",
            dense + _all_series(study, curves, metric, density),
        )
    for series in study.series:
        traces = []
        for place, density in enumerate(densities):
            name = f"{percent(density)} % of the weights"
            traces += _learning(
                name, series.at(density), curves, metric, line={"color": HUES[place % len(HUES)]}
            )
        yield series.label, traces


def _all_series(study: Study, curves: Curves, metric: str, density: float | None) -> list[Trace]:
    """At one density, or at the only one that each has."""
    traces = []
    for series, look in zip(study.series, looks_of(study.series), strict=True):
        point = series.points[0] if density is None else series.at(density)
        traces += _learning(series.label, point, curves, metric, line=drawn(look)["line"])
    return traces


def _learning(
    name: str, point: Point | None, curves: Curves, metric: str, **style: Any
) -> list[Trace]:
    measured = curves.mean(point, metric) if point else []
    if len(measured) < 2:
        return []
    unit = unit_of(metric)
    text = [f"{unit.spread(spread)}{unit.suffix}, n = {spread.n}" for _, spread in measured]
    # the curves have most of a page's points, so what all points of a curve say is said once
    hover = f"<b>{escape(name)}</b><br>step %{{x:,}}<br>%{{text}}<extra></extra>"
    style |= {"mode": "lines", "text": text, "hovertemplate": hover}
    return curve(name, measured, lambda value: value * unit.scale, **style)
