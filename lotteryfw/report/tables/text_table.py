"""A table as plain text, and how it is shown on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from rich import box
from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.series import Study
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit

ABSENT, FEWER = "–", "†"
_MARKDOWN_COLUMNS = 8
_TABLES = 2  # levels that would need more tables than this are thinned: their ends and some between tell a curve
_LABEL_WIDTH = 30


@dataclass(frozen=True)
class Sheet:
    """A table as plain text, before it is known where it is shown. `rows` begin with their series' label.

    `levels`: its columns are levels, some of which may stand for all where there is little room.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    levels: bool = False

    def thinned(self, columns: int) -> Sheet:
        """The same with at most so many levels (two at least), evenly chosen, first and last among them.

        What is left out is noted. Columns that are no levels are all kept.
        """
        last = len(self.head) - 2
        columns = max(2, columns)
        if not self.levels or last < columns:
            return self
        chosen = [1 + round(place * last / (columns - 1)) for place in range(columns)]
        left_out = [name for place, name in enumerate(self.head) if place not in [0, *chosen]]
        note = f"not shown here, but in report.html: {', '.join(left_out)} %"
        return replace(self._of(chosen), notes=(*self.notes, note))

    def split(self, columns: int) -> list[Sheet]:
        """The same as several sheets of at most so many columns beside the labels, as even as they go."""
        count = len(self.head) - 1
        width = ceil(count / ceil(count / columns))
        parts = [
            self._of(range(1 + start, 1 + min(start + width, count)))
            for start in range(0, count, width)
        ]
        first, *others = (replace(part, notes=()) for part in parts)
        titled = [first, *(replace(part, title=f"{self.title}, continued") for part in others)]
        return [*titled[:-1], replace(titled[-1], notes=self.notes)]

    def _of(self, columns: Iterable[int]) -> Sheet:
        places = [0, *columns]
        head, *rows = (tuple(cells[place] for place in places) for cells in (self.head, *self.rows))
        return replace(self, head=head, rows=tuple(rows))


def cell(spread: Spread | None, unit: Unit, seeds: int) -> str:
    """A spread in its unit, marked where it is over fewer seeds than the study has."""
    if spread is None:
        return ABSENT
    return unit.spread(spread) + (FEWER if spread.n < seeds else "")


def notes(study: Study, rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """What has to be said below a table of these cells."""
    told = []
    if any(each.endswith(FEWER) for row in rows for each in row[1:]):
        told.append(
            f"{FEWER} fewer than {len(study.seeds)} seeds: the others diverged, failed or are not trained yet"
        )
    if study.diverged:
        told.append(
            f"{study.diverged} diverged training{'s' if study.diverged > 1 else ''} left out"
        )
    return (*told, *notes_on_part(study))


def notes_on_part(study: Study) -> tuple[str, ...]:
    """Return what a table says where a study is shown in part."""
    return (f"{study.name}: {study.partly_shown}",) if study.left_out else ()


def rich_tables(sheet: Sheet, width: int) -> list[Table]:
    """For a terminal, in at most `width` columns: one table or, where that has no room for all, several."""
    label = min(_LABEL_WIDTH, max(len(row[0]) for row in (sheet.head, *sheet.rows)))
    widest = max(len(text) for row in (sheet.head, *sheet.rows) for text in row[1:])
    # a space at either end of a line, two between columns
    room = max(1, (width - 2 - label) // (widest + 2))
    if len(sheet.head) - 1 > _TABLES * room:
        sheet = sheet.thinned(room)
    return [_rich_table(part, label) for part in sheet.split(room)]


def _rich_table(sheet: Sheet, label: int) -> Table:
    table = titled_table(sheet.title, "; ".join(sheet.notes))
    table.add_column(Text(sheet.head[0]), overflow="fold", min_width=label, max_width=label)
    for name in sheet.head[1:]:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def titled_table(title: str, caption: str, width: int | None = None) -> Table:
    """A table without columns yet. Whatever a recipe says goes into rich's tables as Text: as str, [this] is markup."""
    return Table(
        title=Text(title, style="bold"), caption=Text(caption, style="table.caption") if caption else None,
        box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0),
        width=width,
    )  # fmt: skip


def markdown_table(sheet: Sheet) -> str:
    """As Markdown, with as many columns as a page has room for."""
    sheet = sheet.thinned(_MARKDOWN_COLUMNS)
    rule = ("---", *("---:" for _ in sheet.head[1:]))
    lines = ["| " + " | ".join(row) + " |" for row in (sheet.head, rule, *sheet.rows)]
    below = ["", "; ".join(sheet.notes)] if sheet.notes else []
    return "\n".join([f"**{sheet.title}**", "", *lines, *below])
