"""A run in a few figures, for a list of many runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from lotteryfw.report.data.best_level import best_rows
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import TICKET, Point, Series
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import ACCURACY
from lotteryfw.report.verdicts.claims import check_claims

_CHOSEN_BY = "validation_accuracy"  # the test set takes no part in any choice
_NEAR = 0.15
STATUSES = ("done", "diverged", "failed", "unfinished")
"""How a cell may end, in the order of lists; "unfinished" where it has not."""


@dataclass(frozen=True)
class BestAccuracy:
    """The test accuracy of the series that validation chooses; `density` is that of its level.

    `figure` is the name of what its objective reports in place of an accuracy.
    """

    density: float
    series: str
    spread: Spread
    figure: str

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, in shares."""
        return {
            "density": self.density,
            "series": self.series,
            "figure": self.figure,
            "test_accuracy": self.spread.mean,
            "sd": self.spread.sd,
            "seeds": self.spread.n,
        }


@dataclass(frozen=True)
class RunSummary:
    """A run as a list of runs shows it.

    `date` is the start of the last invocation that computed something (ISO 8601, UTC), `seconds`
    the time of all of them; None where the manifest has none. `best` is by validation over all
    levels, `at` at chosen densities: None where no series has a level there.
    """

    path: Path
    name: str
    profile: str
    date: str | None
    seconds: float | None
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: int
    cells: Mapping[str, int]
    best: BestAccuracy | None
    at: Mapping[float, BestAccuracy | None]
    claims: Mapping[str, int]

    def plain(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        at = {}
        for density, best in self.at.items():
            at[str(density)] = best.plain() if best else None
        return {
            "run": str(self.path),
            "recipe": self.name,
            "profile": self.profile or None,
            "date": self.date,
            "seconds": self.seconds,
            "overrides": list(self.overrides),
            "seeds": list(self.seeds),
            "rows": self.rows,
            "cells": dict(self.cells),
            "best": self.best.plain() if self.best else None,
            "at": at,
            "claims": dict(self.claims),
        }


def summarise(data: RunData, densities: Sequence[float] = ()) -> RunSummary:
    """Return the summary of a run. Raises StoreError where its files cannot be read."""
    manifest = data.manifest
    invocations = [entry for entry in manifest.get("invocations", ()) if isinstance(entry, dict)]
    ended = Counter(manifest.get("cells", {}).values())
    outcomes: Counter[str] = Counter()
    for verdict in check_claims(data):
        outcomes[verdict.outcome] += 1
    return RunSummary(
        path=data.folder.path,
        name=str(manifest.get("name", "")),
        profile=str(manifest.get("profile") or ""),
        date=_date(invocations),
        seconds=sum(entry.get("seconds", 0) for entry in invocations) if invocations else None,
        overrides=tuple(map(str, invocations[-1].get("overrides", ()))) if invocations else (),
        seeds=tuple(manifest.get("seeds", ())),
        rows=len(data.folder.read_levels()),
        cells={status: ended[status] for status in STATUSES if ended[status]},
        best=_best(data),
        at={density: _best_at(data, density) for density in densities},
        claims=dict(outcomes),
    )


def _date(invocations: Sequence[Mapping[str, Any]]) -> str | None:
    date = None
    has_computed = False
    for entry in invocations:
        # a later call that found everything in the store is no new result
        if entry.get("computed") or not has_computed:
            date = entry.get("date")
        has_computed = has_computed or bool(entry.get("computed"))
    return None if date is None else str(date)


def _tickets(data: RunData) -> list[tuple[str, str, Series]]:
    """Return each series of tickets with its name and the name of its objective's figure."""
    tickets = []
    for study in data.studies:
        for series in study.series:
            if series.variant == TICKET:
                name = series.label if len(data.studies) == 1 else f"{study.name} · {series.label}"
                tickets.append((name, study.figure, series))
    return tickets


def _best(data: RunData) -> BestAccuracy | None:
    """Return the best level of the best series, both by mean validation accuracy."""
    best: BestAccuracy | None = None
    highest = -inf
    for name, figure, series in _tickets(data):
        rows = best_rows(series.rows)
        # the rows of one level: as a point they have means over seeds
        point = Point(0, fmean([row.density for row in rows]), tuple(rows)) if rows else None
        chosen_by = point.spread(_CHOSEN_BY) if point else None
        tests = point.spread(ACCURACY) if point else None
        if point and chosen_by and tests and chosen_by.mean > highest:
            highest = chosen_by.mean
            best = BestAccuracy(point.density, name, tests, figure)
    return best


def _nearest(series: Series, density: float) -> Point | None:
    """Return the level nearest to a density; None where none is within 15 % of it."""
    # wider than for comparing series: pruning by fifths passes 10.7 and 8.6 %, and never 10 %
    near = [point for point in series.points if abs(point.density - density) <= _NEAR * density]
    return min(near, key=lambda point: abs(point.density - density), default=None)


def _best_at(data: RunData, density: float) -> BestAccuracy | None:
    best: BestAccuracy | None = None
    highest = -inf
    for name, figure, series in _tickets(data):
        point = _nearest(series, density)
        chosen_by = point.spread(_CHOSEN_BY) if point else None
        tests = point.spread(ACCURACY) if point else None
        if point and chosen_by and tests and chosen_by.mean > highest:
            highest = chosen_by.mean
            best = BestAccuracy(point.density, name, tests, figure)
    return best
