"""The list of runs as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.units import FIGURE, duration, percent
from lotteryfw.report.tables.text_table import ABSENT
from lotteryfw.report.verdicts.run_summary import BestAccuracy, RunSummary


def run_list_table(summaries: Sequence[RunSummary], densities: Sequence[float] = ()) -> Table:
    """Return the table: a run a row, with a column for each of the densities."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", ratio=3)
    table.add_column("date (UTC)", overflow="fold", max_width=16)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("changes", overflow="fold", ratio=2)
    table.add_column("seeds", overflow="fold")
    table.add_column("rows; cells", overflow="fold", ratio=2)
    figures = _figures(summaries)
    table.add_column(f"test {' or '.join(figures)}, %", overflow="fold", ratio=2)
    for density in densities:
        table.add_column(f"at {percent(density)} %", overflow="fold", ratio=2)
    table.add_column("claims", overflow="fold", ratio=2)
    for summary in summaries:
        cells = [
            str(summary.path),
            _date(summary.date),
            ABSENT if summary.seconds is None else duration(summary.seconds),
            _changes(summary),
            seed_text(summary.seeds),
            f"{summary.rows}; {counts_text(summary.cells) or 'not finished'}",
            _best(summary.best, figures),
            *(_best(summary.at[density], figures) for density in densities),
            counts_text(summary.claims) or ABSENT,
        ]
        # Text, because rich would read [brackets] in a recipe's names as markup
        table.add_row(*map(Text, cells))
    return table


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
