"""The static figures of a run, as PNG and SVG: of each study's levels, and of its analyses.

The same rows give the same bytes: fonts and salt are fixed, and no date is written into a file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from math import ceil
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import UsageError
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import SUMMARY_METRICS, percent
from lotteryfw.report.figures.axis_figures import along_figures, axis_figures
from lotteryfw.report.figures.figure_spec import DrawPanel, FigureSpec
from lotteryfw.report.figures.matplotlib_panels import (
    INK,
    draw_curves,
    draw_dots,
    draw_scatter,
    draw_weights,
)
from lotteryfw.report.plots.analysis_views import (
    WeightSample,
    network_metrics,
    scatters,
    weight_samples,
)
from lotteryfw.report.plots.line_plots import ordered_axes
from lotteryfw.report.plots.single_level import density_plot, metric_compared
from lotteryfw.report.plots.style import caption, error_scale
from lotteryfw.store import RunFolder, atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALL, _TINY = (3.7, 3.2), (2.1, 2.0)  # inches, where there are many panels
_MOST_COLUMNS = 3  # more panels side by side are too small to read on a screen
_PALE = "#666666"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "lotteryfw",
    # titles and labels are a recipe's own, and a dollar in them is no formula
    "text.parse_math": False,
}


def write_figures(run: RunFolder | RunData, by_seed: bool = False) -> list[Path]:
    """Draw figures/STUDY.png and .svg, and those of its analyses, for each study with results.

    With `by_seed` each study's figure is drawn of its first seed, its first two, and so on, too, so
    that one sees how results settle. Return the paths. Raises UsageError without matplotlib,
    StoreError if the folder cannot be read or written.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UsageError('figures need matplotlib: pip install "lotteryfw[plots]"') from error

    data = RunData.of(run)
    title = str(data.manifest.get("title") or "")
    folder = data.folder.path / "figures"
    paths = []
    for spec in chain(study_figures(data), _seed_figures(data) if by_seed else ()):
        with rc_context(STYLE):
            paths += _save(_draw(spec, title), folder / spec.name)
    return paths


def study_figures(data: RunData) -> Iterator[FigureSpec]:
    """Yield the figures of each study with results: of its levels, and of its analyses.

    Each has a name of its own, which its file gets.
    """
    taken: set[str] = set()
    for figure in _study_figures(data):
        # a plugin's analysis may be called "weights", and a study "mask0-mask_overlap"
        name, number = figure.name, 1
        while name in taken:
            number += 1
            name = f"{figure.name}-{number}"
        taken.add(name)
        yield replace(figure, name=name)


def _study_figures(data: RunData) -> Iterator[FigureSpec]:
    for study in data.shown:
        # every training diverged, so there is nothing to draw
        if study.seeds:
            findings = data.findings.of_study(study.name)
            # of one density a curve is a point; where there is an axis, the figures against it show more
            if not (study.one_density and ordered_axes(study)):
                yield from _level_figure(study)
            yield from axis_figures(study, findings)
            yield from _analysis_figures(study, findings)
            yield from along_figures(study, findings)


def _seed_figures(data: RunData) -> Iterator[FigureSpec]:
    """Yield each study's figure of its first seed, its first two seeds, and so on up to all."""
    for study in data.shown:
        seeds = study.seeds
        for count in range(1, len(seeds) + 1):
            name = f"{study.name}-first_{count}_of_{len(seeds)}_seeds"
            for figure in _level_figure(study.of_seeds(seeds[:count])):
                yield replace(figure, name=name)


def _level_figure(study: StudySeries) -> Iterator[FigureSpec]:
    """Yield accuracy and early-stopping step against density; for single levels, the dots.

    Yields nothing where no level that is shown has figures.
    """
    # the searches of a density sweep may all have diverged at their ends
    if not _has_rows(study):
        return
    panels: list[DrawPanel] = []
    if study.single_level:
        for plot in (metric_compared(study, SUMMARY_METRICS[0]), density_plot(study)):
            if plot:
                panels.append(partial(draw_dots, plot=plot))
        if panels:
            yield FigureSpec(study.name, caption(study, marks="bars"), panels, len(panels))
        return

    for metric in (*SUMMARY_METRICS, *study.metric_units):
        panels.append(
            partial(
                draw_curves,
                study=study,
                unit=study.unit(metric),
                point_spread=methodcaller("spread", metric),
                scale=error_scale(study, metric),
            )
        )
    yield FigureSpec(study.name, caption(study), panels, min(_MOST_COLUMNS, len(panels)))


def _has_rows(study: StudySeries) -> bool:
    return any(point.rows for point in study.points)


def _analysis_figures(study: StudySeries, findings: Findings) -> Iterator[FigureSpec]:
    for analysis in findings.analyses:
        metrics = network_metrics(findings, analysis, distinct=True)
        name = f"{study.name}-{analysis}"
        has_curves = not (study.one_density and ordered_axes(study))
        if metrics and has_curves and not study.single_level and _has_rows(study):
            yield _analysis_curves(name, study, findings, metrics)
        # Only where searches end at one level each: along a curve, accuracy and figure both follow
        # the density, and a scatter plot would show no more than that.
        if study.single_level or any(series.parts for series in study.series):
            yield from _accuracy_scatters(f"{name}-{study.figure_key}", study, findings, metrics)

    samples = weight_samples(study, findings)
    if samples:
        yield _weights_figure(f"{study.name}-weights", samples)


