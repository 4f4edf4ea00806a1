"""Static figures against an ordered axis of the grid, and along the positions of an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import methodcaller

from lotteryfw.report.data.choice import evenly_chosen, partly_chosen
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.series import PointSpread, SharedLevel, StudySeries
from lotteryfw.report.data.units import ACCURACY, Unit
from lotteryfw.report.figures.figure_spec import DrawPanel, FigureSpec
from lotteryfw.report.figures.matplotlib_panels import draw_lines
from lotteryfw.report.plots.analysis_views import network_metrics
from lotteryfw.report.plots.line_plots import (
    LinePlot,
    OrderedAxis,
    figures_along,
    ordered_axes,
    plot_along,
    plot_by_axis,
    position_name,
    pruned_levels,
)
from lotteryfw.report.plots.style import caption

_MOST_LEVELS = 4  # columns that a page has room for
_SIZE = (3.0, 2.6)  # inches

Figure = tuple[Unit, PointSpread]


def axis_figures(study: StudySeries, findings: Findings) -> Iterator[FigureSpec]:
    """Yield the objective's figure, and each analysis above it, against each ordered axis.

    A row has a figure, a column a level.
    """
    accuracy: Figure = study.unit(ACCURACY), methodcaller("spread", ACCURACY)
    for axis in ordered_axes(study):
        stem = f"{study.name}-{axis.title.replace(' ', '_')}"
        yield from _axis_figure(stem, study, axis, [accuracy])
        for analysis in findings.analyses:
            rows: list[Figure] = []
            for metric in network_metrics(findings, analysis, distinct=True):
                rows.append((findings.unit(metric), partial(findings.spread, metric=metric)))
            if rows:
                yield from _axis_figure(f"{stem}-{analysis}", study, axis, [*rows, accuracy])


def _axis_figure(
    name: str, study: StudySeries, axis: OrderedAxis, rows: Sequence[Figure]
) -> Iterator[FigureSpec]:
    levels = evenly_chosen(pruned_levels(study), _MOST_LEVELS)
    plots: list[list[LinePlot | None]] = []
    for unit, point_spread in rows:
        plots.append([plot_by_axis(study, axis, level, unit, point_spread) for level in levels])
    yield from _grid(name, study, levels, plots, len(pruned_levels(study)))


def along_figures(study: StudySeries, findings: Findings) -> Iterator[FigureSpec]:
    """Yield the lists that analyses give along positions: a row has a figure, a column a level."""
    # the dense network that all series share would be one line under many names
    all_levels = pruned_levels(study) or study.levels
    levels = evenly_chosen(all_levels, _MOST_LEVELS)
    for analysis in findings.analyses:
        x_title = position_name(findings, analysis)
        plots: list[list[LinePlot | None]] = []
        for metric, figures in figures_along(findings, analysis).items():
            unit = findings.unit(metric)
            plots.append([plot_along(study, level, unit, x_title, figures) for level in levels])
        name = f"{study.name}-{analysis}-along-{x_title}"
        yield from _grid(name, study, levels, plots, len(all_levels))


def _grid(
    name: str,
    study: StudySeries,
    levels: Sequence[SharedLevel],
    plots: Sequence[Sequence[LinePlot | None]],
    count: int,
) -> Iterator[FigureSpec]:
    """Yield one figure of these plots; none where nothing was measured."""
    # a level without any plot, such as one that the analysis leaves out, has no column
    columns = [index for index in range(len(levels)) if any(row[index] for row in plots)]
    if not columns:
        return
    panels: list[DrawPanel] = []
    for row in plots:
        for index in columns:
            panels.append(partial(draw_lines, plot=row[index], title=levels[index].text))
    note = caption(study, partly_chosen(_MOST_LEVELS, count, "levels"))
    yield FigureSpec(name, note, panels, len(columns), _SIZE)
