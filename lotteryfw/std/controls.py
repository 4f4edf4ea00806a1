"""Controls: networks to compare a ticket with, of the same density in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw import Control, ControlLayer
from lotteryfw.std.draws import shuffled

if TYPE_CHECKING:
    from torch import Tensor

LOTTERY_TICKET = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"
DECONSTRUCTING = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 5"
SIGNS = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 3"
MISSING_THE_MARK = (
    "Frankle et al. 2021, Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, "
    "section 5"
)


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


class SignsOnly(Control):
    """Trains the ticket with the signs of its kept weights, all of one magnitude in each layer.

    The magnitude is the mean of the layer's kept weights. Masked weights stay frozen at what the
    ticket has there.
    """

    use = "signs_only"
    formula = "the ticket's mask, sign(w) times the mean of |w| over the layer's kept w"
    source = SIGNS

    def kept_values(self, layer: ControlLayer) -> Tensor:
        magnitudes = layer.start[layer.mask].abs()
        # the mean of no weights would be NaN
        mean = magnitudes.sum() / max(1, magnitudes.numel())
        return mean.expand_as(layer.start).copysign(layer.start)


class RandomMask(Control):
    """Trains a random mask of the same density in each layer, at the ticket's values under it.

    They are what rewinding and both actions would give the ticket if it had this mask. Beside a
    mask that was learned over weights that stay as they are, they are these weights, without the
    rescaling and the signs that the parametrization gives the ticket.
    """

    use = "random_mask"
    formula = "a random mask, mask1(w_k) and mask0(w_k)"
    source = DECONSTRUCTING

    def mask(self, layer: ControlLayer) -> Tensor:
        return layer.random_mask()


class LayerShuffle(Control):
    """Trains the ticket's mask, shuffled within each layer, at the ticket's values under it.

    It draws from the same distribution as random_mask, with a stream of its own. The values are
    those of random_mask.
    """

    use = "layer_shuffle"
    formula = "a permutation of the ticket's mask within each layer, mask1(w_k) and mask0(w_k)"
    source = MISSING_THE_MARK

    def mask(self, layer: ControlLayer) -> Tensor:
        # a permutation keeps the count of the layer exactly
        everywhere = layer.mask.new_ones(layer.info.shape)
        return shuffled(layer.mask, everywhere, layer.rng)


class Invert(Control):
    """Trains weights that the ticket masks, as many as it keeps in each layer, drawn at random.

    A layer of which the ticket keeps more than half masks too few: all of them are kept, and the
    rest are drawn from the ticket's. The values are given as those of random_mask.
    """

    use = "invert"
    formula = "as many weights as the ticket keeps, of those it masks, mask1(w_k) and mask0(w_k)"
    source = MISSING_THE_MARK

    def mask(self, layer: ControlLayer) -> Tensor:
        import torch

        # Ranks of masked weights lie in [0, 1), those of kept weights in [1, 2), so sorting takes
        # all masked ones first. float64, as float32 would draw some ranks twice in a large layer.
        rank = torch.rand(layer.info.shape, generator=layer.rng, dtype=torch.float64)
        order = (rank + layer.mask.cpu()).flatten().argsort()
        mask = torch.zeros(layer.info.size, dtype=torch.bool)
        mask[order[: int(layer.mask.sum())]] = True
        return mask.reshape(layer.info.shape).to(layer.mask.device)


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
        # the masked weights are others than the ticket's, whose frozen values would mean nothing
        return None
