"""Criteria that score all layers of a network together, with data and gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import Layer, LayerInfo, Need

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Part = Literal["train", "validation", "test"]


class Probe(Protocol):
    """One network on its device, for a component that needs outputs, losses or gradients.

    Weights that are masked hold the values that they are frozen at. Nothing that a component does
    here changes the network: every call computes with the tensors that it is given.
    """

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The prunable layers in the order of the network, the output layer last."""
        ...

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """By layer, bool [s]: True where a weight is alive."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """By layer, float32 [s]: the prunable weights. They do not require gradients."""
        ...

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer by its path, the prunable weights among them."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch dimension."""
        ...

    @property
    def classes(self) -> int:
        """The number of classes of the data set."""
        ...

    @property
    def rng(self) -> torch.Generator:
        """A stream on the CPU of this component, cell seed and level alone."""
        ...

    def forward(
        self,
        inputs: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        mode: Literal["train", "eval"] = "train",
    ) -> Tensor:
        """Return the outputs [n, k] for inputs [n, *input_shape], differentiable.

        `tensors` replaces parameters and buffers by path, in any floating dtype; the others are the
        network's own. In the mode "train" batch normalisation uses the statistics of the batch; its
        running statistics are not updated.
        """
        ...

    def loss(
        self,
        inputs: Tensor,
        labels: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        mode: Literal["train", "eval"] = "train",
        temperature: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> Tensor:
        """Return the loss of the recipe's objective over a batch, 0-d and differentiable.

        It is the mean over the examples, or their sum. Outputs are divided by `temperature` first.
        """
        ...

    def batches(self, part: Part, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `count` batches: inputs [size, *input_shape] float32 and labels [size].

        Examples are drawn without replacement in an order of this component, seed and level; every
        call yields the same batches. Raises UsageError if the part has fewer than count * size.
        """
        ...

    def all_batches(self, part: Part, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every example of a part once, in the order of the data set.

        Inputs are [size, *input_shape] float32 and labels [size]; the last batch may be smaller.
        """
        ...

    def examples(self, part: Part) -> int:
        """Return the number of examples of a part."""
        ...

    def ones(self, count: int) -> Tensor:
        """Return inputs that are all 1, float32 [count, *input_shape], on the device.

        Raises UsageError where inputs are tokens.
        """
        ...


class NetworkCriterion(MaskCriterion):
    """Scores all layers of a network together, with data and gradients.

    The engine calls `scores` on the device, once for each network that is pruned. What it returns
    is kept in the store like the result of a training.
    """

    # The need alone tells the lab that a job has to run before the pruning.
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PROBE})

    @abstractmethod
    def scores(self, probe: Probe) -> dict[str, Tensor]:
        """Return by layer, [s] floating point, finite where `probe.masks`; their order counts."""

    def score(self, layer: Layer) -> Tensor:
        """Return what `scores` gave for this layer."""
        # The scores were computed on the device, as a job of their own.
        return layer.probed
