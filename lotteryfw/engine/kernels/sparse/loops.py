"""The interface of the sparse kernel's loops: there are `numba_loops` and `torch_loops`.

Everything that has a batch is feature-major, [features, width] float32 with the examples of the
batch side by side, so that the innermost loop is as long as the batch for every pattern, and runs
over neighbouring numbers. `width` is the batch rounded up by `whole_tiles`: loops without
remainders. The added columns hold finite numbers, and their gradients are 0. A pattern is CSR: the
kept weights of row `i` are `values[starts[i]:starts[i + 1]]`, and `columns` are their inputs. Loops
add in one order: same inputs, same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

TILE = 16
"""The width of a batch is a multiple of it: 64 bytes of float32, a cache line."""
LONG_TILE = 64
"""A wider batch is a multiple of this: as many sums as the registers of AVX2 hold at once."""


def whole_tiles(count: int) -> int:
    """Return a count rounded up to a multiple of `TILE`, or of `LONG_TILE` where it is wider."""
    tile = TILE if count <= LONG_TILE - TILE else LONG_TILE
    return -(-count // tile) * tile


@runtime_checkable
class InputReader(Protocol):
    """Takes examples out of a data set, in the form in which the first layer multiplies them."""

    def buffer(self, examples: int) -> Any:
        """Return room for so many examples, as `whole_tiles` gives it."""
        ...

    def read(self, rows: NDArray[Any], chosen: Longs, scale: float, buffer: Any) -> None:
        """Fill a buffer with scale · rows[chosen]; rows are [N, in], uint8 or float32."""
        ...


class LayerProducts(Protocol):
    """One Linear layer between activations x [in, width] and y [out, width].

    x of the first layer is a buffer of an `InputReader`, which the layer itself may be.
    """

    reads: Ints
    """The inputs that a kept weight reads, in order."""

    def forward(self, x: Any, y: Floats, rectify: bool) -> None:
        """Compute y = W x + bias, or its positive part."""
        ...

    def backward(self, dy: Floats, x: Any, dx: Floats | None) -> None:
        """Fill the layer's part of the gradient, and dx = Wᵀ dy where x > 0, else 0.

        dx is the gradient before the ReLU that x came out of.
        """
        ...


class Loops(Protocol):
    """A module of loops.

    `values`, `gradient` and the state of an optimizer are flat, [n] float32, updated in place; an
    update may leave anything in `gradient`.
    """

    def gather(
        self, rows: NDArray[Any], chosen: Longs, columns: Ints, scale: float, x: Floats
    ) -> None:
        """Set x[j, c] = scale · rows[chosen[c], j], for the `columns` j at least.

        rows are [N, in], uint8 or float32.
        """
        ...

    def Products(
        self,
        shape: Sequence[int],
        kept: Tensor,
        values: Tensor,
        gradient: Tensor,
        bias: Tensor,
        bias_gradient: Tensor,
    ) -> LayerProducts:
        """Return the layer [out, in] = `shape` whose weights are 0 but at the indices `kept`.

        `kept` [n] int64 are flat and in order; there the weights are `values` [n]. The layer reads
        those and `bias` [out] as they are at each call, and fills `gradient` [n] and
        `bias_gradient` [out].
        """
        ...

    def cross_entropy(
        self, logits: Floats, labels: Longs, chosen: Longs, gradient: Floats
    ) -> float:
        """Return the mean of -log softmax(logits)[label] over the batch (nats); fill `gradient`.

        logits and gradient: [classes, width]; example c has the label labels[chosen[c]], in
        [0, classes).
        """
        ...

    def sgd(self, values: Floats, gradient: Floats, rate: float, decay: float) -> None:
        """Make one step of torch.optim.SGD without momentum."""
        ...

    def momentum_sgd(
        self,
        values: Floats,
        gradient: Floats,
        buffer: Floats,
        rate: float,
        decay: float,
        momentum: float,
        fresh: float,
        nesterov: bool,
    ) -> None:
        """Make one step of torch.optim.SGD with momentum.

        The gradient enters the buffer `fresh` times.
        """
        ...

    def adam(
        self,
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
        """Make step number `step`, from 1 on, of torch.optim.Adam or AdamW.

        Adam has a `coupled` weight decay, AdamW a `decoupled` one.
        """
        ...


class Pattern(NamedTuple):
    """The kept entries of a matrix in CSR, int32 each: `starts` [rows + 1], `columns` [n]."""

    starts: Tensor
    columns: Tensor


def patterns(shape: Sequence[int], kept: Tensor) -> tuple[Pattern, Pattern, Tensor]:
    """Return the flat indices `kept` of a matrix as a pattern, and that of its transpose.

    The third tensor is the order [n] int64 in which the transpose has the same weights.
    """
    rows, columns = kept // shape[1], kept % shape[1]
    # Stable, so that within a column the rows stay in order and sums have one order.
    order = columns.argsort(stable=True)
    along_rows = _pattern(rows, columns, shape[0])
    along_columns = _pattern(columns[order], rows[order], shape[1])
    return along_rows, along_columns, order


def _pattern(rows: Tensor, columns: Tensor, count: int) -> Pattern:
    # int32 halves what the loops read of a pattern.
    per_row = torch.bincount(rows, minlength=count)
    return Pattern(torch.cat([per_row.new_zeros(1), per_row.cumsum(0)]).int(), columns.int())
