"""The hooks a plugin may implement. Mark an implementation with `@hookimpl`.

`register_components` and `register_commands` extend lotteryfw; the others are told what happens in
a run, each with a frozen event, and their return value is ignored (a tracker is a plugin that
implements some of them).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from lotteryfw.api.component import Component
from lotteryfw.api.events import (
    CellFinished,
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
def register_commands(app: typer.Typer) -> None:
    """Add commands to the command line's `app`."""


@hookspec
def run_started(event: RunStarted) -> None:
    """Before the first training of a run."""


@hookspec
def job_finished(event: JobFinished) -> None:
    """A job was trained or found in the store."""


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
