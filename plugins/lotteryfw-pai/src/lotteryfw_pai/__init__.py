"""Pruning at initialisation for lotteryfw: criteria that score a whole network before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from lotteryfw import Component, NetworkCriterion, Probe, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class Snip(NetworkCriterion):
    """Keeps the weights whose removal would change the loss most, to first order."""

    use = "snip"
    formula = "|w * dL/dw|"
    source = "Lee et al. 2019, SNIP: Single-shot Network Pruning, equations 4 to 6"

    batches: int = Field(default=1, ge=1)
    """How many batches the gradient is summed over."""
    batch: int = Field(default=128, ge=1)
    """Examples in a batch. The paper's: one batch of 100 on MNIST, of 128 on CIFAR-10."""

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        gradients = _loss_gradients(probe, self.batches, self.batch, temperature=1.0)
        return {name: (probe.weights[name] * gradients[name]).abs() for name in gradients}


class GraSP(NetworkCriterion):
    """Keeps the weights whose removal would reduce the squared norm of the gradient most."""

    use = "grasp"
    formula = "w * Hg, g the gradient of the loss and H its Hessian"
    source = "Wang et al. 2020, Picking Winning Tickets Before Training by Preserving Gradient Flow, equation 8"

    batches: int = Field(default=1, ge=1)
    """How many batches the gradient is summed over."""
    batch: int = Field(default=100, ge=2)
    """Examples in a batch. The paper's: ten of each class."""
    temperature: float = Field(default=200.0, gt=0, allow_inf_nan=False)
    """What logits are divided by before the loss, so that the softmax is smooth; 200 in the authors' code."""

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        # The authors remove the largest -w * Hg; the largest w * Hg are those that stay.
        gradients = _loss_gradients(probe, self.batches, self.batch, self.temperature)
        weights = {name: value.clone().requires_grad_() for name, value in probe.weights.items()}
        products = {name: torch.zeros_like(value) for name, value in weights.items()}
        for inputs, labels in probe.batches("train", self.batches, self.batch):
            loss = probe.loss(inputs, labels, weights, temperature=self.temperature)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            alignment = torch.zeros((), device=loss.device)
            for name, slope in zip(weights, slopes, strict=True):
                alignment = alignment + (gradients[name] * slope).sum()
            hessian_products = torch.autograd.grad(alignment, list(weights.values()))
            for name, product in zip(weights, hessian_products, strict=True):
                products[name] += product
        return {name: probe.weights[name] * products[name] for name in products}


class SynFlow(NetworkCriterion):
    """Keeps the weights that carry most of the synaptic flow: it needs no data, and with many rounds no layer collapses.

    Use it with the search `at_init` and `rounds = 100`, and the scope `global`.
    """

    use = "synflow"
    formula = (
        "|w| * dR/d|w|, R the sum of the outputs of the network of |weights| for inputs of ones"
    )
    source = "Tanaka et al. 2020, Pruning neural networks without any data by iteratively conserving synaptic flow, equation 4"

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        import torch

        # float64, as in the authors' code: the flow through a deep network is a product of many layers
        tensors = {}
        for name, value in probe.tensors.items():
            tensors[name] = value.abs().double() if value.is_floating_point() else value
        for name, mask in probe.masks.items():
            tensors[name] = (tensors[name] * mask).requires_grad_()
        flow = probe.forward(probe.ones(1).double(), tensors, mode="eval").sum()
        layers = [tensors[name] for name in probe.masks]
        slopes = torch.autograd.grad(flow, layers)
        scores = {}
        for name, slope in zip(probe.masks, slopes, strict=True):
            scores[name] = (slope * tensors[name]).detach()
        return scores


def _loss_gradients(
    probe: Probe, batches: int, batch: int, temperature: float
) -> dict[str, Tensor]:
    """By layer, float32 [s]: the gradient of the loss with respect to every prunable weight, summed over batches."""
    import torch

    weights = {name: value.clone().requires_grad_() for name, value in probe.weights.items()}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    for inputs, labels in probe.batches("train", batches, batch):
        loss = probe.loss(inputs, labels, weights, temperature=temperature)
        slopes = torch.autograd.grad(loss, list(weights.values()))
        for name, slope in zip(weights, slopes, strict=True):
            total[name] += slope
    return total


@hookimpl
def register_components() -> list[type[Component]]:
    return [Snip, GraSP, SynFlow]
