"""Templates filled in: every page has the same style, the same script and plotly.js inside it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from lotteryfw.report.html.plotly_chart import Chart, Trace

_PLOTLY = "plotly-cartesian.min.js"


def render(template: str, charts: Sequence[Chart], **contents: Any) -> str:
    """Return a page of `templates/` with these charts and contents. Texts are escaped."""
    # here, because tables alone do not need it
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lotteryfw.report.html"),
        # a recipe may come from a stranger, and its names and texts stand on the page
        autoescape=True,
        # a misspelt name in the template is an error and not an empty place
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        charts=packed(charts),
        plotly=plotly_source(),
        **contents,
    )


def plotly_source() -> str:
    """Return plotly.js, which stands in the page, as this must not need a network.

    It is the partial bundle `plotly.js-cartesian-dist-min`, 1.5 MB: the whole one has 3 MB of maps
    and 3-D charts besides.
    """
    return files("lotteryfw.report.html").joinpath("vendor", _PLOTLY).read_text("utf-8")


def packed(charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the charts' views as JSON, with equal lists of figures stored once.

    The views of one study share most of their lists; a trace refers to a list by its index.
    """
    # each list's index, in order of first use: a dict keeps that order, so it is the lists, too
    indices: dict[tuple[Any, ...], int] = {}
    views: dict[str, list[dict[str, Any]]] = {}
    for chart in charts:
        packed_views = views.setdefault(chart.key, [])
        for view in chart.views:
            packed_views.append(
                {
                    "label": view.label,
                    "traces": [_packed_trace(trace, indices) for trace in view.traces],
                    "xaxis": view.xaxis,
                    "yaxis": view.yaxis,
                }
            )
    return {"views": views, "lists": list(indices)}


def _packed_trace(trace: Trace, indices: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    packed = {}
    for name, value in trace.items():
        if isinstance(value, list):
            # an equal list keeps its earlier index
            value = {"list": indices.setdefault(tuple(value), len(indices))}
        packed[name] = value
    return packed
