"""The fused kernel: a chain of Linear and ReLU layers by hand, into buffers that are allocated once.

The arithmetic of the reference without autograd's bookkeeping; plain SGD is folded into the product that gives the
weight gradient. Works with every optimizer, any mask-0 values and augmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from lotteryfw.engine.kernels.chain import chain_of
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    from torch import Tensor


class Fused:
    """Works for chains (see `chain_of`). Everything but the update is the reference's."""

    def __init__(self, job: Train, shop: Workshop):
        import torch

        self._plain = Reference(job, shop)
        chain = chain_of(self._plain.module)
        assert not isinstance(chain, str), chain
        parameters = self._plain.parameters
        self._weights = [parameters[f"{path}.weight"].requires_grad_(False) for path in chain]
        self._biases = [parameters[f"{path}.bias"].requires_grad_(False) if f"{path}.bias" in parameters else None
                        for path in chain]  # fmt: skip
        batch = min(job.batch, self._plain.feed.examples)
        widths = [weight.shape[0] for weight in self._weights]
        self._outputs = [torch.empty(batch, width, device=shop.device) for width in widths]
        self._slopes = [torch.empty(batch, width, device=shop.device) for width in widths]
        self._alive = [
            torch.empty(batch, width, device=shop.device, dtype=torch.bool) for width in widths[:-1]
        ]
        self._rows = torch.arange(batch, device=shop.device)
        self._rate = plain_rate(self._plain.optimizer)
        if self._rate is None:
            for parameter in (*self._weights, *(bias for bias in self._biases if bias is not None)):
                parameter.grad = torch.empty_like(parameter)

    def update(self, step: int, factor: float) -> Tensor:
        """One optimizer update; the batch's loss, 0-d, on the device."""
        import torch

        inputs, labels = self._plain.batch(step)
        with torch.no_grad():
            loss = self._forward(inputs.flatten(1), labels)
            self._backward(inputs.flatten(1), factor)
            if self._rate is None:
                self._plain.optimize(factor)
            self._plain.frozen.hold()
        return loss

    def _forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Fills the outputs of every layer, and the last layer's slopes: d loss / d logits."""
        import torch

        x = inputs
        for weight, bias, out in zip(self._weights, self._biases, self._outputs, strict=True):
            if bias is None:
                torch.mm(x, weight.t(), out=out)
            else:
                torch.addmm(bias, x, weight.t(), out=out)
            x = out if out is self._outputs[-1] else out.relu_()
        log_p = torch.log_softmax(x, 1)
        slope = torch.exp(log_p, out=self._slopes[-1])
        slope[self._rows, labels] -= 1.0
        slope.div_(len(labels))
        return -log_p[self._rows, labels].mean()

    def _backward(self, inputs: Tensor, factor: float) -> None:
        """Each layer's slopes from the next one's, then its gradients, or with plain SGD its update at once."""
        import torch

        below = [inputs, *self._outputs[:-1]]
        for (lower, upper), weight in zip(
            list(pairwise(range(len(below))))[::-1], self._weights[:0:-1], strict=True
        ):
            torch.mm(self._slopes[upper], weight, out=self._slopes[lower])
            torch.gt(self._outputs[lower], 0.0, out=self._alive[lower])
            self._slopes[lower].mul_(self._alive[lower])
        for x, slope, weight, bias in zip(
            below, self._slopes, self._weights, self._biases, strict=True
        ):
            if self._rate is not None:
                weight.addmm_(slope.t(), x, alpha=-self._rate * factor)
                if bias is not None:
                    bias.sub_(slope.sum(0), alpha=self._rate * factor)
            else:
                torch.mm(slope.t(), x, out=weight.grad)
                if bias is not None:
                    torch.sum(slope, 0, out=bias.grad)

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over a part of the data."""
        return self._plain.measure(part)

    def values(self) -> dict[str, Tensor]:
        """Every parameter and buffer now (not copies)."""
        return self._plain.values()

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        return self._plain.optimizer_state()

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        self._plain.restore(values, optimizer_state)


def plain_rate(optimizer: object) -> float | None:
    """The learning rate of an SGD without momentum and decay, whose update is one multiply and add; else None."""
    from torch.optim import SGD

    if type(optimizer) is not SGD:
        return None
    (group,) = optimizer.param_groups
    plain = not (group["momentum"] or group["weight_decay"] or group["maximize"])
    return float(group["lr"]) if plain else None
