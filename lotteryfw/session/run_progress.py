"""The state of a run in words: jobs, cells, steps a second, time left, running trainings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lotteryfw.api.events import (
    CellFinished,
    Event,
    JobFailed,
    JobFinished,
    LevelFinished,
    RunFinished,
    RunStarted,
    TrainingProgress,
)
from lotteryfw.api.words import counted


@dataclass
class _Running:
    """A training that runs: its last progress, and the time and step of its first."""

    progress: TrainingProgress
    first_time: float
    first_step: int


class RunProgress:
    """Counts what a listener hears of a run, and says it in words. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._started = clock()
        self.jobs = 0
        self.jobs_done = 0
        self._finished: RunFinished | None = None
        self.last_level = ""
        self._figure = "accuracy"
        self._cells = 0
        self._cells_done = 0
        self._steps_to_do = 0
        self._steps_done = 0
        self._steps_made = 0  # without those before a checkpoint that a training went on from
        self._running: dict[str, _Running] = {}

    @property
    def is_finished(self) -> bool:
        """True once every cell has ended."""
        return self._finished is not None

    def event(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, RunStarted):
            # checking a recipe and reading its data is no time of steps
            self._started = self._clock()
            self.jobs, self._cells, self._steps_to_do = event.jobs, event.cells, event.steps
            self._figure = event.figure
        elif isinstance(event, JobFinished):
            running = self._running.pop(event.key, None)
            self.jobs_done += 1
            if not event.stored:
                # fewer than the training has where it diverged, or went on from a checkpoint
                self._steps_made += event.steps
                self._steps_done += running.progress.steps if running else event.steps
        elif isinstance(event, JobFailed):
            self._running.pop(event.key, None)
        elif isinstance(event, LevelFinished):
            variant = "" if event.variant == "ticket" else f" {event.variant}"
            level = f"{event.cell}{variant}: level {event.level}, {event.density:.1%} remaining"
            self.last_level = f"{level}, test {self._figure} {event.metrics.test_accuracy:.2%}"
        elif isinstance(event, CellFinished):
            self._cells_done += 1
        elif isinstance(event, RunFinished):
            self._finished = event

    def training(self, progress: TrainingProgress) -> None:
        """Take note of how far a training is."""
        running = self._running.get(progress.key)
        if running is None or progress.step < running.progress.step:
            # it may go on from a checkpoint, whose steps say nothing of the speed now
            running = _Running(progress, self._clock(), progress.step)
            self._running[progress.key] = running
        running.progress = progress

    def summary(self) -> str:
        """Return jobs, cells, speed and times in one line."""
        seconds = max(self._clock() - self._started, 1e-9)
        steps_made, steps_done = self._steps_made, self._steps_done
        # a copy: another thread shows what this one counts
        for running in list(self._running.values()):
            steps_made += running.progress.step - running.first_step
            steps_done += running.progress.step
        speed = steps_made / seconds
        parts = [
            *self._counts(),
            # stored trainings count no steps, so this is the speed of computing
            f"{speed:,.0f} steps/s",
            in_words(seconds),
        ]
        steps_left = self._steps_to_do - steps_done
        # nothing is said before the first step, and nothing of an upper bound that is passed
        if steps_made > 0 and steps_left > 0 and not self.is_finished:
            parts.append(f"about {in_words(steps_left / speed)} left")
        return "  ".join(parts)

    def _counts(self) -> list[str]:
        """Return the jobs and cells that are done: of how many, until the run has ended.

        The number of jobs was an upper bound. Fewer are done where cells share trainings of equal
        masks, and where a cell failed; none of these is pending.
        """
        if self._finished is None:
            return [
                f"{self.jobs_done:,}/{self.jobs:,} jobs",
                f"{self._cells_done}/{self._cells} cells",
            ]
        cells = counted(self._finished.cells, "cell")
        for count, status in (
            (self._finished.failed, "failed"),
            (self._finished.diverged, "diverged"),
        ):
            if count:
                cells += f", {count} {status}"
        return [counted(self.jobs_done, "job"), cells]

    def trainings(self, most: int) -> list[str]:
        """Return a line for each running training, the first `most` of them."""
        running = list(self._running.values())
        lines = [self._line(one) for one in running[:most]]
        if len(running) > most:
            lines[-1] += f"  and {counted(len(running) - most, 'more training')}"
        return lines

    def _line(self, running: _Running) -> str:
        progress = running.progress
        # eight digits of the key are enough to tell the trainings of a run apart
        parts = [f"training {progress.key[:8]}: step {progress.step:,} of {progress.steps:,}"]
        if progress.loss is not None and progress.accuracy is not None:
            parts.append(f"loss {progress.loss:.4g}")
            parts.append(f"{self._figure} {progress.accuracy:.2%} (validation)")
        steps, seconds = progress.step - running.first_step, self._clock() - running.first_time
        if steps > 0 and seconds > 0:
            speed = steps / seconds
            parts.append(f"{speed:,.0f} steps/s")
            parts.append(f"{in_words((progress.steps - progress.step) / speed)} left")
        return "  ".join(parts)


def in_words(seconds: float) -> str:
    """Return a duration as people read it.

    >>> [in_words(seconds) for seconds in (3.2, 75, 5400)]
    ['3 s', '1 min 15 s', '1 h 30 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
