"""Is it a winning ticket? Each level against the dense network of its own seed.

Frankle & Carbin 2019, section 1: a winning ticket has fewer weights, stops no later (the step of the lowest validation
loss) and is at least as accurate there. Both differences, ticket - dense, are paired by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rich.table import Table
from rich.text import Text

from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import TICKET, Point, Series, Study, is_dense
from lotteryfw.report.data.stats import Spread, bootstrap
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.tables.text_table import Sheet, notes_on_part, titled_table
from lotteryfw.store import LevelRow, RunFolder

Outcome = Literal["winning ticket", "undecided", "no winning ticket", "too few seeds"]

ACCURACY, STOP = "early_test_accuracy", "early_stop_step"
"""What is compared: the test accuracy at the early-stopping step, and that step."""
FEWEST = 3
"""Over fewer seeds there is no interval."""
_SAID: dict[Outcome, str] = {
    "winning ticket": "the ticket is a winning ticket",
    "undecided": "the seeds do not decide whether the ticket wins",
    "no winning ticket": "the ticket is not a winning ticket",
    "too few seeds": f"the ticket is not judged, as fewer than {FEWEST} seeds give no interval",
}


@dataclass(frozen=True)
class Difference:
    """Ticket - dense of one metric over seeds, in the metric's own unit. `interval` is a 95 % bootstrap interval."""

    metric: str
    spread: Spread
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, metric: str, values: Sequence[float]) -> Difference:
        """The difference of at least one seed."""
        return cls(metric, Spread.of(values), bootstrap(values) if len(values) >= FEWEST else None)

    def within(self) -> str:
        """ "+0.12 to +0.40", or a dash."""
        if self.interval is None:
            return "–"
        return " to ".join(unit_of(self.metric).number(end, "+") for end in self.interval)

    def __str__(self) -> str:
        unit = unit_of(self.metric)
        told = f"{unit.spread(self.spread, '+')}{unit.apart}"
        return f"{told} (95 % interval {self.within()})" if self.interval else told


@dataclass(frozen=True)
class LevelVerdict:
    """One level of a series: `density` is kept over all, the differences are those of the seeds that have both runs.

    `to_the_end`: no training of them stopped before its last step, so that the steps say nothing of who learns faster.
    """

    level: int
    density: float
    accuracy: Difference
    stop: Difference
    to_the_end: bool

    @property
    def outcome(self) -> Outcome:
        """Winning where both intervals lie on the right side of 0, losing where one lies on the wrong side."""
        if self.accuracy.interval is None or self.stop.interval is None:
            return "too few seeds"
        (lost, gained), (sooner, later) = self.accuracy.interval, self.stop.interval
        if lost >= 0 >= later:
            return "winning ticket"
        return "no winning ticket" if gained < 0 or sooner > 0 else "undecided"

    @property
    def sentence(self) -> str:
        """The verdict for people, with its numbers."""
        gain = f"{self.accuracy} of test accuracy"
        told, rest = f"{gain} and {self.stop} to early stopping", ""
        if self.to_the_end:
            told, rest = (
                gain,
                "; nothing here stopped before its last step, so who learns faster is open",
            )
        return (
            f"At {percent(self.density)} % of the weights {_SAID[self.outcome]}: {told} against the dense network, "
            f"n = {self.accuracy.spread.n}{rest}."
        )


@dataclass(frozen=True)
class SeriesVerdict:
    """A series of tickets, level by level; `levels` is not empty."""

    label: str
    levels: tuple[LevelVerdict, ...]

    def densities(self, outcome: Outcome) -> str:
        """At which densities it comes out so, in per cent; levels in a row as "51.3–21.1", a dash where none does."""
        runs = [
            list(run)
            for same, run in groupby(self.levels, lambda each: each.outcome == outcome)
            if same
        ]
        ends = [dict.fromkeys((percent(run[0].density), percent(run[-1].density))) for run in runs]
        return ", ".join("–".join(each) for each in ends) or "–"

    @property
    def telling(self) -> LevelVerdict:
        """The smallest winning ticket; where there is none, the most accurate level."""
        winning = [level for level in self.levels if level.outcome == "winning ticket"]
        return (
            winning[-1] if winning else max(self.levels, key=lambda each: each.accuracy.spread.mean)
        )

    @property
    def sheet(self) -> Sheet:
        """Every level with its differences."""
        rows = [
            (
                percent(each.density),
                unit_of(ACCURACY).spread(each.accuracy.spread, "+"),
                each.accuracy.within(),
                unit_of(STOP).spread(each.stop.spread, "+"),
                each.stop.within(),
                str(each.accuracy.spread.n),
                each.outcome,
            )
            for each in self.levels
        ]
        head = (
            "weights remaining, %", "test accuracy, points", "95 % interval",
            "early-stopping step", "95 % interval", "seeds", "verdict",
        )  # fmt: skip
        return Sheet(f"{self.label}: ticket - dense, mean ± sd over seeds", head, tuple(rows), ())


