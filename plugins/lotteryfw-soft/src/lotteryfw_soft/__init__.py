"""Weights and masks that one training learns together, for lotteryfw."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import (
    Component,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Parametrization,
    UpdateFactors,
    hookimpl,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Factor = Annotated[float, Field(ge=0)]


class SoftThreshold(Parametrization):
    """Soft threshold reparametrization (STR): each layer learns a threshold, and its weights shrink by it.

    A weight below its layer's threshold is pruned, and comes back if it grows above it. Weight decay
    drives the thresholds up: how sparse the network becomes follows from the weight decay and from
    `initial`, and cannot be asked for.
    """

    use = "soft_threshold"
    formula = "sign(w) max(0, |w| - sigmoid(s)), one s for each layer"
    source = (
        "Kusupati et al. 2020, Soft Threshold Weight Reparameterization for Learnable Sparsity, "
        "section 3.1"
    )
    needs_density = False
    trains_weights = True

    initial_score: float = -10.0
    """s at the start. The published runs of 100 epochs on ImageNet start at -3200 to -12800, where
    weight decay alone moves it for most of the training."""
    decay: Factor = 1.0
    """Weight decay of the thresholds, as a multiple of that of the weights."""
    learning_rate: Factor = 1.0
    """Learning rate of the thresholds, as a multiple of that of the weights."""

    def score_shape(self, layer: LayerInfo) -> tuple[int, ...]:
        return (1,)

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.full((1,), self.initial_score)

    def factors(self, name: str, is_score: bool) -> UpdateFactors:
        return UpdateFactors(self.learning_rate, self.decay) if is_score else UpdateFactors()

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        masks = {}
        for name, edges in net.edges.items():
            masks[name] = (edges.weights.abs() > edges.scores.sigmoid()) & edges.allowed
        return masks

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        shrunk = edges.weights - edges.weights.sign() * edges.scores.sigmoid()
        return shrunk.masked_fill(~mask, 0.0)


class ContinuousSparsification(Parametrization):
    """Continuous sparsification: soft gates sigmoid(β s) on the weights harden as β grows.

    β grows exponentially from 1 to `temperature`. A penalty on the gates makes the mask sparse; what is
    found are the weights whose score is above 0, under gates of 1, and that is what evaluations measure.
    """

    use = "continuous_sparsification"
    formula = "w · sigmoid(β s) / sigmoid(s_0), loss + penalty Σ gates; at the end w · [s > 0] / sigmoid(s_0)"
    source = (
        "Savarese et al. 2020, Winning the Lottery with Continuous Sparsification, section 4 and "
        "the code published with it"
    )
    needs_density = False
    trains_weights = True

    initial_score: float = 0.0
    """s_0, where all scores start. Below 0 the mask becomes sparser, above denser: -0.3 to 0.3."""
    temperature: Annotated[float, Field(gt=1)] = 200.0
    """β at the end of the training."""
    strength: Annotated[float, Field(ge=0)] = 1e-8
    """The factor λ of the penalty."""
    learning_rate: Factor = 1.0
    """Learning rate of the scores, as a multiple of that of the weights."""

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.full(layer.shape, self.initial_score)

    def factors(self, name: str, is_score: bool) -> UpdateFactors:
        # The published code gives the scores an optimizer of their own, without weight decay.
        return UpdateFactors(self.learning_rate, 0.0) if is_score else UpdateFactors()

    def penalty(self, net: MaskedNetwork) -> Tensor:
        import torch

        sums = [self._gates(edges).sum() for edges in net.edges.values()]
        return self.strength * torch.stack(sums).sum()

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        masks = {}
        for name, edges in net.edges.items():
            masks[name] = (edges.scores > 0) & edges.allowed
        return masks

    def sampled(self, net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
        # Soft gates let every weight take part in a step.
        return {name: edges.allowed for name, edges in net.edges.items()}

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        if edges.progress is None:
            return edges.weights * mask * self._scale
        return edges.weights * mask * self._gates(edges)

    @property
    def _scale(self) -> float:
        """The factor of a gate, so that the network starts with its weights as they are drawn."""
        return 1 + exp(-self.initial_score)

    def _gates(self, edges: MaskedLayer) -> Tensor:
        """Return [s] float32: the soft gates of a step."""
        beta = self.temperature ** (edges.progress or 0.0)
        return self._scale * (beta * edges.scores).sigmoid()


@hookimpl
def register_components() -> list[type[Component]]:
    return [SoftThreshold, ContinuousSparsification]


@hookimpl
def register_recipes() -> list[Path]:
    return sorted(Path(__file__).with_name("recipes").glob("*.toml"))
