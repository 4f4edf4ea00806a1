"""The charts of every study: accuracy and steps against density, and learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from operator import methodcaller
from typing import Any

from lotteryfw.report.data.choice import evenly_chosen, partly_chosen
from lotteryfw.report.data.learning_curves import LearningCurves
from lotteryfw.report.data.series import Point, SharedLevel, StudySeries
from lotteryfw.report.data.units import Unit
from lotteryfw.report.html.plotly_chart import (
    DENSE_COLOUR,
    DENSE_NAME,
    Chart,
    Trace,
    View,
    curve,
    curves_view,
    dots_view,
    plotly_style,
    plotly_text,
)
from lotteryfw.report.plots.line_plots import ordered_axes
from lotteryfw.report.plots.single_level import density_plot, metric_compared
from lotteryfw.report.plots.style import HUES, caption, error_scale, line_styles

ACCURACIES = ("test_accuracy", "early_test_accuracy", "validation_accuracy")
"""The metrics in the views of a study's first chart."""

_MAX_LEVELS = 6  # learning curves at more levels would only make the page heavy

_OTHER_CHARTS = ("searches", "steps", "metrics", "learning", "layers", "weights", "analysis")
"""Last parts of the keys of a study's other charts."""


def density_charts(study: StudySeries) -> list[Chart]:
    """Return the objective's figure and early-stopping step against weights remaining.

    If searches are joined to one series, another chart shows each with all its levels. If there
    are no curves, one chart shows each combination's variants and the densities of its ticket. A
    study without a level to draw has no chart.
    """
    if not any(point.density and point.rows for point in study.points):
        return []
    if study.single_level:
        return [_single_level_chart(study)]
    # of one density a curve is a point; where there is an axis, the charts against it show more
    if study.one_density and ordered_axes(study):
        return []

    text = caption(study)
    title = f"{study.figure.capitalize()} against weights remaining"
    charts = [Chart(_figure_chart(study), title, text, _accuracy_views(study))]
    by_search = study.by_search
    if by_search:
        title = "Each search, level by level"
        charts.append(Chart(f"{study.name}/searches", title, text, _accuracy_views(by_search)))
    title = "Early-stopping step against weights remaining"
    steps = _metric_view(study, "early_stop_step")
    charts.append(Chart(f"{study.name}/steps", title, text, (steps,)))
    if study.metric_units:
        title = "Metrics against weights remaining"
        views = tuple(_metric_view(study, metric) for metric in study.metric_units)
        charts.append(Chart(f"{study.name}/metrics", title, text, views))
    return charts


def _figure_chart(study: StudySeries) -> str:
    """Return the key of the chart of the objective's figure, which may have any name."""
    name = study.figure_key
    return f"{study.name}/{f'figure-{name}' if name in _OTHER_CHARTS else name}"


def _single_level_chart(study: StudySeries) -> Chart:
    metrics = (*ACCURACIES, *study.metric_units)
    plots = [metric_compared(study, metric) for metric in metrics]
    plots.append(density_plot(study))
    views = tuple(dots_view(plot) for plot in plots if plot)
    text = caption(study, marks="bars")
    return Chart(
        _figure_chart(study),
        f"{study.figure.capitalize()} and density",
        text,
        views,
    )


def _accuracy_views(study: StudySeries) -> tuple[View, ...]:
    views = []
    for metric in ACCURACIES:
        scale = error_scale(study, metric)
        # both views, as differences near 100 % are seen on the one and collapses on the other
        if scale:
            point_spread = methodcaller("spread", metric)
            views.append(curves_view(study, study.unit(metric), point_spread, scale=scale))
        views.append(_metric_view(study, metric))
    return tuple(views)


def _metric_view(study: StudySeries, metric: str) -> View:
    return curves_view(study, study.unit(metric), methodcaller("spread", metric))


def learning_chart(study: StudySeries, curves: LearningCurves) -> Chart | None:
    """Return the measurements during training; None if there are none.

    The views show all series at one density, and one series at several.
    """
    views: list[View] = []
    for metric in curves.metrics:
        views += _learning_views(study, curves, metric)
    if not views:
        return None
    count = 1 if study.single_level else len(study.levels)
    text = caption(study, partly_chosen(_MAX_LEVELS, count, "levels"))
    return Chart(f"{study.name}/learning", "Learning curves", text, tuple(views))


def _learning_views(study: StudySeries, curves: LearningCurves, metric: str) -> Iterator[View]:
    unit = curves.unit(metric, study)
    name = unit.axis.partition(" (")[0]  # without its unit, which the axis shows
    for label, traces in _learning_traces(study, curves, metric):
        if traces:
            xaxis = {"title": "training step (updates)"}
            yield View(f"{label} · {name}", tuple(traces), xaxis, {"title": unit.axis})


def _learning_traces(
    study: StudySeries, curves: LearningCurves, metric: str
) -> Iterator[tuple[str, list[Trace]]]:
    """Yield label and traces: all series at each density, then each series at all of them."""
    if study.single_level:
        yield "all series", _all_series(study, curves, metric, None)
        return

    unit = curves.unit(metric, study)
    levels = evenly_chosen(study.levels, _MAX_LEVELS)
    dense_line = {"color": DENSE_COLOUR, "dash": "longdash"}
    dense = _learning_curve(DENSE_NAME, study.dense, curves, metric, unit, line=dense_line)
    for level in levels:
        if level.density == 1 and not level.number and dense:
            continue  # every series starts from that very network, and every other view shows it
        yield level.text, dense + _all_series(study, curves, metric, level)

    for series in study.series:
        traces = []
        for index, level in enumerate(levels):
            point = series.at(level)
            line = {"color": HUES[index % len(HUES)]}
            traces += _learning_curve(level.text, point, curves, metric, unit, line=line)
        yield series.label, traces


def _all_series(
    study: StudySeries, curves: LearningCurves, metric: str, level: SharedLevel | None
) -> list[Trace]:
    """Return the curves of all series at one level; None means the only one that each has."""
    unit = curves.unit(metric, study)
    traces = []
    for series, style in zip(study.series, line_styles(study.series), strict=True):
        point = series.points[0] if level is None else series.at(level)
        line = plotly_style(style)["line"]
        traces += _learning_curve(series.label, point, curves, metric, unit, line=line)
    return traces


def _learning_curve(
    name: str,
    point: Point | None,
    curves: LearningCurves,
    metric: str,
    unit: Unit,
    line: dict[str, Any],
) -> list[Trace]:
    measured = curves.mean(point, metric) if point else []
    # a curve of one point is invisible without markers
    if len(measured) < 2:
        return []
    texts = []
    for _, spread in measured:
        texts.append(f"{unit.spread(spread)}{unit.suffix}, n = {spread.n}")
    return curve(
        name,
        measured,
        lambda value: value * unit.scale,
        line=line,
        mode="lines",
        text=texts,
        # Learning curves have most of a page's points, so the template has the text that all
        # points of a curve share.
        hovertemplate=f"<b>{plotly_text(name)}</b><br>step %{{x:,}}<br>%{{text}}<extra></extra>",
    )