def winning_tickets(study: Study) -> list[SeriesVerdict]:
    """A verdict for each series of tickets that has a trained dense network to be held against."""
    found = [
        SeriesVerdict(each.label, tuple(_levels(each)))
        for each in study.searches
        if each.variant == TICKET
    ]
    return [verdict for verdict in found if verdict.levels]


def verdict_tables(run: RunFolder | RunData, width: int = 100) -> list[Table]:
    """The verdicts of each study for a terminal, in at most `width` columns. Raises StoreError."""
    tables = []
    for study in RunData.of(run).shown:
        verdicts = winning_tickets(study)
        if not any(level.outcome != "too few seeds" for each in verdicts for level in each.levels):
            continue
        told = "; ".join([_in_words(verdicts), *notes_on_part(study)])
        table = titled_table(f"{study.name}: winning tickets", told, width)
        table.add_column("series", overflow="fold", ratio=2)
        table.add_column("wins at, %", ratio=1)
        table.add_column("undecided at, %", ratio=1)
        for each in verdicts:
            table.add_row(
                Text(each.label), each.densities("winning ticket"), each.densities("undecided")
            )
        tables.append(table)
    return tables


def _in_words(verdicts: Sequence[SeriesVerdict]) -> str:
    """The smallest winning ticket of all series; where there is none, that."""
    winning = [each for each in verdicts if each.telling.outcome == "winning ticket"]
    if not winning:
        return "No level of any series is a winning ticket beyond doubt."
    smallest = min(winning, key=lambda each: each.telling.density)
    return f"{smallest.label}: {smallest.telling.sentence}"


def verdict_markdown(run: RunFolder | RunData) -> str:
    """The verdicts as Markdown lists, one for each study. Raises StoreError."""
    parts = []
    for study in RunData.of(run).shown:
        lines = [f"- {each.label}: {each.telling.sentence}" for each in winning_tickets(study)]
        if lines:
            lines += [f"- {note}" for note in notes_on_part(study)]
            parts.append("\n".join([f"**{study.name}: winning tickets**", "", *lines]))
    return "\n\n".join(parts)


def _levels(series: Series) -> Iterable[LevelVerdict]:
    dense = {row.cell: row for row in series.rows if is_dense(row)}
    for point in series.points:
        differences = _differences(point, dense)
        if differences:
            gains, delays, ends = zip(*differences, strict=True)
            accuracy, stop = Difference.of(ACCURACY, gains), Difference.of(STOP, delays)
            yield LevelVerdict(point.level, point.density, accuracy, stop, to_the_end=all(ends))


def _differences(point: Point, dense: Mapping[str, LevelRow]) -> list[tuple[float, float, bool]]:
    """(accuracy, step) of ticket - dense, and whether neither stopped before its last step, for each seed whose cell
    has both runs, at a level that was cut."""
    found = []
    for row in point.rows:
        whole = dense.get(row.cell)
        if (
            whole is None or row.weights_kept == row.weights_total or not row.steps
        ):  # what is not trained cannot learn
            continue
        if row.early_test_accuracy is not None and whole.early_test_accuracy is not None:
            gain = row.early_test_accuracy - whole.early_test_accuracy
            to_the_end = all(each.early_stop_step == each.steps for each in (row, whole))
            found.append((gain, float(row.early_stop_step - whole.early_stop_step), to_the_end))
    return found
