"""The contract: one abstract class for each kind of component.

Write for one network, one layer, dense, float32; the engine makes many of it, caches it and spreads it. `s` is a layer's
own shape. A component must depend on nothing but its options and what it is shown, and must draw from the stream it
is given: that is what makes runs repeat bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lotteryfw.api.component import Component
from lotteryfw.api.data import Dataset, DatasetInfo
from lotteryfw.api.errors import UsageError
from lotteryfw.api.fingerprints import files_fingerprint
from lotteryfw.api.lab import Lab, Search
from lotteryfw.api.layers import (
    ControlLayer,
    Group,
    Layer,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Need,
)
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import RewindPoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class MaskCriterion(Component):
    """Scores weights; the ones with the largest scores are kept."""

    kind = "criterion"
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def score(self, layer: Layer) -> Tensor:
        """[s] floating point, finite where `layer.mask`; only the order matters, and only among weights still alive."""


class Mask1Action(Component):
    """Says what kept weights restart from."""

    kind = "mask1"

    @abstractmethod
    def kept_values(self, layer: Layer) -> Tensor:
        """[s] float32, read where `layer.mask`: training restarts from here; made from `layer.rewound`."""


class Mask0Action(Component):
    """Says what masked weights are frozen at."""

    kind = "mask0"

    @abstractmethod
    def masked_values(self, layer: Layer) -> Tensor:
        """[s] float32, read where `~layer.mask`: held constant until the next cut. Where `~layer.mask & ~layer.cut`,
        `layer.init` is the value that a weight cut earlier is frozen at already."""

    def kept(self, layer: Layer, alive: Tensor) -> Tensor:
        """[s] float32, read where `layer.mask`: what kept weights restart from, given `alive`, the mask-1 action's
        values. Default: `alive` itself."""
        return alive


class RewindPolicy(Component):
    """Says where each new round starts on the dense run's trajectory."""

    kind = "rewind"

    @abstractmethod
    def point(self, clock: Clock) -> RewindPoint:
        """The point that every round after the dense one starts from."""


class SearchAlgorithm(Component):
    """Looks for tickets: asks the lab for trainings, prunes, and records levels."""

    kind = "search"
    variants: ClassVar[tuple[str, ...]] = ()
    """What it records levels under beside "ticket": networks to compare its tickets with."""
    required: ClassVar[Mapping[str, str]] = {}
    """Parts of a recipe that have to be written for it, such as "rewind", each with the reason."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Further parts that it uses, of those that are refused beside other searches."""

    @abstractmethod
    def search(self, lab: Lab) -> Search[None]:
        """A generator: `trained = yield from lab.train(ticket)`, `lab.record(level, ticket, trained)`, …"""

    def lengths(self, clock: Clock) -> Sequence[int]:
        """Steps in the schedule of each of its rounds, the first first: none may be 0, and the point that the rewind
        policy names has to lie before the end of each. Default: one as long as the recipe's training."""
        return (clock.total,)


class MaskSearch(SearchAlgorithm):
    """A search that has masks learned (`lab.learn_mask`), over weights that stay as they are."""

    required = {"parametrization": "learns masks"}
    optional = ("scores", "mask_optimizer")


class Scope(Component):
    """Says which layers share one budget, and how much each group keeps."""

    kind = "scope"

    @abstractmethod
    def groups(
        self, layers: Sequence[LayerInfo], kept: Mapping[str, int], times: int
    ) -> list[Group]:
        """The budgets after `times` cuts in a row, given how many weights of each layer are alive now. A layer in no
        group is left as it is. Use `lotteryfw.budget` for the counts: it is the rule of the papers."""

    def at(self, layers: Sequence[LayerInfo], density: float) -> list[Group]:
        """The budgets at which the whole network has this density in (0, 1], whatever the rates of a cut are.
        For searches that learn a mask; a layer in no group keeps everything. Default: refused."""
        raise UsageError(
            f"scope '{self.use}' cannot share out a density: it only knows rates of cuts"
        )


