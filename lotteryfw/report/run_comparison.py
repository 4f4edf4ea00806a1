"""Several runs compared, as a table on a terminal, Markdown, plain data or a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lotteryfw.report.data.run_data import RunData, open_run
from lotteryfw.report.data.units import ACCURACY
from lotteryfw.report.verdicts.comparison import Comparison, compare_runs


def compare(runs: Sequence[Path | str], metric: str = ACCURACY) -> Comparison:
    """Compare each other run with the first: differences paired by seed, level by level.

    `metric` is a column of levels.csv. The differences are judged as claims are: by Student's t
    over three seeds or more, corrected by Holm's method for the levels of a series. Raises
    UsageError for a folder that is no run and for runs without a series in common, StoreError for
    a damaged run.
    """
    data: list[RunData] = []
    for run in runs:
        data.append(open_run(Path(run)))
    return compare_runs(data, metric)
