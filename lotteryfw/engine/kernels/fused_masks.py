"""The kernel that learns masks of a plain MLP on the CPU without autograd.

Scores, weights, masks and gradients lie in flat arrays, in the layout that the products of the
sparse kernel read, so that everything about a mask is a pass over neighbouring numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription, sample_optimizer
from lotteryfw.engine.kernels.mask_rules import MASK_RULES, MaskRule, Masks, ScoredLayer
from lotteryfw.engine.kernels.mlp import mlp_layers
from lotteryfw.engine.kernels.optimizer_rules import update_rule, why_no_rule
from lotteryfw.engine.kernels.selection_stats import CURVE_UNITS, SelectionStats
from lotteryfw.engine.kernels.sparse.backends import (
    backends,
    fastest_loops,
    loops_of_job,
    loops_unavailable,
)
from lotteryfw.engine.kernels.sparse.flat_optimizer import FlatOptimizer
from lotteryfw.engine.kernels.sparse.kernel import (
    has_sparse_inputs,
    why_no_products,
    why_other_masks,
)
from lotteryfw.engine.kernels.sparse.mlp_products import MlpProducts
from lotteryfw.engine.runtime import EngineContext, layer_infos
from lotteryfw.search.jobs import Train

LARGE = 100_000
"""Weights from which the kernel is chosen: a smaller network would not repay the second or two in
which numba is imported and its loops are loaded."""


class FusedMasks:
    """Learns the mask of one network. It is its own and only `Member`."""

    # The loops return sums in double precision.
    loss_dtype = torch.float64
    curve_units = CURVE_UNITS

    def __init__(self, job: Train, context: EngineContext):
        self._job = job
        self._dataset = context.dataset_of(job)
        assert job.parametrization is not None
        parametrization: Parametrization = context.component(job.parametrization)
        self._refresh = parametrization.refresh()

        module = context.network(job.model, self._dataset, job.objective)
        paths = mlp_layers(module)
        assert not isinstance(paths, str), paths
        weights = [job.values[f"{path}.weight"] for path in paths]
        self._products = MlpProducts(
            weights,
            # Edges outside the mask have a gradient, too.
            [None] * len(weights),
            [job.values.get(f"{path}.bias") for path in paths],
            min(job.batch, self._dataset.examples),
            0.0,
            loops_of_job(job.kernel.options),
            "inputs" in job.kernel.options,
        )
        parameters = {}
        for path, parameter in zip(paths, self._products.weight_parameters, strict=True):
            parameters[f"{path}.weight"] = parameter
        self._scores = torch.zeros(len(self._products.values))
        self._layers: dict[str, ScoredLayer] = {}
        # In this order, which numbers the optimizer's state.
        for info in layer_infos(context.component(job.model), module):
            self._layers[info.name] = ScoredLayer(
                job, info.name, parameters[info.name], self._scores, self._products
            )
        make_rule = MASK_RULES[parametrization.closed_form()]
        self._rule: MaskRule = make_rule(job, parametrization, self._layers)
        self._stats = SelectionStats({name: layer.allowed for name, layer in self._layers.items()})
        self._masks: Masks | None = None
        """The masks of the last step; None before the first.

        None, too, after a return to a state where masks are made anew in each step."""
        self._loaded: Masks | None = None
        """The masks that the products compute with now, which an evaluation changes."""

        # Only its rule and numbers are wanted: the loops make the update themselves.
        optimizer = sample_optimizer(job, context)
        rule = update_rule(optimizer)
        assert rule is not None, type(optimizer)
        self._rate = float(optimizer.param_groups[0]["lr"])
        # Entries of biases, of layers without scores and of padding are updated as well, and never
        # read.
        self._optimizer = FlatOptimizer(
            rule,
            [layer.parameter for layer in self._layers.values()],
            self._scores,
            self._products.gradient,
            loops_of_job(job.kernel.options),
        )
        if job.optimizer_state is not None:
            self._optimizer.load(job.optimizer_state)

    @property
    def members(self) -> Sequence[FusedMasks]:
        """The network."""
        return (self,)

    def update(self, step: int, factor: float) -> float:
        """Make one optimizer update of the scores, and return the loss of its batch."""
        job = self._job
        if self._masks is None or (step - job.start) % self._refresh == 0:
            self._masks = self._rule.masks_of_step(step)
            self._stats.update(self._masks)
        self._load(self._masks)
        indices = self._dataset.batch_indices(step, job.batch, job.steps_per_epoch, job.order_seed)
        loss = self._products.loss_and_gradient(*self._dataset.raw("train"), indices)
        self._rule.pass_gradient_to_scores()
        self._optimizer.step(self._rate * factor)
        return loss

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data.

        The loss is NaN where scores have diverged, since masks can be made of those all the same.
        """
        for scores in self._dense_scores().values():
            if not scores.isfinite().all():
                return nan, 0.0
        losses, accuracies = [], []
        for masks in self._rule.masks_of_evaluation():
            self._load(masks)
            loss, accuracy = self._products.measure(*self._dataset.raw(part))
            losses.append(loss)
            accuracies.append(accuracy)
        return fmean(losses), fmean(accuracies)

    def curve_figures(self) -> Mapping[str, float]:
        """Return how far the masks still move (see `SelectionStats.figures`)."""
        return self._stats.figures(self._rule.selected())

    def state(self) -> NetworkState:
        """Return every parameter and score now, and the mask where it outlives a step."""
        # Masks that are made anew in each step need not be in a checkpoint.
        masks = self._masks if self._masks and self._refresh > 1 else {}
        extra = {key: self._dense(entries) for key, entries in self._stats.extra().items()}
        return NetworkState(self._job.values, self._dense(masks), self._dense_scores(), extra)

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, as tensors."""
        return self._optimizer.state()

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this kernel gave."""
        self._masks = self._entries(state.masks) or None
        self._stats.restore({key: self._entries(dense) for key, dense in state.extra.items()})
        for name, entries in self._entries(state.scores).items():
            self._layers[name].scores.copy_(entries)
        self._optimizer.load(optimizer_state)

    def _load(self, masks: Masks) -> None:
        """Compute with these masks from now on."""
        if masks is not self._loaded:
            self._rule.load(masks)
        self._loaded = masks

    def _dense_scores(self) -> dict[str, Tensor]:
        """Return the scores by layer, without the entries of padding."""
        return self._dense({name: layer.scores for name, layer in self._layers.items()})

    def _dense(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of flat entries by layer, in the shapes of the layers."""
        return {name: self._layers[name].parameter.expand(flat) for name, flat in entries.items()}

    def _entries(self, dense: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the flat entries of tensors by layer."""
        return {name: self._layers[name].parameter.compress(full) for name, full in dense.items()}


def _make(jobs: Sequence[Train], context: EngineContext) -> FusedMasks:
    (job,) = jobs
    return FusedMasks(job, context)


def _why_not(candidate: Candidate) -> str | None:
    job = candidate.job
    if job.parametrization is None:
        return "it learns masks, and here weights are trained"
    if reason := candidate.why_not_loss_alone():
        return reason
    parametrization: Parametrization = candidate.context.component(job.parametrization)
    form = parametrization.closed_form()
    if form not in MASK_RULES:
        return (
            f"it has the rules {', '.join(MASK_RULES)} built in, and the parametrization "
            f"'{job.parametrization.use}' with these options has another"
        )
    # The gradient is computed with the probabilities of the last draw, and scores have moved since
    # a draw of an earlier step.
    if form.startswith("bernoulli") and (refresh := parametrization.refresh()) != 1:
        return (
            f"it draws edges in each step, and the parametrization '{job.parametrization.use}' "
            f"every {refresh} steps"
        )
    if form.startswith("top_k") and not job.budgets:
        return "it learns masks of some density, and there is none"
    if reason := why_no_products(candidate) or why_no_rule(candidate.optimizer):
        return reason
    if reason := why_other_masks(candidate):
        return reason
    if "numba" not in backends():
        return "it needs numba: install lotteryfw[fast]"
    return None


def _gain(candidate: Candidate) -> float:
    weights = sum(mask.numel() for mask in candidate.job.mask.values())
    return 2.0 if candidate.job.device == "cpu" and weights >= LARGE else 0.0


def _options(candidate: Candidate) -> Mapping[str, Any]:
    loops = {"loops": fastest_loops()}
    return loops | ({"inputs": "sparse"} if has_sparse_inputs(candidate) else {})


KERNEL = KernelDescription(
    name="fused_masks",
    revision=1,
    why_not=_why_not,
    gain=_gain,
    make=_make,
    options=_options,
    why_unavailable=loops_unavailable,
)