class Parametrization(Component):
    """Says how a mask is learned: what scores are, which edges they select, and how those enter the network.

    The optimizer updates a score for each edge; weights stay as they are. In a step the network computes with
    `weight(edges, mask)` for the mask that `sampled` gave.
    """

    kind = "parametrization"
    needs_density: ClassVar[bool | None] = None
    """True: a search that asks for no density is refused. False: one that asks for a density is
    refused, since the masks do not depend on it. None: both are accepted."""

    @abstractmethod
    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """[s] float32: the scores at the start, where the recipe names no initialiser of its own for them."""

    @abstractmethod
    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        """By layer, [s] bool: the mask that the scores stand for, which a search ends with. Alive only where allowed."""

    def sampled(self, net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
        """By layer, [s] bool: the mask of one step, or of one draw of an evaluation. Default: `masks(net)`."""
        return self.masks(net)

    def noise(self, layers: Sequence[LayerInfo], rng: torch.Generator) -> dict[str, Tensor]:
        """By layer, all random numbers that `sampled` draws for a network of these layers, on the CPU. With this method
        and `masks_from`, a training on a GPU draws for many steps at once and does not wait for copies; without them
        (the default) it calls `sampled`."""
        raise NotImplementedError

    def masks_from(self, net: MaskedNetwork, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `sampled` gives, given the numbers that `noise` drew, on the device of the scores."""
        raise NotImplementedError

    @abstractmethod
    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        """[s] float32: what the network computes with, differentiable in `edges.scores`; 0 where `~mask`."""

    def expected(self, edges: MaskedLayer, mask: Tensor) -> float:
        """How many edges of a layer take part on average, `mask` being what `masks` gave. Default: those of `mask`."""
        return float(mask.sum())

    def draws(self) -> int:
        """How many sampled masks an evaluation averages over. Default: 0, it takes `masks(net)`."""
        return 0

    def refresh(self) -> int:
        """Steps from one mask of the training to the next. Default: 1."""
        return 1

    def after_step(
        self, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
    ) -> None:
        """What else happens after the optimizer's update from `step` to `step + 1`: it may change weights in place,
        as methods do that redraw them or flip their signs. Default: nothing."""


class ModelFamily(Component):
    """Builds an ordinary `nn.Module` and names its prunable parameters."""

    kind = "model"

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A network for inputs of `shape` (no batch dimension) that returns logits [n, classes]; `classes` is what the
        objective asks for where it does not classify."""

    def prunable(self, module: nn.Module) -> list[str]:
        """Paths of the prunable parameters in order, the output layer's last. Default: Linear and Conv weights, and of
        one that several layers share the first path."""
        from torch import nn

        prunable = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        own = dict(module.named_parameters())
        shared = {
            name for name, _ in module.named_parameters(remove_duplicate=False) if name not in own
        }
        layers = [path for path, part in module.named_modules() if isinstance(part, prunable)]
        names = [f"{path}.weight" if path else "weight" for path in layers]
        return [name for name in names if name not in shared]


class Initialiser(Component):
    """Draws the first values of Linear and Conv layers."""

    kind = "initialiser"

    @abstractmethod
    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """[s] float32: a fresh draw of the layer's weights from `rng` alone."""

    def bias(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """[shape[0]] float32: the layer's biases. Default: zeros."""
        import torch

        return torch.zeros(layer.shape[0])


class DataSource(Component):
    """Gives train, validation and test examples as whole tensors."""

    kind = "data"

    @abstractmethod
    def facts(self, folder: Path) -> DatasetInfo:
        """Shapes and sizes, without reading the examples. Raises DataError where they cannot be known."""

    @abstractmethod
    def load(self, folder: Path) -> Dataset:
        """The examples, from below `folder`. Raises DataError with where they were looked for."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The files that `load` reads, whether they are there yet or not. Default: none."""
        return ()

    def fingerprint(self, folder: Path) -> str:
        """What tells two states of the data apart where the options do not: it is part of the key of every job.
        Default: a hash of the names and contents of `files(folder)` (see `files_fingerprint`), "" where it names none.
        """
        files = self.files(folder)
        return files_fingerprint(files) if files else ""

    def fetch(self, folder: Path) -> None:
        """Downloads what `load` reads, where there is anything to download. Raises DataError."""


class Augmentation(Component):
    """Changes training images at random, a batch at a time."""

    kind = "augmentation"

    @abstractmethod
    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """[n, c, h, w] float32 → the same shape. `rng` is on the CPU and belongs to this job and step."""

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> dict[str, Tensor]:
        """All random numbers of one batch of images of `shape` [n, c, h, w], by names of your own, on the CPU; their
        shapes depend on `shape` alone. With this method and `transform`, a training on a GPU draws for many steps at
        once and does not wait for copies; without them (the default) it calls `apply`."""
        raise NotImplementedError

    def transform(self, images: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """What `apply` makes of the images, given the numbers that `noise` drew, on the images' device."""
        raise NotImplementedError


class Objective(Component):
    """Says what a training makes small, and what is reported of it."""

    kind = "objective"
    labels_are_classes: ClassVar[bool] = True
    """Whether it reads labels as numbers of classes: then data with labels outside 0 … classes - 1 is refused. Set it
    to False for one that does not read them, or reads them as something else."""

    def output_size(self, shape: tuple[int, ...], classes: int) -> int:
        """How many numbers the network puts out for an input of `shape`. Default: one for each class."""
        return classes

    @abstractmethod
    def loss(
        self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]
    ) -> Tensor:
        """0-d float32, differentiable: the mean, or the sum, over the examples of a batch. `outputs` [n, k], `inputs`
        [n, *shape] float32, `labels` [n] int64."""

    @abstractmethod
    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """[n] bool, or float in [0, 1]: how right each example is. Its mean is reported as the accuracy."""

    def closed_form(self) -> str:
        """The name of the loss, if it is one that kernels may have built in. Default: "", it is not.

        "cross_entropy": `loss` is the plain cross-entropy of logits and labels, and `correct` is whether
        the largest logit is the label's.
        """
        return ""


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


class Control(Component):
    """Builds a network to compare a ticket with, of the ticket's density in every layer.

    Every method is called for one layer at a time, with a fresh `layer` whose random stream is at
    its start. First all masks are made, then the values.
    """

    kind = "control"
    trains: ClassVar[bool] = True
    """False: the network is measured as it is, without any training."""
    restarts: ClassVar[bool] = False
    """True: training starts at the beginning of the schedule, and not where the ticket's does; biases and other
    parameters that are not pruned start at their initial values."""

    def mask(self, layer: ControlLayer) -> Tensor:
        """[s] bool: which weights are kept, as many as in `layer.mask`. Default: the ticket's mask."""
        return layer.mask

    def kept_values(self, layer: ControlLayer) -> Tensor:
        """[s] float32, read where the mask is True.

        Default: what the ticket would start from with this mask.
        """
        return layer.start

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        """[s] float32, read where the mask is False; None for zeros.

        Default: what the ticket would have there with this mask.
        """
        return layer.start


class Analysis(Component):
    """Looks at finished searches and says what it found; it may ask for further jobs."""

    kind = "analysis"

    figures: ClassVar[Sequence[str]] = ()
    """The names of its figures. A recipe's claims are checked against them before any training;
    they are not if it is empty."""

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        """A generator over one finished search: what it found in the levels, in the order in which they were recorded.
        Default: nothing."""
        yield from ()
        return []

    def across(self, levels: Sequence[LevelResult]) -> Iterable[AnalysisResult]:
        """What it found in all levels of a study's cells together, in the order of the recipe. Default: nothing."""
        return ()


def kinds() -> dict[str, type[Component]]:
    """Every kind by its name, in the order in which people meet them."""
    found: tuple[Any, ...] = (
        SearchAlgorithm, MaskCriterion, Scope, Mask1Action, Mask0Action, RewindPolicy, Parametrization, ModelFamily,
        Initialiser, DataSource, Augmentation, Objective, Optimizer, Schedule, Control, Analysis,
    )  # fmt: skip
    return {kind.kind: kind for kind in found}
