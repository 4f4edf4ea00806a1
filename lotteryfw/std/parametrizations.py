"""Parametrizations: how masks are learned over weights that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import (
    IncrementalTopK,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Parametrization,
    UsageError,
    straight_through,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Bernoulli(Parametrization):
    """Supermasks: every edge takes part with a probability of its own, drawn anew in each step.

    A score is the logit of that probability. A mask is made of the edges more likely in than out.
    """

    use = "bernoulli"
    formula = "w · m, m ~ Bernoulli(sigmoid(s)), ∂m/∂s taken as ∂sigmoid(s)/∂s"
    source = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 5.1"
    needs_density = False

    rescale: Literal["none", "static", "dynamic"] = "none"
    """Multiply a layer's masked weights by size / kept: "dynamic" by those of the mask just drawn, with the gradient
    through the factor too; "static" by those expected at the start."""
    logit: float = 0.0
    """The value that every score starts at; 0: a probability of one half."""
    samples: Annotated[int, Field(ge=1)] = 10
    """Masks that an evaluation draws and averages over."""

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.full(layer.shape, self.logit)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        # a score above 0 is a probability above one half
        return {name: (edges.scores > 0) & edges.allowed for name, edges in net.edges.items()}

    def sampled(self, net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
        noise = self.noise([edges.info for edges in net.edges.values()], rng)
        here = {name: numbers.to(net.edges[name].scores.device) for name, numbers in noise.items()}
        return self.masks_from(net, here)

    def noise(self, layers: Sequence[LayerInfo], rng: torch.Generator) -> dict[str, Tensor]:
        import torch

        return {layer.name: torch.rand(layer.shape, generator=rng) for layer in layers}

    def masks_from(self, net: MaskedNetwork, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        masks = {}
        for name, edges in net.edges.items():
            masks[name] = (noise[name] < edges.scores.sigmoid()) & edges.allowed
        return masks

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        import torch

        taking_part = straight_through(mask, edges.scores.sigmoid())
        weight = edges.weights * taking_part
        if self.rescale == "dynamic":
            # a bound below 1 holds back the gradient of an empty mask only, not that of a single edge
            return weight * (edges.info.size / taking_part.sum().clamp(min=0.5))
        if self.rescale == "static":
            return weight / torch.tensor(self.logit).sigmoid().item()
        return weight

    def expected(self, edges: MaskedLayer, mask: Tensor) -> float:
        return float(edges.scores.double().sigmoid()[edges.allowed].sum())

    def draws(self) -> int:
        return self.samples

    def closed_form(self) -> str:
        # a subclass may do something else, and must say so itself
        if type(self) is not Bernoulli or self.rescale == "static":
            return ""
        return "bernoulli" if self.rescale == "none" else "bernoulli_dynamic"


class TopK(Parametrization):
    """Edge-popup: of each budget the edges of largest score take part; every score gets a gradient.

    Of equal scores the ones of lower index win, as in a stable sort. Scores start at U(±1 / sqrt(fan_in)), unless the
    recipe's `scores` says otherwise; `scores = "pytorch_default"` is the same distribution.
    """

    use = "top_k"
    formula = "w · m, m = [|s| among the k largest], ∂m/∂|s| taken as 1"
    source = (
        "Ramanujan et al. 2020, What's Hidden in a Randomly Weighted Neural Network?, section 3"
    )
    needs_density = True

    rank: Literal["abs", "signed"] = "abs"
    """Rank scores by their magnitude, or as they are."""
    every: Annotated[int, Field(ge=1)] = 1
    """Steps from one selection to the next."""
    scale_fan: bool = False
    """Multiply a layer's masked weights by sqrt(size / kept): an initialiser of variance 2 / fan_in then counts the
    inputs that the mask leaves."""

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return (torch.rand(layer.shape, generator=rng) * 2 - 1) / sqrt(layer.fan_in)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        import torch

        if not net.budgets:
            why = "the search gives none, or the scope leaves every layer whole"
            raise UsageError(
                f"parametrization '{self.use}' needs a density, and layers that share it: {why}"
            )
        masks = {name: edges.allowed for name, edges in net.edges.items()}
        for group in net.budgets:
            shared = [net.edges[name] for name in group.layers]
            if group not in net.memory:
                net.memory[group] = _Best(shared, group.keep)
            ranks = [self._ranked(edges.scores).flatten() for edges in shared]
            # one layer needs no copy, and most scopes have one layer in a budget
            best = net.memory[group](ranks[0] if len(ranks) == 1 else torch.cat(ranks))
            parts = torch.split(best, [edges.info.size for edges in shared])
            masks |= {
                edges.info.name: part.view(edges.info.shape)
                for edges, part in zip(shared, parts, strict=True)
            }
        return masks

    def _ranked(self, scores: Tensor) -> Tensor:
        """[s] float32: what is ranked, and what the mask stands for in the gradient."""
        return scores.abs() if self.rank == "abs" else scores

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        weight = edges.weights * straight_through(mask, self._ranked(edges.scores))
        return (
            weight * (edges.info.size / mask.sum().clamp(min=1)).sqrt()
            if self.scale_fan
            else weight
        )

    def refresh(self) -> int:
        return self.every

    def closed_form(self) -> str:
        # a subclass may do something else, and must say so itself
        if type(self) is not TopK or self.scale_fan:
            return ""
        return "top_k_magnitude" if self.rank == "abs" else "top_k"


class _Best:
    """Selects the `keep` best of the edges that share a budget, step after step."""

    def __init__(self, shared: Sequence[MaskedLayer], keep: int):
        import torch

        allowed = torch.cat([edges.allowed.flatten() for edges in shared])
        # hard pruning may leave fewer edges than the scope's budget would keep
        self._keep = min(keep, int(allowed.sum()))
        # added to the ranks in each step: -inf ranks below every score, and 0 changes none
        barred = torch.zeros(len(allowed), device=allowed.device).masked_fill(~allowed, -inf)
        self._barred = None if bool(allowed.all()) else barred
        # scores move little in a step, so the last selection is a good start for the next
        self._warm = IncrementalTopK(self._keep)

    def __call__(self, ranks: Tensor) -> Tensor:
        """[n] bool for the ranks [n] of all those edges."""
        return self._warm(ranks if self._barred is None else ranks + self._barred)
