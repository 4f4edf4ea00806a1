"""What authors are shown: read-only views of layers, leaves, tickets and trainings.

Author code sees one network, dense, float32, on its own. How many of them run, where, and from which cache is not its
business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lotteryfw.errors import TrainingDiverged

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Need(Enum):
    """What a criterion asks for beyond the weights before and after training."""

    GRADIENT = "gradient"
    """`leaf.gradient`: the gradient of the mean training loss at w_f, over the whole training set."""


LATEST: Literal["latest"] = "latest"
"""The weights the round just trained ended with: nothing is rewound."""


SCORES = "scores/"
"""What the scores of a leaf are called among a job's tensors: no parameter's path has a slash."""
SELECTED = "selected/"
"""The same for which of its edges a mask of the training ever had."""


@dataclass(frozen=True)
class Layer:
    """The shape of one prunable tensor: `name` is its parameter's path, such as "fc1.weight"."""

    name: str
    shape: tuple[int, ...]
    is_output: bool = False

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Inputs read by one unit: `shape[1]` times the kernel's area."""
        return prod(self.shape[1:])

    @property
    def fan_out(self) -> int:
        """Outputs fed by one unit: `shape[0]` times the kernel's area."""
        return self.shape[0] * prod(self.shape[2:])


@dataclass(frozen=True)
class Leaf:
    """One prunable tensor of one network, as a criterion or an action sees it. Every tensor has shape `layer.shape`.

    A criterion reads it before the cut, an action after it. With rewinding to step 0 and the mask-1 action `rewind`,
    `original`, `init` and `rewound` agree on every weight that is alive.
    """

    layer: Layer
    original: Tensor
    """float32: the dense network at step 0."""
    init: Tensor
    """float32: what the round just trained started from, the papers' w_i."""
    final: Tensor
    """float32: what it ended with, the papers' w_f."""
    rewound: Tensor
    """float32: where the rewind policy points, on the dense run's trajectory (`final` where it points at LATEST)."""
    mask: Tensor
    """bool, True = alive: before the cut for a criterion, after it for an action."""
    mask_before: Tensor
    """bool, True = alive: before the cut, always."""
    rng: torch.Generator
    """A stream of this leaf, level and purpose alone."""
    _resample: Callable[[], Tensor] = field(repr=False)
    _gradient: Tensor | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The parameter's path in its network."""
        return self.layer.name

    @property
    def cut(self) -> Tensor:
        """bool: what this level's cut removed (all False for a criterion, which reads the leaf before it)."""
        return self.mask_before & ~self.mask

    @property
    def gradient(self) -> Tensor:
        """float32: gradient of the mean training loss at `final`. Raises AttributeError unless `needs` names it."""
        if self._gradient is None:
            raise AttributeError("leaf.gradient is only there for a criterion with needs = frozenset({Need.GRADIENT})")
        return self._gradient

    def resample(self) -> Tensor:
        """float32: a fresh draw from the layer's own initialiser, the same one at each call at this level."""
        return self._resample()


@dataclass(frozen=True)
class Group:
    """Leaves that share one budget: of their living weights the `keep` best are kept. `requested` is the unrounded
    number, for the record."""

    leaves: tuple[str, ...]
    keep: int
    requested: float


@dataclass(frozen=True)
class Edges:
    """The edges of one layer while their mask is learned. Every tensor has shape `layer.shape`."""

    layer: Layer
    weights: Tensor
    """float32: what the edges weigh. They are not trained."""
    scores: Tensor
    """float32: what the optimizer updates, in place."""
    allowed: Tensor
    """bool: the edges that a mask may keep; the others were removed for good."""


@dataclass(frozen=True)
class Scored:
    """A network whose mask is learned, as a parametrization sees it."""

    edges: Mapping[str, Edges]
    """By leaf, in the order of the network."""
    budgets: tuple[Group, ...]
    """How many edges are to be kept; empty where the search asks for no density."""
    draw: Callable[[Layer, torch.Generator], Tensor] = field(repr=False)
    """float32 [s]: a fresh draw of a layer's weights from the recipe's initialiser."""
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Lives as long as a training does in one process. May make a call faster, and must never decide its result."""


class Derivation(ABC):
    """How a ticket comes about: from its parent, its parent's training and the components of its cell."""

    digest: str
    """SHA-256 (hex) of everything that decides the ticket. Equal digests are equal tickets."""

    @abstractmethod
    def materialise(self) -> TicketState:
        """Compute the ticket's tensors. Depends on the derivation alone, so it gives the same bits every time."""

    @abstractmethod
    def kept_by_budgets(self) -> Mapping[str, int]:
        """Return how many weights of each layer the scope's budgets leave, known before any training.

        Raises UsageError where they leave none.
        """


@dataclass(frozen=True)
class TicketState:
    """The tensors of a ticket: `mask` bool by layer, `values` every parameter and buffer by name (masked weights at the
    values they are frozen at), `stats` how much is kept. `scores` and `budgets` are those of a mask to be learned."""

    mask: Mapping[str, Tensor] = field(repr=False)
    values: Mapping[str, Tensor] = field(repr=False)
    stats: CutReport
    scores: Mapping[str, Tensor] | None = field(default=None, repr=False)
    budgets: tuple[Group, ...] = ()


