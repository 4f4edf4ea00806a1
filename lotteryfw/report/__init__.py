"""What a run folder says, in tables, figures, verdicts and one page. Reads run folders only."""

from lotteryfw.report.claims import Verdict, check_claims, claims_table
from lotteryfw.report.figure import write_figures
from lotteryfw.report.page import write_page
from lotteryfw.report.table import summary_markdown, summary_tables
from lotteryfw.report.verdict import winning_tickets
from lotteryfw.report.whole import markdown, report

__all__ = [
    "Verdict",
    "check_claims",
    "claims_table",
    "markdown",
    "report",
    "summary_markdown",
    "summary_tables",
    "winning_tickets",
    "write_figures",
    "write_page",
]
