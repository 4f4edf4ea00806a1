"""Strong lottery tickets beyond edge-popup, for lotteryfw: weights that are drawn anew, and signs that are learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import (
    Component,
    IncrementalTopK,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Parametrization,
    hookimpl,
    straight_through,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class IteRand(Parametrization):
    """Edge-popup whose unselected weights are drawn anew every now and then.

    After every `period` steps each weight that the scores leave out just then is replaced, with probability `rate`, by
    a fresh draw of the recipe's initialiser. Its score stays. Weights that were removed for good are left alone, and
    without a density nothing is left out.

    As in the code published with the paper, scores are ranked as they are, not by magnitude, and start at
    U(±sqrt(6 / fan_in)), unless the recipe's `scores` says otherwise.
    """

    use = "iterand"
    formula = "w · m, m = [s among the k largest], ∂m/∂s taken as 1; every period steps w := fresh draw where ~m"
    source = (
        "Chijiwa et al. 2021, Pruning Randomly Initialized Neural Networks with Iterative Randomization, "
        "algorithm 3, and the code published with it (github.com/dchiji-ntt/iterand)"
    )
    needs_density = True

    period: Annotated[int, Field(ge=1)] = 300
    """Steps from one redraw to the next, the paper's K_per: 300 on CIFAR-10, 1000 on ImageNet."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the unselected weights that a redraw replaces, the paper's r; 1 replaces them all."""
    rank: Literal["signed", "abs"] = "signed"
    """Rank scores as they are, as published, or by their magnitude, as edge-popup's code does."""

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        # kaiming_uniform of the published code: mode fan_in and the gain sqrt(2) of ReLU
        return (torch.rand(layer.shape, generator=rng) * 2 - 1) * sqrt(6 / layer.fan_in)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        return _largest(net, self._ranked)

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        return edges.weights * straight_through(mask, self._ranked(edges.scores))

    def _ranked(self, scores: Tensor) -> Tensor:
        return scores.abs() if self.rank == "abs" else scores

    def after_step(
        self, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
    ) -> None:
        import torch

        if (step + 1) % self.period:
            return
        # not the step's own masks: its update may just have selected an edge, which is then to keep its weight
        selected = self.masks(net)
        for name, edges in net.edges.items():
            chosen = (torch.rand(edges.info.shape, generator=rng) < self.rate).to(
                edges.weights.device
            )
            fresh = net.draw(edges.info, rng).to(edges.weights.device)
            edges.weights.copy_(
                fresh.where(chosen & edges.allowed & ~selected[name], edges.weights)
            )


class SignFlip(Parametrization):
    """Weights keep their magnitudes, and signs are learned: a score below 0 flips the sign of its weight.

    Without a density (search `supermask`) nothing is pruned, only sign flips are allowed. With one (search
    `edge_popup`) the scores of largest magnitude take part, each with its sign: keep, hide or invert.

    Ivan & Florian learn flips over frozen weights, Koster et al. masks in {-1, 0, 1}. Ours are the rest: the budget in
    the place of Koster's thresholds, the straight-through slope of 1, and scores that start at uniform values in
    [0, 1 / √fan_in), so that training starts from the signs as they were drawn.
    """

    use = "sign_flip"
    formula = "w · t, t = sign(s) where |s| is among the k largest, else 0; ∂t/∂s taken as 1"
    source = (
        "Ivan & Florian 2020, Training highly effective connectivities within neural networks with randomly "
        "initialized, fixed weights; Koster et al. 2022, Signing the Supermask"
    )

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.rand(layer.shape, generator=rng) / sqrt(layer.fan_in)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        return _largest(net, abs)

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        kept, half = edges.scores >= 0, edges.scores / 2
        return edges.weights * (
            straight_through(mask & kept, half) - straight_through(mask & ~kept, -half)
        )


def _largest(net: MaskedNetwork, ranked: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return by layer, [s] bool: of each budget the allowed edges of largest rank, of ties the first.

    `ranked` gives the ranks of scores. In a layer without a budget every allowed edge is kept.
    """
    import torch

    masks = {name: edges.allowed for name, edges in net.edges.items()}
    for group in net.budgets:
        members = [net.edges[name] for name in group.layers]
        ranks = [
            ranked(edges.scores.detach()).masked_fill(~edges.allowed, float("-inf"))
            for edges in members
        ]
        top: IncrementalTopK = net.memory.setdefault(group.layers, IncrementalTopK(group.keep))
        best = top(torch.cat([rank.flatten() for rank in ranks]))
        parts = torch.split(best, [edges.info.size for edges in members])
        masks |= {
            edges.info.name: part.view(edges.info.shape)
            for edges, part in zip(members, parts, strict=True)
        }
    return masks


@hookimpl
def register_components() -> list[type[Component]]:
    return [IteRand, SignFlip]
