"""What a run folder says, in tables, figures and verdicts. Reads run folders only."""

from lotteryfw.report.claims import Verdict, check_claims, claims_table
from lotteryfw.report.figure import write_figures
from lotteryfw.report.table import summary_markdown, summary_tables
from lotteryfw.report.whole import markdown, report

__all__ = [
    "Verdict",
    "check_claims",
    "claims_table",
    "markdown",
    "report",
    "summary_markdown",
    "summary_tables",
    "write_figures",
]
