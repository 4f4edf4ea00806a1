"""The reference kernel: trains any unmodified `nn.Module` under a mask, one plain autograd step after another.

It is the truth that faster kernels are held against. Masked weights are put back to what they are frozen at after every
update, so neither momentum nor weight decay can move them, whatever the optimizer does. A parameter that the network
was built with at requires_grad=False is a constant: the optimizer never sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import Objective
from lotteryfw.api.layers import SCORES
from lotteryfw.engine.ahead import Augmenter
from lotteryfw.engine.checkpoint import load_optimizer, optimizer_tensors
from lotteryfw.engine.kernels.captured import (
    Batches,
    GatheredBatches,
    LearningRates,
    LoadedBatches,
    RecordedUpdates,
    recorder_for,
)
from lotteryfw.engine.kernels.frozen import Frozen
from lotteryfw.engine.measure import measure, placed
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Reference:
    """Works for every job."""

    def __init__(self, job: Train, shop: Workshop):
        self.job = job
        self._device = shop.device
        self.feed = shop.feed_of(job)
        self.module = shop.network(job.model, self.feed, job.objective)
        self.objective: Objective = shop.component(job.objective)
        values = placed(self.module, job.values, shop.device)
        # their order numbers the optimizer's state
        names = [
            name for name, parameter in self.module.named_parameters() if parameter.requires_grad
        ]
        if job.parametrization is not None:
            names = [SCORES + name for name in shop.component(job.model).prunable(self.module)]
        if not names:
            raise ContractError(
                f"model '{job.model.use}': every parameter of the network has requires_grad=False"
            )
        self.parameters = {name: values[name].requires_grad_() for name in names}
        self._constants = {
            name: value for name, value in values.items() if name not in self.parameters
        }
        self.frozen = Frozen(job.mask, values)
        self._augment = Augmenter(
            [shop.component(spec) for spec in job.augment], job.augment_seed, shop.device
        )
        self.optimizer: torch.optim.Optimizer = shop.component(job.optimizer).build(
            list(self.parameters.values())
        )
        if job.optimizer_state is not None:
            load_optimizer(self.optimizer, job.optimizer_state)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._factor = 1.0

    def update(self, step: int, factor: float) -> Tensor:
        """One optimizer update; the batch's loss, 0-d, on the device."""
        if self._recorded is not None:
            return self._recorded.update(step, factor, self._recorded_step)
        loss = self.descend(step, factor, {**self.parameters, **self._constants})
        self.frozen.hold()
        return loss

    @cached_property
    def _recorded(self) -> RecordedUpdates | None:
        """The updates from a recording, where the device and the optimizer allow one."""
        import torch

        recorder = recorder_for(self.optimizer, self._device)
        if recorder is None:
            return None
        job, feed = self.job, self.feed
        batches: Batches
        if job.augment or not feed.is_on_device:
            batches = LoadedBatches(self.batch)
        else:
            batches = GatheredBatches(
                feed, self._drawn_order, job.batch, job.steps_per_epoch, self._device
            )
        rates = LearningRates(self.optimizer, self._device)
        return RecordedUpdates(recorder, batches, rates, torch.zeros((), device=self._device))

    def _drawn_order(self, epoch: int) -> Tensor:
        return self.feed.drawn_order(epoch, self.job.order_seed)

    def _recorded_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """All that an update does on the device, at the learning rates that lie there."""
        loss = self._backward(inputs, labels, {**self.parameters, **self._constants})
        self.optimizer.step()
        self.frozen.hold()
        return loss

    def descend(self, step: int, factor: float, weights: Mapping[str, Tensor]) -> Tensor:
        """A step of the optimizer along the gradient of the batch's loss where the network computes with `weights`,
        which come from `parameters`; the loss."""
        loss = self._backward(*self.batch(step), weights)
        self.optimize(factor)
        return loss

    def _backward(self, inputs: Tensor, labels: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Leave the gradient of the batch's loss in the parameters; the loss."""
        import torch
        from torch.func import functional_call

        self.module.train()
        outputs = functional_call(self.module, dict(weights), (inputs,))
        loss = self.objective.loss(outputs, inputs, labels, "mean")
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        return loss.detach()

    def optimize(self, factor: float) -> None:
        """The optimizer's step on the gradients that stand in the parameters, at `factor` times the learning rate."""
        if factor != self._factor:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._factor = factor
        self.optimizer.step()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of an update, augmented."""
        job = self.job
        inputs, labels = self.feed.batch(step, job.batch, job.steps_per_epoch, job.order_seed)
        return self._augment(inputs, step), labels

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over a part of the data."""
        return measure(self.module, self.values(), self.feed, part, self.objective)

    def values(self) -> dict[str, Tensor]:
        """Every parameter and buffer now (not copies)."""
        return {**{name: p.detach() for name, p in self.parameters.items()}, **self._constants}

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        return optimizer_tensors(self.optimizer)

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        for name, value in self.values().items():
            value.copy_(values[name])
        load_optimizer(self.optimizer, optimizer_state)
        if vars(self).get("_recorded") is not None:
            vars(self)["_recorded"].forget()
