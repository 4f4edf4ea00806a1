"""Which series of a large study are shown: a thousand curves tell nobody anything, and take minutes to draw."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from lotteryfw.report.data.series import TICKET, Point, Series, Study

MOST_SERIES = 100
"""A study of more series, each a combination of its grid and a variant, is shown in part."""

_METRIC = "validation_accuracy"  # the test set takes no part in any choice


def shown(study: Study, most: int = MOST_SERIES) -> Study:
    """Return the study with at most so many series, in the order of its recipe.

    The combinations whose tickets have the highest validation accuracy are kept, each with all its variants; of equal ones
    the first. A sweep over densities counts with all its searches; a single one is kept whole, however many it has.
    """
    if len(study.searches) <= most:
        return study

    combinations: dict[tuple[tuple[str, str], ...], list[Series]] = {}
    for series in study.series:
        combinations.setdefault(tuple(series.axes.items()), []).append(series)

    kept: list[Series] = []
    count = 0
    for combination in sorted(
        combinations.values(), key=_best_accuracy, reverse=True
    ):  # stable, also in reverse
        count += sum(len(series.parts or (series,)) for series in combination)
        if kept and count > most:
            break
        kept += combination

    labels = {series.label for series in kept}
    places = {_place(part) for series in kept for part in series.parts or (series,)}
    searches = tuple(search for search in study.searches if _place(search) in places)
    return replace(
        study,
        series=tuple(series for series in study.series if series.label in labels),
        searches=searches,
        left_out=len(study.searches) - len(searches),
    )


def _place(series: Series) -> tuple[tuple[tuple[str, str], ...], str]:
    return tuple(series.axes.items()), series.variant


def _best_accuracy(combination: list[Series]) -> float:
    """The highest validation accuracy of the tickets' levels, the dense network apart; -inf where there is none."""
    points = [
        point for series in combination if series.variant == TICKET for point in series.points
    ]
    pruned = [point for point in points if not _is_dense(point)]
    means = [spread.mean for point in pruned or points if (spread := point.spread(_METRIC))]
    return max(means, default=-inf)


def _is_dense(point: Point) -> bool:
    return all(row.weights_kept == row.weights_total for row in point.rows)
