"""Summary tables: a series a row and its levels as columns, thinned to fit a terminal."""

from __future__ import annotations

from rich.table import Table

from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import SUMMARY_METRICS, percent
from lotteryfw.report.tables.single_level import single_level_tables
from lotteryfw.report.tables.text_table import (
    TextTable,
    markdown_table,
    partly_shown_note,
    rich_tables,
    seeds_text,
    spread_cell,
    study_notes,
)
from lotteryfw.store import RunFolder


def summary_tables(
    run: RunFolder | RunData, width: int = 100, every_level: bool = False
) -> list[Table]:
    """Return each study's test accuracy and early-stopping step by weights remaining.

    The tables have at most `width` columns. Of very many levels some stand for all, unless
    `every_level` asks for more tables. Raises StoreError if levels.csv cannot be read.
    """
    tables = []
    for study in RunData.of(run).shown:
        for table in study_tables(study):
            # several, where a narrow terminal has no room for all levels side by side
            tables += rich_tables(table, width, every_level)
    return tables


def summary_markdown(run: RunFolder | RunData) -> str:
    """Return the same tables as Markdown. Raises StoreError."""
    tables: list[str] = []
    for study in RunData.of(run).shown:
        tables += map(markdown_table, study_tables(study))
    return "\n\n".join(tables)


def study_tables(study: StudySeries) -> list[TextTable]:
    """Return a study's tables: by level or, if each combination has only one, by variant.

    If every training diverged, a table lists them.
    """
    if not study.seeds:
        return [_diverged_table(study)]
    if study.single_level:
        return single_level_tables(study)
    return [_level_table(study, metric) for metric in (*SUMMARY_METRICS, *study.metric_units)]


def _diverged_table(study: StudySeries) -> TextTable:
    rows = []
    for search in study.searches:
        for point in search.points:
            density, count = percent(point.density), len(point.diverged)
            rows.append((search.label, str(point.level), density, str(count)))
    head = ("series", "level", "weights remaining, %", "seeds")
    title = f"{study.name}: every training diverged, so there are no figures"
    return TextTable(title, head, tuple(rows), partly_shown_note(study))


def _level_table(study: StudySeries, metric: str) -> TextTable:
    unit = study.unit(metric)
    seeds = len(study.seeds)
    levels = study.levels
    rows = []
    for series in study.series:
        cells = [series.label]
        for level in levels:
            # None where this series was pruned at another rate, or is not trained so far yet
            point = series.at(level)
            spread = point.spread(metric) if point else None
            cells.append(spread_cell(spread, unit, seeds))
        rows.append(tuple(cells))

    title = f"{study.name}: {unit.title} ({seeds_text(seeds)})"
    head = ("weights remaining, %", *(level.label for level in levels))
    return TextTable(title, head, tuple(rows), study_notes(study, rows), levels=True)
