"""Masks that change during a training: the kind that changes them, and its view of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lotteryfw.api.component import Component
from lotteryfw.api.layers import Group, LayerInfo
from lotteryfw.api.steps import Clock

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TrainingNetwork:
    """A network after some update of its training. Its tensors are to be read only."""

    layers: tuple[LayerInfo, ...]
    """The prunable layers in the order of the network, the output layer last."""
    weights: Mapping[str, Tensor]
    """By layer, float32 [s]: the weights now, 0 where they are masked."""
    masks: Mapping[str, Tensor]
    """By layer, bool [s]: the masks of the updates so far, True where a weight is alive."""
    rng: torch.Generator
    """A stream on the CPU of this training and this step alone."""
    _gradients: Callable[[], Mapping[str, Tensor]] = field(repr=False)
    _draw: Callable[[LayerInfo, torch.Generator], Tensor] = field(repr=False)

    @property
    def kept(self) -> dict[str, int]:
        """By layer, the number of weights that are alive."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    def gradients(self) -> Mapping[str, Tensor]:
        """Return by layer, float32 [s]: the gradient of the loss of the next batch, now.

        It covers masked weights too: how the loss would change if they came back.
        """
        # Computed when it is first asked for: most updates need none.
        return self._gradients()

    def draw(self, layer: LayerInfo) -> Tensor:
        """Return float32 [s], on the CPU: a fresh draw of a layer from the recipe's initialiser."""
        return self._draw(layer, self.rng)


class MaskUpdate(Component):
    """Changes the mask of a network during one training.

    After the update that ends at a step, the engine asks `due`; if it is True, `update` gives new
    masks and `regrown` the values of weights that come back. Weights that go become 0. The
    optimizer's state of both starts afresh. The engine checks that the masks keep exactly what
    `budgets` says.
    """

    kind = "mask_update"

    @abstractmethod
    def due(self, step: int, clock: Clock) -> bool:
        """Return whether the masks change after the update that ends at `step`.

        `step` lies in [1, clock.total).
        """

    @abstractmethod
    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        """Return the numbers of weights that are alive after the change at `step`.

        `kept` has the number of each layer before it. A layer in no group keeps as many as it has.
        """

    @abstractmethod
    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        """Return by layer, bool [s]: the new masks. A layer that is left out keeps its mask."""

    def regrown(self, layer: LayerInfo, net: TrainingNetwork) -> Tensor:
        """Return float32 [s], read where a weight comes back: what it starts from. Default: 0."""
        import torch

        # SET and RigL let a weight come back at 0, so that the outputs do not jump.
        return torch.zeros_like(net.weights[layer.name])
