"""The hooks a plugin may implement. Mark an implementation with `@hookimpl`.

`register_components`, `register_recipes` and `register_commands` extend lotteryfw; the others are told what happens in
a run, each with a frozen event, and their return value is ignored (a tracker is a plugin that
implements some of them).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from lotteryfw.api.component import Component
from lotteryfw.api.events import (
    CellFinished,
    Evaluated,
    Finding,
    JobFailed,
    JobFinished,
    LayerCollapsed,
    LevelFinished,
    RunFinished,
    RunStarted,
)

if TYPE_CHECKING:
    import typer

PROJECT = "lotteryfw"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_components() -> Iterable[type[Component]]:  # type: ignore[empty-body]
    """Return the component classes this plugin offers. The base class of each is its kind."""


@hookspec
def register_recipes() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the recipe files that this plugin ships.

    They are found by name: `lotteryfw recipe lotteryfw-soft/soft`, by distribution and the file's
    name without its ending, or `soft` where no other recipe is called that.
    """


@hookspec
def register_commands(app: typer.Typer) -> None:
    """Add commands to the command line's `app`.

    A command whose name another one has is called `distribution/name`.
    """


@hookspec
def run_started(event: RunStarted) -> None:
    """Before the first training of a run."""


@hookspec
def job_finished(event: JobFinished) -> None:
    """A job was trained or found in the store."""


@hookspec
def job_failed(event: JobFailed) -> None:
    """A job broke off with an error."""


@hookspec
def evaluated(event: Evaluated) -> None:
    """A point of the curve of a level: the network was evaluated during its training."""


@hookspec
def finding(event: Finding) -> None:
    """An analysis found a figure."""


@hookspec
def level_finished(event: LevelFinished) -> None:
    """A level of a cell has its figures."""


@hookspec
def layer_collapsed(event: LayerCollapsed) -> None:
    """A cut left nothing of a layer."""


@hookspec
def cell_finished(event: CellFinished) -> None:
    """A cell ended, well or not."""


@hookspec
def run_finished(event: RunFinished) -> None:
    """After the last cell of a run; its folder is complete but for the figures."""
