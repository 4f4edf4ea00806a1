"""The contract: one abstract class for each kind of component.

Write for one network, one leaf, dense, float32; the engine makes many of it, caches it and spreads it. `s` is a leaf's
own shape. A component must depend on nothing but its options and what it is shown, and must draw from the stream it
is given: that is what makes runs repeat bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lotteryfw.component import Component
from lotteryfw.steps import Clock
from lotteryfw.views import Facts, Layer, Leaf, Need, Outcome, RewindPoint, Splits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lotteryfw.jobs import Job
    from lotteryfw.lab import Lab

T = TypeVar("T")
Search = Generator[Sequence["Job"], Sequence[Outcome], T]
"""What a search is: a generator that asks for jobs, several at a time if it can, and is sent their outcomes."""


class MaskCriterion(Component):
    """Scores weights; the ones with the largest scores are kept."""

    kind = "criterion"
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def score(self, leaf: Leaf) -> Tensor:
        """[s] floating point, finite where `leaf.mask`; only the order matters, and only among weights still alive."""


class Mask1Action(Component):
    """Says what kept weights restart from."""

    kind = "mask1"

    @abstractmethod
    def alive(self, leaf: Leaf) -> Tensor:
        """[s] float32, read where `leaf.mask`: training restarts from here; made from `leaf.rewound`."""


class Mask0Action(Component):
    """Says what masked weights are frozen at."""

    kind = "mask0"
    changes_kept: ClassVar[bool] = False
    """True for an action that also overrides what kept weights restart from, by defining `kept`."""

    @abstractmethod
    def dead(self, leaf: Leaf) -> Tensor:
        """[s] float32, read where `~leaf.mask`: held constant until the next cut. Where `~leaf.mask & ~leaf.cut`,
        `leaf.init` is the value that a weight cut earlier is frozen at already."""

    def kept(self, leaf: Leaf, alive: Tensor) -> Tensor:
        """[s] float32, read where `leaf.mask`, only asked where `changes_kept`: `alive` (the mask-1 action's values),
        changed."""
        return alive


class RewindPolicy(Component):
    """Says where each new round starts on the dense run's trajectory."""

    kind = "rewind"

    @abstractmethod
    def point(self, clock: Clock) -> RewindPoint:
        """The point that every round after the dense one starts from."""


class SearchAlgorithm(Component):
    """Looks for tickets: asks the lab for trainings, cuts, and records levels."""

    kind = "search"

    @abstractmethod
    def search(self, lab: Lab) -> Search[None]:
        """A generator: `trained = yield from lab.train(ticket)`, `lab.record(level, ticket, trained)`, …"""


@dataclass(frozen=True)
class Group:
    """Leaves that share one budget: of their living weights the `keep` best are kept. `requested` is the unrounded
    number, for the record."""

    leaves: tuple[str, ...]
    keep: int
    requested: float


class Scope(Component):
    """Says which leaves share one budget, and how much each group keeps."""

    kind = "scope"

    @abstractmethod
    def groups(self, layers: Sequence[Layer], kept: Mapping[str, int], times: int) -> list[Group]:
        """The budgets after `times` cuts in a row, given how many weights of each layer are alive now. A layer in no
        group is left as it is. Use `lotteryfw.budget` for the counts: it is the rule of the papers."""


class ModelFamily(Component):
    """Builds an ordinary `nn.Module` and names its prunable parameters."""

    kind = "model"

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A network for inputs of `shape` (no batch dimension) that returns logits [n, classes]."""

    def prunable(self, module: nn.Module) -> list[str]:
        """Paths of the prunable parameters in order, the output layer's last. Default: Linear and Conv weights, and of
        one that several layers share the first path."""
        from torch import nn

        prunable = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        own = dict(module.named_parameters())
        shared = {name for name, _ in module.named_parameters(remove_duplicate=False) if name not in own}
        layers = [path for path, part in module.named_modules() if isinstance(part, prunable)]
        names = [f"{path}.weight" if path else "weight" for path in layers]
        return [name for name in names if name not in shared]


class Initialiser(Component):
    """Draws the first values of Linear and Conv layers."""

    kind = "initialiser"

    @abstractmethod
    def weight(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """[s] float32: a fresh draw of the layer's weights from `rng` alone."""

    def bias(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """[shape[0]] float32: the layer's biases. Default: zeros."""
        import torch

        return torch.zeros(layer.shape[0])


class DataSource(Component):
    """Gives train, validation and test examples as whole tensors."""

    kind = "data"

    @abstractmethod
    def facts(self, folder: Path) -> Facts:
        """Shapes and sizes, without reading the examples. Raises DataError where they cannot be known."""

    @abstractmethod
    def load(self, folder: Path) -> Splits:
        """The examples, from below `folder`. Raises DataError with where they were looked for."""

    def fingerprint(self, folder: Path) -> str:
        """Tells two states of the files apart where the options do not. Default: the options tell all."""
        return ""

    def fetch(self, folder: Path) -> None:
        """Downloads what `load` reads, where there is anything to download. Raises DataError."""


class Augmentation(Component):
    """Changes training images at random, a batch at a time."""

    kind = "augmentation"

    @abstractmethod
    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """[n, c, h, w] float32 → the same shape. `rng` is on the CPU and belongs to this job and step."""


class Optimizer(Component):
    """Builds the optimizer of a training."""

    kind = "optimizer"

    @abstractmethod
    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """A fresh optimizer over `parameters`. Its learning rates are what the schedule's factor multiplies."""


class Schedule(Component):
    """Multiplies the learning rate over the steps of a training."""

    kind = "schedule"

    @abstractmethod
    def factor(self, step: int, clock: Clock) -> float:
        """The factor for the update from `step` to `step + 1`; `step` lies in [0, clock.total)."""


def kinds() -> dict[str, type[Component]]:
    """Every kind by its name, in the order in which people meet them."""
    found: tuple[Any, ...] = (
        SearchAlgorithm, MaskCriterion, Scope, Mask1Action, Mask0Action, RewindPolicy, ModelFamily, Initialiser,
        DataSource, Augmentation, Optimizer, Schedule,
    )  # fmt: skip
    return {kind.kind: kind for kind in found}
