"""One cell under way: its search's generator, the levels it records, and the controls trained beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol

from lotteryfw.api.component import Component
from lotteryfw.api.errors import (
    ContractError,
    DataError,
    LotteryError,
    PluginError,
    StoreError,
    TrainingDiverged,
)
from lotteryfw.api.kinds import Analysis, Control
from lotteryfw.api.lab import Search
from lotteryfw.api.metrics import Metrics
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.tickets import MaskStats, Ticket
from lotteryfw.engine import StoredOutcome, exit_error
from lotteryfw.search.cell import Cell
from lotteryfw.search.derivations import without_state
from lotteryfw.search.lab import CellLab, Record
from lotteryfw.search.requests import JobRequest

Status = Literal["done", "diverged", "failed"]
Found = Sequence[tuple[Analysis, list[AnalysisResult]]]
"""What each of a cell's analyses found."""


@dataclass(frozen=True)
class Level:
    """A level of a cell that has its figures (None: the training diverged). `variant` is "ticket", a control's name or one
    that the search gave."""

    cell: Cell
    variant: str
    level: int
    cut: MaskStats
    key: str
    metrics: Metrics | None
    learned: bool = False
    """True where the training learned the mask."""


class SavedTicket(NamedTuple):
    """A ticket in the run's folder: how much of the network it keeps, and what reads it again."""

    cut: MaskStats
    read: Callable[[], Ticket]


class Surroundings(Protocol):
    """What a cell needs of the driver."""

    def ask(self, request: JobRequest, waiter: CellRun) -> bool:
        """Whether the store has the job's result; if not, the waiter is told once there is news."""
        ...

    def outcome(self, key: str) -> StoredOutcome:
        """The result of a job that `ask` said is there."""
        ...

    def park(self, request: JobRequest) -> None:
        """Takes a job's tensors off the memory until its turn comes."""
        ...

    def ticket(self, cell: Cell, variant: str, level: int, ticket: Ticket, key: str) -> SavedTicket:
        """Keeps a ticket, before or after it was trained."""
        ...

    def level(self, level: Level) -> None:
        """Reports a level."""
        ...

    def analysed(self, cell: Cell, levels: Sequence[LevelResult], found: Found) -> None:
        """Reports what each of a cell's analyses found in the levels of its search."""
        ...

    def broke(self, error: Exception) -> None:
        """Keeps the traceback of what broke in a cell."""
        ...

    def provider(self, component: Component) -> str:
        """Return the distribution that a component comes from, and its version."""
        ...


@dataclass(frozen=True)
class _Control:
    """A control that waits for its training. Of its ticket only the counts are kept in memory."""

    name: str
    level: int
    cut: MaskStats
    request: JobRequest


