"""Mask-0 actions: what masked weights are frozen at.

Each decides only about the weights that this cut removed; those removed earlier stay at the value they are frozen at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw import Layer, Mask0Action
from lotteryfw.std.draws import shuffled

if TYPE_CHECKING:
    from torch import Tensor

DECONSTRUCTING = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 4"


class Zero(Mask0Action):
    """Masked weights are 0."""

    use = "zero"
    formula = "0"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 1"
    default = True

    def masked_values(self, layer: Layer) -> Tensor:
        return _at_this_cut(layer.rewound.new_zeros(()), layer)


class Init(Mask0Action):
    """Masked weights are frozen at their rewound values."""

    use = "init"
    formula = "w_k"
    source = DECONSTRUCTING

    def masked_values(self, layer: Layer) -> Tensor:
        return _at_this_cut(layer.rewound, layer)


class InitZero(Mask0Action):
    """Masked weights that training moved toward zero are 0, the others frozen at their rewound values."""

    use = "init_zero"
    formula = "0 where |w_f| < |w_k|, else w_k"
    source = DECONSTRUCTING

    def masked_values(self, layer: Layer) -> Tensor:
        return _at_this_cut(layer.rewound.masked_fill(_toward_zero(layer), 0.0), layer)


class InitZeroAll(Mask0Action):
    """As init_zero; kept weights that training moved toward zero restart from 0, too."""

    use = "init_zero_all"
    formula = "0 where |w_f| < |w_k|, else w_k (masked) or the mask-1 action's value (kept)"
    source = DECONSTRUCTING

    def masked_values(self, layer: Layer) -> Tensor:
        return _at_this_cut(layer.rewound.masked_fill(_toward_zero(layer), 0.0), layer)

    def kept(self, layer: Layer, alive: Tensor) -> Tensor:
        return alive.masked_fill(_toward_zero(layer), 0.0)


class InitZeroReshuffle(Mask0Action):
    """As many masked weights are 0 as with init_zero, but at random places: a control."""

    use = "init_zero_reshuffle"
    formula = "0 where a permutation of |w_f| < |w_k| (within the cut) says so, else w_k"
    source = DECONSTRUCTING

    def masked_values(self, layer: Layer) -> Tensor:
        zeros = shuffled(_toward_zero(layer), layer.cut, layer.rng)
        return _at_this_cut(layer.rewound.masked_fill(zeros, 0.0), layer)


class InitZeroReverse(Mask0Action):
    """Masked weights that training moved away from zero are 0, the others frozen at their rewound values: a control."""

    use = "init_zero_reverse"
    formula = "0 where |w_f| > |w_k|, else w_k"
    source = DECONSTRUCTING

    def masked_values(self, layer: Layer) -> Tensor:
        return _at_this_cut(
            layer.rewound.masked_fill(layer.final.abs() > layer.rewound.abs(), 0.0), layer
        )


def _toward_zero(layer: Layer) -> Tensor:
    """[s] bool: the weights that training made smaller than they will be frozen at or restart from."""
    return layer.final.abs() < layer.rewound.abs()


def _at_this_cut(decided: Tensor, layer: Layer) -> Tensor:
    """[s]: `decided` where this cut removed a weight, else `layer.init`: the value that the long dead are frozen at."""
    return decided.where(layer.cut, layer.init)
