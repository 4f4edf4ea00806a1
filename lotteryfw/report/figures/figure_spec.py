"""A static figure before it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lotteryfw.report.figures.matplotlib_panels import PANEL_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DrawPanel = Callable[["Axes"], None]


@dataclass(frozen=True)
class FigureSpec:
    """One figure before it is drawn: `panels` in rows of `columns`, each of `size` inches.

    With `legend`, a legend of all panels is beside them. `axes` labels all panels together.
    """

    name: str
    note: str
    panels: Sequence[DrawPanel]
    columns: int
    size: tuple[float, float] = PANEL_SIZE
    legend: bool = True
    axes: tuple[str, str] = ("", "")
