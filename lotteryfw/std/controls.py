"""Controls: networks to compare a ticket with, of the same density in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw import Control, ControlLayer

if TYPE_CHECKING:
    from torch import Tensor

LOTTERY_TICKET = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"
DECONSTRUCTING = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 5"


class Untrained(Control):
    """Measures the ticket as it is, without any training."""

    use = "untrained"
    formula = "the ticket's mask, the ticket's values, 0 steps"
    source = DECONSTRUCTING
    trains = False


class Reinit(Control):
    """Trains the ticket's mask over a fresh draw of the initial weights, from step 0.

    Masked weights stay frozen at what the ticket has there.
    """

    use = "reinit"
    formula = "the ticket's mask, a fresh draw"
    source = LOTTERY_TICKET
    restarts = True

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.resample()


class RandomMask(Control):
    """Trains a random mask of the same density in each layer, over the rewound weights.

    Masked weights are 0.
    """

    use = "random_mask"
    formula = "a random mask, w_k"
    source = DECONSTRUCTING

    def mask(self, layer: ControlLayer) -> Tensor:
        return layer.random_mask()

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.rewound

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        return None


class RandomMaskReinit(Control):
    """Trains a random mask of the same density in each layer, over a fresh draw, from step 0.

    Masked weights are 0.
    """

    use = "random_mask_reinit"
    formula = "a random mask, a fresh draw"
    source = LOTTERY_TICKET
    restarts = True

    def mask(self, layer: ControlLayer) -> Tensor:
        return layer.random_mask()

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.resample()

    def masked_values(self, layer: ControlLayer) -> Tensor | None:
        return None
