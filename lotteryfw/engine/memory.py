"""The bytes that a training holds on its device, counted before anything is trained.

The network is computed once with tensors that have shapes and no memory, and what autograd keeps
of that forward pass is added up. Whatever libraries take beside it, such as the workspaces of
convolutions, comes on top: the result is what a training with autograd needs at least.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lotteryfw.api.data import DatasetInfo
from lotteryfw.engine.activation_checkpointing import checkpoint_activations
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.kernels.kernel import sample_optimizer
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.training_loss import training_loss
from lotteryfw.search.jobs import Train

LARGEST_IN_MEMORY = 8 << 30
"""Bytes of a data set above which its source leaves it on the host (see `Dataset.mapped`)."""


@dataclass(frozen=True)
class TrainingMemory:
    """The bytes of a training by what takes them.

    `activations` are those of a batch of `batch` examples, or of the largest of its `parts`, and
    grow with it; None where the network cannot be computed without memory. `data` is the data set
    at its smallest.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    batch: int
    data: int
    parts: int = 1

    @property
    def of_training(self) -> int:
        """The bytes of one training, without the data set, which those of a process share."""
        return self.weights + self.gradients + self.optimizer + (self.activations or 0)

    def largest_batch(self, available: int) -> int:
        """Return the largest batch with which a training takes at most these bytes; 0 for none."""
        if not self.activations:
            return 0
        fixed = self.of_training - self.activations
        return max(0, (available - fixed) * self.batch // self.activations)


def device_bytes(device: str) -> int | None:
    """Return the memory of the smallest device of a kind that is visible; None if not known."""
    if device != "cuda" or not torch.cuda.is_available():
        return None
    sizes = []
    for index in range(torch.cuda.device_count()):
        sizes.append(int(torch.cuda.get_device_properties(index).total_memory))
    return min(sizes)


def training_memory(job: Train, context: EngineContext) -> TrainingMemory:
    """Return what a training holds. `context` is one on the CPU."""
    info: DatasetInfo = context.component(job.data).facts(context.data_folder)
    module = context.network(job.model, info, job.objective).train()
    # The optimizer never sees a frozen parameter, nor a buffer.
    weights = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            weights[name] = job.values[name]
    optimizer = sample_optimizer(replace(job, values=weights), context)
    trained = sum(4 * value.numel() for value in _parameters(optimizer))
    with_gradient = job.scores.keys() | weights.keys()
    if job.parametrization and not context.component(job.parametrization).trains_weights:
        with_gradient = set(job.scores)
    data = prod(info.shape) * (info.train + info.validation + info.test)
    if info.vocabulary:
        data *= 8
    return TrainingMemory(
        weights=_bytes(job.values) + _bytes(job.scores) + sum(map(Tensor.numel, job.mask.values())),
        gradients=trained,
        optimizer=_optimizer_bytes(optimizer, trained),
        activations=_activation_bytes(job, context, info, module, with_gradient),
        batch=job.batch,
        data=0 if info.streamed or data > LARGEST_IN_MEMORY else data,
        parts=job.accumulate * job.devices,
    )


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return what an optimizer trains."""
    parameters: list[Tensor] = []
    for group in optimizer.param_groups:
        parameters += group["params"]
    return parameters


def _optimizer_bytes(optimizer: torch.optim.Optimizer, trained: int) -> int:
    """Return the bytes of the state of an optimizer, which it makes at its first step."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        for group in optimizer.param_groups:
            group["params"] = [
                torch.empty(value.shape, requires_grad=True) for value in group["params"]
            ]
            for value in group["params"]:
                value.grad = torch.empty(value.shape)
        try:
            optimizer.step()
        except Exception:
            # An optimizer of a plugin may look at values: as much as Adam holds, then.
            return 2 * trained
        states = [
            value
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
    return sum(value.numel() * value.element_size() for value in states)


def _activation_bytes(
    job: Train,
    context: EngineContext,
    info: DatasetInfo,
    module: torch.nn.Module,
    with_gradient: Collection[str],
) -> int | None:
    """Return what a forward pass of a batch keeps for the backward pass; None if not known."""
    if job.activation_checkpointing:
        checkpoint_activations(module)
    objective = context.component(job.objective)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    values: dict[str, Tensor] = {}
    for name, value in job.values.items():
        values[name] = mode.from_tensor(value)
        if name in with_gradient:
            values[name].requires_grad_()
    own = {value.untyped_storage()._cdata for value in values.values()}
    # By storage, since several operations may keep one tensor.
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    # The largest part: they differ by one example at most.
    batch = -(-min(job.batch, info.train) // (job.accumulate * job.devices))
    arithmetic = Arithmetic("bf16" if job.precision == "fp16" else job.precision)
    try:
        with mode, torch.random.fork_rng(devices=[]):
            inputs, labels = _batch(info, batch)
            keep(inputs)
            with torch.autograd.graph.saved_tensors_hooks(keep, _unchanged):
                outputs = arithmetic.training_outputs(module, values, inputs)
                loss = partial(objective.loss, inputs=inputs, labels=labels, reduction="mean")
                training_loss(loss, outputs)
    except Exception:
        # A network that looks at its activations' values cannot be computed without any.
        return None
    return sum(kept.values())


def _batch(info: DatasetInfo, size: int) -> tuple[Tensor, Tensor]:
    kind = torch.int64 if info.vocabulary else torch.float32
    labels = torch.zeros(size, *info.label_shape, dtype=torch.int64)
    return torch.zeros(size, *info.shape, dtype=kind), labels


def _unchanged(tensor: Any) -> Any:
    return tensor
