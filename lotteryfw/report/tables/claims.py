"""Tables of the verdicts on claims."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lotteryfw.report.tables.text_table import markdown_text
from lotteryfw.report.verdicts.claims import ClaimOutcome, ClaimVerdict

_STYLES: dict[ClaimOutcome, str] = {
    "supported": "green",
    "contradicted": "bold red",
    "undecided": "yellow",
    "not tested": "dim",
}


def claims_table(verdicts: Sequence[ClaimVerdict], width: int = 100) -> Table:
    """Return the verdicts for a terminal, in at most `width` columns."""
    table = Table(
        title="Claims", title_justify="left", title_style="bold", show_lines=True, width=width
    )
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=3)
    table.add_column("this run", ratio=2)
    for verdict in verdicts:
        # Text, because rich would read [brackets] in a recipe's words as markup
        outcome = Text(verdict.outcome, style=_STYLES[verdict.outcome])
        claim = Text(verdict.claim.text).append(f"\n{verdict.claim.source}", style="dim")
        table.add_row(outcome, claim, Text(verdict.explanation))
    return table


def claims_markdown(verdicts: Sequence[ClaimVerdict]) -> str:
    """Return the verdicts as a Markdown list."""
    lines = []
    for verdict in verdicts:
        claim = f"{verdict.claim.text} ({verdict.claim.source})"
        lines.append(f"- **{verdict.outcome}**: {markdown_text(f'{claim}. {verdict.explanation}')}")
    return "\n".join(lines)
