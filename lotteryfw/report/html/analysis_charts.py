"""Charts of analyses: nothing here depends on one analysis, so a plugin's is drawn as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from lotteryfw.report.data.choice import evenly_chosen, partly_chosen
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import percent
from lotteryfw.report.html.plotly_chart import (
    DENSE_COLOUR,
    Chart,
    Trace,
    View,
    curves_view,
    dots_view,
    plotly_text,
    rounded,
)
from lotteryfw.report.plots.analysis_views import (
    PairMatrix,
    Scatter,
    WeightSample,
    metric_by_layer,
    network_metrics,
    pair_matrices,
    scatters,
    weight_samples,
)
from lotteryfw.report.plots.line_plots import ordered_axes
from lotteryfw.report.plots.single_level import figure_by_axis
from lotteryfw.report.plots.style import HUES, KEPT_COLOUR, MASKED_COLOUR, caption

_MAX_MATRICES = 6  # a reader compares no more, and all of them would only make the page heavy
_MATRIX_COLOURS = ((0, "#EAF3FA"), (1, HUES[5]))


def analysis_charts(study: StudySeries, findings: Findings) -> list[Chart]:
    """Return every chart of a study's analyses; `findings` are the study's own."""
    charts: list[Chart] = []
    for analysis in findings.analyses:
        charts += _charts_of(analysis, study, findings)
    samples = weight_samples(study, findings)
    if samples:
        charts.append(_weights_chart(f"{study.name}/weights", samples))
    return charts


def _charts_of(analysis: str, study: StudySeries, findings: Findings) -> Iterator[Chart]:
    # a folder of its own: an analysis may have the name of another chart, such as "steps"
    key, name = f"{study.name}/analysis/{analysis}", analysis.replace("_", " ")
    title = name.capitalize()

    views = _metric_views(study, findings, findings.metrics(analysis))
    if views:
        marks = "bars" if study.single_level else "bands"
        yield Chart(key, title, caption(study, marks=marks), tuple(views))

    views = []
    for metric in network_metrics(findings, analysis):
        for scatter in scatters(study, findings, metric):
            views.append(_scatter_view(scatter, findings))
    if views:
        text = "A mark for each training that was analysed."
        yield Chart(
            f"{key}/{study.figure_key}",
            f"{study.figure.capitalize()} against {name}",
            text,
            tuple(views),
        )

    matrices = pair_matrices(study, findings, analysis)
    if matrices:
        yield _pair_chart(f"{key}/pairs", title, matrices)


def _metric_views(
    study: StudySeries, findings: Findings, metrics: Mapping[str, list[str]]
) -> list[View]:
    """Return views of the whole network, of each search level by level, and of each layer."""
    if study.single_level:
        return _single_level_views(study, findings, metrics)

    # of one density a curve is a point; where there is an axis, the charts against it show more
    if study.one_density and ordered_axes(study):
        return []

    views = []
    # layer "" is the whole network
    network = [metric for metric, layers in metrics.items() if "" in layers]
    for metric in network:
        views.append(_metric_view(study, findings, metric))
    by_search = study.by_search
    if by_search:
        for metric in network:
            note = "each search, level by level"
            views.append(_metric_view(by_search, findings, metric, note=note))
    for metric, layers in metrics.items():
        for layer in layers:
            if layer:
                views.append(_metric_view(study, findings, metric, layer, note=layer))
    # an analysis may have no finding of the series that are shown
    return [view for view in views if view.traces]


def _metric_view(
    study: StudySeries, findings: Findings, metric: str, layer: str = "", note: str = ""
) -> View:
    """Return a metric against weights remaining."""
    unit = findings.unit(metric)
    label = f"{unit.axis} · {note}" if note else unit.axis
    point_spread = partial(findings.spread, metric=metric, layer=layer)
    # The dense network's own figures are the curves' points at 100 %, and no goal of the others.
    return curves_view(replace(study, dense=None), unit, point_spread, label)


def _single_level_views(
    study: StudySeries, findings: Findings, metrics: Mapping[str, list[str]]
) -> list[View]:
    """Return views of the whole network by an axis of the grid, and of its layers."""
    views = []
    for metric, layers in metrics.items():
        if "" in layers:
            point_spread = partial(findings.spread, metric=metric)
            plot = figure_by_axis(study, findings.unit(metric), point_spread)
            if plot:
                views.append(dots_view(plot))
    for metric, layers in metrics.items():
        # a metric of the whole network only is in the view above
        if any(layers):
            by_layer = metric_by_layer(study, findings, metric, layers)
            views.append(replace(dots_view(by_layer), label=f"{by_layer.title}, by layer"))
    return views


def _scatter_view(scatter: Scatter, findings: Findings) -> View:
    unit = findings.unit(scatter.metric)
    # plotly.js fills in %{x} and %{y}, so that no point repeats the words
    y_unit = scatter.y_unit
    figures = f"{plotly_text(unit.axis)} %{{x}}<br>{plotly_text(y_unit.axis)} %{{y}}"
    traces: list[Trace] = []
    for index, (value, points) in enumerate(scatter.groups.items()):
        x, y, texts = [], [], []
        for point in points:
            x.append(rounded(point.x * unit.scale))
            y.append(rounded(point.y * y_unit.scale))
            texts.append(plotly_text(point.name))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plotly_text(value),
                "legendgroup": value,
                "x": x,
                "y": y,
                "text": texts,
                "hovertemplate": f"%{{text}}<br>{figures}<extra></extra>",
                "marker": {
                    "color": HUES[index % len(HUES)],
                    "symbol": index // len(HUES),
                    "size": 8,
                    "opacity": 0.75,
                },
            }
        )
    label = f"{unit.axis}, by {scatter.axis_name}" if scatter.axis else unit.axis
    return View(label, tuple(traces), {"title": unit.axis}, {"title": y_unit.axis})


def _pair_chart(key: str, title: str, matrices: Sequence[PairMatrix]) -> Chart:
    names = [name.replace("_", " ") for name in matrices[0].units]
    text = (
        f"In each box: {', '.join(names)}; means over all pairs of one seed, and where row and "
        "column are the same, over pairs of its seeds. "
        f"{partly_chosen(_MAX_MATRICES, len(matrices), 'levels')}"
    ).rstrip()
    views = tuple(map(_pair_view, evenly_chosen(matrices, _MAX_MATRICES)))
    return Chart(key, f"{title}: pairs of cells", text, views)


def _pair_view(matrix: PairMatrix) -> View:
    # a line for each part of a label, as a column is narrow
    names = tuple(plotly_text(label).replace(" · ", " ·<br>") for label in matrix.labels)
    # a box has one colour, which shows the analysis' first figure
    first, unit = next(iter(matrix.units.items()))

    colours, texts, hover_texts = [], [], []
    for row in matrix.labels:
        row_colours: list[float | None] = []
        row_texts: list[str] = []
        row_hover_texts: list[str] = []
        for column in matrix.labels:
            pair = row, column
            row_colours.append(_box_colour(matrix, pair, first))
            row_texts.append(_box_text(matrix, pair))
            row_hover_texts.append(_box_hover_text(matrix, pair))
        # Tuples, as the page stores each list once and refers to it, which is not worth it here.
        colours.append(tuple(row_colours))
        texts.append(tuple(row_texts))
        hover_texts.append(tuple(row_hover_texts))

    trace: Trace = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": tuple(colours),
        "text": tuple(texts),
        "hovertext": tuple(hover_texts),
        "texttemplate": "%{text}",
        "textfont": {"color": "#14181C"},
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "colorscale": _MATRIX_COLOURS,
        "xgap": 2,
        "ygap": 2,
        "showlegend": False,
        "colorbar": {"title": {"text": plotly_text(unit.axis), "side": "right"}, "thickness": 12},
    }
    if unit.suffix:  # a share: views of all levels have one scale
        trace |= {"zmin": 0, "zmax": 100}
    xaxis: dict[str, Any] = {"title": "", "type": "category"}
    return View(matrix.text, (trace,), xaxis, {**xaxis, "autorange": "reversed"})


def _box_colour(matrix: PairMatrix, pair: tuple[str, str], figure: str) -> float | None:
    values = matrix.values.get(pair, {}).get(figure)
    if not values:
        return None
    return rounded(fmean(values) * matrix.units[figure].scale)


def _box_text(matrix: PairMatrix, pair: tuple[str, str]) -> str:
    lines = []
    for name, values in matrix.values.get(pair, {}).items():
        lines.append(f"{fmean(values) * matrix.units[name].scale:.3g}")
    return "<br>".join(lines)


def _box_hover_text(matrix: PairMatrix, pair: tuple[str, str]) -> str:
    figures = matrix.values.get(pair)
    if not figures:
        return ""
    row, column = pair
    lines = [f"<b>{plotly_text(row)}</b> and <b>{plotly_text(column)}</b>"]
    for name, values in figures.items():
        unit = matrix.units[name]
        mean = f"{unit.number(fmean(values))}{unit.suffix}"
        lines.append(f"{plotly_text(name)} {mean}, n = {len(values)}")
    return "<br>".join(lines)


def _weights_chart(key: str, samples: Sequence[WeightSample]) -> Chart:
    seeds = {sample.seed for sample in samples}
    # of several seeds each view names its own
    where = "" if len(seeds) > 1 else f" in seed {samples[0].seed}"
    text = (
        f"A sample of each layer's weights{where}: before and after the training that the mask was "
        "cut from, and which of them it keeps. On the diagonal, training changed nothing."
    )
    views = []
    for sample in samples:
        view = _weights_view(sample)
        if len(seeds) > 1:
            view = replace(view, label=f"{view.label}, seed {sample.seed}")
        views.append(view)
    return Chart(key, "Weights before and after training", text, tuple(views))


def _weights_view(sample: WeightSample) -> View:
    # from the smallest weight to the largest, of both axes together
    ends = list(map(rounded, sample.ends))
    diagonal: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": "unchanged",
        "legendgroup": "unchanged",
        "hoverinfo": "skip",
        "x": ends,
        "y": list(ends),
        "line": {"color": DENSE_COLOUR, "dash": "longdash", "width": 1.5},
    }
    traces = [diagonal]
    # the kept ones last, and so on top: at low densities they are few
    for name, kept, colour in (("masked", False, MASKED_COLOUR), ("kept", True, KEPT_COLOUR)):
        pairs = sample.weights(kept)
        if pairs:
            traces.append(_weights_trace(name, pairs, colour))
    label = f"{sample.label} · {sample.layer} · {percent(sample.density)} % of the weights"
    xaxis, yaxis = {"title": "w_i: weight before training"}, {"title": "w_f: weight after training"}
    return View(label, tuple(traces), xaxis, yaxis)


def _weights_trace(name: str, pairs: Sequence[tuple[float, float]], colour: str) -> Trace:
    x, y = [], []
    for before, after in pairs:
        # four digits are finer than a pixel, and a sample has many points
        x.append(rounded(before, 4))
        y.append(rounded(after, 4))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "legendgroup": name,
        "x": x,
        "y": y,
        "hovertemplate": f"{name}<br>w_i %{{x}}<br>w_f %{{y}}<extra></extra>",
        "marker": {"color": colour, "size": 4, "opacity": 0.6},
    }
