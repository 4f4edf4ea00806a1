"""The lab of one cell: what its search asks for tickets and trainings, and where it records levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lotteryfw.api.errors import ContractError, TrainingDiverged, UsageError
from lotteryfw.api.kinds import Control, Search
from lotteryfw.api.layers import LayerInfo, Need
from lotteryfw.api.tickets import RewindPoint, Ticket, Trained
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe, SearchContext
from lotteryfw.search.derivations import (
    Controlled,
    Dense,
    Extracted,
    MaskScores,
    NextCycle,
    Pruned,
    RandomMask,
    next_cycle_point,
)
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Job
from lotteryfw.search.requests import ChooseKernel, JobFactory, JobRequest, no_kernel

_WHOLE_SCHEDULE = RewindPoint(weights=0, schedule=0)


class Record(NamedTuple):
    """A level that a search recorded."""

    level: int
    ticket: Ticket
    trained: Trained
    variant: str = "ticket"


class Lab:
    """One cell's lab. A search asks it for tickets and trainings, and records levels with it.

    `clock` reads lengths, `seed` is the cell's. `snapshots` names, by the origin of a training, further steps whose
    state other cells will want. `engine` is the state of the code that chooses kernels (see `SearchContext`).
    """

    def __init__(
        self,
        cell: Cell,
        describe_component: Describe,
        data_folder: Path,
        device: str,
        choose_kernel: ChooseKernel = no_kernel,
        snapshots: Mapping[str, frozenset[int]] | None = None,
        engine: str = "",
    ):
        self.cell, self.clock, self.seed = cell, cell.clock, cell.seed
        self.context = SearchContext(cell, describe_component, data_folder, device, engine)
        self.records: list[Record] = []
        self._describe_component = describe_component
        self._jobs = JobFactory(self.context, choose_kernel, snapshots)
        self._needs_gradient = Need.GRADIENT in cell.criterion.needs

    # What searches call

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The prunable layers in order, the output layer last."""
        return self.context.layers

    def dense(self) -> Ticket:
        """The whole network at its initialisation."""
        return Ticket.derived(Dense(self.context), 0, _WHOLE_SCHEDULE, is_dense=True)

    def train(self, ticket: Ticket, variant: str = "ticket") -> Search[Trained]:
        """Ask for the training of one ticket: `trained = yield from lab.train(ticket)`.

        One that diverges is recorded under `variant` at the ticket's level, or at the one that it was to find a mask for,
        and raises TrainingDiverged.
        """
        if self._needs_gradient:
            (trained,) = yield from self.train_all([ticket])
        else:
            (outcome,) = yield (self._jobs.training(ticket),)
            trained = Trained(ticket, outcome)
        if trained.diverged_at is not None:
            self.record(
                ticket.level + 1 if ticket.learns_mask else ticket.level, ticket, trained, variant
            )
            raise TrainingDiverged(trained.diverged_at, ticket.learns_mask)
        return trained

    def train_all(self, tickets: Sequence[Ticket]) -> Search[list[Trained]]:
        """Ask for several trainings at once, to run side by side. Some may have diverged: see `Trained`."""
        if not tickets:
            return []
        outcomes = yield tuple(self._jobs.training(ticket) for ticket in tickets)
        trained = [
            Trained(ticket, outcome) for ticket, outcome in zip(tickets, outcomes, strict=True)
        ]
        if not self._needs_gradient:
            return trained
        finite = [one for one in trained if one.diverged_at is None]
        if not finite:
            return trained
        gradients = iter(
            (yield tuple(self._jobs.gradient(one.ticket, one.outcome) for one in finite))
        )
        return [
            replace(one, gradient_outcome=next(gradients)) if one.diverged_at is None else one
            for one in trained
        ]

    def prune(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        """The ticket of the next round: criterion and scope prune `ticket`, then rewind, mask-1 and mask-0 fill it.

        `times` rounds in a row are made as one, down to the weights that as many rounds would leave.
        """
        root = ticket.root or trained
        derivation = Pruned(self.context, ticket, trained, root, times)
        return Ticket.derived(
            derivation, ticket.level + times, self.context.point, root=root, parent=ticket.level
        )

    def prune_randomly(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        """A ticket with a uniformly random mask within the scope's budgets, over the rewound weights."""
        root = ticket.root or trained
        derivation = RandomMask(self.context, ticket, trained, root, times)
        return Ticket.derived(
            derivation, ticket.level + times, self.context.point, root=root, parent=ticket.level
        )

    def as_is(self, ticket: Ticket) -> Ticket:
        """The same ticket, to be measured as it is: `lab.train` then takes no step."""
        return replace(ticket, point=replace(ticket.point, steps=0))

    def learn_mask(self, density: float | None = None, length: int | None = None) -> Ticket:
        """The whole network at what the mask-1 action makes of its initialisation, with fresh scores: training it
        learns a mask. `density` in (0, 1] is what a parametrization keeps that has to be told; `length` is how many
        steps the schedule has, if not as many as the recipe's.
        """
        if self.cell.parametrization is None:
            who = describe(self.context.specs["search"])
            raise ContractError(f"{who} learns masks (lab.learn_mask) and has no parametrization")
        self._check_density(density)
        derivation = MaskScores(self.context, density, length)
        return Ticket.derived(derivation, 0, _WHOLE_SCHEDULE, length=length, learns_mask=True)

    def continue_mask(
        self,
        ticket: Ticket,
        learned: Trained,
        density: float | None,
        *,
        hard: bool,
        length: int | None = None,
    ) -> Ticket:
        """The next cycle of learning a mask, at another density. `hard` removes what the last one left out for good;
        otherwise every edge may come back. `length` is how many steps its schedule has, if not as many as the last's.

        The rewind policy says where scores and schedule go on: at LATEST scores stay as learned, at step k they return
        to that step of the first cycle.
        """
        self._check_density(density)
        length = ticket.length if length is None else length
        root = ticket.root or learned
        derivation = NextCycle(self.context, ticket, learned, root, density, hard, length)
        point = next_cycle_point(self.context, root, length)
        return Ticket.derived(
            derivation, ticket.level + 1, point, root=root, length=length, learns_mask=True
        )

    def extract_ticket(self, ticket: Ticket, learned: Trained) -> Ticket:
        """The ticket that a learned mask makes of the one it was learned over: to be trained from the beginning of the
        schedule, or `untrained`. Its weights are those that the network computed with under that mask. Its report has
        the expected number of edges beside those of the mask."""
        derivation = Extracted(self.context, ticket, learned)
        return Ticket.derived(derivation, ticket.level + 1, _WHOLE_SCHEDULE)

    def record(self, level: int, ticket: Ticket, trained: Trained, variant: str = "ticket") -> None:
        """Put a level on record: its figures appear in the results, its ticket is kept, and, of the variant "ticket", its
        controls are trained. Other variants are what a search has to compare with its tickets, under names in its `variants`.
        """
        if not (
            isinstance(level, int) and isinstance(ticket, Ticket) and isinstance(trained, Trained)
        ):
            types = ", ".join(type(value).__name__ for value in (level, ticket, trained))
            raise ContractError(
                f"{describe(self.context.specs['search'])} called lab.record(level, ticket, trained) with {types}; "
                "an int, a Ticket and a Trained belong there"
            )
        self.records.append(Record(level, ticket, trained, variant))

    def _check_density(self, density: float | None) -> None:
        """Raise UsageError if the parametrization needs a density and has none, or cannot use it."""
        parametrization, search = self.cell.parametrization, self.cell.search
        if parametrization is None:
            return
        if parametrization.needs_density is True and density is None:
            raise UsageError(
                f"parametrization: '{parametrization.use}' needs a density, and the search "
                f"'{search.use}' asks for none"
            )
        if parametrization.needs_density is False and density is not None:
            raise UsageError(
                f"parametrization: '{parametrization.use}' cannot keep to a density, and the search "
                f"'{search.use}' asks for one"
            )

    # What the runner calls

    def request(self, ticket: Ticket) -> JobRequest:
        """The training of a ticket, as a search would ask for it."""
        return self._jobs.training(ticket)

    def job(self, ticket: Ticket) -> Job:
        """The training of a ticket, with its tensors."""
        return self.request(ticket).job

    def control(self, control: Control, record: Record) -> Ticket:
        """A control of a recorded level, of the same density in every layer.

        It starts where the ticket does, or at the beginning of the schedule if the control restarts.
        """
        ticket = record.ticket
        if ticket.is_dense or ticket.learns_mask:
            return ticket  # nothing was pruned: every control is the network itself
        spec = self._describe_component(control, self.clock)
        derivation = Controlled(self.context, control, spec, ticket, record.trained)
        point = ticket.point
        if control.restarts:
            # Beside a ticket that is only measured, a control is only measured, too.
            point = replace(_WHOLE_SCHEDULE, steps=0 if ticket.point.steps == 0 else None)
        if not control.trains:
            point = replace(point, steps=0)
        derived = Ticket.derived(derivation, ticket.level, point)
        return replace(derived, root=ticket.root, parent=ticket.parent)
