"""The list of runs as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.units import FIGURE, duration, percent
from lotteryfw.report.tables.text_table import ABSENT
from lotteryfw.report.verdicts.run_summary import BestAccuracy, RunSummary

_STACKED = 3
"""The first columns, which stand below one another in a narrow table: run, date and time."""
_GAP = 2
"""Spaces between two columns, and at the ends of a line together."""
_MOST_NEEDED, _FEWEST = 14, 8
"""Characters that a column should and must have which is folded or shortened: longer words are cut."""


@dataclass(frozen=True)
class _Column:
    """A column of texts; `form` says what happens to one that is too long, "whole": nothing."""

    head: str
    cells: tuple[str, ...]
    form: Literal["whole", "folded", "shortened"] = "folded"

    @property
    def widest(self) -> int:
        """The width of its longest line."""
        return max(
            cell_len(line) for text in (self.head, *self.cells) for line in text.splitlines()
        )

    @property
    def narrowest(self) -> int:
        """The width that it has to have."""
        if self.form == "whole":
            return self.widest
        if self.form == "shortened":
            return min(self.widest, _MOST_NEEDED)
        words = " ".join((self.head, *self.cells)).split()
        return min(max(map(cell_len, words)), _MOST_NEEDED)


def run_list_table(
    summaries: Sequence[RunSummary], densities: Sequence[float] = (), width: int = 100
) -> Table:
    """Return the table: a run a row, with a column for each of the densities.

    Folders and dates are never cut. Where they have too little room side by side, dates stand below
    folders; if that is not enough, the table is wider than `width`.
    """
    columns = _columns(summaries, densities)
    if _total(column.narrowest for column in columns) > width:
        columns = [_stacked(columns[:_STACKED]), *columns[_STACKED:]]
    widths = _widths(columns, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), width=_total(widths))
    for column, column_width in zip(columns, widths, strict=True):
        is_short = column.form == "shortened"
        table.add_column(
            Text(column.head),
            width=column_width,
            no_wrap=is_short,
            overflow="ellipsis" if is_short else "fold",
        )
    for row in _rows(columns)[1:]:
        # Text, because rich would read [brackets] in a recipe's names as markup
        table.add_row(*map(Text, row))
    return table


def _columns(summaries: Sequence[RunSummary], densities: Sequence[float]) -> list[_Column]:
    figures = _figures(summaries)

    def column(
        head: str,
        text: Callable[[RunSummary], str],
        form: Literal["whole", "folded", "shortened"] = "folded",
    ) -> _Column:
        return _Column(head, tuple(map(text, summaries)), form)

    columns = [
        column("run", lambda summary: str(summary.path), "whole"),
        column("date (UTC)", lambda summary: _date(summary.date), "whole"),
        column("time", _time, "whole"),
        column("changes", _changes, "shortened"),
        column("seeds", lambda summary: seed_text(summary.seeds)),
        column("rows; cells", _rows_and_cells, "whole"),
        column(f"test {' or '.join(figures)}, %", lambda summary: _best(summary.best, figures)),
    ]
    for density in densities:
        head = f"at {percent(density)} %"
        cells = [_best(summary.at[density], figures) for summary in summaries]
        columns.append(_Column(head, tuple(cells)))
    columns.append(column("claims", lambda summary: counts_text(summary.claims) or ABSENT))
    return columns


def _stacked(columns: Sequence[_Column]) -> _Column:
    """Return one column with the texts of several below one another, from the second on in a line."""
    texts = []
    for first, *others in _rows(columns):
        texts.append(f"{first}\n{'; '.join(others)}")
    return _Column(texts[0], tuple(texts[1:]), "whole")


def _rows(columns: Sequence[_Column]) -> list[tuple[str, ...]]:
    """Return the rows of a table of these columns, its head first."""
    texts = [(column.head, *column.cells) for column in columns]
    return list(zip(*texts, strict=True))


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Return the width of each column: what is left of `width` completes as many as it can."""
    widths = [column.narrowest for column in columns]

    def shrinkable(index: int) -> int:
        return 0 if columns[index].form == "whole" else widths[index]

    def lacking(index: int) -> int:
        return columns[index].widest - widths[index]

    for _ in range(_total(widths) - width):
        index = max(range(len(columns)), key=shrinkable)
        if shrinkable(index) > _FEWEST:
            widths[index] -= 1
    for index in sorted(range(len(columns)), key=lacking):
        room = max(0, width - _total(widths))
        widths[index] += min(room, lacking(index))
    return widths


def _total(widths: Iterable[int]) -> int:
    """Return the width of a table whose columns are so wide."""
    given = list(widths)
    return sum(given) + _GAP * len(given)


def _time(summary: RunSummary) -> str:
    return ABSENT if summary.seconds is None else duration(summary.seconds)


def _rows_and_cells(summary: RunSummary) -> str:
    return f"{summary.rows}; {counts_text(summary.cells) or 'not finished'}"


def _date(date: str | None) -> str:
    # the minute is enough to tell runs apart
    return ABSENT if date is None else date.replace("T", " ")[:16]


def _changes(summary: RunSummary) -> str:
    profile = [f"profile {summary.profile}"] if summary.profile else []
    return ", ".join([*profile, *summary.overrides]) or ABSENT


def _figures(summaries: Sequence[RunSummary]) -> list[str]:
    """Return the names of the figures that the objectives of the runs report."""
    figures: dict[str, None] = {}
    for summary in summaries:
        if summary.best:
            figures[summary.best.figure] = None
    return list(figures) or [FIGURE]


def _best(best: BestAccuracy | None, figures: Sequence[str]) -> str:
    if best is None:
        return ABSENT
    value = f"{100 * best.spread.mean:.2f}"
    if figures != [best.figure]:
        # the head names several figures, so a run says which is its own
        value += f" {best.figure}"
    return f"{value} ({best.series}, at {percent(best.density)} %)"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts in words, as "2 supported, 1 undecided"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def seed_text(seeds: Sequence[int]) -> str:
    """Return seeds, those in a row as a range.

    >>> seed_text([0, 1, 2, 7]), seed_text([3, 4])
    ('0–2, 7', '3, 4')
    """
    ranges: list[list[int]] = []
    for seed in sorted(seeds):
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1].append(seed)
        else:
            ranges.append([seed])
    texts: list[str] = []
    for row in ranges:
        # two seeds are no shorter as a range
        texts += [f"{row[0]}–{row[-1]}"] if len(row) > 2 else map(str, row)
    return ", ".join(texts)
