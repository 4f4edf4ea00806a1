"""A lab to try searches in: a real one over a tiny cell, whose trainings have fake outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.component import Component
from lotteryfw.api.kinds import MaskUpdate, Metric, Parametrization
from lotteryfw.api.layers import Group, LayerInfo, MaskedLayer, MaskedNetwork
from lotteryfw.api.mask_updates import TrainingNetwork
from lotteryfw.api.metrics import Curve, Evaluation, Metrics
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import REMOVED_WITH, SELECTED
from lotteryfw.registry import Registry
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Evaluate, Job, ProbeJob, Spec, Train
from lotteryfw.search.lab import CellLab
from lotteryfw.search.top_k import straight_through

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLOCK = Clock(1000, 10)
COMPONENTS: Mapping[str, object] = {
    "search": "lotteryfw/imp",
    "criterion": "lotteryfw/large_final",
    "scope": "lotteryfw/layerwise",
    "mask1": "lotteryfw/rewind",
    "mask0": "lotteryfw/zero",
    "rewind": "lotteryfw/to_init",
    "model": {"use": "lotteryfw/mlp", "hidden": [10]},
    "initialiser": "lotteryfw/glorot_normal",
    "data": {"use": "lotteryfw/synthetic", "examples": 200, "classes": 4, "shape": [8]},
    "objective": "lotteryfw/classification",
    "optimizer": {"use": "lotteryfw/sgd", "lr": 0.1},
    "schedule": "lotteryfw/constant",
}
"""The cell's components as a recipe names them; no job runs, so none of the data is made.

