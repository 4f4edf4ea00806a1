"""Winning tickets: each level is compared with the dense network of its own seed.

Frankle & Carbin 2019, section 1: a winning ticket has fewer weights, stops no later (the step of
the lowest validation loss) and is at least as accurate there, with its weights reset to what they
were. Both differences, ticket - dense, are paired by seed. The levels of a series are as many
tests, so their verdicts are corrected by Holm's method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import Literal

from lotteryfw.report.data.grouping import is_dense
from lotteryfw.report.data.series import TICKET, Point, Series, StudySeries
from lotteryfw.report.data.units import density_range, metric_name, percent, unit_of
from lotteryfw.report.verdicts.claims import undecided_reason
from lotteryfw.report.verdicts.estimate import (
    LEVEL,
    MOST_SEEDS,
    Estimate,
    Region,
    decide,
    holm_levels,
)
from lotteryfw.report.verdicts.ticket_definition import StudyTable, definition_refusal
from lotteryfw.store import LevelRow

TicketOutcome = Literal[
    "winning ticket",
    "winning ticket, speed not examined",
    "not a winning ticket",
    "undecided",
    "pruned network",
]
"""The verdict on a level.

- winning ticket: no later early-stopping step and no lower accuracy
- winning ticket, speed not examined: no lower accuracy, and no training stopped before its end
- not a winning ticket: a later step or a lower accuracy
- undecided: the seeds allow both
- pruned network: by definition no ticket, such as one whose weights are never reset
"""
WINS: tuple[TicketOutcome, ...] = ("winning ticket", "winning ticket, speed not examined")

EARLY_ACCURACY, EARLY_STEP = "early_test_accuracy", "early_stop_step"
"""The metrics compared: the test accuracy at the early-stopping step, and that step."""

_NO_LOWER, _NO_LATER = Region(low=0.0), Region(high=0.0)


@dataclass(frozen=True)
class Difference:
    """Ticket - dense of one metric over seeds, in the metric's own unit."""

    metric: str
    estimate: Estimate

    def interval_text(self) -> str:
        """Return the 95 % interval as "+0.12 to +0.40", or a dash with fewer than three seeds."""
        if self.estimate.interval is None:
            return "–"
        unit = unit_of(self.metric)
        low, high = self.estimate.interval
        return f"{unit.number(low, '+')} to {unit.number(high, '+')}"

    def __str__(self) -> str:
        unit = unit_of(self.metric)
        text = f"{unit.spread(self.estimate.spread, '+')}{unit.difference_suffix}"
        if self.estimate.interval is None:
            return text
        return f"{text} (95 % interval {self.interval_text()})"


