"""Components that the suite needs and lotteryfw does not have: a criterion with gradients, a network with dropout."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from lotteryfw import Component, Layer, MaskCriterion, ModelFamily, Need, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn


class ConnectionSensitivity(MaskCriterion):
    """Keeps the weights whose removal would change the loss most."""

    use = "connection_sensitivity"
    formula = "|w_f ∂L/∂w|"
    source = "Lee et al. 2019, SNIP, section 4"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer: Layer) -> Tensor:
        return (layer.final * layer.gradient).abs()


class Dropped(ModelFamily):
    """A chain with dropout, which draws random numbers on the device."""

    use = "dropped"
    formula = "inputs - 16 - dropout - classes"
    source = "lotteryfw"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(shape), 16),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(16, classes),
        )


@hookimpl
def register_components() -> list[type[Component]]:
    return [ConnectionSensitivity, Dropped]
