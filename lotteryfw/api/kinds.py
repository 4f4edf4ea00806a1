"""The contract: one abstract class for each kind of component.

Write for one network, one layer, dense, float32; the engine makes many of it, caches it and
spreads it. `s` is a layer's own shape. A component must depend on nothing but its options and what
it is shown, and must draw from the stream it is given, so that runs repeat bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lotteryfw.api.component import Component
from lotteryfw.api.errors import UsageError
from lotteryfw.api.lab import Lab, Search
from lotteryfw.api.layers import (
    ControlLayer,
    Group,
    Layer,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Need,
    UpdateFactors,
)
from lotteryfw.api.mask_updates import MaskUpdate as MaskUpdate
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import RewindPoint
from lotteryfw.api.training_kinds import Augmentation as Augmentation
from lotteryfw.api.training_kinds import AuxiliaryOutputs as AuxiliaryOutputs
from lotteryfw.api.training_kinds import DataSource as DataSource
from lotteryfw.api.training_kinds import Initialiser as Initialiser
from lotteryfw.api.training_kinds import Metric as Metric
from lotteryfw.api.training_kinds import ModelFamily as ModelFamily
from lotteryfw.api.training_kinds import Objective as Objective
from lotteryfw.api.training_kinds import Optimizer as Optimizer
from lotteryfw.api.training_kinds import Schedule as Schedule
from lotteryfw.api.training_kinds import TextModelFamily as TextModelFamily

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MaskCriterion(Component):
    """Scores weights; the ones with the largest scores are kept."""

    kind = "criterion"
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def score(self, layer: Layer) -> Tensor:
        """Return [s] floating point, finite where `layer.mask`.

        Only the order matters, and only among weights that are still kept.
        """


class Mask1Action(Component):
    """Says what kept weights restart from."""

    kind = "mask1"

    @abstractmethod
    def kept_values(self, layer: Layer) -> Tensor:
        """Return [s] float32, read where `layer.mask`: the values that training restarts from.

        They are made from `layer.rewound`.
        """


class Mask0Action(Component):
    """Says what masked weights are frozen at."""

    kind = "mask0"

    @abstractmethod
    def masked_values(self, layer: Layer) -> Tensor:
        """Return [s] float32, read where `~layer.mask`: the values held until the next cut.

        Where `~layer.mask & ~layer.cut`, `layer.init` is the value that a weight removed by an
        earlier cut is frozen at already.
        """

    def kept(self, layer: Layer, alive: Tensor) -> Tensor:
        """Return [s] float32, read where `layer.mask`: the values that kept weights restart from.

        `alive` are those of the mask-1 action. Default: `alive` itself.
        """
        return alive


class RewindPolicy(Component):
    """Says where each new round starts on the dense run's trajectory."""

    kind = "rewind"

    @abstractmethod
    def point(self, clock: Clock) -> RewindPoint:
        """Return the point that every round after the dense one starts from."""


class SearchAlgorithm(Component):
    """Looks for tickets: asks the lab for trainings, prunes, and records levels."""

    kind = "search"
    variants: ClassVar[tuple[str, ...]] = ()
    """The names beside "ticket" that it records levels under: networks to compare tickets with."""
    required: ClassVar[Mapping[str, str]] = {}
    """Parts of a recipe that have to be written for it, such as "rewind", each with the reason."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Further parts that it uses, of those that are refused beside other searches."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What it reads of trainings beyond weights and figures: `Need.GRADIENT` for
    `trained.gradient`. The needs of criteria among its options are added."""

    @abstractmethod
    def search(self, lab: Lab) -> Search[None]:
        """Run the search, as a generator: `trained = yield from lab.train(ticket)`,
        `lab.record(level, ticket, trained)`, …"""

    def lengths(self, clock: Clock) -> Sequence[int]:
        """Return the steps in the schedule of each of its rounds, in order.

        None may be 0, and the rewind policy's point has to lie before the end of each. Default:
        one round as long as the recipe's training.
        """
        # A search without cycles has one schedule.
        return (clock.total,)


