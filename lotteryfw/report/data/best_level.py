"""The best level of each seed, chosen on the validation set."""

from __future__ import annotations

from collections.abc import Iterable

from lotteryfw.store import LevelRow


def best_rows(rows: Iterable[LevelRow]) -> list[LevelRow]:
    """Return for each seed the row of the highest validation accuracy.

    Of equal ones it is the last, which is the sparsest. The dense network is no choice: the others
    are compared with it.
    """
    best: dict[int, tuple[float, LevelRow]] = {}
    for row in rows:
        accuracy = row.validation_accuracy
        if accuracy is None or row.weights_kept == row.weights_total:
            continue
        if row.seed not in best or accuracy >= best[row.seed][0]:
            best[row.seed] = (accuracy, row)
    return [row for _, row in best.values()]
