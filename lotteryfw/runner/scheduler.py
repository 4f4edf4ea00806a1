"""Runs all cells together: a job is found in the store, computed once for all, or waited for."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil

from lotteryfw.api.component import Component
from lotteryfw.api.errors import LotteryError, PluginError
from lotteryfw.api.results import LevelResult
from lotteryfw.api.tickets import Ticket
from lotteryfw.engine import (
    DamagedJob,
    GroupKey,
    ObjectLost,
    StoredOutcome,
    group_key,
    is_complete,
    spool,
    unspool,
)
from lotteryfw.runner.cells import CellRun, Findings, SavedTicket
from lotteryfw.runner.context import StudyContext
from lotteryfw.runner.executors import Executor, Finished
from lotteryfw.runner.levels import Level
from lotteryfw.runner.plan import timed_steps
from lotteryfw.runner.recorder import RunRecorder
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Job, Train, likeness, state_key, without_tensors
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest

PREFETCH = 2
"""Groups of jobs that wait for each one that runs: enough to keep workers busy, few enough that
the waiting cells fit in memory."""
_KEPT_OUTCOMES = 64
_MAX_RESTARTS = 3
"""How often a cell begins again because a stored object that it counted on was damaged: a file is
checked only when it is read."""


class Interrupted(LotteryError):
    """The run was asked to stop, and did so at a safe point."""

    exit_code = 130


class Scheduler:
    """Runs cells to their end.

    `open_lab` makes the lab of a cell, `recorder` takes what comes out, and `planned_keys` has the
    keys of stored results by the origins of their jobs.
    """

    def __init__(
        self,
        context: StudyContext,
        executor: Executor,
        open_lab: Callable[[Cell], CellLab],
        recorder: RunRecorder,
        planned_keys: Mapping[str, str],
    ):
        self._context = context
        self._store = context.store
        self._executor = executor
        self._open_lab = open_lab
        self._recorder = recorder
        self._planned_keys = planned_keys
        # All by the keys of jobs. A job in the backlog has a group key, None for one of its own,
        # and a spooled job's name in the store is in `_spooled`.
        self._waiting: dict[str, list[CellRun]] = {}
        self._backlog: dict[str, Job] = {}
        self._group_keys: dict[str, GroupKey | None] = {}
        self._spooled: dict[str, str] = {}
        self._running: dict[str, Job] = {}
        self._groups: list[set[str]] = []
        self._outcomes: dict[str, StoredOutcome] = {}
        self._announced: set[str] = set()
        self._timed_steps: dict[str, int] = {}
        """By cost class, the steps of the training that estimates are made of."""
        # By the ids of cells.
        self._restarts: Counter[str] = Counter()
        self._stopping = False

    def stop(self) -> None:
        """Ask the run to stop at the next safe point; `run` then raises Interrupted."""
        self._stopping = True
        self._executor.stop()

    def run(self, cells: Sequence[Cell]) -> None:
        """Run every cell to its end. Raises Interrupted, StoreError, DataError."""
        try:
            self._run(deque(cells))
        finally:
            for key in list(self._spooled):
                self._drop_spooled(key)

    def _run(self, todo: deque[Cell]) -> None:
        most_waiting = PREFETCH * self._executor.capacity
        while todo or self._waiting:
            while todo and self._count_groups() < most_waiting and not self._stopping:
                self._advance(CellRun(todo.popleft(), self._open_lab, self))
            self._submit_groups()
            if self._running:
                self._finish(self._executor.wait())
            elif self._stopping:
                raise Interrupted("stopped")

    def _advance(self, cell_run: CellRun) -> None:
        cell = cell_run.cell
        try:
            cell_run.advance()
        except ObjectLost:
            # Its search may have gone on from the lost result: only the beginning is safe.
            if self._restarts[cell.id] >= _MAX_RESTARTS:
                raise
            self._restarts[cell.id] += 1
            self._forget(cell_run)
            self._advance(CellRun(cell, self._open_lab, self))
            return
        if cell_run.ended and cell.id not in self._recorder.statuses:
            status, error = cell_run.ended
            message = str(error) if error else ""
            self._recorder.cell_finished(cell, status, message, cell_run.trace)
            self._forget(cell_run)

    def _forget(self, cell_run: CellRun) -> None:
        """Let an ended cell wait for nothing, and drop the jobs that nobody else waits for."""
        keys = [key for key, waiting in self._waiting.items() if cell_run in waiting]
        for key in keys:
            self._waiting[key].remove(cell_run)
            if not self._waiting[key] and key not in self._running:
                del self._waiting[key]
                del self._backlog[key], self._group_keys[key]
                self._drop_spooled(key)

    # The services that cells use (see cells.CellServices)

    def ask(self, request: JobRequest, waiter: CellRun) -> bool:
        """Return whether the store has a job's result; if not, `waiter` is advanced at its end.

        A result that is found by the request's origin needs no job: no network is built, and no
        tensor hashed for it.
        """
        planned = self._known_key(request)
        if planned is not None and self._is_stored(request, planned):
            request.know(planned)
            self._note(request)
            return True
        job = request.job
        key = job.key
        if self._is_stored(request, key):
            self._note(request)
            self._store.set_alias(request.origin, key)
            return True
        waiting = self._waiting.setdefault(key, [])
        if waiter not in waiting:
            waiting.append(waiter)
        if key not in self._running and key not in self._backlog:
            self._backlog[key] = job
            self._group_keys[key] = group_key(job)
        return False

    def outcome(self, key: str) -> StoredOutcome:
        """Return the result of a job for which `ask` returned True."""
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = StoredOutcome(self._store, key)
            # Each is asked for several times, soon after it was first asked for.
            if len(self._outcomes) > _KEPT_OUTCOMES:
                del self._outcomes[next(iter(self._outcomes))]
        return outcome

    def spill(self, request: JobRequest) -> None:
        """Move a waiting job's tensors from memory into the store until its turn comes."""
        key = request.key
        if key in self._backlog and key not in self._spooled:
            self._spooled[key] = spool(self._backlog[key], self._store)
            self._backlog[key] = without_tensors(request.job)

    def ticket(self, cell: Cell, variant: str, level: int, ticket: Ticket, key: str) -> SavedTicket:
        """Keep a ticket in the run's folder, before or after it is trained."""
        return self._recorder.ticket(cell, variant, level, ticket, key)

    def level(self, level: Level) -> None:
        """Record a level."""
        self._recorder.level(level)

    def analysed(self, cell: Cell, levels: Sequence[LevelResult], findings: Findings) -> None:
        """Record what a cell's analyses found."""
        self._recorder.analysed(cell, levels, findings)

    def broke(self, error: Exception) -> str:
        """Keep the traceback of an error in a cell, and return its path in the run's folder.

        "" where there is none: that of a job was kept when it ended.
        """
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        if cause.__traceback__ is None:
            return ""
        return self._recorder.traceback("".join(traceback.format_exception(error)))

    def provider(self, component: Component) -> str:
        """Return the distribution that a component comes from, and its version."""
        return self._context.provider(component)

    # Jobs

    def _known_key(self, request: JobRequest) -> str | None:
        """Return the key that a request's origin stands for; None where that is not known."""
        if not request.decides:
            return None
        return self._planned_keys.get(request.origin) or self._store.alias(request.origin)

    def _is_stored(self, request: JobRequest, key: str) -> bool:
        """Return whether all that a request asks for is stored, and no process works on it."""
        if key in self._running:
            return False
        return is_complete(self._store, key, request.kind, request.snapshots)

    def _note(self, request: JobRequest) -> None:
        """Record that the run stands on the result of a request."""
        key = request.key
        if key not in self._announced:
            self._announced.add(key)
            self._recorder.job_finished(key, request.steps, stored=True, seconds=0.0)
        self._recorder.keys.add(key)
        for step in request.snapshots:
            state = state_key(key, step)
            # A training that diverged before this step has no such state.
            if self._store.has(state):
                self._recorder.keys.add(state)

    def _count_groups(self) -> int:
        """Return how many groups the backlog makes."""
        counts = Counter(self._group_keys[key] for key in self._backlog)
        groups = 0
        for shared, count in counts.items():
            groups += ceil(count / shared.most) if shared else count
        return groups

    def _submit_groups(self) -> None:
        """Give the executor a group for each process that is free."""
        while self._backlog and len(self._groups) < self._executor.capacity and not self._stopping:
            jobs: dict[str, Job] = {}
            damaged: dict[str, DamagedJob] = {}
            for key in self._next_group():
                try:
                    jobs[key] = self._take(key)
                except DamagedJob as error:
                    damaged[key] = error
            if jobs:
                self._running |= jobs
                self._groups.append(set(jobs))
                self._executor.submit(list(jobs.values()))
            self._give_up(damaged)

    def _give_up(self, errors: Mapping[str, DamagedJob]) -> None:
        """End the cells that wait for jobs which cannot be begun."""
        # All at once: a cell that advances may ask for one of these jobs again.
        waiting = {key: self._waiting.pop(key) for key in errors}
        for key, error in errors.items():
            for cell_run in waiting[key]:
                cell_run.job_failed(key, error)
                self._advance(cell_run)

    def _next_group(self) -> list[str]:
        """Return the most urgent job and its share of those that can be trained with it.

        They are shared evenly among the processes that are free.
        """
        first = min(self._backlog, key=self._urgency)
        shared = self._group_keys[first]
        if shared is None:
            return [first]
        alike = [key for key in self._backlog if self._group_keys[key] == shared]
        alike.sort(key=self._urgency)
        free = self._executor.capacity - len(self._groups)
        return alike[: min(ceil(len(alike) / free), shared.most)]

    def _urgency(self, key: str) -> tuple[int, int]:
        """Return a sort key: forward passes first, searches before controls, long trainings before
        short ones.

        So no process is left alone with a long chain at the end, and figures do not wait. Of equals, the one that has
        waited longest comes first.
        """
        job = self._backlog[key]
        holds_up_a_search = any(cell_run.awaits(key) for cell_run in self._waiting[key])
        if not isinstance(job, Train):
            return 0, 0
        return 1 if holds_up_a_search else 2, -job.steps

    def _take(self, key: str) -> Job:
        """Take a job from the backlog, with its tensors. Raises DamagedJob."""
        job = self._backlog.pop(key)
        del self._group_keys[key]
        if key in self._spooled:
            try:
                job = unspool(self._spooled[key], self._store)
            finally:
                self._drop_spooled(key)
        return job

    def _drop_spooled(self, key: str) -> None:
        if key in self._spooled:
            self._store.drop_spooled(self._spooled.pop(key))

    def _finish(self, finished: Finished) -> None:
        """Take note of a job that ended, and advance the cells that waited for it."""
        job = self._running.pop(finished.key)
        for group in self._groups:
            group.discard(finished.key)
        self._groups = [group for group in self._groups if group]
        if finished.stopped:
            return
        waiting = self._waiting.pop(finished.key, [])
        # A full disk, or data that is not there, would end every other cell as well.
        if finished.ends_run is not None:
            raise finished.ends_run(finished.error)
        if finished.warning:
            self._recorder.warning(finished.warning)
        if finished.error is not None:
            self._recorder.job_failed(job.key, finished.error)
            trace = self._recorder.traceback(finished.trace) if finished.trace else ""
            for cell_run in waiting:
                cell_run.job_failed(job.key, PluginError(finished.error), trace)
        else:
            self._note_computed(job, finished.stored)
        for cell_run in waiting:
            self._advance(cell_run)

    def _keep_for_estimates(self, job: Train, steps: int) -> None:
        """Let estimates be made of the longest training of each kind: a short one is mostly start."""
        cost_class = likeness(job)
        longest = self._timed_steps.get(cost_class)
        if longest is None:
            # Of equally long ones the last run's: the machine may be another.
            longest = timed_steps(self._store, cost_class) - 1
        if steps > max(0, longest):
            self._store.set_alias(cost_class, job.key)
            longest = steps
        self._timed_steps[cost_class] = longest

    def _note_computed(self, job: Job, by_another_process: bool) -> None:
        """Report a job that was computed while this run waited for it."""
        self._announced.add(job.key)
        if by_another_process:
            steps, seconds = job.steps, 0.0
        else:
            record = self.outcome(job.key).record
            timing = record.get("timing", {"seconds": 0.0, "steps": 0})
            steps, seconds = timing["steps"], timing["seconds"]
            if isinstance(job, Train):
                self._keep_for_estimates(job, steps)
        self._recorder.job_finished(job.key, steps, by_another_process, seconds)
