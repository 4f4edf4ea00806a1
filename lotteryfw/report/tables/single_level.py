"""Tables of studies with one level for each combination: their variants and densities."""

from __future__ import annotations

from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import ACCURACY, density_range
from lotteryfw.report.plots.dot_plot import DotPlot
from lotteryfw.report.plots.single_level import (
    DENSITY_UNIT,
    density_plot,
    grid_combinations,
    metric_by_variant,
)
from lotteryfw.report.tables.text_table import (
    ABSENT,
    TextTable,
    seeds_text,
    spread_cell,
    study_notes,
)


def single_level_tables(study: StudySeries) -> list[TextTable]:
    """Return test accuracy by variant, and the tickets' densities if they are not all alike."""
    tables = []
    accuracy = metric_by_variant(study, ACCURACY)
    if accuracy:
        tables.append(_dot_table(study, accuracy, with_density=True))
    for metric in study.metric_units:
        plot = metric_by_variant(study, metric)
        if plot:
            tables.append(_dot_table(study, plot))
    density = density_plot(study)
    if density:
        tables.append(_dot_table(study, density))
    return tables


def _dot_table(study: StudySeries, plot: DotPlot, with_density: bool = False) -> TextTable:
    """Return the rows and categories of a plot, and a column of the densities on request."""
    seeds = len(study.seeds)
    remaining = _remaining(study)
    rows = []
    for row in plot.rows:
        cells = [row.label]
        for category in plot.categories:
            cells.append(spread_cell(row.spreads.get(category), plot.unit, seeds))
        if with_density:
            cells.append(remaining[row.label])
        rows.append(tuple(cells))

    title = f"{study.name}: {plot.unit.title} ({seeds_text(seeds)})"
    head = ["series", *plot.categories]
    if with_density:
        head.append(DENSITY_UNIT.title)
    return TextTable(title, tuple(head), tuple(rows), study_notes(study, rows))


def _remaining(study: StudySeries) -> dict[str, str]:
    """Return the range of densities of each combination, by label."""
    remaining = {}
    for combination in grid_combinations(study):
        densities: list[float] = []
        for series in combination.series:
            densities += [row.density for row in series.rows]
        # `density_range` reads the ends: they fall from dense to sparse
        densities.sort(reverse=True)
        remaining[combination.label] = density_range(densities) if densities else ABSENT
    return remaining