@dataclass(frozen=True)
class LevelVerdict:
    """The verdict on one level of a series.

    `density` is the mean over all seeds; the differences are those of the seeds that have both
    runs. `no_early_stop` is True if every training reached its lowest validation loss at its last
    step: then the steps do not show which network learns faster, and accuracy alone is judged.
    `diverged` counts the seeds whose ticket diverged, here or at a level before, which ended their
    search, and whose dense network did not: with any, the level is no win. `figure` is what the
    objective calls its figure. `refusal` says why the network is no ticket by definition.
    `error_rate` is the two-sided one that is left after the correction for the number of levels.
    """

    level: int
    density: float
    accuracy: Difference
    stop: Difference
    no_early_stop: bool
    validation_accuracy: float
    figure: str
    diverged: int = 0
    refusal: str = ""
    error_rate: float = LEVEL

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """The differences that are judged. Any one of them may show that the ticket does not win."""
        accuracy, stop = self.accuracy.estimate, self.stop.estimate
        if self.no_early_stop:
            return (accuracy,)
        return replace(accuracy, rivals=2), replace(stop, rivals=2)

    @property
    def p_values(self) -> tuple[float | None, float | None]:
        """One-sided p-values: that it wins, and that it does not."""
        wins, loses = [], []
        for estimate in self.estimates:
            if estimate.p_supported is None or estimate.p_contradicted is None:
                return None, None
            wins.append(estimate.p_supported)
            loses.append(estimate.p_contradicted * estimate.rivals)
        # It has to pass both tests, which needs no correction. Failing one of two is enough not to
        # win, which does. A ticket that diverged is less accurate than any that did not.
        return 1.0 if self.diverged else max(wins), min(1.0, *loses)

    @property
    def p(self) -> float | None:
        """The two-sided p-value, for the correction; None with too few seeds, or if refused."""
        wins, loses = self.p_values
        if wins is None or loses is None or self.refusal:
            return None
        return min(1.0, 2 * min(wins, loses))

    @property
    def outcome(self) -> TicketOutcome:
        """The verdict at the level's own error rate."""
        # whatever the numbers are: the definition is about how the network was made
        if self.refusal:
            return "pruned network"
        decision = decide(*self.p_values, self.error_rate)
        if decision == "supported":
            return WINS[1] if self.no_early_stop else WINS[0]
        return "not a winning ticket" if decision == "contradicted" else "undecided"

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, as the end of a sentence about the level."""
        numbers = f"{self.accuracy} of {metric_name(EARLY_ACCURACY, self.figure)}"
        if not self.no_early_stop:
            numbers += f" and {self.stop} to early stopping"
        if self.diverged:
            count = self.diverged + self.accuracy.estimate.spread.n
            numbers = f"{self.diverged} of {count} tickets diverged; of the others {numbers}"
        return (
            f"at {percent(self.density)} % of the weights, where {self._verdict_text()}: {numbers} "
            f"against the dense network, n = {self.accuracy.estimate.spread.n}."
        )

    def _verdict_text(self) -> str:
        speed = ""
        if self.no_early_stop:
            speed = "; speed not examined, as no training stopped before its last step"
        outcome = self.outcome
        if outcome == "pruned network":
            return "the network is not judged"
        if outcome == "undecided":
            return f"it is undecided whether the ticket wins ({self._undecided_reason()}){speed}"
        if outcome == "not a winning ticket":
            return f"the ticket is not a winning ticket{speed}"
        return f"the ticket is a winning ticket{speed}"

    def _undecided_reason(self) -> str:
        """Return why the seeds allow both, with the number of them that would decide."""
        estimates: list[Estimate] = []
        lost: list[Estimate] = []
        for estimate in self.estimates:
            estimates.append(estimate.at_level(self.error_rate))
            if estimate.spread.mean not in estimate.region:
                lost.append(estimates[-1])
        if not lost and self.diverged:
            return "tickets that diverge do not win"
        # To lose, one difference is enough, and the first to decide counts. To win takes them all.
        decisive = min(lost, key=_seeds_needed) if lost else max(estimates, key=_seeds_needed)
        return undecided_reason(decisive)


def _seeds_needed(estimate: Estimate) -> int:
    """Return how many seeds would decide; more than are ever counted where no number would."""
    return estimate.seeds_to_decide() or MOST_SEEDS + 1


@dataclass(frozen=True)
class SeriesVerdict:
    """The verdicts on a series of tickets, level by level; `levels` is not empty."""

    label: str
    figure: str
    levels: tuple[LevelVerdict, ...]

    def densities(self, *outcomes: TicketOutcome) -> str:
        """Return the densities with one of these outcomes in per cent, or a dash.

        Levels in a row read "51.3–21.1".
        """
        ranges = []
        for is_wanted, run in groupby(self.levels, lambda level: level.outcome in outcomes):
            if is_wanted:
                ranges.append(density_range([level.density for level in run]))
        return ", ".join(ranges) or "–"

    @property
    def chosen_level(self) -> LevelVerdict:
        """The level of the highest mean validation accuracy, of equal ones the sparsest.

        The validation set chooses it, so its test figures are not those of a lucky level. A level
        that not every seed has is no choice, as its mean could win by its seeds alone.
        """

        def rank(level: LevelVerdict) -> tuple[int, float, float]:
            return level.accuracy.estimate.spread.n, level.validation_accuracy, -level.density

        return max(self.levels, key=rank)

    @property
    def headline(self) -> str:
        """The verdicts on all levels in a sentence, then that on the chosen level."""
        chosen = self.chosen_level
        if chosen.refusal:
            return (
                f"Pruned networks, not tickets: {chosen.refusal}. "
                f"Validation chooses the level {chosen.sentence}"
            )
        wins = [level for level in self.levels if level.outcome in WINS]
        count = f"{len(wins)} of {len(self.levels)} levels"
        correction = "after Holm's correction for their number" if len(self.levels) > 1 else ""
        where = f", at {self.densities(*WINS)} %" if wins else ""
        text = " ".join(filter(None, (f"Winning tickets at {count}", correction)))
        return f"{text}{where}. Validation chooses the level {chosen.sentence}"


def winning_tickets(study: StudySeries, table: StudyTable | None = None) -> list[SeriesVerdict]:
    """Return a verdict for each series of tickets that has a trained dense network.

    `table` is the study in the resolved recipe: it says if the networks are tickets by definition.
    """
    verdicts = []
    for search in study.searches:
        if search.variant == TICKET:
            refusal = definition_refusal(search, table or {})
            levels = _corrected(list(_levels(search, study.figure, refusal)))
            if levels:
                verdicts.append(SeriesVerdict(search.label, study.figure, levels))
    return verdicts


def _corrected(levels: Sequence[LevelVerdict]) -> tuple[LevelVerdict, ...]:
    """Return the levels with the error rates that Holm's method leaves to each."""
    rates = holm_levels([level.p for level in levels])
    corrected = []
    for level, rate in zip(levels, rates, strict=True):
        corrected.append(replace(level, error_rate=rate))
    return tuple(corrected)


