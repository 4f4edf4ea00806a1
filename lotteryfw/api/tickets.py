"""Tickets, how they come about, and the trainings that start from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lotteryfw.api.errors import TrainingDiverged, UsageError
from lotteryfw.api.layers import LATEST, Group, Need
from lotteryfw.api.metrics import Metrics
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.outcomes import Outcome as Outcome
from lotteryfw.api.outcomes import Request as Request

if TYPE_CHECKING:
    from torch import Tensor


REMOVED_WITH = "removed_with"
"""The name of the values that weights were removed with by a mask update, among the further tensors
of a network: by layer, the last value of each weight that is masked now."""
SELECTED = "selected"
"""The name of `Trained.selected` among the further tensors of a network (`NetworkState.extra`)."""


class Derivation(ABC):
    """The origin of one ticket: its parent, its parent's training, the components of its cell."""

    digest: str
    """SHA-256 (hex) of everything that decides the ticket. Equal digests are equal tickets."""
    parent: Ticket | None = None
    """The ticket whose tensors this one's are made from, if any."""

    @abstractmethod
    def materialise(self) -> TicketState:
        """Compute the ticket's tensors.

        They depend on the derivation alone, so every call gives the same bits.
        """

    @abstractmethod
    def kept_by_budgets(self) -> Mapping[str, int]:
        """Return how many weights of each layer the scope's budgets leave, before any training.

        Raises UsageError where they leave none.
        """


@dataclass(frozen=True)
class TicketState:
    """The tensors of a ticket.

    `mask`: by layer, bool. `values`: every parameter and buffer by name, masked weights at the
    values they are frozen at. `stats`: how much is kept. `scores` and `budgets` are those of a mask
    to be learned. `restart`: how the same ticket would start with other masks, which its controls
    have; None for the dense network and for a ticket that was read from a file.
    """

    mask: Mapping[str, Tensor] = field(repr=False)
    values: Mapping[str, Tensor] = field(repr=False)
    stats: MaskStats
    scores: Mapping[str, Tensor] | None = field(default=None, repr=False)
    budgets: tuple[Group, ...] = ()
    restart: Restart | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Restart:
    """The rules that give a ticket its first values, for any masks.

    `rewound`: by layer, the values of all weights before the actions, whatever was pruned.
    `values`: given by layer a mask, the values of kept and masked weights.
    """

    rewound: Callable[[], Mapping[str, Tensor]]
    values: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class TicketSource:
    """The state of a ticket, computed when it is first looked at.

    The derivation, and with it the parent's tensors, is let go then: a chain of tickets holds one
    state at a time.
    """

    __slots__ = ("_derivation", "_kept", "_state")

    def __init__(self, derivation: Derivation):
        self._derivation: Derivation | None = derivation
        self._state: TicketState | None = None
        self._kept: Mapping[str, int] | None = None

    def state(self) -> TicketState:
        """The ticket's tensors."""
        if self._state is None:
            # The ancestors come first, the oldest of them before all: a chain of hundreds of rounds
            # would be too deep a recursion. One that was made is let go after the next.
            todo = [self]
            while (parent := todo[-1]._parent) is not None and parent._state is None:
                todo.append(parent)
            # From the oldest on: each needs the tensors of the one before.
            while todo:
                todo.pop()._materialise()
        assert self._state is not None
        return self._state

    @property
    def _parent(self) -> TicketSource | None:
        parent = None if self._derivation is None else self._derivation.parent
        return None if parent is None else parent.source

    def _materialise(self) -> None:
        assert self._derivation is not None
        # The parent is let go with the derivation, once its tensors are used.
        self._state = self._derivation.materialise()
        self._derivation = None

    def kept_by_budgets(self) -> Mapping[str, int]:
        """Return how many weights of each layer the budgets leave (see `Derivation`)."""
        # The ancestors come first, as in `state`.
        todo = [self]
        while (parent := todo[-1]._parent) is not None and parent._kept is None:
            todo.append(parent)
        while todo:
            source = todo.pop()
            if source._kept is None:
                derivation = source._derivation
                source._kept = (
                    source.state().stats.kept
                    if derivation is None
                    else derivation.kept_by_budgets()
                )
        assert self._kept is not None
        return self._kept


