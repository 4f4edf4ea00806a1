"""A network in the middle of its training, as a mask update sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lotteryfw.api.layers import LayerInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TrainingNetwork:
    """A network after some update of its training. Tensors are on the device, and only to be read."""

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
        """By layer: how many weights are alive."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    def gradients(self) -> Mapping[str, Tensor]:
        """Return by layer, float32 [s]: the gradient of the loss of the next batch, at the weights now.

        It covers masked weights too: how the loss would change if they came back.
        """
        return self._gradients()

    def draw(self, layer: LayerInfo) -> Tensor:
        """Return float32 [s], on the CPU: a fresh draw of a layer's weights from the recipe's initialiser."""
        return self._draw(layer, self.rng)