class CellRun:
    """A cell between its first job and its end. `ended` says how it ended, and why where not well."""

    def __init__(self, cell: Cell, open_lab: Callable[[Cell], CellLab], around: Surroundings):
        self.cell = cell
        self.ended: tuple[Status, Exception | None] | None = None
        self.asked: tuple[JobRequest, ...] = ()
        self._around = around
        self._controls: list[_Control] = []
        self._recorded: list[LevelResult] = []
        self._diverged: Exception | None = None
        self._last_level: int | None = None
        self._analysis: Analysis | None = None
        self._broken_analyses: list[Exception] = []
        self._thrown: Exception | None = None
        self._is_failing = False
        self._searching = True
        try:
            self._lab = open_lab(cell)
            self._search = self._whole()
        except (Exception, SystemExit) as error:
            self._end(error)

    def _whole(self) -> Search[None]:
        """The search, then the analyses of what it recorded."""
        try:
            yield from self.cell.search.search(self._lab)
        except TrainingDiverged as error:
            self._diverged = error
        if not self.cell.analyses:
            return
        self._take_records()
        found = []
        for analysis in self.cell.analyses:
            self._analysis = analysis
            try:
                findings = yield from analysis.levels(self._lab, self._recorded)
                found.append((analysis, checked_findings(findings)))
            except (StoreError, DataError):
                raise
            except (Exception, SystemExit) as error:
                self._broken_analyses.append(self._named(error))
                self._around.broke(self._broken_analyses[-1])
        self._around.analysed(self.cell, self._recorded, found)

    def advance(self) -> None:
        """Goes as far as the store allows: at the start, and whenever a job that the cell waits for has ended.

        Raises StoreError and DataError; whatever else goes wrong is the end of this cell alone.
        """
        if self.ended:
            return
        try:
            while self._searching and self._all_there():
                self._resume()
                self._take_records()
            self._controls = [
                control for control in self._controls if not self._report_control(control)
            ]
        except (StoreError, DataError):
            raise
        except (Exception, SystemExit) as error:
            self.fail(error)
            return
        if not self._searching and not self._controls:
            if self._broken_analyses:
                self.ended = ("failed", PluginError("; ".join(map(str, self._broken_analyses))))
                return
            self.ended = ("diverged", self._diverged) if self._diverged else ("done", None)

    def _all_there(self) -> bool:
        # Every one is asked for, so that they run side by side.
        there = [self._around.ask(request, self) for request in self.asked]
        return all(there)

    def _resume(self) -> None:
        outcomes = tuple(self._around.outcome(request.key) for request in self.asked)
        thrown, self._thrown = self._thrown, None
        try:
            asked: Any
            if thrown:
                asked = self._search.throw(thrown)
            else:  # a generator that has not begun can only be sent None
                asked = self._search.send(outcomes) if self.asked else next(self._search)
            self.asked = self._checked(asked)
        except StopIteration:
            self._searching, self.asked = False, ()

    def _checked(self, asked: object) -> tuple[JobRequest, ...]:
        if (
            isinstance(asked, Sequence)
            and asked
            and all(isinstance(request, JobRequest) for request in asked)
        ):
            return tuple(asked)
        what = f"a {type(asked).__name__}" + (
            " that is empty" if isinstance(asked, tuple) and not asked else ""
        )
        raise ContractError(
            f"search '{self.cell.search.use}' asked for {what}, not for jobs; "
            "ask the lab with `yield from lab.train(ticket)`"
        )

    def _take_records(self) -> None:
        """Reports the levels recorded since the last look, and asks for their controls."""
        records, self._lab.records = self._lab.records, []
        for record in records:
            key, ticket = record.trained.outcome.key, record.ticket
            saved = self._around.ticket(self.cell, record.variant, record.level, ticket, key)
            learned = record.trained.ticket.learns_mask
            self._report(record.variant, record.level, saved.cut, key, learned)
            self._last_level = record.level
            if record.trained.diverged_at is not None:
                learns_mask = ticket.learns_mask
                self._diverged = self._diverged or TrainingDiverged(
                    record.trained.diverged_at, learns_mask
                )
                continue
            if self.cell.analyses:
                self._recorded.append(self._kept(record, saved))
            if record.variant == "ticket" and not ticket.is_dense and not self._is_failing:
                self._controls += [self._control(control, record) for control in self.cell.controls]

    def _kept(self, record: Record, saved: SavedTicket) -> LevelResult:
        cell = self.cell
        outcome = self._around.outcome(record.trained.outcome.key)
        return LevelResult(
            cell.study,
            cell.id,
            cell.axes,
            cell.seed,
            record.level,
            record.variant,
            saved.cut,
            outcome,
            saved.read,
        )

    def _control(self, control: Control, record: Record) -> _Control:
        ticket = self._lab.control(control, record)
        request = self._lab.request(ticket)
        is_there = self._around.ask(request, self)
        saved = self._around.ticket(self.cell, control.use, record.level, ticket, request.key)
        if not is_there:
            self._around.park(request)
        request.drop_tensors(without_state(ticket))
        return _Control(control.use, record.level, saved.cut, request)

    def _report_control(self, control: _Control) -> bool:
        if not self._around.ask(control.request, self):
            return False
        learned = control.request.ticket.learns_mask
        self._report(control.name, control.level, control.cut, control.request.key, learned)
        return True

    def _report(self, variant: str, level: int, cut: MaskStats, key: str, learned: bool) -> None:
        outcome = self._around.outcome(key)
        metrics = None if outcome.diverged_at is not None else outcome.metrics
        self._around.level(Level(self.cell, variant, level, cut, key, metrics, learned))

    def fail(self, error: BaseException, key: str = "") -> None:
        """The end of the cell: something in it broke, or the job of this key, for which it waits, cannot be done.

        Where an analysis waits for the job, that is the end of this analysis alone.
        """
        if (
            isinstance(error, Exception)
            and self._analysis
            and any(request.key == key for request in self.asked)
        ):
            self._thrown, self.asked = error, ()
            return
        self._is_failing = True
        try:
            self._take_records()  # levels that were recorded before it broke
        except (StoreError, DataError):
            raise
        except Exception as another:
            self._around.broke(another)
        self._end(error)

    def _end(self, error: BaseException) -> None:
        named = self._named(error)
        self._around.broke(named)
        self.ended = ("failed", named)
        self._controls, self.asked = [], ()

    def _named(self, error: BaseException) -> Exception:
        """The error with what people need to find its cause: the component with its distribution, and the level."""
        if isinstance(error, SystemExit):
            error = exit_error(error)
        component = self._analysis or self.cell.search
        who = f"{component.kind} '{component.use}' of {self._around.provider(component)}"
        after = "" if self._last_level is None else f"after level {self._last_level}"
        if not isinstance(error, LotteryError):
            text = f"{who} broke{after and ' ' + after}: {type(error).__name__}: {error}"
        elif self._analysis:
            text = f"{who}: {error}"
        else:
            text = f"{error}{after and f' ({after})'}"
        named = PluginError(text)
        named.__cause__ = error
        return named


def checked_findings(findings: object) -> list[AnalysisResult]:
    """Return what an analysis found. Raises ContractError where that is anything but findings with numbers."""
    if not isinstance(findings, Iterable):
        raise ContractError(f"gave a {type(findings).__name__}, not a list of findings")
    checked = []
    for finding in findings:
        if not isinstance(finding, AnalysisResult):
            raise ContractError(f"gave a {type(finding).__name__}, not an AnalysisResult")
        values = finding.value if isinstance(finding.value, list | tuple) else (finding.value,)
        strange = [type(value).__name__ for value in values if not isinstance(value, Real)]
        if strange:
            raise ContractError(
                f"the value of '{finding.figure}' must be a number or several, not a {strange[0]}"
            )
        checked.append(finding)
    return checked
