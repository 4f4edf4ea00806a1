"""The sparse kernel's loops (see `loops`) where numba is not installed.

They are CSR products of torch and operations on whole arrays.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotteryfw.engine.kernels.sparse.loops import Floats, Ints, Longs, Pattern, patterns


def gather(rows: NDArray[Any], chosen: Longs, columns: Ints, scale: float, x: Floats) -> None:
    """Gather all columns: leaving some out would take a pass of its own."""
    into = x[:, : len(chosen)]
    into[:] = rows.take(chosen, axis=0).T
    into *= np.float32(scale)


class Products:
    """A layer on the pattern of its kept weights.

    Its matrices are built once and see every update of the weights: their values are the arrays
    that the weights and the gradient lie in.
    """

    def __init__(
        self,
        shape: Sequence[int],
        kept: Tensor,
        values: Tensor,
        gradient: Tensor,
        bias: Tensor,
        bias_gradient: Tensor,
    ):
        outputs, inputs = shape
        by_row, by_column, self._order = patterns(shape, kept)
        self._values = values
        # Refilled at each backward pass, just before the product reads it.
        self._transposed_values = values.clone()
        self._gradient_values = gradient
        self._bias = bias.view(-1, 1)
        self._bias_gradient = bias_gradient
        self._weight = _matrix(by_row, values, outputs, inputs)
        self._transposed = _matrix(by_column, self._transposed_values, inputs, outputs)
        self._gradient = _matrix(by_row, gradient, outputs, inputs)
        self.reads: Ints = np.unique(by_row.columns.numpy())

    def forward(self, x: Floats, y: Floats, rectify: bool) -> None:
        out = torch.from_numpy(y)
        torch.addmm(self._bias, self._weight, torch.from_numpy(x), out=out)
        if rectify:
            out.relu_()

    def backward(self, dy: Floats, x: Floats, dx: Floats | None) -> None:
        output_gradient, inputs = torch.from_numpy(dy), torch.from_numpy(x)
        # The product is added to 0 times the old gradient, which of infinity is NaN.
        self._gradient_values.zero_()
        torch.sparse.sampled_addmm(
            self._gradient, output_gradient, inputs.t(), beta=0.0, out=self._gradient
        )
        torch.sum(output_gradient, 1, out=self._bias_gradient)
        if dx is not None:
            out = torch.from_numpy(dx)
            # The transpose has a copy of the values, since CSR stores them row by row.
            torch.index_select(self._values, 0, self._order, out=self._transposed_values)
            torch.mm(self._transposed, output_gradient, out=out)
            torch.ops.aten.threshold_backward.grad_input(out, inputs, 0.0, grad_input=out)


def _matrix(pattern: Pattern, values: Tensor, rows: int, columns: int) -> Tensor:
    """Return a CSR matrix that shares the memory of `values`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*pattern, values, (rows, columns), check_invariants=False)


# A training that diverges shows in the loss.
@np.errstate(all="ignore")
def cross_entropy(logits: Floats, labels: Longs, chosen: Longs, gradient: Floats) -> float:
    """Return the mean cross-entropy; fill its gradient."""
    batch = len(chosen)
    example, label, into = np.arange(batch), labels[chosen], gradient[:, :batch]
    # The largest logit is taken off first, so that no exponential overflows.
    below = logits[:, :batch] - logits[:, :batch].max(0)
    total = np.exp(below, out=into).sum(0)
    into /= np.float32(batch) * total
    into[label, example] -= np.float32(1 / batch)
    return float(np.mean(np.log(total) - below[label, example], dtype=np.float64))


def sgd(values: Floats, gradient: Floats, rate: float, decay: float) -> None:
    """Make one step of torch.optim.SGD without momentum."""
    _add_decay(values, gradient, decay)
    _add(values, gradient, -rate)


def momentum_sgd(
    values: Floats,
    gradient: Floats,
    buffer: Floats,
    rate: float,
    decay: float,
    momentum: float,
    fresh: float,
    nesterov: bool,
) -> None:
    """Make one step of torch.optim.SGD with momentum."""
    _add_decay(values, gradient, decay)
    torch.from_numpy(buffer).mul_(momentum)
    _add(buffer, gradient, fresh)
    # The gradient is nobody's after this, so it may hold the sum.
    if nesterov:
        _add(gradient, buffer, momentum)
    _add(values, gradient if nesterov else buffer, -rate)


def adam(
    values: Floats,
    gradient: Floats,
    mean: Floats,
    square: Floats,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    coupled: float,
    decoupled: float,
) -> None:
    """Make one step of torch.optim.Adam or AdamW."""
    _add_decay(values, gradient, coupled)
    weights, decayed, first, second = map(torch.from_numpy, (values, gradient, mean, square))
    first.lerp_(decayed, 1 - beta1)
    second.mul_(beta2).addcmul_(decayed, decayed, value=1 - beta2)
    # torch's order of operations, so that rounding is as close to its Adam as it can be.
    spread = second.sqrt().div_(math.sqrt(1 - beta2**step)).add_(eps)
    if decoupled:
        weights.mul_(1 - rate * decoupled)
    weights.addcdiv_(first, spread, value=-rate / (1 - beta1**step))


def _add_decay(values: Floats, gradient: Floats, decay: float) -> None:
    """Add decay · values to the gradient."""
    if decay:
        _add(gradient, values, decay)


def _add(into: Floats, other: Floats, times: float) -> None:
    """Add times · other to `into`."""
    torch.from_numpy(into).add_(torch.from_numpy(other), alpha=times)
