"""Controls: networks to compare a ticket with, of the same density in every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lotteryfw.api.layers import LayerInfo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ControlLayer:
    """One layer of a recorded ticket, as a control sees it. Every tensor has shape `layer.shape`."""

    info: LayerInfo
    original: Tensor
    """float32: the dense network at step 0."""
    start: Tensor
    """float32: what the ticket's training starts from."""
    rewound: Tensor
    """float32: where the rewind policy points, whatever the mask."""
    mask: Tensor
    """bool: the ticket's mask."""
    _random_mask: Callable[[], Tensor] = field(repr=False)
    _resample: Callable[[], Tensor] = field(repr=False)

    def random_mask(self) -> Tensor:
        """bool: a random mask of the same density, the same one for all controls of a level."""
        return self._random_mask()

    def resample(self) -> Tensor:
        """float32: a fresh draw from the layer's own initialiser, the same one at each call at this level."""
        return self._resample()


class Control:
    """Says what a ticket is compared with."""

    use: ClassVar[str] = ""
    restarts: ClassVar[bool] = False
    """True where the control is trained from the start of the schedule, and not from where the ticket is."""

    def mask(self, layer: ControlLayer) -> Tensor:
        """bool [s]: which weights are kept. Default: those of the ticket."""
        return layer.mask

    def kept_values(self, layer: ControlLayer) -> Tensor:
        """float32 [s], read where the mask is True. Default: what the ticket starts from."""
        return layer.start

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        """float32 [s], read where the mask is False; None for zeros. Default: what the ticket has there."""
        return layer.start


class Reinit(Control):
    """The ticket's mask over a fresh draw of the initial weights, trained from step 0."""

    use = "reinit"
    restarts = True

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.resample()


class RandomMask(Control):
    """A random mask of the same density in each layer, over the ticket's starting point."""

    use = "random_mask"

    def mask(self, layer: ControlLayer) -> Tensor:
        return layer.random_mask()

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.rewound

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        return None


class RandomMaskReinit(Control):
    """A random mask of the same density in each layer, over a fresh draw, from step 0."""

    use = "random_mask_reinit"
    restarts = True

    def mask(self, layer: ControlLayer) -> Tensor:
        return layer.random_mask()

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.resample()

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        return None


BY_NAME: dict[str, Control] = {
    control.use: control for control in (Reinit(), RandomMask(), RandomMaskReinit())
}