def _levels(series: Series, figure: str, refusal: str) -> Iterator[LevelVerdict]:
    # by cell, which has one seed, so that each ticket is compared with its own dense network
    dense = {row.cell: row for row in series.rows if is_dense(row)}
    for point in series.points:
        pairs = _pairs(point, dense)
        if not pairs:
            continue
        gains, delays, no_early_stops, accuracies = [], [], [], []
        for row, dense_row in pairs:
            assert row.early_test_accuracy is not None
            assert dense_row.early_test_accuracy is not None
            gains.append(row.early_test_accuracy - dense_row.early_test_accuracy)
            delays.append(float(row.early_stop_step - dense_row.early_stop_step))
            # Steps count from the start of the dense training: also those of a ticket that starts
            # at step k, and ends where the dense one does.
            stops = (row.early_stop_step, dense_row.early_stop_step)
            no_early_stops.append(min(stops) >= dense_row.steps)
            accuracies.append(row.validation_accuracy or 0.0)
        # equal counts as a win: a ticket has to match the dense network, not to beat it
        yield LevelVerdict(
            point.level,
            point.density,
            Difference(EARLY_ACCURACY, Estimate.of(gains, _NO_LOWER, scale=1.0)),
            Difference(EARLY_STEP, Estimate.of(delays, _NO_LATER)),
            no_early_stop=all(no_early_stops),
            validation_accuracy=fmean(accuracies),
            diverged=_diverged(series.diverged_by(point), dense),
            figure=figure,
            refusal=refusal,
        )


def _diverged(diverged: Sequence[LevelRow], dense: Mapping[str, LevelRow]) -> int:
    """Return in how many cells a ticket diverged of those whose dense network did not."""
    return len(dense.keys() & {row.cell for row in diverged})


def _pairs(point: Point, dense: Mapping[str, LevelRow]) -> list[tuple[LevelRow, LevelRow]]:
    """Return the rows of a pruned and trained level, each with the dense row of its seed."""
    pairs = []
    for row in point.rows:
        dense_row = dense.get(row.cell)
        # a network that is not trained cannot learn faster or better
        if dense_row is None or row.weights_kept == row.weights_total or not row.steps:
            continue
        if row.early_test_accuracy is not None and dense_row.early_test_accuracy is not None:
            pairs.append((row, dense_row))
    return pairs