class TicketSource:
    """The state of a ticket, computed when it is first looked at.

    The derivation, and with it the parent's tensors, is let go then: a chain of tickets holds one state at a time.
    """

    __slots__ = ("_derivation", "_kept", "_state")

    def __init__(self, derivation: Derivation):
        self._derivation: Derivation | None = derivation
        self._state: TicketState | None = None
        self._kept: Mapping[str, int] | None = None

    def state(self) -> TicketState:
        """The ticket's tensors."""
        if self._state is None:
            assert self._derivation is not None
            self._state = self._derivation.materialise()
            self._derivation = None
        return self._state

    def kept_by_budgets(self) -> Mapping[str, int]:
        """How many weights of each layer the scope's budgets leave (see `Derivation.kept_by_budgets`)."""
        if self._kept is None:
            if self._derivation is None:
                return self.state().stats.kept
            self._kept = self._derivation.kept_by_budgets()
        return self._kept


@dataclass(frozen=True, eq=False)
class Ticket:
    """A mask and the values that training starts from.

    `origin` says how the ticket came about, as a digest: equal origins are equal tickets. Its tensors are computed when
    they are first looked at. One that `learns_mask` has scores, and its mask is learned, within `budgets` and among the
    edges alive in `mask`, over weights that stay as they are; any other has its weights trained.
    """

    origin: str
    level: int
    point: RewindPoint
    source: TicketSource = field(repr=False)
    root: Trained | None = field(default=None, repr=False)
    """The training that rewinding goes back to: of the dense network, or of the first cycle of learning a mask. None
    for a ticket that begins a chain of its own."""
    length: int | None = None
    """Steps of the schedule that it is trained by, where that is not the recipe's."""
    parent: int | None = None
    """The level of the ticket whose training this one was cut after."""
    is_dense: bool = False
    """True for the network that nothing was removed from yet, whose weights are to be trained."""
    learns_mask: bool = False
    """True where training it learns a mask."""

    @classmethod
    def derived(cls, derivation: Derivation, level: int, point: RewindPoint, **fields: Any) -> Ticket:
        """The ticket that a derivation makes."""
        return cls(derivation.digest, level, point, TicketSource(derivation), **fields)

    @property
    def mask(self) -> Mapping[str, Tensor]:
        """By layer, bool [s]: the weights that are kept."""
        return self.source.state().mask

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer by name; masked weights at the values they are frozen at."""
        return self.source.state().values

    @property
    def cut(self) -> CutReport:
        """How much of the network it keeps; where its mask is yet to be learned, what its budgets ask for."""
        return self.source.state().stats

    @property
    def scores(self) -> Mapping[str, Tensor] | None:
        """By layer, float32 [s]: the scores that learning a mask starts from; None where weights are trained."""
        return self.source.state().scores

    @property
    def budgets(self) -> tuple[Group, ...]:
        """How many edges a mask to be learned keeps; empty where no density is asked for."""
        return self.source.state().budgets

    @property
    def optimizer(self) -> Mapping[str, Tensor] | None:
        """The optimizer's state that training starts from: saved at the step that the ticket goes back to; None for a
        fresh one. At step 0 an optimizer has no state yet, so saved and fresh are one."""
        step = self.point.weights
        if self.point.optimizer == "fresh" or step == 0 or step == LATEST or self.root is None:
            return None
        return self.root.outcome.state(step)[1]


@dataclass(frozen=True)
class CutReport:
    """What a cut asked for and got: weights kept over all leaves, and in each of them.

    `requested` is the unrounded number that the rates asked to keep; `kept` is what whole weights allow.
    """

    requested: float
    kept: Mapping[str, int]
    sizes: Mapping[str, int]

    @property
    def density(self) -> float:
        """Kept over all, in [0, 1]."""
        return sum(self.kept.values()) / sum(self.sizes.values())

    @property
    def requested_density(self) -> float:
        """What the rates asked for, in [0, 1]."""
        return self.requested / sum(self.sizes.values())

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Leaves of which nothing is left."""
        return tuple(name for name, kept in self.kept.items() if kept == 0)


@dataclass(frozen=True)
class RewindPoint:
    """Where the next round starts. Steps count from the start of the dense run.

    `weights`: whose weights it starts from: the dense run's at that step, or LATEST. `schedule`: the step at which the
    learning-rate schedule (and the data order) resumes. `steps`: how long the round is; None: to the end of the
    schedule. `optimizer`: "fresh", or "saved" to restore its state of that step. `buffers`: "rewound" with the
    weights, or "latest" (batch-norm statistics).
    """

    weights: int | Literal["latest"]
    schedule: int
    steps: int | None = None
    optimizer: Literal["fresh", "saved"] = "fresh"
    buffers: Literal["rewound", "latest"] = "rewound"


