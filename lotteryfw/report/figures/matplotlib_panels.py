"""Panels of the static figures: curves, dots, clouds and weights, each on matplotlib axes that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING, Any

from lotteryfw.report.data.series import Series, Study
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent
from lotteryfw.report.html.plotly_chart import Told
from lotteryfw.report.plots.analysis_views import Cloud, Sample, accuracy_unit
from lotteryfw.report.plots.dot_plot import Dots
from lotteryfw.report.plots.style import HUES, ErrorScale, Look, looks_of, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#222222"
PANEL = (4.9, 4.3)
"""Width and height of a panel of curves, inches."""
_FAINT = "#DDDDDD"
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = "os^Dv<>PXphd*"
_KEPT, _MASKED = HUES[0], HUES[1]


def curves(
    axes: Axes, study: Study, unit: Unit, told: Told, scale: ErrorScale | None = None
) -> None:
    """A figure of each series against weights remaining, with the dense network's."""
    axes.set_xscale("log")
    if study.dense and (spread := told(study.dense)):
        axes.axhline(
            spread.mean * unit.scale,
            color=INK,
            linestyle=(0, (6, 3)),
            linewidth=1,
            label="dense network",
        )
        if spread.sd:
            low, high = ((spread.mean + sign * spread.sd) * unit.scale for sign in (-1, 1))
            axes.axhspan(low, high, color=INK, alpha=0.08, linewidth=0)
    for series, look in zip(study.series, looks_of(study.series), strict=True):
        _curve(axes, series, told, look, unit.scale)
    if densities := sorted(
        {point.density for series in study.series for point in series.points} - {0.0}
    ):
        _ticks(axes, densities)
    axes.set_xlabel("weights remaining (%)")
    axes.set_ylabel(unit.axis)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if scale:
        _stretch(axes, scale)
    _plain(axes)


def dotted(axes: Axes, dots: Dots) -> None:
    """A place for each figure, a dot with a bar of ±1 sd for each row."""
    for place, row in enumerate(dots.rows):
        scale, spreads = dots.unit.scale, row.spreads
        axes.errorbar(
            [dots.at(place, name) for name in spreads], [spread.mean * scale for spread in spreads.values()],
            yerr=[(spread.sd or 0) * scale for spread in spreads.values()], color=row.look.colour, linestyle="none",
            marker=_MARKERS[row.look.marker % len(_MARKERS)], markersize=5, capsize=2, linewidth=1, label=row.label,
        )  # fmt: skip
    tight = (
        len(dots.places) * max(map(len, dots.places)) > 50
    )  # letters that stand side by side in a panel
    axes.set_xticks(range(len(dots.places)), dots.places, fontsize=9, rotation=20 if tight else 0)
    axes.set_xlim(-0.5, len(dots.places) - 0.5)
    axes.set_xlabel(dots.axis)
    axes.set_ylabel(dots.title)
    _plain(axes)


def cloud(axes: Axes, cloud: Cloud, unit: Unit) -> None:
    """Accuracy against a figure, coloured by an axis of the grid, which the legend names."""
    accuracy = accuracy_unit()
    for place, (value, marks) in enumerate(cloud.groups.items()):
        axes.plot(
            [mark.x * unit.scale for mark in marks], [mark.y * accuracy.scale for mark in marks], linestyle="none",
            color=HUES[place % len(HUES)], marker=_MARKERS[place // len(HUES)], markersize=4.5, alpha=0.8, label=value,
        )  # fmt: skip
    axes.set_xlabel(unit.axis)
    axes.set_ylabel(accuracy.axis)
    if cloud.axis:
        axes.legend(
            title=cloud.axis.rpartition(".")[2].replace("_", " "),
            fontsize=7,
            title_fontsize=8,
            frameon=False,
        )
    _plain(axes)


def weights(axes: Axes, sample: Sample) -> None:
    """w_f against w_i: kept and masked weights, and the diagonal on which training changed nothing."""
    ends = [min((*sample.before, *sample.after)), max((*sample.before, *sample.after))]
    axes.plot(ends, ends, color="#888888", linestyle=(0, (6, 3)), linewidth=1, label="unchanged")
    for name, kept, colour in (("masked", 0, _MASKED), ("kept", 1, _KEPT)):
        own = [place for place, value in enumerate(sample.kept) if value == kept]
        x, y = ([each[place] for place in own] for each in (sample.before, sample.after))
        axes.plot(
            x, y, color=colour, linestyle="none", marker=".", markersize=2.5, alpha=0.6, label=name
        )
    axes.set_title(f"{sample.label} · {sample.layer}", fontsize=8)
    axes.tick_params(labelsize=7)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(axes: Axes, series: Series, told: Told, look: Look, scale: float) -> None:
    # a network of which nothing is left has no place on a log axis
    points = [
        (point.density, spread)
        for point in series.points
        if point.density > 0 and (spread := told(point))
    ]
    x = [100 * density for density, _ in points]
    y = [spread.mean * scale for _, spread in points]
    axes.plot(
        x, y, color=look.colour, linestyle=_DASHES[look.line], linewidth=1.6, markersize=4,
        marker=_MARKERS[look.marker % len(_MARKERS)], markeredgecolor="white", markeredgewidth=0.5, label=series.label,
    )  # fmt: skip
    low, high = (_edge(points, sign, scale) for sign in (-1, 1))
    axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def _edge(points: Sequence[tuple[float, Spread]], sign: int, scale: float) -> list[float]:
    return [(spread.mean + sign * (spread.sd or 0)) * scale for _, spread in points]


def _stretch(axes: Axes, scale: ErrorScale) -> None:
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullLocator

    to_error = lambda y: -np.log10(np.maximum(100 - y, scale.floor))  # noqa: E731
    axes.set_yscale("function", functions=(to_error, lambda t: 100 - 10.0**-t))
    axes.set_ylim(scale.low, scale.high)
    axes.yaxis.set_major_locator(FixedLocator(scale.ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{axes.get_ylabel()}, log-spaced error")


def _ticks(axes: Axes, densities: Sequence[float]) -> None:
    """Falling density from left to right, with as many of the real levels told as fit without touching."""
    from matplotlib.ticker import FixedLocator, NullLocator

    left, right = 100 * max(densities), 100 * min(densities)
    margin = (left / right) ** 0.03 if left > right else 2.0
    axes.set_xlim(left * margin, right / margin)
    per_decade = PANEL[0] * 0.8 / log10(left * margin / (right / margin))
    chosen = spaced(densities, 0.46 / per_decade)  # inches, wider than "51.3"
    axes.xaxis.set_major_locator(FixedLocator([100 * density for density in chosen]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: percent(value / 100))
