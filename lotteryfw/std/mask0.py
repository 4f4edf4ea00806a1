"""Mask-0 actions: what masked weights are frozen at.

Each decides only about the weights that this cut removed; those removed earlier stay at the value
they are frozen at.
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
    """Masked weights that shrank in training are 0, the others rewound."""

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
        # only among the weights of this cut, so that as many of them are 0 as with init_zero
        zeros = shuffled(_toward_zero(layer), layer.cut, layer.rng)
        return _at_this_cut(layer.rewound.masked_fill(zeros, 0.0), layer)


class InitZeroReverse(Mask0Action):
    """Masked weights that grew in training are 0, the others rewound: a control."""

    use = "init_zero_reverse"
    formula = "0 where |w_f| > |w_k|, else w_k"
    source = DECONSTRUCTING

    def masked_values(self, layer: Layer) -> Tensor:
        # strictly: a weight that did not move is rewound here and with init_zero
        away_from_zero = layer.final.abs() > layer.rewound.abs()
        return _at_this_cut(layer.rewound.masked_fill(away_from_zero, 0.0), layer)


def _toward_zero(layer: Layer) -> Tensor:
    """Return [s] bool: the weights whose magnitude training made smaller than the rewound one."""
    return layer.final.abs() < layer.rewound.abs()


def _at_this_cut(decided: Tensor, layer: Layer) -> Tensor:
    """Return [s]: `decided` where this cut removed a weight, else `layer.init`."""
    # weights that an earlier cut removed stay at the value that they were frozen at
    return decided.where(layer.cut, layer.init)
