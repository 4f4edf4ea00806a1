"""The sparse kernel's description, and its training of one job (see `sparse_mlp`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription, sample_optimizer
from lotteryfw.engine.kernels.mlp import mlp_layers, why_no_mlp
from lotteryfw.engine.kernels.optimizer_rules import update_rule, why_no_rule
from lotteryfw.engine.kernels.sparse.backends import (
    Backend,
    backends,
    fastest_loops,
    loops_of_job,
    loops_unavailable,
)
from lotteryfw.engine.kernels.sparse.loops import Loops
from lotteryfw.engine.kernels.sparse.mlp_products import is_sparse
from lotteryfw.engine.kernels.sparse.sparse_mlp import SparseMlp
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train
from lotteryfw.store.tensors import is_plus_zero

SPARSE_BELOW: dict[Backend, float] = {"numba": 0.45, "torch": 0.2}
"""Density below which a layer's sparse products are taken where a recipe does not say.

It is about where each back end overtakes the dense products (benchmarks/sparse_step.py). They are
constants, so that the choice depends on the job and on whether numba is installed, and not on how
fast the machine is."""
SHARE = 0.5
"""The kernel is chosen where at least this share of the weights lies in such layers."""
INPUTS_BELOW = 0.25
"""Share of inputs that are not 0 below which a first layer that is not sparse reads those alone.

About where it overtakes dense products (benchmarks/sparse_step.py); a constant, as above."""


class Sparse:
    """Trains plain MLPs on the CPU under SGD, Adam and AdamW.

    It is its own and only `Member`.
    """

    # The loops return sums in double precision.
    loss_dtype = torch.float64
    curve_units: Mapping[str, FigureUnit] = {}

    def __init__(
        self,
        job: Train,
        context: EngineContext,
        loops: Loops,
        below: float,
        sparse_inputs: bool,
    ):
        self._job = job
        self._dataset = context.dataset_of(job)
        paths = mlp_layers(context.network(job.model, self._dataset, job.objective))
        assert not isinstance(paths, str), paths
        self._weight_names = [f"{path}.weight" for path in paths]
        self._bias_names: list[str | None] = []
        for path in paths:
            name = f"{path}.bias"
            self._bias_names.append(name if name in job.values else None)

        # Only its rule and numbers are wanted: the loops make the update themselves.
        optimizer = sample_optimizer(job, context)
        rule = update_rule(optimizer)
        assert rule is not None, type(optimizer)
        self._rate = float(optimizer.param_groups[0]["lr"])
        self.mlp = SparseMlp(
            [job.values[name] for name in self._weight_names],
            [job.mask.get(name) for name in self._weight_names],
            self._biases(job.values),
            rule,
            min(job.batch, self._dataset.examples),
            below,
            loops,
            sparse_inputs,
        )
        if job.optimizer_state is not None:
            self.mlp.optimizer.load(job.optimizer_state)

    @property
    def members(self) -> Sequence[Sparse]:
        """The network."""
        return (self,)

    def _biases(self, values: Mapping[str, Tensor]) -> list[Tensor | None]:
        return [None if name is None else values[name] for name in self._bias_names]

    def update(self, step: int, factor: float) -> float:
        """Make one optimizer update, and return the loss of its batch."""
        job = self._job
        indices = self._dataset.batch_indices(step, job.batch, job.steps_per_epoch, job.order_seed)
        return self.mlp.step(*self._dataset.raw("train"), indices, self._rate * factor)

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data."""
        return self.mlp.products.measure(*self._dataset.raw(part))

    def curve_figures(self) -> Mapping[str, float]:
        """Return nothing: the curve has losses and accuracies alone."""
        return {}

    def state(self) -> NetworkState:
        """Return every parameter now."""
        values: dict[str, Tensor] = {}
        weights = zip(self._weight_names, self.mlp.products.weights(), strict=True)
        biases = zip(self._bias_names, self.mlp.products.biases(), strict=True)
        for (weight_name, weight), (bias_name, bias) in zip(weights, biases, strict=True):
            values[weight_name] = weight
            if bias_name is not None and bias is not None:
                values[bias_name] = bias
        return NetworkState(values)

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, as tensors."""
        return self.mlp.optimizer.state()

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this kernel gave."""
        weights = [state.values[name] for name in self._weight_names]
        self.mlp.products.load(weights, self._biases(state.values))
        self.mlp.optimizer.load(optimizer_state)


