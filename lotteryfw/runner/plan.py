"""What a study will ask for, known before anything is trained and without torch.

Every cell's search runs against a lab that hands out tickets without tensors. Jobs are told apart by how they come
about; sharing that depends on what masks turn out to be shows up only as a study runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lotteryfw.cell import Cell
from lotteryfw.engine.perform import StoredOutcome
from lotteryfw.errors import ContractError, UsageError
from lotteryfw.jobs import digest, like
from lotteryfw.kinds import Search
from lotteryfw.lab import Describe, Lab, Record
from lotteryfw.origins import Cut
from lotteryfw.start import Start, refuse_oversized
from lotteryfw.store import Store
from lotteryfw.views import Curve, CutReport, Edges, Metrics, Outcome, RewindPoint, Scored, Ticket, Trained

_NAN = float("nan")
_NOTHING_KNOWN = CutReport(0, {}, {})


class _Imagined:
    """The outcome of a job that nobody ran: no tensors, no figures."""

    key = ""
    diverged_at: int | None = None
    metrics = Metrics(0, 0, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, Curve((), (), (), ()))

    def tensors(self) -> Mapping[str, Any]:
        return {}

    def mask(self) -> Mapping[str, Any]:
        return {}

    def state(self, step: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return {}, {}


_IMAGINED = _Imagined()


class Asked(NamedTuple):
    """A job that a cell would ask for: its origin, its steps, and the states it is to keep."""

    origin: str
    steps: int
    snapshots: frozenset[int]


class DryLab(Lab):
    """A lab whose tickets and jobs are only derivations."""

    def _begin(self, data_folder: Path) -> Start:
        return Start()

    @property
    def likeness(self) -> str:
        """What all jobs of the cell cost like (see `jobs.likeness`)."""
        spec = self._spec
        return like(spec["model"], spec["data"], spec["optimizer"], self.cell.batch, self._device)

    def dense(self) -> Ticket:
        return Ticket(self._origins.dense(), 0, {}, {}, RewindPoint(weights=0, schedule=0))

    def train(self, ticket: Ticket, arm: str = "ticket") -> Search[Trained]:
        """The same with less ado, since it is what a plan mostly consists of."""
        if self._needs_gradient:
            return (yield from super().train(ticket))
        yield (self.job(ticket),)
        return Trained(ticket, _IMAGINED)

    def next(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        return self._derived("next", ticket, times)

    def random(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        return self._derived("random", ticket, times)

    def scored(self, density: float | None = None, length: int | None = None) -> Ticket:
        dense = self.dense()
        self._first_length = length
        return replace(dense, origin=self._origins.scored(dense.origin, density, length), scores={}, length=length)

    def rescored(
        self, ticket: Ticket, learned: Trained, density: float | None, *, hard: bool, length: int | None = None
    ) -> Ticket:
        length = ticket.length if length is None else length
        origin, point = self._rescored_origin(ticket, density, hard, length), self._point_again(length)
        return replace(ticket, origin=origin, level=ticket.level + 1, point=point, length=length)

    def found(self, ticket: Ticket, learned: Trained) -> Ticket:
        point = RewindPoint(weights=0, schedule=0)
        return Ticket(self._found_origin(ticket), ticket.level + 1, {}, {}, point, cut=_NOTHING_KNOWN)

    def control(self, name: str, record: Record) -> Ticket:
        return self._restarted(name, record.ticket)

    def job(self, ticket: Ticket) -> Any:
        """The training of a ticket: what is known of it."""
        origin = self._origins.job("train", ticket.origin, ticket.point)
        return Asked(origin, self._steps(ticket), self._snapshots(ticket))

    def _gradient_job(self, ticket: Ticket, outcome: Outcome) -> Any:
        origin = self._origins.job("gradient", ticket.origin, ticket.point)
        return Asked(origin, 0, frozenset())

    def _derived(self, how: Cut, ticket: Ticket, times: int) -> Ticket:
        origin = self._cut_origin(how, ticket, times)
        return Ticket(origin, ticket.level + times, {}, {}, self.point, None, _NOTHING_KNOWN)


class CountingLab(DryLab):
    """A dry lab that also counts the weights that budgets leave, and refuses a cut that leaves none."""

    def _begin(self, data_folder: Path) -> Start:
        refuse_oversized(self._ask, self.cell.data.facts(data_folder))  # before it takes any memory
        return Lab._begin(self, data_folder)

    def _derived(self, how: Cut, ticket: Ticket, times: int) -> Ticket:
        kept = dict(self._cuts.kept(ticket))
        for group in self._groups(ticket, times):
            left = group.keep
            for leaf in group.leaves:  # within a group any share will do: only its sum is certain
                kept[leaf] = min(kept[leaf], left)
                left -= kept[leaf]
        derived = super()._derived(how, ticket, times)
        if not any(kept.values()):
            scope = self.cell.scope
            raise UsageError(
                f"scope '{scope.use}' {scope.options()} leaves no weights at level {derived.level} of cell "
                f"{self.cell.id}: lower the rate, or search fewer levels"
            )
        return replace(derived, cut=CutReport(0, kept, {}))

    def scored(self, density: float | None = None, length: int | None = None) -> Ticket:
        import torch

        edges = {
            layer.name: Edges(layer, self._start.values[layer.name], torch.zeros(layer.shape), torch.ones(()) > 0)
            for layer in self.layers
        }
        net = Scored(edges, self._cuts.budgets(density), self._ask.weight)
        self._ask.component("parametrization", "masks", net)  # which says so where it needs a density
        return super().scored(density, length)


def refuse_empty(cells: Iterable[Cell], describe: Describe, data_folder: Path, device: str) -> None:
    """Raises UsageError for a cell whose budgets would leave a network without weights, and what a scope raises."""
    alike: dict[str, Cell] = {}
    for cell in cells:
        said = [describe(part, cell.clock).canonical() for part in (cell.model, cell.data, cell.scope, cell.search)]
        alike.setdefault(digest(said), cell)
    for cell in alike.values():
        try:
            jobs_of(CountingLab(cell, describe, data_folder, device))
        except UsageError:
            raise
        except Exception:  # a component that breaks ends its own cells, when they run
            continue


def jobs_of(lab: DryLab) -> list[Asked]:
    """Every job that the lab's cell would ask for. Raises whatever a search raises that needs real figures."""
    jobs: list[Any] = []
    search = lab.cell.search.search(lab)
    try:
        asked = next(search)
        while True:
            jobs += asked
            asked = search.send((_IMAGINED,) * len(asked))
    except StopIteration:
        pass
    cut = [record for record in lab.records if not record.ticket.is_dense]
    jobs += [lab.job(lab.control(name, record)) for record in cut for name in lab.cell.controls]
    if not set(map(type, jobs)) <= {Asked}:
        raise ContractError(f"search '{lab.cell.search.use}' asks for other things than jobs")
    return jobs