@dataclass(frozen=True, eq=False)
class Ticket:
    """A mask and the values that training starts from.

    `origin` says how the ticket came about, as a digest: equal origins are equal tickets. Its
    tensors are computed when they are first looked at. One that `learns_mask` has scores, and its
    mask is learned, within `budgets` and among the edges alive in `mask`, over weights that stay
    as they are; any other has its weights trained.
    """

    origin: str
    level: int
    point: RewindPoint
    source: TicketSource = field(repr=False)
    root: Trained | None = field(default=None, repr=False)
    """The training that rewinding goes back to.

    It is that of the dense network, or the first cycle of learning a mask; None for a ticket that
    begins a chain.
    """
    length: int | None = None
    """Steps of the schedule that it is trained by, where that is not the recipe's."""
    parent: int | None = None
    """The level of the ticket whose training this one was cut after.

    None where there is no such training: for a ticket that begins a chain, and for one that was cut
    before its parent was trained, in the middle of a training, or by a mask that a training found.
    """
    is_dense: bool = False
    """True for the network that nothing was removed from yet, whose weights are to be trained."""
    learns_mask: bool = False
    """True where training it learns a mask."""
    order: int = 0
    """The number of the copy: each is trained under a data order and augmentation of its own."""
    updates_mask: bool = False
    """True where the recipe's mask update changes its mask in training."""
    keeps_end: bool = False
    """True where the state that its training ends with is kept, so that another can go on."""

    @classmethod
    def derived(
        cls, derivation: Derivation, level: int, point: RewindPoint, **fields: Any
    ) -> Ticket:
        """Return the ticket that a derivation makes."""
        ticket = cls.__new__(cls)
        # The constructor of a frozen dataclass sets its fields one by one, which takes 3 µs of the
        # 11 that a plan has for a training. Fields at their defaults are those of the class.
        vars(ticket).update(
            fields, origin=derivation.digest, level=level, point=point,
            source=TicketSource(derivation),
        )  # fmt: skip
        return ticket

    @property
    def mask(self) -> Mapping[str, Tensor]:
        """By layer, bool [s]: the weights that are kept."""
        return self.source.state().mask

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer by name; masked weights at the values they are frozen at."""
        return self.source.state().values

    @property
    def cut(self) -> MaskStats:
        """The counts of kept weights; of a mask to be learned, those that its budgets ask for."""
        return self.source.state().stats

    @property
    def scores(self) -> Mapping[str, Tensor] | None:
        """By layer, float32 [s]: the first scores of a mask to learn; None where weights are trained."""
        return self.source.state().scores

    @property
    def budgets(self) -> tuple[Group, ...]:
        """The numbers of edges that a mask to be learned keeps; empty without a density."""
        return self.source.state().budgets

    @property
    def optimizer(self) -> Mapping[str, Tensor] | None:
        """The optimizer's state that training starts from; None for a fresh one.

        It was saved at the step that the ticket goes back to.
        """
        # at step 0 an optimizer has no state yet, so saved and fresh are one
        step = self.point.weights
        if self.point.optimizer == "fresh" or step == 0 or step == LATEST or self.root is None:
            return None
        return self.root.outcome.state(step)[1]


@dataclass(frozen=True)
class MaskStats:
    """The weights that a cut keeps: over all layers, and in each of them.

    `requested` is the unrounded number that the rates asked to keep; `kept` is what whole weights
    allow.
    """

    requested: float
    kept: Mapping[str, int]
    sizes: Mapping[str, int]

    @property
    def density(self) -> float:
        """Kept over all, in [0, 1]."""
        # Over all prunable weights: layers of many weights count more.
        return sum(self.kept.values()) / sum(self.sizes.values())

    @property
    def requested_density(self) -> float:
        """The density that the rates ask for, in [0, 1]."""
        return self.requested / sum(self.sizes.values())

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers of which nothing is left."""
        return tuple(name for name, kept in self.kept.items() if kept == 0)


