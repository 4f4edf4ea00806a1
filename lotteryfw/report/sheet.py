"""A table as plain text, and how it is shown on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.table import Table

from lotteryfw.report.groups import Study
from lotteryfw.report.stats import Spread
from lotteryfw.report.units import Unit

ABSENT, FEWER = "–", "†"
_MARKDOWN_COLUMNS = 8
_LABEL_WIDTH = 30


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


def cell(spread: Spread | None, unit: Unit, seeds: int) -> str:
    """A spread in its unit, marked where it is over fewer seeds than the study has."""
    if spread is None:
        return ABSENT
    return unit.spread(spread) + (FEWER if spread.n < seeds else "")


def notes(study: Study, rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """What has to be said below a table of these cells."""
    told = []
    if any(each.endswith(FEWER) for row in rows for each in row[1:]):
        told.append(f"{FEWER} fewer than {len(study.seeds)} seeds: the others diverged, failed or are not trained yet")
    if study.diverged:
        told.append(f"{study.diverged} diverged training{'s' if study.diverged > 1 else ''} left out")
    return tuple(told)


def rich_table(sheet: Sheet, width: int) -> Table:
    """For a terminal, in at most `width` columns."""
    label = min(_LABEL_WIDTH, max(len(row[0]) for row in (sheet.head, *sheet.rows)))
    widest = max(len(text) for row in (sheet.head, *sheet.rows) for text in row[1:])
    # a space at either end of a line, two between columns
    sheet = sheet.thinned((width - 2 - label) // (widest + 2))
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


def markdown_table(sheet: Sheet) -> str:
    """As Markdown, with as many columns as a page has room for."""
    sheet = sheet.thinned(_MARKDOWN_COLUMNS)
    rule = ("---", *("---:" for _ in sheet.head[1:]))
    lines = ["| " + " | ".join(row) + " |" for row in (sheet.head, rule, *sheet.rows)]
    below = ["", "; ".join(sheet.notes)] if sheet.notes else []
    return "\n".join([f"**{sheet.title}**", "", *lines, *below])
