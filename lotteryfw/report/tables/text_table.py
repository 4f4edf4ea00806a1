"""A table of plain text, and its forms on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from rich import box
from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.choice import evenly_chosen
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit

ABSENT, FEWER = "–", "†"
_MARKDOWN_COLUMNS = 8
# Levels that would need more tables than this are thinned: a few of them show a curve's shape.
_MAX_TABLES = 2
_LABEL_WIDTH = 30


@dataclass(frozen=True)
class TextTable:
    """A table of plain text; `rows` begin with the label of their series.

    If the columns are `levels`, some of them may stand for all where there is little room.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    levels: bool = False

    def thinned(self, columns: int) -> TextTable:
        """Return the table with at most `columns` levels (at least two), evenly chosen.

        The first and the last stay, and a note lists those that are left out. Columns that are no
        levels all stay.
        """
        levels = range(1, len(self.head))
        columns = max(2, columns)
        if not self.levels or len(levels) <= columns:
            return self

        chosen = evenly_chosen(levels, columns)
        # a reader who misses a level learns that it exists, and where
        left_out = [self.head[column] for column in levels if column not in chosen]
        note = (
            f"not shown here, but in report.html and by `lotteryfw report RUN --every-level`: "
            f"{', '.join(left_out)} %"
        )
        return replace(self._with_columns(chosen), notes=(*self.notes, note))

    def turned(self) -> TextTable:
        """Return the table with its columns as rows: a row for each level, a column a series."""
        rows = []
        for column in range(1, len(self.head)):
            rows.append((self.head[column], *(row[column] for row in self.rows)))
        labels = [row[0] for row in self.rows]
        head = (self.head[0], *labels)
        return replace(self, head=head, rows=tuple(rows), levels=False)

    def fitted(self, columns: int) -> list[TextTable]:
        """Return tables with every figure and at most so many columns beside the labels.

        A table of more levels than columns is turned, since a page has no end downwards.
        """
        is_wide = len(self.head) - 1 > columns
        table = self.turned() if self.levels and is_wide else self
        return table.split(columns) if table.levels or table is not self else [table]

    def split(self, columns: int) -> list[TextTable]:
        """Return tables of at most `columns` columns beside the labels, of even widths.

        The notes are below the last one.
        """
        count = len(self.head) - 1
        # 7 columns where 6 fit are 4 + 3, which reads better than 6 + 1
        width = ceil(count / ceil(count / columns))
        parts = []
        for start in range(1, 1 + count, width):
            end = min(start + width, 1 + count)
            part = self._with_columns(range(start, end))
            parts.append(
                replace(
                    part,
                    title=self.title if start == 1 else f"{self.title}, continued",
                    notes=self.notes if end > count else (),
                )
            )
        return parts

    def _with_columns(self, columns: Sequence[int]) -> TextTable:
        """Return the table with these columns beside the labels."""

        def cells(row: tuple[str, ...]) -> tuple[str, ...]:
            return (row[0], *(row[column] for column in columns))

        return replace(self, head=cells(self.head), rows=tuple(map(cells, self.rows)))


def spread_cell(spread: Spread | None, unit: Unit, seeds: int) -> str:
    """Return a spread in its unit, marked if it has fewer seeds than the study."""
    if spread is None:
        return ABSENT
    return unit.spread(spread) + (FEWER if spread.n < seeds else "")


def seeds_text(seeds: int) -> str:
    """Return the words in a title that say over how many seeds its figures are."""
    return f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed"


def study_notes(study: StudySeries, rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the notes below a table of these cells."""
    notes = []
    has_fewer = False
    for row in rows:
        for cell in row[1:]:  # a label may end in the mark by chance
            has_fewer = has_fewer or cell.endswith(FEWER)
    if has_fewer:
        notes.append(
            f"{FEWER} fewer than {len(study.seeds)} seeds: the others diverged, failed or are not "
            "trained yet"
        )
    if study.diverged:
        plural = "s" if study.diverged > 1 else ""
        notes.append(f"{study.diverged} diverged training{plural} left out")
    return (*notes, *partly_shown_note(study))


def partly_shown_note(study: StudySeries) -> tuple[str, ...]:
    """Return the note of a study that is shown in part; empty for any other."""
    return (f"{study.name}: {study.partly_shown}",) if study.left_out else ()


def rich_tables(table: TextTable, width: int, every_level: bool = False) -> list[Table]:
    """Return the table for a terminal, as several if `width` has no room for all columns.

    Levels that would need more than two tables are thinned, unless `every_level` is asked for.
    """
    label_width = widest = 0
    for label, *texts in (table.head, *table.rows):
        label_width = max(label_width, len(label))
        widest = max(widest, *map(len, texts))
    # longer labels are folded: of many axes one would leave no room for figures
    label_width = min(_LABEL_WIDTH, label_width)

    # a space at either end of a line, two between columns
    columns = max(1, (width - 2 - label_width) // (widest + 2))
    if not every_level and len(table.head) - 1 > _MAX_TABLES * columns:
        table = table.thinned(columns)
    return [_rich_table(part, label_width) for part in table.split(columns)]


def _rich_table(table: TextTable, label_width: int) -> Table:
    rich_table = titled_table(table.title, "; ".join(table.notes))
    rich_table.add_column(
        Text(table.head[0]), overflow="fold", min_width=label_width, max_width=label_width
    )
    for name in table.head[1:]:
        rich_table.add_column(Text(name), justify="right", no_wrap=True)
    for row in table.rows:
        rich_table.add_row(*map(Text, row))
    return rich_table


def titled_table(title: str, caption: str, width: int | None = None) -> Table:
    """Return a table without columns for a terminal."""
    # Text, because rich would read [brackets] in a recipe's names as markup.
    return Table(
        title=Text(title, style="bold"),
        caption=Text(caption, style="table.caption") if caption else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        width=width,
    )


def markdown_table(table: TextTable) -> str:
    """Return the table as Markdown, as several where a page has no room for all its columns."""
    return "\n\n".join(map(_markdown_part, table.fitted(_MARKDOWN_COLUMNS)))


def _markdown_part(table: TextTable) -> str:
    # a colon aligns figures at the right, below one another
    rule = ["---"] + ["---:"] * (len(table.head) - 1)
    lines = [f"**{markdown_text(table.title)}**", ""]
    for row in (table.head, rule, *table.rows):
        # a stroke in a cell would begin another column
        cells = [markdown_text(cell).replace("|", "\\|") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    if table.notes:
        lines += ["", markdown_text("; ".join(table.notes))]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """Return a recipe's text as a part of a line of Markdown, in which it is no HTML."""
    return text.replace("\n", " ").replace("<", "&lt;")
