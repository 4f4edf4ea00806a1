"""A plugin file with mask updates: one that does all that a mask update may do, and one that breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw import Clock, Component, Group, LayerInfo, MaskUpdate, TrainingNetwork, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

FILE = Path(__file__)


class Swap(MaskUpdate):
    """Replaces a quarter of each layer's weights by those of largest gradient plus some noise."""

    use = "swap"

    every: int = 4

    def due(self, step: int, clock: Clock) -> bool:
        return step % self.every == 0

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        return []

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        import torch

        masks = {}
        for layer in net.layers:
            mask = net.masks[layer.name]
            count = min(int(mask.sum()) // 4, int((~mask).sum()))
            weak = net.weights[layer.name].abs().masked_fill(~mask, torch.inf).flatten()
            noise = torch.rand(layer.shape, generator=net.rng).to(weak.device)
            slope = (net.gradients()[layer.name].abs() + 0.01 * noise).masked_fill(mask, -1)
            new = mask.clone().flatten()
            new[weak.argsort(stable=True)[:count]] = False
            new[slope.flatten().argsort(descending=True, stable=True)[:count]] = True
            masks[layer.name] = new.reshape(layer.shape)
        return masks

    def regrown(self, layer: LayerInfo, net: TrainingNetwork) -> Tensor:
        return net.draw(layer)


class Broken(MaskUpdate):
    """Breaks its promises at step 2, in the way that `how` says."""

    use = "broken_update"

    how: str = "budget"

    def due(self, step: int, clock: Clock) -> bool:
        return step == 2

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        groups: dict[str, Any] = {
            "too many": [Group(("fc1.weight",), 10_000, 10_000)],
            "unknown layer": [Group(("fc9.weight",), 1, 1)],
            "twice": [Group(("fc1.weight",), 1, 1), Group(("fc1.weight", "fc2.weight"), 1, 1)],
            "no group": [3],
        }
        budgets: list[Group] = groups.get(self.how, [])
        return budgets

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        import torch

        mask = net.masks["fc1.weight"]
        half = torch.zeros_like(mask)
        half[: len(half) // 2] = True
        if self.how == "writes":
            net.weights["fc1.weight"].zero_()
        if self.how == "raises":
            raise RuntimeError("nothing here")
        masks: dict[str, Any] = {
            "unknown mask": {"fc9.weight": mask},
            "float": {"fc1.weight": mask.float()},
            "shape": {"fc1.weight": mask[1:]},
            "list": [mask],
            "NaN": {"fc1.weight": mask.roll(1, 1)},
        }
        answer: dict[str, Tensor] = masks.get(self.how, {"fc1.weight": half})
        return answer

    def regrown(self, layer: LayerInfo, net: TrainingNetwork) -> Tensor:
        return net.weights[layer.name] / 0


@hookimpl
def register_components() -> list[type[Component]]:
    return [Swap, Broken]
