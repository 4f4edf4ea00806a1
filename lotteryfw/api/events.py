"""The events of a run, which go to the hooks and into the run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lotteryfw.api.metrics import Metrics


@dataclass(frozen=True)
class RunEvent:
    """The base of all events. `run` is the folder of the run that an event happened in."""

    run: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class RunStarted(RunEvent):
    """A study begins.

    `folder` is where its results go. `jobs` counts the different trainings, probes and evaluations
    that its cells may ask for, and `steps` the optimizer updates of those that are not stored: upper
    bounds, since cells may turn out to share jobs. `figure` is the name of the figure that its
    objectives report, or of several, with "or" between them.
    """

    name: str
    folder: str
    cells: int
    jobs: int
    steps: int
    figure: str = "accuracy"


@dataclass(frozen=True)
class JobFinished(RunEvent):
    """A job was answered: computed by this run, or read from the store (`stored`).

    `seconds` is what computing it took, 0 where it was stored.
    """

    key: str
    steps: int
    stored: bool
    seconds: float


@dataclass(frozen=True)
class JobFailed(RunEvent):
    """A job broke off with an error, `message`. The cells that asked for it end as failed."""

    key: str
    message: str


@dataclass(frozen=True)
class LevelFinished(RunEvent):
    """One level of one cell has its figures.

    `variant` is "ticket", one of the search's `variants`, or the name of a control or target.
    """

    cell: str
    variant: str
    level: int
    density: float
    metrics: Metrics


@dataclass(frozen=True)
class Evaluated(RunEvent):
    """A network was evaluated during its training: one point of the curve of a level.

    The points of a level come in order, before its `LevelFinished`, once its training is over or
    was found in the store. `extra` has the further curves at this step (see `Curve`).
    """

    cell: str
    variant: str
    level: int
    step: int
    train_loss: float | None
    validation_loss: float
    validation_accuracy: float
    extra: Mapping[str, float]


@dataclass(frozen=True)
class Finding(RunEvent):
    """An analysis found a figure: of a level of a cell and, unless `layer` is empty, of one layer.

    `value` is a number, or several that belong together.
    """

    analysis: str
    cell: str
    variant: str
    level: int
    figure: str
    value: float | tuple[float, ...]
    layer: str
    against: str


@dataclass(frozen=True)
class LayerCollapsed(RunEvent):
    """A cut left nothing of a layer: no signal passes it any more."""

    cell: str
    level: int
    layer: str


@dataclass(frozen=True)
class CellFinished(RunEvent):
    """A cell ended.

    `status` is "done", "diverged" (its loss or scores are not finite) or "failed" (something broke).
    """

    cell: str
    status: Literal["done", "diverged", "failed"]
    message: str = ""


@dataclass(frozen=True)
class RunFinished(RunEvent):
    """A study ended. `failed` and `diverged` count cells."""

    folder: str
    cells: int
    failed: int
    diverged: int


Event = (
    RunStarted
    | JobFinished
    | JobFailed
    | Evaluated
    | LevelFinished
    | LayerCollapsed
    | Finding
    | CellFinished
    | RunFinished
)


def event_name(event: Event) -> str:
    """Return an event's name, which is that of its hook.

    >>> event_name(LayerCollapsed("a cell", 3, "fc1.weight"))
    'layer_collapsed'
    """
    # Before every capital but the first: the names of classes as names of functions.
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training in a run: `step` of its `steps` are done.

    `loss` and `accuracy` are those of its last evaluation on validation data, None before the first.
    It goes to listeners many times a second, and is no event of the log.
    """

    key: str
    step: int
    steps: int
    loss: float | None = None
    accuracy: float | None = None
