"""All that a run folder has to say at once: what the command line prints and draws when a study ends."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lotteryfw.errors import UsageError
from lotteryfw.report.claims import check_claims, claims_markdown, claims_table
from lotteryfw.report.figure import write_figures
from lotteryfw.report.table import summary_markdown, summary_tables
from lotteryfw.store import RunFolder


def report(run: Path, show: bool = False) -> list[Path]:
    """Draws a run's figures where matplotlib is there, and returns their paths. `show` prints tables and claims.

    Raises UsageError where `run` is no run's folder, StoreError where it cannot be read.
    """
    folder = _opened(run)
    console = Console(quiet=not show)
    for table in summary_tables(folder, console.width):
        console.print(table)
    if verdicts := check_claims(folder):
        console.print(claims_table(verdicts, console.width))
    try:
        return write_figures(folder)
    except UsageError as error:
        console.print(f"No figures were drawn: {error}", markup=False)
        return []


def markdown(run: Path) -> str:
    """A run's tables and verdicts as Markdown. Raises UsageError, StoreError."""
    folder = _opened(run)
    return "\n\n".join(part for part in (summary_markdown(folder), claims_markdown(check_claims(folder))) if part)


def _opened(run: Path) -> RunFolder:
    folder = RunFolder(Path(run))
    if not folder.exists():
        raise UsageError(f"{run}: not the folder of a run; `lotteryfw runs` lists them")
    return folder
