"""Summary tables: a series a row, a handful of its levels as columns, so that any study fits a terminal."""

from __future__ import annotations

from rich.table import Table

from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import Series, Study
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.tables.single_level import flat_sheets
from lotteryfw.report.tables.text_table import (
    Sheet,
    cell,
    markdown_table,
    notes,
    notes_on_part,
    rich_tables,
)
from lotteryfw.store import RunFolder

METRICS = ("test_accuracy", "early_stop_step")
"""What is summarised, a table each."""


def summary_tables(run: RunFolder | RunData, width: int = 100) -> list[Table]:
    """Each study's test accuracy and early-stopping step by weights remaining, in tables of at most `width` columns.

    Raises StoreError where levels.csv cannot be read.
    """
    every = (sheet for study in RunData.of(run).shown for sheet in sheets(study))
    return [table for sheet in every for table in rich_tables(sheet, width)]


def summary_markdown(run: RunFolder | RunData) -> str:
    """The same tables as Markdown. Raises StoreError."""
    return "\n\n".join(
        markdown_table(sheet) for study in RunData.of(run).shown for sheet in sheets(study)
    )


def sheets(study: Study) -> list[Sheet]:
    """A study's tables: with all its levels or, where there is one for each combination, with all its variants.

    Where every training diverged, which they were.
    """
    if not study.seeds:
        return [_diverged(study)]
    return flat_sheets(study) if study.flat else [_sheet(study, metric) for metric in METRICS]


def _diverged(study: Study) -> Sheet:
    rows = [
        (series.label, str(point.level), percent(point.density), str(len(point.diverged)))
        for series in study.searches
        for point in series.points
    ]
    head = ("series", "level", "weights remaining, %", "seeds")
    title = f"{study.name}: every training diverged, so there are no figures"
    return Sheet(title, head, tuple(rows), notes_on_part(study))


def _sheet(study: Study, metric: str) -> Sheet:
    unit, seeds, columns = unit_of(metric), len(study.seeds), study.densities
    over = f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed"
    rows = [
        (
            series.label,
            *(cell(_spread(series, density, metric), unit, seeds) for density in columns),
        )
        for series in study.series
    ]
    head = ("weights remaining, %", *map(percent, columns))
    return Sheet(
        f"{study.name}: {unit.title} ({over})", head, tuple(rows), notes(study, rows), levels=True
    )


def _spread(series: Series, density: float, metric: str) -> Spread | None:
    point = series.at(density)
    return point.spread(metric) if point else None