@dataclass(frozen=True)
class RewindPoint:
    """The point that the next round starts from. Steps count from the start of the dense run.

    `weights`: whose weights it starts from: the dense run's at that step, or LATEST. `schedule`:
    the step at which the learning-rate schedule (and the data order) resumes. `steps`: how long
    the round is; None: to the end of the schedule. `optimizer`: "fresh", or "saved" to restore its
    state of that step. `buffers`: "rewound" with the weights, or "latest" (batch-norm statistics).
    """

    weights: int | Literal["latest"]
    schedule: int
    steps: int | None = None
    optimizer: Literal["fresh", "saved"] = "fresh"
    buffers: Literal["rewound", "latest"] = "rewound"


@dataclass(frozen=True)
class Trained:
    """A training that ended: the ticket it started from, its figures, and its weights on demand.

    That of `lab.probe` made no step: its weights are those of the ticket, and it has no figures.
    """

    ticket: Ticket
    outcome: Outcome = field(repr=False)
    probes: Mapping[Need, Outcome] = field(default_factory=dict, repr=False)
    """What the cell's criterion needs of the trained network, computed by the engine."""
    origin: str = ""
    """The digest of how its job comes about; empty where nobody noted it."""
    states: frozenset[int] = frozenset()
    """The steps whose networks were asked for: see `state`."""

    @classmethod
    def of_job(
        cls, ticket: Ticket, outcome: Outcome, origin: str, states: frozenset[int] = frozenset()
    ) -> Trained:
        """Return the training of a ticket as the job with this origin made it."""
        trained = cls.__new__(cls)
        # As in `Ticket.derived`: the constructor takes twice as long, for each training of a plan.
        vars(trained).update(
            ticket=ticket, outcome=outcome, probes={}, origin=origin, states=states
        )
        return trained

    @property
    def metrics(self) -> Metrics:
        """The figures of the training."""
        return self.outcome.metrics

    @property
    def diverged_at(self) -> int | None:
        """The step at which its loss was no finite number any more; None for one that went well."""
        return self.outcome.diverged_at

    @property
    def gradient(self) -> Mapping[str, Tensor] | None:
        """By layer, float32 [s]: the gradient of the mean training loss at the end.

        None where the criterion does not need it.
        """
        return self._probed(Need.GRADIENT)

    @property
    def network_scores(self) -> Mapping[str, Tensor] | None:
        """By layer, floating point [s]: what a `NetworkCriterion` gave the trained network.

        None where the cell's criterion is none.
        """
        return self._probed(Need.PROBE)

    def weights(self) -> Mapping[str, Tensor]:
        """Return every parameter and buffer after training (w_f).

        Raises TrainingDiverged where there are none.
        """
        return self._network().values

    def state(self, step: int) -> Mapping[str, Tensor]:
        """Return every parameter and buffer after a step of the schedule.

        Raises UsageError for a step that `lab.train(ticket, states=…)` did not name, and
        TrainingDiverged.
        """
        if step not in self.states:
            named = ", ".join(map(str, sorted(self.states))) or "none"
            raise UsageError(
                f"Trained.state({step}): of this training these steps are kept: {named}; name it "
                "in lab.train(ticket, states=…)"
            )
        self._require_finite()
        return self.outcome.state(step)[0].values

    def masks(self) -> Mapping[str, Tensor]:
        """Return by layer, bool: the weights alive after training. Raises TrainingDiverged."""
        # The mask of a training that diverged is known, and means nothing without weights.
        self._require_finite()
        return self.outcome.mask()

    def scores(self) -> Mapping[str, Tensor]:
        """Return by layer, float32: the scores at the end of learning a mask.

        Raises TrainingDiverged where there are none.
        """
        return self._network().scores

    def selected(self) -> Mapping[str, Tensor]:
        """Return by layer, bool: the edges that some step of learning a mask selected.

        Raises TrainingDiverged where there are none.
        """
        # Only trainings that learn masks count which edges were selected.
        return self._network().extra.get(SELECTED, {})

    def _probed(self, need: Need) -> Mapping[str, Tensor] | None:
        # Only what the criterion and the search need is computed, and stored, for each network.
        outcome = self.probes.get(need)
        return None if outcome is None else outcome.tensors().values

    def _network(self) -> NetworkState:
        self._require_finite()
        return self.outcome.tensors()

    def _require_finite(self) -> None:
        if self.diverged_at is not None:
            raise TrainingDiverged(self.diverged_at)
