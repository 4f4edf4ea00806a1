"""The records of a finished search, and the results of analyses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.tickets import MaskStats, Outcome, Ticket, Trained


@dataclass(frozen=True)
class LevelResult:
    """A level that a search recorded, as an analysis sees it.

    Tensors are read when they are first used.
    """

    study: str
    cell: str
    axes: Mapping[str, str]
    seed: int
    level: int
    variant: str
    cut: MaskStats
    outcome: Outcome = field(repr=False)
    _ticket: Callable[[], Ticket] = field(repr=False)
    _origin: str = field(default="", repr=False)
    """The digest of how the job of its training comes about."""

    @property
    def ticket(self) -> Ticket:
        """The ticket, read from the run's folder."""
        return self._ticket()

    @property
    def trained(self) -> Trained:
        """The training that the level reports."""
        # With its origin, so that nothing has to be hashed again for a ticket that is pruned from it.
        return Trained(self.ticket, self.outcome, origin=self._origin)


@dataclass(frozen=True)
class AnalysisResult:
    """A result of an analysis: a number, or several that belong together, of a level of a cell.

    `layer` is empty for the whole network; `against` names the cell that it was compared with, if
    any. Reports show a "share", of which 1 is all there is, in per cent, and a "number" as it is.
    `role` is for three lists of one layer's weights, in one order, which reports plot against each
    other: their values "before" and "after" training, and 1 where the mask "kept" them, else 0. A list with
    the role "along" has the positions of the other lists of its level, such as the points of a line
    between two networks. Raises ValueError for any other unit or role.
    """

    level: LevelResult = field(repr=False)
    figure: str
    value: float | tuple[float, ...]
    layer: str = ""
    against: str = ""
    unit: FigureUnit = "number"
    role: Literal["", "before", "after", "kept", "along"] = ""

    def __post_init__(self) -> None:
        # Checked here, where the analysis can be named, and not when the report is drawn.
        if self.unit not in ("share", "number"):
            raise ValueError(
                f"""the unit of '{self.figure}' is "share" or "number", not {self.unit!r}"""
            )
        if self.role not in ("", "before", "after", "kept", "along"):
            raise ValueError(
                f'the role of \'{self.figure}\' is "before", "after", "kept", "along" or empty, '
                f"not {self.role!r}"
            )
