"""A lab to try searches in: a real one, over the smallest of cells, whose trainings are made up on the spot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.component import Component
from lotteryfw.api.data import Dataset, DatasetInfo
from lotteryfw.api.errors import DataError
from lotteryfw.api.kinds import (
    DataSource,
    Initialiser,
    Mask0Action,
    Mask1Action,
    MaskCriterion,
    ModelFamily,
    Objective,
    Optimizer,
    Parametrization,
    RewindPolicy,
    Schedule,
    Scope,
    SearchAlgorithm,
)
from lotteryfw.api.lab import Lab, Search
from lotteryfw.api.layers import SCORES, Group, Layer, LayerInfo, MaskedLayer, MaskedNetwork
from lotteryfw.api.metrics import Curve, Metrics
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import RewindPoint
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Gradient, Job, Spec, Train
from lotteryfw.search.lab import CellLab
from lotteryfw.search.top_k import budget, straight_through

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class DenseOnly(SearchAlgorithm):
    """Trains the dense network."""

    def search(self, lab: Lab) -> Search[None]:
        ticket = lab.dense()
        lab.record(0, ticket, (yield from lab.train(ticket)))


class Magnitude(MaskCriterion):
    """Keeps the largest weights."""

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs()


class FifthOfEach(Scope):
    """A fifth of every layer goes."""

    def groups(
        self, layers: Sequence[LayerInfo], kept: Mapping[str, int], times: int
    ) -> list[Group]:
        return [
            Group((name,), budget(count, 0.2, times), count * 0.8**times)
            for name, count in kept.items()
        ]

    def at(self, layers: Sequence[LayerInfo], density: float) -> list[Group]:
        return [
            Group((layer.name,), round(density * layer.size), density * layer.size)
            for layer in layers
        ]


class Back(Mask1Action):
    """Kept weights go back."""

    def kept_values(self, layer: Layer) -> Tensor:
        return layer.rewound


class Nought(Mask0Action):
    """Masked weights are 0."""

    def masked_values(self, layer: Layer) -> Tensor:
        return layer.init.masked_fill(layer.cut, 0.0)


class ToStart(RewindPolicy):
    """Back to step 0."""

    def point(self, clock: Clock) -> RewindPoint:
        return RewindPoint(weights=0, schedule=0)


class BestOfAll(Parametrization):
    """Of each budget the edges of largest score; without budgets those above 0."""

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.randn(layer.shape, generator=rng)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        import torch

        masks = {name: edges.allowed & (edges.scores > 0) for name, edges in net.edges.items()}
        for (name,), keep in ((group.layers, group.keep) for group in net.budgets):
            edges = net.edges[name]
            order = (
                edges.scores.masked_fill(~edges.allowed, float("-inf"))
                .flatten()
                .argsort(descending=True)
            )
            best = torch.zeros(edges.info.size, dtype=torch.bool).index_fill(0, order[:keep], True)
            masks[name] = best.reshape(edges.info.shape)
        return masks

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        return edges.weights * straight_through(mask, edges.scores)


class TwoLayers(ModelFamily):
    """Two fully connected layers."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        from torch import nn

        layers = OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(prod(shape), 10),
            relu=nn.ReLU(),
            fc2=nn.Linear(10, classes),
        )
        return nn.Sequential(layers)


class Gaussian(Initialiser):
    """Normal draws."""

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return 0.3 * torch.randn(layer.shape, generator=rng)


class Unread(DataSource):
    """Known by its facts only: nobody trains on it."""

    def facts(self, folder: Path) -> DatasetInfo:
        return DatasetInfo((8,), 4, train=200, validation=40, test=40)

    def load(self, folder: Path) -> Dataset:
        raise DataError("the test bench has no examples")


class Never(Objective):
    """Never asked: nothing is trained."""

    def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        return outputs.sum()

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(1) == labels


class PlainSgd(Optimizer):
    """Never built: nothing is trained."""

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(list(parameters), lr=0.1)


class Steady(Schedule):
    """Never asked: nothing is trained."""

    def factor(self, step: int, clock: Clock) -> float:
        return 1.0


STAND_INS: Mapping[str, Component] = {
    cls.kind: cls()
    for cls in (
        DenseOnly, Magnitude, FifthOfEach, Back, Nought, ToStart, BestOfAll, TwoLayers, Gaussian, Unread, Never,
        PlainSgd, Steady,
    )
}  # fmt: skip


CLOCK = Clock(1000, 10)


def make_lab(*, seed: int = 0, clock: Clock = CLOCK, **parts: Any) -> CellLab:
    """A lab over a cell with these parts (by the names of `Cell`'s fields) and the plainest stand-ins for the rest."""
    fixed = {"study": "", "id": "", "axes": {}, "augment": (), "batch": 20, "evaluate_every": 100}
    cell = Cell(**{**STAND_INS, **fixed, **parts}, seed=seed, clock=clock)
    return CellLab(cell, _describe, Path(), "cpu")


def _describe(component: Component, clock: Clock) -> Spec:
    cls = type(component)
    return Spec(component.kind, cls.use or cls.__name__, "testkit", component.options(clock))


class MadeUp:
    """The outcome of a job that nobody ran: what it trains is on a random walk from where it started, the rest unmoved.

    Equal jobs have equal outcomes. Accuracy falls with density, so a search that waits for that comes to its end.
    """

    diverged_at: int | None = None

    def __init__(self, job: Job):
        self.job = job
        self.key = job.key

    @cached_property
    def metrics(self) -> Metrics:
        masks = self.job.mask.values()
        accuracy = 0.5 + 0.4 * float(
            sum(mask.sum() for mask in masks) / sum(mask.numel() for mask in masks)
        )
        steps = self.job.steps if isinstance(self.job, Train) else 0
        curve = Curve((0, steps), (None, 0.5), (1.4, 0.6), (0.25, accuracy))
        return Metrics(
            steps, steps, 0.6, accuracy, 0.6, accuracy, 0.6, accuracy, 0.6, accuracy, curve
        )

    def tensors(self) -> Mapping[str, Tensor]:
        if isinstance(self.job, Gradient):
            return {name: self._noise(name, 0) for name in self.job.mask}
        return self._values(self.job.steps)

    def mask(self) -> Mapping[str, Tensor]:
        return self.job.mask

    def state(self, step: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        assert isinstance(self.job, Train)
        assert step in self.job.snapshots, (
            f"nobody asked the training to keep its state of step {step}"
        )
        return self._values(step), {"0.momentum": self._noise(next(iter(self.job.mask)), step)}

    def _values(self, step: int) -> dict[str, Tensor]:
        values = dict(self.job.values)
        scored = isinstance(self.job, Train) and self.job.parametrization is not None
        trained = [name for name in values if name.startswith(SCORES) or not scored] if step else []
        for name in trained:
            value = values[name]
            moved = value + self._noise(name, step)
            values[name] = (
                moved.where(self.job.mask[name], value) if name in self.job.mask else moved
            )
        return values

    def _noise(self, name: str, step: int) -> Tensor:
        import torch

        rng = stream("testkit", self.key, name, step)
        return 0.2 * torch.randn(self.job.values[name].shape, generator=rng)
