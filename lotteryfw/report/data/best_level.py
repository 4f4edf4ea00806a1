"""The best level of a series, chosen on the validation set, once for all seeds."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from statistics import fmean

from lotteryfw.report.data.series import Combination
from lotteryfw.store import LevelRow


def best_rows(rows: Iterable[LevelRow]) -> list[LevelRow]:
    """Return the rows of the level with the highest mean validation accuracy over seeds.

    Rows come from dense to sparse, and of equal levels it is the last. The dense network is no
    choice: the others are compared with it. Nor is a level that not every seed has.
    """
    # the searches of a density sweep have one level each, and differ in an axis
    by_level: dict[tuple[Combination, int], list[LevelRow]] = {}
    for row in rows:
        is_choice = row.validation_accuracy is not None and row.weights_kept < row.weights_total
        if is_choice:
            by_level.setdefault((tuple(row.axes.items()), row.level), []).append(row)
    if not by_level:
        return []

    most_seeds = max(map(len, by_level.values()))
    best: list[LevelRow] = []
    highest = -inf
    for at_level in by_level.values():
        # a mean over other seeds could win by its seeds alone
        if len(at_level) < most_seeds:
            continue
        accuracy = fmean(row.validation_accuracy or 0.0 for row in at_level)
        # >= and not >: of equally accurate levels the sparser one is the better result
        if accuracy >= highest:
            best, highest = at_level, accuracy
    return best
