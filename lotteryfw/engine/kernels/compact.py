"""The compact kernel: the reference's step on a network without its dead units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lotteryfw.engine.kernels.dead_units import LiveNetwork, shrinkable_layers
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.kernels.optimizer_rules import has_step_hooks, is_elementwise
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train

WORK = 0.65
"""The kernel is chosen where at most this share of a convolutional network's multiply-adds is left.

From there on it is measurably faster (benchmarks/convolution.py). Above, whole convolutions are,
since they work on 16 channels at a time."""


class Compact:
    """Trains sequential networks (see `shrinkable_layers`), on any device, at any mask-0 values.

    The whole parameters are the network's; only the products are smaller.
    """

    loss_dtype = torch.float32

    def __init__(self, job: Train, context: EngineContext):
        self.network = TrainedNetwork(job, context)
        layers = shrinkable_layers(self.network.module, self.network.dataset.shape)
        assert not isinstance(layers, str), layers
        self.live = LiveNetwork(layers, self.network.parameters, job.mask)
        self.network.weights_for_evaluation = self.live.parameters

    @property
    def members(self) -> Sequence[TrainedNetwork]:
        """The network."""
        return (self.network,)

    def update(self, step: int, factor: float) -> Tensor:
        """Make one optimizer update, and return the loss of its batch."""
        loss = self.network.backward_step(step, factor, self.live.parameters())
        self.network.mask_constraint.apply()
        return loss


def _make(jobs: Sequence[Train], context: EngineContext) -> Compact:
    (job,) = jobs
    return Compact(job, context)


def _why_not(candidate: Candidate) -> str | None:
    """Return why the kernel cannot train a job.

    The update of one weight must not depend on the gradients of others, since masked weights of
    dead units have none here.
    """
    if reason := candidate.why_no_weights():
        return reason
    # The same for all masks of a network, so it is found once for a study.
    layers = candidate.network_fact(shrinkable_layers)
    if isinstance(layers, str):
        return layers
    if not is_elementwise(candidate.optimizer):
        name = type(candidate.optimizer).__name__
        if has_step_hooks(candidate.optimizer):
            name += " with step hooks"
        return f"{name} is not known to update each weight by its own gradient alone"
    return None


def _gain(candidate: Candidate) -> float:
    """Return the gain, where the network has convolutions and much of its work is in dead units."""
    job = candidate.job
    if job.parametrization is not None:
        return 0.0
    layers = candidate.network_fact(shrinkable_layers)
    if isinstance(layers, str) or not any(layer.uses > 1 for layer in layers):
        return 0.0
    work = LiveNetwork(layers, job.values, job.mask).work()
    # Below 1 % the overhead of a step decides, so the gain does not grow on.
    return 1 / max(work, 0.01) if work <= WORK else 0.0


KERNEL = KernelDescription(
    name="compact",
    revision=1,
    why_not=_why_not,
    gain=_gain,
    make=_make,
)
