"""The sparse kernel's description, and its training of one job (see `sparse_mlp`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription, sample_optimizer
from lotteryfw.engine.kernels.mlp import mlp_layers
from lotteryfw.engine.kernels.optimizer_rules import update_rule, why_no_rule
from lotteryfw.engine.kernels.sparse.loops import Loops
from lotteryfw.engine.kernels.sparse.mlp_products import is_sparse
from lotteryfw.engine.kernels.sparse.sparse_mlp import SparseMlp
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train
from lotteryfw.store.tensors import is_plus_zero

Backend = Literal["numba", "torch"]

SPARSE_BELOW: dict[Backend, float] = {"numba": 0.3, "torch": 0.2}
"""Density below which a layer's sparse products are taken where a recipe does not say.

It is about where each back end overtakes the dense products (benchmarks/sparse_step.py). A
constant, so that the choice does not depend on the machine."""
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
        backend: Backend,
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
            loops_of(backend),
            sparse_inputs,
        )
        if job.optimizer_state is not None:
            self._load_optimizer_state(job.optimizer_state)

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
        inputs, labels = self._dataset.raw(part)
        # No batches: `forward` takes a cache's worth of examples at a time by itself.
        logits = self.mlp.products.forward(inputs)
        correct = int((logits.argmax(1) == labels).sum())
        return float(cross_entropy(logits, labels)), correct / len(labels)

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
        tensors = {}
        for index, state in enumerate(self.mlp.optimizer_state()):
            for name, tensor in state.items():
                tensors[f"{index}.{name}"] = tensor
        return tensors

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this kernel gave."""
        weights = [state.values[name] for name in self._weight_names]
        self.mlp.products.load(weights, self._biases(state.values))
        self._load_optimizer_state(optimizer_state)

    def _load_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        biases = sum(name is not None for name in self._bias_names)
        states: list[dict[str, Tensor]] = [{} for _ in range(len(self._weight_names) + biases)]
        for label, tensor in tensors.items():
            index, _, name = label.partition(".")
            states[int(index)][name] = tensor
        self.mlp.load_optimizer_state(states)


@cache
def backends() -> dict[Backend, str]:
    """Return the sets of loops that can run here, the faster one first, by their names in a job.

    The version of numba is in the name, since the compiler of the loops is a part of what decides
    their bits. That of torch is in every job.
    """
    numba: dict[Backend, str] = {"numba": f"numba{version('numba')}"} if find_spec("numba") else {}
    return numba | {"torch": "torch"}


def loops_of(backend: Backend) -> Loops:
    """Return the loops of a back end that is installed."""
    # numba takes a second to import, and may be missing.
    if backend == "numba":
        from lotteryfw.engine.kernels.sparse import numba_loops

        return numba_loops
    from lotteryfw.engine.kernels.sparse import torch_loops

    return torch_loops


def _make(jobs: Sequence[Train], context: EngineContext) -> Sparse:
    (job,) = jobs
    options = job.kernel.options
    # The job names the loops it was made for, with their version, whatever is installed now.
    by_name = {name: backend for backend, name in backends().items()}
    backend = by_name[options["loops"]]
    return Sparse(job, context, backend, float(options["below"]), "inputs" in options)


def _why_not(candidate: Candidate) -> str | None:
    job = candidate.job
    if reason := candidate.why_no_weights() or candidate.why_no_cross_entropy():
        return reason
    if job.device != "cpu":
        return "it runs on the CPU only"
    layers = candidate.network_fact(mlp_layers)
    if isinstance(layers, str):
        return layers
    if job.augment:
        return "it takes images as they are stored, without augmentation"
    if reason := candidate.why_no_examples_by_index():
        return reason
    # The first layer's loop divides bytes by 255 as it gathers them, and can do no more.
    if candidate.context.dataset_of(job).is_normalised:
        return "it takes images as they are stored, without normalisation"
    if reason := why_no_rule(candidate.optimizer):
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
    job = candidate.job
    # In this order: a look at the data comes last.
    if job.device != "cpu" or "numba" not in backends():
        return None
    layers = candidate.network_fact(mlp_layers)
    if isinstance(layers, str) or f"{layers[0]}.weight" in _sparse_layers(candidate):
        return None
    if candidate.why_no_examples_by_index():
        return None
    if candidate.context.dataset_of(job).nonzero_share() >= INPUTS_BELOW:
        return None
    return f"{layers[0]}.weight"


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
    options = {"loops": next(iter(backends().values())), "below": _below(candidate)}
    return options | ({"inputs": "sparse"} if _sparse_input_layer(candidate) else {})


def _why_unavailable(options: Mapping[str, Any]) -> str | None:
    loops = str(options.get("loops"))
    if loops in backends().values():
        return None
    _, _, numba = loops.partition("numba")
    return f'pip install "numba=={numba}"' if numba else f"it has no loops '{loops}'"


KERNEL = KernelDescription(
    name="sparse",
    revision=1,
    why_not=_why_not,
    gain=_gain,
    make=_make,
    options=_options,
    why_unavailable=_why_unavailable,
)
