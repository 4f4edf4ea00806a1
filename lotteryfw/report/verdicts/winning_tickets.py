"""Winning tickets: each level is compared with the dense network of its own seed.

Frankle & Carbin 2019, section 1: a winning ticket has fewer weights, stops no later (the step of
the lowest validation loss) and is at least as accurate there. Both differences, ticket - dense,
are paired by seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from lotteryfw.report.data.series import TICKET, Point, Series, StudySeries, is_dense
from lotteryfw.report.data.stats import Spread, bootstrap
from lotteryfw.report.data.units import density_range, percent, unit_of
from lotteryfw.store import LevelRow

TicketOutcome = Literal["winning ticket", "undecided", "no winning ticket", "too few seeds"]

EARLY_ACCURACY, EARLY_STEP = "early_test_accuracy", "early_stop_step"
"""The metrics compared: the test accuracy at the early-stopping step, and that step."""
FEWEST_SEEDS = 3
"""With fewer seeds there is no interval."""
_SENTENCES: dict[TicketOutcome, str] = {
    "winning ticket": "the ticket is a winning ticket",
    "undecided": "the seeds do not decide whether the ticket wins",
    "no winning ticket": "the ticket is not a winning ticket",
    "too few seeds": (
        f"the ticket is not judged, as fewer than {FEWEST_SEEDS} seeds give no interval"
    ),
}


@dataclass(frozen=True)
class Difference:
    """Ticket - dense of one metric over seeds, in the metric's own unit.

    `interval` is a 95 % bootstrap interval.
    """

    metric: str
    spread: Spread
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, metric: str, values: Sequence[float]) -> Difference:
        """Return the difference of at least one seed."""
        interval = bootstrap(values) if len(values) >= FEWEST_SEEDS else None
        return cls(metric, Spread.of(values), interval)

    def interval_text(self) -> str:
        """Return the interval as "+0.12 to +0.40", or a dash."""
        if self.interval is None:
            return "–"
        return " to ".join(unit_of(self.metric).number(end, "+") for end in self.interval)

    def __str__(self) -> str:
        unit = unit_of(self.metric)
        text = f"{unit.spread(self.spread, '+')}{unit.difference_suffix}"
        return f"{text} (95 % interval {self.interval_text()})" if self.interval else text


@dataclass(frozen=True)
class LevelVerdict:
    """The verdict on one level of a series.

    `density` is the mean over all seeds; the differences are those of the seeds that have both
    runs. `no_early_stop` is True if every training reached its lowest validation loss at its last
    step: then the steps do not show which network learns faster.
    """

    level: int
    density: float
    accuracy: Difference
    stop: Difference
    no_early_stop: bool

    @property
    def outcome(self) -> TicketOutcome:
        """Winning if both intervals are on the right side of 0, not if one is on the wrong side."""
        if self.accuracy.interval is None or self.stop.interval is None:
            return "too few seeds"
        lowest_gain, highest_gain = self.accuracy.interval
        lowest_delay, highest_delay = self.stop.interval
        if lowest_gain >= 0 and highest_delay <= 0:
            return "winning ticket"
        if highest_gain < 0 or lowest_delay > 0:
            return "no winning ticket"
        return "undecided"

    @property
    def sentence(self) -> str:
        """The verdict for people, with its numbers."""
        numbers = f"{self.accuracy} of test accuracy"
        reservation = ""
        if self.no_early_stop:
            reservation = (
                "; nothing here stopped before its last step, so who learns faster is open"
            )
        else:
            numbers += f" and {self.stop} to early stopping"
        return (
            f"At {percent(self.density)} % of the weights {_SENTENCES[self.outcome]}: {numbers} "
            f"against the dense network, n = {self.accuracy.spread.n}{reservation}."
        )


@dataclass(frozen=True)
class SeriesVerdict:
    """The verdicts on a series of tickets, level by level; `levels` is not empty."""

    label: str
    levels: tuple[LevelVerdict, ...]

    def densities(self, outcome: TicketOutcome) -> str:
        """Return the densities with this outcome in per cent, or a dash if there is none.

        Levels in a row read "51.3–21.1".
        """
        ranges = []
        for is_wanted, run in groupby(self.levels, lambda level: level.outcome == outcome):
            if is_wanted:
                ranges.append(density_range([level.density for level in run]))
        return ", ".join(ranges) or "–"

    @property
    def deciding_level(self) -> LevelVerdict:
        """The smallest winning ticket; if there is none, the most accurate level."""
        winning = [level for level in self.levels if level.outcome == "winning ticket"]
        if winning:
            return winning[-1]
        return max(self.levels, key=lambda level: level.accuracy.spread.mean)


def winning_tickets(study: StudySeries) -> list[SeriesVerdict]:
    """Return a verdict for each series of tickets that has a trained dense network."""
    verdicts = []
    for search in study.searches:
        if search.variant == TICKET:
            levels = tuple(_levels(search))
            if levels:
                verdicts.append(SeriesVerdict(search.label, levels))
    return verdicts


def _levels(series: Series) -> Iterator[LevelVerdict]:
    dense = {row.cell: row for row in series.rows if is_dense(row)}
    for point in series.points:
        differences = _differences(point, dense)
        if differences:
            gains, delays, no_early_stops = zip(*differences, strict=True)
            yield LevelVerdict(
                point.level,
                point.density,
                Difference.of(EARLY_ACCURACY, gains),
                Difference.of(EARLY_STEP, delays),
                all(no_early_stops),
            )


def _differences(point: Point, dense: Mapping[str, LevelRow]) -> list[tuple[float, float, bool]]:
    """Return (accuracy, step) of ticket - dense for each seed of a pruned and trained level.

    The third value is True if neither training stopped before its last step.
    """
    differences = []
    for row in point.rows:
        dense_row = dense.get(row.cell)
        # a network that is not trained cannot learn faster or better
        if dense_row is None or row.weights_kept == row.weights_total or not row.steps:
            continue
        if row.early_test_accuracy is None or dense_row.early_test_accuracy is None:
            continue
        gain = row.early_test_accuracy - dense_row.early_test_accuracy
        delay = float(row.early_stop_step - dense_row.early_stop_step)
        no_early_stop = all(one.early_stop_step == one.steps for one in (row, dense_row))
        differences.append((gain, delay, no_early_stop))
    return differences
