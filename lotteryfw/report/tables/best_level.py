"""Tables of best levels, chosen on the validation set and reported on the test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from math import isfinite

from lotteryfw.report.data.best_level import best_rows
from lotteryfw.report.data.series import Series, StudySeries
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import ACCURACY, density_range, unit_of
from lotteryfw.report.tables.text_table import ABSENT, TextTable, partly_shown_note
from lotteryfw.store import LevelRow

_MASKS_TITLE = (
    "Masks over weights that were never trained: learned ones where their search ended, others at "
    "their best level by validation {figure} (mean ± sd over seeds)"
)


def untrained_masks(studies: Iterable[StudySeries]) -> TextTable | None:
    """Return the table of the networks whose weights were never trained; None if there are none.

    A learned mask is shown at the level that its search ended at, so with the requested density;
    others are shown at their best level. A search that has not ended has no row. The trained dense
    network is the last row.
    """
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    # several studies may share one dense network: its trainings' keys tell
    dense: dict[tuple[str, ...], tuple[str, ...]] = {}
    figures: dict[str, None] = {}
    for study in studies:
        figures[study.figure] = None
        notes += partly_shown_note(study)
        learned_cells = _learned_cells(study)
        for search in study.searches:
            shown = _shown_masks(search, learned_cells, study.unfinished)
            if shown:
                rows.append((f"{study.name}: {search.label}", *_cells(shown)))
        if study.dense and all(map(_has_trained_weights, study.dense.rows)):
            keys = tuple(sorted(row.key for row in study.dense.rows))
            label = f"{study.name}: dense network, trained"
            dense.setdefault(keys, (label, *_cells(study.dense.rows)))
    if not rows:
        return None
    figure = " or ".join(figures)
    head = ("study and series", *_head(figure))
    return TextTable(
        _MASKS_TITLE.format(figure=figure), head, (*rows, *dense.values()), tuple(notes)
    )


def _learned_cells(study: StudySeries) -> set[str]:
    cells: set[str] = set()
    for search in study.searches:
        cells.update(row.cell for row in search.rows if row.learned)
    return cells


def _shown_masks(
    search: Series, learned_cells: set[str], unfinished: Set[str]
) -> Sequence[LevelRow]:
    """Return the rows of a search whose masks are over untrained weights; else none."""
    masks = []
    for row in search.rows:
        if row.weights_kept < row.weights_total or not _has_trained_weights(row):
            masks.append(row)
    if not masks or any(map(_has_trained_weights, masks)):
        return ()
    # By cell, and not by row: a control of a learned mask learned nothing itself, and is compared
    # with the mask at the same density.
    if search.cells & learned_cells:
        end = search.end(unfinished)
        return end.rows if end else ()
    return best_rows(masks)


def _has_trained_weights(row: LevelRow) -> bool:
    # a learned mask has steps, too: those of its scores
    return row.steps > 0 and not row.learned


def best_levels(study: StudySeries) -> TextTable | None:
    """Return the test accuracy of each series' best level; None if there is no choice.

    The mean validation accuracy over seeds chooses the level, among those with fewer weights than
    the dense network. The test set takes no part in the choice.
    """
    if study.single_level:
        return None
    rows = []
    for series in study.series:
        # empty where a series has only its dense level
        best = best_rows(series.rows)
        if best:
            rows.append((series.label, *_cells(best)))
    if not rows:
        return None
    if study.dense:
        rows.append(("dense network", *_cells(study.dense.rows)))
    title = (
        f"{study.name}: the best level, chosen by validation {study.figure} (mean ± sd over seeds)"
    )
    return TextTable(title, ("series", *_head(study.figure)), tuple(rows), partly_shown_note(study))


def _head(figure: str) -> tuple[str, str, str]:
    return "weights remaining, %", unit_of(ACCURACY, figure).title, "seeds"


def _cells(rows: Sequence[LevelRow]) -> tuple[str, str, str]:
    densities, accuracies = [], []
    for row in rows:
        densities.append(row.density)
        if row.test_accuracy is not None and isfinite(row.test_accuracy):
            accuracies.append(row.test_accuracy)
    # seeds end at slightly different densities where a mask is sampled, so this is a range
    densities.sort(reverse=True)
    accuracy = unit_of(ACCURACY).spread(Spread.of(accuracies)) if accuracies else ABSENT
    return density_range(densities), accuracy, str(len(rows))
