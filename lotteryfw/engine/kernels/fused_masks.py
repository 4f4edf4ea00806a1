"""The kernel that learns masks of a plain MLP on the CPU without autograd.

The gradient of the weights comes from the products of the sparse kernel, that of the scores from the
parametrization's `score_gradient`. Everything else is `mask_training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lotteryfw.api.kinds import Parametrization
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.kernels.mask_training import MaskTraining
from lotteryfw.engine.kernels.mlp import mlp_layers
from lotteryfw.engine.kernels.sparse.backends import (
    fastest_loops,
    loops_of_job,
    loops_unavailable,
)
from lotteryfw.engine.kernels.sparse.kernel import has_sparse_inputs, why_no_products
from lotteryfw.engine.kernels.sparse.mlp_products import MlpProducts
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train

LARGE = 100_000
"""Weights from which the kernel is chosen: a smaller network would not repay the second or two in
which numba is imported and its loops are loaded."""


class MlpGradients:
    """Loss and gradients of a plain MLP, for weights that are given anew in each step."""

    def __init__(self, job: Train, context: EngineContext):
        self._job = job
        self._dataset = context.dataset_of(job)
        paths = mlp_layers(context.network(job.model, self._dataset, job.objective))
        assert not isinstance(paths, str), paths
        self._weight_names = [f"{path}.weight" for path in paths]
        self._bias_names: list[str | None] = []
        for path in paths:
            name = f"{path}.bias"
            self._bias_names.append(name if name in job.values else None)

        # A mask says which edges take part; those that do not have a gradient all the same.
        weights, biases = self._tensors(job.values)
        options = job.kernel.options
        self._products = MlpProducts(
            weights,
            [None] * len(weights),
            biases,
            min(job.batch, self._dataset.examples),
            0.0,
            loops_of_job(options),
            "inputs" in options,
        )

    def _tensors(self, values: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return weights and biases in the order of the layers."""
        weights = [values[name] for name in self._weight_names]
        biases = [None if name is None else values[name] for name in self._bias_names]
        return weights, biases

    def loss_and_gradients(
        self, step: int, weights: Mapping[str, Tensor]
    ) -> tuple[float, Mapping[str, Tensor]]:
        """Return the mean loss of a step's batch and the gradient of each layer's weights."""
        job = self._job
        indices = self._dataset.batch_indices(step, job.batch, job.steps_per_epoch, job.order_seed)
        self._products.load(*self._tensors(weights))
        loss = self._products.loss_and_gradient(*self._dataset.raw("train"), indices)
        gradients = self._products.weight_gradients()
        return loss, dict(zip(self._weight_names, gradients, strict=True))

    def evaluate(self, part: str, weights: Mapping[str, Tensor]) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data."""
        self._products.load(*self._tensors(weights))
        return self._products.measure(*self._dataset.raw(part))


def _make(jobs: Sequence[Train], context: EngineContext) -> MaskTraining:
    (job,) = jobs
    return MaskTraining(job, context, MlpGradients(job, context))


def _why_not(candidate: Candidate) -> str | None:
    spec = candidate.job.parametrization
    if spec is None:
        return "it learns masks, and here weights are trained"
    if reason := candidate.why_not_loss_alone():
        return reason
    parametrization: Parametrization = candidate.context.component(spec)
    of = type(parametrization)
    named = f"the parametrization '{spec.use}'"
    if parametrization.trains_weights:
        return f"it trains scores alone, and {named} trains weights, too"
    if of.penalty is not Parametrization.penalty:
        return f"it trains by the loss of a batch alone, and {named} has a penalty"
    if of.score_gradient is Parametrization.score_gradient:
        return f"it works without autograd, and {named} has no score_gradient()"
    return why_no_products(candidate)


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
