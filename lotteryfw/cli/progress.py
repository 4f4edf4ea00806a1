"""Displays of a run while it runs: a live display, nothing, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lotteryfw.api.events import (
    CellFinished,
    Event,
    JobFinished,
    LayerCollapsed,
    LevelFinished,
    RunFinished,
    RunStarted,
    event_name,
)


class View(ABC):
    """A display of a run; the runner calls `event`, `progress` and `warning`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def event(self, event: Event) -> None:
        """Show an event of the run."""

    @abstractmethod
    def progress(self, key: str, done: int, of: int) -> None:
        """Show how many steps of a training are done."""

    @abstractmethod
    def warning(self, message: str) -> None:
        """Show a problem that does not end the run."""

    @abstractmethod
    def close(self) -> None:
        """End the display; the command prints its results below it."""

    def stopping(self) -> None:
        """Print what a Ctrl-C does."""
        text = "stopping at a safe point; run the same command again to go on"
        print(f"{text} (Ctrl-C once more to drop everything)", file=sys.stderr)


class Quiet(View):
    """Prints problems only."""

    def event(self, event: Event) -> None:
        """Print nothing."""

    def progress(self, key: str, done: int, of: int) -> None:
        """Print nothing."""

    def warning(self, message: str) -> None:
        """Print a line on stderr."""
        _warn(message)

    def close(self) -> None:
        """There is nothing to end."""


class JsonLines(View):
    """Prints every event as a line of JSON on stdout."""

    def event(self, event: Event) -> None:
        """Print the event, without the curve of a level: the run folder has it."""
        fields = asdict(event)
        if isinstance(event, LevelFinished):
            del fields["metrics"]["curve"]
        print(json.dumps({"event": event_name(event), **fields}), flush=True)

    def progress(self, key: str, done: int, of: int) -> None:
        """Print nothing: a script reads events."""

    def warning(self, message: str) -> None:
        """Print a line on stderr."""
        _warn(message)

    def close(self) -> None:
        """There is nothing to end."""


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


class Terminal(View):
    """A bar of trainings with cells, speed and time left; below it the last measurement."""

    def __init__(self) -> None:
        # without markup: the names of cells and files are people's own, and may have brackets
        self._console = Console(stderr=True, markup=False, emoji=False)
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("trainings  {task.fields[beside]} "),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("", total=None, beside="")
        self._last = Text(style="dim", no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._last), console=self._console, refresh_per_second=4)
        self._cells = (0, 0)
        self._steps = 0
        self._running: dict[str, int] = {}
        self._started = time.monotonic()

    def close(self) -> None:
        """End the live display."""
        if self._live.is_started:
            self._live.stop()
            # rich ends the last line of a terminal only
            if not self._console.is_terminal:
                self._console.line()

    def event(self, event: Event) -> None:
        """Move the bar, or change the text beside or below it."""
        if isinstance(event, RunStarted):
            self._live.start()
            self._bar.update(self._task, total=event.trainings)
            self._cells = (0, event.cells)
            size = f"{event.cells} cells, up to {event.trainings} trainings"
            self._console.print(f"{event.name}: {size} → {event.folder}", highlight=False)
        elif isinstance(event, JobFinished):
            self._running.pop(event.key, None)
            self._steps += 0 if event.stored else event.steps
            self._bar.advance(self._task)
        elif isinstance(event, LevelFinished):
            variant = "" if event.variant == "ticket" else f" {event.variant}"
            level = f"{event.cell}{variant}: level {event.level}, {event.density:.1%} remaining"
            self._last.plain = f"{level}, test accuracy {event.metrics.test_accuracy:.2%}"
        elif isinstance(event, CellFinished):
            self._cells = (self._cells[0] + 1, self._cells[1])
        elif isinstance(event, LayerCollapsed):
            self.warning(f"{event.cell}: nothing is left of {event.layer} at level {event.level}")
        elif isinstance(event, RunFinished):
            # the total was an upper bound: cells may have shared trainings
            self._bar.update(self._task, total=self._bar.tasks[0].completed)
        self._beside()

    def progress(self, key: str, done: int, of: int) -> None:
        """Count the steps of running trainings into the speed."""
        self._running[key] = done
        self._beside()

    def warning(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(f"warning: {message}", style="yellow", highlight=False)

    def _beside(self) -> None:
        steps = self._steps + sum(self._running.values())
        # stored trainings count no steps, so this is the speed of computing
        speed = steps / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(
            self._task, beside=f"{self._cells[0]}/{self._cells[1]} cells  {speed:,.0f} steps/s"
        )
