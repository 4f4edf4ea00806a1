"""The charts of a study's layers: how the density of each falls with that of the network."""

from __future__ import annotations

from lotteryfw.report.data.choice import evenly_chosen, partly_chosen
from lotteryfw.report.data.series import TICKET, Point, Series, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.html.plotly_chart import (
    Chart,
    Trace,
    View,
    curve,
    density_axis,
    plotly_style,
    plotly_text,
)
from lotteryfw.report.plots.style import caption, line_style

_MOST_LAYERS = 24  # curves that a reader can tell apart, by four lines and seven colours
_MOST_SERIES = 20  # views: what is shared by all criteria is seen in the first


def layer_chart(study: StudySeries) -> Chart | None:
    """Return the densities of layers against weights remaining, a view for each ticket series.

    None where no level was pruned, or networks have one layer.
    """
    # a control keeps as many weights in each layer as its ticket
    tickets = [series for series in study.series if series.variant == TICKET]
    views = []
    most_layers = 0
    for series in tickets[:_MOST_SERIES]:
        view = _layer_view(series)
        if view:
            views.append(view)
            most_layers = max(most_layers, len(series.rows[0].densities_by_layer()))
    if not views:
        return None
    text = caption(
        study,
        partly_chosen(_MOST_SERIES, len(tickets), "series"),
        partly_chosen(_MOST_LAYERS, most_layers, "layers"),
    )
    return Chart(f"{study.name}/layers", "Density by layer", text, tuple(views))


def _layer_view(series: Series) -> View | None:
    layers: dict[str, None] = {}
    densities: set[float] = set()
    for row in series.rows:
        layers |= dict.fromkeys(row.densities_by_layer())
        if row.density > 0:
            densities.add(row.density)
    if len(layers) < 2 or len(densities) < 2:
        return None
    traces: list[Trace] = []
    for index, layer in enumerate(evenly_chosen(list(layers), _MOST_LAYERS)):
        traces += _layer_curve(layer, index, series)
    # the points of the series, which are means over seeds, name the axis
    positions = sorted({point.density for point in series.points if point.density > 0})
    yaxis = {"title": "weights remaining in the layer (%)", "rangemode": "tozero"}
    return View(series.label, tuple(traces), density_axis(positions), yaxis)


def _layer_curve(layer: str, index: int, series: Series) -> list[Trace]:
    points = []
    for point in series.points:
        spread = _spread(point, layer)
        # a density of 0 has no place on a log axis
        if spread and point.density > 0:
            points.append((100 * point.density, spread))
    if not points:
        return []
    # plotly.js fills in the figures: a text for each point of each layer would be half the page
    text = f"<b>{plotly_text(layer)}</b><br>%{{x}} % of the weights<br>%{{y}} % of the layer"
    style = plotly_style(line_style(index))
    return curve(
        layer,
        points,
        _per_cent,
        mode="lines+markers",
        hovertemplate=f"{text}<extra></extra>",
        **style,
    )


def _per_cent(density: float) -> float:
    return 100 * density


def _spread(point: Point, layer: str) -> Spread | None:
    values = []
    for row in point.rows:
        density = row.densities_by_layer().get(layer)
        if density is not None:
            values.append(density)
    return Spread.of(values) if values else None