def _make(jobs: Sequence[Train], context: EngineContext) -> Sparse:
    (job,) = jobs
    options = job.kernel.options
    loops = loops_of_job(options)
    return Sparse(job, context, loops, float(options["below"]), "inputs" in options)


def why_no_products(candidate: Candidate) -> str | None:
    """Return why `MlpProducts` cannot compute the loss of a job, or None."""
    job = candidate.job
    if reason := candidate.why_no_cross_entropy():
        return reason
    if job.device != "cpu":
        return "it runs on the CPU only"
    if reason := why_no_mlp(candidate):
        return reason
    if job.augment:
        return "it takes images as they are stored, without augmentation"
    if reason := candidate.why_no_examples_by_index():
        return reason
    # The first layer's loop divides bytes by 255 as it gathers them, and can do no more.
    if candidate.context.dataset_of(job).is_normalised:
        return "it takes images as they are stored, without normalisation"
    return None


def why_other_masks(candidate: Candidate) -> str | None:
    """Return which mask of a plain MLP is not one of a Linear layer's weights, or None."""
    weights = {f"{path}.weight" for path in candidate.network_fact(mlp_layers)}
    if others := sorted(candidate.job.mask.keys() - weights):
        return f"it masks the weights of Linear layers, and here {others[0]} is masked"
    return None


def has_sparse_inputs(candidate: Candidate) -> bool:
    """Return whether a first layer that is not sparse reads the inputs that are not 0 alone.

    `why_no_products` must be None.
    """
    share = candidate.context.dataset_of(candidate.job).nonzero_share
    return "numba" in backends() and share() < INPUTS_BELOW


def _why_not(candidate: Candidate) -> str | None:
    job = candidate.job
    reason = candidate.why_no_weights() or why_no_products(candidate)
    if reason := reason or why_no_rule(candidate.optimizer) or why_other_masks(candidate):
        return reason
    rule = update_rule(candidate.optimizer)
    for name, mask in job.mask.items():
        value = job.values[name]
        if is_plus_zero(value, ~mask):
            continue
        # The update of all weights leaves masked ones as they are only if nothing is added to them.
        if rule is not None and rule.weight_decay:
            return f"masked weights of {name} are not 0, and the optimizer has a weight decay"
        if bool(((value == 0) & value.signbit() & ~mask).any()):
            return f"masked weights of {name} are frozen at -0.0"
    return None


def _below(candidate: Candidate) -> float:
    """Return the density below which a layer's sparse products are taken."""
    if candidate.sparse_below is not None:
        return candidate.sparse_below
    return SPARSE_BELOW[next(iter(backends()))]


def _sparse_layers(candidate: Candidate) -> set[str]:
    """Return the weights that are multiplied on the pattern of their masks."""
    job, below = candidate.job, _below(candidate)
    names = set()
    for name, mask in job.mask.items():
        # A layer above this density is multiplied densely, and gains nothing.
        if is_sparse(job.values[name], mask, below):
            names.add(name)
    return names


def _sparse_input_layer(candidate: Candidate) -> str | None:
    """Return the first layer's weight if it reads the inputs that are not 0 alone, else None."""
    if why_no_products(candidate):
        return None
    first = f"{candidate.network_fact(mlp_layers)[0]}.weight"
    # A look at the data comes last.
    if first in _sparse_layers(candidate) or not has_sparse_inputs(candidate):
        return None
    return first


def _gain(candidate: Candidate) -> float:
    """Return the gain where most of the weights lie in layers that are sparse or read few inputs."""
    values, masks = candidate.job.values, candidate.job.mask
    weights = sum(mask.numel() for mask in masks.values())
    # Above the fused kernel's 1.5 and lockstep's 3: it is chosen where several of them apply.
    if sum(masks[name].numel() for name in _sparse_layers(candidate)) >= SHARE * weights:
        return 4.0
    first = _sparse_input_layer(candidate)
    return 2.0 if first and values[first].numel() >= SHARE * weights else 0.0


def _options(candidate: Candidate) -> Mapping[str, Any]:
    options = {"loops": fastest_loops(), "below": _below(candidate)}
    return options | ({"inputs": "sparse"} if _sparse_input_layer(candidate) else {})


KERNEL = KernelDescription(
    name="sparse",
    revision=3,
    why_not=_why_not,
    gain=_gain,
    make=_make,
    options=_options,
    why_unavailable=loops_unavailable,
)
