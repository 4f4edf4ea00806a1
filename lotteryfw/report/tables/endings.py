"""The cells of a run that failed or have not ended, for people."""

from __future__ import annotations

from lotteryfw.api.words import counted
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.tables.text_table import markdown_text
from lotteryfw.store import FailedCell, failed_cells

_SHOWN = 3
"""Cells that failed which are named: mostly they fail for one reason."""
_ENDED = ("done", "diverged", "failed")
_GO_ON = "the same `lotteryfw recipe` command goes on"


def ending_lines(data: RunData) -> list[str]:
    """Return lines about cells that failed, with their tracebacks, and about those that have not ended.

    There is none where every cell ended well.
    """
    failed, cells = failed_cells(data.manifest), len(data.manifest.get("cells", {}))
    lines = []
    if len(failed) == 1:
        lines.append(f"1 of {counted(cells, 'cell')} failed: {_with_traceback(failed[0], data)}")
        lines += _reason(failed[0], "  ")
    elif failed:
        lines.append(f"{len(failed)} of {cells} cells failed:")
        for failure in failed[:_SHOWN]:
            lines.append(f"  {_with_traceback(failure, data)}")
            lines += _reason(failure, "    ")
        if len(failed) > _SHOWN:
            lines.append(f"  and {counted(len(failed) - _SHOWN, 'more cell')}")
    unfinished = unfinished_text(data)
    return [*lines, unfinished] if unfinished else lines


def unfinished_text(data: RunData) -> str:
    """Return how many cells have not ended, and what goes on with them; "" if all have."""
    if not data.manifest:
        # a run that was killed before it first wrote its results
        return f"no cell has finished; {_GO_ON}"
    statuses = list(data.manifest.get("cells", {}).values())
    count = sum(status not in _ENDED for status in statuses)
    if not count:
        return ""
    return f"{count} of {counted(len(statuses), 'cell')} not finished; {_GO_ON}"


def ending_markdown(data: RunData) -> str:
    """Return the same as Markdown, with every cell that failed; "" where every cell ended well."""
    items = []
    for failure in failed_cells(data.manifest):
        text = f"{failure.cell}: {failure.reason}" if failure.reason else failure.cell
        items.append(f"- failed: {markdown_text(text)}")
    unfinished = unfinished_text(data)
    if unfinished:
        items.append(f"- {unfinished}")
    return "\n".join(["**Cells without a result**", "", *items]) if items else ""


def _with_traceback(failure: FailedCell, data: RunData) -> str:
    path = data.folder.path / failure.traceback
    # a later run deletes the tracebacks of earlier ones
    if failure.traceback and path.is_file():
        return f"{failure.cell} (traceback: {path})"
    return failure.cell


def _reason(failure: FailedCell, indent: str) -> list[str]:
    return [f"{indent}{failure.reason}"] if failure.reason else []
