"""What a run folder says, in tables, figures, verdicts and one page. Reads run folders only."""

from lotteryfw.report.figures.figure_files import write_figures
from lotteryfw.report.html.page import write_page
from lotteryfw.report.run_report import markdown, report
from lotteryfw.report.tables.summary import summary_markdown, summary_tables
from lotteryfw.report.verdicts.claims import Verdict, check_claims, claims_table
from lotteryfw.report.verdicts.winning_tickets import winning_tickets

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
