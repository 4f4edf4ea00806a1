"""Charts against an ordered axis of the grid, such as the rewind step, and along positions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import methodcaller

from lotteryfw.report.data.choice import evenly_chosen, partly_chosen
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import ACCURACY
from lotteryfw.report.html.plotly_chart import Chart, View, lines_view
from lotteryfw.report.plots.analysis_views import network_metrics
from lotteryfw.report.plots.line_plots import (
    OrderedAxis,
    figures_along,
    ordered_axes,
    plot_along,
    plot_by_axis,
    plot_levels_along,
    position_name,
    pruned_levels,
)
from lotteryfw.report.plots.style import caption

_MAX_LEVELS = 6  # views of more levels would only make the page heavy
_MAX_SERIES = 12


def axis_charts(study: StudySeries, findings: Findings) -> list[Chart]:
    """Return the objective's figure, and each analysis, against each ordered axis of the grid.

    Below a figure of an analysis is the objective's figure at the same level.
    """
    charts: list[Chart] = []
    levels = pruned_levels(study)
    text = caption(study, partly_chosen(_MAX_LEVELS, len(levels), "levels"))
    for axis in ordered_axes(study):
        views = tuple(_metric_views(study, axis))
        if views:
            title = f"{study.figure.capitalize()} against {axis.title}"
            charts.append(Chart(f"{study.name}/{axis.name}", title, text, views))
        for analysis in findings.analyses:
            views = tuple(_analysis_views(study, axis, findings, analysis))
            if views:
                title = f"{analysis.replace('_', ' ').capitalize()} against {axis.title}"
                key = f"{study.name}/analysis/{analysis}/{axis.name}"
                charts.append(Chart(key, title, text, views))
    return charts


def _metric_views(study: StudySeries, axis: OrderedAxis) -> Iterator[View]:
    for metric in (ACCURACY, *study.metric_units):
        unit = study.unit(metric)
        for level in evenly_chosen(pruned_levels(study), _MAX_LEVELS):
            plot = plot_by_axis(study, axis, level, unit, methodcaller("spread", metric))
            if plot:
                yield lines_view(f"{level.text} · {unit.axis}", plot)


def _analysis_views(
    study: StudySeries, axis: OrderedAxis, findings: Findings, analysis: str
) -> Iterator[View]:
    accuracy = study.unit(ACCURACY)
    for metric in network_metrics(findings, analysis):
        unit = findings.unit(metric)
        for level in evenly_chosen(pruned_levels(study), _MAX_LEVELS):
            point_spread = partial(findings.spread, metric=metric)
            plot = plot_by_axis(study, axis, level, unit, point_spread)
            if plot:
                lower = plot_by_axis(study, axis, level, accuracy, methodcaller("spread", ACCURACY))
                yield lines_view(f"{level.text} · {unit.axis}", plot, lower)


def along_charts(study: StudySeries, findings: Findings) -> list[Chart]:
    """Return the lists that analyses give along positions, such as a line between networks."""
    charts: list[Chart] = []
    levels = study.levels
    text = caption(
        study,
        partly_chosen(_MAX_LEVELS, len(levels), "levels"),
        partly_chosen(_MAX_SERIES, len(study.series), "series with all their levels"),
    )
    for analysis in findings.analyses:
        views = tuple(_along_views(study, findings, analysis))
        if views:
            x_title = position_name(findings, analysis)
            title = f"{analysis.replace('_', ' ').capitalize()} along {x_title}"
            charts.append(Chart(f"{study.name}/analysis/{analysis}/along", title, text, views))
    return charts


def _along_views(study: StudySeries, findings: Findings, analysis: str) -> Iterator[View]:
    x_title = position_name(findings, analysis)
    levels = evenly_chosen(study.levels, _MAX_LEVELS)
    # the dense network that all series share would be one line under many names
    compared = evenly_chosen(pruned_levels(study) or study.levels, _MAX_LEVELS)
    for metric, figures in figures_along(findings, analysis).items():
        unit = findings.unit(metric)
        for level in compared:
            plot = plot_along(study, level, unit, x_title, figures)
            if plot:
                yield lines_view(f"{level.text} · {unit.axis}", plot)
        for series in evenly_chosen(study.series, _MAX_SERIES):
            plot = plot_levels_along(series, levels, unit, x_title, figures)
            if plot:
                yield lines_view(f"{series.label} · {unit.axis}", plot)