def _analysis_curves(
    name: str, study: StudySeries, findings: Findings, metrics: Sequence[str]
) -> FigureSpec:
    # The dense network's own figures are the curves' points at 100 %, and no goal of the others.
    without_dense = replace(study, dense=None)
    panels: list[DrawPanel] = []
    for metric in metrics:
        panels.append(
            partial(
                draw_curves,
                study=without_dense,
                unit=findings.unit(metric),
                point_spread=partial(findings.spread, metric=metric),
            )
        )
    return FigureSpec(name, caption(study), panels, min(_MOST_COLUMNS, len(panels)), _SMALL)


def _accuracy_scatters(
    name: str, study: StudySeries, findings: Findings, metrics: Sequence[str]
) -> Iterator[FigureSpec]:
    """Yield one figure with a row of panels for each metric; none without points."""
    panels: list[DrawPanel] = []
    columns = 0  # a row has a panel for each axis of the grid
    for metric in metrics:
        plots = scatters(study, findings, metric)
        columns = max(columns, len(plots))
        for scatter in plots:
            panels.append(partial(draw_scatter, scatter=scatter, unit=findings.unit(metric)))
    if panels:
        yield FigureSpec(name, "A mark for each training.", panels, columns, _SMALL, legend=False)


def _weights_figure(name: str, samples: Sequence[WeightSample]) -> FigureSpec:
    seeds: set[str] = set()
    densities: set[str] = set()
    for sample in samples:
        seeds.add(f"seed {sample.seed}")
        densities.add(f"{percent(sample.density)} % of the weights")
    # below all panels stands what they have in common, and above each what it has of its own
    note = "A sample of each layer"
    if len(seeds) == 1:
        note += f" in {min(seeds)}"
    if len(densities) == 1:
        note += f", at {min(densities)}"
    panels: list[DrawPanel] = []
    layers: set[str] = set()
    for sample in samples:
        own = []
        if len(densities) > 1:
            own.append(f"{percent(sample.density)} % of the weights")
        if len(seeds) > 1:
            own.append(f"seed {sample.seed}")
        lines = (f"{sample.label} · {sample.layer}", ", ".join(own))
        title = "\n".join(filter(None, lines))
        panels.append(partial(draw_weights, sample=sample, title=title))
        layers.add(sample.layer)
    # a row for each combination and a column for each layer: the papers' arrangement
    axes = ("w_i: weight before training", "w_f: weight after training")
    return FigureSpec(name, f"{note}.", panels, len(layers), _TINY, axes=axes)


def _draw(spec: FigureSpec, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = ceil(len(spec.panels) / spec.columns)
    # no pyplot, which keeps every figure open and may look for a display
    figure = Figure(facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12))
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, spec.columns, squeeze=False).flat)
    # not strict: the last row may have fewer panels than columns
    for axes, draw_panel in zip(grid, spec.panels, strict=False):
        draw_panel(axes)
    for axes in grid[len(spec.panels) :]:
        axes.set_axis_off()

    # all panels have the same series, so one legend serves them
    legend_width = _add_legend(figure, grid) if spec.legend else 0.0
    width, height = spec.size
    heading = _heading(spec, title)
    # wide enough for the heading, and for a legend beside panels that keep their size;
    # 0.11 inches is the mean width of a bold letter of 12 points
    figure_width = max(spec.columns * width, 0.11 * len(heading)) + legend_width
    figure.set_size_inches(figure_width, rows * height)
    figure.suptitle(heading, x=0.01, ha="left", weight="bold", fontsize=12)

    x_label, y_label = spec.axes
    below = "\n".join(filter(None, (x_label, spec.note)))
    figure.supxlabel(below, x=0.01, ha="left", fontsize=8, color=_PALE)
    figure.supylabel(y_label, fontsize=8, color=_PALE)
    return figure


def legend_entries(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Return handles and labels of all panels, each label once: some panels lack some series."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def _add_legend(figure: Figure, panels: Sequence[Axes]) -> float:
    """Add the legend of these panels beside them, and return its width in inches."""
    handles, labels = legend_entries(panels)
    figure.legend(
        handles,
        labels,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        handlelength=3.2,
        markerscale=1,
    )
    # inches for the line, the marker and the margins, and for each letter of 9 points
    return 0.8 + 0.07 * max(map(len, labels), default=0)


def _heading(spec: FigureSpec, title: str) -> str:
    name = spec.name
    # "study-analysis" is a file's name; a study's own name with a dash cannot be told from one
    if "-" in name:
        name = name.replace("-", " · ").replace("_", " ")
    return " · ".join(filter(None, (title, name)))


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = []
    # None leaves an entry out: a date or matplotlib's version would change the bytes
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        # into memory first, so that no half-written figure is left when drawing fails
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=kind, dpi=200, bbox_inches="tight", pad_inches=0.15, metadata=metadata
        )
        path = stem.with_name(f"{stem.name}.{kind}")
        atomic_write(path, buffer.getvalue())
        paths.append(path)
    return paths