@dataclass(frozen=True)
class Curve:
    """What was measured during a training, one entry an evaluation. `train_loss` is the mean since the one before.

    Where a mask was learned, `dying_ratio` is the share of edges that no step had selected by then, and `turnover` the
    share of the edges selected at the evaluation before that are not any more.
    """

    step: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    validation_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    dying_ratio: tuple[float, ...] = ()
    turnover: tuple[float, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """The figures of one training. Accuracies in [0, 1], losses in nats per example, steps in optimizer updates.

    The early-stopping step is the step of the lowest validation loss; test data is read there and at the end only.
    """

    steps: int
    early_stop_step: int
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    early_validation_loss: float
    early_validation_accuracy: float
    early_test_loss: float
    early_test_accuracy: float
    curve: Curve


class Request(Protocol):
    """A job that a search asks for. The lab makes them: `yield from lab.train(ticket)`."""

    @property
    def origin(self) -> str:
        """How the job comes about, as a digest."""
        ...

    @property
    def steps(self) -> int:
        """Its length in optimizer updates."""
        ...


class Outcome(Protocol):
    """What a job left in the store. Tensors are read when asked for, not before."""

    @property
    def key(self) -> str:
        """The key of the job."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The figures of a training. Raises TrainingDiverged for one that has none."""
        ...

    @property
    def diverged_at(self) -> int | None:
        """The step at which a training was found to have diverged, or None."""
        ...

    def tensors(self) -> Mapping[str, Tensor]:
        """Of a training every parameter and buffer at the end; of a gradient every leaf's."""
        ...

    def mask(self) -> Mapping[str, Tensor]:
        """By leaf, bool: the weights that a training had; of learning a mask, the edges that it could keep."""
        ...

    def state(self, step: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Every parameter and buffer, and the optimizer's state, after `step` steps of the schedule."""
        ...


@dataclass(frozen=True)
class Trained:
    """A training that ended: the ticket it started from, its figures, and its weights on demand."""

    ticket: Ticket
    outcome: Outcome = field(repr=False)
    gradient_outcome: Outcome | None = field(default=None, repr=False)

    @property
    def metrics(self) -> Metrics:
        """The figures of the training."""
        return self.outcome.metrics

    @property
    def diverged_at(self) -> int | None:
        """The step at which its loss was found to be no finite number any more; None for one that went well."""
        return self.outcome.diverged_at

    @property
    def gradient(self) -> Mapping[str, Tensor] | None:
        """By layer, float32 [s]: the gradient of the mean training loss at the end, where the criterion needs it."""
        return None if self.gradient_outcome is None else self.gradient_outcome.tensors()

    def weights(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer after training (w_f). Raises TrainingDiverged where there are none."""
        return {name: value for name, value in self._tensors().items() if "/" not in name}

    def scores(self) -> Mapping[str, Tensor]:
        """By leaf, float32: the scores at the end of learning a mask. Raises TrainingDiverged where there are none."""
        return self._below(SCORES)

    def selected(self) -> Mapping[str, Tensor]:
        """By leaf, bool: the edges that some step of learning a mask selected. Raises TrainingDiverged."""
        return self._below(SELECTED)

    def _below(self, prefix: str) -> dict[str, Tensor]:
        found = self._tensors()
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}

    def _tensors(self) -> Mapping[str, Tensor]:
        if self.diverged_at is not None:
            raise TrainingDiverged(self.diverged_at)
        return self.outcome.tensors()


@dataclass(frozen=True)
class Recorded:
    """A level that a search recorded, as an analysis sees it. Tensors are read when asked for, not before."""

    study: str
    cell: str
    axes: Mapping[str, str]
    seed: int
    level: int
    arm: str
    cut: CutReport
    outcome: Outcome = field(repr=False)
    _ticket: Callable[[], Ticket] = field(repr=False)

    @property
    def ticket(self) -> Ticket:
        """The ticket, read from the run's folder."""
        return self._ticket()

    @property
    def trained(self) -> Trained:
        """The training that the level reports."""
        return Trained(self.ticket, self.outcome)


@dataclass(frozen=True)
class Finding:
    """What an analysis found: a number, or several that belong together, of a level of a cell.

    `leaf` is empty for the whole network; `against` names the cell that it was compared with, if any. Reports show a
    "share", of which 1 is all there is, in per cent, and a "number" as it is. Raises ValueError for any other unit.
    """

    level: Recorded = field(repr=False)
    figure: str
    value: float | tuple[float, ...]
    leaf: str = ""
    against: str = ""
    unit: Literal["share", "number"] = "number"

    def __post_init__(self) -> None:
        if self.unit not in ("share", "number"):
            raise ValueError(f"""the unit of '{self.figure}' is "share" or "number", not {self.unit!r}""")


@dataclass(frozen=True)
class Facts:
    """What is known of a data set without reading it: shape of one input, classes, examples in each part."""

    shape: tuple[int, ...]
    classes: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Split:
    """Examples and labels. `inputs` [n, *shape] uint8 (read as value / 255) or float32; `labels` [n] int64."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Splits:
    """A data set. Validation data chooses, test data reports. `mean` and `std` are per channel, of inputs in [0, 1].

    `mapped`: inputs are mapped from a file, being too many for memory; nobody copies them whole.
    """

    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    mapped: bool = False
