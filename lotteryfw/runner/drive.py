"""Drives the generators of all cells together: what one asks for is found in the store, trained once, or waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lotteryfw.cell import Cell
from lotteryfw.engine import StoredOutcome, is_stored
from lotteryfw.errors import LotteryError, PluginError, StoreError, TrainingDiverged
from lotteryfw.jobs import Gradient, Job, Train, likeness, state_key
from lotteryfw.kinds import Search
from lotteryfw.lab import Lab, Record
from lotteryfw.runner.executors import Executor, Finished
from lotteryfw.store import Store
from lotteryfw.views import CellFinished, Event, JobFinished, LayerCollapsed, LevelFinished, Metrics, Ticket

_AT_ONCE = 64
"""Cells in progress at once: enough to share and to keep workers busy, few enough to hold their tickets in memory."""


@dataclass(frozen=True)
class Level:
    """A level of a cell that has its figures (None: the training diverged). `arm` is "ticket" or a control's name."""

    cell: Cell
    arm: str
    level: int
    ticket: Ticket
    key: str
    metrics: Metrics | None


@dataclass(eq=False)
class _Progress:
    """A cell under way: its generator, and the jobs it waits for."""

    cell: Cell
    lab: Lab
    search: Search[None]
    asked: tuple[Job, ...] = ()
    controls: list[tuple[str, Record, Job]] = field(default_factory=list)
    seen: int = 0
    searching: bool = True


class Interrupted(LotteryError):
    """The run was asked to stop, and did so at a safe point."""

    exit_code = 130


