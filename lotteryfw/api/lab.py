"""The lab: the interface that a search or an analysis asks for tickets and trainings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from lotteryfw.api.component import Component
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.metrics import Evaluation
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import Outcome, Request, RewindPoint, Ticket, Trained
from lotteryfw.api.training_kinds import DataSource, Metric

if TYPE_CHECKING:
    from torch import Tensor

# What a search returns: nothing, or what a part of it has found.
T = TypeVar("T")
Search = Generator[Sequence[Request], Sequence[Outcome], T]
"""The type of a search: a generator that yields jobs, several at a time if it can, and is sent
their outcomes."""


class Lab(Protocol):
    """The lab of one cell. A search asks it for tickets and trainings, and records levels with it.

    Every method that trains is a generator: write `trained = yield from lab.train(ticket)`. All
    other methods return at once, since the tensors of a ticket are computed when they are first
    looked at.
    """

    @property
    def clock(self) -> Clock:
        """The clock that turns written lengths into steps of the recipe's training."""
        ...

    @property
    def seed(self) -> int:
        """The cell's seed."""
        ...

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The prunable layers in order, the output layer last."""
        ...

    # Tickets

    def dense(self) -> Ticket:
        """Return the whole network at its initialisation."""
        ...

    def load(self, path: Path | str) -> Ticket:
        """Return the network in a file: the ticket of any run, or a plain state dict.

        It takes the place of `lab.dense()`: training it is the dense run of its chain, and rewinding
        to step 0 goes back to the file's values. What a ticket's mask removed stays removed. The
        path is absolute, or relative to the working directory; the file's content is in the origin.

        Raises UsageError where the file cannot be read and, before anything is trained, where it
        lacks a parameter of the network or has one of another shape, or a number that is not finite.
        """
        ...

    def prune(
        self,
        ticket: Ticket,
        trained: Trained,
        times: int = 1,
        *,
        density: float | None = None,
        scores: Mapping[str, Tensor] | None = None,
        criterion: Component | None = None,
    ) -> Ticket:
        """Return the ticket of the next round.

        Criterion and scope prune `ticket` after its training `trained`; rewinding, mask-1 and
        mask-0 give the values. `times` rounds in a row are made as one, down to the weights that
        as many rounds would leave.

        With `density` in (0, 1] the scope's budgets are those of that density of the whole network,
        whatever its rates; `times` then only counts levels. `scores` [s] by layer, computed
        elsewhere, take the place of the criterion's, and so does a `criterion` that is an option of
        the search: a search may have two. Raises UsageError for a density above what is
        left, when budgets are counted.
        """
        ...

    def prune_randomly(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        """Return a ticket with a uniformly random mask, over the rewound weights.

        The mask keeps as many weights as the scope's budgets allow; masked weights are 0.
        """
        ...

    def as_is(self, ticket: Ticket) -> Ticket:
        """Return the same ticket, to be measured as it is: `lab.train` then takes no step.

        Statistics of batch normalisation are computed anew for it, over 100 training batches or an
        epoch where that is less, unless it learns its mask.
        """
        ...

    def learn_mask(self, density: float | None = None, length: int | None = None) -> Ticket:
        """Return the whole network with fresh scores: training it learns a mask.

        Its weights are those that the mask-1 action makes of the initialisation. `density` in
        (0, 1] is for a parametrization that keeps a number of edges. `length` is the number of
        steps of the schedule, if it is not the recipe's. Raises UsageError where the
        parametrization needs a density and gets none, or cannot use one.
        """
        ...

    def continue_mask(
        self,
        ticket: Ticket,
        learned: Trained,
        density: float | None,
        *,
        hard: bool,
        length: int | None = None,
    ) -> Ticket:
        """Return the next cycle of learning a mask, at another density.

        `hard` removes for good what the cycle `learned` did not select; otherwise every edge may
        come back. `length` is the number of steps of its schedule, if it is not the last cycle's.
        The rewind policy says where scores and schedule go on: at LATEST scores stay as learned,
        at step k they return to that step of the first cycle.
        """
        ...

    def update_mask(self, density: float = 1.0) -> Ticket:
        """Return the network at its initialisation, to be trained with the recipe's mask update.

        The mask begins whole or, below a `density` of 1, at random within the scope's budgets of
        that density; masked weights are 0.
        """
        ...

    def extract_ticket(self, ticket: Ticket, trained: Trained, *, rewound: bool = False) -> Ticket:
        """Return the ticket of the mask that a training ended with.

        A learned mask keeps the weights that the network computed with under it, and training the
        ticket begins at the start of the schedule. Its report has the expected number of edges
        beside those of the mask. A learned mask that is `rewound`, and any mask that a mask update
        ended with, is filled as after a cut: rewinding, mask-1 and mask-0 give the values.
        """
        ...

    def ticket(
        self,
        base: Ticket,
        *,
        values: Mapping[str, Tensor] | None = None,
        mask: Mapping[str, Tensor] | None = None,
        frozen: Mapping[str, Tensor] | None = None,
        scores: Mapping[str, Tensor] | None = None,
        point: RewindPoint | None = None,
        label: str = "",
    ) -> Ticket:
        """Return a ticket of your own: `base`, with what you give in the place of its own.

        `values` are by the names of parameters and buffers; `mask` (bool, True where a weight is
        kept), `frozen` and `scores` are by layer; what is not given is as in `base`. A weight that
        the mask removes is frozen at 0, or at its value in `frozen`; one that `base` had removed
        stays at what it was frozen at. `scores` are for a `base` whose mask is to be learned.
        `point` says where training starts (that of `base`, with a fresh optimizer). `label` names
        the ticket in messages.

        A ticket with a `mask` of its own is of the level after that of `base`. Its origin is made
        of the content of the tensors, so equal ones share their trainings, and its report counts
        what the mask keeps. Raises ContractError for an unknown name, another shape or dtype, a
        number that is not finite, or a mask that keeps nothing.
        """
        ...

    def at(self, ticket: Ticket, values: Mapping[str, Tensor]) -> Ticket:
        """Return the same network at other weights, by the names of its parameters and buffers.

        The same as `lab.ticket(ticket, values=values)`: masked weights stay at the values that the
        ticket froze them at, and what is not given at the ticket's own. Raises ContractError.
        """
        ...

    def interpolate(self, first: Trained, second: Trained, alpha: float) -> Ticket:
        """Return the network between the ends of two trainings: (1 - alpha) first + alpha second.

        At 0 and 1 it has exactly their weights. What either of them keeps is kept. Raises
        UsageError for an `alpha` outside [0, 1].
        """
        ...

    def again(self, ticket: Ticket, order: int) -> Ticket:
        """Return the same ticket, to be trained under another data order, augmentation and dropout.

        Every number is another copy; 0 is the training itself. Raises UsageError for any other
        value.
        """
        ...

    def is_training_of(self, ticket: Ticket, trained: Trained) -> bool:
        """Return whether a training is the ticket's own, from its first step to its last.

        A search may record a ticket with another one: the training that found its mask, or a part
        of its own. It is known before anything is trained.
        """
        ...

    # Trainings

    def train(
        self,
        ticket: Ticket,
        variant: str = "ticket",
        *,
        probe: bool = True,
        states: Collection[int] = (),
    ) -> Search[Trained]:
        """Ask for the training of one ticket: `trained = yield from lab.train(ticket)`.

        The trained network is then probed where the cell's criterion needs that; `probe=False`
        saves the probe of a network that is not pruned any more. The networks after the steps of
        the schedule in `states` are kept, for `trained.state(step)`; a step that the training does
        not pass raises UsageError.

        A training that diverges is recorded under `variant` at the ticket's level, or at the level
        that it was to find a mask for, and raises TrainingDiverged.
        """
        ...

    def stop_when(
        self,
        ticket: Ticket,
        condition: Callable[[Sequence[Trained]], bool],
        every: str | int = "1ep",
    ) -> Search[Trained]:
        """Ask for the training of a ticket that ends when a condition holds.

        The training is made in segments of the length `every`, each of them a job that goes on
        where the last one ended, with its optimizer's state and the next batches. After each the
        `condition` gets all of them so far; True ends the training. What is returned is the last
        segment, whose figures are those of the network now; the ticket can be pruned after any of
        them. Trainings that differ in their conditions alone share the segments that both make.

        Raises UsageError for a ticket that learns or changes its mask, or is only measured, and
        for a rewind policy that goes back to a step between the start and the end.
        """
        ...

    def train_all(
        self, tickets: Sequence[Ticket], *, probe: bool = True, states: Collection[int] = ()
    ) -> Search[list[Trained]]:
        """Ask for several trainings at once, to run side by side.

        Some may have diverged: see `Trained.diverged_at`. `probe` and `states` are as in `train`.
        """
        ...

    def probe(self, network: Ticket | Trained) -> Search[Trained]:
        """Ask for what is needed of a network as it is: nothing is trained or evaluated.

        Needed is what the criterion, the search and the analyses name in their `needs`. For a
        ticket, what is returned stands in for a training of no steps, so that `lab.prune` can prune
        the ticket: its weights are those that the ticket starts from, and it has no figures. For a
        training it is the same training with its probes, such as `trained.gradient`. Nothing runs
        where neither gradients nor a probe are needed.
        """
        ...

    def probe_all(self, networks: Sequence[Ticket | Trained]) -> Search[list[Trained]]:
        """Ask for `probe` of several networks at once, to run side by side."""
        ...

    # Evaluations

    def evaluate(
        self,
        network: Ticket | Trained,
        part: str = "test",
        metrics: Sequence[Metric] = (),
        recalibrate_batch_norm: int | None = None,
        data: DataSource | None = None,
    ) -> Search[Evaluation]:
        """Ask for the figures of a network as it is: `figures = yield from lab.evaluate(ticket)`.

        It is measured over the `part` "train", "validation" or "test" of the recipe's data, at the
        values of a ticket or at the end of a training. `recalibrate_batch_norm` is the number of
        training batches, augmented as in the training, that the statistics of batch normalisation
        are computed anew over; 0 leaves them. None: 100, or an epoch where that is less, for a
        ticket, whose statistics are not those of its values, and 0 after a training.

        `data` is another data set to measure it over, with inputs and classes of the same sizes:
        an option of the search or analysis. Statistics cannot be recalibrated there. Raises
        UsageError.
        """
        ...

    def evaluate_all(
        self,
        networks: Sequence[Ticket | Trained],
        part: str = "test",
        metrics: Sequence[Metric] = (),
        recalibrate_batch_norm: int | None = None,
        data: DataSource | None = None,
    ) -> Search[list[Evaluation]]:
        """Ask for the figures of several networks at once, as `evaluate` does."""
        ...

    # Results

    def record(self, level: int, ticket: Ticket, trained: Trained, variant: str = "ticket") -> None:
        """Put a level on record: its figures appear in the results and its ticket is kept.

        The controls of the variant "ticket" are trained. Other variants are networks that a search
        compares with its tickets, under the names in its `variants`.
        """
        ...
