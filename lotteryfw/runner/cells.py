"""One cell of a running study: its search, the levels it records, and their controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from lotteryfw.api.component import Component
from lotteryfw.api.errors import (
    ContractError,
    DataError,
    LotteryError,
    NothingToPrune,
    PluginError,
    StoreError,
    TrainingDiverged,
)
from lotteryfw.api.kinds import Analysis
from lotteryfw.api.lab import Search
from lotteryfw.api.metrics import Evaluation
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.tickets import MaskStats, Ticket, Trained
from lotteryfw.engine import StoredOutcome, exit_error
from lotteryfw.runner.findings import checked_findings
from lotteryfw.runner.levels import Level, PendingLevels
from lotteryfw.search.cell import Cell
from lotteryfw.search.lab import CellLab, Compared
from lotteryfw.search.records import nothing_recorded
from lotteryfw.search.requests import JobRequest
from lotteryfw.search.stored_tickets import without_state

Status = Literal["done", "diverged", "failed"]
Findings = Sequence[tuple[Analysis, list[AnalysisResult]]]
"""The results of each of a cell's analyses."""


class SavedTicket(NamedTuple):
    """A ticket in the run's folder: how much of the network it keeps, and a function to read it."""

    cut: MaskStats
    read: Callable[[], Ticket]


class CellServices(Protocol):
    """The services of the scheduler that a cell uses."""

    def ask(self, request: JobRequest, waiter: CellRun) -> bool:
        """Return whether the store has a job's result; if not, `waiter` is advanced at its end."""
        ...

    def outcome(self, key: str) -> StoredOutcome:
        """Return the result of a job for which `ask` returned True."""
        ...

    def spill(self, request: JobRequest) -> None:
        """Move a job's tensors from memory into the store until its turn comes."""
        ...

    def ticket(self, cell: Cell, variant: str, level: int, ticket: Ticket, key: str) -> SavedTicket:
        """Keep a ticket, before or after it is trained."""
        ...

    def level(self, level: Level) -> None:
        """Record a level."""
        ...

    def analysed(self, cell: Cell, levels: Sequence[LevelResult], findings: Findings) -> None:
        """Record the results of each of a cell's analyses of the levels of its search."""
        ...

    def broke(self, error: Exception) -> str:
        """Keep the traceback of an error in a cell, and return its path in the run's folder."""
        ...

    def provider(self, component: Component) -> str:
        """Return the distribution that a component comes from, and its version."""
        ...


@dataclass(frozen=True)
class _Waiting:
    """A control, or a ticket on a target, that waits for its training.

    Of its ticket only the counts are kept in memory.
    """

    variant: str
    level: int
    saved: SavedTicket
    request: JobRequest
    lab: CellLab


