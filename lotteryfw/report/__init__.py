"""The report of a run: tables, figures, verdicts and one page, made of a run folder.

`data` is read and computed; `verdicts` and `plots` are made of it; `tables`, `figures` and `html`
show them.
"""

from lotteryfw.report.figures.figure_files import write_figures
from lotteryfw.report.html.comparison_page import write_comparison_page
from lotteryfw.report.html.page import write_page
from lotteryfw.report.run_comparison import compare
from lotteryfw.report.run_report import endings, markdown, paper, report
from lotteryfw.report.tables.claims import claims_table
from lotteryfw.report.tables.comparison import comparison_markdown, comparison_tables
from lotteryfw.report.tables.summary import summary_markdown, summary_tables
from lotteryfw.report.verdicts.claims import ClaimVerdict, check_claims
from lotteryfw.report.verdicts.comparison import Comparison
from lotteryfw.report.verdicts.run_summary import RunSummary, summarise
from lotteryfw.report.verdicts.winning_tickets import winning_tickets

__all__ = [
    "ClaimVerdict",
    "Comparison",
    "RunSummary",
    "check_claims",
    "claims_table",
    "compare",
    "comparison_markdown",
    "comparison_tables",
    "endings",
    "markdown",
    "paper",
    "report",
    "summarise",
    "summary_markdown",
    "summary_tables",
    "winning_tickets",
    "write_comparison_page",
    "write_figures",
    "write_page",
]
