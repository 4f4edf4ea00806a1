"""The tables of a comparison of runs: one for each series of each other run."""

from __future__ import annotations

from lotteryfw.report.data.units import Unit, percent
from lotteryfw.report.tables.text_table import ABSENT, TextTable, markdown_table, markdown_text
from lotteryfw.report.verdicts.comparison import ComparedLevel, ComparedSeries, Comparison

_CORRECTION = (
    "differences are paired by seed; intervals are of one level; verdicts are corrected for the "
    "number of levels by Holm's method"
)


def comparison_tables(comparison: Comparison) -> list[TextTable]:
    """Return a table for each compared series, a level a row."""
    tables = []
    for series in comparison.series:
        tables.append(_table(series, comparison))
    return tables


def comparison_markdown(comparison: Comparison) -> str:
    """Return the tables and notes as Markdown."""
    parts = list(map(markdown_table, comparison_tables(comparison)))
    parts += [f"- {markdown_text(note)}" for note in comparison.notes]
    return "\n\n".join(parts)


def _table(series: ComparedSeries, comparison: Comparison) -> TextTable:
    unit, first = series.unit, comparison.runs[0]
    rows = []
    for level in series.levels:
        rows.append(_row(level, unit))
    title = f"{series.name}: {unit.title}, {series.run} - {first}"
    head = (
        "weights remaining, %",
        first,
        series.run,
        "difference",
        "95 % interval",
        "seeds",
        "verdict",
    )
    return TextTable(title, head, tuple(rows), (_CORRECTION,))


def _row(level: ComparedLevel, unit: Unit) -> tuple[str, ...]:
    return (
        percent(level.density),
        unit.spread(level.first),
        unit.spread(level.other),
        unit.spread(level.estimate.spread, "+"),
        interval_text(level, unit),
        str(level.estimate.spread.n),
        level.verdict,
    )


def interval_text(level: ComparedLevel, unit: Unit) -> str:
    """Return the 95 % interval of the difference, or a dash with fewer than three seeds."""
    if level.estimate.interval is None:
        return ABSENT
    low, high = level.estimate.interval
    return f"{unit.number(low, '+')} to {unit.number(high, '+')}"
