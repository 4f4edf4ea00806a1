"""Masks that change during one training, for lotteryfw: gradual pruning, SET, RigL and AC/DC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from lotteryfw import (
    Clock,
    Component,
    Group,
    LayerInfo,
    MaskUpdate,
    Step,
    TrainingNetwork,
    UsageError,
    hookimpl,
)

if TYPE_CHECKING:
    from torch import Tensor

Density = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Budgeted = Literal["layerwise", "global"]


class GradualPruning(MaskUpdate):
    """Gradual magnitude pruning: the density falls along a cubic curve while the network trains.

    At each change the weights of smallest magnitude go. They do not come back.
    """

    use = "gradual"
    formula = "density(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^3"
    source = "Zhu & Gupta 2017, To prune, or not to prune, equation 1"

    density: Density = 0.1
    """What is kept at the end."""
    initial: Density = 1.0
    """What the training begins with: the search's own `density`. Where that is smaller, the first
    changes remove nothing, until the curve has fallen to it."""
    begin: Step = Step.parse("0it")
    """When pruning begins; the first change is `every` steps later."""
    end: Step = Step.parse("75%")
    """When the density is reached."""
    every: Step = Step.parse("100it")
    """From one change to the next."""
    budget: Budgeted = "layerwise"
    """layerwise: each layer has the density; global: the network as a whole has."""

    @model_validator(mode="after")
    def _falls(self) -> GradualPruning:
        if self.initial < self.density:
            raise ValueError(
                f"initial = {self.initial:g} is below density = {self.density:g}, and what is "
                "pruned does not come back"
            )
        return self

    def due(self, step: int, clock: Clock) -> bool:
        begin, end, every = self._times(clock)
        return begin < step <= end and ((step - begin) % every == 0 or step == end)

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        return _at_density(self._density(step, clock), self.budget, layers, kept)

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        return _largest_magnitudes(net, self.budgets(step, clock, net.layers, net.kept))

    def _density(self, step: int, clock: Clock) -> float:
        begin, end, _ = self._times(clock)
        remaining = 1 - (step - begin) / (end - begin)
        return self.density + (self.initial - self.density) * remaining**3

    def _times(self, clock: Clock) -> tuple[int, int, int]:
        begin, end, every = (clock.steps(part) for part in (self.begin, self.end, self.every))
        if not begin < end < clock.total or every < 1:
            raise UsageError(
                f"gradual: begin ({self.begin}) must lie before end ({self.end}), that before the end of the "
                f"training ({clock.total} steps), and every ({self.every}) must be a step or more"
            )
        return begin, end, every


class Set(MaskUpdate):
    """Sparse evolutionary training: a share of each layer's smallest weights is replaced by random new ones."""

    use = "set"
    formula = "drop the share zeta of smallest |w|, grow as many at random, layer by layer"
    source = "Mocanu et al. 2018, Scalable training of artificial neural networks, algorithm 2"

    share: Share = 0.3
    """zeta: the share of a layer's living weights that is replaced."""
    every: Step = Step.parse("1ep")
    """From one change to the next."""
    values: Literal["initialiser", "zero"] = "initialiser"
    """What new weights start from: a draw of the recipe's initialiser, or 0."""

    def due(self, step: int, clock: Clock) -> bool:
        return step % _steps("set", "every", self.every, clock) == 0

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        return _unchanged(kept)

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        import torch

        masks = {}
        for layer in net.layers:
            mask, weight = net.masks[layer.name], net.weights[layer.name]
            count = _replaced(self.share, mask)
            survivors = _top(weight.abs(), mask, int(mask.sum()) - count)
            # A weight that has just gone may not come back at once: it is drawn among the others.
            draw = torch.rand(layer.shape, generator=net.rng).to(weight.device)
            masks[layer.name] = survivors | _top(draw, ~mask, count)
        return masks

    def regrown(self, layer: LayerInfo, net: TrainingNetwork) -> Tensor:
        if self.values == "zero":
            return super().regrown(layer, net)
        return net.draw(layer).to(net.weights[layer.name].device)


class RigL(MaskUpdate):
    """Rigged lottery: small weights are replaced by those whose gradient is largest, ever fewer of them."""

    use = "rigl"
    formula = "drop f(t) of smallest |w|, grow as many of largest |dL/dw|; f(t) = alpha / 2 (1 + cos(pi t / end))"
    source = "Evci et al. 2020, Rigging the Lottery, algorithm 1"

    alpha: Share = 0.3
    """The share of a layer's living weights that is replaced at first."""
    every: Step = Step.parse("100it")
    """Delta T: from one change to the next."""
    end: Step = Step.parse("75%")
    """T_end: after it the mask stays."""

    def due(self, step: int, clock: Clock) -> bool:
        return step % _steps("rigl", "every", self.every, clock) == 0 and step < clock.steps(
            self.end
        )

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        return _unchanged(kept)

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        share = self.alpha / 2 * (1 + cos(pi * step / clock.steps(self.end)))
        gradients = net.gradients()
        masks = {}
        for layer in net.layers:
            mask = net.masks[layer.name]
            count = _replaced(share, mask)
            survivors = _top(net.weights[layer.name].abs(), mask, int(mask.sum()) - count)
            # The weights that have just gone may come back, as in the paper's algorithm.
            masks[layer.name] = survivors | _top(gradients[layer.name].abs(), ~survivors, count)
        return masks


