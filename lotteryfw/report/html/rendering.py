"""Templates filled in: every page has the same style, the same script and plotly.js inside it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lotteryfw.report.html.plotly_chart import Chart, Trace

if TYPE_CHECKING:
    from markupsafe import Markup

_PLOTLY = "plotly-cartesian.min.js"
_BREAKS = re.compile(r"(?<=[_=(/·])|(?<=[a-z]-)(?=[a-z])")
"""The places inside a word where a line may end."""
_LONGEST_PART = 12
"""Letters that fit the narrowest column of a printed table."""


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
    environment.filters["breakable"] = breakable
    return environment.get_template(template).render(
        charts=_json(packed(charts)),
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

    The views of one study share most of their lists; a trace refers to a list by its index. Raises
    ValueError for two charts of one key, of which the page would show one twice.
    """
    # each list's index, in order of first use: a dict keeps that order, so it is the lists, too
    indices: dict[tuple[Any, ...], int] = {}
    views: dict[str, list[dict[str, Any]]] = {}
    for chart in charts:
        if chart.key in views:
            raise ValueError(f"two charts have the key '{chart.key}'")
        packed_views = views[chart.key] = []
        for view in chart.views:
            packed_view: dict[str, Any] = {
                "label": view.label,
                "traces": [_packed_trace(trace, indices) for trace in view.traces],
                "xaxis": view.xaxis,
                "yaxis": view.yaxis,
            }
            for name in ("yaxis2", "categories", "column"):
                value = getattr(view, name)
                if value:
                    packed_view[name] = value
            packed_views.append(packed_view)
    return {"views": views, "lists": list(indices)}


def _packed_trace(trace: Trace, indices: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    packed = {}
    for name, value in trace.items():
        if isinstance(value, list):
            # an equal list keeps its earlier index
            value = {"list": indices.setdefault(tuple(value), len(indices))}
        packed[name] = value
    return packed


def breakable(text: str) -> Markup:
    """Return a cell's text as HTML whose lines may end inside names, but not before a unit.

    >>> breakable("large_init 97.81 ± 0.12")
    Markup('large_<wbr>init 97.81 ±\xa00.12')
    """
    from markupsafe import Markup, escape

    words = []
    for word in (
        text.replace("± ", "±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%").split(" ")
    ):
        parts: list[str] = []
        for part in filter(None, _BREAKS.split(word)):
            for start in range(0, len(part), _LONGEST_PART):
                parts.append(part[start : start + _LONGEST_PART])
        words.append(Markup("<wbr>").join(map(escape, parts)))
    return Markup(" ").join(words)


def _json(value: Any) -> Markup:
    """Return a value as JSON that is safe inside a script element, without spaces.

    Raises ValueError for a number that is not finite: with it a browser would read no chart at all.
    """
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    # as jinja's tojson, which writes a space after each comma: a tenth of a large page
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