class CellRun:
    """A cell between its first job and its end.

    `ended` is None until then; afterwards it has the status, and the error of a cell that failed or
    diverged. `trace` is the path of its first traceback in the run's folder. `asked` are the
    requests that the search waits for.
    """

    def __init__(self, cell: Cell, open_lab: Callable[[Cell], CellLab], services: CellServices):
        self.cell = cell
        self.ended: tuple[Status, Exception | None] | None = None
        self.trace = ""
        self.asked: tuple[JobRequest, ...] = ()
        self._services = services
        self._compared: list[_Waiting] = []
        self._pending = PendingLevels(self, services.level)
        self._recorded: list[LevelResult] = []
        self._recorded_controls: list[LevelResult] = []
        self._diverged: Exception | None = None
        self._ended_early: NothingToPrune | None = None
        self._last_level: int | None = None
        self._analysis: Analysis | None = None
        self._broken_analyses: list[Exception] = []
        self._thrown: BaseException | None = None
        self._is_failing = False
        self._searching = True
        # A component may break as early as here, in its constructor or where it points.
        try:
            self._lab = open_lab(cell)
            self._search = self._whole()
        except (Exception, SystemExit) as error:
            self._end(error)

    def _whole(self) -> Search[None]:
        """Run the search, then the analyses of its levels and of their controls."""
        try:
            yield from self.cell.search.search(self._lab)
            if self._last_level is None and not self._lab.records:
                raise ContractError(nothing_recorded(self._lab.context.specs["search"]))
        except TrainingDiverged as error:
            self._diverged = error
        except NothingToPrune as error:
            self._ended_early = error
        if not self.cell.analyses:
            return
        self._take_records()
        controls = [one.request for one in self._compared if one.lab is self._lab]
        if controls:
            yield tuple(controls)
            self._take_all_compared()
        # Controls are trained in any order, and analyses must not depend on it.
        self._recorded_controls.sort(key=lambda one: (one.level, one.variant))
        self._recorded += self._recorded_controls
        results: list[tuple[Analysis, list[AnalysisResult]]] = []
        for analysis in self.cell.analyses:
            self._analysis = analysis
            try:
                findings = yield from analysis.levels(self._lab, self._recorded)
                results.append((analysis, checked_findings(findings)))
            except (StoreError, DataError):
                raise
            except (Exception, SystemExit) as error:
                self._broken_analyses.append(self._named(error, analysis))
                self._keep_trace(self._broken_analyses[-1])
        self._analysis = None
        self._services.analysed(self.cell, self._recorded, results)

    def advance(self) -> None:
        """Go on as far as the store has results: at the start, and when an awaited job has ended.

        Raises StoreError and DataError; whatever else goes wrong is the end of this cell alone.
        """
        if self.ended:
            return
        try:
            while self._searching and self._all_there():
                self._resume()
                self._take_records()
            self._take_all_compared()
            self._pending.report_finished()
        except (StoreError, DataError):
            raise
        except (Exception, SystemExit) as error:
            self._fail(error)
            return
        if not self._searching and not self._compared and not self._pending:
            errors = [*self._broken_analyses, *self._pending.errors]
            if errors:
                # A metric may break in the same way at every level.
                texts = dict.fromkeys(map(str, errors))
                self.ended = ("failed", PluginError("; ".join(texts)))
                return
            if self._diverged:
                self.ended = ("diverged", self._diverged)
            else:
                self.ended = ("done", self._ended_early)

    def awaits(self, key: str) -> bool:
        """Return whether the search or an analysis waits for the job of this key."""
        return any(request.key == key for request in self.asked)

    def _all_there(self) -> bool:
        # A list, since every one is to be asked for, so that they run side by side.
        try:
            stored = [self._services.ask(request, self) for request in self.asked]
        except (StoreError, DataError):
            raise
        except (Exception, SystemExit) as error:
            # Tickets are made only now; the search, or an analysis, ends at the request for them.
            if self._analysis is None and not isinstance(error, NothingToPrune):
                raise
            self._thrown, self.asked = error, ()
            return True
        return all(stored)

    def _resume(self) -> None:
        outcomes = tuple(self._services.outcome(request.key) for request in self.asked)
        thrown, self._thrown = self._thrown, None
        try:
            requests: object
            if thrown:
                requests = self._search.throw(thrown)
            elif self.asked:
                requests = self._search.send(outcomes)
            else:  # a generator that has not begun can only be sent None
                requests = next(self._search)
            self.asked = self._checked(requests)
        except StopIteration:
            self._searching, self.asked = False, ()

    def _checked(self, requests: object) -> tuple[JobRequest, ...]:
        """Return what a search yielded. Raises ContractError for anything but requests."""
        if isinstance(requests, Sequence) and requests:
            checked = [request for request in requests if isinstance(request, JobRequest)]
            if len(checked) == len(requests):
                return tuple(checked)
        what = f"a {type(requests).__name__}"
        if isinstance(requests, tuple) and not requests:
            what += " that is empty"
        who = self._analysis or self.cell.search
        raise ContractError(
            f"{who.kind} '{who.use}' asked for {what}, not for jobs; "
            "ask the lab with `yield from lab.train(ticket)`"
        )

    def _take_records(self) -> None:
        """Report the levels recorded since the last call, and ask for their controls."""
        # Taken away from the lab, which would keep the tensors of every level otherwise. One by one:
        # where one breaks, `_fail` takes the others.
        while self._lab.records:
            record = self._lab.records.pop(0)
            key, ticket = record.trained.outcome.key, record.ticket
            saved = self._services.ticket(self.cell, record.variant, record.level, ticket, key)
            self._add_level(record.variant, record.level, saved.cut, record.trained, self._lab)
            self._last_level = record.level
            if record.trained.diverged_at is not None:
                learns_mask = ticket.learns_mask
                self._diverged = self._diverged or TrainingDiverged(
                    record.trained.diverged_at, learns_mask
                )
                continue
            # Nobody but analyses reads the levels again.
            if self.cell.is_analysed(record.level):
                trained = record.trained
                self._recorded.append(self._kept(record.variant, record.level, saved, trained))
            if not self._is_failing:
                for compared in self._lab.compared(record):
                    self._compared.append(self._ask_compared(compared, record.level))

    def _kept(self, variant: str, level: int, saved: SavedTicket, trained: Trained) -> LevelResult:
        cell = self.cell
        outcome = self._services.outcome(trained.outcome.key)
        return LevelResult(
            cell.study,
            cell.id,
            cell.axes,
            cell.seed,
            level,
            variant,
            saved.cut,
            outcome,
            saved.read,
            trained.origin,
        )

    def _ask_compared(self, compared: Compared, level: int) -> _Waiting:
        variant, lab, ticket = compared
        request = lab.request(ticket)
        is_there = self._services.ask(request, self)
        saved = self._services.ticket(self.cell, variant, level, ticket, request.key)
        # Searches come first, so a control may wait for long, with hundreds of others.
        if not is_there:
            self._services.spill(request)
        request.drop_tensors(without_state(ticket))
        return _Waiting(variant, level, saved, request, lab)

    def _take_all_compared(self) -> None:
        """Add the levels of controls and targets that are trained; the others go on waiting."""
        self._compared = [one for one in self._compared if not self._take_compared(one)]

    def _take_compared(self, waiting: _Waiting) -> bool:
        """Return whether a control, or a target's ticket, is trained; if so its level is added."""
        request = waiting.request
        if not self._services.ask(request, self):
            return False
        outcome = self._services.outcome(request.key)
        trained = Trained(request.ticket, outcome, origin=request.origin)
        variant, level, saved = waiting.variant, waiting.level, waiting.saved
        self._add_level(variant, level, saved.cut, trained, waiting.lab)
        # An analysis compares networks of one shape and data set; a target may have others.
        is_control = waiting.lab is self._lab
        if self.cell.is_analysed(level) and is_control and trained.diverged_at is None:
            self._recorded_controls.append(self._kept(variant, level, saved, trained))
        return True

    def _add_level(
        self, variant: str, number: int, cut: MaskStats, trained: Trained, lab: CellLab
    ) -> None:
        """Report a level whose training ended, or ask for the evaluations that its figures need."""
        key = trained.outcome.key
        outcome = self._services.outcome(key)
        metrics = None if outcome.diverged_at is not None else outcome.metrics
        learned = trained.ticket.learns_mask
        level = Level(self.cell, variant, number, cut, key, metrics, learned)
        requests = {} if metrics is None else lab.evaluations(trained)
        self._pending.add(level, requests)

    # The services that pending levels use (see levels.EvaluationServices)

    def ask(self, request: JobRequest) -> bool:
        """Return whether the store has a job's result; if not, this cell is advanced at its end."""
        return self._services.ask(request, self)

    def evaluation(self, key: str) -> Evaluation:
        """Return the figures of an evaluation for which `ask` returned True."""
        return self._services.outcome(key).evaluation

    def spill(self, request: JobRequest) -> None:
        """Move a job's tensors from memory into the store until its turn comes."""
        self._services.spill(request)

    def job_failed(self, key: str, error: Exception, trace: str = "") -> None:
        """End what waits for the job of this key, which cannot be done.

        Where a search, a control or a target waits for it, that is the whole cell; where an
        analysis does, this analysis alone. A level that waits for it is reported without its
        figures. Nobody waits any more where an analysis had asked for several jobs, and ended at
        another of them. `trace` is the path of the job's traceback.
        """
        is_awaited, is_of_level = self.awaits(key), self._pending.awaits(key)
        is_compared = any(waiting.request.key == key for waiting in self._compared)
        if not (is_awaited or is_of_level or is_compared):
            return
        self.trace = self.trace or trace
        if is_awaited and self._analysis:
            self._thrown, self.asked = error, ()
        elif is_of_level and not is_awaited:
            # A metric that breaks must not cost what was trained.
            self._pending.fail(key, error)
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End the cell: something in it broke, or a job that it needs cannot be done."""
        self._is_failing = True
        try:
            self._take_records()  # levels that were recorded before it broke
        except (StoreError, DataError):
            raise
        except Exception as another:
            self._keep_trace(another)
        self._end(error)

    def _end(self, error: BaseException) -> None:
        named = self._named(error)
        self._keep_trace(named)
        self.ended = ("failed", named)
        self._pending.report_all()
        self._compared, self.asked = [], ()

    def _keep_trace(self, error: Exception) -> None:
        path = self._services.broke(error)
        self.trace = self.trace or path

    def _named(self, error: BaseException, analysis: Analysis | None = None) -> Exception:
        """Return the error with the analysis or search, its distribution and the level."""
        if isinstance(error, SystemExit):
            error = exit_error(error, self._full_name)
        who = self._full_name(analysis or self.cell.search)
        after = "" if self._last_level is None else f"after level {self._last_level}"
        if not isinstance(error, LotteryError):
            text = f"{who} broke{after and ' ' + after}: {type(error).__name__}: {error}"
        elif analysis:
            text = f"{who}: {error}"
        else:
            text = f"{error}{after and f' ({after})'}"
        named = PluginError(text)
        named.__cause__ = error
        return named

    def _full_name(self, component: Component) -> str:
        """Return a component as messages name it: kind, name, provider."""
        return f"{component.kind} '{component.use}' of {self._services.provider(component)}"
