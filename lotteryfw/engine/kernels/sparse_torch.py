"""The sparse kernel's loops (see `sparse_loops`) where nothing but torch is installed: CSR products and
operations on whole arrays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lotteryfw.engine.kernels.sparse_loops import Floats, Ints, Longs, Pattern, patterns

if TYPE_CHECKING:
    from torch import Tensor


def gather(rows: NDArray[Any], chosen: Longs, columns: Ints, scale: float, x: Floats) -> None:
    """All columns: to leave some out takes a pass of its own."""
    into = x[:, : len(chosen)]
    into[:] = rows.take(chosen, axis=0).T
    into *= np.float32(scale)


class Products:
    """A layer on the pattern of its living weights. Its matrices are built once and see every update of the weights:
    their values are the arrays that the weights and the gradient lie in."""

    def __init__(
        self, shape: Sequence[int], living: Tensor, values: Tensor, gradient: Tensor, bias: Tensor,
        bias_gradient: Tensor,
    ):  # fmt: skip
        outputs, inputs = shape
        along, across, self._order = patterns(shape, living)
        self._values, self._turned = values, values.clone()
        self._gradient, self._bias, self._bias_gradient = gradient, bias.view(-1, 1), bias_gradient
        self._weight = _matrix(along, values, outputs, inputs)
        self._weight_across = _matrix(across, self._turned, inputs, outputs)
        self._slope = _matrix(along, gradient, outputs, inputs)
        self.reads: Ints = np.unique(along.columns.numpy())

    def forward(self, x: Floats, y: Floats, rectify: bool) -> None:
        import torch

        out = torch.from_numpy(y)
        torch.addmm(self._bias, self._weight, torch.from_numpy(x), out=out)
        if rectify:
            out.relu_()

    def backward(self, dy: Floats, x: Floats, dx: Floats | None) -> None:
        import torch

        slope, inputs = torch.from_numpy(dy), torch.from_numpy(x)
        self._gradient.zero_()  # the product is added to 0 times what is there, which of infinity is NaN
        torch.sparse.sampled_addmm(self._slope, slope, inputs.t(), beta=0.0, out=self._slope)
        torch.sum(slope, 1, out=self._bias_gradient)
        if dx is not None:
            into = torch.from_numpy(dx)
            torch.index_select(self._values, 0, self._order, out=self._turned)
            torch.mm(self._weight_across, slope, out=into)
            torch.ops.aten.threshold_backward.grad_input(into, inputs, 0.0, grad_input=into)


def _matrix(pattern: Pattern, values: Tensor, rows: int, columns: int) -> Tensor:
    """A CSR matrix whose values are these very ones."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*pattern, values, (rows, columns), check_invariants=False)


@np.errstate(all="ignore")  # what diverges shows in the loss
def cross_entropy(logits: Floats, labels: Longs, chosen: Longs, slope: Floats) -> float:
    """Mean cross-entropy and its gradient."""
    batch = len(chosen)
    example, label, into = np.arange(batch), labels[chosen], slope[:, :batch]
    below = logits[:, :batch] - logits[:, :batch].max(0)
    total = np.exp(below, out=into).sum(0)
    into /= np.float32(batch) * total
    into[label, example] -= np.float32(1 / batch)
    return float(np.mean(np.log(total) - below[label, example], dtype=np.float64))


def sgd(values: Floats, gradient: Floats, rate: float, decay: float) -> None:
    """One step of torch.optim.SGD without momentum."""
    _decayed(values, gradient, decay)
    _add(values, gradient, -rate)


def momentum_sgd(
    values: Floats, gradient: Floats, buffer: Floats, rate: float, decay: float, momentum: float, fresh: float,
    nesterov: bool,
) -> None:  # fmt: skip
    """One step of torch.optim.SGD with momentum."""
    import torch

    _decayed(values, gradient, decay)
    torch.from_numpy(buffer).mul_(momentum)
    _add(buffer, gradient, fresh)
    if nesterov:
        _add(gradient, buffer, momentum)
    _add(values, gradient if nesterov else buffer, -rate)


def adam(
    values: Floats, gradient: Floats, mean: Floats, square: Floats, step: int, rate: float, beta1: float, beta2: float,
    eps: float, coupled: float, decoupled: float,
) -> None:  # fmt: skip
    """One step of torch.optim.Adam or AdamW."""
    import torch

    _decayed(values, gradient, coupled)
    weights, slope, first, second = map(torch.from_numpy, (values, gradient, mean, square))
    first.lerp_(slope, 1 - beta1)
    second.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
    spread = second.sqrt().div_(math.sqrt(1 - beta2**step)).add_(eps)
    if decoupled:
        weights.mul_(1 - rate * decoupled)
    weights.addcdiv_(first, spread, value=-rate / (1 - beta1**step))


def _decayed(values: Floats, gradient: Floats, decay: float) -> None:
    """gradient += decay · values"""
    if decay:
        _add(gradient, values, decay)


def _add(into: Floats, other: Floats, times: float) -> None:
    """into += times · other"""
    import torch

    torch.from_numpy(into).add_(torch.from_numpy(other), alpha=times)
