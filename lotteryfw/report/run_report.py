"""The whole report of a run: the command line prints, writes and draws it when a study ends."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lotteryfw.api.errors import UsageError
from lotteryfw.report.data.run_data import open_run
from lotteryfw.report.figures.figure_files import write_figures
from lotteryfw.report.figures.paper_files import FONT_SIZE, write_paper
from lotteryfw.report.html.page import write_page
from lotteryfw.report.tables.best_level import untrained_masks
from lotteryfw.report.tables.claims import claims_markdown, claims_table
from lotteryfw.report.tables.endings import ending_lines, ending_markdown
from lotteryfw.report.tables.summary import summary_markdown, summary_tables
from lotteryfw.report.tables.text_table import markdown_table
from lotteryfw.report.tables.winning_tickets import verdict_markdown, verdict_tables
from lotteryfw.report.verdicts.claims import check_claims


def report(
    run: Path, show: bool = False, every_level: bool = False, by_seed: bool = False
) -> list[Path]:
    """Write a run's report.html and, with matplotlib, its figures; return the paths, page first.

    `show` prints tables, verdicts and claims, with `every_level` all levels of wide tables.
    `by_seed` draws each study's figure of its first seed, its first two, and so on, too. Raises
    UsageError if `run` is no run's folder, StoreError if it cannot be read or written.
    """
    data = open_run(run)
    # names in a recipe may read like rich's markup, "[red]", or like ":emoji:"
    console = Console(quiet=not show, markup=False, emoji=False)
    tables = summary_tables(data, console.width, every_level)
    for table in (*tables, *verdict_tables(data, console.width)):
        console.print(table)
    verdicts = check_claims(data)
    if verdicts:
        console.print(claims_table(verdicts, console.width))
    # before the figures, as matplotlib may be missing and the page needs none
    page = write_page(data, verdicts)
    try:
        return [page, *write_figures(data, by_seed)]
    except UsageError as error:
        # a note and no error: the run itself is complete
        console.print(f"No figures were drawn: {error}")
        return [page]


def paper(run: Path, font_size: float = FONT_SIZE) -> list[Path]:
    """Write a run's figures and tables for a paper into its folder `paper`; return the paths.

    Raises UsageError without matplotlib or if `run` is no run's folder, StoreError if it cannot be
    read or written.
    """
    return write_paper(open_run(run), font_size)


def endings(run: Path) -> list[str]:
    """Return lines about a run's cells that failed or have not ended. Raises UsageError, StoreError."""
    return ending_lines(open_run(run))


def markdown(run: Path) -> str:
    """Return a run's tables and verdicts as Markdown. Raises UsageError, StoreError."""
    data = open_run(run)
    masks = untrained_masks(data.shown)
    parts = (
        summary_markdown(data),
        markdown_table(masks) if masks else "",
        verdict_markdown(data),
        claims_markdown(check_claims(data)),
        ending_markdown(data),
    )
    return "\n\n".join(filter(None, parts))
