"""Tables of the verdicts on winning tickets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.tables.text_table import (
    TextTable,
    markdown_text,
    partly_shown_note,
    titled_table,
)
from lotteryfw.report.verdicts.estimate import FEWEST_SEEDS
from lotteryfw.report.verdicts.winning_tickets import (
    EARLY_ACCURACY,
    EARLY_STEP,
    WINS,
    SeriesVerdict,
    winning_tickets,
)
from lotteryfw.store import RunFolder

_CORRECTION = (
    "intervals are of one level; verdicts are corrected for the number of levels by Holm's method"
)


def level_verdict_table(series: SeriesVerdict) -> TextTable:
    """Return the table of a series' levels with their differences."""
    rows = []
    for level in series.levels:
        rows.append(
            (
                percent(level.density),
                unit_of(EARLY_ACCURACY).spread(level.accuracy.estimate.spread, "+"),
                level.accuracy.interval_text(),
                unit_of(EARLY_STEP).spread(level.stop.estimate.spread, "+"),
                level.stop.interval_text(),
                str(level.accuracy.estimate.spread.n),
                level.outcome,
            )
        )
    head = (
        "weights remaining, %",
        f"test {series.figure}, points",
        "95 % interval",
        "early-stopping step",
        "95 % interval",
        "seeds",
        "verdict",
    )
    title = f"{series.label}: ticket - dense, mean ± sd over seeds"
    return TextTable(title, head, tuple(rows), (_CORRECTION,) if len(rows) > 1 else ())


def verdict_tables(run: RunFolder | RunData, width: int = 100) -> list[Table]:
    """Return the verdicts of each study for a terminal, in at most `width` columns.

    Studies in which no level has enough seeds have no table. Raises StoreError.
    """
    tables = []
    data = RunData.of(run)
    for study in data.shown:
        verdicts = winning_tickets(study, data.study_table(study.name))
        # with fewer seeds the table would say "undecided" in every row
        if any(map(_is_judged, verdicts)):
            tables.append(_verdict_table(study, verdicts, width))
    return tables


def _is_judged(series: SeriesVerdict) -> bool:
    return any(level.accuracy.estimate.spread.n >= FEWEST_SEEDS for level in series.levels)


def _verdict_table(study: StudySeries, verdicts: Sequence[SeriesVerdict], width: int) -> Table:
    table = titled_table(f"{study.name}: winning tickets", _notes(study, verdicts), width)
    table.add_column("series", overflow="fold", ratio=2)
    table.add_column("wins at, %", ratio=1)
    table.add_column("does not win at, %", ratio=1)
    table.add_column("undecided at, %", ratio=1)
    for series in verdicts:
        # a refusal is of the whole series, so any level has it
        if series.chosen_level.refusal:
            table.add_row(Text(series.label), Text(f"no ticket: {series.chosen_level.refusal}"))
            continue
        wins, loses = series.densities(*WINS), series.densities("not a winning ticket")
        table.add_row(Text(series.label), wins, loses, series.densities("undecided"))
    return table


def _notes(study: StudySeries, verdicts: Sequence[SeriesVerdict]) -> str:
    """Return the headline of the first series, which a recipe puts first, and what is left out."""
    first, *others = verdicts
    notes = [f"{first.label}: {first.headline}"]
    if others:
        notes.append(
            f"The sentences of the {len(others)} other series are in report.html, and "
            "`lotteryfw report RUN --markdown` prints them."
        )
    return "\n".join([*notes, *partly_shown_note(study)])


def verdict_markdown(run: RunFolder | RunData) -> str:
    """Return the verdicts as Markdown lists, one for each study. Raises StoreError."""
    data = RunData.of(run)
    lists = []
    for study in data.shown:
        lines = []
        for series in winning_tickets(study, data.study_table(study.name)):
            lines.append(f"- {markdown_text(f'{series.label}: {series.headline}')}")
        if lines:
            lines += [f"- {note}" for note in partly_shown_note(study)]
            title = f"**{markdown_text(study.name)}: winning tickets**"
            lists.append("\n".join([title, "", *lines]))
    return "\n\n".join(lists)
