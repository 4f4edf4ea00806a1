"""The reference kernel: trains any unmodified `nn.Module` under a mask with plain autograd.

Faster kernels are compared with it. Masked weights are put back after every update, so neither
momentum nor weight decay can move them, whatever the optimizer does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.kernels.recorded_network import recorded_updates
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train


class Reference:
    """Trains every job whose weights are trained."""

    loss_dtype = torch.float32

    def __init__(self, job: Train, context: EngineContext):
        self.network = TrainedNetwork(job, context)
        self._recorded = recorded_updates(self.network, context.device)

    @property
    def members(self) -> Sequence[TrainedNetwork]:
        """The network."""
        return (self.network,)

    def update(self, step: int, factor: float) -> Tensor:
        """Make one optimizer update, and return the loss of its batch."""
        network = self.network
        network.seed(step)
        if self._recorded is not None:
            loss = self._recorded.update(step, factor, self._recorded_step)
        else:
            loss = network.backward_step(step, factor, network.tensors.values)
            network.mask_constraint.apply()
        # No part of a recorded update: it happens between two replays, in tensors that stay where
        # the recording reads them.
        network.change_masks(step + 1)
        return loss

    def _recorded_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Do everything of an update that happens on the device, at the rates that lie there."""
        network = self.network
        loss = network.backward(inputs, labels, network.tensors.values)
        network.apply_gradients()
        network.mask_constraint.apply()
        return loss


def _make(jobs: Sequence[Train], context: EngineContext) -> Reference:
    (job,) = jobs
    return Reference(job, context)


def _options(candidate: Candidate) -> dict[str, int]:
    # Since 2, a state has the values that mask updates removed weights with.
    return {"mask_changes": 2} if candidate.job.mask_update is not None else {}


KERNEL = KernelDescription(
    name="reference",
    revision=2,
    why_not=Candidate.why_not_weights_alone,
    gain=lambda candidate: 1.0,
    make=_make,
    options=_options,
    any_arithmetic=True,
)
