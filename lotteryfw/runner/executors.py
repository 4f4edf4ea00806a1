"""Executors run jobs: the one of this file in this process, `Workers` in processes of their own."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lotteryfw.api.errors import DataError, LotteryError, StoreError
from lotteryfw.api.events import TrainingProgress
from lotteryfw.engine import EngineContext, GpuError, Stopped, execute, exit_error
from lotteryfw.engine.gpus import cuda_error
from lotteryfw.search.jobs import Job
from lotteryfw.store import Store


@dataclass(frozen=True)
class Finished:
    """A job that ended.

    `error` is None when its result is in the store, and `ends_run` is the type of an error that
    goes beyond the job. `stored` is True where another process computed the result while this one
    waited for it.
    """

    key: str
    error: str | None = None
    warning: str | None = None
    trace: str = ""
    ends_run: type[LotteryError] | None = None
    stopped: bool = False
    stored: bool = False


Progress = Callable[[TrainingProgress], None]
"""Called now and then while a training runs."""

ENDS_RUN: dict[str, type[LotteryError]] = {
    error.__name__: error for error in (StoreError, DataError)
}
"""The errors of a job that end the whole run, by name."""


class Executor(Protocol):
    """Runs groups of jobs (see `engine.group_key`), and returns them one by one as they finish."""

    capacity: int

    def submit(self, jobs: Sequence[Job]) -> None:
        """Accept a group; at most `capacity` run at once, and the others wait their turn."""
        ...

    def wait(self) -> Finished:
        """Wait until a job ends, and return it."""
        ...

    def stop(self) -> None:
        """Ask all running jobs to stop at a safe point; `wait` then returns them as stopped."""
        ...

    def close(self) -> None:
        """Release everything; jobs that still run are stopped."""
        ...


class InProcess:
    """Runs one group after another in this process. A stop is noticed at the next step."""

    capacity = 1

    def __init__(
        self, store: Store, workshop: EngineContext, progress: Progress, checkpoint_seconds: float
    ):
        self._store = store
        self._workshop = workshop
        self._progress = progress
        self._checkpoint_seconds = checkpoint_seconds
        self._queue: deque[Sequence[Job]] = deque()
        self._finished: deque[Finished] = deque()
        self._stopping = False

    def submit(self, jobs: Sequence[Job]) -> None:
        self._queue.append(jobs)

    def wait(self) -> Finished:
        if not self._finished:
            self._run(self._queue.popleft())
        return self._finished.popleft()

    def _run(self, jobs: Sequence[Job]) -> None:
        unfinished = [job.key for job in jobs]
        stored: set[str] = set()

        def on_step(done: int, of: int) -> bool:
            # The members of a group are in step, so their bars are moved in turn.
            key = unfinished[done % len(unfinished)]
            loss, accuracy = self._workshop.last_points.get(key, (None, None))
            self._progress(TrainingProgress(key, done, of, loss, accuracy))
            return self._stopping

        def on_done(key: str, warning: str | None) -> None:
            unfinished.remove(key)
            self._finished.append(Finished(key, warning=warning, stored=key in stored))

        try:
            execute(
                jobs,
                self._store,
                self._workshop,
                on_step,
                on_done,
                self._checkpoint_seconds,
                stored.add,
            )
        # A stop leaves checkpoints, from which the next run goes on.
        except Stopped:
            for key in unfinished:
                self._finished.append(Finished(key, stopped=True))
        except (Exception, SystemExit) as raised:
            error = exit_error(raised) if isinstance(raised, SystemExit) else raised
            kind, trace = type(error).__name__, traceback.format_exc()
            text = str(error) if isinstance(error, LotteryError) else f"{kind}: {error}"
            ends_run = ENDS_RUN.get(kind)
            if cuda_error(error) is not None:
                ends_run = GpuError
                text += (
                    "; this process cannot go on with its GPU. What is finished is kept, and the "
                    "same command goes on from there"
                )
            for key in unfinished:
                self._finished.append(Finished(key, text, trace=trace, ends_run=ends_run))

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._queue.clear()
