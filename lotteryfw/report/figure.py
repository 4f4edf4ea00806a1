"""Accuracy and early-stopping step against density, a figure for each study, as PNG and SVG.

The same rows give the same bytes: fonts and salt are fixed, and no date is written into a file.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.errors import UsageError
from lotteryfw.report.groups import Series, Study, studies_of
from lotteryfw.report.stats import Spread
from lotteryfw.report.table import METRICS
from lotteryfw.report.units import percent, unit_of
from lotteryfw.store import RunFolder, atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours without black and yellow: told apart by colour-blind people too. Line and marker tell the rest.
_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4B8A")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = "os^Dv<>PXphd*"
_INK, _FAINT = "#222222", "#DDDDDD"
_PANEL = (4.9, 4.3)
"""Width and height of a panel, inches."""
_ACCURACIES = (0, 50, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.7, 99.8, 99.9)
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "lotteryfw",
}


@dataclass(frozen=True)
class _Look:
    colour: str
    dash: Any
    marker: str


def write_figures(folder: RunFolder) -> list[Path]:
    """Draws figures/STUDY.png and .svg for each study that has results, and returns their paths.

    Raises UsageError without matplotlib, StoreError where the folder cannot be read or written.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UsageError('figures need matplotlib: pip install "lotteryfw[plots]"') from error
    paths = []
    for study in studies_of(folder.read_levels()):
        if not study.seeds:
            continue
        with rc_context(_STYLE):
            figure = _draw(study, str(folder.read_manifest().get("title") or ""))
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                data = io.BytesIO()
                figure.savefig(data, format=kind, dpi=200, bbox_inches="tight", pad_inches=0.15, metadata=metadata)
                path = folder.path / "figures" / f"{study.name}.{kind}"
                atomic_write(path, data.getvalue())
                paths.append(path)
    return paths


def _draw(study: Study, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, height = _PANEL
    legend = 0.8 + 0.07 * max(len(series.label) for series in study.series)  # inches, so panels keep their size
    figure = Figure(figsize=(len(METRICS) * width + legend, height), facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(METRICS))
    looks = _looks(study.series)
    for axes, metric in zip(panels, METRICS, strict=True):
        _panel(axes, study, metric, looks)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9, handlelength=3.2)
    figure.suptitle(
        " · ".join(part for part in (title, study.name) if part), x=0.01, ha="left", weight="bold", fontsize=12
    )
    figure.supxlabel(_caption(study), x=0.01, ha="left", fontsize=8, color="#666666")
    return figure


def _panel(axes: Axes, study: Study, metric: str, looks: Sequence[_Look]) -> None:
    unit = unit_of(metric)
    axes.set_xscale("log")
    spread = study.dense.spread(metric) if study.dense else None
    if spread:
        axes.axhline(spread.mean * unit.scale, color=_INK, linestyle=(0, (6, 3)), linewidth=1, label="dense network")
        if spread.sd:
            low, high = ((spread.mean + sign * spread.sd) * unit.scale for sign in (-1, 1))
            axes.axhspan(low, high, color=_INK, alpha=0.08, linewidth=0)
    for series, look in zip(study.series, looks, strict=True):
        _curve(axes, series, metric, look, unit.scale)
    if densities := sorted({point.density for series in study.series for point in series.points} - {0.0}):
        _ticks(axes, densities)
    axes.set_xlabel("weights remaining (%)")
    title = unit.title.partition(",")[0]
    axes.set_ylabel(f"{title} (%)" if unit.scale == 100 else title)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if metric.endswith("accuracy"):
        _stretch(axes, study, metric)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(axes: Axes, series: Series, metric: str, look: _Look, scale: float) -> None:
    # a network of which nothing is left has no place on a log axis
    points = [
        (point.density, spread) for point in series.points if point.density > 0 and (spread := point.spread(metric))
    ]
    x = [100 * density for density, _ in points]
    y = [spread.mean * scale for _, spread in points]
    axes.plot(
        x, y, color=look.colour, linestyle=look.dash, marker=look.marker, linewidth=1.6, markersize=4,
        markeredgecolor="white", markeredgewidth=0.5, label=series.label,
    )  # fmt: skip
    low, high = (_edge(points, sign, scale) for sign in (-1, 1))
    axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def _edge(points: Sequence[tuple[float, Spread]], sign: int, scale: float) -> list[float]:
    return [(spread.mean + sign * (spread.sd or 0)) * scale for _, spread in points]


def _stretch(axes: Axes, study: Study, metric: str) -> None:
    """Where accuracies reach from good to useless, spaces them by the logarithm of the error, as 98 and 99 % would
    else look alike."""
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullLocator

    spreads = [spread for series in study.series for point in series.points if (spread := point.spread(metric))]
    errors = [100 * (1 - spread.mean) for spread in spreads]
    best = min((error for error in errors if error > 0), default=100.0)
    if max(errors) < 10 * best:
        return
    floor = best / 2
    axes.set_yscale("function", functions=(lambda y: -np.log10(np.maximum(100 - y, floor)), lambda t: 100 - 10.0**-t))
    low = max(0.0, 100 - 1.15 * max(errors))
    axes.set_ylim(low, 100 - best / 1.4)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in _ACCURACIES if low <= tick <= 100 - floor]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{axes.get_ylabel()}, log-spaced error")


def _ticks(axes: Axes, densities: Sequence[float]) -> None:
    """Falling density from left to right, with as many of the real levels told as fit without touching."""
    from matplotlib.ticker import FixedLocator, NullLocator

    left, right = 100 * max(densities), 100 * min(densities)
    margin = (left / right) ** 0.03 if left > right else 2.0
    axes.set_xlim(left * margin, right / margin)
    per_decade = _PANEL[0] * 0.8 / log10(left * margin / (right / margin))
    chosen: list[float] = []
    for density in reversed(densities):
        if not chosen or log10(chosen[-1] / density) * per_decade > 0.46:  # inches, wider than "51.3"
            chosen.append(density)
    axes.xaxis.set_major_locator(FixedLocator([100 * density for density in chosen]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: percent(value / 100))


def _looks(series: Sequence[Series]) -> list[_Look]:
    """A look for each series. With controls, a colour means a combination and a line an arm."""
    combinations = list(dict.fromkeys(tuple(each.axes.items()) for each in series))
    arms = list(dict.fromkeys(each.arm for each in series))
    looks = []
    for place, each in enumerate(series):
        by_arm = len(combinations) > 1 and len(arms) > 1
        hue, dash = divmod(place, len(_HUES))[::-1]
        if by_arm:
            hue, dash = combinations.index(tuple(each.axes.items())), arms.index(each.arm)
        looks.append(_Look(_HUES[hue % len(_HUES)], _DASHES[dash % len(_DASHES)], _MARKERS[place % len(_MARKERS)]))
    return looks


def _caption(study: Study) -> str:
    counts = sorted({len(point.rows) for series in study.series for point in series.points if point.rows})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    told = [f"Mean over n = {n} seeds; bands are ±1 standard deviation." if counts[-1] > 1 else "One seed."]
    if study.diverged:
        told.append(f"{study.diverged} diverged training{'s' if study.diverged > 1 else ''} left out.")
    return " ".join(told)
