"""LAMP for lotteryfw: a magnitude criterion whose scores may be compared between layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from lotteryfw import Component, Layer, MaskCriterion, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class Lamp(MaskCriterion):
    """Keeps the weights that are largest next to what their own layer would still hold without the smaller ones.

    Within a layer the order is that of the magnitudes; between layers, a layer with few weights left defends them. So
    it is meant for the scope `global`, where it sets every layer's density without an option of its own.
    """

    use = "lamp"
    formula = "|w_f|^power / sum of |v_f|^power over the layer's living v with |v_f| >= |w_f|"
    source = "Lee et al. 2021, Layer-adaptive Sparsity for the Magnitude-based Pruning, figure 1"

    power: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Exponent of the magnitudes; 2 is the paper's."""

    def score(self, layer: Layer) -> Tensor:
        import torch

        # float64: the scores of large layers are small, and differ by less than float32 can tell
        powers = layer.final[layer.mask].abs().double() ** self.power
        ascending = powers.sort().values
        from_here_on = ascending.flip(0).cumsum(0).flip(0)
        remaining = from_here_on[
            torch.searchsorted(ascending, powers)
        ]  # equal magnitudes share a sum
        score = torch.zeros_like(layer.final, dtype=torch.float64)
        # where only zeros are left, they score 0 and not 0 / 0
        score[layer.mask] = powers / remaining.clamp_min(torch.finfo(torch.float64).tiny)
        return score


@hookimpl
def register_components() -> list[type[Component]]:
    return [Lamp]
