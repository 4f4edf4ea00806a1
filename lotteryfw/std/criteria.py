"""Mask criteria, a formula each.

w_i is a weight before the round just trained, w_f the same weight after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw import Layer, MaskCriterion

if TYPE_CHECKING:
    from torch import Tensor

DECONSTRUCTING = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 2"
DECONSTRUCTING_CODE = (
    "Zhou et al. 2019, Deconstructing Lottery Tickets: a variant of the code published with it"
)


class LargeFinal(MaskCriterion):
    """Keeps the weights that are largest after training."""

    use = "large_final"
    formula = "|w_f|"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 1"
    default = True

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs()


class SmallFinal(MaskCriterion):
    """Keeps the weights that are smallest after training: a control."""

    use = "small_final"
    formula = "-|w_f|"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return -layer.final.abs()


class LargeInit(MaskCriterion):
    """Keeps the weights that were largest before training."""

    use = "large_init"
    formula = "|w_i|"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return layer.init.abs()


class SmallInit(MaskCriterion):
    """Keeps the weights that were smallest before training: a control."""

    use = "small_init"
    formula = "-|w_i|"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return -layer.init.abs()


# The paper scales one side by α, which is a number of the layer to be found. Ranks cut both sides
# at one percentile without it, and leave the order of the scores as it is.
class LargeInitLargeFinal(MaskCriterion):
    """Keeps the weights that are large both before and after training.

    The paper's min(α|w_f|, |w_i|), with α such that both sides cut at one percentile of the layer.
    """

    use = "large_init_large_final"
    formula = "min(rank |w_i|, rank |w_f|), rank: percentile among the layer's living weights"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return _rank(layer.init.abs(), layer.mask).minimum(_rank(layer.final.abs(), layer.mask))


class SmallInitSmallFinal(MaskCriterion):
    """Keeps the weights that are small both before and after training: a control.

    The paper's -max(α|w_f|, |w_i|), with α such that both sides cut at one percentile of the layer.
    """

    use = "small_init_small_final"
    formula = "min(rank -|w_i|, rank -|w_f|), rank: percentile among the layer's living weights"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return _rank(-layer.init.abs(), layer.mask).minimum(_rank(-layer.final.abs(), layer.mask))


class MagnitudeIncrease(MaskCriterion):
    """Keeps the weights that grew most."""

    use = "magnitude_increase"
    formula = "|w_f| - |w_i|"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs() - layer.init.abs()


class Movement(MaskCriterion):
    """Keeps the weights that moved furthest, in whichever direction."""

    use = "movement"
    formula = "|w_f - w_i|"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        return (layer.final - layer.init).abs()


class Random(MaskCriterion):
    """Keeps weights at random: the control of all others."""

    use = "random"
    formula = "U(0, 1)"
    source = DECONSTRUCTING

    def score(self, layer: Layer) -> Tensor:
        import torch

        # drawn on the CPU, so that every device keeps the same weights
        return torch.rand(layer.info.shape, generator=layer.rng).to(layer.final.device)


class LargeFinalSameSign(MaskCriterion):
    """Keeps the weights that are largest after training among those that kept their sign."""

    use = "large_final_same_sign"
    formula = "|w_f| where w_i and w_f have one sign, else 0"
    source = DECONSTRUCTING_CODE

    def score(self, layer: Layer) -> Tensor:
        # 0, the lowest magnitude: others are kept only where too few kept their sign
        return layer.final.abs().where(_sign_product(layer) > 0, 0.0)


class LargeFinalDiffSign(MaskCriterion):
    """Keeps the weights that are largest after training among those that changed their sign."""

    use = "large_final_diff_sign"
    formula = "|w_f| where w_i and w_f have opposite signs, else 0"
    source = DECONSTRUCTING_CODE

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs().where(_sign_product(layer) < 0, 0.0)


class MagnitudeIncreaseSameSign(MaskCriterion):
    """Keeps the weights that grew most among those that kept their sign."""

    use = "magnitude_increase_same_sign"
    formula = "|w_f| - |w_i| where w_i and w_f have one sign, else the lowest float32"
    source = DECONSTRUCTING_CODE

    def score(self, layer: Layer) -> Tensor:
        return _or_lowest(layer.final.abs() - layer.init.abs(), _sign_product(layer) > 0)


class MagnitudeIncreaseDiffSign(MaskCriterion):
    """Keeps the weights that grew most among those that changed their sign."""

    use = "magnitude_increase_diff_sign"
    formula = "|w_f| - |w_i| where w_i and w_f have opposite signs, else the lowest float32"
    source = DECONSTRUCTING_CODE

    def score(self, layer: Layer) -> Tensor:
        return _or_lowest(layer.final.abs() - layer.init.abs(), _sign_product(layer) < 0)


def _rank(values: Tensor, alive: Tensor) -> Tensor:
    """Return [s] float64 in [0, 1]: the share of the living values that lie below each value.

    Ties share one rank.
    """
    import torch

    # without those cut earlier: their frozen zeros would fill the lowest percentiles
    ordered = values[alive].sort().values
    # float64 counts exactly; float32 would merge ranks in layers of more than 2**24 weights
    return torch.searchsorted(ordered, values.contiguous()).double() / max(1, len(ordered))


def _sign_product(layer: Layer) -> Tensor:
    """Return [s]: 1 where w_i and w_f have one sign, -1 where it flipped, 0 where one of them is 0.

    Signs are multiplied, not values: those underflow to 0.
    """
    return layer.init.sign() * layer.final.sign()


def _or_lowest(score: Tensor, passing: Tensor) -> Tensor:
    """Return [s]: `score` where `passing`, elsewhere a score below every other of any layer."""
    import torch

    # 0 would not do, as a magnitude may shrink and then scores less; -inf is not a score; a layer's
    # own minimum would outrank the scores of other layers in a shared budget
    return score.where(passing, torch.finfo(torch.float32).min)
