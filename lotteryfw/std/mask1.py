"""Mask-1 actions: the values that kept weights restart from.

All start from `layer.rewound`, anew at each level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import Layer, Mask1Action
from lotteryfw.std.draws import shuffled

if TYPE_CHECKING:
    from torch import Tensor

DECONSTRUCTING = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 3"

KeepSign = Annotated[
    bool,
    Field(
        description="True: drawn magnitudes get the signs of the rewound weights; false: random."
    ),
]
Rescale = Annotated[
    bool,
    Field(
        description="Multiply kept weights by size / kept of their layer, to make up for the rest."
    ),
]


class Rewind(Mask1Action):
    """Kept weights return to the values that the rewind policy points at."""

    use = "rewind"
    formula = "w_k"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 1"
    default = True

    rescale: Rescale = False

    def kept_values(self, layer: Layer) -> Tensor:
        return _rescaled(layer.rewound, layer, self.rescale)


class Reinit(Mask1Action):
    """Kept weights are drawn afresh from the layer's own initialiser."""

    use = "reinit"
    formula = "sign(w_k) |x| (keep_sign) or x, x from the initialiser"
    source = DECONSTRUCTING

    keep_sign: KeepSign = True
    rescale: Rescale = False

    def kept_values(self, layer: Layer) -> Tensor:
        return _rescaled(_signed(layer.resample(), layer, self.keep_sign), layer, self.rescale)


class ReinitEmpirical(Mask1Action):
    """Kept weights are drawn, with replacement, from all initial values of the layer."""

    use = "reinit_empirical"
    formula = "sign(w_k) |x| (keep_sign) or x, x from the layer's values at step 0"
    source = DECONSTRUCTING

    keep_sign: KeepSign = True
    rescale: Rescale = False

    def kept_values(self, layer: Layer) -> Tensor:
        import torch

        # from step 0 and from the whole layer, whatever the mask: the distribution of the draw
        indices = torch.randint(layer.info.size, layer.info.shape, generator=layer.rng)
        drawn = layer.original.flatten()[indices.to(layer.original.device)]
        return _rescaled(_signed(drawn, layer, self.keep_sign), layer, self.rescale)


class Reshuffle(Mask1Action):
    """Kept weights are permuted within the layer.

    With `keep_sign` the magnitudes are permuted and each place keeps its sign; without, whole
    values are permuted.
    """

    use = "reshuffle"
    formula = "sign(w_k) |x| (keep_sign) or x, x a permutation of the kept w_k"
    source = DECONSTRUCTING

    keep_sign: KeepSign = True
    rescale: Rescale = False

    def kept_values(self, layer: Layer) -> Tensor:
        drawn = shuffled(layer.rewound, layer.mask, layer.rng)
        return _rescaled(_signed(drawn, layer, self.keep_sign), layer, self.rescale)


class Constant(Mask1Action):
    """Kept weights restart at ± one constant: the standard deviation of the initial values."""

    use = "constant"
    formula = (
        "sign(w_k) c (keep_sign) or ±c, c the population standard deviation of the layer at step 0"
    )
    source = DECONSTRUCTING

    keep_sign: KeepSign = True
    rescale: Rescale = False

    def kept_values(self, layer: Layer) -> Tensor:
        import torch

        # as many of either sign as a coin gives; with `keep_sign` they are overwritten below
        bits = torch.randint(2, layer.info.shape, generator=layer.rng).to(layer.original.device)
        drawn = layer.original.std(correction=0) * (bits * 2 - 1)
        return _rescaled(_signed(drawn, layer, self.keep_sign), layer, self.rescale)


def _signed(drawn: Tensor, layer: Layer, keep_sign: bool) -> Tensor:
    """Return [s]: `drawn`, with the signs of `layer.rewound` where `keep_sign`."""
    # the sign of a zero is its sign bit, mostly +
    return drawn.copysign(layer.rewound) if keep_sign else drawn


def _rescaled(values: Tensor, layer: Layer, rescale: bool) -> Tensor:
    """Return [s]: `values`, times size / kept where `rescale`."""
    if not rescale:
        return values
    # max: a layer may lose its last weight under a scope that lets layers compete
    return values * (layer.info.size / max(1, int(layer.mask.sum())))
