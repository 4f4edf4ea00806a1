"""The front desk that a search talks to: turns its calls into jobs, and applies criterion, scope, rewind and actions.

Everything a cell decides at random is drawn here, from streams named by seed, purpose, level and leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.asking import Asking
from lotteryfw.cell import CONTROLS, Cell
from lotteryfw.component import Component
from lotteryfw.errors import ContractError, PluginError, TrainingDiverged, UsageError, nearest
from lotteryfw.jobs import Gradient, Spec, Train
from lotteryfw.kinds import Group, Search
from lotteryfw.origins import Cut, Origins
from lotteryfw.rng import stream
from lotteryfw.select import cut
from lotteryfw.start import Start, start_of
from lotteryfw.steps import Clock
from lotteryfw.views import LATEST, CutReport, Layer, Leaf, Need, Outcome, RewindPoint, Ticket, Trained

if TYPE_CHECKING:
    from torch import Tensor

ChooseKernel = Callable[[Train, str], str]
"""Names the kernel, with its revision, that trains a job, given what the recipe asks for; the engine knows."""


def _reference(job: Train, asked: str) -> str:
    return "reference/1"


Describe = Callable[[Component, Clock], Spec]
"""Names a component as jobs do; the registry knows how, for it knows who provides it."""


@dataclass(frozen=True)
class Record:
    """A level that a search recorded."""

    level: int
    ticket: Ticket
    trained: Trained


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
        self._spec = {name: describe(getattr(cell, name), cell.clock) for name in _SLOTS}
        self._augment = tuple(describe(component, cell.clock) for component in cell.augment)
        self._fingerprint = cell.data.fingerprint(data_folder)
        self._origins = Origins(cell, self._spec, self._augment, self._fingerprint, device)
        self._device = device
        self._choose_kernel = choose_kernel
        self._dense_outcome: Outcome | None = None
        self._ask = Asking(cell, self._spec)
        self._start = self._begin(data_folder)
        self.layers = self._start.layers

    def _begin(self, data_folder: Path) -> Start:
        return start_of(self._ask, self.cell.data.facts(data_folder), self.seed)

    # What searches call

    def dense(self) -> Ticket:
        """The whole network at its initialisation."""
        import torch

        mask = {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in self.layers}
        point = RewindPoint(weights=0, schedule=0)
        return Ticket(self._origins.dense(), 0, mask, self._start.values, point)

    def train(self, ticket: Ticket) -> Search[Trained]:
        """Asks for the training of one ticket: `trained = yield from lab.train(ticket)`.

        One that diverges is recorded at the ticket's level, and raises TrainingDiverged.
        """
        (trained,) = yield from self.train_all([ticket])
        if trained.diverged_at is not None:
            self.record(ticket.level, ticket, trained)
            raise TrainingDiverged(trained.diverged_at)
        return trained

    def train_all(self, tickets: Sequence[Ticket]) -> Search[list[Trained]]:
        """Asks for several trainings at once, to run side by side. Some may have diverged: see `Trained`."""
        if not tickets:
            return []
        outcomes = yield tuple(self.job(ticket) for ticket in tickets)
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if ticket.is_dense:
                self._dense_outcome = outcome
        if Need.GRADIENT not in self.cell.criterion.needs:
            return [Trained(*pair) for pair in zip(tickets, outcomes, strict=True)]
        well = [pair for pair in zip(tickets, outcomes, strict=True) if pair[1].diverged_at is None]
        slopes = iter((yield tuple(self._gradient_job(*pair) for pair in well)) if well else ())
        return [
            Trained(ticket, outcome, next(slopes).tensors() if outcome.diverged_at is None else None)
            for ticket, outcome in zip(tickets, outcomes, strict=True)
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
        mask, report = self._cut(ticket, scores, self._groups(self._kept(ticket), times), level)
        values = self._carried(trained, rewound)
        for layer in self.layers:
            name = layer.name
            alive = self._ask.leaf("mask1", "alive", leaf(layer, mask[name], "mask1"))
            frozen = leaf(layer, mask[name], "mask0")
            dead = self._ask.leaf("mask0", "dead", frozen)
            if self.cell.mask0.changes_kept:
                alive = self._ask.leaf("mask0", "kept", frozen, alive)
            values[name] = _merge(mask[name], alive, dead)
        return self._ticket(self._cut_origin("next", ticket, times), level, mask, values, report)

    def random(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        """A ticket with a uniformly random mask within the scope's budgets, over the rewound weights."""
        level = ticket.level + times
        mask, report = self._random_cut(ticket, self._groups(self._kept(ticket), times), level)
        rewound = self._rewound(trained)
        values = self._carried(trained, rewound)
        for layer in self.layers:
            values[layer.name] = _merge(mask[layer.name], rewound[layer.name], None)
        return self._ticket(self._cut_origin("random", ticket, times), level, mask, values, report)

    def record(self, level: int, ticket: Ticket, trained: Trained) -> None:
        """Puts a level on record: its figures appear in the results, its controls are trained, its ticket is kept."""
        for value, kind in ((level, int), (ticket, Ticket), (trained, Trained)):
            if not isinstance(value, kind):
                what = f"{type(value).__name__} where {kind.__name__} belongs"
                raise ContractError(
                    f"{self._ask.who('search')} called lab.record(level, ticket, trained) with a {what}"
                )
        self.records.append(Record(level, ticket, trained))

    # What the runner calls

    def job(self, ticket: Ticket) -> Train:
        """The training of a ticket, as a job."""
        job = Train(
            model=self._spec["model"],
            data=self._spec["data"],
            fingerprint=self._fingerprint,
            optimizer=self._spec["optimizer"],
            schedule=self._spec["schedule"],
            augment=self._augment,
            batch=self.cell.batch,
            total=self.clock.total,
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
        return replace(job, kernel=self._choose_kernel(job, self.cell.kernel))

    def _steps(self, ticket: Ticket) -> int:
        point = ticket.point
        return self.clock.total - point.schedule if point.steps is None else point.steps

    def _snapshots(self, ticket: Ticket) -> frozenset[int]:
        """The states of the dense training that later rounds start from."""
        wanted = self.point.weights
        keep = ticket.is_dense and isinstance(wanted, int) and wanted > 0
        return frozenset({int(wanted)}) if keep else frozenset()

    def report(self, ticket: Ticket) -> CutReport:
        """How much of the network a ticket keeps; all of it before the first cut."""
        if ticket.cut is not None:
            return ticket.cut
        sizes = {layer.name: layer.size for layer in self.layers}
        return CutReport(sum(sizes.values()), sizes, sizes)

    def control(self, name: str, record: Record) -> Ticket:
        """The control of a recorded level by its name in `CONTROLS`, of the same density in every layer.

        A re-initialised network starts from the beginning of the schedule, the others where the ticket does.
        """
        ticket = record.ticket
        if name not in CONTROLS:
            raise UsageError(f"no control is called '{name}' ({nearest(name, CONTROLS)})")
        if ticket.cut is None:  # of the dense network every control is itself
            return ticket
        mask = dict(ticket.mask)
        rewound = self._rewound(record.trained)
        values = dict(ticket.values if name == "random_mask" else self._start.values)
        if name != "reinit":
            groups = [Group((leaf,), kept, kept) for leaf, kept in ticket.cut.kept.items()]
            everything = {layer.name: mask[layer.name] | True for layer in self.layers}
            whole = replace(ticket, mask=everything)
            mask, _ = self._random_cut(whole, groups, ticket.level)
        for layer in self.layers:
            leaf = layer.name
            start = rewound[leaf] if name == "random_mask" else self._fresh(layer, ticket.level)
            frozen = ticket.values[leaf] if name == "reinit" else None
            values[leaf] = _merge(mask[leaf], start, frozen)
        return replace(self._restarted(name, ticket), mask=mask, values=values)

    def _restarted(self, name: str, ticket: Ticket) -> Ticket:
        """A control's place in the schedule and its origin, with the ticket's own mask and values."""
        origin = self._origins.control(name, ticket.origin)
        if name == "random_mask":
            return replace(ticket, origin=origin)
        return replace(ticket, origin=origin, point=RewindPoint(weights=0, schedule=0), optimizer=None)

    # How a ticket is put together

    def _kept(self, ticket: Ticket) -> Mapping[str, int]:
        return ticket.cut.kept if ticket.cut else {layer.name: layer.size for layer in self.layers}

    def _cut_origin(self, how: Cut, ticket: Ticket, times: int) -> str:
        return self._origins.cut(how, self._origins.job("train", ticket.origin, ticket.point), times)

    def _groups(self, kept: Mapping[str, int], times: int) -> list[Group]:
        groups: list[Group] = self._ask.component("scope", "groups", self.layers, kept, times)
        seen: set[str] = set()
        for group in groups:
            if not isinstance(group, Group):
                raise ContractError(f"{self._ask.who('scope')}: groups() gave a {type(group).__name__}, not a Group")
            here = set(group.leaves)
            strange, twice = here - kept.keys(), here & seen
            alive = sum(kept.get(name, 0) for name in here)
            if strange or twice or not 0 <= group.keep <= alive:
                what = (
                    f"names no layer of the network: {', '.join(sorted(strange))}" if strange
                    else f"has {', '.join(sorted(twice))} in two groups" if twice
                    else f"keeps {group.keep} of {alive} living weights in {', '.join(sorted(here))}"
                )  # fmt: skip
                raise ContractError(f"{self._ask.who('scope')}: groups() {what}")
            seen |= here
        return groups

    def _cut(
        self, ticket: Ticket, scores: Mapping[str, Tensor], groups: Sequence[Group], level: int
    ) -> tuple[dict[str, Tensor], CutReport]:
        try:
            mask = cut(scores, ticket.mask, groups, lambda: stream(self.seed, "ties", level))
        except ContractError as error:
            raise ContractError(f"{self._ask.who('criterion')}: {error} at level {level}") from None
        kept = {name: int(part.sum()) for name, part in mask.items()}
        grouped = {name for group in groups for name in group.leaves}
        left_alone = sum(count for name, count in kept.items() if name not in grouped)
        requested = sum(group.requested for group in groups) + left_alone
        return mask, CutReport(requested, kept, {layer.name: layer.size for layer in self.layers})

    def _random_cut(self, ticket: Ticket, groups: Sequence[Group], level: int) -> tuple[dict[str, Tensor], CutReport]:
        import torch

        scores = {
            layer.name: torch.rand(layer.shape, generator=stream(self.seed, "random_mask", level, layer.name))
            for layer in self.layers
        }
        return self._cut(ticket, scores, groups, level)

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
        self, origin: str, level: int, mask: dict[str, Tensor], values: dict[str, Tensor], report: CutReport
    ) -> Ticket:
        # at step 0 an optimizer has no state yet: saved and fresh are one
        saved = self._dense_state()[1] if self.point.optimizer == "saved" and self.point.weights != 0 else None
        return Ticket(origin, level, mask, values, self.point, saved, report)

    def _fresh(self, layer: Layer, level: int) -> Tensor:
        return self._ask.draw("weight", layer, layer.shape, stream(self.seed, "reinitialise", level, layer.name))

    def _gradient_job(self, ticket: Ticket, outcome: Outcome) -> Gradient:
        return Gradient(
            model=self._spec["model"],
            data=self._spec["data"],
            fingerprint=self._fingerprint,
            batch=self.cell.batch,
            device=self._device,
            values=outcome.tensors(),
            mask=ticket.mask,
            origin=self._origins.job("gradient", ticket.origin, ticket.point),
        )


_SLOTS = (
    "search", "criterion", "scope", "mask1", "mask0", "rewind", "model", "initialiser", "data", "optimizer", "schedule"
)  # fmt: skip


def _merge(mask: Tensor, alive: Tensor, dead: Tensor | None) -> Tensor:
    """float32 [s]: `alive` where `mask`, else `dead` (None: zero)."""
    import torch

    return torch.where(mask, alive.float(), torch.zeros(()) if dead is None else dead.float())
