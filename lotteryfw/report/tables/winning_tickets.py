"""Tables of the verdicts on winning tickets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.tables.text_table import TextTable, partly_shown_note, titled_table
from lotteryfw.report.verdicts.winning_tickets import (
    EARLY_ACCURACY,
    EARLY_STEP,
    SeriesVerdict,
    winning_tickets,
)
from lotteryfw.store import RunFolder

_HEAD = (
    "weights remaining, %",
    "test accuracy, points",
    "95 % interval",
    "early-stopping step",
    "95 % interval",
    "seeds",
    "verdict",
)


def level_verdict_table(series: SeriesVerdict) -> TextTable:
    """Return the table of a series' levels with their differences."""
    rows = []
    for level in series.levels:
        rows.append(
            (
                percent(level.density),
                unit_of(EARLY_ACCURACY).spread(level.accuracy.spread, "+"),
                level.accuracy.interval_text(),
                unit_of(EARLY_STEP).spread(level.stop.spread, "+"),
                level.stop.interval_text(),
                str(level.accuracy.spread.n),
                level.outcome,
            )
        )
    title = f"{series.label}: ticket - dense, mean ± sd over seeds"
    return TextTable(title, _HEAD, tuple(rows), ())


def verdict_tables(run: RunFolder | RunData, width: int = 100) -> list[Table]:
    """Return the verdicts of each study for a terminal, in at most `width` columns.

    Studies in which no level has enough seeds have no table. Raises StoreError.
    """
    tables = []
    for study in RunData.of(run).shown:
        verdicts = winning_tickets(study)
        if any(_is_judged(series) for series in verdicts):
            tables.append(_verdict_table(study, verdicts, width))
    return tables


def _is_judged(series: SeriesVerdict) -> bool:
    return any(level.outcome != "too few seeds" for level in series.levels)


def _verdict_table(study: StudySeries, verdicts: Sequence[SeriesVerdict], width: int) -> Table:
    notes = "; ".join([_summary(verdicts), *partly_shown_note(study)])
    table = titled_table(f"{study.name}: winning tickets", notes, width)
    table.add_column("series", overflow="fold", ratio=2)
    table.add_column("wins at, %", ratio=1)
    table.add_column("undecided at, %", ratio=1)
    for series in verdicts:
        wins, undecided = series.densities("winning ticket"), series.densities("undecided")
        table.add_row(Text(series.label), wins, undecided)
    return table


def _summary(verdicts: Sequence[SeriesVerdict]) -> str:
    """Return a sentence on the smallest winning ticket of all series."""
    winning = []
    for series in verdicts:
        if series.deciding_level.outcome == "winning ticket":
            winning.append(series)
    if not winning:
        return "No level of any series is a winning ticket beyond doubt."
    smallest = min(winning, key=lambda series: series.deciding_level.density)
    return f"{smallest.label}: {smallest.deciding_level.sentence}"


def verdict_markdown(run: RunFolder | RunData) -> str:
    """Return the verdicts as Markdown lists, one for each study. Raises StoreError."""
    lists = []
    for study in RunData.of(run).shown:
        lines = []
        for series in winning_tickets(study):
            lines.append(f"- {series.label}: {series.deciding_level.sentence}")
        if lines:
            lines += [f"- {note}" for note in partly_shown_note(study)]
            lists.append("\n".join([f"**{study.name}: winning tickets**", "", *lines]))
    return "\n\n".join(lists)
