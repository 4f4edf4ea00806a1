"""Displays of a run while it runs: a live display, plain lines, nothing, or JSON lines."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lotteryfw.api.events import (
    Event,
    LayerCollapsed,
    LevelFinished,
    RunFinished,
    RunStarted,
    TrainingProgress,
    event_name,
)
from lotteryfw.api.words import counted
from lotteryfw.session.run_progress import RunProgress
from lotteryfw.store import strict_json

LINE_SECONDS = 10.0
"""Seconds between two lines of a display that is no terminal."""
_SHOWN_TRAININGS = 4
"""Running trainings that have a line of their own."""


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
    def progress(self, progress: TrainingProgress) -> None:
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

    def progress(self, progress: TrainingProgress) -> None:
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
        # a curve has thousands of numbers
        if isinstance(event, LevelFinished):
            del fields["metrics"]["curve"]
        print(strict_json({"event": event_name(event), **fields}), flush=True)

    def progress(self, progress: TrainingProgress) -> None:
        """Print nothing: a script reads events."""

    def warning(self, message: str) -> None:
        """Print a line on stderr."""
        _warn(message)

    def close(self) -> None:
        """There is nothing to end."""


class PlainLines(View):
    """Prints a line on stderr at the beginning, every ten seconds, and at the end.

    The lines come from a thread of their own, so that a long evaluation is not silent.
    """

    def __init__(self, seconds: float = LINE_SECONDS) -> None:
        self._progress = RunProgress()
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def event(self, event: Event) -> None:
        """Take note of an event; the next line shows it."""
        self._progress.event(event)
        if isinstance(event, RunStarted):
            print(_beginning(event), file=sys.stderr, flush=True)
            # a daemon: a run that ends with an error must not wait for it
            self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)
            self._thread.start()
        elif isinstance(event, LayerCollapsed):
            self.warning(_collapsed(event))

    def progress(self, progress: TrainingProgress) -> None:
        """Take note of a training's steps."""
        self._progress.training(progress)

    def warning(self, message: str) -> None:
        """Print a line on stderr."""
        _warn(message)

    def close(self) -> None:
        """Print the last line."""
        self._ended.set()
        if self._thread is not None:
            # else its last line could come after the one below
            self._thread.join()
            self._thread = None
            self._print()

    def _repeat(self) -> None:
        while not self._ended.wait(self._seconds):
            self._print()

    def _print(self) -> None:
        # one training stands for all: a log line is read, not watched
        parts = [self._progress.summary(), *self._progress.trainings(1), self._progress.last_level]
        # A reader that has closed the pipe is noticed by the command itself.
        try:
            print("; ".join(part for part in parts if part), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self._ended.set()


class Terminal(View):
    """A bar of jobs with cells, speed and time left; below it running trainings and the last level."""

    def __init__(self) -> None:
        # without markup: the names of cells and files are people's own, and may have brackets
        self._console = Console(stderr=True, markup=False, emoji=False)
        self._bar = Progress(BarColumn(bar_width=24), TextColumn("{task.fields[summary]}"))
        self._task = self._bar.add_task("", total=None, summary="")
        self._trainings = Text(no_wrap=True, overflow="ellipsis")
        self._last = Text(style="dim", no_wrap=True, overflow="ellipsis")
        self._shown = Group(self._bar, self._trainings, self._last)
        self._progress = RunProgress()
        # last: it asks for the display at once
        self._live = Live(
            self._shown, console=self._console, refresh_per_second=4, get_renderable=self._updated
        )

    def close(self) -> None:
        """End the live display."""
        # a run that was refused never began a display
        if self._live.is_started:
            self._live.stop()

    def event(self, event: Event) -> None:
        """Take note of an event; the display shows it at its next refresh."""
        self._progress.event(event)
        if isinstance(event, RunStarted):
            # not before: messages of a refused run come without a display
            self._live.start()
            self._console.print(_beginning(event), highlight=False)
        elif isinstance(event, LayerCollapsed):
            self.warning(_collapsed(event))
        elif isinstance(event, RunFinished):
            # the last state would else be up to a quarter of a second old
            self._live.refresh()

    def progress(self, progress: TrainingProgress) -> None:
        """Take note of a training's steps."""
        self._progress.training(progress)

    def warning(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(f"warning: {message}", style="yellow", highlight=False)

    def _updated(self) -> Group:
        """Return the display as it is now: it is made four times a second, not at every step."""
        progress = self._progress
        # the total was an upper bound: cells may have shared jobs
        total = progress.jobs if not progress.is_finished else progress.jobs_done
        self._bar.update(
            self._task, total=total, completed=progress.jobs_done, summary=progress.summary()
        )
        self._trainings.plain = "\n".join(progress.trainings(_SHOWN_TRAININGS))
        self._last.plain = progress.last_level
        return self._shown


def display(quiet: bool = False) -> View:
    """Return the display that suits where the run is: a terminal, a notebook, a log file."""
    if quiet:
        return Quiet()
    console = Console(stderr=True)
    # without widgets, rich would add a new bar below the old one at every refresh
    if console.is_jupyter:
        return Terminal() if _has_widgets() else PlainLines()
    return Terminal() if console.is_terminal else PlainLines()


def _has_widgets() -> bool:
    """Return whether rich can change what it has shown in a notebook."""
    from importlib.util import find_spec

    return find_spec("ipywidgets") is not None


def _beginning(event: RunStarted) -> str:
    jobs, steps = counted(event.jobs, "job"), counted(event.steps, "step")
    size = f"{counted(event.cells, 'cell')}, up to {jobs} and {steps} to do"
    return f"{event.name}: {size} → {event.folder}"


def _collapsed(event: LayerCollapsed) -> str:
    return f"{event.cell}: nothing is left of {event.layer} at level {event.level}"


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
