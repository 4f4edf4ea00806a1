"""Charts of what analyses found: nothing here is written for one analysis, so a plugin's is drawn as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from statistics import fmean
from typing import Any

from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.series import Study
from lotteryfw.report.data.units import percent
from lotteryfw.report.html.plotly_chart import (
    DENSE,
    Chart,
    Trace,
    View,
    against_density,
    dotted,
    rounded,
)
from lotteryfw.report.plots.analysis_views import (
    Cloud,
    Sample,
    Square,
    accuracy_unit,
    by_layer_of,
    clouds,
    samples,
    squares,
    whole_metrics,
)
from lotteryfw.report.plots.style import HUES, caption, chosen
from lotteryfw.report.tables.single_level import by_axis

KEPT, MASKED = HUES[0], HUES[1]
_LEVELS = 6
"""At how many levels pairs are shown."""


def found_charts(study: Study, findings: Findings) -> list[Chart]:
    """Every chart of a study's analyses. `findings` are the study's own."""
    charts = []
    for analysis in findings.analyses:
        key, name = f"{study.name}/{analysis}", analysis.replace("_", " ")
        title = name.capitalize()
        metrics = findings.metrics(analysis)
        if views := _figures(study, findings, metrics):
            charts.append(
                Chart(key, title, caption(study, "bars" if study.flat else "bands"), tuple(views))
            )
        found = [
            cloud
            for metric in whole_metrics(findings, analysis)
            for cloud in clouds(study, findings, metric)
        ]
        views = [_cloud_view(cloud, findings) for cloud in found]
        if views:
            told = "A mark for each training that was analysed."
            charts.append(
                Chart(
                    f"{key}/accuracy",
                    f"Accuracy against {analysis.replace('_', ' ')}",
                    told,
                    tuple(views),
                )
            )
        if pairs := squares(study, findings, analysis):
            charts.append(_pair_chart(f"{key}/pairs", title, pairs))
    if weights := samples(study, findings):
        charts.append(_weights_chart(f"{study.name}/weights", weights))
    return charts


def _figures(study: Study, findings: Findings, metrics: dict[str, list[str]]) -> list[View]:
    """Figures against weights remaining: of the whole network, of each search level by level, of each layer."""
    if study.flat:
        return _side_by_side(study, findings, metrics)
    shown: list[tuple[Study, str, str, str]] = [
        (study, metric, "", "") for metric in metrics if "" in metrics[metric]
    ]
    if study.apart:
        shown += [
            (study.apart, metric, "", "each search, level by level") for _, metric, _, _ in shown
        ]
    shown += [
        (study, metric, layer, layer)
        for metric, layers in metrics.items()
        for layer in layers
        if layer
    ]
    views = []
    for drawn, metric, layer, said in shown:
        unit = findings.unit(metric)
        label = " · ".join(part for part in (unit.axis, said) if part)
        told = partial(findings.spread, metric=metric, layer=layer)
        # the dense network's own figures stand at 100 %, and are no goal that the others have
        views.append(against_density(replace(drawn, dense=None), unit, told, label))
    return [view for view in views if view.traces]


def _side_by_side(study: Study, findings: Findings, metrics: dict[str, list[str]]) -> list[View]:
    """Figures of a study without curves: of the whole network by an axis of the grid, and by layer."""
    whole = [metric for metric, layers in metrics.items() if "" in layers]
    shown = [
        by_axis(study, findings.unit(metric), partial(findings.spread, metric=metric))
        for metric in whole
    ]
    by_layer = [
        by_layer_of(study, findings, metric, names)
        for metric, names in metrics.items()
        if any(names)
    ]
    views = [dotted(dots) for dots in shown if dots]
    return views + [replace(dotted(dots), label=f"{dots.title}, by layer") for dots in by_layer]


def _cloud_view(cloud: Cloud, findings: Findings) -> View:
    unit, accuracy = findings.unit(cloud.metric), accuracy_unit()
    traces: list[Trace] = []
    for place, (value, marks) in enumerate(cloud.groups.items()):
        traces.append({
            "type": "scatter", "mode": "markers", "name": escape(value), "legendgroup": value,
            "x": [rounded(mark.x * unit.scale) for mark in marks],
            "y": [rounded(mark.y * accuracy.scale) for mark in marks],
            "text": [escape(mark.name) for mark in marks],
            "hovertemplate": f"%{{text}}<br>{escape(unit.axis)} %{{x}}<br>{accuracy.axis} %{{y}}<extra></extra>",
            "marker": {"color": HUES[place % len(HUES)], "symbol": place // len(HUES), "size": 8, "opacity": 0.75},
        })  # fmt: skip
    by = f", by {cloud.axis.rpartition('.')[2].replace('_', ' ')}" if cloud.axis else ""
    return View(f"{unit.axis}{by}", tuple(traces), {"title": unit.axis}, {"title": accuracy.axis})


def _pair_chart(key: str, title: str, pairs: Sequence[Square]) -> Chart:
    names = [name.replace("_", " ") for name in pairs[0].units]
    told = (
        f"In each box: {', '.join(names)}; means over all pairs of one seed, and where row and column are the same, "
        "over pairs of its seeds."
    )
    return Chart(
        key,
        f"{title}: pairs of cells",
        told,
        tuple(_pair_view(each) for each in chosen(pairs, _LEVELS)),
    )


def _pair_view(square: Square) -> View:
    names = [escape(label).replace(" · ", " ·<br>") for label in square.labels]
    first = next(iter(square.units))

    def at(row: str, column: str) -> dict[str, list[float]]:
        return square.values.get((row, column), {})

    def boxes(told: Any) -> tuple[tuple[Any, ...], ...]:
        return tuple(tuple(told(row, column) for column in square.labels) for row in square.labels)

    def shade(row: str, column: str) -> float | None:
        values = at(row, column).get(first)
        return rounded(fmean(values) * square.units[first].scale) if values else None

    def text(row: str, column: str) -> str:
        return "<br>".join(
            f"{fmean(v) * square.units[name].scale:.3g}" for name, v in at(row, column).items()
        )

    def hover(row: str, column: str) -> str:
        said = [
            f"{escape(name)} {square.units[name].number(fmean(v))}{square.units[name].suffix}, n = {len(v)}"
            for name, v in at(row, column).items()
        ]
        return (
            "<br>".join([f"<b>{escape(row)}</b> and <b>{escape(column)}</b>", *said])
            if said
            else ""
        )

    trace = {
        "type": "heatmap", "x": tuple(names), "y": tuple(names), "z": boxes(shade), "text": boxes(text),
        "hovertext": boxes(hover),
        "texttemplate": "%{text}", "textfont": {"color": "#14181C"},
        "hovertemplate": "%{hovertext}<extra></extra>", "hoverongaps": False,
        "colorscale": ((0, "#EAF3FA"), (1, HUES[5])), "xgap": 2, "ygap": 2, "showlegend": False,
        "colorbar": {"title": {"text": escape(square.units[first].axis), "side": "right"}, "thickness": 12},
    }  # fmt: skip
    if square.units[first].suffix:  # shares, on one scale in all views
        trace |= {"zmin": 0, "zmax": 100}
    label = f"{percent(square.density)} % of the weights"
    return View(
        label,
        (trace,),
        {"title": "", "type": "category"},
        {"title": "", "type": "category", "autorange": "reversed"},
    )


def _weights_chart(key: str, weights: Sequence[Sample]) -> Chart:
    one = weights[0]
    told = (
        f"A sample of each layer's weights in seed {one.seed}: before and after the training that the mask was cut "
        "from, and which of them it keeps. On the diagonal, training changed nothing."
    )
    return Chart(key, "Weights before and after training", told, tuple(map(_weights_view, weights)))


def _weights_view(sample: Sample) -> View:
    ends = [min((*sample.before, *sample.after)), max((*sample.before, *sample.after))]
    traces: list[Trace] = [{
        "type": "scatter", "mode": "lines", "name": "unchanged", "legendgroup": "unchanged", "hoverinfo": "skip",
        "x": [rounded(end) for end in ends], "y": [rounded(end) for end in ends],
        "line": {"color": DENSE, "dash": "longdash", "width": 1.5},
    }]  # fmt: skip
    traces += _dyed(sample)
    label = f"{sample.label} · {sample.layer} · {percent(sample.density)} % of the weights"
    axes = ("w_i: weight before training", "w_f: weight after training")
    return View(label, tuple(traces), *({"title": title} for title in axes))


def _dyed(sample: Sample) -> Iterator[Trace]:
    for name, kept, colour in (("masked", 0, MASKED), ("kept", 1, KEPT)):
        own = [place for place, value in enumerate(sample.kept) if value == kept]
        if own:
            yield {
                "type": "scatter", "mode": "markers", "name": name, "legendgroup": name,
                "x": [rounded(sample.before[place], 4) for place in own],
                "y": [rounded(sample.after[place], 4) for place in own],
                "hovertemplate": f"{name}<br>w_i %{{x}}<br>w_f %{{y}}<extra></extra>",
                "marker": {"color": colour, "size": 4, "opacity": 0.6},
            }  # fmt: skip
