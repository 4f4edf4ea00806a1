"""The output of a run on its way: events, warnings and tracebacks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from lotteryfw.api.events import (
    CellFinished,
    Evaluated,
    Event,
    Finding,
    LevelFinished,
    TrainingProgress,
    event_name,
)
from lotteryfw.api.results import AnalysisResult
from lotteryfw.registry import Registry
from lotteryfw.store import EventLog, RunFolder, strict_json

AnyEvent = TypeVar("AnyEvent", bound=Event)


class Listener(Protocol):
    """Watches a run, as the displays of the command line do: the argument `listener` of `run`.

    Its methods are called in the order of what happens, by the process that calls `run`. They must
    return soon, since the run waits for them, and must not raise.
    """

    def event(self, event: Event) -> None:
        """Take note of an event."""
        ...

    def progress(self, progress: TrainingProgress) -> None:
        """Take note of how far a training is. Without worker processes it is called at every step."""
        ...

    def warning(self, message: str) -> None:
        """Take note of something that went wrong and does not end the run."""
        ...


class NoListener:
    """A listener that ignores everything."""

    def event(self, event: Event) -> None: ...
    def progress(self, progress: TrainingProgress) -> None: ...
    def warning(self, message: str) -> None: ...


class Reporter:
    """Sends events to events.jsonl, the hooks and the listener, and tracebacks to `errors/`."""

    def __init__(self, folder: RunFolder, registry: Registry, listener: Listener):
        self._folder = folder
        self._registry = registry
        self._listener = listener
        self._log = EventLog(folder.path)
        self._errors = 0
        # The events that an earlier run of the same study has written, which are not written twice.
        self._events_before: set[str] = set()

    def begin(self) -> None:
        """Read the events of an earlier run, and delete its tracebacks."""
        # The cells that failed are run again, and leave new ones where they fail again.
        self._folder.clear_errors()
        self._events_before = {_identity(event) for event in self._folder.each_event()}

    def close(self) -> None:
        """Close events.jsonl."""
        self._log.close()

    def event(self, event: Event) -> None:
        """Send an event to everybody. A hook that raises is reported, and ends nothing."""
        event = self._of_this_run(event)
        name = event_name(event)
        line = {"event": name, "time": round(time.time(), 3), **_plain_event(event)}
        # A first run has nothing to compare with, and most events come in first runs.
        if not self._events_before or _identity(line) not in self._events_before:
            self._log.append(line)

        self._notify(name, event)
        self._listener.event(event)
        if isinstance(event, CellFinished) and event.status != "done":
            self.warning(f"cell {event.cell} {event.status}: {event.message}")

    def evaluated(self, level: LevelFinished) -> None:
        """Send the points of a level's curve to the hooks; curves.jsonl has them for everybody else.

        They are made only where a plugin listens: a study may have millions.
        """
        if not self._registry.is_heard("evaluated"):
            return
        curve = level.metrics.curve
        for index, step in enumerate(curve.step):
            point = Evaluated(
                level.cell,
                level.variant,
                level.level,
                step,
                curve.train_loss[index],
                curve.validation_loss[index],
                curve.validation_accuracy[index],
                {name: values[index] for name, values in curve.extra.items()},
            )
            self._notify("evaluated", self._of_this_run(point))

    def finding(self, analysis: str, result: AnalysisResult) -> None:
        """Send a figure of an analysis to the hooks; analyses.jsonl has it for everybody else."""
        if not self._registry.is_heard("finding"):
            return
        level = result.level
        event = Finding(
            analysis,
            level.cell,
            level.variant,
            level.level,
            result.figure,
            result.value,
            result.layer,
            result.against,
        )
        self._notify("finding", self._of_this_run(event))

    def _of_this_run(self, event: AnyEvent) -> AnyEvent:
        return replace(event, run=str(self._folder.path))

    def _notify(self, name: str, event: Event) -> None:
        # The registry keeps failures of all hooks: those after `before` are of this event.
        failures = self._registry.failures
        before = len(failures)
        self._registry.notify(name, event)
        for failure in failures[before:]:
            self.warning(str(failure))

    def progress(self, progress: TrainingProgress) -> None:
        """Tell the listener how far a training is."""
        self._listener.progress(progress)

    def warning(self, message: str) -> None:
        """Tell the listener what went wrong."""
        self._listener.warning(message)

    def traceback(self, text: str) -> str:
        """Write a traceback to `errors/`, since it is too long for a terminal.

        Return its path in the folder of the run.
        """
        self._errors += 1
        path = self._folder.write_error(f"{self._errors:03}", text)
        return path.relative_to(self._folder.path).as_posix()


def _plain_event(event: Event) -> dict[str, Any]:
    """Return an event's fields as plain data, without the curve, which the store has.

    The log lies in the folder of the run, whose path would tell nothing and differ after a move.
    """
    plain = dict(vars(event))
    del plain["run"]
    if isinstance(event, LevelFinished):
        metrics = dict(vars(event.metrics))
        metrics.pop("curve")
        plain["metrics"] = metrics
    return plain


def _identity(event: Mapping[str, Any]) -> str:
    """Return a text that two lines of events.jsonl share where they tell of the same event.

    A run begins and ends anew each time, so the time is part of these two.
    """
    name = event.get("event")
    if name == "job_finished":
        return f"job_finished {event.get('key')}"
    if name in ("run_started", "run_finished"):
        return f"{name} {event.get('time')}"
    return strict_json({key: event[key] for key in sorted(event) if key != "time"})