class MaskSearch(SearchAlgorithm):
    """A search that has masks learned (`lab.learn_mask`), over weights that stay as they are."""

    # A recipe may have these keys beside such a search alone.
    required = {"parametrization": "learns masks"}
    optional = ("scores", "mask_optimizer")


class Scope(Component):
    """Says which layers share one budget, and how much each group keeps."""

    kind = "scope"

    @abstractmethod
    def groups(
        self, layers: Sequence[LayerInfo], kept: Mapping[str, int], times: int
    ) -> list[Group]:
        """Return the budgets after `times` cuts in a row.

        `kept` has the number of weights of each layer that are kept now. A layer in no group is
        left as it is. Use `lotteryfw.budget` for the counts: it is the rule of the papers.
        """

    def at(self, layers: Sequence[LayerInfo], density: float) -> list[Group]:
        """Return the budgets at which the whole network has this density in (0, 1].

        It is for searches that learn a mask, and independent of the rates of a cut. A layer in no
        group keeps everything. Default: refused.
        """
        # No rate says how a density is shared out among layers.
        raise UsageError(
            f"scope '{self.use}' cannot share out a density: it only knows rates of cuts"
        )


class Parametrization(Component):
    """Says how a mask is learned: the scores, the edges that they select, the weights of these.

    The optimizer updates the scores, one for each edge unless `score_shape` says otherwise; weights
    stay as they are unless `trains_weights` is True. In a step the network computes with
    `weight(edges, mask)` for the mask that `sampled` gave.
    """

    kind = "parametrization"
    needs_density: ClassVar[bool | None] = None
    """True: a search that asks for no density is refused. False: one that asks for a density is
    refused, since the masks do not depend on it. None: both are accepted."""
    trains_weights: ClassVar[bool] = False
    """True: the optimizer trains the weights and all other parameters beside the scores.

    The network is then another until the last step, so that step alone is measured on test data."""

    def score_shape(self, layer: LayerInfo) -> tuple[int, ...]:
        """Return the shape of a layer's scores. Default: [s], one for each edge."""
        return layer.shape

    @abstractmethod
    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """Return float32 of `score_shape`: the first scores.

        They are used where the recipe names no initialiser for scores.
        """

    def factors(self, name: str, is_score: bool) -> UpdateFactors:
        """Return the factors of learning rate and weight decay for one tensor that is trained.

        `name` is the parameter's, for scores the layer's. Default: the optimizer's own options.
        """
        return UpdateFactors()

    def penalty(self, net: MaskedNetwork) -> Tensor | None:
        """Return 0-d float32, differentiable: what is added to the loss of a step, not reported.

        Default: None, nothing.
        """
        return None

    @abstractmethod
    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        """Return, by layer, [s] bool: the mask that the scores stand for, which a search ends with.

        It keeps allowed edges only.
        """

    def sampled(self, net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
        """Return, by layer, [s] bool: the mask of one step, or of one draw of an evaluation.

        Default: `masks(net)`.
        """
        return self.masks(net)

    def noise(self, layers: Sequence[LayerInfo], rng: torch.Generator) -> dict[str, Tensor] | None:
        """Return, by layer, all random numbers that `sampled` draws for such a network, on the CPU.

        With this method and `masks_from`, a training on a GPU draws for many steps at once and does
        not wait for copies. Default: None, it calls `sampled`.
        """
        return None

    def masks_from(self, net: MaskedNetwork, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks of `sampled` for the numbers of `noise`, on the device of the scores."""
        raise NotImplementedError

    @abstractmethod
    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        """Return [s] float32: the weights that the network computes with, 0 where `~mask`.

        They are differentiable in `edges.scores` and, where weights are trained, in
        `edges.weights`. `edges.progress` is None outside the steps of a training.
        """

    def expected(self, edges: MaskedLayer, mask: Tensor) -> float:
        """Return the mean number of edges of a layer that take part.

        `mask` is that of `masks`. Default: the number of edges in `mask`.
        """
        # Without sampling every edge of the mask takes part with certainty.
        return float(mask.sum())

    def draws(self) -> int:
        """Return the number of sampled masks that an evaluation averages over.

        Default: 0, for an evaluation of `masks(net)`.
        """
        return 0

    def refresh(self) -> int:
        """Return the number of steps from one mask of the training to the next. Default: 1."""
        return 1

    def closed_form(self) -> str:
        """Return the name of the rule, if it is one that kernels may have built in. Default: "".

        "top_k": `masks` keeps in each budget the edges of largest score, as `IncrementalTopK` does,
        and all allowed edges of a layer that is in no budget; `weight` is w · mask with the mask's
        gradient passed straight to the scores, no weights are trained, and every other method but
        `initial` and `refresh` is the default.
        "top_k_magnitude": the same with |score| in the place of the score.

        "bernoulli": `masks` keeps the allowed edges of positive score, `sampled` those whose number
        is below the sigmoid of their score, of numbers that `torch.rand` draws for one layer after
        another; `weight` is w · mask with the mask's gradient passed straight to that sigmoid, no
        weights are trained, and every other method but `initial`, `noise`, `masks_from`, `expected`
        and `draws` is the default. "bernoulli_dynamic": the same with w · mask multiplied by
        edges / max(kept, ½) of its layer, and with the gradient of this factor.
        """
        return ""

    def after_step(
        self, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
    ) -> None:
        """Do something after the optimizer's update from `step` to `step + 1`.

        It may change weights in place, as methods do that redraw them or flip their signs.
        Default: nothing.
        """


class Control(Component):
    """Builds a network to compare a ticket with, of the ticket's density in every layer.

    Every method is called for one layer at a time, with a fresh `layer` whose random stream is at
    its start. First all masks are made, then the values.
    """

    kind = "control"
    trains: ClassVar[bool] = True
    """False: the network is measured as it is, without any training."""
    restarts: ClassVar[bool] = False
    """True: training starts at the beginning of the schedule, and not where the ticket's does.

    Biases and other parameters that are not pruned start at their initial values."""

    def mask(self, layer: ControlLayer) -> Tensor:
        """Return [s] bool: the weights that are kept, as many as in `layer.mask`.

        Default: the ticket's mask.
        """
        # The ticket's own mask: most controls change the values alone.
        return layer.mask

    def kept_values(self, layer: ControlLayer) -> Tensor:
        """Return [s] float32, read where the mask is True.

        Default: what the ticket would start from with this mask.
        """
        return layer.start

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        """Return [s] float32, read where the mask is False; None for zeros.

        Default: what the ticket would have there with this mask.
        """
        return layer.start


class Analysis(Component):
    """Computes figures of finished searches; it may ask for further jobs."""

    kind = "analysis"

    figures: ClassVar[Sequence[str]] = ()
    """The names of its figures. A recipe's claims are checked against them before any training;
    they are not if it is empty."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What it asks of trainings by `lab.probe`: `Need.GRADIENT` for `trained.gradient`."""

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        """Return the results of one finished search, as a generator.

        `levels` are in the order in which they were recorded, those of controls last. Default:
        none.
        """
        # Without a yield this would be no generator, and the runner could not resume it.
        yield from ()
        return []

    def across(self, levels: Sequence[LevelResult]) -> Iterable[AnalysisResult]:
        """Return the results of all levels of a study's cells together. Default: none.

        `levels` are in the order of the recipe.
        """
        return ()


def kinds() -> dict[str, type[Component]]:
    """Return every kind by its name, in the order of the documentation."""
    # Abstract classes are no `type[Component]` for mypy.
    bases: tuple[Any, ...] = (
        SearchAlgorithm, MaskCriterion, Scope, Mask1Action, Mask0Action, RewindPolicy,
        Parametrization, ModelFamily, Initialiser, DataSource, Augmentation, Objective, Optimizer,
        Schedule, MaskUpdate, Metric, Control, Analysis,
    )  # fmt: skip
    return {base.kind: base for base in bases}
