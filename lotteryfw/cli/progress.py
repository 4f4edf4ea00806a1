"""What a run looks like while it runs: a live display, nothing, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
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


class Quiet:
    """Prints only warnings, on stderr."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        return None

    def event(self, event: Event) -> None:
        """Says nothing."""

    def progress(self, key: str, done: int, of: int) -> None:
        """Says nothing."""

    def warning(self, message: str) -> None:
        """One line on stderr."""
        print(f"warning: {message}", file=sys.stderr)

    def stopping(self) -> None:
        """Says what a Ctrl-C does."""
        print("stopping at a safe point; run the same command again to go on (Ctrl-C once more to drop everything)",
              file=sys.stderr)  # fmt: skip


class JsonLines(Quiet):
    """Every event as a line of JSON on stdout."""

    def event(self, event: Event) -> None:
        """One line."""
        told = asdict(event)
        if isinstance(event, LevelFinished):
            del told["metrics"]["curve"]
        print(json.dumps({"event": event_name(event), **told}), flush=True)


class Terminal(Quiet):
    """A bar of trainings with cells, speed and time left, and below it what was measured last."""

    def __init__(self) -> None:
        self._console = Console(
            stderr=True, markup=False, emoji=False
        )  # what it prints are people's own names
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._live.is_started:
            self._live.stop()
            if not self._console.is_terminal:
                self._console.line()  # rich ends the last line of a terminal only

    def event(self, event: Event) -> None:
        """Moves the bar, or changes what stands beside or below it."""
        if isinstance(event, RunStarted):
            self._live.start()
            self._bar.update(self._task, total=event.trainings)
            self._cells = (0, event.cells)
            told = f"{event.name}: {event.cells} cells, up to {event.trainings} trainings → {event.folder}"
            self._console.print(told, highlight=False)
        elif isinstance(event, JobFinished):
            self._running.pop(event.key, None)
            self._steps += 0 if event.stored else event.steps
            self._bar.advance(self._task)
        elif isinstance(event, LevelFinished):
            variant = "" if event.variant == "ticket" else f" {event.variant}"
            told = f"{event.cell}{variant}: level {event.level}, {event.density:.1%} remaining"
            self._last.plain = f"{told}, test accuracy {event.metrics.test_accuracy:.2%}"
        elif isinstance(event, CellFinished):
            self._cells = (self._cells[0] + 1, self._cells[1])
        elif isinstance(event, LayerCollapsed):
            self.warning(f"{event.cell}: nothing is left of {event.layer} at level {event.level}")
        elif isinstance(event, RunFinished):
            self._bar.update(
                self._task, total=self._bar.tasks[0].completed
            )  # sharing may have left fewer to do
        self._beside()

    def progress(self, key: str, done: int, of: int) -> None:
        """Counts the steps of trainings under way into the speed."""
        self._running[key] = done
        self._beside()

    def warning(self, message: str) -> None:
        """One line above the bar."""
        self._console.print(f"warning: {message}", style="yellow", highlight=False)

    def _beside(self) -> None:
        steps = self._steps + sum(self._running.values())
        speed = steps / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(
            self._task, beside=f"{self._cells[0]}/{self._cells[1]} cells  {speed:,.0f} steps/s"
        )