They are named in full: a plugin that offers another default must not change another one's trial.
"""


class LargestScores(Parametrization):
    """Keeps the edges of largest score in each budget; without budgets those above 0.

    A search under trial may pass a density or none; each built-in parametrization takes one of these.
    """

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.randn(layer.shape, generator=rng)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        import torch

        masks = {name: edges.allowed & (edges.scores > 0) for name, edges in net.edges.items()}
        for group in net.budgets:
            (name,) = group.layers  # the scope of this cell has a budget for each layer
            edges = net.edges[name]
            scores = edges.scores.masked_fill(~edges.allowed, float("-inf"))
            order = scores.flatten().argsort(descending=True)
            mask = torch.zeros(edges.info.size, dtype=torch.bool)
            mask[order[: group.keep]] = True
            masks[name] = mask.reshape(edges.info.shape)
        return masks

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        return edges.weights * straight_through(mask, edges.scores)


class HalfOfEachLayer(MaskUpdate):
    """Keeps the half of each layer's weights that is largest, once, in the middle of a training."""

    def due(self, step: int, clock: Clock) -> bool:
        return step == clock.total // 2

    def budgets(
        self, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        groups = []
        for name, count in kept.items():
            groups.append(Group((name,), count // 2, count / 2))
        return groups

    def update(self, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
        masks = {}
        for name, mask in net.masks.items():
            masks[name] = half_of(mask, net.weights[name].abs())
        return masks


def half_of(mask: Tensor, scores: Tensor) -> Tensor:
    """Return [s] bool: the half of the weights in `mask` that has the largest scores."""
    import torch

    order = scores.masked_fill(~mask, float("-inf")).flatten().argsort(descending=True)
    half = torch.zeros(mask.numel(), dtype=torch.bool)
    half[order[: int(mask.sum()) // 2]] = True
    return half.reshape(mask.shape)


@cache
def _components() -> dict[str, Component]:
    registry = Registry.load()
    components = {kind: registry.create(kind, entry) for kind, entry in COMPONENTS.items()}
    return {
        **components,
        "parametrization": LargestScores(),
        "mask_update": HalfOfEachLayer(),
    }


def make_lab(*, seed: int = 0, clock: Clock = CLOCK, **parts: Any) -> CellLab:
    """Return a lab over a tiny cell; `parts` replace its fields by the names of `Cell`'s fields."""
    fields: dict[str, Any] = {
        "study": "",
        "id": "",
        "axes": {},
        "augment": (),
        "batch": 20,
        "evaluate_every": 100,
    }
    cell = Cell(**{**_components(), **fields, **parts}, seed=seed, clock=clock)
    return CellLab(cell, _describe, Path(), "cpu")


@dataclass(frozen=True)
class MetricSpec(Spec):
    """A metric as the lab's jobs name it, with the name that its figure has."""

    figure: str


def _describe(component: Component, clock: Clock) -> Spec:
    cls = type(component)
    names = (component.kind, cls.use or cls.__name__, "testkit")
    if isinstance(component, Metric):
        return MetricSpec(*names, component.options(clock), component.name())
    return Spec(*names, component.options(clock))


class FakeOutcome:
    """The outcome of a job that did not run: trained tensors take a random step, others stay.

    Equal jobs have equal outcomes. Accuracy falls with density, so that a search which prunes until
    accuracy is too low comes to its end.
    """

    diverged_at: int | None = None

    def __init__(self, job: Job):
        self.job = job
        self.key = job.key

    @cached_property
    def metrics(self) -> Metrics:
        kept = total = 0
        for mask in self.job.mask.values():
            kept += int(mask.sum())
            total += mask.numel()
        accuracy = 0.5 + 0.4 * (kept / total)
        steps = self.job.steps
        curve = Curve((0, steps), (None, 0.5), (1.4, 0.6), (0.25, accuracy))
        # the same loss and accuracy on every part, at the end and at the early stop
        return Metrics(
            steps, steps, 0.6, accuracy, 0.6, accuracy, 0.6, accuracy, 0.6, accuracy, curve
        )

    @cached_property
    def evaluation(self) -> Evaluation:
        assert isinstance(self.job, Evaluate)
        figures = {}
        for spec in self.job.metrics:
            # jobs of a real lab do not say what a figure is called
            name = spec.figure if isinstance(spec, MetricSpec) else spec.use
            figures[name] = 0.5
        return Evaluation(0.6, 0.8, figures)

    def tensors(self) -> NetworkState:
        # a probe has one tensor for each prunable parameter
        if isinstance(self.job, ProbeJob):
            return NetworkState({name: self._noise(name, 0) for name in self.job.mask})
        return self._network(self.job.steps if isinstance(self.job, Train) else 0)

    def mask(self) -> Mapping[str, Tensor]:
        if isinstance(self.job, Train) and self.job.mask_update is not None:
            halves = {}
            for name, mask in self.job.mask.items():
                halves[name] = half_of(mask, self._noise(name, self.job.steps))
            return halves
        return self.job.mask

    def state(self, step: int) -> tuple[NetworkState, Mapping[str, Tensor]]:
        # the engine has no other state either: a search that reads one did not ask for it
        assert isinstance(self.job, Train)
        assert step in self.job.snapshots, (
            f"nobody asked the training to keep its state of step {step}"
        )
        return self._network(step), {"0.momentum": self._noise(next(iter(self.job.mask)), step)}

    def _network(self, step: int) -> NetworkState:
        job = self.job
        scores = job.scores if isinstance(job, Train) else {}
        if not step:
            return NetworkState(job.values, scores=scores)
        # where a mask is learned, scores are trained and weights stay
        if scores:
            moved = {name: value + self._noise(name, step) for name, value in scores.items()}
            # the edges that some step selected are more than those of the last mask
            selected = {name: mask.clone() for name, mask in job.mask.items()}
            return NetworkState(job.values, scores=moved, extra={SELECTED: selected})
        values = {}
        for name, value in job.values.items():
            values[name] = value + self._noise(name, step)
            if name in job.mask:
                values[name] = values[name].where(job.mask[name], value)
        if isinstance(job, Train) and job.mask_update is not None:
            return self._with_masks(values)
        return NetworkState(values)

    def _with_masks(self, values: dict[str, Tensor]) -> NetworkState:
        """Return a network that an update removed half of the weights of."""
        # as the engine keeps it: what was masked before was not removed by the update
        masks, removed_with = self.mask(), {}
        for name, mask in masks.items():
            removed_with[name] = values[name].where(self.job.mask[name] & ~mask, 0 * values[name])
            values[name] = values[name].where(mask, 0 * values[name])
        return NetworkState(values, masks, extra={REMOVED_WITH: removed_with})

    def _noise(self, name: str, step: int) -> Tensor:
        import torch

        # by the key, so that equal jobs have equal outcomes, as those of the store are
        rng = stream("testkit", self.key, name, step)
        return 0.2 * torch.randn(self.job.values[name].shape, generator=rng)
