"""All that a run folder has to say at once: what the command line prints, writes and draws when a study ends."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lotteryfw.api.errors import UsageError
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.figures.figure_files import write_figures
from lotteryfw.report.html.page import write_page
from lotteryfw.report.tables.best_level import masks_alone
from lotteryfw.report.tables.summary import summary_markdown, summary_tables
from lotteryfw.report.tables.text_table import markdown_table
from lotteryfw.report.verdicts.claims import check_claims, claims_markdown, claims_table
from lotteryfw.report.verdicts.winning_tickets import verdict_markdown, verdict_tables
from lotteryfw.store import RunFolder


def report(run: Path, show: bool = False) -> list[Path]:
    """Writes a run's report.html, draws its figures where matplotlib is there, and returns the paths, the page first.

    `show` prints tables, verdicts and claims. Raises UsageError where `run` is no run's folder, StoreError where it
    cannot be read or written.
    """
    data = _opened(run)
    console = Console(quiet=not show, markup=False, emoji=False)
    for table in (*summary_tables(data, console.width), *verdict_tables(data, console.width)):
        console.print(table)
    verdicts = check_claims(data)
    if verdicts:
        console.print(claims_table(verdicts, console.width))
    page = write_page(data, verdicts)
    try:
        return [page, *write_figures(data)]
    except UsageError as error:
        console.print(f"No figures were drawn: {error}")
        return [page]


def markdown(run: Path) -> str:
    """A run's tables and verdicts as Markdown. Raises UsageError, StoreError."""
    data = _opened(run)
    masks = masks_alone(data.shown, data.curves)
    parts = (
        summary_markdown(data),
        markdown_table(masks) if masks else "",
        verdict_markdown(data),
        claims_markdown(check_claims(data)),
    )
    return "\n\n".join(part for part in parts if part)


def _opened(run: Path) -> RunData:
    folder = RunFolder(Path(run))
    if not folder.exists():
        raise UsageError(f"{run}: not the folder of a run; `lotteryfw runs` lists them")
    folder.refuse_damaged()
    return RunData(folder)
