"""The fused kernel: a plain MLP by hand, into buffers that are allocated once.

It has the arithmetic of the reference without the bookkeeping of autograd; plain SGD is folded into
the product that gives the weight gradient. It works with every optimizer whose step reads
gradients and leaves them in place, any mask-0 values and augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.kernels.mlp import mlp_layers, why_no_mlp
from lotteryfw.engine.kernels.optimizer_rules import is_elementwise, plain_rate
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train


class Fused:
    """Trains plain MLPs (see `mlp_layers`)."""

    loss_dtype = torch.float32

    def __init__(self, job: Train, context: EngineContext):
        self.network = TrainedNetwork(job, context)
        paths = mlp_layers(self.network.module)
        assert not isinstance(paths, str), paths
        parameters = self.network.parameters
        # No autograd here: gradients are computed by hand, below.
        self._weights = [parameters[f"{path}.weight"].requires_grad_(False) for path in paths]
        self._biases: list[Tensor | None] = []
        for path in paths:
            bias = parameters.get(f"{path}.bias")
            self._biases.append(None if bias is None else bias.requires_grad_(False))

        batch = min(job.batch, self.network.dataset.examples)
        widths = [weight.shape[0] for weight in self._weights]
        device = context.device
        self._outputs = [torch.empty(batch, width, device=device) for width in widths]
        self._output_gradients = [torch.empty(batch, width, device=device) for width in widths]
        self._positive = [
            torch.empty(batch, width, device=device, dtype=torch.bool) for width in widths[:-1]
        ]
        self._examples = torch.arange(batch, device=device)

        # What no built-in optimizer does, one of a plugin may: draw in its step.
        self._may_draw = not is_elementwise(self.network.optimizer)
        self._rate = plain_rate(self.network.optimizer)
        if self._rate is None:
            for parameter in parameters.values():
                # Allocated once; every step overwrites all of it.
                parameter.grad = torch.empty_like(parameter)

    @property
    def members(self) -> Sequence[TrainedNetwork]:
        """The network."""
        return (self.network,)

    def update(self, step: int, factor: float) -> Tensor:
        """Make one optimizer update, and return the loss of its batch."""
        if self._may_draw:
            self.network.seed(step)
        inputs, labels = self.network.batch(step)
        inputs = inputs.flatten(1)
        with torch.no_grad():
            loss = self._forward(inputs, labels)
            self._backward(inputs, factor)
            if self._rate is None:
                self.network.optimizer_step(factor)
            self.network.mask_constraint.apply()
        return loss

    def _forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Fill the outputs of every layer and d loss / d logits; return the loss."""
        x = inputs
        for weight, bias, out in zip(self._weights, self._biases, self._outputs, strict=True):
            if bias is None:
                torch.mm(x, weight.t(), out=out)
            else:
                torch.addmm(bias, x, weight.t(), out=out)
            x = out if out is self._outputs[-1] else out.relu_()

        log_p = torch.log_softmax(x, 1)
        gradient = torch.exp(log_p, out=self._output_gradients[-1])
        # d loss / d logits of the mean cross-entropy is (softmax - one-hot) / batch.
        gradient[self._examples, labels] -= 1.0
        gradient.div_(len(labels))
        return -log_p[self._examples, labels].mean()

    def _backward(self, inputs: Tensor, factor: float) -> None:
        """Fill the gradients of all outputs, then those of the parameters.

        With plain SGD the parameters are updated at once.
        """
        # All gradients of outputs come first: plain SGD changes weights that they are computed
        # from.
        layer_inputs = [inputs, *self._outputs[:-1]]
        for upper in range(len(layer_inputs) - 1, 0, -1):
            lower = upper - 1
            gradient = self._output_gradients[lower]
            torch.mm(self._output_gradients[upper], self._weights[upper], out=gradient)
            # torch's ReLU has the derivative 0 at 0, so the comparison is strict.
            torch.gt(self._outputs[lower], 0.0, out=self._positive[lower])
            gradient.mul_(self._positive[lower])

        layers = zip(layer_inputs, self._output_gradients, self._weights, self._biases, strict=True)
        for x, gradient, weight, bias in layers:
            if self._rate is not None:
                # The product and the update in one pass over the weights, which the gradient never
                # leaves.
                weight.addmm_(gradient.t(), x, alpha=-self._rate * factor)
                if bias is not None:
                    bias.sub_(gradient.sum(0), alpha=self._rate * factor)
            else:
                torch.mm(gradient.t(), x, out=weight.grad)
                if bias is not None:
                    torch.sum(gradient, 0, out=bias.grad)


def _make(jobs: Sequence[Train], context: EngineContext) -> Fused:
    (job,) = jobs
    return Fused(job, context)


def _why_not(candidate: Candidate) -> str | None:
    if reason := candidate.why_no_weights() or candidate.why_no_cross_entropy():
        return reason
    if candidate.job.device != "cpu":
        return "it runs on the CPU only"
    return why_no_mlp(candidate)


KERNEL = KernelDescription(
    name="fused",
    revision=1,
    why_not=_why_not,
    # It ranks above the reference and below the kernels that gain more where they apply.
    gain=lambda candidate: 1.5,
    make=_make,
)
