"""Summary tables: a series a row, a handful of its levels as columns, so that any study fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

from rich import box
from rich.table import Table

from lotteryfw.report.groups import Point, Series, Study, studies_of
from lotteryfw.report.units import Unit, percent, unit_of
from lotteryfw.store import RunFolder

METRICS = ("test_accuracy", "early_stop_step")
"""What is summarised, a table each."""

_ALIKE = 0.05  # levels of different series stand in one column where their densities differ by less than this share
_MARKDOWN_COLUMNS = 8
_LABEL_WIDTH = 30
_ABSENT, _FEWER = "–", "†"


@dataclass(frozen=True)
class Sheet:
    """A table as plain text, before it is known where it is shown. `rows` begin with their series' label."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def thinned(self, columns: int) -> Sheet:
        """The same with at most so many levels (two at least), evenly chosen, first and last among them."""
        last = len(self.head) - 2
        columns = max(2, columns)
        if last < columns:
            return self
        chosen = [0, *(1 + round(place * last / (columns - 1)) for place in range(columns))]
        head, *rows = (tuple(cells[place] for place in chosen) for cells in (self.head, *self.rows))
        return replace(self, head=head, rows=tuple(rows))


def summary_tables(folder: RunFolder, width: int = 100) -> list[Table]:
    """Each study's test accuracy and early-stopping step by weights remaining, in tables of at most `width` columns.

    Raises StoreError where levels.csv cannot be read.
    """
    return [_rich(sheet, width) for study in studies_of(folder.read_levels()) for sheet in sheets(study)]


def summary_markdown(folder: RunFolder) -> str:
    """The same tables as Markdown. Raises StoreError."""
    return "\n\n".join(_markdown(sheet) for study in studies_of(folder.read_levels()) for sheet in sheets(study))


def sheets(study: Study) -> list[Sheet]:
    """A study's tables, with all its levels."""
    return [_sheet(study, metric) for metric in METRICS]


def _sheet(study: Study, metric: str) -> Sheet:
    unit, seeds = unit_of(metric), len(study.seeds)
    # the longest series names the columns: series that are cut alike share its densities
    columns = [point.density for point in max(study.series, key=lambda each: len(each.points)).points]
    cells = [[_cell(series, density, metric, unit, seeds) for density in columns] for series in study.series]
    shown = [cell for row in cells for cell in row]
    over = f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed"
    notes = []
    if any(cell.endswith(_FEWER) for cell in shown):
        notes.append(f"{_FEWER} fewer than {seeds} seeds: the others diverged, failed or are not trained yet")
    if study.diverged:
        notes.append(f"{study.diverged} diverged training{'s' if study.diverged > 1 else ''} left out")
    return Sheet(
        title=f"{study.name}: {unit.title} ({over})",
        head=("weights remaining, %", *map(percent, columns)),
        rows=tuple((series.label, *row) for series, row in zip(study.series, cells, strict=True)),
        notes=tuple(notes),
    )


def _cell(series: Series, density: float, metric: str, unit: Unit, seeds: int) -> str:
    point = _nearest(series.points, density)
    spread = point.spread(metric) if point else None
    if spread is None:
        return _ABSENT
    return unit.spread(spread) + (_FEWER if spread.n < seeds else "")


def _nearest(points: Sequence[Point], density: float) -> Point | None:
    if density == 0:
        return next((point for point in points if point.density == 0), None)
    alive = [point for point in points if point.density > 0]
    best = min(alive, key=lambda point: abs(log(point.density / density)), default=None)
    return best if best and abs(best.density / density - 1) < _ALIKE else None


def _rich(sheet: Sheet, width: int) -> Table:
    label = min(_LABEL_WIDTH, max(len(row[0]) for row in (sheet.head, *sheet.rows)))
    cell = max(len(text) for row in (sheet.head, *sheet.rows) for text in row[1:])
    # a space at either end of a line, two between columns
    sheet = sheet.thinned((width - 2 - label) // (cell + 2))
    table = Table(
        title=sheet.title, caption="; ".join(sheet.notes) or None, box=box.SIMPLE_HEAD, title_justify="left",
        title_style="bold", caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column(sheet.head[0], overflow="fold", min_width=label, max_width=label)
    for name in sheet.head[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*row)
    return table


def _markdown(sheet: Sheet) -> str:
    sheet = sheet.thinned(_MARKDOWN_COLUMNS)
    rule = ("---", *("---:" for _ in sheet.head[1:]))
    lines = ["| " + " | ".join(row) + " |" for row in (sheet.head, rule, *sheet.rows)]
    notes = ["", "; ".join(sheet.notes)] if sheet.notes else []
    return "\n".join([f"**{sheet.title}**", "", *lines, *notes])