@dataclass(frozen=True)
class Plan:
    """What a study asks for. Steps are optimizer updates; `seconds` and `bytes` are None where nothing like it was
    trained in this store before. `unknown` names cells whose search needs real figures to say what it will ask."""

    cells: int
    asked: int
    unique: int
    stored: int
    steps: int
    steps_to_do: int
    seconds: float | None
    bytes: int | None
    unknown: tuple[str, ...]


def plan(cells: Iterable[Cell], describe: Describe, store: Store, data_folder: Path, device: str) -> Plan:
    """The plan of some cells against a store; `device` is the kind the study would run on."""
    asked, count = 0, 0
    unknown: list[str] = []
    unique: dict[str, tuple[int, str]] = {}  # origin → steps and likeness; the garbage collector passes plain tuples by
    for cell in cells:
        count += 1
        try:
            lab = DryLab(cell, describe, data_folder, device)
            jobs = jobs_of(lab)
        except Exception:  # a search that needs real figures to say what it asks for, or one that breaks
            unknown.append(cell.id)
            continue
        asked += len(jobs)
        like = lab.likeness
        unique.update({job.origin: (job.steps, like) for job in jobs})
    stored = {origin for origin in store.aliases() & unique.keys() if (key := store.alias(origin)) and store.has(key)}
    todo = [each for origin, each in unique.items() if origin not in stored]
    costs = {like for _, like in todo}
    known = {each: cost for each in costs if (cost := _cost(store, each))}
    complete = len(known) == len(costs)
    return Plan(
        cells=count,
        asked=asked,
        unique=len(unique),
        stored=len(stored),
        steps=sum(steps for steps, _ in unique.values()),
        steps_to_do=sum(steps for steps, _ in todo),
        seconds=sum(steps * known[like][0] for steps, like in todo) if complete else None,
        bytes=sum(known[like][1] for _, like in todo) if complete else None,
        unknown=tuple(unknown),
    )


def _cost(store: Store, likeness: str) -> tuple[float, int] | None:
    """(seconds a step, bytes) of a stored training of this likeness."""
    key = store.alias(likeness)
    folder = store.path(key) if key else None
    if key is None or folder is None:
        return None
    timing = StoredOutcome(store, key).record["timing"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return (timing["seconds"] / timing["steps"], size) if timing["steps"] else None
