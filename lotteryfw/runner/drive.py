"""Drives all cells together: what one asks for is found in the store, trained once for all, or waited for."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil

from lotteryfw.api.component import Component
from lotteryfw.api.errors import LotteryError, PluginError
from lotteryfw.api.events import CellFinished, Event, JobFinished, LayerCollapsed, LevelFinished
from lotteryfw.api.results import LevelResult
from lotteryfw.api.tickets import Ticket
from lotteryfw.engine import (
    Alike,
    DamagedJob,
    ObjectLost,
    StoredOutcome,
    is_complete,
    pick_up,
    post,
    together,
)
from lotteryfw.runner.cells import CellRun, Found, Level, SavedTicket, Status
from lotteryfw.runner.executors import Executor, Finished
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Job, Train, likeness, state_key, without_tensors
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest
from lotteryfw.store import Store

_AHEAD = 2
"""Groups of jobs that wait for each one at work: enough to keep workers busy, few enough that waiting cells fit in
memory."""


_KEPT_OUTCOMES = 64
_RESTARTS = 3
"""How often a cell begins again because an object that it had been promised was damaged: what is in a
file is checked when it is read."""


class Interrupted(LotteryError):
    """The run was asked to stop, and did so at a safe point."""

    exit_code = 130


class Driver:
    """Runs cells to their end. `keys` collects every object that the run stands on, `statuses` how cells ended.

    `open_lab` makes the lab of a cell; `emit` is told events, `on_level` levels, `on_ticket` tickets, `on_analysed`
    what analyses found, `on_trouble` what went wrong; `provider` names the distribution of a component,
    `planned_keys` the keys of stored results by their origins.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        open_lab: Callable[[Cell], CellLab],
        emit: Callable[[Event], None],
        on_level: Callable[[Level], None],
        on_ticket: Callable[[Cell, str, int, Ticket, str], SavedTicket],
        on_analysed: Callable[[Cell, Sequence[LevelResult], Found], None],
        on_trouble: Callable[[str, str], None],
        provider: Callable[[Component], str],
        planned_keys: Mapping[str, str],
    ):
        self._planned_keys = planned_keys
        self._store, self._executor, self._open_lab = store, executor, open_lab
        self._emit, self._on_level, self._on_trouble = emit, on_level, on_trouble
        self.ticket, self.analysed, self.provider = on_ticket, on_analysed, provider
        self._waiting: dict[str, list[CellRun]] = {}
        self._backlog: dict[str, Job] = {}
        self._parked: dict[str, str] = {}
        self._kinds: dict[str, Alike | None] = {}
        self._at_work: dict[str, Job] = {}
        self._groups: list[set[str]] = []
        self._announced: set[str] = set()
        self._restarts: Counter[str] = Counter()
        self._outcomes: dict[str, StoredOutcome] = {}
        self._likenesses: set[str] = set()
        self._stopping = False
        self.keys: set[str] = set()
        self.statuses: dict[str, Status] = {}

    def stop(self) -> None:
        """Asks the run to stop at the next safe point; `run` then raises Interrupted."""
        self._stopping = True
        self._executor.stop()

    def run(self, cells: Sequence[Cell]) -> None:
        """Every cell to its end: done, diverged or failed. Raises Interrupted, StoreError, DataError."""
        try:
            self._run(deque(cells))
        finally:
            for key in list(self._parked):
                self._unpark(key)

    def _run(self, todo: deque[Cell]) -> None:
        while todo or self._waiting:
            while (
                todo
                and self._groups_waiting() < _AHEAD * self._executor.capacity
                and not self._stopping
            ):
                self._advance(CellRun(todo.popleft(), self._open_lab, self))
            self._hand_out()
            if self._at_work:
                self._take_in(self._executor.wait())
            elif self._stopping:
                raise Interrupted("stopped")

    def _advance(self, now: CellRun) -> None:
        try:
            now.advance()
        except ObjectLost:
            if self._restarts[now.cell.id] >= _RESTARTS:
                raise
            self._restarts[now.cell.id] += 1
            self._forget(now)
            self._advance(CellRun(now.cell, self._open_lab, self))
            return
        if now.ended and now.cell.id not in self.statuses:
            status, error = now.ended
            self.statuses[now.cell.id] = status
            self._emit(CellFinished(now.cell.id, status, str(error) if error else ""))
            self._forget(now)

    def _forget(self, now: CellRun) -> None:
        """A cell that ended waits for nothing; what nobody else waits for is not begun any more."""
        for key in [key for key, waiting in self._waiting.items() if now in waiting]:
            self._waiting[key].remove(now)
            if not self._waiting[key] and key not in self._at_work:
                del self._waiting[key]
                del self._backlog[key], self._kinds[key]
                self._unpark(key)

    # What cells ask for (see cells.Surroundings)

    def ask(self, request: JobRequest, waiter: CellRun) -> bool:
        """Whether the store has the job's result; if not, the waiter is told once there is news.

        A result that is found by the request's origin needs no job: no network is built and no tensor hashed for it.
        """
        known = self._known_key(request)
        if known is not None and self._is_there(request, known):
            request.know(known)
            self._note(request)
            return True
        job = request.job
        key = job.key
        if self._is_there(request, key):
            self._note(request)
            self._store.set_alias(request.origin, key)
            return True
        waiting = self._waiting.setdefault(key, [])
        if waiter not in waiting:
            waiting.append(waiter)
        if key not in self._at_work and key not in self._backlog:
            self._backlog[key] = job
            self._kinds[key] = together(job)
        return False

    def outcome(self, key: str) -> StoredOutcome:
        """The result of a job that `ask` said is there. The newest are kept: each is asked for several times."""
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = StoredOutcome(self._store, key)
            if len(self._outcomes) > _KEPT_OUTCOMES:
                del self._outcomes[next(iter(self._outcomes))]
        return outcome

    def park(self, request: JobRequest) -> None:
        """Takes a waiting job's tensors off the memory until its turn comes."""
        key = request.key
        if key in self._backlog and key not in self._parked:
            self._parked[key] = post(self._backlog[key], self._store)
            self._backlog[key] = without_tensors(request.job)

    def level(self, level: Level) -> None:
        """Reports a level."""
        for layer in level.cut.collapsed if level.variant == "ticket" else ():
            self._emit(LayerCollapsed(level.cell.id, level.level, layer))
        self._on_level(level)
        if level.metrics is not None:
            self._emit(
                LevelFinished(
                    level.cell.id, level.variant, level.level, level.cut.density, level.metrics
                )
            )

    def broke(self, error: Exception) -> None:
        """Keeps the traceback of what broke in a cell; that of a job was kept when it ended."""
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        if cause.__traceback__:
            self._on_trouble("", "".join(traceback.format_exception(error)))

    # Jobs

    def _known_key(self, request: JobRequest) -> str | None:
        """The key that a request's origin stands for, from the plan or the store; None where that is not known."""
        if not request.decides:
            return None
        return self._planned_keys.get(request.origin) or self._store.alias(request.origin)

    def _is_there(self, request: JobRequest, key: str) -> bool:
        """Whether everything that is asked for is stored under a key, and nobody is still at work on it."""
        return key not in self._at_work and is_complete(
            self._store, key, request.kind, request.snapshots
        )

    def _note(self, request: JobRequest) -> None:
        key = request.key
        if key not in self._announced:
            self._announced.add(key)
            self._emit(JobFinished(key, request.steps, stored=True, seconds=0.0))
        self.keys.add(key)
        self.keys.update(state_key(key, step) for step in request.snapshots)

    def _groups_waiting(self) -> int:
        """How many groups the backlog makes."""
        kinds = Counter(self._kinds[key] for key in self._backlog)
        return sum(ceil(count / kind.most) if kind else count for kind, count in kinds.items())

    def _hand_out(self) -> None:
        while self._backlog and len(self._groups) < self._executor.capacity and not self._stopping:
            jobs, damaged = {}, {}
            for key in self._next_group():
                try:
                    jobs[key] = self._taken(key)
                except DamagedJob as error:
                    damaged[key] = error
            if jobs:
                self._at_work |= jobs
                self._groups.append(set(jobs))
                self._executor.submit(list(jobs.values()))
            self._give_up(damaged)

    def _give_up(self, errors: Mapping[str, DamagedJob]) -> None:
        """Ends the cells that wait for jobs which cannot be begun."""
        cells = [(now, error) for key, error in errors.items() for now in self._waiting.pop(key)]
        for now, error in cells:
            now.fail(error)
            self._advance(now)

    def _next_group(self) -> list[str]:
        """The most urgent job and those that go together with it, shared evenly among the processes that are free."""
        first = min(self._backlog, key=self._urgency)
        kind = self._kinds[first]
        if kind is None:
            return [first]
        alike = sorted(
            (key for key in self._backlog if self._kinds[key] == kind), key=self._urgency
        )
        free = self._executor.capacity - len(self._groups)
        return alike[: min(ceil(len(alike) / free), kind.most)]

    def _urgency(self, key: str) -> tuple[bool, int]:
        """Searches come before controls, and long trainings before short ones, so that no process is left alone with a
        long chain at the end. Of equals, the one that has waited longest."""
        job = self._backlog[key]
        holds_up_a_search = any(
            asked.key == key for now in self._waiting[key] for asked in now.asked
        )
        return not holds_up_a_search, -(job.steps if isinstance(job, Train) else 0)

    def _taken(self, key: str) -> Job:
        """A job out of the backlog, with its tensors."""
        job = self._backlog.pop(key)
        del self._kinds[key]
        if key in self._parked:
            try:
                job = pick_up(self._parked[key], self._store)
            finally:
                self._unpark(key)
        return job

    def _unpark(self, key: str) -> None:
        if key in self._parked:
            self._store.drop_scratch(self._parked.pop(key))

    def _take_in(self, finished: Finished) -> None:
        job = self._at_work.pop(finished.key)
        for group in self._groups:
            group.discard(finished.key)
        self._groups = [group for group in self._groups if group]
        if finished.stopped:
            return
        waiting = self._waiting.pop(finished.key, [])
        if finished.ends_run is not None:
            raise finished.ends_run(finished.error)
        if finished.warning:
            self._on_trouble(finished.warning, "")
        if finished.error is not None:
            self._on_trouble("", finished.trace)
            for now in waiting:
                now.fail(PluginError(finished.error), job.key)
        else:
            self._announced.add(job.key)
            if (
                like := likeness(job)
            ) not in self._likenesses:  # one such training is enough for estimates
                self._likenesses.add(like)
                self._store.set_alias(like, job.key)
            if finished.stored:  # another process computed it while this run waited for it
                steps, seconds = job.steps if isinstance(job, Train) else 0, 0.0
            else:
                timing = self.outcome(job.key).record.get("timing", {"seconds": 0.0, "steps": 0})
                steps, seconds = timing["steps"], timing["seconds"]
            self._emit(JobFinished(job.key, steps, finished.stored, seconds))
        for now in waiting:
            self._advance(now)