class AcDc(MaskUpdate):
    """AC/DC: compressed phases under a magnitude mask alternate with phases in which the whole network trains.

    Training begins dense, for `warmup`; then a compressed phase follows, a dense one, and so on. The last
    phase is compressed, from `last` to the end of the training.
    """

    use = "ac_dc"
    formula = "dense → top k of |w| → dense → … → top k of |w|"
    source = "Peste et al. 2021, AC/DC: Alternating Compressed/DeCompressed Training, section 3"

    density: Density = 0.1
    """What compressed phases keep."""
    warmup: Step = Step.parse("10%")
    """How long the network is dense at first: a step or more."""
    phase: Step = Step.parse("5%")
    """The length of each phase."""
    last: Step = Step.parse("85%")
    """When the last compressed phase has begun at the latest."""
    budget: Budgeted = "global"
    """layerwise: each layer has the density; global: the network as a whole has."""

    @model_validator(mode="after")
    def _is_sparse(self) -> AcDc:
        if self.density == 1:
            raise ValueError("density = 1 compresses nothing")
        return self

    def due(self, step: int, clock: Clock) -> bool:
        return self._is_compressed(step, clock) != self._is_compressed(step - 1, clock)

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        if not self._is_compressed(step, clock):
            return [Group((layer.name,), layer.size, layer.size) for layer in layers]
        return _at_density(self.density, self.budget, layers, kept)

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        import torch

        if not self._is_compressed(step, clock):
            return {name: torch.ones_like(mask) for name, mask in net.masks.items()}
        return _largest_magnitudes(net, self.budgets(step, clock, net.layers, net.kept))

    def _is_compressed(self, step: int, clock: Clock) -> bool:
        # a training begins dense, so a phase that began with it would be left out
        warmup = _steps("ac_dc", "warmup", self.warmup, clock)
        last = clock.steps(self.last)
        phase = _steps("ac_dc", "phase", self.phase, clock)
        if not warmup < last < clock.total:
            raise UsageError(
                f"ac_dc: warmup ({self.warmup}) must end before the last phase begins ({self.last}), and that "
                f"before the end of the training ({clock.total} steps)"
            )
        if step < warmup:
            return False
        return step >= last or (step - warmup) // phase % 2 == 0


def _steps(use: str, option: str, length: Step, clock: Clock) -> int:
    steps = clock.steps(length)
    if steps < 1:
        raise UsageError(f"{use}: {option} ({length}) is no step of a training of {clock.total}")
    return steps


def _replaced(share: float, mask: Tensor) -> int:
    """How many weights a layer replaces: a share of the living ones, as far as there are masked ones."""
    alive = int(mask.sum())
    return min(round(share * alive), mask.numel() - alive)


def _unchanged(kept: Mapping[str, int]) -> list[Group]:
    return [Group((name,), count, count) for name, count in kept.items()]


def _at_density(
    density: float, budget: Budgeted, layers: Sequence[LayerInfo], kept: Mapping[str, int]
) -> list[Group]:
    """Budgets at a density, of each layer or of all together, never above what is there."""
    if budget == "layerwise":
        groups = []
        for layer in layers:
            requested = density * layer.size
            groups.append(Group((layer.name,), min(round(requested), kept[layer.name]), requested))
        return groups
    requested = density * sum(layer.size for layer in layers)
    names = tuple(layer.name for layer in layers)
    return [Group(names, min(round(requested), sum(kept.values())), requested)]


def _largest_magnitudes(net: TrainingNetwork, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Masks of the living weights of largest magnitude, within each group's budget."""
    import torch

    masks = {}
    for group in groups:
        magnitudes = torch.cat([net.weights[name].abs().flatten() for name in group.layers])
        alive = torch.cat([net.masks[name].flatten() for name in group.layers])
        chosen = _top(magnitudes, alive, group.keep)
        sizes = [net.masks[name].numel() for name in group.layers]
        for name, part in zip(group.layers, chosen.split(sizes), strict=True):
            masks[name] = part.reshape(net.masks[name].shape)
    return masks


def _top(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """bool [s]: the `count` largest scores where `among` is True; of equal ones, those of lowest index."""
    import torch

    masked = scores.masked_fill(~among, -torch.inf).flatten()
    order = masked.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(masked, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.reshape(scores.shape)


@hookimpl
def register_components() -> list[type[Component]]:
    return [GradualPruning, Set, RigL, AcDc]
