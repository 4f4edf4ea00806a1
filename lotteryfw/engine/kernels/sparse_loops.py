"""What the sparse kernel asks of its loops, which there are two sets of: `sparse_numba` and `sparse_torch`.

Everything that has a batch is feature-major, [features, width] float32 with the examples of the batch side by side, so
that the innermost loop is as long as the batch whatever the pattern, and runs over neighbouring numbers. `width` is the
batch rounded up to a multiple of `TILE`: loops without ends left over. What the added columns hold is finite, and their
gradients are 0. A pattern is CSR: the living weights of row `i` are `values[starts[i]:starts[i + 1]]`, and `columns`
says what they multiply. Loops do their sums in one order: same inputs, same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

TILE = 16
"""What the width of a batch is a multiple of: 64 bytes of float32, a cache line."""


class Layer(Protocol):
    """One Linear layer between activations x [in, width] and y [out, width]."""

    reads: Ints
    """The inputs that a living weight reads, in order."""

    def forward(self, x: Floats, y: Floats, rectify: bool) -> None:
        """y = W x + bias, or its positive part."""
        ...

    def backward(self, dy: Floats, x: Floats, dx: Floats | None) -> None:
        """Fills the layer's part of the gradient, and dx = Wᵀ dy where x > 0, else 0: the gradient before the ReLU that
        x came out of."""
        ...


class Loops(Protocol):
    """A module of loops. `values`, `gradient` and the state of an optimizer are flat, [n] float32, updated in place; an
    update may leave anything in `gradient`."""

    def gather(
        self, rows: NDArray[Any], chosen: Longs, columns: Ints, scale: float, x: Floats
    ) -> None:
        """x[j, c] = scale · rows[chosen[c], j] for the `columns` j at least; rows are [N, in], uint8 or float32."""
        ...

    def Products(
        self, shape: Sequence[int], living: Tensor, values: Tensor, gradient: Tensor, bias: Tensor,
        bias_gradient: Tensor,
    ) -> Layer:  # fmt: skip
        """The layer [out, in] = `shape` whose weights are 0 but at the flat places `living` [n] int64, in order, where
        they are `values` [n]. It reads those and `bias` [out] as they are at each call, and fills `gradient` [n] and
        `bias_gradient` [out]."""
        ...

    def cross_entropy(self, logits: Floats, labels: Longs, chosen: Longs, slope: Floats) -> float:
        """The mean of -log softmax(logits)[label] over the batch (nats), and its gradient into `slope`.

        logits and slope: [classes, width]; example c has the label labels[chosen[c]], in [0, classes).
        """
        ...

    def sgd(self, values: Floats, gradient: Floats, rate: float, decay: float) -> None:
        """One step of torch.optim.SGD without momentum."""
        ...

    def momentum_sgd(
        self, values: Floats, gradient: Floats, buffer: Floats, rate: float, decay: float, momentum: float,
        fresh: float, nesterov: bool,
    ) -> None:  # fmt: skip
        """One step of torch.optim.SGD with momentum; `fresh` is what the gradient enters the buffer times."""
        ...

    def adam(
        self, values: Floats, gradient: Floats, mean: Floats, square: Floats, step: int, rate: float, beta1: float,
        beta2: float, eps: float, coupled: float, decoupled: float,
    ) -> None:  # fmt: skip
        """Step number `step`, from 1 on, of torch.optim.Adam (`coupled` weight decay) or AdamW (`decoupled`)."""
        ...


class Pattern(NamedTuple):
    """Places of a matrix in CSR, int32 each: `starts` [rows + 1], `columns` [n]."""

    starts: Tensor
    columns: Tensor


def patterns(shape: Sequence[int], living: Tensor) -> tuple[Pattern, Pattern, Tensor]:
    """The flat places `living` of a matrix as a pattern; the pattern of its transpose; and the order [n] int64 in which
    the transpose has the same weights."""
    rows, columns = living // shape[1], living % shape[1]
    order = columns.argsort(stable=True)
    return _pattern(rows, columns, shape[0]), _pattern(columns[order], rows[order], shape[1]), order


def _pattern(rows: Tensor, columns: Tensor, count: int) -> Pattern:
    import torch

    per_row = torch.bincount(rows, minlength=count)
    return Pattern(torch.cat([per_row.new_zeros(1), per_row.cumsum(0)]).int(), columns.int())
