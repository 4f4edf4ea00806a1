"""The choice of series that are shown of a large study.

A thousand curves are unreadable, and take minutes to draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from lotteryfw.report.data.series import (
    TICKET,
    Combination,
    Point,
    Series,
    StudySeries,
    split_sweeps,
)

MOST_SERIES = 100
"""A study of more series, each a combination of its grid and a variant, is shown in part."""

_METRIC = "validation_accuracy"  # the test set takes no part in any choice


def limit_series(study: StudySeries, most: int = MOST_SERIES) -> StudySeries:
    """Return the study with at most `most` series, in the order of its recipe.

    The combinations whose tickets have the highest validation accuracy are kept, each with all its
    variants; of equal ones the first. A density sweep counts with all its searches; a single one
    is kept whole, whatever its size.
    """
    if len(study.searches) <= most:
        return study

    combinations: dict[Combination, list[Series]] = {}
    for series in study.series:
        combinations.setdefault(series.combination, []).append(series)
    # sorting is stable, also in reverse, so the first of equal ones comes first
    ranked = sorted(combinations.values(), key=_best_accuracy, reverse=True)

    kept: list[Series] = []
    count = 0
    for combination in ranked:
        count += len(split_sweeps(combination))
        # the first one is kept whatever its size, as a report of nothing helps nobody
        if kept and count > most:
            break
        kept += combination

    # `kept` is in order of accuracy: choosing from the study again restores the recipe's order
    labels = {series.label for series in kept}
    series_kept = [series for series in study.series if series.label in labels]
    # by combination and variant, as a part of a sweep has no label of its own
    keys = {(search.combination, search.variant) for search in split_sweeps(kept)}
    searches: list[Series] = []
    for search in study.searches:
        if (search.combination, search.variant) in keys:
            searches.append(search)
    return replace(
        study,
        series=tuple(series_kept),
        searches=tuple(searches),
        left_out=len(study.searches) - len(searches),
    )


def _best_accuracy(combination: Iterable[Series]) -> float:
    """Return the highest validation accuracy of the tickets' levels; -inf if there is none.

    The dense network counts only where there is no other level.
    """
    points: list[Point] = []
    for series in combination:
        if series.variant == TICKET:
            points += series.points

    # every combination may share the dense network, which then says nothing of any of them
    pruned = [point for point in points if not _is_unpruned(point)]
    best = -inf
    for point in pruned or points:
        spread = point.spread(_METRIC)
        if spread:
            best = max(best, spread.mean)
    return best


def _is_unpruned(point: Point) -> bool:
    return all(row.weights_kept == row.weights_total for row in point.rows)