class Driver:
    """Runs cells to their end. `keys` collects every object that the run stands on.

    `open_lab` makes the lab of a cell; `emit` is told events, `on_level` levels; `snapshots` says which states of a
    dense training (by origin) other cells will want, so that one training gives them all.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        open_lab: Callable[[Cell], Lab],
        emit: Callable[[Event], None],
        on_level: Callable[[Level], None],
        on_trouble: Callable[[str, str], None],
        snapshots: Mapping[str, frozenset[int]],
    ):
        self._store, self._executor, self._open_lab = store, executor, open_lab
        self._emit, self._on_level, self._on_trouble = emit, on_level, on_trouble
        self._snapshots = snapshots
        self._waiting: dict[str, list[_Progress]] = {}
        self._backlog: dict[str, Job] = {}
        self._at_work: dict[str, Job] = {}
        self._announced: set[str] = set()
        self._stopping = False
        self.keys: set[str] = set()
        self.statuses: dict[str, Literal["done", "diverged", "failed"]] = {}

    def stop(self) -> None:
        """Asks the run to stop at the next safe point; `run` then raises Interrupted."""
        self._stopping = True
        self._executor.stop()

    def run(self, cells: Sequence[Cell]) -> None:
        """Every cell to its end: done, diverged or failed. Raises Interrupted, StoreError, DataError."""
        todo = deque(cells)
        under_way = 0
        while todo or self._waiting:
            while todo and len(self.statuses) + _AT_ONCE > under_way and not self._stopping:
                under_way += 1
                self._begin(todo.popleft())
            self._hand_out()
            if self._stopping and not self._at_work:
                raise Interrupted("stopped")
            if self._at_work:
                self._take_in(self._executor.wait())

    # Cells

    def _begin(self, cell: Cell) -> None:
        try:
            lab = self._open_lab(cell)
            now = _Progress(cell, lab, cell.search.search(lab))
        except LotteryError as error:
            self._finish(cell, "failed", error)
            return
        self._advance(now, lambda: next(now.search))

    def _advance(self, now: _Progress, resume: Callable[[], Any]) -> None:
        """Lets a cell's search run until it needs something that is not in the store."""
        while True:
            try:
                now.asked = tuple(resume())
            except StopIteration:
                now.searching, now.asked = False, ()
            except TrainingDiverged as error:
                self._drop(now)
                self._finish(now.cell, "diverged", error)
                return
            except (StoreError, KeyboardInterrupt):
                raise
            except Exception as error:
                self._drop(now)
                self._finish(now.cell, "failed", self._told(now.cell, error))
                return
            self._record(now)
            if not now.searching:
                self._settle(now)
                return
            missing = [job for job in now.asked if not self._ask(now, job)]
            if missing:
                return
            resume = self._answer(now)

    def _answer(self, now: _Progress) -> Callable[[], Any]:
        outcomes = [StoredOutcome(self._store, job.key) for job in now.asked]
        lost = next((o for j, o in zip(now.asked, outcomes, strict=True) if _diverged(j, o) is not None), None)
        if lost is not None and lost.diverged_at is not None:
            error = TrainingDiverged(lost.diverged_at)
            return lambda: now.search.throw(error)
        return lambda: now.search.send(tuple(outcomes))

    def _record(self, now: _Progress) -> None:
        """Reports the levels a search has recorded since the last look, and asks for their controls."""
        new, now.seen = now.lab.records[now.seen :], len(now.lab.records)
        for record in new:
            for leaf in record.ticket.cut.collapsed if record.ticket.cut else ():
                self._emit(LayerCollapsed(now.cell.id, record.level, leaf))
            self._level(now.cell, "ticket", record.level, record.ticket, record.trained.outcome.key)
            if record.ticket.is_dense:
                continue
            for name in now.cell.controls:
                ticket = now.lab.control(name, record)
                now.controls.append((name, replace(record, ticket=ticket), now.lab.job(ticket)))
        now.controls = [item for item in now.controls if not self._control(now, *item)]

    def _control(self, now: _Progress, name: str, record: Record, job: Job) -> bool:
        """Whether a control has its figures; they are reported then, else asked for."""
        if not self._ask(now, job):
            return False
        self._level(now.cell, name, record.level, record.ticket, job.key)
        return True

    def _settle(self, now: _Progress) -> None:
        now.controls = [item for item in now.controls if not self._control(now, *item)]
        if not now.controls and now.cell.id not in self.statuses:
            self._finish(now.cell, "done")

    def _level(self, cell: Cell, arm: str, level: int, ticket: Ticket, key: str) -> None:
        outcome = StoredOutcome(self._store, key)
        metrics = None if outcome.diverged_at is not None else outcome.metrics
        self._on_level(Level(cell, arm, level, ticket, key, metrics))
        if metrics is not None:
            density = ticket.cut.density if ticket.cut else 1.0
            self._emit(LevelFinished(cell.id, arm, level, density, metrics))

    def _finish(
        self, cell: Cell, status: Literal["done", "diverged", "failed"], error: Exception | None = None
    ) -> None:
        self.statuses[cell.id] = status
        self._emit(CellFinished(cell.id, status, str(error) if error else ""))

    def _drop(self, now: _Progress) -> None:
        """A cell that ended early waits for nothing any more."""
        now.searching, now.asked, now.controls = False, (), []

    def _told(self, cell: Cell, error: Exception) -> Exception:
        if isinstance(error, LotteryError):
            return error
        what = f"search '{cell.search.use}' broke: {type(error).__name__}: {error}"
        told = PluginError(what)
        told.__cause__ = error
        return told

    # Jobs

    def _ask(self, now: _Progress, job: Job) -> bool:
        """Whether the store has the job's result; if not, the cell is put down as waiting for it."""
        key = job.key
        if isinstance(job, Train) and job.origin in self._snapshots:
            job = replace(job, snapshots=job.snapshots | self._snapshots[job.origin])
        if key not in self._at_work and is_stored(job, self._store):
            self._note(job)
            return True
        waiting = self._waiting.setdefault(key, [])
        if now not in waiting:
            waiting.append(now)
        if key not in self._at_work and key not in self._backlog:
            self._backlog[key] = job
        return False

    def _note(self, job: Job) -> None:
        if job.key not in self._announced:
            self._announced.add(job.key)
            steps = job.steps if isinstance(job, Train) else 0
            self._emit(JobFinished(job.key, steps, stored=True, seconds=0.0))
        self._store.set_alias(job.origin, job.key)
        states = job.snapshots if isinstance(job, Train) else ()
        self.keys |= {job.key, *(state_key(job.key, step) for step in states)}

    def _hand_out(self) -> None:
        while self._backlog and len(self._at_work) < self._executor.capacity and not self._stopping:
            key = next((key for key in self._backlog if self._holds_up_a_search(key)), next(iter(self._backlog)))
            job = self._backlog.pop(key)
            self._at_work[key] = job
            self._executor.submit(job)

    def _holds_up_a_search(self, key: str) -> bool:
        """Searches come before controls, so that no process is left alone with a long chain at the end."""
        return any(job.key == key for now in self._waiting[key] for job in now.asked)

    def _take_in(self, finished: Finished) -> None:
        job = self._at_work.pop(finished.key)
        waiting = self._waiting.pop(finished.key, [])
        if finished.stopped:
            self._waiting[finished.key] = waiting
            return
        if finished.ends_run is not None:
            raise finished.ends_run(finished.error)
        if finished.warning:
            self._on_trouble(finished.warning, "")
        if finished.error is not None:
            self._on_trouble(finished.error, finished.trace)
            for now in waiting:
                if now.cell.id not in self.statuses:
                    self._drop(now)
                    self._finish(now.cell, "failed", PluginError(finished.error))
            return
        self._announced.add(job.key)
        self._store.set_alias(likeness(job), job.key)
        timing = StoredOutcome(self._store, job.key).record.get("timing", {"seconds": 0.0, "steps": 0})
        self._emit(JobFinished(job.key, timing["steps"], stored=False, seconds=timing["seconds"]))
        for now in waiting:
            if now.cell.id in self.statuses:
                continue
            if now.searching and all(self._ask(now, job) for job in now.asked):
                self._advance(now, self._answer(now))
            elif not now.searching:
                self._settle(now)
            else:
                self._record(now)


def _diverged(job: Job, outcome: StoredOutcome) -> int | None:
    return None if isinstance(job, Gradient) else outcome.diverged_at
