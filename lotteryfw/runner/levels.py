"""Levels of a cell on their way into the results, some of which wait for evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from lotteryfw.api.metrics import Evaluation, Metrics
from lotteryfw.api.tickets import MaskStats
from lotteryfw.search.cell import Cell, named_figures
from lotteryfw.search.requests import JobRequest
from lotteryfw.search.stored_tickets import without_state


@dataclass(frozen=True)
class Level:
    """A level of a cell that has its figures (None: the training diverged).

    `variant` is "ticket", the name of a control, or one that the search chose. `figures` are those
    of the recipe's metrics (see `Cell.metric_units`).
    """

    cell: Cell
    variant: str
    level: int
    cut: MaskStats
    key: str
    metrics: Metrics | None
    learned: bool = False
    """True where the training learned the mask."""
    figures: Mapping[str, float] = field(default_factory=dict)


class EvaluationServices(Protocol):
    """The services that levels need to be measured and reported."""

    def ask(self, request: JobRequest) -> bool:
        """Return whether the store has a job's result; if not, it is computed."""
        ...

    def evaluation(self, key: str) -> Evaluation:
        """Return the figures of an evaluation for which `ask` returned True."""
        ...

    def spill(self, request: JobRequest) -> None:
        """Move a job's tensors from memory into the store until its turn comes."""
        ...


@dataclass(frozen=True)
class _Pending:
    level: Level
    requests: Mapping[str, JobRequest]
    """The evaluations of the level's network, by part of the data."""


class PendingLevels:
    """Levels whose training ended. Each is reported once the evaluations of its network ended.

    `errors` are those of the evaluations that failed, which the levels are reported without.
    """

    def __init__(self, services: EvaluationServices, report: Callable[[Level], None]):
        self.errors: list[Exception] = []
        self._services = services
        self._report = report
        self._pending: list[_Pending] = []
        self._failed_keys: set[str] = set()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, level: Level, requests: Mapping[str, JobRequest]) -> None:
        """Report a level, or ask for its evaluations (by part of the data) and report it later."""
        for request in requests.values():
            if not self._services.ask(request):
                # Many levels may be added at once, where all trainings are stored already.
                self._services.spill(request)
            request.drop_tensors(without_state(request.ticket))
        pending = _Pending(level, requests)
        if not self._try(pending):
            self._pending.append(pending)

    def report_finished(self) -> None:
        """Report the levels whose evaluations ended."""
        self._pending = [pending for pending in self._pending if not self._try(pending)]

    def report_all(self) -> None:
        """Report all levels as they are: their networks are trained, only figures are missing."""
        for pending in self._pending:
            self._report(pending.level)
        self._pending = []

    def awaits(self, key: str) -> bool:
        """Return whether a level waits for the evaluation of this key."""
        keys: set[str] = set()
        for pending in self._pending:
            keys |= {request.key for request in pending.requests.values()}
        return key in keys

    def fail(self, key: str, error: Exception) -> None:
        """Note that the evaluation of this key failed."""
        # Several levels may wait for one evaluation: equal networks have equal keys.
        self._failed_keys.add(key)
        self.errors.append(error)

    def _try(self, pending: _Pending) -> bool:
        requests = {}
        for part, request in pending.requests.items():
            if request.key not in self._failed_keys:
                requests[part] = request
        # Every one is to be asked for, so that they run side by side.
        are_there = [self._services.ask(request) for request in requests.values()]
        if not all(are_there):
            return False

        figures: dict[str, float] = {}
        for part, request in requests.items():
            figures |= named_figures(part, self._services.evaluation(request.key))
        # in the order of the recipe
        names = pending.level.cell.metric_units
        in_order = {name: figures[name] for name in names if name in figures}
        self._report(replace(pending.level, figures=in_order))
        return True
