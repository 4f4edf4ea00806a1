"""The front desk that a search talks to: turns its calls into jobs, and applies criterion, scope, rewind and actions.

Everything a cell decides at random is drawn here, from streams named by seed, purpose, level and leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lotteryfw.asking import Asking
from lotteryfw.cell import CONTROLS, Cell
from lotteryfw.component import Component
from lotteryfw.cuts import Cuts
from lotteryfw.errors import ContractError, PluginError, TrainingDiverged, UsageError, nearest
from lotteryfw.fingerprints import fingerprint_of
from lotteryfw.jobs import Gradient, Spec, Train
from lotteryfw.kinds import Search
from lotteryfw.origins import Cut, Origins
from lotteryfw.rng import seed_of, stream
from lotteryfw.start import Start, masked_values, start_of
from lotteryfw.steps import Clock
from lotteryfw.views import (
    LATEST,
    SCORES,
    CutReport,
    Edges,
    Group,
    Layer,
    Leaf,
    Need,
    Outcome,
    RewindPoint,
    Scored,
    Ticket,
    Trained,
)

if TYPE_CHECKING:
    from torch import Tensor

ChooseKernel = Callable[[Train, str, float | None], str]
"""Names the kernel, with its revision, that trains a job, given the `kernel` and `sparse_below` that the recipe asks
for; the engine knows."""


def _reference(job: Train, asked: str, sparse_below: float | None) -> str:
    return "reference/1"


Describe = Callable[[Component, Clock], Spec]
"""Names a component as jobs do; the registry knows how, for it knows who provides it."""


class Record(NamedTuple):
    """A level that a search recorded."""

    level: int
    ticket: Ticket
    trained: Trained
    arm: str = "ticket"


class Lab:
    """One cell's lab. A search asks it for tickets and trainings, and records levels with it.

    `clock` reads lengths, `seed` is the cell's, `layers` are the prunable layers in order.
    """

    def __init__(
        self,
        cell: Cell,
        describe: Describe,
        data_folder: Path,
        device: str,
        choose_kernel: ChooseKernel = _reference,
    ):
        self.cell = cell
        self.clock = cell.clock
        self.seed = cell.seed
        self.point = cell.rewind.point(cell.clock)
        if self.point.weights == LATEST and self.point.optimizer == "saved":
            raise ContractError(f"rewind '{cell.rewind.use}': a saved optimizer state needs a step to be saved at")
        self.records: list[Record] = []
        parts = {name: getattr(cell, name) for name in _SLOTS}
        self._spec = {name: describe(part, cell.clock) for name, part in parts.items() if part is not None}
        self._augment = tuple(describe(component, cell.clock) for component in cell.augment)
        self._fingerprint = fingerprint_of(cell.data, data_folder)
        self._origins = Origins(cell, self._spec, self._augment, self._fingerprint, device)
        self._device = device
        self._choose_kernel = choose_kernel
        self._needs_gradient = Need.GRADIENT in cell.criterion.needs
        self._dense_outcome: Outcome | None = None
        self._first_cycle: Trained | None = None
        self._first_length: int | None = None
        self._ask = Asking(cell, self._spec)
        self._start = self._begin(data_folder)
        self.layers = self._start.layers
        self._cuts = Cuts(self._ask, self.layers, self.seed)
        self.report = self._cuts.report

    def _begin(self, data_folder: Path) -> Start:
        return start_of(self._ask, self.cell.data.facts(data_folder), self.seed)

    # What searches call

    def dense(self) -> Ticket:
        """The whole network at its initialisation."""
        import torch

        mask = {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in self.layers}
        point = RewindPoint(weights=0, schedule=0)
        return Ticket(self._origins.dense(), 0, mask, self._start.values, point)

    def train(self, ticket: Ticket, arm: str = "ticket") -> Search[Trained]:
        """Asks for the training of one ticket: `trained = yield from lab.train(ticket)`.

        One that diverges is recorded under `arm` at the ticket's level, or at the one that it was to find a mask for,
        and raises TrainingDiverged.
        """
        (trained,) = yield from self.train_all([ticket])
        if trained.diverged_at is not None:
            learns_mask = ticket.scores is not None
            self.record(ticket.level + learns_mask, ticket, trained, arm)
            raise TrainingDiverged(trained.diverged_at, learns_mask)
        return trained

    def train_all(self, tickets: Sequence[Ticket]) -> Search[list[Trained]]:
        """Asks for several trainings at once, to run side by side. Some may have diverged: see `Trained`."""
        if not tickets:
            return []
        outcomes = yield tuple(map(self.job, tickets))
        trained = [Trained(*pair) for pair in zip(tickets, outcomes, strict=True)]
        for each in trained:
            if each.ticket.is_dense:
                self._dense_outcome = each.outcome
            elif each.ticket.scores is not None and each.ticket.level == 0:
                self._first_cycle = each
        if not self._needs_gradient:
            return trained
        well = [each for each in trained if each.diverged_at is None]
        slopes = iter((yield tuple(self._gradient_job(each.ticket, each.outcome) for each in well)) if well else ())
        return [
            replace(each, gradient=next(slopes).tensors()) if each.diverged_at is None else each for each in trained
        ]

    def next(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        """The ticket of the next round: criterion and scope cut `ticket`, then rewind, mask-1 and mask-0 fill it.

        `times` cuts in a row are made as one, down to the weights that as many rounds would leave.
        """
        level = ticket.level + times
        original, final, rewound = self._start.values, trained.weights(), self._rewound(trained)

        def leaf(layer: Layer, mask: Tensor, purpose: str) -> Leaf:
            name = layer.name
            return Leaf(
                layer, original[name], ticket.values[name], final[name], rewound[name], mask, ticket.mask[name],
                stream(self.seed, purpose, level, name), lambda: self._fresh(layer, level),
                trained.gradient[name] if trained.gradient else None,
            )  # fmt: skip

        scores = {
            layer.name: self._ask.leaf("criterion", "score", leaf(layer, ticket.mask[layer.name], "criterion"))
            for layer in self.layers
        }
        mask, report = self._cuts.by_score(ticket, scores, self._groups(ticket, times), level)
        values = self._carried(trained, rewound)
        for layer in self.layers:
            name = layer.name
            alive = self._ask.leaf("mask1", "alive", leaf(layer, mask[name], "mask1"))
            frozen = leaf(layer, mask[name], "mask0")
            dead = self._ask.leaf("mask0", "dead", frozen)
            if self.cell.mask0.changes_kept:
                alive = self._ask.leaf("mask0", "kept", frozen, alive)
            values[name] = _merge(mask[name], alive, dead)
        return self._ticket(self._cut_origin("next", ticket, times), ticket, times, mask, values, report)

    def random(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        """A ticket with a uniformly random mask within the scope's budgets, over the rewound weights."""
        level = ticket.level + times
        mask, report = self._cuts.at_random(ticket, self._groups(ticket, times), level)
        rewound = self._rewound(trained)
        values = self._carried(trained, rewound)
        for layer in self.layers:
            values[layer.name] = _merge(mask[layer.name], rewound[layer.name], None)
        return self._ticket(self._cut_origin("random", ticket, times), ticket, times, mask, values, report)

    def untrained(self, ticket: Ticket) -> Ticket:
        """The same ticket, to be measured as it is: `lab.train` then takes no step."""
        return replace(ticket, point=replace(ticket.point, steps=0))

    def scored(self, density: float | None = None, length: int | None = None) -> Ticket:
        """The whole network at what the mask-1 action makes of its initialisation, with fresh scores: training it
        learns a mask. `density` in (0, 1] is what a parametrization keeps that has to be told; `length` is how many
        steps the schedule has, if not as many as the recipe's.
        """
        if "parametrization" not in self._spec:
            raise ContractError(f"{self._ask.who('search')} learns masks (lab.scored) and has no parametrization")
        dense = self.dense()
        self._first_length = length
        values = masked_values(self._ask, self._start, self.seed)
        scores = {layer.name: self._ask.scores(layer, stream(self.seed, "scores", layer.name)) for layer in self.layers}
        return replace(
            dense,
            origin=self._origins.scored(dense.origin, density, length),
            values=values,
            scores=scores,
            budgets=self._cuts.budgets(density),
            length=length,
        )

    def rescored(
        self, ticket: Ticket, learned: Trained, density: float | None, *, hard: bool, length: int | None = None
    ) -> Ticket:
        """The next cycle of learning a mask, at another density. `hard` removes what the last one left out for good;
        otherwise every edge may come back. `length` is how many steps its schedule has, if not as many as the last's.

        The rewind policy says where scores and schedule go on: at LATEST scores stay as learned, at step k they return
        to that step of the first cycle.
        """
        length = ticket.length if length is None else length
        net, point = self._net(ticket, learned), self._point_again(length)
        removed = self._ask.masks(net) if hard else ticket.mask
        weights, scores = learned.weights(), learned.scores()
        state: Mapping[str, Tensor] | None = None
        if point.weights != LATEST:
            assert self._first_cycle is not None
            first = self._first_cycle.ticket
            if point.weights == 0:
                weights, scores = first.values, first.scores or {}
            else:
                values, state = self._first_cycle.outcome.state(point.weights)
                weights = {name: value for name, value in values.items() if "/" not in name}
                scores = {layer.name: values[SCORES + layer.name] for layer in self.layers}
        return replace(
            ticket,
            origin=self._rescored_origin(ticket, density, hard, length),
            level=ticket.level + 1,
            mask=removed,
            values=weights,
            scores=scores,
            budgets=self._cuts.budgets(density),
            point=point,
            optimizer=state if point.optimizer == "saved" else None,
            length=length,
        )

    def found(self, ticket: Ticket, learned: Trained) -> Ticket:
        """The ticket that a learned mask makes of the one it was learned over: to be trained from the beginning of the
        schedule, or `untrained`. Its weights are those that the network computed with under that mask. Its report has
        the expected number of edges beside those of the mask."""
        net = self._net(ticket, learned)
        mask = self._ask.masks(net)
        expected = [self._ask.component("parametrization", "expected", net.edges[name], mask[name]) for name in mask]
        report = self._cuts.found(mask, sum(expected))
        values = dict(learned.weights())
        for name, part in mask.items():
            weight: Tensor = self._ask.component("parametrization", "weight", net.edges[name], part)
            values[name] = _merge(part, weight, None)
        origin = self._found_origin(ticket)
        return Ticket(origin, ticket.level + 1, mask, values, RewindPoint(weights=0, schedule=0), cut=report)

    def record(self, level: int, ticket: Ticket, trained: Trained, arm: str = "ticket") -> None:
        """Puts a level on record: its figures appear in the results, its ticket is kept, and, of the arm "ticket", its
        controls are trained. Other arms are what a search has to compare with its tickets, under names in its `arms`.
        """
        given, kinds = (level, ticket, trained), (int, Ticket, Trained)
        if not all(map(isinstance, given, kinds)):
            value, kind = next(pair for pair in zip(given, kinds, strict=True) if not isinstance(*pair))
            what = f"{type(value).__name__} where {kind.__name__} belongs"
            raise ContractError(f"{self._ask.who('search')} called lab.record(level, ticket, trained) with a {what}")
        self.records.append(Record(level, ticket, trained, arm))

    # What the runner calls

    def job(self, ticket: Ticket) -> Train:
        """The training of a ticket, as a job."""
        job = Train(
            model=self._spec["model"],
            data=self._spec["data"],
            fingerprint=self._fingerprint,
            objective=self._spec["objective"],
            optimizer=self._spec["optimizer"],
            schedule=self._spec["schedule"],
            augment=self._augment,
            batch=self.cell.batch,
            total=self._total(ticket),
            steps_per_epoch=self.clock.steps_per_epoch,
            start=ticket.point.schedule,
            steps=self._steps(ticket),
            evaluate_every=self.cell.evaluate_every,
            order_seed=self.seed,
            augment_seed=self.seed,
            device=self._device,
            kernel="",
            values=ticket.values,
            mask=ticket.mask,
            optimizer_state=ticket.optimizer,
            snapshots=self._snapshots(ticket),
            origin=self._origins.job("train", ticket.origin, ticket.point),
        )
        if ticket.scores is not None:
            # every cycle has an order and masks of its own: what it does not see again is what iterating may gain by
            seed = seed_of(self.seed, "cycle", ticket.level) if ticket.level else self.seed
            job = replace(
                job,
                values={**ticket.values, **{SCORES + name: each for name, each in ticket.scores.items()}},
                optimizer=self._spec.get("mask_optimizer", self._spec["optimizer"]),
                parametrization=self._spec["parametrization"],
                initialiser=self._spec["initialiser"],
                budgets=tuple((group.leaves, group.keep) for group in ticket.budgets),
                order_seed=seed,
                mask_seed=seed,
            )
        return replace(job, kernel=self._choose_kernel(job, self.cell.kernel, self.cell.sparse_below))

    def _steps(self, ticket: Ticket) -> int:
        point = ticket.point
        return self._total(ticket) - point.schedule if point.steps is None else point.steps

    def _total(self, ticket: Ticket) -> int:
        return self.clock.total if ticket.length is None else ticket.length

    def _point_of(self, length: int | None) -> RewindPoint:
        """Where the rewind policy points on a schedule of this length."""
        if length is None:
            return self.point
        return self.cell.rewind.point(Clock(length, self.clock.steps_per_epoch))

    def _point_again(self, length: int | None) -> RewindPoint:
        """Where a cycle of this length goes on: a step to return to is one of the first cycle."""
        point = self._point_of(self._first_length)
        return self._point_of(length) if point.weights == LATEST else point

    def _snapshots(self, ticket: Ticket) -> frozenset[int]:
        """The states of the first training, of weights or of scores, that later rounds start from."""
        wanted = self._point_of(ticket.length).weights
        if wanted == LATEST or wanted == 0:
            return frozenset()
        first = ticket.is_dense or (ticket.scores is not None and ticket.level == 0)
        return frozenset({wanted}) if first else frozenset()

    def control(self, name: str, record: Record) -> Ticket:
        """The control of a recorded level by its name in `CONTROLS`, of the same density in every layer.

        A re-initialised network starts from the beginning of the schedule, the others where the ticket does.
        """
        ticket = record.ticket
        if name not in CONTROLS:
            raise UsageError(f"no control is called '{name}' ({nearest(name, CONTROLS)})")
        if ticket.cut is None:  # of the dense network every control is itself
            return ticket
        if name == "untrained":
            return self._restarted(name, ticket)
        mask = dict(ticket.mask)
        learned = record.trained.ticket.scores is not None  # then what it was learned over is where masks start
        rewound = record.trained.weights() if learned else self._rewound(record.trained)
        values = dict(ticket.values if name == "random_mask" else self._start.values)
        if name != "reinit":
            groups = [Group((leaf,), kept, kept) for leaf, kept in ticket.cut.kept.items()]
            everything = {layer.name: mask[layer.name] | True for layer in self.layers}
            whole = replace(ticket, mask=everything)
            mask, _ = self._cuts.at_random(whole, groups, ticket.level)
        for layer in self.layers:
            leaf = layer.name
            start = rewound[leaf] if name == "random_mask" else self._fresh(layer, ticket.level)
            frozen = ticket.values[leaf] if name == "reinit" else None
            values[leaf] = _merge(mask[leaf], start, frozen)
        return replace(self._restarted(name, ticket), mask=mask, values=values)

    def _restarted(self, name: str, ticket: Ticket) -> Ticket:
        """A control's place in the schedule and its origin, with the ticket's own mask and values."""
        if name == "untrained":
            return self.untrained(ticket)
        origin = self._origins.control(name, ticket.origin)
        if name == "random_mask":
            return replace(ticket, origin=origin)
        whole = RewindPoint(weights=0, schedule=0, steps=0 if ticket.point.steps == 0 else None)
        return replace(ticket, origin=origin, point=whole, optimizer=None)

    # How a ticket is put together

    def _groups(self, ticket: Ticket, times: int) -> list[Group]:
        return self._cuts.groups(self._cuts.kept(ticket), times)

    def _cut_origin(self, how: Cut, ticket: Ticket, times: int) -> str:
        return self._origins.cut(how, self._origins.job("train", ticket.origin, ticket.point), times)

    def _rescored_origin(self, ticket: Ticket, density: float | None, hard: bool, length: int | None) -> str:
        return self._origins.rescored(self._origins.job("train", ticket.origin, ticket.point), density, hard, length)

    def _found_origin(self, ticket: Ticket) -> str:
        return self._origins.found(self._origins.job("train", ticket.origin, ticket.point))

    def _net(self, ticket: Ticket, learned: Trained) -> Scored:
        """The network of a ticket whose mask was learned, at its final scores."""
        weights, scores = learned.weights(), learned.scores()
        edges = {
            layer.name: Edges(layer, weights[layer.name], scores[layer.name], ticket.mask[layer.name])
            for layer in self.layers
        }
        return Scored(edges, ticket.budgets, self._ask.weight)

    def _rewound(self, trained: Trained) -> Mapping[str, Tensor]:
        if self.point.weights == LATEST:
            return trained.weights()
        return self._start.values if self.point.weights == 0 else self._dense_state()[0]

    def _dense_state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        if self._dense_outcome is None:
            raise PluginError(
                f"{self._ask.who('search')} cut a ticket before it trained the dense network (lab.dense())"
            )
        assert isinstance(self.point.weights, int)
        return self._dense_outcome.state(self.point.weights)

    def _carried(self, trained: Trained, rewound: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of the next round before its leaves are filled in: all parameters rewound, buffers as asked."""
        latest = trained.weights() if self.point.buffers == "latest" else rewound
        return {name: latest[name] if name in self._start.buffers else value for name, value in rewound.items()}

    def _ticket(
        self,
        origin: str,
        parent: Ticket,
        times: int,
        mask: dict[str, Tensor],
        values: dict[str, Tensor],
        report: CutReport,
    ) -> Ticket:
        # at step 0 an optimizer has no state yet: saved and fresh are one
        saved = self._dense_state()[1] if self.point.optimizer == "saved" and self.point.weights != 0 else None
        level = parent.level + times
        return Ticket(origin, level, mask, values, self.point, saved, report, parent=parent.level)

    def _fresh(self, layer: Layer, level: int) -> Tensor:
        return self._ask.weight(layer, stream(self.seed, "reinitialise", level, layer.name))

    def _gradient_job(self, ticket: Ticket, outcome: Outcome) -> Gradient:
        return Gradient(
            model=self._spec["model"],
            data=self._spec["data"],
            fingerprint=self._fingerprint,
            objective=self._spec["objective"],
            batch=self.cell.batch,
            device=self._device,
            values=outcome.tensors(),
            mask=ticket.mask,
            origin=self._origins.job("gradient", ticket.origin, ticket.point),
        )


_SLOTS = (
    "search", "criterion", "scope", "mask1", "mask0", "rewind", "model", "initialiser", "data", "objective",
    "optimizer", "schedule", "parametrization", "scores", "mask_optimizer",
)  # fmt: skip


def _merge(mask: Tensor, alive: Tensor, dead: Tensor | None) -> Tensor:
    """float32 [s]: `alive` where `mask`, else `dead` (None: zero)."""
    import torch

    return torch.where(mask, alive.float(), torch.zeros(()) if dead is None else dead.float())
