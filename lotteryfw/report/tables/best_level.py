"""The best level of each cell, chosen on the validation set and told on the test set: the papers' supermask table."""

from __future__ import annotations

from collections.abc import Iterable

from lotteryfw.report.data.learning_curves import Curves
from lotteryfw.report.data.series import Study
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.tables.text_table import Sheet, notes_on_part
from lotteryfw.store import LevelRow

_METRIC = "test_accuracy"
_HEAD = ("weights remaining, %", "test accuracy, %", "seeds")
_ALONE = (
    "Masks over weights that were never trained: learned ones where their search ended, others at their best level by "
    "validation accuracy (mean ± sd over seeds)"
)


def masks_alone(studies: Iterable[Study], curves: Curves) -> Sheet | None:
    """The networks of a run whose weights were never trained; None where there are none.

    Where a mask was learned, each search stands at the level that it ended at, so with the density that it was asked
    for; others stand at their best level. Beside them stands the trained dense network.
    """

    def untrained(row: LevelRow) -> bool:
        return row.steps == 0 or curves.has_mask_learned(row)

    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    dense: dict[str, tuple[str, ...]] = {}
    for study in studies:
        notes += notes_on_part(study)
        learned = {
            row.cell
            for series in study.searches
            for row in series.rows
            if curves.has_mask_learned(row)
        }
        for series in study.searches:
            masks = [
                row for row in series.rows if row.weights_kept < row.weights_total or untrained(row)
            ]
            shown = list(series.points[-1].rows) if series.cells & learned else best_rows(masks)
            if shown and masks and all(map(untrained, masks)):
                rows.append((f"{study.name}: {series.label}", *_cells(shown)))
        if study.dense and not any(map(untrained, study.dense.rows)):
            dense.setdefault("|".join(sorted(row.key for row in study.dense.rows)),
                             (f"{study.name}: dense network, trained", *_cells(list(study.dense.rows))))  # fmt: skip
    if not rows:
        return None
    return Sheet(_ALONE, ("study and series", *_HEAD), (*rows, *dense.values()), tuple(notes))


def best_levels(study: Study) -> Sheet | None:
    """For each series, the test accuracy of its best level; None where there is no choice.

    Each seed chooses the level of its highest validation accuracy (of equal ones the sparsest), among those with fewer
    weights than the dense network. The test set takes no part in the choice.
    """
    if study.flat:
        return None
    chosen = [(series, best) for series in study.series if (best := best_rows(series.rows))]
    if not chosen:
        return None
    rows = [(series.label, *_cells(best)) for series, best in chosen]
    if dense := study.dense:
        rows.append(("dense network", *_cells(list(dense.rows))))
    title = f"{study.name}: the best level, chosen by validation accuracy (mean ± sd over seeds)"
    return Sheet(title, ("series", *_HEAD), tuple(rows), notes_on_part(study))


def best_rows(rows: Iterable[LevelRow]) -> list[LevelRow]:
    """For each seed the row of the highest validation accuracy; of equal ones the last, which is the sparsest.

    The dense network is no choice: it is what the others are held against.
    """
    found: dict[int, LevelRow] = {}
    for row in (row for row in rows if row.weights_kept < row.weights_total):
        best = found.get(row.seed)
        if row.validation_accuracy is not None and (
            best is None
            or best.validation_accuracy is None
            or row.validation_accuracy >= best.validation_accuracy
        ):
            found[row.seed] = row
    return list(found.values())


def _cells(rows: list[LevelRow]) -> tuple[str, str, str]:
    densities = sorted({percent(row.density) for row in rows}, key=float, reverse=True)
    accuracies = [row.test_accuracy for row in rows if row.test_accuracy is not None]
    told = unit_of(_METRIC).spread(Spread.of(accuracies)) if accuracies else "–"
    return "–".join(dict.fromkeys((densities[0], densities[-1]))), told, str(len(rows))
